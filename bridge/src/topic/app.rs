//! The task of one application on one topic: the only owner of its delivery machine.
//!
//! One loop with numbered priorities, each bounded: commands, expired leases, dead letters, hand-over, cursor, frames.

use std::{collections::BTreeMap, sync::Arc};

use fanin_core::{
    delivery::{AppDelivery, Effect},
    ids::{InstanceNo, Offset, Tick},
};
use fanin_proto::v1::{Opened, subscribe_response::Response};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Duration, Instant, sleep_until},
};

use super::{
    AppSpec,
    confirm::{CursorKeeper, Persisted},
    connection::{AppCommand, ConnectRequest, Connection, Frames, Input, Shared},
    dead_writer::DeadLetterWriter,
    fill::Bodies,
    instance::Instance,
    limits::{COMMANDS_PER_TURN_MAX, FRAMES_WAITING_MAX, GAUGES_EVERY_MS, INSTANCE_NAME_BYTES_MAX},
    metrics::AppMetrics,
    shared::{Phase, TopicFailure, TopicShared},
    stats::Totals,
    verdicts::shortened,
};
use crate::codes::{Code, Refusal};

pub(crate) struct AppTask {
    pub(super) topic: Arc<TopicShared>,
    pub(super) spec: AppSpec,
    /// The application's place in the topic's tables.
    pub(super) number: usize,
    pub(super) machine: AppDelivery,
    pub(super) instances: BTreeMap<InstanceNo, Instance>,
    pub(super) head: watch::Receiver<Offset>,
    pub(super) keeper: CursorKeeper,
    pub(super) letters: DeadLetterWriter,
    pub(super) bodies: Bodies,
    pub(super) effects: Vec<Effect>,
    /// Instances with an open frame; kept to save the allocation.
    pub(super) touched: Vec<InstanceNo>,
    /// Below this offset every batch has been compared with the application's terms.
    pub(super) judged: Offset,
    /// When each message that failed did so first, milliseconds since the Unix epoch. Bounded by the delivery window.
    pub(super) first_failures: BTreeMap<Offset, u64>,
    pub(super) totals: Totals,
    pub(super) metrics: AppMetrics,
    pub(super) paused: bool,
    /// For connections to find this task.
    sender: mpsc::WeakSender<AppCommand>,
    commands: mpsc::Receiver<AppCommand>,
    phase: watch::Receiver<Phase>,
    wake: Arc<Notify>,
    gauges_at: Instant,
    /// Why nothing is delivered any more.
    stopping: Option<Refusal>,
    /// Whether what clients have not begun was taken back.
    taken_back: bool,
}

impl AppTask {
    pub(super) fn new(
        topic: Arc<TopicShared>,
        spec: AppSpec,
        number: usize,
        machine: AppDelivery,
        channel: (mpsc::WeakSender<AppCommand>, mpsc::Receiver<AppCommand>),
    ) -> AppTask {
        AppTask {
            judged: machine.floor(),
            instances: BTreeMap::new(),
            head: topic.head.subscribe(number),
            phase: topic.phase.subscribe(number),
            keeper: CursorKeeper::new(super::cursor_name(topic.space, &spec.name)),
            letters: DeadLetterWriter::new(Arc::clone(&topic), Arc::clone(&spec.name)),
            bodies: Bodies::default(),
            effects: Vec::new(),
            touched: Vec::new(),
            first_failures: BTreeMap::new(),
            totals: Totals::default(),
            metrics: AppMetrics::new(&topic.name, &spec.name),
            paused: false,
            sender: channel.0,
            commands: channel.1,
            wake: Arc::new(Notify::new()),
            gauges_at: Instant::now(),
            stopping: None,
            taken_back: false,
            topic,
            spec,
            number,
            machine,
        }
    }

    /// Runs until the topic ends.
    pub(super) async fn run(mut self) {
        loop {
            // Priority 0: a fence stops everything else.
            self.follow_phase();
            // Priority 1: what clients and operators say.
            let mut more = self.take_commands();
            // Priority 2: leases that ran out, retries that are due.
            self.expire();
            // Priority 3: dead letters that have become durable.
            while let Some(offset) = self.letters.poll_now() {
                self.machine.dead_lettered(offset, &mut self.effects);
            }
            self.run_effects("");
            // Priority 4: hand over.
            more |= self.fill();
            // Priority 5: make the cursor durable, confirm.
            self.persist();
            // Priority 6: frames to the connections, credit to the machine.
            more |= self.pump();
            self.end_finished();
            if self.gauges_at <= Instant::now() {
                self.gauges_at = Instant::now() + Duration::from_millis(GAUGES_EVERY_MS);
                self.update_gauges();
            }
            if self.has_ended() {
                break;
            }
            if more {
                tokio::task::yield_now().await;
            } else {
                self.wait().await;
            }
        }
    }

    pub(super) fn now(&self) -> Tick {
        self.topic.now()
    }

    fn take_commands(&mut self) -> bool {
        for _ in 0..COMMANDS_PER_TURN_MAX {
            match self.commands.try_recv() {
                Ok(command) => self.command(command),
                Err(_) => return false,
            }
        }
        true
    }

    fn command(&mut self, command: AppCommand) {
        match command {
            AppCommand::Connect { request, reply } => {
                let connected = self.connect(request);
                if let Err(Ok(unclaimed)) = reply.send(connected) {
                    // The caller went away meanwhile: its end of the connection is dropped, and the instance with it.
                    self.disconnect(unclaimed.input.instance, None);
                }
            }
            AppCommand::Credit {
                instance,
                bytes,
                messages,
            } => {
                if let Some(instance) = self.instances.get_mut(&instance) {
                    instance.valve.granted(bytes, messages);
                }
                self.lend(instance);
            }
            AppCommand::Verdicts { instance, verdicts } => self.verdicts(instance, verdicts),
            AppCommand::Close { instance } => self.close(instance),
            AppCommand::Disconnect { instance, refusal } => self.disconnect(instance, refusal),
            AppCommand::SetPaused(paused) => {
                self.paused = paused;
                self.machine.set_paused(self.paused || self.stopping.is_some());
            }
            AppCommand::SetPolicy(policy) => {
                self.spec.policy = policy;
                self.machine.set_policy(policy);
            }
            AppCommand::Holdings(reply) => {
                self.machine.extend_head(*self.head.borrow());
                // An error means that nobody waits for the answer any more.
                drop(reply.send(self.holdings()));
            }
            AppCommand::Stats(reply) => {
                self.machine.extend_head(*self.head.borrow());
                // An error means that nobody waits for the answer any more.
                drop(reply.send(self.stats()));
            }
        }
    }

    fn connect(&mut self, request: ConnectRequest) -> Result<Connection, Refusal> {
        if let Some(refusal) = &self.stopping {
            return Err(refusal.clone());
        }
        let stopping = || Refusal::new(Code::Stopping, "the topic is ending; connect again later");
        let commands = self.sender.upgrade().ok_or_else(stopping)?;
        let no = self.topic.next_instance();
        self.machine
            .connect(no)
            .map_err(|error| Refusal::new(Code::LimitExceeded, error.to_string()))?;
        let name = if request.name.is_empty() {
            format!("{}-{}-{no}", self.spec.name, request.peer.pid)
        } else {
            shortened(&request.name, INSTANCE_NAME_BYTES_MAX).to_owned()
        };
        let (sender, receiver) = mpsc::channel(FRAMES_WAITING_MAX);
        let shared = Arc::new(Shared::default());
        let mut instance = Instance::new(
            Arc::from(name.as_str()),
            request.peer,
            sender,
            Arc::clone(&shared),
        );
        instance.control(Response::Opened(Opened {
            node: self.topic.node.to_string(),
            topic: self.topic.name.to_string(),
            app: self.spec.name.to_string(),
            instance: name,
            lease_ms: self.machine.policy().lease_ms,
            max_in_flight: self.machine.policy().instance_in_flight_max,
        }));
        tracing::info!(
            topic = %self.topic.name, app = %self.spec.name, instance = %instance.name, number = %no,
            pid = request.peer.pid, uid = request.peer.uid, "an instance is connected"
        );
        self.instances.insert(no, instance);
        self.note_presence();
        Ok(Connection {
            input: Input {
                instance: no,
                commands,
                shared: Arc::clone(&shared),
            },
            frames: Frames {
                receiver,
                shared,
                wake: Arc::clone(&self.wake),
                fenced: Arc::clone(&self.topic.fenced),
            },
        })
    }

    fn lend(&mut self, no: InstanceNo) {
        if let Some(instance) = self.instances.get_mut(&no)
            && let Some((bytes, messages)) = instance.valve.lend()
        {
            self.machine.grant(no, bytes, messages);
        }
    }

    /// The instance takes nothing more.
    fn close(&mut self, no: InstanceNo) {
        let Some(instance) = self.instances.get_mut(&no) else {
            return;
        };
        instance.closing = true;
        self.machine.close(no, &mut self.effects);
        self.run_effects("");
        self.note_presence();
    }

    pub(super) fn disconnect(&mut self, no: InstanceNo, refusal: Option<Refusal>) {
        let Some(instance) = self.instances.remove(&no) else {
            return;
        };
        tracing::info!(
            topic = %self.topic.name, app = %self.spec.name, instance = %instance.name, number = %no,
            refusal = refusal.as_ref().map(tracing::field::display), "an instance has gone"
        );
        if let Some(refusal) = refusal {
            instance.refuse(refusal);
        }
        self.keeper.forget(no);
        self.machine
            .disconnect(self.now(), no, self.topic.ambient.random(), &mut self.effects);
        self.run_effects("the connection was lost while the message was in a handler's hands");
        self.note_presence();
    }

    fn note_presence(&self) {
        let taking = self
            .instances
            .values()
            .filter(|instance| !instance.closing)
            .count();
        self.topic.note_presence(&self.spec.name, taking as u32);
    }

    fn expire(&mut self) {
        let now = self.now();
        if self
            .machine
            .next_deadline()
            .is_some_and(|deadline| deadline <= now)
        {
            self.machine
                .tick(now, self.topic.ambient.random(), &mut self.effects);
            self.run_effects("the lease ran out before a verdict came");
        }
    }

    fn persist(&mut self) {
        if let Some(persisted) = self.keeper.poll_now() {
            self.persisted(persisted);
        }
        let machine = &self.machine;
        self.keeper
            .start(&*self.topic.store, machine.generation(), || machine.cursor());
    }

    fn persisted(&mut self, persisted: Persisted) {
        match persisted {
            Persisted::Durable { floor, confirms } => {
                for (no, ranges) in confirms {
                    if let Some(instance) = self.instances.get_mut(&no) {
                        instance.confirm(ranges);
                    }
                }
                self.topic.advance(self.number, floor);
                self.bodies.forget_below(floor);
                if self
                    .first_failures
                    .first_key_value()
                    .is_some_and(|(offset, _)| *offset < floor)
                {
                    self.first_failures = self.first_failures.split_off(&floor);
                }
            }
            Persisted::Refused(error) => {
                tracing::warn!(
                    code = "FAN-4048", topic = %self.topic.name, app = %self.spec.name, %error,
                    "the cursor waits for room in the local log; acks are not confirmed until then"
                );
            }
            Persisted::Broken(error) => {
                self.machine.set_paused(true);
                self.topic.fail(TopicFailure::Store(error));
            }
        }
    }

    /// Returns whether credit came free, so that there may be more to hand over.
    fn pump(&mut self) -> bool {
        let mut gone = Vec::new();
        let mut lent = false;
        for (no, instance) in &mut self.instances {
            if !instance.pump() {
                gone.push(*no);
            } else if let Some((bytes, messages)) = instance.valve.lend() {
                self.machine.grant(*no, bytes, messages);
                lent = true;
            }
        }
        for no in gone {
            self.disconnect(no, None);
        }
        lent
    }

    /// Ends instances that are closing and owe nothing any more, in either direction.
    fn end_finished(&mut self) {
        if self.stopping.is_none() && !self.instances.values().any(|instance| instance.closing) {
            return;
        }
        let stopping = self.stopping.is_some();
        let finished: Vec<InstanceNo> = self
            .instances
            .iter()
            .filter(|(no, instance)| {
                (instance.closing || stopping)
                    && self.machine.held_count(**no) == 0
                    && instance.is_flushed()
                    && !self.keeper.owes(**no)
                    && !self.letters.owes(**no)
            })
            .map(|(no, _)| *no)
            .collect();
        for no in finished {
            self.disconnect(no, None);
        }
    }

    fn follow_phase(&mut self) {
        let phase = self.phase.borrow_and_update().clone();
        let (refusal, linger_until, fenced) = match phase {
            Phase::Running => return,
            Phase::Stopped {
                refusal,
                linger_until,
            } => (refusal, linger_until, true),
            Phase::Ending {
                refusal,
                linger_until,
                ..
            } => (refusal, linger_until, false),
        };
        if self.stopping.is_none() {
            self.machine.set_paused(true);
            for instance in self.instances.values_mut() {
                if fenced {
                    instance.drop_deliveries();
                }
                instance.closing(&refusal);
            }
            self.stopping = Some(refusal);
        }
        if !self.taken_back && linger_until <= Instant::now() {
            self.taken_back = true;
            let all: Vec<InstanceNo> = self.instances.keys().copied().collect();
            for no in all {
                self.close(no);
            }
        }
    }

    /// Whether the topic ends and this task has nothing left to do, or no time.
    fn has_ended(&self) -> bool {
        match &*self.phase.borrow() {
            Phase::Running | Phase::Stopped { .. } => false,
            Phase::Ending { deadline, .. } => {
                let idle = self.instances.is_empty()
                    && self.letters.is_idle()
                    && (self.keeper.is_durable(self.machine.generation()) || self.keeper.is_broken());
                idle || *deadline <= Instant::now()
            }
        }
    }

    /// When something is to be done without anybody asking.
    fn next_wake(&self) -> Instant {
        let mut at = self.gauges_at;
        if let Some(deadline) = self.machine.next_deadline() {
            at = at.min(self.topic.instant_of(deadline));
        }
        for retry_at in [self.bodies.retry_at(), self.keeper.retry_at()]
            .into_iter()
            .flatten()
        {
            at = at.min(retry_at.max(Instant::now() + Duration::from_millis(1)));
        }
        match &*self.phase.borrow() {
            Phase::Running => {}
            Phase::Stopped { linger_until, .. } | Phase::Ending { linger_until, .. } if !self.taken_back => {
                at = at.min(*linger_until);
            }
            Phase::Stopped { .. } => {}
            Phase::Ending { deadline, .. } => at = at.min(*deadline),
        }
        at
    }

    /// Sleeps until anything happens. What is received here is handled here; the rest waits for the next turn.
    async fn wait(&mut self) {
        enum Woken {
            Command(Option<AppCommand>),
            Persisted(Option<Persisted>),
            DeadLettered(Offset),
            Other,
        }
        let at = self.next_wake();
        let woken = tokio::select! {
            biased;
            _ = self.phase.changed() => {
                // Left unseen, so that the next turn follows it.
                Woken::Other
            }
            command = self.commands.recv() => Woken::Command(command),
            persisted = self.keeper.wait() => Woken::Persisted(persisted),
            offset = self.letters.wait() => Woken::DeadLettered(offset),
            () = self.bodies.wait() => Woken::Other,
            _ = self.head.changed() => Woken::Other,
            () = self.wake.notified() => Woken::Other,
            () = sleep_until(at) => Woken::Other,
        };
        match woken {
            Woken::Command(Some(command)) => self.command(command),
            Woken::Persisted(Some(persisted)) => self.persisted(persisted),
            Woken::DeadLettered(offset) => {
                self.machine.dead_lettered(offset, &mut self.effects);
                self.run_effects("");
            }
            // Without handles nobody can end this task by its phase any more, so it ends as if killed.
            Woken::Command(None) => {
                self.topic.phase.send(&Phase::Ending {
                    refusal: Refusal::new(Code::Stopping, "the topic was dropped"),
                    linger_until: Instant::now(),
                    deadline: Instant::now(),
                });
            }
            Woken::Persisted(None) | Woken::Other => {}
        }
    }
}
