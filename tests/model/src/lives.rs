//! How a life begins (P8), and what may disturb a cluster from outside.

use std::collections::BTreeSet;
use std::sync::Arc;

use fanin_core::epoch::{Conflict, on_conflict};
use fanin_core::ids::{Epoch, LedgerSeq, Nonce};
use fanin_core::input::Input;
use fanin_core::node::Identity;
use fanin_core::record::{Body, EpochRecord, Handoff, NodeState, Record};
use fanin_core::recovery;

use crate::actions::Action;
use crate::bridge::{Process, Write};
use crate::hub::Flight;
use crate::mutants::Mutant;
use crate::properties::Invariant;
use crate::truth::Truth;
use crate::world::{Exec, NAMES, names, sources};

/// Most tries of one start; each adopts an epoch that an earlier, interrupted start left behind.
const TRIES_MAX: usize = 8;

impl Exec<'_> {
    fn epoch_record(&mut self, who: usize) -> (Nonce, Record) {
        let nonce = self.fresh_nonce(who);
        let forgets = self.setup.is(Mutant::IntendsNothing);
        let bridge = self.bridge(who);
        if !forgets {
            bridge.disk.intents.insert(nonce);
        }
        let body = Body::Epoch(EpochRecord {
            node_uuid: bridge.uuid,
            node: bridge.name.to_owned(),
            nonce,
            hosts: bridge.hosts.clone(),
            state: NodeState::Active,
        });
        let witness = bridge.disk.witness;
        (nonce, Record { witness, body })
    }

    /// The process begins and dies at once; its EPOCH is on its way.
    pub(crate) fn orphan(&mut self, who: usize) -> bool {
        self.w.left.orphans -= 1;
        let compares = !self.setup.is(Mutant::EpochsUnconditionally);
        let expect = compares.then_some(self.w.bridges[who].disk.epoch);
        let (nonce, record) = self.epoch_record(who);
        let entry = self.entry(&record);
        self.hub().flights.insert(Flight {
            entry,
            expect,
            orphan: Some(nonce),
            sender: None,
        })
    }

    /// Appends an EPOCH as P8 says, adopting what an own, interrupted start left behind.
    fn append_epoch(&mut self, who: usize) -> Option<(Nonce, Epoch)> {
        for _ in 0..TRIES_MAX {
            let expect = self.w.bridges[who].disk.epoch;
            let (nonce, record) = self.epoch_record(who);
            let entry = self.entry(&record);
            let subject = Arc::clone(&entry.subject);
            let compares = !self.setup.is(Mutant::EpochsUnconditionally);
            if let Some(at) = self.land(entry, compares.then_some(expect)) {
                return Some((nonce, at));
            }
            let at = self.w.hub.last_on(&subject);
            let last = self
                .w
                .hub
                .entries
                .get(&at)
                .and_then(|entry| Record::decode(&entry.bytes).ok());
            let Some(Record {
                body: Body::Epoch(last),
                ..
            }) = last
            else {
                return None;
            };
            let bridge = self.bridge(who);
            let fresh = bridge.disk.epoch == LedgerSeq(0);
            match on_conflict(&last, at, bridge.uuid, &bridge.disk.intents, fresh) {
                Conflict::Adopt(at) | Conflict::Succeed(at) => bridge.disk.epoch = at,
                Conflict::Refuse { .. } => return None,
            }
        }
        None
    }

    /// Starts a process: EPOCH, recovery, checkpoint. Nothing of the tail is read yet.
    pub(crate) fn start(&mut self, who: usize, hosts: Option<usize>) {
        let narrow = self.w.narrow;
        let incarnation = self.w.hub.source.incarnation();
        let rehosts = hosts.map(|hosts| names(self.setup.config.rehosts[hosts]));
        let drops = self.setup.is(Mutant::DropsStagedAtStart);
        let renumbers = self.setup.is(Mutant::RenumbersAtStart);
        let bridge = self.bridge(who);
        if let Some(hosts) = rehosts {
            bridge.hosts = hosts;
        }
        if drops {
            bridge.disk.batches.retain(|_, kept| kept.resolution.is_some());
        }
        if renumbers {
            let open = |kept: &crate::bridge::Kept| kept.resolution.is_none();
            let numbers: Vec<_> = bridge
                .disk
                .batches
                .iter()
                .filter(|(_, kept)| open(kept))
                .map(|(&n, _)| n)
                .collect();
            for number in numbers {
                let last = bridge
                    .disk
                    .batches
                    .keys()
                    .next_back()
                    .copied()
                    .unwrap_or_default();
                if let Some(kept) = bridge.disk.batches.remove(&number) {
                    bridge.disk.batches.insert(last.next(), kept);
                }
            }
        }
        let Some((nonce, epoch)) = self.append_epoch(who) else {
            self.bridge(who).process = Process::Refused;
            if self.setup.config.is_kind() {
                self.fail(
                    Invariant::Healthy,
                    format!("{} is refused at its start", NAMES[who]),
                );
            }
            return;
        };
        if !self.setup.config.late_claims {
            let subject = fanin_core::record::claim_subject(self.w.bridges[who].uuid);
            self.hub()
                .flights
                .retain(|flight| *flight.entry.subject != *subject);
        }
        let policy = crate::world::policy(self.setup);
        let bridge = self.bridge(who);
        let disk = bridge.recoverable();
        bridge.disk.epoch = epoch;
        bridge.disk.intents.remove(&nonce);
        let freed = bridge.disk.done.clone();
        bridge.disk.batches.retain(|batch, _| !freed.contains(batch.0));
        let identity = Identity {
            uuid: bridge.uuid,
            name: bridge.name.to_owned(),
            nonce,
            hosts: bridge.hosts.clone(),
            sources: sources(incarnation, narrow),
        };
        bridge.process = Process::Up(Box::new(recovery::recover(identity, policy, disk)));
        let checkpoint = self.w.hub.checkpoint(self.setup.mutant);
        self.step(who, Input::Checkpoint(checkpoint));
        self.step(who, Input::EpochAppended(epoch));
        let acked: Vec<_> = self.w.bridges[who].disk.acked.iter().copied().collect();
        for batch in acked {
            self.step(who, Input::BatchFinished(batch));
        }
    }

    /// A fault that no node has a part in.
    pub(crate) fn disturb(&mut self, action: Action) -> bool {
        let left = &mut self.w.left;
        match action {
            Action::Skip(seq) => {
                left.skips -= 1;
                self.hub().source.acked.insert(seq);
                true
            }
            Action::Reset => {
                left.resets -= 1;
                self.hub().source.acked = Default::default();
                true
            }
            Action::Lose(seq) => {
                left.losses -= 1;
                self.hub().source.gone.insert(seq);
                true
            }
            Action::Copy(who) => {
                left.copies -= 1;
                self.copy(who);
                true
            }
            Action::Terms => {
                left.terms -= 1;
                self.w.narrow = !self.w.narrow;
                let apps: Vec<String> = self.w.truth.fold.terms().apps.keys().cloned().collect();
                let apps: Vec<&str> = apps.iter().map(String::as_str).collect();
                self.put_terms(&apps);
                true
            }
            Action::PowerLoss => {
                left.power_losses -= 1;
                self.lose_power()
            }
            Action::Stranger => {
                left.strangers -= 1;
                let uuid = self.w.bridges[0].uuid;
                let at = self.put(Body::Handoff(Handoff {
                    node_uuid: uuid,
                    ..Handoff::default()
                }));
                let truth = Arc::make_mut(&mut self.w.truth);
                truth.ended = truth.ended.or(at);
                true
            }
            Action::Evacuate(who) => {
                left.evacuations -= 1;
                self.evacuate(who)
            }
            Action::Recreate => {
                left.recreations -= 1;
                let source = &mut self.hub().source;
                source.generation += 1;
                source.acked = Default::default();
                source.gone = Default::default();
                true
            }
            Action::Read(_)
            | Action::Pull { .. }
            | Action::Tick { .. }
            | Action::Checkpoint { .. }
            | Action::Sync(_)
            | Action::Finish(..)
            | Action::Land(_)
            | Action::Repeat(_)
            | Action::Purge(_)
            | Action::Audit(_)
            | Action::StaleAudit(_)
            | Action::Repair(_)
            | Action::Unconfirmed(..)
            | Action::Hear(_)
            | Action::Crash(_)
            | Action::Start(..)
            | Action::Orphan(_)
            | Action::Pass
            | Action::RollBack { .. }
            | Action::Regrow => false,
        }
    }

    /// What a disk holds now becomes a body of its own, with the same identity.
    fn copy(&mut self, who: usize) {
        let mut copy = (*self.w.bridges[who]).clone();
        copy.process = Process::Down;
        copy.unsynced.clear();
        copy.audits = BTreeSet::new();
        copy.repairs = BTreeSet::new();
        copy.early = BTreeSet::new();
        copy.cursor = LedgerSeq(1);
        copy.starts = 0;
        copy.copied = Some(copy.disk.batches.keys().map(|batch| batch.0).collect());
        self.w.bridges.push(Arc::new(copy));
    }

    fn evacuate(&mut self, who: usize) -> bool {
        let bridge = &self.w.bridges[who];
        let (uuid, name) = (bridge.uuid, bridge.name.to_owned());
        let body = Body::Epoch(EpochRecord {
            node_uuid: uuid,
            node: name,
            nonce: Nonce(1),
            hosts: BTreeSet::new(),
            state: NodeState::Evacuated,
        });
        self.put(body).is_some()
    }

    /// The hub loses every record that landed since time passed last. Who read one of them has gone astray.
    fn lose_power(&mut self) -> bool {
        let now = self.w.now;
        let lost = self
            .w
            .truth
            .history
            .iter()
            .find(|(_, entry)| entry.landed >= now)
            .map(|(&at, _)| at);
        let Some(first) = lost.filter(|_| now > 0) else {
            return false;
        };
        let mut truth = Truth::default();
        let kept: Vec<_> = self
            .w
            .truth
            .history
            .range(..first)
            .map(|(&at, entry)| (at, entry.clone()))
            .collect();
        for (at, entry) in &kept {
            if let Err(found) = truth.take(*at, entry, &self.w.hub.source, true) {
                self.fail(found.invariant, found.text);
            }
        }
        let hub = self.hub();
        hub.entries.split_off(&first);
        hub.last = LedgerSeq(first.0 - 1);
        for who in 0..self.w.bridges.len() {
            let read = self.w.bridges[who].node().map(|node| node.fold().position());
            if read.is_some_and(|read| read >= first) {
                self.bridge(who).astray = true;
            }
        }
        // What was published by a claim that is no more is the hub's broken promise: it is listed, not judged.
        let published = Arc::make_mut(&mut self.w.published);
        for bodies in published.values_mut() {
            bodies.retain(|(_, key)| truth.decided.contains_key(key));
        }
        published.retain(|_, bodies| !bodies.is_empty());
        self.w.truth = Arc::new(truth);
        true
    }

    /// Whether a message may go unpublished: the source gave it up, or it is at an evacuated node.
    pub(crate) fn is_excused(&self, seq: u64) -> bool {
        let source = &self.w.hub.source;
        let truth = &self.w.truth;
        let owner = truth.owner_of.get(&(source.incarnation(), seq));
        let evacuated = owner.is_some_and(|key| {
            let entry = truth.fold.nodes().get(&key.node);
            entry.is_some_and(|entry| entry.state == NodeState::Evacuated)
        });
        evacuated || truth.holes.contains(&(source.incarnation(), seq))
    }

    /// Whether a write waits anywhere for its sync.
    pub(crate) fn has_unsynced(&self, who: usize) -> bool {
        let waits = |(write, _): &(Write, bool)| !matches!(write, Write::Release(_));
        self.w.bridges[who].unsynced.iter().any(waits)
    }
}
