//! A 128-bit content hash: FNV-1a, as published by Fowler, Noll and Vo.
//!
//! It guards against accidents (two bridges that computed different states, a record that changed on its way), not
//! against an adversary who can write the ledger anyway. It is here because this crate has no dependencies and the value is
//! part of the replicated state, so it must never change with a library.

use core::fmt;

const OFFSET_BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

/// A 128-bit hash value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash128(pub u128);

impl fmt::Display for Hash128 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Hash128 {
    /// The hash of one byte string.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Hash128 {
        Hasher128::new().bytes(bytes).finish()
    }

    /// The value as big-endian bytes, as records carry it.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// Adds the hash of a set's element: the sum does not depend on order, and `remove` undoes it.
    pub fn add(&mut self, element: Hash128) {
        self.0 = self.0.wrapping_add(element.0);
    }

    /// Takes an element added before out of the sum.
    pub fn remove(&mut self, element: Hash128) {
        self.0 = self.0.wrapping_sub(element.0);
    }
}

/// Hashes a sequence of parts.
#[derive(Clone, Copy, Debug)]
pub struct Hasher128(u128);

impl Default for Hasher128 {
    fn default() -> Self {
        Self::new()
    }
}

impl Hasher128 {
    /// An empty hash.
    #[must_use]
    pub fn new() -> Self {
        Hasher128(OFFSET_BASIS)
    }

    /// Takes bytes in. Parts are not delimited: callers hash encodings that are.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        for &byte in bytes {
            self.0 ^= u128::from(byte);
            self.0 = self.0.wrapping_mul(PRIME);
        }
        self
    }

    /// Takes a number in, as eight big-endian bytes.
    #[must_use]
    pub fn u64(self, value: u64) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    /// The hash of everything taken in.
    #[must_use]
    pub fn finish(self) -> Hash128 {
        Hash128(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the published algorithm. Method: the test vectors of the FNV authors.
    #[test]
    fn published_vectors() {
        assert_eq!(Hash128::of(b"").0, 0x6c62272e07bb014262b821756295c58d);
        assert_eq!(Hash128::of(b"a").0, 0xd228cb696f1a8caf78912b704e4a8964);
        assert_eq!(Hash128::of(b"foobar").0, 0x343e1662793c64bf6f0d3597ba446f18);
    }

    /// Goal: a sum forgets what was removed. Method: add three, remove one, compare with the sum of two.
    #[test]
    fn sums_are_sets() {
        let (a, b, c) = (Hash128::of(b"a"), Hash128::of(b"b"), Hash128::of(b"c"));
        let mut left = Hash128::default();
        left.add(a);
        left.add(b);
        left.add(c);
        left.remove(b);
        let mut right = Hash128::default();
        right.add(c);
        right.add(a);
        assert_eq!(left, right);
    }
}
