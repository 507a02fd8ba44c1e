//! The node's local log: one shared, group-committed, checksummed append-only log.
