//! Hostile bytes: valid encodings with faults on purpose, and a measure of what reading them costs.
//!
//! What must hold is said once, in [`judges`]; the targets that run on stable stand in `targets/`, those of cargo-fuzz in `fuzz/` at the
//! root (`docs/fuzzing.md`). `FANIN_FUZZ_CASES` says how many cases each runs (default [`CASES`], divided by the target's
//! weight); what fails is kept beside the target in a `.regressions` file and comes first in every later run.

pub mod judges;

use std::sync::OnceLock;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::FileFailurePersistence;

/// Cases of a target of weight 1 where nothing else is said.
pub const CASES: u32 = 4_096;

/// Most faults put into one encoding.
const FAULTS_MAX: usize = 5;

/// Bytes that any target may take, however little it is given: errors with their texts, defaults, the root of a tree.
const BYTES_ALWAYS: u64 = 64 * 1024;

/// How a target runs. One of weight `n` runs an `n`-th of the cases.
#[must_use]
pub fn config(weight: u32) -> ProptestConfig {
    static CASES_WANTED: OnceLock<u32> = OnceLock::new();
    let cases = *CASES_WANTED.get_or_init(|| {
        let wanted = std::env::var("FANIN_FUZZ_CASES").ok();
        wanted.and_then(|text| text.parse().ok()).unwrap_or(CASES)
    });
    ProptestConfig {
        cases: (cases / weight.max(1)).max(1),
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    }
}

/// One fault in an encoding. Places are taken modulo its length.
#[derive(Clone, Debug)]
enum Fault {
    /// One bit is another.
    Flip(Index, u8),
    /// One byte is another.
    Put(Index, u8),
    /// The rest is missing.
    Cut(Index),
    /// Some bytes are missing.
    Remove(Index, usize),
    /// Bytes from nowhere.
    Insert(Index, Vec<u8>),
    /// Bytes of one place come again at another.
    Splice(Index, usize, Index),
    /// A varint or length of the largest kind stands where another began.
    Huge(Index, usize),
}

/// Largest numbers in the encodings in use: LEB128 of 64, 63, 32 and 31 bits, and fixed widths.
const HUGE: [&[u8]; 7] = [
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\xff\xff\xff\xff\x0f",
    b"\xff\xff\xff\xff\x07",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\xff\xff\xff\x7f",
];

fn fault() -> impl Strategy<Value = Fault> {
    let at = any::<Index>;
    prop_oneof![
        (at(), 0_u8..8).prop_map(|(at, bit)| Fault::Flip(at, bit)),
        (at(), any::<u8>()).prop_map(|(at, byte)| Fault::Put(at, byte)),
        at().prop_map(Fault::Cut),
        (at(), 1_usize..9).prop_map(|(at, len)| Fault::Remove(at, len)),
        (at(), prop::collection::vec(any::<u8>(), 1..9)).prop_map(|(at, bytes)| Fault::Insert(at, bytes)),
        (at(), 1_usize..40, at()).prop_map(|(from, len, to)| Fault::Splice(from, len, to)),
        (at(), 0..HUGE.len()).prop_map(|(at, which)| Fault::Huge(at, which)),
    ]
}

impl Fault {
    fn into(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let place = |at: &Index, bytes: &[u8]| at.index(bytes.len());
        match self {
            Fault::Flip(at, bit) => {
                let at = place(at, bytes);
                bytes[at] ^= 1 << bit;
            }
            Fault::Put(at, byte) => {
                let at = place(at, bytes);
                bytes[at] = *byte;
            }
            Fault::Cut(at) => bytes.truncate(place(at, bytes)),
            Fault::Remove(at, len) => {
                let at = place(at, bytes);
                let end = (at + len).min(bytes.len());
                bytes.drain(at..end);
            }
            Fault::Insert(at, more) => {
                let at = place(at, bytes);
                bytes.splice(at..at, more.iter().copied());
            }
            Fault::Splice(from, len, to) => {
                let from = place(from, bytes);
                let piece = bytes[from..(from + len).min(bytes.len())].to_vec();
                let to = place(to, bytes);
                bytes.splice(to..to, piece);
            }
            Fault::Huge(at, which) => {
                let at = place(at, bytes);
                bytes.splice(at..=at, HUGE[*which].iter().copied());
            }
        }
    }
}

/// `valid` encodings with up to a few faults each.
pub fn faulty(valid: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    (valid, prop::collection::vec(fault(), 0..=FAULTS_MAX)).prop_map(|(mut bytes, faults)| {
        for fault in &faults {
            fault.into(&mut bytes);
        }
        bytes
    })
}

/// Mostly [`faulty`] encodings, sometimes bytes that never were one.
pub fn hostile(valid: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        9 => faulty(valid),
        1 => prop::collection::vec(any::<u8>(), 0..256),
    ]
}

/// A number as hostile writers choose it: small, at an edge of its width, or any.
pub fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => 0_u64..12,
        1 => prop::sample::select(vec![
            u64::MAX, u64::MAX - 1, u64::MAX / 2, 1 << 63, u64::from(u32::MAX), u64::from(u32::MAX) + 1, 1 << 31, 127, 128,
        ]),
        1 => any::<u64>(),
    ]
}

/// Runs `read` on an input of `len` bytes.
///
/// # Panics
/// When it holds more than `factor` times `len` bytes, and a little, at any moment, or panics itself.
pub fn measured<T>(len: usize, factor: u64, read: impl FnOnce() -> T) -> T {
    let mut result = None;
    let taken = allocation_counter::measure(|| result = Some(read()));
    let allowed = factor * len as u64 + BYTES_ALWAYS;
    assert!(
        taken.bytes_max <= allowed,
        "{len} bytes made the reader take {} bytes at once; {allowed} are allowed",
        taken.bytes_max
    );
    match result {
        Some(result) => result,
        None => unreachable!("the closure ran"),
    }
}

#[cfg(test)]
mod tests {
    // Goal: the measure sees what is reserved and not used. Method: a reservation above and one below what is allowed.
    use super::*;

    #[test]
    fn reservations_count() {
        assert_eq!(measured(1_000, 10, || Vec::<u8>::with_capacity(9_000).len()), 0);
        let above = std::panic::catch_unwind(|| measured(1, 10, || Vec::<u8>::with_capacity(1 << 20).len()));
        assert!(above.is_err());
    }
}
