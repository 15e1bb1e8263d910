// AdamW, and sums of squares.
#include "bf16.cuh"

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

// Bits that look random, from a key and a counter (the finaliser of MurmurHash3 over both), the processor's.
__device__ __forceinline__ unsigned random_bits(unsigned key, unsigned counter) {
    unsigned h = key ^ counter * 0x9e3779b9u;
    h = (h ^ h >> 16) * 0x85ebca6bu;
    h = (h ^ h >> 13) * 0xc2b2ae35u;
    return h ^ h >> 16;
}

// Up when the 16 lower bits of `random` and of the value carry, down otherwise: the mean over all `random` is the value.
__device__ __forceinline__ bf16 rounded_at_random(float value, unsigned random) { return (bf16)(__float_as_uint(value) + (random & 0xffff) >> 16); }

// As above with moments in bf16, whose rounding is that of the elements from `counter` on under two keys.
extern "C" __global__ void adamw_bf16(float* __restrict__ value, size_t from, const float* __restrict__ gradient, bf16* __restrict__ first, bf16* __restrict__ second, size_t n, int counter, int first_key, int second_key, float gradient_scale, float b1, float b2, float a1, float a2, float step_size, float root2, float eps, float keep) {
    const Factors factors{b1, b2, a1, a2, step_size, root2, eps, keep};
    for (size_t i = first_element(); i < n; i += element_step()) {
        const Stepped next = step(factors, value[from + i], widened(first[i]), widened(second[i]), gradient[i] * gradient_scale);
        value[from + i] = next.x;
        first[i] = rounded_at_random(next.m, random_bits(first_key, (unsigned)counter + (unsigned)i));
        second[i] = rounded_at_random(next.v, random_bits(second_key, (unsigned)counter + (unsigned)i));
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
