//! Reading single records, and purging prefixes. A read can be stale (the hub answers from whoever believes to lead), so
//! nothing is decided by one; the tail decides.

use bytes::Bytes;
use fanin_core::ids::{LedgerSeq, StreamSeq};
use serde_json::json;

use super::{Ledger, LedgerError, PurgeReply};
use crate::messages::{self, StoredMessage};

/// One record of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailItem {
    /// Its position.
    pub seq: LedgerSeq,
    /// Its subject behind the mapping, such as `claim.node-1`.
    pub subject_suffix: String,
    /// Its body.
    pub body: Bytes,
    /// When the hub stored it, nanoseconds since 1970, by the hub's clock.
    pub stored_ns: u64,
}

impl Ledger {
    /// All records on a suffix (wildcards allowed) from a position on, in order, one request each: for the few subjects
    /// that have few records, such as checkpoints.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn read_subject(&self, suffix: &str, from: LedgerSeq) -> Result<Vec<TailItem>, LedgerError> {
        let filter = self.subject(suffix);
        let mut items = Vec::new();
        let mut from = from.0.max(1);
        while let Some(message) =
            messages::next_matching(&self.connection, &self.stream, StreamSeq(from), &filter)
                .await
                .map_err(|e| self.of_api(e))?
        {
            from = message.seq.0 + 1;
            items.push(self.item(message));
        }
        Ok(items)
    }

    /// The last record on a suffix.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn last_of_subject(&self, suffix: &str) -> Result<Option<TailItem>, LedgerError> {
        let subject = self.subject(suffix);
        let message = messages::last_on(&self.connection, &self.stream, &subject)
            .await
            .map_err(|e| self.of_api(e))?;
        Ok(message.map(|m| self.item(m)))
    }

    /// The record at a position; `None` when it was purged or is not there yet.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn record_at(&self, seq: LedgerSeq) -> Result<Option<TailItem>, LedgerError> {
        let message = messages::fetch_message(&self.connection, &self.stream, StreamSeq(seq.0))
            .await
            .map_err(|e| self.of_api(e))?;
        Ok(message.map(|m| self.item(m)))
    }

    /// Purges the records on a suffix (wildcards allowed) at positions below `up_to`, which itself stays. Returns how
    /// many went.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn purge_subject(&self, suffix: &str, up_to: LedgerSeq) -> Result<u64, LedgerError> {
        // The hub takes 0 for "everything", the opposite of what is meant.
        if up_to.0 <= 1 {
            return Ok(0);
        }
        let request = json!({ "filter": self.subject(suffix), "seq": up_to.0 });
        let reply: PurgeReply = self
            .connection
            .api(&format!("STREAM.PURGE.{}", self.stream), &request)
            .await
            .map_err(|e| self.of_api(e))?;
        Ok(reply.purged)
    }

    pub(super) fn suffix_of(&self, subject: &str) -> String {
        subject
            .strip_prefix(&self.subject_base)
            .unwrap_or(subject)
            .to_owned()
    }

    fn item(&self, message: StoredMessage) -> TailItem {
        TailItem {
            seq: LedgerSeq(message.seq.0),
            subject_suffix: self.suffix_of(&message.subject),
            body: message.payload,
            stored_ns: message.published_ns,
        }
    }
}
