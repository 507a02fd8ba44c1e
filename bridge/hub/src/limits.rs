//! Every bound and every time-out of the hub adapter.

use std::time::Duration;

/// One attempt to reach one server, TLS included.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long `connect` waits for JetStream to come up behind a server that already answers.
pub const JETSTREAM_START_WAIT: Duration = Duration::from_secs(10);
/// A request to the JetStream API.
pub const API_TIMEOUT: Duration = Duration::from_secs(5);
/// Waiting for the hub's word on one appended or published message.
pub const PUB_ACK_TIMEOUT: Duration = Duration::from_secs(5);
/// Waiting for the reply to the probe behind a batch of settlements.
pub const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);
/// Pings tell a dead connection from an idle one; two unanswered ones end it.
pub const PING_INTERVAL: Duration = Duration::from_secs(10);

/// First and longest pause between two attempts to connect; half of each pause is random.
pub const RECONNECT_PAUSE_FIRST: Duration = Duration::from_millis(20);
/// See [`RECONNECT_PAUSE_FIRST`].
pub const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(4);

/// Pause before a client that ended is replaced.
pub const CLIENT_REPLACE_PAUSE: Duration = Duration::from_millis(200);

/// How long an event of the client library may lag behind its own state.
pub const STATE_SETTLES: Duration = Duration::from_millis(10);

/// Messages the client buffers per subscription before it drops some.
pub const SUBSCRIPTION_CAPACITY: usize = 8_192;
/// Commands the client queues towards the socket.
pub const COMMAND_CAPACITY: usize = 2_048;
/// Permission violations remembered to explain requests that nobody answers.
pub const DENIED_REMEMBERED: usize = 32;

/// The most messages one pull request may ask for; also the consumer's `max_batch`.
pub const PULL_BATCH_MAX: usize = 1_000;
/// Pull requests of one puller open at the hub at once, each of which may bring a batch's bytes.
pub const OPEN_PULLS_MAX: usize = 4;
/// After a connection broke under open pulls, this many messages are asked for one at a time.
pub const CAREFUL_MESSAGES: usize = 1_000;
/// How long the hub holds a pull request open.
pub const PULL_EXPIRES: Duration = Duration::from_secs(30);
/// Grace behind [`PULL_EXPIRES`] before a request of which nothing was heard is written off.
pub const PULL_GRACE: Duration = Duration::from_secs(5);
/// The hub says this often that an idle pull is still known.
pub const PULL_HEARTBEAT: Duration = Duration::from_secs(5);
/// Silence on an open pull after which it is held to be lost.
pub const PULL_SILENCE_MAX: Duration = Duration::from_secs(12);
/// A puller that lets go waits this long for a message under way, and this long in all.
pub const RELEASE_QUIET: Duration = Duration::from_millis(50);
/// See [`RELEASE_QUIET`].
pub const RELEASE_MAX: Duration = Duration::from_secs(1);
/// Room added to the largest payload for subject, headers and framing, as the hub counts bytes of a pull.
pub const MESSAGE_OVERHEAD_BYTES: usize = 64 * 1024;

/// What is kept of headers that cannot be read, bytes before they become base64.
pub const UNREADABLE_BYTES_MAX: usize = 4 * 1024;

/// Pull requests the shared consumer keeps, per node and at least.
pub const MAX_WAITING_PER_NODE: u64 = 16;
/// See [`MAX_WAITING_PER_NODE`].
pub const MAX_WAITING_MIN: u64 = 512;

/// The largest ledger record, bytes.
pub const LEDGER_RECORD_BYTES_MAX: u32 = 256 * 1024;
/// The ledger's default size limit, bytes.
pub const LEDGER_BYTES_DEFAULT: u64 = 1024 * 1024 * 1024;
/// The ledger's duplicate window.
pub const LEDGER_DUPLICATE_WINDOW: Duration = Duration::from_secs(600);
/// Ledger records one tail asks for at a time.
pub const TAIL_BATCH: usize = 500;
/// Events handed over by one [`crate::ledger::tail::Tail::next_ready`].
pub const TAIL_READY_MAX: usize = 2_000;
/// The hub forgets a tail's consumer after this much silence.
pub const TAIL_INACTIVE: Duration = Duration::from_secs(60);
/// First and longest pause between two attempts to open the tail.
pub const TAIL_PAUSE_FIRST: Duration = Duration::from_millis(50);
/// See [`TAIL_PAUSE_FIRST`].
pub const TAIL_PAUSE_MAX: Duration = Duration::from_secs(5);

/// Unconfirmed messages of one [`crate::Publisher`].
pub const PUBLISH_WINDOW_DEFAULT: usize = 256;

const _: () = assert!(OPEN_PULLS_MAX * PULL_BATCH_MAX <= SUBSCRIPTION_CAPACITY);
const _: () = assert!(CAREFUL_MESSAGES >= PULL_BATCH_MAX);
const _: () = assert!(TAIL_BATCH <= PULL_BATCH_MAX);
const _: () = assert!(PULL_HEARTBEAT.as_millis() * 2 <= PULL_EXPIRES.as_millis());
const _: () = assert!(PULL_SILENCE_MAX.as_millis() > PULL_HEARTBEAT.as_millis() * 2);
const _: () = assert!(TAIL_INACTIVE.as_millis() > PULL_EXPIRES.as_millis());
const _: () = assert!(PUBLISH_WINDOW_DEFAULT < COMMAND_CAPACITY);
