// Forward pass of packed attention on tensor cores (FlashAttention-2, arXiv 2307.08691): a block has 64 queries of one head, a warp 16 of
// them. Keys and values of a tile of 32 tokens are copied while the tile before it is multiplied. grid: (query tiles, heads).
#include "attention_bf16.cuh"

#define QUERIES 64
#define KEYS 32

// Shared memory: queries, then keys and values of two tiles by turns.
template <int D>
__device__ __forceinline__ void forward(const bf16* qkv, const QueryTile* tiles, float* out, float* log_sums, const Shape& shape) {
    SHARED(bf16, queries);
    constexpr int ROW = row_stride<D>();
    // Registers that wider heads have no room for: their queries are read again for every tile.
    constexpr bool KEEPS_QUERIES = D <= 128;
    bf16* pairs = queries + QUERIES * ROW;
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
    copy_rows<D, QUERIES>(queries, tile.n, width, [&](int r) { return qkv + (tile.row + r) * stride + (size_t)head * width; });
    copy_keys_and_values(pairs, at);
    wait_for_copies<0>();
    __syncthreads();
    unsigned kept[KEEPS_QUERIES ? D / 16 : 1][4];
    if (KEEPS_QUERIES)
#pragma unroll
        for (int k = 0; k < D / 16; ++k) left_factor<D>(kept[KEEPS_QUERIES ? k : 0], queries + 16 * warp * ROW, k);
    const auto own_queries = [&](unsigned (&a)[4], int k) {
        if (!KEEPS_QUERIES) return left_factor<D>(a, queries + 16 * warp * ROW, k);
#pragma unroll
        for (int i = 0; i < 4; ++i) a[i] = kept[KEEPS_QUERIES ? k : 0][i];
    };
    float o[D / 8][4] = {}, top[2] = {NEVER, NEVER}, sum[2] = {};
    const float scale = shape.scale * LOG2_E; // powers of two, which the processor has
    const int own_first = first + 16 * warp;
    for (bf16 *keys = pairs, *others = pairs + 2 * KEYS * ROW;; at += KEYS) {
        if (at + KEYS < end) copy_keys_and_values(others, at + KEYS);
        float s[KEYS / 8][4] = {};
        add_products<D, KEYS>(s, own_queries, keys);
        const int n = min(KEYS, end - at);
        const bool all_seen = see_all<KEYS>(shape, own_first, at, n);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int query = own_first + lane / 4 + 8 * half;
            float most = top[half];
#pragma unroll
            for (int j = 0; j < KEYS / 8; ++j)
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    const int key = 8 * j + lane % 4 * 2 + i;
                    float& x = s[j][2 * half + i];
                    x = all_seen || (key < n && sees(shape, query, at + key)) ? x * scale : NEVER;
                    most = fmaxf(most, x);
                }
            most = row_max(most);
            const float keep = exp2f(top[half] - most);
            top[half] = most;
            sum[half] *= keep;
#pragma unroll
            for (int j = 0; j < D / 8; ++j) { o[j][2 * half] *= keep; o[j][2 * half + 1] *= keep; }
#pragma unroll
            for (int j = 0; j < KEYS / 8; ++j)
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    float& x = s[j][2 * half + i];
                    x = x <= NEVER ? 0.0f : exp2f(x - most); // what is not a number stays so
                    sum[half] += x;
                }
        }
        add_weighted_rows<D, KEYS, D>(o, s, keys + KEYS * ROW);
        if (at + KEYS >= end) break;
        wait_for_copies<0>();
        __syncthreads(); // The next tile is there, and this one has been read.
        bf16* next = others;
        others = keys;
        keys = next;
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int r = 16 * warp + lane / 4 + 8 * half;
        const float total = row_sum(sum[half]), inverse = 1.0f / total;
        if (r >= tile.n) continue;
        const size_t vector = (size_t)(tile.row + r) * shape.heads + head;
#pragma unroll
        for (int j = 0; j < D / 8; ++j)
            if (8 * j < width) store_pair(out + vector * width + 8 * j + lane % 4 * 2, o[j][2 * half] * inverse, o[j][2 * half + 1] * inverse);
        if (lane % 4 == 0) log_sums[vector] = (top[half] + log2f(total)) * LN_2;
    }
}

// For heads of up to so many columns, of whole eights.
#define FORWARD(most)                                                                                                                         \
    extern "C" __global__ void __launch_bounds__(32 * WARPS) attention_bf16_##most(const bf16* __restrict__ qkv, const QueryTile* __restrict__ tiles, \
        float* __restrict__ out, float* __restrict__ log_sums, int heads, int kv_heads, int width, int window, float scale) {                   \
        forward<most>(qkv, tiles, out, log_sums, {heads, kv_heads, width, window, scale});                                                    \
    }
FORWARD(64)
FORWARD(96)
FORWARD(128)
FORWARD(256)
