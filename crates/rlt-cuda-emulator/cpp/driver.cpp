// A libcuda without a GPU: memory is the host's, kernels are the emulator's, found by name. The functions that rlt-cuda calls.
#include "memory.h"
#include <cstring>

typedef int Result;
typedef void* Handle;
typedef unsigned long long Pointer;
enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_DEVICE = 101, NOT_FOUND = 500 };
static int something;
static thread_local Handle current;

static int version() { const char* v = std::getenv("EMU_DRIVER_VERSION"); return v ? atoi(v) : 12040; }

extern "C" {
Result cuInit(unsigned) { return OK; }
Result cuDriverGetVersion(int* v) { *v = version(); return OK; }
Result cuDeviceGetCount(int* n) { *n = 1; return OK; }
Result cuDeviceGet(int* device, int ordinal) { *device = ordinal; return ordinal ? INVALID_DEVICE : OK; }
Result cuDeviceGetName(char* name, int n, int) { std::snprintf(name, n, "emulated device"); return OK; }
// 75, 76: compute capability; 97: shared memory that a block may ask for.
Result cuDeviceGetAttribute(int* v, int attribute, int) { *v = attribute == 75 ? 8 : attribute == 76 ? 0 : attribute == 97 ? 101376 : 1; return OK; }
Result cuDeviceTotalMem_v2(size_t* bytes, int) { *bytes = size_t(1) << 33; return OK; }
Result cuDevicePrimaryCtxRetain(Handle* context, int) { *context = &something; return OK; }
Result cuDevicePrimaryCtxRelease_v2(int) { return OK; }
Result cuCtxSetCurrent(Handle context) { current = context; return OK; }
Result cuCtxGetCurrent(Handle* context) { *context = current; return OK; }
Result cuMemGetInfo_v2(size_t* available, size_t* total) { *available = *total = size_t(1) << 33; return OK; }
Result cuStreamCreate(Handle* stream, unsigned) { *stream = &something; return OK; }
Result cuStreamDestroy_v2(Handle) { return OK; }
Result cuStreamSynchronize(Handle) { return OK; }
Result cuMemAlloc_v2(Pointer* p, size_t bytes) {
    const char* most = std::getenv("EMU_MEMORY");
    if (!current || !bytes) return INVALID_VALUE;
    if (most && bytes > (size_t)atoll(most)) return OUT_OF_MEMORY;
    char* memory = emu::allocate(bytes);
    *p = (Pointer)memory;
    return memory ? OK : OUT_OF_MEMORY;
}
Result cuMemFree_v2(Pointer p) { emu::release((char*)p); return OK; }
Result cuMemsetD8Async(Pointer p, unsigned char value, size_t n, Handle) { std::memset((void*)p, value, n); return OK; }
Result cuMemcpyHtoDAsync_v2(Pointer to, const void* from, size_t n, Handle) { std::memcpy((void*)to, from, n); return OK; }
Result cuMemcpyDtoHAsync_v2(void* to, Pointer from, size_t n, Handle) { std::memcpy(to, (void*)from, n); return OK; }
Result cuMemcpyDtoDAsync_v2(Pointer to, Pointer from, size_t n, Handle) { std::memcpy((void*)to, (void*)from, n); return OK; }
Result cuModuleLoadData(Handle* module, const void* image) { *module = &something; return std::strstr((const char*)image, ".target sm_80") ? OK : INVALID_VALUE; }
Result cuModuleGetFunction(Handle* function, Handle, const char* name) { *function = emu::find_kernel(name); return *function ? OK : NOT_FOUND; }
Result cuFuncSetAttribute(Handle, int, int value) { return value > 101376 ? INVALID_VALUE : OK; }
Result cuLaunchKernel(Handle function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared_bytes, Handle, void** arguments, void**) {
    if (!current || !gx || !gy || !gz || gy > 65535 || gz > 65535 || bx * by * bz > 1024 || shared_bytes > 101376) return INVALID_VALUE;
    ((emu::Kernel*)function)->run(arguments, {gx, gy, gz}, {bx, by, bz}, shared_bytes);
    return OK;
}
Result cuGetErrorString(int, const char** s) { *s = "an error of the emulated driver"; return OK; }
Result cuGetErrorName(int, const char** s) { *s = "EMULATED"; return OK; }
}
