//! The hub adapter: NATS JetStream streams, the shared consumer, the ledger.
//!
//! This crate moves bytes and reports facts; it decides nothing and decodes no ledger record. The protocol lives in
//! `fanin-core`. What each part relies on from the server is pinned by `tests/contract`.
//!
//! | part | what it does |
//! |---|---|
//! | [`connection`] | one connection, its state, requests that fail fast instead of queueing while the hub is away |
//! | [`away`] | why no server is connected |
//! | [`source`] | facts of a source stream, its [`fanin_core::ids::Incarnation`] |
//! | [`consumer`] | the shared durable pull consumer: ensure, verify, info |
//! | [`puller`] | pulling batches from it |
//! | [`settle`] | acknowledging to the hub, with a probe that the batch got there |
//! | [`ledger`] | the ledger stream: ensure, append, tail, read, purge |
//! | [`messages`] | single messages by sequence, for REPAIR and the hole audit |
//! | [`port`] | the traits behind which all of this stands for the bridge |
//! | [`publish`] | publishing with a bounded window of unconfirmed messages |
//! | [`codes`] | the error codes users see, with cause and cure |
#![warn(missing_docs)]

pub mod api;
pub mod away;
pub mod codes;
pub mod connection;
pub mod consumer;
mod flow;
mod headers;
pub mod ledger;
pub mod limits;
pub mod messages;
pub mod options;
pub mod port;
pub mod publish;
pub mod puller;
pub mod reply;
pub mod settle;
pub mod source;
mod timestamp;
pub mod verify;

pub use api::ApiError;
pub use away::{Away, AwayKind};
pub use connection::{ConnectError, Connection, ConnectionState};
pub use consumer::{ConsumerError, ConsumerInfo, ConsumerSpec, CreatePolicy, SharedConsumer};
pub use flow::PullError;
pub use headers::{Headers, UNREADABLE_HEADERS, parse_block as parse_header_block};
pub use ledger::{FoundLedger, Ledger, LedgerError, LedgerInfo, LedgerOptions, Renewal};
pub use messages::{StoredMessage, fetch_message, next_matching};
pub use options::{HubOptions, Login, Secret, TlsOptions};
pub use publish::{Outgoing, PublishError, Publisher};
pub use puller::{Pulled, Puller};
pub use reply::{AckSubject, DeliveryFacts};
pub use settle::{SettleError, Settler};
pub use source::{SourceError, SourceInfo, incarnation};
pub use verify::Mismatch;

/// The hub's word that it stored a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PubAck {
    /// The sequence in the stream; for a duplicate, that of the first copy.
    pub seq: u64,
    /// True when the hub recognised the message id within the duplicate window and stored nothing.
    pub duplicate: bool,
}
