//! Goal: what is staged comes back bit by bit, in a layout that does not change unnoticed, and damage is an error.
//! Method: golden bytes, a property round trip, cuts at every length, and pointer comparison for the zero-copy claim.

use proptest::prelude::*;

use super::*;
use fanin_core::ids::{Offset, TermsVersion};

fn message(seq: u64, payload: &'static str) -> StagedMessage {
    StagedMessage {
        seq: StreamSeq(seq),
        published_ns: 1_000 + seq as i64,
        subject: "a.b".into(),
        headers: vec![("K".into(), "v".into())],
        payload: Bytes::from_static(payload.as_bytes()),
    }
}

fn sample() -> StagedBatch {
    let messages = vec![message(7, "seven"), message(8, ""), message(300, "x")];
    StagedBatch::new(
        BatchNo(3),
        Incarnation(0x0102_0304),
        LedgerSeq(9),
        1,
        "S".into(),
        messages,
    )
}

fn joined(pieces: &[Bytes]) -> Bytes {
    Bytes::from(pieces.concat())
}

#[test]
fn golden_bytes() {
    let (head, body) = sample().encode();
    assert_eq!(
        head[..],
        [
            1, 1, 3, 4, 3, 2, 1, 0, 0, 0, 0, 9, 1, b'S', 0xde, 0x0f, 0xca, 4, 6, 3, 2, 7, 1, 0xa4, 2, 0
        ][..]
    );
    let mut block = vec![0xde, 0x0f, 3, b'a', b'.', b'b', 1, 1, b'K', 1, b'v', 5];
    block.extend([2, 3, b'a', b'.', b'b', 1, 1, b'K', 1, b'v', 0]);
    block.extend([0xc8, 4, 3, b'a', b'.', b'b', 1, 1, b'K', 1, b'v', 1]);
    let mut expected = (head.len() as u32).to_le_bytes().to_vec();
    expected.extend((block.len() as u32).to_le_bytes());
    expected.extend_from_slice(&head);
    expected.extend(block);
    expected.extend(b"sevenx");
    assert_eq!(joined(&body)[..], expected[..]);

    let resolution = Resolution {
        batch: BatchNo(3),
        position: LedgerSeq(200),
        terms: TermsVersion(2),
        base: Offset(10),
        won: vec![(StreamSeq(7), StreamSeq(7)), (StreamSeq(300), StreamSeq(300))],
    };
    assert_eq!(
        resolution.encode()[..],
        [1, 3, 0xc8, 1, 2, 10, 2, 7, 0, 0xa5, 2, 0][..]
    );
    assert_eq!(Resolution::decode(&resolution.encode()), Ok(resolution));
}

#[test]
fn payloads_are_never_copied() {
    let batch = sample();
    let (_, pieces) = batch.encode();
    assert_eq!(pieces[1].as_ptr(), batch.messages[0].payload.as_ptr());
    let body = joined(&pieces);
    let back = StagedBatch::decode(&body).unwrap();
    let range = body.as_ptr_range();
    assert!(range.contains(&back.messages[0].payload.as_ptr()));
}

#[test]
fn order_and_copies_are_put_right_once() {
    let mut messages = vec![message(9, "b"), message(4, "first"), message(4, "second")];
    messages[2].published_ns = 5;
    let batch = StagedBatch::new(BatchNo(1), Incarnation(1), LedgerSeq(1), 1, "S".into(), messages);
    let seqs: Vec<u64> = batch.messages.iter().map(|m| m.seq.0).collect();
    assert_eq!(seqs, [4, 9]);
    assert_eq!(batch.messages[0].payload, "first");
}

#[test]
fn every_cut_and_other_versions_are_errors() {
    let (head, pieces) = sample().encode();
    let body = joined(&pieces);
    for cut in 0..head.len() {
        assert!(
            StagedBatch::decode_head(&head[..cut]).is_err(),
            "head cut at {cut}"
        );
    }
    for cut in 0..body.len() {
        assert!(
            StagedBatch::decode(&body.slice(..cut)).is_err(),
            "body cut at {cut}"
        );
    }
    let mut newer = head.to_vec();
    newer[0] = 2;
    assert_eq!(
        StagedBatch::decode_head(&newer),
        Err(StageDecodeError::Version(2))
    );
}

#[test]
fn heads_stay_small() {
    // The worst case: every sequence far from the one before.
    let messages = (0..256).map(|n| message(1 + n * 1_000_000, "p")).collect();
    let batch = StagedBatch::new(
        BatchNo(1),
        Incarnation(1),
        LedgerSeq(1),
        1,
        "ORDERS".into(),
        messages,
    );
    assert!(batch.encode().0.len() <= 8 * 256);
}

proptest! {
    #[test]
    fn round_trip(
        seqs in prop::collection::btree_set(1_u64..100_000, 0..60),
        texts in prop::collection::vec(("[a-z.]{0,12}", prop::collection::vec(("\\PC{0,6}", "\\PC{0,6}"), 0..3)), 60),
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 60),
        times in prop::collection::vec(any::<i64>(), 60),
        kind in any::<u8>(),
        incarnation in any::<u64>(),
    ) {
        let messages = seqs.iter().enumerate().map(|(n, seq)| StagedMessage {
            seq: StreamSeq(*seq),
            published_ns: times[n],
            subject: texts[n].0.clone(),
            headers: texts[n].1.clone(),
            payload: Bytes::from(payloads[n].clone()),
        }).collect();
        let batch = StagedBatch::new(BatchNo(5), Incarnation(incarnation), LedgerSeq(6), kind, "STREAM".into(), messages);
        let (head, pieces) = batch.encode();
        let decoded = StagedBatch::decode_head(&head).unwrap();
        prop_assert_eq!(decoded.count as usize, batch.messages.len());
        prop_assert_eq!(decoded.payload_bytes, batch.payload_bytes());
        prop_assert_eq!(&decoded.seqs, &batch.seqs());
        prop_assert_eq!(StagedBatch::decode(&joined(&pieces)).unwrap(), batch);
    }

    #[test]
    fn noise_is_never_a_panic(noise in prop::collection::vec(any::<u8>(), 0..200), body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Resolution::decode(&noise);
        let _ = StagedBatch::decode_head(&noise);
        let _ = StagedBatch::decode(&Bytes::from(body.clone()));
        // The same noise behind a sound head, so that the block's reader is reached too.
        let (head, _) = sample().encode();
        let mut framed = (head.len() as u32).to_le_bytes().to_vec();
        framed.extend((body.len() as u32 / 2).to_le_bytes());
        framed.extend_from_slice(&head);
        framed.extend(&body);
        let _ = StagedBatch::decode(&Bytes::from(framed));
    }
}
