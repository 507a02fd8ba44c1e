//! What an application's configuration says about its deliveries.

use super::limits::{LEASE_MS_MAX, RETRY_DELAY_MS_MAX};

/// The delivery rules of one application. Out-of-range values are pulled into range when the machine takes the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Counted attempts after which a message is dead-lettered, at least 1.
    pub max_attempts: u32,
    /// How long a message steps aside after a counted attempt.
    pub backoff: Backoff,
    /// Milliseconds a begun delivery may stay without verdict or extension, 1 to [`LEASE_MS_MAX`].
    pub lease_ms: u64,
    /// Most messages held by all instances together. 0 stops delivery.
    pub in_flight_max: u32,
    /// Most messages held by one instance, whatever credit it grants. 0 stops delivery.
    pub instance_in_flight_max: u32,
}

impl Policy {
    pub(super) fn bounded(self) -> Policy {
        Policy {
            max_attempts: self.max_attempts.max(1),
            lease_ms: self.lease_ms.clamp(1, LEASE_MS_MAX),
            ..self
        }
    }
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            max_attempts: 10,
            backoff: Backoff::default(),
            lease_ms: 30_000,
            in_flight_max: 16_384,
            instance_in_flight_max: 4_096,
        }
    }
}

/// Exponential back-off with jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Milliseconds after the first counted attempt.
    pub initial_ms: u64,
    /// Growth per attempt in thousandths: 2000 doubles. Values below 1000 count as 1000.
    pub factor_milli: u32,
    /// Longest delay in milliseconds; never above [`RETRY_DELAY_MS_MAX`].
    pub max_ms: u64,
    /// Share of the delay that jitter may take away, 0 to 100 per cent.
    pub jitter_percent: u8,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff {
            initial_ms: 200,
            factor_milli: 2_000,
            max_ms: 60_000,
            jitter_percent: 20,
        }
    }
}

impl Backoff {
    /// Milliseconds to wait after counted attempt number `attempt` (from 1). Jitter only shortens: the result lies in
    /// `[base * (100 - jitter_percent) / 100, base]`, where `base` is the capped exponential delay. Equal arguments
    /// give equal results.
    #[must_use]
    pub fn delay(&self, attempt: u32, seed: u64) -> u64 {
        let base = self.base(attempt);
        let spread = u128::from(base) * u128::from(self.jitter_percent.min(100)) / 100;
        // The remainder is at most `spread`, which is at most `base`.
        let less = u128::from(mix(seed)) % (spread + 1);
        base - u64::try_from(less).unwrap_or(base)
    }

    /// The delay before jitter.
    fn base(&self, attempt: u32) -> u64 {
        let cap = self.max_ms.min(RETRY_DELAY_MS_MAX);
        let factor = u128::from(self.factor_milli.max(1_000));
        let mut delay = self.initial_ms.min(cap);
        for _ in 1..attempt {
            let grown = u128::from(delay) * factor / 1_000;
            let grown = u64::try_from(grown).unwrap_or(cap).min(cap);
            if grown == delay {
                break;
            }
            delay = grown;
        }
        delay
    }
}

/// The finaliser of SplitMix64: spreads a seed and its neighbours over all bits.
pub(super) fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::mix;

    /// Goal: the published function. Method: the first outputs of SplitMix64 from state 0, as its authors give them.
    #[test]
    fn published_values() {
        const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(mix(GAMMA), 0x6e78_9e6a_a1b9_65f4);
        assert_eq!(mix(GAMMA.wrapping_mul(2)), 0x06c4_5d18_8009_454f);
    }
}
