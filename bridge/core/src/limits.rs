//! Every bound of the protocol core, and how the bounds relate.

/// Largest ledger record in bytes. The ledger stream refuses larger messages (design section 4).
pub const RECORD_BYTES_MAX: usize = 256 * 1024;

/// Bytes of fold state in one CHECKPOINT record; the rest of `RECORD_BYTES_MAX` is for the envelope and headers.
pub const CHECKPOINT_PART_BYTES: usize = 192 * 1024;

/// Most parts of one checkpoint: 192 KiB x 4096 = 768 MiB of state, about four million open claims.
pub const CHECKPOINT_PARTS_MAX: u32 = 4096;

/// Most messages in one batch.
pub const BATCH_MESSAGES_MAX: usize = 1000;

/// Most ranges in a claim: every message its own range.
pub const CLAIM_RANGES_MAX: usize = BATCH_MESSAGES_MAX;

/// Bytes a claim's range takes at worst (two varints).
const RANGE_BYTES_MAX: usize = 20;

/// Most ranges in the set of batches one PROGRESS record reports as done; what is behind them waits for the next one.
pub const DONE_RANGES_REPORTED_MAX: usize = 4096;

/// Most ranges in a set of done batches that a reader accepts.
pub const DONE_RANGES_MAX: usize = 2 * DONE_RANGES_REPORTED_MAX;

/// Most applications in an app set.
pub const APPS_MAX: usize = 256;

/// Most sources of a mapping.
pub const SOURCES_MAX: usize = 64;

/// Most filter subjects of a source.
pub const FILTERS_MAX: usize = 64;

/// Longest name (application, node, stream, feature) in bytes.
pub const NAME_BYTES_MAX: usize = 256;

/// Longest filter subject in bytes.
pub const SUBJECT_BYTES_MAX: usize = 1024;

/// Most bytes of encoded terms; the rest of `RECORD_BYTES_MAX` is for the envelope. Names and subjects at their limits take
/// more, so that this is a bound of its own.
pub const TERMS_BYTES_MAX: usize = RECORD_BYTES_MAX - 8 * 1024;

/// Most features a GENESIS record may activate.
pub const FEATURES_MAX: usize = 64;

/// Positions for which a fold remembers its hash, to compare with checkpoints and witnesses.
pub const WITNESS_RING: usize = 4096;

/// Most batches of a node that are staged and not yet resolved. Each holds payload on disk, and in memory until staged.
pub const UNRESOLVED_BATCHES_MAX: usize = 1024;

/// Most gaps below the acknowledgement floor that are under audit at once.
pub const AUDITS_MAX: usize = 256;

/// Most looks for stuck messages, and most such messages being fetched, of one source at once.
pub const STUCK_LOOKS_MAX: usize = 8;

/// By how much the wait for stuck messages is shorter where some were just found: to one of the hub's waits.
pub const STUCK_AGAIN_DIVISOR: u64 = 3;

/// Most messages of one source that are acknowledged by their sequence at once.
pub const STUCK_SETTLE_MAX: u64 = 1_000;

/// Most ranges remembered as needing no second look for stuck messages; beyond them they are looked at again.
pub const STUCK_PASSED_MAX: usize = 1_024;

/// Most steps of one look for a higher watermark, so that one input stays short.
pub const CLOSE_STEPS_MAX: usize = 65_536;

/// Most ranges of sequences in one fact: log lines name them.
pub const FACT_RANGES_MAX: usize = 64;

const _: () = assert!(STUCK_LOOKS_MAX < AUDITS_MAX);
/// Eighths of the ledger's size limit at which claims stop; the rest is for the records that empty it.
pub const LEDGER_STOP_EIGHTHS: u64 = 6;

/// Eighths of the ledger's size limit below which claims that had stopped go on.
pub const LEDGER_RESUME_EIGHTHS: u64 = 5;

/// Eighths of the ledger's size limit from which a checkpoint is written as soon as it pays.
pub const LEDGER_BRISK_EIGHTHS: u64 = 4;

/// A checkpoint pays when the purge behind it frees so many eighths of what the ledger holds.
pub const LEDGER_GAIN_EIGHTHS: u64 = 1;

/// How far above every position known a repaired ledger begins: more than a node that could not be asked may have read beyond
/// what is known, and room for the positions of claims that only disks know.
pub const REPAIR_GAP: u64 = 1 << 32;

/// What a CHECKPOINT record takes in the ledger besides the state's bytes, at most.
pub const CHECKPOINT_OVERHEAD_BYTES: usize = 512;

const _: () = assert!(LEDGER_STOP_EIGHTHS < 8 && LEDGER_RESUME_EIGHTHS < LEDGER_STOP_EIGHTHS);
const _: () = assert!(LEDGER_BRISK_EIGHTHS < LEDGER_RESUME_EIGHTHS && LEDGER_GAIN_EIGHTHS > 0);
const _: () = assert!(CHECKPOINT_OVERHEAD_BYTES < CHECKPOINT_PART_BYTES);
const _: () = assert!(CHECKPOINT_PART_BYTES + 16 * 1024 <= RECORD_BYTES_MAX);
const _: () = assert!(CLAIM_RANGES_MAX * RANGE_BYTES_MAX + 4096 <= RECORD_BYTES_MAX);
const _: () = assert!(DONE_RANGES_MAX * RANGE_BYTES_MAX + 4096 <= RECORD_BYTES_MAX);
const _: () = assert!(APPS_MAX * (NAME_BYTES_MAX + 16) + 4096 <= RECORD_BYTES_MAX);
const _: () = assert!(APPS_MAX * (NAME_BYTES_MAX + 16) < TERMS_BYTES_MAX);
const _: () = assert!(UNRESOLVED_BATCHES_MAX * 4 <= DONE_RANGES_MAX);
