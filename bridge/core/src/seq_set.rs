//! A compact set of sequence numbers: ascending, disjoint, non-adjacent inclusive ranges.

use crate::wire::{DecodeError, Reader, Writer};

/// A set of `u64`, held as ranges. Sources deliver mostly contiguous sequences, so a batch is a few ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeqSet {
    ranges: Vec<(u64, u64)>,
}

impl SeqSet {
    /// The empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The set of one inclusive range; empty when `first > last`.
    #[must_use]
    pub fn range(first: u64, last: u64) -> Self {
        let mut set = Self::new();
        set.insert_range(first, last);
        set
    }

    /// Whether nothing is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.ranges.iter().map(|&(first, last)| last - first + 1).sum()
    }

    /// The ranges, ascending, each inclusive.
    #[must_use]
    pub fn ranges(&self) -> &[(u64, u64)] {
        &self.ranges
    }

    /// Every element, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.ranges.iter().flat_map(|&(first, last)| first..=last)
    }

    /// The smallest element.
    #[must_use]
    pub fn first(&self) -> Option<u64> {
        self.ranges.first().map(|r| r.0)
    }

    /// The largest element.
    #[must_use]
    pub fn last(&self) -> Option<u64> {
        self.ranges.last().map(|r| r.1)
    }

    fn slot(&self, value: u64) -> usize {
        self.ranges.partition_point(|&(_, last)| last < value)
    }

    /// Whether `value` is in the set.
    #[must_use]
    pub fn contains(&self, value: u64) -> bool {
        self.ranges
            .get(self.slot(value))
            .is_some_and(|&(first, _)| first <= value)
    }

    /// Adds one element.
    pub fn insert(&mut self, value: u64) {
        self.insert_range(value, value);
    }

    /// Adds an inclusive range; nothing when `first > last`.
    pub fn insert_range(&mut self, first: u64, last: u64) {
        if first > last {
            return;
        }
        // Every range that touches or adjoins the new one is merged into it.
        let from = self
            .ranges
            .partition_point(|&(_, end)| end.saturating_add(1) < first);
        let to = self
            .ranges
            .partition_point(|&(start, _)| start <= last.saturating_add(1));
        if from >= to {
            self.ranges.insert(from, (first, last));
            return;
        }
        let merged = (first.min(self.ranges[from].0), last.max(self.ranges[to - 1].1));
        self.ranges.splice(from..to, [merged]);
    }

    /// Adds every element of `other`.
    pub fn union(&mut self, other: &SeqSet) {
        for &(first, last) in &other.ranges {
            self.insert_range(first, last);
        }
    }

    /// Takes an inclusive range out.
    pub fn remove_range(&mut self, first: u64, last: u64) {
        if first > last {
            return;
        }
        let from = self.ranges.partition_point(|&(_, end)| end < first);
        let to = self.ranges.partition_point(|&(start, _)| start <= last);
        if from >= to {
            return;
        }
        let mut keep = Vec::with_capacity(2);
        if self.ranges[from].0 < first {
            keep.push((self.ranges[from].0, first - 1));
        }
        if self.ranges[to - 1].1 > last {
            keep.push((last + 1, self.ranges[to - 1].1));
        }
        self.ranges.splice(from..to, keep);
    }

    /// What is in `self` and not in `other`.
    #[must_use]
    pub fn difference(&self, other: &SeqSet) -> SeqSet {
        let mut left = self.clone();
        for &(first, last) in &other.ranges {
            left.remove_range(first, last);
        }
        left
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(&self, other: &SeqSet) -> SeqSet {
        let mut both = SeqSet::new();
        for &(first, last) in &other.ranges {
            for &(start, end) in &self.ranges[self.slot(first)..] {
                if start > last {
                    break;
                }
                both.insert_range(start.max(first), end.min(last));
            }
        }
        both
    }

    /// At most the first `ranges_max` ranges.
    #[must_use]
    pub fn first_ranges(&self, ranges_max: usize) -> SeqSet {
        let ranges = self.ranges.iter().take(ranges_max).copied().collect();
        SeqSet { ranges }
    }

    /// Whether every element of `other` is in `self`.
    #[must_use]
    pub fn is_superset(&self, other: &SeqSet) -> bool {
        other.ranges.iter().all(|&(first, last)| {
            self.ranges
                .get(self.slot(first))
                .is_some_and(|&(start, end)| start <= first && last <= end)
        })
    }

    /// Writes the ranges as (gap, length) pairs of varints: about two bytes a range when they lie close together.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        let mut next = 0_u64;
        for &(first, last) in &self.ranges {
            out.raw_varint(first - next);
            out.raw_varint(last - first);
            next = last.saturating_add(1);
        }
        out.finish()
    }

    /// Reads what `encode` wrote.
    ///
    /// # Errors
    /// When the bytes are cut, overflow, hold more than `ranges_max` ranges, or are not the canonical encoding.
    pub fn decode(bytes: &[u8], ranges_max: usize) -> Result<SeqSet, DecodeError> {
        let mut reader = Reader::new(bytes);
        let mut set = SeqSet::new();
        let mut next = 0_u64;
        while !reader.is_empty() {
            if set.ranges.len() >= ranges_max {
                return Err(DecodeError::Limit("ranges of a sequence set"));
            }
            let gap = reader.raw_varint()?;
            if gap == 0 && !set.ranges.is_empty() {
                return Err(DecodeError::Invalid("sequence set with adjoining ranges"));
            }
            let first = next.checked_add(gap).ok_or(DecodeError::Overflow)?;
            let last = first
                .checked_add(reader.raw_varint()?)
                .ok_or(DecodeError::Overflow)?;
            set.ranges.push((first, last));
            next = last.checked_add(1).ok_or(DecodeError::Overflow)?;
        }
        Ok(set)
    }
}

impl FromIterator<u64> for SeqSet {
    fn from_iter<I: IntoIterator<Item = u64>>(iter: I) -> Self {
        let mut set = SeqSet::new();
        for value in iter {
            set.insert(value);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        /// Goal: the set behaves like a set. Method: the same random inserts and removals on a BTreeSet.
        #[test]
        fn like_a_btree_set(ops in prop::collection::vec((any::<bool>(), 0_u64..60, 0_u64..8), 0..60)) {
            let mut set = SeqSet::new();
            let mut model = BTreeSet::new();
            for (insert, first, len) in ops {
                let last = first + len;
                if insert {
                    set.insert_range(first, last);
                    model.extend(first..=last);
                } else {
                    set.remove_range(first, last);
                    model.retain(|v| *v < first || *v > last);
                }
                prop_assert!(set.iter().eq(model.iter().copied()));
                prop_assert_eq!(set.len(), model.len() as u64);
                prop_assert!(set.ranges.windows(2).all(|w| w[0].1 + 1 < w[1].0));
                prop_assert!((0..80).all(|v| set.contains(v) == model.contains(&v)));
                prop_assert_eq!(SeqSet::decode(&set.encode(), 100).unwrap(), set.clone());
            }
        }

        /// Goal: difference and superset. Method: against BTreeSet.
        #[test]
        fn algebra(a in prop::collection::btree_set(0_u64..60, 0..40), b in prop::collection::btree_set(0_u64..60, 0..40)) {
            let (sa, sb): (SeqSet, SeqSet) = (a.iter().copied().collect(), b.iter().copied().collect());
            prop_assert!(sa.difference(&sb).iter().eq(a.difference(&b).copied()));
            prop_assert_eq!(sa.is_superset(&sb), a.is_superset(&b));
            prop_assert!(sa.intersection(&sb).iter().eq(a.intersection(&b).copied()));
            let first = sa.first_ranges(3);
            prop_assert_eq!(first.ranges(), &sa.ranges()[..sa.ranges().len().min(3)]);
            let mut both = sa.clone();
            both.union(&sb);
            prop_assert!(both.iter().eq(a.union(&b).copied()));
        }
    }

    /// Goal: the size the design promises. Method: 256 contiguous and 256 scattered sequences.
    #[test]
    fn sizes() {
        assert!(SeqSet::range(1_000_000, 1_000_255).encode().len() <= 6);
        let scattered: SeqSet = (0..256).map(|n| 1_000_000 + n * 7).collect();
        assert!(scattered.encode().len() <= 256 * 2 + 4);
    }

    /// Goal: bytes that are not canonical are refused. Method: each kind of fault by hand.
    #[test]
    fn refuses() {
        assert!(SeqSet::decode(&[1], 10).is_err());
        assert!(SeqSet::decode(&[1, 0, 0, 0], 10).is_err());
        assert!(SeqSet::decode(&[1, 0, 1, 0, 1, 0], 2).is_err());
        assert!(
            SeqSet::decode(
                &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 5],
                2
            )
            .is_err()
        );
    }
}
