//! End-to-end tests: a real nats-server, real bridge processes, applications over the SDK, faults on purpose, and an
//! offline checker that wants every message once per application. The clean-up of each test also fails it when a bridge
//! logged an ERROR that the test does not name.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::large_futures,
    reason = "a test fails by panicking, also in its helpers; the size of its future is nobody's concern"
)]

mod app_sets;
mod backlog;
mod bad_input;
mod bar;
mod cluster;
mod consumers;
mod damage;
mod delivery;
mod disk;
mod entitlement;
mod failpoints;
mod holdings;
mod hostile;
mod hostile_memory;
mod hub_faults;
mod hub_store;
mod identity;
mod ledger;
mod links;
mod outbound;
mod pauses;
mod poison;
mod regrown;
mod repair;
mod repair_source;
mod rolled_back;
mod servers;
mod sources;
mod stale_reads;
mod starts;
mod tool;
mod users;
mod verify;
