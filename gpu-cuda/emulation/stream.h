// What a stream owes to the host: copies to it, which arrive late, and events.
#pragma once
#include <cstddef>

namespace emulation {

// The elements are taken now, and arrive when an event after it is seen to be complete, or at a synchronisation.
void copy_to_host(void* to, const void* from, size_t bytes);
// Aborts where a copy is still on its way there.
void check_host_run(const void* address, size_t bytes);
// All copies arrive.
void arrive();

struct Event {
    unsigned long long after = 0; // copies asked for before it was recorded
    bool asked = false;
};
void record(Event& event);
// False the first time it is asked after it was recorded.
bool is_complete(Event& event);

} // namespace emulation
