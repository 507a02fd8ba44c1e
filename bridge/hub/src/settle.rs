//! Settling: acknowledging messages to the hub.
//!
//! An acknowledgement decides nothing here; it only stops redelivery (P5). So most of a batch is acknowledged without a
//! reply, and the last one with: its reply shows that the whole batch, sent before it on one connection, got there. A
//! status reply (503: nobody listens) counts as failure, unlike in the client library. `+TERM` is never sent.

use std::time::Duration;

use bytes::Bytes;

use crate::api::ApiError;
use crate::connection::Connection;
use crate::limits;
use crate::reply::AckSubject;

/// Why a batch may not have been settled. The whole batch is to be settled again.
#[derive(Debug, thiserror::Error)]
#[error("the hub did not confirm the settling of {messages} messages; they are settled again")]
pub struct SettleError {
    /// The size of the batch.
    pub messages: usize,
    /// Why.
    pub source: ApiError,
}

impl SettleError {
    /// True when settling again later may help without any change.
    #[must_use]
    pub fn retryable(&self) -> bool {
        self.source.retryable()
    }
}

/// Settles batches over one connection.
#[derive(Clone)]
pub struct Settler {
    connection: Connection,
}

impl Settler {
    /// A settler.
    #[must_use]
    pub fn new(connection: &Connection) -> Settler {
        Settler {
            connection: connection.clone(),
        }
    }

    /// Acknowledges a batch. `Ok` means that the hub's consumer took the batch in; not that this node held the
    /// messages, and not that the hub remembers it for ever.
    ///
    /// # Errors
    /// [`SettleError`]; settling again is harmless.
    pub async fn settle(&self, batch: &[AckSubject]) -> Result<(), SettleError> {
        self.send_all(batch, Bytes::from_static(b"+ACK")).await
    }

    /// Gives a batch back, to be redelivered after `delay`.
    ///
    /// # Errors
    /// [`SettleError`]; without it the hub redelivers after its acknowledgement wait.
    pub async fn give_back(&self, batch: &[AckSubject], delay: Duration) -> Result<(), SettleError> {
        let body = if delay.is_zero() {
            Bytes::from_static(b"-NAK")
        } else {
            Bytes::from(format!("-NAK {{\"delay\": {}}}", delay.as_nanos()))
        };
        self.send_all(batch, body).await
    }

    async fn send_all(&self, batch: &[AckSubject], body: Bytes) -> Result<(), SettleError> {
        let Some((last, others)) = batch.split_last() else {
            return Ok(());
        };
        let failed = |source| SettleError {
            messages: batch.len(),
            source,
        };
        let generation = self
            .connection
            .generation()
            .ok_or(ApiError::Disconnected)
            .map_err(failed)?;
        self.connection.send_to_all(others, &body).await.map_err(failed)?;
        let reply = self
            .connection
            .request(last.as_str(), None, body, limits::SETTLE_TIMEOUT)
            .await
            .map_err(failed)?;
        if let Some(status) = reply.status {
            return Err(failed(ApiError::Refused {
                subject: last.as_str().to_owned(),
                code: status.as_u16(),
                err_code: 0,
                description: reply.description.unwrap_or_default(),
            }));
        }
        // Over two connections the probe says nothing about what went before it.
        if self.connection.generation() != Some(generation) {
            return Err(failed(ApiError::Disconnected));
        }
        Ok(())
    }
}
