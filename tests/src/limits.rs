//! Every bound of the harness by name. Times are multiplied by [`crate::wait::patience`].

use std::time::Duration;

/// How long a bridge may take from its start until its socket answers.
pub const SERVING_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a bridge may take from its start until every mapping takes part.
pub const JOINED_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a bridge may take to end after SIGTERM.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// How long one status call may take.
pub const STATUS_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a feed goes on trying to get one message stored.
pub const FEED_TIMEOUT: Duration = Duration::from_secs(60);

/// Messages a feed has under way at once.
pub const FEED_WINDOW: usize = 256;

/// Acknowledgements that a test instance has under way at once.
pub const ACKS_UNDER_WAY_MAX: usize = 4_096;

/// Lines of a bridge's log that a failing test shows.
pub const LOG_TAIL_LINES: usize = 60;

/// Unix socket paths are shorter than this: 104 bytes on macOS, 108 on Linux.
pub const SOCKET_PATH_BYTES_MAX: usize = 103;

/// Chunks that the proxy holds per direction of a connection while it delays or stalls them.
pub const PROXY_CHUNKS_MAX: usize = 256;

/// Bytes of one chunk.
pub const PROXY_CHUNK_BYTES: usize = 64 * 1024;

/// Ids that a report lists per finding; all are counted.
pub const REPORT_IDS_MAX: usize = 20;

const _: () = assert!(SERVING_TIMEOUT.as_millis() <= JOINED_TIMEOUT.as_millis());
const _: () = assert!(STATUS_TIMEOUT.as_millis() < SERVING_TIMEOUT.as_millis());
