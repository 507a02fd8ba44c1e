//! How a command fails, and how that is told: a code, what happened and why, the cure, the exit code.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};

use serde_json::json;

use super::errors;
use super::exit::Exit;
use crate::telemetry::codes;

/// Why a command ended early.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Something an operator or a script should know.
    #[error(transparent)]
    Told(#[from] Box<Report>),
    /// Whoever read the output has gone, which is no error.
    #[error("the reader of the output has gone")]
    ClosedPipe,
}

/// A failure to tell about.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Report {
    /// The stable code.
    pub code: String,
    /// What happened.
    pub message: String,
    /// What to do; by default what the table of codes says.
    pub cure: Option<String>,
    /// The process's exit code.
    pub exit: Exit,
    /// Why it happened.
    pub source: Option<Box<dyn Error + Send + Sync + 'static>>,
}

impl Failure {
    /// A failure with the cure of its code.
    pub fn new(exit: Exit, code: impl Into<String>, message: impl Into<String>) -> Failure {
        let code = code.into();
        let message = message.into();
        // Some errors begin with their code, for logs.
        let message = message
            .strip_prefix(&format!("{code}: "))
            .map(str::to_owned)
            .unwrap_or(message);
        let cure = errors::lookup(&code).map(|entry| entry.cure.to_owned());
        Failure::Told(Box::new(Report {
            code,
            message,
            cure,
            exit,
            source: None,
        }))
    }

    /// A failure that is another error, whose text is the message and whose sources are the reasons.
    pub fn of<E: Error + Send + Sync + 'static>(exit: Exit, code: impl Into<String>, error: E) -> Failure {
        match Failure::new(exit, code, error.to_string()) {
            Failure::Told(mut report) => {
                report.source = Some(Box::new(Transparent(error)));
                Failure::Told(report)
            }
            Failure::ClosedPipe => Failure::ClosedPipe,
        }
    }

    /// The same failure because of `source`.
    #[must_use]
    pub fn because<E: Error + Send + Sync + 'static>(self, source: E) -> Failure {
        match self {
            Failure::Told(mut report) => {
                report.source = Some(Box::new(source));
                Failure::Told(report)
            }
            Failure::ClosedPipe => Failure::ClosedPipe,
        }
    }

    /// Standard output could not be written; a closed pipe is no failure.
    pub fn output(error: io::Error) -> Failure {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Failure::ClosedPipe;
        }
        Failure::new(Exit::Io, codes::OUTPUT_FAILED, "cannot write to standard output").because(error)
    }

    /// The process's exit code.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Failure::Told(report) => report.exit,
            Failure::ClosedPipe => Exit::Done,
        }
    }

    /// Tells about it on standard error: as text, or as one JSON object.
    pub fn tell(&self, as_json: bool) {
        let Failure::Told(report) = self else { return };
        let mut text = if as_json {
            report.json()
        } else {
            report.text(colour())
        };
        text.push('\n');
        // With standard error gone as well there is nobody to tell.
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }
}

/// Colours are for terminals, and only where `NO_COLOR` is not set.
fn colour() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Shows only the reasons of an error whose own text is told already.
#[derive(Debug)]
struct Transparent<E>(E);

impl<E: Error> std::fmt::Display for Transparent<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&self.0, f)
    }
}

impl<E: Error> Error for Transparent<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

impl Report {
    /// The reasons, nearest first, without texts that only repeat the one before.
    fn reasons(&self) -> Vec<String> {
        let mut reasons: Vec<String> = Vec::new();
        let mut source = self
            .source
            .as_deref()
            .map(|source| source as &(dyn Error + 'static));
        while let Some(error) = source {
            let text = error.to_string();
            let told = reasons.last().unwrap_or(&self.message);
            if !text.is_empty() && !told.contains(&text) && !text.contains(&self.message) {
                reasons.push(text);
            }
            source = error.source();
        }
        reasons
    }

    fn text(&self, colour: bool) -> String {
        let (red, plain) = if colour {
            ("\x1b[1;31m", "\x1b[0m")
        } else {
            ("", "")
        };
        let mut text = format!("{red}error[{}]{plain}: {}", self.code, self.message);
        // Writing to a String cannot fail.
        for reason in self.reasons() {
            let _ = write!(text, "\n  because: {reason}");
        }
        if let Some(cure) = &self.cure {
            let _ = write!(text, "\n  cure: {cure}");
        }
        text
    }

    fn json(&self) -> String {
        json!({
            "error": {
                "code": self.code,
                "message": self.message,
                "because": self.reasons(),
                "cure": self.cure,
                "exit_code": self.exit.code(),
            }
        })
        .to_string()
    }
}

#[cfg(test)]
mod tests {
    //! Goal: both forms carry code, reasons and cure; a closed pipe is silent. Method: crafted failures.
    use super::*;

    fn report(failure: Failure) -> Box<Report> {
        match failure {
            Failure::Told(report) => report,
            Failure::ClosedPipe => panic!("closed pipe"),
        }
    }

    #[test]
    fn text_and_json() {
        let cause = io::Error::other("disk on fire");
        let failure = Failure::new(Exit::Io, codes::INPUT_UNREADABLE, "cannot read x").because(cause);
        assert_eq!(failure.exit(), Exit::Io);
        let report = report(failure);
        let text = report.text(false);
        assert!(
            text.starts_with("error[FAN-5004]: cannot read x\n  because: disk on fire\n  cure: "),
            "{text}"
        );
        assert!(
            report
                .text(true)
                .starts_with("\x1b[1;31merror[FAN-5004]\x1b[0m: ")
        );
        let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(json["error"]["code"], "FAN-5004");
        assert_eq!(json["error"]["because"][0], "disk on fire");
        assert_eq!(json["error"]["exit_code"], 74);
    }

    #[test]
    fn an_error_is_not_told_twice() {
        let report = report(Failure::of(
            Exit::Failed,
            "FAN-0000",
            io::Error::other("only once"),
        ));
        assert_eq!(report.text(false), "error[FAN-0000]: only once");
    }

    #[test]
    fn a_closed_pipe_is_no_error() {
        let failure = Failure::output(io::ErrorKind::BrokenPipe.into());
        assert!(matches!(failure, Failure::ClosedPipe));
        assert_eq!(failure.exit(), Exit::Done);
        assert_eq!(
            Failure::output(io::ErrorKind::StorageFull.into()).exit(),
            Exit::Io
        );
    }
}
