//! Appending records.

use bytes::Bytes;
use fanin_core::ids::LedgerSeq;

use super::Ledger;
use crate::PubAck;
use crate::api::{ApiError, server_code};
use crate::codes;
use crate::limits;
use crate::publish::publish_raw;

/// Why an append has no position. Except for `WrongLastSequence`, `Full`, `TooLarge` and `NoStream`, the record may have
/// landed all the same, now or later; only the tail tells.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The subject's last record is not the expected one. Read it: if it is one's own, the append succeeded before.
    #[error("the ledger's last record on this subject is at {}, not where it was expected", last.map_or_else(|| "another position".to_owned(), |l| l.to_string()))]
    WrongLastSequence {
        /// Where the last record is, if the hub says so; 0 for none.
        last: Option<LedgerSeq>,
    },
    /// The ledger's size limit is reached.
    #[error("the ledger is full; raise its max_bytes, and see which node or application is behind")]
    Full,
    /// The same record, or another one on the same subject, is being stored right now.
    #[error("the same record is being stored right now; it is sent again")]
    InFlight,
    /// The record is larger than the ledger takes.
    #[error("a ledger record of {bytes} bytes is larger than the limit")]
    TooLarge {
        /// The record's size, bytes.
        bytes: usize,
    },
    /// The hub did not answer in time.
    #[error(
        "the hub did not confirm a ledger record within {}",
        humane(limits::PUB_ACK_TIMEOUT)
    )]
    Timeout,
    /// No connection, or it was lost on the way.
    #[error("the hub is not connected; fanin reconnects by itself")]
    Disconnected,
    /// The ledger's stream is gone, or has no leader at the moment.
    #[error("no stream takes the ledger's subject: the ledger is missing or has no leader")]
    NoStream,
    /// Anything else.
    #[error("the hub did not store a ledger record")]
    Other {
        /// Why.
        source: ApiError,
    },
}

fn humane(duration: std::time::Duration) -> String {
    format!("{} s", duration.as_secs())
}

impl AppendError {
    /// True when the same append may succeed later without any change.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            AppendError::Full
            | AppendError::InFlight
            | AppendError::Timeout
            | AppendError::Disconnected
            | AppendError::NoStream => true,
            AppendError::WrongLastSequence { .. } | AppendError::TooLarge { .. } => false,
            AppendError::Other { source } => source.retryable(),
        }
    }

    /// The stable code users can look up.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            AppendError::Full => codes::LEDGER_FULL,
            AppendError::WrongLastSequence { .. } => codes::HUB_REFUSED,
            AppendError::InFlight | AppendError::Timeout | AppendError::NoStream => codes::HUB_SILENT,
            AppendError::Disconnected => codes::HUB_UNREACHABLE,
            AppendError::TooLarge { .. } => codes::MESSAGE_TOO_LARGE,
            AppendError::Other { source } => source.code(),
        }
    }

    fn of_api(source: ApiError, bytes: usize) -> AppendError {
        let text = match &source {
            ApiError::Disconnected => return AppendError::Disconnected,
            ApiError::Timeout { .. } => return AppendError::Timeout,
            ApiError::NoResponders { .. } => return AppendError::NoStream,
            ApiError::TooLarge { .. } => return AppendError::TooLarge { bytes },
            ApiError::Refused { description, .. } => description.as_str(),
            ApiError::PermissionDenied { .. }
            | ApiError::BadSubject { .. }
            | ApiError::BadReply { .. }
            | ApiError::ClientGone => "",
        };
        match source.server_code() {
            Some(server_code::WRONG_LAST_SEQUENCE) => {
                let last = text
                    .rsplit(' ')
                    .next()
                    .and_then(|n| n.parse().ok())
                    .map(LedgerSeq);
                AppendError::WrongLastSequence { last }
            }
            Some(server_code::SUBJECT_IN_FLIGHT | server_code::DUPLICATE_IN_FLIGHT) => AppendError::InFlight,
            Some(server_code::MESSAGE_TOO_LARGE) => AppendError::TooLarge { bytes },
            // "maximum bytes exceeded", "maximum messages exceeded": with discard new the stream is full.
            Some(server_code::STORE_FAILED) if text.contains("exceeded") => AppendError::Full,
            Some(server_code::STORAGE_EXCEEDED | server_code::INSUFFICIENT_RESOURCES) => AppendError::Full,
            _ => AppendError::Other { source },
        }
    }
}

impl Ledger {
    /// Appends one record and waits for its position.
    ///
    /// `msg_id` makes a repetition within ten minutes a duplicate; `expect_last` demands that the subject's last record
    /// is at this position (0: there is none). Nothing is queued while disconnected; but a record that was handed to the
    /// socket before the connection broke may land later.
    ///
    /// # Errors
    /// [`AppendError`].
    pub async fn append(
        &self,
        suffix: &str,
        msg_id: Option<&str>,
        body: Bytes,
        expect_last: Option<LedgerSeq>,
    ) -> Result<PubAck, AppendError> {
        let bytes = body.len();
        if bytes > usize::try_from(limits::LEDGER_RECORD_BYTES_MAX).unwrap_or(usize::MAX) {
            return Err(AppendError::TooLarge { bytes });
        }
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Expected-Stream", self.stream.as_str());
        if let Some(id) = msg_id {
            headers.insert("Nats-Msg-Id", id);
        }
        if let Some(last) = expect_last {
            headers.insert("Nats-Expected-Last-Subject-Sequence", last.0.to_string());
        }
        publish_raw(&self.connection, &self.subject(suffix), headers, body)
            .await
            .map_err(|source| AppendError::of_api(source, bytes))
    }
}

#[cfg(test)]
mod tests {
    //! Goal: server codes become the right errors. Method: refusals with the server's texts.
    use super::*;

    fn refused(err_code: u32, description: &str) -> AppendError {
        let source = ApiError::Refused {
            subject: "s".into(),
            code: 400,
            err_code,
            description: description.into(),
        };
        AppendError::of_api(source, 1)
    }

    #[test]
    fn codes() {
        assert!(matches!(
            refused(10071, "wrong last sequence: 17"),
            AppendError::WrongLastSequence {
                last: Some(LedgerSeq(17))
            }
        ));
        assert!(matches!(
            refused(10164, "wrong last sequence"),
            AppendError::InFlight
        ));
        assert!(matches!(
            refused(10158, "duplicate message id is in process"),
            AppendError::InFlight
        ));
        assert!(matches!(
            refused(10077, "maximum bytes exceeded"),
            AppendError::Full
        ));
        assert!(matches!(
            refused(10054, "message size exceeds maximum allowed"),
            AppendError::TooLarge { .. }
        ));
        assert!(matches!(
            refused(10060, "expected stream does not match"),
            AppendError::Other { .. }
        ));
    }
}
