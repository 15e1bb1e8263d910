// A libcublasLt without a GPU: descriptors as the real one takes them, products of f32 or of bf16 by plain loops with sums in f64.
#include <cstdint>
#include <cstring>
#include <cstdlib>
#include <dlfcn.h>
#include <vector>

typedef int Result;
typedef void* Handle;
enum { F32 = 0, BF16 = 14, COMPUTE_32F = 68 };
enum { OK = 0, INVALID_VALUE = 7, NOT_SUPPORTED = 15 };
struct Layout { int type; uint64_t rows, cols; int64_t leading; };
struct Operation { int compute, scale, transposed_a = 0, transposed_b = 0; };

static float number_at(const void* x, const Layout* l, uint64_t i) {
    if (l->type == F32) return ((const float*)x)[i];
    const uint32_t bits = (uint32_t)((const uint16_t*)x)[i] << 16;
    float number;
    std::memcpy(&number, &bits, 4);
    return number;
}
// Rows of op(x), each contiguous: `count` of them, `length` long.
static std::vector<float> rows_of(const void* x, const Layout* l, bool along_columns, uint64_t count, uint64_t length) {
    std::vector<float> out(count * length);
    for (uint64_t i = 0; i < count; ++i) for (uint64_t k = 0; k < length; ++k) out[i * length + k] = number_at(x, l, along_columns ? i * l->leading + k : k * l->leading + i);
    return out;
}
static Result check(const Operation* op, const Layout* a, const Layout* b, const Layout* c, const Layout* d) {
    uint64_t m = op->transposed_a ? a->cols : a->rows, k = op->transposed_a ? a->rows : a->cols;
    uint64_t k2 = op->transposed_b ? b->cols : b->rows, n = op->transposed_b ? b->rows : b->cols;
    bool fits = k == k2 && d->rows == m && d->cols == n && c->rows == m && c->cols == n;
    bool known = (a->type == F32 || a->type == BF16) && b->type == a->type && c->type == F32 && d->type == F32;
    return fits && known && op->scale == F32 && op->compute == COMPUTE_32F ? OK : INVALID_VALUE;
}
extern "C" {
Result cublasLtCreate(Handle* h) { static int x; *h = &x; return OK; }
Result cublasLtDestroy(Handle) { return OK; }
size_t cublasLtGetVersion() { return 120400; }
Result cublasLtMatrixLayoutCreate(Handle* l, int type, uint64_t rows, uint64_t cols, int64_t leading) {
    if (leading < (int64_t)rows || !rows || !cols) return INVALID_VALUE;
    *l = new Layout{type, rows, cols, leading};
    return OK;
}
Result cublasLtMatrixLayoutDestroy(Handle l) { delete (Layout*)l; return OK; }
Result cublasLtMatmulDescCreate(Handle* d, int compute, int scale) { *d = new Operation{compute, scale}; return OK; }
Result cublasLtMatmulDescDestroy(Handle d) { delete (Operation*)d; return OK; }
Result cublasLtMatmulDescSetAttribute(Handle d, int attribute, const void* value, size_t) {
    auto* op = (Operation*)d;
    if (attribute == 3) op->transposed_a = *(const int*)value; else if (attribute == 4) op->transposed_b = *(const int*)value; else return NOT_SUPPORTED;
    return OK;
}
Result cublasLtMatmulPreferenceCreate(Handle* p) { *p = new int; return OK; }
Result cublasLtMatmulPreferenceDestroy(Handle p) { delete (int*)p; return OK; }
Result cublasLtMatmulPreferenceSetAttribute(Handle, int, const void*, size_t) { return OK; }
Result cublasLtMatmulAlgoGetHeuristic(Handle, Handle op, Handle a, Handle b, Handle c, Handle d, Handle, int, void* results, int* n) {
    Result r = check((Operation*)op, (Layout*)a, (Layout*)b, (Layout*)c, (Layout*)d);
    *n = r ? 0 : 1;
    std::memset(results, 0, 64 + 8 + 4);
    return r ? NOT_SUPPORTED : OK;
}
Result cublasLtMatmul(Handle, Handle op_, const void* alpha, const void* a, Handle la_, const void* b, Handle lb_, const void* beta, const void* c, Handle lc_, void* d, Handle ld_, const void*, Handle, size_t, Handle stream) {
    // Where it stands in the stream's order: after all before it.
    static auto finish = (void (*)(Handle))dlsym(dlopen("libcuda.so", RTLD_NOW | RTLD_NOLOAD), "emu_finish");
    finish(stream);
    auto* op = (Operation*)op_;
    auto *la = (Layout*)la_, *lb = (Layout*)lb_, *lc = (Layout*)lc_, *ld = (Layout*)ld_;
    if (Result r = check(op, la, lb, lc, ld)) return r;
    const float al = *(const float*)alpha, be = *(const float*)beta;
    const uint64_t m = ld->rows, n = ld->cols, k = op->transposed_a ? la->rows : la->cols;
    auto as = rows_of(a, la, op->transposed_a, m, k), bs = rows_of(b, lb, !op->transposed_b, n, k);
    for (uint64_t j = 0; j < n; ++j) for (uint64_t i = 0; i < m; ++i) {
        const float *x = &as[i * k], *y = &bs[j * k];
        double sums[4] = {};
        uint64_t q = 0;
        for (; q + 4 <= k; q += 4) for (int s = 0; s < 4; ++s) sums[s] += (double)x[q + s] * y[q + s];
        for (; q < k; ++q) sums[0] += (double)x[q] * y[q];
        double sum = al * (sums[0] + sums[1] + sums[2] + sums[3]);
        if (be != 0) sum += be * ((const float*)c)[j * lc->leading + i];
        ((float*)d)[j * ld->leading + i] = (float)sum;
    }
    return OK;
}
}
