//! Every bound of the admin endpoint.

use std::time::Duration;

/// Connections served at once; one more takes the place of the one that has been quiet for the longest.
pub const CONNECTIONS_MAX: usize = 32;
/// How long the head of a request may take to come, idle time between two requests included.
pub const HEADER_WAIT_MAX: Duration = Duration::from_secs(2);
/// Bytes held for the head of a request.
pub const HEADER_BYTES_MAX: usize = 16 * 1024;
/// How long a connection lives at most; scrapers open a new one.
pub const CONNECTION_LIFE_MAX: Duration = Duration::from_secs(600);
/// How long a status may take to be put together.
pub const STATUS_WAIT_MAX: Duration = Duration::from_secs(5);
/// Pause after the system refused to accept a connection, for want of file descriptors for example.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// `/livez` fails when the loop that drives a mapping has not moved for this long.
pub const STALL_MAX: Duration = Duration::from_secs(30);
/// One sample of the timeline in this time.
pub const TIMELINE_STEP: Duration = Duration::from_secs(1);
/// Samples kept: five minutes.
pub const TIMELINE_SAMPLES: usize = 300;
/// Applications, of all mappings together, that have a line: 16 bytes a sample, 4.8 MB in all.
pub const TIMELINE_APPS_MAX: usize = 1000;

// The library that reads requests takes no smaller buffer.
const _: () = assert!(HEADER_BYTES_MAX >= 8 * 1024);
const _: () = assert!(HEADER_WAIT_MAX.as_secs() + STATUS_WAIT_MAX.as_secs() < CONNECTION_LIFE_MAX.as_secs());
