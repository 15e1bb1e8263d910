// The fibers, the guarded memory and the race check behind emulator.h.
#include "emulator.h"
#include "memory.h"
#include <algorithm>
#include <map>
#include <mutex>
#include <random>
#include <string>
#include <sys/mman.h>
#include <vector>

namespace emu {
Block block;
Fiber* self;
unsigned thread_number;
char* shared;
static void* main_stack_pointer;
static void (*the_body)(void*);
static void* the_arguments;
static std::vector<Fiber> fibers;
static const size_t STACK_BYTES = 128 << 10;

static unsigned number_from(const char* name) { const char* text = std::getenv(name); return text ? atoi(text) : 0; }

// Saves the registers that a call must keep, exchanges the stacks, restores.
extern "C" void emu_switch(void** from, void* to);
asm(R"(
.text
.globl emu_switch
.hidden emu_switch
emu_switch:
  pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
  ret
)");

[[noreturn]] void fail(const char* what) {
    std::fprintf(stderr, "emulated device: %s (block %u %u, thread %u)\n", what, block.index.x, block.index.y, thread_number);
    std::_Exit(70);
}
void wait(State state, unsigned mask, const void* what) {
    self->state = state; self->mask = mask; self->what = what;
    emu_switch(&self->stack_pointer, main_stack_pointer);
}
static void entry() { the_body(the_arguments); self->state = ENDED; emu_switch(&self->stack_pointer, main_stack_pointer); std::abort(); }

Place::Place(const char* path, int line) : line(line), passed_over(false) {
    const char* slash = std::strrchr(path, '/');
    file = slash ? slash + 1 : path;
    const std::string own = std::string(file) + ":" + std::to_string(line);
    const char* without = std::getenv("EMU_WITHOUT");
    passed_over = without && own == without;
    if (const char* list = std::getenv("EMU_PLACES")) if (FILE* out = std::fopen(list, "a")) { std::fprintf(out, "%s\n", own.c_str()); std::fclose(out); }
}

static std::vector<Exchange> exchanges;
Exchange& exchange() { return exchanges[thread_number / 32 * 2 + (self->turn++ & 1)]; }

static std::map<std::string, Kernel>& kernels() { static std::map<std::string, Kernel> all; return all; }
void add_kernel(Kernel kernel) { kernels()[kernel.name] = kernel; }
Kernel* find_kernel(const char* name) { auto at = kernels().find(name); return at == kernels().end() ? nullptr : &at->second; }

// --- Memory, and who accessed it last.

struct Access { uint32_t block = ~0u, epoch = 0, warp_epoch = 0, thread = 0; };
// Of two bytes.
struct Shadow { Access write, read, other; };
struct Region { uintptr_t begin, end; bool is_shared; std::vector<Shadow> shadow; };
static std::map<uintptr_t, Region> regions; // by end
static uint32_t block_number, block_epoch;
static uint64_t n_races;
static std::mutex in_use;

static bool races(const Access& a, bool is_shared) {
    if (a.block == ~0u || (a.thread == thread_number && a.block == block_number)) return false;
    if (a.block != block_number) return !is_shared;
    if (a.epoch != block_epoch) return false;
    return !(a.thread / 32 == thread_number / 32 && a.warp_epoch < self->warp_epoch);
}
static void report(const char* what, const Access& a) {
    if (n_races++ < 3) std::fprintf(stderr, "emulated device: race: %s by block %u thread %u, with no barrier since block %u thread %u\n", what, block_number, thread_number, a.block, a.thread);
}
void note(const void* p, unsigned n, bool write) {
    if (!self) return;
    auto found = regions.upper_bound((uintptr_t)p);
    if (found == regions.end() || (uintptr_t)p < found->second.begin) return;
    Region& region = found->second;
    const Access now{block_number, block_epoch, self->warp_epoch, thread_number};
    for (size_t at = ((uintptr_t)p - region.begin) / 2, end = ((uintptr_t)p + n - region.begin + 1) / 2; at < end && at < region.shadow.size(); ++at) {
        Shadow& s = region.shadow[at];
        if (races(s.write, region.is_shared)) return report(write ? "write after write" : "read after write", s.write);
        if (write) {
            if (races(s.read, region.is_shared)) return report("write after read", s.read);
            if (races(s.other, region.is_shared)) return report("write after read", s.other);
            s.write = now;
        } else if (s.read.block == block_number && s.read.epoch == block_epoch && s.read.thread != thread_number) s.other = now;
        else s.read = now;
    }
}

void load_matrices(Exchange& all, unsigned matrices, bool transposed) {
    const auto number = [&](unsigned matrix, unsigned row, unsigned column) { return (unsigned)((const uint16_t*)all.slot[8 * matrix + row])[column]; };
    for (unsigned lane = 0; lane < 32; ++lane) for (unsigned i = 0; i < matrices; ++i) {
        const unsigned g = lane / 4, t = lane % 4 * 2;
        all.made[lane][i] = transposed ? number(i, t, g) | number(i, t + 1, g) << 16 : number(i, g, t) | number(i, g, t + 1) << 16;
    }
    all.is_made = true;
}

void copies_done(unsigned left) {
    std::vector<Copy> rest;
    for (const Copy& copy : self->copies) {
        if (copy.group + left >= self->group) { rest.push_back(copy); continue; }
        note(copy.to, 16, true);
        std::memset(copy.to, 0, 16);
        std::memcpy(copy.to, copy.from, copy.bytes);
    }
    self->copies.swap(rest);
}

static const bool watches = std::getenv("EMU_RACES") != nullptr;
static std::map<uintptr_t, std::pair<char*, size_t>> mappings;

static char* guarded(size_t bytes, bool is_shared) {
    const size_t page = 4096, pages = (bytes + page - 1) / page * page;
    char* mapping = (char*)mmap(nullptr, pages + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED || mprotect(mapping + page, pages, PROT_READ | PROT_WRITE)) return nullptr;
    char* out = mapping + page + pages - (bytes + 15) / 16 * 16;
    // Not a number, whatever reads it before it is written.
    std::memset(mapping + page, 0xff, pages);
    mappings[(uintptr_t)out] = {mapping, pages + 2 * page};
    if (watches) {
        Region region{(uintptr_t)out, (uintptr_t)out + bytes, is_shared, {}};
        region.shadow.resize(bytes / 2 + 1);
        regions[region.end] = std::move(region);
    }
    return out;
}
static size_t allocated;
size_t allocated_bytes() { std::lock_guard<std::mutex> lock(in_use); return allocated; }
char* allocate(size_t bytes) {
    std::lock_guard<std::mutex> lock(in_use);
    char* p = guarded(bytes, false);
    if (p) allocated += mappings[(uintptr_t)p].second - 2 * 4096;
    return p;
}
static void give_back(char* p) {
    auto at = mappings.find((uintptr_t)p);
    if (at == mappings.end()) fail("memory is freed that was not allocated");
    munmap(at->second.first, at->second.second);
    mappings.erase(at);
    auto region = regions.upper_bound((uintptr_t)p);
    if (region != regions.end() && region->second.begin == (uintptr_t)p) regions.erase(region);
}
void release(char* p) {
    std::lock_guard<std::mutex> lock(in_use);
    auto at = mappings.find((uintptr_t)p);
    if (at != mappings.end()) allocated -= at->second.second - 2 * 4096;
    give_back(p);
}

void launch(dim3 grid, dim3 size, unsigned shared_bytes, void (*body)(void*), void* arguments) {
    std::lock_guard<std::mutex> lock(in_use);
    static const unsigned order = number_from("EMU_ORDER");
    const unsigned n = size.x * size.y * size.z, warps = (n + 31) / 32;
    static char* stacks = (char*)mmap(nullptr, 1024 * STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    shared = shared_bytes ? guarded(shared_bytes, true) : nullptr;
    the_body = body; the_arguments = arguments; block.grid = grid; block.block = size;
    exchanges.resize(warps * 2);
    for (auto& [end, region] : regions) std::fill(region.shadow.begin(), region.shadow.end(), Shadow{});
    std::mt19937 rng(order);
    std::vector<unsigned> warp_turn(warps), lane_turn(32);
    for (unsigned i = 0; i < warps; ++i) warp_turn[i] = order == 1 ? warps - 1 - i : i;
    for (unsigned i = 0; i < 32; ++i) lane_turn[i] = order == 1 ? 31 - i : i;
    const unsigned blocks = grid.x * grid.y * grid.z;
    for (unsigned turn = 0; turn < blocks; ++turn) {
        block_number = order == 1 ? blocks - 1 - turn : turn;
        block.index = {block_number % grid.x, block_number / grid.x % grid.y, block_number / grid.x / grid.y};
        block_epoch = 0;
        if (shared) std::memset(shared, 0xff, shared_bytes);
        fibers.assign(n, {});
        for (unsigned i = 0; i < n; ++i) {
            fibers[i].thread = {i % size.x, i / size.x % size.y, i / size.x / size.y};
            void** sp = (void**)(stacks + (i + 1) * STACK_BYTES - 16);
            *--sp = nullptr; *--sp = (void*)entry;
            for (int k = 0; k < 6; ++k) *--sp = nullptr;
            fibers[i].stack_pointer = sp;
        }
        for (unsigned ended = 0; ended < n;) {
            if (order >= 2) std::shuffle(warp_turn.begin(), warp_turn.end(), rng);
            // Each warp as far as it goes: to a barrier of the block, or its end.
            for (unsigned w : warp_turn) for (bool goes_on = true; goes_on;) {
                const unsigned first = w * 32, lanes = std::min(32u, n - first);
                if (order >= 3) std::shuffle(lane_turn.begin(), lane_turn.end(), rng);
                for (unsigned lane : lane_turn) {
                    if (lane >= lanes || fibers[first + lane].state != RUNS) continue;
                    self = &fibers[first + lane]; thread_number = first + lane;
                    emu_switch(&main_stack_pointer, self->stack_pointer);
                    ended += self->state == ENDED;
                }
                goes_on = false;
                for (unsigned lane = 0; lane < lanes; ++lane) {
                    Fiber& f = fibers[first + lane];
                    if (f.state != IN_WARP) continue;
                    self = &f; thread_number = first + lane;
                    const unsigned mask = f.mask; const void* what = f.what;
                    for (unsigned j = 0; j < 32; ++j) if (mask >> j & 1) {
                        if (j >= lanes || fibers[first + j].state == ENDED) fail("a warp-wide operation waits for a lane that has ended");
                        if (fibers[first + j].state == AT_BARRIER) fail("a warp-wide operation waits for a lane at __syncthreads");
                        if (fibers[first + j].mask != mask || fibers[first + j].what != what) fail("lanes of a warp are at different warp-wide operations");
                    }
                    for (unsigned j = 0; j < lanes; ++j) if (mask >> j & 1) fibers[first + j].state = RUNS;
                    goes_on = true;
                }
            }
            unsigned waiting = 0; const void* where = nullptr;
            for (auto& f : fibers) if (f.state == AT_BARRIER) {
                ++waiting;
                if (where && f.what != where) fail("threads of a block wait at different __syncthreads");
                where = f.what;
            }
            if (waiting && ended) fail("__syncthreads that some threads never reach");
            if (waiting) { ++block_epoch; for (auto& f : fibers) f.state = RUNS; }
        }
        self = nullptr;
    }
    if (shared) give_back(shared);
    if (n_races) { std::fprintf(stderr, "emulated device: %llu races\n", (unsigned long long)n_races); std::_Exit(71); }
}
} // namespace emu

// mma.m16n8k16 of bf16, row by column: this lane's four sums.
void multiply_add(float (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    static const char what = 0;
    const unsigned lane = emu::thread_number % 32;
    emu::Exchange& all = emu::exchange();
    std::memcpy(all.words[lane], a, sizeof(a));
    all.words[lane][4] = b0; all.words[lane][5] = b1;
    emu::wait(emu::IN_WARP, 0xffffffffu, &what);
    const auto half = [](unsigned word, unsigned k) { return __uint_as_float(k % 2 ? word & 0xffff0000 : word << 16); };
    for (unsigned i = 0; i < 4; ++i) {
        const unsigned g = lane / 4, column = lane % 4 * 2 + i % 2, lower = i / 2;
        for (unsigned k = 0; k < 16; ++k) {
            const unsigned pair = k % 8 / 2, far = k / 8;
            sums[i] += half(all.words[g * 4 + pair][lower + 2 * far], k) * half(all.words[column * 4 + pair][4 + far], k);
        }
    }
}

// What g++ -fsanitize=thread has called at every access.
#define HOOK(n) \
    extern "C" void __tsan_read##n(void* p) { emu::note(p, n, false); } \
    extern "C" void __tsan_write##n(void* p) { emu::note(p, n, true); } \
    extern "C" void __tsan_unaligned_read##n(void* p) { emu::note(p, n, false); } \
    extern "C" void __tsan_unaligned_write##n(void* p) { emu::note(p, n, true); }
HOOK(1) HOOK(2) HOOK(4) HOOK(8) HOOK(16)
extern "C" void __tsan_init() {}
extern "C" void __tsan_func_entry(void*) {}
extern "C" void __tsan_func_exit() {}
extern "C" void __tsan_vptr_update(void**, void*) {}
extern "C" void __tsan_vptr_read(void**) {}
extern "C" void __tsan_read_range(void* p, long n) { emu::note(p, n, false); }
extern "C" void __tsan_write_range(void* p, long n) { emu::note(p, n, true); }
extern "C" char __tsan_atomic8_load(const char* p, int) { return *p; }
