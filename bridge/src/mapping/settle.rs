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
use super::limits::{SETTLE_PAUSE, SETTLE_TRIES, SETTLES_MAX, SETTLES_WAITING_MAX};

/// What to tell the hub about messages.
enum Job {
    Acknowledge(Vec<AckSubject>, Permits),
    GiveBack(Vec<AckSubject>, Duration),
}

/// The queue of settlements.
pub struct SettleQueue {
    hub: HubRef,
    running: FuturesUnordered<BoxFuture<'static, ()>>,
    /// At most `SETTLES_WAITING_MAX`; what does not fit is left to the hub's redelivery.
    waiting: VecDeque<Job>,
    silent: bool,
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

    fn start(&mut self, job: Job) {
        if self.silent {
            return;
        }
        if self.running.len() >= SETTLES_MAX {
            if self.waiting.len() < SETTLES_WAITING_MAX {
                self.waiting.push_back(job);
            } else {
                tracing::debug!("too much waits to be settled; the hub delivers it again");
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
        if let Some(job) = self.waiting.pop_front() {
            self.start(job);
        }
    }

    /// Drops what is being settled and what waits for it, and takes nothing in any more.
    pub fn fall_silent(&mut self) {
        self.silent = true;
        self.running.clear();
        self.waiting.clear();
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
