// The kernels' own sources, unmodified.
#include "execution.h"

#include "kernels.h"

// Generated: the sources, one include each.
#include "sources.inc"

namespace emulation {

namespace {

#define KERNEL(name) {#name, Kernel<name>::run},
const Entry entries[] = {
// Generated: KERNEL(name) for each entry of the PTX that ships.
#include "entries.inc"
};

} // namespace

const Entry* find_kernel(const char* name) {
    for (const Entry& e : entries) {
        if (strcmp(e.name, name) == 0) return &e;
    }
    return nullptr;
}

} // namespace emulation
