// Device memory in host memory, with checks: guards around each allocation, garbage in what is new, poison in what was freed.
// Whatever is wrong aborts, with a message.
#pragma once
#include <cstddef>

namespace emulation {

// Null where the device has no more.
void* allocate(size_t bytes);
void release(void* address);
// That all of a run lies in one allocation.
void check_run(const void* address, size_t bytes, const char* what);
// The guards of all allocations, and the poison of what was freed last.
void check_memory();

size_t memory_in_all();
size_t memory_in_use();

// Prints a line and aborts.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

} // namespace emulation
