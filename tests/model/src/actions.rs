//! Every step that may come next, and the state it leads to.
//!
//! A step of a node that only reads records which ask it for nothing is not told apart from the step that uses what was
//! read: `lag` says how many such records the node reads first. Whatever it could have read earlier, it reads then, and no
//! other node can tell the difference. Where the difference shows (a purge, a power loss, the age of a claim) reading is a
//! step of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use fanin_core::ids::{BatchNo, LedgerSeq, Tick};
use fanin_core::input::{FetchedMessage, Input};
use fanin_core::node::Node;
use fanin_core::record::ClaimKind;
use stateright::Property;

use crate::bridge::Process;
use crate::mutants::Mutant;
use crate::properties::{self, Invariant};
use crate::setup::{Setup, Upkeep};
use crate::world::{Exec, World};

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A node reads its tail up to and including the next record that asks it for something.
    Read(usize),
    /// The consumer delivers messages: any, at any time.
    Pull {
        /// The node.
        who: usize,
        /// Records it reads first.
        lag: usize,
        /// Which of the configuration's pulls.
        pull: usize,
    },
    /// The floor is read, and the node looks at what is due.
    Tick {
        /// The node.
        who: usize,
        /// Records it reads first.
        lag: usize,
    },
    /// A node writes a checkpoint of its present state.
    Checkpoint {
        /// The node.
        who: usize,
        /// Records it reads first.
        lag: usize,
    },
    /// The disk syncs its oldest write.
    Sync(usize),
    /// Every application of a batch has durably finished it.
    Finish(usize, BatchNo),
    /// An append lands.
    Land(usize),
    /// An append lands and stays on its way.
    Repeat(usize),
    /// A purge is done.
    Purge(usize),
    /// An audit is answered.
    Audit(usize),
    /// An audit is answered by a server that knows nothing.
    StaleAudit(usize),
    /// A message asked for by sequence arrives.
    Repair(usize),
    /// The sender of a claim hears that its outcome is unknown; only where a mutant listens.
    Unconfirmed(usize, BatchNo),
    /// A node hears that its record landed where it had read another one.
    Hear(usize),
    /// A process dies.
    Crash(usize),
    /// A process starts, hosting what it did, or another of the configuration's sets.
    Start(usize, Option<usize>),
    /// A process starts and dies before it hears of its EPOCH, which is on its way.
    Orphan(usize),
    /// Time passes.
    Pass,
    /// The consumer forgets to deliver a message.
    Skip(u64),
    /// Acknowledgements are lost.
    Reset,
    /// The source loses a message.
    Lose(u64),
    /// A disk is copied.
    Copy(usize),
    /// The operator changes the filters.
    Terms,
    /// The hub loses what is not stable.
    PowerLoss,
    /// A record of a later version lands.
    Stranger,
    /// The operator evacuates a node.
    Evacuate(usize),
    /// The source is created again.
    Recreate,
    /// The source goes back to an earlier copy.
    RollBack {
        /// Its last message then.
        kept: u64,
        /// The consumer goes back with it, and forgets what was acknowledged behind it.
        acks: bool,
    },
    /// The source gives the sequences it has lost to new messages.
    Regrow,
}

/// A setup as the checker takes it.
#[derive(Clone, Debug)]
pub struct Model {
    /// What is explored.
    pub setup: Setup,
    /// When to stop: the checker itself looks at the time only between jobs.
    pub deadline: Option<Instant>,
    /// Whether that cut anything off.
    pub cut: Arc<AtomicBool>,
    /// Whether something was found.
    pub found: Arc<AtomicBool>,
    /// Whether the run is over, and paths are being followed again for their traces.
    pub over: Arc<AtomicBool>,
}

impl Model {
    /// Whether an invariant holds in a state. Liveness is computed here, in the states that are sampled for it.
    pub(crate) fn holds(&self, world: &World, invariant: Invariant) -> bool {
        let broken = world.violation.as_ref().map(|found| found.invariant);
        let holds = match (invariant, broken) {
            (Invariant::Live, None) if !self.setup.blind.contains(&Invariant::Live) => {
                !self.is_sampled(world) || self.heal(world).is_ok()
            }
            (_, broken) => broken != Some(invariant),
        };
        // The checker works on for a while and keeps the last finding: only the first, which is the shortest, is told.
        holds || self.found.swap(true, Ordering::Relaxed)
    }

    fn is_sampled(&self, world: &World) -> bool {
        use std::hash::{DefaultHasher, Hash, Hasher};
        match self.setup.config.live_every {
            0 => false,
            1 => true,
            every => {
                let mut hasher = DefaultHasher::new();
                world.hash(&mut hasher);
                hasher.finish().is_multiple_of(every)
            }
        }
    }
}

impl stateright::Model for Model {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![Exec::initial(&self.setup).w]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        let over = self.over.load(Ordering::Relaxed);
        if world.violation.is_some() || (self.found.load(Ordering::Relaxed) && !over) {
            return;
        }
        if !over && self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            self.cut.store(true, Ordering::Relaxed);
            return;
        }
        for who in 0..world.bridges.len() {
            self.actions_of(world, who, actions);
        }
        let hub = &world.hub;
        for flight in 0..hub.flights.len() {
            actions.push(Action::Land(flight));
            if world.left.repeats > 0 {
                actions.push(Action::Repeat(flight));
            }
        }
        actions.extend((0..hub.purges.len()).map(Action::Purge));
        self.faults(world, actions);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut exec = Exec::of(&self.setup, world);
        exec.act(action).then_some(exec.w)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::properties()
    }

    fn format_action(&self, action: &Action) -> String {
        action.to_string()
    }
}

impl Model {
    fn actions_of(&self, world: &World, who: usize, actions: &mut Vec<Action>) {
        let config = &self.setup.config;
        let bridge = &world.bridges[who];
        if !bridge.unsynced.is_empty() {
            actions.push(Action::Sync(who));
        }
        let node = match &bridge.process {
            Process::Refused => return,
            Process::Down => {
                actions.push(Action::Start(who, None));
                actions.extend((0..config.rehosts.len()).map(|hosts| Action::Start(who, Some(hosts))));
                if world.left.orphans > 0 {
                    actions.push(Action::Orphan(who));
                }
                return;
            }
            Process::Up(node) => node,
        };
        if world.left.crashes > 0 && config.crashers.contains(&who) {
            actions.push(Action::Crash(who));
        }
        if !bridge.is_well() {
            return;
        }
        let (silent, matters) = self.read_ahead(world, who, node);
        let shows = config.unreduced || config.lazy_hub || !world.hub.purges.is_empty() || !config.is_kind();
        if matters || (shows && silent > 0) {
            actions.push(Action::Read(who));
        }
        if bridge.is_active() {
            for lag in 0..=if config.unreduced { 0 } else { silent } {
                let pulls = if config.pullers.contains(&who) {
                    config.pulls.len()
                } else {
                    0
                };
                for pull in 0..pulls {
                    actions.push(Action::Pull { who, lag, pull });
                }
                if world.left.ticks > 0 && config.keepers.contains(&who) {
                    actions.push(Action::Tick { who, lag });
                }
                if world.checkpoints_left > 0 && config.keepers.contains(&who) {
                    actions.push(Action::Checkpoint { who, lag });
                }
            }
        }
        let exec = Exec::of(&self.setup, world);
        if config.upkeep != Upkeep::Off {
            actions.extend(
                exec.visible(who)
                    .into_iter()
                    .map(|batch| Action::Finish(who, batch)),
            );
        }
        if !bridge.audits.is_empty() {
            actions.push(Action::Audit(who));
            if world.left.stale_audits > 0 {
                actions.push(Action::StaleAudit(who));
            }
        }
        if !bridge.repairs.is_empty() {
            actions.push(Action::Repair(who));
        }
        if !bridge.early.is_empty() {
            actions.push(Action::Hear(who));
        }
        if self
            .setup
            .is(Mutant::Core(fanin_core::mutants::Mutant::AbortsUnconfirmed))
        {
            let claiming = node.batches().iter().filter(|(_, batch)| batch.is_unresolved());
            actions.extend(claiming.map(|(&number, _)| Action::Unconfirmed(who, number)));
        }
    }

    /// How many records a node can read that ask it for nothing, and whether one that does follows.
    fn read_ahead(&self, world: &World, who: usize, node: &Node) -> (usize, bool) {
        let mut node = node.clone();
        let unread = world.hub.entries.range(world.bridges[who].cursor..);
        for (silent, (&position, entry)) in unread.enumerate() {
            let mut effects = Vec::new();
            let input = Input::Record {
                position,
                subject: entry.subject.to_string(),
                bytes: entry.bytes.to_vec(),
            };
            node.handle(Tick(u64::from(world.now)), input, &mut effects);
            let silently = effects.iter().all(is_silent) && !self.setup.is(Mutant::SettlesVoidClaims);
            if !silently {
                return (silent, true);
            }
        }
        (
            world.hub.entries.range(world.bridges[who].cursor..).count(),
            false,
        )
    }

    fn faults(&self, world: &World, actions: &mut Vec<Action>) {
        let left = &world.left;
        let source = &world.hub.source;
        if left.passes > 0 {
            actions.push(Action::Pass);
        }
        if left.skips > 0 {
            let open = (1..=source.last).filter(|seq| !source.acked.contains(*seq));
            actions.extend(open.map(Action::Skip));
        }
        if left.resets > 0 && !source.acked.is_empty() {
            actions.push(Action::Reset);
        }
        if left.losses > 0 {
            let there = (1..=source.last).filter(|seq| !source.gone.contains(*seq));
            actions.extend(there.map(Action::Lose));
        }
        if left.copies > 0 {
            actions.push(Action::Copy(0));
        }
        if left.terms > 0 {
            actions.push(Action::Terms);
        }
        if left.power_losses > 0 {
            actions.push(Action::PowerLoss);
        }
        if left.strangers > 0 {
            actions.push(Action::Stranger);
        }
        if left.evacuations > 0 {
            actions.push(Action::Evacuate(0));
        }
        if left.recreations > 0 {
            actions.push(Action::Recreate);
        }
        self.reuses(world, actions);
    }
}

fn is_silent(effect: &fanin_core::effect::Effect) -> bool {
    use fanin_core::effect::Effect;
    matches!(effect, Effect::Fact(_) | Effect::TermsInForce(_))
}

impl Exec<'_> {
    /// Does a step. Says whether it leads anywhere.
    pub(crate) fn act(&mut self, action: Action) -> bool {
        match action {
            Action::Read(who) => self.read(who),
            Action::Pull { who, lag, pull } => {
                self.read_silently(who, lag) && self.pull(who, self.setup.config.pulls[pull])
            }
            Action::Tick { who, lag } => {
                self.w.left.ticks -= 1;
                self.read_silently(who, lag) && self.tick(who)
            }
            Action::Checkpoint { who, lag } => {
                self.w.checkpoints_left -= 1;
                let there = self.read_silently(who, lag);
                self.write_checkpoint(who);
                there
            }
            Action::Sync(who) => {
                let input = self.sync_one(who);
                if let Some(input) = input {
                    self.step(who, input);
                }
                true
            }
            Action::Finish(who, batch) => {
                self.finish(who, batch);
                true
            }
            Action::Land(flight) => {
                let flights = &mut self.hub().flights;
                let Some(flight) = flights.iter().nth(flight).cloned() else {
                    return false;
                };
                flights.remove(&flight);
                let at = self.land(flight.entry, flight.expect);
                self.confirm(flight.sender, at);
                true
            }
            Action::Repeat(flight) => {
                self.w.left.repeats -= 1;
                let Some(flight) = self.w.hub.flights.iter().nth(flight).cloned() else {
                    return false;
                };
                let at = self.land(flight.entry, flight.expect);
                self.confirm(flight.sender, at);
                true
            }
            Action::Purge(purge) => {
                let Some(purge) = self.w.hub.purges.iter().nth(purge).cloned() else {
                    return false;
                };
                self.hub().purges.remove(&purge);
                self.hub().purge(&purge);
                true
            }
            Action::Audit(who) => self.audit(who, true),
            Action::StaleAudit(who) => {
                self.w.left.stale_audits -= 1;
                self.audit(who, false)
            }
            Action::Repair(who) => self.repair(who),
            Action::Unconfirmed(who, batch) => self.step(who, Input::ClaimUnconfirmed(batch)),
            Action::Hear(who) => self.hear(who),
            Action::Crash(who) => {
                self.w.left.crashes -= 1;
                self.crash(who);
                true
            }
            Action::Start(who, hosts) => {
                self.start(who, hosts);
                true
            }
            Action::Orphan(who) => self.orphan(who),
            Action::Pass => {
                self.w.left.passes -= 1;
                self.w.now += 1;
                true
            }
            Action::Skip(_)
            | Action::Reset
            | Action::Lose(_)
            | Action::Copy(_)
            | Action::Terms
            | Action::PowerLoss
            | Action::Stranger
            | Action::Evacuate(_)
            | Action::Recreate => self.disturb(action),
            Action::RollBack { kept, acks } => self.roll_back(kept, acks),
            Action::Regrow => self.regrow(),
        }
    }

    fn read(&mut self, who: usize) -> bool {
        let mut any = false;
        while let Some(matters) = self.tail_one(who) {
            any = true;
            if matters || self.setup.config.unreduced {
                break;
            }
        }
        any
    }

    fn read_silently(&mut self, who: usize, lag: usize) -> bool {
        (0..lag).all(|_| self.tail_one(who).is_some())
    }

    pub(crate) fn pull(&mut self, who: usize, seqs: &[u64]) -> bool {
        let config = &self.setup.config;
        let source = &self.w.hub.source;
        let incarnation = source.incarnation();
        let bridge = &self.w.bridges[who];
        let other = || (0..self.w.bridges.len()).any(|body| self.w.bridges[body].staged > 0);
        if config.mirror && !self.healing && who > 0 && !other() {
            return false;
        }
        let Some(node) = bridge.node() else { return false };
        let terms = self.w.truth.fold.terms();
        if node.may_pull(incarnation).is_err() || !seqs.iter().all(|&seq| source.offers(terms, seq)) {
            return false;
        }
        let staged = bridge.staged;
        let matters = self.fetch(who, seqs, ClaimKind::Normal);
        matters && (self.healing || self.w.bridges[who].staged.max(staged) <= self.setup.config.batches)
    }

    /// Messages arrive.
    pub(crate) fn fetch(&mut self, who: usize, seqs: &[u64], kind: ClaimKind) -> bool {
        let source = &self.w.hub.source;
        let message = |&seq: &u64| FetchedMessage {
            seq: fanin_core::ids::StreamSeq(seq),
            published_ns: source.published_ns(seq),
        };
        let input = Input::Fetched {
            ticket: 1,
            incarnation: self.w.hub.source.incarnation(),
            kind,
            messages: seqs.iter().map(message).collect(),
        };
        self.step(who, input)
    }

    /// The floor as the hub tells it, then whatever is due.
    pub(crate) fn tick(&mut self, who: usize) -> bool {
        let incarnation = self.w.hub.source.incarnation();
        let floor = self.w.hub.source.floor(self.w.truth.fold.terms());
        let (hub, bridge) = (self.w.hub.clone(), self.w.bridges[who].clone());
        if self.setup.config.upkeep >= Upkeep::Quick || self.healing {
            // Nothing is stuck here: every message can be read.
            let (delivered, pulling) = (floor, false);
            self.step(
                who,
                Input::Floor {
                    incarnation,
                    floor,
                    delivered,
                    pulling,
                },
            );
        }
        self.look_at_source(who);
        self.step(who, Input::Tick);
        let after = &self.w.bridges[who];
        self.w.violation.is_some()
            || self.w.hub != hub
            || after.disk != bridge.disk
            || after.audits != bridge.audits
            || after.repairs != bridge.repairs
            || after.cursor != bridge.cursor
    }

    pub(crate) fn finish(&mut self, who: usize, batch: BatchNo) {
        self.bridge(who).disk.acked.insert(batch);
        self.step(who, Input::BatchFinished(batch));
    }

    pub(crate) fn audit(&mut self, who: usize, honest: bool) -> bool {
        let Some((terms, first)) = self.bridge(who).audits.pop_first() else {
            return false;
        };
        let honest = honest && !self.setup.is(Mutant::AuditsFindNothing);
        let next_matching = self
            .w
            .truth
            .terms
            .get(&terms)
            .filter(|_| honest)
            .and_then(|terms| self.w.hub.source.next_matching(terms, first));
        let input = Input::Audited {
            incarnation: self.w.hub.source.incarnation(),
            terms,
            first,
            next_matching,
        };
        self.step(who, input);
        true
    }

    pub(crate) fn repair(&mut self, who: usize) -> bool {
        let Some(seq) = self.bridge(who).repairs.pop_first() else {
            return false;
        };
        if self.w.hub.source.offers(self.w.truth.fold.terms(), seq.0) {
            self.fetch(who, &[seq.0], ClaimKind::Repair);
        }
        true
    }

    /// P11: whoever hears that the hub has lost what it had read goes no further.
    fn hear(&mut self, who: usize) -> bool {
        let Some((at, read)) = self.bridge(who).early.pop_first() else {
            return false;
        };
        self.step(who, Input::AppendConfirmed { at, read });
        if self.w.bridges[who].is_well() {
            let text = format!(
                "{} had read {read}, hears that its record landed at {at}, and goes on",
                crate::world::NAMES[who]
            );
            self.fail(Invariant::Distrusts, text);
        }
        true
    }

    pub(crate) fn crash(&mut self, who: usize) {
        let bridge = self.bridge(who);
        bridge.process = Process::Down;
        bridge.unsynced.clear();
        bridge.audits.clear();
        bridge.repairs.clear();
        bridge.early.clear();
        bridge.cursor = LedgerSeq(1);
        bridge.astray = false;
    }
}
