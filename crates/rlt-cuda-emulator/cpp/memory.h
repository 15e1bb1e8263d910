// Memory and kernels of the emulated device, for its driver.
#pragma once
#include <cstddef>
#include "emulator.h"

namespace emu {
// Memory between pages that cannot be touched, its end (to 16 bytes) at one of them; null where there is none.
char* allocate(size_t bytes);
void release(char* memory);
size_t allocated_bytes();
Kernel* find_kernel(const char* name);
} // namespace emu
