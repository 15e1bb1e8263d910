// Forward pass of packed attention in f32: a block has 32 queries of one head, a warp eight of them, a lane one key of a tile of 32, and
// then every 32nd column of the values. grid: (query tiles, heads).
#include "attention.cuh"

#define QUERIES 32
#define OWN (QUERIES / WARPS)

// Shared memory: queries, then keys or values, then probabilities.
template <int COLUMNS>
__device__ __forceinline__ void forward(const float* qkv, const QueryTile* tiles, float* out, float* log_sums, const Shape& shape) {
    SHARED(float, queries);
    const int width = shape.width, columns = padded(width), warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    float *keys = queries + QUERIES * columns, *p = keys + TILE * (columns + 1) + warp * OWN * TILE;
    const QueryTile tile = tiles[blockIdx.x];
    const int head = blockIdx.y, kv = head / (shape.heads / shape.kv_heads);
    const size_t stride = stride_of(shape);
    load_rows(queries, columns, QUERIES, tile.n, width, [&](int r) { return qkv + (tile.row + r) * stride + (size_t)head * width; });
    float o[OWN][COLUMNS] = {}, top[OWN], sum[OWN] = {};
    for (int i = 0; i < OWN; ++i) top[i] = NEVER;
    const int first = tile.prefix_len + tile.first, end = first + tile.n;
    for (int at = shape.window ? max(0, first + 1 - shape.window) : 0; at < end; at += TILE) {
        const int n = min(TILE, end - at);
        __syncthreads(); // The values before these have been read.
        load_rows(keys, columns + 1, TILE, n, width, [&](int r) { return qkv + row_of(tile, at + r) * stride + key_column(shape, kv); });
        __syncthreads();
        float s[OWN];
        products<OWN>(s, queries + warp * OWN * columns, columns, keys + lane * (columns + 1), columns);
#pragma unroll
        for (int i = 0; i < OWN; ++i) {
            const bool seen = lane < n && sees(shape, first + warp * OWN + i, at + lane);
            const float x = seen ? s[i] * shape.scale : NEVER, most = fmaxf(top[i], warp_max(x)), keep = expf(top[i] - most);
            const float probability = seen ? expf(x - most) : 0.0f;
            top[i] = most;
            sum[i] = fmaf(sum[i], keep, probability);
#pragma unroll
            for (int t = 0; t < COLUMNS; ++t) o[i][t] *= keep;
            p[i * TILE + lane] = probability;
        }
        __syncthreads(); // The keys have been read; the probabilities are there.
        load_rows(keys, columns + 1, TILE, n, width, [&](int r) { return qkv + row_of(tile, at + r) * stride + value_column(shape, kv); });
        __syncthreads();
        add_weighted<OWN, COLUMNS>(o, p, keys, columns + 1, n, width);
    }
#pragma unroll
    for (int i = 0; i < OWN; ++i) {
        const int r = warp * OWN + i;
        const float total = warp_sum(sum[i]);
        if (r >= tile.n) continue;
        float* to = out + ((size_t)(tile.row + r) * shape.heads + head) * width;
#pragma unroll
        for (int t = 0; t < COLUMNS; ++t) if (lane + 32 * t < width) to[lane + 32 * t] = o[i][t] / total;
        if (lane == 0) log_sums[(size_t)(tile.row + r) * shape.heads + head] = top[i] + logf(total);
    }
}

// For heads of up to so many columns.
#define FORWARD(most)                                                                                                                       \
    extern "C" __global__ void __launch_bounds__(32 * WARPS) attention_##most(const float* __restrict__ qkv, const QueryTile* __restrict__ tiles, \
        float* __restrict__ out, float* __restrict__ log_sums, int heads, int kv_heads, int width, int window, float scale) {                 \
        forward<most / 32>(qkv, tiles, out, log_sums, {heads, kv_heads, width, window, scale});                                             \
    }
FORWARD(64)
FORWARD(128)
FORWARD(256)
