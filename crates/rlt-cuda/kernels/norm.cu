// Root mean square norms of rows. One block a row; shared memory: a number a warp.
#include "common.cuh"

__device__ __forceinline__ float inverse_rms(const float* x, int cols, float eps, float* partial) {
    float squares = 0.0f;
    for (int c = threadIdx.x; c < cols; c += blockDim.x) squares = fmaf(x[c], x[c], squares);
    return 1.0f / sqrtf(block_sum(squares, partial) / (float)cols + eps);
}

// y = x / rms(x) * weight
extern "C" __global__ void rms_norm(float* __restrict__ y, float* __restrict__ inverse, const float* __restrict__ x, const float* __restrict__ weight, int cols, float eps) {
    SHARED(float, partial);
    const size_t at = (size_t)blockIdx.x * cols;
    const float r = inverse_rms(x + at, cols, eps, partial);
    for (int c = threadIdx.x; c < cols; c += blockDim.x) y[at + c] = x[at + c] * r * weight[c];
    if (threadIdx.x == 0) inverse[blockIdx.x] = r;
}

// The same from the inverse that is known.
extern "C" __global__ void rms_norm_again(float* __restrict__ y, const float* __restrict__ inverse, const float* __restrict__ x, const float* __restrict__ weight, int cols) {
    const size_t at = (size_t)blockIdx.x * cols;
    const float r = inverse[blockIdx.x];
    for (int c = threadIdx.x; c < cols; c += blockDim.x) y[at + c] = x[at + c] * r * weight[c];
}

// x += y / rms(y) * weight
extern "C" __global__ void add_rms_norm(float* __restrict__ x, float* __restrict__ inverse, const float* __restrict__ y, const float* __restrict__ weight, int cols, float eps) {
    SHARED(float, partial);
    const size_t at = (size_t)blockIdx.x * cols;
    const float r = inverse_rms(y + at, cols, eps, partial);
    for (int c = threadIdx.x; c < cols; c += blockDim.x) x[at + c] += y[at + c] * r * weight[c];
    if (threadIdx.x == 0) inverse[blockIdx.x] = r;
}

// dx += r * (g - x * r^2 * mean(g * x)), with g = dy * weight.
extern "C" __global__ void rms_norm_backward(float* __restrict__ dx, const float* __restrict__ dy, const float* __restrict__ x, const float* __restrict__ weight, const float* __restrict__ inverse, int cols) {
    SHARED(float, partial);
    const size_t at = (size_t)blockIdx.x * cols;
    float dot = 0.0f;
    for (int c = threadIdx.x; c < cols; c += blockDim.x) dot = fmaf(dy[at + c] * weight[c], x[at + c], dot);
    const float r = inverse[blockIdx.x], common = r * r * r * (block_sum(dot, partial) / (float)cols);
    for (int c = threadIdx.x; c < cols; c += blockDim.x) dx[at + c] += dy[at + c] * weight[c] * r - common * x[at + c];
}
