//! Goal: each kind of disagreement is found, and agreement is none. Method: a ledger of real records with one claim, and
//! the views a node could give of it.
use std::collections::BTreeMap;

use fanin_core::ids::{BatchNo, Epoch, Incarnation, LedgerSeq, Nonce, Offset, StreamSeq, TermsVersion};
use fanin_core::record::{
    Body, Claim, ClaimKind, EpochRecord, Genesis, Record, SourceTerms, Terms, Witness, content_hash,
};
use fanin_core::seq_set::SeqSet;
use fanin_hub::LedgerInfo;
use fanin_proto::v1::AppHolding;

use super::*;

pub(in crate::audit) const NODE: NodeUuid = NodeUuid(7);
pub(in crate::audit) const SOURCE: Incarnation = Incarnation(3);
const TIMES: (i64, i64) = (1, 2);

/// GENESIS at 1, EPOCH of node a at 2, TERMS at 3, a claim of batch 1 over 1 to 4 at 4.
pub(in crate::audit) fn ledger() -> Folded {
    let mut fold = Fold::new();
    let seqs = SeqSet::range(1, 4);
    let terms = Terms {
        version: TermsVersion(1),
        sources: BTreeMap::from([(
            SOURCE,
            SourceTerms {
                stream: "S".to_owned(),
                filters: Vec::new(),
            },
        )]),
        apps: BTreeMap::from([("x".to_owned(), TermsVersion(1))]),
    };
    let epoch = EpochRecord {
        node_uuid: NODE,
        node: "a".to_owned(),
        nonce: Nonce(1),
        hosts: ["x".to_owned()].into(),
        state: NodeState::Active,
    };
    let claim = Claim {
        node_uuid: NODE,
        epoch: LedgerSeq(2),
        batch: BatchNo(1),
        content_hash: content_hash(SOURCE, &seqs, ClaimKind::Normal, TIMES),
        incarnation: SOURCE,
        seqs,
        terms: TermsVersion(1),
        kind: ClaimKind::Normal,
        published_ns: TIMES,
        attempt: fanin_core::ids::Attempt(1),
    };
    let genesis = Genesis {
        rules: fanin_core::fold::RULES,
        ..Genesis::default()
    };
    let bodies = [
        Body::Genesis(genesis),
        Body::Epoch(epoch),
        Body::Terms(terms),
        Body::Claim(claim),
    ];
    for (at, body) in (1..).zip(bodies) {
        let witness = Witness::default();
        let record = Record { witness, body };
        let subject = record.subject();
        fold.apply(LedgerSeq(at), &subject, &record.encode()).unwrap();
    }
    let info = LedgerInfo {
        first_seq: 1,
        last_seq: 4,
        messages: 4,
        bytes: 0,
        max_bytes: -1,
        created_ns: 0,
    };
    Folded {
        stream: "L".to_owned(),
        fold,
        info,
        checkpoint: None,
        records: 4,
        halt: None,
        done_at: BTreeMap::new(),
    }
}

/// Node a, which holds batch 1 as published, with two of four messages finished.
pub(in crate::audit) fn holder() -> NodeView {
    let batch = BatchView {
        state: "published".to_owned(),
        incarnation: SOURCE,
        seqs: SeqSet::range(1, 4),
        decided: true,
        base: Some(Offset(10)),
        terms: TermsVersion(1),
        ..BatchView::default()
    };
    let app = AppHolding {
        app: "x".to_owned(),
        floor_offset: 11,
        finished: vec![fanin_proto::v1::SeqRange { first: 13, last: 13 }],
        since_terms: 1,
        seen_offset: Some(14),
        backlog: Some(2),
        ..AppHolding::default()
    };
    NodeView {
        name: "a".to_owned(),
        uuid: NODE,
        epoch: Epoch::default().max(LedgerSeq(2)),
        position: LedgerSeq(4),
        head: Some(Offset(14)),
        state: "active".to_owned(),
        done: SeqSet::new(),
        batches: BTreeMap::from([(BatchNo(1), batch)]),
        apps: vec![app],
        ..NodeView::default()
    }
}

fn kinds(nodes: &[NodeView]) -> Vec<&'static str> {
    let report = judge(&ledger(), nodes, &[]);
    report.findings.iter().map(Finding::kind).collect()
}

#[test]
fn agreement_is_counted() {
    let report = judge(&ledger(), &[holder()], &[]);
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    assert_eq!((report.open_claims, report.open_messages), (1, 4));
    let totals = report.apps["x"];
    assert_eq!((totals.published, totals.finished, totals.waiting), (4, 2, 2));
    let mut done = holder();
    done.batches.clear();
    done.done = SeqSet::range(1, 1);
    let report = judge(&ledger(), &[done], &[]);
    assert!(report.findings.is_empty(), "done on disk, not reported yet");
    let totals = report.apps["x"];
    assert_eq!((totals.published, totals.finished, totals.waiting), (4, 4, 0));
}

#[test]
fn each_disagreement_is_found() {
    let changed = |change: &dyn Fn(&mut NodeView)| {
        let mut view = holder();
        change(&mut view);
        kinds(&[view])
    };
    let batch = |view: &mut NodeView| view.batches.remove(&BatchNo(1)).unwrap();
    assert_eq!(kinds(&[]), ["not_asked"]);
    assert_eq!(judge(&ledger(), &[], &[]).unreachable, ["a"]);
    assert_eq!(changed(&|view| view.batches.clear()), ["not_held"]);
    let too_new = changed(&|view| {
        view.batches.clear();
        view.position = LedgerSeq(3);
    });
    assert!(too_new.is_empty(), "the node had not read the claim");
    let won = |view: &mut NodeView| {
        let mut own = batch(view);
        own.seqs = SeqSet::range(1, 3);
        view.batches.insert(BatchNo(1), own);
    };
    assert_eq!(changed(&won), ["won_differs"]);
    let undecided = |view: &mut NodeView| {
        let mut own = batch(view);
        own.decided = false;
        view.batches.insert(BatchNo(1), own);
    };
    assert_eq!(changed(&undecided), ["won_differs"]);
    let damaged = |view: &mut NodeView| {
        let mut own = batch(view);
        own.state = "damaged".to_owned();
        view.batches.insert(BatchNo(1), own);
    };
    assert_eq!(changed(&damaged), ["damaged"]);
    let more = |view: &mut NodeView| {
        let own = view.batches[&BatchNo(1)].clone();
        view.batches.insert(BatchNo(2), own);
    };
    assert_eq!(changed(&more), ["not_claimed"]);
    assert_eq!(changed(&|view| view.epoch = LedgerSeq(1)), ["stranger"]);
    assert_eq!(
        changed(&|view| view.uuid = NodeUuid(8)).first(),
        Some(&"stranger")
    );
}

#[test]
fn gaps_and_halts_are_findings() {
    let mut folded = ledger();
    folded.halt = Some(fanin_core::fold::Halt::LedgerRecreated);
    let sweep = Sweep {
        unclaimed: vec![StreamSeq(9)],
        cut_short: true,
        ..Sweep::default()
    };
    let report = judge(&folded, &[holder()], &[("S".to_owned(), sweep)]);
    let kinds: Vec<_> = report.findings.iter().map(Finding::kind).collect();
    assert_eq!(kinds, ["ledger", "unclaimed", "cut_short"]);
    let mut short = ledger();
    short.info.created_ns = 5;
    let mut view = holder();
    (view.ledger_created_ns, view.read) = (5, LedgerSeq(9));
    let report = judge(&short, &[view], &[]);
    assert_eq!(report.findings.len(), 1, "{:?}", report.findings);
    assert!(report.findings[0].to_string().contains("ends at position 4"));
}

/// Kinds of what is found when the node's view is changed.
fn changed(change: impl FnOnce(&mut NodeView)) -> Vec<&'static str> {
    let mut view = holder();
    change(&mut view);
    kinds(&[view])
}

/// Goal: an application that the claim's terms owe its messages and that the node does not tell of, or does not serve, is found, in one
/// finding for all its batches; one that entered later is owed nothing. Method: take it out of the view, and change since when it
/// is served.
#[test]
fn an_application_that_is_owed_and_not_served_is_found() {
    assert_eq!(changed(|view| view.apps.clear()), ["app_missing"]);
    assert_eq!(changed(|view| view.apps[0].since_terms = 0), ["app_missing"]);
    assert_eq!(changed(|view| view.apps[0].since_terms = 2), ["app_missing"]);
    let other_terms = |view: &mut NodeView| {
        view.batches.get_mut(&BatchNo(1)).unwrap().terms = TermsVersion(0);
    };
    assert_eq!(changed(other_terms), ["app_missing"]);
    let unpublished = |view: &mut NodeView| {
        view.batches.get_mut(&BatchNo(1)).unwrap().base = None;
        view.apps.clear();
    };
    assert_eq!(changed(unpublished), ["app_missing"]);
    let mut view = holder();
    view.apps.clear();
    let report = judge(&ledger(), &[view], &[]);
    let text = report.findings[0].to_string();
    assert!(
        text.contains("owes application x 4 messages in 1 batches"),
        "{text}"
    );
    assert!(report.apps.is_empty());

    let mut later = ledger();
    let apps = BTreeMap::from([
        ("x".to_owned(), TermsVersion(1)),
        ("y".to_owned(), TermsVersion(2)),
    ]);
    let terms = Terms {
        version: TermsVersion(2),
        apps,
        ..later.fold.terms().clone()
    };
    let record = Record {
        witness: Witness::default(),
        body: Body::Terms(terms),
    };
    let subject = record.subject();
    later
        .fold
        .apply(LedgerSeq(5), &subject, &record.encode())
        .unwrap();
    let report = judge(&later, &[holder()], &[]);
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    assert_eq!(report.apps.keys().collect::<Vec<_>>(), ["x"]);
}

/// Goal: what the ledger calls done the node has done, and nobody keeps what is done; but only as far as the node had read this ledger.
/// Method: a ledger that reports the batch, at the node's position and at none, of this ledger and of another one.
#[test]
fn done_by_the_ledger_and_not_by_the_node_is_found() {
    let report = |created_ns: u64, known: bool, change: &dyn Fn(&mut NodeView)| {
        let mut folded = ledger();
        folded.info.created_ns = 5;
        if known {
            folded.done_at.insert(NODE, SeqSet::range(1, 1));
        }
        let mut view = holder();
        view.ledger_created_ns = created_ns;
        change(&mut view);
        let report = judge(&folded, &[view], &[]);
        report.findings.iter().map(Finding::kind).collect::<Vec<_>>()
    };
    assert_eq!(report(5, true, &|_| ()), ["done_differs"], "kept, and not done");
    assert!(report(5, false, &|_| ()).is_empty(), "reported later");
    assert!(report(6, true, &|_| ()).is_empty(), "another ledger");
    let forgotten = |view: &mut NodeView| {
        view.batches.clear();
        view.head = None;
    };
    assert_eq!(report(5, true, &forgotten), ["not_held", "done_differs"]);
    let done = |view: &mut NodeView| {
        view.batches.clear();
        view.done = SeqSet::range(1, 1);
    };
    assert!(report(5, true, &done).is_empty());
    let both = |view: &mut NodeView| view.done = SeqSet::range(1, 1);
    assert_eq!(report(5, false, &both), ["done_differs"], "done, and kept");
}

/// Goal: each number of an application that does not fit the others is found. Method: change one at a time.
#[test]
fn accounts_that_do_not_add_up_are_found() {
    use fanin_proto::v1::{HeldMessage, SeqRange};
    assert_eq!(changed(|view| view.head = Some(Offset(13))), ["app_differs"]);
    assert_eq!(changed(|view| view.apps[0].backlog = Some(1)), ["app_differs"]);
    assert_eq!(
        changed(|view| view.apps[0].seen_offset = Some(15)),
        ["app_differs"]
    );
    let untold = |view: &mut NodeView| (view.apps[0].seen_offset, view.apps[0].backlog) = (None, None);
    assert!(changed(untold).is_empty(), "a file of an earlier version");
    let behind = |view: &mut NodeView| {
        (view.apps[0].floor_offset, view.apps[0].backlog) = (9, Some(4));
    };
    assert_eq!(changed(behind), ["app_differs"], "offset 9 is nowhere");
    let ahead = |view: &mut NodeView| view.apps[0].finished[0] = SeqRange { first: 13, last: 14 };
    assert_eq!(changed(ahead), ["app_differs"], "offset 14 is not published");
    let in_hand = |offset| HeldMessage {
        offset,
        instance: "i".to_owned(),
        begun: false,
    };
    let held = |offsets: &[u64]| {
        let held = offsets.iter().copied().map(in_hand).collect();
        changed(|view| view.apps[0].held = held)
    };
    assert!(held(&[11, 12]).is_empty());
    assert_eq!(held(&[11, 13]), ["app_differs"], "finished");
    assert_eq!(held(&[11, 11]), ["app_differs"], "twice");
}
