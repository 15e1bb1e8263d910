// bf16 numbers, two bytes each: the upper halves of f32 numbers.
#pragma once
#include "common.cuh"

typedef unsigned short bf16;

__device__ __forceinline__ float widened(bf16 x) { return __uint_as_float((unsigned)x << 16); }
__device__ __forceinline__ float widened(float x) { return x; }

#ifndef RLT_EMULATOR
// Two numbers rounded to the nearest, ties to even, the first in the lower half.
__device__ __forceinline__ unsigned rounded_pair(float first, float second) {
    unsigned pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
    return pair;
}
#endif

// A number as memory of either type holds it.
__device__ __forceinline__ void put(float& to, float x) { to = x; }
__device__ __forceinline__ void put(bf16& to, float x) { to = (bf16)rounded_pair(x, 0.0f); }
