// Sums of units into the score table, where they are finite (A2.5). One invocation, so that counts and order are plain.
// library: control wide single double flag

@group(0) @binding(1) var<storage, read> rows: array<u32>;   // a member each: block, unit, 1 first + 2 last of its unit, n as f64
@group(0) @binding(2) var<storage, read> sums: array<u32>;
@group(0) @binding(3) var<storage, read_write> table: array<u32>;
@group(0) @binding(4) var<storage, read_write> flags: array<u32>;

@compute @workgroup_size(1)
fn enter_scores() {
    var total = vec2<u32>(0u, 0u);
    for (var row = 0u; row < c.items; row++) {
        let at = 5u * row;
        let block_id = rows[at];
        if ((rows[at + 2u] & 1u) != 0u) { total = vec2<u32>(0u, 0u); }
        total = double_add(total, vec2<u32>(sums[2u * block_id], sums[2u * block_id + 1u]));
        if ((rows[at + 2u] & 2u) == 0u) { continue; }
        if (!double_is_finite(total)) {
            flags[BAD_SCORES] = saturating_add(flags[BAD_SCORES], 1u);
            continue;
        }
        let to = 6u * rows[at + 1u];
        table[to] = total.x;
        table[to + 1u] = total.y;
        table[to + 2u] = rows[at + 3u];
        table[to + 3u] = rows[at + 4u];
        table[to + 4u] = c.number_low;
        table[to + 5u] = c.number_high;
    }
}
