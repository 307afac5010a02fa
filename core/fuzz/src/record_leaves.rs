//! A whole record that is then altered leaf by leaf: what a checksum keeps away from `Optimizer::restore` in a file comes
//! through here.

use crate::{fixture, mutation, restore};
use arbitrary::{Arbitrary, Result, Unstructured};
use blockllm::Record;

/// Inputs that reach each fixture, and each kind of mutation.
pub fn seeds() -> Vec<Vec<u8>> {
    let fixtures = fixture::all().len() as u8;
    (0..fixtures * 4)
        .map(|i| (0..64).map(|j: u8| if j < 2 { i } else { i.wrapping_mul(37) ^ j.wrapping_mul(11) }).collect())
        .collect()
}

/// No panic, no huge allocation; what is refused changes nothing; what is taken can go on.
///
/// # Panics
/// Where one of these does not hold.
pub fn run(bytes: &[u8]) {
    // Too few bytes for what they ask for: there is nothing to try.
    let _ = attempt(&mut Unstructured::new(bytes));
}

fn attempt(u: &mut Unstructured<'_>) -> Result<()> {
    let fixtures = fixture::all();
    let fixture = &fixtures[usize::from(u8::arbitrary(u)?) % fixtures.len()];
    let record = &fixture.records[usize::from(u8::arbitrary(u)?) % fixture.records.len()];
    let choices = <[u8; 3]>::arbitrary(u)?;
    let mut leaves = record.clone().into_leaves();
    for _ in 0..1 + choices[0] % 4 {
        mutation::apply(u, &mut leaves, fixture)?;
    }
    if let Some(mut o) = restore::check(fixture, &Record::from_leaves(leaves)) {
        restore::go_on(fixture, &mut o, &choices);
    }
    Ok(())
}
