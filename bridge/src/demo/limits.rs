//! Every bound of the demo by name.

use std::time::Duration;

/// Events that are fed unless told otherwise.
pub const EVENTS_DEFAULT: u64 = 24_000;
/// Events that are fed with `--quick`.
pub const EVENTS_QUICK: u64 = 5_000;
/// Smallest generated event, in bytes.
pub const EVENT_BYTES_MIN: usize = 200;
/// Largest generated event, in bytes.
pub const EVENT_BYTES_MAX: usize = 4096;
/// Orders of the generated shop that are under way at the same time.
pub const ORDERS_OPEN_MAX: usize = 512;

/// Most nodes, applications, and instances of one application on one node: each instance is a process.
pub const NODES_MAX: i64 = 6;
/// See [`NODES_MAX`].
pub const APPS_MAX: i64 = 8;
/// See [`NODES_MAX`].
pub const INSTANCES_MAX: i64 = 6;

/// Messages that a node has pulled and not settled at most.
pub const IN_FLIGHT: u32 = 1_024;
/// Messages that a node claims together at most.
pub const BATCH_MESSAGES: u32 = 256;

/// Longest line of an input file, in bytes: below the hub's default limit of 1 MiB with room for headers.
pub const LINE_BYTES_MAX: usize = 1_000_000;
/// Most lines of an input file. Two bytes of memory per line and application are held to judge them.
pub const LINES_MAX: u64 = 50_000_000;

/// Messages that were sent to the hub and are not confirmed yet.
pub const FEED_WINDOW: usize = 256;
/// The fastest default rate, in messages per second: a hub that syncs each message keeps up, on a small machine too.
pub const FEED_RATE_MAX: u64 = 1_200;
/// How long the hub may take to confirm a message before it is sent again.
pub const FEED_ACK_TIMEOUT: Duration = Duration::from_secs(5);
/// How often one message is sent again before the feed gives up.
pub const FEED_ATTEMPTS_MAX: u32 = 20;
/// How long the feed is spread over, at the rates it can be spread.
pub const FEED_DURATION: Duration = Duration::from_secs(20);
/// The same with `--quick`.
pub const FEED_DURATION_QUICK: Duration = Duration::from_secs(6);
/// The slowest default rate, in messages per second: a short file need not take long.
pub const FEED_RATE_MIN: u64 = 50;

/// How long the hub waits for a batch to be settled before it offers it to another node.
pub const ACK_WAIT: Duration = Duration::from_secs(5);
/// The same with `--quick`.
pub const ACK_WAIT_QUICK: Duration = Duration::from_secs(2);
/// How long the frozen bridge stays frozen.
pub const PAUSE: Duration = Duration::from_secs(8);
/// The same with `--quick`.
pub const PAUSE_QUICK: Duration = Duration::from_millis(2_800);
/// How long a killed process stays down at most.
pub const DOWN_MAX: Duration = Duration::from_millis(1_500);
/// How long a killed process stays down at least.
pub const DOWN_MIN: Duration = Duration::from_millis(200);

/// How long the bridges and all instances may take to be connected before the feed starts.
pub const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long everything may take to end after an interruption.
pub const INTERRUPT_MAX: Duration = Duration::from_secs(15);
/// How long an interrupted fetch of a server may take to end.
pub const FETCH_END_MAX: Duration = Duration::from_secs(5);
/// Without any new record for this long, the demo ends with what it has.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(45);
/// Beyond the time the hub waits before it offers a message again, how long the end is watched for late copies.
pub const QUIET_MARGIN: Duration = Duration::from_millis(500);
/// How long a bridge may take to end after SIGTERM before it is killed.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest wait for the answer of a bridge about its status.
pub const STATUS_TIMEOUT: Duration = Duration::from_millis(700);
/// Time between two questions about the status.
pub const STATUS_INTERVAL: Duration = Duration::from_millis(300);
/// Time between two looks at processes and records.
pub const TICK: Duration = Duration::from_millis(50);
/// Time between two pictures of the live table.
pub const REDRAW_INTERVAL: Duration = Duration::from_millis(250);
/// Time between two progress lines where there is no terminal.
pub const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);

/// Bytes of one instance's records that are read at once.
pub const RECORD_CHUNK_BYTES: usize = 256 * 1024;
/// Longest line of a record, in bytes.
pub const RECORD_LINE_BYTES_MAX: usize = 1024;
/// Messages that an instance takes in hand together.
pub const HANDS_MAX: usize = 64;
/// Acknowledgements of one instance that are on their way at the same time.
pub const ACKS_MAX: usize = 256;
/// Credit of an instance in messages: small, so that instances share evenly and a kill hits few messages.
pub const CREDIT_MESSAGES: u32 = 128;

/// Lines of the fault log that the table shows.
pub const FAULT_LINES: usize = 6;
/// Names of the applications, in the order in which they are used.
pub const APP_NAMES: [&str; APPS_MAX as usize] = [
    "billing",
    "shipping",
    "analytics",
    "search",
    "fraud",
    "mailing",
    "audit",
    "loyalty",
];
/// Columns of the table; a line never wraps on a usual terminal.
pub const TABLE_COLUMNS: usize = 79;
/// Message ids that a verdict lists per application and fault.
pub const LISTED_IDS_MAX: usize = 20;
/// Bytes of a bridge's log that an error shows.
pub const LOG_TAIL_BYTES: u64 = 2_048;
/// Bytes that a socket's path may have.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

const _: () = assert!(FETCH_END_MAX.as_millis() + STOP_TIMEOUT.as_millis() < INTERRUPT_MAX.as_millis());
const _: () = assert!(FEED_RATE_MIN <= FEED_RATE_MAX);
const _: () = assert!(BATCH_MESSAGES <= IN_FLIGHT);
const _: () = assert!(PAUSE.as_millis() > ACK_WAIT.as_millis());
const _: () = assert!(PAUSE_QUICK.as_millis() > ACK_WAIT_QUICK.as_millis());
const _: () = assert!(DOWN_MIN.as_millis() < DOWN_MAX.as_millis());
const _: () = assert!(STALL_TIMEOUT.as_millis() > PAUSE.as_millis() + ACK_WAIT.as_millis());
const _: () = assert!(EVENT_BYTES_MIN < EVENT_BYTES_MAX && EVENT_BYTES_MAX < LINE_BYTES_MAX);
const _: () = assert!(HANDS_MAX <= ACKS_MAX && HANDS_MAX <= CREDIT_MESSAGES as usize);
const _: () = assert!(RECORD_LINE_BYTES_MAX < RECORD_CHUNK_BYTES);
