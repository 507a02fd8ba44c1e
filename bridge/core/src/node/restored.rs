//! What a halted node can tell of a source that was restored to an earlier copy (P10): from which sequence on it holds other
//! messages, and when what the restore took had been published. A repair takes nothing published later as delivered.
//!
//! The claims that W has passed do not tell that time: some of them may be of messages that have come since the restore, where
//! nobody had claimed the ones before them. So what counts is a message at or behind the sequence that was found to be given
//! twice, published before the newer of the two: within one life of a stream times do not fall, hence it is none that came since.

#[cfg(test)]
mod tests;

use super::{Node, Phase};
use crate::fold::Halt;
use crate::ids::{Incarnation, StreamSeq};
use crate::seq_set::SeqSet;

/// A source that was restored, as far as this node has found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored<'a> {
    /// The stream.
    pub stream: &'a str,
    /// From here on it holds other messages than those that were claimed.
    pub from: StreamSeq,
    /// When the restore may have taken what it took; `None` when nothing is known of it.
    pub known: Option<KnownTime>,
}

/// A time before a restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownTime {
    /// When a message that was taken had been published, nanoseconds since the Unix epoch. Everything before it in the stream had
    /// been by then.
    pub ns: i64,
    /// No message that has come since can have been published by then.
    pub is_exact: bool,
}

/// What a halt compared.
enum Shown {
    /// Two messages of one sequence; when the older and the newer of them were published.
    Twice { older: (i64, i64), newer: (i64, i64) },
    /// A sequence that the stream must have given; when the newest claimed message was published, 0 for none.
    Short { known: StreamSeq, newest_ns: i64 },
}

impl Node {
    /// What this node has halted of, if that is a restored source.
    #[must_use]
    pub fn restored_source(&self) -> Option<Restored<'_>> {
        let Phase::Halted(halt) = &self.phase else {
            return None;
        };
        let (stream, from) = halt.restored_source()?;
        let mut configured = self.identity.sources.iter();
        let configured = configured.find(|(_, source)| source.stream == stream);
        let known =
            configured.and_then(|(&incarnation, _)| self.known_before(incarnation, from, &shown(halt)?));
        Some(Restored { stream, from, known })
    }

    /// The earliest time that shows when the restore came, at the latest.
    fn known_before(&self, incarnation: Incarnation, from: StreamSeq, shown: &Shown) -> Option<KnownTime> {
        let claims = self.fold.claims().values();
        let claims = claims.filter(|entry| entry.incarnation == incarnation);
        let claims = claims.map(|entry| (entry.seqs.clone(), entry.published_ns));
        let held = self.batches.values();
        let held = held.filter(|batch| batch.incarnation == incarnation && batch.is_unresolved());
        let held = held.map(|batch| (batch.seqs.clone(), batch.published_ns));
        let looked = self.looked.get(&incarnation).copied();
        let looked = looked.map(|(seq, at)| (SeqSet::range(seq.0, seq.0), (at, at)));
        // What was looked at is there no more, when the stream ends before it.
        let is_gone = |seqs: &SeqSet| seqs.first() >= Some(from.0);
        let looked_short = looked.clone().filter(|(seqs, _)| is_gone(seqs));
        let of_before = claims
            .chain(held)
            .chain(looked)
            .filter(|(seqs, times)| match *shown {
                Shown::Twice { newer, .. } => seqs.last() >= Some(from.0) && times.1 < newer.0,
                Shown::Short { known, .. } => seqs.contains(known.0),
            });
        let of_before = of_before.chain(looked_short.filter(|_| matches!(shown, Shown::Short { .. })));
        // A batch that also holds messages before the break may have been gathered while the restore came.
        let known = of_before.map(|(seqs, times)| {
            let is_exact = is_gone(&seqs);
            let ns = if is_exact { times.0 } else { times.1 };
            KnownTime { ns, is_exact }
        });
        let told = match *shown {
            Shown::Twice { older, .. } => Some(KnownTime {
                ns: older.1,
                is_exact: older.0 == older.1,
            }),
            Shown::Short { newest_ns, .. } => Some(KnownTime {
                ns: newest_ns,
                is_exact: false,
            })
            .filter(|known| known.ns != 0),
        };
        known.chain(told).reduce(|one, other| KnownTime {
            ns: one.ns.min(other.ns),
            is_exact: one.is_exact || other.is_exact,
        })
    }
}

fn shown(halt: &Halt) -> Option<Shown> {
    match halt {
        Halt::SequenceReused {
            found_ns, known_ns, ..
        } => {
            // The claim that was read, or the message that was met, may be the older one.
            let (older, newer) = (*found_ns.min(known_ns), *found_ns.max(known_ns));
            Some(Shown::Twice { older, newer })
        }
        Halt::SourceShrank { known, known_ns, .. } => Some(Shown::Short {
            known: *known,
            newest_ns: *known_ns,
        }),
        Halt::CheckpointDamaged { .. }
        | Halt::Diverged { .. }
        | Halt::Gap { .. }
        | Halt::HistoryChanged { .. }
        | Halt::LedgerRecreated
        | Halt::LedgerRegrown { .. }
        | Halt::LedgerShrank { .. }
        | Halt::NoGenesis { .. }
        | Halt::Reserved { .. }
        | Halt::SourceRecreated { .. }
        | Halt::TermsOutOfOrder { .. }
        | Halt::UnknownFeature { .. }
        | Halt::UnknownRecord { .. }
        | Halt::UnsupportedRules { .. }
        | Halt::WonDiffers { .. }
        | Halt::WrongSubject { .. } => None,
    }
}
