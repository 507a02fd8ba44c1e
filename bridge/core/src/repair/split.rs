//! Folds of different histories: what both finished since they parted, and forgot, may have been made available twice.

use std::collections::{BTreeMap, BTreeSet};

use super::{Finding, Survivors};
use crate::fold::{ClaimEntry, Fold};
use crate::ids::Incarnation;
use crate::seq_set::SeqSet;

pub(super) fn find(survivors: &Survivors, findings: &mut BTreeSet<Finding>) {
    let folds: Vec<&Fold> = survivors.folds().collect();
    let mut twice: BTreeMap<Incarnation, SeqSet> = BTreeMap::new();
    for (at, one) in folds.iter().enumerate() {
        for other in folds.iter().take(at) {
            // One history: there is nothing to be found, as below, and it need not be looked for.
            if precedes(one, other) || precedes(other, one) {
                continue;
            }
            for (incarnation, closed) in one.watermarks() {
                let both = (*closed).min(other.closed(*incarnation));
                // What was closed in a history that both go on from was closed once.
                let common = folds
                    .iter()
                    .filter(|fold| precedes(fold, one) && precedes(fold, other));
                let before = common
                    .map(|fold| fold.closed(*incarnation))
                    .max()
                    .unwrap_or_default();
                let mut seqs = SeqSet::range(before.0.saturating_add(1), both.0);
                for entry in of_source(one, *incarnation).chain(of_source(other, *incarnation)) {
                    seqs = seqs.difference(&entry.won());
                }
                twice.entry(*incarnation).or_default().union(&seqs);
            }
        }
    }
    for (incarnation, seqs) in twice.into_iter().filter(|(_, seqs)| !seqs.is_empty()) {
        findings.insert(Finding::Split { incarnation, seqs });
    }
}

fn of_source(fold: &Fold, incarnation: Incarnation) -> impl Iterator<Item = &ClaimEntry> {
    fold.claims()
        .values()
        .filter(move |entry| entry.incarnation == incarnation)
}

/// Whether one state can be an earlier one of the other's history: everything in it is still there, or was finished since.
fn precedes(earlier: &Fold, later: &Fold) -> bool {
    let nodes = earlier.nodes().iter().all(|(uuid, node)| {
        let then = later.nodes().get(uuid);
        then.is_some_and(|then| then.epoch >= node.epoch && then.done.is_superset(&node.done))
    });
    let closed = earlier.watermarks().iter();
    let claims = earlier
        .claims()
        .iter()
        .all(|(key, entry)| match later.claims().get(key) {
            Some(then) => then.position == entry.position && then.lost == entry.lost,
            None => later
                .nodes()
                .get(&key.node)
                .is_some_and(|node| node.done.contains(key.batch.0)),
        });
    earlier.position() <= later.position()
        && earlier.terms().version <= later.terms().version
        && nodes
        && closed
            .into_iter()
            .all(|(incarnation, through)| later.closed(*incarnation) >= *through)
        && claims
}

#[cfg(test)]
mod tests {
    //! Goal: what one history says of another is exactly what it can. Method: two equal states; then one thing in one of them is another.
    use super::*;
    use crate::fold::{ClaimKey, NodeEntry};
    use crate::ids::{LedgerSeq, NodeUuid, StreamSeq, TermsVersion};

    const SOURCE: Incarnation = Incarnation(7);
    const NODE: NodeUuid = NodeUuid(1);
    const KEY: ClaimKey = ClaimKey {
        node: NODE,
        batch: crate::ids::BatchNo(3),
    };

    fn state() -> Fold {
        let mut fold = Fold::new();
        fold.position = LedgerSeq(9);
        fold.terms.version = TermsVersion(2);
        fold.closed.insert(SOURCE, StreamSeq(4));
        let node = NodeEntry {
            epoch: LedgerSeq(5),
            done: SeqSet::range(1, 2),
            ..NodeEntry::default()
        };
        fold.nodes.insert(NODE, node);
        let claim = ClaimEntry {
            position: LedgerSeq(6),
            incarnation: SOURCE,
            seqs: SeqSet::range(5, 8),
            lost: SeqSet::range(8, 8),
            ..ClaimEntry::default()
        };
        fold.claims.insert(KEY, claim);
        fold
    }

    #[test]
    fn an_earlier_state_is_contained_in_a_later_one() {
        let later = |change: fn(&mut Fold)| {
            let mut later = state();
            change(&mut later);
            precedes(&state(), &later)
        };
        fn node(fold: &mut Fold) -> &mut NodeEntry {
            fold.nodes.entry(NODE).or_default()
        }
        fn claim(fold: &mut Fold) -> &mut ClaimEntry {
            fold.claims.entry(KEY).or_default()
        }
        let finished: fn(&mut Fold) = |fold| {
            fold.claims.clear();
            node(fold).done.insert(3);
        };
        let same: [fn(&mut Fold); 6] = [
            |_| {},
            |fold| fold.position.0 += 1,
            |fold| fold.terms.version.0 += 1,
            |fold| fold.closed.entry(SOURCE).or_default().0 += 1,
            |fold| node(fold).epoch.0 += 1,
            finished,
        ];
        for (at, change) in same.into_iter().enumerate() {
            assert!(later(change), "{at}");
        }
        let other: [fn(&mut Fold); 9] = [
            |fold| fold.position.0 -= 1,
            |fold| fold.terms.version.0 -= 1,
            |fold| fold.closed.entry(SOURCE).or_default().0 -= 1,
            |fold| node(fold).epoch.0 -= 1,
            |fold| node(fold).done.remove_range(2, 2),
            |fold| fold.nodes.clear(),
            |fold| claim(fold).position.0 += 1,
            |fold| claim(fold).lost = SeqSet::new(),
            |fold| fold.claims.clear(),
        ];
        for (at, change) in other.into_iter().enumerate() {
            assert!(!later(change), "{at}");
        }
    }
}
