//! The hub side of starting: what the sources are, the ledger, its first record, and the own EPOCH by compare-and-set (P8).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanin_core::checkpoint::{Assembler, Complete};
use fanin_core::epoch::{Conflict, on_conflict};
use fanin_core::fold::RULES;
use fanin_core::ids::{Epoch, Incarnation, LedgerSeq, NodeUuid, Nonce};
use fanin_core::record::{
    Body, EpochRecord, Genesis, NodeState, Record, SourceTerms, Witness, epoch_subject,
};
use fanin_hub::ledger::AppendError;
use fanin_hub::port::{Hub, LedgerRef, LedgerStream};
use fanin_hub::{ApiError, LedgerError, LedgerInfo, LedgerOptions, SourceError, SourceInfo};
use fanin_store::{Class, CommitError, Store};

use super::disk::{Epochs, Names};
use super::repaired;
use super::source_check::{self, Unfit};
use super::{MappingOptions, limits};

/// How long JetStream may take to come up behind a server that answers already.
const JETSTREAM_WAIT: Duration = Duration::from_secs(3);

/// How often the last EPOCH record is read again when the hub's answer is older than its refusal.
const STALE_READS_MAX: u32 = 8;

/// How often a ledger that is too short, or another one, is looked at again: a leader that is being replaced may answer from before.
pub(super) const SHORT_READS_MAX: u32 = 4;

/// Why a mapping cannot take part.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The hub did not answer; tried again for ever.
    #[error(transparent)]
    Hub(#[from] ApiError),
    /// The hub has no JetStream.
    #[error(transparent)]
    Connect(#[from] fanin_hub::ConnectError),
    /// A source is missing.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A source cannot hold what the mapping requires.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// The ledger differs, is missing, or cannot be made.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A record could not be appended.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The local log failed.
    #[error(transparent)]
    Store(#[from] CommitError),
    /// A small value could not be encoded.
    #[error("a small value could not be encoded")]
    Encode(#[from] serde_json::Error),
    /// The ledger is not the one this data directory worked with.
    #[error(
        "the ledger {stream} was deleted and created again since this data directory last worked with it; restore it, or see `fanin ledger repair --dry-run`"
    )]
    LedgerRecreated {
        /// The ledger's stream.
        stream: String,
    },
    /// The ledger has lost the record of this node's last epoch.
    #[error(
        "the ledger {stream} has lost this node's epoch {epoch}: the hub was rolled back or lost what it had confirmed; restore the hub, or see `fanin ledger repair --dry-run`"
    )]
    LedgerShrank {
        /// The ledger's stream.
        stream: String,
        /// The epoch this disk remembers.
        epoch: Epoch,
    },
    /// The ledger ends before what this node has read of it.
    #[error(
        "the ledger {stream} ends at position {last}, but this node has read it up to {read}: the hub was rolled back or lost what it had confirmed; restore the hub, or see `fanin ledger repair --dry-run`"
    )]
    LedgerShort {
        /// The ledger's stream.
        stream: String,
        /// Where it ends.
        last: LedgerSeq,
        /// What was read.
        read: LedgerSeq,
    },
    /// A repair has sealed the ledger, or has begun it and not finished it.
    #[error(
        "the ledger {stream} was sealed or begun by a repair that is not finished: run `fanin ledger repair` again, with the backup that it wrote"
    )]
    LedgerUnfinished {
        /// The ledger's stream.
        stream: String,
    },
    /// Two bodies use one identity.
    #[error("node {node} is in use: {}", refusal(*same_uuid, *epoch, *state))]
    IdentityConflict {
        /// The node's name.
        node: String,
        /// Whether the other is a copy of this data directory.
        same_uuid: bool,
        /// Its epoch.
        epoch: Epoch,
        /// Its state.
        state: NodeState,
    },
    /// The node's last EPOCH record is not understood.
    #[error("the last EPOCH record of node {node} is not understood; upgrade this bridge")]
    UnknownEpoch {
        /// The node's name.
        node: String,
    },
}

fn refusal(same_uuid: bool, epoch: Epoch, state: NodeState) -> String {
    if same_uuid {
        format!(
            "epoch {epoch} ({state:?}) was begun with a copy of this data directory, or this one was restored from an older \
             state; use the other one, or give this node another name and an empty data directory; what it had won and not \
             finished is not delivered then"
        )
    } else {
        format!(
            "another data directory holds this name with epoch {epoch} ({state:?}); give this node another name, or use that \
             data directory"
        )
    }
}

impl JoinError {
    /// Whether trying again later may help without anybody changing anything.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            JoinError::Hub(error) => error.retryable(),
            JoinError::Connect(error) => error.retryable(),
            JoinError::Source(error) => error.retryable(),
            JoinError::Ledger(error) => error.retryable(),
            JoinError::Append(error) => error.retryable(),
            JoinError::Store(_)
            | JoinError::Encode(_)
            | JoinError::Unfit(_)
            | JoinError::LedgerRecreated { .. }
            | JoinError::LedgerShort { .. }
            | JoinError::LedgerShrank { .. }
            | JoinError::LedgerUnfinished { .. }
            | JoinError::IdentityConflict { .. }
            | JoinError::UnknownEpoch { .. } => false,
        }
    }

    /// Whether the mapping alone is held: its ledger is not the one this node worked with, which concerns no other mapping
    /// of the node. What the disk holds is told to whoever repairs the ledger, and joining is tried again.
    #[must_use]
    pub fn holds(&self) -> bool {
        match self {
            JoinError::LedgerRecreated { .. }
            | JoinError::LedgerShort { .. }
            | JoinError::LedgerShrank { .. }
            | JoinError::LedgerUnfinished { .. } => true,
            JoinError::Ledger(error) => match error {
                LedgerError::Missing { .. } | LedgerError::Recreated { .. } => true,
                LedgerError::Differs { .. }
                | LedgerError::NoRoom { .. }
                | LedgerError::Facts { .. }
                | LedgerError::Hub { .. } => false,
            },
            JoinError::Hub(_)
            | JoinError::Connect(_)
            | JoinError::Source(_)
            | JoinError::Unfit(_)
            | JoinError::Append(_)
            | JoinError::Store(_)
            | JoinError::Encode(_)
            | JoinError::IdentityConflict { .. }
            | JoinError::UnknownEpoch { .. } => false,
        }
    }

    /// Whether a process that has just started had better end, although trying again might help one day: the hub answers,
    /// and says that it has no JetStream for this account. A cluster between two leaders says "not now" instead.
    #[must_use]
    pub fn refuses_start(&self) -> bool {
        let JoinError::Connect(fanin_hub::ConnectError::HubWithoutJetStream { source, .. }) = self else {
            return false;
        };
        match source {
            ApiError::NoResponders { .. } => true,
            ApiError::Refused { .. } => !source.retryable(),
            ApiError::Disconnected
            | ApiError::Timeout { .. }
            | ApiError::PermissionDenied { .. }
            | ApiError::TooLarge { .. }
            | ApiError::BadSubject { .. }
            | ApiError::BadReply { .. }
            | ApiError::ClientGone => false,
        }
    }

    /// What a process that has just started is told. A missing source ends it only where this data directory has never
    /// joined the mapping, as a name is misspelt then: later on the node has a backlog, and other mappings.
    ///
    /// # Errors
    /// This error, when the process had better end.
    pub fn verdict(self, joined_before: bool) -> Result<(), JoinError> {
        if joined_before && matches!(self, JoinError::Source(SourceError::Missing { .. })) {
            Ok(())
        } else {
            Err(self)
        }
    }

    /// The stable code users can look up.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            JoinError::Hub(error) => error.code(),
            JoinError::Connect(error) => error.code(),
            JoinError::Source(error) => error.code(),
            JoinError::Unfit(_) => fanin_hub::codes::SOURCE_UNFIT,
            JoinError::Ledger(error) => error.code(),
            JoinError::Append(error) => error.code(),
            JoinError::Store(_) | JoinError::Encode(_) => "FAN-4002",
            JoinError::LedgerRecreated { .. } => "FAN-4010",
            JoinError::LedgerUnfinished { .. } => "FAN-4052",
            JoinError::LedgerShort { .. } | JoinError::LedgerShrank { .. } => "FAN-4019",
            JoinError::IdentityConflict { .. } => "FAN-4011",
            JoinError::UnknownEpoch { .. } => "FAN-4012",
        }
    }
}

/// A source as the hub has it now.
#[derive(Clone, Debug)]
pub struct Source {
    /// Facts of the stream.
    pub info: SourceInfo,
    /// The operator's generation number.
    pub generation: u32,
    /// As the terms will name it.
    pub terms: SourceTerms,
}

/// The hub as a mapping found it.
pub struct Joined {
    /// The verified ledger.
    pub ledger: LedgerRef,
    /// Its size before the own EPOCH: the node must know it before its first claim.
    pub ledger_size: LedgerInfo,
    /// The own epoch.
    pub epoch: Epoch,
    /// The record it followed on its subject: compare-and-set has shown that everything up to there is this node's past,
    /// also what earlier tries of this process wrote without hearing of it.
    pub follows: LedgerSeq,
    /// What the disk now remembers.
    pub epochs: Epochs,
    /// This process's nonce.
    pub nonce: Nonce,
    /// The sources by incarnation.
    pub sources: BTreeMap<Incarnation, Source>,
}

/// The parts `join` works with.
pub struct JoinContext<'a> {
    /// The mapping.
    pub options: &'a MappingOptions,
    /// The hub.
    pub hub: &'a dyn Hub,
    /// The local log.
    pub store: &'a Arc<dyn Store>,
    /// Names of the mapping's small values.
    pub names: &'a Names,
    /// The data directory's identity.
    pub uuid: NodeUuid,
    /// What this data directory had read of the ledger when it decided a batch last; the default for nothing.
    pub witness: Witness,
    /// How far this data directory has read the ledger, at least.
    pub has_read: LedgerSeq,
}

/// One try at joining: verifies the hub's side and appends the own EPOCH. `epochs` follows what the disk remembers, also
/// when the try fails; `tried` is the nonce whose outcome is unknown, for the next try.
///
/// # Errors
/// `JoinError`; `retryable` says whether to try again.
pub async fn join(
    context: &JoinContext<'_>,
    epochs: &mut Epochs,
    tried: &mut Option<Nonce>,
) -> Result<Joined, JoinError> {
    let (options, hub) = (context.options, context.hub);
    hub.check_jetstream(JETSTREAM_WAIT).await?;
    let sources = find_sources(options, hub).await?;
    let replicas = sources
        .values()
        .map(|source| source.info.replicas)
        .max()
        .unwrap_or(1);
    let wanted = LedgerOptions {
        prefix: options.prefix.clone(),
        replicas,
        max_bytes: options.config.ledger.max_bytes.0,
        may_create: epochs.last == 0,
        ..LedgerOptions::new(&options.name)
    };
    let mut ledger = hub.ensure_ledger(&wanted).await.map_err(repaired::of_ledger)?;
    let mut stale_reads = 0;
    let known = epochs.ledger_created_ns;
    while known != 0 && known != ledger.created_ns() && !ledger.succeeds(known) {
        if stale_reads >= SHORT_READS_MAX {
            let stream = ledger.stream().to_owned();
            return Err(JoinError::LedgerRecreated { stream });
        }
        tokio::time::sleep(pause(stale_reads)).await;
        stale_reads += 1;
        ledger = hub.ensure_ledger(&wanted).await.map_err(repaired::of_ledger)?;
    }
    repaired::check(context, &*ledger, epochs).await?;
    // Before anything is written: a hub that is to be restored must not have taken this node's next epoch.
    check_length(&*ledger, context.has_read).await?;
    write_genesis(&*ledger).await?;
    let ledger_size = ledger.info().await?;
    let (epoch, follows, nonce) = begin_epoch(context, &*ledger, epochs, tried).await?;
    for source in sources.values() {
        source_check::warn(&options.name, &source.info);
    }
    Ok(Joined {
        ledger,
        ledger_size,
        epoch,
        follows,
        epochs: epochs.clone(),
        nonce,
        sources,
    })
}

async fn check_length(ledger: &dyn LedgerStream, read: LedgerSeq) -> Result<(), JoinError> {
    let mut stale_reads = 0;
    loop {
        let last = LedgerSeq(ledger.info().await?.last_seq);
        if last >= read {
            return Ok(());
        }
        if stale_reads >= SHORT_READS_MAX {
            let stream = ledger.stream().to_owned();
            return Err(JoinError::LedgerShort { stream, last, read });
        }
        tokio::time::sleep(pause(stale_reads)).await;
        stale_reads += 1;
    }
}

/// The configured sources as the hub has them now.
///
/// # Errors
/// One is missing, or the hub could not be asked.
pub async fn find_sources(
    options: &MappingOptions,
    hub: &dyn Hub,
) -> Result<BTreeMap<Incarnation, Source>, JoinError> {
    let mut sources = BTreeMap::new();
    for configured in &options.config.sources {
        let info = hub.source_info(&configured.stream).await?;
        source_check::judge(options.config.required_delivery, &info)?;
        let generation = configured.generation.unwrap_or(0);
        let filters: BTreeSet<String> = configured.subjects.iter().cloned().collect();
        let terms = SourceTerms {
            stream: configured.stream.clone(),
            filters: filters.into_iter().collect(),
        };
        sources.insert(
            info.incarnation(u64::from(generation)),
            Source {
                info,
                generation,
                terms,
            },
        );
    }
    Ok(sources)
}

/// The first record, by compare-and-set: of several bridges that start together one writes it.
async fn write_genesis(ledger: &dyn LedgerStream) -> Result<(), JoinError> {
    let body = Body::Genesis(Genesis {
        rules: RULES,
        features: BTreeSet::new(),
    });
    // Before the first record there is nothing to have read.
    let record = Record {
        witness: Witness::default(),
        body,
    };
    match ledger
        .append("gen", None, Bytes::from(record.encode()), Some(LedgerSeq(0)))
        .await
    {
        Ok(_) | Err(AppendError::WrongLastSequence { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

async fn begin_epoch(
    context: &JoinContext<'_>,
    ledger: &dyn LedgerStream,
    epochs: &mut Epochs,
    tried: &mut Option<Nonce>,
) -> Result<(Epoch, LedgerSeq, Nonce), JoinError> {
    let fresh = epochs.last == 0 && epochs.intents.is_empty();
    // The successor that a repair has begun has no EPOCH of this node yet.
    let is_successor = epochs.ledger_created_ns != ledger.created_ns();
    let mut expected = LedgerSeq(if is_successor { 0 } else { epochs.last });
    let mut stale_reads = 0;
    loop {
        // One nonce serves every try whose outcome is unknown: compare-and-set lets at most one of them land.
        let nonce = *tried.get_or_insert_with(|| Nonce(context.options.ambient.random()));
        epochs.intend(nonce);
        keep(context, epochs).await?;
        crate::failpoint::reach("after_epoch_intent");
        let record = EpochRecord {
            node_uuid: context.uuid,
            node: context.options.node.clone(),
            nonce,
            hosts: context.options.hosts(),
            state: NodeState::Active,
        };
        let subject = epoch_subject(&record.node);
        // P11: whoever has read something else up to there halts at this record, as this node will.
        let bytes = Bytes::from(
            Record {
                witness: context.witness,
                body: Body::Epoch(record),
            }
            .encode(),
        );
        match ledger.append(&subject, None, bytes, Some(expected)).await {
            Ok(ack) => {
                crate::failpoint::reach("after_epoch_append");
                *epochs = Epochs {
                    last: ack.seq,
                    intents: Vec::new(),
                    ledger_created_ns: ledger.created_ns(),
                };
                keep(context, epochs).await?;
                return Ok((LedgerSeq(ack.seq), expected, nonce));
            }
            Err(AppendError::WrongLastSequence { .. }) => {
                let last = ledger.last_of_subject(&subject).await?;
                let Some(last) = last.filter(|last| last.seq > expected) else {
                    // The hub refused because its last record is another one; a read that shows no later one is stale,
                    // or the hub has lost the record this disk remembers.
                    if stale_reads >= STALE_READS_MAX {
                        let stream = ledger.stream().to_owned();
                        return Err(JoinError::LedgerShrank {
                            stream,
                            epoch: expected,
                        });
                    }
                    tokio::time::sleep(pause(stale_reads)).await;
                    stale_reads += 1;
                    continue;
                };
                let node = context.options.node.clone();
                let Ok(Record {
                    body: Body::Epoch(found),
                    ..
                }) = Record::decode(&last.body)
                else {
                    return Err(JoinError::UnknownEpoch { node });
                };
                let intents = epochs.intents.iter().map(|&nonce| Nonce(nonce)).collect();
                match on_conflict(&found, last.seq, context.uuid, &intents, fresh) {
                    Conflict::Adopt(at) => {
                        epochs.last = at.0;
                        epochs.ledger_created_ns = ledger.created_ns();
                        epochs.intents.retain(|&nonce| nonce != found.nonce.0);
                        *tried = None;
                        expected = at;
                    }
                    Conflict::Succeed(at) => expected = at,
                    Conflict::Refuse {
                        same_uuid,
                        epoch,
                        state,
                    } => {
                        return Err(JoinError::IdentityConflict {
                            node,
                            same_uuid,
                            epoch,
                            state,
                        });
                    }
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}

async fn keep(context: &JoinContext<'_>, epochs: &Epochs) -> Result<(), JoinError> {
    let op = context.names.put_epochs(epochs)?;
    context.store.commit(Class::Finish, vec![op]).await?;
    Ok(())
}

/// The complete checkpoint with the highest position.
///
/// # Errors
/// A failed request; the caller tries again.
pub async fn read_checkpoint(ledger: &dyn LedgerStream) -> Result<Option<Box<Complete>>, LedgerError> {
    let mut assembler = Assembler::default();
    for item in ledger.read_subject("checkpoint", LedgerSeq(1)).await? {
        // A record that is not understood is met again by the fold, which halts on it by its position.
        if let Ok(Record {
            body: Body::Checkpoint(part),
            ..
        }) = Record::decode(&item.body)
        {
            assembler.add(part);
        }
    }
    Ok(assembler.best().cloned().map(Box::new))
}

/// The pause before try number `tries` (from 0).
#[must_use]
pub fn pause(tries: u32) -> Duration {
    limits::PAUSE_FIRST
        .saturating_mul(1 << tries.min(10))
        .min(limits::PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    // Goal: a start ends only on an answer that stays. Method: the hub's refusals by their codes, and nobody there to answer.
    use super::*;

    #[test]
    fn a_cluster_without_a_leader_ends_no_start() {
        let subject = || "$JS.API.INFO".to_owned();
        let without = |source: ApiError| {
            JoinError::Connect(fanin_hub::ConnectError::HubWithoutJetStream {
                server: "s0".to_owned(),
                source,
            })
        };
        let refused = |err_code: u32| {
            without(ApiError::Refused {
                subject: subject(),
                code: 503,
                err_code,
                description: String::new(),
            })
        };
        let not_available = 10008;
        let not_enabled = [10039, 10076];
        assert!(!refused(not_available).refuses_start() && refused(not_available).retryable());
        for code in not_enabled {
            assert!(refused(code).refuses_start(), "{code}");
        }
        // A server without JetStream has nobody who would answer.
        assert!(without(ApiError::NoResponders { subject: subject() }).refuses_start());
        let timeout = ApiError::Timeout {
            subject: subject(),
            after_ms: 1,
        };
        assert!(!without(timeout).refuses_start());
        assert!(!without(ApiError::Disconnected).refuses_start());
    }
}
