// Kernels by name.
#pragma once

namespace emulation {

struct Entry {
    const char* name;
    void (*run)(const void* arguments);
};

// Null where there is none.
const Entry* find_kernel(const char* name);

} // namespace emulation
