// Vectors that belong to columns, and runs of columns.
#include "common.cuh"

// y[row] += bias, in every row.
extern "C" __global__ void add_bias(float* __restrict__ y, const float* __restrict__ bias, size_t n, int cols) {
    for (size_t i = first_element(); i < n; i += element_step()) y[i] += bias[i % cols];
}

// y[:, first..first + width] += factor * term
extern "C" __global__ void add_columns(float* __restrict__ y, const float* __restrict__ term, size_t n, int cols, int first, int width, float factor) {
    for (size_t i = first_element(); i < n; i += element_step()) {
        float& at = y[i / width * cols + first + i % width];
        at = fmaf(term[i], factor, at);
    }
}

// out = factor * y[:, first..first + width]
extern "C" __global__ void scaled_columns(float* __restrict__ out, const float* __restrict__ y, size_t n, int cols, int first, int width, float factor) {
    for (size_t i = first_element(); i < n; i += element_step()) out[i] = factor * y[i / width * cols + first + i % width];
}

// Sums over rows, in two steps whose order depends on the number of rows alone: partial sums of 64 rows each, then those in order.
#define SUMMED_ROWS 64

// partial[chunk] = sum over the chunk's rows of y. grid: (columns / threads, chunks).
extern "C" __global__ void column_partials(float* __restrict__ partial, const float* __restrict__ y, int rows, int cols) {
    const int col = blockIdx.x * blockDim.x + threadIdx.x, first = blockIdx.y * SUMMED_ROWS;
    if (col >= cols) return;
    float sum = 0.0f;
    for (int row = first; row < min(first + SUMMED_ROWS, rows); ++row) sum += y[(size_t)row * cols + col];
    partial[(size_t)blockIdx.y * cols + col] = sum;
}

// partial[chunk] = sum over the chunk's vectors of dy * x * inverse: the gradient of a norm's weight. Vectors lie `per_row` a row of
// `stride` numbers, from column `first_col` on; there is one inverse for each.
extern "C" __global__ void norm_weight_partials(float* __restrict__ partial, const float* __restrict__ dy, const float* __restrict__ x, const float* __restrict__ inverse, int vectors, int width, int per_row, int stride, int first_col) {
    const int col = blockIdx.x * blockDim.x + threadIdx.x, first = blockIdx.y * SUMMED_ROWS;
    if (col >= width) return;
    float sum = 0.0f;
    for (int i = first; i < min(first + SUMMED_ROWS, vectors); ++i) {
        const size_t at = (size_t)(i / per_row) * stride + first_col + (i % per_row) * width + col;
        sum += dy[at] * x[at] * inverse[i];
    }
    partial[(size_t)blockIdx.y * width + col] = sum;
}

// sums += partial sums, in order.
extern "C" __global__ void add_partials(float* __restrict__ sums, const float* __restrict__ partial, int chunks, int cols) {
    const int col = blockIdx.x * blockDim.x + threadIdx.x;
    if (col >= cols) return;
    float sum = 0.0f;
    for (int chunk = 0; chunk < chunks; ++chunk) sum += partial[(size_t)chunk * cols + col];
    sums[col] += sum;
}
