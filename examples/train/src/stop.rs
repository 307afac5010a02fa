//! Ctrl-C, and the end of the parent: a step that has begun is finished, everything is saved, then the process ends.
//!
//! A terminal sends Ctrl-C to parent and child alike; `kill` sends a signal to one of them. So the child also holds the
//! reading end of a pipe (its standard input) of which the parent holds the other: the parent closes it to say "stop", and
//! the system closes it when the parent is killed, so that no child trains on alone.

use std::io::Read;
use std::process::ChildStdin;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};

use crate::error::{Context, Failure, Result};

static ASKED: AtomicBool = AtomicBool::new(false);
static SIGNALLED: AtomicBool = AtomicBool::new(false);
static CHILD: Mutex<Option<ChildStdin>> = Mutex::new(None);

/// Whether to stop at the end of this step.
pub(crate) fn asked() -> bool {
    ASKED.load(SeqCst)
}

/// An interruption, if one was asked for.
pub(crate) fn check() -> Result<()> {
    if asked() { Err(Failure::Interrupted) } else { Ok(()) }
}

/// In the parent: signals are passed on to the child. The parent itself goes on, to wait for it.
pub(crate) fn watch_parent() -> Result<()> {
    let pass_on = || {
        ASKED.store(true, SeqCst);
        hold(None);
    };
    ctrlc::set_handler(pass_on).context(|| "cannot listen for Ctrl-C".to_string())
}

/// In the parent: keeps the child's pipe open, or closes it.
pub(crate) fn hold(pipe: Option<ChildStdin>) {
    let mut held = CHILD.lock().unwrap_or_else(PoisonError::into_inner);
    // A signal may have come before there was a child to pass it on to.
    *held = pipe.filter(|_| !asked());
}

/// In the child: listens for signals, and for the end of standard input.
pub(crate) fn watch_child() -> Result<()> {
    let stop = || {
        ASKED.store(true, SeqCst);
        // Whoever asks twice does not want to wait. A save that is under way leaves the checkpoint before it whole.
        if SIGNALLED.swap(true, SeqCst) {
            std::process::exit(i32::from(Failure::Interrupted.exit_code()));
        }
    };
    ctrlc::set_handler(stop).context(|| "cannot listen for Ctrl-C".to_string())?;
    std::thread::spawn(|| {
        let mut bytes = [0; 64];
        while !matches!(std::io::stdin().read(&mut bytes), Ok(0) | Err(_)) {}
        ASKED.store(true, SeqCst);
    });
    Ok(())
}
