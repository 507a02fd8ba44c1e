//! Goal: the SDK keeps its side of the wire contract. Method: a scripted bridge in this process, over a real Unix
//! socket, that records what the SDK sends and answers as each test says.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "clippy exempts test functions, and the helpers of a test crate are tests as well"
)]

mod closing;
mod consuming;
mod fake_bridge;
mod pulling;
mod reconnecting;
mod throughput;
mod verdicts;
