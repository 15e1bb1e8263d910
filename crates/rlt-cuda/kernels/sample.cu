// The next token of every sequence from its row of logits, and its log-probability. One block a row.
#include "common.cuh"

#define NO_TOKEN 0x7fffffff

__device__ __forceinline__ int warp_min(int value) {
    for (int step = 16; step; step >>= 1) value = min(value, __shfl_xor_sync(ALL_LANES, value, step));
    return value;
}
__device__ __forceinline__ int warp_most(int value) {
    for (int step = 16; step; step >>= 1) value = max(value, __shfl_xor_sync(ALL_LANES, value, step));
    return value;
}
__device__ __forceinline__ double warp_total(double value) {
    for (int step = 16; step; step >>= 1) value += __shfl_xor_sync(ALL_LANES, value, step);
    return value;
}
// The sum over the lanes up to this one.
__device__ __forceinline__ double warp_running(double value) {
    const int lane = threadIdx.x % 32;
    for (int step = 1; step < 32; step <<= 1) {
        const double before = __shfl_sync(ALL_LANES, value, lane >= step ? lane - step : lane);
        if (lane >= step) value += before;
    }
    return value;
}

__device__ __forceinline__ void tell(unsigned* out, unsigned token, float logprob) {
    out[2 * blockIdx.x] = token;
    out[2 * blockIdx.x + 1] = __float_as_uint(logprob);
}

// Out of the whole vocabulary: the first token at which the running sum of the weights exp((logit - the largest) / T) passes the
// row's number of [0, 1) times their sum; the last one of a positive weight where rounding leaves the sum short. Each warp has a run of the
// vocabulary: which one holds the token is known from the warps' sums, and that one goes through its run once more. Shared
// memory: a double a warp.
extern "C" __global__ void draw_tokens(unsigned* __restrict__ out, const float* __restrict__ logits, const double* __restrict__ uniforms, int vocabulary, float scale) {
    SHARED(double, sums);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    const float* row = logits + (size_t)blockIdx.x * vocabulary;
    float largest = NEVER;
    for (int v = threadIdx.x; v < vocabulary; v += blockDim.x) largest = fmaxf(largest, row[v]);
    const float top = block_max(largest, (float*)sums) * scale;
    const int run = (vocabulary + blockDim.x - 1) / blockDim.x * 32, begin = warp * run, end = min(begin + run, vocabulary);
    double own = 0.0;
    for (int v = begin + lane; v < end; v += 32) own += expf(fmaf(row[v], scale, -top));
    own = warp_total(own);
    __syncthreads(); // The largest logit has been read.
    if (lane == 0) sums[warp] = own;
    __syncthreads();
    double total = 0.0;
    for (int w = 0; w < warps; ++w) total += sums[w];
    const double goal = total * uniforms[blockIdx.x];
    int holder = -1, last = 0;
    double sum = 0.0, before = 0.0;
    for (int w = 0; w < warps && holder < 0; ++w) {
        before = sum;
        sum += sums[w];
        if (sums[w] > 0.0) last = w;
        if (sum > goal) holder = w;
    }
    if (warp != (holder < 0 ? last : holder)) return;
    int token = NO_TOKEN, weighs = 0;
    for (int v = begin + lane; v - lane < end && token == NO_TOKEN; v += 32) {
        const float weight = v < end ? expf(fmaf(row[v], scale, -top)) : 0.0f;
        const double running = before + warp_running(weight);
        token = warp_min(holder >= 0 && weight > 0.0f && running > goal ? v : NO_TOKEN);
        if (weight > 0.0f) weighs = v;
        before = __shfl_sync(ALL_LANES, running, 31);
    }
    if (token == NO_TOKEN) token = warp_most(weighs);
    if (lane == 0) tell(out, token, fmaf(row[token], scale, -(top + logf((float)total))));
}

// The first of the largest logits, and its log-probability at temperature 1. Shared memory: a number a warp.
extern "C" __global__ void most_likely_tokens(unsigned* __restrict__ out, const float* __restrict__ logits, int vocabulary) {
    SHARED(float, partial);
    const float* row = logits + (size_t)blockIdx.x * vocabulary;
    float own = NEVER;
    int first = NO_TOKEN;
    for (int v = threadIdx.x; v < vocabulary; v += blockDim.x) if (row[v] > own) {
        own = row[v];
        first = v;
    }
    const float top = block_max(own, partial);
    float sum = 0.0f;
    for (int v = threadIdx.x; v < vocabulary; v += blockDim.x) sum += expf(row[v] - top);
    sum = block_sum(sum, partial);
    // A token's number is a float without rounding up to 16 million.
    const float token = -block_max(own == top && first != NO_TOKEN ? -(float)first : NEVER, partial);
    if (threadIdx.x == 0) tell(out, token < vocabulary ? (unsigned)token : 0, -logf(sum));
}
