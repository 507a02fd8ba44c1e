//! Goal: a repair takes each thing from where it must, and from nowhere else. Method: survivors by hand, as in `repair_rules`; each case is a
//! change of the repair that no other test noticed (`docs/mutation-testing.md`).
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is the failure")]

use std::collections::{BTreeMap, BTreeSet};

use fanin_core::fold::{ClaimKey, Fold, Passed};
use fanin_core::ids::{Attempt, BatchNo, Incarnation, LedgerSeq, NodeUuid, Nonce, StreamSeq, TermsVersion};
use fanin_core::record::{
    Body, Claim, ClaimKind, Close, EpochRecord, Genesis, NodeState, Progress, Record, SourceTerms, Terms,
    content_hash,
};
use fanin_core::repair::{Finding, HeldBatch, Memory, Merged, NodeDisk, Survivors, merge};
use fanin_core::seq_set::SeqSet;

const SOURCE: Incarnation = Incarnation(0xa0);
const OTHER: Incarnation = Incarnation(0xb0);
const A: NodeUuid = NodeUuid(1);
const B: NodeUuid = NodeUuid(2);
const EPOCH_A: u64 = 3;
const EPOCH_B: u64 = 4;

fn set(seqs: &[u64]) -> SeqSet {
    seqs.iter().copied().collect()
}

fn terms(version: u32) -> Terms {
    let source = |stream: &str| SourceTerms {
        stream: stream.to_owned(),
        filters: Vec::new(),
    };
    Terms {
        version: TermsVersion(version),
        sources: BTreeMap::from([(SOURCE, source("S")), (OTHER, source("T"))]),
        apps: BTreeMap::from([("x".to_owned(), TermsVersion(1))]),
    }
}

fn epoch_as(uuid: NodeUuid, name: &str, nonce: u64, state: NodeState) -> Body {
    Body::Epoch(EpochRecord {
        node_uuid: uuid,
        node: name.to_owned(),
        nonce: Nonce(nonce),
        hosts: BTreeSet::from(["x".to_owned()]),
        state,
    })
}

fn claim_of(incarnation: Incarnation, node: NodeUuid, batch: u64, seqs: &[u64]) -> Body {
    let (seqs, kind) = (set(seqs), ClaimKind::Normal);
    Body::Claim(Claim {
        node_uuid: node,
        epoch: LedgerSeq(if node == A { EPOCH_A } else { EPOCH_B }),
        batch: BatchNo(batch),
        attempt: Attempt(1),
        content_hash: content_hash(incarnation, &seqs, kind, (1, 2)),
        incarnation,
        seqs,
        terms: TermsVersion(1),
        kind,
        published_ns: (1, 2),
    })
}

fn claim(node: NodeUuid, batch: u64, seqs: &[u64]) -> Body {
    claim_of(SOURCE, node, batch, seqs)
}

fn done(node_uuid: NodeUuid, batches: &[u64]) -> Body {
    Body::Progress(Progress {
        node_uuid,
        epoch: LedgerSeq(EPOCH_A),
        done: set(batches),
    })
}

fn close(through: u64) -> Body {
    Body::Close(Close {
        incarnation: SOURCE,
        through: StreamSeq(through),
        terms: TermsVersion(1),
        floor: StreamSeq(through),
        holes: 0,
    })
}

/// GENESIS at 1, TERMS at 2, the EPOCH of a at 3 and of b at 4, the rest behind.
fn fold(bodies: Vec<Body>) -> Fold {
    let epochs = [(A, "a"), (B, "b")].map(|(uuid, name)| epoch_as(uuid, name, 1, NodeState::Active));
    fold_from(epochs.into_iter().chain(bodies))
}

/// GENESIS at 1, TERMS at 2, the rest behind.
fn fold_from(bodies: impl IntoIterator<Item = Body>) -> Fold {
    fold_under(terms(1), bodies)
}

fn fold_under(terms: Terms, bodies: impl IntoIterator<Item = Body>) -> Fold {
    let genesis = Body::Genesis(Genesis {
        rules: 1,
        features: BTreeSet::new(),
    });
    let mut fold = Fold::new();
    let all = [genesis, Body::Terms(terms)].into_iter().chain(bodies);
    for (at, body) in (1..).zip(all) {
        let record = Record {
            witness: fold.witness(),
            body,
        };
        fold.apply(LedgerSeq(at), &record.subject(), &record.encode())
            .unwrap();
    }
    fold
}

fn disk(uuid: NodeUuid, name: &str, batches: Vec<(u64, HeldBatch)>) -> NodeDisk {
    NodeDisk {
        uuid,
        name: name.to_owned(),
        terms: TermsVersion(1),
        apps: BTreeMap::from([("x".to_owned(), TermsVersion(1))]),
        batches: batches
            .into_iter()
            .map(|(no, held)| (BatchNo(no), held))
            .collect(),
        ..NodeDisk::default()
    }
}

fn held(incarnation: Incarnation, seqs: &[u64], decided: bool) -> HeldBatch {
    HeldBatch {
        incarnation,
        seqs: set(seqs),
        decided,
        terms: TermsVersion(u32::from(decided)),
        published_ns: (1, 2),
        ..HeldBatch::default()
    }
}

/// The folds come with their owners.
fn repaired(memories: Vec<(Option<NodeUuid>, Fold)>, disks: Vec<NodeDisk>) -> Merged {
    let memories = memories.into_iter().map(|(of, fold)| Memory { of, fold });
    merge(&Survivors {
        memories: memories.collect(),
        disks,
        configured: terms(0),
        ends: BTreeMap::new(),
        taken: LedgerSeq(0),
    })
}

fn won(merged: &Merged, node: NodeUuid, batch: u64) -> SeqSet {
    merged.fold.claims()[&ClaimKey::new(node, batch)].won()
}

/// An application that a disk does not serve yet is not entitled to anything by it.
#[test]
fn an_application_enters_by_the_terms_it_is_served_under() {
    let mut a = disk(A, "a", Vec::new());
    a.terms = TermsVersion(2);
    a.apps.extend([
        ("y".to_owned(), TermsVersion(2)),
        ("z".to_owned(), TermsVersion(0)),
    ]);
    let merged = repaired(vec![(None, fold(Vec::new()))], vec![a]);
    let apps: Vec<_> = merged
        .fold
        .terms()
        .apps
        .iter()
        .map(|(app, since)| (app.as_str(), since.0))
        .collect();
    assert_eq!(apps, [("x", 1), ("y", 2)]);
}

/// Two histories have terms of their own under one version: that is told, and the first ones count.
#[test]
fn different_terms_of_one_version_are_told() {
    let mut more = terms(1);
    more.apps.insert("y".to_owned(), TermsVersion(1));
    let differ = Finding::TermsDiffer {
        version: TermsVersion(1),
    };
    for (one, other) in [(terms(1), more.clone()), (more, terms(1))] {
        let folds = [&one, &other].map(|terms| (None, fold_under(terms.clone(), Vec::new())));
        let merged = repaired(folds.into(), Vec::new());
        assert_eq!(merged.findings, std::slice::from_ref(&differ));
        assert_eq!(*merged.fold.terms(), one);
    }
}

/// What W has passed is taken from every fold, each part from the one that knows most.
#[test]
fn what_w_has_passed_is_kept() {
    let times = |body: Body, at: i64| {
        let Body::Claim(mut claim) = body else {
            panic!("a claim")
        };
        claim.published_ns = (at, at);
        claim.content_hash = content_hash(SOURCE, &claim.seqs, claim.kind, claim.published_ns);
        Body::Claim(claim)
    };
    let far = fold(vec![times(claim(A, 1, &[1, 2, 3]), 50), done(A, &[1]), close(3)]);
    let late = fold(vec![times(claim(A, 1, &[1, 2]), 90), done(A, &[1]), close(2)]);
    for folds in [[far.clone(), late.clone()], [late, far]] {
        let merged = repaired(folds.map(|fold| (None, fold)).into(), Vec::new());
        let passed = Passed {
            claimed_through: StreamSeq(3),
            newest_ns: 90,
        };
        assert_eq!(merged.fold.passed(SOURCE), passed);
        assert_eq!(merged.fold.passed(OTHER), Passed::default());
    }
}

/// A node's newest life counts, whoever tells of it; what its earlier ones had done stays done; of two tales of one life the first counts.
#[test]
fn the_newest_life_counts() {
    let begun = |nonce, state, finished: &[u64]| {
        let first = epoch_as(A, "a", 1, NodeState::Active);
        let more = (nonce > 1).then(|| epoch_as(A, "a", nonce, state));
        fold_from([first].into_iter().chain(more).chain([done(A, finished)]))
    };
    let old = begun(1, NodeState::Active, &[1]);
    let new = begun(2, NodeState::Draining, &[2]);
    let told = begun(3, NodeState::Draining, &[3]);
    let merged = |folds: &[&Fold]| {
        let folds = folds.iter().map(|&fold| (None, fold.clone())).collect();
        let merged = repaired(folds, Vec::new());
        let node = &merged.fold.nodes()[&A];
        (node.epoch.0, node.nonce.0, node.state, node.done.clone())
    };
    for folds in [[&old, &new], [&new, &old]] {
        assert_eq!(merged(&folds), (4, 2, NodeState::Draining, set(&[1, 2])));
    }
    assert_eq!(merged(&[&new, &told]), (4, 2, NodeState::Draining, set(&[2, 3])));
    assert_eq!(merged(&[&told, &new]), (4, 3, NodeState::Draining, set(&[2, 3])));
}

/// A disk that never had an epoch is of no node.
#[test]
fn a_disk_without_an_epoch_is_no_node() {
    let never = disk(NodeUuid(9), "c", Vec::new());
    let merged = repaired(vec![(None, fold(Vec::new()))], vec![never]);
    assert_eq!(merged.fold.nodes().len(), 2);
    let mut once = disk(NodeUuid(9), "c", Vec::new());
    once.epoch = LedgerSeq(1);
    let merged = repaired(vec![(None, fold(Vec::new()))], vec![once]);
    assert_eq!(merged.fold.nodes().len(), 3);
}

/// Two nodes have made a message available: it is told which, with which batches, and also when only the ledger knows that the one has
/// finished it.
#[test]
fn duplicates_name_both_owners() {
    let b = || disk(B, "b", vec![(7, held(SOURCE, &[2, 3], true))]);
    let duplicate = Finding::Duplicate {
        incarnation: SOURCE,
        seqs: set(&[2]),
        one: ("b".to_owned(), BatchNo(7)),
        other: ("a".to_owned(), BatchNo(1)),
    };
    let ledger = fold(vec![claim(A, 1, &[1, 2]), done(A, &[1])]);
    let merged = repaired(vec![(None, ledger)], vec![b()]);
    assert!(merged.findings.contains(&duplicate), "{:?}", merged.findings);
    assert_eq!(
        (won(&merged, A, 1), won(&merged, B, 7)),
        (set(&[1, 2]), set(&[2, 3]))
    );
}

/// What a batch won that is finished and forgotten: not what others own of its source, in the history in which it was finished.
#[test]
fn a_finished_batch_had_not_won_what_others_own() {
    let shown = fold(vec![claim(A, 1, &[1, 2, 3])]);
    let forgotten = {
        let mut fold = fold(vec![
            claim(B, 1, &[2]),
            claim_of(OTHER, B, 2, &[3]),
            claim(A, 1, &[1, 2, 3]),
            done(A, &[1]),
        ]);
        let state = fold.encode();
        fold = Fold::decode(&state).unwrap();
        fold
    };
    // The claim is still shown there: its own history decides.
    let merged = repaired(vec![(None, shown.clone()), (Some(A), forgotten)], Vec::new());
    assert_eq!(won(&merged, A, 1), set(&[1, 3]));
    // It is not shown any more, since W has passed it there.
    let forgotten = fold(vec![
        claim(A, 1, &[1]),
        done(A, &[1]),
        close(1),
        claim(B, 1, &[2]),
        claim_of(OTHER, B, 2, &[3]),
    ]);
    let merged = repaired(vec![(None, shown), (Some(A), forgotten)], Vec::new());
    assert_eq!(won(&merged, A, 1), set(&[1, 3]));
    assert_eq!(merged.fold.owner(SOURCE, StreamSeq(2)), Some(ClaimKey::new(B, 1)));
    assert_eq!(merged.fold.owner(SOURCE, StreamSeq(3)), Some(ClaimKey::new(A, 1)));
}

/// A fold that does not know a finished batch, neither its claim nor that it is finished, says nothing of it.
#[test]
fn a_fold_that_does_not_know_a_batch_says_nothing_of_it() {
    let shown = fold(vec![claim(A, 1, &[1, 2, 3])]);
    let other = fold(vec![claim(B, 1, &[2])]);
    let mut a = disk(A, "a", Vec::new());
    a.done = set(&[1]);
    let merged = repaired(vec![(None, shown), (None, other)], vec![a]);
    assert_eq!(
        (won(&merged, A, 1), won(&merged, B, 1)),
        (set(&[1, 2, 3]), set(&[]))
    );
}

/// A batch that only its disk knows as finished, and two folds differ on what it won: what they agree on counts, and the rest is told.
#[test]
fn what_folds_agree_on_counts() {
    let all = fold(vec![claim(A, 1, &[1, 2, 3])]);
    let less = fold(vec![claim(B, 1, &[2]), claim(A, 1, &[1, 2, 3])]);
    for folds in [[all.clone(), less.clone()], [less, all]] {
        let mut a = disk(A, "a", Vec::new());
        a.done = set(&[1]);
        let merged = repaired(folds.map(|fold| (None, fold)).into(), vec![a]);
        assert_eq!(
            (won(&merged, A, 1), won(&merged, B, 1)),
            (set(&[1, 3]), set(&[2]))
        );
        let disputed = Finding::Disputed {
            node: "a".to_owned(),
            batch: BatchNo(1),
            incarnation: SOURCE,
            seqs: set(&[2]),
        };
        assert!(merged.findings.contains(&disputed), "{:?}", merged.findings);
    }
}

/// A batch that only its disk knows as finished: an undecided copy of its source may have won instead, and that is told.
#[test]
fn an_undecided_copy_may_have_won() {
    let mut a = disk(A, "a", Vec::new());
    a.done = set(&[1]);
    let b = disk(
        B,
        "b",
        vec![
            (1, held(SOURCE, &[2], false)),
            (2, held(SOURCE, &[3], true)),
            (3, held(OTHER, &[4], false)),
        ],
    );
    let merged = repaired(vec![(None, fold(vec![claim(A, 1, &[1, 2, 3, 4])]))], vec![a, b]);
    assert_eq!(won(&merged, A, 1), set(&[1, 3, 4]));
    let disputed = Finding::Disputed {
        node: "a".to_owned(),
        batch: BatchNo(1),
        incarnation: SOURCE,
        seqs: set(&[2]),
    };
    assert!(merged.findings.contains(&disputed), "{:?}", merged.findings);
}

/// W has passed what an undecided batch holds, by a claim that is lost: claimed again it would be void, so the batch wins it here.
#[test]
fn what_w_has_passed_is_given_to_who_holds_it() {
    let mut a = disk(A, "a", Vec::new());
    a.closed = BTreeMap::from([(SOURCE, StreamSeq(3))]);
    let b = disk(
        B,
        "b",
        vec![
            (1, held(SOURCE, &[2, 3, 5], false)),
            (2, held(SOURCE, &[6], false)),
        ],
    );
    let merged = repaired(vec![(None, fold(Vec::new()))], vec![a, b]);
    assert_eq!(won(&merged, B, 1), set(&[2, 3, 5]));
    let claims: Vec<_> = merged.fold.claims().iter().collect();
    assert_eq!(claims.len(), 1, "what lies above W is claimed as ever");
    assert_eq!(claims[0].1.terms, TermsVersion(1));
}

/// What a node has made available is finished business of another history when it lies below the W of that one and nobody owns it there.
#[test]
fn finished_business_of_another_history() {
    let a = || disk(A, "a", vec![(1, held(SOURCE, &[2, 3], true))]);
    let kinds = |ledger| {
        let merged = repaired(vec![(None, ledger)], vec![a()]);
        merged.findings.iter().map(Finding::kind).collect::<Vec<_>>()
    };
    let owned = fold(vec![claim(B, 1, &[2, 3]), close(3)]);
    assert_eq!(kinds(owned), ["not_asked"]);
    let elsewhere = fold(vec![claim_of(OTHER, B, 1, &[2, 3]), close(3)]);
    assert_eq!(kinds(elsewhere), ["closed_elsewhere", "not_asked"]);
}

/// What a disk has finished and no fold knows may be what a fold of another history has closed: one that goes as far as the disk had read, or
/// has closed more than it knew.
#[test]
fn finished_batches_are_among_what_another_history_closed() {
    let ledger = fold(vec![claim(B, 1, &[1, 2, 3]), done(B, &[1]), close(3)]);
    let among = |read_behind: bool, known: u64| {
        let mut a = disk(A, "a", Vec::new());
        a.done = set(&[5]);
        a.read = LedgerSeq(ledger.position().0 + u64::from(read_behind));
        a.closed = BTreeMap::from([(SOURCE, StreamSeq(known))]);
        let merged = repaired(vec![(None, ledger.clone())], vec![a, disk(B, "b", Vec::new())]);
        merged.findings
    };
    let finished = Finding::Finished {
        node: "a".to_owned(),
        batches: set(&[5]),
        among: vec![(SOURCE, SeqSet::range(1, 3))],
    };
    assert_eq!(among(false, 3), std::slice::from_ref(&finished));
    assert_eq!(among(true, 2), [finished]);
    assert_eq!(among(true, 3), []);
}

/// Claims of several histories, and those that only disks know, have positions of their own below the new ledger's.
#[test]
fn every_claim_has_a_position_of_its_own() {
    let b = disk(
        B,
        "b",
        vec![(7, held(SOURCE, &[7], true)), (8, held(SOURCE, &[8], true))],
    );
    let one = fold(vec![claim(A, 1, &[1])]);
    let other = fold(vec![claim(A, 2, &[2])]);
    let merged = repaired(vec![(None, one), (None, other)], vec![b]);
    let positions: BTreeSet<_> = merged
        .fold
        .claims()
        .values()
        .map(|claim| claim.position)
        .collect();
    assert_eq!(positions.len(), 4, "{positions:?}");
    assert!(positions.first() == Some(&LedgerSeq(5)) && positions.last() < Some(&merged.first));
}

/// Two histories have both finished what they forgot: it is told which messages, but for those that a history before both had closed, and those
/// whose owner is known.
#[test]
fn what_two_histories_finished_is_told() {
    let common = || vec![claim(A, 9, &[1]), done(A, &[9]), close(1)];
    let with = |more: Vec<Body>| fold(common().into_iter().chain(more).collect());
    let one = || {
        with(vec![
            claim(A, 1, &[2, 3]),
            done(A, &[1]),
            claim_of(OTHER, A, 2, &[2]),
            close(3),
        ])
    };
    let two = || with(vec![claim(B, 1, &[2, 3, 4]), done(B, &[1]), close(4)]);
    let split = |folds: Vec<Fold>| {
        let merged = repaired(folds.into_iter().map(|fold| (None, fold)).collect(), Vec::new());
        let mut splits = merged.findings.into_iter().filter_map(|finding| {
            let Finding::Split { seqs, .. } = finding else {
                return None;
            };
            Some(seqs)
        });
        splits.next()
    };
    assert_eq!(split(vec![one(), two()]), Some(SeqSet::range(1, 3)));
    assert_eq!(
        split(vec![with(Vec::new()), one(), two()]),
        Some(SeqSet::range(2, 3))
    );
    assert_eq!(
        split(vec![one(), two(), with(Vec::new())]),
        Some(SeqSet::range(2, 3))
    );
    let kept = with(vec![claim(A, 1, &[2]), close(2)]);
    assert_eq!(
        split(vec![with(Vec::new()), kept, two()]),
        None,
        "its owner is known"
    );
    assert_eq!(split(vec![with(Vec::new()), one()]), None, "one history");
    assert_eq!(split(vec![one(), one()]), None, "one history");
}

/// A finding names all of its messages, for scripts.
#[test]
fn findings_name_their_messages() {
    let (node, batch, incarnation) = ("a".to_owned(), BatchNo(1), SOURCE);
    let seqs = set(&[1, 2, 5]);
    let one = (node.clone(), batch);
    let ranges = vec![(1, 2), (5, 5)];
    let table = [
        (
            Finding::Split {
                incarnation,
                seqs: seqs.clone(),
            },
            ranges.clone(),
        ),
        (
            Finding::Duplicate {
                incarnation,
                seqs: seqs.clone(),
                one: one.clone(),
                other: one,
            },
            ranges.clone(),
        ),
        (
            Finding::Missing {
                node: node.clone(),
                batch,
                incarnation,
                lost: seqs.clone(),
                again: set(&[9]),
            },
            vec![(1, 2), (5, 5), (9, 9)],
        ),
        (
            Finding::Finished {
                node: node.clone(),
                batches: set(&[3]),
                among: vec![(SOURCE, seqs), (OTHER, set(&[7]))],
            },
            vec![(1, 2), (5, 5), (7, 7)],
        ),
        (Finding::NotAsked { node, messages: 3 }, Vec::new()),
    ];
    for (finding, expected) in table {
        assert_eq!(finding.ranges(), expected, "{}", finding.kind());
    }
}
