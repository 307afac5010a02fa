//! What can be taken over from a record of another configuration.

use super::read::{Checked, exactly, read_packed, same_format};
use super::{config_text, word};
use crate::block::BlockId;
use crate::moments::Region;
use crate::record::Record;
use crate::reference::HostBuffer;
use crate::selection::Selection;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// A block that a record holds whole.
pub(in crate::optimizer) struct WholeRun {
    pub block: BlockId,
    pub m: HostBuffer,
    pub v: HostBuffer,
    pub steps: u32,
    pub powers: [f64; 4],
}

/// Of the blocks of the next set, those that the record of another configuration holds whole.
pub(in crate::optimizer) fn whole_runs(s: &Selection, record: &Record) -> Checked<Vec<WholeRun>> {
    same_format(record)?;
    let (text, theirs) = (config_text(s), record.u8s("config")?);
    let theirs = String::from_utf8_lossy(&theirs);
    for field in ["betas = ", "moments = "] {
        let line = |text: &str| text.lines().find(|l| l.starts_with(field)).map(str::to_string).unwrap_or_default();
        let (here, there) = (line(&text), line(&theirs));
        if here != there {
            return Err(("config".to_string(), format!("the record was made with {there}, here it is {here}")));
        }
    }
    let mut out = Vec::new();
    for r in &s.next_set().regions {
        let (spec, leaf) = (s.blocks.spec(r.block), format!("block/{}", s.blocks.spec(r.block).record_name()));
        if record.get(&leaf).is_none() {
            continue;
        }
        let words = exactly(record.u64s(&leaf)?, word::LEN, &leaf)?;
        let shape = [words[word::ROWS], words[word::COLUMNS]];
        if shape != spec.shape.map(|n| n as u64) {
            return Err((leaf, format!("its shape is {shape:?}, here it is {:?}", spec.shape)));
        }
        let steps = u32::try_from(words[word::STEPS]).unwrap_or(u32::MAX);
        if words[word::CURRENT] != r.n as u64 || steps == 0 {
            continue;
        }
        if steps > u32::MAX >> 1 {
            return Err((leaf, "a count that no run reaches".to_string()));
        }
        let whole = Region { k: r.n, ..*r };
        let powers = core::array::from_fn(|i| f64::from_bits(words[word::POWERS + i]));
        let (m, v) = (read_packed(s, record, &whole, "m")?, read_packed(s, record, &whole, "v")?);
        out.push(WholeRun { block: r.block, m, v, steps, powers });
    }
    Ok(out)
}
