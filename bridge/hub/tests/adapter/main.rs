//! The adapter against a real server: what it promises its callers, over restarts, deletions and refusals.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails by panicking, also in its helpers"
)]

mod connection;
mod consumer;
mod ledger;
mod poison;
mod support;
mod tail;
