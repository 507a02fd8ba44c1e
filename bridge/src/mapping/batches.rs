//! What the shell holds of a batch on its way: the body in memory until it is published, the acknowledgement subjects until
//! it is settled, and the permits that bound both.

use std::collections::BTreeMap;
use std::sync::Arc;

use fanin_core::ids::{BatchNo, StreamSeq};
use fanin_core::seq_set::SeqSet;
use fanin_hub::AckSubject;
use fanin_store::Location;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::limits::{REPAIR_BYTES_MAX, REPAIR_FETCH_BYTES};
use crate::stage::{StageHead, StagedBatch};

/// Room in the node's in-flight window and in memory, given back when dropped.
#[derive(Debug, Default)]
pub struct Permits {
    /// One per message.
    pub messages: Option<OwnedSemaphorePermit>,
    /// One per KiB of subjects, headers and payloads.
    pub kib: Option<OwnedSemaphorePermit>,
}

/// The room in memory of messages that a mapping fetches by sequence, apart from that of pulling: an intake that waits for
/// messages holds a whole batch's room, and a message that the hub had skipped must not wait behind it.
#[derive(Debug)]
pub struct RepairRoom(Arc<Semaphore>);

impl Default for RepairRoom {
    fn default() -> Self {
        RepairRoom(Arc::new(Semaphore::new(kib(REPAIR_BYTES_MAX) as usize)))
    }
}

impl RepairRoom {
    /// The room to begin a fetch with; `None` when too much is in memory. The core asks for the message again.
    #[must_use]
    pub fn begin(&self) -> Option<Permits> {
        let taken = Arc::clone(&self.0).try_acquire_many_owned(kib(REPAIR_FETCH_BYTES));
        Some(Permits {
            messages: None,
            kib: Some(taken.ok()?),
        })
    }

    /// Makes it the room of a message of so many bytes, which takes no more than all there is. False when it does not fit now: the
    /// message is to be dropped, and the core asks for it again.
    #[must_use]
    pub fn fit(&self, permits: &mut Permits, bytes: u64) -> bool {
        let needed = kib(bytes.clamp(1, REPAIR_BYTES_MAX)) as usize;
        let Some(held) = &mut permits.kib else {
            return false;
        };
        let has = held.num_permits();
        drop(held.split(has.saturating_sub(needed)));
        let more = u32::try_from(needed.saturating_sub(has)).unwrap_or(u32::MAX);
        match Arc::clone(&self.0).try_acquire_many_owned(more) {
            Ok(more) => {
                held.merge(more);
                true
            }
            Err(_) => false,
        }
    }
}

/// Whole KiB that bytes take.
fn kib(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

/// A batch on its way.
#[derive(Debug, Default)]
pub struct Flying {
    /// The body, until it is published; after a restart it is on disk only.
    pub body: Option<Arc<StagedBatch>>,
    /// Where the body lies, once staged.
    pub at: Option<Location>,
    /// Of a batch that an earlier life staged: the head of its record, unless that is damaged too.
    pub head: Option<StageHead>,
    /// The body on disk is known to be damaged.
    pub damaged: bool,
    /// Where to settle each message.
    pub acks: Vec<(StreamSeq, AckSubject)>,
    /// Room taken.
    pub permits: Permits,
}

/// What the topic gets of a batch.
#[derive(Debug)]
pub struct Leaving {
    /// The body; `None` when it is on disk only.
    pub body: Option<Arc<StagedBatch>>,
    /// Where it lies.
    pub at: Location,
    /// The head of its record, when the body is on disk only and the head is whole.
    pub head: Option<StageHead>,
    /// The body on disk is known to be damaged.
    pub damaged: bool,
}

/// All batches on their way.
#[derive(Debug, Default)]
pub struct Batches {
    flying: BTreeMap<BatchNo, Flying>,
}

impl Batches {
    /// A batch begins its way.
    pub fn insert(&mut self, batch: BatchNo, flying: Flying) {
        self.flying.insert(batch, flying);
    }

    /// A batch's entry.
    pub fn get_mut(&mut self, batch: BatchNo) -> Option<&mut Flying> {
        self.flying.get_mut(&batch)
    }

    /// The batch is about to be published: its body is the topic's from now on. What stays is what settling needs.
    pub fn publish(&mut self, batch: BatchNo) -> Option<Leaving> {
        let flying = self.flying.get_mut(&batch)?;
        flying.permits.kib = None;
        Some(Leaving {
            body: flying.body.take(),
            at: flying.at?,
            head: flying.head.take(),
            damaged: flying.damaged,
        })
    }

    /// Takes the acknowledgement subjects of the won messages and forgets the batch. What was lost is its winner's to
    /// settle. The message permits go with the returned value.
    pub fn settle(&mut self, batch: BatchNo, won: &SeqSet) -> Option<(Vec<AckSubject>, Permits)> {
        let flying = self.flying.remove(&batch)?;
        let acks = flying
            .acks
            .into_iter()
            .filter(|(seq, _)| won.contains(seq.0))
            .map(|(_, ack)| ack)
            .collect();
        Some((acks, flying.permits))
    }

    /// Forgets a batch: it won nothing, or was refused.
    pub fn forget(&mut self, batch: BatchNo) -> Option<Flying> {
        self.flying.remove(&batch)
    }

    /// How many are on their way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.flying.len()
    }

    /// Whether none is on its way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.flying.is_empty()
    }
}

#[cfg(test)]
mod tests {
    //! Goal: messages fetched by sequence are bounded in bytes, and the largest one gets in when it is alone. Method: fetches of
    //! many sizes until there is no room.

    use super::*;

    #[test]
    fn repairs_are_bounded_in_bytes() {
        let room = RepairRoom::default();
        let all = room.0.available_permits();
        let mut held = Vec::new();
        while let Some(mut permits) = room.begin() {
            assert!(room.fit(&mut permits, 100 * 1024));
            held.push(permits);
        }
        assert!(held.len() as u64 > REPAIR_BYTES_MAX / REPAIR_FETCH_BYTES);
        assert!(all - room.0.available_permits() <= kib(REPAIR_BYTES_MAX) as usize);

        held.truncate(10);
        let mut large = room.begin().unwrap();
        assert!(!room.fit(&mut large, 2 * REPAIR_BYTES_MAX), "others are there");
        drop(large);
        let mut some = room.begin().unwrap();
        assert!(room.fit(&mut some, 3 * REPAIR_FETCH_BYTES));
        drop((some, held));
        let mut large = room.begin().unwrap();
        assert!(room.fit(&mut large, 2 * REPAIR_BYTES_MAX));
        assert!(room.begin().is_none(), "the largest one is alone");
        drop(large);
        assert_eq!(room.0.available_permits(), all);
    }
}
