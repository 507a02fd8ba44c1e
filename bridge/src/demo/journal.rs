//! Reads the records of instances while they are being written.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::limits::{RECORD_CHUNK_BYTES, RECORD_LINE_BYTES_MAX};
use super::record::{BadRecord, Record};

/// Why records cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    /// A file failed.
    #[error("{path} cannot be read")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A line in the middle of a file is damaged.
    #[error("{path} is damaged: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How.
        reason: String,
    },
}

/// Reading positions in all files of one directory.
#[derive(Debug)]
pub(crate) struct Journal {
    dir: PathBuf,
    files: BTreeMap<PathBuf, Position>,
}

#[derive(Debug, Default)]
struct Position {
    offset: u64,
    /// The beginning of a line whose end is not there yet.
    rest: Vec<u8>,
}

impl Journal {
    pub(crate) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            files: BTreeMap::new(),
        }
    }

    /// Hands every record written since the last call to `take`. A line without its end waits for it: a torn last
    /// line of a killed instance is never a record, as its message was not answered yet.
    pub(crate) fn read(&mut self, mut take: impl FnMut(&Record)) -> Result<(), JournalError> {
        let io_error = |path: &Path, source| JournalError::Io {
            path: path.to_owned(),
            source,
        };
        for entry in std::fs::read_dir(&self.dir).map_err(|error| io_error(&self.dir, error))? {
            let path = entry.map_err(|error| io_error(&self.dir, error))?.path();
            self.files.entry(path).or_default();
        }
        for (path, position) in &mut self.files {
            let mut file = File::open(path).map_err(|error| io_error(path, error))?;
            file.seek(SeekFrom::Start(position.offset))
                .map_err(|error| io_error(path, error))?;
            loop {
                let mut chunk = Vec::new();
                let read = file
                    .by_ref()
                    .take(RECORD_CHUNK_BYTES as u64)
                    .read_to_end(&mut chunk);
                let read = read.map_err(|error| io_error(path, error))?;
                if read == 0 {
                    break;
                }
                position.offset += read as u64;
                position
                    .take_lines(&chunk, &mut take)
                    .map_err(|reason| JournalError::Damaged {
                        path: path.clone(),
                        reason,
                    })?;
            }
        }
        Ok(())
    }
}

impl Position {
    fn take_lines(&mut self, chunk: &[u8], take: &mut impl FnMut(&Record)) -> Result<(), String> {
        self.rest.extend_from_slice(chunk);
        let mut done = 0;
        while let Some(end) = self.rest[done..].iter().position(|byte| *byte == b'\n') {
            let line =
                std::str::from_utf8(&self.rest[done..done + end]).map_err(|error| error.to_string())?;
            take(&Record::parse(line).map_err(|error: BadRecord| error.to_string())?);
            done += end + 1;
        }
        self.rest.drain(..done);
        if self.rest.len() > RECORD_LINE_BYTES_MAX {
            return Err(format!("a line is longer than {RECORD_LINE_BYTES_MAX} bytes"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    // Goal: every whole line is read once, however it arrives. Method: files that grow byte by byte and by others.
    use std::io::Write as _;

    use super::super::record::{Happened, Recorder, sample};
    use super::*;

    fn sequences(journal: &mut Journal) -> Vec<u64> {
        let mut read = Vec::new();
        journal.read(|record| read.extend(record.sequence())).unwrap();
        read
    }

    #[test]
    fn lines_are_read_once_and_only_whole() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::new(dir.path());
        let mut recorder = Recorder::create(&dir.path().join("a.1.tsv")).unwrap();
        for sequence in 1..=3 {
            recorder.add(&sample(Happened::Received, "a", "n", sequence));
        }
        recorder.flush().unwrap();
        assert_eq!(sequences(&mut journal), [1, 2, 3]);
        assert!(sequences(&mut journal).is_empty());

        let line = b"acked\ta\ta-1\tn\tSHOP:4\t1\t1\n";
        let mut torn = File::create(dir.path().join("b.1.tsv")).unwrap();
        for byte in &line[..line.len() - 1] {
            torn.write_all(&[*byte]).unwrap();
            assert!(sequences(&mut journal).is_empty());
        }
        torn.write_all(b"\n").unwrap();
        assert_eq!(sequences(&mut journal), [4]);
    }

    #[test]
    fn a_damaged_line_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.tsv"), "received\tnonsense\n").unwrap();
        let error = Journal::new(dir.path()).read(|_| ()).unwrap_err();
        assert!(matches!(error, JournalError::Damaged { .. }));
    }
}
