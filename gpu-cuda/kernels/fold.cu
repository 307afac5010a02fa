// The sum of a block's subtrees. One thread block.
#include "tree.cuh"

struct Fold {
    double *subtrees, *sum;
    u64 count;
};

extern "C" __global__ void fold(Fold a) {
    fold_subtrees(a.subtrees, a.count);
    if (threadIdx.x == 0) *a.sum = a.subtrees[0];
}
