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
        for other in folds.iter().skip(at + 1) {
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
