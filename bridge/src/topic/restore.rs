//! What a topic makes of the local log when it starts.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use fanin_core::{
    delivery::{AppDelivery, Cursor, CursorDecodeError},
    ids::{BatchNo, Offset, StreamSeq, TermsVersion},
};
use fanin_store::{Class, Location, Op, RecoveredRecord, Store};

use super::{
    AppSpec,
    deadletter::{DEAD_LETTER_SPACE, DeadLetterBook, DeadLetterHead},
    index::{Index, IndexEntry},
    limits::APPLICATIONS_MAX,
};
use crate::stage::{RECORD_DEAD_LETTER, Resolution, StageDecodeError, StageHead};

/// A batch that was published before the restart.
#[derive(Clone, Debug)]
pub struct RestoredBatch {
    /// The head of its STAGE record; `None` when that is damaged.
    pub head: Option<StageHead>,
    /// Where that record lies.
    pub at: Location,
    /// Its resolution.
    pub resolution: Resolution,
}

/// Why a topic cannot start. It changed nothing.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StartError {
    /// More applications than a topic can have.
    #[error("the topic has {found} applications; at most {limit} are possible")]
    TooManyApplications {
        /// How many the configuration names.
        found: usize,
        /// How many are possible.
        limit: usize,
    },
    /// A cursor is not what a cursor is.
    #[error(
        "the cursor of application {app} is damaged: {source}; restore the data directory, or give the node another name and an \
         empty data directory; what it had won and not finished is not delivered then"
    )]
    Cursor {
        /// The application.
        app: String,
        /// What is wrong.
        source: CursorDecodeError,
    },
    /// A dead letter's head is not what one is.
    #[error(
        "a dead letter is damaged: {0}; restore the data directory, or give the node another name and an empty data directory; what \
         it had won and not finished is not delivered then"
    )]
    DeadLetter(#[from] StageDecodeError),
    /// A published batch is not in the local log although some application has not finished it.
    #[error("the published messages from offset {from} to below {to} are missing in the local log")]
    Missing {
        /// First missing offset.
        from: Offset,
        /// The offset behind the last missing one.
        to: Offset,
    },
    /// Two batches claim the same offsets.
    #[error("batch {batch} begins at offset {base}, inside the batch before it")]
    Overlap {
        /// The second of them.
        batch: BatchNo,
        /// Where it begins.
        base: Offset,
    },
}

/// Everything that `Topic::start` needs to know before tasks run.
pub(super) struct Restored {
    pub(super) index: Index,
    pub(super) machines: Vec<AppDelivery>,
    pub(super) dead_letters: DeadLetterBook,
    /// Batches that every application had finished already.
    pub(super) done: Vec<(BatchNo, Offset)>,
}

/// Rebuilds a topic from its published batches, the log's values and its dead letters. Applications without a cursor are new:
/// they start at the head, and their first cursor is queued here, so that it is durable before any later resolution is.
pub(super) fn restore(
    space: u32,
    (apps, absent): (&[AppSpec], &[String]),
    mut batches: Vec<RestoredBatch>,
    values: &BTreeMap<String, Bytes>,
    records: &[RecoveredRecord],
    store: &dyn Store,
) -> Result<Restored, StartError> {
    if apps.len() > APPLICATIONS_MAX {
        return Err(StartError::TooManyApplications {
            found: apps.len(),
            limit: APPLICATIONS_MAX,
        });
    }
    batches.retain(|batch| !batch.resolution.won.is_empty());
    batches.sort_by_key(|batch| batch.resolution.base);
    let cursors = read_cursors(space, values)?;
    let end_of = |batch: &RestoredBatch| batch.resolution.base.plus(batch.resolution.won_count());
    let batches_end = batches.last().map_or(Offset(0), end_of);
    // Cursors count even when their application is no longer configured: offsets are never given twice.
    let reached = cursors
        .values()
        .map(|cursor| cursor.finished.last().map_or(cursor.floor, |last| last.1.plus(1)));
    let head = reached.chain([batches_end]).max().unwrap_or(Offset(0));

    let mut new_cursors = Vec::new();
    let of_apps: Vec<Cursor> = apps
        .iter()
        // Without terms that name it an application is owed nothing: whatever it reached earlier, it starts at the head.
        .map(
            |app| match cursors.get(&*app.name).filter(|_| app.since.is_some()) {
                Some(cursor) => cursor.clone(),
                None => {
                    let cursor = Cursor {
                        floor: head,
                        ..Cursor::default()
                    };
                    let name = super::cursor_name(space, &app.name);
                    new_cursors.push(Op::Put {
                        name,
                        value: Bytes::from(cursor.encode()),
                    });
                    cursor
                }
            },
        )
        .collect();

    let mut floors: Vec<Offset> = of_apps.iter().map(|cursor| cursor.floor).collect();
    for app in absent {
        let Some(cursor) = cursors.get(app) else { continue };
        tracing::warn!(
            code = "FAN-4018",
            app,
            from = cursor.floor.0,
            messages = head.0.saturating_sub(cursor.floor.0),
            "this application is in the terms but not in the configuration any more; its backlog is kept on disk"
        );
        // A floor that nobody advances keeps every batch behind it.
        floors.push(cursor.floor);
    }
    let lowest = floors.iter().copied().min().unwrap_or(head);
    // A released key may come back after a crash; every application is past it.
    let (done, open): (Vec<_>, Vec<_>) = batches.into_iter().partition(|batch| end_of(batch) <= lowest);
    let mut index = Index::new(open.first().map_or(head, |batch| batch.resolution.base), floors);
    if index.head() > lowest {
        return Err(StartError::Missing {
            from: lowest,
            to: index.head(),
        });
    }
    for batch in &open {
        let base = batch.resolution.base;
        match base.cmp(&index.head()) {
            std::cmp::Ordering::Less => {
                return Err(StartError::Overlap {
                    batch: batch.resolution.batch,
                    base,
                });
            }
            std::cmp::Ordering::Greater => {
                return Err(StartError::Missing {
                    from: index.head(),
                    to: base,
                });
            }
            std::cmp::Ordering::Equal => index.push(entry_of(batch)),
        }
    }
    if index.head() < head {
        return Err(StartError::Missing {
            from: index.head(),
            to: head,
        });
    }

    let dead_letters = DeadLetterBook::restore(space, records)?;
    let mut machines: Vec<AppDelivery> = apps
        .iter()
        .zip(of_apps)
        .map(|(app, cursor)| AppDelivery::new(app.policy, cursor, head))
        .collect();
    finish_dead_letters(space, apps, &mut machines, records, &index)?;
    if !new_cursors.is_empty() {
        // Commits become durable in order whether or not they are awaited, and a failure poisons all that follow.
        drop(store.commit(Class::Finish, new_cursors));
    }
    let done = done
        .iter()
        .map(|batch| (batch.resolution.batch, batch.resolution.base))
        .collect();
    Ok(Restored {
        index,
        machines,
        dead_letters,
        done,
    })
}

/// The cursors of a mapping, by application.
fn read_cursors(
    space: u32,
    values: &BTreeMap<String, Bytes>,
) -> Result<BTreeMap<String, Cursor>, StartError> {
    let prefix = super::cursor_name(space, "");
    let mut cursors = BTreeMap::new();
    for (name, value) in values.range(prefix.clone()..) {
        let Some(app) = name.strip_prefix(&prefix) else {
            break;
        };
        let cursor = Cursor::decode(value).map_err(|source| StartError::Cursor {
            app: app.to_owned(),
            source,
        })?;
        cursors.insert(app.to_owned(), cursor);
    }
    Ok(cursors)
}

/// What an index entry takes of a STAGE record's head; of one that is damaged nothing is known.
pub(super) fn staged_facts(head: Option<&StageHead>) -> (&[(StreamSeq, StreamSeq)], i64, u64) {
    match head {
        Some(head) => (&head.seqs, head.published_ns.0, head.payload_bytes),
        None => (&[], 0, 0),
    }
}

fn entry_of(batch: &RestoredBatch) -> IndexEntry {
    let resolution = &batch.resolution;
    entry(
        staged_facts(batch.head.as_ref()),
        resolution.batch,
        resolution.base,
        resolution.terms,
        batch.at,
        &resolution.won,
    )
}

/// The index entry of a batch with these staged sequences (and first time and payload bytes), of which `won` was won.
pub(super) fn entry(
    staged: (&[(StreamSeq, StreamSeq)], i64, u64),
    batch: BatchNo,
    base: Offset,
    terms: TermsVersion,
    at: Location,
    won: &[(StreamSeq, StreamSeq)],
) -> IndexEntry {
    let (seqs, published_ns, bytes) = staged;
    let all = won == seqs;
    IndexEntry {
        batch,
        base,
        // A batch holds at most as many messages as its head can list.
        count: u32::try_from(crate::stage::seqs_len(won)).unwrap_or(u32::MAX),
        terms,
        at,
        published_ns,
        bytes_before: 0,
        bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
        won: if all { None } else { Some(Arc::from(won)) },
    }
}

/// A crash between a dead letter and the cursor that counts on it must not make a second one.
fn finish_dead_letters(
    space: u32,
    apps: &[AppSpec],
    machines: &mut [AppDelivery],
    records: &[RecoveredRecord],
    index: &Index,
) -> Result<(), StartError> {
    for record in records {
        if record.kind != RECORD_DEAD_LETTER || record.key.space != DEAD_LETTER_SPACE + space {
            continue;
        }
        let head = DeadLetterHead::decode(&record.head)?;
        let same_batch = index
            .find(head.offset)
            .is_some_and(|entry| entry.batch == head.batch);
        let app = apps.iter().position(|app| app.name == head.app);
        if let Some(machine) = app.and_then(|app| machines.get_mut(app)).filter(|_| same_batch) {
            // When the cursor already counts the last attempt, the machine is about to ask for the dead letter once more.
            machine.dead_lettered(head.offset, &mut Vec::new());
            machine.skip(head.offset, head.offset, &mut Vec::new());
        }
    }
    Ok(())
}
