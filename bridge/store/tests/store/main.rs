//! The store's tests: one conformance suite for the log on disk and its twin in memory, and what only a disk can do.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod conformance;
mod damage;
mod fault;
mod model;
mod space;
mod support;
mod values;
