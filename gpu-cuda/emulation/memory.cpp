// Allocations by address, and what was freed a while ago.
#include "memory.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <iterator>
#include <map>

namespace emulation {

namespace {

const size_t GUARD = 256; // the alignment of device memory as well
const size_t IN_ALL = size_t(4) << 30;
const size_t KEPT = size_t(64) << 20; // of freed memory; it is looked at once more before it goes
const size_t LOOKED_AT = 16;
const unsigned char GUARDED = 0xfd, NEW = 0xcd, FREED = 0xdd;

struct Allocation {
    unsigned char* address;
    size_t bytes;
};

std::map<unsigned char*, size_t> live;
std::deque<Allocation> freed;
size_t in_use, kept;

bool holds(const unsigned char* from, size_t bytes, unsigned char value) {
    // Each byte equals the one before it.
    return bytes == 0 || (from[0] == value && memcmp(from, from + 1, bytes - 1) == 0);
}

void check_guards(unsigned char* address, size_t bytes) {
    if (!holds(address - GUARD, GUARD, GUARDED)) fail("a write before an allocation of %zu bytes", bytes);
    if (!holds(address + bytes, GUARD, GUARDED)) fail("a write past the end of an allocation of %zu bytes", bytes);
}

void check_freed(const Allocation& a) {
    if (!holds(a.address, a.bytes, FREED)) fail("a write to %zu bytes that were freed", a.bytes);
}

void forget_oldest() {
    check_freed(freed.front());
    kept -= freed.front().bytes;
    free(freed.front().address - GUARD);
    freed.pop_front();
}

} // namespace

void fail(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "CUDA emulation: ");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    va_end(arguments);
    abort();
}

void* allocate(size_t bytes) {
    if (bytes > IN_ALL - in_use) return nullptr;
    const size_t whole = GUARD + (bytes + GUARD - 1) / GUARD * GUARD + GUARD;
    unsigned char* start = (unsigned char*)aligned_alloc(GUARD, whole);
    if (!start) return nullptr;
    unsigned char* address = start + GUARD;
    memset(start, GUARDED, whole);
    memset(address, NEW, bytes);
    live[address] = bytes;
    in_use += bytes;
    return address;
}

void release(void* at) {
    unsigned char* address = (unsigned char*)at;
    const auto found = live.find(address);
    if (found == live.end()) fail("an address is freed that is not in use: %p", at);
    const size_t bytes = found->second;
    check_guards(address, bytes);
    memset(address, FREED, bytes);
    live.erase(found);
    in_use -= bytes;
    freed.push_back({address, bytes});
    for (kept += bytes; kept > KEPT;) forget_oldest();
}

void check_run(const void* at, size_t bytes, const char* what) {
    unsigned char* address = (unsigned char*)at;
    auto after = live.upper_bound(address);
    if (bytes == 0) return;
    if (after == live.begin()) fail("%s of %zu bytes at %p, which is in no allocation", what, bytes, at);
    const auto [start, size] = *std::prev(after);
    if (address + bytes > start + size) {
        fail("%s of %zu bytes at %p is not within the allocation of %zu bytes at %p", what, bytes, at, size, (void*)start);
    }
}

void check_memory() {
    for (const auto& [address, bytes] : live) check_guards(address, bytes);
    // What was freed last: to look at all of it each time would take longer than everything else.
    for (size_t i = freed.size(); i > 0 && freed.size() - i < LOOKED_AT; --i) check_freed(freed[i - 1]);
}

size_t memory_in_all() { return IN_ALL; }
size_t memory_in_use() { return in_use; }

} // namespace emulation
