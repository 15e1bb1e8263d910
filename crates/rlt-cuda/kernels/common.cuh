// What every kernel file begins with: the emulator's stand-ins where it compiles them, and sums over warps and blocks.
#pragma once
#ifdef RLT_EMULATOR
#include "emulator.h"
#else
// All shared memory is given by the launch: one array a kernel.
#define SHARED(type, name)                                   \
    extern __shared__ __align__(16) unsigned char all_shared[]; \
    type* name = reinterpret_cast<type*>(all_shared)
#endif

// Below every score, and finite, so that nothing is taken from infinity.
#define NEVER (-1e30f)
#define ALL_LANES 0xffffffffu

__device__ __forceinline__ float warp_sum(float value) {
    for (int step = 16; step; step >>= 1) value += __shfl_xor_sync(ALL_LANES, value, step);
    return value;
}

__device__ __forceinline__ float warp_max(float value) {
    for (int step = 16; step; step >>= 1) value = fmaxf(value, __shfl_xor_sync(ALL_LANES, value, step));
    return value;
}

// The sum over the threads of a block, the same bits in all of them. `partial` holds a number a warp.
__device__ __forceinline__ float block_sum(float value, float* partial) {
    value = warp_sum(value);
    __syncthreads(); // What an earlier sum left has been read.
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
    __syncthreads();
    float sum = 0.0f;
    for (int warp = 0; warp < blockDim.x / 32; ++warp) sum += partial[warp];
    return sum;
}

__device__ __forceinline__ float block_max(float value, float* partial) {
    value = warp_max(value);
    __syncthreads(); // As above.
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
    __syncthreads();
    float most = NEVER;
    for (int warp = 0; warp < blockDim.x / 32; ++warp) most = fmaxf(most, partial[warp]);
    return most;
}

// This thread among all, and how many there are: loops over elements step by it.
__device__ __forceinline__ size_t first_element() { return (size_t)blockIdx.x * blockDim.x + threadIdx.x; }
__device__ __forceinline__ size_t element_step() { return (size_t)gridDim.x * blockDim.x; }
