// What the passes of packed attention on tensor cores share. Factors are bf16, sums f32. A matrix of 16 rows is held by a warp: of each 8
// columns, lane 4 g + t has columns 2 t and 2 t + 1 of rows g and g + 8.
#pragma once
#include "attention.cuh"
#include "mma.cuh"

#define LOG2_E 1.4426950408889634f
#define LN_2 0.6931471805599453f

// Rows of D numbers lie in shared memory an odd number of 16 bytes apart: eight of them touch all banks once.
template <int D>
__device__ __forceinline__ constexpr int row_stride() { return D + 8; }

// Begins to copy ROWS rows of `width` numbers, zeros beyond `n` rows and beyond the width; `from(r)` says where a row begins.
template <int D, int ROWS, class From>
__device__ __forceinline__ void copy_rows(bf16* to, int n, int width, From from) {
#pragma unroll 1 // They go on by themselves; unrolled, they are most of the code.
    for (int i = threadIdx.x; i < ROWS * (D / 8); i += 32 * WARPS) {
        const int r = i / (D / 8), c = i % (D / 8) * 8;
        const bool is_there = r < n && c < width;
        copy_16_bytes(to + r * row_stride<D>() + c, is_there ? from(r) + c : from(0), is_there);
    }
}

// Columns 16 k to 16 k + 15 of 16 rows, as the left factor of a product.
template <int D>
__device__ __forceinline__ void left_factor(unsigned (&a)[4], const bf16* rows, int k) {
    const int lane = threadIdx.x % 32;
    load_4_matrices(a, rows + lane % 16 * row_stride<D>() + 16 * k + lane / 16 * 8);
}

// sums (16 x N) += left . rows^T, over all D columns of N rows. `left(a, k)` gives the left factor's columns from 16 k on.
template <int D, int N, class Left>
__device__ __forceinline__ void add_products(float (&sums)[N / 8][4], Left left, const bf16* rows) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < D / 16; ++k) {
        unsigned a[4], b[4];
        left(a, k);
#pragma unroll
        for (int j = 0; j < N / 16; ++j) {
            load_4_matrices(b, rows + (16 * j + lane / 16 * 8 + lane % 8) * row_stride<D>() + 16 * k + lane / 8 % 2 * 8);
            multiply_add(sums[2 * j], a, b[0], b[1]);
            multiply_add(sums[2 * j + 1], a, b[2], b[3]);
        }
    }
}

// sums (16 x COLUMNS) += weights (16 x N, rounded) . rows, of whose columns `rows` is the first one that is meant.
template <int D, int N, int COLUMNS>
__device__ __forceinline__ void add_weighted_rows(float (&sums)[COLUMNS / 8][4], const float (&weights)[N / 8][4], const bf16* rows) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < N / 16; ++k) {
        unsigned a[4], b[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) a[i] = rounded_pair(weights[2 * k + i / 2][i % 2 * 2], weights[2 * k + i / 2][i % 2 * 2 + 1]);
#pragma unroll
        for (int j = 0; j < COLUMNS / 16; ++j) {
            load_4_transposed(b, rows + (16 * k + lane / 8 % 2 * 8 + lane % 8) * row_stride<D>() + 16 * j + lane / 16 * 8);
            multiply_add(sums[2 * j], a, b[0], b[1]);
            multiply_add(sums[2 * j + 1], a, b[2], b[3]);
        }
    }
}

// Two neighbours of a row.
__device__ __forceinline__ void store_pair(float* to, float first, float second) { *reinterpret_cast<float2*>(to) = float2{first, second}; }

// Over the four lanes that share a row.
__device__ __forceinline__ float row_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 1));
    return fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 2));
}
__device__ __forceinline__ float row_sum(float x) {
    x += __shfl_xor_sync(ALL_LANES, x, 1);
    return x + __shfl_xor_sync(ALL_LANES, x, 2);
}

// Whether all of 16 queries, from position `query` on, see all of KEYS keys from `key` on, of which `n` are there.
template <int KEYS>
__device__ __forceinline__ bool see_all(const Shape& s, int query, int key, int n) {
    return n == KEYS && key + KEYS - 1 <= query && (s.window == 0 || key > query + 15 - s.window);
}
