//! Every bound of this crate by name.

use std::time::Duration;

/// How long a server may take from its start until it answers with JetStream enabled. Recovery of a large store
/// happens in this time.
pub const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// How long one attempt to read a server's greeting may take.
pub const GREETING_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a server may take to stop after SIGTERM before it is killed.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// Time between two looks at a condition of another process.
pub const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// How often a start is tried again with other ports when another process took the ones that were free.
pub const PORT_ATTEMPTS_MAX: u32 = 10;

/// Bytes of a greeting line that are read at most.
pub const GREETING_BYTES_MAX: usize = 64 * 1024;

/// Bytes of a server's log that an error shows.
pub const LOG_TAIL_BYTES: u64 = 2_048;

/// Bytes of memory storage that a local hub grants its streams.
pub const MEMORY_STORE_BYTES_MAX: u64 = 1 << 30;

/// Bytes of file storage that a local hub grants its streams: a reservation, not an allocation. Fixed, because the
/// server's own default depends on the disk that happens to be there.
pub const FILE_STORE_BYTES_MAX: u64 = 64 << 30;

/// Seconds that pip waits for one answer of the package index.
pub const PIP_TIMEOUT_SECONDS: u32 = 60;

const _: () = assert!(GREETING_TIMEOUT.as_millis() < READY_TIMEOUT.as_millis());
const _: () = assert!(POLL_INTERVAL.as_millis() < GREETING_TIMEOUT.as_millis());
