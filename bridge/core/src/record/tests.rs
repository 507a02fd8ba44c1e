//! Goal: the bytes of the ledger never change by accident, and nothing but them is accepted. Method: golden bytes for a
//! record of each type and for a fold's state, checked against the published schema; tables of what must be refused.

mod refused;

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::checkpoint::Assembler;
use crate::fold::Fold;
use crate::ids::{Attempt, BatchNo, Incarnation, Nonce, StreamSeq, TermsVersion};
use crate::seq_set::SeqSet;
use crate::wire::Value;

const NODE: NodeUuid = NodeUuid(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);
const INC: Incarnation = Incarnation(0xa1a2_a3a4_a5a6_a7a8);
const NS: (i64, i64) = (1_700_000_000_000_000_000, 1_700_000_000_000_000_005);
const SCHEMA: &str = include_str!("../../../../proto/fanin/ledger/v1/ledger.proto");

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn set(seqs: &[u64]) -> SeqSet {
    seqs.iter().copied().collect()
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

fn record(body: Body) -> Record {
    Record {
        witness: Witness {
            position: LedgerSeq(300),
            hash: Hash128(0xfeed),
        },
        body,
    }
}

fn claim(seqs: SeqSet) -> Claim {
    Claim {
        node_uuid: NODE,
        epoch: LedgerSeq(3),
        batch: BatchNo(1),
        attempt: Attempt(2),
        content_hash: content_hash(INC, &seqs, ClaimKind::Repair, NS),
        incarnation: INC,
        seqs,
        terms: TermsVersion(1),
        kind: ClaimKind::Repair,
        published_ns: NS,
    }
}

fn genesis() -> Genesis {
    Genesis {
        rules: 1,
        features: BTreeSet::new(),
    }
}

fn terms() -> Terms {
    let source = SourceTerms {
        stream: "ORDERS".to_owned(),
        filters: vec!["orders.eu".to_owned(), "orders.us".to_owned()],
    };
    Terms {
        version: TermsVersion(1),
        sources: BTreeMap::from([(INC, source)]),
        apps: BTreeMap::from([
            ("billing".to_owned(), TermsVersion(1)),
            ("mail".to_owned(), TermsVersion(1)),
        ]),
    }
}

fn epoch() -> EpochRecord {
    EpochRecord {
        node_uuid: NODE,
        node: "berlin-1".to_owned(),
        nonce: Nonce(0x1122_3344_5566_7788),
        hosts: names(&["billing", "mail"]),
        state: NodeState::Active,
    }
}

/// One record of each type with every field set, in the order of their field numbers.
fn records() -> Vec<(&'static str, Record)> {
    let handoff = Handoff {
        node_uuid: NODE,
        epoch: LedgerSeq(3),
        batch: BatchNo(1),
        app: "mail".to_owned(),
        incarnation: INC,
        untouched: set(&[7, 8]),
        in_doubt: set(&[9]),
    };
    let close = Close {
        incarnation: INC,
        through: StreamSeq(500),
        terms: TermsVersion(1),
        floor: StreamSeq(501),
        holes: 2,
    };
    let part = CheckpointPart {
        position: LedgerSeq(299),
        hash: Hash128(0xbeef),
        part: 1,
        parts: 3,
        bytes: b"state".to_vec(),
    };
    let genesis = Genesis {
        rules: 1,
        features: names(&["drain", "evacuate"]),
    };
    let evacuated = EpochRecord {
        state: NodeState::Evacuated,
        ..epoch()
    };
    vec![
        ("genesis", record(Body::Genesis(genesis))),
        ("terms", record(Body::Terms(terms()))),
        ("epoch", record(Body::Epoch(evacuated))),
        ("claim", record(Body::Claim(claim(set(&[7, 8, 9, 300]))))),
        ("handoff", record(Body::Handoff(handoff))),
        ("close", record(Body::Close(close))),
        (
            "progress",
            record(Body::Progress(Progress {
                node_uuid: NODE,
                epoch: LedgerSeq(3),
                done: set(&[1, 2, 5]),
            })),
        ),
        ("checkpoint", record(Body::Checkpoint(part))),
    ]
}

/// A fold that has taken one record of each type it folds, so that every field of its state is set.
fn fold() -> Fold {
    let bodies = [
        Body::Genesis(genesis()),
        Body::Terms(terms()),
        Body::Epoch(epoch()),
        Body::Claim(claim(set(&[7, 8, 9, 300]))),
        Body::Close(Close {
            incarnation: INC,
            through: StreamSeq(8),
            terms: TermsVersion(1),
            ..Close::default()
        }),
        Body::Claim(Claim {
            batch: BatchNo(2),
            ..claim(set(&[8, 9, 10]))
        }),
        Body::Progress(Progress {
            node_uuid: NODE,
            epoch: LedgerSeq(3),
            done: set(&[1]),
        }),
        Body::Epoch(EpochRecord {
            state: NodeState::Draining,
            ..epoch()
        }),
    ];
    let mut fold = Fold::new();
    for (n, body) in bodies.into_iter().enumerate() {
        let record = Record {
            witness: Witness::default(),
            body,
        };
        fold.apply(LedgerSeq(n as u64 + 1), &record.subject(), &record.encode())
            .unwrap();
    }
    fold
}

const GOLDEN: [(&str, &str); 8] = [
    (
        "genesis",
        "0801121508ac0212100000000000000000000000000000feed521308011205647261696e12086576616375617465",
    ),
    (
        "terms",
        "0801121508ac0212100000000000000000000000000000feed5a420801122709a8a7a6a5a4a3a2a112064f5244455253\
        1a096f72646572732e65751a096f72646572732e75731a0b0a0762696c6c696e6710011a080a046d61696c1001",
    ),
    (
        "epoch",
        "0801121508ac0212100000000000000000000000000000feed62360a100102030405060708090a0b0c0d0e0f10120862\
        65726c696e2d31198877665544332211220762696c6c696e6722046d61696c2803",
    ),
    (
        "claim",
        "0801121508ac0212100000000000000000000000000000feed6a500a100102030405060708090a0b0c0d0e0f10100318\
        0120022a100920dbdfcfe1ced9903bb7495a111fac31a8a7a6a5a4a3a2a13a050702a20200400148015100002a36fe9c\
        97175905002a36fe9c9717",
    ),
    (
        "handoff",
        "0801121508ac0212100000000000000000000000000000feed722d0a100102030405060708090a0b0c0d0e0f10100318\
        0122046d61696c29a8a7a6a5a4a3a2a1320207013a020900",
    ),
    (
        "close",
        "0801121508ac0212100000000000000000000000000000feed7a1309a8a7a6a5a4a3a2a110f403180120f5032802",
    ),
    (
        "progress",
        "0801121508ac0212100000000000000000000000000000feed82011a0a100102030405060708090a0b0c0d0e0f101003\
        1a0401010200",
    ),
    (
        "checkpoint",
        "0801121508ac0212100000000000000000000000000000feed8a012008ab0212100000000000000000000000000000be\
        ef180120032a057374617465",
    ),
];

const GOLDEN_STATE: &str = "08081210a2ae0ed623fe9e39e089fcbd22dc1f89180122020801280232420801122709a8a7a6a5a4a3a2a112064\
    f52444552531a096f72646572732e65751a096f72646572732e75731a0b0a0762696c6c696e6710011a080a046d61696\
    c10013a1609a8a7a6a5a4a3a2a1100818082105002a36fe9c9717423c0a100102030405060708090a0b0c0d0e0f10120\
    86265726c696e2d3118082188776655443322112a0762696c6c696e672a046d61696c30013a0201004a3c0a100102030\
    405060708090a0b0c0d0e0f101001180421a8a7a6a5a4a3a2a12a050702a20200380140014900002a36fe9c971751050\
    02a36fe9c97174a3d0a100102030405060708090a0b0c0d0e0f101002180621a8a7a6a5a4a3a2a12a020802320208013\
    80140014900002a36fe9c97175105002a36fe9c9717";

#[test]
fn golden_records() {
    for ((name, record), (golden_name, golden)) in records().into_iter().zip(GOLDEN) {
        assert_eq!(name, golden_name);
        let bytes = record.encode();
        assert_eq!(hex(&bytes), golden, "{name}");
        assert_eq!(Record::decode(&bytes).as_ref(), Ok(&record), "{name}");
    }
}

#[test]
fn golden_state() {
    let fold = fold();
    assert_eq!(hex(&fold.encode()), GOLDEN_STATE);
    let read = Fold::decode(&fold.encode()).unwrap();
    assert_eq!((read.encode(), read.hash()), (fold.encode(), fold.hash()));
}

/// Codes on the wire are for ever; unknown ones are none.
#[test]
fn golden_codes() {
    let kinds = [
        ClaimKind::Normal,
        ClaimKind::Repair,
        ClaimKind::Quarantine,
        ClaimKind::Reclaim,
    ];
    let states = [
        NodeState::Active,
        NodeState::Draining,
        NodeState::Closed,
        NodeState::Evacuated,
    ];
    for code in 0..4_u32 {
        assert_eq!(ClaimKind::from_code(code), Some(kinds[code as usize]));
        assert_eq!(kinds[code as usize].code(), code);
        assert_eq!(NodeState::from_code(code), Some(states[code as usize]));
        assert_eq!(states[code as usize].code(), code);
    }
    assert_eq!((ClaimKind::from_code(4), NodeState::from_code(4)), (None, None));
}

/// Message name to field number to (field name, type), read from the schema.
type Schema = BTreeMap<String, BTreeMap<u32, (String, String)>>;

fn schema() -> Schema {
    let mut messages = Schema::new();
    let mut current = None;
    for line in SCHEMA
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default().trim())
    {
        let words: Vec<&str> = line.trim_end_matches(';').split_whitespace().collect();
        match words[..] {
            ["message", name, "{"] => {
                current = Some(name.to_owned());
                messages.entry(name.to_owned()).or_default();
            }
            ["enum", ..] => current = None,
            ["repeated", kind, name, "=", number] | [kind, name, "=", number] => {
                if let (Some(message), Ok(number)) = (&current, number.parse()) {
                    let fields = messages.get_mut(message).unwrap();
                    assert!(
                        fields
                            .insert(number, (name.to_owned(), kind.to_owned()))
                            .is_none(),
                        "{message}.{number}"
                    );
                }
            }
            _ => {}
        }
    }
    messages
}

/// Walks bytes by the schema; notes every field met.
fn walk(schema: &Schema, message: &str, bytes: &[u8], met: &mut BTreeSet<(String, u32)>) {
    let mut reader = Reader::new(bytes);
    let mut last = 0;
    while let Some((number, value)) = reader.field().unwrap() {
        assert!(
            number >= last,
            "{message}: field {number} stands behind field {last}"
        );
        last = number;
        let Some((name, kind)) = schema[message].get(&number) else {
            panic!("the schema has no {message}.{number}")
        };
        met.insert((message.to_owned(), number));
        match (kind.as_str(), value) {
            ("uint32" | "uint64" | "ClaimKind" | "NodeState", Value::Varint(_)) => {}
            ("fixed64" | "sfixed64", Value::Fixed64(_)) => {}
            ("string", Value::Bytes(text)) => assert!(core::str::from_utf8(text).is_ok()),
            ("bytes", Value::Bytes(_)) => {}
            (inner, Value::Bytes(bytes)) if schema.contains_key(inner) => walk(schema, inner, bytes, met),
            (kind, value) => panic!("{message}.{name} is a {kind} in the schema, {value:?} in the bytes"),
        }
    }
}

/// Goal: the schema is what core writes. Method: the golden bytes are walked by the field numbers and types of the schema,
/// and every field that the schema has is met.
#[test]
fn schema_is_exact() {
    let schema = schema();
    let mut met = BTreeSet::new();
    for (_, record) in records() {
        walk(&schema, "Record", &record.encode(), &mut met);
    }
    walk(&schema, "State", &fold().encode(), &mut met);
    let all = schema
        .iter()
        .flat_map(|(message, fields)| fields.keys().map(|&number| (message.clone(), number)));
    assert_eq!(met, all.collect());
}

/// A cut record is an error at every byte; a changed byte is never a panic, and a claim whose content changed is refused.
#[test]
fn truncated_and_damaged_records() {
    for (name, record) in records() {
        let bytes = record.encode();
        for cut in 0..bytes.len() {
            assert!(Record::decode(&bytes[..cut]).is_err(), "{name} cut at {cut}");
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                let Ok(Record {
                    body: Body::Claim(found),
                    ..
                }) = Record::decode(&damaged)
                else {
                    continue;
                };
                let Body::Claim(claim) = &record.body else {
                    panic!("{name} became a claim")
                };
                let content = |claim: &Claim| {
                    (
                        claim.incarnation,
                        claim.seqs.clone(),
                        claim.kind,
                        claim.published_ns,
                    )
                };
                assert_eq!(content(&found), content(claim), "bit {bit} of byte {at}");
            }
        }
    }
}

/// A checkpoint whose state was cut or changed anywhere is not loaded.
#[test]
fn damaged_state_is_not_loaded() {
    let fold = fold();
    let state = fold.encode();
    let load = |bytes: Vec<u8>| {
        let mut assembler = Assembler::default();
        let part = CheckpointPart {
            position: fold.position(),
            hash: fold.hash(),
            part: 0,
            parts: 1,
            bytes,
        };
        assert!(assembler.add(part));
        assembler.best().unwrap().load()
    };
    assert_eq!(
        load(state.clone()).map(|loaded| loaded.encode()),
        Ok(state.clone())
    );
    for at in 0..state.len() {
        assert!(load(state[..at].to_vec()).is_err(), "cut at {at}");
        for bit in 0..8 {
            let mut damaged = state.clone();
            damaged[at] ^= 1 << bit;
            assert!(load(damaged).is_err(), "bit {bit} of byte {at}");
        }
    }
}

/// The sizes the design promises for a claim of 256 messages.
#[test]
fn claim_sizes() {
    let size = |seqs: SeqSet| record(Body::Claim(claim(seqs))).encode().len();
    let base = 1_u64 << 40;
    assert!(size(SeqSet::range(base, base + 255)) <= 200);
    // A gap of up to 300 between any two.
    let scattered = (0..256_u64).map(|n| base + n * 300 + (n * 7_919) % 290);
    assert!(size(scattered.collect()) <= 1_500);
}

/// Subjects: one writer per compare-and-set subject, and a name is always one token.
#[test]
fn subjects() {
    let expected = [
        "gen",
        "terms",
        "epoch.berlin-1",
        "claim.0102030405060708090a0b0c0d0e0f10",
        "handoff.0102030405060708090a0b0c0d0e0f10",
        "close",
        "progress.0102030405060708090a0b0c0d0e0f10",
        "checkpoint",
    ];
    assert!(records().iter().map(|(_, record)| record.subject()).eq(expected));
    assert_eq!(token("a.b *>ü=_-9"), "a=2Eb=20=2A=3E=C3=BC=3D_-9");
}
