//! Goal: what a node must refuse or survive at the edges: records nobody can read, settling too early, numbers too large, a
//! crash between two small writes. Method: as in `attacks`.

mod support;

use fanin_core::effect::Effect;
use fanin_core::fold::{ApplyError, Fold, Halt};
use fanin_core::ids::{BatchNo, LedgerSeq, StreamSeq};
use fanin_core::input::Input;
use fanin_core::record::{Body as RecordBody, Record, Witness};
use support::{A, B, INC, World, names};

/// P10: what cannot be read halts, and the fold stays as it was.
#[test]
fn p10_unknown_records_halt() {
    let w = World::started(1, 0);
    let fold = w.node(A).fold().clone();
    let at = fold.position().next();
    let halted = |subject: &str, bytes: &[u8]| {
        let mut fold = fold.clone();
        let before = fold.clone();
        let error = fold.apply(at, subject, bytes).expect_err("halts");
        assert_eq!(fold, before);
        error
    };
    assert!(matches!(
        halted("close", b"\x08\x02"),
        ApplyError::Halt(Halt::UnknownRecord { .. })
    ));
    let close = support::record(RecordBody::Close(Default::default()));
    assert!(matches!(
        halted("terms", &close.encode()),
        ApplyError::Halt(Halt::WrongSubject { .. })
    ));
    let ahead = Witness {
        position: at,
        hash: fold.witness().hash,
    };
    let close = Record {
        witness: ahead,
        ..close
    };
    assert!(matches!(
        halted("close", &close.encode()),
        ApplyError::Halt(Halt::LedgerShrank { .. })
    ));
    let handoff = support::record(RecordBody::Handoff(Default::default()));
    assert!(matches!(
        halted(&handoff.subject(), &handoff.encode()),
        ApplyError::Halt(Halt::Reserved { .. })
    ));
    let rules = fanin_core::record::Genesis {
        rules: 2,
        ..Default::default()
    };
    let genesis = support::record(RecordBody::Genesis(rules));
    assert!(matches!(
        halted("gen", &genesis.encode()),
        ApplyError::Halt(Halt::UnsupportedRules { .. })
    ));
    let rules = fanin_core::record::Genesis {
        rules: 1,
        features: names(&["later"]),
    };
    let genesis = support::record(RecordBody::Genesis(rules));
    assert!(matches!(
        halted("gen", &genesis.encode()),
        ApplyError::Halt(Halt::UnknownFeature { .. })
    ));
    let error = Fold::new().apply(
        LedgerSeq(1),
        "close",
        &support::record(RecordBody::Close(Default::default())).encode(),
    );
    assert!(matches!(error, Err(ApplyError::Halt(Halt::NoGenesis { .. }))));
}

/// P8: a node that has not reached its own EPOCH settles nothing, though it meets claims it won in an earlier life.
#[test]
fn p8_nothing_is_settled_before_the_own_epoch() {
    let mut w = World::started(1, 2);
    w.stage(A, &[1]);
    w.land(A);
    w.crash(A);
    let epoch = w.boot(A).unwrap();
    w.tail_to(A, LedgerSeq(epoch.0 - 1));
    w.sync(A);
    assert_eq!(w.publishers("x", 1), [A]);
    assert!(w.source.acked.is_empty());
    w.tail_all(A);
    w.fetch(A, &[1]);
    assert_eq!(w.bridges[A].settled, [1]);
}

/// A CLOSE through the largest number is no reason to die.
#[test]
fn close_through_the_largest_sequence() {
    let mut w = World::started(1, 1);
    w.stage(A, &[1]);
    w.run(A);
    let terms = w.truth.fold.terms().version;
    let through = StreamSeq(u64::MAX);
    let close = fanin_core::record::Close {
        incarnation: INC,
        through,
        terms,
        ..Default::default()
    };
    let record = support::record(RecordBody::Close(close));
    let position = w.ledger.last.next();
    let mut node = w.node(A).clone();
    let mut effects = Vec::new();
    let input = Input::Record {
        position,
        subject: record.subject(),
        bytes: record.encode(),
    };
    node.handle(w.now, input, &mut effects);
    assert!(
        matches!(effects[..], [Effect::Halt(Halt::UnknownRecord { .. })]),
        "{effects:?}"
    );
}

/// A crash between a tombstone and the done set: the batch that won nothing is finished when the tail shows it again.
#[test]
fn tombstoned_batch_is_finished_after_a_crash() {
    let mut w = World::started(2, 1);
    w.stage(A, &[1]);
    w.stage(B, &[1]);
    w.run(A);
    w.land(B);
    w.tail_all(B);
    w.crash_keeping(B, 1);
    assert!(w.bridges[B].disk.image.batches[&BatchNo(1)].resolution.is_some());
    w.start(B);
    w.run(B);
    assert!(w.node(B).batches().is_empty());
    assert!(w.bridges[B].disk.image.done.contains(1));
}
