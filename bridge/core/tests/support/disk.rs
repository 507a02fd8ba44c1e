//! A node's disk: what is written counts only once synced, and a crash loses the rest.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fanin_core::ids::{BatchNo, Epoch, Incarnation, Nonce, Offset, TermsVersion};
use fanin_core::record::{ClaimKind, Witness};
use fanin_core::recovery::{self, DiskBatch};
use fanin_core::seq_set::SeqSet;

use super::hub::Source;

/// A durable resolution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resolution {
    pub(crate) base: Offset,
    pub(crate) won: SeqSet,
    pub(crate) terms: TermsVersion,
    pub(crate) witness: Witness,
}

/// A staged batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) incarnation: Incarnation,
    pub(crate) kind: ClaimKind,
    pub(crate) seqs: SeqSet,
    pub(crate) resolution: Option<Resolution>,
    /// Its body cannot be read any more.
    pub(crate) damaged: bool,
}

/// What survives a crash.
#[derive(Clone, Debug, Default)]
pub(crate) struct Image {
    pub(crate) epoch: Epoch,
    pub(crate) intents: BTreeSet<Nonce>,
    pub(crate) batches: BTreeMap<BatchNo, Kept>,
    pub(crate) done: SeqSet,
    pub(crate) next_offset: Offset,
    pub(crate) witness: Witness,
    /// Batches whose every application confirmed every message: the cursors.
    pub(crate) acked: BTreeSet<BatchNo>,
}

impl Image {
    /// What the core recovers from.
    pub(crate) fn recoverable(&self) -> recovery::Disk {
        let batches = self.batches.iter().map(|(&number, kept)| DiskBatch {
            number,
            // Of a damaged record only the number is known.
            incarnation: if kept.damaged {
                Incarnation::default()
            } else {
                kept.incarnation
            },
            kind: kept.kind,
            seqs: if kept.damaged {
                SeqSet::new()
            } else {
                kept.seqs.clone()
            },
            published_ns: (
                Source::published_ns(kept.seqs.first().unwrap_or(0)),
                Source::published_ns(kept.seqs.last().unwrap_or(0)),
            ),
            resolution: kept
                .resolution
                .as_ref()
                .map(|found| (found.base, found.won.clone())),
            damaged: kept.damaged,
        });
        recovery::Disk {
            epoch: self.epoch,
            intents: self.intents.clone(),
            batches: batches.collect(),
            done: self.done.clone(),
            next_offset: self.next_offset,
            witness: self.witness,
        }
    }
}

/// A write on its way.
#[derive(Clone, Debug)]
pub(crate) enum Write {
    Stage(BatchNo, Kept),
    Resolve(BatchNo, Resolution),
    Done(SeqSet),
    Release(BatchNo),
}

/// A disk with its queue of unsynced writes, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    pub(crate) image: Image,
    pub(crate) unsynced: VecDeque<Write>,
    /// Refuses to stage.
    pub(crate) full: bool,
}

impl Disk {
    pub(crate) fn apply(&mut self, write: &Write) {
        match write {
            Write::Stage(batch, kept) => {
                assert!(
                    !self.image.batches.contains_key(batch),
                    "P1: batch {batch} was given out twice"
                );
                self.image.batches.insert(*batch, kept.clone());
            }
            Write::Resolve(batch, resolution) => {
                let kept = self
                    .image
                    .batches
                    .get_mut(batch)
                    .expect("a resolved batch is on the disk");
                assert!(
                    kept.resolution.is_none(),
                    "batch {batch} was resolved twice on one disk"
                );
                let end = resolution.base.plus(resolution.won.len());
                assert!(
                    resolution.base >= self.image.next_offset,
                    "offsets of batch {batch} are used already"
                );
                self.image.next_offset = end;
                self.image.witness = resolution.witness;
                kept.resolution = Some(resolution.clone());
            }
            Write::Done(done) => self.image.done = done.clone(),
            Write::Release(batch) => {
                self.image.batches.remove(batch);
                self.image.acked.remove(batch);
            }
        }
    }
}
