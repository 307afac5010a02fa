// Everything runs at the call; only what the host may see is late, so that a host that does not wait sees garbage.
#include "stream.h"

#include "memory.h"

#include <cstring>
#include <deque>
#include <vector>

namespace emulation {

namespace {

struct Copy {
    char* to;
    std::vector<char> bytes;
};

std::deque<Copy> copies;
unsigned long long arrived;

void arrive_up_to(unsigned long long count) {
    for (; arrived < count && !copies.empty(); ++arrived, copies.pop_front()) {
        memcpy(copies.front().to, copies.front().bytes.data(), copies.front().bytes.size());
    }
}

} // namespace

void copy_to_host(void* to, const void* from, size_t bytes) {
    copies.push_back({(char*)to, std::vector<char>((const char*)from, (const char*)from + bytes)});
    memset(to, 0xee, bytes);
}

void check_host_run(const void* address, size_t bytes) {
    const char *first = (const char*)address, *end = first + bytes;
    for (const Copy& c : copies) {
        if (c.to < end && first < c.to + c.bytes.size()) fail("host memory is freed while a copy to it is on its way");
    }
}

void arrive() { arrive_up_to(arrived + copies.size()); }

void record(Event& event) { event = {arrived + copies.size(), false}; }

bool is_complete(Event& event) {
    if (event.after > arrived && !event.asked) {
        event.asked = true;
        return false;
    }
    arrive_up_to(event.after);
    return true;
}

} // namespace emulation
