// Decides whether the step is skipped; norm, clip factor and counters (A6.3, A6.4). One invocation.
// library: control wide single double total flag

@group(0) @binding(1) var<storage, read> totals: array<u32>;
@group(0) @binding(2) var<storage, read_write> flags: array<u32>;
@group(0) @binding(3) var<storage, read_write> norm: array<u32>;

const STEP: u32 = 1u;
const ONE_BLOCK: u32 = 2u;
const COUNTERS: u32 = 4u;
const EMPTY: u32 = 8u;      // no regions: nothing was added up
const CLIPS: u32 = 16u;

@compute @workgroup_size(1)
fn seal() {
    var total = vec2<u32>(0u, 0u);
    if ((c.options & COUNTERS) != 0u) {
        flags[SKIP] = flags[TRIPPED];
        flags[TRIPPED] = 0u;
    } else {
        var trips = false;
        var zeros = 0u;
        if ((c.options & EMPTY) == 0u) {
            total = vec2<u32>(totals[TOTAL], totals[TOTAL + 1u]);
            trips = totals[FOUND] != 0u;
            zeros = totals[ZEROS];
        }
        flags[SKIP] = select(0u, 1u, trips);
        if ((c.options & ONE_BLOCK) != 0u) {
            flags[TRIPPED] |= flags[SKIP];
        } else {
            clip(total);
            flags[ZERO_MASKS] = saturating_add(flags[ZERO_MASKS], zeros);
        }
    }
    if ((c.options & ONE_BLOCK) == 0u) { count_step(); }
}

fn clip(total: vec2<u32>) {
    let root = double_sqrt(total);
    let limit = vec2<u32>(c.clip_low, c.clip_high);
    var factor = DOUBLE_ONE;
    let is_number = !wide_less(DOUBLE_INFINITY, root);
    if ((c.options & CLIPS) != 0u && is_number && wide_less(limit, root)) {
        factor = double_div(limit, root);
    }
    norm[0] = root.x;
    norm[1] = root.y;
    norm[2] = factor.x;
    norm[3] = factor.y;
}

fn count_step() {
    if (flags[SKIP] == 0u) {
        flags[STREAK] = 0u;
        flags[APPLIED] = saturating_add(flags[APPLIED], 1u);
        return;
    }
    flags[SKIPPED] = saturating_add(flags[SKIPPED], 1u);
    let streak = saturating_add(flags[STREAK], 1u);
    flags[STREAK] = streak;
    flags[STREAK_ERRORS] = saturating_add(flags[STREAK_ERRORS], select(0u, 1u, streak >= c.guard_limit));
}
