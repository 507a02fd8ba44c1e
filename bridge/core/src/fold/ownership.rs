//! Who won which sequences of one source incarnation, above its watermark.

use std::collections::BTreeMap;

use super::ClaimKey;
use crate::ids::StreamSeq;
use crate::seq_set::SeqSet;

/// Disjoint inclusive ranges, each with its owner.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owners {
    /// First sequence to (last sequence, owner).
    ranges: BTreeMap<u64, (u64, ClaimKey)>,
}

impl Owners {
    /// Whether nobody owns anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The owner of a sequence.
    #[must_use]
    pub fn owner(&self, seq: StreamSeq) -> Option<ClaimKey> {
        self.ranges
            .range(..=seq.0)
            .next_back()
            .filter(|&(_, &(last, _))| last >= seq.0)
            .map(|(_, &(_, key))| key)
    }

    /// The highest owned sequence.
    #[must_use]
    pub fn last(&self) -> Option<StreamSeq> {
        self.ranges.values().next_back().map(|&(last, _)| StreamSeq(last))
    }

    /// The elements of `seqs` that nobody owns.
    #[must_use]
    pub fn unowned(&self, seqs: &SeqSet) -> SeqSet {
        let mut free = seqs.clone();
        for &(first, last) in seqs.ranges() {
            let from = self
                .ranges
                .range(..=first)
                .next_back()
                .map_or(first, |(&start, _)| start);
            for (&start, &(end, _)) in self.ranges.range(from..=last) {
                free.remove_range(start, end);
            }
        }
        free
    }

    /// Gives sequences that nobody owns to `key`.
    pub(crate) fn assign(&mut self, seqs: &SeqSet, key: ClaimKey) {
        for &(first, last) in seqs.ranges() {
            self.ranges.insert(first, (last, key));
        }
    }

    /// Forgets everything at or below `through`.
    pub(crate) fn forget_through(&mut self, through: StreamSeq) {
        let above = self.ranges.split_off(&(through.0 + 1));
        let below = core::mem::replace(&mut self.ranges, above);
        if let Some((_, (last, key))) = below.into_iter().next_back()
            && last > through.0
        {
            self.ranges.insert(through.0 + 1, (last, key));
        }
    }

    /// The owned ranges that end at or above `from`, ascending: (first, last, owner).
    pub fn from(&self, from: StreamSeq) -> impl Iterator<Item = (StreamSeq, StreamSeq, ClaimKey)> + '_ {
        let start = self
            .ranges
            .range(..=from.0)
            .next_back()
            .filter(|&(_, &(last, _))| last >= from.0)
            .map_or(from.0, |(&first, _)| first);
        self.ranges
            .range(start..)
            .map(|(&first, &(last, key))| (StreamSeq(first), StreamSeq(last), key))
    }
}
