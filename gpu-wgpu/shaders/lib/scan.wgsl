// Sums before each invocation of a workgroup, and of all of them.

var<workgroup> running: array<u32, 256>;

fn scan(id: u32, x: u32) -> vec2<u32> {
    running[id] = x;
    workgroupBarrier();
    for (var d = 1u; d < WORKGROUP; d *= 2u) {
        var other = 0u;
        if (id >= d) { other = running[id - d]; }
        workgroupBarrier();
        running[id] += other;
        workgroupBarrier();
    }
    let out = vec2<u32>(running[id] - x, running[WORKGROUP - 1u]);
    workgroupBarrier();
    return out;
}
