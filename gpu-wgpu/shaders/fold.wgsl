// Partial sums into the sum of one block, or into the totals of a step. One workgroup.
// library: control wide single double found total

@group(0) @binding(1) var<storage, read> partials: array<u32>;
@group(0) @binding(2) var<storage, read_write> totals: array<u32>;
@group(0) @binding(3) var<storage, read_write> sums: array<u32>;

const OF_STEP: u32 = 1u;     // else of a block's score
const FIRST_REGION: u32 = 2u;
const COUNT_ZEROS: u32 = 4u;

var<workgroup> rest: array<vec2<u32>, 256>;
var<workgroup> seen: atomic<u32>;

@compute @workgroup_size(256)
fn fold(@builtin(local_invocation_index) id: u32) {
    var sum = vec2<u32>(0u, 0u);
    for (var p = id; p < c.items; p += WORKGROUP) {
        sum = double_add(sum, vec2<u32>(partials[p * PARTIAL], partials[p * PARTIAL + 1u]));
        atomicOr(&seen, partials[p * PARTIAL + 2u]);
    }
    rest[id] = sum;
    workgroupBarrier();
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        if (id < half) { rest[id] = double_add(rest[id], rest[id + half]); }
        workgroupBarrier();
    }
    if (id == 0u) {
        deliver(rest[0], atomicLoad(&seen));
    }
}

fn deliver(block_sum: vec2<u32>, found: u32) {
    var sum = block_sum;
    if ((found & INFINITE) != 0u) { sum = DOUBLE_INFINITY; }
    if ((found & NOT_A_NUMBER) != 0u) { sum = DOUBLE_NAN; }
    if ((c.options & OF_STEP) == 0u) {
        sums[c.sums_at] = sum.x;
        sums[c.sums_at + 1u] = sum.y;
        return;
    }
    var total = vec2<u32>(0u, 0u);
    var all = 0u;
    var zeros = 0u;
    if ((c.options & FIRST_REGION) == 0u) {
        total = vec2<u32>(totals[TOTAL], totals[TOTAL + 1u]);
        all = totals[FOUND];
        zeros = totals[ZEROS];
    }
    total = double_add(total, sum);
    totals[TOTAL] = total.x;
    totals[TOTAL + 1u] = total.y;
    totals[FOUND] = all | (found & TRIPS);
    totals[ZEROS] = zeros + select(0u, 1u, (c.options & COUNT_ZEROS) != 0u && (found & NOT_ZERO) == 0u);
}
