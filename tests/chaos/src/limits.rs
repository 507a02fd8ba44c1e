//! Every bound of a chaos run by name.

use std::time::Duration;

/// Bridges of a run.
pub(crate) const NODES: usize = 3;

/// Servers of a clustered hub; also the replicas of its streams.
pub(crate) const SERVERS_R3: usize = 3;

/// Applications, each with one instance on every node.
pub(crate) const APPS: [&str; 2] = ["billing", "shipping"];

/// Messages that the producer has confirmed by the hub before it sends more.
pub(crate) const CHUNK: usize = 10;

/// Pause between two chunks: about 200 messages a second.
pub(crate) const CHUNK_PAUSE: Duration = Duration::from_millis(50);

/// The first fault comes after this.
pub(crate) const WARM_UP: Duration = Duration::from_secs(2);

/// From one fault's beginning to the next one's.
pub(crate) const GAP_MIN: Duration = Duration::from_millis(300);
/// See [`GAP_MIN`].
pub(crate) const GAP_MAX: Duration = Duration::from_secs(3);

/// How long a fault lasts.
pub(crate) const LASTS_MIN: Duration = Duration::from_millis(200);
/// See [`LASTS_MIN`]. Longer than the hub's wait for a settlement.
pub(crate) const LASTS_MAX: Duration = Duration::from_secs(7);

/// The hub's wait before it delivers again, as configured.
pub(crate) const ACK_WAIT: Duration = Duration::from_secs(2);

/// One act of a fault may take this long, before the run is given up.
pub(crate) const ACT_TIMEOUT: Duration = Duration::from_secs(90);

/// After the last fault everything must come to rest within this.
pub(crate) const REST_TIMEOUT: Duration = Duration::from_secs(240);

/// A run whose hub broke its promise is judged once nothing has been confirmed for this long.
pub(crate) const QUIET: Duration = Duration::from_secs(15);

/// Messages go on for this long behind the act that breaks the hub's promise.
pub(crate) const BROKEN_FEED: Duration = Duration::from_secs(8);

/// A bridge must have seen that the source goes as far as it did this long before the act that breaks the promise.
pub(crate) const SEEN_WITHIN: Duration = Duration::from_secs(60);

/// A kind of fault that was planned this often must have bitten once.
pub(crate) const BITES_OF: usize = 5;

/// How long a process of the run may take to end when it is asked to.
pub(crate) const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// Acknowledgements that an instance has under way at once.
pub(crate) const ACKS_UNDER_WAY_MAX: usize = 1_024;

/// A bridge or the command line may take this long to tell what it holds.
pub(crate) const ASK_TIMEOUT: Duration = Duration::from_secs(60);

/// Messages of the source that are read at a run's end at most: more than a day's.
pub(crate) const SOURCE_MESSAGES_MAX: u64 = 32 << 20;

/// The source may take this long to send the next of them.
pub(crate) const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of one part of a bridge's holdings.
pub(crate) const HOLDINGS_BYTES_MAX: usize = 16 << 20;

/// Bytes of a bridge's own small file system, where one can be mounted.
pub(crate) const DISK_BYTES: u64 = 64 << 20;

/// Bytes that a bridge's local log may have: less than the file system, so that it is the one that ends first only while
/// something else fills it.
pub(crate) const QUOTA_BYTES: u64 = 40 << 20;

/// Bytes that are written at once when a file system is filled.
pub(crate) const FILL_CHUNK_BYTES: usize = 64 * 1024;

/// How often a bridge that refuses to start is started again before it stays down.
pub(crate) const REFUSALS_MAX: u32 = 3;

/// Behind the act that breaks the promise, bridges that go on beside one that does not may take this long to finish.
pub(crate) const BROKEN_REST: Duration = Duration::from_secs(90);

/// Runs of `--repeat` at most.
pub(crate) const REPEATS_MAX: u64 = 10_000;

/// Runs at once of `--jobs` at most: each has up to three servers, three bridges and their instances.
pub(crate) const JOBS_MAX: u64 = 16;

/// Findings of one kind that are shown; all are counted.
pub(crate) const SHOWN_MAX: usize = 12;

const _: () = assert!(QUOTA_BYTES < DISK_BYTES && BROKEN_REST.as_millis() <= REST_TIMEOUT.as_millis());
const _: () = assert!(LASTS_MAX.as_millis() > ACK_WAIT.as_millis());
const _: () = assert!(LASTS_MIN.as_millis() < LASTS_MAX.as_millis());
const _: () = assert!(GAP_MIN.as_millis() < GAP_MAX.as_millis());
const _: () = assert!(STOP_TIMEOUT.as_millis() <= ACT_TIMEOUT.as_millis());
