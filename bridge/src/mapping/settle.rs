//! Settling in the background: a bounded number of batches at once, each tried a few times and then left to the hub's
//! redelivery, which the fold answers (P5).

use std::collections::VecDeque;
use std::time::Duration;

use fanin_hub::AckSubject;
use fanin_hub::port::HubRef;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;

use super::batches::Permits;
use super::limits::{SETTLE_PAUSE, SETTLE_TRIES, SETTLES_MAX, SETTLES_WAITING_MESSAGES_MAX};

/// What to tell the hub about messages.
enum Job {
    Acknowledge(Vec<AckSubject>, Permits),
    GiveBack(Vec<AckSubject>, Duration),
}

impl Job {
    fn acks(&mut self) -> &mut Vec<AckSubject> {
        match self {
            Job::Acknowledge(acks, _) | Job::GiveBack(acks, _) => acks,
        }
    }
}

/// The queue of settlements.
pub struct SettleQueue {
    hub: HubRef,
    running: FuturesUnordered<BoxFuture<'static, ()>>,
    /// What does not fit is left to the hub's redelivery.
    waiting: VecDeque<Job>,
    silent: bool,
    /// Messages of the jobs that wait, at most `SETTLES_WAITING_MESSAGES_MAX`. No job is empty, so this bounds their number too.
    waiting_messages: usize,
}

impl SettleQueue {
    /// A queue over a connection.
    #[must_use]
    pub fn new(hub: HubRef) -> Self {
        SettleQueue {
            hub,
            running: FuturesUnordered::new(),
            waiting: VecDeque::new(),
            silent: false,
            waiting_messages: 0,
        }
    }

    /// Acknowledges messages; the permits are given back when the hub has taken it in, or was given up on.
    pub fn acknowledge(&mut self, acks: Vec<AckSubject>, permits: Permits) {
        if !acks.is_empty() {
            self.start(Job::Acknowledge(acks, permits));
        }
    }

    /// Hands messages back to the hub, to be delivered again after `delay`.
    pub fn give_back(&mut self, acks: Vec<AckSubject>, delay: Duration) {
        if !acks.is_empty() {
            self.start(Job::GiveBack(acks, delay));
        }
    }

    fn start(&mut self, mut job: Job) {
        if self.silent {
            return;
        }
        if self.running.len() >= SETTLES_MAX {
            let room = SETTLES_WAITING_MESSAGES_MAX - self.waiting_messages;
            let acks = job.acks();
            if acks.len() > room {
                tracing::debug!(
                    messages = acks.len() - room,
                    "too much waits to be settled; the hub delivers it again"
                );
                acks.truncate(room);
            }
            if !acks.is_empty() {
                self.waiting_messages += acks.len();
                self.waiting.push_back(job);
            }
            return;
        }
        let hub = self.hub.clone();
        self.running.push(Box::pin(async move {
            match job {
                Job::Acknowledge(acks, permits) => {
                    crate::failpoint::reach("before_settle");
                    for left in (0..SETTLE_TRIES).rev() {
                        match hub.settle(&acks).await {
                            Ok(()) => break,
                            Err(error) => tracing::debug!(%error, left, "settling failed"),
                        }
                        tokio::time::sleep(SETTLE_PAUSE).await;
                    }
                    crate::failpoint::reach("after_settle");
                    drop(permits);
                }
                Job::GiveBack(acks, delay) => {
                    if let Err(error) = hub.give_back(&acks, delay).await {
                        tracing::debug!(%error, "messages could not be handed back; the hub redelivers them later");
                    }
                }
            }
        }));
    }

    /// Lets one settlement finish and starts the next. Pending while there is none.
    pub async fn progress(&mut self) {
        if self.running.next().await.is_none() {
            return std::future::pending().await;
        }
        if let Some(mut job) = self.waiting.pop_front() {
            self.waiting_messages -= job.acks().len();
            self.start(job);
        }
    }

    /// Drops what is being settled and what waits for it, and takes nothing in any more.
    pub fn fall_silent(&mut self) {
        self.silent = true;
        self.running.clear();
        self.waiting.clear();
        self.waiting_messages = 0;
    }

    /// How many batches are being settled or wait for it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.running.len() + self.waiting.len()
    }

    /// Whether everything is settled or given up on.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    //! Goal: what waits to be settled is bounded by messages, and a full queue costs only redelivery. Method: far more jobs than may
    //! wait, while none is let go on; then all of them are.

    use fanin_hub::{Connection, HubOptions};
    use fanin_localhub::{LocalHub, LocalHubOptions, ServerBinary};

    use super::*;

    #[tokio::test]
    async fn what_waits_is_bounded_by_messages() {
        let binary = ServerBinary::find_or_fetch(None).expect("a nats-server");
        let server = LocalHub::start(LocalHubOptions::new(binary))
            .await
            .expect("started");
        let hub = Connection::connect(HubOptions::new([server.url()]))
            .await
            .expect("connected");
        let mut queue = SettleQueue::new(std::sync::Arc::new(hub));
        let acks = |count: usize| vec![AckSubject::from_text("$JS.ACK.S.c.1.1.1.1.0"); count];
        for _ in 0..SETTLES_MAX {
            queue.give_back(acks(1), Duration::ZERO);
        }
        for _ in 0..200 {
            queue.acknowledge(acks(1_000), Permits::default());
            queue.give_back(acks(1_000), Duration::ZERO);
            assert!(queue.waiting_messages <= SETTLES_WAITING_MESSAGES_MAX);
        }
        assert_eq!(queue.waiting_messages, SETTLES_WAITING_MESSAGES_MAX);
        assert_eq!(
            queue.waiting.len(),
            SETTLES_WAITING_MESSAGES_MAX.div_ceil(1_000),
            "the last one is cut, not dropped"
        );
        // Those of the front are taken up as others end.
        queue.waiting.retain(|job| matches!(job, Job::GiveBack(..)));
        queue.waiting_messages = queue.waiting.iter_mut().map(|job| job.acks().len()).sum();
        while !queue.is_empty() {
            queue.progress().await;
        }
        assert_eq!(queue.waiting_messages, 0);
    }
}
