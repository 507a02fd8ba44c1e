//! The durable position of one application in one topic, and its encoding.
//!
//! Layout, version 1: the byte 1; then unsigned LEB128 varints: floor; number of finished ranges, per range the gap
//! before it (at least 1, from the floor or the end of the range before) and its length minus 1; number of attempt
//! counts, per count the distance from the floor or the offset before, and the count. Nothing follows.

use core::fmt;
use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::ids::Offset;

const VERSION: u8 = 1;

/// What of the delivery machine is durable. After a restart everything that is not finished here is delivered again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Every offset below is finished.
    pub floor: Offset,
    /// Finished offsets above the floor as `(first, last)`, both inclusive; ascending, disjoint, not touching.
    pub finished: Vec<(Offset, Offset)>,
    /// Counted attempts of unfinished offsets at or above the floor; only counts above 0.
    pub attempts: BTreeMap<Offset, u32>,
}

impl Cursor {
    /// Whether the offset needs no delivery any more.
    #[must_use]
    pub fn is_finished(&self, offset: Offset) -> bool {
        if offset < self.floor {
            return true;
        }
        let behind = self.finished.partition_point(|&(first, _)| first <= offset);
        self.finished[..behind]
            .last()
            .is_some_and(|&(_, last)| offset <= last)
    }

    /// The durable bytes: equal cursors give equal bytes. At most
    /// [`CURSOR_BYTES_MAX`](super::limits::CURSOR_BYTES_MAX) for a cursor that a machine gave.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let cursor = self.canonical();
        let mut bytes = vec![VERSION];
        put(&mut bytes, cursor.floor.0);
        put(&mut bytes, cursor.finished.len() as u64);
        let mut at = cursor.floor.0;
        for &(first, last) in &cursor.finished {
            put(&mut bytes, first.0 - at);
            put(&mut bytes, last.0 - first.0);
            at = last.0 + 1;
        }
        put(&mut bytes, cursor.attempts.len() as u64);
        let mut at = cursor.floor.0;
        for (offset, &count) in &cursor.attempts {
            put(&mut bytes, offset.0 - at);
            put(&mut bytes, u64::from(count));
            at = offset.0;
        }
        bytes
    }

    /// Reads what [`encode`](Cursor::encode) wrote.
    ///
    /// # Errors
    /// When the bytes are of another version, cut, longer than their content, or say what no cursor says. Memory use is
    /// bounded by the input's length.
    pub fn decode(bytes: &[u8]) -> Result<Cursor, CursorDecodeError> {
        let (&version, mut rest) = bytes.split_first().ok_or(CursorDecodeError::Truncated)?;
        if version != VERSION {
            return Err(CursorDecodeError::UnknownVersion(version));
        }
        let mut cursor = Cursor {
            floor: Offset(take(&mut rest)?),
            ..Cursor::default()
        };
        let mut at = cursor.floor.0;
        for _ in 0..take(&mut rest)? {
            let gap = take(&mut rest)?;
            let first = add(at, gap)?;
            let last = add(first, take(&mut rest)?)?;
            if gap == 0 {
                return Err(CursorDecodeError::NotCanonical);
            }
            at = add(last, 1)?;
            cursor.finished.push((Offset(first), Offset(last)));
        }
        let mut at = cursor.floor.0;
        for index in 0..take(&mut rest)? {
            let distance = take(&mut rest)?;
            at = add(at, distance)?;
            let count = u32::try_from(take(&mut rest)?).map_err(|_| CursorDecodeError::Overflow)?;
            if count == 0 || (index > 0 && distance == 0) || cursor.is_finished(Offset(at)) {
                return Err(CursorDecodeError::NotCanonical);
            }
            cursor.attempts.insert(Offset(at), count);
        }
        if !rest.is_empty() {
            return Err(CursorDecodeError::TrailingBytes(rest.len()));
        }
        Ok(cursor)
    }

    /// The same position in the one form that is encoded. A machine's cursor already has it.
    pub(super) fn canonical(&self) -> Cow<'_, Cursor> {
        let ranges_fit = {
            let mut at = self.floor.0;
            self.finished.iter().all(|&(first, last)| {
                let fits = first.0 > at && first <= last && last.0 < u64::MAX;
                at = last.0.saturating_add(1);
                fits
            })
        };
        if ranges_fit
            && self
                .attempts
                .iter()
                .all(|(&offset, &n)| n > 0 && !self.is_finished(offset))
        {
            return Cow::Borrowed(self);
        }
        let mut ranges = self.finished.clone();
        ranges.retain(|&(first, last)| first <= last && last.0 < u64::MAX && last >= self.floor);
        ranges.sort_unstable();
        let mut canonical = Cursor {
            floor: self.floor,
            ..Cursor::default()
        };
        for (first, last) in ranges {
            match canonical.finished.last_mut() {
                _ if first <= canonical.floor => canonical.floor = canonical.floor.max(last.plus(1)),
                Some(before) if first.0 <= before.1.0 + 1 => before.1 = before.1.max(last),
                Some(_) | None => canonical.finished.push((first, last)),
            }
        }
        for (&offset, &count) in &self.attempts {
            if count > 0 && !canonical.is_finished(offset) {
                canonical.attempts.insert(offset, count);
            }
        }
        Cow::Owned(canonical)
    }
}

fn put(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn take(rest: &mut &[u8]) -> Result<u64, CursorDecodeError> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, tail) = rest.split_first().ok_or(CursorDecodeError::Truncated)?;
        *rest = tail;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return Err(CursorDecodeError::Overflow);
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            // A last byte of zero would be a second way of writing the same number.
            return if byte == 0 && shift > 0 {
                Err(CursorDecodeError::NotCanonical)
            } else {
                Ok(value)
            };
        }
    }
    Err(CursorDecodeError::Overflow)
}

fn add(a: u64, b: u64) -> Result<u64, CursorDecodeError> {
    a.checked_add(b).ok_or(CursorDecodeError::Overflow)
}

/// The bytes are no cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CursorDecodeError {
    /// Written by a version of fanin with another cursor layout.
    UnknownVersion(u8),
    /// The bytes end too early.
    Truncated,
    /// A number is larger than its field.
    Overflow,
    /// The content is readable but not what an encoder writes.
    NotCanonical,
    /// Bytes follow behind the content.
    TrailingBytes(usize),
}

impl fmt::Display for CursorDecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CursorDecodeError::UnknownVersion(version) => {
                write!(
                    f,
                    "cursor layout {version} is unknown, this fanin reads {VERSION}; use the version that wrote it"
                )
            }
            CursorDecodeError::Truncated => f.write_str("the cursor ends too early"),
            CursorDecodeError::Overflow => f.write_str("a number of the cursor is too large"),
            CursorDecodeError::NotCanonical => f.write_str("the cursor is not in its one valid form"),
            CursorDecodeError::TrailingBytes(count) => write!(f, "{count} bytes follow behind the cursor"),
        }
    }
}

impl core::error::Error for CursorDecodeError {}
