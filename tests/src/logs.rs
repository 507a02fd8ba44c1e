//! What a bridge logged: JSON lines of `tracing`, and whatever else a process prints when it goes wrong.

use std::fmt;

use serde_json::Value;

/// How bad a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Everything below a warning.
    Normal,
    /// `WARN`.
    Warning,
    /// `ERROR`, and every line that is no log record at all, such as a panic's message.
    Error,
}

/// One line.
#[derive(Clone, Debug)]
pub struct LogLine {
    /// How bad it is.
    pub level: Level,
    /// The line as printed.
    pub text: String,
}

impl LogLine {
    /// Reads one line. Blank lines are none.
    pub fn parse(text: &str) -> Option<Self> {
        if text.trim().is_empty() {
            return None;
        }
        let record = serde_json::from_str::<Value>(text).ok();
        let level = match record
            .as_ref()
            .and_then(|record| record.get("level"))
            .and_then(Value::as_str)
        {
            Some("ERROR") | None => Level::Error,
            Some("WARN") => Level::Warning,
            Some(_) => Level::Normal,
        };
        Some(Self {
            level,
            text: text.to_owned(),
        })
    }
}

impl fmt::Display for LogLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The lines of `log` that a test did not expect: errors that hold none of the `allowed` texts.
pub fn unexpected<'a>(log: &'a [LogLine], allowed: &[String]) -> Vec<&'a LogLine> {
    let is_allowed = |line: &LogLine| allowed.iter().any(|text| line.text.contains(text));
    log.iter()
        .filter(|line| line.level == Level::Error && !is_allowed(line))
        .collect()
}

#[cfg(test)]
mod tests {
    // Goal: neither an error nor a panic goes unseen. Method: sample lines.
    use super::*;

    #[test]
    fn errors_and_panics_are_unexpected_unless_allowed() {
        let text = "{\"level\":\"INFO\",\"fields\":{\"message\":\"up\"}}\n\n\
                    {\"level\":\"ERROR\",\"fields\":{\"message\":\"FAN-2001 hub away\"}}\n\
                    thread 'main' panicked at x.rs:1";
        let log: Vec<LogLine> = text.lines().filter_map(LogLine::parse).collect();
        assert_eq!(log.len(), 3);
        assert_eq!(unexpected(&log, &[]).len(), 2);
        let left = unexpected(&log, &["FAN-2001".to_owned()]);
        assert!(left.len() == 1 && left[0].text.contains("panicked"));
    }
}
