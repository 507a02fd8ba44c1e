//! What the shell holds of a batch on its way: the body in memory until it is published, the acknowledgement subjects until
//! it is settled, and the permits that bound both.

use std::collections::BTreeMap;
use std::sync::Arc;

use fanin_core::ids::{BatchNo, StreamSeq};
use fanin_core::seq_set::SeqSet;
use fanin_hub::AckSubject;
use fanin_store::Location;
use tokio::sync::OwnedSemaphorePermit;

use crate::stage::{StageHead, StagedBatch};

/// Room in the node's in-flight window and in memory, given back when dropped.
#[derive(Debug, Default)]
pub struct Permits {
    /// One per message.
    pub messages: Option<OwnedSemaphorePermit>,
    /// One per KiB of subjects, headers and payloads.
    pub kib: Option<OwnedSemaphorePermit>,
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
