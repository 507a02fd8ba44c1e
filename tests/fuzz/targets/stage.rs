//! Records of the local log: staged batches, resolutions, dead letters. Their bytes are checked by the log, so these are faults of
//! memory, of other versions, or of this one.

use bytes::Bytes;
use fanin_bridge::stage::{Resolution, StagedBatch, StagedMessage, runs_of};
use fanin_bridge::topic::{DeadLetter, DeadLetterHead};
use fanin_core::delivery::DeadLetterReason;
use fanin_core::ids::{BatchNo, Incarnation, LedgerSeq, Offset, StreamSeq, TermsVersion};
use fanin_fuzz::judges::STAGE_FACTOR as FACTOR;
use fanin_fuzz::{config, hostile, judges, measured, number};
use proptest::prelude::*;

type Headers = Vec<(String, String)>;

fn headers() -> impl Strategy<Value = Headers> {
    prop::collection::vec(("[A-C]{0,3}", "[a-zé ]{0,5}"), 0..4)
}

fn payload() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from)
}

fn message() -> impl Strategy<Value = StagedMessage> {
    let seq = number().prop_map(|seq| StreamSeq(seq.min(u64::MAX - 1)));
    (seq, any::<i64>(), "[a-c.]{0,8}", headers(), payload()).prop_map(
        |(seq, published_ns, subject, headers, payload)| StagedMessage {
            seq,
            published_ns,
            subject,
            headers,
            payload,
        },
    )
}

fn batch() -> impl Strategy<Value = StagedBatch> {
    let messages = prop::collection::vec(message(), 0..8);
    (number(), number(), number(), any::<u8>(), "[A-Z]{0,6}", messages).prop_map(
        |(batch, incarnation, epoch, kind, stream, messages)| {
            StagedBatch::new(
                BatchNo(batch),
                Incarnation(incarnation),
                LedgerSeq(epoch),
                kind,
                stream.as_str().into(),
                messages,
            )
        },
    )
}

fn resolution() -> impl Strategy<Value = Resolution> {
    let won = prop::collection::btree_set(number().prop_map(|seq| StreamSeq(seq.min(u64::MAX - 1))), 0..12);
    (number(), number(), any::<u32>(), number(), won).prop_map(|(batch, position, terms, base, won)| {
        Resolution {
            batch: BatchNo(batch),
            position: LedgerSeq(position),
            terms: TermsVersion(terms),
            base: Offset(base),
            won: runs_of(won.into_iter()),
        }
    })
}

fn letter() -> impl Strategy<Value = DeadLetter> {
    let reason = prop::sample::select(vec![
        DeadLetterReason::MaxAttempts,
        DeadLetterReason::Rejected,
        DeadLetterReason::Lost,
    ]);
    (
        reason,
        "[a-z]{0,6}",
        any::<u32>(),
        number(),
        headers(),
        payload(),
        any::<i64>(),
    )
        .prop_map(
            |(reason, text, attempts, n, headers, payload, published_ns)| DeadLetter {
                head: DeadLetterHead {
                    app: text.as_str().into(),
                    reason,
                    attempts,
                    offset: Offset(n),
                    batch: BatchNo(n),
                    stream: text.as_str().into(),
                    incarnation: Incarnation(n),
                    seq: StreamSeq(n),
                    last_attempt_ms: n,
                    payload_len: payload.len() as u64,
                },
                node: text.clone(),
                instance: text.clone(),
                error: text.clone(),
                first_attempt_ms: n,
                trace_id: text.clone(),
                published_ns,
                subject: text,
                headers,
                payload,
            },
        )
}

fn whole((_, body): (Bytes, Vec<Bytes>)) -> Vec<u8> {
    body.concat()
}

/// A record of any kind as raw bytes, its kind first.
pub(crate) fn seed() -> BoxedStrategy<Vec<u8>> {
    let kind = |kind: u8| move |bytes: Vec<u8>| [vec![kind], bytes].concat();
    prop_oneof![
        batch().prop_map(|batch| whole(batch.encode())).prop_map(kind(0)),
        batch()
            .prop_map(|batch| batch.encode().0.to_vec())
            .prop_map(kind(1)),
        resolution()
            .prop_map(|one| one.encode().to_vec())
            .prop_map(kind(2)),
        letter()
            .prop_map(|letter| whole(letter.encode()))
            .prop_map(kind(3)),
        crate::cursors::cursor()
            .prop_map(|cursor| cursor.encode())
            .prop_map(kind(4)),
    ]
    .boxed()
}

proptest! {
    #![proptest_config(config(2))]

    #[test]
    fn batches_that_can_be_said_come_back(batch in batch()) {
        let (head, body) = batch.encode();
        let body = Bytes::from(body.concat());
        prop_assert_eq!(StagedBatch::decode(&body), Ok(batch.clone()));
        let read = StagedBatch::decode_head(&head).unwrap();
        prop_assert_eq!((read.seqs, read.count as usize), (batch.seqs(), batch.messages.len()));
        prop_assert_eq!((read.published_ns, read.payload_bytes), (batch.published_ns(), batch.payload_bytes()));
    }

    #[test]
    fn batches_with_faults(bytes in hostile(batch().prop_map(|batch| whole(batch.encode())))) {
        judges::batch(&bytes);
    }

    #[test]
    fn heads_of_batches_with_faults(bytes in hostile(batch().prop_map(|batch| batch.encode().0.to_vec()))) {
        judges::batch_head(&bytes);
    }

    #[test]
    fn resolutions(resolution in resolution(), bytes in hostile(resolution().prop_map(|one| one.encode().to_vec()))) {
        prop_assert_eq!(Resolution::decode(&resolution.encode()), Ok(resolution));
        judges::resolution(&bytes);
    }

    #[test]
    fn dead_letters(letter in letter(), bytes in hostile(letter().prop_map(|letter| whole(letter.encode())))) {
        let (head, body) = letter.encode();
        prop_assert_eq!(DeadLetterHead::decode(&head), Ok(letter.head.clone()));
        prop_assert_eq!(DeadLetter::decode(&Bytes::from(body.concat())), Ok(letter));
        judges::dead_letter(&bytes);
    }
}

/// A number in the layout's own form.
fn leb(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// Goal: counts that the bytes behind them cannot hold reserve nothing. Method: a batch of one message whose count of headers, and a
/// head whose counts of messages and runs, promise what fits a byte each.
#[test]
fn promised_counts_reserve_nothing_that_cannot_come() {
    const LEN: u64 = 1 << 20;
    let mut head = vec![1, 0, 1];
    head.extend([7; 8]);
    head.extend([1, 1, b'S', 0, 0, 0]);
    // As many messages as there are bytes in the block, in one run.
    head.extend([leb(LEN), vec![1, 1], leb(LEN - 1)].concat());
    let body = |head: &[u8], block: &[u8]| {
        let lens = [
            (head.len() as u32).to_le_bytes(),
            (block.len() as u32).to_le_bytes(),
        ]
        .concat();
        Bytes::from([&lens, head, block].concat())
    };
    let many_messages = body(&head, &vec![0xff; LEN as usize]);
    let read = measured(many_messages.len(), FACTOR, || {
        StagedBatch::decode(&many_messages)
    });
    assert!(read.is_err());

    let mut one = vec![1, 0, 1];
    one.extend([7; 8]);
    one.extend([1, 1, b'S', 0, 0, 0, 1, 1, 1, 0]);
    let mut block = [vec![0, 1, b's'], leb(LEN - 100)].concat();
    block.resize(LEN as usize, 0xff);
    let many_headers = body(&one, &block);
    let read = measured(many_headers.len(), FACTOR, || StagedBatch::decode(&many_headers));
    assert!(read.is_err());
}
