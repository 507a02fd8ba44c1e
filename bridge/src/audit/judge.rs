//! Compares a folded ledger with what nodes hold. Nodes are asked first and the ledger is read afterwards, so that whatever a
//! node knows of the ledger is in it.

use std::collections::BTreeMap;

use fanin_core::fold::{ClaimEntry, ClaimKey, Fold};
use fanin_core::ids::NodeUuid;
use fanin_core::record::NodeState;

use super::accounts::{Owed, add_done, judge_apps, judge_done};
use super::finding::Finding;
use super::gaps::Sweep;
use super::ledger::Folded;
use super::nodes::{BatchView, NodeView};

/// One application's messages, over all nodes that were asked: those of claims that the ledger does not call done, and the dead
/// letters of all that nodes list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AppTotals {
    /// Owned by a node that was asked, and published there.
    pub published: u64,
    /// Finished: acknowledged, passed over by the filter, or a dead letter.
    pub finished: u64,
    /// Waiting, or in an instance's hands.
    pub waiting: u64,
    /// Dead letters listed.
    pub dead_letters: u64,
}

/// What came out.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What is wrong, or cannot be shown to be right.
    pub findings: Vec<Finding>,
    /// Claims that some application has not finished, and their messages.
    pub open_claims: u64,
    /// Messages of those claims.
    pub open_messages: u64,
    /// Claims whose node has reported them done and that are kept because they reach above W.
    pub done_claims: u64,
    /// The applications.
    pub apps: BTreeMap<String, AppTotals>,
    /// Nodes that were asked, or whose holdings were given.
    pub nodes: Vec<String>,
    /// Active nodes that were not.
    pub unreachable: Vec<String>,
    /// Messages claimed after a node was asked: too new to compare.
    pub too_new: u64,
}

/// Compares.
#[must_use]
pub fn judge(folded: &Folded, nodes: &[NodeView], sweeps: &[(String, Sweep)]) -> Report {
    let fold = &folded.fold;
    let mut report = Report {
        nodes: nodes.iter().map(|node| node.name.clone()).collect(),
        ..Report::default()
    };
    if let Some(halt) = &folded.halt {
        report.findings.push(Finding::Ledger {
            stream: folded.stream.clone(),
            why: halt.to_string(),
        });
    }
    if let Err(why) = fanin_core::invariants::check_fold(fold) {
        let stream = folded.stream.clone();
        report.findings.push(Finding::Ledger { stream, why });
    }
    for node in nodes {
        // They were asked before the ledger was read.
        if folded.is_of(node) && node.read.0 > folded.info.last_seq {
            report.findings.push(Finding::Ledger {
                stream: folded.stream.clone(),
                why: format!(
                    "it ends at position {}, node {} has read it up to {}",
                    folded.info.last_seq, node.name, node.read
                ),
            });
        }
    }
    let by_uuid: BTreeMap<NodeUuid, &NodeView> = nodes.iter().map(|node| (node.uuid, node)).collect();
    judge_identities(fold, nodes, &mut report);
    judge_claims(fold, &by_uuid, &mut report);
    for node in nodes {
        judge_batches(fold, node, &mut report);
        judge_done(folded, node, &mut report);
        judge_apps(node, &mut report);
        for app in &node.apps {
            let totals = report.apps.entry(app.app.clone()).or_default();
            totals.dead_letters += app.dead_letters.len() as u64;
        }
    }
    for (stream, sweep) in sweeps {
        let unclaimed = sweep.unclaimed.iter().map(|seq| Finding::Unclaimed {
            stream: stream.clone(),
            seq: *seq,
        });
        report.findings.extend(unclaimed);
        if sweep.cut_short {
            report.findings.push(Finding::CutShort {
                stream: stream.clone(),
                listed: sweep.unclaimed.len(),
            });
        }
    }
    report
}

fn judge_identities(fold: &Fold, nodes: &[NodeView], report: &mut Report) {
    for node in nodes {
        let known = fold.nodes().get(&node.uuid);
        let why = match known {
            None => Some("the ledger has no epoch of this data directory".to_owned()),
            Some(entry) if entry.epoch > node.epoch => Some(format!("its newest epoch is {}", entry.epoch)),
            Some(_) => None,
        };
        if let Some(why) = why {
            report.findings.push(Finding::Stranger {
                node: node.name.clone(),
                epoch: node.epoch,
                why,
            });
        }
    }
    for (uuid, entry) in fold.nodes() {
        if entry.state == NodeState::Active && !nodes.iter().any(|node| node.uuid == *uuid) {
            report.unreachable.push(entry.name.clone());
            let own = fold.claims().iter().filter(|(key, _)| key.node == *uuid);
            let open = own.filter(|(key, _)| !entry.done.contains(key.batch.0));
            report.findings.push(Finding::NotAsked {
                node: entry.name.clone(),
                messages: open.map(|(_, claim)| claim.won().len()).sum(),
            });
        }
    }
}

fn judge_claims(fold: &Fold, nodes: &BTreeMap<NodeUuid, &NodeView>, report: &mut Report) {
    let mut owed: BTreeMap<NodeUuid, Owed<'_>> = nodes
        .iter()
        .map(|(uuid, node)| (*uuid, Owed::new(node)))
        .collect();
    for (key, claim) in fold.claims() {
        let reported = fold.nodes().get(&key.node);
        if reported.is_some_and(|entry| entry.done.contains(key.batch.0)) {
            report.done_claims += 1;
            continue;
        }
        let won = claim.won();
        report.open_claims += 1;
        report.open_messages += won.len();
        let Some(node) = nodes.get(&key.node) else {
            continue;
        };
        if node.done.contains(key.batch.0) {
            add_done(fold.terms(), claim, report);
            continue;
        }
        match node.batches.get(&key.batch) {
            None if node.position < claim.position => report.too_new += won.len(),
            None => report.findings.push(Finding::NotHeld {
                node: node.name.clone(),
                batch: key.batch,
                position: claim.position,
                messages: won.len(),
            }),
            Some(batch) if agrees(node, (*key, claim), batch, report) => {
                if let Some(owed) = owed.get_mut(&key.node) {
                    owed.add(fold.terms(), (*key, claim), batch, report);
                }
            }
            Some(_) => {}
        }
    }
    let missing = owed.into_values().flat_map(Owed::findings);
    report.findings.extend(missing);
}

/// Whether a node holds what a claim of its has won.
fn agrees(
    node: &NodeView,
    (key, claim): (ClaimKey, &ClaimEntry),
    batch: &BatchView,
    report: &mut Report,
) -> bool {
    let won = claim.won();
    if batch.state == "damaged" {
        report.findings.push(Finding::Damaged {
            node: node.name.clone(),
            batch: key.batch,
            messages: won.len(),
        });
        return false;
    }
    if !batch.decided {
        if node.position < claim.position {
            report.too_new += won.len();
        } else {
            report.findings.push(Finding::WonDiffers {
                node: node.name.clone(),
                batch: key.batch,
                here: 0,
                there: won.len(),
            });
        }
        return false;
    }
    let is_same = batch.seqs == won && batch.incarnation == claim.incarnation;
    if !is_same {
        report.findings.push(Finding::WonDiffers {
            node: node.name.clone(),
            batch: key.batch,
            here: batch.seqs.len(),
            there: won.len(),
        });
    }
    is_same
}

/// What a node has published must be won, or be forgotten because it is done.
fn judge_batches(fold: &Fold, node: &NodeView, report: &mut Report) {
    let entry = fold.nodes().get(&node.uuid);
    for (number, batch) in &node.batches {
        let key = ClaimKey::new(node.uuid, number.0);
        let is_done = entry.is_some_and(|entry| entry.done.contains(number.0));
        if batch.base.is_some() && !is_done && !fold.claims().contains_key(&key) {
            report.findings.push(Finding::NotClaimed {
                node: node.name.clone(),
                batch: *number,
                messages: batch.seqs.len(),
            });
        }
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
pub(super) mod tests;
