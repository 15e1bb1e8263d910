// Keys and values of sequences that are being decoded, in pages of 64 tokens: in a page's row of a layer and head lie the keys column by
// column (width x 64), then the values row by row (64 x width). Number is float or bf16.
#include "bf16.cuh"

#define PAGE 64
#define WARPS 4

// Where a token's key and value go.
template <class Number>
struct Slot { Number* page; int slot, row; };

// grid: (tokens, key/value heads). Pages of different slots may be the same one.
template <class Number>
__device__ __forceinline__ void store(const Slot<Number>* slots, const float* qkv, int heads, int kv_heads, int width, int layer) {
    const Slot<Number> to = slots[blockIdx.x];
    const int head = blockIdx.y;
    const float* row = qkv + (size_t)to.row * (heads + 2 * kv_heads) * width;
    Number* page = to.page + (size_t)(layer * kv_heads + head) * 2 * width * PAGE;
    for (int c = threadIdx.x; c < width; c += blockDim.x) {
        put(page[c * PAGE + to.slot], row[(heads + head) * width + c]);
        put(page[width * PAGE + to.slot * width + c], row[(heads + kv_heads + head) * width + c]);
    }
}

// A page of a sequence: the position of its first token, and how many are stored in it.
template <class Number>
struct Page { const Number* numbers; int first, count; };

// A sequence: the position of its newest token, and its first part.
struct Sequence { int newest, first_part; };

// What one warp attends with and to: `n` queries of a key/value head, from `first` on among those of the sequences from `sequence` on (one
// sequence's after another's), and some pages that all these sequences have, the `chunk`th of theirs.
struct Unit { int pages, n_pages, sequence, first, n, chunk; };

// Queries of a unit, at most: what is read of a page serves all of them.
#define QUERIES 8

// Attention of one new token of each sequence, whose key and value are stored as the last of its last page: for every query of a unit the
// weighted values of its pages, the largest score and the sum of weights. Which pages are one part depends on a sequence's own length
// only, and so do its bits. Heads have up to GROUPS times 32 columns. grid: (units by WARPS, key/value heads); shared memory a warp: QUERIES queries and a page's weights.
template <class Number, int GROUPS>
__device__ __forceinline__ void attend(float* parts, const float* qkv, const Unit* units, const Page<Number>* pages, const Sequence* sequences, int n_units, int heads, int kv_heads, int width, int window, int layer, float scale) {
    SHARED(float, shared);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, at = blockIdx.x * WARPS + warp, kv = blockIdx.y, per_kv = heads / kv_heads;
    if (at >= n_units) return;
    const Unit unit = units[at];
    float *queries = shared + warp * QUERIES * (width + PAGE), *weights = queries + QUERIES * width;
    float top[QUERIES], sum[QUERIES], values[QUERIES][GROUPS];
    int seen[QUERIES], first_seen = 0x7fffffff;
#pragma unroll
    for (int q = 0; q < QUERIES; ++q) {
        top[q] = NEVER, sum[q] = 0.0f, seen[q] = 0;
        for (int t = 0; t < GROUPS; ++t) values[q][t] = 0.0f;
        if (q >= unit.n) continue;
        seen[q] = window ? max(0, sequences[unit.sequence + (unit.first + q) / per_kv].newest + 1 - window) : 0;
        first_seen = min(first_seen, seen[q]);
    }
#pragma unroll 1
    for (int i = lane; i < QUERIES * width; i += 32) {
        const int q = i / width, c = i % width, query = unit.first + q, sequence = unit.sequence + query / per_kv;
        const size_t row = (size_t)sequence * (heads + 2 * kv_heads) + kv * per_kv + query % per_kv;
        queries[c * QUERIES + q] = q < unit.n ? qkv[row * width + c] : 0.0f;
    }
    __syncwarp();
#pragma unroll 1
    for (int i = unit.pages; i < unit.pages + unit.n_pages; ++i) {
        const Page<Number> page = pages[i];
        if (page.first + page.count <= first_seen) continue;
        const Number* keys = page.numbers + (size_t)(layer * kv_heads + kv) * 2 * width * PAGE;
        float s[QUERIES][2] = {};
#pragma unroll 8
        for (int c = 0; c < width; ++c) {
            // What lies beyond the stored tokens is never used.
            const float key[2] = {widened(keys[c * PAGE + lane]), widened(keys[c * PAGE + 32 + lane])};
#pragma unroll
            for (int q = 0; q < QUERIES; ++q)
                for (int half = 0; half < 2; ++half) s[q][half] = fmaf(queries[c * QUERIES + q], key[half], s[q][half]);
        }
#pragma unroll
        for (int q = 0; q < QUERIES; ++q) {
            float most = top[q];
            for (int half = 0; half < 2; ++half) {
                const int token = half * 32 + lane;
                s[q][half] = token < page.count && page.first + token >= seen[q] ? s[q][half] * scale : NEVER;
                most = fmaxf(most, s[q][half]);
            }
            most = warp_max(most);
            const float keep = expf(top[q] - most);
            top[q] = most;
            sum[q] *= keep;
            for (int half = 0; half < 2; ++half) {
                const float weight = s[q][half] > NEVER ? expf(s[q][half] - most) : 0.0f;
                weights[(half * 32 + lane) * QUERIES + q] = weight;
                sum[q] += weight;
            }
            for (int t = 0; t < GROUPS; ++t) values[q][t] *= keep;
        }
        __syncwarp();
        const Number* rows = keys + (size_t)width * PAGE;
#pragma unroll 2
        for (int j = 0; j < page.count; ++j) {
            float weight[QUERIES];
#pragma unroll
            for (int q = 0; q < QUERIES; ++q) weight[q] = weights[j * QUERIES + q];
#pragma unroll
            for (int t = 0; t < GROUPS; ++t) if (lane + 32 * t < width) {
                const float value = widened(rows[j * width + lane + 32 * t]);
#pragma unroll
                for (int q = 0; q < QUERIES; ++q) values[q][t] = fmaf(weight[q], value, values[q][t]);
            }
        }
        __syncwarp(); // The weights have been read.
    }
#pragma unroll
    for (int q = 0; q < QUERIES; ++q) {
        const float all = warp_sum(sum[q]);
        if (q >= unit.n) continue;
        const int sequence = unit.sequence + (unit.first + q) / per_kv, head = kv * per_kv + (unit.first + q) % per_kv;
        float* part = parts + ((size_t)(sequences[sequence].first_part + unit.chunk) * heads + head) * (width + 2);
        for (int t = 0; t < GROUPS; ++t) if (lane + 32 * t < width) part[lane + 32 * t] = values[q][t];
        if (lane == 0) part[width] = top[q], part[width + 1] = all;
    }
}

// Puts the parts of each sequence and head together, in order. grid: (sequences, heads).
extern "C" __global__ void __launch_bounds__(32 * WARPS) join_parts(float* __restrict__ out, const float* __restrict__ parts, const Sequence* __restrict__ sequences, int heads, int width) {
    const int begin = sequences[blockIdx.x].first_part, end = sequences[blockIdx.x + 1].first_part, stride = width + 2;
    const float* of_head = parts + (size_t)blockIdx.y * stride;
    float most = NEVER, total = 0.0f;
    for (int part = begin; part < end; ++part) most = fmaxf(most, of_head[(size_t)part * heads * stride + width]);
    for (int part = begin; part < end; ++part) {
        const float* from = of_head + (size_t)part * heads * stride;
        total += from[width + 1] * expf(from[width] - most);
    }
    for (int c = threadIdx.x; c < width; c += blockDim.x) {
        float value = 0.0f;
        for (int part = begin; part < end; ++part) {
            const float* from = of_head + (size_t)part * heads * stride;
            value += from[c] * expf(from[width] - most);
        }
        out[((size_t)blockIdx.x * heads + blockIdx.y) * width + c] = value / total;
    }
}

#define STORE(name, Number)                                                                                                              \
    extern "C" __global__ void name(const Slot<Number>* __restrict__ slots, const float* __restrict__ qkv, int heads, int kv_heads,      \
        int width, int layer) {                                                                                                         \
        store<Number>(slots, qkv, heads, kv_heads, width, layer);                                                                       \
    }
#define ATTEND(name, Number, GROUPS)                                                                                                     \
    extern "C" __global__ void __launch_bounds__(32 * WARPS) name(float* __restrict__ parts, const float* __restrict__ qkv,              \
        const Unit* __restrict__ units, const Page<Number>* __restrict__ pages, const Sequence* __restrict__ sequences, int n_units,     \
        int heads, int kv_heads, int width, int window, int layer, float scale) {                                                       \
        attend<Number, GROUPS>(parts, qkv, units, pages, sequences, n_units, heads, kv_heads, width, window, layer, scale);              \
    }
STORE(store_tokens, float)
STORE(store_tokens_bf16, bf16)
ATTEND(decode_attention_128, float, 4)
ATTEND(decode_attention_256, float, 8)
ATTEND(decode_attention_bf16_128, bf16, 4)
ATTEND(decode_attention_bf16_256, bf16, 8)
