//! What happens to a cluster by itself: nodes die and come back, networks break, disks fill up, the hub loses its memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fanin_core::ids::Incarnation;

use crate::copies::Copies;
use crate::faults::Fault;
use crate::hub::ledger::LedgerLog;
use crate::hub::wire::Mode;
use crate::node::{Ground, Node, STREAM};
use crate::schedule::HEALTHY;
use crate::world::World;

/// Something in the time table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// So many messages are published.
    Publish(u64),
    /// A fault happens.
    Fault(Fault),
}

/// Something that lasts, and what ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lasting {
    /// The node is started.
    Down(usize),
    /// The network works again.
    Cut(usize),
    /// The disk has room again.
    Full(usize),
    /// The ledger has room again.
    LedgerFull,
    /// The file system has room again.
    FileSystem(usize),
    /// The node is stopped and started with the applications of now.
    Renew(usize),
    /// The halves of the hub find each other.
    Split,
}

/// The nodes, and what is wrong with them.
pub(crate) struct Cluster {
    pub(crate) ground: Ground,
    pub(crate) nodes: Vec<Node>,
    /// By the simulated millisecond in which it ends.
    lasting: BTreeMap<(u64, u64), Lasting>,
    number: u64,
    healed_ms: Option<u64>,
    /// What the source and the disks may be restored from.
    pub(crate) copies: Copies,
}

/// Longest a server that is the leader no more goes on answering, milliseconds: without followers it steps down. A hole is
/// believed when it was seen twice, further apart than this.
const OLD_LEADER_MS_MAX: u64 = 10_000;

/// Most nodes, clones included.
const NODES_MAX: usize = 8;

impl Cluster {
    pub(crate) fn new(ground: Ground, nodes: Vec<Node>) -> Cluster {
        Cluster {
            ground,
            nodes,
            lasting: BTreeMap::new(),
            number: 0,
            healed_ms: None,
            copies: Copies::default(),
        }
    }

    pub(crate) fn world(&self) -> &Arc<World> {
        &self.ground.world
    }

    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub(crate) fn healed_ms(&self) -> Option<u64> {
        self.healed_ms
    }

    /// Whether anything is halted, fenced or refused.
    pub(crate) fn is_held(&self) -> bool {
        self.nodes.iter().any(Node::is_held)
    }

    pub(crate) fn dead_letters(&self) -> Vec<(u64, Incarnation, u64)> {
        self.nodes.iter().flat_map(Node::dead_letters).collect()
    }

    pub(crate) async fn start_all(&mut self) {
        for node in &mut self.nodes {
            let ms = self.ground.world.events.between(0, 2_000);
            self.ground.world.pause(ms).await;
            node.start(&self.ground).await;
        }
    }

    pub(crate) fn last(&mut self, ms: u64, what: Lasting) {
        self.number += 1;
        let at_ms = self.world().now_ms() + ms;
        self.lasting.insert((at_ms, self.number), what);
    }

    /// Ends what has lasted long enough.
    pub(crate) async fn end_due(&mut self) {
        let now_ms = self.world().now_ms();
        while let Some(entry) = self.lasting.first_entry()
            && entry.key().0 <= now_ms
        {
            match entry.remove() {
                Lasting::Down(n) => self.nodes[n].start(&self.ground).await,
                Lasting::Cut(n) => self.nodes[n].wire.set(HEALTHY),
                Lasting::LedgerFull => self.fill_ledger(false),
                Lasting::Renew(n) => {
                    let world = Arc::clone(self.world());
                    self.nodes[n].stop(&world).await;
                    self.nodes[n].start(&self.ground).await;
                }
                Lasting::Full(n) => {
                    if let Some(disk) = self.nodes[n].disk() {
                        disk.fill(false);
                    }
                }
                Lasting::FileSystem(n) => {
                    if let Some(disk) = self.nodes[n].disk() {
                        disk.fill_file_system(false);
                    }
                }
                Lasting::Split => self.join_halves(),
            }
        }
    }

    pub(crate) async fn look(&mut self) {
        for node in &mut self.nodes {
            node.look(&self.ground.world).await;
        }
    }

    /// Processes that ended are started again, as a supervisor does.
    pub(crate) fn restart_ended(&mut self, within_ms: u64) {
        for n in 0..self.nodes.len() {
            let waits = self.lasting.values().any(|what| *what == Lasting::Down(n));
            if !self.nodes[n].is_alive() && !waits && self.nodes[n].refused.is_none() {
                let ms = self.ground.world.events.between(1, within_ms);
                self.last(ms, Lasting::Down(n));
            }
        }
    }

    fn pick(&self, wanted: impl Fn(&Node) -> bool) -> Option<usize> {
        let which: Vec<usize> = (0..self.nodes.len())
            .filter(|n| wanted(&self.nodes[*n]))
            .collect();
        self.world().events.pick(&which).copied()
    }

    /// How long something lasts: mostly seconds, at times minutes.
    fn duration_ms(&self) -> u64 {
        let dice = &self.world().events;
        match dice.below(10) {
            0 => dice.between(30_000, 180_000),
            1..=3 => dice.between(5_000, 30_000),
            _ => dice.between(50, 5_000),
        }
    }

    pub(crate) async fn begin(&mut self, fault: Fault) {
        let ms = self.duration_ms();
        let Some(n) = self.pick(Node::is_alive) else {
            return;
        };
        self.world()
            .note("world", || format!("{} (node {n}, {ms} ms)", fault.word()));
        let world = Arc::clone(self.world());
        let happened = match fault {
            Fault::Crash => {
                self.nodes[n].crash(&world).await;
                self.last(ms, Lasting::Down(n));
                true
            }
            Fault::Stop => {
                self.nodes[n].stop(&world).await;
                self.last(ms, Lasting::Down(n));
                true
            }
            Fault::Partition => self.cut(n, Mode::Down, ms),
            Fault::OneWayOut => self.cut(n, Mode::OutLost, ms),
            Fault::OneWayIn => self.cut(n, Mode::InLost, ms),
            Fault::Stall => self.cut(n, Mode::Held, ms),
            Fault::LeaderChange => {
                self.renew_all();
                true
            }
            Fault::DiskFull => {
                if let Some(disk) = self.nodes[n].disk() {
                    disk.fill(true);
                }
                self.last(ms, Lasting::Full(n));
                true
            }
            Fault::FileSystemFull => {
                if let Some(disk) = self.nodes[n].disk() {
                    disk.fill_file_system(true);
                }
                self.last(ms, Lasting::FileSystem(n));
                true
            }
            Fault::SyncFails => {
                if let Some(disk) = self.nodes[n].disk() {
                    disk.fail();
                }
                true
            }
            Fault::LedgerFull => {
                self.fill_ledger(true);
                self.last(ms, Lasting::LedgerFull);
                true
            }
            Fault::AppAdded => self.add_app(),
            Fault::AppMissing => self.leave_app_out(n, ms).await,
            Fault::DedupeForgets => {
                let mut state = self.ground.hub.state.lock();
                state.ledgers.values_mut().for_each(LedgerLog::forget_ids);
                true
            }
            Fault::AckStateLost | Fault::FloorReset | Fault::ResetForward | Fault::MessagesSkipped => {
                self.confuse_consumer(fault)
            }
            Fault::OldLeader => self.keep_old_leader(),
            Fault::MessageDeleted | Fault::OldestDiscarded | Fault::SourcePurged => {
                self.delete_messages(fault)
            }
            Fault::ConsumerRecreated => self.delete_consumer(n).await,
            Fault::PowerLoss => self.lose_power().await,
            Fault::LedgerRollback => self.roll_ledger_back().await,
            Fault::LedgerRollbackUnseen => self.lose_end_of_ledger(),
            Fault::LedgerSplit => self.split(ms),
            Fault::LedgerRecreated => self.delete_ledger(),
            Fault::SourceRecreated => self.recreate_source().await,
            Fault::SourceRollback => self.roll_source_back().await,
            Fault::DiskRestored => self.restore_disk().await,
            Fault::DiskCloned => self.clone_disk(n).await,
            Fault::RequestLost
            | Fault::ReplyLost
            | Fault::RequestLate
            | Fault::RequestSlow
            | Fault::NoResponders
            | Fault::InFlight
            | Fault::AppendTwice
            | Fault::TailLag
            | Fault::TailRestart
            | Fault::StaleRead
            | Fault::Unreadable
            | Fault::DeliveryLost
            | Fault::DeliveryTwice
            | Fault::DeliveryShuffled
            | Fault::AckLost
            | Fault::AckLate
            | Fault::AckTwice
            | Fault::SlowSync
            | Fault::CrashAtWrite
            | Fault::CrashAtAppend
            | Fault::CrashAtSettle
            | Fault::TornCrash
            | Fault::Damage
            | Fault::DamageRead
            | Fault::Retry
            | Fault::Reject
            | Fault::Release
            | Fault::AnswerLate
            | Fault::AnswerSlow
            | Fault::AnswerNever
            | Fault::AnswerTwice
            | Fault::InstanceDies
            | Fault::InstanceCloses => false,
        };
        if happened {
            world.count(fault);
        }
    }

    fn cut(&mut self, n: usize, mode: Mode, ms: u64) -> bool {
        if self.nodes[n].wire.mode() != HEALTHY {
            return false;
        }
        self.nodes[n].wire.set(mode);
        self.last(ms, Lasting::Cut(n));
        true
    }

    fn fill_ledger(&self, is_full: bool) {
        let mut state = self.ground.hub.state.lock();
        state.ledgers.values_mut().for_each(|log| log.fill(is_full));
    }

    /// One application more, on one node after the other.
    fn add_app(&mut self) -> bool {
        self.ground.apps += 1;
        for n in 0..self.nodes.len() {
            let ms = self.world().events.between(1, 60_000);
            self.last(ms, Lasting::Renew(n));
        }
        true
    }

    /// A node is started with a configuration that lacks the newest application, and later with the right one.
    async fn leave_app_out(&mut self, n: usize, ms: u64) -> bool {
        if self.ground.apps < 2 {
            return false;
        }
        let world = Arc::clone(self.world());
        self.nodes[n].stop(&world).await;
        self.nodes[n].lacks = 1;
        self.nodes[n].start(&self.ground).await;
        self.nodes[n].lacks = 0;
        self.last(ms, Lasting::Renew(n));
        true
    }

    /// The applications there are by now.
    pub(crate) fn apps(&self) -> u64 {
        self.ground.apps
    }

    pub(crate) fn renew_all(&self) {
        for node in &self.nodes {
            node.wire.renew();
        }
    }

    fn confuse_consumer(&self, fault: Fault) -> bool {
        let mut state = self.ground.hub.state.lock();
        let state = &mut *state;
        let mut happened = false;
        for consumer in state.consumers.values_mut() {
            happened = true;
            if fault == Fault::AckStateLost {
                consumer.lose_state();
            } else if fault == Fault::FloorReset {
                consumer.reset();
            } else if fault == Fault::ResetForward {
                let last = state.streams.get(STREAM).map_or(0, |stream| stream.last);
                let to = self.ground.world.hub.between(consumer.next(), last + 1);
                consumer.reset_to(to);
            } else {
                consumer.skip(self.ground.world.hub.between(1, 10));
            }
        }
        self.ground.hub.moved.notify_waiters();
        happened
    }

    /// Messages go from the source: one, the oldest ones, or all.
    fn delete_messages(&self, fault: Fault) -> bool {
        let mut state = self.ground.hub.state.lock();
        let Some(stream) = state.streams.get_mut(STREAM) else {
            return false;
        };
        let all: Vec<u64> = stream.messages.keys().copied().collect();
        let dice = &self.ground.world.hub;
        let gone: Vec<u64> = match fault {
            Fault::SourcePurged => all,
            Fault::OldestDiscarded => {
                let count = dice.between(1, (all.len() / 4).max(1) as u64);
                all.into_iter().take(count as usize).collect()
            }
            _ => dice.pick(&all).copied().into_iter().collect(),
        };
        let oracle = &self.ground.oracle;
        for seq in &gone {
            let removed = stream.messages.remove(seq);
            if let Some(life) = removed.and_then(|message| oracle.incarnation_at(message.stored_ns)) {
                oracle.deleted(life, *seq);
            }
        }
        !gone.is_empty()
    }

    /// Some nodes go on asking a server that is the leader no more.
    fn keep_old_leader(&self) -> bool {
        let world = &self.ground.world;
        let until_ms = world.now_ms() + world.hub.between(500, OLD_LEADER_MS_MAX);
        let nodes = self.some_nodes();
        let (stream, consumer) = *world
            .hub
            .pick(&[(true, false), (false, true), (true, true)])
            .unwrap_or(&(true, true));
        let mut state = self.ground.hub.state.lock();
        state.keep_leader(until_ms, nodes, stream, consumer);
        true
    }

    /// The names of some of the nodes, at least of one.
    pub(crate) fn some_nodes(&self) -> BTreeSet<String> {
        let dice = &self.ground.world.hub;
        let names = self.nodes.iter().map(|node| node.name.to_string());
        let mut some: BTreeSet<String> = names.filter(|_| dice.one_in(2)).collect();
        if some.is_empty() {
            let first = self.nodes.first().map(|node| node.name.to_string());
            some.extend(first);
        }
        some
    }

    /// Somebody deletes the consumer; the operator starts a node with the word to create it again.
    async fn delete_consumer(&mut self, n: usize) -> bool {
        {
            let mut state = self.ground.hub.state.lock();
            if state.consumers.is_empty() {
                return false;
            }
            state.consumers.clear();
        }
        self.ground.hub.moved.notify_waiters();
        let world = Arc::clone(self.world());
        self.nodes[n].recreate_consumer = true;
        self.nodes[n].crash(&world).await;
        self.last(100, Lasting::Down(n));
        true
    }

    /// Kills the processes that were to die at this very moment.
    pub(crate) async fn kill_doomed(&mut self) {
        let world = Arc::clone(self.world());
        for doomed in world.take_doomed() {
            let all = 0..self.nodes.len();
            for n in all.filter(|n| self.nodes[*n].name == doomed).collect::<Vec<_>>() {
                if self.nodes[n].is_alive() {
                    let ms = self.duration_ms();
                    self.nodes[n].crash(&world).await;
                    self.last(ms, Lasting::Down(n));
                }
            }
        }
    }

    /// A copy of a running node's disk is used by another process under the same name.
    async fn clone_disk(&mut self, n: usize) -> bool {
        if self.nodes.len() >= NODES_MAX {
            return false;
        }
        let Some(image) = self.nodes[n].disk().map(|disk| disk.copy()) else {
            return false;
        };
        let (name, uuid) = (self.nodes[n].name.to_string(), self.nodes[n].uuid);
        let mut clone = Node::with_image(&name, uuid, image);
        clone.start(&self.ground).await;
        self.nodes.push(clone);
        true
    }

    /// Everything works again.
    pub(crate) fn mend(&mut self) {
        self.lasting.clear();
        drop(self.world().take_doomed());
        self.join_halves();
        self.ground.hub.state.lock().old_leader = None;
        self.fill_ledger(false);
        for node in &self.nodes {
            node.wire.set(HEALTHY);
            if let Some(disk) = node.disk() {
                disk.fill(false);
                disk.fill_file_system(false);
            }
        }
    }

    /// Every node runs. Where promises were broken, and at times elsewhere, every process begins anew, so that what is wrong is met.
    pub(crate) async fn heal(&mut self) {
        self.healed_ms = Some(self.world().now_ms());
        let world = Arc::clone(self.world());
        let grown = self.ground.apps > self.ground.plan.apps;
        let anew = !self.ground.plan.kind.is_exact() || grown || world.events.one_in(2);
        let is_short = world.counts()[Fault::AppMissing as usize] > 0;
        let has_consumer = !self.ground.hub.state.lock().consumers.is_empty();
        for n in 0..self.nodes.len() {
            if anew || is_short {
                self.nodes[n].crash(&world).await;
            }
            self.nodes[n].recreate_consumer |= !has_consumer;
            self.nodes[n].start(&self.ground).await;
        }
    }
}
