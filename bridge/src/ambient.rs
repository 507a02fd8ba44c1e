//! What a node asks of the machine it runs on besides hub, disk and network: the time of day and chance. Given by the caller,
//! so that a simulation decides both.

use std::sync::Arc;

/// Time of day and chance.
#[derive(Clone)]
pub struct Ambient {
    now_ns: Arc<dyn Fn() -> i64 + Send + Sync>,
    random: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl Ambient {
    /// `now_ns` tells nanoseconds since the Unix epoch, `random` 64 random bits.
    pub fn new(
        now_ns: impl Fn() -> i64 + Send + Sync + 'static,
        random: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Ambient {
        Ambient {
            now_ns: Arc::new(now_ns),
            random: Arc::new(random),
        }
    }

    /// The system's.
    #[must_use]
    pub fn system() -> Ambient {
        let now_ns = || {
            let since = std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .unwrap_or_default();
            i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
        };
        Ambient::new(now_ns, rand::random)
    }

    /// Nanoseconds since the Unix epoch.
    #[must_use]
    pub fn now_ns(&self) -> i64 {
        (self.now_ns)()
    }

    /// Milliseconds since the Unix epoch; 0 before it.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.now_ns().max(0) as u64 / 1_000_000
    }

    /// 64 random bits: nonces, jitter.
    #[must_use]
    pub fn random(&self) -> u64 {
        (self.random)()
    }
}

impl std::fmt::Debug for Ambient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ambient")
    }
}
