//! Who owns what after a repair.

use std::collections::{BTreeMap, BTreeSet};

use super::{Finding, HeldBatch, NodeDisk, Survivors};
use crate::fold::{ClaimEntry, ClaimKey, Fold, Owners};
use crate::ids::{BatchNo, Incarnation, LedgerSeq, NodeUuid, StreamSeq};
use crate::seq_set::SeqSet;

/// How sure a claim's owner is of what it won. The surer one keeps a message that two have won.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// Its owner's disk has made it available.
    Published,
    /// Every application of its owner has finished it.
    Done,
    /// Its owner was not asked.
    Unknown,
    /// Its owner was asked, holds it, and has not published it.
    Open,
}

struct Candidate {
    standing: Standing,
    key: ClaimKey,
    entry: ClaimEntry,
    won: SeqSet,
}

/// Who owns what, and what comes out of it that a finished batch might have held.
pub(super) struct Settled {
    pub(super) claims: BTreeMap<ClaimKey, ClaimEntry>,
    /// Given to nodes that hold it and have not published it: it may have been finished in a history that nobody remembers.
    doubtful: BTreeMap<Incarnation, SeqSet>,
}

/// What the merging works with.
struct Merging<'a> {
    survivors: &'a Survivors,
    /// W, nodes and terms are merged already.
    fold: &'a Fold,
    disks: BTreeMap<NodeUuid, &'a NodeDisk>,
    owners: BTreeMap<Incarnation, Owners>,
    doubtful: BTreeMap<Incarnation, SeqSet>,
}

pub(super) fn merge(
    survivors: &Survivors,
    fold: &Fold,
    known: LedgerSeq,
    findings: &mut BTreeSet<Finding>,
) -> Settled {
    let mut merging = Merging {
        survivors,
        fold,
        disks: survivors.disks.iter().map(|disk| (disk.uuid, disk)).collect(),
        owners: BTreeMap::new(),
        doubtful: BTreeMap::new(),
    };
    let mut candidates = Vec::new();
    for (key, entry, won) in gather(survivors) {
        candidates.extend(merging.judge(key, entry, won, findings));
    }
    merging.add_decided(&mut candidates);
    // The surest first; among equals the order of the ledger.
    candidates.sort_by_key(|found| (found.standing, found.entry.position, found.key));
    for found in &mut candidates {
        merging.settle(found, findings);
    }
    merging.add_closed(&mut candidates);
    Settled {
        claims: in_order(candidates, known),
        doubtful: merging.doubtful,
    }
}

/// Every claim that some fold has, with what any of them says it won: where folds differ, the surer owner decides below.
fn gather(survivors: &Survivors) -> Vec<(ClaimKey, ClaimEntry, SeqSet)> {
    let mut all: BTreeMap<ClaimKey, (ClaimEntry, SeqSet)> = BTreeMap::new();
    for (key, entry) in survivors.folds().flat_map(|fold| &fold.claims) {
        match all.get_mut(key) {
            Some((known, won)) => {
                known.seqs.union(&entry.seqs);
                won.union(&entry.won());
            }
            None => {
                all.insert(*key, (entry.clone(), entry.won()));
            }
        }
    }
    all.into_iter()
        .map(|(key, (entry, won))| (key, entry, won))
        .collect()
}

impl Merging<'_> {
    fn name(&self, key: ClaimKey) -> (String, BatchNo) {
        let node = self.fold.nodes.get(&key.node).map(|node| node.name.clone());
        (node.unwrap_or_else(|| key.node.to_string()), key.batch)
    }

    fn judge(
        &self,
        key: ClaimKey,
        mut entry: ClaimEntry,
        won: SeqSet,
        findings: &mut BTreeSet<Finding>,
    ) -> Option<Candidate> {
        let of = |standing, entry, won| {
            Some(Candidate {
                standing,
                key,
                entry,
                won,
            })
        };
        let node = self.fold.nodes.get(&key.node);
        let disk = self.disks.get(&key.node);
        // A disk's set may be too large to be taken over whole.
        let done = node.is_some_and(|node| node.done.contains(key.batch.0))
            || disk.is_some_and(|disk| disk.done.contains(key.batch.0));
        if done {
            let won = self.won_when_done(key, &entry, &won, findings);
            return of(Standing::Done, entry, won);
        }
        let Some(disk) = disk else {
            return of(Standing::Unknown, entry, won);
        };
        match disk.batches.get(&key.batch) {
            Some(held) if held.decided => {
                entry.seqs.union(&held.seqs);
                of(Standing::Published, entry, held.seqs.clone())
            }
            Some(_) => of(Standing::Open, entry, won),
            None => {
                let closed = self.fold.closed(entry.incarnation);
                let mut again = won.clone();
                again.remove_range(0, closed.0);
                findings.insert(Finding::Missing {
                    node: disk.name.clone(),
                    batch: key.batch,
                    incarnation: entry.incarnation,
                    lost: won.difference(&again),
                    again,
                });
                None
            }
        }
    }

    /// What a finished batch had won. Its disk does not know any more. A fold that has its PROGRESS, or its owner's own, is of the
    /// history in which its owner decided it; of others that counts what they agree on.
    fn won_when_done(
        &self,
        key: ClaimKey,
        claim: &ClaimEntry,
        any: &SeqSet,
        findings: &mut BTreeSet<Finding>,
    ) -> SeqSet {
        let mut all = any.clone();
        let mut not_won = SeqSet::new();
        let mut is_forgotten = false;
        for memory in &self.survivors.memories {
            let node = memory.fold.nodes.get(&key.node);
            let is_its =
                memory.of == Some(key.node) || node.is_some_and(|node| node.done.contains(key.batch.0));
            match memory.fold.claims.get(&key) {
                Some(entry) if is_its => return entry.won(),
                Some(entry) => all = all.difference(&any.difference(&entry.won())),
                // Forgotten in the history in which it was decided; what others own there it had not won.
                None if is_its => {
                    is_forgotten = true;
                    for other in memory.fold.claims.values() {
                        if other.incarnation == claim.incarnation {
                            not_won.union(&other.won());
                        }
                    }
                }
                None => {}
            }
        }
        let mut all = all.difference(&not_won);
        if is_forgotten {
            return all;
        }
        // Whoever holds a copy that is not decided may have won it in a history that nobody remembers: rather twice than never.
        for (_, held) in held(self.survivors) {
            if !held.decided && held.incarnation == claim.incarnation {
                all = all.difference(&held.seqs);
            }
        }
        // Perhaps it won more than any fold says, in a history that nobody remembers.
        let seqs = claim.seqs.difference(&all).difference(&not_won);
        if !seqs.is_empty() {
            let (node, batch) = self.name(key);
            findings.insert(Finding::Disputed {
                node,
                batch,
                incarnation: claim.incarnation,
                seqs,
            });
        }
        all
    }

    /// What disks have decided and no fold knows: the disk is the only witness of its claim.
    fn add_decided(&self, candidates: &mut Vec<Candidate>) {
        let known: BTreeSet<ClaimKey> = candidates.iter().map(|found| found.key).collect();
        for (key, held) in held(self.survivors) {
            if held.decided && !known.contains(&key) {
                candidates.push(Candidate {
                    standing: Standing::Published,
                    key,
                    entry: of_disk(held),
                    won: held.seqs.clone(),
                });
            }
        }
    }

    /// Messages at or below W that nobody owns, that no fold has forgotten as finished, and that a batch holds which is not
    /// published: W has passed them by a claim that is lost, or whose owner decided otherwise in another history. Claimed
    /// again they would be void; so the batch wins them here.
    fn add_closed(&mut self, candidates: &mut Vec<Candidate>) {
        let known: BTreeMap<ClaimKey, usize> = candidates
            .iter()
            .enumerate()
            .map(|(at, found)| (found.key, at))
            .collect();
        for (key, held) in held(self.survivors).filter(|(_, held)| !held.decided) {
            let incarnation = held.incarnation;
            let owners = self.owners.entry(incarnation).or_default();
            let mut wanted = Candidate {
                standing: Standing::Open,
                key,
                entry: of_disk(held),
                won: owners.unowned(&held.seqs),
            };
            let mut free = wanted.won.difference(&self.closed_elsewhere(&wanted));
            let mut above = free.clone();
            above.remove_range(0, self.fold.closed(incarnation).0);
            if free == above {
                continue;
            }
            let found = match known.get(&key).and_then(|at| candidates.get_mut(*at)) {
                // What a fold says it lost above W comes again by the hub.
                Some(found) => {
                    free = free.difference(&above);
                    found.entry.seqs.union(&free);
                    found.won.union(&free);
                    found
                }
                None => {
                    wanted.won.clone_from(&free);
                    wanted.entry.terms = self.fold.terms.version;
                    candidates.push(wanted);
                    let Some(found) = candidates.last_mut() else {
                        continue;
                    };
                    found
                }
            };
            found.entry.lost = found.entry.seqs.difference(&found.won);
            self.doubtful.entry(incarnation).or_default().union(&free);
            self.owners.entry(incarnation).or_default().assign(&free, key);
        }
    }

    /// Takes from a claim what a surer one has, and lists what cannot be taken any more.
    fn settle(&mut self, found: &mut Candidate, findings: &mut BTreeSet<Finding>) {
        let incarnation = found.entry.incarnation;
        let elsewhere = self.closed_elsewhere(found);
        let owners = self.owners.entry(incarnation).or_default();
        let clash = found.won.difference(&owners.unowned(&found.won));
        match found.standing {
            Standing::Published | Standing::Done => {
                let mut by_owner: BTreeMap<ClaimKey, SeqSet> = BTreeMap::new();
                for seq in clash.iter() {
                    if let Some(owner) = owners.owner(StreamSeq(seq)) {
                        by_owner.entry(owner).or_default().insert(seq);
                    }
                }
                for (owner, seqs) in by_owner {
                    findings.insert(Finding::Duplicate {
                        incarnation,
                        seqs,
                        one: self.name(owner),
                        other: self.name(found.key),
                    });
                }
                let seqs = elsewhere.difference(&clash);
                if !seqs.is_empty() {
                    let (node, batch) = self.name(found.key);
                    findings.insert(Finding::ClosedElsewhere {
                        node,
                        batch,
                        incarnation,
                        seqs,
                    });
                }
            }
            Standing::Unknown => found.won = found.won.difference(&clash).difference(&elsewhere),
            Standing::Open => {
                found.won = found.won.difference(&clash).difference(&elsewhere);
                // In another history somebody else may have won and finished it.
                let doubtful = self.doubtful.entry(incarnation).or_default();
                doubtful.union(&found.won);
            }
        }
        found.entry.lost = found.entry.seqs.difference(&found.won);
        let owners = self.owners.entry(incarnation).or_default();
        owners.assign(&owners.unowned(&found.won), found.key);
    }

    /// What of a claim lies below the W of a history in which the claim did not win it, and is not owned by anybody there: it was
    /// finished there, and its claim is forgotten. In one history W never passes what a later claim wins.
    fn closed_elsewhere(&self, found: &Candidate) -> SeqSet {
        let mut all = SeqSet::new();
        for fold in self.survivors.folds() {
            let node = fold.nodes.get(&found.key.node);
            let there = fold.claims.get(&found.key).map(ClaimEntry::won);
            // Finished and forgotten there: it was this claim that W passed by.
            if there.is_none() && node.is_some_and(|node| node.done.contains(found.key.batch.0)) {
                continue;
            }
            let mut above = found.won.clone();
            above.remove_range(0, fold.closed(found.entry.incarnation).0);
            let mut below = found.won.difference(&above);
            below = below.difference(&there.unwrap_or_default());
            let others = fold
                .claims
                .values()
                .filter(|entry| entry.incarnation == found.entry.incarnation);
            for entry in others.filter(|_| !below.is_empty()).collect::<Vec<_>>() {
                below = below.difference(&entry.won());
            }
            all.union(&below);
        }
        all
    }
}

/// Every batch of a node that was asked and has not finished it.
fn held(survivors: &Survivors) -> impl Iterator<Item = (ClaimKey, &HeldBatch)> {
    survivors.disks.iter().flat_map(|disk| {
        let unfinished = disk
            .batches
            .iter()
            .filter(|(batch, _)| !disk.done.contains(batch.0));
        unfinished.map(|(batch, held)| (ClaimKey::new(disk.uuid, batch.0), held))
    })
}

fn of_disk(held: &HeldBatch) -> ClaimEntry {
    ClaimEntry {
        // Given its place by `in_order`.
        position: LedgerSeq(u64::MAX),
        incarnation: held.incarnation,
        seqs: held.seqs.clone(),
        lost: SeqSet::new(),
        terms: held.terms,
        kind: held.kind,
        published_ns: held.published_ns,
    }
}

/// Whether a fold that does not know what a disk has finished is of another history than the disk's: it goes as far as the disk had
/// read, or has closed more. What it has closed then may be what the disk had finished.
fn parted(disk: &NodeDisk, fold: &Fold) -> bool {
    let known = |incarnation| disk.closed.get(incarnation).copied().unwrap_or_default();
    let mut watermarks = fold.closed.iter();
    fold.position() >= disk.read || watermarks.any(|(incarnation, through)| *through > known(incarnation))
}

/// Each claim at a position of its own, in the order of the ledger; those that no fold knows behind the others.
fn in_order(mut candidates: Vec<Candidate>, known: LedgerSeq) -> BTreeMap<ClaimKey, ClaimEntry> {
    candidates.sort_by_key(|found| (found.entry.position, found.standing, found.key));
    let mut taken = BTreeSet::new();
    let mut next = known;
    let mut claims = BTreeMap::new();
    for mut found in candidates {
        let position = found.entry.position;
        if position > known || !taken.insert(position) {
            next = next.next();
            found.entry.position = next;
        }
        claims.insert(found.key, found.entry);
    }
    claims
}

impl Settled {
    /// Batches that a disk has finished, that no surviving PROGRESS names and whose claim is in no fold. Exact, as a PROGRESS that
    /// survives implies that every claim before it does. What they held lies above W where nobody owns it, or is doubtful, or
    /// was finished once more in another history; when there is no such message, nothing is in doubt.
    pub(super) fn find_finished(
        mut self,
        survivors: &Survivors,
        fold: &Fold,
        findings: &mut BTreeSet<Finding>,
    ) {
        for (incarnation, end) in &survivors.ends {
            let mut free = SeqSet::range(fold.closed(*incarnation).0.saturating_add(1), end.0);
            for entry in fold
                .claims
                .values()
                .filter(|entry| entry.incarnation == *incarnation)
            {
                free = free.difference(&entry.won());
            }
            self.doubtful.entry(*incarnation).or_default().union(&free);
        }
        for disk in &survivors.disks {
            let mut batches = disk.done.clone();
            for known in survivors.folds() {
                if let Some(node) = known.nodes.get(&disk.uuid) {
                    batches = batches.difference(&node.done);
                }
                let own = ClaimKey::new(disk.uuid, 0)..=ClaimKey::new(disk.uuid, u64::MAX);
                for (key, _) in known.claims.range(own) {
                    batches.remove_range(key.batch.0, key.batch.0);
                }
            }
            if batches.is_empty() {
                continue;
            }
            let mut among = self.doubtful.clone();
            for (incarnation, through) in survivors
                .folds()
                .filter(|fold| parted(disk, fold))
                .flat_map(Fold::watermarks)
            {
                among.entry(*incarnation).or_default().insert_range(1, through.0);
            }
            among.retain(|_, seqs| !seqs.is_empty());
            if !among.is_empty() {
                findings.insert(Finding::Finished {
                    node: disk.name.clone(),
                    batches,
                    among: among.into_iter().collect(),
                });
            }
        }
    }
}
