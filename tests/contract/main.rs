//! Contract tests: each pins one fact about nats-server on which the protocol or the adapter relies, against a real
//! server. When one fails after an upgrade of the server, the design that rests on it must be looked at again, not the
//! test. Method: plain requests, no adapter in between, so that what is seen is the server's.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails by panicking, also in its helpers"
)]

mod acks;
mod consumers;
mod ledger;
mod server;
mod streams;
