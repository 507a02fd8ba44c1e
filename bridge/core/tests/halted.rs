//! Goal: a halted node delivers what it had won, so it stops at once when another body acts as it, or when it is evacuated (P8),
//! whatever it halted on and wherever it reads of it. Method: as in `findings`; each test halts a node in one way, then lands
//! what fences it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use fanin_core::effect::FenceReason;
use fanin_core::fold::Halt;
use fanin_core::ids::{LedgerSeq, NodeUuid, Nonce};
use fanin_core::input::Input;
use fanin_core::node::Phase;
use fanin_core::record::{Body, EpochRecord, NodeState, Record, Witness, epoch_subject};
use support::{A, B, World, names, record};

fn epoch(uuid: NodeUuid, node: &str, state: NodeState) -> EpochRecord {
    EpochRecord {
        node_uuid: uuid,
        node: node.to_owned(),
        nonce: Nonce(77_000),
        hosts: names(&["x"]),
        state,
    }
}

/// Two nodes, the first halted on a record of a later version, with one message won.
fn halted_by_a_newer_record() -> World {
    let mut w = World::started(2, 2);
    w.stage(A, &[1]);
    w.run_all();
    w.land_bytes("claim.x", b"\x08\x02", None).unwrap();
    w.tail_all(A);
    assert!(matches!(w.phase(A), Phase::Halted(Halt::UnknownRecord { .. })));
    w
}

/// P8: a halted node reads EPOCH records of its uuid, under whatever name, and of its name, and its evacuation; those of others
/// do not concern it.
#[test]
fn p8_a_halted_node_sees_its_fence_in_a_record() {
    let own = NodeUuid(A as u128 + 1);
    let other = NodeUuid(99);
    type Expect = fn(LedgerSeq) -> Option<FenceReason>;
    let table: [(EpochRecord, Expect); 6] = [
        (epoch(own, "n0", NodeState::Active), |epoch| {
            Some(FenceReason::ForeignEpoch { epoch })
        }),
        (epoch(own, "n9", NodeState::Active), |epoch| {
            Some(FenceReason::ForeignEpoch { epoch })
        }),
        (epoch(own, "n0", NodeState::Evacuated), |_| {
            Some(FenceReason::Evacuated)
        }),
        (epoch(other, "n0", NodeState::Active), |epoch| {
            Some(FenceReason::NameTaken { epoch })
        }),
        (epoch(other, "n9", NodeState::Active), |_| None),
        (epoch(other, "n9", NodeState::Evacuated), |_| None),
    ];
    for (body, expected) in table {
        let mut w = halted_by_a_newer_record();
        let halt = w.phase(A).clone();
        let at = w.put(Body::Epoch(body.clone()));
        w.tail_all(A);
        let phase = expected(at).map_or(halt, Phase::Fenced);
        assert_eq!(*w.phase(A), phase, "{body:?}");
    }
}

/// P8, P10: what stands on the node's own epoch subject fences it also when only a later version can read it: also when that is
/// the very record it halts on. The same bytes elsewhere, and an EPOCH on a subject that is not its own, do not.
#[test]
fn p8_an_epoch_of_a_later_version_fences() {
    for halted_before in [true, false] {
        let mut w = if halted_before {
            halted_by_a_newer_record()
        } else {
            World::started(2, 2)
        };
        let put = |w: &mut World, subject: &str, bytes: &[u8]| {
            let at = w.land_bytes(subject, bytes, None).unwrap();
            w.tail_all(A);
            at
        };
        if halted_before {
            put(&mut w, &epoch_subject("n9"), b"\x08\x02");
            let misplaced = record(Body::Epoch(epoch(NodeUuid(1), "n0", NodeState::Active)));
            put(&mut w, "close", &misplaced.encode());
            assert!(matches!(w.phase(A), Phase::Halted(_)));
        }
        let at = put(&mut w, &epoch_subject("n0"), b"\x08\x02");
        assert_eq!(
            *w.phase(A),
            Phase::Fenced(FenceReason::ForeignEpoch { epoch: at })
        );
    }
}

/// P8: whatever a node halts on, it reads on: also behind a gap that no checkpoint covers, after the adapter's word, and with a
/// checkpoint that was asked for before the halt and comes after it.
#[test]
fn p8_every_halt_leaves_the_tail_on() {
    type Break = fn(&mut World);
    let table: [(&str, Break); 3] = [
        ("the source is another one", |w| {
            let stream = "S".to_owned();
            w.step(A, Input::HubBroken(Halt::SourceRecreated { stream }));
        }),
        ("a gap", |w| {
            w.bridges[A].cursor = Some(w.ledger.last.next());
            w.stage(B, &[2]);
            w.run(B);
            w.tail_all(A);
        }),
        ("while a checkpoint is awaited", |w| {
            w.auto_load = false;
            w.bridges[A].cursor = Some(w.ledger.last.next());
            w.stage(B, &[2]);
            w.run(B);
            w.tail_all(A);
            assert!(w.bridges[A].wants_load);
            w.bridges[A].cursor = None;
            w.step(A, Input::HubBroken(Halt::LedgerRecreated));
            w.load(A);
        }),
    ];
    for (what, break_it) in table {
        let mut w = World::started(2, 3);
        w.stage(A, &[1]);
        w.run(A);
        w.stage(B, &[3]);
        w.run(B);
        break_it(&mut w);
        assert!(matches!(w.phase(A), Phase::Halted(_)), "{what}: {:?}", w.phase(A));
        assert!(w.bridges[A].cursor.is_some(), "{what}: nothing is read any more");
        let copy = w.copy_disk(A);
        let epoch = w.boot(copy).unwrap();
        w.tail_all(A);
        assert_eq!(
            *w.phase(A),
            Phase::Fenced(FenceReason::ForeignEpoch { epoch }),
            "{what}"
        );
        // What it was asked to do before is not asked for any more.
        w.later(A, 10_000);
    }
}

/// P8: a halted node sees its fence in a checkpoint too, where the record itself is not met: it asks for each new complete
/// checkpoint, once, and its tail goes on behind what it has looked at.
#[test]
fn p8_a_halted_node_sees_its_fence_in_a_checkpoint() {
    let mut w = World::started(2, 2);
    w.stage(A, &[1]);
    w.run_all();
    let stream = "S".to_owned();
    w.step(A, Input::HubBroken(Halt::SourceRecreated { stream }));
    let loads = w.bridges[A].loads;
    w.checkpoint_by(B);
    w.tail_all(A);
    assert!(matches!(w.phase(A), Phase::Halted(_)), "{:?}", w.phase(A));
    assert_eq!(w.bridges[A].loads, loads + 1);
    assert_eq!(w.bridges[A].cursor, Some(w.ledger.last.next()));

    let copy = w.copy_disk(A);
    let epoch = w.boot(copy).unwrap();
    w.tail_all(B);
    w.checkpoint_by(B);
    // The EPOCH itself is passed over; only the checkpoint tells.
    w.bridges[A].cursor = Some(w.ledger.last);
    w.tail_all(A);
    assert_eq!(*w.phase(A), Phase::Fenced(FenceReason::ForeignEpoch { epoch }));
}

/// P8, P11: an EPOCH whose writer knew another history halts its reader, and fences it as well when it is of this node.
#[test]
fn p8_the_record_that_halts_may_fence() {
    let mut w = World::started(2, 2);
    let witness = Witness {
        position: w.node(A).fold().position(),
        hash: fanin_core::hash::Hash128(1),
    };
    let body = Body::Epoch(epoch(NodeUuid(A as u128 + 1), "n0", NodeState::Active));
    w.tail_all(A);
    let epoch = w.put_record(&Record { witness, body });
    w.tail_all(A);
    assert_eq!(*w.phase(A), Phase::Fenced(FenceReason::ForeignEpoch { epoch }));
}

/// P8: the checkpoint says why: an evacuated node is told so, and not that another process acts as it.
#[test]
fn p8_a_checkpoint_tells_of_an_evacuation() {
    let mut w = World::started(2, 2);
    w.stage(A, &[1]);
    w.run_all();
    let stream = "S".to_owned();
    w.step(A, Input::HubBroken(Halt::SourceRecreated { stream }));
    let own = NodeUuid(A as u128 + 1);
    w.put(Body::Epoch(epoch(own, "n0", NodeState::Evacuated)));
    w.tail_all(B);
    w.checkpoint_by(B);
    // The EPOCH itself is passed over; only the checkpoint tells.
    w.bridges[A].cursor = Some(w.ledger.last);
    w.tail_all(A);
    assert_eq!(*w.phase(A), Phase::Fenced(FenceReason::Evacuated));
}

/// P8: what stands where this process wrote its own EPOCH is its own, readable or not.
#[test]
fn p8_the_own_epoch_fences_nobody() {
    let mut w = World::started(2, 2);
    w.crash(A);
    let epoch = w.boot(A).unwrap();
    w.step(A, Input::HubBroken(Halt::LedgerRecreated));
    let garbage = |position| Input::Record {
        position,
        subject: epoch_subject("n0"),
        bytes: b"\x08\x02".to_vec(),
    };
    w.step(A, garbage(epoch));
    assert_eq!(*w.phase(A), Phase::Halted(Halt::LedgerRecreated));
    let epoch = epoch.next();
    w.step(A, garbage(epoch));
    assert_eq!(*w.phase(A), Phase::Fenced(FenceReason::ForeignEpoch { epoch }));
}
