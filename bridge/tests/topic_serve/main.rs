//! The topic and its socket, together. Goal: what section 5 and 6 of the design promise to an application. Method: a real
//! topic over the log's twin in memory, a real Unix socket, and clients that speak the bare contract.
#![allow(missing_docs)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod crash;
mod delivery;
mod entitlement;
mod harness;
mod hostile;
mod refusals;
mod room;
mod sdk;
mod stopping;
