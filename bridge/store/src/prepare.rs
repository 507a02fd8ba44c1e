//! Turns the operations of a commit into frames, on the caller's thread: limits, lengths and checksums.

use crate::{
    CommitError, Key, Op,
    format::{FrameHeader, FrameType, frame_len},
    limits,
};
use bytes::Bytes;
use crc32c::{crc32c, crc32c_append};
use std::collections::BTreeMap;

/// A frame that only lacks its place.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) header: FrameHeader,
    pub(crate) head: Bytes,
    pub(crate) body: Vec<Bytes>,
}

/// Checks limits and computes checksums. Returns the frames and their bytes in all.
pub(crate) fn prepare(ops: Vec<Op>) -> Result<(Vec<Prepared>, u64), CommitError> {
    check_limit(ops.len() as u64, limits::COMMIT_OPS_MAX as u64)?;
    let mut frames = Vec::with_capacity(ops.len());
    let mut bytes = 0;
    for op in ops {
        let no_key = Key { space: 0, id: 0 };
        let frame = match op {
            Op::Append {
                key,
                kind,
                head,
                body,
            } => {
                check_limit(head.len() as u64, limits::HEAD_BYTES_MAX)?;
                frame((FrameType::Append, kind), key, head, body, limits::BODY_BYTES_MAX)?
            }
            Op::Release { key } => frame((FrameType::Release, 0), key, Bytes::new(), Vec::new(), 0)?,
            Op::Put { name, value } => {
                check_limit(name.len() as u64, limits::NAME_BYTES_MAX)?;
                let name = Bytes::from(name);
                frame(
                    (FrameType::Put, 0),
                    no_key,
                    name,
                    vec![value],
                    limits::VALUE_BYTES_MAX,
                )?
            }
            Op::Delete { name } => {
                check_limit(name.len() as u64, limits::NAME_BYTES_MAX)?;
                frame((FrameType::Delete, 0), no_key, Bytes::from(name), Vec::new(), 0)?
            }
        };
        bytes += frame.header.frame_len();
        frames.push(frame);
    }
    check_limit(bytes, limits::COMMIT_BYTES_MAX)?;
    Ok((frames, bytes))
}

fn check_limit(bytes: u64, limit: u64) -> Result<(), CommitError> {
    if bytes > limit {
        Err(CommitError::TooLarge { bytes, limit })
    } else {
        Ok(())
    }
}

fn frame(
    (frame_type, kind): (FrameType, u8),
    key: Key,
    head: Bytes,
    body: Vec<Bytes>,
    body_max: u64,
) -> Result<Prepared, CommitError> {
    let body_len: u64 = body.iter().map(|b| b.len() as u64).sum();
    check_limit(body_len, body_max)?;
    let header = FrameHeader {
        frame_type,
        kind,
        flags: 0,
        key,
        head_len: head.len() as u32,
        body_len: body_len as u32,
        head_crc: crc32c(&head),
        body_crc: body.iter().fold(0, |crc, piece| crc32c_append(crc, piece)),
    };
    debug_assert_eq!(header.frame_len(), frame_len(head.len() as u64, body_len));
    Ok(Prepared { header, head, body })
}

/// Whether a commit asks for no space of its own.
pub(crate) fn only_frees(frames: &[Prepared]) -> bool {
    frames
        .iter()
        .all(|frame| matches!(frame.header.frame_type, FrameType::Release | FrameType::Delete))
}

/// Sizes of the named values as they will be once the queue is written; bounds what a segment's head must hold.
#[derive(Debug, Default)]
pub(crate) struct ValueSizes {
    sizes: BTreeMap<Bytes, u64>,
    total: u64,
}

impl ValueSizes {
    pub(crate) fn of(values: &BTreeMap<String, Bytes>) -> Self {
        let mut sizes = Self::default();
        for (name, value) in values {
            sizes.put(&Bytes::copy_from_slice(name.as_bytes()), value.len() as u64);
        }
        sizes
    }

    /// Counts the frames in, or changes nothing when the values would be too large in all.
    pub(crate) fn apply_checked(&mut self, frames: &[Prepared]) -> Result<(), CommitError> {
        let mut after = self.total;
        for frame in frames.iter().filter(|f| f.header.frame_type == FrameType::Put) {
            let old = self
                .sizes
                .get(&frame.head)
                .map_or(0, |old| frame.head.len() as u64 + old);
            after = after.saturating_sub(old) + u64::from(frame.header.head_len + frame.header.body_len);
        }
        check_limit(after, limits::VALUES_BYTES_MAX)?;
        self.apply(frames);
        Ok(())
    }

    pub(crate) fn apply(&mut self, frames: &[Prepared]) {
        for frame in frames {
            match frame.header.frame_type {
                FrameType::Put => self.put(&frame.head, u64::from(frame.header.body_len)),
                FrameType::Delete => self.remove(&frame.head),
                FrameType::Append
                | FrameType::Release
                | FrameType::Carried
                | FrameType::Marker
                | FrameType::Footer => {}
            }
        }
    }

    fn put(&mut self, name: &Bytes, value_len: u64) {
        self.total += name.len() as u64 + value_len;
        match self.sizes.get_mut(name) {
            Some(old) => {
                self.total -= name.len() as u64 + *old;
                *old = value_len;
            }
            None => {
                self.sizes.insert(name.clone(), value_len);
            }
        }
    }

    fn remove(&mut self, name: &Bytes) {
        if let Some(old) = self.sizes.remove(name) {
            self.total -= name.len() as u64 + old;
        }
    }
}
