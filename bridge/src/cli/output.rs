//! Standard output: the results of commands, and nothing else.

use std::io::{self, Write as _};

use serde_json::Value;

use super::failure::Failure;

/// Writes a text and flushes it.
///
/// # Errors
/// [`Failure::output`].
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(Failure::output)
}

/// Writes one JSON document on one line.
///
/// # Errors
/// As [`print`].
pub(crate) fn print_json(value: &Value) -> Result<(), Failure> {
    print(&format!("{value}\n"))
}

/// A line for people on standard error that is not the command's result. Losing it is no failure.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
