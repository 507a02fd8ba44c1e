//! Histories: one file a process, one JSON line an event, written by the process itself at the moment of the event.
//!
//! A line is written by one call, so that SIGKILL leaves whole lines: what the process wrote stays with the operating system.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// What happened to one delivery, as its instance saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Delivery {
    /// Counts the deliveries of one life of the process.
    pub(crate) nth: u64,
    /// Message id, `STREAM:seq`.
    pub(crate) id: String,
    /// The number in the body, which its producer gave it.
    pub(crate) number: usize,
    /// The node that delivered.
    pub(crate) node: String,
    /// From 1.
    pub(crate) attempt: u32,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event {
    /// A life of a process begins. `app` is empty for a producer.
    Started { app: String },
    /// The hub confirmed that it has the message.
    Stored { number: usize, id: String },
    /// An instance got it, and is about to answer.
    Delivered(Delivery),
    /// It was acknowledged, and the bridge confirmed that.
    Confirmed { nth: u64 },
    /// It was acknowledged, and nobody knows whether that is durable.
    Doubted { nth: u64 },
    /// The acknowledgement was certainly not taken.
    Refused { nth: u64 },
    /// It was given back and must come again.
    GivenBack { nth: u64 },
    /// The subscription ended with an error and is opened again.
    Interrupted { why: String },
}

/// An event with its time, milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) at_ms: u64,
    #[serde(flatten)]
    pub(crate) event: Event,
}

/// Milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Writes a history; a later life of the same process goes on in the same file.
#[derive(Debug)]
pub(crate) struct Writer(File);

impl Writer {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(File::options().create(true).append(true).open(path)?))
    }

    pub(crate) fn write(&mut self, event: Event) -> io::Result<()> {
        let mut text = serde_json::to_vec(&Line {
            at_ms: now_ms(),
            event,
        })?;
        text.push(b'\n');
        self.0.write_all(&text)
    }
}

/// Every history below `dir`, by file name in order.
///
/// # Errors
/// When a file cannot be read or a line is none: then nothing can be judged.
pub(crate) fn read_all(dir: &Path) -> io::Result<Vec<(String, Vec<Line>)>> {
    let mut paths: Vec<PathBuf> = fs::read_dir(dir)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "ndjson"));
    paths.sort();
    let read = |path: PathBuf| {
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let text = fs::read_to_string(&path)?;
        let lines = text.lines().map(serde_json::from_str).collect::<Result<_, _>>();
        let lines = lines.map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
        Ok((name, lines))
    };
    paths.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    // Goal: what is written is what is read, over several lives. Method: two writers on one file.
    use super::*;

    #[test]
    fn lines_come_back_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("billing-n1.ndjson");
        let events = [
            Event::Started {
                app: "billing".to_owned(),
            },
            Event::Delivered(Delivery {
                nth: 1,
                id: "S:1".to_owned(),
                number: 7,
                node: "n1".to_owned(),
                attempt: 2,
            }),
            Event::Confirmed { nth: 1 },
        ];
        for event in &events {
            Writer::open(&path).unwrap().write(event.clone()).unwrap();
        }
        let read = read_all(dir.path()).unwrap();
        assert_eq!(read[0].0, "billing-n1");
        let got: Vec<Event> = read[0].1.iter().map(|line| line.event.clone()).collect();
        assert_eq!(got, events);
    }

    #[test]
    fn a_line_that_is_none_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.ndjson"), "{\"at_ms\":1,\"event\":\"del").unwrap();
        assert!(read_all(dir.path()).is_err());
    }
}
