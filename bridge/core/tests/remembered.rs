//! Goal: a node whose earlier life had read further than the ledger goes, or something else than it says, halts instead of
//! going on with a ledger that has lost its end. Method: the few records of a young ledger, fed to a recovered node.

use std::collections::{BTreeMap, BTreeSet};

use fanin_core::effect::Effect;
use fanin_core::fold::{Fold, Halt, RULES};
use fanin_core::hash::Hash128;
use fanin_core::ids::{LedgerSeq, NodeUuid, Nonce, Tick};
use fanin_core::input::Input;
use fanin_core::node::{Identity, Node, Phase, Policy};
use fanin_core::record::{Body, EpochRecord, Genesis, NodeState, Record, Witness};
use fanin_core::recovery::{Disk, recover};

const NONCE: Nonce = Nonce(7);

fn records() -> Vec<Record> {
    let genesis = Genesis {
        rules: RULES,
        features: BTreeSet::new(),
    };
    let epoch = EpochRecord {
        node_uuid: NodeUuid(1),
        node: "n".to_owned(),
        nonce: NONCE,
        hosts: BTreeSet::new(),
        state: NodeState::Active,
    };
    [Body::Genesis(genesis), Body::Epoch(epoch)]
        .map(|body| Record {
            witness: Witness::default(),
            body,
        })
        .into()
}

/// A node that remembers this much, after it has read the two records, of which the second is its own EPOCH.
fn started(remembered: Witness) -> (Node, Vec<Effect>) {
    let identity = Identity {
        uuid: NodeUuid(1),
        name: "n".to_owned(),
        nonce: NONCE,
        hosts: BTreeSet::new(),
        sources: BTreeMap::new(),
    };
    let mut node = recover(identity, Policy::default(), Disk::default());
    node.remember(remembered);
    let mut out = Vec::new();
    node.handle(Tick(0), Input::EpochAppended(LedgerSeq(2)), &mut out);
    node.handle(Tick(0), Input::Checkpoint(None), &mut out);
    for (at, record) in (1..).zip(records()) {
        let input = Input::Record {
            position: LedgerSeq(at),
            subject: record.subject(),
            bytes: record.encode(),
        };
        node.handle(Tick(1), input, &mut out);
    }
    (node, out)
}

#[allow(clippy::unwrap_used, reason = "a record that cannot be folded fails the test")]
fn hash_at_first() -> Hash128 {
    let mut fold = Fold::new();
    let genesis = records().remove(0);
    fold.apply(LedgerSeq(1), &genesis.subject(), &genesis.encode())
        .unwrap();
    fold.witness().hash
}

#[test]
fn the_ledger_it_had_read_is_welcome() {
    for position in [0, 1] {
        let (node, _) = started(Witness {
            position: LedgerSeq(position),
            hash: hash_at_first(),
        });
        assert_eq!(*node.phase(), Phase::Active);
    }
}

#[test]
fn a_ledger_that_has_lost_its_end_halts() {
    // Position 2 is the own new EPOCH: what was read there before is gone, too.
    for position in [2, 3, 9] {
        let (node, out) = started(Witness {
            position: LedgerSeq(position),
            hash: Hash128(5),
        });
        assert!(matches!(
            node.phase(),
            Phase::Halted(Halt::LedgerShrank { .. } | Halt::Diverged { .. })
        ));
        assert!(out.iter().any(|effect| matches!(effect, Effect::Halt(_))));
    }
}

#[test]
fn a_ledger_that_says_something_else_halts() {
    let (node, out) = started(Witness {
        position: LedgerSeq(1),
        hash: Hash128(hash_at_first().0 ^ 1),
    });
    assert!(matches!(node.phase(), Phase::Halted(Halt::Diverged { .. })));
    assert!(!out.iter().any(|effect| matches!(effect, Effect::Joined(_))));
}
