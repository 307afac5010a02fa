// Packs the gradient's active coordinates in order, widened, or adds them to what is packed (A6.2). What a short tile
// leaves over of the k elements is zero (A4.5).
#include "element.cuh"
#include "mask.cuh"

struct Gather {
    const void* g;
    void* packed;
    const u32* mask;
    u64 n, k, add;
};

template <class E, class F> __device__ void gather(const Gather& a) {
    const E* g = (const E*)a.g;
    F* packed = (F*)a.packed;
    const Mask mask = {a.mask, a.n};
    for (u64 i = first_item(); i < a.n; i += all_threads()) {
        if (!mask.contains(i)) continue;
        const u64 j = mask.rank(i);
        const F x = widened<F>(g[i]);
        packed[j] = a.add ? packed[j] + x : x;
    }
    if (a.add) return;
    for (u64 j = mask.count() + first_item(); j < a.k; j += all_threads()) packed[j] = F(0);
}

FOR_GRADIENTS(gather, Gather)
