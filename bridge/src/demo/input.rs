//! What is fed: generated events, or the lines of a file.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use fanin_core::hash::Hash128;

use super::events::{Event, Events};
use super::limits::{LINE_BYTES_MAX, LINES_MAX};

/// The subject of a file's lines.
const LINES_SUBJECT: &str = "shop.lines";

/// Why a file cannot be fed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    /// It cannot be read.
    #[error("{path} cannot be read: name a readable file of lines")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It has no lines.
    #[error("{path} has no lines: give it at least one, or leave --input out")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// It has more lines than can be judged.
    #[error("{path} has more than {LINES_MAX} lines: feed a part of it")]
    TooManyLines {
        /// The file.
        path: PathBuf,
    },
    /// A line does not fit in one message.
    #[error("line {line} of {path} is longer than {LINE_BYTES_MAX} bytes: split it, or leave it out")]
    LineTooLong {
        /// The file.
        path: PathBuf,
        /// Its number, from 1.
        line: u64,
    },
}

/// The messages of one run, in order.
#[derive(Debug)]
pub(crate) enum Input {
    Generated { events: Events, count: u64 },
    Lines { lines: Lines, count: u64 },
}

impl Input {
    pub(crate) fn generated(seed: u64, count: u64) -> Self {
        Self::Generated {
            events: Events::new(seed, count),
            count,
        }
    }

    /// Reads the file once, so that a line that does not fit is found before anything is started.
    pub(crate) fn file(path: &Path) -> Result<Self, InputError> {
        let mut count = 0;
        for line in Lines::open(path)? {
            line?;
            count += 1;
            if count > LINES_MAX {
                return Err(InputError::TooManyLines {
                    path: path.to_owned(),
                });
            }
        }
        if count == 0 {
            return Err(InputError::Empty {
                path: path.to_owned(),
            });
        }
        Ok(Self::Lines {
            lines: Lines::open(path)?,
            count,
        })
    }

    /// How many messages there are in all.
    pub(crate) fn total(&self) -> u64 {
        match self {
            Self::Generated { count, .. } | Self::Lines { count, .. } => *count,
        }
    }
}

impl Iterator for Input {
    type Item = Result<Event, InputError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Generated { events, .. } => events.next().map(Ok),
            // What is appended to the file while it is fed is left out: its end was fixed when it was counted.
            Self::Lines { lines, count } if lines.number >= *count => None,
            Self::Lines { lines, .. } => lines.next(),
        }
    }
}

/// The lines of a file, without their ends. Any bytes will do.
#[derive(Debug)]
pub(crate) struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    number: u64,
}

impl Lines {
    fn open(path: &Path) -> Result<Self, InputError> {
        let file = File::open(path).map_err(|source| InputError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            path: path.to_owned(),
            reader: BufReader::new(file),
            number: 0,
        })
    }
}

impl Iterator for Lines {
    type Item = Result<Event, InputError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut line = Vec::new();
        let bound = LINE_BYTES_MAX as u64 + 2;
        match self.reader.by_ref().take(bound).read_until(b'\n', &mut line) {
            Ok(0) => return None,
            Ok(_) => self.number += 1,
            Err(source) => {
                return Some(Err(InputError::Unreadable {
                    path: self.path.clone(),
                    source,
                }));
            }
        }
        if line.last() == Some(&b'\n') {
            line.pop();
            if line.last() == Some(&b'\r') {
                line.pop();
            }
        }
        if line.len() > LINE_BYTES_MAX {
            return Some(Err(InputError::LineTooLong {
                path: self.path.clone(),
                line: self.number,
            }));
        }
        // Two equal lines are two messages, so the number is part of the id.
        let msg_id = format!("{}-{:032x}", self.number, Hash128::of(&line).0);
        Some(Ok(Event {
            subject: LINES_SUBJECT.to_owned(),
            msg_id,
            payload: Bytes::from(line),
        }))
    }
}

#[cfg(test)]
mod tests {
    // Goal: every line is one message, whatever its bytes, and a bad file is named. Method: small files.
    use std::io::Write as _;

    use super::*;

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn lines_keep_their_bytes_and_have_ids_of_their_own() {
        let file = file(b"{\"a\":1}\r\n\n\xff\xfe\n{\"a\":1}");
        let input = Input::file(file.path()).unwrap();
        assert_eq!(input.total(), 4);
        let events: Vec<Event> = input.map(Result::unwrap).collect();
        let bodies: Vec<&[u8]> = events.iter().map(|event| event.payload.as_ref()).collect();
        assert_eq!(bodies, [&b"{\"a\":1}"[..], b"", b"\xff\xfe", b"{\"a\":1}"]);
        let (first, last) = (&events[0].msg_id, &events[3].msg_id);
        assert_ne!(first, last);
        assert_eq!(first.split_once('-').unwrap().1, last.split_once('-').unwrap().1);
    }

    #[test]
    fn a_bad_file_is_refused_before_anything_starts() {
        assert!(matches!(
            Input::file(file(b"").path()),
            Err(InputError::Empty { .. })
        ));
        let mut long = b"ok\n".to_vec();
        long.resize(3 + LINE_BYTES_MAX + 1, b'x');
        assert!(matches!(
            Input::file(file(&long).path()),
            Err(InputError::LineTooLong { line: 2, .. })
        ));
        long.pop();
        assert_eq!(Input::file(file(&long).path()).unwrap().total(), 2);
        let absent = Path::new("/nonexistent/input");
        assert!(matches!(Input::file(absent), Err(InputError::Unreadable { .. })));
    }
}
