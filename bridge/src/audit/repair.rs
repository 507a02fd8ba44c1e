//! What is known of a ledger that bridges hold for damaged: what survives of it, what the nodes hold, and the state that both
//! make. Nothing is changed here.

use std::collections::{BTreeMap, BTreeSet};

use fanin_core::checkpoint::Assembler;
use fanin_core::fold::{ApplyError, Fold, Halt, Suspect};
use fanin_core::ids::{Incarnation, LedgerSeq, StreamSeq};
use fanin_core::record::{Body, ClaimKind, Record, Terms};
use fanin_core::repair::{HeldBatch, Memory, Merged, NodeDisk, Survivors, merge};
use fanin_hub::ledger::tail::TailItem;

use super::nodes::{BatchView, NodeView};

/// Records of a ledger, folded as far as that goes.
#[derive(Clone, Debug)]
pub struct Surviving {
    /// When the ledger was created, nanoseconds since 1970.
    pub created_ns: u64,
    /// The creation times of the streams it stands for.
    pub predecessors: BTreeSet<u64>,
    /// Its last position.
    pub last: LedgerSeq,
    /// How many records there are.
    pub records: usize,
    /// The state.
    pub fold: Fold,
    /// Why a bridge would halt on it; the state is that before the record.
    pub halt: Option<Halt>,
    /// A repair has sealed it, or has begun it and not finished.
    pub unfinished: bool,
}

/// Folds records that were read from a ledger or a backup of one.
#[must_use]
pub fn fold(items: &[TailItem]) -> (Fold, Option<Halt>) {
    let mut assembler = Assembler::default();
    for item in items.iter().filter(|item| item.subject_suffix == "checkpoint") {
        if let Ok(Record {
            body: Body::Checkpoint(part),
            ..
        }) = Record::decode(&item.body)
        {
            assembler.add(part);
        }
    }
    let mut fold = match assembler.best().map(fanin_core::checkpoint::Complete::load) {
        Some(Ok(fold)) => fold,
        Some(Err(halt)) => return (Fold::new(), Some(halt)),
        None => Fold::new(),
    };
    for item in items {
        match fold.apply(item.seq, &item.subject_suffix, &item.body) {
            Ok(_) => {}
            Err(ApplyError::Halt(halt)) => return (fold, Some(halt)),
            Err(ApplyError::Gap { expected, found }) => {
                let last = LedgerSeq(found.0.saturating_sub(1));
                return (
                    fold,
                    Some(Halt::Gap {
                        first: expected,
                        last,
                    }),
                );
            }
        }
    }
    (fold, None)
}

/// What there is to judge by.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// The ledger as it is, if it is there.
    pub ledger: Option<Surviving>,
    /// A backup that an earlier repair wrote.
    pub backup: Option<Surviving>,
    /// The nodes that answered.
    pub nodes: Vec<NodeView>,
    /// The sources as configured.
    pub configured: Terms,
    /// The last sequence of each source, as the hub has it.
    pub ends: BTreeMap<Incarnation, StreamSeq>,
}

impl Evidence {
    /// The state to begin another ledger with.
    #[must_use]
    pub fn merge(&self) -> Merged {
        let read = self.ledger.iter().chain(&self.backup);
        let mut memories: Vec<Memory> = read
            .clone()
            .filter(|found| found.fold.position().0 > 0)
            .map(|found| Memory {
                of: None,
                fold: found.fold.clone(),
            })
            .collect();
        memories.extend(self.nodes.iter().filter_map(|node| {
            let fold = node.memory.clone()?;
            let of = Some(node.uuid);
            Some(Memory { of, fold })
        }));
        merge(&Survivors {
            memories,
            disks: self.nodes.iter().map(disk_of).collect(),
            configured: self.configured.clone(),
            ends: self.ends.clone(),
            taken: read.map(|found| found.last).max().unwrap_or_default(),
        })
    }

    /// Why the ledger needs a repair; nothing when it does not.
    #[must_use]
    pub fn damage(&self) -> Vec<String> {
        let Some(ledger) = &self.ledger else {
            return vec!["the ledger's stream is missing".to_owned()];
        };
        let mut all = Vec::new();
        if ledger.unfinished {
            all.push("an earlier repair is not finished".to_owned());
        }
        if let Some(halt) = &ledger.halt {
            all.push(halt.to_string());
        }
        for node in &self.nodes {
            let known = node.ledger_created_ns;
            // It has only to be restarted.
            if ledger.predecessors.contains(&known) {
                continue;
            }
            if known != 0 && known != ledger.created_ns {
                all.push(format!("node {} has worked with another ledger", node.name));
            } else if node.read > ledger.last {
                all.push(format!(
                    "the ledger ends at {}, node {} has read it up to {}",
                    ledger.last, node.name, node.read
                ));
            } else if node.ledger_suspect {
                all.push(format!("node {}: {}", node.name, node.reason));
            } else if let Some(fold) = &node.memory
                && ledger
                    .fold
                    .hash_at(fold.position())
                    .is_some_and(|hash| hash != fold.hash())
            {
                all.push(format!(
                    "node {} has read other records up to {} than the ledger holds",
                    node.name,
                    fold.position()
                ));
            }
        }
        all
    }

    /// What of the ledger this version does not understand: a repair would leave it out.
    #[must_use]
    pub fn not_understood(&self) -> Option<String> {
        let halts = self
            .ledger
            .iter()
            .chain(&self.backup)
            .filter_map(|found| found.halt.as_ref());
        halts
            .clone()
            .find(|halt| halt.suspect() == Suspect::Version)
            .map(|halt| format!("what follows would be left out: {halt}"))
    }

    /// The creation times that the new ledger stands for.
    #[must_use]
    pub fn predecessors(&self) -> BTreeSet<u64> {
        let mut all = BTreeSet::new();
        for found in self.ledger.iter().chain(&self.backup) {
            all.insert(found.created_ns);
            all.extend(&found.predecessors);
        }
        all.extend(self.nodes.iter().map(|node| node.ledger_created_ns));
        all.remove(&0);
        all
    }
}

fn disk_of(node: &NodeView) -> NodeDisk {
    // What is on its way to the disk is not held.
    let held = node.batches.iter().filter(|(_, batch)| batch.state != "staging");
    let since = |since: u32| fanin_core::ids::TermsVersion(since);
    NodeDisk {
        uuid: node.uuid,
        name: node.name.clone(),
        epoch: node.epoch,
        read: node.read,
        done: node.done.clone(),
        closed: node.closed.clone(),
        terms: node.terms,
        apps: (node.apps.iter())
            .map(|app| (app.app.clone(), since(app.since_terms)))
            .collect(),
        batches: held.map(|(number, batch)| (*number, batch_of(batch))).collect(),
    }
}

fn batch_of(batch: &BatchView) -> HeldBatch {
    HeldBatch {
        incarnation: batch.incarnation,
        seqs: batch.seqs.clone(),
        decided: batch.decided,
        terms: batch.terms,
        kind: ClaimKind::from_code(batch.kind).unwrap_or_default(),
        published_ns: batch.published_ns,
    }
}
