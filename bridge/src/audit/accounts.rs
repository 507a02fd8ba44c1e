//! The accounts of applications: what the terms owe them, what they have finished, and what waits for them (I16). The numbers
//! come from different places: what was won from the ledger, what is finished from the cursor, what waits from the delivery, where it
//! lies from the batches.

use std::collections::{BTreeMap, BTreeSet};

use fanin_core::fold::{ClaimEntry, ClaimKey};
use fanin_core::ids::{BatchNo, Offset};
use fanin_core::record::Terms;
use fanin_core::seq_set::SeqSet;
use fanin_proto::v1::AppHolding;

use super::finding::{Finding, Mismatch, Unserved};
use super::judge::Report;
use super::ledger::Folded;
use super::nodes::{BatchView, NodeView, finished_of, is_finished};

/// What a node owes by the ledger and does not serve, summed up over its claims.
pub(super) struct Owed<'a> {
    node: &'a NodeView,
    apps: BTreeMap<&'a str, &'a AppHolding>,
    missing: BTreeMap<(String, Unserved), Missing>,
}

#[derive(Clone, Copy)]
struct Missing {
    messages: u64,
    batches: u64,
    first: BatchNo,
}

impl<'a> Owed<'a> {
    pub(super) fn new(node: &'a NodeView) -> Owed<'a> {
        Owed {
            node,
            apps: node.apps.iter().map(|app| (app.app.as_str(), app)).collect(),
            missing: BTreeMap::new(),
        }
    }

    /// Enters an open claim of the node for every application that its terms served and that is in the app set still, whatever the
    /// node tells of its applications.
    pub(super) fn add(
        &mut self,
        terms: &Terms,
        (key, claim): (ClaimKey, &ClaimEntry),
        batch: &BatchView,
        report: &mut Report,
    ) {
        let won = claim.won().len();
        if won == 0 {
            return;
        }
        for app in terms.served(claim.terms) {
            let told = self.apps.get(app).copied();
            let Some(why) = unserved(told, claim, batch) else {
                let (Some(told), Some(base)) = (told, batch.base) else {
                    continue;
                };
                let finished = finished_of(told, base.0, won);
                let totals = report.apps.entry(app.to_owned()).or_default();
                totals.published += won;
                totals.finished += finished;
                totals.waiting += won - finished;
                continue;
            };
            let missing = self.missing.entry((app.to_owned(), why)).or_insert(Missing {
                messages: 0,
                batches: 0,
                first: key.batch,
            });
            missing.messages += won;
            missing.batches += 1;
        }
    }

    pub(super) fn findings(self) -> impl Iterator<Item = Finding> {
        let node = self.node.name.clone();
        self.missing
            .into_iter()
            .map(move |((app, why), missing)| Finding::AppMissing {
                node: node.clone(),
                app,
                messages: missing.messages,
                batches: missing.batches,
                first: missing.first,
                why,
            })
    }
}

/// Enters a claim that its node has finished for every application, and not reported yet.
pub(super) fn add_done(terms: &Terms, claim: &ClaimEntry, report: &mut Report) {
    let won = claim.won().len();
    for app in terms.served(claim.terms) {
        let totals = report.apps.entry(app.to_owned()).or_default();
        totals.published += won;
        totals.finished += won;
    }
}

/// Why an application that is owed a claim's messages gets nothing of them, by what their node tells of it.
pub(super) fn unserved(told: Option<&AppHolding>, claim: &ClaimEntry, batch: &BatchView) -> Option<Unserved> {
    match told {
        None => Some(Unserved::NotTold),
        Some(told) if !serves(told, claim, batch) => Some(Unserved::NotServed),
        Some(_) => None,
    }
}

/// Whether the node delivers the batch to the application, by the terms that it has published it under.
fn serves(app: &AppHolding, claim: &ClaimEntry, batch: &BatchView) -> bool {
    let terms = if batch.base.is_some() {
        batch.terms
    } else {
        claim.terms
    };
    app.since_terms != 0 && app.since_terms <= terms.0
}

/// The batches of a node that the ledger said were finished when it was as long as the node had read it, and that the node has not
/// finished; and those that are finished and that it keeps.
pub(super) fn done_differs(folded: &Folded, node: &NodeView) -> SeqSet {
    let reported = folded.done_at.get(&node.uuid).filter(|_| folded.is_of(node));
    let mut differs = reported.map_or_else(SeqSet::new, |reported| reported.difference(&node.done));
    for number in node.batches.keys().map(|batch| batch.0) {
        if node.done.contains(number) || reported.is_some_and(|reported| reported.contains(number)) {
            differs.insert(number);
        }
    }
    differs
}

/// What the ledger said was finished when it was as long as the node had read it, the node has finished; and nobody keeps what
/// is finished.
pub(super) fn judge_done(folded: &Folded, node: &NodeView, report: &mut Report) {
    let differs = done_differs(folded, node);
    if let Some(first) = differs.first() {
        report.findings.push(Finding::DoneDiffers {
            node: node.name.clone(),
            batches: differs.len(),
            first: BatchNo(first),
        });
    }
}

/// Whether what each application of a node has finished and what waits for it are, together, what the node has published.
pub(super) fn judge_apps(node: &NodeView, report: &mut Report) {
    let holes = holes(node);
    for app in &node.apps {
        let mismatches = [
            beyond(node, app),
            backlog(app),
            nowhere(&holes, app),
            held_twice(app),
        ];
        for what in mismatches.into_iter().flatten() {
            report.findings.push(Finding::AppDiffers {
                node: node.name.clone(),
                app: app.app.clone(),
                what,
            });
        }
    }
}

fn beyond(node: &NodeView, app: &AppHolding) -> Option<Mismatch> {
    let end = app.finished.iter().map(|range| range.last.saturating_add(1));
    let end = end.chain([app.floor_offset]).max().map(Offset)?;
    let head = node.head?;
    (end > head).then_some(Mismatch::Beyond { end, head })
}

/// The two numbers are of one moment.
fn backlog(app: &AppHolding) -> Option<Mismatch> {
    let (head, waiting) = (app.seen_offset?, app.backlog?);
    let visible = head.saturating_sub(app.floor_offset);
    let unfinished = visible - finished_of(app, app.floor_offset, visible);
    (unfinished != waiting).then_some(Mismatch::Backlog { unfinished, waiting })
}

/// Offsets below the end of the newest published batch that no batch holds: ranges, both ends included.
fn holes(node: &NodeView) -> Vec<(u64, u64)> {
    let mut published: Vec<(u64, u64)> = Vec::new();
    for batch in node.batches.values() {
        let Some(base) = batch.base else { continue };
        if !batch.decided {
            // How many messages it has is not told.
            return Vec::new();
        }
        published.push((base.0, base.0 + batch.seqs.len()));
    }
    published.sort_unstable();
    let mut holes = Vec::new();
    let mut end = 0;
    for (first, behind) in published {
        if first > end {
            holes.push((end, first - 1));
        }
        end = end.max(behind);
    }
    holes
}

fn nowhere(holes: &[(u64, u64)], app: &AppHolding) -> Option<Mismatch> {
    let unfinished = holes.iter().map(|&(first, last)| {
        let count = last - first + 1;
        (
            first.max(app.floor_offset),
            count - finished_of(app, first, count),
        )
    });
    let unfinished: Vec<_> = unfinished.filter(|(_, count)| *count > 0).collect();
    let (from, _) = unfinished.first()?;
    Some(Mismatch::Nowhere {
        messages: unfinished.iter().map(|(_, count)| count).sum(),
        from: Offset(*from),
    })
}

fn held_twice(app: &AppHolding) -> Option<Mismatch> {
    let mut held = BTreeSet::new();
    let twice = app
        .held
        .iter()
        .find(|message| is_finished(app, message.offset) || !held.insert(message.offset));
    twice.map(|message| Mismatch::HeldTwice {
        offset: Offset(message.offset),
    })
}
