// AdamW, and sums of squares.
#include "common.cuh"

struct Factors { float b1, b2, a1, a2, step_size, root2, eps, keep; };
struct Stepped { float x, m, v; };
__device__ __forceinline__ Stepped step(const Factors& f, float x, float m, float v, float g) {
    m = fmaf(f.b1, m, f.a1 * g);
    v = fmaf(f.b2, v, f.a2 * g * g);
    return {fmaf(x, f.keep, -f.step_size * m / fmaf(sqrtf(v), f.root2, f.eps)), m, v};
}

// Of `n` numbers of the value, from one on.
extern "C" __global__ void adamw(float* __restrict__ value, size_t from, const float* __restrict__ gradient, float* __restrict__ first, float* __restrict__ second, size_t n, float gradient_scale, float b1, float b2, float a1, float a2, float step_size, float root2, float eps, float keep) {
    const Factors factors{b1, b2, a1, a2, step_size, root2, eps, keep};
    for (size_t i = first_element(); i < n; i += element_step()) {
        const Stepped next = step(factors, value[from + i], first[i], second[i], gradient[i] * gradient_scale);
        value[from + i] = next.x;
        first[i] = next.m;
        second[i] = next.v;
    }
}

// out[block] = the sum of the squares of the block's `elements` numbers, one block of threads each. Shared memory: a number a warp.
extern "C" __global__ void squares_of_blocks(float* __restrict__ out, const float* __restrict__ x, size_t n, int elements) {
    SHARED(float, partial);
    const size_t begin = (size_t)blockIdx.x * elements, end = begin + elements < n ? begin + elements : n;
    float sum = 0.0f;
    for (size_t i = begin + threadIdx.x; i < end; i += blockDim.x) sum = fmaf(x[i], x[i], sum);
    sum = block_sum(sum, partial);
    if (threadIdx.x == 0) out[blockIdx.x] = sum;
}
