//! Ledger records, the fold over ledgers that hostile or faulty writers made, its state, and checkpoints in parts.

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

use super::Input;
use crate::measured;

/// Bytes in memory for a byte on the wire: a source of the terms is 14 bytes and becomes a node of a tree.
pub const FACTOR: u64 = 256;

/// Most records of one ledger.
pub const RECORDS_MAX: usize = 40;

/// Most records below a checkpoint.
pub const CHECKPOINT_RECORDS_MAX: usize = 12;

/// Most pieces that come of one checkpoint.
const PIECES_MAX: usize = 16;

/// Most bytes of a record's subject.
const SUBJECT_BYTES_MAX: usize = 300;

const SOURCE: Incarnation = Incarnation(7);

/// A record is refused, or is a record.
///
/// # Panics
/// When neither holds.
pub fn record(bytes: &[u8]) {
    if let Ok(read) = measured(bytes.len(), FACTOR, || Record::decode(bytes)) {
        // Two encodings of one record are no harm: everybody hashes the bytes as they stand in the ledger.
        assert_eq!(Record::decode(&read.encode()), Ok(read.clone()));
        assert!(read.subject().len() <= SUBJECT_BYTES_MAX);
    }
}

/// A set has one encoding, and reading one costs what it is worth.
///
/// # Panics
/// When that does not hold.
pub fn seq_set(bytes: &[u8], ranges_max: usize) {
    // A range is two bytes on the wire, and sixteen in a list that doubles.
    if let Ok(set) = measured(bytes.len(), 32, || SeqSet::decode(bytes, ranges_max)) {
        assert_eq!(set.encode(), bytes);
        assert!(set.ranges().len() <= ranges_max);
        assert!(set.ranges().windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
        assert!(set.len() >= set.ranges().len() as u64);
        assert!(set.difference(&set).is_empty() && set.is_superset(&set));
    }
}

/// One step of writers that know the rules and keep to few names, so that their records concern each other.
#[derive(Clone, Debug)]
pub enum Step {
    /// A life of a node begins.
    Epoch(u128, NodeState),
    /// Node, batch, sequences, whether in the newest epoch.
    Claim(u128, u64, SeqSet, bool),
    /// A watermark.
    Close(u64),
    /// What a node has done.
    Progress(u128, SeqSet),
    /// New terms, with or without an application.
    Terms(bool),
    /// The checkpoint of the fold so far, perhaps with another hash.
    Checkpoint(bool),
    /// A record of no plan.
    Any(Box<Record>),
    /// Bytes, and whether on the subject that they name.
    Bytes(Vec<u8>, bool),
}

impl Step {
    fn read(input: &mut Input<'_>) -> Step {
        let node = |input: &mut Input<'_>| u128::from(input.byte() % 3) + 1;
        match input.byte() % 18 {
            0..=2 => {
                let state = match input.byte() % 8 {
                    0 => NodeState::Draining,
                    1 => NodeState::Evacuated,
                    _ => NodeState::Active,
                };
                Step::Epoch(node(input), state)
            }
            3..=9 => Step::Claim(
                node(input),
                u64::from(input.byte() % 6),
                seqs(input),
                !input.byte().is_multiple_of(8),
            ),
            10..=11 => Step::Close(input.number()),
            12..=13 => Step::Progress(node(input), seqs(input)),
            14 => Step::Terms(input.byte().is_multiple_of(2)),
            15 => Step::Checkpoint(input.byte().is_multiple_of(2)),
            _ => Step::Bytes(input.bytes().to_vec(), !input.byte().is_multiple_of(4)),
        }
    }
}

/// Any small set that a writer can hold: below the largest number, which has no successor.
fn seqs(input: &mut Input<'_>) -> SeqSet {
    let mut set = SeqSet::new();
    for _ in 0..input.byte() % 4 {
        let (first, more) = (input.number(), input.number());
        set.insert_range(
            first.min(u64::MAX - 1),
            first.saturating_add(more).min(u64::MAX - 1),
        );
    }
    set
}

fn steps(input: &mut Input<'_>, most: usize) -> Vec<Step> {
    let mut steps = Vec::new();
    while steps.len() < most && !input.is_empty() {
        steps.push(Step::read(input));
    }
    steps
}

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
///
/// # Panics
/// When something does not hold.
#[must_use]
pub fn folded(steps: &[Step]) -> Fold {
    let mut fold = Fold::new();
    let genesis = Record {
        witness: Witness::default(),
        body: Body::Genesis(Genesis {
            rules: 1,
            features: [].into(),
        }),
    };
    fold.apply(LedgerSeq(1), "gen", &genesis.encode()).unwrap();
    let (subject, bytes) = written(&Step::Terms(true), &fold);
    fold.apply(LedgerSeq(2), &subject, &bytes).unwrap();
    for step in steps {
        let (subject, bytes) = written(step, &fold);
        let before = fold.clone();
        let position = LedgerSeq(fold.position().0 + 1);
        match fold.apply(position, &subject, &bytes) {
            Ok(_) => assert_eq!(fold.position(), position),
            // A mapping halts here; that the rest is folded nevertheless only makes more ledgers.
            Err(ApplyError::Halt(_)) => assert!(fold == before, "a refused record changed the fold"),
            Err(gap @ ApplyError::Gap { .. }) => panic!("{gap:?}"),
        }
        check_fold(&fold).unwrap();
    }
    fold
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

/// No ledger breaks the fold, and its state is read back whole.
///
/// # Panics
/// When one does.
pub fn ledger(steps: &[Step]) {
    let fold = folded(steps);
    let state = fold.encode();
    let read = measured(state.len(), FACTOR, || Fold::decode(&state)).unwrap();
    assert_eq!(read.hash(), fold.hash());
    check_agree(&read, &fold).unwrap();
    check_fold(&read).unwrap();
    assert!(folded(steps) == fold, "two folds of one ledger differ");
}

/// A state is refused, or is a state from which records can be taken.
///
/// # Panics
/// When neither holds.
pub fn state(bytes: &[u8]) {
    if let Ok(read) = measured(bytes.len(), FACTOR, || Fold::decode(bytes)) {
        let again = Fold::decode(&read.encode());
        assert!(
            again.is_ok_and(|again| again.encode() == read.encode()),
            "a state that was read is not read again"
        );
        go_on(read);
    }
}

/// One part of a checkpoint as it comes: which, what is wrong with it, where, and another byte. Places are taken modulo.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// Which part.
    pub which: u64,
    /// 0 the position, 1 the hash, 2 the count, 3 a byte; otherwise nothing.
    pub fault: u8,
    /// Where that byte stands.
    pub at: u64,
    /// What stands there instead.
    pub byte: u8,
}

/// Whatever parts come in whatever order: what loads is the state that the hash names.
///
/// # Panics
/// When another state loads.
pub fn parts(steps: &[Step], cuts: usize, order: &[Piece]) {
    let fold = folded(steps);
    let state = fold.encode();
    let len = state.len().div_ceil(cuts.max(1)).max(1);
    let pieces: Vec<&[u8]> = state.chunks(len).collect();
    let mut assembler = Assembler::default();
    for piece in order {
        let number = (piece.which % pieces.len() as u64) as usize;
        let mut part = CheckpointPart {
            position: fold.position(),
            hash: fold.hash(),
            part: number as u32,
            parts: pieces.len() as u32,
            bytes: pieces[number].to_vec(),
        };
        match piece.fault {
            0 => part.position = LedgerSeq(u64::from(piece.byte)),
            1 => part.hash = Hash128(u128::from(piece.byte)),
            2 => part.parts += 1,
            3 if !part.bytes.is_empty() => {
                let at = (piece.at % part.bytes.len() as u64) as usize;
                part.bytes[at] = piece.byte;
            }
            _ => {}
        }
        assembler.add(part);
    }
    if let Some(Ok(loaded)) = assembler.best().map(|complete| complete.load()) {
        assert_eq!(loaded.hash(), fold.hash());
        check_agree(&loaded, &fold).unwrap();
    }
}

/// [`ledger`] of steps that are read from raw bytes.
pub fn fold_of(bytes: &[u8]) {
    ledger(&steps(&mut Input::new(bytes), RECORDS_MAX));
}

/// An even first byte: [`parts`]; an odd one: [`state`], of an encoded state with some bytes changed, or of the raw bytes.
pub fn checkpoint_of(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    match input.byte() % 4 {
        0 | 2 => {
            let (cuts, count) = (input.byte() % 5, usize::from(input.byte()) % (PIECES_MAX + 1));
            let order: Vec<Piece> = (0..count)
                .map(|_| Piece {
                    which: u64::from(input.byte()),
                    fault: input.byte() % 8,
                    at: input.number(),
                    byte: input.byte(),
                })
                .collect();
            let steps = steps(&mut input, CHECKPOINT_RECORDS_MAX);
            parts(&steps, usize::from(cuts), &order);
        }
        1 => {
            let faults: Vec<(u64, u8)> = (0..input.byte() % 5)
                .map(|_| (input.number(), input.byte()))
                .collect();
            let mut encoded = folded(&steps(&mut input, CHECKPOINT_RECORDS_MAX)).encode();
            for (at, byte) in faults {
                let at = (at % encoded.len() as u64) as usize;
                encoded[at] = byte;
            }
            state(&encoded);
        }
        _ => state(input.rest()),
    }
}
