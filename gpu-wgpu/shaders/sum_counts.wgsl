// Counts of workgroups become the counts before each, over pieces: `slot` is the running count's word. One workgroup.
// library: control selection scan

@group(0) @binding(1) var<storage, read_write> selection: array<u32>;

@compute @workgroup_size(256)
fn sum_counts(@builtin(local_invocation_index) id: u32) {
    var count = 0u;
    if (id < c.items) { count = selection[COUNTS + id]; }
    let before = scan(id, count);
    let start = selection[c.slot];
    storageBarrier();
    workgroupBarrier();
    if (id < c.items) { selection[COUNTS + id] = start + before.x; }
    if (id == 0u) { selection[c.slot] = start + before.y; }
}
