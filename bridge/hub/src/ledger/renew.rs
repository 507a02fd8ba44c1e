//! What only an operator's repair does: looking at a ledger whatever its settings, sealing it, and beginning another in its place.

use std::collections::BTreeSet;

use fanin_core::ids::LedgerSeq;
use serde_json::{Value, json};

use super::{Ledger, LedgerError, LedgerOptions, of_facts};
use crate::connection::Connection;
use crate::source::{self, SourceError};

/// Where a ledger's metadata names the streams it stands for.
const PREDECESSORS: &str = "fanin.predecessors";

/// A ledger as it was found, with whatever settings.
#[derive(Clone)]
pub struct FoundLedger {
    /// To read it.
    pub ledger: Ledger,
    /// Its settings.
    pub config: Value,
    /// The first position stored, or the one the next record would get.
    pub first_seq: LedgerSeq,
    /// The last position given.
    pub last_seq: LedgerSeq,
    /// Nothing can be appended any more.
    pub sealed: bool,
}

/// What to begin a ledger with.
#[derive(Clone, Debug)]
pub struct Renewal {
    /// Its first position.
    pub first: LedgerSeq,
    /// The creation times of the streams it stands for, nanoseconds since 1970.
    pub predecessors: BTreeSet<u64>,
}

pub(super) fn predecessors(config: &Value) -> BTreeSet<u64> {
    let named = config.pointer(&format!("/metadata/{PREDECESSORS}"));
    let named = named.and_then(Value::as_str).unwrap_or_default();
    named.split(',').filter_map(|time| time.parse().ok()).collect()
}

impl Ledger {
    /// The ledger as it is, unverified; `None` when there is no such stream.
    ///
    /// # Errors
    /// [`LedgerError`]: the hub could not be asked.
    pub async fn find(
        connection: &Connection,
        options: &LedgerOptions,
    ) -> Result<Option<FoundLedger>, LedgerError> {
        let stream = options.stream();
        let reply = match source::stream_info(connection, &stream).await {
            Ok(reply) => reply,
            Err(SourceError::Missing { .. }) => return Ok(None),
            Err(source) => return Err(of_facts(&stream, source)),
        };
        Ok(Some(FoundLedger {
            ledger: Ledger::of(connection, options, &reply)?,
            first_seq: LedgerSeq(reply.state.first_seq),
            last_seq: LedgerSeq(reply.state.last_seq),
            sealed: reply
                .config
                .get("sealed")
                .and_then(Value::as_bool)
                .unwrap_or(false),
            config: reply.config,
        }))
    }

    /// Begins a ledger with the settings that the rules need.
    ///
    /// # Errors
    /// [`LedgerError`]: also when a stream of the name exists already.
    pub async fn begin(
        connection: &Connection,
        options: &LedgerOptions,
        renewal: &Renewal,
    ) -> Result<Ledger, LedgerError> {
        let stream = options.stream();
        let mut config = options.config();
        config["first_seq"] = json!(renewal.first.0);
        let named: Vec<String> = renewal.predecessors.iter().map(u64::to_string).collect();
        config["metadata"][PREDECESSORS] = json!(named.join(","));
        let reply = connection.api(&format!("STREAM.CREATE.{stream}"), &config).await;
        let reply = reply.map_err(|source| LedgerError::Hub { stream, source })?;
        Ledger::of(connection, options, &reply)
    }
}

impl FoundLedger {
    /// Seals the stream: from then on no bridge can append to it.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn seal(&self) -> Result<(), LedgerError> {
        let mut config = self.config.clone();
        config["sealed"] = json!(true);
        let subject = format!("STREAM.UPDATE.{}", self.ledger.stream);
        let sealed: Result<Value, _> = self.ledger.connection.api(&subject, &config).await;
        sealed.map(drop).map_err(|source| self.ledger.of_api(source))
    }

    /// Deletes the stream.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn delete(&self) -> Result<(), LedgerError> {
        let subject = format!("STREAM.DELETE.{}", self.ledger.stream);
        let deleted: Result<Value, _> = self.ledger.connection.api(&subject, &json!({})).await;
        deleted.map(drop).map_err(|source| self.ledger.of_api(source))
    }
}

#[cfg(test)]
mod tests {
    //! Goal: what a ledger says of its predecessors is read as it is written. Method: settings with and without.
    use super::*;

    #[test]
    fn predecessors_are_read() {
        let config = json!({ "metadata": { "fanin.mapping": "orders", "fanin.predecessors": "3,17" } });
        assert_eq!(predecessors(&config), BTreeSet::from([3, 17]));
        let options = LedgerOptions::new("orders");
        assert!(predecessors(&options.config()).is_empty());
    }
}
