//! Goal: what a reader of this version does not understand, what no writer says and what is above a limit is refused.
//! Method: tables.

use super::*;
use crate::limits::*;

fn body(field: u32, inner: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::new();
    inner(&mut writer);
    let mut out = Writer::new();
    out.uint(field::VERSION, u64::from(RECORD_VERSION));
    out.element(field, &writer.finish());
    out.finish()
}

/// What a reader of this version does not understand, it refuses (P10).
#[test]
fn strictness() {
    let fields = [
        field::GENESIS,
        field::TERMS,
        field::EPOCH,
        field::CLAIM,
        field::HANDOFF,
        field::CLOSE,
    ];
    for number in fields.into_iter().chain([field::PROGRESS, field::CHECKPOINT]) {
        let unknown = body(number, |out| out.uint(99, 1));
        assert_eq!(
            Record::decode(&unknown),
            Err(DecodeError::UnknownField(99)),
            "{number}"
        );
        // Field 1 of every body as a fixed32, which nothing here uses.
        let mut wire_type = body(number, |_| {});
        *wire_type.last_mut().unwrap() = 5;
        wire_type.extend([0x0d, 0, 0, 0, 0]);
        assert_eq!(
            Record::decode(&wire_type),
            Err(DecodeError::Invalid("wire type")),
            "{number}"
        );
    }
    let close = record(Body::Close(Close::default())).encode();
    let version = |version: u8| [&[0x08, version], &close[2..]].concat();
    assert!(Record::decode(&version(1)).is_ok());
    let twice = [&close[..], &body(field::CLOSE, |_| {})[2..]].concat();
    let table: [(&str, Vec<u8>, DecodeError); 12] = [
        ("nothing", Vec::new(), DecodeError::UnknownRecord),
        ("version 0", close[2..].to_vec(), DecodeError::UnknownRecord),
        ("version 2", version(2), DecodeError::UnknownRecord),
        ("no body", vec![0x08, 0x01], DecodeError::UnknownRecord),
        ("unknown type", body(18, |_| {}), DecodeError::UnknownRecord),
        ("two bodies", twice, DecodeError::UnknownField(field::CLOSE)),
        (
            "witness with another field",
            body(field::WITNESS, |out| out.uint(3, 1)),
            DecodeError::UnknownField(3),
        ),
        (
            "long varint",
            vec![0x08, 0x81, 0x00],
            DecodeError::Invalid("varint longer than needed"),
        ),
        (
            "state 4",
            body(field::EPOCH, |out| out.uint(5, 4)),
            DecodeError::UnknownRecord,
        ),
        (
            "kind 4",
            body(field::CLAIM, |out| out.uint(9, 4)),
            DecodeError::UnknownRecord,
        ),
        (
            "short uuid",
            body(field::CLAIM, |out| out.bytes(1, &[1; 15])),
            DecodeError::Invalid("length of a 128-bit value"),
        ),
        (
            "text not UTF-8",
            body(field::EPOCH, |out| out.bytes(2, &[0xff])),
            DecodeError::Invalid("text is not UTF-8"),
        ),
    ];
    for (what, bytes, error) in table {
        assert_eq!(Record::decode(&bytes), Err(error), "{what}");
    }
}

/// What no writer says, no reader believes.
#[test]
fn invalid_bodies() {
    let invalid = |body: Body| Record::decode(&record(body).encode()).expect_err("invalid");
    assert_eq!(
        invalid(Body::Claim(claim(SeqSet::new()))),
        DecodeError::Invalid("claim without batch or sequences")
    );
    assert_eq!(
        invalid(Body::Claim(claim(set(&[0, 1])))),
        DecodeError::Invalid("claim without batch or sequences")
    );
    let unnumbered = Claim {
        batch: BatchNo(0),
        ..claim(set(&[1]))
    };
    assert_eq!(
        invalid(Body::Claim(unnumbered)),
        DecodeError::Invalid("claim without batch or sequences")
    );
    let other = Claim {
        seqs: set(&[2]),
        ..claim(set(&[1]))
    };
    assert_eq!(
        invalid(Body::Claim(other)),
        DecodeError::Invalid("content hash of a claim")
    );
    let endless = Close {
        through: StreamSeq(u64::MAX),
        ..Close::default()
    };
    assert_eq!(invalid(Body::Close(endless)), DecodeError::Overflow);
    let version = DecodeError::Invalid("version of the terms");
    assert_eq!(
        invalid(Body::Terms(Terms {
            version: TermsVersion(0),
            ..terms()
        })),
        version
    );
    let future = BTreeMap::from([("mail".to_owned(), TermsVersion(2))]);
    assert_eq!(
        invalid(Body::Terms(Terms {
            apps: future,
            ..terms()
        })),
        version
    );
    for (part, parts) in [(0, 0), (1, 1), (0, CHECKPOINT_PARTS_MAX + 1)] {
        let part = CheckpointPart {
            part,
            parts,
            ..CheckpointPart::default()
        };
        assert_eq!(
            invalid(Body::Checkpoint(part)),
            DecodeError::Invalid("part of a checkpoint")
        );
    }
}

/// Every limit holds exactly: at the limit a record is read, one above it is refused.
#[test]
fn limits() {
    let scattered = |count: usize| (1..=count as u64).map(|n| 2 * n).collect::<SeqSet>();
    let many = |count: usize| {
        (0..count)
            .map(|n| format!("a{n:04}"))
            .collect::<BTreeSet<String>>()
    };
    let apps = |count| Terms {
        apps: many(count)
            .into_iter()
            .map(|app| (app, TermsVersion(1)))
            .collect(),
        ..terms()
    };
    let source = |filters: usize| SourceTerms {
        stream: "S".to_owned(),
        filters: many(filters).into_iter().collect(),
    };
    let sources = |count: usize| {
        let sources = (1..=count as u64).map(|n| (Incarnation(n), source(0))).collect();
        Terms { sources, ..terms() }
    };
    let filters = |count| Terms {
        sources: BTreeMap::from([(INC, source(count))]),
        ..terms()
    };
    let named = |length: usize| EpochRecord {
        node: "n".repeat(length),
        ..epoch()
    };
    let part = |length: usize| CheckpointPart {
        parts: 1,
        bytes: vec![7; length],
        ..CheckpointPart::default()
    };
    let done = |count| Progress {
        done: scattered(count),
        ..Progress::default()
    };
    type At<'a> = Box<dyn Fn(usize) -> Body + 'a>;
    let table: [(usize, At<'_>); 9] = [
        (CLAIM_RANGES_MAX, Box::new(|n| Body::Claim(claim(scattered(n))))),
        (DONE_RANGES_MAX, Box::new(|n| Body::Progress(done(n)))),
        (APPS_MAX, Box::new(|n| Body::Terms(apps(n)))),
        (
            APPS_MAX,
            Box::new(|n| {
                Body::Epoch(EpochRecord {
                    hosts: many(n),
                    ..epoch()
                })
            }),
        ),
        (SOURCES_MAX, Box::new(|n| Body::Terms(sources(n)))),
        (FILTERS_MAX, Box::new(|n| Body::Terms(filters(n)))),
        (
            FEATURES_MAX,
            Box::new(|n| {
                Body::Genesis(Genesis {
                    rules: 1,
                    features: many(n),
                })
            }),
        ),
        (NAME_BYTES_MAX, Box::new(|n| Body::Epoch(named(n)))),
        (CHECKPOINT_PART_BYTES, Box::new(|n| Body::Checkpoint(part(n)))),
    ];
    for (row, (limit, make)) in table.iter().enumerate() {
        let most = record(make(*limit)).encode();
        assert!(most.len() <= RECORD_BYTES_MAX);
        assert!(Record::decode(&most).is_ok(), "row {row} at its limit");
        let above = Record::decode(&record(make(limit + 1)).encode());
        assert!(
            matches!(above, Err(DecodeError::Limit(_))),
            "row {row} above its limit: {above:?}"
        );
    }
    let large = vec![0; RECORD_BYTES_MAX + 1];
    assert_eq!(
        Record::decode(&large),
        Err(DecodeError::Limit("size of a record"))
    );
}

/// Exactly at its limit nothing is refused for its size.
#[test]
fn exactly_at_the_limit() {
    let size = Err(DecodeError::Limit("size of a record"));
    assert_ne!(Record::decode(&vec![0; RECORD_BYTES_MAX]), size);
    assert_eq!(Record::decode(&vec![0; RECORD_BYTES_MAX + 1]), size);

    let with = |last: usize| {
        let mut terms = terms();
        let filters = vec!["f".repeat(SUBJECT_BYTES_MAX); 62];
        for n in 0..4 {
            let source = SourceTerms {
                stream: "S".to_owned(),
                filters: filters.clone(),
            };
            terms.sources.insert(Incarnation(n), source);
        }
        let source = terms.sources.get_mut(&Incarnation(0)).unwrap();
        source.filters.truncate(61);
        source.filters.push("f".repeat(last));
        terms
    };
    let rest = TERMS_BYTES_MAX - with(150).encode().len();
    let most = with(150 + rest);
    assert_eq!(most.encode().len(), TERMS_BYTES_MAX);
    assert_eq!(most.check(), Ok(()));
    let refused = Err(DecodeError::Limit("bytes of the terms"));
    assert_eq!(with(150 + rest + 1).check(), refused);

    let part = |part, parts| {
        let part = CheckpointPart {
            part,
            parts,
            ..CheckpointPart::default()
        };
        Record::decode(&record(Body::Checkpoint(part)).encode()).map(drop)
    };
    let refused = Err(DecodeError::Invalid("part of a checkpoint"));
    assert_eq!(part(CHECKPOINT_PARTS_MAX - 1, CHECKPOINT_PARTS_MAX), Ok(()));
    assert_eq!(part(0, CHECKPOINT_PARTS_MAX + 1), refused);
    assert_eq!(part(CHECKPOINT_PARTS_MAX, CHECKPOINT_PARTS_MAX), refused);
}
