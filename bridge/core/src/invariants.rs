//! What must hold of one node at every moment, and of any two nodes together (design section 9). Run after each step by the
//! model checker, by the simulator and by debug builds of the bridge.

use crate::batch::BatchState;
use crate::fold::Fold;
use crate::ids::StreamSeq;
use crate::node::{Node, Phase};

/// Checks one node.
///
/// # Errors
/// The invariant that does not hold, by its number in the design, and the values that show it.
pub fn check(node: &Node) -> Result<(), String> {
    check_fold(node.fold())?;
    if let Phase::Fenced(_) = node.phase() {
        // Another body is the node now: what the ledger says of it need not fit this disk any more.
        return Ok(());
    }
    let uuid = node.identity().uuid;
    let mut unresolved = 0;
    for (number, batch) in node.batches() {
        let key = crate::fold::ClaimKey {
            node: uuid,
            batch: *number,
        };
        let entry = node.fold().claims().get(&key);
        if batch.is_unresolved() {
            unresolved += 1;
            if entry.is_some() && !matches!(batch.state, BatchState::Staged | BatchState::Claiming { .. }) {
                return Err(format!(
                    "I6: batch {number} is claimed in the ledger but not staged: {batch:?}"
                ));
            }
            if entry.is_some() {
                return Err(format!(
                    "P2: batch {number} was decided in the ledger and is still unresolved"
                ));
            }
            // What another batch of this disk took out of hand when it was decided is owned or closed by now.
            let owners = node.fold().owners(batch.incarnation);
            let mut open = owners.map_or_else(|| batch.seqs.clone(), |owners| owners.unowned(&batch.seqs));
            open.remove_range(0, node.fold().closed(batch.incarnation).0);
            let in_hand = node.in_hand.get(&batch.incarnation);
            if !open.is_empty() && !in_hand.is_some_and(|seqs| seqs.is_superset(&open)) {
                return Err(format!(
                    "batch {number} is unresolved, but its sequences are not in hand"
                ));
            }
        }
        match &batch.state {
            BatchState::Damaged => {
                if entry.is_some() {
                    return Err(format!(
                        "P2: damaged batch {number} was decided in the ledger and is still unresolved"
                    ));
                }
            }
            BatchState::Resolving { won, .. } => {
                if entry.is_some_and(|entry| entry.won() != *won) {
                    return Err(format!(
                        "I5: batch {number} publishes {won:?}, the ledger says {entry:?}"
                    ));
                }
            }
            BatchState::Published { unconfirmed: None } => {
                // I5: visible, so a valid claim of the batch won something, and it is kept until the batch is done.
                if entry.is_none_or(|entry| entry.won().is_empty()) {
                    return Err(format!(
                        "I5: batch {number} is visible without a won claim: {entry:?}"
                    ));
                }
            }
            BatchState::Published { unconfirmed: Some(_) }
            | BatchState::Staging
            | BatchState::Staged
            | BatchState::Claiming { .. }
            | BatchState::Finished => {}
        }
        if *number >= node.next_batch {
            return Err(format!("P1: batch number {number} would be given out again"));
        }
    }
    if unresolved != node.unresolved() {
        return Err(format!(
            "{unresolved} batches are unresolved, counted {}",
            node.unresolved()
        ));
    }
    if !node.done.finished.is_superset(&node.done.durable) {
        return Err("the disk knows more finished batches than the node".to_owned());
    }
    Ok(())
}

/// Checks a fold by itself.
///
/// # Errors
/// The invariant that does not hold.
pub fn check_fold(fold: &Fold) -> Result<(), String> {
    // I1: at most one owner; by construction of the owners' map, so compare it with what the claims say.
    for (incarnation, owners) in &fold.owners {
        let mut end = fold.closed(*incarnation);
        for (first, last, key) in owners.from(StreamSeq(0)) {
            if first <= end || last < first {
                return Err(format!(
                    "I1: {incarnation}: owned ranges overlap or lie below W at {first}"
                ));
            }
            end = last;
            let won = fold
                .claims()
                .get(&key)
                .map(crate::fold::ClaimEntry::won)
                .unwrap_or_default();
            if !(won.contains(first.0) && won.contains(last.0)) {
                return Err(format!(
                    "I1: {incarnation}: {first}..={last} is owned by {key:?}, whose claim did not win it"
                ));
            }
        }
    }
    for (key, entry) in fold.claims() {
        let done = fold
            .nodes()
            .get(&key.node)
            .is_some_and(|node| node.done.contains(key.batch.0));
        let below = entry.seqs.last().unwrap_or_default() <= fold.closed(entry.incarnation).0;
        if done && below {
            return Err(format!("P7: claim {key:?} is done and closed, but not forgotten"));
        }
    }
    Ok(())
}

/// Checks two folds at one position: one state (I4, I11).
///
/// # Errors
/// When the states differ.
pub fn check_agree(left: &Fold, right: &Fold) -> Result<(), String> {
    if left.position() == right.position() && left.encode() != right.encode() {
        return Err(format!("I4: two folds differ at position {}", left.position()));
    }
    Ok(())
}
