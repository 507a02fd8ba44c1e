//! The bounds of one delivery machine. All are per (topic, application).

/// Most offsets between the floor and the delivery frontier. New offsets wait when it is reached.
pub const WINDOW_MAX: u64 = 65_536;

/// Most separate ranges beyond the frontier that [`skip`](super::AppDelivery::skip) remembers.
pub const AHEAD_RANGES_MAX: u64 = 4_096;

/// Most instances of one application that are connected at once.
pub const INSTANCES_MAX: usize = 256;

/// Most delivery numbers between the oldest delivery an instance holds and its newest. An instance that sits on an
/// old delivery gets nothing more when it is reached.
pub const INSTANCE_SPAN_MAX: usize = 65_536;

/// Most bytes of credit of one instance; grants above it are cut.
pub const CREDIT_BYTES_MAX: u64 = 1 << 30;

/// Most messages of credit of one instance; grants above it are cut.
pub const CREDIT_MESSAGES_MAX: u32 = 65_536;

/// Most delivery numbers that one call reports as not held.
pub const LATE_REPORT_MAX: u64 = 65_536;

/// Longest wait before a retry, whoever asks for it: 30 days in milliseconds.
pub const RETRY_DELAY_MS_MAX: u64 = 30 * 24 * 3_600 * 1_000;

/// Longest lease: 1 day in milliseconds.
pub const LEASE_MS_MAX: u64 = 24 * 3_600 * 1_000;

/// Most bytes of an encoded cursor.
pub const CURSOR_BYTES_MAX: usize = 1 << 20;

// A day and thirty of them, whatever the factors above.
const _: () = assert!(LEASE_MS_MAX == 86_400_000 && RETRY_DELAY_MS_MAX == 30 * LEASE_MS_MAX);
// A delivery in the window always finds a place in the instance's table of held deliveries.
const _: () = assert!(INSTANCE_SPAN_MAX as u64 >= WINDOW_MAX);
// A message credit above what an instance can hold would mean nothing.
const _: () = assert!(CREDIT_MESSAGES_MAX as usize <= INSTANCE_SPAN_MAX);
// Everything not held of one instance's table can be reported at once.
const _: () = assert!(LATE_REPORT_MAX >= INSTANCE_SPAN_MAX as u64);
// The worst cursor: every second offset of the window finished (two varints of 3 bytes each), the ranges ahead (two
// of 10 each, twice their number after a restart), and an attempt count for each offset of the window (3 + 5 bytes).
const _: () =
    assert!(WINDOW_MAX / 2 * 6 + 2 * AHEAD_RANGES_MAX * 20 + WINDOW_MAX * 8 + 64 <= CURSOR_BYTES_MAX as u64);
