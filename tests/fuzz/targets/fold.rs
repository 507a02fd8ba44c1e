//! The fold over ledgers that hostile or faulty writers made, its state, and checkpoints in parts.

use fanin_core::checkpoint::Assembler;
use fanin_core::fold::{ApplyError, Fold};
use fanin_core::hash::Hash128;
use fanin_core::ids::{Attempt, BatchNo, Incarnation, LedgerSeq, NodeUuid, Nonce, StreamSeq, TermsVersion};
use fanin_core::invariants::{check_agree, check_fold};
use fanin_core::record::{
    Body, CheckpointPart, Claim, ClaimKind, Close, EpochRecord, Genesis, NodeState, Progress, Record,
    SourceTerms, Terms, Witness, content_hash,
};
use fanin_core::seq_set::SeqSet;
use fanin_fuzz::{config, faulty, hostile, measured};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::records::{record, seqs};

/// Most records of one ledger.
const RECORDS_MAX: usize = 40;

/// One step of writers that know the rules and keep to few names, so that their records concern each other.
#[derive(Clone, Debug)]
enum Step {
    Epoch(u128, NodeState),
    /// Node, batch, sequences, whether in the newest epoch.
    Claim(u128, u64, SeqSet, bool),
    Close(u64),
    Progress(u128, SeqSet),
    Terms(bool),
    /// The checkpoint of the fold so far, perhaps with another hash.
    Checkpoint(bool),
    /// A record of no plan.
    Any(Record),
    /// Bytes, and whether on the subject that they name.
    Bytes(Vec<u8>, bool),
}

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
        1 => record().prop_map(Step::Any),
        1 => (hostile(record().prop_map(|record| record.encode())), any::<bool>())
            .prop_map(|(bytes, placed)| Step::Bytes(bytes, placed)),
    ];
    step.boxed()
}

const SOURCE: Incarnation = Incarnation(7);

fn terms(fold: &Fold, with_app: bool) -> Body {
    let version = TermsVersion(fold.terms().version.0 + 1);
    let source = SourceTerms {
        stream: "S".to_owned(),
        filters: Vec::new(),
    };
    Body::Terms(Terms {
        version,
        sources: [(SOURCE, source)].into(),
        apps: with_app.then(|| ("a".to_owned(), version)).into_iter().collect(),
    })
}

/// The bytes of a step on the ledger as it is, with their subject.
fn written(step: &Step, fold: &Fold) -> (String, Vec<u8>) {
    let version = fold.terms().version;
    let epoch_of = |node: u128| {
        fold.nodes()
            .get(&NodeUuid(node))
            .map(|entry| entry.epoch)
            .unwrap_or_default()
    };
    let mut witness = fold.witness();
    let body = match step {
        Step::Epoch(node, state) => Body::Epoch(EpochRecord {
            node_uuid: NodeUuid(*node),
            // Two data directories share a name.
            node: format!("n{}", node % 2),
            nonce: Nonce(1),
            hosts: ["a".to_owned()].into(),
            state: *state,
        }),
        Step::Claim(node, batch, seqs, new) => Body::Claim(Claim {
            node_uuid: NodeUuid(*node),
            epoch: if *new { epoch_of(*node) } else { LedgerSeq(1) },
            batch: BatchNo(*batch),
            attempt: Attempt(1),
            content_hash: content_hash(SOURCE, seqs, ClaimKind::Normal, (0, 0)),
            incarnation: SOURCE,
            seqs: seqs.clone(),
            terms: version,
            kind: ClaimKind::Normal,
            published_ns: (0, 0),
        }),
        Step::Close(through) => Body::Close(Close {
            incarnation: SOURCE,
            through: StreamSeq(*through),
            terms: version,
            ..Close::default()
        }),
        Step::Progress(node, done) => Body::Progress(Progress {
            node_uuid: NodeUuid(*node),
            epoch: epoch_of(*node),
            done: done.clone(),
        }),
        Step::Terms(with_app) => terms(fold, *with_app),
        Step::Checkpoint(honest) => Body::Checkpoint(CheckpointPart {
            position: fold.position(),
            hash: if *honest { fold.hash() } else { Hash128(1) },
            part: 0,
            parts: 1,
            bytes: fold.encode(),
        }),
        Step::Any(record) => {
            witness = record.witness;
            record.body.clone()
        }
        Step::Bytes(bytes, placed) => {
            let subject = match Record::decode(bytes) {
                Ok(record) if *placed => record.subject(),
                Ok(_) | Err(_) => "claim.x".to_owned(),
            };
            return (subject, bytes.clone());
        }
    };
    let record = Record { witness, body };
    (record.subject(), record.encode())
}

/// Folds what the steps write, and checks everything that must hold after each record.
fn folded(steps: &[Step]) -> Result<Fold, TestCaseError> {
    let mut fold = Fold::new();
    let genesis = Record {
        witness: Witness::default(),
        body: Body::Genesis(Genesis {
            rules: 1,
            features: [].into(),
        }),
    };
    prop_assert!(fold.apply(LedgerSeq(1), "gen", &genesis.encode()).is_ok());
    let (subject, bytes) = written(&Step::Terms(true), &fold);
    prop_assert!(fold.apply(LedgerSeq(2), &subject, &bytes).is_ok());
    for step in steps {
        let (subject, bytes) = written(step, &fold);
        let before = fold.clone();
        let position = LedgerSeq(fold.position().0 + 1);
        match fold.apply(position, &subject, &bytes) {
            Ok(_) => prop_assert_eq!(fold.position(), position),
            // A mapping halts here; that the rest is folded nevertheless only makes more ledgers.
            Err(ApplyError::Halt(_)) => prop_assert!(fold == before, "a refused record changed the fold"),
            Err(gap @ ApplyError::Gap { .. }) => prop_assert!(false, "{gap:?}"),
        }
        check_fold(&fold).map_err(TestCaseError::fail)?;
    }
    Ok(fold)
}

/// What a reader makes of a state: it takes more records, whatever the state says.
fn go_on(mut fold: Fold) {
    for step in [
        Step::Epoch(1, NodeState::Active),
        Step::Claim(1, 9, SeqSet::range(1, 100), true),
        Step::Close(50),
        Step::Progress(1, SeqSet::range(1, u64::MAX - 1)),
        Step::Close(u64::MAX - 1),
    ] {
        let (subject, bytes) = written(&step, &fold);
        let position = LedgerSeq(fold.position().0.saturating_add(1));
        // Whether a state from elsewhere admits them is not asked.
        let _ = fold.apply(position, &subject, &bytes);
    }
}

proptest! {
    #![proptest_config(config(2))]

    /// No ledger breaks the fold, and its state is read back whole.
    #[test]
    fn ledgers(steps in prop::collection::vec(step(), 0..RECORDS_MAX)) {
        let fold = folded(&steps)?;
        let state = fold.encode();
        let read = measured(state.len(), 256, || Fold::decode(&state)).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(read.hash(), fold.hash());
        check_agree(&read, &fold).map_err(TestCaseError::fail)?;
        check_fold(&read).map_err(TestCaseError::fail)?;
        let again = folded(&steps)?;
        prop_assert!(again == fold, "two folds of one ledger differ");
    }

    /// A state with faults is refused, or is a state from which records can be taken.
    #[test]
    fn states_with_faults(
        steps in prop::collection::vec(step(), 0..12),
        other in faulty(Just(vec![0; 64])),
        faults in prop::collection::vec((any::<Index>(), any::<u8>()), 0..4),
    ) {
        let mut state = folded(&steps)?.encode();
        for (at, byte) in &faults {
            let at = at.index(state.len());
            state[at] = *byte;
        }
        for bytes in [&state, &other] {
            if let Ok(read) = measured(bytes.len(), 256, || Fold::decode(bytes)) {
                let again = Fold::decode(&read.encode());
                prop_assert!(again.is_ok_and(|again| again.encode() == read.encode()), "a state that was read is not read again");
                go_on(read);
            }
        }
    }

    /// Whatever parts come in whatever order: what loads is the state that the hash names.
    #[test]
    fn parts_of_checkpoints(
        steps in prop::collection::vec(step(), 0..12),
        cuts in 1_u32..5,
        order in prop::collection::vec((any::<Index>(), 0_u8..8, any::<Index>(), any::<u8>()), 0..16),
    ) {
        let fold = folded(&steps)?;
        let state = fold.encode();
        let piece = state.len().div_ceil(cuts as usize).max(1);
        let pieces: Vec<&[u8]> = state.chunks(piece).collect();
        let mut assembler = Assembler::default();
        for (which, fault, at, byte) in &order {
            let number = which.index(pieces.len());
            let mut part = CheckpointPart {
                position: fold.position(),
                hash: fold.hash(),
                part: number as u32,
                parts: pieces.len() as u32,
                bytes: pieces[number].to_vec(),
            };
            match fault {
                0 => part.position = LedgerSeq(u64::from(*byte)),
                1 => part.hash = Hash128(u128::from(*byte)),
                2 => part.parts += 1,
                3 if !part.bytes.is_empty() => {
                    let at = at.index(part.bytes.len());
                    part.bytes[at] = *byte;
                }
                _ => {}
            }
            assembler.add(part);
        }
        if let Some(Ok(loaded)) = assembler.best().map(|complete| complete.load()) {
            prop_assert_eq!(loaded.hash(), fold.hash());
            check_agree(&loaded, &fold).map_err(TestCaseError::fail)?;
        }
    }
}
