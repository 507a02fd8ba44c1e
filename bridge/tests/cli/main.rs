//! The commands as users call them. Method: the real binary, in a temporary directory and an environment in which
//! nothing of the machine's own is found; with a real hub where a case needs one.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod bench;
mod demo;
mod hub_away;
mod interrupted;
mod log_codes;
mod offline;
mod online;
mod support;
mod tour;
