//! The few parts of the Protocol Buffers wire format that the ledger's records need, written by hand because this crate has
//! no dependencies. `proto/fanin/ledger/v1/ledger.proto` is the schema; a test walks golden bytes by it.
//!
//! Encoding is canonical: fields in ascending order, defaults left out, varints minimal. Decoding is strict: an unknown
//! field or a wrong wire type is an error, because rules may only change with the record's version (P10).

use core::fmt;

/// Why bytes are not a record this version understands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DecodeError {
    /// The bytes end in the middle of a field.
    Truncated,
    /// A number does not fit its type.
    Overflow,
    /// A field this version does not know.
    UnknownField(u32),
    /// A record type or version this version does not know.
    UnknownRecord,
    /// A value that no writer produces.
    Invalid(&'static str),
    /// More elements than the named limit allows.
    Limit(&'static str),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::Truncated => write!(f, "the record is cut short"),
            DecodeError::Overflow => write!(f, "a number in the record is too large"),
            DecodeError::UnknownField(n) => {
                write!(f, "the record has field {n}, which this version does not know")
            }
            DecodeError::UnknownRecord => {
                write!(f, "the record's type or version is not known to this version")
            }
            DecodeError::Invalid(what) => write!(f, "the record is invalid: {what}"),
            DecodeError::Limit(what) => write!(f, "the record is above a limit: {what}"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Writes fields.
#[derive(Debug, Default)]
pub struct Writer {
    out: Vec<u8>,
}

impl Writer {
    /// An empty message.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A bare varint, without a field number.
    pub fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.out.push((value as u8) | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }

    fn key(&mut self, field: u32, wire_type: u32) {
        self.raw_varint(u64::from(field << 3 | wire_type));
    }

    /// A varint field; left out when 0.
    pub fn uint(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.key(field, 0);
            self.raw_varint(value);
        }
    }

    /// A fixed64 field; left out when 0.
    pub fn fixed64(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.key(field, 1);
            self.out.extend_from_slice(&value.to_le_bytes());
        }
    }

    /// A signed number as an sfixed64 field; left out when 0.
    pub fn sfixed64(&mut self, field: u32, value: i64) {
        self.fixed64(field, value as u64);
    }

    /// A length-delimited field, written even when empty: for elements of repeated fields and for sub-messages.
    pub fn element(&mut self, field: u32, value: &[u8]) {
        self.key(field, 2);
        self.raw_varint(value.len() as u64);
        self.out.extend_from_slice(value);
    }

    /// A length-delimited field; left out when empty.
    pub fn bytes(&mut self, field: u32, value: &[u8]) {
        if !value.is_empty() {
            self.element(field, value);
        }
    }

    /// The encoded message.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.out
    }
}

/// One field's value as it stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64(u64),
    /// Wire type 2.
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    /// The value as a varint.
    ///
    /// # Errors
    /// When it has another wire type.
    pub fn uint(self) -> Result<u64, DecodeError> {
        match self {
            Value::Varint(value) => Ok(value),
            Value::Fixed64(_) | Value::Bytes(_) => Err(DecodeError::Invalid("wire type")),
        }
    }

    /// The value as a varint that fits 32 bits.
    ///
    /// # Errors
    /// When it has another wire type or does not fit.
    pub fn uint32(self) -> Result<u32, DecodeError> {
        u32::try_from(self.uint()?).map_err(|_| DecodeError::Overflow)
    }

    /// The value as a fixed64.
    ///
    /// # Errors
    /// When it has another wire type.
    pub fn fixed64(self) -> Result<u64, DecodeError> {
        match self {
            Value::Fixed64(value) => Ok(value),
            Value::Varint(_) | Value::Bytes(_) => Err(DecodeError::Invalid("wire type")),
        }
    }

    /// The value as bytes.
    ///
    /// # Errors
    /// When it has another wire type.
    pub fn bytes(self) -> Result<&'a [u8], DecodeError> {
        match self {
            Value::Bytes(value) => Ok(value),
            Value::Varint(_) | Value::Fixed64(_) => Err(DecodeError::Invalid("wire type")),
        }
    }

    /// The value as a 128-bit big-endian number.
    ///
    /// # Errors
    /// When it is not exactly 16 bytes.
    pub fn u128(self) -> Result<u128, DecodeError> {
        let bytes: [u8; 16] = self
            .bytes()?
            .try_into()
            .map_err(|_| DecodeError::Invalid("length of a 128-bit value"))?;
        Ok(u128::from_be_bytes(bytes))
    }

    /// The value as text of at most `max` bytes.
    ///
    /// # Errors
    /// When it is longer, not UTF-8, or has another wire type.
    pub fn text(self, max: usize) -> Result<String, DecodeError> {
        let bytes = self.bytes()?;
        if bytes.len() > max {
            return Err(DecodeError::Limit("length of a text"));
        }
        core::str::from_utf8(bytes)
            .map(str::to_owned)
            .map_err(|_| DecodeError::Invalid("text is not UTF-8"))
    }
}

/// Reads fields.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the beginning of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    /// Whether everything was read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// A bare varint, without a field number.
    ///
    /// # Errors
    /// When cut, above 64 bits, or longer than needed.
    pub fn raw_varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0_u64;
        for (i, &byte) in self.rest.iter().enumerate().take(10) {
            let part = u64::from(byte & 0x7f);
            if i == 9 && part > 1 {
                return Err(DecodeError::Overflow);
            }
            value |= part << (7 * i);
            if byte & 0x80 == 0 {
                if byte == 0 && i > 0 {
                    return Err(DecodeError::Invalid("varint longer than needed"));
                }
                self.rest = &self.rest[i + 1..];
                return Ok(value);
            }
        }
        Err(if self.rest.len() >= 10 {
            DecodeError::Overflow
        } else {
            DecodeError::Truncated
        })
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        if len > self.rest.len() {
            return Err(DecodeError::Truncated);
        }
        let (head, rest) = self.rest.split_at(len);
        self.rest = rest;
        Ok(head)
    }

    /// The next field, or `None` at the end.
    ///
    /// # Errors
    /// When the bytes are no field.
    pub fn field(&mut self) -> Result<Option<(u32, Value<'a>)>, DecodeError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = u32::try_from(self.raw_varint()?).map_err(|_| DecodeError::Overflow)?;
        let value = match key & 7 {
            0 => Value::Varint(self.raw_varint()?),
            1 => {
                let bytes = self.take(8)?.try_into().map_err(|_| DecodeError::Truncated)?;
                Value::Fixed64(u64::from_le_bytes(bytes))
            }
            2 => {
                let len = usize::try_from(self.raw_varint()?).map_err(|_| DecodeError::Overflow)?;
                Value::Bytes(self.take(len)?)
            }
            _ => return Err(DecodeError::Invalid("wire type")),
        };
        Ok(Some((key >> 3, value)))
    }
}

#[cfg(test)]
mod tests {
    //! Goal: every number has one encoding, and nothing else is read as one. Method: the numbers at each length, and bytes that are off by
    //! one.
    use super::*;

    fn read(bytes: &[u8]) -> Result<u64, DecodeError> {
        Reader::new(bytes).raw_varint()
    }

    #[test]
    fn varints_of_every_length() {
        let ends = (0..10).flat_map(|n| {
            let first = if n == 0 { 0 } else { 1_u64 << (7 * n) };
            let last = (first | first.wrapping_sub(1)) << 6;
            [first, first + 1, last | 0x7f]
        });
        for value in ends.chain([u64::MAX - 1, u64::MAX]) {
            let mut out = Writer::new();
            out.raw_varint(value);
            let bytes = out.finish();
            assert_eq!(read(&bytes), Ok(value), "{value}");
            assert_eq!(
                read(&bytes[..bytes.len() - 1]),
                Err(DecodeError::Truncated),
                "{value}"
            );
        }
    }

    #[test]
    fn varints_beyond_64_bits() {
        let with = |last: &[u8]| read(&[&[0xff; 9], last].concat());
        assert_eq!(with(&[0x01]), Ok(u64::MAX));
        assert_eq!(with(&[0x02]), Err(DecodeError::Overflow));
        assert_eq!(with(&[0x80]), Err(DecodeError::Overflow), "it goes on");
        assert_eq!(with(&[0x81, 0x01]), Err(DecodeError::Overflow));
        assert_eq!(with(&[]), Err(DecodeError::Truncated));
        assert_eq!(
            with(&[0x00]),
            Err(DecodeError::Invalid("varint longer than needed"))
        );
    }
}
