//! The application SDK: subscribe to a node-local topic over a Unix socket.
//!
//! A bridge process on the node takes messages from the hub and keeps them in a local topic. Each *application* gets
//! each message once; the *instances* of an application share its messages.
//!
//! # Quick start
//! A handler loop. `Ok` acknowledges, `Err` retries with the error's text:
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = fanin_sdk::Client::from_env().await?; // FANIN_SOCKET, else the default path
//! let ctrl_c = async { tokio::signal::ctrl_c().await.unwrap_or(()) };
//! client
//!     .consume("orders", "billing")
//!     .concurrency(16)
//!     .run_until(ctrl_c, |message: fanin_sdk::Message| async move {
//!         println!("{} {} bytes", message.id(), message.payload().len());
//!         Ok::<(), std::io::Error>(())
//!     })
//!     .await?;
//! # Ok(())
//! # }
//! ```
//!
//! A stream, with verdicts by hand:
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = fanin_sdk::Client::connect("unix:///run/fanin/fanin.sock").await?;
//! let mut messages = client.subscribe("orders", "billing").instance("billing-1").open().await?;
//! while let Some(message) = messages.next().await {
//!     let message = message?;
//!     println!("{} attempt {}", message.id(), message.attempt());
//!     message.ack().await?; // durable on the node
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Batches:
//! ```no_run
//! # async fn example(client: fanin_sdk::Client) -> Result<(), Box<dyn std::error::Error>> {
//! let mut messages = client.subscribe("orders", "warehouse").open().await?;
//! let batch = messages.pull(500, std::time::Duration::from_secs(1)).await?;
//! let bytes: usize = batch.iter().map(|message| message.payload().len()).sum();
//! println!("{} messages, {bytes} bytes", batch.len());
//! batch.ack_all().await?;
//! messages.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What "once" means
//! One durably confirmed acknowledgement. A process that dies between acting and acknowledging sees the same
//! [`Message::id`] again: handlers whose effect must not happen twice keep that id with the effect, in one transaction.
//!
//! # Errors
//! One type per operation. Each answers `is_retryable()` and `may_have_effect()`.

mod client;
mod confirmation;
mod connection;
mod consume;
mod error;
pub mod limits;
mod message;
mod pull;
mod retry;
mod shared;
mod subscription;
mod table;
mod verdicts;

pub use client::{Client, ClientBuilder, SOCKET_DEFAULT, SOCKET_VARIABLE};
pub use confirmation::{BatchConfirmation, Confirmation};
pub use consume::Consumer;
pub use error::{
    AckError, BatchAckError, CloseError, ConnectError, ConsumeError, StatusError, SubscribeError,
};
pub use message::{Headers, Message};
pub use pull::PulledBatch;
pub use subscription::{Subscription, SubscriptionBuilder};

/// What a node tells about itself, as in the wire contract.
pub mod status {
    pub use fanin_proto::v1::{
        AppStatus, HubStatus, InstanceStatus, MappingStatus, SourceStatus, StatusResponse, StoreStatus,
    };
}
