//! What the local log keeps of a mapping: its space number, its epochs, its done set and its batches.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use fanin_core::hash::Hash128;
use fanin_core::ids::{BatchNo, Incarnation, LedgerSeq, Nonce, Offset, StreamSeq};
use fanin_core::record::{ClaimKind, Witness};
use fanin_core::recovery::{Disk, DiskBatch};
use fanin_core::seq_set::SeqSet;
use fanin_store::{Key, Location, Op, Recovered};
use serde::{Deserialize, Serialize};

use crate::stage::{RECORD_RESOLUTION, RECORD_STAGE, Resolution, StageDecodeError, StageHead, StagedBatch};
use crate::topic::deadletter::DeadLetterHead;
use crate::topic::{DEAD_LETTER_SPACE, cursor_name};

/// Most ranges in a done set on disk; the core merges them, so a node would need as many unfinished batches.
const DONE_RANGES_MAX: usize = 1 << 20;

/// A witness on disk: its position and its hash, big end first.
const WITNESS_BYTES: usize = 8 + 16;

/// A source's W on disk: the incarnation and the sequence, big end first.
const CLOSED_BYTES: usize = 8 + 8;

/// Why the local log's records of a mapping cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// A named value is not what this version wrote.
    #[error(
        "FAN-4003: the local log's value {name} cannot be read ({what}); use the version of fanin that wrote this data directory"
    )]
    Value {
        /// Its name.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// A staged batch or a resolution is not what this version wrote.
    #[error(
        "FAN-4003: a record of the local log cannot be read; use the version of fanin that wrote this data directory"
    )]
    Record {
        /// Why.
        source: StageDecodeError,
    },
    /// What belongs to the mapping is damaged, and no copy of it is anywhere else.
    #[error(
        "FAN-4044: the local log is damaged in segment {segment} at byte {position}: {what}; without it nobody can tell what this node's \
         applications have finished. Restore the disk, or give the node another name and an empty data directory; what it had won \
         and not finished is not delivered then"
    )]
    Damaged {
        /// The segment.
        segment: u64,
        /// The byte position in it.
        position: u64,
        /// What is damaged.
        what: String,
    },
    /// A resolution without its batch.
    #[error(
        "FAN-4004: the local log holds the resolution of batch {batch} but not the batch itself: the data directory is damaged"
    )]
    Orphan {
        /// The batch.
        batch: BatchNo,
    },
}

/// The epochs of a mapping as the disk remembers them (P8).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epochs {
    /// The newest confirmed epoch; 0 for none.
    pub last: u64,
    /// Nonces written before an EPOCH was sent and not heard of since, oldest first; at most `INTENTS_MAX`.
    pub intents: Vec<u64>,
    /// When the ledger was created, nanoseconds since the Unix epoch; 0 before the first epoch.
    pub ledger_created_ns: u64,
}

impl Epochs {
    /// Remembers the nonce of an EPOCH that is about to be sent. Beyond the bound the oldest is forgotten: the newest ones are
    /// those whose EPOCH may still be the last record.
    pub fn intend(&mut self, nonce: Nonce) {
        self.intents.retain(|&known| known != nonce.0);
        self.intents.push(nonce.0);
        let excess = self.intents.len().saturating_sub(super::limits::INTENTS_MAX);
        self.intents.drain(..excess);
    }
}

/// The newest terms a disk knows. Older ones, met again while the ledger is read, must not replace them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownTerms {
    /// Their version; 0 for none.
    pub version: u32,
    /// Since which version each application is served.
    pub since: BTreeMap<String, u32>,
}

/// Names of the small values of one mapping.
#[derive(Clone, Debug)]
pub struct Names {
    space: u32,
}

impl Names {
    /// The names for a space.
    #[must_use]
    pub fn of(space: u32) -> Names {
        Names { space }
    }

    /// The value that holds a mapping's space number.
    #[must_use]
    pub fn space_of(mapping: &str) -> String {
        format!("space/{mapping}")
    }

    /// The value that holds [`Epochs`].
    #[must_use]
    pub fn epochs(&self) -> String {
        format!("epochs/{}", self.space)
    }

    /// The value that holds the done set.
    #[must_use]
    pub fn done(&self) -> String {
        format!("done/{}", self.space)
    }

    /// The value that holds the offset behind everything ever published.
    #[must_use]
    pub fn head(&self) -> String {
        format!("head/{}", self.space)
    }

    /// The value that holds since which terms each application is served.
    #[must_use]
    pub fn terms(&self) -> String {
        format!("terms/{}", self.space)
    }

    /// The value that holds what had been read of the ledger when a batch was decided last.
    #[must_use]
    pub fn witness(&self) -> String {
        format!("witness/{}", self.space)
    }

    /// The value that holds the highest W of each source. Of no use but to an operator who repairs a ledger.
    #[must_use]
    pub fn closed(&self) -> String {
        format!("closed/{}", self.space)
    }

    /// The key of a batch's records.
    #[must_use]
    pub fn batch(&self, batch: BatchNo) -> Key {
        Key {
            space: self.space,
            id: batch.0,
        }
    }

    /// Whether a named value belongs to this mapping.
    #[must_use]
    pub fn owns(&self, value: &str) -> bool {
        [
            self.epochs(),
            self.done(),
            self.head(),
            self.terms(),
            self.witness(),
            self.closed(),
        ]
        .contains(&value.to_owned())
            || value.starts_with(&cursor_name(self.space, ""))
    }

    /// Sets the epochs.
    ///
    /// # Errors
    /// Never for these types; the encoder's error is passed on all the same.
    pub fn put_epochs(&self, epochs: &Epochs) -> Result<Op, serde_json::Error> {
        Ok(Op::Put {
            name: self.epochs(),
            value: Bytes::from(serde_json::to_vec(epochs)?),
        })
    }

    /// Sets the done set.
    #[must_use]
    pub fn put_done(&self, done: &SeqSet) -> Op {
        Op::Put {
            name: self.done(),
            value: Bytes::from(done.encode()),
        }
    }

    /// Sets what had been read of the ledger.
    #[must_use]
    pub fn put_witness(&self, witness: Witness) -> Op {
        let mut value = BytesMut::with_capacity(WITNESS_BYTES);
        value.put_u64(witness.position.0);
        value.put_u128(witness.hash.0);
        Op::Put {
            name: self.witness(),
            value: value.freeze(),
        }
    }

    /// Sets the highest W of each source.
    #[must_use]
    pub fn put_closed(&self, closed: &BTreeMap<Incarnation, StreamSeq>) -> Op {
        let mut value = BytesMut::with_capacity(CLOSED_BYTES * closed.len());
        for (incarnation, through) in closed {
            value.put_u64(incarnation.0);
            value.put_u64(through.0);
        }
        Op::Put {
            name: self.closed(),
            value: value.freeze(),
        }
    }

    /// Sets the offset behind everything published.
    #[must_use]
    pub fn put_head(&self, head: Offset) -> Op {
        Op::Put {
            name: self.head(),
            value: Bytes::copy_from_slice(&head.0.to_be_bytes()),
        }
    }
}

/// Whether a named value belongs to some mapping, and not to the node.
#[must_use]
pub fn is_of_mapping(value: &str) -> bool {
    [
        "epochs/", "done/", "head/", "terms/", "witness/", "closed/", "cursor/",
    ]
    .iter()
    .any(|prefix| value.starts_with(prefix))
}

/// A batch that was staged, with where its body lies.
#[derive(Clone, Debug)]
pub struct KeptBatch {
    /// Its head; `None` when that is damaged with the body.
    pub head: Option<StageHead>,
    /// Its body.
    pub at: Location,
    /// The body cannot be read.
    pub damaged: bool,
    /// Its resolution, when that is durable.
    pub resolution: Option<Resolution>,
}

/// Everything the log holds of one mapping.
#[derive(Debug, Default)]
pub struct Kept {
    /// The epochs.
    pub epochs: Epochs,
    /// The newest terms this disk knows.
    pub terms: KnownTerms,
    /// Finished batches.
    pub done: SeqSet,
    /// Unfinished batches.
    pub batches: BTreeMap<BatchNo, KeptBatch>,
    /// Batches that are done and whose space is to be freed again.
    pub leftover: BTreeSet<BatchNo>,
    /// The offset behind everything published.
    pub head: Offset,
    /// What had been read of the ledger when a batch was decided last.
    pub witness: Witness,
    /// The highest W of each source that was known then.
    pub closed: BTreeMap<Incarnation, StreamSeq>,
}

impl Kept {
    /// Sorts out what belongs to one mapping's space.
    ///
    /// # Errors
    /// When a record or value cannot be read.
    pub fn of(recovered: &Recovered, space: u32) -> Result<Kept, DiskError> {
        let names = Names::of(space);
        let mut kept = Kept::default();
        let bad = |name: &str, what: String| DiskError::Value {
            name: name.to_owned(),
            what,
        };
        if let Some(value) = recovered.values.get(&names.epochs()) {
            kept.epochs = serde_json::from_slice(value).map_err(|e| bad(&names.epochs(), e.to_string()))?;
        }
        if let Some(value) = recovered.values.get(&names.terms()) {
            kept.terms = serde_json::from_slice(value).map_err(|e| bad(&names.terms(), e.to_string()))?;
        }
        if let Some(value) = recovered.values.get(&names.done()) {
            kept.done =
                SeqSet::decode(value, DONE_RANGES_MAX).map_err(|e| bad(&names.done(), e.to_string()))?;
        }
        if let Some(value) = recovered.values.get(&names.head()) {
            let bytes = value
                .as_ref()
                .try_into()
                .map_err(|_| bad(&names.head(), "length".to_owned()))?;
            kept.head = Offset(u64::from_be_bytes(bytes));
        }
        if let Some(mut value) = recovered.values.get(&names.witness()).cloned() {
            if value.len() != WITNESS_BYTES {
                return Err(bad(&names.witness(), "length".to_owned()));
            }
            kept.witness = Witness {
                position: LedgerSeq(value.get_u64()),
                hash: Hash128(value.get_u128()),
            };
        }
        if let Some(mut value) = recovered.values.get(&names.closed()).cloned() {
            if value.len() % CLOSED_BYTES != 0 {
                return Err(bad(&names.closed(), "length".to_owned()));
            }
            while value.has_remaining() {
                let incarnation = Incarnation(value.get_u64());
                kept.closed.insert(incarnation, StreamSeq(value.get_u64()));
            }
        }
        kept.take_damaged(recovered, space)?;
        for record in recovered
            .records
            .iter()
            .filter(|record| record.key.space == space)
        {
            let batch = BatchNo(record.key.id);
            if kept.done.contains(batch.0) {
                kept.leftover.insert(batch);
                continue;
            }
            match record.kind {
                RECORD_STAGE => {
                    let head = StagedBatch::decode_head(&record.head)
                        .map_err(|source| DiskError::Record { source })?;
                    // A second one was written to mend the first.
                    let resolution = kept.batches.remove(&batch).and_then(|kept| kept.resolution);
                    kept.batches.insert(
                        batch,
                        KeptBatch {
                            head: Some(head),
                            at: record.at,
                            damaged: false,
                            resolution,
                        },
                    );
                }
                RECORD_RESOLUTION => {
                    let found =
                        Resolution::decode(&record.head).map_err(|source| DiskError::Record { source })?;
                    kept.head = kept.head.max(found.base.plus(found.won_count()));
                    kept.batches
                        .get_mut(&batch)
                        .ok_or(DiskError::Orphan { batch })?
                        .resolution = Some(found);
                }
                other => {
                    let what = format!("record kind {other}");
                    return Err(bad("record", what));
                }
            }
        }
        Ok(kept)
    }

    /// Batches whose body is damaged; other damage means that nothing can be made of the mapping's data.
    fn take_damaged(&mut self, recovered: &Recovered, space: u32) -> Result<(), DiskError> {
        let names = Names::of(space);
        for damage in &recovered.damaged {
            let lost = |what: String| DiskError::Damaged {
                segment: damage.segment,
                position: damage.position,
                what,
            };
            if let Some(value) = damage.value.as_ref().filter(|value| names.owns(value)) {
                return Err(lost(format!("the value {value}")));
            }
            let Some((key, record)) = damage.key.zip(damage.record.as_ref()) else {
                continue;
            };
            if key.space == DEAD_LETTER_SPACE + space {
                let head = record
                    .head
                    .as_ref()
                    .and_then(|head| DeadLetterHead::decode(head).ok());
                let message = head.map(|head| format!("{}:{} of {}", head.stream, head.seq, head.app));
                tracing::warn!(
                    code = "FAN-4046",
                    id = key.id,
                    message = message.unwrap_or_default(),
                    "a dead letter is damaged and cannot be viewed any more"
                );
            }
            if key.space != space {
                continue;
            }
            let batch = BatchNo(key.id);
            if self.done.contains(batch.0) {
                self.leftover.insert(batch);
            } else if record.kind == RECORD_STAGE {
                let head = record.head.as_ref().map(|head| StagedBatch::decode_head(head));
                let head = head.transpose().map_err(|source| DiskError::Record { source })?;
                self.batches.insert(
                    batch,
                    KeptBatch {
                        head,
                        at: record.at,
                        damaged: true,
                        resolution: None,
                    },
                );
            } else {
                return Err(lost(format!("the resolution of batch {batch}")));
            }
        }
        Ok(())
    }

    /// What the core's recovery wants.
    #[must_use]
    pub fn disk(&self) -> Disk {
        let batches = self.batches.iter().map(|(&number, kept)| {
            let head = kept.head.as_ref();
            DiskBatch {
                number,
                incarnation: head.map_or_else(Default::default, |head| head.incarnation),
                kind: head
                    .and_then(|head| ClaimKind::from_code(u32::from(head.kind)))
                    .unwrap_or_default(),
                seqs: head.map_or_else(SeqSet::new, |head| runs_to_set(&head.seqs)),
                published_ns: head.map_or((0, 0), |head| head.published_ns),
                resolution: kept
                    .resolution
                    .as_ref()
                    .map(|found| (found.base, runs_to_set(&found.won))),
                damaged: kept.damaged,
            }
        });
        Disk {
            epoch: LedgerSeq(self.epochs.last),
            intents: self.epochs.intents.iter().map(|&nonce| Nonce(nonce)).collect(),
            batches: batches.collect(),
            done: self.done.clone(),
            next_offset: self.head,
            witness: self.witness,
        }
    }
}

/// Runs as the local log has them, as a set.
#[must_use]
pub fn runs_to_set(runs: &[(fanin_core::ids::StreamSeq, fanin_core::ids::StreamSeq)]) -> SeqSet {
    let mut set = SeqSet::new();
    for (first, last) in runs {
        set.insert_range(first.0, last.0);
    }
    set
}

/// A set as runs, as the local log has them.
#[must_use]
pub fn set_to_runs(set: &SeqSet) -> Vec<(fanin_core::ids::StreamSeq, fanin_core::ids::StreamSeq)> {
    let seq = fanin_core::ids::StreamSeq;
    set.ranges()
        .iter()
        .map(|&(first, last)| (seq(first), seq(last)))
        .collect()
}

#[cfg(test)]
mod tests {
    //! Goal: what the disk keeps of a mapping is read as it was written, what older versions wrote is read too, and damaged bytes are
    //! refused; an interrupted start is recognised as the own one, however many there were. Method: the values of a recovered log by
    //! hand; nonces in falling order, so that the newest is the smallest number.
    use super::*;

    #[test]
    fn the_oldest_intent_is_forgotten() {
        let most = super::super::limits::INTENTS_MAX as u64;
        let mut epochs = Epochs::default();
        for nonce in (1..=most + 10).rev() {
            epochs.intend(Nonce(nonce));
            assert_eq!(epochs.intents.last(), Some(&nonce));
        }
        assert_eq!(epochs.intents, (1..=most).rev().collect::<Vec<_>>());
        // One that is tried again is the newest.
        epochs.intend(Nonce(most));
        assert_eq!(
            (epochs.intents.len() as u64, epochs.intents.last()),
            (most, Some(&most))
        );
        let written = r#"{"last":7,"intents":[3,5],"ledger_created_ns":9}"#;
        let read: Epochs = serde_json::from_str(written).expect("readable");
        assert_eq!((read.last, read.intents), (7, vec![3, 5]));
    }

    fn recovered(closed: Option<Bytes>) -> Recovered {
        let names = Names::of(3);
        let witness = Witness {
            position: LedgerSeq(9),
            hash: Hash128(7),
        };
        let mut recovered = Recovered::default();
        let Op::Put { name, value } = names.put_witness(witness) else {
            panic!("a value is put")
        };
        recovered.values.insert(name, value);
        if let Some(value) = closed {
            recovered.values.insert(names.closed(), value);
        }
        recovered
    }

    #[test]
    fn watermarks_are_read_back() {
        let closed = BTreeMap::from([
            (Incarnation(1), StreamSeq(5)),
            (Incarnation(2), StreamSeq(u64::MAX)),
        ]);
        let Op::Put { value, .. } = Names::of(3).put_closed(&closed) else {
            panic!("a value is put")
        };
        let kept = Kept::of(&recovered(Some(value.clone())), 3).unwrap();
        assert_eq!((kept.closed, kept.witness.position), (closed, LedgerSeq(9)));
        let older = Kept::of(&recovered(None), 3).unwrap();
        assert_eq!((older.closed.len(), older.witness.position), (0, LedgerSeq(9)));
        let cut = value.slice(1..);
        assert!(matches!(
            Kept::of(&recovered(Some(cut)), 3),
            Err(DiskError::Value { .. })
        ));
        assert!(is_of_mapping(&Names::of(3).closed()) && Names::of(3).owns("closed/3"));
    }
}
