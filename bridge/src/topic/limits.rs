//! Every bound of a topic and its applications.

/// Commands that may wait for one application's task. A client that is faster waits in its own stream.
pub const COMMANDS_WAITING_MAX: usize = 1024;
/// Commands taken in one turn of an application's task before it goes on to deliver.
pub const COMMANDS_PER_TURN_MAX: usize = 256;
/// Messages handed over in one turn before commands are looked at again.
pub const DELIVERIES_PER_TURN_MAX: usize = 1024;
/// Deliveries in one frame.
pub const FRAME_MESSAGES_MAX: usize = 256;
/// Payload bytes in one frame; a larger message travels in a frame of its own.
pub const FRAME_BYTES_MAX: u64 = 256 * 1024;
/// Frames that may wait in one connection's channel.
pub const FRAMES_WAITING_MAX: usize = 8;
/// Bytes of credit that an instance has in the delivery machine, or as frames its channel had no room for. What the client
/// granted beyond waits here, so that a client that grants much and reads nothing costs no memory.
pub const SLICE_BYTES: u64 = 4 * 1024 * 1024;
/// The same, in messages.
pub const SLICE_MESSAGES: u64 = 4096;
/// Bytes of whole batches that the deliveries on their way to one instance may keep in memory. What it gets of further batches is
/// copied out of them: one message that a filter picks must not keep a batch.
pub const PINNED_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Beyond that, a batch is still kept when it takes at most so many times what the delivery itself does: a copy would save nothing.
pub const PIN_WORTH: u64 = 2;
/// Bytes that one instance's deliveries take until they are written to its connection, whatever it was granted and however its messages
/// lie in their batches. A message larger than a slice of credit travels alone and is beyond it.
pub const OUTBOUND_BYTES_MAX: u64 =
    PINNED_BYTES_MAX + PIN_WORTH * (SLICE_BYTES + (FRAMES_WAITING_MAX as u64 + 1) * FRAME_BYTES_MAX);
/// Credit that one instance can have in all; grants beyond it are dropped.
pub const CREDIT_BYTES_MAX: u64 = 1 << 40;
/// The same, in messages.
pub const CREDIT_MESSAGES_MAX: u64 = 1 << 32;
/// Applications of one topic.
pub const APPLICATIONS_MAX: usize = 256;
/// Ranges and single verdicts in one request.
pub const VERDICTS_PER_FRAME_MAX: usize = 16 * 1024;
/// Deliveries that the ranges of one request may name in all.
pub const VERDICT_DELIVERIES_MAX: u64 = 256 * 1024;
/// Bytes kept of a reason or an error text.
pub const REASON_BYTES_MAX: usize = 4 * 1024;
/// Bytes of an instance's name.
pub const INSTANCE_NAME_BYTES_MAX: usize = 256;
/// Dead letters of one application that are written at the same time.
pub const DEAD_LETTERS_AT_ONCE: usize = 16;
/// Newest dead letters of a topic that can be listed from memory; older ones stay in the local log and are counted.
pub const DEAD_LETTERS_LISTED_MAX: usize = 16 * 1024;
/// Pause before a dead letter or a cursor that the full log refused is written again, milliseconds.
pub const FULL_RETRY_MS: u64 = 500;
/// Pause before a body that could not be read is read again, milliseconds.
pub const READ_RETRY_MS: u64 = 2_000;
/// Batches of one topic that are read ahead of slow applications at the same time.
pub const READ_AHEAD_MAX: usize = 4;
/// Failures that wait for the owner; more are only logged.
pub const FAILURES_WAITING_MAX: usize = 64;
/// How often an application's gauges are brought up to date, milliseconds.
pub const GAUGES_EVERY_MS: u64 = 1_000;
/// How long a status waits for one application's task, milliseconds; then the values from before are shown.
pub const STATS_WAIT_MS: u64 = 1_000;
/// When a topic shuts down: how long a client has for sending what it has begun before the rest is taken back, milliseconds.
pub const CLOSING_LINGER_MS: u64 = 500;
/// Locks over which readers of the local log are spread, so that one batch is read once for all applications.
pub const READ_STRIPES: usize = 16;

const _: () = assert!(FRAME_BYTES_MAX * (FRAMES_WAITING_MAX as u64) <= SLICE_BYTES);
const _: () = assert!(FRAME_MESSAGES_MAX <= DELIVERIES_PER_TURN_MAX);
const _: () = assert!(SLICE_MESSAGES <= CREDIT_MESSAGES_MAX && SLICE_BYTES <= CREDIT_BYTES_MAX);
const _: () = assert!(SLICE_MESSAGES as usize >= FRAME_MESSAGES_MAX);
const _: () = assert!(PIN_WORTH > 1 && PINNED_BYTES_MAX >= SLICE_BYTES);
const _: () = assert!(OUTBOUND_BYTES_MAX <= 32 * 1024 * 1024);
