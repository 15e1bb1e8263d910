// Backward pass of packed attention on tensor cores (FlashAttention-2, arXiv 2307.08691). The gradients of queries are written by blocks
// that have queries, those of keys and values by blocks that have keys: every number once, its sum in one order.
#include "attention_bf16.cuh"

#define ROWS 64 // of a block, 16 a warp

// Rows of a tile that passes by. Beside heads of 256 columns there is shared memory for fewer.
template <int D>
__device__ __forceinline__ constexpr int tile_rows() { return D <= 128 ? 32 : 16; }

// grid: (query tiles of 64, heads). Shared memory: queries, output gradients, then keys and values of two tiles by turns.
template <int D>
__device__ __forceinline__ void of_queries(const bf16* qkv, const bf16* dout, const float* log_sums, const float* delta, const QueryTile* tiles, float* dqkv, const Shape& shape) {
    SHARED(bf16, queries);
    constexpr int ROW = row_stride<D>(), KEYS = tile_rows<D>();
    bf16 *douts = queries + ROWS * ROW, *pairs = douts + ROWS * ROW;
    const QueryTile tile = tiles[blockIdx.x];
    const int width = shape.width, warp = threadIdx.x / 32, lane = threadIdx.x % 32, head = blockIdx.y, kv = head / (shape.heads / shape.kv_heads);
    const size_t stride = stride_of(shape);
    const int first = tile.prefix_len + tile.first, end = first + tile.n;
    const auto copy_keys_and_values = [&](bf16* to, int at) {
        const bf16 *keys = qkv + key_column(shape, kv), *values = qkv + value_column(shape, kv);
        const int n = min(KEYS, end - at);
        copy_rows<D, KEYS>(to, n, width, [&](int r) { return keys + row_of(tile, at + r) * stride; });
        copy_rows<D, KEYS>(to + KEYS * ROW, n, width, [&](int r) { return values + row_of(tile, at + r) * stride; });
        end_of_copies();
    };
    int at = shape.window ? max(0, first + 1 - shape.window) : 0;
    copy_rows<D, ROWS>(queries, tile.n, width, [&](int r) { return qkv + (tile.row + r) * stride + (size_t)head * width; });
    copy_rows<D, ROWS>(douts, tile.n, width, [&](int r) { return dout + ((size_t)(tile.row + r) * shape.heads + head) * width; });
    copy_keys_and_values(pairs, at);
    float dq[D / 8][4] = {}, log_sum[2], own_delta[2];
    for (int half = 0; half < 2; ++half) {
        const size_t vector = (size_t)(tile.row + min(16 * warp + lane / 4 + 8 * half, tile.n - 1)) * shape.heads + head;
        log_sum[half] = log_sums[vector] * LOG2_E;
        own_delta[half] = delta[vector];
    }
    const float scale = shape.scale * LOG2_E;
    const int own_first = first + 16 * warp;
    for (bf16 *keys = pairs, *others = pairs + 2 * KEYS * ROW;; at += KEYS) {
        wait_for_copies<0>();
        __syncthreads(); // This tile is there, and the one before it has been read.
        if (at + KEYS < end) copy_keys_and_values(others, at + KEYS);
        float s[KEYS / 8][4] = {}, dp[KEYS / 8][4] = {};
        add_products<D, KEYS>(s, [&](unsigned (&a)[4], int k) { left_factor<D>(a, queries + 16 * warp * ROW, k); }, keys);
        add_products<D, KEYS>(dp, [&](unsigned (&a)[4], int k) { left_factor<D>(a, douts + 16 * warp * ROW, k); }, keys + KEYS * ROW);
        const int n = min(KEYS, end - at);
        const bool all_seen = see_all<KEYS>(shape, own_first, at, n);
#pragma unroll
        for (int j = 0; j < KEYS / 8; ++j)
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int key = 8 * j + lane % 4 * 2 + i % 2, query = own_first + lane / 4 + i / 2 * 8;
                const bool seen = all_seen || (key < n && sees(shape, query, at + key));
                const float p = seen ? exp2f(s[j][i] * scale - log_sum[i / 2]) : 0.0f;
                s[j][i] = seen ? p * (dp[j][i] - own_delta[i / 2]) * shape.scale : 0.0f;
            }
        add_weighted_rows<D, KEYS, D>(dq, s, keys);
        if (at + KEYS >= end) break;
        bf16* next = others;
        others = keys;
        keys = next;
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int r = 16 * warp + lane / 4 + 8 * half;
        if (r >= tile.n) continue;
        float* to = dqkv + (tile.row + r) * stride + (size_t)head * width;
#pragma unroll
        for (int j = 0; j < D / 8; ++j)
            if (8 * j < width) store_pair(to + 8 * j + lane % 4 * 2, dq[j][2 * half], dq[j][2 * half + 1]);
    }
}

// A tile of queries: those of a head from token `at` of a run of rows on, which has `last` tokens and `before` tokens before it.
struct Queries { int head, run, at, last, before, row; };

// grid: (key tiles of 64, key/value heads times parts). Scores lie the other way round: a warp has 16 keys. Shared memory: keys, values, then
// queries and output gradients of two tiles by turns. Of heads of 256 columns a block has half of the gradients: registers hold no more.
template <int D>
__device__ __forceinline__ void of_keys(const bf16* qkv, const bf16* dout, const float* log_sums, const float* delta, const KeyTile* tiles, const Span* children, float* dqkv, const Shape& shape) {
    SHARED(bf16, keys);
    constexpr int ROW = row_stride<D>(), QUERIES = tile_rows<D>(), PARTS = D <= 128 ? 1 : 2, COLUMNS = D / PARTS;
    bf16 *values = keys + ROWS * ROW, *pairs = values + ROWS * ROW;
    const KeyTile tile = tiles[blockIdx.x];
    const int width = shape.width, warp = threadIdx.x / 32, lane = threadIdx.x % 32, kv = blockIdx.y / PARTS, first_column = blockIdx.y % PARTS * COLUMNS;
    const int group = shape.heads / shape.kv_heads, key = tile.offset + tile.first; // position of the first key
    const size_t stride = stride_of(shape);
    // The own segment's queries from the first key on, then those of all children; then the same of the next head.
    const auto begin_run = [&](Queries& q) {
        const Span span = q.run < 0 ? Span{tile.own_row, tile.own_len} : children[tile.children + q.run];
        q.row = span.row;
        q.before = q.run < 0 ? tile.offset : tile.offset + tile.own_len;
        q.last = shape.window ? min(span.len, key + tile.n - 1 + shape.window - q.before) : span.len;
        q.at = q.run < 0 ? tile.first : 0;
    };
    const auto go_on = [&](Queries& q) {
        for (q.at += QUERIES; q.at >= q.last; begin_run(q))
            if (++q.run == tile.n_children) {
                q.run = -1;
                if (++q.head == (kv + 1) * group) return false;
            }
        return true;
    };
    const auto copy_queries = [&](bf16* to, const Queries& q) {
        const int n = min(QUERIES, q.last - q.at);
        copy_rows<D, QUERIES>(to, n, width, [&](int r) { return qkv + (q.row + q.at + r) * stride + (size_t)q.head * width; });
        copy_rows<D, QUERIES>(to + QUERIES * ROW, n, width, [&](int r) { return dout + ((size_t)(q.row + q.at + r) * shape.heads + q.head) * width; });
        end_of_copies();
    };
    copy_rows<D, ROWS>(keys, tile.n, width, [&](int r) { return qkv + (tile.row + r) * stride + key_column(shape, kv); });
    copy_rows<D, ROWS>(values, tile.n, width, [&](int r) { return qkv + (tile.row + r) * stride + value_column(shape, kv); });
    Queries q{kv * group, -1, 0, 0, 0, 0}, next;
    begin_run(q);
    copy_queries(pairs, q);
    float dk[COLUMNS / 8][4] = {}, dv[COLUMNS / 8][4] = {};
    const float scale = shape.scale * LOG2_E;
    for (bf16 *queries = pairs, *others = pairs + 2 * QUERIES * ROW;; q = next) {
        wait_for_copies<0>();
        __syncthreads(); // This tile is there, and the one before it has been read.
        next = q;
        const bool goes_on = go_on(next);
        if (goes_on) copy_queries(others, next);
        const bf16* douts = queries + QUERIES * ROW;
        float s[QUERIES / 8][4] = {}, dp[QUERIES / 8][4] = {};
        add_products<D, QUERIES>(s, [&](unsigned (&a)[4], int k) { left_factor<D>(a, keys + 16 * warp * ROW, k); }, queries);
        add_products<D, QUERIES>(dp, [&](unsigned (&a)[4], int k) { left_factor<D>(a, values + 16 * warp * ROW, k); }, douts);
        const int n = min(QUERIES, q.last - q.at);
#pragma unroll
        for (int j = 0; j < QUERIES / 8; ++j)
#pragma unroll
            for (int pair = 0; pair < 2; ++pair) {
                const int query = 8 * j + lane % 4 * 2 + pair;
                const size_t vector = (size_t)(q.row + q.at + min(query, n - 1)) * shape.heads + q.head;
                const float log_sum = log_sums[vector] * LOG2_E, its_delta = delta[vector];
#pragma unroll
                for (int i = pair; i < 4; i += 2) {
                    const bool seen = query < n && sees(shape, q.before + q.at + query, key + 16 * warp + lane / 4 + i / 2 * 8);
                    const float p = seen ? exp2f(s[j][i] * scale - log_sum) : 0.0f;
                    s[j][i] = p;
                    dp[j][i] = seen ? p * (dp[j][i] - its_delta) * shape.scale : 0.0f;
                }
            }
        add_weighted_rows<D, QUERIES, COLUMNS>(dv, s, douts + first_column);
        add_weighted_rows<D, QUERIES, COLUMNS>(dk, dp, queries + first_column);
        if (!goes_on) break;
        bf16* swapped = others;
        others = queries;
        queries = swapped;
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int r = 16 * warp + lane / 4 + 8 * half;
        if (r >= tile.n) continue;
        float* row = dqkv + (tile.row + r) * stride + first_column + lane % 4 * 2;
#pragma unroll
        for (int j = 0; j < COLUMNS / 8; ++j) {
            if (first_column + 8 * j >= width) continue;
            store_pair(row + key_column(shape, kv) + 8 * j, dk[j][2 * half], dk[j][2 * half + 1]);
            store_pair(row + value_column(shape, kv) + 8 * j, dv[j][2 * half], dv[j][2 * half + 1]);
        }
    }
}

// For heads of up to so many columns, of whole eights.
#define BACKWARD(most)                                                                                                                        \
    extern "C" __global__ void __launch_bounds__(32 * WARPS) attention_bf16_queries_##most(const bf16* __restrict__ qkv, const bf16* __restrict__ dout, \
        const float* __restrict__ log_sums, const float* __restrict__ delta, const QueryTile* __restrict__ tiles, float* __restrict__ dqkv,   \
        int heads, int kv_heads, int width, int window, float scale) {                                                                        \
        of_queries<most>(qkv, dout, log_sums, delta, tiles, dqkv, {heads, kv_heads, width, window, scale});                                   \
    }                                                                                                                                         \
    extern "C" __global__ void __launch_bounds__(32 * WARPS) attention_bf16_keys_##most(const bf16* __restrict__ qkv, const bf16* __restrict__ dout, \
        const float* __restrict__ log_sums, const float* __restrict__ delta, const KeyTile* __restrict__ tiles, const Span* __restrict__ children, \
        float* __restrict__ dqkv, int heads, int kv_heads, int width, int window, float scale) {                                              \
        of_keys<most>(qkv, dout, log_sums, delta, tiles, children, dqkv, {heads, kv_heads, width, window, scale});                            \
    }
BACKWARD(64)
BACKWARD(96)
BACKWARD(128)
BACKWARD(256)
