// A radix select over the items of a gradient: coordinates, or tiles by their largest |g| (A4.4, A4.5).
#pragma once
#include "element.cuh"

// What is known of the key of the last item to be taken. 8 bits are found a pass, from the top.
struct Selection {
    u64 prefix; // its bits that are known
    u64 known;  // which ones they are
    u64 room;   // items of that prefix to be taken
    u64 counts[256];
};

// Items of a thread and of a chunk, which a thread block goes over at a time. A thread's coordinates are a word of the mask.
const u64 OWN = 32, CHUNK = OWN * THREADS;

struct Items {
    const void* g;
    u64 n, tile; // coordinates, and how many are an item
};

static __device__ __forceinline__ u64 items_of(const Items& a) { return quotient_up(a.n, a.tile); }

template <class E, class F> __device__ __forceinline__ u64 key(const Items& a, u64 item) {
    u64 largest = 0;
    for (u64 i = item * a.tile; i < smaller(a.n, (item + 1) * a.tile); ++i) {
        const u64 x = magnitude(widened<F>(((const E*)a.g)[i]));
        if (x > largest) largest = x;
    }
    return largest;
}
