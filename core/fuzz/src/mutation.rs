//! Ways to spoil a record.

use crate::fixture::Fixture;
use arbitrary::{Arbitrary, Result, Unstructured};
use blockllm::record::{Leaf, LeafType};

/// Words at the edges of what is checked: counts, bit patterns of floats, and what overflows beside them.
const WORDS: [u64; 20] = [
    0,
    1,
    2,
    3,
    31,
    64,
    (1 << 31) - 1,
    1 << 31,
    u32::MAX as u64,
    1 << 52,
    (1 << 52) + 1,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 1,
    u64::MAX,
    0x3ff0_0000_0000_0000, // 1
    0x3ff0_0000_0000_0001, // just above
    0x7ff0_0000_0000_0000, // infinity
    0x7ff8_0000_0000_0000, // NaN
    0x0000_0000_0000_0001, // the least positive number
];

const TYPES: [LeafType; 5] = [LeafType::U8, LeafType::U32, LeafType::U64, LeafType::F32, LeafType::F64];

/// Spoils leaves once, as the bytes say.
///
/// # Errors
/// Bytes that are used up.
pub fn apply(u: &mut Unstructured<'_>, leaves: &mut Vec<Leaf>, fixture: &Fixture) -> Result<()> {
    if leaves.is_empty() {
        return Ok(());
    }
    let (kind, at) = (u8::arbitrary(u)?, u.choose_index(leaves.len())?);
    match kind % 16 {
        0..=6 => set_word(u, &mut leaves[at])?,
        7 => flip(u, &mut leaves[at].data)?,
        8 => resize(u, &mut leaves[at])?,
        9 => leaves[at].dtype = *u.choose(&TYPES)?,
        10 => drop(leaves.remove(at)),
        11 => leaves.push(leaves[at].clone()),
        12 => rename(u, &mut leaves[at], fixture)?,
        13 => {
            let other = u.choose_index(leaves.len())?;
            leaves[at].data = leaves[other].data.clone();
        }
        // Of another time: what belongs together disagrees.
        14 | 15 => {
            let record = u.choose(&fixture.records)?;
            if let Some(other) = record.get(&leaves[at].name) {
                leaves[at] = other.clone();
            }
        }
        _ => unreachable!("a remainder of 16"),
    }
    Ok(())
}

fn set_word(u: &mut Unstructured<'_>, leaf: &mut Leaf) -> Result<()> {
    let (size, words) = (leaf.dtype.size(), leaf.data.len() / leaf.dtype.size());
    if words == 0 {
        return Ok(());
    }
    let at = size * u.choose_index(words)?;
    let word = if u.ratio(2, 3)? { *u.choose(&WORDS)? } else { u64::arbitrary(u)? };
    // An f32's sign and exponent are the upper half's.
    let word = if leaf.dtype == LeafType::F32 { u64::from((f64::from_bits(word) as f32).to_bits()) } else { word };
    leaf.data[at..at + size].copy_from_slice(&word.to_le_bytes()[..size]);
    Ok(())
}

fn flip(u: &mut Unstructured<'_>, data: &mut [u8]) -> Result<()> {
    if !data.is_empty() {
        let at = u.choose_index(data.len())?;
        data[at] ^= 1 << (u8::arbitrary(u)? % 8);
    }
    Ok(())
}

/// By whole elements, or not.
fn resize(u: &mut Unstructured<'_>, leaf: &mut Leaf) -> Result<()> {
    let by = usize::from(u8::arbitrary(u)? % 32);
    let by = if bool::arbitrary(u)? { by * leaf.dtype.size() } else { by };
    let len = if bool::arbitrary(u)? { leaf.data.len() + by } else { leaf.data.len().saturating_sub(by) };
    leaf.data.resize(len, u8::arbitrary(u)?);
    Ok(())
}

fn rename(u: &mut Unstructured<'_>, leaf: &mut Leaf, fixture: &Fixture) -> Result<()> {
    let block = &u.choose(&fixture.specs)?.name;
    leaf.name = match u8::arbitrary(u)? % 6 {
        0 => format!("block/{block}"),
        1 => format!("m/{block}"),
        2 => format!("v/{block}"),
        3 => format!("mask/{block}"),
        4 => (*u.choose(&["format", "config", "host", "losses", "cursor", "round", "flags", "norm"])?).to_string(),
        _ => String::arbitrary(u)?,
    };
    Ok(())
}
