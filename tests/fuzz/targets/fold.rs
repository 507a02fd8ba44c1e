//! The fold over ledgers that hostile or faulty writers made, its state, and checkpoints in parts.

use fanin_core::record::NodeState;
use fanin_fuzz::judges::ledger::{self, CHECKPOINT_RECORDS_MAX, Piece, RECORDS_MAX, Step};
use fanin_fuzz::{config, faulty, hostile};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::records::{record, seqs};

fn step() -> BoxedStrategy<Step> {
    let node = || 1_u128..4;
    let state = || prop_oneof![6 => Just(NodeState::Active), 1 => Just(NodeState::Draining), 1 => Just(NodeState::Evacuated)];
    let step = prop_oneof![
        3 => (node(), state()).prop_map(|(node, state)| Step::Epoch(node, state)),
        8 => (node(), 1_u64..6, seqs(3), prop::bool::weighted(0.9)).prop_map(|(node, batch, seqs, new)| {
            Step::Claim(node, batch, seqs, new)
        }),
        2 => prop_oneof![0_u64..14, Just(u64::MAX - 1), Just(u64::MAX)].prop_map(Step::Close),
        3 => (node(), seqs(3)).prop_map(|(node, done)| Step::Progress(node, done)),
        1 => any::<bool>().prop_map(Step::Terms),
        1 => any::<bool>().prop_map(Step::Checkpoint),
        1 => record().prop_map(|record| Step::Any(Box::new(record))),
        1 => (hostile(record().prop_map(|record| record.encode())), any::<bool>())
            .prop_map(|(bytes, placed)| Step::Bytes(bytes, placed)),
    ];
    step.boxed()
}

fn piece() -> impl Strategy<Value = Piece> {
    (any::<u64>(), 0_u8..8, any::<u64>(), any::<u8>()).prop_map(|(which, fault, at, byte)| Piece {
        which,
        fault,
        at,
        byte,
    })
}

proptest! {
    #![proptest_config(config(2))]

    #[test]
    fn ledgers(steps in prop::collection::vec(step(), 0..RECORDS_MAX)) {
        ledger::ledger(&steps);
    }

    #[test]
    fn states_with_faults(
        steps in prop::collection::vec(step(), 0..CHECKPOINT_RECORDS_MAX),
        other in faulty(Just(vec![0; 64])),
        faults in prop::collection::vec((any::<Index>(), any::<u8>()), 0..4),
    ) {
        let mut state = ledger::folded(&steps).encode();
        for (at, byte) in &faults {
            let at = at.index(state.len());
            state[at] = *byte;
        }
        ledger::state(&state);
        ledger::state(&other);
    }

    #[test]
    fn parts_of_checkpoints(
        steps in prop::collection::vec(step(), 0..CHECKPOINT_RECORDS_MAX),
        cuts in 1_usize..5,
        order in prop::collection::vec(piece(), 0..16),
    ) {
        ledger::parts(&steps, cuts, &order);
    }
}
