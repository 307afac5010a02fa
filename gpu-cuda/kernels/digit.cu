// The next 8 bits of the key of the last item to be taken, and how many of these are. One thread block.
#include "select.cuh"

struct Digit {
    Selection* selection;
    u64 shift;
};

extern "C" __global__ void digit(Digit a) {
    __shared__ u64 counts[256];
    Selection& s = *a.selection;
    counts[threadIdx.x] = s.counts[threadIdx.x];
    s.counts[threadIdx.x] = 0; // for the next pass
    __syncthreads();
    if (threadIdx.x != 0) return;
    u64 byte = 255, room = s.room;
    for (; counts[byte] < room; --byte) room -= counts[byte];
    s.room = room;
    s.prefix |= byte << a.shift;
    s.known |= 255ull << a.shift;
}
