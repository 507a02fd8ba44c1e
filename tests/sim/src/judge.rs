//! What must hold while a run goes on and when it is at rest, and what has to be told where a promise was broken.
//!
//! Where every promise was kept: exactly once, everything at rest, no alarm. Where one was broken, an alarm pardons only what
//! it is about: a message may be missing when a node that is held has it or owns it, or when no node is left that could take it,
//! and may come twice when all nodes that delivered it but one have told, or are held. Nodes that go on finish everything,
//! and a node that delivers, halted or not, finishes what it has published.

use std::collections::{BTreeMap, BTreeSet};

use fanin_bridge::mapping::view::{State, View};
use fanin_core::ids::{Incarnation, NodeUuid};
use fanin_core::seq_set::SeqSet;

use crate::apps::app_name;
use crate::disk::Published;
use crate::faults::Fault;
use crate::hub::LATE_MS_MAX;
use crate::logs;
use crate::node::{Node, STREAM};
use crate::plan::Kind;
use crate::schedule::Run;

/// A node that hears of its record where it had read another one has halted within this time, milliseconds.
const EARLY_MS: u64 = 1_000;
/// What is not finished is named up to so many messages.
const NAMED_MAX: usize = 5;

impl Run {
    /// Each node's state is that of the records it has read (I4, I11), and none delivers that has read of a newer life of its
    /// data directory (I12). Nor does one go on that knows that the hub has lost what it had read (P11).
    pub(crate) fn check_views(&self) {
        self.check_early();
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

    fn check_early(&self) {
        let heard = self
            .world
            .take_early(self.world.now_ms().saturating_sub(EARLY_MS));
        for early in heard.iter().filter(|early| !early.dead.is_cancelled()) {
            let mut bodies = self.cluster.nodes().iter();
            if !bodies.any(|node| node.name == early.node && node.is_held()) {
                self.world.violate(format!(
                    "P11: {} heard that its record is stored at {}, had read up to {} when it made it, and goes on",
                    early.node, early.position, early.read
                ));
            }
        }
    }

    /// Why the cluster is not at rest; `None` when it is.
    pub(crate) fn restless(&self) -> Option<String> {
        self.oracle.dead_letters(self.cluster.dead_letters());
        if self.cluster.is_held() && !self.is_exact() {
            return self.restless_held();
        }
        let mut nodes = self.cluster.nodes().iter();
        if let Some(why) = nodes.find_map(busy) {
            return Some(why);
        }
        let open = self.unfinished(NAMED_MAX);
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
        let truth = &state.truth;
        self.oracle.unfinished(
            self.cluster.apps(),
            max,
            |app, incarnation, seq| truth.is_owed(&app_name(app), incarnation, seq),
            |incarnation, seq| truth.owner(incarnation, seq).is_some(),
        )
    }

    /// A cluster in which something is held is at rest when the late have arrived, and everybody has done what is still theirs.
    fn restless_held(&self) -> Option<String> {
        let healed_ms = self.cluster.healed_ms()?;
        let waited_ms = self.world.now_ms().saturating_sub(healed_ms);
        if waited_ms < 2 * LATE_MS_MAX {
            return Some("something is held; the others go on".to_owned());
        }
        let mut going = self.cluster.nodes().iter().filter(|node| !node.is_held());
        going
            .find_map(busy)
            .or_else(|| self.unfinished_publication())
            .or_else(|| self.missing())
    }

    /// What a node that delivers has published and not finished: whatever it has heard since, what was won keeps flowing. One
    /// that was held before it had joined delivers nothing (P8). Nor does one that doubts the ledger or the source fetch again what
    /// its disk has damaged, and what is behind that in the topic waits for it.
    fn unfinished_publication(&self) -> Option<String> {
        for node in self.cluster.nodes() {
            let Some(view) = node.view().filter(delivers) else {
                continue;
            };
            let word = view.state.word();
            let published = node.published();
            let damaged = published.iter().filter(|batch| batch.damaged);
            let first = damaged.map(|batch| batch.base).min();
            let waits_from = first.filter(|_| view.state == State::Halted);
            let is_pardoned = |batch: &Published| waits_from.is_some_and(|from| from <= batch.base);
            if view.open > 0 && !published.iter().any(is_pardoned) {
                return Some(format!(
                    "{}, which is {word}, has {} open batches",
                    node.name, view.open
                ));
            }
            for batch in published.iter().filter(|batch| !is_pardoned(batch)) {
                for (seq, app) in batch
                    .won
                    .iter()
                    .flat_map(|seq| (0..self.cluster.apps()).map(move |app| (seq, app)))
                {
                    if !self.oracle.is_finished(app, batch.incarnation, seq) {
                        return Some(format!(
                            "{}, which is {word}, has published message {seq}, and application {app} has not finished it",
                            node.name
                        ));
                    }
                }
            }
        }
        None
    }

    /// What is missing and not excused by a node that is held: one that has it on its disk or owns it, or, of what nobody has
    /// claimed, all nodes.
    fn missing(&self) -> Option<String> {
        let unfinished = self.unfinished(usize::MAX);
        if unfinished.is_empty() {
            return None;
        }
        let (held, going): (Vec<&Node>, Vec<&Node>) =
            self.cluster.nodes().iter().partition(|node| node.is_held());
        let mut kept: BTreeMap<Incarnation, SeqSet> = BTreeMap::new();
        for (incarnation, seqs) in held.iter().flat_map(|node| node.bodies()) {
            kept.entry(incarnation).or_default().union(&seqs);
        }
        let state = self.hub.state.lock();
        unfinished.into_iter().find_map(|(app, life, seq)| {
            let stream = self.oracle.stream_of(life);
            if kept.get(&stream).is_some_and(|seqs| seqs.contains(seq)) {
                return None;
            }
            let owner = state.truth.owner(life, seq).map(|key| key.node);
            let what = format!("application {app} has not finished message {seq}");
            if let Some(owner) = held.iter().find(|node| Some(node.uuid) == owner) {
                // Its disk may have been set back; but one that goes on delivering lets nothing go unfinished.
                let has_joined = owner.view().is_some_and(|view| delivers(&view));
                return (has_joined && self.world.is_resolved(&owner.name, seq))
                    .then(|| format!("{what}, which {} had published and let go", owner.name));
            }
            (!going.is_empty()).then(|| {
                format!(
                    "{what}, whose owner {owner:?} is not held, and which lies on no disk of a node that is"
                )
            })
        })
    }

    /// Whether exactly once is demanded: no promise was broken, by its plan or by chance.
    fn is_exact(&self) -> bool {
        let counts = self.world.counts();
        let breaking = Fault::ALL.iter().filter(|fault| fault.breaks_promises());
        let broken: u64 = breaking.map(|fault| counts[*fault as usize]).sum();
        self.plan.kind.is_exact() || broken == 0
    }

    pub(crate) fn judge(&self, rested: bool) {
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
            if self.world.losses.is_any_told() {
                self.world
                    .violate("FALSE ALARM: the source has lost nothing, but a node says so".to_owned());
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

    /// What the hub or the disks have broken may have been noticed late, but it must have been noticed, and by those whom it
    /// concerns.
    fn judge_told(&self, rested: bool) {
        let silence = match self.world.told().is_some() || self.cluster.is_held() {
            true => "",
            false => " IN SILENCE",
        };
        if self.plan.kind == Kind::Lazy {
            self.judge_lost();
        }
        self.judge_histories();
        self.judge_doubled(silence);
        if let Some(missing) = self.missing() {
            self.world.violate(format!("MISSING{silence}: {missing}"));
        }
        let restless = self.restless();
        if let Some(why) = restless.or((!rested).then(|| "it took too long".to_owned())) {
            self.world.violate(format!("NOT AT REST{silence}: {why}"));
        }
    }

    /// What came twice was told by all that delivered it but one, or is held there; and if it was one alone, by that one.
    fn judge_doubled(&self, silence: &str) {
        let wrong = self.oracle.wrong_deliveries();
        if wrong > 0 && !silence.is_empty() {
            self.world.violate(format!(
                "TOO MANY IN SILENCE: {wrong} deliveries, and no node says anything"
            ));
            return;
        }
        // A restored disk never gets so far as to deliver; only a second body on a running node's disk can.
        let cloned = self.world.counts()[Fault::DiskCloned as usize] > 0;
        if wrong > 0 && self.plan.kind == Kind::Identity && !cloned {
            self.world
                .violate(format!("{wrong} deliveries too many although no disk was cloned"));
        }
        let has_told = |uuid: &NodeUuid| {
            let mut bodies = self.cluster.nodes().iter();
            bodies.any(|node| node.uuid == *uuid && (node.is_held() || self.world.has_told(&node.name)))
        };
        let untold = |nodes: &BTreeSet<NodeUuid>| {
            let told = nodes.iter().filter(|uuid| has_told(uuid)).count();
            told < nodes.len().saturating_sub(1).max(1)
        };
        let doubled = self.oracle.doubled();
        if let Some((app, seq, nodes)) = doubled.into_iter().find(|(_, _, nodes)| untold(nodes)) {
            self.world.violate(format!(
                "TOO MANY: application {app} got message {seq} from {nodes:?}, of whom too few say anything"
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
}

/// Whether a node hands messages to applications: it has joined in this life, and is not fenced.
fn delivers(view: &View) -> bool {
    view.state.delivers() && !view.delivery.is_empty()
}

/// Why a node is not at rest.
fn busy(node: &Node) -> Option<String> {
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
    (view.unresolved + view.open + view.lag > 0).then(|| {
        format!(
            "{} has {} unresolved and {} open batches, {} records to read",
            node.name, view.unresolved, view.open, view.lag
        )
    })
}
