//! Goal: where a message is, is told for each state that it can be in, and what the guarantee does not allow is a finding. Method: a
//! table over a ledger of real records, of which node a has won 1 to 4 in batch 1, and the views that nodes could give.
use fanin_core::ids::{LedgerSeq, Offset, TermsVersion};
use fanin_core::record::{Body, Close, EpochRecord, NodeState, Progress, Record, Witness};
use fanin_core::seq_set::SeqSet;
use fanin_proto::v1::{Attempts, DeadLetterRef, HeldMessage};

use super::super::judge::tests::{NODE, SOURCE, holder, ledger};
use super::*;

const OTHER: NodeUuid = NodeUuid(8);

fn append(folded: &mut Folded, body: Body) {
    let record = Record {
        witness: Witness::default(),
        body,
    };
    let at = folded.fold.position().next();
    folded
        .fold
        .apply(at, &record.subject(), &record.encode())
        .unwrap();
    folded.info.last_seq = at.0;
}

/// The ledger, when a has reported batch 1.
fn reported() -> Folded {
    let mut folded = ledger();
    let progress = Progress {
        node_uuid: NODE,
        epoch: LedgerSeq(2),
        done: SeqSet::range(1, 1),
    };
    append(&mut folded, Body::Progress(progress));
    folded
}

/// The same, when W has passed the batch, and its claim is forgotten.
fn closed() -> Folded {
    let mut folded = reported();
    let close = Close {
        incarnation: SOURCE,
        through: StreamSeq(4),
        terms: TermsVersion(1),
        floor: StreamSeq(4),
        holes: 0,
    };
    append(&mut folded, Body::Close(close));
    assert!(folded.fold.claims().is_empty());
    folded
}

/// The ledger, with an application `y` that entered after the claim.
fn entered() -> Folded {
    let mut folded = ledger();
    let mut terms = folded.fold.terms().clone();
    terms.version = TermsVersion(2);
    terms.apps.insert("y".to_owned(), TermsVersion(2));
    append(&mut folded, Body::Terms(terms));
    folded
}

/// The ledger, with an active node b that has won nothing.
fn joined() -> Folded {
    let mut folded = ledger();
    let epoch = EpochRecord {
        node_uuid: OTHER,
        node: "b".to_owned(),
        nonce: fanin_core::ids::Nonce(2),
        hosts: ["x".to_owned()].into(),
        state: NodeState::Active,
    };
    append(&mut folded, Body::Epoch(epoch));
    folded
}

/// Node a when it has finished the batch and let go of it, and read as far as that.
fn finished() -> NodeView {
    let mut view = holder();
    view.batches.clear();
    view.done = SeqSet::range(1, 1);
    view.apps[0].floor_offset = 14;
    view.apps[0].finished.clear();
    view.apps[0].backlog = Some(0);
    view
}

fn changed(mut view: NodeView, change: impl FnOnce(&mut NodeView)) -> NodeView {
    change(&mut view);
    view
}

fn with_letter(view: NodeView, seq: u64) -> NodeView {
    changed(view, |view| {
        view.apps[0].dead_letters.push(DeadLetterRef {
            id: 5,
            stream: "S".to_owned(),
            incarnation: SOURCE.0,
            seq,
            offset: 0,
            reason: "rejected".to_owned(),
            attempts: 3,
        });
    })
}

/// Node b, which holds what a holds.
fn second() -> NodeView {
    changed(holder(), |view| {
        view.name = "b".to_owned();
        view.uuid = OTHER;
        view.epoch = LedgerSeq(5);
    })
}

/// Node b, which holds nothing.
fn empty() -> NodeView {
    changed(second(), |view| {
        view.batches.clear();
        view.apps.clear();
    })
}

/// What is told of a message: its state in the ledger, what its owner says, its place for each application of each holder, the nodes
/// with dead letters of it, and the kinds of what is wrong.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    state: &'static str,
    owner: OwnerSays,
    places: Vec<String>,
    letters: Vec<String>,
    kinds: Vec<&'static str>,
}

fn told(
    state: &'static str,
    owner: OwnerSays,
    places: &[&str],
    letters: &[&str],
    kinds: &[&'static str],
) -> Told {
    Told {
        state,
        owner,
        places: places.iter().map(|&place| place.to_owned()).collect(),
        letters: letters.iter().map(|&letter| letter.to_owned()).collect(),
        kinds: kinds.to_vec(),
    }
}

fn traced(folded: &Folded, nodes: &[NodeView], seq: u64, is_passed: bool) -> (Traced, Told) {
    let message = Message {
        stream: "S",
        incarnation: SOURCE,
        seq: StreamSeq(seq),
        is_passed,
    };
    let found = trace(folded, nodes, message);
    let places = found.held.iter().flat_map(|held| {
        let apps = held.apps.iter();
        apps.map(|(app, place)| format!("{} {app} {}", held.node, place.word()))
    });
    let letters = found
        .letters
        .iter()
        .map(|letter| format!("{} {} {}", letter.node, letter.app, letter.id));
    let told = Told {
        state: found.ownership.word(),
        owner: found.owner,
        places: places.collect(),
        letters: letters.collect(),
        kinds: found.findings.iter().map(Finding::kind).collect(),
    };
    (found, told)
}

#[test]
fn each_state_is_told() {
    use OwnerSays::{Done, Holds, Lacks, NoOwner, NotAsked, TooNew};
    let in_hand = changed(holder(), |view| {
        view.apps[0].held.push(HeldMessage {
            offset: 11,
            instance: "i".to_owned(),
            begun: true,
        });
        view.apps[0].attempts.push(Attempts {
            offset: 11,
            attempts: 2,
        });
    });
    let late = changed(holder(), |view| {
        let mut y = view.apps[0].clone();
        y.app = "y".to_owned();
        y.since_terms = 2;
        view.apps.push(y);
    });
    let unpublished = changed(holder(), |view| {
        view.batches.get_mut(&BatchNo(1)).unwrap().base = None;
        view.head = None;
        view.apps[0].floor_offset = 0;
        view.apps[0].finished.clear();
        view.apps[0].seen_offset = None;
    });
    let behind = changed(empty_handed(), |view| view.position = LedgerSeq(3));
    let unread = changed(holder(), |view| {
        view.position = LedgerSeq(3);
        view.batches.get_mut(&BatchNo(1)).unwrap().decided = false;
    });
    for (name, folded, nodes, seq, wanted) in [
        (
            "finished",
            ledger(),
            vec![holder()],
            1,
            told("won", Holds, &["a x finished"], &[], &[]),
        ),
        (
            "waiting",
            ledger(),
            vec![holder()],
            2,
            told("won", Holds, &["a x waiting"], &[], &[]),
        ),
        (
            "in hand",
            ledger(),
            vec![in_hand],
            2,
            told("won", Holds, &["a x held"], &[], &[]),
        ),
        (
            "unpublished",
            ledger(),
            vec![unpublished],
            2,
            told("won", Holds, &[], &[], &[]),
        ),
        (
            "entered later",
            entered(),
            vec![late],
            2,
            told("won", Holds, &["a x waiting", "a y not_entitled"], &[], &[]),
        ),
        (
            "dead",
            ledger(),
            vec![with_letter(holder(), 1)],
            1,
            told("won", Holds, &["a x dead_letter"], &["a x 5"], &[]),
        ),
        (
            "another one is dead",
            ledger(),
            vec![with_letter(holder(), 2)],
            1,
            told("won", Holds, &["a x finished"], &[], &[]),
        ),
        (
            "finished, not reported",
            ledger(),
            vec![finished()],
            1,
            told("won", Done, &[], &[], &[]),
        ),
        (
            "dead, finished, not reported",
            ledger(),
            vec![with_letter(finished(), 1)],
            1,
            told("won", Done, &[], &["a x 5"], &[]),
        ),
        (
            "done",
            reported(),
            vec![finished()],
            1,
            told("done", Done, &[], &[], &[]),
        ),
        (
            "dead and done",
            reported(),
            vec![with_letter(finished(), 1)],
            1,
            told("done", Done, &[], &["a x 5"], &[]),
        ),
        (
            "done since it was asked",
            reported(),
            vec![holder()],
            2,
            told("done", Holds, &["a x waiting"], &[], &[]),
        ),
        (
            "closed",
            closed(),
            vec![finished()],
            1,
            told("closed", NoOwner, &[], &[], &[]),
        ),
        (
            "dead and closed",
            closed(),
            vec![with_letter(finished(), 1)],
            1,
            told("closed", NoOwner, &[], &["a x 5"], &[]),
        ),
        (
            "unclaimed",
            ledger(),
            vec![holder()],
            9,
            told("unclaimed", NoOwner, &[], &[], &[]),
        ),
        (
            "not asked",
            ledger(),
            vec![],
            2,
            told("won", NotAsked, &[], &[], &[]),
        ),
        (
            "claimed since it was asked",
            ledger(),
            vec![behind],
            2,
            told("won", TooNew, &[], &[], &[]),
        ),
        (
            "decided since it was asked",
            ledger(),
            vec![unread],
            2,
            told("won", TooNew, &[], &[], &[]),
        ),
        (
            "lost",
            ledger(),
            vec![empty_handed()],
            2,
            told("won", Lacks, &[], &[], &["not_held"]),
        ),
    ] {
        let (_, found) = traced(&folded, &nodes, seq, false);
        assert_eq!(found, wanted, "{name}");
    }
}

/// Node a, which has lost what it won.
fn empty_handed() -> NodeView {
    changed(holder(), |view| {
        view.batches.clear();
        view.apps.clear();
    })
}

#[test]
fn what_is_wrong_is_found() {
    let kinds = |folded: &Folded, nodes: &[NodeView], seq: u64, is_passed: bool| {
        traced(folded, nodes, seq, is_passed).1.kinds
    };
    assert_eq!(kinds(&ledger(), &[empty_handed()], 2, false), ["not_held"]);
    assert_eq!(
        kinds(&ledger(), &[empty_handed()], 9, false),
        [] as [&str; 0],
        "of another message"
    );
    assert_eq!(kinds(&ledger(), &[holder()], 9, true), ["unclaimed"]);
    assert_eq!(kinds(&ledger(), &[holder()], 2, true), [] as [&str; 0]);
    assert_eq!(
        kinds(&closed(), &[finished()], 2, true),
        [] as [&str; 0],
        "below W"
    );
    let mut halted = ledger();
    halted.halt = Some(fanin_core::fold::Halt::LedgerRecreated);
    for seq in [2, 9] {
        assert_eq!(kinds(&halted, &[holder()], seq, false), ["ledger"]);
    }
    let batch = |change: &dyn Fn(&mut BatchView)| {
        let view = changed(holder(), |view| {
            change(view.batches.get_mut(&BatchNo(1)).unwrap())
        });
        kinds(&ledger(), &[view], 2, false)
    };
    assert_eq!(batch(&|batch| batch.state = "damaged".to_owned()), ["damaged"]);
    assert_eq!(batch(&|batch| batch.decided = false), ["won_differs"]);
    assert_eq!(batch(&|batch| batch.seqs = SeqSet::range(1, 3)), ["won_differs"]);
    let unserved = changed(holder(), |view| view.apps.clear());
    assert_eq!(kinds(&ledger(), &[unserved], 2, false), ["app_missing"]);
    let stranger = changed(holder(), |view| view.epoch = LedgerSeq(1));
    assert_eq!(kinds(&ledger(), &[stranger], 2, false), ["stranger"]);
    // The ledger, as far as the node has read it, says that it is done.
    let mut folded = reported();
    folded.info.created_ns = 5;
    folded.done_at.insert(NODE, SeqSet::range(1, 1));
    let same = |view: NodeView| changed(view, |view| view.ledger_created_ns = 5);
    assert_eq!(kinds(&folded, &[same(holder())], 2, false), ["done_differs"]);
    assert_eq!(
        kinds(&folded, &[same(empty_handed())], 2, false),
        ["done_differs"]
    );
    assert_eq!(kinds(&folded, &[same(finished())], 2, false), [] as [&str; 0]);
}

#[test]
fn every_holder_is_shown() {
    let joined = joined();
    let (_, alone) = traced(&joined, &[empty(), holder()], 2, false);
    assert_eq!(alone.kinds, [] as [&str; 0]);
    // The owner's first, whoever was asked first.
    let (found, both) = traced(&joined, &[second(), holder()], 2, false);
    assert_eq!(both.places, ["a x waiting", "b x waiting"]);
    assert_eq!(both.kinds, ["not_claimed", "held_twice"]);
    let text = found.findings[1].to_string();
    assert_eq!(text, "S:2 is held by node a in batch 1 and by node b in batch 1");
    let (_, lost) = traced(&joined, &[second(), empty_handed()], 2, false);
    assert_eq!(lost.owner, OwnerSays::Lacks);
    assert_eq!(lost.kinds, ["not_held", "not_claimed"]);
    let (found, unasked) = traced(&joined, &[second()], 2, false);
    assert_eq!(
        (unasked.owner, found.unreachable),
        (OwnerSays::NotAsked, vec!["a".to_owned()])
    );
    assert_eq!(unasked.kinds, ["not_claimed"]);
    // One node, in two batches.
    let twice = changed(holder(), |view| {
        let mut again = view.batches[&BatchNo(1)].clone();
        again.base = Some(Offset(20));
        view.batches.insert(BatchNo(2), again);
    });
    let (_, twice) = traced(&ledger(), &[twice], 2, false);
    assert_eq!(twice.kinds, ["not_claimed", "held_twice"]);
    // A node that has it staged and not won.
    let staged = changed(second(), |view| {
        let batch = view.batches.get_mut(&BatchNo(1)).unwrap();
        (batch.decided, batch.base) = (false, None);
    });
    let (_, staged) = traced(&joined, &[holder(), staged], 2, false);
    assert_eq!(staged.kinds, [] as [&str; 0]);
}
