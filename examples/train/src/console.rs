//! What is told to the user. A reader that has gone away must not end the training, so errors of writing are ignored
//! (`println!` would panic).

use std::fmt::Display;
use std::io::Write;

/// A line on standard output: what the user asked for.
pub(crate) fn say(line: impl Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// A line on standard error: how it goes, and what is wrong.
pub(crate) fn note(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// A number with commas: 2,755,008.
pub(crate) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
