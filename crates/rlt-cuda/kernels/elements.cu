// Element by element, whatever the shape.
#include "common.cuh"

extern "C" __global__ void fill(float* __restrict__ x, size_t n, float value) {
    for (size_t i = first_element(); i < n; i += element_step()) x[i] = value;
}

extern "C" __global__ void scale(float* __restrict__ x, size_t n, float factor) {
    for (size_t i = first_element(); i < n; i += element_step()) x[i] *= factor;
}

extern "C" __global__ void one_plus(float* __restrict__ out, const float* __restrict__ x, size_t n) {
    for (size_t i = first_element(); i < n; i += element_step()) out[i] = 1.0f + x[i];
}

// x += factor * y
extern "C" __global__ void add_scaled(float* __restrict__ x, const float* __restrict__ y, size_t n, float factor) {
    for (size_t i = first_element(); i < n; i += element_step()) x[i] = fmaf(factor, y[i], x[i]);
}

// x = mix * y + (1 - mix) * x
extern "C" __global__ void mix_in(float* __restrict__ x, const float* __restrict__ y, size_t n, float mix) {
    for (size_t i = first_element(); i < n; i += element_step()) x[i] = mix * y[i] + (1.0f - mix) * x[i];
}
