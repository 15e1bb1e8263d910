// Gated activations: G(gate) * up, where gate and up lie side by side in a row.
#include "common.cuh"

struct Value { float value, slope; };

struct Silu {
    static __device__ __forceinline__ Value at(float x) {
        const float s = 1.0f / (1.0f + expf(-x)), value = x * s;
        return {value, s + value * (1.0f - s)};
    }
};

// By tanh: (1 + tanh(z)) / 2 = sigmoid(2 z).
struct Gelu {
    static __device__ __forceinline__ Value at(float x) {
        const float slope = 1.595769f, cubic = 0.044715f, square = x * x;
        const float s = 1.0f / (1.0f + expf(-slope * x * (1.0f + cubic * square)));
        return {x * s, s + x * s * (1.0f - s) * slope * (1.0f + 3.0f * cubic * square)};
    }
};

template <class Gate>
__device__ __forceinline__ void forward(float* out, const float* gate_up, size_t n, int width) {
    for (size_t i = first_element(); i < n; i += element_step()) {
        const float* row = gate_up + i / width * 2 * width;
        out[i] = Gate::at(row[i % width]).value * row[width + i % width];
    }
}

// The gradient of the output becomes the output again, gate and up their gradients.
template <class Gate>
__device__ __forceinline__ void backward(float* dout, float* gate_up, size_t n, int width) {
    for (size_t i = first_element(); i < n; i += element_step()) {
        float* row = gate_up + i / width * 2 * width;
        const float up = row[width + i % width], d = dout[i];
        const Value gate = Gate::at(row[i % width]);
        row[i % width] = d * up * gate.slope;
        row[width + i % width] = d * gate.value;
        dout[i] = gate.value * up;
    }
}

extern "C" __global__ void swiglu(float* __restrict__ out, const float* __restrict__ gate_up, size_t n, int width) { forward<Silu>(out, gate_up, n, width); }
extern "C" __global__ void geglu(float* __restrict__ out, const float* __restrict__ gate_up, size_t n, int width) { forward<Gelu>(out, gate_up, n, width); }
extern "C" __global__ void swiglu_backward(float* __restrict__ dout, float* __restrict__ gate_up, size_t n, int width) { backward<Silu>(dout, gate_up, n, width); }
extern "C" __global__ void geglu_backward(float* __restrict__ dout, float* __restrict__ gate_up, size_t n, int width) { backward<Gelu>(dout, gate_up, n, width); }
