//! Goal: each rule of a repair that random clusters do not reach. Method: survivors by hand.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is the failure")]

use std::collections::{BTreeMap, BTreeSet};

use fanin_core::checkpoint::{self, Assembler};
use fanin_core::fold::{ClaimKey, Fold};
use fanin_core::ids::{Attempt, BatchNo, Incarnation, LedgerSeq, NodeUuid, Nonce, StreamSeq, TermsVersion};
use fanin_core::record::{
    Body, Claim, ClaimKind, EpochRecord, Genesis, NodeState, Record, SourceTerms, Terms, content_hash,
};
use fanin_core::repair::{Finding, HeldBatch, Memory, NodeDisk, Survivors, merge};
use fanin_core::seq_set::SeqSet;

const SOURCE: Incarnation = Incarnation(0xa0);
const A: NodeUuid = NodeUuid(1);
const B: NodeUuid = NodeUuid(2);

fn terms(version: u32) -> Terms {
    let source = SourceTerms {
        stream: "S".to_owned(),
        filters: Vec::new(),
    };
    Terms {
        version: TermsVersion(version),
        sources: BTreeMap::from([(SOURCE, source)]),
        apps: BTreeMap::from([("x".to_owned(), TermsVersion(1))]),
    }
}

fn epoch(uuid: NodeUuid, name: &str) -> Body {
    Body::Epoch(EpochRecord {
        node_uuid: uuid,
        node: name.to_owned(),
        nonce: Nonce(1),
        hosts: BTreeSet::from(["x".to_owned()]),
        state: NodeState::Active,
    })
}

fn claim(node_uuid: NodeUuid, epoch: u64, batch: u64, seqs: SeqSet) -> Body {
    Body::Claim(Claim {
        node_uuid,
        epoch: LedgerSeq(epoch),
        batch: BatchNo(batch),
        attempt: Attempt(1),
        content_hash: content_hash(SOURCE, &seqs, ClaimKind::Normal, (1, 2)),
        incarnation: SOURCE,
        seqs,
        terms: TermsVersion(1),
        kind: ClaimKind::Normal,
        published_ns: (1, 2),
    })
}

/// GENESIS at 1, TERMS at 2, the rest behind.
fn fold(bodies: Vec<Body>) -> Fold {
    let genesis = Body::Genesis(Genesis {
        rules: 1,
        features: BTreeSet::new(),
    });
    let mut fold = Fold::new();
    let all = [genesis, Body::Terms(terms(1))].into_iter().chain(bodies);
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

fn disk(uuid: NodeUuid, name: &str) -> NodeDisk {
    NodeDisk {
        uuid,
        name: name.to_owned(),
        terms: TermsVersion(1),
        apps: BTreeMap::from([("x".to_owned(), TermsVersion(1))]),
        ..NodeDisk::default()
    }
}

fn of(fold: Fold, disks: Vec<NodeDisk>) -> Survivors {
    Survivors {
        memories: vec![Memory { of: None, fold }],
        disks,
        configured: terms(0),
        ends: BTreeMap::from([(SOURCE, StreamSeq(9))]),
        taken: LedgerSeq(0),
    }
}

/// The new ledger begins above what anybody read, and its checkpoint is loaded as any.
#[test]
fn positions_lie_above_everything_known() {
    let mut a = disk(A, "a");
    (a.epoch, a.read) = (LedgerSeq(3), LedgerSeq(5_000));
    let mut survivors = of(
        fold(vec![epoch(A, "a"), claim(A, 3, 1, SeqSet::range(1, 3))]),
        vec![a],
    );
    survivors.taken = LedgerSeq(7_000);
    let merged = merge(&survivors);
    assert!(merged.first > LedgerSeq(7_000));
    assert_eq!(merged.fold.position().next(), merged.first);
    let mut assembler = Assembler::default();
    for record in checkpoint::write(&merged.fold).unwrap() {
        let Body::Checkpoint(part) = record.body else {
            panic!("{record:?}")
        };
        assembler.add(part);
    }
    assert_eq!(
        assembler.best().unwrap().load().unwrap().hash(),
        merged.fold.hash()
    );
    assert_eq!(
        merge(&survivors),
        merged,
        "the same survivors make the same state"
    );
}

/// A batch that its owner neither holds nor has finished is listed, and its claim is dropped.
#[test]
fn a_batch_that_nobody_holds_is_missing() {
    let mut b = disk(B, "b");
    b.closed = BTreeMap::from([(SOURCE, StreamSeq(2))]);
    let ledger = fold(vec![
        epoch(A, "a"),
        epoch(B, "b"),
        claim(A, 3, 1, SeqSet::range(1, 3)),
    ]);
    let merged = merge(&of(ledger, vec![disk(A, "a"), b]));
    assert!(merged.fold.claims().is_empty());
    let missing = Finding::Missing {
        node: "a".to_owned(),
        batch: BatchNo(1),
        incarnation: SOURCE,
        lost: SeqSet::range(1, 2),
        again: SeqSet::range(3, 3),
    };
    assert_eq!(merged.findings, [missing]);
}

/// An owner that was not asked keeps its claims, and is named; what it had published may be more.
#[test]
fn an_owner_that_was_not_asked_keeps_its_claims() {
    let ledger = fold(vec![epoch(A, "a"), claim(A, 3, 1, SeqSet::range(1, 3))]);
    let merged = merge(&of(ledger.clone(), Vec::new()));
    assert_eq!(merged.fold.claims(), ledger.claims());
    let asked = Finding::NotAsked {
        node: "a".to_owned(),
        messages: 3,
    };
    assert_eq!(merged.findings, [asked]);
}

/// What only a disk knows is taken from it: its batches, its epoch, its applications, the terms' version, W.
#[test]
fn a_disk_alone_is_enough() {
    let held = HeldBatch {
        incarnation: SOURCE,
        seqs: SeqSet::range(4, 5),
        decided: true,
        terms: TermsVersion(3),
        published_ns: (1, 2),
        ..HeldBatch::default()
    };
    let mut a = disk(A, "a");
    a.epoch = LedgerSeq(40);
    a.read = LedgerSeq(60);
    a.terms = TermsVersion(3);
    a.done = SeqSet::range(1, 6);
    a.closed = BTreeMap::from([(SOURCE, StreamSeq(3))]);
    a.batches = BTreeMap::from([(BatchNo(7), held)]);
    let mut survivors = of(Fold::new(), vec![a]);
    survivors.memories.clear();
    survivors.ends = BTreeMap::from([(SOURCE, StreamSeq(5))]);
    let merged = merge(&survivors);
    assert_eq!(merged.findings, []);
    assert_eq!(merged.fold.owner(SOURCE, StreamSeq(4)), Some(ClaimKey::new(A, 7)));
    assert_eq!(merged.fold.closed(SOURCE), StreamSeq(3));
    assert_eq!(
        merged.fold.terms(),
        &Terms {
            version: TermsVersion(3),
            ..terms(3)
        }
    );
    let node = &merged.fold.nodes()[&A];
    assert_eq!(
        (node.epoch, &node.done, node.state),
        (LedgerSeq(40), &SeqSet::range(1, 6), NodeState::Active)
    );
    // One message more than everything known: what was finished may be among it.
    survivors.ends = BTreeMap::from([(SOURCE, StreamSeq(6))]);
    let kinds: Vec<_> = merge(&survivors).findings.iter().map(Finding::kind).collect();
    assert_eq!(kinds, ["finished"]);
}

/// A name has one holder, the last; and terms that only a disk knew are named.
#[test]
fn names_and_terms() {
    let older = fold(vec![epoch(A, "n")]);
    let newer = fold(vec![epoch(B, "m"), epoch(B, "n")]);
    let mut b = disk(B, "n");
    (b.epoch, b.terms) = (LedgerSeq(4), TermsVersion(2));
    b.apps = BTreeMap::from([
        ("x".to_owned(), TermsVersion(1)),
        ("y".to_owned(), TermsVersion(2)),
    ]);
    let mut survivors = of(older, vec![b]);
    survivors.memories.push(Memory {
        of: Some(B),
        fold: newer,
    });
    let merged = merge(&survivors);
    let states: Vec<_> = merged.fold.nodes().values().map(|node| node.state).collect();
    assert_eq!(states, [NodeState::Closed, NodeState::Active]);
    assert_eq!(merged.fold.terms().apps["y"], TermsVersion(2));
    let lost = Finding::TermsLost {
        node: "n".to_owned(),
        known: TermsVersion(2),
        found: TermsVersion(1),
    };
    assert_eq!(merged.findings, [lost]);
}
