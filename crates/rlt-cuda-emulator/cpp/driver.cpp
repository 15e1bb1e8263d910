// A libcuda without a GPU: memory is the host's, kernels are the emulator's, found by name. The functions that rlt-cuda calls.
#include "memory.h"
#include "streams.h"
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

typedef int Result;
typedef void* Handle;
typedef unsigned long long Pointer;
enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_DEVICE = 101, INVALID_IMAGE = 200, NOT_FOUND = 500, LAUNCH_FAILED = 719 };
static int something;
static const int MOST_GPUS = 16;
static char contexts[MOST_GPUS];
static thread_local Handle current;

static long long number(const char* name, long long otherwise) { const char* v = std::getenv(name); return v ? atoll(v) : otherwise; }
static int version() { return number("EMU_DRIVER_VERSION", 12040); }
static int gpus() { return std::min<long long>(number("EMU_GPUS", 1), MOST_GPUS); }
static size_t memory_bytes() { static const size_t bytes = number("EMU_MEMORY", 1LL << 33); return bytes; }

// After a launch that failed nothing goes on: calls report what it was.
static std::atomic<long long> launches_left{number("EMU_LAUNCHES", -1)};
static std::atomic<bool> has_failed{false};
static Result now() { return has_failed ? LAUNCH_FAILED : OK; }

// Memory of the host that copies go to and from by themselves, by its begin.
static std::mutex pinned_in_use;
static std::map<const char*, size_t> pinned;
static bool is_pinned(const void* p, size_t n) {
    std::lock_guard<std::mutex> lock(pinned_in_use);
    auto after = pinned.upper_bound((const char*)p);
    return after != pinned.begin() && (const char*)p + n <= std::prev(after)->first + std::prev(after)->second;
}
static emu::Stream* of(Handle stream) { return (emu::Stream*)stream; }

extern "C" {
Result cuInit(unsigned) { return OK; }
Result cuDriverGetVersion(int* v) { *v = version(); return OK; }
Result cuDeviceGetCount(int* n) { *n = gpus(); return OK; }
Result cuDeviceGet(int* device, int ordinal) { *device = ordinal; return ordinal < gpus() ? OK : INVALID_DEVICE; }
Result cuDeviceGetName(char* name, int n, int) { std::snprintf(name, n, "emulated device"); return OK; }
// 75, 76: compute capability; 97: shared memory that a block may ask for.
Result cuDeviceGetAttribute(int* v, int attribute, int) { *v = attribute == 75 ? 8 : attribute == 76 ? 0 : attribute == 97 ? 101376 : 1; return OK; }
Result cuDeviceTotalMem_v2(size_t* bytes, int) { *bytes = memory_bytes(); return OK; }
Result cuDevicePrimaryCtxRetain(Handle* context, int device) { *context = &contexts[device]; return OK; }
Result cuDevicePrimaryCtxRelease_v2(int) { return OK; }
Result cuCtxSetCurrent(Handle context) { current = context; return OK; }
Result cuCtxGetCurrent(Handle* context) { *context = current; return OK; }
Result cuMemGetInfo_v2(size_t* available, size_t* total) { *total = memory_bytes(); *available = *total - emu::allocated_bytes(); return now(); }
Result cuStreamCreate(Handle* stream, unsigned) { *stream = emu::new_stream(); return OK; }
Result cuStreamDestroy_v2(Handle) { return OK; }
Result cuStreamSynchronize(Handle stream) { emu::finish(of(stream)); return now(); }
Result cuStreamWaitEvent(Handle stream, Handle event, unsigned) { emu::let_wait(of(stream), (emu::Event*)event); return now(); }
Result cuEventCreate(Handle* event, unsigned) { *event = emu::new_event(); return now(); }
Result cuEventDestroy_v2(Handle event) { emu::forget((emu::Event*)event); return OK; }
Result cuEventRecord(Handle event, Handle stream) { emu::record((emu::Event*)event, of(stream)); return now(); }
Result cuMemHostAlloc(void** p, size_t bytes, unsigned) {
    if (!current || !bytes) return INVALID_VALUE;
    if (now()) return now();
    if (bytes > (size_t)number("EMU_HOST_MEMORY", 1LL << 33)) return OUT_OF_MEMORY;
    *p = std::malloc(bytes);
    if (!*p) return OUT_OF_MEMORY;
    std::memset(*p, 0xff, bytes);
    std::lock_guard<std::mutex> lock(pinned_in_use);
    pinned[(const char*)*p] = bytes;
    return OK;
}
Result cuMemFreeHost(void* p) {
    emu::finish_all();
    std::lock_guard<std::mutex> lock(pinned_in_use);
    if (!pinned.erase((const char*)p)) return INVALID_VALUE;
    std::free(p);
    return OK;
}
Result cuMemAlloc_v2(Pointer* p, size_t bytes) {
    if (!current || !bytes) return INVALID_VALUE;
    if (now()) return now();
    if (bytes > memory_bytes() - emu::allocated_bytes()) return OUT_OF_MEMORY;
    char* memory = emu::allocate(bytes);
    *p = (Pointer)memory;
    return memory ? OK : OUT_OF_MEMORY;
}
Result cuMemFree_v2(Pointer p) { emu::finish_all(); emu::release((char*)p); return OK; }
Result cuMemsetD8Async(Pointer p, unsigned char value, size_t n, Handle stream) { if (now()) return now(); emu::ask(of(stream), [=] { std::memset((void*)p, value, n); }); return OK; }
// Memory that may be paged is read before the call returns, and written by then.
Result cuMemcpyHtoDAsync_v2(Pointer to, const void* from, size_t n, Handle stream) {
    if (now()) return now();
    if (is_pinned(from, n)) { emu::ask(of(stream), [=] { std::memcpy((void*)to, from, n); }); return OK; }
    auto staged = std::make_shared<std::vector<char>>((const char*)from, (const char*)from + n);
    emu::ask(of(stream), [=] { std::memcpy((void*)to, staged->data(), n); });
    return OK;
}
Result cuMemcpyDtoHAsync_v2(void* to, Pointer from, size_t n, Handle stream) {
    if (now()) return now();
    emu::ask(of(stream), [=] { std::memcpy(to, (void*)from, n); });
    if (!is_pinned(to, n)) emu::finish(of(stream));
    return OK;
}
Result cuMemcpyDtoDAsync_v2(Pointer to, Pointer from, size_t n, Handle stream) { if (now()) return now(); emu::ask(of(stream), [=] { std::memcpy((void*)to, (void*)from, n); }); return OK; }
Result cuModuleLoadData(Handle* module, const void* image) { *module = &something; return std::strstr((const char*)image, ".target sm_80") ? OK : INVALID_VALUE; }
// A file that was compiled for an architecture is taken for what its name says: its kernels are those of here.
Result cuModuleLoad(Handle* module, const char* name) {
    char head[4] = {};
    if (FILE* file = std::fopen(name, "rb")) { if (std::fread(head, 1, 4, file) < 4) head[0] = 0; std::fclose(file); }
    *module = &something;
    return std::memcmp(head, "\x7f" "ELF", 4) ? INVALID_IMAGE : OK;
}
Result cuModuleGetFunction(Handle* function, Handle, const char* name) { *function = emu::find_kernel(name); return *function ? OK : NOT_FOUND; }
Result cuFuncSetAttribute(Handle, int, int value) { return value > 101376 ? INVALID_VALUE : OK; }
Result cuLaunchKernel(Handle function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared_bytes, Handle stream, void** arguments, void**) {
    if (!current || !gx || !gy || !gz || gy > 65535 || gz > 65535 || bx * by * bz > 1024 || shared_bytes > 101376) return INVALID_VALUE;
    if (now()) return now();
    if (launches_left == 0) { has_failed = true; return OK; }
    if (launches_left > 0) --launches_left;
    emu::ask(of(stream), ((emu::Kernel*)function)->bound(arguments, {gx, gy, gz}, {bx, by, bz}, shared_bytes));
    return OK;
}
Result cuGetErrorString(int error, const char** s) { *s = error == OUT_OF_MEMORY ? "out of memory" : error == INVALID_IMAGE ? "device kernel image is invalid" : error == LAUNCH_FAILED ? "unspecified launch failure" : "an error of the emulated driver"; return OK; }
// For the products, which are in another library.
void emu_finish(Handle stream) { emu::finish(of(stream)); }
Result cuGetErrorName(int, const char** s) { *s = "EMULATED"; return OK; }
}
