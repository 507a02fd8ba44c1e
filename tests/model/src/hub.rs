//! The hub at its worst: a ledger, appends on their way to it, and a source whose consumer may do anything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fanin_core::checkpoint::{Assembler, Complete};
use fanin_core::ids::{Incarnation, LedgerSeq, Nonce, StreamSeq};
use fanin_core::record::{Body, Record, Terms};
use fanin_core::seq_set::SeqSet;

use crate::mutants::Mutant;

/// The source's first incarnation; deleting and creating it again adds one.
pub const INC: Incarnation = Incarnation(0xA1);

/// A record in the ledger.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry {
    /// Where it stands.
    pub subject: Arc<str>,
    /// What it says.
    pub bytes: Arc<[u8]>,
    /// When it landed; kept at 0 where the hub syncs always, so that equal ledgers are equal.
    pub landed: u8,
}

/// An append on its way. It outlives the process that sent it: a client's buffer is flushed late.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flight {
    /// The record.
    pub entry: Entry,
    /// Compare-and-set: the last position of the subject.
    pub expect: Option<LedgerSeq>,
    /// The nonce of an EPOCH whose process died before it heard the outcome.
    pub orphan: Option<Nonce>,
    /// Who hears when it lands; `None` where nobody could make anything of it.
    pub sender: Option<Sender>,
}

/// Who sent an append, and what it had read then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sender {
    /// The body.
    pub who: usize,
    /// Which of its lives.
    pub life: u8,
    /// What it had read when it made the record.
    pub read: LedgerSeq,
}

/// A purge on its way: through which position, and what stays.
pub type Purge = (LedgerSeq, Vec<(String, LedgerSeq)>);

/// The source stream and what the shared consumer believes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Source {
    /// Messages are 1 to this.
    pub last: u64,
    /// How often the stream was created again.
    pub generation: u8,
    /// The first message of the source's second life, in which it goes on from an earlier copy; 0 while it has not.
    pub anew_from: u64,
    /// Those with subject `t`; the others have `s`.
    pub odd: SeqSet,
    /// Taken by retention or an operator.
    pub gone: SeqSet,
    /// Acknowledged by anybody, or passed over by the consumer: the hub does not ask who holds a message.
    pub acked: SeqSet,
}

/// Everything on the hub.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Hub {
    /// What the ledger holds.
    pub entries: BTreeMap<LedgerSeq, Entry>,
    /// Where it ends.
    pub last: LedgerSeq,
    /// Appends under way, each of which lands at any time or never.
    pub flights: BTreeSet<Flight>,
    /// Purges under way.
    pub purges: BTreeSet<Purge>,
    /// The source.
    pub source: Source,
}

impl Hub {
    /// Appends; with `expect`, only when that is the last position of the subject.
    pub(crate) fn append(&mut self, entry: Entry, expect: Option<LedgerSeq>) -> Option<LedgerSeq> {
        if expect.is_some_and(|expect| expect != self.last_on(&entry.subject)) {
            return None;
        }
        self.last = self.last.next();
        self.entries.insert(self.last, entry);
        Some(self.last)
    }

    /// The last position of a subject, 0 when it holds none.
    pub(crate) fn last_on(&self, subject: &str) -> LedgerSeq {
        let mut found = self
            .entries
            .iter()
            .rev()
            .filter(|(_, entry)| &*entry.subject == subject);
        found.next().map(|(&at, _)| at).unwrap_or_default()
    }

    /// Deletes what a purge names: everything at or below `through`, of kept subjects what lies before the position kept.
    pub(crate) fn purge(&mut self, (through, keep): &Purge) {
        self.entries.retain(|at, entry| {
            let kept = keep.iter().find(|(subject, _)| **subject == *entry.subject);
            at > through || kept.is_some_and(|(_, from)| at >= from)
        });
    }

    /// The checkpoint a reader takes: the complete one with the highest position, unless a mutant reads otherwise.
    pub(crate) fn checkpoint(&self, mutant: Option<Mutant>) -> Option<Box<Complete>> {
        let mut assembler = Assembler::default();
        for entry in self
            .entries
            .values()
            .filter(|entry| &*entry.subject == "checkpoint")
        {
            if let Ok(Record {
                body: Body::Checkpoint(mut part),
                ..
            }) = Record::decode(&entry.bytes)
            {
                if mutant == Some(Mutant::LoadsLastLanded) {
                    assembler = Assembler::default();
                }
                if mutant == Some(Mutant::LoadsIncomplete) {
                    part.parts = 1;
                }
                assembler.add(part);
            }
        }
        assembler.best().cloned().map(Box::new)
    }
}

impl Source {
    /// The incarnation the hub has now.
    pub(crate) fn incarnation(&self) -> Incarnation {
        Incarnation(INC.0 + u64::from(self.generation))
    }

    /// Publish time of a message: each has its own, and those of the second life come behind all others.
    pub(crate) fn published_ns(&self, seq: u64) -> i64 {
        let life_ns = if self.anew_from > 0 && seq >= self.anew_from {
            1_000_000
        } else {
            0
        };
        1_700_000_000_000_000_000 + life_ns + i64::try_from(seq).unwrap_or(0) * 1_000
    }

    /// When the last message was stored; 0 for an empty source.
    pub(crate) fn last_ns(&self) -> i64 {
        if self.last == 0 {
            0
        } else {
            self.published_ns(self.last)
        }
    }

    /// Publish times of the oldest and the newest of these messages, which are there now.
    pub(crate) fn times_of(&self, seqs: &SeqSet) -> (i64, i64) {
        let at = |seq: Option<u64>| self.published_ns(seq.unwrap_or(0));
        (at(seqs.first()), at(seqs.last()))
    }

    /// Whether the filter in force lets the message pass, and it is there.
    pub(crate) fn offers(&self, terms: &Terms, seq: u64) -> bool {
        let subject = if self.odd.contains(seq) { "t" } else { "s" };
        let passes =
            |filters: &[String]| filters.is_empty() || filters.iter().any(|filter| filter == subject);
        let named = terms.sources.get(&self.incarnation());
        seq >= 1
            && seq <= self.last
            && !self.gone.contains(seq)
            && named.is_some_and(|named| passes(&named.filters))
    }

    /// The acknowledgement floor that an honest server computes from what it believes.
    pub(crate) fn floor(&self, terms: &Terms) -> StreamSeq {
        let passed = |seq: &u64| self.acked.contains(*seq) || !self.offers(terms, *seq);
        StreamSeq((1..=self.last).take_while(passed).last().unwrap_or(0))
    }

    /// The answer of the stream's leader to an audit.
    pub(crate) fn next_matching(&self, terms: &Terms, from: StreamSeq) -> Option<StreamSeq> {
        (from.0..=self.last)
            .find(|&seq| self.offers(terms, seq))
            .map(StreamSeq)
    }
}
