//! Bytes as a record's file: read, and where they are one, restored.

use crate::{fixture, restore};
use blockllm::record::file::{from_bytes, to_bytes};

/// Files of records, whole and spoilt.
///
/// # Panics
/// Never: the records are the fixtures'.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut out = vec![Vec::new(), b"{}".to_vec()];
    for fixture in fixture::all() {
        let ends = [fixture.records.first(), fixture.records.last()];
        out.extend(ends.into_iter().flatten().map(|record| to_bytes(record).expect("a file")));
    }
    let whole = out.last().cloned().unwrap_or_default();
    out.push(whole[..whole.len() / 2].to_vec());
    out
}

/// No panic; what is taken is what would be written; what cannot be restored changes nothing.
///
/// # Panics
/// Where one of these does not hold.
pub fn run(bytes: &[u8]) {
    let Ok(record) = from_bytes(bytes) else { return };
    assert!(to_bytes(&record).is_ok_and(|again| again == bytes), "read, and not written as it was");
    for fixture in fixture::all() {
        if let Some(mut o) = restore::check(fixture, &record) {
            restore::go_on(fixture, &mut o, &[]);
        }
    }
}
