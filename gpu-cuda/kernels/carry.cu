// Moves one moment of a block from its old packed run to its new one (A5.4), unless the step is skipped: a coordinate that
// stays keeps it, one that enters has zero here, and so has what a short tile leaves over.
#include "element.cuh"
#include "flags.cuh"
#include "mask.cuh"

struct Carry {
    const void* from; // none where nothing stays
    void* to;
    const u32 *old_mask, *new_mask, *flags;
    u64 n, k;
};

template <class F> __device__ void carry(const Carry& a) {
    if (a.flags[SKIP]) return;
    const F* from = (const F*)a.from;
    F* to = (F*)a.to;
    const Mask old_mask = {a.old_mask, a.n}, new_mask = {a.new_mask, a.n};
    for (u64 i = first_item(); from && i < a.n; i += all_threads()) {
        if (new_mask.contains(i)) to[new_mask.rank(i)] = old_mask.contains(i) ? from[old_mask.rank(i)] : F(0);
    }
    const u64 moved = from ? new_mask.count() : 0;
    for (u64 j = moved + first_item(); j < a.k; j += all_threads()) to[j] = F(0);
}

FOR_COMPUTE_TYPES(carry, Carry)
