//! Building a node from what its disk kept. The ledger then decides the rest, through the same inputs as ever: the
//! checkpoint, the records behind it, the own EPOCH. The bridge, the model checker and the simulator all begin here.

use std::collections::{BTreeMap, BTreeSet};

use crate::batch::{Batch, BatchState};
use crate::fold::Fold;
use crate::ids::{BatchNo, Epoch, Incarnation, LedgerSeq, Nonce, Offset};
use crate::mutants::{self, Mutant};
use crate::node::{Identity, Node, Phase, Policy};
use crate::record::{ClaimKind, Witness};
use crate::seq_set::SeqSet;

/// A batch as the disk holds it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiskBatch {
    /// Its number.
    pub number: BatchNo,
    /// Its source.
    pub incarnation: Incarnation,
    /// Why it was fetched.
    pub kind: ClaimKind,
    /// Its sequences.
    pub seqs: SeqSet,
    /// Publish time of its oldest and newest message.
    pub published_ns: (i64, i64),
    /// Its resolution, when that is durable: base offset and what was won.
    pub resolution: Option<(Offset, SeqSet)>,
    /// The messages cannot be read any more; of an unresolved batch nothing but the number need be known then.
    pub damaged: bool,
}

/// What a disk keeps of one mapping.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Disk {
    /// The newest epoch it remembers; 0 for none.
    pub epoch: Epoch,
    /// Nonces written before an EPOCH was sent, whose outcome was never heard.
    pub intents: BTreeSet<Nonce>,
    /// Batches that are not released.
    pub batches: Vec<DiskBatch>,
    /// Batches that every application has finished.
    pub done: SeqSet,
    /// The offset behind every message ever published here.
    pub next_offset: Offset,
    /// What had been read of the ledger when the last batch was decided; the default for nothing.
    pub witness: Witness,
}

/// A node that has read its disk and nothing of the ledger. Batches named done on the disk are not taken over: the
/// caller frees their space.
#[must_use]
pub fn recover(identity: Identity, policy: Policy, disk: Disk) -> Node {
    let mut node = Node {
        identity,
        policy,
        fold: Fold::new(),
        phase: Phase::Joining,
        epoch: None,
        known_epoch: disk.epoch,
        intents: disk.intents,
        known_witness: disk.witness,
        batches: BTreeMap::new(),
        in_hand: BTreeMap::new(),
        unresolved: 0,
        next_batch: BatchNo(disk.done.last().unwrap_or(0) + 1),
        next_offset: disk.next_offset,
        done: Default::default(),
        seen: BTreeMap::new(),
        close: BTreeMap::new(),
        upkeep: Default::default(),
        room: Default::default(),
        shrunk: BTreeMap::new(),
        looked: BTreeMap::new(),
        ends: BTreeMap::new(),
        loading: None,
        watched: LedgerSeq(0),
    };
    for kept in disk.batches {
        node.next_batch = node.next_batch.max(kept.number.next());
        if let Some((base, won)) = &kept.resolution {
            node.next_offset = node.next_offset.max(base.plus(won.len()));
        }
        if disk.done.contains(kept.number.0) {
            continue;
        }
        let mut batch = Batch::new(kept.incarnation, kept.kind, kept.seqs, kept.published_ns);
        match kept.resolution {
            Some((_, won)) => {
                batch.seqs = SeqSet::new();
                batch.state = BatchState::Published {
                    unconfirmed: Some(won),
                };
            }
            // Not held any more, so not to be claimed: the ledger tells whether an earlier life had claimed it.
            None if kept.damaged => {
                batch.seqs = SeqSet::new();
                batch.state = BatchState::Damaged;
            }
            None => {
                node.in_hand
                    .entry(batch.incarnation)
                    .or_default()
                    .union(&batch.seqs);
                node.unresolved += 1;
                batch.state = BatchState::Staged;
            }
        }
        node.batches.insert(kept.number, batch);
    }
    if mutants::on(Mutant::NumbersRestart) {
        node.next_batch = node
            .batches
            .keys()
            .next_back()
            .map_or(BatchNo(1), |last| last.next());
    }
    node.done.finished = disk.done.clone();
    node.done.durable = disk.done;
    node
}
