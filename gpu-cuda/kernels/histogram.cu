// How many items there are of each next 8 bits, among those of the prefix.
#include "select.cuh"

struct Histogram {
    Items items;
    Selection* selection;
    u64 shift;
};

static __device__ u32* shared_counts() {
    __shared__ u32 counts[256];
    return counts;
}

template <class E, class F> __device__ void histogram(const Histogram& a) {
    u32* counts = shared_counts();
    const u64 known = a.selection->known, prefix = a.selection->prefix;
    counts[threadIdx.x] = 0;
    __syncthreads();
    for (u64 i = first_item(); i < items_of(a.items); i += all_threads()) {
        const u64 x = key<E, F>(a.items, i);
        if ((x & known) == prefix) atomicAdd(counts + (x >> a.shift & 255u), 1u);
    }
    __syncthreads();
    if (counts[threadIdx.x]) atomicAdd(a.selection->counts + threadIdx.x, (u64)counts[threadIdx.x]);
}

FOR_GRADIENTS(histogram, Histogram)
