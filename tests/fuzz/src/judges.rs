//! What must hold of whatever bytes come: one function per parser, and per thing that stands on parsed bytes.
//!
//! The property tests in `targets/` call them with encodings made for the purpose, on stable; the coverage-guided targets in `fuzz/`
//! at the root call the same functions by way of [`TARGETS`], with bytes that libFuzzer found. A judge panics when something is wrong.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a judge fails by panicking"
)]

mod config;
mod hub;
mod input;
pub mod ledger;
pub mod log;
pub mod requests;
mod stage;

pub use config::problems;
pub use hub::{header_block, reply_subject};
pub use input::Input;
pub use ledger::{record, seq_set};
pub use stage::{STAGE_FACTOR, batch, batch_head, cursor, dead_letter, resolution};

/// A coverage-guided target: its name, and the judge that takes raw bytes.
pub type Target = (&'static str, fn(&[u8]));

/// The targets of `fuzz/`, by name. Each has a file of its own there and seeds in `fuzz/seeds/`.
pub const TARGETS: [Target; 8] = [
    ("records", records),
    ("fold", ledger::fold_of),
    ("checkpoints", ledger::checkpoint_of),
    ("log", log::log_of),
    ("stage", stage),
    ("requests", requests::requests_of),
    ("config", yaml),
    ("hub", hub),
];

/// Ledger records, and the sets in them.
pub fn records(bytes: &[u8]) {
    record(bytes);
    if let Some((most, set)) = bytes.split_first() {
        seq_set(set, usize::from(*most));
    }
}

/// Records of the local log. The first byte chooses the kind.
pub fn stage(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else {
        return;
    };
    match kind % 5 {
        0 => batch(bytes),
        1 => batch_head(bytes),
        2 => resolution(bytes),
        3 => dead_letter(bytes),
        _ => cursor(bytes),
    }
}

/// The configuration.
pub fn yaml(bytes: &[u8]) {
    problems(bytes);
}

/// Header blocks, and reply subjects.
pub fn hub(bytes: &[u8]) {
    header_block(bytes);
    reply_subject(&String::from_utf8_lossy(bytes));
}
