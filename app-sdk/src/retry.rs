//! The reconnect back-off.

use std::time::Duration;

use rand::Rng as _;

use crate::limits::{BACKOFF_INITIAL, BACKOFF_MAX};

/// Doubling waits with jitter, so that the instances of a node do not return to a restarted bridge in step.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait before the next attempt: between half of, and the whole of, the doubled step.
    pub(crate) fn next_delay(&mut self) -> Duration {
        let step = BACKOFF_INITIAL
            .saturating_mul(1 << self.failures.min(16))
            .min(BACKOFF_MAX);
        self.failures = self.failures.saturating_add(1);
        step.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    //! Goal: waits grow, stay within their bounds, and start anew after a reset. Method: many draws.
    use super::*;

    #[test]
    fn waits_grow_to_the_maximum_and_reset() {
        let mut backoff = Backoff::default();
        for failures in 0..40_u32 {
            let step = BACKOFF_INITIAL
                .saturating_mul(1 << failures.min(16))
                .min(BACKOFF_MAX);
            let delay = backoff.next_delay();
            assert!(
                delay >= step / 2 && delay <= step,
                "{delay:?} outside [{:?}, {step:?}]",
                step / 2
            );
        }
        backoff.reset();
        assert!(backoff.next_delay() <= BACKOFF_INITIAL);
    }
}
