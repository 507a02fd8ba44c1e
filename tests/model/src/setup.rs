//! What a run explores: the size of the cluster, the faults it may suffer, and which steps are told apart.

use crate::mutants::Mutant;
use crate::properties::Invariant;

/// How often each fault may happen, and how often nodes look at what is due, all nodes together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Faults {
    /// A process dies; what its disk has not synced is lost, what it sent is still on its way.
    pub crashes: u8,
    /// A process dies between sending its EPOCH and hearing of it; the record lands at any time or never.
    pub orphans: u8,
    /// Looks at what is due that lead to anything.
    pub ticks: u8,
    /// Time passes: what was sent is due again, and on a lazy hub what landed before is stable.
    pub passes: u8,
    /// An append lands and stays on its way: it lands once more, behind the dedupe window.
    pub repeats: u8,
    /// The consumer passes over a message, or a stale acknowledgement of nobody's removes it from the hub's list.
    pub skips: u8,
    /// All acknowledgements are lost: the floor is 0 again.
    pub resets: u8,
    /// Retention or an operator takes a message.
    pub losses: u8,
    /// A server that is not the leader any more answers an audit: nothing is there.
    pub stale_audits: u8,
    /// A disk is copied, to be started elsewhere.
    pub copies: u8,
    /// The operator changes the filters.
    pub terms: u8,
    /// The hub loses the records of the ledger that are not stable.
    pub power_losses: u8,
    /// A record of a later version lands.
    pub strangers: u8,
    /// An operator evacuates a node.
    pub evacuations: u8,
    /// The source is deleted and created again.
    pub recreations: u8,
    /// The source goes back to an earlier copy, and perhaps gives what it has lost to new messages.
    pub rollbacks: u8,
}

/// What the nodes do besides claiming: terms, PROGRESS, CLOSE, checkpoints, purges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Upkeep {
    /// Nothing.
    #[default]
    Off,
    /// Applications finish batches; nothing is reported.
    Finish,
    /// Its records land at once.
    Quick,
    /// Its records land at any time or never.
    Late,
}

/// Every body.
const ALL: &[usize] = &[0, 1, 2];

/// One configuration.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is for.
    pub goal: &'static str,
    /// Messages of the source.
    pub messages: u64,
    /// What one pull may bring.
    pub pulls: &'static [&'static [u64]],
    /// The bodies that are delivered messages.
    pub pullers: &'static [usize],
    /// The bodies that do upkeep and write checkpoints.
    pub keepers: &'static [usize],
    /// The bodies that crash.
    pub crashers: &'static [usize],
    /// Batches each body may stage.
    pub batches: u8,
    /// Faults.
    pub faults: Faults,
    /// Upkeep.
    pub upkeep: Upkeep,
    /// Checkpoints that nodes may write, all together.
    pub checkpoints: u8,
    /// Parts of a checkpoint.
    pub parts: u32,
    /// Every write and its sync are steps of their own; otherwise a write is synced at once.
    pub fine_disk: bool,
    /// The hub confirms before it syncs.
    pub lazy_hub: bool,
    /// Records carry witnesses (P11). Only where the ledger can be damaged: otherwise they would only tell states apart.
    pub witnesses: bool,
    /// Claims of lives that are over land late. Elsewhere they are lost when the next life begins, which is always allowed.
    pub late_claims: bool,
    /// Every read of a tail is a step of its own: without the reduction that `actions` describes, to check it.
    pub unreduced: bool,
    /// No node is up at the beginning, and the ledger holds no epochs.
    pub cold: bool,
    /// The first batch is node A's. For configurations in which the nodes are alike: the others are these with the names
    /// changed.
    pub mirror: bool,
    /// Applications hosted at the beginning; the terms name `apps` of them, or all.
    pub hosts: &'static [&'static str],
    /// The app set of the first terms.
    pub apps: &'static [&'static str],
    /// What a restarted node may host instead.
    pub rehosts: &'static [&'static [&'static str]],
    /// Messages with the other subject.
    pub odd: &'static [u64],
    /// The first terms and the nodes take only subject `s`.
    pub narrow: bool,
    /// Liveness is checked in every state whose identity is divisible by this; 0: in none.
    pub live_every: u64,
    /// How many states a bounded run visits; `None` explores all.
    pub states_max: Option<usize>,
}

impl Config {
    /// The plainest: two nodes, one message each way, nothing goes wrong.
    pub const PLAIN: Config = Config {
        name: "plain",
        goal: "",
        messages: 2,
        pulls: &[&[1], &[2], &[1, 2]],
        pullers: ALL,
        keepers: ALL,
        crashers: ALL,
        batches: 1,
        faults: Faults::NONE,
        upkeep: Upkeep::Off,
        checkpoints: 0,
        parts: 1,
        fine_disk: false,
        lazy_hub: false,
        witnesses: false,
        late_claims: false,
        unreduced: false,
        cold: false,
        mirror: false,
        hosts: &["x"],
        apps: &["x"],
        rehosts: &[],
        odd: &[],
        narrow: false,
        live_every: 1,
        states_max: None,
    };

    /// Whether two bodies may use one identity: then liveness is the operator's business, and so are some duplicates.
    #[must_use]
    pub fn has_copies(&self) -> bool {
        self.faults.copies > 0
    }

    /// Whether the hub keeps what it promises, operators do nothing, and nobody may stop therefore.
    #[must_use]
    pub fn is_kind(&self) -> bool {
        let faults = &self.faults;
        let stops = faults.copies
            + faults.power_losses
            + faults.strangers
            + faults.evacuations
            + faults.recreations
            + faults.rollbacks;
        stops == 0
    }
}

impl Faults {
    /// None at all.
    pub const NONE: Faults = Faults {
        crashes: 0,
        orphans: 0,
        ticks: 0,
        passes: 0,
        repeats: 0,
        skips: 0,
        resets: 0,
        losses: 0,
        stale_audits: 0,
        copies: 0,
        terms: 0,
        power_losses: 0,
        strangers: 0,
        evacuations: 0,
        recreations: 0,
        rollbacks: 0,
    };
}

/// A configuration with a mutant, if any.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// What is explored.
    pub config: Config,
    /// The rule that is switched off.
    pub mutant: Option<Mutant>,
    /// Invariants that are not judged, to see what follows when they are broken.
    pub blind: &'static [Invariant],
}

impl Setup {
    pub(crate) fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }
}
