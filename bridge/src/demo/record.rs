//! What an instance writes down: a line when it has received a message, before it answers, and a line when its
//! acknowledgement was confirmed as durable. Lines go to the operating system in one write, so they survive SIGKILL.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Happened {
    /// The message was handed to the instance; written before it is acknowledged.
    Received,
    /// The node confirmed that the acknowledgement is durable.
    Acked,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) happened: Happened,
    pub(crate) app: String,
    pub(crate) instance: String,
    /// The node that delivered it, as the message says.
    pub(crate) node: String,
    /// `STREAM:seq`.
    pub(crate) id: String,
    pub(crate) attempt: u32,
    /// Microseconds since 1970.
    pub(crate) at_us: u64,
}

/// A line that is not a record.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a record: {line:?}")]
pub(crate) struct BadRecord {
    line: String,
}

impl Record {
    /// The sequence in the id.
    pub(crate) fn sequence(&self) -> Option<u64> {
        self.id.rsplit_once(':')?.1.parse().ok()
    }

    pub(crate) fn parse(line: &str) -> Result<Self, BadRecord> {
        Self::fields(line).ok_or_else(|| BadRecord {
            line: line.to_owned(),
        })
    }

    fn fields(line: &str) -> Option<Self> {
        let mut fields = line.split('\t');
        let happened = match fields.next()? {
            "received" => Happened::Received,
            "acked" => Happened::Acked,
            _ => return None,
        };
        let mut text = || fields.next().filter(|field| !field.is_empty()).map(str::to_owned);
        let (app, instance, node, id) = (text()?, text()?, text()?, text()?);
        let attempt = fields.next()?.parse().ok()?;
        let at_us = fields.next()?.parse().ok()?;
        let record = Self {
            happened,
            app,
            instance,
            node,
            id,
            attempt,
            at_us,
        };
        fields.next().is_none().then_some(record)
    }

    fn write_to(&self, lines: &mut String) {
        let happened = match self.happened {
            Happened::Received => "received",
            Happened::Acked => "acked",
        };
        // Writing to a string never fails.
        let _ = writeln!(
            lines,
            "{happened}\t{}\t{}\t{}\t{}\t{}\t{}",
            self.app, self.instance, self.node, self.id, self.attempt, self.at_us
        );
    }
}

/// Microseconds since 1970.
pub(crate) fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// The file of one life of an instance.
#[derive(Debug)]
pub(crate) struct Recorder {
    file: File,
    lines: String,
}

impl Recorder {
    /// Creates the file, which must not exist: a life has a file of its own, so that no torn line is ever appended to.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create_new(true).open(path)?;
        Ok(Self {
            file,
            lines: String::new(),
        })
    }

    /// Adds a line to what the next [`flush`](Self::flush) writes.
    pub(crate) fn add(&mut self, record: &Record) {
        record.write_to(&mut self.lines);
    }

    /// Hands all lines to the operating system.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if !self.lines.is_empty() {
            self.file.write_all(self.lines.as_bytes())?;
            self.lines.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) fn sample(happened: Happened, app: &str, node: &str, sequence: u64) -> Record {
    Record {
        happened,
        app: app.to_owned(),
        instance: format!("{app}-1"),
        node: node.to_owned(),
        id: format!("SHOP:{sequence}"),
        attempt: 1,
        at_us: 1,
    }
}

#[cfg(test)]
mod tests {
    // Goal: what is written is what is read, and nothing else is taken for a record. Method: round trip, a table.
    use super::*;

    #[test]
    fn records_survive_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.1.tsv");
        let records = [
            sample(Happened::Received, "billing", "node-1", 7),
            sample(Happened::Acked, "billing", "node-2", u64::MAX),
        ];
        let mut recorder = Recorder::create(&path).unwrap();
        records.iter().for_each(|record| recorder.add(record));
        recorder.flush().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let read: Vec<Record> = text.lines().map(|line| Record::parse(line).unwrap()).collect();
        assert_eq!(read, records);
        assert_eq!(read[1].sequence(), Some(u64::MAX));
        assert!(Recorder::create(&path).is_err(), "a second life has its own file");
    }

    #[test]
    fn other_lines_are_refused() {
        for line in [
            "",
            "received",
            "received\ta\ta-1\tn\tS:1\t1",
            "lost\ta\ta-1\tn\tS:1\t1\t2",
            "acked\ta\ta-1\tn\tS:1\tx\t2",
            "acked\ta\t\tn\tS:1\t1\t2",
            "acked\ta\ta-1\tn\tS:1\t1\t2\tmore",
        ] {
            assert!(Record::parse(line).is_err(), "{line:?}");
        }
    }
}
