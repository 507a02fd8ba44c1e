//! One run: the nodes are started, messages are published, things go wrong; then everything heals and comes to rest.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use fanin_bridge::mapping::view::State;
use fanin_core::ids::Incarnation;
use fanin_core::seq_set::SeqSet;

use crate::apps::app_name;
use crate::events::{Cluster, Event};
use crate::faults::{FAULTS, Fault, Timing};
use crate::hub::wire::Mode;
use crate::hub::{LATE_MS_MAX, SimHub};
use crate::logs;
use crate::mutants::{Mutant, under};
use crate::node::{Ground, Node, STREAM};
use crate::oracle::{Oracle, Published};
use crate::plan::{Kind, Plan};
use crate::world::World;

/// Simulated time between two looks at the cluster, milliseconds.
const LOOK_MS: u64 = 500;
/// Simulated time within which a healed cluster comes to rest, milliseconds.
const REST_MS_MAX: u64 = 1_200_000;
/// A process that ended is started again within this time, milliseconds.
const RESTART_MS_MAX: u64 = 20_000;

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What happened that must not.
    pub violations: Vec<String>,
    /// How often each fault happened.
    pub faults: [u64; FAULTS],
    /// Simulated milliseconds.
    pub simulated_ms: u64,
    /// Messages handed to applications.
    pub deliveries: u64,
    /// Whether something was halted, fenced or refused at the end.
    pub held: bool,
    /// Deliveries that broke exactly-once, in plans that allow it when it is told.
    pub wrong: u64,
    /// Everything that happened, when it was asked for.
    pub trace: String,
}

/// Runs a plan under a seed. The same two give the same outcome.
///
/// # Errors
/// When no runtime can be made.
pub fn run(seed: u64, plan: &Plan, traced: bool) -> std::io::Result<Outcome> {
    run_mutated(seed, plan, traced, None)
}

/// The same with a rule switched off. One run at a time in a process then.
///
/// # Errors
/// When no runtime can be made.
pub fn run_mutated(seed: u64, plan: &Plan, traced: bool, mutant: Option<Mutant>) -> std::io::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()?;
    let plan = Arc::new(plan.clone());
    logs::keep_panics();
    drop(logs::take_panic());
    let played = async move {
        let world = Arc::new(World::new(seed, &plan, traced, mutant));
        let _logs = logs::collect(&world);
        Run::new(&world, &plan).play().await
    };
    Ok(under(mutant, || runtime.block_on(played)))
}

struct Run {
    world: Arc<World>,
    plan: Arc<Plan>,
    hub: Arc<SimHub>,
    oracle: Arc<Oracle>,
    cluster: Cluster,
    incarnation: Incarnation,
    published: u64,
}

impl Run {
    fn new(world: &Arc<World>, plan: &Arc<Plan>) -> Run {
        let hub = SimHub::new(world, STREAM, plan.stable_ms);
        let oracle = Arc::new(Oracle::new(world, plan.kind));
        let incarnation = hub.incarnation(STREAM).unwrap_or_default();
        oracle.created(0, incarnation);
        let ground = Ground {
            world: Arc::clone(world),
            hub: Arc::clone(&hub),
            oracle: Arc::clone(&oracle),
            plan: Arc::clone(plan),
            apps: plan.apps,
        };
        Run {
            world: Arc::clone(world),
            plan: Arc::clone(plan),
            cluster: Cluster::new(ground, (0..plan.nodes).map(Node::new).collect()),
            hub,
            oracle,
            incarnation,
            published: 0,
        }
    }

    async fn play(mut self) -> Outcome {
        self.cluster.start_all().await;
        self.trouble().await;
        self.heal().await;
        let rested = self.rest().await;
        if rested {
            // What was on its way for long must change nothing either.
            self.world.pause(LATE_MS_MAX + 5_000).await;
            self.cluster.look().await;
        }
        self.judge(rested);
        Outcome {
            violations: self.world.violations(),
            faults: self.world.counts(),
            simulated_ms: self.world.now_ms(),
            deliveries: self.oracle.deliveries(),
            held: self.cluster.is_held(),
            wrong: self.oracle.wrong_deliveries(),
            trace: self.world.trace(),
        }
    }

    /// When each hourly fault happens, in order; and the next message.
    fn timetable(&self) -> BTreeMap<(u64, u64), Event> {
        let until_ms = self.plan.seconds * 1_000;
        let mut table = BTreeMap::new();
        let mut number = 0;
        let mut add = |at_ms: u64, event: Event| {
            table.insert((at_ms, number), event);
            number += 1;
        };
        for fault in Fault::ALL {
            if fault.timing() == Timing::Hourly && self.plan.rate(*fault) > 0 {
                let mean_ms = 3_600_000 / self.plan.rate(*fault);
                let mut at_ms = self.world.events.between(1, 2 * mean_ms);
                while at_ms < until_ms {
                    add(at_ms, Event::Fault(*fault));
                    at_ms += self.world.events.between(1, 2 * mean_ms);
                }
            }
        }
        // Messages come in bursts and pauses.
        let mut left = self.plan.messages;
        while left > 0 {
            let count = left.min(self.world.workload.between(1, 1 + self.plan.messages / 10));
            let at_ms = self.world.workload.between(1, until_ms * 9 / 10);
            add(at_ms, Event::Publish(count));
            left -= count;
        }
        table
    }

    async fn trouble(&mut self) {
        let until_ms = self.plan.seconds * 1_000;
        let mut table = self.timetable();
        let mut look_ms = LOOK_MS;
        while self.world.now_ms() < until_ms && self.world.violations().is_empty() {
            let next_ms = table.first_key_value().map_or(until_ms, |((at, _), _)| *at);
            let at_ms = next_ms.min(look_ms).min(until_ms);
            let now_ms = self.world.now_ms();
            tokio::select! {
                biased;
                () = self.world.doom() => {}
                () = self.world.pause(at_ms.saturating_sub(now_ms)) => {}
            }
            self.cluster.kill_doomed().await;
            let now_ms = self.world.now_ms();
            if now_ms >= look_ms {
                look_ms = now_ms + LOOK_MS;
                self.look().await;
            }
            while let Some(entry) = table.first_entry()
                && entry.key().0 <= now_ms
            {
                match entry.remove() {
                    Event::Publish(count) => self.publish(count),
                    Event::Fault(fault) => self.cluster.begin(fault).await,
                }
            }
        }
        // Whatever the time table had no time for.
        for event in table.into_values() {
            if let Event::Publish(count) = event {
                self.publish(count);
            }
        }
    }

    /// What ended by itself is started again; what lasts ends when its time has come.
    async fn look(&mut self) {
        self.cluster.look().await;
        self.check_views();
        self.cluster.restart_ended(RESTART_MS_MAX);
        self.cluster.end_due().await;
        self.cluster.remember();
    }

    /// Each node's state is that of the records it has read (I4, I11), and none delivers that has read of a newer life of its
    /// data directory (I12).
    fn check_views(&self) {
        let state = self.hub.state.lock();
        if !state.truth.holds() {
            return;
        }
        for node in self.cluster.nodes() {
            let Some(view) = node.view().filter(|view| view.state.delivers()) else {
                continue;
            };
            if !state.truth.agrees(view.position, view.hash) {
                self.world.violate(format!(
                    "I4, I11: {} has another state at {} than the records up to there make",
                    node.name, view.position
                ));
            }
            let newest = state.truth.epoch(node.uuid);
            if view.epoch < newest && newest <= view.position && view.state != State::Halted {
                self.world.violate(format!(
                    "I12: {} delivers in epoch {} and has read of its epoch {newest}",
                    node.name, view.epoch
                ));
            }
        }
    }

    fn publish(&mut self, count: u64) {
        for _ in 0..count {
            self.published += 1;
            let wanted = !self.plan.filtered || !self.world.workload.one_in(4);
            let subject = if wanted { "orders.new" } else { "other.new" };
            let payload = Bytes::from(format!("{}-{:x}", self.published, self.world.workload.next()));
            if let Some(seq) = self.hub.publish(STREAM, subject, payload.clone()) {
                // A restored stream is another one for the oracle.
                let life = self.oracle.incarnation_at(self.world.now_ns());
                let incarnation = life.unwrap_or(self.incarnation);
                self.oracle
                    .published(incarnation, seq, Published { payload, wanted });
            }
        }
    }

    async fn heal(&mut self) {
        self.world.note("world", || "heals".to_owned());
        self.world.heal();
        self.cluster.heal().await;
    }

    /// Waits until nothing is left to do. False when that takes too long.
    async fn rest(&mut self) -> bool {
        let until_ms = self.world.now_ms() + REST_MS_MAX;
        while self.world.now_ms() < until_ms && self.world.violations().is_empty() {
            self.world.pause(LOOK_MS).await;
            self.cluster.look().await;
            self.check_views();
            self.cluster.restart_ended(LOOK_MS);
            self.cluster.end_due().await;
            if self.restless().is_none() {
                return true;
            }
        }
        false
    }

    /// Why the cluster is not at rest; `None` when it is.
    fn restless(&self) -> Option<String> {
        self.oracle.dead_letters(self.cluster.dead_letters());
        if self.cluster.is_held() && !self.is_exact() {
            return self.restless_held();
        }
        for node in self.cluster.nodes() {
            let Some(view) = node.view() else {
                return Some(format!(
                    "{} does not run: {}",
                    node.name,
                    node.refused.as_deref().unwrap_or("it was stopped")
                ));
            };
            if view.state != State::Active {
                return Some(format!("{} is {}: {}", node.name, view.state.word(), view.reason));
            }
            if view.unresolved + view.open + view.lag > 0 {
                return Some(format!(
                    "{} has {} unresolved and {} open batches, {} records to read",
                    node.name, view.unresolved, view.open, view.lag
                ));
            }
        }
        let open = self.unfinished(5);
        if !open.is_empty() {
            return Some(format!("not finished (application, source, sequence): {open:?}"));
        }
        let state = self.hub.state.lock();
        for ((_, name), consumer) in &state.consumers {
            if let Some(stream) = state.streams.get(STREAM) {
                let info = consumer.info(stream);
                if info.pending + info.ack_pending > 0 {
                    return Some(format!(
                        "the consumer {name} has {} pending, {} unacknowledged, floor {}",
                        info.pending, info.ack_pending, info.ack_floor
                    ));
                }
            }
        }
        let (closed, last) = (
            state.truth.closed(self.incarnation),
            self.oracle.last_wanted(self.incarnation),
        );
        (state.truth.holds() && closed < last)
            .then(|| format!("W is {closed}, the last wanted message {last}"))
    }

    /// What some application has not finished and is owed.
    fn unfinished(&self, max: usize) -> Vec<(u64, Incarnation, u64)> {
        let state = self.hub.state.lock();
        self.oracle
            .unfinished(self.cluster.apps(), max, |app, incarnation, seq| {
                state.truth.is_owed(&app_name(app), incarnation, seq)
            })
    }

    /// A cluster in which something is held is at rest when the rest has had its time: the late have arrived.
    fn restless_held(&self) -> Option<String> {
        let healed_ms = self.cluster.healed_ms()?;
        let waited_ms = self.world.now_ms().saturating_sub(healed_ms);
        if waited_ms < 2 * LATE_MS_MAX {
            return Some("something is held; the others go on".to_owned());
        }
        self.missing_untold()
    }

    /// Whether exactly once is demanded: no promise was broken, by its plan or by chance.
    fn is_exact(&self) -> bool {
        let counts = self.world.counts();
        let breaking = Fault::ALL.iter().filter(|fault| fault.breaks_promises());
        let broken: u64 = breaking.map(|fault| counts[*fault as usize]).sum();
        self.plan.kind.is_exact() || broken == 0
    }

    fn judge(&self, rested: bool) {
        if let Some(panic) = logs::take_panic() {
            self.world.violate(format!("a task panicked: {panic}"));
        }
        if !self.world.violations().is_empty() {
            return;
        }
        self.oracle.dead_letters(self.cluster.dead_letters());
        if self.is_exact() {
            if let Some(told) = self.world.told() {
                self.world
                    .violate(format!("FALSE ALARM: nothing is wrong, but a node says: {told}"));
            }
            if let Some(why) = self.restless() {
                self.world.violate(format!("NOT AT REST: {why}"));
            }
            let twice = self.oracle.finished_twice();
            if !twice.is_empty() {
                self.world.violate(format!(
                    "DUPLICATE: finished twice (application, sequence): {twice:?}"
                ));
            }
            return;
        }
        self.judge_told(rested);
    }

    /// What the hub or the disks have broken may have been noticed late, but it must have been noticed.
    fn judge_told(&self, rested: bool) {
        let is_told = self.world.told().is_some() || self.cluster.is_held();
        let unfinished = self.unfinished(5);
        let wrong = self.oracle.wrong_deliveries();
        if self.plan.kind == Kind::Lazy {
            self.judge_lost();
        }
        self.judge_histories();
        if is_told {
            return self.judge_rest_of_identity(wrong);
        }
        if wrong > 0 {
            self.world.violate(format!(
                "TOO MANY IN SILENCE: {wrong} deliveries, and no node says anything"
            ));
        }
        if !unfinished.is_empty() {
            self.world.violate(format!(
                "MISSING IN SILENCE: {unfinished:?}, and no node says anything"
            ));
        }
        if !rested {
            self.world.violate(format!(
                "NOT AT REST IN SILENCE: {}",
                self.restless().unwrap_or_default()
            ));
        }
    }

    /// A hub that loses what it had not synced loses no message: what somebody has acknowledged to it is finished, or lies
    /// on a disk.
    fn judge_lost(&self) {
        let mut kept: BTreeMap<Incarnation, SeqSet> = BTreeMap::new();
        for (incarnation, seqs) in self.cluster.nodes().iter().flat_map(Node::bodies) {
            kept.entry(incarnation).or_default().union(&seqs);
        }
        let unfinished = self.unfinished(usize::MAX);
        let state = self.hub.state.lock();
        let lost = unfinished.into_iter().find(|(_, incarnation, seq)| {
            let is_kept = kept.get(incarnation).is_some_and(|seqs| seqs.contains(*seq));
            state.settled.contains(&(*incarnation, *seq)) && !is_kept
        });
        if let Some((app, _, seq)) = lost {
            self.world.violate(format!(
                "LOST: application {app} has not finished message {seq}, which is acknowledged to the hub and on no disk"
            ));
        }
    }

    /// Nodes that go on have read one history: where the hub showed several, all that read another one are held.
    fn judge_histories(&self) {
        let mut read = BTreeMap::new();
        let nodes = self.cluster.nodes().iter().filter(|node| !node.is_held());
        for (node, view) in nodes.filter_map(|node| Some((node, node.view()?))) {
            if !view.state.delivers() {
                continue;
            }
            let (first, hash) = read.entry(view.position).or_insert((&node.name, view.hash));
            if *hash != view.hash {
                self.world.violate(format!(
                    "I4, I11: {first} and {} have read different records up to {}, and both go on",
                    node.name, view.position
                ));
            }
        }
    }

    fn judge_rest_of_identity(&self, wrong: u64) {
        if self.plan.kind != Kind::Identity {
            return;
        }
        // A restored disk never gets so far as to deliver; only a second body on a running node's disk can.
        if wrong > 0 && self.world.counts()[Fault::DiskCloned as usize] == 0 {
            self.world
                .violate(format!("{wrong} deliveries too many although no disk was cloned"));
        }
        if let Some(missing) = self.missing_untold() {
            self.world.violate(format!("LOST: {missing}"));
        }
    }

    /// Where only disks were copied nothing is missing but what belongs to a node that is held, unless all are.
    fn missing_untold(&self) -> Option<String> {
        let nodes = self.cluster.nodes();
        if self.plan.kind != Kind::Identity || nodes.iter().all(Node::is_held) {
            return None;
        }
        let unfinished = self.unfinished(usize::MAX);
        let state = self.hub.state.lock();
        unfinished.into_iter().find_map(|(app, incarnation, seq)| {
            let owner = state.truth.owner(incarnation, seq).map(|key| key.node);
            let is_told = nodes
                .iter()
                .any(|node| node.is_held() && Some(node.uuid) == owner);
            (!is_told).then(|| {
                format!("application {app} has not finished message {seq}, whose owner {owner:?} is not held")
            })
        })
    }
}

/// The network of a healed cluster.
pub(crate) const HEALTHY: Mode = Mode::Up;
