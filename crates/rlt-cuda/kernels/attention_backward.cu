// Backward pass of packed attention in f32. The gradients of queries are written by blocks that have queries, those of keys and values by
// blocks that have keys: every number once, its sum in one order.
#include "attention.cuh"

#define ROWS 16 // of a block
#define OWN (ROWS / WARPS)

// delta[row, head] = out . dout, one warp each.
extern "C" __global__ void attention_delta(float* __restrict__ delta, const float* __restrict__ out, const float* __restrict__ dout, int n, int width) {
    const int at = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (at >= n) return;
    float sum = 0.0f;
    for (int c = threadIdx.x % 32; c < width; c += 32) sum = fmaf(out[(size_t)at * width + c], dout[(size_t)at * width + c], sum);
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) delta[at] = sum;
}

// grid: (query tiles of 16, heads). A lane has one key of a tile. Shared memory: queries, output gradients, keys, values, score gradients.
template <int COLUMNS>
__device__ __forceinline__ void of_queries(const float* qkv, const float* dout, const float* log_sums, const float* delta, const QueryTile* tiles, float* dqkv, const Shape& shape) {
    SHARED(float, queries);
    const int width = shape.width, columns = padded(width), warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    float *douts = queries + ROWS * columns, *keys = douts + ROWS * columns, *values = keys + TILE * (columns + 1);
    float* ds = values + TILE * (columns + 1) + warp * OWN * TILE;
    const QueryTile tile = tiles[blockIdx.x];
    const int head = blockIdx.y, kv = head / (shape.heads / shape.kv_heads);
    const size_t stride = stride_of(shape);
    load_rows(queries, columns, ROWS, tile.n, width, [&](int r) { return qkv + (tile.row + r) * stride + (size_t)head * width; });
    load_rows(douts, columns, ROWS, tile.n, width, [&](int r) { return dout + ((size_t)(tile.row + r) * shape.heads + head) * width; });
    float dq[OWN][COLUMNS] = {}, log_sum[OWN], own_delta[OWN];
    for (int i = 0; i < OWN; ++i) {
        const int r = min(warp * OWN + i, tile.n - 1);
        log_sum[i] = log_sums[(size_t)(tile.row + r) * shape.heads + head];
        own_delta[i] = delta[(size_t)(tile.row + r) * shape.heads + head];
    }
    const int first = tile.prefix_len + tile.first, end = first + tile.n;
    for (int at = shape.window ? max(0, first + 1 - shape.window) : 0; at < end; at += TILE) {
        const int n = min(TILE, end - at);
        __syncthreads(); // Keys and values before these have been read.
        load_rows(keys, columns + 1, TILE, n, width, [&](int r) { return qkv + row_of(tile, at + r) * stride + key_column(shape, kv); });
        load_rows(values, columns + 1, TILE, n, width, [&](int r) { return qkv + row_of(tile, at + r) * stride + value_column(shape, kv); });
        __syncthreads();
        float s[OWN], dp[OWN];
        products<OWN>(s, queries + warp * OWN * columns, columns, keys + lane * (columns + 1), columns);
        products<OWN>(dp, douts + warp * OWN * columns, columns, values + lane * (columns + 1), columns);
#pragma unroll
        for (int i = 0; i < OWN; ++i) {
            const bool seen = lane < n && sees(shape, first + warp * OWN + i, at + lane);
            const float p = seen ? expf(s[i] * shape.scale - log_sum[i]) : 0.0f;
            ds[i * TILE + lane] = p * (dp[i] - own_delta[i]) * shape.scale;
        }
        __syncwarp();
        add_weighted<OWN, COLUMNS>(dq, ds, keys, columns + 1, n, width);
    }
    for (int i = 0; i < OWN; ++i) {
        const int r = warp * OWN + i;
        if (r >= tile.n) continue;
        float* to = dqkv + (tile.row + r) * stride + (size_t)head * width;
        for (int t = 0; t < COLUMNS; ++t) if (lane + 32 * t < width) to[lane + 32 * t] = dq[i][t];
    }
}

// grid: (key tiles of 16, key/value heads). A lane has one query of a tile. Shared memory: keys, values, queries, output gradients, then
// probabilities and afterwards score gradients.
template <int COLUMNS>
__device__ __forceinline__ void of_keys(const float* qkv, const float* dout, const float* log_sums, const float* delta, const KeyTile* tiles, const Span* children, float* dqkv, const Shape& shape) {
    SHARED(float, keys);
    const int width = shape.width, columns = padded(width), warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    float *values = keys + ROWS * columns, *queries = values + ROWS * columns, *douts = queries + TILE * (columns + 1);
    float* weights = douts + TILE * (columns + 1) + warp * OWN * TILE;
    const KeyTile tile = tiles[blockIdx.x];
    const int kv = blockIdx.y, group = shape.heads / shape.kv_heads;
    const size_t stride = stride_of(shape);
    load_rows(keys, columns, ROWS, tile.n, width, [&](int r) { return qkv + (tile.row + r) * stride + key_column(shape, kv); });
    load_rows(values, columns, ROWS, tile.n, width, [&](int r) { return qkv + (tile.row + r) * stride + value_column(shape, kv); });
    float dk[OWN][COLUMNS] = {}, dv[OWN][COLUMNS] = {};
    const int key = tile.offset + tile.first; // position of the first key
    for (int head = kv * group; head < (kv + 1) * group; ++head)
        // The own segment's queries from the first key on, then those of all children.
        for (int run = -1; run < tile.n_children; ++run) {
            const Span span = run < 0 ? Span{tile.own_row, tile.own_len} : children[tile.children + run];
            const int before = run < 0 ? tile.offset : tile.offset + tile.own_len;
            const int last = shape.window ? min(span.len, key + tile.n - 1 + shape.window - before) : span.len;
            for (int at = run < 0 ? tile.first : 0; at < last; at += TILE) {
                const int n = min(TILE, last - at);
                __syncthreads(); // Queries before these have been read.
                load_rows(queries, columns + 1, TILE, n, width, [&](int r) { return qkv + (span.row + at + r) * stride + (size_t)head * width; });
                load_rows(douts, columns + 1, TILE, n, width, [&](int r) { return dout + ((size_t)(span.row + at + r) * shape.heads + head) * width; });
                __syncthreads();
                const size_t row = (size_t)(span.row + at + min(lane, n - 1)) * shape.heads + head;
                const float log_sum = log_sums[row], own_delta = delta[row];
                float s[OWN], dp[OWN];
                products<OWN>(s, keys + warp * OWN * columns, columns, queries + lane * (columns + 1), columns);
                products<OWN>(dp, values + warp * OWN * columns, columns, douts + lane * (columns + 1), columns);
#pragma unroll
                for (int i = 0; i < OWN; ++i) {
                    const bool seen = lane < n && sees(shape, before + at + lane, key + warp * OWN + i);
                    const float p = seen ? expf(s[i] * shape.scale - log_sum) : 0.0f;
                    weights[i * TILE + lane] = p;
                    s[i] = p * (dp[i] - own_delta) * shape.scale;
                }
                __syncwarp();
                add_weighted<OWN, COLUMNS>(dv, weights, douts, columns + 1, n, width);
                __syncwarp();
                for (int i = 0; i < OWN; ++i) weights[i * TILE + lane] = s[i];
                __syncwarp();
                add_weighted<OWN, COLUMNS>(dk, weights, queries, columns + 1, n, width);
            }
        }
    for (int i = 0; i < OWN; ++i) {
        const int r = warp * OWN + i;
        if (r >= tile.n) continue;
        float* row = dqkv + (tile.row + r) * stride;
        for (int t = 0; t < COLUMNS; ++t) {
            if (lane + 32 * t >= width) continue;
            row[key_column(shape, kv) + lane + 32 * t] = dk[i][t];
            row[value_column(shape, kv) + lane + 32 * t] = dv[i][t];
        }
    }
}

#define BACKWARD(most)                                                                                                                      \
    extern "C" __global__ void __launch_bounds__(32 * WARPS) attention_queries_##most(const float* __restrict__ qkv, const float* __restrict__ dout, \
        const float* __restrict__ log_sums, const float* __restrict__ delta, const QueryTile* __restrict__ tiles, float* __restrict__ dqkv, \
        int heads, int kv_heads, int width, int window, float scale) {                                                                      \
        of_queries<most / 32>(qkv, dout, log_sums, delta, tiles, dqkv, {heads, kv_heads, width, window, scale});                            \
    }                                                                                                                                       \
    extern "C" __global__ void __launch_bounds__(32 * WARPS) attention_keys_##most(const float* __restrict__ qkv, const float* __restrict__ dout, \
        const float* __restrict__ log_sums, const float* __restrict__ delta, const KeyTile* __restrict__ tiles, const Span* __restrict__ children, \
        float* __restrict__ dqkv, int heads, int kv_heads, int width, int window, float scale) {                                            \
        of_keys<most / 32>(qkv, dout, log_sums, delta, tiles, children, dqkv, {heads, kv_heads, width, window, scale});                     \
    }
BACKWARD(64)
BACKWARD(128)
BACKWARD(256)
