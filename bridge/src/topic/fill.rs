//! Hands messages over: candidates from the delivery machine, bodies from memory or disk, filters and terms, frames.

use std::sync::{Arc, atomic::Ordering};

use fanin_core::ids::Offset;
use futures_util::FutureExt;
use tokio::{
    task::JoinHandle,
    time::{Duration, Instant},
};

use super::{
    app::AppTask,
    body::TopicBatch,
    frame::wire_size,
    limits::{DELIVERIES_PER_TURN_MAX, READ_RETRY_MS},
    shared::{ReadFailure, TopicShared},
};

/// The batches an application's task works on.
#[derive(Default)]
pub(crate) struct Bodies {
    /// The batch used last, and the one before: a retry of an old message does not drop the batch at the frontier.
    recent: [Option<Arc<TopicBatch>>; 2],
    loading: Option<JoinHandle<Result<Arc<TopicBatch>, ReadFailure>>>,
    /// Set after a failed read.
    retry_at: Option<Instant>,
}

enum Lookup {
    Ready(Arc<TopicBatch>),
    /// On its way from disk, or to be read again later.
    Loading,
    /// No batch holds the offset.
    Missing,
}

impl Bodies {
    fn get(&mut self, topic: &Arc<TopicShared>, offset: Offset) -> Lookup {
        let recent = self.recent.iter().flatten().find(|batch| batch.holds(offset));
        if let Some(batch) = recent {
            return Lookup::Ready(Arc::clone(batch));
        }
        self.take_loaded();
        if let Some(batch) = self.recent[0].as_ref().filter(|batch| batch.holds(offset)) {
            return Lookup::Ready(Arc::clone(batch));
        }
        let Some(entry) = topic.entry(offset) else {
            return Lookup::Missing;
        };
        if let Some(batch) = topic.cached(entry.base) {
            self.remember(Arc::clone(&batch));
            return Lookup::Ready(batch);
        }
        if self.loading.is_none() && self.retry_at.is_none() {
            let next = entry.end();
            self.loading = Some(tokio::spawn(Arc::clone(topic).read(entry)));
            topic.read_ahead(next);
        }
        Lookup::Loading
    }

    fn remember(&mut self, batch: Arc<TopicBatch>) {
        self.recent.swap(0, 1);
        self.recent[0] = Some(batch);
    }

    fn take_loaded(&mut self) {
        if let Some(result) = self.loading.as_mut().and_then(|loading| loading.now_or_never()) {
            self.loaded(result.ok());
        }
    }

    /// A read has ended; `None` when its task was cancelled, as happens when the process ends.
    fn loaded(&mut self, result: Option<Result<Arc<TopicBatch>, ReadFailure>>) {
        self.loading = None;
        match result {
            Some(Ok(batch)) => self.remember(batch),
            Some(Err(_)) | None => {
                self.retry_at = Some(Instant::now() + Duration::from_millis(READ_RETRY_MS))
            }
        }
    }

    /// Waits for the read under way, for ever when there is none. Safe to drop and call again.
    pub(crate) async fn wait(&mut self) {
        match &mut self.loading {
            Some(loading) => {
                let result = loading.await;
                self.loaded(result.ok());
            }
            None => std::future::pending().await,
        }
    }

    /// Allows reading again when the pause after a failure is over.
    fn end_pause(&mut self) {
        self.retry_at = self.retry_at.filter(|at| *at > Instant::now());
    }

    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Forgets batches that are finished for this application, so that they do not stay in memory.
    pub(crate) fn forget_below(&mut self, floor: Offset) {
        for recent in &mut self.recent {
            if recent.as_ref().is_some_and(|batch| batch.end() <= floor) {
                *recent = None;
            }
        }
    }
}

impl AppTask {
    /// Hands over as much as a turn allows. Returns whether there may be more to do at once.
    pub(super) fn fill(&mut self) -> bool {
        self.machine.extend_head(*self.head.borrow_and_update());
        self.pass_over_foreign();
        self.bodies.end_pause();
        let now = self.now();
        let mut touched = std::mem::take(&mut self.touched);
        let mut handled = 0;
        let more = loop {
            if handled == DELIVERIES_PER_TURN_MAX {
                break true;
            }
            handled += 1;
            if self.topic.fenced.load(Ordering::Acquire) {
                break false;
            }
            let Some(candidate) = self.machine.poll_next(now) else {
                break false;
            };
            let batch = match self.bodies.get(&self.topic, candidate.offset) {
                Lookup::Ready(batch) => batch,
                Lookup::Loading => break false,
                Lookup::Missing => {
                    self.topic.missing(candidate.offset);
                    self.machine.set_paused(true);
                    break false;
                }
            };
            if !self.topic.entitled(self.number, batch.terms) {
                self.machine
                    .skip(batch.base, Offset(batch.end().0 - 1), &mut self.effects);
                continue;
            }
            let place = batch.place(candidate.offset);
            if batch.message(place).is_lost() {
                if !self.machine.lose(now, candidate.offset, &mut self.effects) {
                    break false;
                }
                self.run_effects(
                    "the local log was damaged, and the source has no copy of the message any more",
                );
                continue;
            }
            if !self.spec.filter.matches(&batch.message(place).subject) {
                let passed_over = (place + 1..batch.count())
                    .take_while(|next| {
                        let message = batch.message(*next);
                        !message.is_lost() && !self.spec.filter.matches(&message.subject)
                    })
                    .count() as u64;
                self.machine.skip(
                    candidate.offset,
                    candidate.offset.plus(passed_over),
                    &mut self.effects,
                );
                continue;
            }
            let charged = wire_size(&batch, place, candidate.attempt) as u64;
            let Some(handed) = self.machine.hand_over(now, candidate.offset, charged) else {
                break false;
            };
            let Some(instance) = self.instances.get_mut(&handed.instance) else {
                // The machine knows exactly the instances that this task has.
                debug_assert!(false, "instance {} is unknown", handed.instance);
                break false;
            };
            self.totals.deliveries += 1;
            self.totals.redeliveries += u64::from(handed.attempt > 1);
            let told = (handed.attempt, handed.delivery.0);
            if instance.deliver((&batch, place), told, charged) {
                touched.push(handed.instance);
            }
        };
        for no in touched.drain(..) {
            if let Some(instance) = self.instances.get_mut(&no) {
                instance.finish_frame();
            }
        }
        self.touched = touched;
        self.run_effects("");
        more
    }

    /// Batches of terms that do not name this application are finished without looking at them, so that an application
    /// which is not part of the terms keeps nothing on disk.
    fn pass_over_foreign(&mut self) {
        let head = self.machine.head();
        while self.judged < head {
            let Some((base, end, terms)) = self.topic.extent(self.judged) else {
                break;
            };
            if !self.topic.entitled(self.number, terms) {
                self.machine.skip(base, Offset(end.0 - 1), &mut self.effects);
            }
            self.judged = end;
        }
    }
}
