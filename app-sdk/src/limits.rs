//! Every bound of the SDK, and how the bounds relate.

use std::time::Duration;

/// Messages an instance holds at most unless the builder says otherwise.
pub const CREDIT_MESSAGES_DEFAULT: u32 = 1024;
/// Largest message credit a builder takes; larger values are lowered to it.
pub const CREDIT_MESSAGES_MAX: u32 = 65_536;
/// Bytes an instance holds at most unless the builder says otherwise. A single larger message still passes, alone.
pub const CREDIT_BYTES_DEFAULT: u64 = 4 * MIB;
/// Largest byte credit a builder takes; larger values are lowered to it.
pub const CREDIT_BYTES_MAX: u64 = 1024 * MIB;
/// Handlers `consume` runs at the same time at most.
pub const CONCURRENCY_MAX: usize = 4096;
/// Bytes of a reason kept with a retry or reject; the rest is cut.
pub const REASON_BYTES_MAX: usize = 4096;
/// How long `open` keeps trying while the bridge answers with retryable errors.
pub const OPEN_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// How long a graceful close waits for verdicts.
pub const CLOSE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// How long one connection attempt, handshake included, may take.
pub const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);

const MIB: u64 = 1024 * 1024;

/// Largest response frame that is decoded: above the largest message a hub accepts (64 MiB).
pub(crate) const DECODE_BYTES_MAX: usize = 80 * 1024 * 1024;
/// HTTP/2 flow control window of one stream.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// HTTP/2 flow control window of one connection.
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// Largest HTTP/2 frame.
pub(crate) const HTTP2_FRAME_BYTES_MAX: u32 = 1024 * 1024;
/// Interval of keep-alive pings: a frozen bridge is found within interval plus timeout.
pub(crate) const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Time a keep-alive ping may stay unanswered.
pub(crate) const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Requests that wait for the HTTP/2 stream; what comes later is merged into the next frame instead.
pub(crate) const REQUESTS_QUEUED_MAX: usize = 4;
/// Verdict frames follow each other no faster than this unless somebody waits for one, or credit runs low.
pub(crate) const FLUSH_INTERVAL: Duration = Duration::from_millis(1);
/// Finished share of the credit (a divisor) that is granted back without waiting for the flush interval.
pub(crate) const CREDIT_LOW_DIVISOR: u32 = 4;
/// Ranges of one kind in one verdict frame.
pub(crate) const RANGES_PER_FRAME_MAX: usize = 512;
/// Retries and rejects, each with its reason, in one verdict frame.
pub(crate) const REASONS_PER_FRAME_MAX: usize = 64;
/// Acks that wait for their confirmation; beyond it no credit is granted back until some are confirmed.
pub(crate) const UNCONFIRMED_MAX: usize = 65_536;
/// Deliveries kept in the dense part of the table; older unfinished ones move to the sparse part.
pub(crate) const DENSE_SLOTS_MAX: usize = 4096;

/// First wait of the reconnect back-off, before jitter.
pub(crate) const BACKOFF_INITIAL: Duration = Duration::from_millis(50);
/// Longest wait of the reconnect back-off.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Longest pause between two attempts to reach a bridge that is not up yet.
pub(crate) const BRIDGE_WAIT_PAUSE_MAX: Duration = Duration::from_millis(250);
/// A connection that lasted this long starts the back-off anew.
pub(crate) const BACKOFF_RESET_AFTER: Duration = Duration::from_secs(1);
/// Leases are extended after this share (a divisor) of their length.
pub(crate) const EXTEND_DIVISOR: u32 = 3;
/// Shortest interval between two automatic extensions, whatever lease the bridge names.
pub(crate) const EXTEND_INTERVAL_MIN: Duration = Duration::from_millis(10);

/// What a bridge decodes of one request at most.
const REQUEST_BYTES_MAX: usize = 1024 * 1024;
/// Generous size of one range, and of one reason's fixed part, on the wire.
const RANGE_WIRE_BYTES: usize = 24;

const _: () = assert!(CREDIT_MESSAGES_DEFAULT <= CREDIT_MESSAGES_MAX);
const _: () = assert!(CREDIT_BYTES_DEFAULT <= CREDIT_BYTES_MAX);
const _: () = assert!(STREAM_WINDOW_BYTES <= CONNECTION_WINDOW_BYTES);
const _: () = assert!(
    CREDIT_BYTES_DEFAULT <= STREAM_WINDOW_BYTES as u64,
    "full credit flows without window updates"
);
const _: () = assert!(CREDIT_MESSAGES_MAX as usize <= UNCONFIRMED_MAX);
const _: () = assert!(
    3 * RANGES_PER_FRAME_MAX * RANGE_WIRE_BYTES
        + 2 * REASONS_PER_FRAME_MAX * (REASON_BYTES_MAX + RANGE_WIRE_BYTES)
        < REQUEST_BYTES_MAX
);
