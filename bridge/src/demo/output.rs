//! Writing to the terminal or into a pipe. A closed pipe is no error: nobody reads any more.

use std::error::Error;
use std::io::{self, IsTerminal as _, Write as _};

/// Where lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    Stdout,
    /// When the standard output belongs to a JSON document.
    Stderr,
}

impl Output {
    pub(crate) fn is_terminal(self) -> bool {
        match self {
            Self::Stdout => io::stdout().is_terminal(),
            Self::Stderr => io::stderr().is_terminal(),
        }
    }

    /// Writes text as it is.
    pub(crate) fn write(self, text: &str) {
        // What cannot be written is lost; the exit code and the records say what happened.
        let _ = match self {
            Self::Stdout => io::stdout()
                .lock()
                .write_all(text.as_bytes())
                .and_then(|()| io::stdout().flush()),
            Self::Stderr => io::stderr().lock().write_all(text.as_bytes()),
        };
    }

    /// Writes a line.
    pub(crate) fn line(self, text: &str) {
        self.write(&format!("{text}\n"));
    }
}

/// An error with everything behind it.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        // Some errors repeat their source in their own text.
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        source = error.source();
    }
    text
}

/// Tells an error on the standard error output.
pub(crate) fn complain(error: &dyn Error) {
    Output::Stderr.line(&format!("error: {}", chain(error)));
}
