//! A source that goes back to an earlier copy, as a backup or a power loss leaves it, and goes on from there: it gives sequences
//! away a second time. It keeps its creation time, so its incarnation is the same.
//!
//! Two things are taken for granted, as `docs/protocol.md` says: one pull brings messages of one life only, since a batch that holds
//! both covers the times of both; and every node has looked at the source right before it goes back, for what was staged or
//! claimed behind the last look is covered only when it is delivered again.

use fanin_core::effect::Effect;
use fanin_core::ids::StreamSeq;
use fanin_core::input::Input;
use fanin_core::node::Phase;

use crate::actions::{Action, Model};
use crate::properties::{Invariant, Violation};
use crate::world::{Exec, NAMES, World};

impl Model {
    pub(crate) fn reuses(&self, world: &World, actions: &mut Vec<Action>) {
        let source = &world.hub.source;
        if world.left.rollbacks > 0 {
            let copies = (0..source.last).flat_map(|kept| [true, false].map(|acks| (kept, acks)));
            actions.extend(copies.map(|(kept, acks)| Action::RollBack { kept, acks }));
        }
        if source.anew_from > 0 && source.last < self.setup.config.messages {
            actions.push(Action::Regrow);
        }
    }
}

impl Exec<'_> {
    pub(crate) fn roll_back(&mut self, kept: u64, acks: bool) -> bool {
        self.w.left.rollbacks -= 1;
        // Looks are short intervals apart: what was claimed before the last one is covered.
        for who in 0..self.w.bridges.len() {
            self.look_at_source(who);
        }
        let source = &mut self.hub().source;
        source.last = kept;
        source.anew_from = kept + 1;
        if acks {
            source.acked.remove_range(kept + 1, u64::MAX);
        }
        true
    }

    pub(crate) fn regrow(&mut self) -> bool {
        let messages = self.setup.config.messages;
        self.hub().source.last = messages;
        true
    }

    /// The source is looked at, where it can go back.
    pub(crate) fn look_at_source(&mut self, who: usize) {
        let source = &self.w.hub.source;
        let Some(node) = self.w.bridges[who]
            .node()
            .filter(|_| self.setup.config.faults.rollbacks > 0)
        else {
            return;
        };
        let incarnation = source.incarnation();
        let probe = node.source_probe(incarnation);
        let there = probe.messages().filter(|seq| seq.0 <= source.last);
        let probes = there.map(|seq| (seq, source.published_ns(seq.0))).collect();
        let input = Input::SourceSeen {
            incarnation,
            reaches: probe.reaches,
            last: StreamSeq(source.last),
            last_ns: source.last_ns(),
            probes,
        };
        self.step(who, input);
    }

    /// What is acknowledged on arrival, above W, must be the message that was claimed under its sequence, and so must be what an own
    /// claim lost to another one. Below W only a time behind all that was claimed is proof at once, so that a claim made since the
    /// source went back hides others; the next look tells, and liveness demands that.
    pub(crate) fn guard_sameness(&mut self, who: usize, effect: &Effect) {
        if self.setup.config.faults.rollbacks == 0 {
            return;
        }
        let source = &self.w.hub.source;
        let incarnation = source.incarnation();
        let claimed = |seq: u64| {
            let owner = self.w.truth.owner_of.get(&(incarnation, seq))?;
            self.w
                .truth
                .decided
                .get(owner)
                .map(|decided| decided.published_ns)
        };
        let differs = |seq: &u64, times: (i64, i64)| {
            claimed(*seq).is_some_and(|known| times.1 < known.0 || known.1 < times.0)
        };
        let node = self.w.bridges[who].node();
        let closed = node.map_or(0, |node| node.fold().closed(incarnation).0);
        let found = if let Effect::Turned { settle, .. } = effect {
            let mut settled = settle.iter().filter(|&seq| seq > closed);
            settled.find(|seq| differs(seq, source.times_of(&[*seq].into_iter().collect())))
        } else if let Effect::Resolve { batch, won, .. } = effect {
            let kept = self.w.bridges[who].disk.batches.get(batch);
            kept.and_then(|kept| {
                let dropped = kept.seqs.difference(won);
                dropped.iter().find(|seq| differs(seq, kept.published_ns))
            })
        } else {
            None
        };
        if let Some(seq) = found {
            let text = format!(
                "{} takes message {seq} for a copy of what was claimed, in {effect:?}",
                NAMES[who]
            );
            self.fail(Invariant::SameMessage, text);
        }
    }

    /// Whether a node has halted because of what this module plays.
    pub(crate) fn has_told(&self) -> bool {
        self.setup.config.faults.rollbacks > 0
            && (0..self.w.bridges.len()).any(|who| {
                let node = self.w.bridges[who].node();
                node.is_some_and(|node| matches!(node.phase(), Phase::Halted(_)))
            })
    }

    /// A fair run ends with everything published, each message by a claim of itself, or with a halt.
    pub(crate) fn heal_or_tell(&mut self) -> Result<(), Violation> {
        let healed = self.heal();
        if self.has_told() {
            return Ok(());
        }
        healed?;
        let broken = |text: String| Violation::new(Invariant::Live, text);
        self.judge().map_err(broken)?;
        let source = &self.w.hub.source;
        let incarnation = source.incarnation();
        let fold = &self.w.truth.fold;
        let given = fold
            .closed(incarnation)
            .max(fold.newest_claimed(incarnation).unwrap_or_default());
        if given.0 > source.last {
            return Err(broken(format!(
                "{given} was given, the source ends at {}",
                source.last
            )));
        }
        let other = (1..=source.last).find(|&seq| {
            let owner = self.w.truth.owner_of.get(&(incarnation, seq));
            let decided = owner.and_then(|owner| self.w.truth.decided.get(owner));
            let at = source.published_ns(seq);
            decided.is_some_and(|decided| at < decided.published_ns.0 || decided.published_ns.1 < at)
        });
        match other {
            Some(seq) => Err(broken(format!(
                "the present message {seq} was never claimed, and nobody says so"
            ))),
            None => Ok(()),
        }
    }
}
