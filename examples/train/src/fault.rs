//! Faults on demand: tests use them to see that a failing or slow disk costs nothing but time.

use std::io::{self, Write};
use std::str::FromStr;
use std::time::Duration;

/// What shall go wrong while a checkpoint is written.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Fault {
    /// Nothing.
    #[default]
    None,
    /// The disk is full after this many bytes of each file.
    FullAfter(usize),
    /// Each write takes this many milliseconds.
    Slow(u64),
}

impl FromStr for Fault {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, number) = text.split_once(':').ok_or("full-after:BYTES or slow:MILLISECONDS")?;
        let number: u32 = number.parse().map_err(|_| "not a number")?;
        match kind {
            "full-after" => Ok(Self::FullAfter(number as usize)),
            "slow" => Ok(Self::Slow(number.into())),
            _ => Err("full-after:BYTES or slow:MILLISECONDS"),
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::FullAfter(bytes) => write!(f, "full-after:{bytes}"),
            Self::Slow(ms) => write!(f, "slow:{ms}"),
        }
    }
}

/// A writer with that fault.
pub(crate) struct Faulty<W> {
    inner: W,
    fault: Fault,
    written: usize,
}

impl<W> Faulty<W> {
    /// Puts the fault in front of a writer.
    pub(crate) fn new(inner: W, fault: Fault) -> Self {
        Self { inner, fault, written: 0 }
    }

    /// The writer behind.
    pub(crate) fn into_inner(self) -> W {
        self.inner
    }
}

impl<W: Write> Write for Faulty<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut bytes = bytes;
        match self.fault {
            Fault::None => {}
            Fault::Slow(ms) => std::thread::sleep(Duration::from_millis(ms)),
            Fault::FullAfter(limit) => {
                let room = limit - self.written;
                if room == 0 && !bytes.is_empty() {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                bytes = &bytes[..bytes.len().min(room)];
            }
        }
        let count = self.inner.write(bytes)?;
        self.written += count;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
