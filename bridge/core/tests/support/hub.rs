//! The hub as it is at its worst: a ledger, and a source whose consumer may do anything.

use std::collections::{BTreeMap, BTreeSet};

use fanin_core::checkpoint::{Assembler, Complete};
use fanin_core::ids::{Incarnation, LedgerSeq, StreamSeq, Tick};
use fanin_core::record::{Body as RecordBody, Record, Terms};

/// The one source stream of most tests.
pub(crate) const INC: Incarnation = Incarnation(0xA1);

/// One landed record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) subject: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) landed: Tick,
}

/// The ledger stream: what it holds now, and where it ends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) entries: BTreeMap<LedgerSeq, Entry>,
    pub(crate) last: LedgerSeq,
}

impl Ledger {
    /// Appends; with `expect`, only when that is the last sequence of the subject.
    pub(crate) fn append(
        &mut self,
        now: Tick,
        subject: &str,
        bytes: &[u8],
        expect: Option<LedgerSeq>,
    ) -> Option<LedgerSeq> {
        if expect.is_some_and(|expect| expect != self.last_on(subject)) {
            return None;
        }
        self.last = self.last.next();
        let entry = Entry {
            subject: subject.to_owned(),
            bytes: bytes.to_vec(),
            landed: now,
        };
        self.entries.insert(self.last, entry);
        Some(self.last)
    }

    /// The last sequence of a subject, 0 when it holds none: what compare-and-set compares with.
    pub(crate) fn last_on(&self, subject: &str) -> LedgerSeq {
        let mut found = self
            .entries
            .iter()
            .rev()
            .filter(|(_, entry)| entry.subject == subject);
        found.next().map(|(&at, _)| at).unwrap_or_default()
    }

    /// What `Effect::Purge` asks for: everything at or below `through`, but of kept subjects only what lies before the
    /// position kept.
    pub(crate) fn purge(&mut self, through: LedgerSeq, keep: &[(String, LedgerSeq)]) {
        self.entries.retain(|&at, entry| {
            let kept = keep.iter().find(|(subject, _)| *subject == entry.subject);
            at > through || kept.is_some_and(|&(_, from)| at >= from)
        });
    }

    /// The complete checkpoint with the highest position.
    pub(crate) fn checkpoint(&self) -> Option<Box<Complete>> {
        let mut assembler = Assembler::default();
        for entry in self
            .entries
            .values()
            .filter(|entry| entry.subject == "checkpoint")
        {
            if let Ok(Record {
                body: RecordBody::Checkpoint(part),
                ..
            }) = Record::decode(&entry.bytes)
            {
                assembler.add(part);
            }
        }
        assembler.best().cloned().map(Box::new)
    }

    /// The hub loses everything behind `last`: power failed before it synced.
    pub(crate) fn truncate(&mut self, last: LedgerSeq) {
        self.entries.split_off(&last.next());
        self.last = last;
    }
}

/// A message of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) subject: &'static str,
    /// Retention or an operator took it.
    pub(crate) gone: bool,
}

/// The source stream and what the shared consumer believes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Source {
    pub(crate) messages: BTreeMap<u64, Message>,
    /// Acknowledged, by anybody: the hub does not ask who holds a message.
    pub(crate) acked: BTreeSet<u64>,
    /// Never delivered by the consumer, by a fault of the hub.
    pub(crate) skipped: BTreeSet<u64>,
    /// Never reaches a node however often it is delivered: the client library cannot read it, and the connection breaks.
    pub(crate) poison: BTreeSet<u64>,
    /// The last message delivered to anybody.
    pub(crate) delivered: u64,
}

impl Source {
    pub(crate) fn publish(&mut self, count: u64, subject: &'static str) {
        for _ in 0..count {
            let next = self.last() + 1;
            self.messages.insert(next, Message { subject, gone: false });
        }
    }

    pub(crate) fn last(&self) -> u64 {
        self.messages.keys().next_back().copied().unwrap_or(0)
    }

    pub(crate) fn published_ns(seq: u64) -> i64 {
        1_700_000_000_000_000_000 + i64::try_from(seq).unwrap_or(0) * 1_000
    }

    /// Whether a filter in force lets the message pass, and it is there.
    pub(crate) fn offers(&self, terms: &Terms, seq: u64) -> bool {
        let Some(source) = terms.sources.get(&INC) else {
            return false;
        };
        self.messages.get(&seq).is_some_and(|message| {
            !message.gone
                && (source.filters.is_empty() || source.filters.iter().any(|f| f == message.subject))
        })
    }

    /// The acknowledgement floor that an honest server computes from what it believes.
    pub(crate) fn floor(&self, terms: &Terms) -> StreamSeq {
        let passes =
            |seq: &u64| self.acked.contains(seq) || self.skipped.contains(seq) || !self.offers(terms, *seq);
        let floor = (1..=self.last()).take_while(passes).last().unwrap_or(0);
        StreamSeq(floor)
    }

    /// The answer to an audit.
    pub(crate) fn next_matching(&self, terms: &Terms, from: StreamSeq) -> Option<StreamSeq> {
        (from.0..=self.last())
            .find(|&seq| self.offers(terms, seq))
            .map(StreamSeq)
    }
}
