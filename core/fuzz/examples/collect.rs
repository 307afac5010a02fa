use std::collections::BTreeMap;
use std::sync::Mutex;
static LAST: Mutex<String> = Mutex::new(String::new());
fn noise(mut x: u64) -> impl Iterator<Item = u8> {
    std::iter::repeat_with(move || {
        x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 56) as u8
    })
}
fn main() {
    blockllm_fuzz::fixture::all();
    std::panic::set_hook(Box::new(|i| { let m = i.to_string(); *LAST.lock().unwrap() = m.chars().take(330).collect(); }));
    let mut seen: BTreeMap<String, (u64, u64, String)> = BTreeMap::new();
    for i in 0..std::env::args().nth(1).unwrap().parse().unwrap() {
        let input: Vec<u8> = noise(i * 7919).take(96).collect();
        if std::panic::catch_unwind(|| blockllm_fuzz::record_leaves::run(&input)).is_err() {
            let m = LAST.lock().unwrap().clone();
            let key: String = m.split('\n').next().unwrap().into();
            let e = seen.entry(key).or_insert((0, i, m)); e.0 += 1;
        }
    }
    for s in blockllm_fuzz::record_file::seeds() { if std::panic::catch_unwind(|| blockllm_fuzz::record_file::run(&s)).is_err() { println!("SEED {}", LAST.lock().unwrap()); } }
    for (_, (n, i, m)) in seen { println!("-- {n} times, first {i}: {m}"); }
}
