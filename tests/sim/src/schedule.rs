//! One run: the nodes are started, messages are published, things go wrong; then everything heals and comes to rest.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use fanin_core::ids::Incarnation;

use crate::events::{Cluster, Event};
use crate::faults::{FAULTS, Fault, Timing};
use crate::hub::wire::Mode;
use crate::hub::{LATE_MS_MAX, SimHub};
use crate::logs;
use crate::mutants::{Mutant, under};
use crate::node::{Ground, Node, STREAM};
use crate::oracle::{Oracle, Published};
use crate::plan::Plan;
use crate::world::World;

/// Simulated time between two looks at the cluster, milliseconds.
const LOOK_MS: u64 = 500;
/// Simulated time within which a healed cluster comes to rest, milliseconds.
const REST_MS_MAX: u64 = 1_200_000;
/// A node with a working network has told what the source lost within this time, milliseconds.
const TELL_MS_MAX: u64 = 120_000;
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

pub(crate) struct Run {
    pub(crate) world: Arc<World>,
    pub(crate) plan: Arc<Plan>,
    pub(crate) hub: Arc<SimHub>,
    pub(crate) oracle: Arc<Oracle>,
    pub(crate) cluster: Cluster,
    /// The source as it was made first.
    pub(crate) incarnation: Incarnation,
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
        let mut rested = self.rest().await;
        if rested {
            // What was on its way for long must change nothing either.
            self.world.pause(LATE_MS_MAX + 5_000).await;
            self.cluster.look().await;
            // A node may be held only now: a stream that ends too early is looked at twice before that is believed. The others are
            // waited for as behind any other hold.
            if self.cluster.is_held() {
                rested = self.rest().await;
            }
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
        self.cluster.mend();
        self.hear_losses().await;
        self.cluster.heal().await;
    }

    /// Who has to tell what the source lost has time for it, for a node that begins anew has never seen the lost messages.
    async fn hear_losses(&mut self) {
        let until_ms = self.world.now_ms() + TELL_MS_MAX;
        while self.world.violations().is_empty()
            && let Some(untold) = self.world.losses.untold(self.cluster.nodes())
        {
            if self.world.now_ms() >= until_ms {
                return self.world.violate(format!("P10: {untold}"));
            }
            self.world.pause(LOOK_MS).await;
            self.cluster.look().await;
            self.check_views();
        }
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
}

/// The network of a healed cluster.
pub(crate) const HEALTHY: Mode = Mode::Up;
