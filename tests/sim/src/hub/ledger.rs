//! Ledger streams: compare-and-set, a dedupe window that may forget, purge by subject, a size limit.

use std::collections::BTreeMap;

use bytes::Bytes;
use fanin_core::ids::LedgerSeq;
use fanin_hub::ledger::AppendError;
use fanin_hub::ledger::tail::TailItem;
use fanin_hub::{LedgerInfo, PubAck};

/// How long message ids are remembered, milliseconds.
const DUPLICATE_WINDOW_MS: u64 = 600_000;

/// A stored record.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its subject behind the mapping.
    pub suffix: String,
    /// Its bytes.
    pub body: Bytes,
    stored_ns: u64,
}

/// A ledger stream.
#[derive(Clone, Debug)]
pub struct LedgerLog {
    /// The stream's name.
    pub name: String,
    /// When it was created, nanoseconds since 1970.
    pub created_ns: u64,
    /// Its records by position.
    pub records: BTreeMap<u64, Stored>,
    /// The last position given.
    pub last: u64,
    bytes: u64,
    max_bytes: u64,
    is_full: bool,
    seen: BTreeMap<String, (u64, u64)>,
}

/// What an append asks for.
#[derive(Clone, Debug)]
pub struct Append {
    /// The subject behind the mapping.
    pub suffix: String,
    /// Recognises a repetition.
    pub msg_id: Option<String>,
    /// The record.
    pub body: Bytes,
    /// The expected last position of the subject.
    pub expect: Option<u64>,
}

/// Whether a subject behind the mapping is named by a pattern: itself, or everything below `x.>`.
fn names(pattern: &str, suffix: &str) -> bool {
    match pattern.strip_suffix('>') {
        Some(prefix) => suffix.starts_with(prefix),
        None => pattern == suffix,
    }
}

impl LedgerLog {
    /// An empty ledger.
    #[must_use]
    pub fn new(name: &str, created_ns: u64, max_bytes: u64) -> LedgerLog {
        LedgerLog {
            name: name.to_owned(),
            created_ns,
            records: BTreeMap::new(),
            last: 0,
            bytes: 0,
            max_bytes,
            is_full: false,
            seen: BTreeMap::new(),
        }
    }

    fn last_of(&self, suffix: &str) -> u64 {
        let mut newest_first = self.records.iter().rev();
        newest_first
            .find(|(_, stored)| stored.suffix == suffix)
            .map_or(0, |(seq, _)| *seq)
    }

    /// Stores a record.
    ///
    /// # Errors
    /// As the server refuses: compare-and-set, size.
    pub fn append(&mut self, append: &Append, now_ms: u64, now_ns: u64) -> Result<PubAck, AppendError> {
        if let Some(id) = &append.msg_id
            && let Some((seq, at_ms)) = self.seen.get(id)
            && now_ms - at_ms < DUPLICATE_WINDOW_MS
        {
            return Ok(PubAck {
                seq: *seq,
                duplicate: true,
            });
        }
        if let Some(expect) = append.expect {
            let last = self.last_of(&append.suffix);
            if last != expect {
                return Err(AppendError::WrongLastSequence {
                    last: Some(LedgerSeq(last)),
                });
            }
        }
        let size = append.body.len() as u64 + 64;
        if self.is_full || self.bytes + size > self.max_bytes {
            return Err(AppendError::Full);
        }
        self.bytes += size;
        self.last += 1;
        let stored = Stored {
            suffix: append.suffix.clone(),
            body: append.body.clone(),
            stored_ns: now_ns,
        };
        self.records.insert(self.last, stored);
        if let Some(id) = &append.msg_id {
            self.seen.insert(id.clone(), (self.last, now_ms));
        }
        Ok(PubAck {
            seq: self.last,
            duplicate: false,
        })
    }

    /// Takes nothing more, or again as much as ever.
    pub fn fill(&mut self, is_full: bool) {
        self.is_full = is_full;
    }

    /// Forgets the message ids it has seen.
    pub fn forget_ids(&mut self) {
        self.seen.clear();
    }

    /// The record at a position or the next one behind it.
    #[must_use]
    pub fn next(&self, from: u64) -> Option<(u64, &Stored)> {
        self.records
            .range(from..)
            .next()
            .map(|(seq, stored)| (*seq, stored))
    }

    /// A record as it is read.
    #[must_use]
    pub fn item(seq: u64, stored: &Stored) -> TailItem {
        TailItem {
            seq: LedgerSeq(seq),
            subject_suffix: stored.suffix.clone(),
            body: stored.body.clone(),
            stored_ns: stored.stored_ns,
        }
    }

    /// The records of a subject from a position on, as of when `through` was the last one.
    #[must_use]
    pub fn read(&self, pattern: &str, from: u64, through: u64) -> Vec<TailItem> {
        if from > through {
            return Vec::new();
        }
        let range = self.records.range(from..=through);
        range
            .filter(|(_, stored)| names(pattern, &stored.suffix))
            .map(|(seq, stored)| LedgerLog::item(*seq, stored))
            .collect()
    }

    /// Deletes the records of a subject below a position. Returns how many, and the last of them.
    pub fn purge(&mut self, pattern: &str, up_to: u64) -> (u64, Option<u64>) {
        let doomed: Vec<u64> = self
            .records
            .range(..up_to)
            .filter(|(_, stored)| names(pattern, &stored.suffix))
            .map(|(seq, _)| *seq)
            .collect();
        for seq in &doomed {
            if let Some(stored) = self.records.remove(seq) {
                self.bytes -= stored.body.len() as u64 + 64;
            }
        }
        (doomed.len() as u64, doomed.last().copied())
    }

    /// Loses every record behind a position, and the memory of them.
    pub fn roll_back(&mut self, to: u64) {
        for (_, stored) in self.records.split_off(&(to + 1)) {
            self.bytes -= stored.body.len() as u64 + 64;
        }
        self.last = to;
        self.seen.retain(|_, (seq, _)| *seq <= to);
    }

    /// The last position of a record that was stored at or before a time.
    #[must_use]
    pub fn last_stored_by(&self, at_ns: u64) -> u64 {
        let mut newest_first = self.records.iter().rev();
        newest_first
            .find(|(_, stored)| stored.stored_ns <= at_ns)
            .map_or(0, |(seq, _)| *seq)
    }

    /// Its size and last position.
    #[must_use]
    pub fn info(&self) -> LedgerInfo {
        LedgerInfo {
            first_seq: self.records.keys().next().copied().unwrap_or(self.last + 1),
            last_seq: self.last,
            messages: self.records.len() as u64,
            bytes: self.bytes,
            max_bytes: i64::try_from(self.max_bytes).unwrap_or(i64::MAX),
            created_ns: self.created_ns,
        }
    }
}
