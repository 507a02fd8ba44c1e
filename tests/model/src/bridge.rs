//! One bridge process with its disk. What is written counts only once synced; a crash loses the rest.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fanin_core::ids::{
    BatchNo, Epoch, Incarnation, LedgerSeq, NodeUuid, Nonce, Offset, StreamSeq, TermsVersion,
};
use fanin_core::node::{Node, Phase};
use fanin_core::record::{ClaimKind, Witness};
use fanin_core::recovery::{self, DiskBatch};
use fanin_core::seq_set::SeqSet;

/// A durable resolution.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Resolution {
    /// The offset of its first message.
    pub base: Offset,
    /// What became visible.
    pub won: SeqSet,
    /// The terms it was won under.
    pub terms: TermsVersion,
    /// What the node had read when it was decided; the default where witnesses are left out.
    pub witness: Witness,
}

/// A staged batch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Kept {
    /// Its source.
    pub incarnation: Incarnation,
    /// Why it was fetched.
    pub kind: ClaimKind,
    /// Its sequences.
    pub seqs: SeqSet,
    /// Publish times of its oldest and its newest message.
    pub published_ns: (i64, i64),
    /// Once it is known.
    pub resolution: Option<Resolution>,
}

/// A write on its way to the disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Write {
    /// A batch.
    Stage(BatchNo, Kept),
    /// What it won.
    Resolve(BatchNo, Resolution),
    /// The finished batches.
    Done(SeqSet),
    /// A batch's space is free.
    Release(BatchNo),
}

/// What survives a crash.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Disk {
    /// The newest epoch it remembers.
    pub epoch: Epoch,
    /// Nonces of epochs whose outcome it never heard.
    pub intents: BTreeSet<Nonce>,
    /// Batches that are not released.
    pub batches: BTreeMap<BatchNo, Kept>,
    /// Finished batches.
    pub done: SeqSet,
    /// The offset behind everything ever published.
    pub next_offset: Offset,
    /// What had been read of the ledger when the last batch was decided.
    pub witness: Witness,
    /// Batches whose every application confirmed every message: the cursors.
    pub acked: BTreeSet<BatchNo>,
}

/// Whether a process runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Process {
    /// It does not.
    Down,
    /// It was refused at its start: somebody else used the identity.
    Refused,
    /// It does.
    Up(Box<Node>),
}

/// A bridge.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Bridge {
    /// The data directory.
    pub uuid: NodeUuid,
    /// The node's name.
    pub name: &'static str,
    /// The applications configured now.
    pub hosts: BTreeSet<String>,
    /// The process.
    pub process: Process,
    /// What is durable.
    pub disk: Disk,
    /// Writes not yet synced, in order, with whether the node was told of them already (by a mutant).
    pub unsynced: VecDeque<(Write, bool)>,
    /// The next ledger position to read.
    pub cursor: LedgerSeq,
    /// Looks asked for.
    pub audits: BTreeSet<(TermsVersion, StreamSeq)>,
    /// Messages asked for by sequence.
    pub repairs: BTreeSet<StreamSeq>,
    /// Records of this life that landed where it had read others, with what it had read, and of which it may hear.
    pub early: BTreeSet<(LedgerSeq, LedgerSeq)>,
    /// Batches staged so far, over all lives.
    pub staged: u8,
    /// Lives begun so far; nonces are made of it.
    pub starts: u8,
    /// It read records that the hub then lost: it has no truth to be compared with.
    pub astray: bool,
    /// Of a copied disk: the batches that were on it when it was copied.
    pub copied: Option<SeqSet>,
}

impl Bridge {
    pub(crate) fn node(&self) -> Option<&Node> {
        match &self.process {
            Process::Up(node) => Some(node),
            Process::Down | Process::Refused => None,
        }
    }

    /// Whether it runs, has joined and has neither halted nor been fenced.
    pub(crate) fn is_active(&self) -> bool {
        self.node().is_some_and(|node| *node.phase() == Phase::Active)
    }

    /// Whether it runs and still may do something.
    pub(crate) fn is_well(&self) -> bool {
        self.node()
            .is_some_and(|node| matches!(node.phase(), Phase::Joining | Phase::Active))
    }

    /// What the core recovers from.
    pub(crate) fn recoverable(&self) -> recovery::Disk {
        let batches = self.disk.batches.iter().map(|(&number, kept)| DiskBatch {
            number,
            incarnation: kept.incarnation,
            kind: kept.kind,
            seqs: kept.seqs.clone(),
            published_ns: kept.published_ns,
            resolution: kept
                .resolution
                .as_ref()
                .map(|found| (found.base, found.won.clone())),
            damaged: false,
        });
        recovery::Disk {
            epoch: self.disk.epoch,
            intents: self.disk.intents.clone(),
            batches: batches.collect(),
            done: self.disk.done.clone(),
            next_offset: self.disk.next_offset,
            witness: self.disk.witness,
        }
    }
}

impl Disk {
    /// Applies a synced write.
    ///
    /// # Errors
    /// What no order of writes may lead to.
    pub(crate) fn apply(&mut self, write: &Write) -> Result<(), String> {
        match write {
            Write::Stage(batch, kept) => {
                if self.batches.insert(*batch, kept.clone()).is_some() {
                    return Err(format!("batch {batch} was given out twice"));
                }
            }
            Write::Resolve(batch, resolution) => {
                let Some(kept) = self.batches.get_mut(batch) else {
                    return Err(format!("batch {batch} is resolved, but not on the disk"));
                };
                if kept.resolution.is_some() {
                    return Err(format!("batch {batch} was resolved twice"));
                }
                if resolution.base < self.next_offset {
                    return Err(format!("the offsets of batch {batch} are used already"));
                }
                self.next_offset = resolution.base.plus(resolution.won.len());
                self.witness = resolution.witness;
                kept.resolution = Some(resolution.clone());
            }
            Write::Done(done) => self.done = done.clone(),
            Write::Release(batch) => {
                self.batches.remove(batch);
                self.acked.remove(batch);
            }
        }
        Ok(())
    }
}
