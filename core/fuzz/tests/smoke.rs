//! The targets hold for their seeds, and for some thousands of inputs that no fuzzer chose: a change of the engine that breaks
//! them shows without a nightly compiler.
#![allow(missing_docs)]

use blockllm::record::file::from_bytes;
use blockllm_fuzz::{fixture, record_file, record_leaves, restore};

/// Bytes without end, from a number.
fn noise(mut x: u64) -> impl Iterator<Item = u8> {
    std::iter::repeat_with(move || {
        x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 56) as u8
    })
}

#[test]
fn seeds_pass_and_most_files_among_them_are_records() {
    let files = record_file::seeds();
    files.iter().for_each(|f| record_file::run(f));
    assert_eq!(files.iter().filter(|f| from_bytes(f).is_ok()).count(), files.len() - 3);
    record_leaves::seeds().iter().for_each(|s| record_leaves::run(s));
}

#[test]
fn every_record_is_taken_by_its_own_fixture_alone() {
    for (i, fixture) in fixture::all().iter().enumerate() {
        assert!(fixture.records.windows(2).all(|w| w[0] != w[1]), "fixture {i} stands still");
        for (j, other) in fixture::all().iter().enumerate() {
            let taken = other.records.iter().filter_map(|r| restore::check(fixture, r)).count();
            assert_eq!(taken, if i == j { other.records.len() } else { 0 }, "{i} with the records of {j}");
        }
    }
}

#[test]
fn altered_leaves_are_refused_or_lived_with() {
    for i in 0..20_000 {
        let input: Vec<u8> = noise(i).take(96).collect();
        let outcome = std::panic::catch_unwind(|| record_leaves::run(&input));
        assert!(outcome.is_ok(), "input {i}");
    }
}
