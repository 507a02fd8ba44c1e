//! Published batches in memory: the newest of all topics of a node (the tail), and those that slow applications have read
//! from disk lately. Both are bounded in bytes for the whole node.

use std::{collections::BTreeMap, sync::Arc};

use fanin_core::ids::Offset;
use parking_lot::Mutex;

use super::body::TopicBatch;

/// A batch of a topic: the topic's space and the batch's base.
type Slot = (u32, Offset);

/// How a batch came into memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// It was just published.
    Published,
    /// It was read back.
    Read,
}

/// The memory that the topics of a node share for bodies. The oldest goes first; a reader of old batches cannot push out the
/// tail.
#[derive(Debug)]
pub struct BodyCache {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    held: BTreeMap<Slot, Held>,
    published: Queue,
    read: Queue,
    next: u64,
}

#[derive(Debug)]
struct Held {
    batch: Arc<TopicBatch>,
    origin: Origin,
    order: u64,
}

#[derive(Debug)]
struct Queue {
    bytes: u64,
    bytes_max: u64,
    order: BTreeMap<u64, Slot>,
}

impl BodyCache {
    /// `tail_bytes` for published batches of all topics, `read_bytes` for batches read back. Zero is allowed: then every
    /// application reads from the local log.
    #[must_use]
    pub fn new(tail_bytes: u64, read_bytes: u64) -> BodyCache {
        let queue = |bytes_max| Queue {
            bytes: 0,
            bytes_max,
            order: BTreeMap::new(),
        };
        BodyCache {
            inner: Mutex::new(Inner {
                held: BTreeMap::new(),
                published: queue(tail_bytes),
                read: queue(read_bytes),
                next: 0,
            }),
        }
    }

    /// Bytes held now: of the tail, and of batches read back.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        let inner = self.inner.lock();
        (inner.published.bytes, inner.read.bytes)
    }

    pub(crate) fn insert(&self, space: u32, batch: Arc<TopicBatch>, origin: Origin) {
        let mut inner = self.inner.lock();
        let slot = (space, batch.base);
        let weight = batch.weight();
        if inner.held.contains_key(&slot) || weight > inner.queue(origin).bytes_max {
            return;
        }
        let order = inner.next;
        inner.next += 1;
        inner.held.insert(slot, Held { batch, origin, order });
        let queue = inner.queue(origin);
        queue.bytes += weight;
        queue.order.insert(order, slot);
        while inner.queue(origin).bytes > inner.queue(origin).bytes_max {
            let Some((_, oldest)) = inner
                .queue(origin)
                .order
                .first_key_value()
                .map(|(n, slot)| (*n, *slot))
            else {
                break;
            };
            inner.remove(oldest);
        }
    }

    pub(crate) fn get(&self, space: u32, base: Offset) -> Option<Arc<TopicBatch>> {
        self.inner
            .lock()
            .held
            .get(&(space, base))
            .map(|held| Arc::clone(&held.batch))
    }

    pub(crate) fn remove(&self, space: u32, base: Offset) {
        self.inner.lock().remove((space, base));
    }
}

impl Inner {
    fn queue(&mut self, origin: Origin) -> &mut Queue {
        match origin {
            Origin::Published => &mut self.published,
            Origin::Read => &mut self.read,
        }
    }

    fn remove(&mut self, slot: Slot) {
        let Some(held) = self.held.remove(&slot) else {
            return;
        };
        let queue = self.queue(held.origin);
        queue.bytes -= held.batch.weight();
        queue.order.remove(&held.order);
    }
}

#[cfg(test)]
mod tests {
    //! Goal: memory stays within both bounds, and reading old batches leaves the tail alone.

    use bytes::Bytes;
    use fanin_core::ids::{BatchNo, Incarnation, LedgerSeq, StreamSeq, TermsVersion};

    use super::*;
    use crate::stage::{StagedBatch, StagedMessage};

    fn batch(base: u64) -> Arc<TopicBatch> {
        let message = StagedMessage {
            seq: StreamSeq(base + 1),
            published_ns: 0,
            subject: "s".into(),
            headers: vec![],
            payload: Bytes::from(vec![0; 1000]),
        };
        let staged = StagedBatch::new(
            BatchNo(base),
            Incarnation(1),
            LedgerSeq(1),
            1,
            "S".into(),
            vec![message],
        );
        Arc::new(TopicBatch::new(Offset(base), TermsVersion(1), Arc::new(staged), None).unwrap())
    }

    #[test]
    fn both_bounds_hold_and_the_tail_survives_old_reads() {
        let weight = batch(0).weight();
        let cache = BodyCache::new(3 * weight, weight);
        for base in 100..200 {
            cache.insert(1, batch(base), Origin::Published);
            assert!(cache.bytes().0 <= 3 * weight);
        }
        for base in 0..100 {
            cache.insert(1, batch(base), Origin::Read);
            assert!(cache.bytes().1 <= weight);
        }
        assert!((197..200).all(|base| cache.get(1, Offset(base)).is_some()));
        assert!(cache.get(1, Offset(196)).is_none() && cache.get(1, Offset(98)).is_none());
        assert!(cache.get(1, Offset(99)).is_some() && cache.get(2, Offset(99)).is_none());
        cache.remove(1, Offset(199));
        cache.remove(1, Offset(199));
        assert_eq!(cache.bytes(), (2 * weight, weight));
        cache.remove(1, Offset(99));
        cache.insert(1, batch(199), Origin::Read);
        assert_eq!(cache.bytes(), (2 * weight, weight));
    }

    #[test]
    fn without_memory_nothing_is_held() {
        let cache = BodyCache::new(0, 0);
        cache.insert(1, batch(0), Origin::Published);
        assert!(cache.get(1, Offset(0)).is_none());
    }
}
