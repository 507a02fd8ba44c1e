//! The node-local topic of one mapping: what this node has won and its applications have not finished.
//!
//! A [`Topic`] holds each published batch once, whatever the number of applications: an index entry in memory, the bodies in
//! a bounded tail or on disk. Each application has a task of its own that owns a delivery machine, hands messages over to the
//! connected instances, keeps the cursor durable and confirms verdicts, in that order. The owner publishes batches in offset
//! order and hears through [`TopicEvents`] when every application has durably finished one.
//!
//! ```text
//! publish -> index + tail -> task of each application -> frames -> instance
//!                                     ^ verdicts               |
//!                                     +------------------------+
//! ```

mod app;
mod body;
mod confirm;
mod connection;
mod dead_writer;
pub mod deadletter;
mod fill;
mod filter;
mod frame;
mod holdings;
mod index;
mod instance;
pub mod limits;
mod mend;
pub mod metrics;
mod pin;
mod restore;
mod shared;
mod stats;
mod tail;
mod told;
mod verdicts;

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use fanin_core::{
    delivery::Policy,
    ids::{BatchNo, Offset, StreamSeq, TermsVersion},
};
use fanin_store::{Location, RecoveredRecord, Store};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, timeout},
};
use tokio_util::task::TaskTracker;

pub use body::WonMismatch;
pub use connection::{ConnectRequest, Connection, Frames, Input, Peer};
pub use deadletter::{DEAD_LETTER_SPACE, DeadLetter, DeadLetterHead, ListedDeadLetter};
pub use filter::SubjectFilter;
pub use frame::{DeliveryFrame, Frame};
pub use holdings::{AppHoldings, HeldBatch, reason_word};
pub use mend::ColdBatch;
pub use restore::{RestoredBatch, StartError};
pub(crate) use shared::read_apart;
pub use shared::{Presence, ReadFailure, TopicEvent, TopicFailure};
pub use stats::{AppStats, InstanceStats};
pub use tail::BodyCache;

use crate::{
    ambient::Ambient,
    codes::{Code, Refusal},
    stage::StagedBatch,
};
use app::AppTask;
use body::TopicBatch;
use connection::AppCommand;
use limits::{CLOSING_LINGER_MS, COMMANDS_WAITING_MAX, STATS_WAIT_MS};
use shared::{Parts, Phase, TopicShared};

/// An application of a topic.
#[derive(Clone, Debug)]
pub struct AppSpec {
    /// Its name.
    pub name: Arc<str>,
    /// Its delivery rules.
    pub policy: Policy,
    /// The subjects it receives.
    pub filter: SubjectFilter,
    /// It receives batches of this terms version and later ones; `None`: nothing yet.
    pub since: Option<TermsVersion>,
    /// Users that may take its name; empty: whoever can open the socket.
    pub allowed_uids: Vec<u32>,
}

/// What a topic is made of.
pub struct TopicOptions {
    /// Its name, the same on every node.
    pub name: Arc<str>,
    /// The node's name, for dead letters and `Opened`.
    pub node: Arc<str>,
    /// The mapping's space in the local log. Below [`DEAD_LETTER_SPACE`].
    pub space: u32,
    /// The applications.
    pub apps: Vec<AppSpec>,
    /// Applications of the app set that this node's configuration does not name any more: what they have not finished
    /// is kept, until the configuration names them again.
    pub absent: Vec<String>,
    /// Time of day and chance.
    pub ambient: Ambient,
}

/// What the local log held of a topic.
#[derive(Clone, Copy, Debug)]
pub struct TopicRecovery<'a> {
    /// Every named value of the log; the topic picks its cursors.
    pub values: &'a BTreeMap<String, Bytes>,
    /// Every record of the log; the topic picks its dead letters.
    pub records: &'a [RecoveredRecord],
}

/// A batch whose resolution is durable.
#[derive(Clone, Debug)]
pub struct PublishedBatch {
    /// The topic offset of its first won message: the topic's head.
    pub base: Offset,
    /// The terms in force at its claim.
    pub terms: TermsVersion,
    /// The won sequences as ascending, disjoint runs; empty: nothing was won, and the batch is done at once.
    pub won: Vec<(StreamSeq, StreamSeq)>,
    /// Where its STAGE record lies.
    pub at: Location,
    /// The batch itself.
    pub body: Arc<StagedBatch>,
}

/// Why a batch cannot be published. The topic is unchanged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Batches must come in offset order without gaps.
    #[error("batch {batch} begins at offset {base}, but the topic's head is {head}")]
    OutOfOrder {
        /// The batch.
        batch: BatchNo,
        /// Where it begins.
        base: Offset,
        /// Where it must begin.
        head: Offset,
    },
    /// The resolution does not fit the batch.
    #[error(transparent)]
    Won(#[from] WonMismatch),
}

/// A handle to a topic; clones are cheap and mean the same topic.
#[derive(Clone)]
pub struct Topic {
    shared: Arc<TopicShared>,
    apps: Arc<BTreeMap<Arc<str>, App>>,
    tasks: TaskTracker,
}

struct App {
    number: usize,
    allowed_uids: Vec<u32>,
    commands: mpsc::Sender<AppCommand>,
}

/// The owner's end of a topic.
pub struct TopicEvents {
    shared: Arc<TopicShared>,
}

impl TopicEvents {
    /// The next event; waits for ever when there is none. Safe to drop and call again.
    pub async fn next(&mut self) -> TopicEvent {
        self.shared.next_event().await
    }
}

/// The name of an application's cursor in the local log.
#[must_use]
pub fn cursor_name(space: u32, app: &str) -> String {
    format!("cursor/{space}/{app}")
}

impl Topic {
    /// Restores the topic and starts its tasks on the current runtime.
    ///
    /// `batches` are those with a durable resolution, in any order. The topic's head is then where the next batch is to
    /// be published. Batches that every application had finished are told as done at once.
    ///
    /// # Errors
    /// When the log contradicts itself; nothing was started then.
    pub fn start(
        options: TopicOptions,
        batches: Vec<RestoredBatch>,
        recovery: TopicRecovery<'_>,
        store: Arc<dyn Store>,
        cache: Arc<BodyCache>,
    ) -> Result<(Topic, TopicEvents), StartError> {
        let TopicOptions {
            name,
            node,
            space,
            apps,
            absent,
            ambient,
        } = options;
        let restored = restore::restore(
            space,
            (&apps, &absent),
            batches,
            recovery.values,
            recovery.records,
            &*store,
        )?;
        let shared = Arc::new(TopicShared::new(Parts {
            name,
            node,
            space,
            store,
            cache,
            ambient,
            index: restored.index,
            dead_letters: restored.dead_letters,
            since: apps.iter().map(|app| app.since).collect(),
            apps: apps.iter().map(|app| Arc::clone(&app.name)).collect(),
        }));
        shared.done(restored.done);
        let tasks = TaskTracker::new();
        let mut handles = BTreeMap::new();
        for ((number, spec), machine) in apps.into_iter().enumerate().zip(restored.machines) {
            let (commands, receiver) = mpsc::channel(COMMANDS_WAITING_MAX);
            let app = App {
                number,
                allowed_uids: spec.allowed_uids.clone(),
                commands,
            };
            let channel = (app.commands.downgrade(), receiver);
            handles.insert(Arc::clone(&spec.name), app);
            tasks.spawn(AppTask::new(Arc::clone(&shared), spec, number, machine, channel).run());
        }
        tasks.close();
        let events = TopicEvents {
            shared: Arc::clone(&shared),
        };
        Ok((
            Topic {
                shared,
                apps: Arc::new(handles),
                tasks,
            },
            events,
        ))
    }

    /// The topic's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The offset of the next message to be published.
    #[must_use]
    pub fn head(&self) -> Offset {
        self.shared.index.lock().head()
    }

    /// Number of batches that some application has not durably finished.
    #[must_use]
    pub fn unfinished_batches(&self) -> usize {
        self.shared.index.lock().len()
    }

    /// Messages that even the fastest application of the terms has not durably finished.
    #[must_use]
    pub fn least_backlog(&self) -> u64 {
        self.shared
            .index
            .lock()
            .least_backlog(|app| self.shared.is_served(app))
    }

    /// The applications' names, in order.
    pub fn applications(&self) -> impl Iterator<Item = &str> {
        self.apps.keys().map(|name| &**name)
    }

    /// Makes a batch visible. Its resolution must be durable.
    ///
    /// # Errors
    /// When it is not the next one, or does not fit its resolution.
    pub fn publish(&self, batch: PublishedBatch) -> Result<(), PublishError> {
        let PublishedBatch {
            base,
            terms,
            won,
            at,
            body,
        } = batch;
        let staged = body.seqs();
        let first_ns = body.published_ns().0;
        let entry = restore::entry(
            (&staged, first_ns, body.payload_bytes()),
            body.batch,
            base,
            terms,
            at,
            &won,
        );
        let batch_no = body.batch;
        let topic_batch = TopicBatch::new(base, terms, body, entry.won.as_deref())?;
        let head = {
            let mut index = self.shared.index.lock();
            if base != index.head() {
                return Err(PublishError::OutOfOrder {
                    batch: batch_no,
                    base,
                    head: index.head(),
                });
            }
            if entry.count > 0 {
                // In memory before it can be found, so that nobody reads from disk what was just written.
                self.shared.keep(Arc::new(topic_batch));
                index.push(entry);
            }
            index.head()
        };
        if won.is_empty() {
            self.shared.done(vec![(batch_no, base)]);
        } else {
            self.shared.head.send(&head);
        }
        Ok(())
    }

    /// From which terms version on an application receives. To be called before the first batch of those terms is
    /// published; an unknown application is ignored.
    pub fn set_since(&self, app: &str, since: Option<TermsVersion>) {
        if let Some(app) = self.apps.get(app) {
            self.shared.set_since(app.number, since);
        }
    }

    /// Pauses or resumes delivery to an application. Verdicts are taken all the same. Returns whether it exists.
    pub async fn set_paused(&self, app: &str, paused: bool) -> bool {
        self.command(app, AppCommand::SetPaused(paused)).await
    }

    /// Gives an application other delivery rules. Returns whether it exists.
    pub async fn set_policy(&self, app: &str, policy: Policy) -> bool {
        self.command(app, AppCommand::SetPolicy(policy)).await
    }

    async fn command(&self, app: &str, command: AppCommand) -> bool {
        match self.apps.get(app) {
            Some(app) => app.commands.send(command).await.is_ok(),
            None => false,
        }
    }

    /// Which applications have instances that take messages, and since when: the intake gate.
    #[must_use]
    pub fn connected_apps(&self) -> watch::Receiver<BTreeMap<Arc<str>, Presence>> {
        self.shared.presence.subscribe()
    }

    /// The applications as they are now. One whose task does not answer in time is shown by its name alone.
    pub async fn stats(&self) -> Vec<AppStats> {
        let asked = self.apps.iter().map(|(name, app)| async move {
            let (reply, answer) = oneshot::channel();
            let asked = async {
                app.commands.send(AppCommand::Stats(reply)).await.ok()?;
                answer.await.ok()
            };
            let stats = timeout(Duration::from_millis(STATS_WAIT_MS), asked)
                .await
                .ok()
                .flatten();
            stats.unwrap_or_else(|| AppStats {
                name: Arc::clone(name),
                ..AppStats::default()
            })
        });
        futures_util::future::join_all(asked).await
    }

    /// The newest dead letters, oldest first, at most [`limits::DEAD_LETTERS_LISTED_MAX`].
    #[must_use]
    pub fn dead_letters(&self) -> Vec<ListedDeadLetter> {
        self.shared.dead_letters.lock().listed().cloned().collect()
    }

    /// A dead letter in full. `None` when its id is not listed.
    ///
    /// # Errors
    /// When the local log cannot read it.
    pub async fn dead_letter(&self, id: u64) -> Result<Option<DeadLetter>, ReadFailure> {
        let found = self
            .shared
            .dead_letters
            .lock()
            .listed()
            .find(|letter| letter.id == id)
            .map(|letter| letter.at);
        let Some(at) = found else { return Ok(None) };
        let decode = |body: Bytes| Ok(Some(DeadLetter::decode(&body)?));
        read_apart(&self.shared.store, at, decode).await
    }

    /// Joins an application as an instance.
    ///
    /// # Errors
    /// When there is no such application, the user may not take its name, there are too many instances, or the topic
    /// has stopped delivering.
    pub async fn connect(&self, app: &str, request: ConnectRequest) -> Result<Connection, Refusal> {
        let Some(known) = self.apps.get(app) else {
            let names: Vec<&str> = self.applications().collect();
            return Err(Refusal::new(
                Code::UnknownApplication,
                format!(
                    "topic {} has no application {app:?}; it has: {}",
                    self.name(),
                    names.join(", ")
                ),
            ));
        };
        let uid = request.peer.uid;
        if !known.allowed_uids.is_empty() && !known.allowed_uids.contains(&uid) {
            return Err(Refusal::new(
                Code::NotPermitted,
                format!(
                    "user {uid} may not take the name of application {app} on topic {}",
                    self.name()
                ),
            ));
        }
        let (reply, answer) = oneshot::channel();
        let asked = known
            .commands
            .send(AppCommand::Connect { request, reply })
            .await
            .is_ok();
        let answered = if asked { answer.await.ok() } else { None };
        answered.unwrap_or_else(|| {
            Err(Refusal::new(
                Code::Stopping,
                format!("topic {} is ending; connect again later", self.name()),
            ))
        })
    }

    /// The node's fence: nothing is handed over from here on, not even what waits in channels. Clients are told why;
    /// verdicts are still taken. There is no way back.
    pub fn stop_delivery(&self, refusal: Refusal) {
        self.shared.fenced.store(true, Ordering::Release);
        let linger_until = Instant::now() + Duration::from_millis(CLOSING_LINGER_MS);
        self.shared.phase.send_if_modified(|phase| match phase {
            Phase::Running => {
                *phase = Phase::Stopped {
                    refusal: refusal.clone(),
                    linger_until,
                };
                true
            }
            Phase::Stopped { .. } | Phase::Ending { .. } => false,
        });
    }

    /// Ends the topic: clients are told, what they have not begun is taken back, verdicts for the rest are taken for
    /// up to `grace`, cursors are made durable. Returns when every task has ended.
    pub async fn shutdown(&self, grace: Duration) {
        let now = Instant::now();
        self.shared.phase.send_if_modified(|phase| {
            let (refusal, linger_until) = match phase {
                Phase::Running => (
                    Refusal::new(Code::Stopping, "the node is stopping; connect again later"),
                    now + Duration::from_millis(CLOSING_LINGER_MS).min(grace / 2),
                ),
                Phase::Stopped {
                    refusal,
                    linger_until,
                } => (refusal.clone(), *linger_until),
                Phase::Ending { .. } => return false,
            };
            *phase = Phase::Ending {
                refusal,
                linger_until,
                deadline: now + grace,
            };
            true
        });
        self.tasks.wait().await;
    }
}
