// Rows that are picked by number, and sums into rows that are.
#include "common.cuh"

// out[i] = table[picked[i]]. One block a row.
extern "C" __global__ void gather_rows(float* __restrict__ out, const float* __restrict__ table, const unsigned* __restrict__ picked, int cols) {
    const float* from = table + (size_t)picked[blockIdx.x] * cols;
    float* to = out + (size_t)blockIdx.x * cols;
    for (int c = threadIdx.x; c < cols; c += blockDim.x) to[c] = from[c];
}

// sums[targets[run]] += the rows of `x` that `order` names from starts[run] to starts[run + 1], one after another. One block a run:
// rows of the same target are one run, so each target is written once.
extern "C" __global__ void add_runs_of_rows(float* __restrict__ sums, const float* __restrict__ x, const unsigned* __restrict__ targets, const unsigned* __restrict__ starts, const unsigned* __restrict__ order, int cols) {
    float* to = sums + (size_t)targets[blockIdx.x] * cols;
    const unsigned begin = starts[blockIdx.x], end = starts[blockIdx.x + 1];
    for (int c = threadIdx.x; c < cols; c += blockDim.x) {
        float sum = to[c];
        for (unsigned i = begin; i < end; ++i) sum += x[(size_t)order[i] * cols + c];
        to[c] = sum;
    }
}
