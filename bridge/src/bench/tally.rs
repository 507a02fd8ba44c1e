//! What an application counts: every message, each once.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// What an application tells when it has acknowledged everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Done {
    /// Deliveries.
    pub(super) received: u64,
    /// Different messages.
    pub(super) distinct: u64,
    /// When the first one arrived, in microseconds since 1970.
    pub(super) first_us: u64,
}

/// Which of the messages 0 to `messages` have arrived.
#[derive(Debug)]
pub(super) struct Tally {
    seen: Vec<u64>,
    messages: u64,
    done: Done,
}

impl Tally {
    pub(super) fn new(messages: u64) -> Self {
        let words = usize::try_from(messages.div_ceil(64)).unwrap_or(usize::MAX);
        Self {
            seen: vec![0; words],
            messages,
            done: Done {
                received: 0,
                distinct: 0,
                first_us: 0,
            },
        }
    }

    /// Counts a delivery by the number in its payload. True when that was the last message missing.
    pub(super) fn count(&mut self, payload: &[u8]) -> bool {
        if self.done.received == 0 {
            self.done.first_us = now_us();
        }
        self.done.received += 1;
        let Some(number) = number_of(payload).filter(|number| *number < self.messages) else {
            return false;
        };
        let bit = 1 << (number % 64);
        let word = usize::try_from(number / 64)
            .ok()
            .and_then(|word| self.seen.get_mut(word));
        let Some(word) = word.filter(|word| **word & bit == 0) else {
            return false;
        };
        *word |= bit;
        self.done.distinct += 1;
        self.done.distinct == self.messages
    }

    pub(super) fn done(&self) -> Done {
        self.done
    }
}

/// The number a payload begins with.
fn number_of(payload: &[u8]) -> Option<u64> {
    payload.first_chunk().copied().map(u64::from_le_bytes)
}

/// A payload of `size` bytes that begins with the number, its rest from `filler`.
pub(super) fn payload(number: u64, filler: &[u8]) -> bytes::Bytes {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.extend_from_slice(filler);
    bytes.into()
}

/// Bytes that do not compress well, always the same.
pub(super) fn filler(size: usize) -> Vec<u8> {
    let mut state: u64 = 0x9E37_79B9_7F4A_7C15;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    })
    .take(size)
    .collect()
}

/// Microseconds since 1970.
pub(super) fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    // Goal: only different messages of the run count, and the last one is noticed. Method: payloads in odd orders.
    use super::*;

    #[test]
    fn each_message_counts_once() {
        let filler = filler(92);
        let mut tally = Tally::new(70);
        assert!(!tally.count(&payload(70, &filler)), "not of this run");
        assert!(!tally.count(b"short"));
        for number in (1..70).rev() {
            assert!(!tally.count(&payload(number, &filler)));
            assert!(!tally.count(&payload(number, &filler)), "again");
        }
        assert!(tally.count(&payload(0, &filler)));
        let done = tally.done();
        assert_eq!((done.received, done.distinct), (2 + 2 * 69 + 1, 70));
        assert!(done.first_us > 0);
        assert_eq!(payload(0, &filler).len(), 100);
    }
}
