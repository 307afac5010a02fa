// The digit of the k-th largest key, from the histogram, which is left at zero for the next pass. One workgroup.
// library: control selection

@group(0) @binding(1) var<storage, read_write> selection: array<u32>;

var<workgroup> counts: array<u32, 256>;

@compute @workgroup_size(256)
fn pick(@builtin(local_invocation_index) id: u32) {
    counts[id] = selection[HISTOGRAM + id];
    selection[HISTOGRAM + id] = 0u;
    workgroupBarrier();
    if (id != 0u) { return; }
    var room = selection[ROOM];
    if (selection[KNOWN] == 0u) { room = c.k; }
    var digit = 255u;
    while (digit > 0u && counts[digit] < room) {
        room -= counts[digit];
        digit--;
    }
    selection[PREFIX] |= digit << c.shift;
    selection[KNOWN] |= 255u << c.shift;
    selection[ROOM] = room;
}
