//! Every bound and every choice of the benchmarks by name.

use std::time::Duration;

/// Applications unless told otherwise.
pub const APPS_DEFAULT: u32 = 8;
/// Most applications: each is a process.
pub const APPS_MAX: u32 = 64;
/// Messages unless told otherwise.
pub const MESSAGES_DEFAULT: u64 = 100_000;
/// Most messages; an application keeps one bit for each.
pub const MESSAGES_MAX: u64 = 100_000_000;
/// Payload bytes unless told otherwise.
pub const SIZE_DEFAULT: u32 = 1024;
/// Smallest payload: its first bytes are the message's number.
pub const SIZE_MIN: u32 = 8;
/// Largest payload: below a hub's usual limit of 1 MiB.
pub const SIZE_MAX: u32 = 1024 * 1000;
/// Repetitions unless told otherwise.
pub const REPEAT_DEFAULT: u32 = 3;
/// Most repetitions.
pub const REPEAT_MAX: u32 = 1000;
/// Backlog of the stalled application unless told otherwise, in bytes of payload.
pub const BACKLOG_DEFAULT: &str = "2GiB";
/// Messages of the backlog that a killed bridge comes back with, unless told otherwise.
pub const RECOVERY_MESSAGES_DEFAULT: u64 = 1_000_000;
/// Starts of a killed bridge unless told otherwise.
pub const RECOVERY_STARTS_DEFAULT: u32 = 3;
/// Bytes that the local log may take for each message of a backlog, beyond its payload: a batch may hold a single one.
pub const RECOVERY_MESSAGE_SPARE: u64 = 4 * 1024;
/// Bytes of one note to the service manager.
pub const NOTE_BYTES_MAX: usize = 4 * 1024;
/// Applications that go on while one stands still.
pub const RUNNING_APPS: u32 = 2;

/// Messages of one pull of the native side; the next pull is sent when half of them have arrived.
pub const NATIVE_BATCH: u32 = 1000;
/// Unacknowledged messages a native durable admits: never the bottleneck.
pub const NATIVE_ACK_PENDING: i64 = 20_000;
/// How long both sides' consumers wait for an acknowledgement before they redeliver.
pub const ACK_WAIT: Duration = Duration::from_secs(30);

/// Messages of one batch of the bridge: pull, stage, claim and settle.
pub const BRIDGE_BATCH: u32 = 1000;
/// Unsettled messages of the bridge.
pub const BRIDGE_IN_FLIGHT: u32 = 8192;
/// Messages an instance may hold, the credit it grants.
pub const CREDIT_MESSAGES: u32 = 8192;
/// Bytes an instance may hold.
pub const CREDIT_BYTES: u64 = 16 * 1024 * 1024;

/// Messages of the pre-fill that wait for the hub's word together.
pub const FILL_CHUNK: u64 = 2_000;

/// How long a hub, a bridge or an application may take to be ready.
pub const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// The measured phase is given up after this time and [`PER_DELIVERY`] for each delivery.
pub const PHASE_TIMEOUT: Duration = Duration::from_secs(60);
/// See [`PHASE_TIMEOUT`]. A hundred times what a slow machine needs.
pub const PER_DELIVERY: Duration = Duration::from_micros(1_000);
/// How long acknowledgements may take to be accounted for after the last one.
pub const SETTLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Time between two looks at what is not settled yet.
pub const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Time between two looks at resident memory.
pub const RSS_INTERVAL: Duration = Duration::from_millis(50);
/// How long the hub's CPU must stand still before the measured phase begins.
pub const QUIET_INTERVAL: Duration = Duration::from_millis(250);
/// The hub counts as still when it used no more than this in [`QUIET_INTERVAL`].
pub const QUIET_CPU: Duration = Duration::from_millis(10);
/// How long the hub may take to become still.
pub const QUIET_TIMEOUT: Duration = Duration::from_secs(15);

/// Bytes of a log that an error shows.
pub const LOG_TAIL_BYTES: u64 = 2_048;

const _: () = assert!(SIZE_MIN as usize >= size_of::<u64>() && SIZE_MIN <= SIZE_DEFAULT);
const _: () = assert!(NATIVE_ACK_PENDING > 2 * NATIVE_BATCH as i64);
const _: () = assert!(BRIDGE_BATCH <= fanin_config::limits::BATCH_MESSAGES_MAX);
const _: () =
    assert!(BRIDGE_BATCH <= BRIDGE_IN_FLIGHT && BRIDGE_IN_FLIGHT <= fanin_config::limits::IN_FLIGHT_MAX);
const _: () = assert!(CREDIT_MESSAGES <= fanin_sdk::limits::CREDIT_MESSAGES_MAX);
const _: () = assert!(CREDIT_BYTES <= fanin_sdk::limits::CREDIT_BYTES_MAX);
