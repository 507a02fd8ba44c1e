//! How a hub breaks its promises: it loses what it had confirmed, splits, is restored from a copy, or begins anew.

use std::sync::Arc;

use crate::events::{Cluster, Lasting};
use crate::hub::OtherHalf;
use crate::hub::consumer::Consumer;
use crate::hub::stream::Stream;
use crate::node::STREAM;

impl Cluster {
    /// At times everything goes down at once, so that nobody is there to see it.
    async fn perhaps_crash_all(&mut self) {
        if self.world().hub.one_in(3) {
            let world = Arc::clone(self.world());
            for n in 0..self.nodes.len() {
                self.nodes[n].crash(&world).await;
            }
        }
    }

    /// A lazy hub loses power: what is younger than the time in which it syncs is gone or not, from some record on; so are
    /// at times the latest acknowledgements.
    pub(crate) async fn lose_power(&mut self) -> bool {
        self.perhaps_crash_all().await;
        {
            let mut state = self.ground.hub.state.lock();
            let state = &mut *state;
            let world = &self.ground.world;
            let synced_ns = world
                .now_ns()
                .saturating_sub(self.ground.plan.stable_ms * 1_000_000);
            let Some(log) = state.ledgers.values_mut().next() else {
                return false;
            };
            let kept = log.records.keys().next().map_or(log.last, |first| first - 1);
            let synced = log.last_stored_by(synced_ns).max(kept);
            if synced >= log.last {
                return false;
            }
            let to = world.hub.between(synced, log.last - 1);
            world.note("world", || format!("the ledger loses {} to {}", to + 1, log.last));
            log.roll_back(to);
            if world.hub.one_in(2) {
                state.consumers.values_mut().for_each(Consumer::lose_state);
            }
            state.truth.end();
        }
        self.renew_all();
        self.ground.hub.appended.notify_waiters();
        self.ground.hub.moved.notify_waiters();
        true
    }

    /// The hub splits: some nodes see one half, the others the other, and both halves take records.
    pub(crate) fn split(&mut self, ms: u64) -> bool {
        let nodes = self.some_nodes();
        {
            let mut state = self.ground.hub.state.lock();
            if state.other_half.is_some() || state.ledgers.is_empty() {
                return false;
            }
            let ledgers = state.ledgers.clone();
            state.other_half = Some(OtherHalf { nodes, ledgers });
            state.truth.end();
        }
        self.last(ms, Lasting::Split);
        true
    }

    /// The halves find each other, and one of them gives up its ledger.
    pub(crate) fn join_halves(&self) {
        {
            let mut state = self.ground.hub.state.lock();
            let Some(half) = state.other_half.take() else {
                return;
            };
            if self.ground.world.hub.one_in(2) {
                state.ledgers = half.ledgers;
            }
        }
        self.ground
            .world
            .note("world", || "the halves of the hub are one again".to_owned());
        self.renew_all();
        self.ground.hub.appended.notify_waiters();
    }

    /// The hub loses the end of the ledger: it was restarted on an older state of its disk.
    pub(crate) async fn roll_ledger_back(&mut self) -> bool {
        self.perhaps_crash_all().await;
        if !self.lose_end_of_ledger() {
            return false;
        }
        self.renew_all();
        self.ground.hub.appended.notify_waiters();
        true
    }

    /// The ledger's end is gone, and every connection goes on: nobody is told to look again.
    pub(crate) fn lose_end_of_ledger(&self) -> bool {
        let mut state = self.ground.hub.state.lock();
        let state = &mut *state;
        let Some(log) = state.ledgers.values_mut().next().filter(|log| log.last > 3) else {
            return false;
        };
        let lost = self.ground.world.hub.between(1, log.last.min(30) - 1);
        let to = log.last - lost;
        self.ground
            .world
            .note("world", || format!("the ledger loses {} to {}", to + 1, log.last));
        log.roll_back(to);
        state.truth.end();
        true
    }

    /// Somebody deletes the ledger.
    pub(crate) fn delete_ledger(&mut self) -> bool {
        {
            let mut state = self.ground.hub.state.lock();
            if state.ledgers.is_empty() {
                return false;
            }
            state.ledgers.clear();
            state.truth.end();
        }
        self.renew_all();
        self.ground.hub.appended.notify_waiters();
        true
    }

    /// Somebody deletes the source and creates it again: its sequences mean other messages now.
    pub(crate) async fn recreate_source(&mut self) -> bool {
        // In a millisecond of its own, so that a message's time tells which stream it was in.
        self.world().pause(2).await;
        {
            let mut state = self.ground.hub.state.lock();
            let created_ns = state.created_ns(self.ground.world.now_ns());
            let stream = Stream::new(STREAM, created_ns);
            self.ground.oracle.created(created_ns, stream.incarnation());
            state.streams.insert(STREAM.to_owned(), stream);
            state.consumers.clear();
            state.truth.end();
        }
        self.world().pause(2).await;
        self.renew_all();
        self.ground.hub.moved.notify_waiters();
        true
    }

    /// The source is restored from an earlier copy of it, under the same creation time.
    pub(crate) async fn roll_source_back(&mut self) -> bool {
        // In a millisecond of its own, so that a message's time tells which life of the stream it was in.
        self.world().pause(2).await;
        {
            let mut state = self.ground.hub.state.lock();
            let state = &mut *state;
            let Some(stream) = state.streams.get_mut(STREAM) else {
                return false;
            };
            let world = &self.ground.world;
            let Some(copy) = self.copies.older_source(world, stream) else {
                return false;
            };
            world.note("world", || {
                format!("the source loses {} to {}", copy.last + 1, stream.last)
            });
            self.owe_losses(stream, copy.last, |incarnation, seq| {
                state.truth.owner(incarnation, seq).is_some()
            });
            let oracle = &self.ground.oracle;
            oracle.rolled_back(world.now_ns(), stream.incarnation(), copy.last);
            // A server that finds the stream shorter lowers what it knows of the consumer.
            let next = copy.last + 1;
            for consumer in state.consumers.values_mut() {
                if consumer.next() > next {
                    consumer.reset_to(next);
                }
            }
            *stream = copy;
            state.truth.end();
        }
        self.world().pause(2).await;
        self.renew_all();
        self.ground.hub.moved.notify_waiters();
        true
    }
}
