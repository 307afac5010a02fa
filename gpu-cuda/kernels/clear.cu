// Zeros in a region's moments, unless the step is skipped.
#include "element.cuh"
#include "flags.cuh"

struct Clear {
    void *m, *v;
    const u32* flags;
    u64 k;
};

template <class F> __device__ void clear(const Clear& a) {
    if (a.flags[SKIP]) return;
    for (u64 j = first_item(); j < a.k; j += all_threads()) ((F*)a.m)[j] = ((F*)a.v)[j] = F(0);
}

FOR_COMPUTE_TYPES(clear, Clear)
