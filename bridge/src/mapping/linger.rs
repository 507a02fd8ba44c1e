//! How long a batch that is not full waits for more messages, by how many batches are unfinished already.
//!
//! An unfinished batch takes memory on every node of its mapping, whatever it holds: an entry of the fold, and on its owner those of the
//! node, the topic and the local log, about 1 KiB in all. An application that is away for an hour under a slow publisher would leave
//! one behind for every few messages. So batches wait longer, and hold more, the more of them there are; with few of them latency is
//! what counts, and the configured time holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::limits::{LINGER_ACK_WAIT_DIVISOR, LINGER_STEPS};

/// The waiting time of a mapping's batches. Clones share the number of unfinished ones.
#[derive(Clone, Debug, Default)]
pub struct Linger {
    configured: Duration,
    ack_wait: Duration,
    unfinished: Arc<AtomicUsize>,
}

impl Linger {
    /// The configured time while few batches are unfinished. The longer ones stay within a part of `ack_wait`.
    #[must_use]
    pub fn new(configured: Duration, ack_wait: Duration) -> Linger {
        Linger {
            configured,
            ack_wait,
            unfinished: Arc::default(),
        }
    }

    /// So many batches are unfinished now.
    pub fn tell(&self, unfinished: usize) {
        let weight = crate::failpoint::weigh(unfinished);
        self.unfinished.store(weight, Ordering::Relaxed);
    }

    /// How long the next batch waits.
    #[must_use]
    pub fn now(&self) -> Duration {
        let unfinished = self.unfinished.load(Ordering::Relaxed);
        LINGER_STEPS
            .iter()
            .rev()
            .find(|(from, _)| unfinished >= *from)
            .map_or(self.configured, |(_, wait)| {
                self.configured
                    .max((*wait).min(self.ack_wait / LINGER_ACK_WAIT_DIVISOR))
            })
    }
}

#[cfg(test)]
mod tests {
    //! Goal: few unfinished batches leave the configured time, many lengthen it, within the hub's wait. Method: both sides of each step.
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn batches_wait_longer_the_more_are_unfinished() {
        let linger = Linger::new(5 * MS, Duration::from_secs(30));
        assert_eq!(linger.now(), 5 * MS);
        let mut last = 5 * MS;
        for (from, wait) in LINGER_STEPS {
            linger.tell(from - 1);
            assert_eq!(linger.now(), last);
            linger.clone().tell(from);
            assert_eq!(linger.now(), wait);
            last = wait;
        }
        linger.tell(0);
        assert_eq!(linger.now(), 5 * MS);
    }

    #[test]
    fn a_longer_configured_time_stands() {
        let linger = Linger::new(Duration::from_secs(2), Duration::from_secs(30));
        linger.tell(usize::MAX);
        assert_eq!(linger.now(), Duration::from_secs(2));
    }

    #[test]
    fn the_hubs_wait_is_not_used_up() {
        let linger = Linger::new(5 * MS, Duration::from_secs(1));
        linger.tell(usize::MAX);
        assert_eq!(linger.now(), 125 * MS);
    }
}
