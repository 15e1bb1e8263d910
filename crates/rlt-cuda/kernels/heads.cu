// Norms and rotations of the heads in rows of packed queries, keys and values: one warp a head.
#include "common.cuh"

// Which head this warp has: the row, and where the head begins in it.
struct Head {
    bool is_there;
    int row;
    size_t at;
};
__device__ __forceinline__ Head this_head(int rows, int heads, int width, int stride, int first_col) {
    const int number = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    const int row = number / heads;
    return {row < rows, row, (size_t)row * stride + first_col + (number % heads) * width};
}

__device__ __forceinline__ float inverse_rms(const float* x, int width, float eps) {
    float squares = 0.0f;
    for (int c = threadIdx.x % 32; c < width; c += 32) squares = fmaf(x[c], x[c], squares);
    return 1.0f / sqrtf(warp_sum(squares) / (float)width + eps);
}

extern "C" __global__ void head_norm(float* __restrict__ x, const float* __restrict__ weight, int rows, int heads, int width, int stride, int first_col, float eps) {
    const Head head = this_head(rows, heads, width, stride, first_col);
    if (!head.is_there) return;
    const float r = inverse_rms(x + head.at, width, eps);
    for (int c = threadIdx.x % 32; c < width; c += 32) x[head.at + c] = x[head.at + c] * r * weight[c];
}

// inverse[row, head]
extern "C" __global__ void head_inverses(float* __restrict__ inverse, const float* __restrict__ x, int rows, int heads, int width, int stride, int first_col, float eps) {
    const Head head = this_head(rows, heads, width, stride, first_col);
    if (!head.is_there) return;
    const float r = inverse_rms(x + head.at, width, eps);
    if (threadIdx.x % 32 == 0) inverse[blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32] = r;
}

// The gradient of the norm's output becomes that of its input, `x`.
extern "C" __global__ void head_norm_backward(float* __restrict__ dx, const float* __restrict__ x, const float* __restrict__ weight, const float* __restrict__ inverse, int rows, int heads, int width, int stride, int first_col) {
    const Head head = this_head(rows, heads, width, stride, first_col);
    if (!head.is_there) return;
    float dot = 0.0f;
    for (int c = threadIdx.x % 32; c < width; c += 32) dot = fmaf(dx[head.at + c] * weight[c], x[head.at + c], dot);
    const float r = inverse[blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32];
    const float common = r * r * r * (warp_sum(dot) / (float)width);
    for (int c = threadIdx.x % 32; c < width; c += 32) dx[head.at + c] = dx[head.at + c] * weight[c] * r - common * x[head.at + c];
}

// Element i of a head and element i + width / 2 are rotated by the angle of the row's position; `sign` -1 turns back.
extern "C" __global__ void rotate(float* __restrict__ x, const unsigned* __restrict__ positions, const float* __restrict__ cosines, const float* __restrict__ sines, int rows, int heads, int width, int stride, int first_col, float sign) {
    const Head head = this_head(rows, heads, width, stride, first_col);
    if (!head.is_there) return;
    const int half = width / 2;
    const size_t angle = (size_t)positions[head.row] * half;
    for (int i = threadIdx.x % 32; i < half; i += 32) {
        const float c = cosines[angle + i], s = sines[angle + i] * sign;
        const float a = x[head.at + i], b = x[head.at + half + i];
        x[head.at + i] = a * c - b * s;
        x[head.at + half + i] = b * c + a * s;
    }
}
