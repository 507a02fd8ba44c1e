//! Finds, fetches and runs a local nats-server for the demo, the benchmarks and the tests.
//!
//! [`ServerBinary::find_or_fetch`] gives a server that is new enough, [`LocalHub::start`] runs it with JetStream on
//! free ports of the loopback interface. Nothing here is for production: there an operator runs the hub.
//!
//! ```no_run
//! # async fn demo() -> Result<(), Box<dyn std::error::Error>> {
//! use fanin_localhub::{LocalHub, LocalHubOptions, ServerBinary};
//! let binary = ServerBinary::find_or_fetch(None)?;
//! let mut hub = LocalHub::start(LocalHubOptions::new(binary)).await?;
//! println!("{} and {}", hub.url(), hub.monitor_url());
//! hub.kill()?; // as if the power of its process had been cut
//! hub.restart().await?; // same port, same store
//! # Ok(()) }
//! ```

mod binary;
mod environment;
mod fetch;
mod hub;
mod hub_config;
mod leash;
pub mod limits;
mod pins;
mod ports;
mod procfs;

pub use binary::{BinaryError, ServerBinary, Version};
pub use environment::Environment;
pub use fetch::FetchError;
pub use hub::{LocalHub, LocalHubOptions, StartError, StopError};
pub use leash::Leash;
pub use ports::free_port;
pub use procfs::{cpu_time, rss};
