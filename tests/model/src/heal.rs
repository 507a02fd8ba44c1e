//! Liveness: from a state, a fair run without further faults must end with everything published and closed.
//!
//! What is checked is this: every append under way lands, every process that is down starts, and then each node in turn, over
//! and over, syncs, reads its tail, is delivered what is open, finishes what is visible, and does its upkeep, with time
//! passing in between. Within `ROUNDS_MAX` turns every message that the source offers must have an owner and be visible once
//! to every application of its claim's terms, every batch must be finished, and W must stand at the source's end. This one
//! run is fair, and the machine is deterministic, so a state from which nothing can be repaired any more cannot pass. It
//! does not show that every fair run succeeds.

use fanin_core::batch::BatchState;
use fanin_core::node::Phase;

use crate::actions::{Action, Model};
use crate::bridge::Process;
use crate::properties::{Invariant, Violation};
use crate::world::{Exec, NAMES, World};

/// Turns after which a cluster counts as stuck. Ordinary ones need three to six.
const ROUNDS_MAX: usize = 16;

/// Turns in which a source that can go back is looked at often enough, behind the last one that changes what is known of it.
const ROUNDS_OF_LOOKS: usize = 4;

impl Model {
    /// Runs a state to its rest.
    ///
    /// # Errors
    /// What does not come to rest, or what was not published.
    pub fn heal(&self, world: &World) -> Result<(), Violation> {
        if !self.setup.config.is_kind() && self.setup.config.faults.rollbacks == 0 {
            return Ok(());
        }
        let mut exec = Exec::of(&self.setup, world);
        exec.healing = true;
        if self.setup.config.faults.rollbacks > 0 {
            return exec.heal_or_tell();
        }
        exec.heal()?;
        exec.judge().map_err(|text| Violation::new(Invariant::Live, text))
    }
}

impl Exec<'_> {
    pub(crate) fn heal(&mut self) -> Result<(), Violation> {
        for who in 0..self.w.bridges.len() {
            self.sync_all(who);
        }
        while !self.w.hub.flights.is_empty() {
            self.act(Action::Land(0));
        }
        for who in 0..self.w.bridges.len() {
            self.restart_if_needed(who);
        }
        // A source that ends too early must be seen twice.
        let rounds_min = if self.setup.config.faults.rollbacks > 0 {
            ROUNDS_OF_LOOKS
        } else {
            1
        };
        for round in 1..=ROUNDS_MAX {
            for who in 0..self.w.bridges.len() {
                self.take_turn(who);
            }
            if let Some(found) = &self.w.violation {
                return Err(Violation::new(
                    found.invariant,
                    format!("in the fair run: {}", found.text),
                ));
            }
            if (round >= rounds_min && self.at_rest()) || self.has_told() {
                return Ok(());
            }
        }
        let waits: Vec<_> = (0..self.w.bridges.len()).map(|who| self.waits_for(who)).collect();
        let text = format!(
            "not at rest: W {} of {}; {}",
            self.w.truth.fold.closed(self.w.hub.source.incarnation()),
            self.w.hub.source.last,
            waits.join("; ")
        );
        Err(Violation::new(Invariant::Live, text))
    }

    /// Down, or configured otherwise than the operator wants by now: it begins a new life.
    fn restart_if_needed(&mut self, who: usize) {
        let wanted = crate::world::names(self.setup.config.hosts);
        let sources = crate::world::sources(self.w.hub.source.incarnation(), self.w.narrow);
        let fits = self.w.bridges[who]
            .node()
            .is_some_and(|node| node.identity().hosts == wanted && node.identity().sources == sources);
        if fits || matches!(self.w.bridges[who].process, Process::Refused) {
            return;
        }
        self.crash(who);
        self.bridge(who).hosts = wanted;
        self.start(who, None);
    }

    fn sync_all(&mut self, who: usize) {
        while !self.w.bridges[who].unsynced.is_empty() {
            if let Some(input) = self.sync_one(who) {
                self.step(who, input);
            }
        }
    }

    fn read_all(&mut self, who: usize) {
        while self.tail_one(who).is_some() && self.w.violation.is_none() {}
        self.sync_all(who);
    }

    fn take_turn(&mut self, who: usize) {
        self.w.now += 1;
        self.read_all(who);
        let source = &self.w.hub.source;
        let terms = self.w.truth.fold.terms();
        let open = |seq: &u64| source.offers(terms, *seq) && !source.acked.contains(*seq);
        let open: Vec<u64> = (1..=source.last).filter(open).collect();
        if !open.is_empty() {
            self.pull(who, &open);
        }
        self.read_all(who);
        for batch in self.visible(who) {
            self.finish(who, batch);
        }
        self.sync_all(who);
        self.tick(who);
        while !self.w.bridges[who].audits.is_empty() {
            self.audit(who, true);
        }
        while !self.w.bridges[who].repairs.is_empty() {
            self.repair(who);
        }
        while !self.w.hub.purges.is_empty() {
            self.act(Action::Purge(0));
        }
        self.read_all(who);
    }

    fn at_rest(&self) -> bool {
        let source = &self.w.hub.source;
        let quiet = |who: usize| {
            let Some(node) = self.w.bridges[who].node() else {
                return false;
            };
            let finished = node
                .batches()
                .values()
                .all(|batch| batch.state == BatchState::Finished);
            node.unresolved() == 0 && finished && *node.phase() == Phase::Active && !self.has_unsynced(who)
        };
        self.w.truth.fold.closed(source.incarnation()).0 == source.last
            && (0..self.w.bridges.len()).all(quiet)
    }

    /// Everything that anybody owns is visible once wherever it must be; everything else is a hole.
    pub(crate) fn judge(&self) -> Result<(), String> {
        let source = &self.w.hub.source;
        let truth = &self.w.truth;
        for seq in 1..=source.last {
            if self.is_excused(seq) {
                continue;
            }
            let Some(key) = truth.owner_of.get(&(source.incarnation(), seq)) else {
                return Err(format!("nobody owns message {seq}"));
            };
            let Some(decided) = truth.decided.get(key) else {
                return Err(format!("message {seq} is owned by {key:?}, which never claimed"));
            };
            let terms = truth.terms.get(&decided.terms);
            for app in terms.into_iter().flat_map(|terms| terms.served(decided.terms)) {
                let at = (app.to_owned(), source.incarnation(), seq);
                let count = self.w.published.get(&at).map_or(0, Vec::len);
                if count != 1 {
                    return Err(format!(
                        "message {seq}, owned by {key:?}, is visible {count} times to {app}"
                    ));
                }
            }
        }
        Ok(())
    }

    fn waits_for(&self, who: usize) -> String {
        let bridge = &self.w.bridges[who];
        match bridge.node() {
            Some(node) => format!("{} {:?} {:?}", NAMES[who], node.phase(), node.batches()),
            None => format!("{} {:?}", NAMES[who], bridge.process),
        }
    }
}
