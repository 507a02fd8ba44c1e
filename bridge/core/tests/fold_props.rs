//! Goal: the fold is one pure function of the ledger's prefix, gives each message at most one owner, and comes out of any
//! checkpoint as it went in. Method: random ledgers of several writers, valid and void records mixed, folded by the core
//! and by a model that keeps one map entry per message and forgets nothing.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is the failure")]

use std::collections::{BTreeMap, BTreeSet};

use fanin_core::checkpoint::{self, Assembler};
use fanin_core::fold::{ApplyError, ClaimKey, Fold, Folded, Halt, Passed};
use fanin_core::ids::{Attempt, BatchNo, Incarnation, LedgerSeq, NodeUuid, Nonce, StreamSeq, TermsVersion};
use fanin_core::invariants;
use fanin_core::record::{
    Body, CheckpointPart, Claim, ClaimKind, Close, EpochRecord, Genesis, NodeState, Progress, Record,
    SourceTerms, Terms, Witness, content_hash,
};
use fanin_core::seq_set::SeqSet;
use proptest::prelude::*;

/// What a writer does. Numbers name things of a small world: 4 data directories with 3 names, 3 sources, 3 applications.
#[derive(Clone, Debug)]
enum Op {
    Epoch {
        node: u8,
        hosts: u8,
        state: u8,
    },
    Terms {
        apps: u8,
        sources: u8,
    },
    Claim {
        node: u8,
        batch: u64,
        source: u8,
        seqs: BTreeSet<u64>,
        stale_epoch: bool,
        stale_terms: bool,
    },
    Close {
        source: u8,
        through: u64,
        stale_terms: bool,
    },
    Progress {
        node: u8,
        done: BTreeSet<u64>,
    },
    Checkpoint,
}

fn op() -> impl Strategy<Value = Op> {
    let rarely = || prop::bool::weighted(0.1);
    // Mostly hosts of everything and active, so that most claims are valid.
    let hosts = prop_oneof![4 => Just(7_u8), 1 => 0_u8..8];
    let state = prop_oneof![6 => Just(0_u8), 1 => 1_u8..4];
    prop_oneof![
        2 => (0_u8..4, hosts, state).prop_map(|(node, hosts, state)| Op::Epoch { node, hosts, state }),
        1 => (0_u8..8, 0_u8..4).prop_map(|(apps, sources)| Op::Terms { apps, sources }),
        10 => (0_u8..4, 1_u64..9, 0_u8..3, prop::collection::btree_set(1_u64..25, 1..9), rarely(), rarely()).prop_map(
            |(node, batch, source, seqs, stale_epoch, stale_terms)| {
                Op::Claim { node, batch, source, seqs, stale_epoch, stale_terms }
            }
        ),
        2 => (0_u8..3, 1_u64..25, rarely()).prop_map(|(source, through, stale_terms)| {
            Op::Close { source, through, stale_terms }
        }),
        2 => (0_u8..4, prop::collection::btree_set(1_u64..9, 0..6)).prop_map(|(node, done)| Op::Progress { node, done }),
        1 => Just(Op::Checkpoint),
    ]
}

fn uuid(node: u8) -> NodeUuid {
    NodeUuid(u128::from(node) + 1)
}

fn source(source: u8) -> Incarnation {
    Incarnation(u64::from(source) + 0xa0)
}

fn some(bits: u8) -> BTreeSet<String> {
    ["x", "y", "z"]
        .iter()
        .enumerate()
        .filter(|(n, _)| bits & (1 << n) != 0)
        .map(|(_, &app)| app.to_owned())
        .collect()
}

fn terms(version: u32, apps: u8, sources: u8) -> Terms {
    let named = |n: u8| {
        (
            source(n),
            SourceTerms {
                stream: format!("S{n}"),
                filters: Vec::new(),
            },
        )
    };
    Terms {
        version: TermsVersion(version),
        // The first source is always there.
        sources: (0..3)
            .filter(|n| *n == 0 || sources & (1 << (n - 1)) != 0)
            .map(named)
            .collect(),
        apps: some(apps)
            .into_iter()
            .map(|app| (app, TermsVersion(version)))
            .collect(),
    }
}

fn body(fold: &Fold, n: usize, op: &Op) -> Body {
    let in_force = fold.terms().version;
    let named = |stale: bool| {
        if stale {
            TermsVersion(in_force.0.saturating_sub(1))
        } else {
            in_force
        }
    };
    match op {
        Op::Epoch { node, hosts, state } => Body::Epoch(EpochRecord {
            node_uuid: uuid(*node),
            // The last two data directories share a name: one takes it over from the other.
            node: format!("n{}", (*node).min(2)),
            nonce: Nonce(n as u64),
            hosts: some(*hosts),
            state: NodeState::from_code(u32::from(*state)).unwrap(),
        }),
        Op::Terms { apps, sources } => Body::Terms(terms(in_force.0 + 1, *apps, *sources)),
        Op::Claim {
            node,
            batch,
            source: of,
            seqs,
            stale_epoch,
            stale_terms,
        } => {
            let newest = fold
                .nodes()
                .get(&uuid(*node))
                .map(|entry| entry.epoch)
                .unwrap_or_default();
            let seqs: SeqSet = seqs.iter().copied().collect();
            // Newest times that neither rise nor fall with the position.
            let ns = (n as i64, n as i64 + i64::from(*node) * 7);
            Body::Claim(Claim {
                node_uuid: uuid(*node),
                epoch: if *stale_epoch {
                    LedgerSeq(newest.0.saturating_sub(1))
                } else {
                    newest
                },
                batch: BatchNo(*batch),
                attempt: Attempt(1),
                content_hash: content_hash(source(*of), &seqs, ClaimKind::Normal, ns),
                incarnation: source(*of),
                seqs,
                terms: named(*stale_terms),
                kind: ClaimKind::Normal,
                published_ns: ns,
            })
        }
        Op::Close {
            source: of,
            through,
            stale_terms,
        } => Body::Close(Close {
            incarnation: source(*of),
            through: StreamSeq(*through),
            terms: named(*stale_terms),
            ..Close::default()
        }),
        Op::Progress { node, done } => {
            let done = done.iter().copied().collect();
            Body::Progress(Progress {
                node_uuid: uuid(*node),
                epoch: fold.position(),
                done,
            })
        }
        Op::Checkpoint => checkpoint::write(fold).unwrap().remove(0).body,
    }
}

type Ledger = Vec<(String, Vec<u8>)>;

fn apply(fold: &mut Fold, ledger: &Ledger, at: usize) -> Result<Folded, ApplyError> {
    let (subject, bytes) = &ledger[at - 1];
    fold.apply(LedgerSeq(at as u64), subject, bytes)
}

fn folded(ledger: &Ledger, through: usize) -> Fold {
    let mut fold = Fold::new();
    for at in 1..=through {
        apply(&mut fold, ledger, at).unwrap();
    }
    fold
}

/// The ledger of these operations: GENESIS, TERMS 1, an epoch of each of three nodes, then what the writers do.
fn ledger(ops: &[Op]) -> Ledger {
    let start = [Op::Terms { apps: 1, sources: 3 }]
        .into_iter()
        .chain((0..3).map(|node| Op::Epoch {
            node,
            hosts: 7,
            state: 0,
        }));
    let mut fold = Fold::new();
    let mut ledger = Ledger::new();
    let mut land = |fold: &mut Fold, body: Body| {
        let record = Record {
            witness: fold.witness(),
            body,
        };
        ledger.push((record.subject(), record.encode()));
        apply(fold, &ledger, ledger.len()).unwrap();
    };
    land(
        &mut fold,
        Body::Genesis(Genesis {
            rules: 1,
            features: BTreeSet::new(),
        }),
    );
    for (n, op) in start.chain(ops.iter().cloned()).enumerate() {
        let body = body(&fold, n, &op);
        land(&mut fold, body);
    }
    ledger
}

fn ledgers() -> impl Strategy<Value = Ledger> {
    prop::collection::vec(op(), 1..40).prop_map(|ops| ledger(&ops))
}

/// The same rules, written for reading: it keeps everything for ever and looks at single messages.
#[derive(Default)]
struct Model {
    terms: Terms,
    nodes: BTreeMap<NodeUuid, (String, LedgerSeq, BTreeSet<String>, NodeState)>,
    closed: BTreeMap<Incarnation, u64>,
    owner: BTreeMap<(Incarnation, u64), ClaimKey>,
    decided: BTreeSet<ClaimKey>,
    newest_ns: BTreeMap<ClaimKey, i64>,
}

impl Model {
    fn take(&mut self, at: LedgerSeq, record: Record, folded: &Folded) {
        match record.body {
            Body::Terms(body) => {
                assert!(body.version > self.terms.version, "I3");
                for incarnation in body.sources.keys() {
                    self.closed.entry(*incarnation).or_default();
                }
                self.terms = body;
            }
            Body::Epoch(body) => {
                for (other, (name, _, _, state)) in &mut self.nodes {
                    if *other != body.node_uuid && *name == body.node && *state != NodeState::Evacuated {
                        *state = NodeState::Closed;
                    }
                }
                let before = self
                    .nodes
                    .insert(body.node_uuid, (body.node, at, body.hosts, body.state));
                assert!(before.is_none_or(|(_, epoch, _, _)| epoch < at), "I3");
            }
            Body::Claim(body) => self.claim(&body, folded),
            Body::Close(body) => {
                let closed = self.closed.get_mut(&body.incarnation);
                match closed.filter(|w| body.terms == self.terms.version && body.through.0 > **w) {
                    Some(w) => *w = body.through.0,
                    None => assert_eq!(*folded, Folded::CloseVoid),
                }
            }
            Body::Progress(body) => {
                let counts = self
                    .nodes
                    .get(&body.node_uuid)
                    .is_some_and(|node| node.3 != NodeState::Evacuated);
                if counts {
                    self.decided
                        .extend(body.done.iter().map(|batch| ClaimKey::new(body.node_uuid, batch)));
                }
            }
            Body::Genesis(_) | Body::Checkpoint(_) | Body::Handoff(_) => {}
        }
    }

    fn claim(&mut self, claim: &Claim, folded: &Folded) {
        let key = ClaimKey {
            node: claim.node_uuid,
            batch: claim.batch,
        };
        let valid = self
            .nodes
            .get(&claim.node_uuid)
            .is_some_and(|(_, epoch, hosts, state)| {
                let hosted = self.terms.apps.keys().all(|app| hosts.contains(app));
                *epoch == claim.epoch && *state == NodeState::Active && hosted
            });
        if !valid || claim.terms != self.terms.version || !self.terms.sources.contains_key(&claim.incarnation)
        {
            assert!(
                matches!(folded, Folded::ClaimVoid(found, _) if *found == key),
                "{folded:?}"
            );
            return;
        }
        if !self.decided.insert(key) {
            assert_eq!(*folded, Folded::ClaimRepeated(key));
            return;
        }
        self.newest_ns.insert(key, claim.published_ns.1);
        let mut expected = (SeqSet::new(), SeqSet::new());
        for seq in claim.seqs.iter() {
            let at = (claim.incarnation, seq);
            if seq > self.closed[&claim.incarnation] && !self.owner.contains_key(&at) {
                self.owner.insert(at, key);
                expected.0.insert(seq);
            } else {
                expected.1.insert(seq);
            }
        }
        assert_eq!(
            *folded,
            Folded::Claim {
                key,
                won: expected.0,
                lost: expected.1
            }
        );
    }

    fn agrees(&self, fold: &Fold) {
        for (&(incarnation, seq), &owner) in &self.owner {
            let above = seq > self.closed[&incarnation];
            assert_eq!(
                fold.owner(incarnation, StreamSeq(seq)),
                above.then_some(owner),
                "I1, I2: {incarnation} {seq}"
            );
        }
        let open: u64 = fold
            .watermarks()
            .keys()
            .filter_map(|&of| fold.owners(of))
            .flat_map(|owners| {
                owners
                    .from(StreamSeq(0))
                    .map(|(first, last, _)| last.0 - first.0 + 1)
            })
            .sum();
        let expected = self
            .owner
            .keys()
            .filter(|(of, seq)| *seq > self.closed[of])
            .count();
        assert_eq!(open, expected as u64, "nothing is owned that nobody won");
        assert!(fold.watermarks().iter().all(|(of, w)| self.closed[of] == w.0));
        for (&of, &w) in &self.closed {
            let below = self.owner.range((of, 0)..=(of, w));
            let below: Vec<_> = below.map(|((_, seq), key)| (*seq, self.newest_ns[key])).collect();
            let expected = Passed {
                claimed_through: StreamSeq(below.iter().map(|&(seq, _)| seq).max().unwrap_or(0)),
                newest_ns: below.iter().map(|&(_, ns)| ns).max().unwrap_or(0),
            };
            assert_eq!(fold.passed(of), expected, "{of}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    /// P2, P6, P8, P9; I1, I2, I3: the fold decides as the model does. A record met again changes nothing.
    #[test]
    fn fold_decides_as_the_rules_say(ledger in ledgers()) {
        let mut fold = Fold::new();
        let mut model = Model::default();
        for at in 1..=ledger.len() {
            let before = fold.clone();
            let folded = apply(&mut fold, &ledger, at).unwrap();
            model.take(LedgerSeq(at as u64), Record::decode(&ledger[at - 1].1).unwrap(), &folded);
            model.agrees(&fold);
            invariants::check_fold(&fold).map_err(TestCaseError::fail)?;
            let after = fold.clone();
            for repeated in [at, 1, at.div_ceil(2)] {
                prop_assert_eq!(apply(&mut fold, &ledger, repeated), Ok(Folded::Repeat));
            }
            prop_assert_eq!(&fold, &after);
            if at < ledger.len() - 1 {
                let gap = apply(&mut fold, &ledger, at + 2).unwrap_err();
                let expected = ApplyError::Gap { expected: LedgerSeq(at as u64 + 1), found: LedgerSeq(at as u64 + 2) };
                prop_assert_eq!(gap, expected);
                prop_assert_eq!(&fold, &after);
            }
            prop_assert!(before.position() < fold.position());
        }
    }

    /// P7; I4, I11: whoever loads a checkpoint of any position and reads the rest has the state of one who read it all, at
    /// every position behind it. The state's bytes are canonical.
    #[test]
    fn checkpoint_anywhere_and_the_rest(ledger in ledgers()) {
        let all: Vec<Fold> = (0..=ledger.len()).map(|through| folded(&ledger, through)).collect();
        for from in 1..=ledger.len() {
            let mut assembler = Assembler::default();
            for record in checkpoint::write(&all[from]).unwrap() {
                let Body::Checkpoint(part) = Record::decode(&record.encode()).unwrap().body else { panic!("a checkpoint") };
                assembler.add(part);
            }
            let mut fold = assembler.best().unwrap().load().unwrap();
            prop_assert_eq!(Fold::decode(&fold.encode()).unwrap().encode(), all[from].encode());
            for at in from..=ledger.len() {
                if at > from {
                    let (expected, found) = (apply(&mut all[at - 1].clone(), &ledger, at), apply(&mut fold, &ledger, at));
                    prop_assert_eq!(expected, found, "at {}, loaded at {}", at, from);
                }
                prop_assert_eq!(fold.encode(), all[at].encode(), "at {}, loaded at {}", at, from);
                prop_assert_eq!(fold.hash(), all[at].hash());
                prop_assert_eq!(fold.owners(source(0)), all[at].owners(source(0)));
                invariants::check_agree(&fold, &all[at]).map_err(TestCaseError::fail)?;
            }
        }
    }

    /// P7: parts come in any order, twice, and mixed with those of another checkpoint. The best is the complete one with the
    /// highest position; one that lacks a part is never loaded.
    #[test]
    fn parts_in_any_order(
        ledger in ledgers(),
        cuts in prop::collection::vec(1_usize..40, 2),
        order in prop::collection::vec(any::<prop::sample::Index>(), 120),
        lacking in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let newest = folded(&ledger, ledger.len());
        let older = folded(&ledger, ledger.len().div_ceil(2));
        let split = |fold: &Fold, size: usize| -> Vec<CheckpointPart> {
            let state = fold.encode();
            let pieces: Vec<_> = state.chunks(state.len().div_ceil(size)).collect();
            let parts = pieces.len() as u32;
            pieces.iter().zip(0..).map(|(bytes, part)| {
                CheckpointPart { position: fold.position(), hash: fold.hash(), part, parts, bytes: bytes.to_vec() }
            }).collect()
        };
        let mut new_parts = split(&newest, cuts[0]);
        if let Some(index) = &lacking {
            new_parts.remove(index.index(new_parts.len()));
        }
        let mut parts: Vec<_> = new_parts.into_iter().chain(split(&older, cuts[1])).collect();
        let mut assembler = Assembler::default();
        for index in order {
            if parts.is_empty() {
                break;
            }
            let part = parts.remove(index.index(parts.len()));
            assembler.add(part.clone());
            assembler.add(part);
        }
        prop_assert!(parts.is_empty());
        let best = assembler.best().unwrap().load().unwrap();
        prop_assert_eq!(best.encode(), if lacking.is_some() { older.encode() } else { newest.encode() });
    }

    /// P11: two ledgers that differ in one record, even in one that changes nobody's state, are told apart by the next
    /// record that crosses over, and by a checkpoint.
    #[test]
    fn different_histories_are_detected(ledger in ledgers(), index in any::<prop::sample::Index>(), more in 0_usize..5) {
        // An alien record that means nothing: progress of nobody.
        let nobody = Progress { node_uuid: NodeUuid(99), epoch: LedgerSeq(1), done: SeqSet::new() };
        let nothing = |witness| Record { witness, body: Body::Progress(nobody.clone()) };
        let common = 1 + index.index(ledger.len());
        let mut ours = folded(&ledger, common);
        let mut theirs = ours.clone();
        let at = ours.position().next();
        let land = |fold: &mut Fold, record: &Record| {
            let position = fold.position().next();
            fold.apply(position, &record.subject(), &record.encode())
        };
        let witnessed = nothing(ours.witness());
        land(&mut ours, &witnessed).unwrap();
        land(&mut theirs, &nothing(Witness::default())).unwrap();
        prop_assert_eq!(ours.position(), at);
        prop_assert_ne!(ours.hash(), theirs.hash());
        for _ in 0..more {
            land(&mut ours, &nothing(Witness::default())).unwrap();
            land(&mut theirs, &nothing(Witness::default())).unwrap();
        }
        land(&mut ours, &nothing(Witness::default())).unwrap();
        let before = ours.clone();
        let witness = theirs.witness();
        for record in [nothing(witness), checkpoint::write(&theirs).unwrap().remove(0)] {
            let halt = land(&mut ours, &record);
            prop_assert!(
                matches!(halt, Err(ApplyError::Halt(Halt::Diverged { position, .. })) if position == witness.position),
                "{:?}", halt
            );
            prop_assert_eq!(&ours, &before);
        }
    }
}
