// Between f32 and bf16.
#include "bf16.cuh"

// Two numbers a word. An odd one out has zero beside it.
extern "C" __global__ void round_numbers(unsigned* __restrict__ out, const float* __restrict__ x, size_t n) {
    for (size_t i = first_element(); i < (n + 1) / 2; i += element_step()) out[i] = rounded_pair(x[2 * i], 2 * i + 1 < n ? x[2 * i + 1] : 0.0f);
}

extern "C" __global__ void widen_numbers(float* __restrict__ out, const bf16* __restrict__ x, size_t n) {
    for (size_t i = first_element(); i < n; i += element_step()) out[i] = widened(x[i]);
}

// out[i] = table[picked[i]], widened. One block a row.
extern "C" __global__ void gather_widened_rows(float* __restrict__ out, const bf16* __restrict__ table, const unsigned* __restrict__ picked, int cols) {
    const bf16* from = table + (size_t)picked[blockIdx.x] * cols;
    float* to = out + (size_t)blockIdx.x * cols;
    for (int c = threadIdx.x; c < cols; c += blockDim.x) to[c] = widened(from[c]);
}
