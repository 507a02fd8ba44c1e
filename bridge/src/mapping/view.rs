//! What status, readiness and metrics see of a mapping. The driver writes it, everybody else reads it.

use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::time::Instant;

use fanin_core::hash::Hash128;
use fanin_core::ids::Incarnation;
use fanin_proto::v1::{MappingStatus, SourceStatus};
use parking_lot::Mutex;
use tokio::sync::watch;

/// Where a mapping stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// The hub's side is being looked at.
    #[default]
    Starting,
    /// The own EPOCH was appended; the tail has not reached it.
    Joining,
    /// Everything works.
    Active,
    /// An application of the app set is not connected here: nothing is pulled.
    Gated,
    /// The local log is full: nothing is pulled.
    Full,
    /// Nothing is pulled for another reason, which `reason` tells.
    Withheld,
    /// The ledger or a source cannot be trusted. A node that had joined delivers what it has published; one that had not delivers nothing.
    Halted,
    /// Another body acts as this node: nothing is delivered.
    Fenced,
    /// The local log has lost what cannot be had again: nothing is done, so that nothing is done twice.
    Damaged,
    /// The process is ending.
    Stopping,
}

impl State {
    /// The word that status shows.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Joining => "joining",
            State::Active => "active",
            State::Gated => "gated",
            State::Full => "full",
            State::Withheld => "withheld",
            State::Halted => "halted",
            State::Fenced => "fenced",
            State::Damaged => "damaged",
            State::Stopping => "stopping",
        }
    }

    /// Whether this state lets a node that has joined deliver; whether it has joined, delivery tells.
    #[must_use]
    pub fn delivers(self) -> bool {
        match self {
            State::Active | State::Gated | State::Full | State::Withheld | State::Halted => true,
            State::Starting | State::Joining | State::Fenced | State::Damaged | State::Stopping => false,
        }
    }
}

/// Counters over the process's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages this node's claims won.
    pub won: u64,
    /// Messages another claim had won first.
    pub lost: u64,
    /// Staged messages the source gave up before anyone owned them.
    pub tombstoned: u64,
    /// Messages the hub had skipped, fetched by sequence.
    pub repaired: u64,
    /// Messages no node could take in as the hub delivers them, fetched by sequence.
    pub unreadable: u64,
}

/// A mapping as of the driver's last look.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Where it stands.
    pub state: State,
    /// Why, with its code, when it is not simply active.
    pub reason: String,
    /// The delivery that hub and sources allow, and why; empty before the node has joined.
    pub delivery: String,
    /// The own epoch.
    pub epoch: u64,
    /// The last ledger record folded.
    pub position: u64,
    /// The hash of the state there: equal on every node that has read as far.
    pub hash: Hash128,
    /// Ledger records known and not folded.
    pub lag: u64,
    /// The terms in force.
    pub terms: u32,
    /// Batches staged and not published.
    pub staged: u64,
    /// Batches whose claim is not decided.
    pub unresolved: u64,
    /// Batches some application has not finished.
    pub open: u64,
    /// The offset of the next message.
    pub head: u64,
    /// Valid claims of all nodes that are not done or reach above W.
    pub open_claims: u64,
    /// Counters.
    pub counts: Counts,
    /// Sources.
    pub sources: BTreeMap<Incarnation, SourceView>,
}

/// A source as of the last look.
#[derive(Clone, Debug, Default)]
pub struct SourceView {
    /// The stream.
    pub stream: String,
    /// The watermark W.
    pub closed: u64,
    /// Messages the hub has not delivered to anybody.
    pub pending: u64,
    /// Messages delivered and not settled, over all nodes.
    pub ack_pending: u64,
    /// Where the stream ended when it was looked at last; 0 before the first look.
    pub last: u64,
}

/// A shared view.
#[derive(Clone, Debug)]
pub struct Shared {
    view: Arc<Mutex<View>>,
    moved: Arc<Mutex<Instant>>,
    delivers: Arc<watch::Sender<bool>>,
}

impl Default for Shared {
    fn default() -> Self {
        Shared {
            view: Arc::default(),
            moved: Arc::new(Mutex::new(Instant::now())),
            delivers: Arc::new(watch::Sender::new(false)),
        }
    }
}

impl Shared {
    /// A copy of the view.
    #[must_use]
    pub fn get(&self) -> View {
        self.view.lock().clone()
    }

    /// Changes the view.
    pub fn update(&self, change: impl FnOnce(&mut View)) {
        let delivers = {
            let mut view = self.view.lock();
            change(&mut view);
            view.delivers()
        };
        self.delivers
            .send_if_modified(|now| std::mem::replace(now, delivers) != delivers);
        *self.moved.lock() = Instant::now();
    }

    /// Follows whether the mapping delivers.
    #[must_use]
    pub fn delivers(&self) -> watch::Receiver<bool> {
        self.delivers.subscribe()
    }

    /// Notes that the mapping's loop is alive.
    pub fn beat(&self) {
        *self.moved.lock() = Instant::now();
    }

    /// When the mapping's loop moved last.
    #[must_use]
    pub fn moved(&self) -> Instant {
        *self.moved.lock()
    }
}

impl View {
    /// Whether messages are handed to applications: the node has joined in this life, and its state lets it.
    #[must_use]
    pub fn delivers(&self) -> bool {
        self.state.delivers() && !self.delivery.is_empty()
    }

    /// The code its reason begins with; empty where there is none.
    #[must_use]
    pub fn code(&self) -> &str {
        code_of(&self.reason)
    }

    /// The wire form, without the applications.
    #[must_use]
    pub fn to_status(&self, name: &str, topic: &str) -> MappingStatus {
        let sources = self.sources.iter().map(|(incarnation, source)| SourceStatus {
            stream: source.stream.clone(),
            incarnation: incarnation.0,
            closed_through: source.closed,
            pending: source.pending,
            ack_pending: source.ack_pending,
            last_seq: source.last,
        });
        MappingStatus {
            name: name.to_owned(),
            topic: topic.to_owned(),
            state: self.state.word().to_owned(),
            reason: self.reason.clone(),
            delivery: self.delivery.clone(),
            epoch: self.epoch,
            ledger_position: self.position,
            ledger_lag: self.lag,
            terms_version: self.terms,
            sources: sources.collect(),
            apps: Vec::new(),
            staged_batches: self.staged,
            unresolved_batches: self.unresolved,
            open_batches: self.open,
            head_offset: self.head,
            won_messages: self.counts.won,
            lost_messages: self.counts.lost,
            tombstoned_messages: self.counts.tombstoned,
            repaired_messages: self.counts.repaired,
            unreadable_messages: self.counts.unreadable,
            open_claims: self.open_claims,
        }
    }
}

/// The code a reason begins with; what follows may change with every look.
#[must_use]
pub fn code_of(reason: &str) -> &str {
    reason.split(':').next().unwrap_or_default()
}
