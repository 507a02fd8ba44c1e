//! Bounds of an audit.

use std::time::Duration;

/// Most findings of one kind and source that are listed; more are counted.
pub const FINDINGS_LISTED_MAX: usize = 1_000;

/// Most gaps of one source that are looked into.
pub const GAPS_MAX: usize = 10_000;

/// How long the ledger may stand still while it is read.
pub const READ_IDLE_MAX: Duration = Duration::from_secs(30);

/// How long a node may take to tell what it holds.
pub const NODE_WAIT_MAX: Duration = Duration::from_secs(15);

/// Most bytes of one part of a node's answer.
pub const PART_BYTES_MAX: usize = 16 << 20;

/// Most bytes of the state of a node's fold: what a checkpoint may hold.
pub const STATE_BYTES_MAX: usize =
    fanin_core::limits::CHECKPOINT_PART_BYTES * fanin_core::limits::CHECKPOINT_PARTS_MAX as usize;

/// Longest line of a backup of a ledger: a record in base64, with what stands around it.
pub const BACKUP_LINE_BYTES_MAX: usize = 2 * fanin_core::limits::RECORD_BYTES_MAX;

/// How long a repair waits for bridges to have read a ledger that it has sealed.
pub const SETTLE_WAIT_MAX: Duration = Duration::from_secs(20);

/// Pause between two looks at that.
pub const SETTLE_PAUSE: Duration = Duration::from_millis(200);

/// So long nobody must have claimed anything of a source whose consumer was taken away: messages wait a second at most to be
/// gathered, and are staged and claimed then.
pub const CALM_MIN: Duration = Duration::from_secs(3);

/// Most batches of one node that are taken in.
pub const NODE_BATCHES_MAX: usize = 1 << 20;

/// Longest line of a file of holdings: a batch, or an application, with every range it names written out.
pub const FILED_LINE_BYTES_MAX: u64 = 8 * PART_BYTES_MAX as u64;
