// What the passes of packed attention share. Rows of a batch hold queries, keys and values side by side; a segment's tokens see the
// whole of its prefix segment, where it has one, and their own segment causally. Scores never leave the chip.
#pragma once
#include "common.cuh"

#define WARPS 4
#define TILE 32 // what a warp's lanes share out: keys for queries, queries for keys

// `n` queries of a segment, from its token `first` on, in row `row`.
struct QueryTile { int row, n, first, own_row, prefix_row, prefix_len; };

// `n` keys of a segment of `own_len` tokens, from its token `first` on, in row `row`; before the segment are `offset` tokens, after it
// come `n_children` segments that have it as their prefix.
struct KeyTile { int row, n, first, own_row, own_len, offset, children, n_children; };
struct Span { int row, len; };

// Columns of a head in shared memory: whole float4s.
__device__ __forceinline__ int padded(int width) { return (width + 3) / 4 * 4; }

// Where heads lie in a row of `stride` numbers.
struct Shape { int heads, kv_heads, width, window; float scale; };
__device__ __forceinline__ size_t stride_of(const Shape& s) { return (size_t)(s.heads + 2 * s.kv_heads) * s.width; }
__device__ __forceinline__ size_t key_column(const Shape& s, int kv) { return (size_t)(s.heads + kv) * s.width; }
__device__ __forceinline__ size_t value_column(const Shape& s, int kv) { return (size_t)(s.heads + s.kv_heads + kv) * s.width; }

__device__ __forceinline__ bool sees(const Shape& s, int query, int key) { return key <= query && (s.window == 0 || key > query - s.window); }

// Row of the token at `position` for a tile's queries.
__device__ __forceinline__ int row_of(const QueryTile& tile, int position) {
    return position < tile.prefix_len ? tile.prefix_row + position : tile.own_row + position - tile.prefix_len;
}

// `rows` rows of `width` numbers into shared rows of `to_stride`, zeros beyond `n` rows and beyond the width; `from(r)` says where a row
// begins.
template <class From>
__device__ __forceinline__ void load_rows(float* to, int to_stride, int rows, int n, int width, From from) {
    const int columns = padded(width);
    for (int i = threadIdx.x; i < rows * columns; i += blockDim.x) {
        const int r = i / columns, c = i % columns;
        to[r * to_stride + c] = r < n && c < width ? from(r)[c] : 0.0f;
    }
}

// Products of `N` rows `a` (float4s, the same for all lanes) with this lane's row `b`.
template <int N>
__device__ __forceinline__ void products(float (&out)[N], const float* a, int a_stride, const float* b, int columns) {
    for (int i = 0; i < N; ++i) out[i] = 0.0f;
    for (int c = 0; c < columns; c += 4) {
        const float b0 = b[c], b1 = b[c + 1], b2 = b[c + 2], b3 = b[c + 3];
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const float4 x = *reinterpret_cast<const float4*>(a + i * a_stride + c);
            out[i] = fmaf(x.x, b0, fmaf(x.y, b1, fmaf(x.z, b2, fmaf(x.w, b3, out[i]))));
        }
    }
}

// sums[i][t] += the sum over `n` of weights[i][j] * rows[j][lane + 32 t].
template <int N, int COLUMNS>
__device__ __forceinline__ void add_weighted(float (&sums)[N][COLUMNS], const float* weights, const float* rows, int stride, int n, int width) {
    const int lane = threadIdx.x % 32;
    for (int j = 0; j < n; ++j) {
        float x[COLUMNS];
#pragma unroll
        for (int t = 0; t < COLUMNS; ++t) x[t] = lane + 32 * t < width ? rows[j * stride + lane + 32 * t] : 0.0f;
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const float w = weights[i * TILE + j];
#pragma unroll
            for (int t = 0; t < COLUMNS; ++t) sums[i][t] = fmaf(w, x[t], sums[i][t]);
        }
    }
}
