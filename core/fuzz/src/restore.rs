//! What must hold of any record that is handed to `Optimizer::restore`.

use crate::fixture::{Fixture, Small, train};
use blockllm::{Error, Record};

/// Restores into an optimizer that is in the state of the fixture's last record. Where that is refused, nothing has changed;
/// where it is taken, what is saved now is taken again, and is then the same.
///
/// # Panics
/// Where one of these does not hold.
pub fn check(fixture: &Fixture, record: &Record) -> Option<Small> {
    let last = fixture.records.last().expect("records");
    let mut o = fixture.optimizer();
    o.restore(last).expect("a record of its own");
    match o.restore(record) {
        Ok(()) => {}
        Err(Error::Record { leaf, problem }) => {
            assert!(!leaf.contains('\n') && !problem.contains('\n'), "more than one line: {leaf}: {problem}");
            assert!(o.save().expect("a record") == *last, "refused ({leaf}: {problem}), and yet something changed");
            return None;
        }
        Err(other) => panic!("no error of a record: {other}"),
    }
    let taken = o.save().expect("a record of what was taken");
    let mut again = fixture.optimizer();
    again.restore(&taken).expect("what was taken once is taken again");
    assert!(again.save().expect("a record") == taken, "it was taken, and is another one when it is saved and taken again");
    Some(o)
}

/// Three steps, with what a user may do between them. Errors are answers; a panic is none.
///
/// # Panics
/// Where an optimizer that did not say that it is poisoned cannot be saved.
pub fn go_on(fixture: &Fixture, o: &mut Small, choices: &[u8]) {
    let mut tensors = fixture.tensors();
    for step in 0..3u8 {
        let choice = choices.get(usize::from(step)).copied().unwrap_or_default();
        let block = u32::from(choice / 16) % fixture.specs.len() as u32;
        let _ = match choice % 8 {
            1 => o.force_decision().map_err(|e| e.to_string()),
            2 => o.freeze(block).map_err(|e| e.to_string()),
            3 => o.thaw(block).map_err(|e| e.to_string()),
            4 => o.report().map(drop).map_err(|e| e.to_string()),
            _ => Ok(()),
        };
        let loss = [Some(1.0), None, Some(f64::NAN), Some(f64::MAX)][usize::from(choice >> 6)];
        let _ = train(o, &mut tensors, u64::from(step), loss);
        let _ = o.memory();
    }
    if o.is_step_open() {
        o.abort().expect("an open step can be aborted");
    }
    let record = o.save().expect("a record after three steps");
    assert!(record.get("host").is_some());
}
