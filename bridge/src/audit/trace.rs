//! One message: what the source, the ledger, its node and each application there know of it, and what of that is not as the
//! guarantee says.

use std::collections::BTreeSet;

use fanin_core::fold::{ClaimEntry, ClaimKey, Fold};
use fanin_core::ids::{BatchNo, Incarnation, NodeUuid, StreamSeq};
use fanin_proto::v1::AppHolding;

use super::accounts::{done_differs, unserved};
use super::finding::Finding;
use super::judge::judge;
use super::ledger::Folded;
use super::nodes::{BatchView, NodeView, is_finished};

/// Which message is meant.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Its stream.
    pub stream: &'a str,
    /// The stream's incarnation.
    pub incarnation: Incarnation,
    /// Its sequence.
    pub seq: StreamSeq,
    /// The stream holds it, it matches, and it was at or below the consumer's acknowledgement floor before the ledger was read: some
    /// node must have claimed it by then.
    pub is_passed: bool,
}

/// Where a message stands in the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Nobody claimed it, and it is above W.
    Nobody,
    /// It is at or below W and its claim is forgotten: finished business, given up and listed, or a hole.
    Closed,
    /// A node won it.
    Won {
        /// The node's name.
        node: String,
        /// The batch.
        batch: u64,
        /// The position of the claim.
        position: u64,
        /// Its terms.
        terms: u32,
        /// Whether its node has reported the batch as done for every application.
        done: bool,
    },
}

impl Ownership {
    /// A short word for scripts.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Ownership::Nobody => "unclaimed",
            Ownership::Closed => "closed",
            Ownership::Won { done: true, .. } => "done",
            Ownership::Won { done: false, .. } => "won",
        }
    }
}

/// What the node that won a message says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerSays {
    /// Nobody has won it, or its claim is forgotten.
    NoOwner,
    /// The node was neither asked nor given.
    NotAsked,
    /// It holds the message.
    Holds,
    /// Every application there has finished the message.
    Done,
    /// It had not read the claim when it was asked.
    TooNew,
    /// It does not hold the message: a finding.
    Lacks,
}

impl OwnerSays {
    /// A short word for scripts; nothing without an owner.
    #[must_use]
    pub fn word(self) -> Option<&'static str> {
        match self {
            OwnerSays::NoOwner => None,
            OwnerSays::NotAsked => Some("not_asked"),
            OwnerSays::Holds => Some("holds"),
            OwnerSays::Done => Some("done"),
            OwnerSays::TooNew => Some("too_new"),
            OwnerSays::Lacks => Some("lacks"),
        }
    }
}

/// Where a message stands for one application on its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppPlace {
    /// The terms it was won under do not name the application.
    NotEntitled,
    /// Acknowledged, or passed over by the application's filter.
    Finished,
    /// A dead letter.
    DeadLetter {
        /// Its number.
        id: u64,
        /// Why.
        reason: String,
        /// Attempts made.
        attempts: u32,
    },
    /// In an instance's hands.
    Held {
        /// The instance.
        instance: String,
        /// Whether its handler has begun.
        begun: bool,
        /// Attempts that failed before.
        failed: u32,
    },
    /// Waiting.
    Waiting {
        /// Attempts that failed before.
        failed: u32,
    },
}

impl AppPlace {
    /// A short word for scripts.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            AppPlace::NotEntitled => "not_entitled",
            AppPlace::Finished => "finished",
            AppPlace::DeadLetter { .. } => "dead_letter",
            AppPlace::Held { .. } => "held",
            AppPlace::Waiting { .. } => "waiting",
        }
    }
}

/// A batch that holds the message as its node's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The node's name.
    pub node: String,
    /// Its data directory.
    pub uuid: NodeUuid,
    /// The batch.
    pub batch: BatchNo,
    /// Its state, in the words of the contract.
    pub batch_state: String,
    /// The message's topic offset, once published.
    pub offset: Option<u64>,
    /// Where it stands for each application of the node, once published.
    pub apps: Vec<(String, AppPlace)>,
}

/// A dead letter of the message, which its node keeps when the batch is finished and gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// The node's name.
    pub node: String,
    /// The application.
    pub app: String,
    /// Its number.
    pub id: u64,
    /// Why.
    pub reason: String,
    /// Attempts made.
    pub attempts: u32,
}

/// Everything that was found out about a message.
#[derive(Clone, Debug)]
pub struct Traced {
    /// By the ledger.
    pub ownership: Ownership,
    /// By the owner.
    pub owner: OwnerSays,
    /// The batches that hold it, the owner's first. More than one is a finding.
    pub held: Vec<Held>,
    /// Its dead letters, on whatever node that was asked.
    pub letters: Vec<Letter>,
    /// Active nodes that were not asked.
    pub unreachable: Vec<String>,
    /// What is wrong about it, or with the ledger as a whole.
    pub findings: Vec<Finding>,
}

/// Traces a message through the ledger and these nodes, which were asked before the ledger was read.
#[must_use]
pub fn trace(folded: &Folded, nodes: &[NodeView], message: Message<'_>) -> Traced {
    let fold = &folded.fold;
    let (incarnation, seq) = (message.incarnation, message.seq);
    let winner = winner(fold, incarnation, seq);
    let ownership = ownership(fold, winner, incarnation, seq);
    let is_owners =
        |held: &Held| winner.is_some_and(|(key, _)| key == ClaimKey::new(held.uuid, held.batch.0));
    let mut held: Vec<Held> = nodes
        .iter()
        .flat_map(|node| held_by(node, incarnation, seq))
        .collect();
    held.sort_by_key(|held| !is_owners(held));
    let owner = owner_says(fold, nodes, winner, held.first().is_some_and(is_owners));
    let report = judge(folded, nodes, &[]);
    let mut findings = report.findings;
    findings.retain(|finding| concerns(finding, &batches_of(nodes, winner, &held)));
    if let (Some((key, claim)), OwnerSays::Holds | OwnerSays::Done) = (winner, owner) {
        findings.extend(owner_fails(folded, nodes, key, claim));
    }
    if let [_, _, ..] = held.as_slice() {
        findings.push(Finding::HeldTwice {
            stream: message.stream.to_owned(),
            seq,
            batches: held.iter().map(|held| (held.node.clone(), held.batch)).collect(),
        });
    }
    if message.is_passed && ownership == Ownership::Nobody {
        findings.push(Finding::Unclaimed {
            stream: message.stream.to_owned(),
            seq,
        });
    }
    let letters = nodes.iter().flat_map(|node| letters_of(node, incarnation, seq));
    Traced {
        ownership,
        owner,
        letters: letters.collect(),
        held,
        unreachable: report.unreachable,
        findings,
    }
}

/// The claim that won the message, if it is not forgotten.
fn winner(fold: &Fold, incarnation: Incarnation, seq: StreamSeq) -> Option<(ClaimKey, &ClaimEntry)> {
    let mut claims = fold.claims().iter();
    let won = claims.find(|(_, claim)| claim.incarnation == incarnation && claim.won().contains(seq.0));
    won.map(|(key, claim)| (*key, claim))
}

fn ownership(
    fold: &Fold,
    winner: Option<(ClaimKey, &ClaimEntry)>,
    incarnation: Incarnation,
    seq: StreamSeq,
) -> Ownership {
    match winner {
        Some((key, claim)) => {
            let entry = fold.nodes().get(&key.node);
            Ownership::Won {
                node: entry.map_or_else(|| key.node.to_string(), |entry| entry.name.clone()),
                batch: key.batch.0,
                position: claim.position.0,
                terms: claim.terms.0,
                done: entry.is_some_and(|entry| entry.done.contains(key.batch.0)),
            }
        }
        None if seq <= fold.closed(incarnation) => Ownership::Closed,
        None => Ownership::Nobody,
    }
}

fn owner_says(
    fold: &Fold,
    nodes: &[NodeView],
    winner: Option<(ClaimKey, &ClaimEntry)>,
    holds: bool,
) -> OwnerSays {
    let Some((key, claim)) = winner else {
        return OwnerSays::NoOwner;
    };
    let Some(view) = nodes.iter().find(|node| node.uuid == key.node) else {
        return OwnerSays::NotAsked;
    };
    let reported = fold.nodes().get(&key.node);
    if holds {
        OwnerSays::Holds
    } else if view.done.contains(key.batch.0)
        || reported.is_some_and(|entry| entry.done.contains(key.batch.0))
    {
        OwnerSays::Done
    } else if view.position < claim.position {
        OwnerSays::TooNew
    } else {
        OwnerSays::Lacks
    }
}

/// The batches of nodes that were asked which hold the message, or must hold it.
fn batches_of(
    nodes: &[NodeView],
    winner: Option<(ClaimKey, &ClaimEntry)>,
    held: &[Held],
) -> BTreeSet<(String, BatchNo)> {
    let owner = winner.and_then(|(key, _)| {
        let view = nodes.iter().find(|node| node.uuid == key.node)?;
        Some((view.name.clone(), key.batch))
    });
    let held = held.iter().map(|held| (held.node.clone(), held.batch));
    owner.into_iter().chain(held).collect()
}

/// Whether a finding about the whole mapping is about the message in these batches.
fn concerns(finding: &Finding, batches: &BTreeSet<(String, BatchNo)>) -> bool {
    match finding {
        Finding::Ledger { .. } => true,
        Finding::NotHeld { node, batch, .. }
        | Finding::WonDiffers { node, batch, .. }
        | Finding::NotClaimed { node, batch, .. }
        | Finding::Damaged { node, batch, .. } => batches.contains(&(node.clone(), *batch)),
        Finding::Stranger { node, .. } => batches.iter().any(|(holder, _)| holder == node),
        // Of a whole node, or of other messages. What of it is about this one is looked for apart.
        Finding::AppMissing { .. }
        | Finding::DoneDiffers { .. }
        | Finding::AppDiffers { .. }
        | Finding::NotAsked { .. }
        | Finding::Unclaimed { .. }
        | Finding::CutShort { .. }
        | Finding::HeldTwice { .. } => false,
    }
}

/// What the owner does not do with the message though it holds it, or must have finished it.
fn owner_fails(folded: &Folded, nodes: &[NodeView], key: ClaimKey, claim: &ClaimEntry) -> Vec<Finding> {
    let mut findings = Vec::new();
    let Some(node) = nodes.iter().find(|node| node.uuid == key.node) else {
        return findings;
    };
    if done_differs(folded, node).contains(key.batch.0) {
        findings.push(Finding::DoneDiffers {
            node: node.name.clone(),
            batches: 1,
            first: key.batch,
        });
        return findings;
    }
    let Some(batch) = node.batches.get(&key.batch) else {
        return findings;
    };
    let terms = folded.fold.terms();
    let missing = terms.served(claim.terms).filter_map(|app| {
        let told = node.apps.iter().find(|told| told.app == app);
        Some(Finding::AppMissing {
            node: node.name.clone(),
            app: app.to_owned(),
            messages: 1,
            batches: 1,
            first: key.batch,
            why: unserved(told, claim, batch)?,
        })
    });
    findings.extend(missing);
    findings
}

/// The batches of a node that hold a message as its own.
fn held_by(node: &NodeView, incarnation: Incarnation, seq: StreamSeq) -> impl Iterator<Item = Held> + '_ {
    let own = node.batches.iter().filter(move |(_, batch)| {
        batch.decided && batch.incarnation == incarnation && batch.seqs.contains(seq.0)
    });
    own.map(move |(number, batch)| {
        let offset = offset_in(batch, seq);
        let apps = node.apps.iter().filter_map(|app| {
            let place = place(app, batch, (incarnation, seq), offset?);
            Some((app.app.clone(), place))
        });
        Held {
            node: node.name.clone(),
            uuid: node.uuid,
            batch: *number,
            batch_state: batch.state.clone(),
            offset,
            apps: apps.collect(),
        }
    })
}

/// The topic offset of a message in its batch, once that is published.
fn offset_in(batch: &BatchView, seq: StreamSeq) -> Option<u64> {
    let mut below = batch.seqs.clone();
    below.remove_range(seq.0, u64::MAX);
    batch.base.map(|base| base.0 + below.len())
}

/// The dead letters of a message on a node, as far as the node lists them.
fn letters_of(
    node: &NodeView,
    incarnation: Incarnation,
    seq: StreamSeq,
) -> impl Iterator<Item = Letter> + '_ {
    node.apps.iter().flat_map(move |app| {
        let own = app
            .dead_letters
            .iter()
            .filter(move |letter| letter.incarnation == incarnation.0 && letter.seq == seq.0);
        own.map(|letter| Letter {
            node: node.name.clone(),
            app: app.app.clone(),
            id: letter.id,
            reason: letter.reason.clone(),
            attempts: letter.attempts,
        })
    })
}

/// Where the message at an offset stands for an application.
fn place(
    app: &AppHolding,
    batch: &BatchView,
    (incarnation, seq): (Incarnation, StreamSeq),
    offset: u64,
) -> AppPlace {
    if app.since_terms == 0 || app.since_terms > batch.terms.0 {
        return AppPlace::NotEntitled;
    }
    let letter = app
        .dead_letters
        .iter()
        .find(|letter| letter.incarnation == incarnation.0 && letter.seq == seq.0);
    if let Some(letter) = letter {
        return AppPlace::DeadLetter {
            id: letter.id,
            reason: letter.reason.clone(),
            attempts: letter.attempts,
        };
    }
    if is_finished(app, offset) {
        return AppPlace::Finished;
    }
    let failed = app
        .attempts
        .iter()
        .find(|counted| counted.offset == offset)
        .map_or(0, |counted| counted.attempts);
    match app.held.iter().find(|held| held.offset == offset) {
        Some(held) => AppPlace::Held {
            instance: held.instance.clone(),
            begun: held.begun,
            failed,
        },
        None => AppPlace::Waiting { failed },
    }
}

#[cfg(test)]
#[path = "trace_tests.rs"]
mod tests;
