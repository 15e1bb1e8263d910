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

// Attention of one new token of each sequence, whose key and value are stored as the last of its last page. The pages of a sequence are
// those from starts[sequence] on; the warps of a block take them by turns, and their parts are put together in order. grid: (sequences,
// heads); shared memory: the query, a page's weights a warp, and each warp's part.
template <class Number>
__device__ __forceinline__ void attend(float* out, const float* qkv, const Page<Number>* pages, const int* starts, int heads, int kv_heads, int width, int window, int layer, float scale) {
    SHARED(float, query);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, head = blockIdx.y, kv = head / (heads / kv_heads);
    float *weights = query + width + warp * PAGE, *parts = query + width + WARPS * PAGE, *tops = parts + WARPS * width, *sums = tops + WARPS;
    const float* row = qkv + (size_t)blockIdx.x * (heads + 2 * kv_heads) * width + head * width;
    for (int c = threadIdx.x; c < width; c += blockDim.x) query[c] = row[c];
    __syncthreads();
    const int begin = starts[blockIdx.x], end = starts[blockIdx.x + 1];
    const int newest = pages[end - 1].first + pages[end - 1].count - 1;
    const int first_seen = window ? max(0, newest + 1 - window) : 0;
    float top = NEVER, sum = 0.0f, values[8] = {};
    for (int at = begin + warp; at < end; at += WARPS) {
        const Page<Number> page = pages[at];
        if (page.first + page.count <= first_seen) continue;
        const Number* keys = page.numbers + (size_t)(layer * kv_heads + kv) * 2 * width * PAGE;
        float s[2] = {}, most = top;
        for (int c = 0; c < width; ++c)
            for (int half = 0; half < 2; ++half)
                // What lies beyond the stored tokens is never used.
                s[half] = fmaf(query[c], widened(keys[c * PAGE + half * 32 + lane]), s[half]);
        for (int half = 0; half < 2; ++half) {
            const int token = half * 32 + lane;
            s[half] = token < page.count && page.first + token >= first_seen ? s[half] * scale : NEVER;
            most = fmaxf(most, s[half]);
        }
        most = warp_max(most);
        const float keep = expf(top - most);
        top = most;
        sum *= keep;
        for (int half = 0; half < 2; ++half) {
            const float weight = s[half] > NEVER ? expf(s[half] - most) : 0.0f;
            weights[half * 32 + lane] = weight;
            sum += weight;
        }
        __syncwarp();
        for (int t = 0; t < 8; ++t) values[t] *= keep;
        for (int j = 0; j < page.count; ++j) {
            const float weight = weights[j];
#pragma unroll
            for (int t = 0; t < 8; ++t) if (lane + 32 * t < width) values[t] = fmaf(weight, widened(keys[(size_t)width * PAGE + j * width + lane + 32 * t]), values[t]);
        }
        __syncwarp(); // The weights have been read.
    }
    sum = warp_sum(sum);
    if (lane == 0) { tops[warp] = top; sums[warp] = sum; }
    for (int t = 0; t < 8; ++t) if (lane + 32 * t < width) parts[warp * width + lane + 32 * t] = values[t];
    __syncthreads();
    float most = NEVER, total = 0.0f;
    for (int w = 0; w < WARPS; ++w) most = fmaxf(most, tops[w]);
    for (int w = 0; w < WARPS; ++w) total += sums[w] * expf(tops[w] - most);
    for (int c = threadIdx.x; c < width; c += blockDim.x) {
        float value = 0.0f;
        for (int w = 0; w < WARPS; ++w) value += parts[w * width + c] * expf(tops[w] - most);
        out[((size_t)blockIdx.x * heads + head) * width + c] = value / total;
    }
}

#define PAGES(name_of_store, name_of_attend, Number)                                                                                         \
    extern "C" __global__ void name_of_store(const Slot<Number>* __restrict__ slots, const float* __restrict__ qkv, int heads, int kv_heads, \
        int width, int layer) {                                                                                                             \
        store<Number>(slots, qkv, heads, kv_heads, width, layer);                                                                           \
    }                                                                                                                                       \
    extern "C" __global__ void __launch_bounds__(32 * WARPS) name_of_attend(float* __restrict__ out, const float* __restrict__ qkv,         \
        const Page<Number>* __restrict__ pages, const int* __restrict__ starts, int heads, int kv_heads, int width, int window, int layer,  \
        float scale) {                                                                                                                      \
        attend<Number>(out, qkv, pages, starts, heads, kv_heads, width, window, layer, scale);                                              \
    }
PAGES(store_tokens, decode_attention, float)
PAGES(store_tokens_bf16, decode_attention_bf16, bf16)
