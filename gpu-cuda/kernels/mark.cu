// Sets the mask's bits: of items above the key of the last one to be taken, and of the first that equal it, by index. The
// bitmap of tiles must be zero before; that of coordinates is written word by word.
#include "scan.cuh"
#include "select.cuh"

struct Mark {
    Items items;
    const Selection* selection;
    const u64* ties; // before each chunk
    u32* mask;
};

// Bits of coordinates first to end, in words that other threads set bits in too.
static __device__ void set_bits(u32* words, u64 first, u64 end) {
    for (u64 i = first; i < end; i = (i / 32 + 1) * 32) {
        const u64 up_to = smaller(end, (i / 32 + 1) * 32);
        const u32 below = 0xffffffffu >> (31u - (u32)((up_to - 1) % 32)), above = 0xffffffffu << (i % 32);
        atomicOr(words + i / 32, below & above);
    }
}

template <class E, class F> __device__ void mark(const Mark& a) {
    const u64 items = items_of(a.items), threshold = a.selection->prefix, room = a.selection->room;
    for (u64 c = blockIdx.x; c < quotient_up(items, CHUNK); c += gridDim.x) {
        const u64 first = c * CHUNK + threadIdx.x * OWN, end = smaller(items, first + OWN);
        u32 above = 0, equal = 0, taken = 0;
        for (u64 i = first; i < end; ++i) {
            const u64 x = key<E, F>(a.items, i);
            above |= (u32)(x > threshold) << (i - first);
            equal |= (u32)(x == threshold) << (i - first);
        }
        u64 all, before = a.ties[c] + exclusive_scan(__popc(equal), &all);
        for (u32 b = 0; b < OWN; ++b) {
            const bool tie = equal >> b & 1u;
            taken |= (u32)((above >> b & 1u) || (tie && before < room)) << b;
            before += tie;
        }
        if (a.items.tile == 1) {
            if (first < end) a.mask[first / OWN] = taken;
            continue;
        }
        for (u64 i = first; i < end; ++i) {
            if (taken >> (i - first) & 1u) {
                set_bits(a.mask, i * a.items.tile, smaller(a.items.n, (i + 1) * a.items.tile));
            }
        }
    }
}

FOR_GRADIENTS(mark, Mark)
