//! One message: what the source, the ledger, its node and each application there know of it.

use fanin_core::fold::Fold;
use fanin_core::ids::{Incarnation, StreamSeq};
use fanin_proto::v1::AppHolding;

use super::nodes::{BatchView, NodeView, is_finished};

/// Where a message stands in the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Nobody claimed it, and it is above W.
    Nobody,
    /// It is at or below W and its claim is forgotten: finished business, or a hole.
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

/// What the ledger says of a message.
#[must_use]
pub fn ownership(fold: &Fold, incarnation: Incarnation, seq: StreamSeq) -> Ownership {
    let won = fold
        .claims()
        .iter()
        .find(|(_, claim)| claim.incarnation == incarnation && claim.won().contains(seq.0));
    match won {
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

/// The batch of a node that holds a message as its own.
#[must_use]
pub fn held_in(node: &NodeView, incarnation: Incarnation, seq: StreamSeq) -> Option<&BatchView> {
    node.batches
        .values()
        .find(|batch| batch.decided && batch.incarnation == incarnation && batch.seqs.contains(seq.0))
}

/// The topic offset of a message in its batch, once that is published.
#[must_use]
pub fn offset_in(batch: &BatchView, seq: StreamSeq) -> Option<u64> {
    let mut below = batch.seqs.clone();
    below.remove_range(seq.0, u64::MAX);
    batch.base.map(|base| base.0 + below.len())
}

/// Where the message at an offset stands for an application.
#[must_use]
pub fn place(
    app: &AppHolding,
    batch: &BatchView,
    incarnation: Incarnation,
    seq: StreamSeq,
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
