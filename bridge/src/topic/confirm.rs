//! Makes the cursor durable and then, never before, confirms verdicts to instances.

use std::collections::BTreeMap;

use bytes::Bytes;
use fanin_core::{
    delivery::Cursor,
    ids::{DeliveryNo, InstanceNo, Offset},
};
use fanin_proto::v1::DeliveryRange;
use fanin_store::{Class, Commit, CommitError, Location, Op, Store};
use futures_util::FutureExt;
use tokio::time::{Duration, Instant};

use super::{
    instance::{join, join_one},
    limits::FULL_RETRY_MS,
};

type Confirms = BTreeMap<InstanceNo, Vec<DeliveryRange>>;

/// Keeps one application's cursor durable, with at most one commit under way; what finishes meanwhile rides on the next.
pub(crate) struct CursorKeeper {
    /// The cursor's name in the local log.
    name: String,
    /// Generation of the durable cursor.
    durable: u64,
    /// Verdicts that no commit covers yet.
    waiting: Confirms,
    committing: Option<Committing>,
    /// Set after a refused commit.
    retry_at: Option<Instant>,
    broken: bool,
}

struct Committing {
    commit: Commit,
    generation: u64,
    floor: Offset,
    confirms: Confirms,
}

/// What a finished commit means.
pub(crate) enum Persisted {
    /// Everything below the floor is durably finished, and these verdicts may be confirmed.
    Durable { floor: Offset, confirms: Confirms },
    /// The log refused the commit for now; it is tried again.
    Refused(CommitError),
    /// The log cannot be trusted or used any more.
    Broken(CommitError),
}

impl CursorKeeper {
    pub(crate) fn new(name: String) -> CursorKeeper {
        CursorKeeper {
            name,
            durable: 0,
            waiting: Confirms::new(),
            committing: None,
            retry_at: None,
            broken: false,
        }
    }

    /// A verdict finished its message; confirm it once the cursor that says so is durable.
    pub(crate) fn note(&mut self, instance: InstanceNo, delivery: DeliveryNo) {
        join_one(self.waiting.entry(instance).or_default(), delivery.0);
    }

    /// Whether confirmations to an instance are still to come.
    pub(crate) fn owes(&self, instance: InstanceNo) -> bool {
        self.waiting.contains_key(&instance)
            || self
                .committing
                .as_ref()
                .is_some_and(|committing| committing.confirms.contains_key(&instance))
    }

    pub(crate) fn forget(&mut self, instance: InstanceNo) {
        self.waiting.remove(&instance);
    }

    /// Whether this generation of the cursor is durable.
    pub(crate) fn is_durable(&self, generation: u64) -> bool {
        self.durable == generation && self.committing.is_none()
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Starts a commit when the cursor has changed and none is under way.
    pub(crate) fn start(&mut self, store: &dyn Store, generation: u64, cursor: impl FnOnce() -> Cursor) {
        let waits = self.retry_at.is_some_and(|at| Instant::now() < at);
        if self.broken || waits || self.committing.is_some() || generation == self.durable {
            return;
        }
        self.retry_at = None;
        let cursor = cursor();
        let put = Op::Put {
            name: self.name.clone(),
            value: Bytes::from(cursor.encode()),
        };
        self.committing = Some(Committing {
            commit: store.commit(Class::Finish, vec![put]),
            generation,
            floor: cursor.floor,
            confirms: std::mem::take(&mut self.waiting),
        });
    }

    /// The commit's result when it is there already.
    pub(crate) fn poll_now(&mut self) -> Option<Persisted> {
        let result = (&mut self.committing.as_mut()?.commit).now_or_never()?;
        self.settle(result)
    }

    /// Waits for the commit under way, for ever when there is none. Safe to drop and call again.
    pub(crate) async fn wait(&mut self) -> Option<Persisted> {
        match &mut self.committing {
            Some(committing) => {
                let result = (&mut committing.commit).await;
                self.settle(result)
            }
            None => std::future::pending().await,
        }
    }

    fn settle(&mut self, result: Result<Vec<Location>, CommitError>) -> Option<Persisted> {
        let committing = self.committing.take()?;
        let error = match result {
            Ok(_) => {
                self.durable = committing.generation;
                return Some(Persisted::Durable {
                    floor: committing.floor,
                    confirms: committing.confirms,
                });
            }
            Err(error) => error,
        };
        for (instance, ranges) in committing.confirms {
            let waiting = self.waiting.entry(instance).or_default();
            let later = std::mem::replace(waiting, ranges);
            join(waiting, &later);
        }
        match &error {
            CommitError::Full { .. } | CommitError::TooLarge { .. } => {
                self.retry_at = Some(Instant::now() + Duration::from_millis(FULL_RETRY_MS));
                Some(Persisted::Refused(error))
            }
            CommitError::Poisoned(_) | CommitError::Closed => {
                self.broken = true;
                Some(Persisted::Broken(error))
            }
        }
    }
}
