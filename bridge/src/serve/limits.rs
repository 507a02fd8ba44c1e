//! What a client may ask of the server, and how long it may take.

use std::time::Duration;

/// Bytes of one decoded request.
pub const REQUEST_BYTES_MAX: usize = 1024 * 1024;
/// Bytes that have come of all unfinished requests together, without the first [`SMALL_REQUEST_BYTES_MAX`] of each.
pub const UNFINISHED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long a request may take to come, from its first byte to its last.
pub const REQUEST_WAIT_MAX: Duration = Duration::from_secs(30);
/// How long a call may stay open without its first request.
pub const OPEN_WAIT_MAX: Duration = Duration::from_secs(10);
/// Bytes of one decoded request to the node's status or the health service; they hold a name at most.
pub const SMALL_REQUEST_BYTES_MAX: usize = 4 * 1024;
/// Connections to the socket at the same time.
pub const CONNECTIONS_MAX: usize = 1024;
/// One of so many files that this process may open can be a connection, if that is less.
pub const FILES_SHARE: usize = 2;
/// Eighths of all connections that one user may have.
pub const USER_EIGHTHS: usize = 6;
/// Bytes with which every HTTP/2 client begins: the preface, and the header of its settings.
pub const GREETING_BYTES: usize = 24 + 9;
/// How long a new connection has for them.
pub const GREETING_WAIT_MAX: Duration = Duration::from_secs(10);
/// Pause after the system refused to accept a connection, for instance for want of files.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Calls open at the same time on one connection.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 256;
/// Flow control window of one stream, bytes: what an application may have in its own socket buffers.
pub const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// Flow control window of one connection, bytes.
pub const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// Bytes of one HTTP/2 frame.
pub const HTTP2_FRAME_BYTES_MAX: u32 = 1024 * 1024;
/// How often a connection is asked for a sign of life.
pub const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
/// How long that may take. A client that is frozen longer loses its connection, and so its deliveries.
pub const KEEPALIVE_WAIT_MAX: Duration = Duration::from_secs(20);
/// Bytes of topic, application and client names in `Open`.
pub const NAME_BYTES_MAX: usize = 256;
/// Encoded bytes that are gathered before they are given to the connection.
pub const ENCODE_BYTES: usize = 256 * 1024;
/// Bytes of a Unix socket's path, the closing zero included, on every Unix this runs on.
pub const SOCKET_PATH_BYTES_MAX: usize = 104;

const _: () = assert!(STREAM_WINDOW_BYTES <= CONNECTION_WINDOW_BYTES);
const _: () = assert!(USER_EIGHTHS < 8 && FILES_SHARE > 1 && CONNECTIONS_MAX >= 8);
const _: () =
    assert!(SMALL_REQUEST_BYTES_MAX > NAME_BYTES_MAX && SMALL_REQUEST_BYTES_MAX < REQUEST_BYTES_MAX);
const _: () = assert!(UNFINISHED_BYTES_MAX >= 8 * REQUEST_BYTES_MAX);
const _: () = assert!(crate::topic::limits::REASON_BYTES_MAX < REQUEST_BYTES_MAX);
