//! The ledger stream: its exact settings, and the handle to append to, tail, read and purge it.
//!
//! The stream is named `<PREFIX>-<mapping>`, the prefix in capitals with `_` for `.`: `FANIN-orders` for the mapping
//! `orders` under the default prefix `fanin`. Its subjects are `<prefix>.<mapping>.>`. What stands behind that is called
//! a record's *suffix* here: `claim.<node>`, `checkpoint` and so on.

mod append;
mod read;
mod renew;
pub mod tail;

pub use append::AppendError;
pub use renew::{FoundLedger, Renewal};

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{ApiError, server_code};
use crate::codes;
use crate::connection::Connection;
use crate::limits;
use crate::source::{self, SourceError, StreamReply};
use crate::verify::{Mismatch, differences, sentence};

/// What a mapping needs of its ledger.
#[derive(Clone, Debug)]
pub struct LedgerOptions {
    /// The mapping's name.
    pub mapping: String,
    /// The subject prefix, `fanin` by default.
    pub prefix: String,
    /// Replicas, as many as the source has. A ledger with fewer is refused, one with more is fine.
    pub replicas: u64,
    /// Size limit for a ledger created here, bytes. An existing one keeps its own.
    pub max_bytes: u64,
    /// False when this node has worked with the ledger before: then a missing one is an error.
    pub may_create: bool,
}

impl LedgerOptions {
    /// A mapping's ledger with the defaults: prefix `fanin`, one replica, 1 GiB, may be created.
    #[must_use]
    pub fn new(mapping: &str) -> LedgerOptions {
        LedgerOptions {
            mapping: mapping.to_owned(),
            prefix: "fanin".to_owned(),
            replicas: 1,
            max_bytes: limits::LEDGER_BYTES_DEFAULT,
            may_create: true,
        }
    }

    /// The stream's name.
    #[must_use]
    pub fn stream(&self) -> String {
        format!(
            "{}-{}",
            self.prefix.to_uppercase().replace('.', "_"),
            self.mapping
        )
    }

    /// The whole configuration as sent to the hub.
    #[must_use]
    pub fn config(&self) -> Value {
        json!({
            "name": self.stream(),
            "description": format!("fanin ledger of mapping {}", self.mapping),
            "subjects": [format!("{}.{}.>", self.prefix, self.mapping)],
            "retention": "limits",
            "storage": "file",
            "num_replicas": self.replicas.max(1),
            "discard": "new",
            "max_msgs": -1,
            "max_bytes": self.max_bytes,
            "max_age": 0,
            "max_msgs_per_subject": -1,
            "max_msg_size": limits::LEDGER_RECORD_BYTES_MAX,
            "max_consumers": -1,
            "duplicate_window": u64::try_from(limits::LEDGER_DUPLICATE_WINDOW.as_nanos()).unwrap_or(u64::MAX),
            "allow_direct": false,
            "mirror_direct": false,
            "deny_delete": true,
            "deny_purge": false,
            "allow_rollup_hdrs": false,
            "metadata": { "fanin.mapping": self.mapping },
        })
    }

    /// The settings in which an existing stream's configuration differs from what the rules need.
    fn verify(&self, found: &Value) -> Vec<Mismatch> {
        const EXACT: [&str; 27] = [
            "subjects",
            "retention",
            "storage",
            "discard",
            "discard_new_per_subject",
            "max_msgs",
            "max_age",
            "max_msgs_per_subject",
            "max_msg_size",
            "duplicate_window",
            "allow_direct",
            "mirror_direct",
            "deny_delete",
            "deny_purge",
            "allow_rollup_hdrs",
            "no_ack",
            "sealed",
            "mirror",
            "sources",
            "republish",
            "subject_transform",
            "allow_msg_ttl",
            "subject_delete_marker_ttl",
            "allow_atomic",
            "allow_batched",
            "allow_msg_counter",
            "allow_msg_schedules",
        ];
        let mut mismatches = differences(found, &self.config(), &EXACT);
        let replicas = found.get("num_replicas").and_then(Value::as_u64).unwrap_or(1);
        if replicas < self.replicas {
            mismatches.push(Mismatch {
                setting: "num_replicas".to_owned(),
                found: replicas.to_string(),
                wanted: format!("{} or more, as the source has", self.replicas),
            });
        }
        let persist = found
            .get("persist_mode")
            .and_then(Value::as_str)
            .unwrap_or("default");
        if persist == "async" {
            mismatches.push(Mismatch {
                setting: "persist_mode".to_owned(),
                found: persist.to_owned(),
                wanted: "default".to_owned(),
            });
        }
        mismatches
    }
}

/// The ledger's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerInfo {
    /// The first position still stored.
    pub first_seq: u64,
    /// The last position given.
    pub last_seq: u64,
    /// Records stored.
    pub messages: u64,
    /// Bytes stored.
    pub bytes: u64,
    /// Size limit, bytes; -1: none.
    pub max_bytes: i64,
    /// When the stream was created, nanoseconds since 1970.
    pub created_ns: u64,
}

/// Why there is no usable ledger, or it could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// It is missing and must not be created silently.
    #[error(
        "the ledger {stream} is missing although this node has worked with it; restore it, or see `fanin ledger repair --dry-run`"
    )]
    Missing {
        /// The ledger's stream.
        stream: String,
    },
    /// It exists with settings the rules cannot work with.
    #[error(
        "the ledger {stream} differs: {}; restore these settings with `nats stream edit`",
        sentence(mismatches)
    )]
    Differs {
        /// The ledger's stream.
        stream: String,
        /// Which settings.
        mismatches: Vec<Mismatch>,
    },
    /// The stream under this name was deleted and created again.
    #[error("the ledger {stream} was deleted and created again; the mapping halts")]
    Recreated {
        /// The ledger's stream.
        stream: String,
    },
    /// The hub has not enough storage.
    #[error(
        "the hub has no storage for the ledger {stream} of {max_bytes} bytes; give JetStream more, or set the mapping's ledger.max_bytes lower"
    )]
    NoRoom {
        /// The ledger's stream.
        stream: String,
        /// The size asked for, bytes.
        max_bytes: u64,
    },
    /// The hub's answer about the stream cannot be had.
    #[error("cannot look after the ledger {stream}")]
    Facts {
        /// The ledger's stream.
        stream: String,
        /// Why.
        source: SourceError,
    },
    /// The request failed.
    #[error("a request on the ledger {stream} failed")]
    Hub {
        /// The ledger's stream.
        stream: String,
        /// Why.
        source: ApiError,
    },
}

impl LedgerError {
    /// True when trying again later may help without any change.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            LedgerError::Missing { .. }
            | LedgerError::Differs { .. }
            | LedgerError::Recreated { .. }
            | LedgerError::NoRoom { .. } => false,
            LedgerError::Facts { source, .. } => source.retryable(),
            LedgerError::Hub { source, .. } => source.retryable(),
        }
    }

    /// The stable code users can look up.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            LedgerError::Missing { .. } => codes::LEDGER_MISSING,
            LedgerError::Differs { .. } => codes::LEDGER_DIFFERS,
            LedgerError::Recreated { .. } => codes::LEDGER_RECREATED,
            LedgerError::NoRoom { .. } => codes::LEDGER_NO_ROOM,
            LedgerError::Facts { source, .. } => source.code(),
            LedgerError::Hub { source, .. } => source.code(),
        }
    }
}

/// A verified ledger.
#[derive(Clone)]
pub struct Ledger {
    connection: Connection,
    stream: String,
    subject_base: String,
    created_ns: u64,
    predecessors: BTreeSet<u64>,
}

#[derive(Deserialize)]
struct PurgeReply {
    #[serde(default)]
    purged: u64,
}

impl Ledger {
    /// Makes sure that the ledger exists with exactly the needed settings. Several nodes may do this at once.
    ///
    /// # Errors
    /// [`LedgerError`]; an existing ledger is never changed.
    pub async fn ensure(connection: &Connection, options: &LedgerOptions) -> Result<Ledger, LedgerError> {
        let stream = options.stream();
        let reply = match source::stream_info(connection, &stream).await {
            Ok(reply) => reply,
            Err(SourceError::Missing { .. }) if options.may_create => create(connection, options).await?,
            Err(source) => return Err(of_facts(&stream, source)),
        };
        let mismatches = options.verify(&reply.config);
        if !mismatches.is_empty() {
            return Err(LedgerError::Differs { stream, mismatches });
        }
        Ledger::of(connection, options, &reply)
    }

    fn of(
        connection: &Connection,
        options: &LedgerOptions,
        reply: &StreamReply,
    ) -> Result<Ledger, LedgerError> {
        let stream = options.stream();
        let created_ns =
            source::created_ns(&stream, &reply.created).map_err(|source| of_facts(&stream, source))?;
        Ok(Ledger {
            connection: connection.clone(),
            stream,
            subject_base: format!("{}.{}.", options.prefix, options.mapping),
            created_ns,
            predecessors: renew::predecessors(&reply.config),
        })
    }

    /// The stream's name.
    #[must_use]
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// When the stream was created, nanoseconds since 1970: the ledger's own incarnation.
    #[must_use]
    pub fn created_ns(&self) -> u64 {
        self.created_ns
    }

    /// The creation times of the streams in whose place a repair has begun this one.
    #[must_use]
    pub fn predecessors(&self) -> &BTreeSet<u64> {
        &self.predecessors
    }

    /// The ledger's state as of now, from its leader.
    ///
    /// # Errors
    /// [`LedgerError::Recreated`] when the stream is not the one that was verified; [`LedgerError::Missing`]; a failed
    /// request.
    pub async fn info(&self) -> Result<LedgerInfo, LedgerError> {
        let reply = source::stream_info(&self.connection, &self.stream)
            .await
            .map_err(|source| of_facts(&self.stream, source))?;
        let created_ns = source::created_ns(&self.stream, &reply.created)
            .map_err(|source| of_facts(&self.stream, source))?;
        if created_ns != self.created_ns {
            return Err(LedgerError::Recreated {
                stream: self.stream.clone(),
            });
        }
        Ok(LedgerInfo {
            first_seq: reply.state.first_seq,
            last_seq: reply.state.last_seq,
            messages: reply.state.messages,
            bytes: reply.state.bytes,
            max_bytes: reply
                .config
                .get("max_bytes")
                .and_then(Value::as_i64)
                .unwrap_or(-1),
            created_ns,
        })
    }

    /// The whole subject of a suffix.
    fn subject(&self, suffix: &str) -> String {
        format!("{}{suffix}", self.subject_base)
    }

    fn of_api(&self, source: ApiError) -> LedgerError {
        if source.server_code() == Some(server_code::STREAM_NOT_FOUND) {
            LedgerError::Missing {
                stream: self.stream.clone(),
            }
        } else {
            LedgerError::Hub {
                stream: self.stream.clone(),
                source,
            }
        }
    }
}

async fn create(connection: &Connection, options: &LedgerOptions) -> Result<StreamReply, LedgerError> {
    let stream = options.stream();
    match connection
        .api(&format!("STREAM.CREATE.{stream}"), &options.config())
        .await
    {
        Ok(reply) => Ok(reply),
        // Another node was faster, with another size limit perhaps: what is there gets verified.
        Err(error) if error.server_code() == Some(server_code::STREAM_NAME_IN_USE) => {
            source::stream_info(connection, &stream)
                .await
                .map_err(|source| of_facts(&stream, source))
        }
        Err(error)
            if matches!(
                error.server_code(),
                Some(server_code::STORAGE_EXCEEDED | server_code::INSUFFICIENT_RESOURCES)
            ) =>
        {
            Err(LedgerError::NoRoom {
                stream,
                max_bytes: options.max_bytes,
            })
        }
        Err(source) => Err(LedgerError::Hub { stream, source }),
    }
}

fn of_facts(stream: &str, source: SourceError) -> LedgerError {
    match source {
        SourceError::Missing { .. } => LedgerError::Missing {
            stream: stream.to_owned(),
        },
        source @ (SourceError::Hub { .. } | SourceError::BadTime { .. }) => LedgerError::Facts {
            stream: stream.to_owned(),
            source,
        },
    }
}

#[cfg(test)]
mod tests {
    //! Goal: names, and that every setting the rules rest on is checked. Method: vary the configuration field by field.
    use super::*;

    #[test]
    fn names() {
        assert_eq!(LedgerOptions::new("orders").stream(), "FANIN-orders");
        let other = LedgerOptions {
            prefix: "team.fanin".into(),
            ..LedgerOptions::new("orders")
        };
        assert_eq!(other.stream(), "TEAM_FANIN-orders");
        assert_eq!(other.config()["subjects"], json!(["team.fanin.orders.>"]));
    }

    #[test]
    fn each_setting_is_named() {
        let options = LedgerOptions {
            replicas: 3,
            ..LedgerOptions::new("orders")
        };
        assert_eq!(options.verify(&options.config()), vec![]);
        for (setting, value) in [
            ("subjects", json!(["fanin.orders.>", "x"])),
            ("retention", json!("workqueue")),
            ("storage", json!("memory")),
            ("discard", json!("old")),
            ("discard_new_per_subject", json!(true)),
            ("max_msgs", json!(5)),
            ("max_age", json!(1)),
            ("max_msgs_per_subject", json!(1)),
            ("max_msg_size", json!(1)),
            ("duplicate_window", json!(1)),
            ("allow_direct", json!(true)),
            ("mirror_direct", json!(true)),
            ("deny_delete", json!(false)),
            ("deny_purge", json!(true)),
            ("allow_rollup_hdrs", json!(true)),
            ("no_ack", json!(true)),
            ("sealed", json!(true)),
            ("mirror", json!({"name": "x"})),
            ("sources", json!([{"name": "x"}])),
            ("republish", json!({"dest": "x"})),
            ("subject_transform", json!({"src": "a", "dest": "x"})),
            ("allow_msg_ttl", json!(true)),
            ("subject_delete_marker_ttl", json!(1)),
            ("allow_atomic", json!(true)),
            ("allow_batched", json!(true)),
            ("allow_msg_counter", json!(true)),
            ("allow_msg_schedules", json!(true)),
            ("num_replicas", json!(1)),
            ("persist_mode", json!("async")),
        ] {
            let mut config = options.config();
            config[setting] = value;
            let named: Vec<String> = options.verify(&config).into_iter().map(|m| m.setting).collect();
            assert_eq!(named, [setting]);
        }
    }
}
