//! The named configurations. Each is small enough to be explored completely, unless it says how far it goes; together they
//! hold every fault. What must not happen together to be seen is not put together.

use crate::setup::{Config, Faults, Upkeep};

const NONE: Faults = Faults::NONE;
const PLAIN: Config = Config::PLAIN;

/// Two nodes, two messages, every overlap of what they stage, one crash at every step.
const CLAIMS: Config = Config {
    name: "claims",
    goal: "stage, claim, crash and recovery at every step, late flush, redelivery",
    faults: Faults { crashes: 1, ..NONE },
    late_claims: true,
    mirror: true,
    ..PLAIN
};

const RESEND: Config = Config {
    name: "resend",
    goal: "claims sent again, repeated and flushed late, behind a crash",
    messages: 1,
    pulls: &[&[1]],
    faults: Faults { crashes: 1, ticks: 2, passes: 1, repeats: 1, ..NONE },
    late_claims: true,
    ..PLAIN
};

const DISK: Config = Config {
    name: "disk",
    goal: "every write and its sync a step of its own, crash between them",
    messages: 2,
    pulls: &[&[1], &[1, 2]],
    faults: Faults { crashes: 1, ticks: 1, ..NONE },
    upkeep: Upkeep::Quick,
    fine_disk: true,
    keepers: &[0],
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
    ..PLAIN
};

const CLOSE: Config = Config {
    name: "close",
    goal: "watermarks decided, delayed and overtaken, with a crash and lost acknowledgements",
    messages: 1,
    pulls: &[&[1]],
    faults: Faults { crashes: 1, ticks: 2, resets: 1, ..NONE },
    upkeep: Upkeep::Late,
    keepers: &[0],
    ..PLAIN
};

const HOLES: Config = Config {
    name: "holes",
    goal: "messages passed over, gone, audited by a stale server, repaired",
    messages: 1,
    pulls: &[&[1]],
    faults: Faults { ticks: 4, skips: 1, losses: 1, stale_audits: 1, ..NONE },
    upkeep: Upkeep::Quick,
    keepers: &[0],
    ..PLAIN
};

const FILTERS: Config = Config {
    name: "filters",
    goal: "filters narrowed or widened while claims and watermarks are on their way",
    messages: 2,
    pulls: &[&[1], &[2]],
    faults: Faults { ticks: 3, terms: 1, ..NONE },
    upkeep: Upkeep::Late,
    odd: &[1],
    narrow: true,
    keepers: &[0],
    ..PLAIN
};

const CHECKPOINT: Config = Config {
    name: "checkpoint",
    goal: "a checkpoint in two parts, a purge, readers behind it, a crash",
    messages: 1,
    pulls: &[&[1]],
    faults: Faults { crashes: 1, ticks: 3, ..NONE },
    upkeep: Upkeep::Quick,
    checkpoints: 1,
    crashers: &[1],
    keepers: &[0],
    ..PLAIN
};

const CHECKPOINTS: Config = Config {
    name: "checkpoints",
    goal: "two checkpoints landing in any order, in two parts each",
    messages: 1,
    pulls: &[&[1]],
    faults: Faults { crashes: 1, ticks: 2, ..NONE },
    upkeep: Upkeep::Late,
    checkpoints: 2,
    parts: 2,
    crashers: &[1],
    keepers: &[0],
    ..PLAIN
};

const APPS: Config = Config {
    name: "apps",
    goal: "an application enters while a node restarts without it",
    messages: 1,
    pulls: &[&[1]],
    faults: Faults { crashes: 1, ticks: 1, ..NONE },
    upkeep: Upkeep::Late,
    hosts: &["x", "y"],
    apps: &["x"],
    rehosts: &[&["x"]],
    ..PLAIN
};

const LAZY: Config = Config {
    name: "lazy",
    goal: "a hub that confirms before it syncs loses power",
    messages: 1,
    pulls: &[&[1]],
    faults: Faults { crashes: 1, ticks: 2, passes: 2, power_losses: 1, ..NONE },
    upkeep: Upkeep::Quick,
    checkpoints: 1,
    lazy_hub: true,
    witnesses: true,
    live_every: 0,
    keepers: &[0],
    ..PLAIN
};

const COPY: Config = Config {
    name: "copy",
    goal: "a disk copied at every step, both bodies running",
    messages: 2,
    pulls: &[&[1], &[2]],
    faults: Faults {
        crashes: 1,
        copies: 1,
        ..NONE
    },
    live_every: 0,
    ..PLAIN
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

/// Every configuration.
pub const CONFIGS: &[Config] = &[
    CLAIMS, RESEND, DISK, RESTART, COLD, CLOSE, HOLES, FILTERS, CHECKPOINT, CHECKPOINTS, APPS, LAZY, COPY, EVACUATION,
    STRANGER, RECREATED,
];

/// The configuration of a name.
#[must_use]
pub fn named(name: &str) -> Option<Config> {
    CONFIGS.iter().find(|config| config.name == name).copied()
}
