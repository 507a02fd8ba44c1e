//! A ledger's records in a file: one JSON object a line, first what the ledger is, then each record, last how many there are.

use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use fanin_core::ids::LedgerSeq;
use fanin_hub::FoundLedger;
use fanin_hub::ledger::tail::{Tail, TailError, TailItem};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::limits::{BACKUP_LINE_BYTES_MAX, READ_IDLE_MAX};
use crate::mapping::ledger_io::records;

/// The format that this version writes, and the only one it reads.
const FORMAT: u32 = 1;

/// Why a backup cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The file system refused.
    #[error("the backup {path} cannot be written or read", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file holds something else.
    #[error("the backup {path} cannot be used: line {line}: {what}", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// The ledger could not be read.
    #[error(transparent)]
    Tail(#[from] TailError),
    /// The hub said nothing for too long.
    #[error("the ledger could not be read beyond position {0}: the hub does not answer")]
    Silent(LedgerSeq),
}

/// What a backup is of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// The format.
    pub fanin_ledger_backup: u32,
    /// The ledger's stream.
    pub stream: String,
    /// When it was created, nanoseconds since 1970.
    pub created_ns: u64,
    /// The creation times of the streams it stood for.
    pub predecessors: Vec<u64>,
    /// Its settings.
    pub config: Value,
    /// Its last position.
    pub last_seq: u64,
}

#[derive(Serialize, Deserialize)]
struct Line {
    seq: u64,
    subject: String,
    stored_ns: u64,
    body: String,
}

#[derive(Serialize, Deserialize)]
struct End {
    records: usize,
}

/// Every record of a ledger, as it is now.
///
/// # Errors
/// [`BackupError`].
pub async fn read_all(found: &FoundLedger) -> Result<Vec<TailItem>, BackupError> {
    let mut items: Vec<TailItem> = Vec::new();
    let last = found.last_seq;
    let mut tail = Tail::open(&found.ledger, LedgerSeq(found.first_seq.0.max(1)));
    let mut position = LedgerSeq(found.first_seq.0.saturating_sub(1));
    while position < last {
        let Ok(events) = tokio::time::timeout(READ_IDLE_MAX, tail.next_ready()).await else {
            return Err(BackupError::Silent(position));
        };
        for item in records(events?) {
            position = position.max(item.seq);
            items.push(item);
        }
    }
    Ok(items)
}

/// Writes a backup and syncs it. What stood under that name is replaced only by a complete file.
///
/// # Errors
/// [`BackupError::Io`].
pub fn write(path: &Path, found: &FoundLedger, items: &[TailItem]) -> Result<(), BackupError> {
    let failed = |source| BackupError::Io {
        path: path.to_owned(),
        source,
    };
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
    let mut out = BufWriter::new(file.as_file_mut());
    let header = Header {
        fanin_ledger_backup: FORMAT,
        stream: found.ledger.stream().to_owned(),
        created_ns: found.ledger.created_ns(),
        predecessors: found.ledger.predecessors().iter().copied().collect(),
        config: found.config.clone(),
        last_seq: found.last_seq.0,
    };
    let mut put = |value: serde_json::Result<String>| -> std::io::Result<()> {
        out.write_all(value?.as_bytes())?;
        out.write_all(b"\n")
    };
    put(serde_json::to_string(&header)).map_err(failed)?;
    for item in items {
        let line = Line {
            seq: item.seq.0,
            subject: item.subject_suffix.clone(),
            stored_ns: item.stored_ns,
            body: STANDARD.encode(&item.body),
        };
        put(serde_json::to_string(&line)).map_err(failed)?;
    }
    let end = End { records: items.len() };
    put(serde_json::to_string(&end)).map_err(failed)?;
    out.flush().map_err(failed)?;
    drop(out);
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    // The name must survive too: behind this the ledger is taken away.
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(failed)
}

/// Reads a backup.
///
/// # Errors
/// [`BackupError`]: also when its end is missing.
pub fn read(path: &Path) -> Result<(Header, Vec<TailItem>), BackupError> {
    let failed = |source| BackupError::Io {
        path: path.to_owned(),
        source,
    };
    let mut reader = BufReader::new(File::open(path).map_err(failed)?);
    let mut number = 0;
    let mut next = || -> Result<(usize, String), BackupError> {
        number += 1;
        let mut line = String::new();
        let limit = BACKUP_LINE_BYTES_MAX as u64;
        let mut limited = (&mut reader).take(limit);
        limited.read_line(&mut line).map_err(failed)?;
        Ok((number, line))
    };
    let malformed = |line: usize, what: String| BackupError::Malformed {
        path: path.to_owned(),
        line,
        what,
    };
    let (line, text) = next()?;
    let header: Header = serde_json::from_str(&text).map_err(|error| malformed(line, error.to_string()))?;
    if header.fanin_ledger_backup != FORMAT {
        return Err(malformed(line, "a format of another version".to_owned()));
    }
    let mut items = Vec::new();
    loop {
        let (line, text) = next()?;
        if text.is_empty() {
            return Err(malformed(line, "the end is missing".to_owned()));
        }
        if let Ok(end) = serde_json::from_str::<End>(&text) {
            if end.records != items.len() {
                return Err(malformed(line, "records are missing".to_owned()));
            }
            return Ok((header, items));
        }
        let found: Line = serde_json::from_str(&text).map_err(|error| malformed(line, error.to_string()))?;
        let body = STANDARD
            .decode(&found.body)
            .map_err(|error| malformed(line, error.to_string()))?;
        items.push(TailItem {
            seq: LedgerSeq(found.seq),
            subject_suffix: found.subject,
            body: Bytes::from(body),
            stored_ns: found.stored_ns,
        });
    }
}
