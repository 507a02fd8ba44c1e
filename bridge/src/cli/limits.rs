//! Every bound and every wait of the commands.

use std::time::Duration;

/// How long `run` may take to stop beyond the configured grace before the process ends itself.
pub const RUN_STOP_MARGIN: Duration = Duration::from_secs(10);
/// How long the other commands may take to stop after a signal.
pub const TOOL_STOP_MAX: Duration = Duration::from_secs(15);
/// Messages of `publish` that wait for the hub's word.
pub const PUBLISH_WINDOW: usize = fanin_hub::limits::PUBLISH_WINDOW_DEFAULT;
/// Payload bytes of `publish` that wait for the hub's word; a single larger message goes alone.
pub const PUBLISH_WINDOW_BYTES: usize = 16 * 1024 * 1024;
/// How long `publish` repeats a message with a message id while the hub is away.
pub const PUBLISH_RETRY_MAX: Duration = Duration::from_secs(30);
/// Pause between two attempts.
pub const PUBLISH_RETRY_PAUSE: Duration = Duration::from_millis(250);
/// A line above the size limit is measured up to this size for the message; a longer one is "at least" that.
pub const LINE_MEASURED_MAX: u64 = 1024 * 1024 * 1024;
/// Buffer in front of the input.
pub const INPUT_BUFFER_BYTES: usize = 256 * 1024;
/// Progress is shown this often.
pub const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);
/// Messages `subscribe` writes before it flushes and acknowledges them together.
pub const SUBSCRIBE_BATCH_MAX: usize = 512;
/// Written batches of `subscribe` whose acknowledgement is not confirmed yet.
pub const SUBSCRIBE_UNCONFIRMED_BATCHES_MAX: usize = 8;
/// How long `subscribe` waits, when it ends, for what it acknowledged to be confirmed.
pub const SUBSCRIBE_CLOSE_MAX: Duration = Duration::from_secs(10);
/// Longest `--wait` for a hub or a bridge that is starting.
pub const WAIT_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Pause between two attempts to reach a hub that is starting.
pub const HUB_WAIT_PAUSE: Duration = Duration::from_millis(100);
/// `status --watch` asks this often.
pub const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Bytes of a context file of the nats client.
pub const CONTEXT_BYTES_MAX: u64 = 64 * 1024;
/// Greatest age of a file of holdings that is taken when no other is named.
pub const FILED_AGE_DEFAULT: &str = "15m";

const _: () = assert!(SUBSCRIBE_CLOSE_MAX.as_secs() < TOOL_STOP_MAX.as_secs());
const _: () = assert!(SUBSCRIBE_BATCH_MAX <= fanin_sdk::limits::CREDIT_MESSAGES_DEFAULT as usize);
const _: () = assert!(PUBLISH_RETRY_PAUSE.as_millis() < PUBLISH_RETRY_MAX.as_millis());
