//! Writes dead letters of one application, a few at a time, beside its delivery.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use fanin_core::{
    delivery::DeadLetterReason,
    ids::{InstanceNo, Offset},
};
use fanin_store::{Class, CommitError, Key, Op};
use tokio::{task::JoinSet, time::Duration};

use super::{
    deadletter::{DEAD_LETTER_SPACE, DeadLetter, DeadLetterHead, ListedDeadLetter, trace_id},
    limits::{DEAD_LETTERS_AT_ONCE, FULL_RETRY_MS, READ_RETRY_MS},
    shared::{TopicFailure, TopicShared},
};
use crate::stage::RECORD_DEAD_LETTER;

/// A message to copy.
pub(crate) struct Job {
    pub(crate) offset: Offset,
    pub(crate) reason: DeadLetterReason,
    pub(crate) attempts: u32,
    pub(crate) instance: Option<InstanceNo>,
    pub(crate) instance_name: String,
    pub(crate) error: String,
    pub(crate) first_ms: u64,
    pub(crate) last_ms: u64,
}

/// Dead letters that wait or are being written. Their number is bounded by the delivery window.
pub(crate) struct DeadLetterWriter {
    topic: Arc<TopicShared>,
    app: Arc<str>,
    waiting: VecDeque<Job>,
    running: JoinSet<Option<(Offset, Option<InstanceNo>)>>,
    /// Dead letters per instance that end with a confirmation to it.
    owed: BTreeMap<InstanceNo, u32>,
}

impl DeadLetterWriter {
    pub(crate) fn new(topic: Arc<TopicShared>, app: Arc<str>) -> DeadLetterWriter {
        DeadLetterWriter {
            topic,
            app,
            waiting: VecDeque::new(),
            running: JoinSet::new(),
            owed: BTreeMap::new(),
        }
    }

    pub(crate) fn add(&mut self, job: Job) {
        if let Some(instance) = job.instance {
            *self.owed.entry(instance).or_default() += 1;
        }
        self.waiting.push_back(job);
        self.start();
    }

    /// Whether a dead letter of this instance is not durable yet.
    pub(crate) fn owes(&self, instance: InstanceNo) -> bool {
        self.owed.contains_key(&instance)
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    fn start(&mut self) {
        while self.running.len() < DEAD_LETTERS_AT_ONCE
            && let Some(job) = self.waiting.pop_front()
        {
            self.running
                .spawn(write(Arc::clone(&self.topic), Arc::clone(&self.app), job));
        }
    }

    /// The offset of a dead letter that has become durable, without waiting.
    pub(crate) fn poll_now(&mut self) -> Option<Offset> {
        loop {
            let written = self.running.try_join_next()?;
            if let Some(offset) = self.finish(written.ok().flatten()) {
                return Some(offset);
            }
        }
    }

    /// Waits for the next one, for ever when none is being written. Safe to drop and call again.
    pub(crate) async fn wait(&mut self) -> Offset {
        loop {
            match self.running.join_next().await {
                Some(written) => {
                    if let Some(offset) = self.finish(written.ok().flatten()) {
                        return offset;
                    }
                }
                None => std::future::pending().await,
            }
        }
    }

    fn finish(&mut self, written: Option<(Offset, Option<InstanceNo>)>) -> Option<Offset> {
        self.start();
        let (offset, instance) = written?;
        if let Some(instance) = instance
            && let Some(owed) = self.owed.get_mut(&instance)
        {
            *owed -= 1;
            if *owed == 0 {
                self.owed.remove(&instance);
            }
        }
        Some(offset)
    }
}

/// Writes one dead letter, for as long as it takes. `None`: the log cannot be used any more.
async fn write(topic: Arc<TopicShared>, app: Arc<str>, job: Job) -> Option<(Offset, Option<InstanceNo>)> {
    let batch = loop {
        let Some(entry) = topic.entry(job.offset) else {
            topic.missing(job.offset);
            return None;
        };
        if let Some(batch) = topic.cached(entry.base) {
            break batch;
        }
        // A failed read is reported by the read itself.
        match Arc::clone(&topic).read(entry).await {
            Ok(batch) => break batch,
            Err(_) => tokio::time::sleep(Duration::from_millis(READ_RETRY_MS)).await,
        }
    };
    let message = batch.message(batch.place(job.offset));
    let head = DeadLetterHead {
        app,
        reason: job.reason,
        attempts: job.attempts,
        offset: job.offset,
        batch: batch.staged().batch,
        stream: Arc::clone(&batch.staged().stream),
        incarnation: batch.staged().incarnation,
        seq: message.seq,
        last_attempt_ms: job.last_ms,
        payload_len: message.payload.len() as u64,
    };
    let letter = DeadLetter {
        head: head.clone(),
        node: topic.node.to_string(),
        instance: job.instance_name,
        error: job.error,
        first_attempt_ms: job.first_ms,
        trace_id: trace_id(&message.headers),
        published_ns: message.published_ns,
        subject: message.subject.clone(),
        headers: message.headers.clone(),
        payload: message.payload.clone(),
    };
    let (head_bytes, body) = letter.encode();
    let id = topic.dead_letters.lock().take_id();
    let key = Key {
        space: DEAD_LETTER_SPACE + topic.space,
        id,
    };
    let mut told = false;
    loop {
        let append = Op::Append {
            key,
            kind: RECORD_DEAD_LETTER,
            head: head_bytes.clone(),
            body: body.clone(),
        };
        match topic.store.commit(Class::Copy, vec![append]).await {
            Ok(locations) => {
                tracing::warn!(
                    code = "FAN-4031", topic = %topic.name, app = %head.app, message = %format_args!("{}:{}", head.stream, head.seq),
                    reason = ?job.reason, attempts = job.attempts, error = %letter.error, "dead letter"
                );
                if let Some(at) = locations.first() {
                    topic
                        .dead_letters
                        .lock()
                        .add(ListedDeadLetter { id, at: *at, head });
                }
                return Some((job.offset, job.instance));
            }
            Err(error @ (CommitError::Full { .. } | CommitError::TooLarge { .. })) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(code = "FAN-4022", topic = %topic.name, app = %head.app, %error, "a dead letter waits for room in the local log");
                }
                tokio::time::sleep(Duration::from_millis(FULL_RETRY_MS)).await;
            }
            Err(error @ (CommitError::Poisoned(_) | CommitError::Closed)) => {
                topic.fail(TopicFailure::Store(error));
                return None;
            }
        }
    }
}
