//! Records of the local log: staged batches, resolutions, dead letters, cursors.

use bytes::Bytes;
use fanin_bridge::stage::{Resolution, StagedBatch};
use fanin_bridge::topic::DeadLetter;
use fanin_core::delivery::Cursor;

use crate::measured;

/// Bytes in memory for a byte on disk: a message without anything is four bytes and becomes 120.
pub const STAGE_FACTOR: u64 = 64;

/// A batch that is read is in order and holds no more than its bytes.
///
/// # Panics
/// When that does not hold.
pub fn batch(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    if let Ok(read) = measured(bytes.len(), STAGE_FACTOR, || StagedBatch::decode(&bytes)) {
        assert!(read.messages.windows(2).all(|pair| pair[0].seq < pair[1].seq));
        assert!(read.payload_bytes() <= bytes.len() as u64);
    }
}

/// The runs of a head that is read are in order.
///
/// # Panics
/// When they are not.
pub fn batch_head(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    if let Ok(read) = measured(bytes.len(), STAGE_FACTOR, || StagedBatch::decode_head(&bytes)) {
        assert!(read.seqs.iter().all(|(first, last)| first <= last));
        assert!(read.seqs.windows(2).all(|pair| pair[0].1 < pair[1].0));
    }
}

/// A resolution that is read is in order, and is written as it was read.
///
/// # Panics
/// When it is not.
pub fn resolution(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    if let Ok(read) = measured(bytes.len(), STAGE_FACTOR, || Resolution::decode(&bytes)) {
        assert!(read.won.windows(2).all(|pair| pair[0].1 < pair[1].0));
        assert_eq!(Resolution::decode(&read.encode()), Ok(read));
    }
}

/// A dead letter that is read is written as it was read.
///
/// # Panics
/// When it is not.
pub fn dead_letter(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    if let Ok(read) = measured(bytes.len(), STAGE_FACTOR, || DeadLetter::decode(&bytes)) {
        let again = Bytes::from(read.encode().1.concat());
        assert_eq!(DeadLetter::decode(&again), Ok(read));
    }
}

/// A cursor has one encoding, and says one thing about each offset.
///
/// # Panics
/// When it does not.
pub fn cursor(bytes: &[u8]) {
    // A count is two bytes on the wire, and a place in a tree whose nodes hold eleven.
    if let Ok(read) = measured(bytes.len(), 128, || Cursor::decode(bytes)) {
        assert_eq!(read.encode(), bytes);
        assert!(
            read.finished
                .iter()
                .all(|(first, last)| read.floor < *first && first <= last)
        );
        assert!(read.attempts.keys().all(|offset| !read.is_finished(*offset)));
    }
}
