//! The hub adapter: NATS JetStream streams, the shared consumer, the ledger.
