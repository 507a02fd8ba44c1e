//! Where each published, unfinished batch lies. The cost is per batch, never per message.

use std::{collections::VecDeque, sync::Arc};

use fanin_core::ids::{BatchNo, Offset, StreamSeq, TermsVersion};
use fanin_store::Location;

/// A published batch whose messages are not all finished.
#[derive(Clone, Debug)]
pub(crate) struct IndexEntry {
    pub(crate) batch: BatchNo,
    pub(crate) base: Offset,
    pub(crate) count: u32,
    pub(crate) terms: TermsVersion,
    pub(crate) at: Location,
    /// When the hub stored the first message; 0 while that is unknown.
    pub(crate) published_ns: i64,
    /// Payload bytes of everything published before this batch since the topic started.
    pub(crate) bytes_before: u64,
    /// Payload bytes of the staged batch.
    pub(crate) bytes: u32,
    /// The won sequences; `None`: all of the batch.
    pub(crate) won: Option<Arc<[(StreamSeq, StreamSeq)]>>,
}

// What a backlog costs in memory; a change should be a decision.
const _: () = assert!(size_of::<IndexEntry>() <= 96);

impl IndexEntry {
    /// The offset behind the last message.
    pub(crate) fn end(&self) -> Offset {
        self.base.plus(u64::from(self.count))
    }
}

/// The batches between the slowest application and the head, in offset order without gaps, and how far each
/// application has durably finished.
#[derive(Debug)]
pub(crate) struct Index {
    entries: VecDeque<IndexEntry>,
    head: Offset,
    bytes_total: u64,
    /// Durable floor of each application.
    floors: Vec<Offset>,
}

impl Index {
    pub(crate) fn new(head: Offset, floors: Vec<Offset>) -> Index {
        Index {
            entries: VecDeque::new(),
            head,
            bytes_total: 0,
            floors,
        }
    }

    /// The offset that the next published message gets.
    pub(crate) fn head(&self) -> Offset {
        self.head
    }

    /// Number of unfinished batches.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Adds the newest batch, whose base is the head.
    pub(crate) fn push(&mut self, mut entry: IndexEntry) {
        debug_assert_eq!(
            entry.base, self.head,
            "batches are published in offset order without gaps"
        );
        entry.bytes_before = self.bytes_total;
        self.bytes_total += u64::from(entry.bytes);
        self.head = entry.end();
        self.entries.push_back(entry);
    }

    /// Messages that even the fastest of the applications that count has not finished. `counts` takes their numbers.
    pub(crate) fn least_backlog(&self, counts: impl Fn(usize) -> bool) -> u64 {
        let floors = self.floors.iter().enumerate().filter(|(app, _)| counts(*app));
        let fastest = floors.map(|(_, floor)| *floor).max().unwrap_or(self.head());
        self.head().0.saturating_sub(fastest.0)
    }

    /// The batch that holds an offset.
    pub(crate) fn find(&self, offset: Offset) -> Option<&IndexEntry> {
        let n = self.entries.partition_point(|entry| entry.end() <= offset);
        self.entries.get(n).filter(|entry| entry.base <= offset)
    }

    /// The unfinished batches, in offset order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &IndexEntry> {
        self.entries.iter()
    }

    /// Where an unfinished batch lies.
    pub(crate) fn location_of(&self, batch: BatchNo) -> Option<Location> {
        let found = self.entries.iter().find(|entry| entry.batch == batch);
        found.map(|entry| entry.at)
    }

    /// A batch was written again, with this first time and these payload bytes. Returns its entry, unless every application has
    /// finished it meanwhile. Takes time in proportion to the backlog, and is as rare as damage.
    pub(crate) fn moved(
        &mut self,
        batch: BatchNo,
        at: Location,
        published_ns: i64,
        bytes: u32,
    ) -> Option<IndexEntry> {
        let n = self.entries.iter().position(|entry| entry.batch == batch)?;
        let (found, behind) = self.entries.make_contiguous()[n..].split_first_mut()?;
        let before = u64::from(found.bytes);
        found.at = at;
        found.published_ns = published_ns;
        found.bytes = bytes;
        for entry in behind {
            entry.bytes_before = entry.bytes_before + u64::from(bytes) - before;
        }
        self.bytes_total = self.bytes_total + u64::from(bytes) - before;
        Some(found.clone())
    }

    /// An application has durably finished everything below `floor`. Returns the batches that every application has
    /// finished by that.
    pub(crate) fn advance(&mut self, app: usize, floor: Offset) -> Vec<(BatchNo, Offset)> {
        if let Some(known) = self.floors.get_mut(app) {
            *known = floor.max(*known);
        }
        let Some(lowest) = self.floors.iter().min().copied() else {
            return Vec::new();
        };
        let mut done = Vec::new();
        while let Some(entry) = self.entries.front().filter(|entry| entry.end() <= lowest) {
            done.push((entry.batch, entry.base));
            self.entries.pop_front();
        }
        done
    }

    /// Payload bytes at and behind an offset; inside a batch in proportion to its messages.
    pub(crate) fn bytes_from(&self, offset: Offset) -> u64 {
        let Some(entry) = self.find(offset) else { return 0 };
        let passed = u64::from(entry.bytes) * (offset.0 - entry.base.0) / u64::from(entry.count.max(1));
        self.bytes_total - entry.bytes_before - passed
    }
}

#[cfg(test)]
mod tests {
    //! Goal: offsets lead to their batch, a batch goes only when every application is past it, and bytes add up.

    use super::*;

    fn entry(batch: u64, base: u64, count: u32) -> IndexEntry {
        IndexEntry {
            batch: BatchNo(batch),
            base: Offset(base),
            count,
            terms: TermsVersion(1),
            at: Location {
                segment: 1,
                position: 0,
                head_len: 0,
                body_len: 0,
            },
            published_ns: 0,
            bytes_before: 0,
            bytes: count * 10,
            won: None,
        }
    }

    #[test]
    fn a_batch_goes_when_the_last_application_is_past_it() {
        let mut index = Index::new(Offset(5), vec![Offset(5), Offset(5)]);
        index.push(entry(1, 5, 3));
        index.push(entry(2, 8, 2));
        assert_eq!(index.head(), Offset(10));
        assert!(index.find(Offset(4)).is_none() && index.find(Offset(10)).is_none());
        assert_eq!(index.find(Offset(7)).unwrap().batch, BatchNo(1));
        assert_eq!(index.find(Offset(8)).unwrap().batch, BatchNo(2));
        assert_eq!(
            (
                index.bytes_from(Offset(5)),
                index.bytes_from(Offset(9)),
                index.bytes_from(Offset(10))
            ),
            (50, 10, 0)
        );

        assert!(index.advance(0, Offset(10)).is_empty());
        assert!(index.advance(1, Offset(7)).is_empty());
        assert_eq!(index.advance(1, Offset(8)), [(BatchNo(1), Offset(5))]);
        assert!(index.advance(1, Offset(6)).is_empty(), "a floor never moves back");
        assert_eq!(index.advance(1, Offset(10)), [(BatchNo(2), Offset(8))]);
        assert_eq!(index.len(), 0);
    }
}
