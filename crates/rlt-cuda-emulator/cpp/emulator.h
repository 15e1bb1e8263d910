// CUDA on a CPU, for tests: the threads of a block are fibers that run one after another from barrier to barrier.
//
// Kernel sources are compiled as they are: `common.cuh` includes this file where RLT_EMULATOR is defined. What a GPU may do in any
// order is done in several (EMU_ORDER), what it need not have done yet is put off, memory ends at pages that cannot be touched, and
// a build with -fsanitize=thread reports every access to it here (EMU_RACES).
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

struct dim3 { unsigned x = 1, y = 1, z = 1; };

namespace emu {
// What a fiber waits for.
enum State { RUNS, AT_BARRIER, IN_WARP, ENDED };

// A copy that goes on beside its thread.
struct Copy { void* to; const void* from; unsigned bytes, group; };

struct Fiber {
    void* stack_pointer = nullptr;
    dim3 thread;
    State state = RUNS;
    unsigned mask = 0;        // lanes of the warp-wide operation that it waits in
    const void* what = nullptr; // which operation that is
    unsigned turn = 0, warp_epoch = 0;
    std::vector<Copy> copies;
    unsigned group = 0;
};
struct Block { dim3 grid, block, index; };

extern Block block;
extern Fiber* self; // null outside kernels
extern unsigned thread_number;
extern char* shared;

[[noreturn]] void fail(const char* what);
// Gives way to other fibers until this one's barrier is passed, or its warp's operation complete.
void wait(State state, unsigned mask, const void* what);
// A place in the source where threads of a block, or of a warp, wait for each other. EMU_WITHOUT=FILE:LINE passes it over.
struct Place { const char* file; int line; bool passed_over; Place(const char* file, int line); };

// What each lane leaves, seen by the whole warp, and what the first that goes on makes of it for all.
struct Exchange { unsigned long long slot[32]; unsigned words[32][6], made[32][4]; bool is_made; };
Exchange& exchange();

// `bound` copies the arguments, and gives what runs the kernel.
struct Kernel { const char* name; std::function<void()> (*bound)(void** arguments, dim3 grid, dim3 block, unsigned shared_bytes); };
void add_kernel(Kernel kernel);
void launch(dim3 grid, dim3 block, unsigned shared_bytes, void (*body)(void*), void* arguments);

// The types of the arguments come from the kernel itself.
template <auto F> struct Call;
template <class... A, void (*F)(A...)> struct Call<F> {
    static std::function<void()> bound(void** arguments, dim3 grid, dim3 block, unsigned shared_bytes) {
        return bound(arguments, grid, block, shared_bytes, std::index_sequence_for<A...>{});
    }
    template <size_t... I> static std::function<void()> bound(void** arguments, dim3 grid, dim3 block, unsigned shared_bytes, std::index_sequence<I...>) {
        std::tuple<std::decay_t<A>...> all{*(std::decay_t<A>*)arguments[I]...};
        return [=]() mutable { launch(grid, block, shared_bytes, [](void* p) { std::apply(F, *(decltype(all)*)p); }, &all); };
    }
};
} // namespace emu

#define EMU_KERNEL(name) static const int emu_added_##name = (emu::add_kernel({#name, emu::Call<name>::bound}), 0);

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__ __restrict
#define threadIdx (emu::self->thread)
#define blockIdx (emu::block.index)
#define blockDim (emu::block.block)
#define gridDim (emu::block.grid)
#define SHARED(type, name) type* name = (type*)emu::shared

#define __syncthreads() \
    do { static emu::Place place(__FILE__, __LINE__); if (!place.passed_over) emu::wait(emu::AT_BARRIER, 0, &place); } while (0)
#define __syncwarp() \
    do { static emu::Place place(__FILE__, __LINE__); if (!place.passed_over) { emu::wait(emu::IN_WARP, 0xffffffffu, &place); ++emu::self->warp_epoch; } } while (0)

namespace emu {
// Every lane of the mask leaves its value, waits for the others, and reads. Two buffers by turns, so that one wait is enough.
template <class T> inline T shuffled(unsigned mask, T value, unsigned from, const void* what) {
    static_assert(sizeof(T) <= 8, "too large to exchange");
    const unsigned lane = thread_number % 32;
    if (!(mask >> lane & 1) || !(mask >> from & 1)) fail("a shuffle with a lane outside its mask");
    Exchange& all = exchange();
    std::memcpy(&all.slot[lane], &value, sizeof(T));
    wait(IN_WARP, mask, what);
    T out;
    std::memcpy(&out, &all.slot[from], sizeof(T));
    return out;
}
} // namespace emu
template <class T> inline T __shfl_xor_sync(unsigned mask, T value, unsigned x) {
    static const char what = 0;
    return emu::shuffled(mask, value, (emu::thread_number % 32) ^ x, &what);
}
template <class T> inline T __shfl_sync(unsigned mask, T value, unsigned from) {
    static const char what = 0;
    return emu::shuffled(mask, value, from % 32, &what);
}

// Where an address lies is told for accesses that no compiler sees.
namespace emu {
void note(const void* p, unsigned n, bool write);
// By the first lane that goes on: each other one would see what lanes before it wrote afterwards.
void load_matrices(Exchange& all, unsigned matrices, bool transposed);
void copies_done(unsigned left);

template <unsigned MATRICES, bool TRANSPOSED> inline void loaded(unsigned (&to)[MATRICES], const void* row) {
    static const char what = 0;
    const unsigned lane = thread_number % 32;
    if (lane < 8 * MATRICES) {
        if ((uintptr_t)row % 16) fail("a row of a matrix is not aligned to 16 bytes");
        note(row, 16, false);
    }
    Exchange& all = exchange();
    all.slot[lane] = (uintptr_t)row;
    all.is_made = false;
    wait(IN_WARP, 0xffffffffu, &what);
    if (!all.is_made) load_matrices(all, MATRICES, TRANSPOSED);
    for (unsigned i = 0; i < MATRICES; ++i) to[i] = all.made[lane][i];
}
} // namespace emu

// Tensor cores and asynchronous copies, by the names of mma.cuh.
inline void load_4_matrices(unsigned (&to)[4], const void* row) { emu::loaded<4, false>(to, row); }
inline void load_4_transposed(unsigned (&to)[4], const void* row) { emu::loaded<4, true>(to, row); }
void multiply_add(float (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1);
// As late as the program allows: what is read before its end is waited for is what was there.
inline void copy_16_bytes(void* to, const void* from, bool is_there) {
    if ((uintptr_t)to % 16 || (uintptr_t)from % 16) emu::fail("a copy of 16 bytes is not aligned to them");
    emu::note(to, 16, true);
    if (is_there) emu::note(from, 16, false);
    emu::self->copies.push_back({to, from, is_there ? 16u : 0u, emu::self->group});
}
inline void end_of_copies() { ++emu::self->group; }
template <unsigned LEFT> inline void wait_for_copies() { emu::copies_done(LEFT); }

struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
using std::fmaf;
using std::exp2f;
using std::log2f;
inline float __expf(float x) { return expf(x); }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline unsigned __float_as_uint(float f) { unsigned u; std::memcpy(&u, &f, 4); return u; }
inline float __uint_as_float(unsigned u) { float f; std::memcpy(&f, &u, 4); return f; }

// To the nearest bf16, ties to even; what is not a number becomes the one that the instruction gives.
inline unsigned rounded_to_bf16(float x) {
    const unsigned bits = __float_as_uint(x);
    return (bits & 0x7fffffff) > 0x7f800000 ? 0x7fff : bits + 0x7fff + (bits >> 16 & 1) >> 16;
}
inline unsigned rounded_pair(float first, float second) { return rounded_to_bf16(first) | rounded_to_bf16(second) << 16; }
