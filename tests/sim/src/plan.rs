//! What one run may do, drawn from its seed before anything else. A plan is data: shrinking takes parts of it away.

use std::collections::BTreeMap;
use std::fmt;

use crate::dice::Dice;
use crate::faults::{Fault, Timing};

/// Which promises are kept, and so what is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The hub is honest; nodes, disks, networks and applications fail. Exactly once.
    Honest,
    /// The hub does everything that its promises leave open. Exactly once.
    Malicious,
    /// The hub confirms before it syncs, and loses power. Nothing is lost; what comes twice is told.
    Lazy,
    /// The hub breaks its promises. Nothing is wrong in silence.
    Broken,
    /// Disks are copied. Nothing is wrong in silence.
    Identity,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 5] = [
        Kind::Honest,
        Kind::Malicious,
        Kind::Lazy,
        Kind::Broken,
        Kind::Identity,
    ];

    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Kind::Honest => "honest",
            Kind::Malicious => "malicious",
            Kind::Lazy => "lazy",
            Kind::Broken => "broken",
            Kind::Identity => "identity",
        }
    }

    /// The kind of a word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.word() == word)
    }

    /// Whether each message must reach each application once, and everything come to rest.
    #[must_use]
    pub fn is_exact(self) -> bool {
        matches!(self, Kind::Honest | Kind::Malicious)
    }
}

/// What a run may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Which promises are kept.
    pub kind: Kind,
    /// Nodes.
    pub nodes: u64,
    /// Applications, each on every node.
    pub apps: u64,
    /// Instances of each application on each node.
    pub instances: u64,
    /// Messages published.
    pub messages: u64,
    /// Simulated seconds in which things go wrong.
    pub seconds: u64,
    /// Most messages in a batch.
    pub batch: u64,
    /// Most messages a node holds unsettled.
    pub in_flight: u64,
    /// Seconds after which the hub delivers again.
    pub ack_wait_s: u64,
    /// Seconds of an application's lease.
    pub lease_s: u64,
    /// Attempts until a message is a dead letter.
    pub attempts: u64,
    /// Ledger records between two checkpoints.
    pub checkpoint: u64,
    /// Milliseconds after which a claim counts as surviving a power loss; 0: at once.
    pub stable_ms: u64,
    /// Whether the source holds messages the mapping does not want.
    pub filtered: bool,
    /// Whether nodes pull only while every application is connected.
    pub gated: bool,
    /// How often each fault happens: per ten thousand operations, or per simulated hour.
    pub rates: BTreeMap<Fault, u64>,
}

impl Plan {
    /// How often a fault happens.
    #[must_use]
    pub fn rate(&self, fault: Fault) -> u64 {
        self.rates.get(&fault).copied().unwrap_or(0)
    }

    /// The plan of a seed; its kind follows from the seed unless one is asked for.
    #[must_use]
    pub fn draw(seed: u64, kind: Option<Kind>) -> Plan {
        let dice = Dice::of(seed, 0x91a9);
        let drawn = match dice.below(12) {
            0..=3 => Kind::Honest,
            4..=8 => Kind::Malicious,
            9 => Kind::Lazy,
            10 => Kind::Broken,
            _ => Kind::Identity,
        };
        let kind = kind.unwrap_or(drawn);
        // Few long runs with thousands of messages, many short ones.
        let messages = match dice.below(12) {
            0 => dice.between(4_000, 9_000),
            1..=6 => dice.between(1_000, 3_400),
            _ => dice.between(20, 1_500),
        };
        let mut plan = Plan {
            kind,
            nodes: dice.between(1, 4),
            apps: dice.between(1, 3),
            instances: dice.between(1, 2),
            messages,
            seconds: dice.between(60, 600),
            batch: *dice.pick(&[1, 4, 16, 64, 256]).unwrap_or(&16),
            in_flight: dice.between(16, 512),
            ack_wait_s: dice.between(5, 30),
            lease_s: dice.between(2, 20),
            attempts: if dice.one_in(3) { dice.between(2, 6) } else { 1_000 },
            checkpoint: *dice.pick(&[5, 20, 60, 200]).unwrap_or(&60),
            stable_ms: if dice.one_in(3) {
                dice.between(1_000, 20_000)
            } else {
                0
            },
            filtered: dice.one_in(3),
            gated: dice.one_in(3),
            rates: BTreeMap::new(),
        };
        plan.batch = plan.batch.max(messages / 400);
        for fault in Fault::ALL {
            if let Some((often, rare)) = usual(*fault, kind) {
                // Swarm: each run has some kinds often, some rarely, some never.
                let rate = match dice.below(4) {
                    0 => 0,
                    1 => rare,
                    2 => dice.between(rare, often),
                    _ => often,
                };
                if rate > 0 {
                    plan.rates.insert(*fault, rate);
                }
            }
        }
        match kind {
            Kind::Identity => plan.nodes = plan.nodes.max(2),
            Kind::Lazy => plan.stable_ms = plan.stable_ms.max(1_000),
            Kind::Honest | Kind::Malicious | Kind::Broken => {}
        }
        plan
    }
}

/// The highest and the lowest rate of a fault in plans of a kind; `None`: not in these plans.
pub(crate) fn usual(fault: Fault, kind: Kind) -> Option<(u64, u64)> {
    use Fault::*;
    let hub_is_malicious = kind != Kind::Honest;
    Some(match fault {
        RequestLost | ReplyLost => (300, 20),
        RequestLate => (300, 20),
        RequestSlow => (1_000, 50),
        NoResponders if hub_is_malicious => (300, 20),
        OldLeader if hub_is_malicious => (60, 6),
        Partition | OneWayOut | OneWayIn => (60, 6),
        LeaderChange => (40, 6),
        AppendTwice if hub_is_malicious => (500, 50),
        DedupeForgets if hub_is_malicious => (60, 10),
        InFlight if hub_is_malicious => (500, 50),
        LedgerFull => (30, 5),
        TailLag => (500, 20),
        Unreadable => (100, 5),
        TailRestart => (300, 20),
        StaleRead => (1_500, 100),
        DeliveryLost => (1_000, 100),
        DeliveryTwice if hub_is_malicious => (3_000, 300),
        DeliveryShuffled if hub_is_malicious => (5_000, 500),
        AckLost => (2_000, 200),
        AckLate => (1_500, 100),
        AckTwice if hub_is_malicious => (1_500, 100),
        AckStateLost if hub_is_malicious => (60, 10),
        FloorReset if hub_is_malicious => (20, 5),
        ResetForward if hub_is_malicious => (20, 5),
        MessagesSkipped if hub_is_malicious => (30, 5),
        ConsumerRecreated if hub_is_malicious => (20, 5),
        MessageDeleted if hub_is_malicious => (100, 10),
        OldestDiscarded if hub_is_malicious => (20, 5),
        SourcePurged if hub_is_malicious => (6, 2),
        Crash => (120, 10),
        CrashAtWrite | CrashAtAppend | CrashAtSettle => (100, 5),
        Stop => (40, 5),
        Stall => (40, 5),
        SlowSync => (500, 50),
        TornCrash => (8_000, 2_000),
        DiskFull | FileSystemFull => (20, 5),
        AppAdded if kind.is_exact() => (10, 4),
        AppMissing if kind.is_exact() => (20, 5),
        SyncFails => (20, 5),
        // Where the oracle looks for copies on the disks, the disks are whole.
        Damage if kind != Kind::Lazy => (5_000, 1_000),
        DamageRead if kind != Kind::Lazy => (500, 50),
        Retry => (1_000, 100),
        Reject => (50, 5),
        Release => (500, 50),
        AnswerLate | AnswerNever => (100, 5),
        AnswerSlow => (3_000, 300),
        AnswerTwice => (1_500, 100),
        InstanceDies | InstanceCloses => (100, 5),
        PowerLoss if kind == Kind::Lazy => (40, 8),
        LedgerRollback | LedgerRollbackUnseen if kind == Kind::Broken => (40, 10),
        LedgerSplit if kind == Kind::Broken => (30, 6),
        SourceRollback if kind == Kind::Broken => (20, 6),
        SourceRecreated | LedgerRecreated if kind == Kind::Broken => (10, 4),
        DiskRestored | DiskCloned if kind == Kind::Identity => (40, 10),
        AppendTwice | DedupeForgets | DeliveryTwice | DeliveryShuffled | AckTwice | AckStateLost
        | FloorReset | ResetForward | MessagesSkipped | ConsumerRecreated | MessageDeleted
        | OldestDiscarded | SourcePurged | NoResponders | OldLeader | InFlight | Damage | DamageRead
        | PowerLoss | LedgerRollback | LedgerRollbackUnseen | LedgerSplit | SourceRecreated
        | SourceRollback | LedgerRecreated | DiskRestored | DiskCloned | AppAdded | AppMissing => {
            return None;
        }
    })
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "plan {}: {} nodes, {} applications x {} instances, {} messages, {} s; batch {}, in flight {}, ack wait {} s, \
             lease {} s, attempts {}, checkpoint every {}, stable after {} ms{}{}",
            self.kind.word(),
            self.nodes,
            self.apps,
            self.instances,
            self.messages,
            self.seconds,
            self.batch,
            self.in_flight,
            self.ack_wait_s,
            self.lease_s,
            self.attempts,
            self.checkpoint,
            self.stable_ms,
            if self.filtered { ", filtered" } else { "" },
            if self.gated { ", gated" } else { "" },
        )?;
        for (fault, rate) in &self.rates {
            let unit = match fault.timing() {
                Timing::Chance => "in 10 000",
                Timing::Hourly => "an hour",
            };
            writeln!(f, "  {} {rate} {unit}", fault.word())?;
        }
        Ok(())
    }
}
