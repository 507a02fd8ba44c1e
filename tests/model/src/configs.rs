//! The named configurations. Each is small enough to be explored completely, unless it says how far it goes; together they
//! hold every fault. What must not happen together to be seen is not put together.

pub use crate::configs_large::LARGE;
use crate::setup::{Config, Faults, Upkeep};

pub(crate) const NONE: Faults = Faults::NONE;
pub(crate) const PLAIN: Config = Config::PLAIN;

/// Two nodes, two messages, every overlap of what they stage, one crash at every step.
pub(crate) const CLAIMS: Config = Config {
    name: "claims",
    goal: "stage, claim, crash and recovery at every step, late flush, redelivery",
    faults: Faults { crashes: 1, ..NONE },
    late_claims: true,
    mirror: true,
    ..PLAIN
};

const CLAIMS_UNREDUCED: Config = Config {
    name: "claims-unreduced",
    goal: "claims, with every read of a tail a step of its own",
    unreduced: true,
    ..CLAIMS
};

const FOUR: Config = Config {
    name: "four",
    goal: "four messages, batches that overlap at one end, the other, or wholly, a crash",
    messages: 4,
    pulls: &[&[1, 2], &[2, 3], &[3, 4], &[1, 2, 3, 4]],
    live_every: 4,
    ..CLAIMS
};

const RESEND: Config = Config {
    name: "resend",
    goal: "claims sent again, repeated and flushed late, behind a crash",
    messages: 1,
    pulls: &[&[1]],
    faults: Faults {
        crashes: 1,
        ticks: 2,
        passes: 1,
        repeats: 1,
        ..NONE
    },
    late_claims: true,
    live_every: 8,
    ..PLAIN
};

const DISK: Config = Config {
    name: "disk",
    goal: "every write and its sync a step of its own, crash between them",
    messages: 2,
    pulls: &[&[1], &[1, 2]],
    faults: Faults {
        crashes: 1,
        ticks: 1,
        ..NONE
    },
    upkeep: Upkeep::Quick,
    fine_disk: true,
    keepers: &[0],
    live_every: 8,
    ..PLAIN
};

const RESTART: Config = Config {
    name: "restart",
    goal: "lives that begin and end at every step of P8, two batches each",
    messages: 2,
    pulls: &[&[1], &[2]],
    batches: 2,
    faults: Faults {
        crashes: 1,
        orphans: 1,
        ..NONE
    },
    upkeep: Upkeep::Finish,
    pullers: &[0],
    crashers: &[0],
    ..PLAIN
};

const COLD: Config = Config {
    name: "cold",
    goal: "first lives, interrupted twice",
    messages: 1,
    pulls: &[&[1]],
    faults: Faults {
        crashes: 1,
        orphans: 2,
        ..NONE
    },
    cold: true,
    live_every: 4,
    ..PLAIN
};

pub(crate) const CLOSE: Config = Config {
    name: "close",
    goal: "watermarks decided, delayed and overtaken, with a crash and lost acknowledgements",
    messages: 1,
    pulls: &[&[1]],
    faults: Faults {
        crashes: 1,
        ticks: 2,
        resets: 1,
        ..NONE
    },
    upkeep: Upkeep::Late,
    keepers: &[0],
    live_every: 8,
    ..PLAIN
};

pub(crate) const HOLES: Config = Config {
    name: "holes",
    goal: "messages passed over, gone, audited by a stale server, repaired",
    messages: 1,
    pulls: &[&[1]],
    faults: Faults {
        ticks: 4,
        skips: 1,
        losses: 1,
        stale_audits: 1,
        ..NONE
    },
    upkeep: Upkeep::Quick,
    keepers: &[0],
    ..PLAIN
};

pub(crate) const FILTERS: Config = Config {
    name: "filters",
    goal: "filters narrowed or widened while claims and watermarks are on their way",
    messages: 2,
    pulls: &[&[1], &[2]],
    faults: Faults {
        ticks: 3,
        terms: 1,
        ..NONE
    },
    upkeep: Upkeep::Late,
    odd: &[1],
    narrow: true,
    keepers: &[0],
    ..PLAIN
};

pub(crate) const CHECKPOINT: Config = Config {
    name: "checkpoint",
    goal: "a checkpoint, a purge, readers behind it, a crash",
    messages: 1,
    pulls: &[&[1]],
    faults: Faults {
        crashes: 1,
        ticks: 2,
        ..NONE
    },
    upkeep: Upkeep::Quick,
    checkpoints: 1,
    crashers: &[1],
    keepers: &[0],
    live_every: 16,
    ..PLAIN
};

pub(crate) const CHECKPOINTS: Config = Config {
    name: "checkpoints",
    goal: "two checkpoints landing in any order",
    messages: 1,
    pulls: &[&[1]],
    faults: Faults {
        crashes: 1,
        ticks: 1,
        ..NONE
    },
    upkeep: Upkeep::Late,
    checkpoints: 2,
    crashers: &[1],
    pullers: &[1],
    keepers: &[0],
    live_every: 16,
    ..PLAIN
};

const PARTS: Config = Config {
    name: "parts",
    goal: "a checkpoint in two parts, of which one may land late or never",
    checkpoints: 1,
    parts: 2,
    ..CHECKPOINTS
};

const APPS: Config = Config {
    name: "apps",
    goal: "an application enters while a node restarts without it",
    messages: 1,
    pulls: &[&[1]],
    faults: Faults {
        crashes: 1,
        ticks: 1,
        ..NONE
    },
    upkeep: Upkeep::Late,
    hosts: &["x", "y"],
    apps: &["x"],
    rehosts: &[&["x"]],
    live_every: 8,
    ..PLAIN
};

pub(crate) const LAZY: Config = Config {
    name: "lazy",
    goal: "a hub that confirms before it syncs loses power",
    messages: 1,
    pulls: &[&[1]],
    faults: Faults {
        crashes: 1,
        ticks: 1,
        passes: 1,
        power_losses: 1,
        ..NONE
    },
    upkeep: Upkeep::Quick,
    lazy_hub: true,
    witnesses: true,
    live_every: 0,
    crashers: &[1],
    keepers: &[0],
    ..PLAIN
};

/// Without witnesses, which would find the loss first.
const LAZY_UNWITNESSED: Config = Config {
    name: "lazy-unwitnessed",
    goal: "the same hub where records carry no witness: what the disk published must stand in the ledger",
    witnesses: false,
    ..LAZY
};

const LAZY_PURGE: Config = Config {
    name: "lazy-purge",
    goal: "checkpoints and purges on a hub that loses power before it syncs",
    messages: 1,
    pulls: &[&[1]],
    faults: Faults {
        ticks: 2,
        passes: 1,
        power_losses: 1,
        ..NONE
    },
    upkeep: Upkeep::Quick,
    checkpoints: 1,
    pullers: &[1],
    keepers: &[0],
    lazy_hub: true,
    witnesses: true,
    live_every: 0,
    ..PLAIN
};

pub(crate) const COPY: Config = Config {
    name: "copy",
    goal: "a disk copied at every step, both bodies running",
    messages: 2,
    pulls: &[&[1], &[2]],
    faults: Faults {
        crashes: 1,
        copies: 1,
        ..NONE
    },
    crashers: &[0],
    live_every: 0,
    ..PLAIN
};

const FOUR_COPY: Config = Config {
    name: "four-copy",
    goal: "copy, with four messages in batches that overlap",
    messages: 4,
    pulls: &[&[1, 2], &[2, 3, 4]],
    ..COPY
};

const FOUR_CLOSE: Config = Config {
    name: "four-close",
    goal: "close without a crash, with four messages in batches of two, records landing at once",
    messages: 4,
    pulls: &[&[1, 2], &[3, 4]],
    faults: Faults {
        crashes: 0,
        ..CLOSE.faults
    },
    upkeep: Upkeep::Quick,
    live_every: 16,
    ..CLOSE
};

const EVACUATION: Config = Config {
    name: "evacuation",
    goal: "a node evacuated at every step",
    messages: 2,
    pulls: &[&[1], &[1, 2]],
    faults: Faults {
        evacuations: 1,
        ..NONE
    },
    live_every: 0,
    ..PLAIN
};

const STRANGER: Config = Config {
    name: "stranger",
    goal: "a record of a later version",
    messages: 1,
    pulls: &[&[1]],
    faults: Faults {
        crashes: 1,
        strangers: 1,
        ..NONE
    },
    live_every: 0,
    ..PLAIN
};

const RECREATED: Config = Config {
    name: "recreated",
    goal: "a source deleted and created again",
    messages: 1,
    pulls: &[&[1]],
    faults: Faults {
        crashes: 1,
        recreations: 1,
        ..NONE
    },
    live_every: 0,
    ..PLAIN
};

pub(crate) const REUSED: Config = Config {
    name: "reused",
    goal: "a source restored to an earlier copy, with or without its consumer, that gives sequences away again",
    messages: 2,
    pulls: &[&[1], &[2]],
    faults: Faults {
        ticks: 1,
        rollbacks: 1,
        ..NONE
    },
    upkeep: Upkeep::Quick,
    keepers: &[0],
    live_every: 8,
    ..PLAIN
};

pub(crate) const CLAIMS_FOUR: Config = Config {
    name: "claims-four",
    goal: "four, with two batches a node",
    batches: 2,
    late_claims: false,
    live_every: 32,
    ..FOUR
};

/// What the ordinary tests explore.
pub const CI: &[Config] = &[
    CLAIMS,
    CLAIMS_UNREDUCED,
    FOUR,
    RESEND,
    DISK,
    RESTART,
    COLD,
    CLOSE,
    HOLES,
    FILTERS,
    CHECKPOINT,
    CHECKPOINTS,
    PARTS,
    APPS,
    LAZY,
    LAZY_UNWITNESSED,
    LAZY_PURGE,
    COPY,
    FOUR_COPY,
    FOUR_CLOSE,
    EVACUATION,
    STRANGER,
    RECREATED,
    REUSED,
];

/// The configuration of a name.
#[must_use]
pub fn named(name: &str) -> Option<Config> {
    CI.iter().chain(LARGE).find(|config| config.name == name).copied()
}
