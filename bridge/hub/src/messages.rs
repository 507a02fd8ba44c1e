//! Single messages of a stream, read from its leader: for REPAIR, for refetching damaged bodies, for the hole audit.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use fanin_core::ids::StreamSeq;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{ApiError, server_code};
use crate::connection::Connection;
use crate::headers::{self, Headers};
use crate::timestamp;

/// A message as it is stored in a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMessage {
    /// Its sequence.
    pub seq: StreamSeq,
    /// The subject it was published to.
    pub subject: String,
    /// Its headers.
    pub headers: Headers,
    /// Its body.
    pub payload: Bytes,
    /// When the hub stored it, nanoseconds since 1970.
    pub published_ns: u64,
}

impl StoredMessage {
    /// Bytes of subject, headers and body, as [`crate::Pulled::size`] counts them.
    #[must_use]
    pub fn size(&self) -> usize {
        headers::message_size(&self.subject, &self.headers, self.payload.len())
    }
}

#[derive(Deserialize)]
struct Reply {
    message: Wire,
}

#[derive(Deserialize)]
struct Wire {
    subject: String,
    seq: u64,
    #[serde(default)]
    data: String,
    #[serde(default)]
    hdrs: String,
    time: String,
}

/// The message at a sequence; `None` when it is gone or was never there.
///
/// # Errors
/// [`ApiError`].
pub async fn fetch_message(
    connection: &Connection,
    stream: &str,
    seq: StreamSeq,
) -> Result<Option<StoredMessage>, ApiError> {
    get(connection, stream, &json!({ "seq": seq.0 })).await
}

/// The first message at or behind `from` whose subject matches `filter` (wildcards allowed); `None` when there is none.
///
/// # Errors
/// [`ApiError`].
pub async fn next_matching(
    connection: &Connection,
    stream: &str,
    from: StreamSeq,
    filter: &str,
) -> Result<Option<StoredMessage>, ApiError> {
    get(
        connection,
        stream,
        &json!({ "seq": from.0.max(1), "next_by_subj": filter }),
    )
    .await
}

/// The last message on a subject.
pub(crate) async fn last_on(
    connection: &Connection,
    stream: &str,
    subject: &str,
) -> Result<Option<StoredMessage>, ApiError> {
    get(connection, stream, &json!({ "last_by_subj": subject })).await
}

async fn get(
    connection: &Connection,
    stream: &str,
    request: &Value,
) -> Result<Option<StoredMessage>, ApiError> {
    let name = format!("STREAM.MSG.GET.{stream}");
    let reply: Reply = match connection.api(&name, request).await {
        Ok(reply) => reply,
        Err(error) if error.server_code() == Some(server_code::NO_MESSAGE) => return Ok(None),
        Err(error) => return Err(error),
    };
    let wire = reply.message;
    let bad = |what: &str| {
        let source = serde::de::Error::custom(format!("{what} of message {}", wire.seq));
        ApiError::BadReply {
            subject: name.clone(),
            source,
        }
    };
    let block = STANDARD.decode(&wire.hdrs).map_err(|_| bad("headers"))?;
    Ok(Some(StoredMessage {
        seq: StreamSeq(wire.seq),
        headers: headers::parse_block(&block),
        payload: Bytes::from(STANDARD.decode(&wire.data).map_err(|_| bad("body"))?),
        published_ns: timestamp::parse_ns(&wire.time).ok_or_else(|| bad("time"))?,
        subject: wire.subject,
    }))
}
