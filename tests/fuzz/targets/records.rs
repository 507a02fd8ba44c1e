//! Ledger records and the sets in them.

use std::collections::{BTreeMap, BTreeSet};

use fanin_core::hash::Hash128;
use fanin_core::ids::{Attempt, BatchNo, Incarnation, LedgerSeq, NodeUuid, Nonce, StreamSeq, TermsVersion};
use fanin_core::record::{
    Body, CheckpointPart, Claim, ClaimKind, Close, EpochRecord, Genesis, Handoff, NodeState, Progress,
    Record, SourceTerms, Terms, Witness, content_hash,
};
use fanin_core::seq_set::SeqSet;
use fanin_fuzz::judges::ledger::FACTOR;
use fanin_fuzz::{config, faulty, hostile, judges, measured, number};
use proptest::prelude::*;

fn name() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[a-c]", 1 => "[a-z.*>é ]{0,12}", 1 => Just("x".repeat(256)), 1 => Just("x".repeat(257))]
}

/// Any set that a writer can hold: below the largest number, which has no successor.
pub(crate) fn seqs(len: usize) -> impl Strategy<Value = SeqSet> {
    let range = (number(), prop_oneof![4 => 0_u64..4, 1 => number()]);
    prop::collection::vec(range, 0..=len).prop_map(|ranges| {
        let mut set = SeqSet::new();
        for (first, more) in ranges {
            set.insert_range(
                first.min(u64::MAX - 1),
                first.saturating_add(more).min(u64::MAX - 1),
            );
        }
        set
    })
}

fn kind() -> impl Strategy<Value = ClaimKind> {
    (0_u32..4).prop_map(|code| ClaimKind::from_code(code).unwrap())
}

fn state() -> impl Strategy<Value = NodeState> {
    (0_u32..4).prop_map(|code| NodeState::from_code(code).unwrap())
}

fn node() -> impl Strategy<Value = NodeUuid> {
    prop_oneof![4 => 0_u128..3, 1 => any::<u128>()].prop_map(NodeUuid)
}

fn claim() -> impl Strategy<Value = Claim> {
    let times = prop_oneof![Just((0, 0)), any::<(i64, i64)>()];
    (
        node(),
        number(),
        number(),
        any::<u32>(),
        number(),
        seqs(6),
        kind(),
        times,
        number(),
    )
        .prop_map(
            |(node_uuid, epoch, batch, attempt, incarnation, seqs, kind, published_ns, terms)| Claim {
                node_uuid,
                epoch: LedgerSeq(epoch),
                batch: BatchNo(batch),
                attempt: Attempt(attempt),
                content_hash: content_hash(Incarnation(incarnation), &seqs, kind, published_ns),
                incarnation: Incarnation(incarnation),
                seqs,
                terms: TermsVersion(terms as u32),
                kind,
                published_ns,
            },
        )
}

fn terms() -> impl Strategy<Value = Terms> {
    let source = (name(), prop::collection::vec(name(), 0..4))
        .prop_map(|(stream, filters)| SourceTerms { stream, filters });
    let sources = prop::collection::btree_map(number().prop_map(Incarnation), source, 0..4);
    let apps = prop::collection::btree_map(name(), any::<u32>().prop_map(TermsVersion), 0..4);
    (any::<u32>(), sources, apps).prop_map(|(version, sources, apps)| Terms {
        version: TermsVersion(version),
        sources,
        apps,
    })
}

fn names() -> impl Strategy<Value = BTreeSet<String>> {
    prop::collection::btree_set(name(), 0..4)
}

fn body() -> BoxedStrategy<Body> {
    let body = prop_oneof![
        4 => claim().prop_map(Body::Claim),
        1 => terms().prop_map(Body::Terms),
        1 => (any::<u32>(), names()).prop_map(|(rules, features)| Body::Genesis(Genesis { rules, features })),
        2 => (node(), name(), any::<u64>(), names(), state()).prop_map(|(node_uuid, node, nonce, hosts, state)| {
            Body::Epoch(EpochRecord { node_uuid, node, nonce: Nonce(nonce), hosts, state })
        }),
        2 => (number(), number(), any::<u32>(), number(), number()).prop_map(|(incarnation, through, terms, floor, holes)| {
            Body::Close(Close {
                incarnation: Incarnation(incarnation),
                through: StreamSeq(through),
                terms: TermsVersion(terms),
                floor: StreamSeq(floor),
                holes,
            })
        }),
        2 => (node(), number(), seqs(6)).prop_map(|(node_uuid, epoch, done)| {
            Body::Progress(Progress { node_uuid, epoch: LedgerSeq(epoch), done })
        }),
        1 => (node(), number(), name(), seqs(3), seqs(3)).prop_map(|(node_uuid, batch, app, untouched, in_doubt)| {
            Body::Handoff(Handoff {
                node_uuid,
                epoch: LedgerSeq(batch),
                batch: BatchNo(batch),
                app,
                incarnation: Incarnation(batch),
                untouched,
                in_doubt,
            })
        }),
        1 => (number(), any::<u128>(), 0_u32..5, 0_u32..5, prop::collection::vec(any::<u8>(), 0..40)).prop_map(
            |(position, hash, part, parts, bytes)| {
                Body::Checkpoint(CheckpointPart { position: LedgerSeq(position), hash: Hash128(hash), part, parts, bytes })
            }
        ),
    ];
    body.boxed()
}

/// Boxed, as are its bodies: a tree of strategies by value does not fit a thread's stack.
pub(crate) fn record() -> BoxedStrategy<Record> {
    (
        prop_oneof![3 => Just((0, 0)), 1 => (number(), any::<u128>())],
        body(),
    )
        .prop_map(|((position, hash), body)| Record {
            witness: Witness {
                position: LedgerSeq(position),
                hash: Hash128(hash),
            },
            body,
        })
        .boxed()
}

proptest! {
    #![proptest_config(config(1))]

    /// What a writer can say comes back as it was said, in the same bytes, or is refused as a whole.
    #[test]
    fn records_that_can_be_said_come_back(record in record()) {
        let bytes = record.encode();
        if let Ok(read) = measured(bytes.len(), FACTOR, || Record::decode(&bytes)) {
            prop_assert_eq!(read.encode(), bytes);
            prop_assert_eq!(read, record);
        }
    }

    /// Records with faults are refused, or are records.
    #[test]
    fn records_with_faults(bytes in hostile(record().prop_map(|record| record.encode()))) {
        judges::record(&bytes);
    }

    /// A set has one encoding, and reading one costs what it is worth.
    #[test]
    fn sets_of_sequences(bytes in hostile(seqs(40).prop_map(|set| set.encode())), ranges_max in 0_usize..60) {
        judges::seq_set(&bytes, ranges_max);
    }

    /// A claim whose sequences were changed and whose hash was not is not believed.
    #[test]
    fn claims_are_what_they_hash(claim in claim(), bytes in faulty(seqs(6).prop_map(|set| set.encode()))) {
        let Ok(other) = SeqSet::decode(&bytes, 100) else { return Ok(()) };
        if other == claim.seqs {
            return Ok(());
        }
        let record = Record { witness: Witness::default(), body: Body::Claim(Claim { seqs: other, ..claim }) };
        prop_assert!(Record::decode(&record.encode()).is_err());
    }
}

/// Goal: the limits of a record hold for what is written in the fewest bytes. Method: as many elements as fit, of each kind.
#[test]
fn records_full_of_small_things_are_bounded() {
    let full: Vec<Body> = vec![
        Body::Epoch(EpochRecord {
            hosts: (0..60_000).map(|n| format!("{n:x}")).collect(),
            ..EpochRecord::default()
        }),
        Body::Genesis(Genesis {
            rules: 1,
            features: (0..60_000).map(|n| format!("{n:x}")).collect(),
        }),
        Body::Terms(Terms {
            sources: BTreeMap::from([(
                Incarnation(1),
                SourceTerms {
                    stream: "S".to_owned(),
                    filters: vec![String::new(); 100_000],
                },
            )]),
            ..Terms::default()
        }),
        Body::Progress(Progress {
            done: (0..120_000).map(|n| 2 * n).collect(),
            ..Progress::default()
        }),
    ];
    for body in full {
        let record = Record {
            witness: Witness::default(),
            body,
        };
        let bytes = record.encode();
        // A sixteenth of the largest record: what is above a limit is refused while it is read, not afterwards.
        let read = measured(bytes.len(), 2, || Record::decode(&bytes));
        assert!(read.is_err(), "{} bytes were accepted", bytes.len());
    }
}
