// A libcuda without a GPU: memory is the host's, kernels are the emulator's, found by name. The functions that rlt-cuda calls.
#include "memory.h"
#include <atomic>
#include <cstring>

typedef int Result;
typedef void* Handle;
typedef unsigned long long Pointer;
enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_DEVICE = 101, NOT_FOUND = 500, LAUNCH_FAILED = 719 };
static int something;
static thread_local Handle current;

static long long number(const char* name, long long otherwise) { const char* v = std::getenv(name); return v ? atoll(v) : otherwise; }
static int version() { return number("EMU_DRIVER_VERSION", 12040); }
static size_t memory_bytes() { static const size_t bytes = number("EMU_MEMORY", 1LL << 33); return bytes; }

// After a launch that failed nothing goes on: calls report what it was.
static std::atomic<long long> launches_left{number("EMU_LAUNCHES", -1)};
static std::atomic<bool> has_failed{false};
static Result now() { return has_failed ? LAUNCH_FAILED : OK; }

extern "C" {
Result cuInit(unsigned) { return OK; }
Result cuDriverGetVersion(int* v) { *v = version(); return OK; }
Result cuDeviceGetCount(int* n) { *n = 1; return OK; }
Result cuDeviceGet(int* device, int ordinal) { *device = ordinal; return ordinal ? INVALID_DEVICE : OK; }
Result cuDeviceGetName(char* name, int n, int) { std::snprintf(name, n, "emulated device"); return OK; }
// 75, 76: compute capability; 97: shared memory that a block may ask for.
Result cuDeviceGetAttribute(int* v, int attribute, int) { *v = attribute == 75 ? 8 : attribute == 76 ? 0 : attribute == 97 ? 101376 : 1; return OK; }
Result cuDeviceTotalMem_v2(size_t* bytes, int) { *bytes = memory_bytes(); return OK; }
Result cuDevicePrimaryCtxRetain(Handle* context, int) { *context = &something; return OK; }
Result cuDevicePrimaryCtxRelease_v2(int) { return OK; }
Result cuCtxSetCurrent(Handle context) { current = context; return OK; }
Result cuCtxGetCurrent(Handle* context) { *context = current; return OK; }
Result cuMemGetInfo_v2(size_t* available, size_t* total) { *total = memory_bytes(); *available = *total - emu::allocated_bytes(); return now(); }
Result cuStreamCreate(Handle* stream, unsigned) { *stream = &something; return OK; }
Result cuStreamDestroy_v2(Handle) { return OK; }
Result cuStreamSynchronize(Handle) { return now(); }
Result cuMemAlloc_v2(Pointer* p, size_t bytes) {
    if (!current || !bytes) return INVALID_VALUE;
    if (now()) return now();
    if (bytes > memory_bytes() - emu::allocated_bytes()) return OUT_OF_MEMORY;
    char* memory = emu::allocate(bytes);
    *p = (Pointer)memory;
    return memory ? OK : OUT_OF_MEMORY;
}
Result cuMemFree_v2(Pointer p) { emu::release((char*)p); return OK; }
Result cuMemsetD8Async(Pointer p, unsigned char value, size_t n, Handle) { if (now()) return now(); std::memset((void*)p, value, n); return OK; }
Result cuMemcpyHtoDAsync_v2(Pointer to, const void* from, size_t n, Handle) { if (now()) return now(); std::memcpy((void*)to, from, n); return OK; }
Result cuMemcpyDtoHAsync_v2(void* to, Pointer from, size_t n, Handle) { if (now()) return now(); std::memcpy(to, (void*)from, n); return OK; }
Result cuMemcpyDtoDAsync_v2(Pointer to, Pointer from, size_t n, Handle) { if (now()) return now(); std::memcpy((void*)to, (void*)from, n); return OK; }
Result cuModuleLoadData(Handle* module, const void* image) { *module = &something; return std::strstr((const char*)image, ".target sm_80") ? OK : INVALID_VALUE; }
Result cuModuleGetFunction(Handle* function, Handle, const char* name) { *function = emu::find_kernel(name); return *function ? OK : NOT_FOUND; }
Result cuFuncSetAttribute(Handle, int, int value) { return value > 101376 ? INVALID_VALUE : OK; }
Result cuLaunchKernel(Handle function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared_bytes, Handle, void** arguments, void**) {
    if (!current || !gx || !gy || !gz || gy > 65535 || gz > 65535 || bx * by * bz > 1024 || shared_bytes > 101376) return INVALID_VALUE;
    if (now()) return now();
    if (launches_left == 0) { has_failed = true; return OK; }
    if (launches_left > 0) --launches_left;
    ((emu::Kernel*)function)->run(arguments, {gx, gy, gz}, {bx, by, bz}, shared_bytes);
    return OK;
}
Result cuGetErrorString(int error, const char** s) { *s = error == OUT_OF_MEMORY ? "out of memory" : error == LAUNCH_FAILED ? "unspecified launch failure" : "an error of the emulated driver"; return OK; }
Result cuGetErrorName(int, const char** s) { *s = "EMULATED"; return OK; }
}
