//! Every bound of the configuration, and how the bounds relate.

use std::time::Duration;

/// Largest configuration file that is read, in bytes.
pub const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Most nodes (scalars, lists, maps) one file may hold after its aliases are resolved.
pub const YAML_NODES_MAX: usize = 100_000;
/// Most drop-in files read from `conf.d`.
pub const CONF_D_FILES_MAX: usize = 256;
/// Most mappings of one node.
pub const MAPPINGS_MAX: usize = 256;
/// Most sources of one mapping.
pub const SOURCES_MAX: usize = 32;
/// Most subjects of one source: what the ledger's terms hold.
pub const SOURCE_SUBJECTS_MAX: usize = 64;
/// Most bytes that the names and subjects of one mapping's sources and applications take in the ledger's terms.
pub const TERMS_BYTES_MAX: usize = 248 * 1024;
/// Bytes that a source and an application take there besides their names and subjects, at most.
pub const TERMS_ENTRY_BYTES: usize = 24;
/// Bytes that a subject takes there besides its own, at most.
pub const TERMS_SUBJECT_BYTES: usize = 4;
/// Most subjects in one application's filter.
pub const SUBJECTS_MAX: usize = 256;
/// Most applications of one mapping.
pub const APPLICATIONS_MAX: usize = 256;
/// Most users that may take one application's name.
pub const USERS_MAX: usize = 256;
/// Most hub servers.
pub const SERVERS_MAX: usize = 64;
/// Longest node, mapping, topic and application name, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// Longest stream name, in bytes.
pub const STREAM_NAME_BYTES_MAX: usize = 255;
/// Longest subject, in bytes.
pub const SUBJECT_BYTES_MAX: usize = 1024;
/// A Unix socket's path must be shorter than this, in bytes: the kernel's `sun_path` holds 108 with the closing zero.
pub const SOCKET_PATH_BYTES: usize = 108;
/// Most messages of one batch: what one claim may carry.
pub const BATCH_MESSAGES_MAX: u32 = 1000;
/// Most messages one mapping may have unsettled per node.
pub const IN_FLIGHT_MAX: u32 = 1_000_000;
/// Most nodes a mapping may be sized for.
pub const NODES_MAX: u32 = 1000;
/// Most attempts before a message becomes a dead letter.
pub const ATTEMPTS_MAX: u32 = 1_000_000;
/// Largest factor by which a back-off may grow.
pub const BACKOFF_FACTOR_MAX: f64 = 100.0;
/// Longest duration any key takes, unless it says otherwise.
pub const DURATION_MAX: Duration = Duration::from_secs(366 * 24 * 3600);
/// Longest grace, linger and shutdown time.
pub const GRACE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Shortest acknowledgement wait on the hub: staging and claiming must fit in it.
pub const ACK_WAIT_MIN: Duration = Duration::from_millis(200);
/// Longest acknowledgement wait on the hub.
pub const ACK_WAIT_MAX: Duration = Duration::from_secs(24 * 3600);
/// Shortest lease of a delivery.
pub const LEASE_MIN: Duration = Duration::from_millis(10);
/// Smallest segment of the local log, in bytes.
pub const SEGMENT_BYTES_MIN: u64 = 64 * 1024;
/// Largest segment of the local log, in bytes.
pub const SEGMENT_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Fewest segments the quota must hold, so that whole segments can be freed while others are written.
pub const SEGMENTS_MIN: u64 = 4;
/// The quota is at least so many times the reserve, so that intake has half of it.
pub const QUOTA_PER_RESERVE: u64 = 2;
/// Smallest ledger, in bytes: its last quarter must take what empties it, records of up to 256 KiB.
pub const LEDGER_BYTES_MIN: u64 = 16 * 1024 * 1024;
/// Smallest memory buffer, and smallest share of `memory.staged` that a source may get, in bytes.
pub const MEMORY_BYTES_MIN: u64 = 64 * 1024;
/// Largest size any key takes, in bytes.
pub const SIZE_BYTES_MAX: u64 = 1 << 50;

const _: () = assert!(BATCH_MESSAGES_MAX <= IN_FLIGHT_MAX);
const _: () = assert!(SEGMENT_BYTES_MIN <= SEGMENT_BYTES_MAX);
const _: () = assert!(SEGMENT_BYTES_MAX * SEGMENTS_MIN <= SIZE_BYTES_MAX);
const _: () = assert!(2 * (NODES_MAX as u64) * (IN_FLIGHT_MAX as u64) <= i64::MAX as u64);
const _: () = assert!(NAME_BYTES_MAX <= STREAM_NAME_BYTES_MAX);
