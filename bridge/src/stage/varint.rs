//! Unsigned LEB128 numbers and length-prefixed bytes, as the records of the local log use them.

use bytes::{BufMut, BytesMut};

use super::StageDecodeError;

/// Appends a number, 1 to 10 bytes.
pub(crate) fn put(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8((value as u8) | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Appends a length and the bytes.
pub(crate) fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.put_slice(bytes);
}

/// Reads from a slice; every read is checked, so that damaged bytes are an error and never a panic.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    pub(crate) fn u8(&mut self) -> Result<u8, StageDecodeError> {
        let (first, rest) = self.rest.split_first().ok_or(StageDecodeError::Truncated)?;
        self.rest = rest;
        Ok(*first)
    }

    pub(crate) fn number(&mut self) -> Result<u64, StageDecodeError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(StageDecodeError::Malformed("a number above 64 bits"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(StageDecodeError::Malformed("a number without end"))
    }

    pub(crate) fn number_u32(&mut self) -> Result<u32, StageDecodeError> {
        u32::try_from(self.number()?).map_err(|_| StageDecodeError::Malformed("a number above 32 bits"))
    }

    /// A count of things that take at least one byte each, so that a damaged count never reserves much memory.
    pub(crate) fn count(&mut self) -> Result<usize, StageDecodeError> {
        let count = self.number()?;
        if count > self.rest.len() as u64 {
            return Err(StageDecodeError::Truncated);
        }
        Ok(count as usize)
    }

    pub(crate) fn u64_le(&mut self) -> Result<u64, StageDecodeError> {
        let mut eight = [0_u8; 8];
        eight.copy_from_slice(self.take(8)?);
        Ok(u64::from_le_bytes(eight))
    }

    pub(crate) fn u32_le(&mut self) -> Result<u32, StageDecodeError> {
        let mut four = [0_u8; 4];
        four.copy_from_slice(self.take(4)?);
        Ok(u32::from_le_bytes(four))
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], StageDecodeError> {
        if len > self.rest.len() {
            return Err(StageDecodeError::Truncated);
        }
        let (taken, rest) = self.rest.split_at(len);
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, StageDecodeError> {
        let len = self.count()?;
        std::str::from_utf8(self.take(len)?)
            .map_err(|_| StageDecodeError::Malformed("text that is not UTF-8"))
    }

    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn finish(self) -> Result<(), StageDecodeError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(StageDecodeError::Malformed("bytes behind the end"))
        }
    }
}
