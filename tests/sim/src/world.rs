//! What everything in one run shares: the clock, chance, the faults in force, what was counted, the trace.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::dice::Dice;
use crate::faults::{FAULTS, Fault};
use crate::losses::Losses;
use crate::mutants::Mutant;
use crate::plan::Plan;

/// The simulated time of day at the start, nanoseconds since 1970.
const EPOCH_NS: u64 = 1_700_000_000_000_000_000;

/// Violations kept of one run; the first ones tell most.
const VIOLATIONS_MAX: usize = 20;

/// What a number is drawn for.
#[derive(Clone, Copy, Debug)]
pub enum Purpose {
    /// Delays of the network and the disk.
    Delay = 1_000,
    /// Which events happen when, and to whom.
    Events,
    /// Nonces and jitter of the nodes.
    Ambient,
    /// What the applications do.
    Apps,
    /// What is published.
    Workload,
    /// Other choices of the hub.
    Hub,
    /// Other choices of the disks.
    Disk,
    /// Which copies are taken, and put back.
    Copies,
}

/// What nodes said of something that is wrong beyond their power.
#[derive(Debug, Default)]
struct Told {
    first: Option<String>,
    /// The nodes that said something, once at least.
    nodes: BTreeSet<Arc<str>>,
}

/// A record that the hub confirmed where its writer had read another one (P11).
#[derive(Clone, Debug)]
pub struct Early {
    /// When its writer heard of it, simulated milliseconds.
    pub at_ms: u64,
    /// The writer.
    pub node: Arc<str>,
    /// Cancelled when the life that wrote it is over.
    pub dead: CancellationToken,
    /// The record's position.
    pub position: u64,
    /// What its writer had read when it made the record.
    pub read: u64,
}

/// One run.
#[derive(Debug)]
pub struct World {
    started: Instant,
    chances: [AtomicU64; FAULTS],
    fault_dice: Vec<Dice>,
    counts: [AtomicU64; FAULTS],
    /// Delays.
    pub delay: Dice,
    /// Events.
    pub events: Dice,
    /// Nonces and jitter.
    pub ambient: Dice,
    /// Applications.
    pub apps: Dice,
    /// Workload.
    pub workload: Dice,
    /// The hub.
    pub hub: Dice,
    /// The disks.
    pub disk: Dice,
    /// Copies of the source and of disks.
    pub copies: Dice,
    /// Nodes whose process is to be killed at once.
    doomed: Mutex<Vec<Arc<str>>>,
    doom: Notify,
    /// What nodes said of something that is wrong beyond their power.
    told: Mutex<Told>,
    /// Records that were confirmed where their writers had read others.
    early: Mutex<Vec<Early>>,
    /// What the source lost before anybody had taken it.
    pub losses: Losses,
    violations: Mutex<Vec<String>>,
    trace: Option<Mutex<String>>,
    mutant: Option<Mutant>,
    /// What each node's disk holds resolutions of: node, sequence.
    resolved: Mutex<BTreeSet<(Arc<str>, u64)>>,
}

impl World {
    /// A world that begins now. With `traced` everything that happens is written down; with a mutant a rule is broken.
    #[must_use]
    pub fn new(seed: u64, plan: &Plan, traced: bool, mutant: Option<Mutant>) -> World {
        let dice = |purpose: Purpose| Dice::of(seed, purpose as u64);
        World {
            started: Instant::now(),
            chances: std::array::from_fn(|n| AtomicU64::new(plan.rate(Fault::ALL[n]))),
            fault_dice: (0..FAULTS as u64).map(|n| Dice::of(seed, n)).collect(),
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
            delay: dice(Purpose::Delay),
            events: dice(Purpose::Events),
            ambient: dice(Purpose::Ambient),
            apps: dice(Purpose::Apps),
            workload: dice(Purpose::Workload),
            hub: dice(Purpose::Hub),
            disk: dice(Purpose::Disk),
            copies: dice(Purpose::Copies),
            doomed: Mutex::default(),
            doom: Notify::new(),
            told: Mutex::default(),
            early: Mutex::default(),
            losses: Losses::default(),
            violations: Mutex::default(),
            trace: traced.then(Mutex::default),
            mutant,
            resolved: Mutex::default(),
        }
    }

    /// Whether the world plays this mutant.
    #[must_use]
    pub fn plays(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// The mutant that is played.
    #[must_use]
    pub fn mutant(&self) -> Option<Mutant> {
        self.mutant
    }

    /// A resolution is on a node's disk.
    pub fn resolved(&self, node: &Arc<str>, seqs: impl IntoIterator<Item = u64>) {
        let mut resolved = self.resolved.lock();
        resolved.extend(seqs.into_iter().map(|seq| (Arc::clone(node), seq)));
    }

    /// Whether a node's disk holds, or held, a message's resolution.
    #[must_use]
    pub fn is_resolved(&self, node: &str, seq: u64) -> bool {
        self.resolved.lock().contains(&(Arc::from(node), seq))
    }

    /// Simulated milliseconds since the start.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The simulated time of day, nanoseconds since 1970.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        EPOCH_NS + self.now_ms() * 1_000_000
    }

    /// When a simulated millisecond is reached.
    #[must_use]
    pub fn instant(&self, ms: u64) -> Instant {
        self.started + Duration::from_millis(ms)
    }

    /// Lets simulated time pass.
    pub async fn pause(&self, ms: u64) {
        if ms > 0 {
            sleep_until(Instant::now() + Duration::from_millis(ms)).await;
        }
    }

    /// Whether a fault happens at this operation; counts it.
    pub fn happens(&self, fault: Fault) -> bool {
        let n = fault as usize;
        let chance = self.chances[n].load(Ordering::Relaxed);
        let happens = chance > 0 && self.fault_dice[n].below(10_000) < chance;
        if happens {
            self.count(fault);
        }
        happens
    }

    /// How often an hourly fault happens now.
    #[must_use]
    pub fn rate(&self, fault: Fault) -> u64 {
        self.chances[fault as usize].load(Ordering::Relaxed)
    }

    /// Counts a fault that somebody made.
    pub fn count(&self, fault: Fault) {
        self.counts[fault as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often each fault happened.
    #[must_use]
    pub fn counts(&self) -> [u64; FAULTS] {
        std::array::from_fn(|n| self.counts[n].load(Ordering::Relaxed))
    }

    /// Kills a node's process now, when this fault happens.
    pub fn perhaps_kill(&self, fault: Fault, node: &Arc<str>) {
        if self.happens(fault) {
            self.note(node, || format!("{}: is to die", fault.word()));
            self.doomed.lock().push(Arc::clone(node));
            self.doom.notify_one();
        }
    }

    /// Waits until a node is to be killed.
    pub async fn doom(&self) {
        self.doom.notified().await;
    }

    /// The nodes to be killed.
    #[must_use]
    pub fn take_doomed(&self) -> Vec<Arc<str>> {
        std::mem::take(&mut *self.doomed.lock())
    }

    /// From here on nothing goes wrong.
    pub fn heal(&self) {
        for chance in &self.chances {
            chance.store(0, Ordering::Relaxed);
        }
    }

    /// A node, where it is known which, says that something is wrong beyond its power.
    pub fn tell(&self, node: Option<Arc<str>>, what: &str) {
        let mut told = self.told.lock();
        told.first.get_or_insert_with(|| what.to_owned());
        told.nodes.extend(node);
    }

    /// Whether a node, in any of its lives, has said that something is wrong.
    #[must_use]
    pub fn has_told(&self, node: &str) -> bool {
        self.told.lock().nodes.contains(node)
    }

    /// A record was confirmed where its writer had read another one.
    pub fn early(&self, early: Early) {
        self.note(&early.node, || {
            format!(
                "hears of its record {} and had read {}",
                early.position, early.read
            )
        });
        self.early.lock().push(early);
    }

    /// What was confirmed too early until a simulated millisecond; it is told once.
    #[must_use]
    pub fn take_early(&self, until_ms: u64) -> Vec<Early> {
        let mut early = self.early.lock();
        let due = early.partition_point(|early| early.at_ms <= until_ms);
        let later = early.split_off(due);
        std::mem::replace(&mut *early, later)
    }

    /// What a node said first of something beyond its power.
    #[must_use]
    pub fn told(&self) -> Option<String> {
        self.told.lock().first.clone()
    }

    /// Notes that something happened that must not.
    pub fn violate(&self, what: String) {
        self.note("VIOLATION", || what.clone());
        let mut violations = self.violations.lock();
        if violations.len() < VIOLATIONS_MAX {
            violations.push(what);
        }
    }

    /// What happened that must not.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.violations.lock().clone()
    }

    /// Whether everything is written down.
    #[must_use]
    pub fn is_traced(&self) -> bool {
        self.trace.is_some()
    }

    /// Writes a line into the trace.
    pub fn note(&self, who: &str, what: impl FnOnce() -> String) {
        if let Some(trace) = &self.trace {
            let line = format!("{:>9} {who:<14} {}\n", self.now_ms(), what());
            trace.lock().push_str(&line);
        }
    }

    /// The trace; empty when nothing was written down.
    #[must_use]
    pub fn trace(&self) -> String {
        self.trace
            .as_ref()
            .map(|trace| trace.lock().clone())
            .unwrap_or_default()
    }
}
