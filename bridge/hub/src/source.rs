//! Facts of a source stream, and its incarnation.

use fanin_core::ids::Incarnation;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{ApiError, server_code};
use crate::codes;
use crate::connection::Connection;
use crate::timestamp;

/// What the hub says about a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceInfo {
    /// The stream's name.
    pub stream: String,
    /// When it was created, nanoseconds since 1970. A re-created stream has another time, a restored one the old.
    pub created_ns: u64,
    /// The first sequence still stored.
    pub first_seq: u64,
    /// The last sequence given, stored or not.
    pub last_seq: u64,
    /// When the last message was stored, nanoseconds since 1970; 0 when there never was one.
    pub last_ns: i64,
    /// Messages stored.
    pub messages: u64,
    /// Bytes stored.
    pub bytes: u64,
    /// Subjects it takes; empty for a mirror.
    pub subjects: Vec<String>,
    /// `limits`, `interest` or `workqueue`.
    pub retention: String,
    /// `file` or `memory`.
    pub storage: String,
    /// Replicas.
    pub replicas: u64,
    /// Messages older than this are discarded, nanoseconds; 0: never.
    pub max_age_ns: u64,
    /// Size limit, bytes; -1: none.
    pub max_bytes: i64,
    /// Most messages; -1: no limit.
    pub max_messages: i64,
    /// Most messages of one subject; -1: no limit.
    pub max_per_subject: i64,
    /// At its limits it refuses new messages; otherwise it discards old ones.
    pub discard_new: bool,
    /// The same for the limit of one subject.
    pub discard_new_per_subject: bool,
    /// `default` or `async`; empty where the server does not say (before 2.12). `async` writes behind the hub's word.
    pub persist_mode: String,
    /// It is the mirror of another stream.
    pub mirror: bool,
    /// It copies other streams' messages under sequences of its own.
    pub sourced: bool,
    /// The leader's server name, in a cluster.
    pub leader: Option<String>,
}

/// Why a stream's facts are not to be had.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// There is no such stream.
    #[error(
        "the hub has no stream {stream}; create it, or correct the mapping's source, or name servers of its account and domain"
    )]
    Missing {
        /// The stream.
        stream: String,
    },
    /// The request failed.
    #[error("cannot read the facts of stream {stream}")]
    Hub {
        /// The stream.
        stream: String,
        /// Why.
        source: ApiError,
    },
    /// The server's creation time cannot be read, so the incarnation is unknown.
    #[error(
        "the creation time {text:?} of stream {stream} cannot be read; is the server's version supported?"
    )]
    BadTime {
        /// The stream.
        stream: String,
        /// The server's text.
        text: String,
    },
}

impl SourceError {
    /// True when trying again later may help without any change.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            SourceError::Missing { .. } | SourceError::BadTime { .. } => false,
            SourceError::Hub { source, .. } => source.retryable(),
        }
    }

    /// The stable code users can look up.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            SourceError::Missing { .. } => codes::SOURCE_MISSING,
            SourceError::BadTime { .. } => codes::HUB_REFUSED,
            SourceError::Hub { source, .. } => source.code(),
        }
    }
}

#[derive(Deserialize)]
pub(crate) struct StreamReply {
    pub(crate) config: Value,
    pub(crate) created: String,
    pub(crate) state: StreamState,
    #[serde(default)]
    cluster: Option<Cluster>,
}

#[derive(Deserialize)]
pub(crate) struct StreamState {
    #[serde(default)]
    pub(crate) messages: u64,
    #[serde(default)]
    pub(crate) bytes: u64,
    #[serde(default)]
    pub(crate) first_seq: u64,
    #[serde(default)]
    pub(crate) last_seq: u64,
    /// A time in the year 1 for a stream that never had a message.
    #[serde(default)]
    pub(crate) last_ts: Option<String>,
}

#[derive(Deserialize)]
struct Cluster {
    #[serde(default)]
    leader: Option<String>,
}

/// The raw information on a stream.
pub(crate) async fn stream_info(connection: &Connection, stream: &str) -> Result<StreamReply, SourceError> {
    connection
        .api(&format!("STREAM.INFO.{stream}"), &())
        .await
        .map_err(|source| {
            if source.server_code() == Some(server_code::STREAM_NOT_FOUND) {
                SourceError::Missing {
                    stream: stream.to_owned(),
                }
            } else {
                SourceError::Hub {
                    stream: stream.to_owned(),
                    source,
                }
            }
        })
}

pub(crate) fn created_ns(stream: &str, text: &str) -> Result<u64, SourceError> {
    timestamp::parse_ns(text).ok_or_else(|| SourceError::BadTime {
        stream: stream.to_owned(),
        text: text.to_owned(),
    })
}

/// The last message's time; 0 for one that cannot be read, which says as little as none.
fn last_ns(state: &StreamState) -> i64 {
    let parsed = state.last_ts.as_deref().and_then(timestamp::parse_ns);
    parsed.and_then(|ns| i64::try_from(ns).ok()).unwrap_or(0)
}

impl SourceInfo {
    /// Asks the hub about a stream.
    ///
    /// # Errors
    /// [`SourceError`].
    pub async fn fetch(connection: &Connection, stream: &str) -> Result<SourceInfo, SourceError> {
        let reply = stream_info(connection, stream).await?;
        let text = |name: &str| {
            reply
                .config
                .get(name)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let limit = |name: &str| reply.config.get(name).and_then(Value::as_i64).unwrap_or(-1);
        let present = |name: &str| {
            reply
                .config
                .get(name)
                .is_some_and(|v| !v.is_null() && v.as_array().is_none_or(|a| !a.is_empty()))
        };
        Ok(SourceInfo {
            stream: stream.to_owned(),
            created_ns: created_ns(stream, &reply.created)?,
            first_seq: reply.state.first_seq,
            last_seq: reply.state.last_seq,
            last_ns: last_ns(&reply.state),
            messages: reply.state.messages,
            bytes: reply.state.bytes,
            subjects: reply
                .config
                .get("subjects")
                .and_then(Value::as_array)
                .map(|list| list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
                .unwrap_or_default(),
            retention: text("retention"),
            storage: text("storage"),
            replicas: reply
                .config
                .get("num_replicas")
                .and_then(Value::as_u64)
                .unwrap_or(1),
            max_age_ns: reply.config.get("max_age").and_then(Value::as_u64).unwrap_or(0),
            max_bytes: limit("max_bytes"),
            max_messages: limit("max_msgs"),
            max_per_subject: limit("max_msgs_per_subject"),
            discard_new: text("discard") == "new",
            discard_new_per_subject: reply
                .config
                .get("discard_new_per_subject")
                .and_then(Value::as_bool)
                .unwrap_or(false),
            persist_mode: text("persist_mode"),
            mirror: present("mirror"),
            sourced: present("sources"),
            leader: reply.cluster.and_then(|c| c.leader),
        })
    }

    /// Creates a stream for these subjects: file storage, limits retention, no limits. One that is there already is
    /// left as it is. Several may do this at once.
    ///
    /// # Errors
    /// [`SourceError::Hub`], for instance when another stream takes one of the subjects.
    pub async fn create(
        connection: &Connection,
        stream: &str,
        subjects: &[String],
        replicas: u64,
    ) -> Result<(), SourceError> {
        let config = json!({
            "name": stream,
            "subjects": subjects,
            "storage": "file",
            "retention": "limits",
            "num_replicas": replicas.max(1),
        });
        let created: Result<StreamReply, ApiError> =
            connection.api(&format!("STREAM.CREATE.{stream}"), &config).await;
        match created {
            Ok(_) => Ok(()),
            Err(error) if error.server_code() == Some(server_code::STREAM_NAME_IN_USE) => Ok(()),
            Err(source) => Err(SourceError::Hub {
                stream: stream.to_owned(),
                source,
            }),
        }
    }

    /// This stream's incarnation under the operator's generation number (0 unless raised by hand).
    #[must_use]
    pub fn incarnation(&self, generation: u64) -> Incarnation {
        incarnation(&self.stream, self.created_ns, generation)
    }
}

/// The incarnation of a stream: FNV-1a (64 bit) over its name in UTF-8, a zero byte, the creation time in nanoseconds
/// since 1970 and the operator's generation number, both as 8 bytes, little end first. Every bridge must compute the
/// same, so this never changes.
#[must_use]
pub fn incarnation(stream: &str, created_ns: u64, generation: u64) -> Incarnation {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let bytes = stream
        .bytes()
        .chain([0])
        .chain(created_ns.to_le_bytes())
        .chain(generation.to_le_bytes());
    Incarnation(bytes.fold(OFFSET_BASIS, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(PRIME)
    }))
}

#[cfg(test)]
mod tests {
    //! Goal: incarnations never change between versions of fanin. Method: golden values computed independently.
    use super::*;

    #[test]
    fn golden() {
        assert_eq!(
            incarnation("ORDERS", 1_714_979_289_000_000_001, 0).to_string(),
            GOLDEN[0]
        );
        assert_eq!(
            incarnation("ORDERS", 1_714_979_289_000_000_001, 1).to_string(),
            GOLDEN[1]
        );
        assert_eq!(
            incarnation("ORDERS", 1_714_979_289_000_000_002, 0).to_string(),
            GOLDEN[2]
        );
    }

    const GOLDEN: [&str; 3] = ["49d7e104ee3218a9", "2add19fbe342ce88", "dd788d0c8dac3fa2"];
}
