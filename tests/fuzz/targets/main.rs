//! Fuzz targets, one per parser. Goal: whatever bytes come, a parser answers, does not panic, and takes no more memory than its
//! input can be worth; what it accepts it writes back alike; what stands on parsed records keeps its invariants. Method: valid
//! encodings with faults, numbers at the edges of their width, and bytes that never were an encoding; an allocator that counts.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails by panicking, also in its helpers"
)]

mod config;
mod cursors;
mod fold;
mod hub;
mod log;
mod records;
mod requests;
mod seeds;
mod stage;
