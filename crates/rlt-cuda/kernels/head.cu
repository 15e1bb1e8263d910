// Log-probabilities and divergences from rows of logits, and their gradients. One block a row; shared memory: a number a warp.
#include "common.cuh"

// The largest of some scaled logits, the sum of the exponentials of their distances from it and, where it is asked for, the
// largest logit before it was scaled.
struct LogSum { float most, sum, largest; };

// In one reading of the row: a thread keeps its own maximum and what its sum is worth under it.
template <bool LARGEST = false>
__device__ __forceinline__ LogSum log_sum_of(const float* logits, int n, float scale, float* partial) {
    float most = NEVER, sum = 0.0f, largest = NEVER;
    for (int v = threadIdx.x; v < n; v += blockDim.x) {
        const float x = logits[v] * scale;
        if (LARGEST) largest = fmaxf(largest, logits[v]);
        if (x > most) {
            sum = sum * expf(most - x) + 1.0f;
            most = x;
        } else {
            sum += expf(x - most);
        }
    }
    const float top = block_max(most, partial);
    sum = block_sum(sum * expf(most - top), partial);
    return {top, sum, LARGEST ? block_max(largest, partial) : NEVER};
}

// of[row] = (log of the softmax denominator, log-probability of the row's target, that of its most likely token: by the same
// rounding, so that they are equal where the target is that token)
extern "C" __global__ void target_logprobs(float* __restrict__ of, const float* __restrict__ logits, const unsigned* __restrict__ targets, int vocabulary, float scale) {
    SHARED(float, partial);
    const float* row = logits + (size_t)blockIdx.x * vocabulary;
    const LogSum s = log_sum_of<true>(row, vocabulary, scale, partial);
    if (threadIdx.x == 0) {
        const float log_sum = s.most + logf(s.sum);
        of[3 * blockIdx.x] = log_sum;
        of[3 * blockIdx.x + 1] = fmaf(row[targets[blockIdx.x]], scale, -log_sum);
        of[3 * blockIdx.x + 2] = fmaf(s.largest, scale, -log_sum);
    }
}

// Logits become the gradients of log-probabilities that weigh `weights`: g / T * ([v = target] - p_v). `log_sums` are those of the
// rows' softmax denominators.
extern "C" __global__ void target_gradients(float* __restrict__ logits, const float* __restrict__ log_sums, const unsigned* __restrict__ targets, const float* __restrict__ weights, int vocabulary, float scale) {
    float* row = logits + (size_t)blockIdx.x * vocabulary;
    const float log_sum = log_sums[blockIdx.x], g = weights[blockIdx.x] * scale;
    const unsigned target = targets[blockIdx.x];
    for (int v = threadIdx.x; v < vocabulary; v += blockDim.x) row[v] = -g * expf(fmaf(row[v], scale, -log_sum)) + (v == target ? g : 0.0f);
}

// out[row] = KL(p || q)
extern "C" __global__ void divergences(float* __restrict__ out, const float* __restrict__ p_logits, const float* __restrict__ q_logits, int vocabulary, float p_scale, float q_scale) {
    SHARED(float, partial);
    const float *p = p_logits + (size_t)blockIdx.x * vocabulary, *q = q_logits + (size_t)blockIdx.x * vocabulary;
    const LogSum ps = log_sum_of(p, vocabulary, p_scale, partial), qs = log_sum_of(q, vocabulary, q_scale, partial);
    // log p - log q = (p logit - its maximum) - (q logit - its maximum) + offset: differences that do not cancel where p is close to q.
    const float offset = logf(qs.sum / ps.sum);
    float total = 0.0f;
    for (int v = threadIdx.x; v < vocabulary; v += blockDim.x) {
        const float above = fmaf(p[v], p_scale, -ps.most), difference = above - fmaf(q[v], q_scale, -qs.most) + offset;
        total = fmaf(expf(above), difference, total);
    }
    total = block_sum(total, partial) / ps.sum;
    // Rounding alone can make it negative. (What is not a number stays so.)
    if (threadIdx.x == 0) out[blockIdx.x] = total < 0.0f ? 0.0f : total;
}

// Logits of p become the gradients of KL(p || q) that weighs `weights`: g / T * p_v (log p_v - log q_v - KL(p || q)).
extern "C" __global__ void reverse_gradients(float* __restrict__ p_logits, const float* __restrict__ q_logits, const float* __restrict__ divergence, const float* __restrict__ weights, int vocabulary, float p_scale, float q_scale) {
    SHARED(float, partial);
    float* p = p_logits + (size_t)blockIdx.x * vocabulary;
    const float* q = q_logits + (size_t)blockIdx.x * vocabulary;
    const LogSum ps = log_sum_of(p, vocabulary, p_scale, partial), qs = log_sum_of(q, vocabulary, q_scale, partial);
    const float p_sum = ps.most + logf(ps.sum), q_sum = qs.most + logf(qs.sum), g = weights[blockIdx.x] * p_scale;
    for (int v = threadIdx.x; v < vocabulary; v += blockDim.x) {
        const float logprob = fmaf(p[v], p_scale, -p_sum), difference = logprob - fmaf(q[v], q_scale, -q_sum);
        p[v] = g * expf(logprob) * (difference - divergence[blockIdx.x]);
    }
}

// The same of KL(q || p): g / T * (p_v - q_v).
extern "C" __global__ void forward_gradients(float* __restrict__ p_logits, const float* __restrict__ q_logits, const float* __restrict__ weights, int vocabulary, float p_scale, float q_scale) {
    SHARED(float, partial);
    float* p = p_logits + (size_t)blockIdx.x * vocabulary;
    const float* q = q_logits + (size_t)blockIdx.x * vocabulary;
    const LogSum ps = log_sum_of(p, vocabulary, p_scale, partial), qs = log_sum_of(q, vocabulary, q_scale, partial);
    const float p_sum = ps.most + logf(ps.sum), q_sum = qs.most + logf(qs.sum), g = weights[blockIdx.x] * p_scale;
    for (int v = threadIdx.x; v < vocabulary; v += blockDim.x) p[v] = g * (expf(fmaf(p[v], p_scale, -p_sum)) - expf(fmaf(q[v], q_scale, -q_sum)));
}
