// How many items of each chunk have the key of the last item to be taken.
#include "scan.cuh"
#include "select.cuh"

struct Ties {
    Items items;
    const Selection* selection;
    u64* ties; // by chunk
};

template <class E, class F> __device__ void ties(const Ties& a) {
    const u64 items = items_of(a.items), threshold = a.selection->prefix;
    for (u64 c = blockIdx.x; c < quotient_up(items, CHUNK); c += gridDim.x) {
        const u64 first = c * CHUNK + threadIdx.x * OWN;
        u64 own = 0, all;
        for (u64 i = first; i < smaller(items, first + OWN); ++i) own += key<E, F>(a.items, i) == threshold;
        exclusive_scan(own, &all);
        if (threadIdx.x == 0) a.ties[c] = all;
    }
}

FOR_GRADIENTS(ties, Ties)
