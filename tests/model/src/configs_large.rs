//! Larger configurations of each theme, by command: some are not complete in any reasonable time.

use crate::configs::{
    CHECKPOINT, CHECKPOINTS, CLAIMS, CLAIMS_FOUR, CLOSE, COPY, FILTERS, HOLES, LAZY, NONE, PLAIN, REUSED,
};
use crate::setup::{Config, Faults, Upkeep};

/// Four messages, a copied disk, a checkpoint with its purge, lost acknowledgements and a crash, all at once.
const FOUR_ALL: Config = Config {
    name: "four-all",
    goal: "4 messages in batches of two, a copy, a checkpoint and its purge, the floor set back, a crash, together",
    messages: 4,
    pulls: &[&[1, 2], &[3, 4]],
    faults: Faults {
        crashes: 1,
        ticks: 2,
        resets: 1,
        copies: 1,
        ..NONE
    },
    upkeep: Upkeep::Quick,
    checkpoints: 1,
    crashers: &[0],
    keepers: &[0],
    live_every: 0,
    ..PLAIN
};

/// Two nodes, four messages, every fault that nobody need halt for, all at once: too large to be complete.
const EVERYTHING: Config = Config {
    name: "everything",
    goal: "2 nodes, 4 messages, all faults but those of a lying hub or an operator, together",
    messages: 4,
    pulls: &[&[1], &[2], &[1, 2], &[3, 4], &[2, 3]],
    batches: 2,
    faults: Faults {
        crashes: 2,
        orphans: 1,
        ticks: 6,
        passes: 1,
        repeats: 1,
        skips: 1,
        resets: 1,
        losses: 1,
        stale_audits: 1,
        terms: 1,
        ..NONE
    },
    upkeep: Upkeep::Late,
    checkpoints: 2,
    parts: 2,
    fine_disk: true,
    late_claims: true,
    odd: &[3],
    live_every: 64,
    states_max: Some(20_000_000),
    ..PLAIN
};

/// The same for copied disks, evacuations and a hub that loses power.
const LIES: Config = Config {
    name: "lies",
    goal: "2 nodes and a copy, 4 messages, power loss, evacuation, all together",
    faults: Faults {
        crashes: 1,
        ticks: 4,
        passes: 2,
        repeats: 1,
        copies: 1,
        power_losses: 1,
        evacuations: 1,
        ..NONE
    },
    checkpoints: 1,
    fine_disk: false,
    odd: &[],
    lazy_hub: true,
    witnesses: true,
    live_every: 0,
    ..EVERYTHING
};

const CLAIMS_LARGE: Config = Config {
    name: "claims-large",
    goal: "claims, with two crashes, two batches a node and repeats",
    batches: 2,
    pulls: &[&[1], &[2], &[1, 2]],
    faults: Faults { crashes: 2, ..NONE },
    live_every: 16,
    ..CLAIMS
};

const CLOSE_LARGE: Config = Config {
    name: "close-large",
    goal: "close, with two messages and both nodes keeping",
    messages: 2,
    pulls: &[&[1], &[1, 2]],
    keepers: &[0, 1],
    live_every: 64,
    ..CLOSE
};

const HOLES_LARGE: Config = Config {
    name: "holes-large",
    goal: "holes, with two messages, a crash and both nodes keeping",
    messages: 2,
    pulls: &[&[1], &[2]],
    keepers: &[0, 1],
    faults: Faults {
        crashes: 1,
        ..HOLES.faults
    },
    live_every: 64,
    ..HOLES
};

const CHECKPOINT_LARGE: Config = Config {
    name: "checkpoint-large",
    goal: "checkpoint, with a third look and crashes and upkeep of both nodes",
    crashers: &[0, 1],
    keepers: &[0, 1],
    faults: Faults {
        ticks: 3,
        ..CHECKPOINT.faults
    },
    live_every: 64,
    ..CHECKPOINT
};

const CHECKPOINTS_LARGE: Config = Config {
    name: "checkpoints-large",
    goal: "checkpoints, with both nodes claiming and crashing",
    pullers: &[0, 1],
    crashers: &[0, 1],
    faults: Faults {
        ticks: 2,
        ..CHECKPOINTS.faults
    },
    parts: 2,
    live_every: 64,
    ..CHECKPOINTS
};

const FILTERS_LARGE: Config = Config {
    name: "filters-large",
    goal: "filters, with two changes and a crash",
    faults: Faults {
        crashes: 1,
        terms: 2,
        ..FILTERS.faults
    },
    live_every: 64,
    ..FILTERS
};

const COPY_LARGE: Config = Config {
    name: "copy-large",
    goal: "copy, with overlapping batches and crashes of everybody",
    pulls: &[&[1], &[2], &[1, 2]],
    batches: 2,
    crashers: &[0, 1, 2],
    ..COPY
};

const LAZY_LARGE: Config = Config {
    name: "lazy-large",
    goal: "lazy, with a checkpoint and two messages",
    messages: 2,
    pulls: &[&[1], &[1, 2]],
    crashers: &[0, 1],
    checkpoints: 1,
    faults: Faults {
        ticks: 2,
        passes: 2,
        ..LAZY.faults
    },
    keepers: &[0, 1],
    ..LAZY
};

const REUSED_LARGE: Config = Config {
    name: "reused-large",
    goal: "reused, with a second look and liveness from every state",
    faults: Faults {
        ticks: 2,
        ..REUSED.faults
    },
    live_every: 1,
    ..REUSED
};

/// What is explored by command.
pub const LARGE: &[Config] = &[
    CLAIMS_LARGE,
    CLAIMS_FOUR,
    CLOSE_LARGE,
    HOLES_LARGE,
    CHECKPOINT_LARGE,
    CHECKPOINTS_LARGE,
    FILTERS_LARGE,
    COPY_LARGE,
    LAZY_LARGE,
    FOUR_ALL,
    REUSED_LARGE,
    EVERYTHING,
    LIES,
];
