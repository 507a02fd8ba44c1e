//! The state of the cluster, and how a node's effects change it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use fanin_core::batch::BatchState;
use fanin_core::effect::Effect;
use fanin_core::fold::ClaimKey;
use fanin_core::ids::{Attempt, BatchNo, Incarnation, LedgerSeq, NodeUuid, Nonce, TermsVersion, Tick};
use fanin_core::input::Input;
use fanin_core::node::{Policy, Stability};
use fanin_core::record::{Body, CheckpointPart, Genesis, Record, SourceTerms, Terms, Witness};

use crate::bridge::{Bridge, Disk, Kept, Process, Resolution, Write};
use crate::hub::{Entry, Flight, Hub, Sender, Source};
use crate::mutants::Mutant;
use crate::properties::{Invariant, Violation};
use crate::setup::{Faults, Setup, Upkeep};
use crate::truth::{Published, Truth};

/// Names of the bodies; the third is a copy.
pub const NAMES: [&str; 3] = ["A", "B", "C"];

/// Everything, at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    /// Coarse time: see `Faults::passes`.
    pub now: u8,
    /// The bodies.
    pub bridges: Vec<Arc<Bridge>>,
    /// The hub.
    pub hub: Arc<Hub>,
    /// The history.
    pub truth: Arc<Truth>,
    /// What applications saw.
    pub published: Arc<Published>,
    /// The operator's present filter: only subject `s`.
    pub narrow: bool,
    /// Faults that may still happen.
    pub left: Faults,
    /// Checkpoints that may still be written.
    pub checkpoints_left: u8,
    /// The first invariant broken on the way here.
    pub violation: Option<Arc<Violation>>,
}

pub(crate) fn names(apps: &[&str]) -> BTreeSet<String> {
    apps.iter().map(|&app| app.to_owned()).collect()
}

pub(crate) fn sources(incarnation: Incarnation, narrow: bool) -> BTreeMap<Incarnation, SourceTerms> {
    let filters = if narrow { vec!["s".to_owned()] } else { Vec::new() };
    let stream = "S".to_owned();
    BTreeMap::from([(incarnation, SourceTerms { stream, filters })])
}

/// The policy of every node. All intervals are 0, so that a tick does whatever may be done: each timer may have run out at
/// any moment. Only what is sent again waits for time to pass.
pub(crate) fn policy(setup: &Setup) -> Policy {
    let waits = setup.config.lazy_hub && !setup.is(Mutant::TrustsTheHub);
    Policy {
        stability: if waits {
            Stability::After(1)
        } else {
            Stability::SyncAlways
        },
        accept_terms: false,
        resend_ms: 1,
        progress_ms: 0,
        close_ms: 0,
        audit_ms: 0,
        stuck_ms: 1 << 40,
        takeover_ms: 0,
        checkpoint_records: u64::MAX,
    }
}

/// A world on its way to the next state.
pub(crate) struct Exec<'a> {
    pub(crate) setup: &'a Setup,
    pub(crate) w: World,
    /// A fair run without faults: writes are synced, appends land at once.
    pub(crate) healing: bool,
}

impl<'a> Exec<'a> {
    pub(crate) fn of(setup: &'a Setup, world: &World) -> Exec<'a> {
        let w = world.clone();
        Exec {
            setup,
            w,
            healing: false,
        }
    }

    /// The first state: GENESIS, TERMS, and, unless it is a cold one, every node's EPOCH read by all.
    pub(crate) fn initial(setup: &'a Setup) -> Exec<'a> {
        let config = &setup.config;
        let source = Source {
            last: config.messages,
            odd: config.odd.iter().copied().collect(),
            ..Source::default()
        };
        let hub = Hub {
            source,
            ..Hub::default()
        };
        let mut exec = Exec {
            setup,
            healing: false,
            w: World {
                now: 0,
                bridges: Vec::new(),
                hub: Arc::new(hub),
                truth: Arc::default(),
                published: Arc::default(),
                narrow: config.narrow,
                left: config.faults,
                checkpoints_left: config.checkpoints,
                violation: None,
            },
        };
        exec.put(Body::Genesis(Genesis {
            rules: fanin_core::fold::RULES,
            features: BTreeSet::new(),
        }));
        exec.put_terms(config.apps);
        for (body, name) in NAMES.iter().take(2).enumerate() {
            exec.w.bridges.push(Arc::new(Bridge {
                uuid: NodeUuid(body as u128 + 1),
                name,
                hosts: names(config.hosts),
                process: Process::Down,
                disk: Disk::default(),
                unsynced: VecDeque::new(),
                cursor: LedgerSeq(1),
                audits: BTreeSet::new(),
                repairs: BTreeSet::new(),
                early: BTreeSet::new(),
                staged: 0,
                starts: 0,
                astray: false,
                copied: None,
            }));
        }
        if !config.cold {
            exec.start(0, None);
            exec.start(1, None);
            for who in [0, 1] {
                while exec.tail_one(who).is_some() {}
            }
        }
        exec
    }

    pub(crate) fn fail(&mut self, invariant: Invariant, text: String) {
        if self.w.violation.is_none() && !self.setup.blind.contains(&invariant) {
            self.w.violation = Some(Arc::new(Violation { invariant, text }));
        }
    }

    pub(crate) fn hub(&mut self) -> &mut Hub {
        Arc::make_mut(&mut self.w.hub)
    }

    pub(crate) fn bridge(&mut self, who: usize) -> &mut Bridge {
        Arc::make_mut(&mut self.w.bridges[who])
    }

    pub(crate) fn entry(&self, record: &Record) -> Entry {
        let mut record = record.clone();
        if !self.setup.config.witnesses {
            record.witness = Witness::default();
        }
        // Attempts are for logs and the dedupe header; here they would only tell states apart.
        if let Body::Claim(claim) = &mut record.body {
            claim.attempt = Attempt(1);
        }
        Entry {
            subject: record.subject().into(),
            bytes: record.encode().into(),
            landed: 0,
        }
    }

    /// Lands a record by hand, as an operator's tool would.
    pub(crate) fn put(&mut self, body: Body) -> Option<LedgerSeq> {
        let witness = Witness::default();
        let entry = self.entry(&Record { witness, body });
        self.land(entry, None)
    }

    /// The operator puts the next terms in force.
    pub(crate) fn put_terms(&mut self, apps: &[&str]) {
        let current = self.w.truth.fold.terms();
        let version = TermsVersion(current.version.0 + 1);
        let since = |app: &str| current.apps.get(app).copied().unwrap_or(version);
        let apps = apps.iter().map(|&app| (app.to_owned(), since(app))).collect();
        let sources = sources(self.w.hub.source.incarnation(), self.w.narrow);
        self.put(Body::Terms(Terms {
            version,
            sources,
            apps,
        }));
    }

    /// Lands a record; `None` when compare-and-set refuses.
    pub(crate) fn land(&mut self, mut entry: Entry, expect: Option<LedgerSeq>) -> Option<LedgerSeq> {
        if self.setup.config.lazy_hub {
            entry.landed = self.w.now;
        }
        let at = self.hub().append(entry.clone(), expect)?;
        let lazy = self.setup.config.lazy_hub;
        let Exec { w, .. } = self;
        if let Err(found) = Arc::make_mut(&mut w.truth).take(at, &entry, &w.hub.source, lazy) {
            self.fail(found.invariant, found.text);
        }
        Some(at)
    }

    pub(crate) fn fresh_nonce(&mut self, who: usize) -> Nonce {
        let bridge = self.bridge(who);
        bridge.starts += 1;
        Nonce(100 * (who as u64 + 1) + u64::from(bridge.starts))
    }

    /// Gives a node one input and does what it asks for. Says whether anything but the node itself was concerned.
    pub(crate) fn step(&mut self, who: usize, input: Input) -> bool {
        let mut queue = VecDeque::from([input]);
        let mut matters = false;
        while let Some(input) = queue.pop_front() {
            if self.w.violation.is_some() {
                return true;
            }
            let now = Tick(u64::from(self.w.now));
            let Process::Up(node) = &mut self.bridge(who).process else {
                return matters;
            };
            let before = node.phase().clone();
            let mut effects = Vec::new();
            node.handle(now, input, &mut effects);
            node.blur();
            self.guard(who, &before, &effects);
            for effect in effects {
                matters |= self.perform(who, effect, &mut queue);
            }
            if self.healing || !self.setup.config.fine_disk {
                let held = self.setup.mutant.is_some_and(Mutant::holds_writes) && !self.healing;
                while !held && !self.w.bridges[who].unsynced.is_empty() {
                    queue.extend(self.sync_one(who));
                }
            }
            self.inspect(who);
        }
        matters
    }

    /// Does what a node asks for. Says whether anybody else can notice.
    fn perform(&mut self, who: usize, effect: Effect, queue: &mut VecDeque<Input>) -> bool {
        match effect {
            Effect::Append { record, expect, .. } => self.send(who, &record, expect),
            Effect::Audit { terms, first, .. } => return self.bridge(who).audits.insert((terms, first)),
            Effect::FetchRepair { seq, .. } => {
                if self.setup.is(Mutant::RepairsNothing) {
                    return false;
                }
                return self.bridge(who).repairs.insert(seq);
            }
            Effect::Fact(_) | Effect::TermsInForce(_) => return false,
            Effect::Fence(_) | Effect::Halt(_) | Effect::Joined(_) => {}
            Effect::LoadCheckpoint => {
                queue.push_back(Input::Checkpoint(self.w.hub.checkpoint(self.setup.mutant)));
            }
            Effect::PersistDone(done) => self.write(who, Write::Done(done), Mutant::ReportsUnsynced, queue),
            Effect::Purge { through, keep } => {
                let keep = if self.setup.is(Mutant::PurgesKeptRecords) {
                    Vec::new()
                } else {
                    keep
                };
                return self.hub().purges.insert((through, keep));
            }
            Effect::Release(batch) => {
                self.bridge(who)
                    .unsynced
                    .push_back((Write::Release(batch), false));
            }
            Effect::Resolve {
                batch,
                terms,
                base,
                won,
                witness,
                ..
            } => {
                let witness = if self.setup.config.witnesses {
                    witness
                } else {
                    Witness::default()
                };
                let resolution = Resolution {
                    base,
                    won,
                    terms,
                    witness,
                };
                self.write(
                    who,
                    Write::Resolve(batch, resolution),
                    Mutant::PublishesUnsynced,
                    queue,
                );
            }
            Effect::Settle { won: seqs, .. } | Effect::SettleBySeq { seqs, .. } => {
                self.hub().source.acked.union(&seqs);
            }
            Effect::Stage {
                batch,
                incarnation,
                kind,
                seqs,
                ..
            } => {
                if self.setup.is(Mutant::SettlesStaged) {
                    self.settle_others(who, incarnation, &seqs);
                }
                let kept = Kept {
                    incarnation,
                    kind,
                    published_ns: self.w.hub.source.times_of(&seqs),
                    seqs,
                    resolution: None,
                };
                self.bridge(who).staged += 1;
                self.write(who, Write::Stage(batch, kept), Mutant::ClaimsUnsynced, queue);
            }
            Effect::Tail { from } => self.bridge(who).cursor = from,
            Effect::Turned { settle, .. } => {
                let before = self.w.hub.source.acked.len();
                self.hub().source.acked.union(&settle);
                return self.w.hub.source.acked.len() != before;
            }
        }
        true
    }

    /// A write goes to the disk; a mutant tells the node so before it is synced.
    fn write(&mut self, who: usize, write: Write, hasty: Mutant, queue: &mut VecDeque<Input>) {
        let told = self.setup.is(hasty);
        if told {
            queue.extend(told_by(&write));
        }
        self.bridge(who).unsynced.push_back((write, told));
    }

    /// An append leaves a node. Losing one is always allowed, so what would not tell anybody anything is lost here.
    fn send(&mut self, who: usize, record: &Record, expect: Option<LedgerSeq>) {
        let sender = self.sender(who, record);
        let entry = self.entry(record);
        let upkeep = self.setup.config.upkeep;
        let at_once = match &record.body {
            Body::Claim(_) => self.healing,
            Body::Checkpoint(_) => self.healing || upkeep == Upkeep::Quick,
            Body::Close(_) | Body::Progress(_) | Body::Terms(_) => {
                let said = || {
                    self.w
                        .truth
                        .history
                        .values()
                        .any(|known| known.bytes == entry.bytes)
                };
                if !self.healing && (upkeep <= Upkeep::Finish || said()) {
                    return;
                }
                self.healing || upkeep == Upkeep::Quick
            }
            Body::Genesis(_) | Body::Epoch(_) | Body::Handoff(_) => true,
        };
        if at_once {
            let at = self.land(entry, expect);
            self.confirm(sender, at);
        } else {
            self.hub().flights.insert(Flight {
                entry,
                expect,
                orphan: None,
                sender,
            });
        }
    }

    /// Who is to hear where a record lands: only where the hub may lose what was read, and where records say what that was.
    fn sender(&self, who: usize, record: &Record) -> Option<Sender> {
        let config = &self.setup.config;
        (config.lazy_hub && config.witnesses).then(|| Sender {
            who,
            life: self.w.bridges[who].starts,
            read: record.witness.position,
        })
    }

    /// The hub confirms where a record landed. Behind what its sender had read that means nothing to it, so that this is
    /// forgotten; otherwise it may hear of it at any time of that life, or never.
    pub(crate) fn confirm(&mut self, sender: Option<Sender>, at: Option<LedgerSeq>) {
        let Some((sender, at)) = sender.zip(at) else {
            return;
        };
        let bridge = &self.w.bridges[sender.who];
        if at <= sender.read && bridge.starts == sender.life && bridge.is_well() {
            self.bridge(sender.who).early.insert((at, sender.read));
        }
    }

    /// A node sends the checkpoint of its present state, in as many parts as the configuration says.
    pub(crate) fn write_checkpoint(&mut self, who: usize) {
        let Some(node) = self.w.bridges[who].node() else {
            return;
        };
        let through = (node.fold().position(), Vec::new());
        let mut records = Vec::new();
        for record in fanin_core::checkpoint::write(node.fold()).unwrap_or_default() {
            let Body::Checkpoint(whole) = record.body else {
                continue;
            };
            let parts = self.setup.config.parts;
            let length = whole.bytes.len().div_ceil(parts as usize);
            for (part, bytes) in (0..parts).zip(whole.bytes.chunks(length)) {
                let body = Body::Checkpoint(CheckpointPart {
                    part,
                    parts,
                    bytes: bytes.to_vec(),
                    ..whole.clone()
                });
                records.push(Record {
                    witness: record.witness,
                    body,
                });
            }
        }
        for record in &records {
            self.send(who, record, None);
        }
        if self.setup.is(Mutant::PurgesAtDecision) {
            self.hub().purges.insert(through);
        }
    }

    /// The disk syncs its oldest write. Returns what the node hears of it.
    pub(crate) fn sync_one(&mut self, who: usize) -> Option<Input> {
        let (write, told) = self.bridge(who).unsynced.pop_front()?;
        self.apply(who, &write);
        if told { None } else { told_by(&write) }
    }

    fn apply(&mut self, who: usize, write: &Write) {
        if let Err(text) = self.bridge(who).disk.apply(write) {
            return self.fail(Invariant::Consistent, format!("{}: {text}", NAMES[who]));
        }
        if let Write::Resolve(batch, resolution) = write {
            self.publish(who, *batch, resolution);
        }
    }

    /// What was won becomes visible to the applications of its terms.
    fn publish(&mut self, who: usize, batch: BatchNo, resolution: &Resolution) {
        let bridge = Arc::clone(&self.w.bridges[who]);
        let key = ClaimKey {
            node: bridge.uuid,
            batch,
        };
        let incarnation = bridge.disk.batches.get(&batch).map(|kept| kept.incarnation);
        // Who read what the hub lost publishes by a history that is no more: the hub's broken promise, not judged.
        let judged = self.setup.config.faults.power_losses == 0 || self.knows_truth(who);
        let Some(terms) = self
            .w
            .truth
            .terms
            .get(&resolution.terms)
            .filter(|_| judged)
            .cloned()
        else {
            return;
        };
        for seq in resolution.won.iter() {
            for app in terms.served(resolution.terms) {
                let at = (app.to_owned(), incarnation.unwrap_or_default(), seq);
                let bodies = Arc::make_mut(&mut self.w.published).entry(at).or_default();
                bodies.push((who, key));
                // Two bodies that share what a disk held when it was copied: only an operator can prevent that.
                let copied = self.w.bridges.iter().find_map(|bridge| bridge.copied.as_ref());
                let shared = |(_, other): &(usize, ClaimKey)| {
                    *other == key && copied.is_some_and(|copied| copied.contains(batch.0))
                };
                if bodies.len() > 1 && !bodies.iter().all(shared) {
                    let text = format!("message {seq} is visible to {app} by {bodies:?}");
                    self.fail(Invariant::Once, text);
                }
            }
        }
    }

    /// A node settles what it only saw somewhere; only mutants do.
    pub(crate) fn settle_others(
        &mut self,
        who: usize,
        incarnation: Incarnation,
        seqs: &fanin_core::seq_set::SeqSet,
    ) {
        for seq in seqs.iter() {
            self.guard_settle(who, incarnation, seq);
        }
        self.hub().source.acked.union(seqs);
    }

    /// The tail delivers one record. `None` when there is none; otherwise whether anything came of it.
    pub(crate) fn tail_one(&mut self, who: usize) -> Option<bool> {
        let bridge = &self.w.bridges[who];
        bridge.node()?;
        let (&position, entry) = self.w.hub.entries.range(bridge.cursor..).next()?;
        let entry = entry.clone();
        self.bridge(who).cursor = position.next();
        let input = Input::Record {
            position,
            subject: entry.subject.to_string(),
            bytes: entry.bytes.to_vec(),
        };
        let mut matters = self.step(who, input);
        self.guard_history(who, position, &entry);
        if self.setup.is(Mutant::SettlesVoidClaims) {
            matters |= self.settle_void(who, &entry);
        }
        Some(matters)
    }

    fn settle_void(&mut self, who: usize, entry: &Entry) -> bool {
        let uuid = self.w.bridges[who].uuid;
        match Record::decode(&entry.bytes) {
            Ok(Record {
                body: Body::Claim(claim),
                ..
            }) if claim.node_uuid != uuid => {
                self.settle_others(who, claim.incarnation, &claim.seqs);
                true
            }
            Ok(_) | Err(_) => false,
        }
    }

    /// Every visible batch of a node that its applications have not finished.
    pub(crate) fn visible(&self, who: usize) -> Vec<BatchNo> {
        let Some(node) = self.w.bridges[who].node() else {
            return Vec::new();
        };
        let visible = |state: &BatchState| matches!(state, BatchState::Published { .. });
        let batches = node.batches().iter().filter(|(_, batch)| visible(&batch.state));
        batches.map(|(&number, _)| number).collect()
    }
}

/// What a node hears of a synced write.
fn told_by(write: &Write) -> Option<Input> {
    match write {
        Write::Stage(batch, _) => Some(Input::Staged(*batch)),
        Write::Resolve(batch, _) => Some(Input::Resolved(*batch)),
        Write::Done(_) => Some(Input::DonePersisted),
        Write::Release(_) => None,
    }
}
