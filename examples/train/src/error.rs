//! What can end a run early. Every message is one line: it is all that the user sees.

use std::fmt::Display;

/// The result of everything that can fail here.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// Why the program ends before its work is done.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something is wrong; the text says what. Exit status 2.
    Error(String),
    /// The user asked to stop, and everything is saved. Exit status 130, as a shell reports Ctrl-C.
    Interrupted,
    /// Something is wrong, and the process that found it has said so. Exit status 2.
    Reported,
}

impl Failure {
    /// An error with the given message, made into one line.
    pub(crate) fn new(message: impl Display) -> Self {
        Self::Error(one_line(&message.to_string()))
    }

    /// The status with which the process ends.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Error(_) | Self::Reported => 2,
            Self::Interrupted => 130,
        }
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Error(text) => text,
            Self::Interrupted => "interrupted",
            Self::Reported => "a process failed",
        })
    }
}

/// All words of a text, on one line.
pub(crate) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl From<candle_core::Error> for Failure {
    fn from(error: candle_core::Error) -> Self {
        // With RUST_BACKTRACE set candle appends a backtrace; the first line says what happened.
        let text = error.to_string();
        Self::new(text.lines().next().unwrap_or("an operation on tensors failed"))
    }
}

/// Says what was being done when an error came up.
pub(crate) trait Context<T> {
    /// Turns the error into `what: error`.
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Display> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Failure::new(format!("{}: {error}", what())))
    }
}
