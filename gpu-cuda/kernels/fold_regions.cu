// The sum of each region's subtrees, left in its first: a thread block for each region.
#include "regions.cuh"
#include "tree.cuh"

struct FoldRegions {
    const Region* regions;
    double* subtrees;
    u64 count;
};

extern "C" __global__ void fold_regions(FoldRegions a) {
    for (u64 r = blockIdx.x; r < a.count; r += gridDim.x) {
        fold_subtrees(a.subtrees + a.regions[r].first_subtree, subtrees_of(a.regions[r].k));
    }
}
