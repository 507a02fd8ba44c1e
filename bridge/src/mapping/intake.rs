//! Pulling by demand: one task per source, which pulls only while the driver permits it and room is free.

use std::sync::Arc;
use std::time::Duration;

use fanin_config::BatchConfig;
use fanin_core::ids::Incarnation;
use fanin_hub::port::{HubRef, Pull};
use fanin_hub::{ApiError, PullError, Pulled, SharedConsumer};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

use super::batches::Permits;
use super::driver::Event;
use super::join::pause;
use super::ledger_io::error_chain;
use super::limits::{PAUSE_BROKEN, PULL_WAIT, STAGED_PARTS};
use super::linger::Linger;

/// The room of one source: in its window of unsettled messages, and in memory.
#[derive(Clone, Debug)]
pub struct Room {
    messages: Arc<Semaphore>,
    kib: Arc<Semaphore>,
    batch_messages: u32,
    batch_bytes: u64,
    linger: Linger,
    kib_total: u32,
}

impl Room {
    /// Room for `in_flight` messages and `staged_bytes` of subjects, headers and payloads, taken a batch at a time.
    ///
    /// What the hub sends ahead of its turn is within `staged_bytes` too: each of the puller's requests may bring a batch, and a batch
    /// is at most one of `STAGED_PARTS` parts, whatever the configuration allows. Beyond that a source holds at most one message,
    /// where a single one is larger than all parts that are for requests.
    #[must_use]
    pub fn new(in_flight: u32, staged_bytes: u64, batch: &BatchConfig, linger: Linger) -> Room {
        // In whole KiB, as the room is counted.
        let part = staged_bytes / STAGED_PARTS / 1024 * 1024;
        let batch_bytes = batch.bytes.0.min(part).max(1);
        let room_bytes = staged_bytes.saturating_sub((STAGED_PARTS - 1) * batch_bytes);
        let kib_total = u32::try_from((room_bytes / 1024).max(1))
            .unwrap_or(u32::MAX)
            .min(u32::MAX >> 4);
        Room {
            messages: Arc::new(Semaphore::new(in_flight as usize)),
            kib: Arc::new(Semaphore::new(kib_total as usize)),
            batch_messages: batch.messages.min(in_flight),
            batch_bytes,
            linger,
            kib_total,
        }
    }

    /// Waits for the room of a whole batch.
    async fn take(&self) -> Option<Permits> {
        let messages = Arc::clone(&self.messages)
            .acquire_many_owned(self.batch_messages)
            .await
            .ok()?;
        let kib = Arc::clone(&self.kib)
            .acquire_many_owned(self.kib_of(self.batch_bytes))
            .await
            .ok()?;
        Some(Permits {
            messages: Some(messages),
            kib: Some(kib),
        })
    }

    fn kib_of(&self, bytes: u64) -> u32 {
        u32::try_from(bytes.div_ceil(1024))
            .unwrap_or(u32::MAX)
            .clamp(1, self.kib_total)
    }

    /// Gives back what these messages do not need. A single message that is larger than a batch waits for what it lacks; one
    /// that is larger than the room takes all of it.
    async fn fit(&self, permits: &mut Permits, messages: &[Pulled]) -> Option<()> {
        if let Some(held) = &mut permits.messages {
            let spare = held.num_permits().saturating_sub(messages.len());
            drop(held.split(spare));
        }
        let bytes = messages.iter().map(|message| message.size() as u64).sum();
        let needed = self.kib_of(bytes);
        if let Some(held) = &mut permits.kib {
            let has = u32::try_from(held.num_permits()).unwrap_or(u32::MAX);
            if let Some(more) = needed.checked_sub(has).filter(|more| *more > 0) {
                held.merge(Arc::clone(&self.kib).acquire_many_owned(more).await.ok()?);
            }
            drop(held.split((has.saturating_sub(needed)) as usize));
        }
        Some(())
    }
}

/// A running intake. Ends when dropped; what the hub has handed over meanwhile comes again after its wait.
pub struct IntakeTask {
    _task: AbortOnDropHandle<()>,
}

impl IntakeTask {
    /// Pulls from one source while `open` says so; batches go to the driver.
    #[must_use]
    pub fn start(
        hub: &HubRef,
        incarnation: Incarnation,
        consumer: &SharedConsumer,
        room: Room,
        mut open: watch::Receiver<bool>,
        events: mpsc::Sender<Event>,
    ) -> IntakeTask {
        let mut puller = hub.puller(consumer);
        let hub = hub.clone();
        let task = tokio::spawn(async move {
            let mut failures = 0;
            loop {
                if !*open.borrow_and_update() {
                    puller.release().await;
                    if open.wait_for(|open| *open).await.is_err() {
                        return;
                    }
                }
                let Some(mut permits) = room.take().await else {
                    return;
                };
                if !*open.borrow() {
                    continue;
                }
                match pull(&mut *puller, &room, &mut open).await {
                    Ok(messages) if messages.is_empty() => {}
                    Ok(messages) => {
                        failures = 0;
                        crate::failpoint::reach("after_pull");
                        if room.fit(&mut permits, &messages).await.is_none() {
                            return;
                        }
                        if events
                            .send(Event::Pulled {
                                incarnation,
                                messages,
                                permits,
                            })
                            .await
                            .is_err()
                        {
                            return;
                        }
                    }
                    Err(error) => {
                        drop(permits);
                        let text = format!("{}: {}", error.code(), error_chain(&error));
                        let missing = !error.retryable();
                        let broke = is_break(&error);
                        if events
                            .send(Event::PullFailed {
                                incarnation,
                                missing,
                                text,
                            })
                            .await
                            .is_err()
                        {
                            return;
                        }
                        hub.wait_connected().await;
                        if broke {
                            tokio::time::sleep(PAUSE_BROKEN).await;
                        } else {
                            tokio::time::sleep(pause(failures)).await;
                            failures += 1;
                        }
                    }
                }
            }
        });
        IntakeTask {
            _task: AbortOnDropHandle::new(task),
        }
    }
}

/// Whether the connection broke under the pull. Making it anew has its own pauses. To wait longer and longer would be
/// wrong where messages break it that nobody can read: the hub delivers those first that have waited, and others never.
fn is_break(error: &PullError) -> bool {
    matches!(
        error,
        PullError::Disconnected
            | PullError::Hub {
                source: ApiError::ClientGone,
                ..
            }
    )
}

async fn pull(
    puller: &mut dyn Pull,
    room: &Room,
    open: &mut watch::Receiver<bool>,
) -> Result<Vec<Pulled>, PullError> {
    let bytes = usize::try_from(room.batch_bytes).unwrap_or(usize::MAX);
    let wait: Duration = PULL_WAIT;
    tokio::select! {
        biased;
        pulled = puller.fetch(room.batch_messages as usize, bytes, room.linger.now(), wait) => pulled,
        // A fetch is cancel safe: what has arrived waits for the next one, or is given back when the gate is closed.
        _ = open.wait_for(|open| !*open) => Ok(Vec::new()),
    }
}

#[cfg(test)]
#[path = "intake_tests.rs"]
mod tests;
