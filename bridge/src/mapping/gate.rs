//! When to pull: the node has joined, its claims would be valid, every application of the app set has been connected here
//! within the grace time, and there is room. Also what status says about it.

use fanin_core::ids::{Epoch, Incarnation};
use fanin_core::node::{Phase, Withheld};
use fanin_hub::CreatePolicy;
use tokio::sync::watch;

use super::driver::Driver;
use super::intake::{IntakeTask, Room};
use super::join::{Source, pause};
use super::ledger_io::error_chain;
use super::limits::{AHEAD_FACTOR, OPEN_CLAIMS_MAX};
use super::source_check;
use super::view::{State, code_of};
use super::watch::{WatchTask, consumer_spec, look_at_source};

/// Status while what finishes waits for room in the file system.
pub(super) const DISK_FULL: &str = "FAN-4048: the file system of the local log is full: what is accepted waits to be finished; \
     make room there";

impl Driver {
    /// The tail has reached the own EPOCH: deliveries begin, and each source is pulled from as soon as its consumer is there.
    pub(super) fn on_joined(&mut self, epoch: Epoch) {
        tracing::info!(
            mapping = self.options.name,
            epoch = epoch.0,
            position = self.node.fold().position().0,
            "joined"
        );
        let infos = self.sources.values().map(|source| &source.info);
        let delivery = source_check::delivery(self.options.policy.stability, self.options.disk, infos);
        self.view.update(|view| view.delivery = delivery);
        let topic = self.topic.clone();
        let apps: Vec<String> = self.options.config.applications.keys().cloned().collect();
        tokio::spawn(async move {
            for app in apps {
                topic.set_paused(&app, false).await;
            }
        });
        let sources: Vec<_> = self.sources.keys().copied().collect();
        for incarnation in sources {
            self.start_source(incarnation);
        }
    }

    fn start_source(&mut self, incarnation: Incarnation) {
        let Some(source) = self.sources.get(&incarnation).cloned() else {
            return;
        };
        // With W at 0 the consumer that a repair has deleted would be made anew, and everything delivered under it once more.
        if self.is_superseded(&source) {
            return;
        }
        let closed = self.node.fold().closed(incarnation);
        let policy = match (closed.0, self.options.recreate_consumer) {
            (0, _) => CreatePolicy::FromStart,
            (_, true) => CreatePolicy::After(closed),
            (_, false) => CreatePolicy::Never,
        };
        let spec = consumer_spec(&self.options, incarnation, &source);
        let (hub, events) = (self.hub.clone(), self.events_tx.clone());
        let pulls = self.pulls.connection.clone();
        // Each source has room of its own: an idle one that waits for messages must not hold back a busy one.
        let config = &self.options.config;
        let share = self.options.staged_bytes / self.sources.len().max(1) as u64;
        let room = Room::new(config.in_flight, share, &config.batch, self.linger.clone());
        let (gate, open) = watch::channel(false);
        self.gates.insert(incarnation, gate);
        let (probe, probes) = watch::channel(self.node.source_probe(incarnation));
        self.probes.insert(incarnation, probe);
        let mapping = self.options.name.clone();
        self.outgoing.request(Box::pin(async move {
            let mut tries = 0;
            loop {
                match hub.ensure_consumer(&spec, policy).await {
                    Ok(consumer) => {
                        if !consumer.grown.is_empty() {
                            tracing::info!(code = "FAN-4021", mapping, consumer = consumer.name, raised = ?consumer.grown, "the shared consumer has grown with the number of nodes");
                        }
                        // Before the first message arrives, so that nothing of a source that is not what it was is taken.
                        let asked = *probes.borrow();
                        if let Some(seen) = look_at_source(&*hub, incarnation, &source, asked).await
                            && events.send(seen).await.is_err()
                        {
                            return None;
                        }
                        let started = Started {
                            watch: WatchTask::start(&hub, incarnation, &source, consumer.clone(), probes, events.clone()),
                            intake: IntakeTask::start(&pulls, incarnation, &consumer, room, open, events),
                        };
                        return Some(super::driver::Event::SourceReady { incarnation, started: Box::new(started) });
                    }
                    Err(error) => {
                        let missing = (!error.retryable()).then(|| format!("{}: {}", error.code(), error_chain(&error)));
                        let told = super::driver::Event::FloorUnknown { incarnation, missing };
                        if events.send(told).await.is_err() {
                            return None;
                        }
                        // Nobody takes anything of it, so that a loss would leave no other trace.
                        let asked = *probes.borrow();
                        if let Some(seen) = look_at_source(&*hub, incarnation, &source, asked).await
                            && events.send(seen).await.is_err()
                        {
                            return None;
                        }
                        tokio::time::sleep(pause(tries)).await;
                        tries += 1;
                    }
                }
            }
        }));
    }

    /// Whether the source was begun anew by a repair and this node's configuration does not say so.
    fn is_superseded(&self, source: &Source) -> bool {
        source_check::is_superseded(source, self.node.fold().terms())
    }

    /// Looks at everything that decides whether to pull, opens or closes the gates, and tells status why.
    pub(super) fn look_over(&mut self) {
        for (app, presence) in self.topic.connected_apps().borrow().iter() {
            if presence.instances > 0 && !self.ever_present.contains(&**app) {
                self.ever_present.insert(app.to_string());
            }
        }
        self.linger.tell(self.unfinished_batches());
        let (state, reason) = self.judge();
        for (incarnation, gate) in &self.gates {
            let open =
                state == State::Active && !self.is_far_ahead() && self.node.may_pull(*incarnation).is_ok();
            gate.send_if_modified(|now| std::mem::replace(now, open) != open);
        }
        for (incarnation, probe) in &self.probes {
            let present = self.node.source_probe(*incarnation);
            probe.send_if_modified(|told| std::mem::replace(told, present) != present);
        }
        let fold = self.node.fold();
        self.ledger_room.note_read(fold.position());
        let name = self.options.name.clone();
        self.view.update(|view| {
            if view.state != state || view.code() != code_of(&reason) {
                tracing::info!(mapping = name, state = state.word(), reason, "state");
            }
            view.state = state;
            view.reason = reason;
            view.epoch = self.node.epoch().unwrap_or_default().0;
            view.position = fold.position().0;
            view.hash = fold.witness().hash;
            view.lag = self.lag;
            view.terms = fold.terms().version.0;
            view.staged = self.batches.len() as u64;
            view.unresolved = self.node.unresolved() as u64;
            view.open = self.topic.unfinished_batches() as u64;
            view.head = self.node.next_offset().0;
            view.open_claims = fold.claims().len() as u64;
            view.counts = self.counts;
            for (incarnation, source) in &self.sources {
                let seen = view.sources.entry(*incarnation).or_default();
                seen.stream.clone_from(&source.terms.stream);
                seen.closed = fold.closed(*incarnation).0;
                seen.last = self.node.source_probe(*incarnation).end.unwrap_or_default().0;
            }
        });
    }

    /// Batches that take memory here until applications finish them: open claims of all nodes, and this node's own, claimed or not.
    fn unfinished_batches(&self) -> usize {
        self.node.fold().open_claims().max(self.node.batches().len())
    }

    fn judge(&self) -> (State, String) {
        if self.stopping {
            return (State::Stopping, String::new());
        }
        match self.node.phase() {
            Phase::Joining => return (State::Joining, String::new()),
            Phase::Halted(halt) => {
                let reason = format!("{}: {halt}; cure: {}", halt.code(), halt.cure());
                return (State::Halted, reason);
            }
            Phase::Fenced(reason) => {
                return (
                    State::Fenced,
                    format!("FAN-3008: {reason}; cure: {}", reason.cure()),
                );
            }
            Phase::Active => {}
        }
        if let Some((batch, why)) = self.mending.first() {
            let why = if why.is_empty() {
                String::new()
            } else {
                format!(" ({why})")
            };
            return (
                State::Withheld,
                format!(
                    "FAN-4043: batch {batch} of the local log is damaged and is being fetched again from its source{why}"
                ),
            );
        }
        if let Some(source) = self.sources.values().find(|source| self.is_superseded(source)) {
            let (stream, generation) = (&source.terms.stream, source.generation);
            return (
                State::Withheld,
                format!(
                    "FAN-4064: source {stream} was begun anew with a higher generation than this configuration's {generation}; raise it \
                     here as on the other nodes, and restart"
                ),
            );
        }
        // Before what is wrong with the consumer: it fits the terms, so that it does not fit a configuration that differs from them.
        let differs =
            |incarnation: &Incarnation| self.node.may_pull(*incarnation) == Err(Withheld::FilterDiffers);
        if self.sources.keys().any(differs) {
            return (State::Withheld, self.explain(&Withheld::FilterDiffers));
        }
        if let Some(missing) = self.missing.values().next() {
            return (State::Withheld, missing.clone());
        }
        if let Some(trouble) = self.pulls.trouble(tokio::time::Instant::now()) {
            return (State::Withheld, trouble);
        }
        let usage = self.store.usage();
        if usage.waiting {
            return (State::Full, DISK_FULL.to_owned());
        }
        if usage.full || usage.room < self.room_wanted {
            return (
                State::Full,
                "FAN-4022: the local log's quota or the disk is full; other nodes take over; raise store.quota, or see which application is \
                 behind"
                    .to_owned(),
            );
        }
        if let Some(refused) = self.ledger_room.refused() {
            return (State::Withheld, refused);
        }
        if crate::failpoint::weigh(self.unfinished_batches()) >= OPEN_CLAIMS_MAX {
            return (
                State::Full,
                format!(
                    "FAN-4037: {OPEN_CLAIMS_MAX} batches of this mapping are unfinished; intake waits until applications finish some; see who \
                     is behind, or raise batch.linger so that batches hold more"
                ),
            );
        }
        let refused = self
            .sources
            .keys()
            .find_map(|incarnation| self.node.may_pull(*incarnation).err());
        if let Some(withheld) = refused {
            return (State::Withheld, self.explain(&withheld));
        }
        if let Some(absent) = self.absent_app() {
            return (
                State::Gated,
                format!("FAN-4024: application {absent} has no instance on this node; intake waits for it"),
            );
        }
        (State::Active, String::new())
    }

    fn explain(&self, withheld: &Withheld) -> String {
        use fanin_core::fold::Void;
        match withheld {
            Withheld::LedgerFull { bytes, max } => format!(
                "FAN-4023: the ledger is nearly full, {bytes} of {max} bytes; claims wait until applications finish what they \
                 have; see who is behind, or raise its max_bytes"
            ),
            Withheld::Phase => String::new(),
            Withheld::Unresolved => "FAN-4025: too many batches wait for the ledger".to_owned(),
            Withheld::FilterDiffers => {
                "FAN-4026: the terms in force name other subjects for this source than the configuration; make the \
                 configurations of all nodes alike, then start one with --accept-terms"
                    .to_owned()
            }
            Withheld::TermsUnfit(error) => format!(
                "FAN-4061: the terms that this node's configuration asks for cannot be written: {error}; name fewer or shorter \
                 subjects and applications, or split the mapping"
            ),
            Withheld::Void(Void::Terms) => {
                "FAN-4027: no terms are in force yet; this node or another one is writing them".to_owned()
            }
            Withheld::Void(Void::UnknownSource) => {
                "FAN-4028: the terms in force do not name a source of the configuration yet; this node is writing terms that do"
                    .to_owned()
            }
            Withheld::Void(Void::NotHosted) => {
                let hosts = self.options.hosts();
                let lacking = self.node.fold().terms().apps.keys().filter(|app| !hosts.contains(*app));
                let lacking: Vec<&str> = lacking.map(String::as_str).collect();
                format!(
                    "FAN-4029: the terms in force name applications this node does not host: {}; add them to its configuration",
                    lacking.join(", ")
                )
            }
            Withheld::Void(Void::OldEpoch | Void::State) => {
                "FAN-3008: this node's epoch does not admit claims: another process has begun a newer one under its name; see the log, stop \
                 one of the two, restart the other"
                    .to_owned()
            },
        }
    }

    /// With the gate on: an application of the app set that has had no instance here for longer than the grace time.
    /// Without backlog room in even the fastest application the gate is closed as well; that is not worth a word.
    fn absent_app(&self) -> Option<String> {
        if !self.options.is_gated() {
            return None;
        }
        let presence = self.topic.connected_apps();
        let presence = presence.borrow();
        let grace = self.options.config.grace.0;
        let terms = self.node.fold().terms();
        terms.apps.keys().find_map(|app| {
            let absent = match presence.get(app.as_str()) {
                Some(found) if found.instances > 0 => false,
                // An application that was here a moment ago may be restarting; one that never came is absent at once.
                Some(found) => !(self.ever_present.contains(app) && found.since.elapsed() < grace),
                None => true,
            };
            absent.then(|| app.clone())
        })
    }

    /// Whether even the fastest application has plenty waiting here.
    pub(super) fn is_far_ahead(&self) -> bool {
        let ahead = AHEAD_FACTOR * u64::from(self.options.config.in_flight);
        self.options.is_gated() && self.topic.least_backlog() > ahead
    }
}

/// The tasks of a source whose consumer is there.
pub struct Started {
    /// Looks after it.
    pub watch: WatchTask,
    /// Pulls from it.
    pub intake: IntakeTask,
}

impl std::fmt::Debug for Started {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Started")
    }
}
