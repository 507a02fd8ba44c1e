//! Every bound of a mapping's shell, and how the bounds relate.

use std::time::Duration;

/// Events from a mapping's tasks that wait for its driver. A pulled batch is one event; its bytes are bounded by the permits
/// it holds.
pub const EVENTS_MAX: usize = 256;

/// Batches that are being settled at once; further ones wait in order.
pub const SETTLES_MAX: usize = 32;

/// Messages whose acknowledgement or return waits for its turn; beyond them the hub's redelivery is waited for. So many
/// subjects of acknowledgements take a few MiB.
pub const SETTLES_WAITING_MESSAGES_MAX: usize = 64 * 1024;

/// Equal parts of a source's share of `memory.staged`: what each of the puller's open requests may bring ahead of its turn, and at
/// least one for what is pulled, staged and not yet published.
pub const STAGED_PARTS: u64 = fanin_hub::limits::OPEN_PULLS_MAX as u64 + 1;

/// Bytes of messages fetched by sequence that are in memory until they are published, of one mapping. A message beyond it waits
/// until it is the only one.
pub const REPAIR_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// What one such fetch takes of that before the size of its message is known.
pub const REPAIR_FETCH_BYTES: u64 = 512 * 1024;

/// How often a batch is settled before it is left to the hub's redelivery.
pub const SETTLE_TRIES: u32 = 3;

/// Pause between two tries to settle.
pub const SETTLE_PAUSE: Duration = Duration::from_millis(500);

/// How long a batch that is not full waits at least, from so many unfinished batches on, ascending. At a batch a second an hour adds 3600.
pub const LINGER_STEPS: [(usize, Duration); 3] = [
    (16 * 1024, Duration::from_millis(50)),
    (48 * 1024, Duration::from_millis(250)),
    (64 * 1024, Duration::from_secs(1)),
];

/// Part of the consumer's acknowledgement wait that these times stay within.
pub const LINGER_ACK_WAIT_DIVISOR: u32 = 8;

/// Unfinished batches of all nodes of a mapping from which on nothing is pulled: each takes about 1 KiB of memory. Fewer than the parts of
/// a checkpoint can tell.
pub const OPEN_CLAIMS_MAX: usize = 1 << 20;

const _: () =
    assert!(LINGER_STEPS[2].0 < OPEN_CLAIMS_MAX && OPEN_CLAIMS_MAX <= crate::audit::limits::NODE_BATCHES_MAX);

/// The driver's clock tick.
pub const TICK: Duration = Duration::from_millis(250);

/// Time between two looks at a consumer's counters.
pub const FLOOR_INTERVAL: Duration = Duration::from_secs(2);

/// Time between two looks at the ledger's size. What all nodes claim in between must fit in the quarter of the ledger that claims
/// leave free.
pub const LEDGER_LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// So many of these looks in a row must find the ledger ending before what was read until it is verified.
pub const LEDGER_SHORT_LOOKS: u32 = 2;

/// For how long a ledger counts as full after the hub refused a record for want of room. Claims are tried again meanwhile; a
/// confirmed append ends it at once.
pub const LEDGER_REFUSED: Duration = Duration::from_secs(10);

/// Longest wait of one pull while nothing arrives; the gate is looked at in between.
pub const PULL_WAIT: Duration = Duration::from_secs(2);

/// With the gate on, a node stops pulling while even its fastest application has this many times the node's `in_flight`
/// waiting: other nodes have more use for the messages.
pub const AHEAD_FACTOR: u64 = 16;

/// Pause after a failed pull or a failed hub request, doubled up to `PAUSE_MAX`.
pub const PAUSE_FIRST: Duration = Duration::from_millis(100);

/// Longest pause between two tries at the hub.
pub const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Pause after a connection broke under a pull and is there again.
pub const PAUSE_BROKEN: Duration = Duration::from_millis(20);

/// Messages refused by a full log go back to the hub for this long, so that another node takes them.
pub const FULL_DELAY: Duration = Duration::from_secs(2);

/// How often checkpoint records are read again when they do not cover a gap: a read from the hub can be stale.
pub const CHECKPOINT_READS: u32 = 5;

/// Most unconfirmed nonces kept; each is one process that ended before it heard of its EPOCH.
pub const INTENTS_MAX: usize = 256;

/// How often a ledger or a source that seems to be another one, or shorter than what was read, is looked at before that is
/// believed: a leader that is being replaced may answer from before.
pub const DOUBT_LOOKS: u32 = 7;

/// Pause between two such looks. All of them take longer than a leader that has lost its peers goes on answering (10 s).
pub const DOUBT_PAUSE: Duration = Duration::from_secs(2);

/// A connection for pulling may be down this long before status tells, while the hub answers otherwise.
pub const PULL_LINK_GRACE: Duration = Duration::from_secs(10);

/// A message counts as stuck when it has been delivered and unclaimed for so many times the hub's wait for an
/// acknowledgement: it was delivered anew as often, to whichever node pulls.
pub const STUCK_ACK_WAITS: u64 = 3;

/// So many generations behind the configured one a source's incarnation in the terms is recognised as a later one. A generation is
/// raised by one for each repair.
pub const GENERATIONS_AHEAD_MAX: u64 = 256;

/// Looks for holes and repairs under way at once, over all sources.
pub const LOOKS_MAX: usize = 16;

/// Messages of a damaged batch that are being fetched by sequence at once.
pub const MEND_FETCHES_MAX: usize = 16;

/// Pause between two tries at a damaged batch.
pub const MEND_PAUSE: Duration = Duration::from_secs(2);

/// What a configuration may name fits in the ledger's records.
const _: () = {
    use fanin_config::limits as config;
    use fanin_core::limits as core;
    assert!(config::SOURCE_SUBJECTS_MAX <= core::FILTERS_MAX && config::SOURCES_MAX <= core::SOURCES_MAX);
    assert!(config::APPLICATIONS_MAX <= core::APPS_MAX && config::NAME_BYTES_MAX <= core::NAME_BYTES_MAX);
    assert!(config::STREAM_NAME_BYTES_MAX <= core::NAME_BYTES_MAX);
    assert!(config::SUBJECT_BYTES_MAX <= core::SUBJECT_BYTES_MAX);
    assert!(config::TERMS_BYTES_MAX <= core::TERMS_BYTES_MAX);
    assert!(config::BATCH_MESSAGES_MAX as usize <= core::BATCH_MESSAGES_MAX);
};

const _: () = assert!(FLOOR_INTERVAL.as_millis() >= DOUBT_PAUSE.as_millis());
const _: () = assert!((DOUBT_LOOKS as u128 - 1) * DOUBT_PAUSE.as_millis() > 10_000);
const _: () = assert!(SETTLES_WAITING_MESSAGES_MAX >= SETTLES_MAX * fanin_hub::limits::PULL_BATCH_MAX);
const _: () = assert!(REPAIR_FETCH_BYTES * LOOKS_MAX as u64 <= REPAIR_BYTES_MAX);
// The smallest share of a source that a configuration may leave still has a part that holds something.
const _: () = assert!(fanin_config::limits::MEMORY_BYTES_MIN / STAGED_PARTS >= 1024);
const _: () = assert!(PAUSE_BROKEN.as_millis() <= PAUSE_FIRST.as_millis());
const _: () = assert!(PAUSE_FIRST.as_millis() < PAUSE_MAX.as_millis());
const _: () = assert!(STUCK_ACK_WAITS >= fanin_core::limits::STUCK_AGAIN_DIVISOR);
const _: () = assert!(2 * fanin_core::limits::STUCK_LOOKS_MAX <= LOOKS_MAX);
const _: () = assert!(PAUSE_FIRST.as_millis() < LEDGER_LOOK_INTERVAL.as_millis());
const _: () = assert!(LEDGER_LOOK_INTERVAL.as_millis() < LEDGER_REFUSED.as_millis());
const _: () = assert!(TICK.as_millis() < FLOOR_INTERVAL.as_millis());
