// Bits set in each run of 512 coordinates of a mask; `scan` makes prefix counts of them.
#include "mask.cuh"

struct PrefixCounts {
    u32* mask;
    u64 n;
};

extern "C" __global__ void prefix_counts(PrefixCounts a) {
    const u64 words = quotient_up(a.n, 32);
    for (u64 run = first_item(); run < quotient_up(a.n, PREFIX); run += all_threads()) {
        u32 count = 0;
        for (u64 w = run * (PREFIX / 32); w < smaller(words, (run + 1) * (PREFIX / 32)); ++w) count += __popc(a.mask[w]);
        a.mask[words + run] = count;
    }
}
