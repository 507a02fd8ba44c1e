//! What deliveries keep in memory until they are written: the batch they lie in, or, when too much of that is kept for one
//! instance already, a copy of their own bytes.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicU64, Ordering},
};

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    body::{TopicBatch, field_len, put_field},
    limits::{PIN_WORTH, PINNED_BYTES_MAX},
};

/// The payload's field in a `Delivery`.
const PAYLOAD: u8 = 5;

/// The part of a delivery that is the same whoever gets it, as it goes on the wire.
#[derive(Debug)]
pub(crate) enum Body {
    /// In its batch, which it keeps.
    Shared { pin: Arc<Pin>, place: u32 },
    /// By itself.
    Copied(Bytes),
}

/// A batch that deliveries of one instance keep.
#[derive(Debug)]
pub(crate) struct Pin {
    batch: Arc<TopicBatch>,
    /// Bytes of all batches that this instance's deliveries keep.
    kept: Arc<AtomicU64>,
}

/// The batches that one instance's deliveries keep, each counted while any of them does.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    kept: Arc<AtomicU64>,
    /// Deliveries come batch by batch.
    last: Weak<Pin>,
}

impl Pins {
    /// The body of the message at a place.
    pub(crate) fn body(&mut self, batch: &Arc<TopicBatch>, place: u32) -> Body {
        if let Some(pin) = self.last.upgrade().filter(|pin| Arc::ptr_eq(&pin.batch, batch)) {
            return Body::Shared { pin, place };
        }
        let weight = batch.weight();
        let fits = self.kept.load(Ordering::Acquire) + weight <= PINNED_BYTES_MAX;
        if !fits && weight > PIN_WORTH * body_len(batch, place) as u64 {
            return Body::copied(batch, place);
        }
        self.kept.fetch_add(weight, Ordering::AcqRel);
        let pin = Arc::new(Pin {
            batch: Arc::clone(batch),
            kept: Arc::clone(&self.kept),
        });
        self.last = Arc::downgrade(&pin);
        Body::Shared { pin, place }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.kept.fetch_sub(self.batch.weight(), Ordering::AcqRel);
    }
}

impl Body {
    pub(super) fn copied(batch: &TopicBatch, place: u32) -> Body {
        let mut bytes = BytesMut::with_capacity(body_len(batch, place));
        put_body(&mut bytes, batch, place);
        Body::Copied(bytes.freeze())
    }

    /// Bytes on the wire.
    pub(crate) fn len(&self) -> usize {
        match self {
            Body::Shared { pin, place } => body_len(&pin.batch, *place),
            Body::Copied(bytes) => bytes.len(),
        }
    }

    /// Writes them.
    pub(crate) fn put(&self, out: &mut impl BufMut) {
        match self {
            Body::Shared { pin, place } => put_body(out, &pin.batch, *place),
            Body::Copied(bytes) => out.put_slice(bytes),
        }
    }
}

/// Bytes on the wire of the body of the message at a place.
pub(crate) fn body_len(batch: &TopicBatch, place: u32) -> usize {
    batch.wire(place).len() + field_len(batch.message(place).payload.len())
}

fn put_body(out: &mut impl BufMut, batch: &TopicBatch, place: u32) {
    out.put_slice(batch.wire(place));
    put_field(out, PAYLOAD, &batch.message(place).payload);
}

#[cfg(test)]
mod tests {
    //! Goal: what deliveries keep is bounded, counted once per batch, and given back with the last of them. Method: one small message of
    //! each of many batches, then many of one, then messages that are nearly all of their batch.

    use fanin_core::ids::{BatchNo, Incarnation, LedgerSeq, Offset, StreamSeq, TermsVersion};

    use super::*;
    use crate::stage::{StagedBatch, StagedMessage};

    const MIB: usize = 1024 * 1024;

    /// A batch of these payloads.
    fn batch(sizes: &[usize]) -> Arc<TopicBatch> {
        let messages = sizes.iter().enumerate().map(|(n, size)| StagedMessage {
            seq: StreamSeq(n as u64 + 1),
            published_ns: 1,
            subject: "orders.rare".into(),
            headers: vec![],
            payload: Bytes::from(vec![7; *size]),
        });
        let staged = StagedBatch::new(
            BatchNo(1),
            Incarnation(1),
            LedgerSeq(1),
            1,
            "ORDERS".into(),
            messages.collect(),
        );
        Arc::new(TopicBatch::new(Offset(0), TermsVersion(1), Arc::new(staged), None).unwrap())
    }

    #[test]
    fn one_message_of_each_batch_keeps_few_of_them() {
        let mut pins = Pins::default();
        let mut queue = Vec::new();
        let mut batches = Vec::new();
        for _ in 0..100 {
            let batch = batch(&[10, MIB]);
            queue.push(pins.body(&batch, 0));
            batches.push(Arc::downgrade(&batch));
            assert!(pins.kept.load(Ordering::Acquire) <= PINNED_BYTES_MAX);
        }
        let kept = batches.iter().filter(|batch| batch.strong_count() > 0).count() as u64;
        assert!(
            0 < kept && kept * MIB as u64 <= PINNED_BYTES_MAX,
            "{kept} are kept"
        );
        queue.clear();
        assert_eq!(pins.kept.load(Ordering::Acquire), 0);
        assert!(batches.iter().all(|batch| batch.strong_count() == 0));
    }

    #[test]
    fn a_batch_counts_once_and_a_copy_is_the_same() {
        let mut pins = Pins::default();
        let batch = batch(&[10, 1_000, 0, 70_000]);
        let bodies: Vec<Body> = (0..4).map(|place| pins.body(&batch, place)).collect();
        assert_eq!(pins.kept.load(Ordering::Acquire), batch.weight());
        for (place, body) in bodies.iter().enumerate() {
            assert!(matches!(body, Body::Shared { .. }));
            let copy = Body::copied(&batch, place as u32);
            let (mut one, mut other) = (Vec::new(), Vec::new());
            body.put(&mut one);
            copy.put(&mut other);
            assert_eq!((one.len(), one), (copy.len(), other));
            assert_eq!(body.len(), copy.len());
        }
    }

    #[test]
    fn what_is_nearly_all_of_its_batch_is_not_copied() {
        let mut pins = Pins::default();
        let bodies: Vec<Body> = (0..20).map(|_| pins.body(&batch(&[MIB, 10]), 0)).collect();
        assert!(bodies.iter().all(|body| matches!(body, Body::Shared { .. })));
        let bytes: usize = bodies.iter().map(Body::len).sum();
        assert!(pins.kept.load(Ordering::Acquire) <= PIN_WORTH * bytes as u64);
    }
}
