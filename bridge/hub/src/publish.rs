//! Publishing messages to the hub with its word for each, and a bounded window of unconfirmed ones.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::PubAck;
use crate::api::{ApiError, read_reply, server_code};
use crate::codes;
use crate::connection::Connection;
use crate::headers::{self, Headers};
use crate::limits;

/// A message to publish.
#[derive(Clone, Debug, Default)]
pub struct Outgoing {
    /// The subject.
    pub subject: String,
    /// Headers, `Nats-Msg-Id` not among them.
    pub headers: Headers,
    /// The body.
    pub payload: Bytes,
    /// The message id by which the hub recognises a repetition within the stream's duplicate window.
    pub msg_id: Option<String>,
}

/// Why the hub did not confirm a message.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// No stream takes this subject.
    #[error("no stream of the hub takes the subject {subject}; create one, or correct the subject")]
    NoStream {
        /// The subject.
        subject: String,
    },
    /// A header's name or value cannot be sent.
    #[error(
        "a header for {subject} has a name or value that cannot be sent: no line breaks, no control characters"
    )]
    BadHeader {
        /// The subject.
        subject: String,
    },
    /// The request failed, or the stream refused the message.
    #[error("the hub did not store the message for {subject}")]
    Hub {
        /// The subject.
        subject: String,
        /// Why.
        source: ApiError,
    },
}

impl PublishError {
    /// True when the same message may be stored later without any change. It may have been stored already; a message id
    /// makes the repetition harmless.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            PublishError::NoStream { .. } | PublishError::BadHeader { .. } => false,
            PublishError::Hub { source, .. } => {
                source.retryable()
                    || matches!(
                        source.server_code(),
                        Some(server_code::DUPLICATE_IN_FLIGHT | server_code::STORE_FAILED)
                    )
            }
        }
    }

    /// The stable code users can look up.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            PublishError::NoStream { .. } => codes::SUBJECT_UNTAKEN,
            PublishError::BadHeader { .. } => codes::HUB_REFUSED,
            PublishError::Hub { source, .. } => source.code(),
        }
    }
}

/// Publishes with a bounded number of unconfirmed messages; clones share the bound.
#[derive(Clone)]
pub struct Publisher {
    connection: Connection,
    window: Arc<Semaphore>,
    width: usize,
}

impl Publisher {
    /// A publisher with at most `window` unconfirmed messages (1 to 1000).
    #[must_use]
    pub fn new(connection: &Connection, window: usize) -> Publisher {
        let width = window.clamp(1, limits::PULL_BATCH_MAX);
        Publisher {
            connection: connection.clone(),
            window: Arc::new(Semaphore::new(width)),
            width,
        }
    }

    /// Publishes one message and waits for the hub's word.
    ///
    /// # Errors
    /// [`PublishError`].
    pub async fn publish(&self, message: Outgoing) -> Result<PubAck, PublishError> {
        // The semaphore is never closed; an error could only mean that, and then there is nothing to wait for.
        let _permit = self.window.acquire().await;
        let subject = message.subject;
        let Some(mut map) = headers::to_map(&message.headers) else {
            return Err(PublishError::BadHeader { subject });
        };
        if let Some(id) = message.msg_id {
            let Ok(id) = id.parse::<async_nats::HeaderValue>() else {
                return Err(PublishError::BadHeader { subject });
            };
            map.insert("Nats-Msg-Id", id);
        }
        match publish_raw(&self.connection, &subject, map, message.payload).await {
            Ok(ack) => Ok(ack),
            Err(ApiError::NoResponders { .. }) => Err(PublishError::NoStream { subject }),
            Err(source) => Err(PublishError::Hub { subject, source }),
        }
    }

    /// Publishes messages in this order, up to the window at once. Results are in the same order.
    pub async fn publish_all(&self, messages: Vec<Outgoing>) -> Vec<Result<PubAck, PublishError>> {
        stream::iter(messages.into_iter().map(|message| self.publish(message)))
            .buffered(self.width)
            .collect()
            .await
    }
}

/// One message with headers, and the stream's answer.
pub(crate) async fn publish_raw(
    connection: &Connection,
    subject: &str,
    headers: async_nats::HeaderMap,
    payload: Bytes,
) -> Result<PubAck, ApiError> {
    let headers = if headers.is_empty() { None } else { Some(headers) };
    let reply = connection
        .request(subject, headers, payload, limits::PUB_ACK_TIMEOUT)
        .await?;
    let value = read_reply(subject, &reply.payload)?;
    let seq = value
        .get("seq")
        .and_then(Value::as_u64)
        .ok_or_else(|| ApiError::BadReply {
            subject: subject.to_owned(),
            source: serde::de::Error::custom("no sequence"),
        })?;
    Ok(PubAck {
        seq,
        duplicate: value.get("duplicate").and_then(Value::as_bool).unwrap_or(false),
    })
}
