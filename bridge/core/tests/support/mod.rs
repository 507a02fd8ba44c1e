//! A cluster in memory, driven step by step: real nodes, a hub at its worst, disks that forget what was not synced.
//!
//! A test says which message, append, sync and tail step happens when. After every step the invariants of the design
//! (section 9) are checked against `Truth`, which folds every record that ever landed.
#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "test support: a panic is the failure"
)]

mod disk;
mod guard;
mod hub;
mod steps;
mod truth;

use std::collections::{BTreeMap, BTreeSet};

use fanin_core::effect::{Effect, Fact};
use fanin_core::hash::Hash128;
use fanin_core::ids::{
    Attempt, BatchNo, Incarnation, LedgerSeq, NodeUuid, Nonce, StreamSeq, TermsVersion, Tick,
};
use fanin_core::input::Input;
use fanin_core::node::{Node, Phase, Policy, Stability};
use fanin_core::record::{Body as RecordBody, Genesis, Record, SourceTerms, Terms, Witness};

pub(crate) use disk::Disk;
pub(crate) use hub::{INC, Ledger, Source};
pub(crate) use truth::{Published, Truth};

/// The nodes of a test, by index.
pub(crate) const A: usize = 0;
pub(crate) const B: usize = 1;
pub(crate) const C: usize = 2;

/// Short times, so that a test passes them with a few ticks.
pub(crate) const POLICY: Policy = Policy {
    stability: Stability::SyncAlways,
    accept_terms: false,
    resend_ms: 500,
    progress_ms: 100,
    close_ms: 100,
    audit_ms: 1_000,
    stuck_ms: 1_500,
    takeover_ms: 300,
    checkpoint_records: 1_000_000,
};

/// An append on its way to the hub. It outlives the process that sent it (a client's buffer is flushed late).
#[derive(Clone, Debug)]
pub(crate) struct Flight {
    pub(crate) from: usize,
    life: u64,
    pub(crate) record: Record,
    expect: Option<LedgerSeq>,
    pub(crate) claim: Option<(BatchNo, Attempt)>,
}

/// One bridge process with its disk; `node` is `None` while it is down.
#[derive(Clone, Debug)]
pub(crate) struct Bridge {
    pub(crate) uuid: NodeUuid,
    pub(crate) name: String,
    pub(crate) hosts: BTreeSet<String>,
    pub(crate) sources: BTreeMap<Incarnation, SourceTerms>,
    pub(crate) policy: Policy,
    pub(crate) node: Option<Node>,
    pub(crate) disk: Disk,
    /// The next ledger position to read; `None` before the first `Effect::Tail`.
    pub(crate) cursor: Option<LedgerSeq>,
    life: u64,
    pub(crate) audits: Vec<(TermsVersion, StreamSeq)>,
    pub(crate) repairs: Vec<StreamSeq>,
    pub(crate) purges: Vec<(LedgerSeq, Vec<(String, LedgerSeq)>)>,
    pub(crate) loads: usize,
    /// A checkpoint was asked for, and `auto_load` is off.
    pub(crate) wants_load: bool,
    pub(crate) facts: Vec<Fact>,
    /// Messages handed back to the hub with a delay, and messages settled, in order.
    pub(crate) delayed: Vec<(u64, u64)>,
    pub(crate) settled: Vec<u64>,
    /// Whether its applications are there, so that it pulls.
    pub(crate) pulling: bool,
    checked: LedgerSeq,
    /// It read records that the hub then lost: it has no truth to be compared with.
    pub(crate) astray: bool,
}

/// The cluster.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) now: Tick,
    pub(crate) ledger: Ledger,
    pub(crate) source: Source,
    pub(crate) truth: Truth,
    pub(crate) bridges: Vec<Bridge>,
    pub(crate) flights: Vec<Flight>,
    pub(crate) published: Published,
    /// Checkpoints are read as soon as a node asks; otherwise the test calls `load`.
    pub(crate) auto_load: bool,
    /// Two bodies of one identity may publish twice: for tests of what only an operator can prevent.
    pub(crate) allow_duplicates: bool,
    tickets: u64,
    nonces: u64,
}

pub(crate) fn names(apps: &[&str]) -> BTreeSet<String> {
    apps.iter().map(|&app| app.to_owned()).collect()
}

pub(crate) fn source_terms(filters: &[&str]) -> SourceTerms {
    SourceTerms {
        stream: "S".to_owned(),
        filters: filters.iter().map(|&f| f.to_owned()).collect(),
    }
}

/// A record as its subject and bytes, without a witness.
pub(crate) fn record(body: RecordBody) -> Record {
    Record {
        witness: Witness::default(),
        body,
    }
}

impl World {
    /// `nodes` nodes that host every application of `apps`, a ledger with GENESIS and TERMS 1, and `messages` messages.
    pub(crate) fn new(nodes: usize, apps: &[&str], messages: u64) -> World {
        let mut world = World {
            now: Tick(1_000),
            ledger: Ledger::default(),
            source: Source::default(),
            truth: Truth::default(),
            bridges: Vec::new(),
            flights: Vec::new(),
            published: Published::new(),
            auto_load: true,
            allow_duplicates: false,
            tickets: 0,
            nonces: 0,
        };
        world.source.publish(messages, "s");
        world.put(RecordBody::Genesis(Genesis {
            rules: 1,
            features: BTreeSet::new(),
        }));
        world.terms(apps, &[]);
        for node in 0..nodes {
            let uuid = NodeUuid(node as u128 + 1);
            world.bridges.push(Bridge {
                uuid,
                name: format!("n{node}"),
                hosts: names(apps),
                sources: BTreeMap::from([(INC, source_terms(&[]))]),
                policy: POLICY,
                node: None,
                disk: Disk::default(),
                cursor: None,
                life: 0,
                audits: Vec::new(),
                repairs: Vec::new(),
                purges: Vec::new(),
                loads: 0,
                wants_load: false,
                facts: Vec::new(),
                delayed: Vec::new(),
                settled: Vec::new(),
                pulling: true,
                checked: LedgerSeq(0),
                astray: false,
            });
        }
        world
    }

    /// As `new`, with every node started.
    pub(crate) fn started(nodes: usize, messages: u64) -> World {
        let mut world = World::new(nodes, &["x"], messages);
        for who in 0..nodes {
            world.start(who);
        }
        world
    }

    /// Every node gets this policy at its next start.
    pub(crate) fn with_policy(mut self, policy: Policy) -> World {
        for bridge in &mut self.bridges {
            bridge.policy = policy;
        }
        self
    }

    /// Lands a record by hand, as an operator's tool or another program would. Returns its position.
    pub(crate) fn put(&mut self, body: RecordBody) -> LedgerSeq {
        self.put_record(&record(body))
    }

    /// As `put`, with a witness of the test's choice.
    pub(crate) fn put_record(&mut self, record: &Record) -> LedgerSeq {
        self.land_bytes(&record.subject(), &record.encode(), None)
            .expect("no condition")
    }

    /// Lands bytes on a subject; `None` when compare-and-set refuses.
    pub(crate) fn land_bytes(
        &mut self,
        subject: &str,
        bytes: &[u8],
        expect: Option<LedgerSeq>,
    ) -> Option<LedgerSeq> {
        let at = self.ledger.append(self.now, subject, bytes, expect)?;
        self.truth.take(self.now, at, subject, bytes, &self.source);
        Some(at)
    }

    /// The operator puts the next terms in force: app set and filters.
    pub(crate) fn terms(&mut self, apps: &[&str], filters: &[&str]) -> LedgerSeq {
        let current = self.truth.fold.terms();
        let version = TermsVersion(current.version.0 + 1);
        let since = |app: &str| current.apps.get(app).copied().unwrap_or(version);
        let terms = Terms {
            version,
            sources: BTreeMap::from([(INC, source_terms(filters))]),
            apps: apps.iter().map(|&app| (app.to_owned(), since(app))).collect(),
        };
        self.put(RecordBody::Terms(terms))
    }

    pub(crate) fn node(&self, who: usize) -> &Node {
        self.bridges[who].node.as_ref().expect("the node is up")
    }

    pub(crate) fn is_up(&self, who: usize) -> bool {
        self.bridges[who].node.is_some()
    }

    pub(crate) fn phase(&self, who: usize) -> &Phase {
        self.node(who).phase()
    }

    pub(crate) fn closed(&self) -> StreamSeq {
        self.truth.fold.closed(INC)
    }

    /// The hub's own hash of the state at a position, for witnesses.
    pub(crate) fn hash_at(&self, at: LedgerSeq) -> Hash128 {
        self.truth.fold.hash_at(at).expect("remembered")
    }

    /// Where a message was made visible to an application.
    pub(crate) fn publishers(&self, app: &str, seq: u64) -> Vec<usize> {
        let found = self.published.get(&(app.to_owned(), seq));
        found
            .into_iter()
            .flatten()
            .map(|publication| publication.body)
            .collect()
    }

    /// Every message of `seqs` was published exactly once to every application its claim serves.
    pub(crate) fn assert_once(&self, seqs: impl IntoIterator<Item = u64>) {
        for seq in seqs {
            let key = self
                .truth
                .owner_of
                .get(&(INC, seq))
                .unwrap_or_else(|| panic!("nobody owns message {seq}"));
            let terms = self.truth.decided[key].terms;
            for app in self.truth.terms[&terms].served(terms) {
                let at = self.publishers(app, seq);
                assert_eq!(
                    at.len(),
                    1,
                    "message {seq} was published to {app} at {at:?}, owner {key:?}"
                );
            }
        }
    }

    /// A body with a copy of another's disk and identity. It is down.
    pub(crate) fn copy_disk(&mut self, of: usize) -> usize {
        let mut copy = self.bridges[of].clone();
        copy.node = None;
        copy.cursor = None;
        copy.disk.unsynced.clear();
        copy.life += 1_000;
        self.bridges.push(copy);
        self.bridges.len() - 1
    }

    fn fresh_nonce(&mut self) -> Nonce {
        self.nonces += 1;
        Nonce(self.nonces)
    }

    /// Gives a node one input, does what it asks for, checks everything.
    pub(crate) fn step(&mut self, who: usize, input: Input) {
        let mut queue = std::collections::VecDeque::from([input]);
        while let Some(input) = queue.pop_front() {
            let now = self.now;
            let Some(node) = self.bridges[who].node.as_mut() else {
                return;
            };
            let before = node.phase().clone();
            let mut effects = Vec::new();
            node.handle(now, input, &mut effects);
            self.guard(who, &before, &effects);
            for effect in effects {
                self.perform(who, effect, &mut queue);
            }
            self.check(who);
        }
    }

    fn perform(&mut self, who: usize, effect: Effect, queue: &mut std::collections::VecDeque<Input>) {
        let checkpoint = self.ledger.checkpoint();
        let bridge = &mut self.bridges[who];
        match effect {
            Effect::Append {
                record,
                expect,
                claim,
            } => {
                let life = bridge.life;
                self.flights.push(Flight {
                    from: who,
                    life,
                    record: *record,
                    expect,
                    claim,
                });
            }
            Effect::Audit { terms, first, .. } => bridge.audits.push((terms, first)),
            Effect::Fact(fact) => bridge.facts.push(fact),
            Effect::FetchRepair { seq, .. } => bridge.repairs.push(seq),
            Effect::Fence(_) | Effect::Halt(_) | Effect::Joined(_) | Effect::TermsInForce(_) => {}
            Effect::LoadCheckpoint => {
                bridge.loads += 1;
                bridge.wants_load = !self.auto_load;
                if self.auto_load {
                    queue.push_back(Input::Checkpoint(checkpoint));
                }
            }
            Effect::PersistDone(done) => bridge.disk.unsynced.push_back(disk::Write::Done(done)),
            Effect::Purge { through, keep } => bridge.purges.push((through, keep)),
            Effect::Release(batch) => bridge.disk.unsynced.push_back(disk::Write::Release(batch)),
            Effect::Resolve {
                batch,
                terms,
                base,
                won,
                witness,
                ..
            } => {
                let resolution = disk::Resolution {
                    base,
                    won,
                    terms,
                    witness,
                };
                bridge
                    .disk
                    .unsynced
                    .push_back(disk::Write::Resolve(batch, resolution));
            }
            Effect::Settle { won: seqs, .. } | Effect::SettleBySeq { seqs, .. } => {
                self.source.acked.extend(seqs.iter());
                bridge.settled.extend(seqs.iter());
            }
            Effect::Stage {
                batch,
                incarnation,
                kind,
                seqs,
                ..
            } => {
                if bridge.disk.full {
                    queue.push_back(Input::StageRefused(batch));
                } else {
                    let kept = disk::Kept {
                        incarnation,
                        kind,
                        seqs,
                        resolution: None,
                        damaged: false,
                    };
                    bridge.disk.unsynced.push_back(disk::Write::Stage(batch, kept));
                }
            }
            Effect::Tail { from } => bridge.cursor = Some(from),
            Effect::Turned { settle, delay, .. } => {
                self.source.acked.extend(settle.iter());
                bridge.settled.extend(settle.iter());
                bridge.delayed.extend(delay.iter().map(|&(seq, ms)| (seq.0, ms)));
            }
        }
    }
}
