// Replaces each count by the sum of those before it. One thread block, a run of counts for each thread.
#include "scan.cuh"

struct Scan {
    void* counts;
    u64 count;
};

template <class T> __device__ void scan(const Scan& a) {
    T* counts = (T*)a.counts;
    const u64 run = quotient_up(a.count, THREADS), first = threadIdx.x * run, end = smaller(a.count, first + run);
    u64 own = 0, all;
    for (u64 i = first; i < end; ++i) own += counts[i];
    u64 before = exclusive_scan(own, &all);
    for (u64 i = first; i < end; ++i) {
        const T x = counts[i];
        counts[i] = (T)before;
        before += x;
    }
}

extern "C" __global__ void scan_u32(Scan a) { scan<u32>(a); }
extern "C" __global__ void scan_u64(Scan a) { scan<u64>(a); }
