// The table's row of each scored unit: the sums of its members added in index order (A2.5). What is not finite never
// replaces what was there.
#include "element.cuh"
#include "flags.cuh"

struct ScoredUnit {
    u64 unit, first, count, n;
};

struct EnterScores {
    const ScoredUnit* scored;
    const u64* members;
    const double* sums;
    double* table;
    u32* flags;
    u64 count, step;
};

const u64 ROW = 3;

extern "C" __global__ void enter_scores(EnterScores a) {
    for (u64 i = first_item(); i < a.count; i += all_threads()) {
        const ScoredUnit s = a.scored[i];
        double total = 0.0;
        for (u64 j = 0; j < s.count; ++j) total += a.sums[a.members[s.first + j]];
        if (is_finite(total)) {
            double* row = a.table + ROW * s.unit;
            row[0] = total;
            row[1] = (double)s.n;
            row[2] = (double)a.step;
        } else {
            count(a.flags + BAD_SCORES, 1);
        }
    }
}
