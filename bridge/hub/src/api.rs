//! Requests to the JetStream API, with the server's own error codes.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::codes;
use crate::connection::Connection;
use crate::limits;

/// Error codes of nats-server that decide something here (`errors.json` of the server).
pub mod server_code {
    /// JetStream is starting, or has no leader.
    pub const CLUSTER_NOT_AVAILABLE: u32 = 10008;
    /// A name is taken by a consumer.
    pub const CONSUMER_NAME_EXISTS: u32 = 10013;
    /// No such consumer.
    pub const CONSUMER_NOT_FOUND: u32 = 10014;
    /// Not enough memory or storage left for the request.
    pub const INSUFFICIENT_RESOURCES: u32 = 10023;
    /// No message at this sequence, or none that matches.
    pub const NO_MESSAGE: u32 = 10037;
    /// JetStream is off for the account.
    pub const NOT_ENABLED_FOR_ACCOUNT: u32 = 10039;
    /// The server's or the account's storage limit is reached.
    pub const STORAGE_EXCEEDED: u32 = 10047;
    /// A message is larger than the stream allows.
    pub const MESSAGE_TOO_LARGE: u32 = 10054;
    /// The operation is denied by the stream's settings (delete, purge).
    pub const STREAM_MSG_DELETE_FAILED: u32 = 10057;
    /// A stream of this name exists with other settings.
    pub const STREAM_NAME_IN_USE: u32 = 10058;
    /// No such stream.
    pub const STREAM_NOT_FOUND: u32 = 10059;
    /// The header named another stream than the subject's.
    pub const STREAM_NOT_MATCH: u32 = 10060;
    /// Subjects overlap with those of another stream.
    pub const STREAM_SUBJECT_OVERLAP: u32 = 10065;
    /// The expected last sequence is not the last one.
    pub const WRONG_LAST_SEQUENCE: u32 = 10071;
    /// The stream did not store the message; with discard new, it is full.
    pub const STORE_FAILED: u32 = 10077;
    /// JetStream is off for the server.
    pub const NOT_ENABLED: u32 = 10076;
    /// A consumer of this name exists, and `create` asked for other settings.
    pub const CONSUMER_ALREADY_EXISTS: u32 = 10148;
    /// The same message id is being stored right now.
    pub const DUPLICATE_IN_FLIGHT: u32 = 10158;
    /// Another write to the same subject is under way.
    pub const SUBJECT_IN_FLIGHT: u32 = 10164;
}

/// Why a request to the hub brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No connection, or it was lost on the way. The request may still have reached the hub.
    #[error("the hub is not connected; fanin reconnects by itself")]
    Disconnected,
    /// No reply in time. The request may still have reached the hub.
    #[error(
        "the hub did not answer {subject} within {after_ms} ms; it may be overloaded or without a leader"
    )]
    Timeout {
        /// The request's subject.
        subject: String,
        /// How long was waited, milliseconds.
        after_ms: u64,
    },
    /// Nobody listens on the subject.
    #[error(
        "nobody at the hub answers {subject}: JetStream, the stream or the consumer is missing or has no leader"
    )]
    NoResponders {
        /// The request's subject.
        subject: String,
    },
    /// The account's permissions do not allow the subject.
    #[error("the hub denies publishing to {subject}; allow it in the permissions of fanin's user")]
    PermissionDenied {
        /// The request's subject.
        subject: String,
    },
    /// The server answered with an error.
    #[error("the hub refused {subject}: {description} (error {err_code})")]
    Refused {
        /// The request's subject.
        subject: String,
        /// The general code, as in HTTP.
        code: u16,
        /// The exact code, see [`server_code`].
        err_code: u32,
        /// The server's text.
        description: String,
    },
    /// The message is larger than the server takes.
    #[error("the message is larger than the hub's max_payload of {max_bytes} bytes; raise it at the hub")]
    TooLarge {
        /// The limit, bytes.
        max_bytes: usize,
    },
    /// The subject cannot be sent.
    #[error("{subject} is not a valid subject")]
    BadSubject {
        /// The subject.
        subject: String,
    },
    /// The answer cannot be read.
    #[error("the hub's answer to {subject} cannot be read; is the server's version supported?")]
    BadReply {
        /// The request's subject.
        subject: String,
        /// Where reading failed.
        source: serde_json::Error,
    },
    /// The client library's task ended; [`Connection`] replaces it by itself.
    #[error("the client of the hub ended and is being replaced")]
    ClientGone,
}

impl ApiError {
    /// True when the same request may succeed later without any change.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            ApiError::Disconnected
            | ApiError::ClientGone
            | ApiError::Timeout { .. }
            | ApiError::NoResponders { .. } => true,
            // 503 is the server's own word for "not now"; a start-up or a leader election ends.
            ApiError::Refused { code, err_code, .. } => {
                *code == 503
                    && !matches!(
                        *err_code,
                        server_code::NOT_ENABLED | server_code::NOT_ENABLED_FOR_ACCOUNT
                    )
            }
            ApiError::PermissionDenied { .. }
            | ApiError::TooLarge { .. }
            | ApiError::BadSubject { .. }
            | ApiError::BadReply { .. } => false,
        }
    }

    /// The exact code of the server's refusal, if it is one.
    #[must_use]
    pub fn server_code(&self) -> Option<u32> {
        match self {
            ApiError::Refused { err_code, .. } => Some(*err_code),
            ApiError::Disconnected
            | ApiError::Timeout { .. }
            | ApiError::NoResponders { .. }
            | ApiError::PermissionDenied { .. }
            | ApiError::TooLarge { .. }
            | ApiError::BadSubject { .. }
            | ApiError::BadReply { .. }
            | ApiError::ClientGone => None,
        }
    }

    /// The stable code users can look up.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            ApiError::Disconnected | ApiError::ClientGone => codes::HUB_UNREACHABLE,
            ApiError::Timeout { .. } | ApiError::NoResponders { .. } => codes::HUB_SILENT,
            ApiError::PermissionDenied { .. } => codes::PERMISSION_DENIED,
            ApiError::Refused { .. } | ApiError::BadSubject { .. } | ApiError::BadReply { .. } => {
                codes::HUB_REFUSED
            }
            ApiError::TooLarge { .. } => codes::MESSAGE_TOO_LARGE,
        }
    }
}

impl Connection {
    /// One request to `$JS.API.<name>`.
    pub(crate) async fn api<T: DeserializeOwned>(
        &self,
        name: &str,
        body: &impl Serialize,
    ) -> Result<T, ApiError> {
        let subject = format!("{}.{name}", self.api_prefix());
        let bad = |source| ApiError::BadReply {
            subject: subject.clone(),
            source,
        };
        let body = serde_json::to_value(body).map_err(bad)?;
        let payload = if body.is_null() {
            Bytes::new()
        } else {
            Bytes::from(body.to_string())
        };
        let reply = self.request(&subject, None, payload, limits::API_TIMEOUT).await?;
        let value = read_reply(&subject, &reply.payload)?;
        serde_json::from_value(value).map_err(bad)
    }
}

/// The JSON of a reply, or the error it carries.
pub(crate) fn read_reply(subject: &str, payload: &[u8]) -> Result<Value, ApiError> {
    let value: Value = serde_json::from_slice(payload).map_err(|source| ApiError::BadReply {
        subject: subject.to_owned(),
        source,
    })?;
    let Some(error) = value.get("error") else {
        return Ok(value);
    };
    let number = |name: &str| error.get(name).and_then(Value::as_u64).unwrap_or(0);
    Err(ApiError::Refused {
        subject: subject.to_owned(),
        code: u16::try_from(number("code")).unwrap_or(0),
        err_code: u32::try_from(number("err_code")).unwrap_or(0),
        description: error
            .get("description")
            .and_then(Value::as_str)
            .unwrap_or("no reason given")
            .to_owned(),
    })
}
