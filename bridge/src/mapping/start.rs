//! Starting a mapping: its topic at once, from what the disk holds; its place in the cluster as soon as the hub answers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fanin_config::User;
use fanin_core::delivery::{Backoff, Policy as DeliveryPolicy};
use fanin_core::ids::{BatchNo, LedgerSeq, NodeUuid, TermsVersion};
use fanin_core::node::Identity;
use fanin_core::recovery::{Disk, recover};
use fanin_hub::port::{Hub, HubRef};
use fanin_proto::v1::HoldingsPart;
use fanin_store::{Class, Op, Recovered, Store};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::batches::{Batches, Flying};
use super::disk::{DiskError, Epochs, Kept, Names};
use super::driver::{Driver, DriverError, DriverParts};
use super::gate::DISK_FULL;
use super::holdings::{QUESTIONS_MAX, Question, Remembered, Unjoined, add_apps};
use super::join::{JoinContext, JoinError, Joined, join, pause};
use super::ledger_io::error_chain;
use super::limits::TICK;
use super::stuck::PullLink;
use super::view::{Shared, State};
use super::{MappingOptions, millis};
use crate::topic::{
    AppSpec, BodyCache, RestoredBatch, StartError, SubjectFilter, Topic, TopicEvents, TopicOptions,
    TopicRecovery,
};

/// Pause between two tries at joining when only an operator can help.
const REFUSED_PAUSE: Duration = Duration::from_secs(10);

/// How long a mapping's loop may take to tell what it holds.
const HOLDINGS_WAIT: Duration = Duration::from_secs(5);

/// Why a mapping cannot start from its disk.
#[derive(Debug, thiserror::Error)]
pub enum MappingError {
    /// The local log's records cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The topic cannot be restored.
    #[error("FAN-4005: {0}")]
    Topic(#[from] StartError),
}

/// A mapping whose topic is there.
pub struct Mapping {
    options: MappingOptions,
    uuid: NodeUuid,
    store: Arc<dyn Store>,
    names: Names,
    topic: Topic,
    topic_events: TopicEvents,
    epochs: Epochs,
    disk: Disk,
    remembered: Remembered,
    batches: Batches,
    damaged: BTreeSet<BatchNo>,
    terms_known: u32,
    view: Shared,
    questions: (mpsc::Sender<Question>, mpsc::Receiver<Question>),
}

/// What everybody else needs of a mapping.
#[derive(Clone)]
pub struct MappingHandle {
    /// Its name.
    pub name: String,
    /// Its topic's name.
    pub topic_name: String,
    /// Its topic; `None` when damage in the local log holds the mapping back.
    pub topic: Option<Topic>,
    /// Where it stands.
    pub view: Shared,
    questions: Option<mpsc::Sender<Question>>,
}

impl MappingHandle {
    /// What the mapping holds on this node, with the ledger's folded state if wanted and there is one; `None` when damage
    /// holds it back, or when its loop does not answer in time.
    pub async fn holdings(&self, with_state: bool) -> Option<Vec<HoldingsPart>> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            let question = Question { with_state, reply };
            self.questions.as_ref()?.send(question).await.ok()?;
            answer.await.ok()
        };
        let mut parts = tokio::time::timeout(HOLDINGS_WAIT, asked).await.ok().flatten()?;
        if let Some(topic) = &self.topic {
            add_apps(&mut parts, topic).await;
        }
        Some(parts)
    }

    /// A mapping that damage holds back: it is shown, and does nothing.
    #[must_use]
    pub fn held(name: &str, topic_name: &str, why: &DiskError) -> MappingHandle {
        let view = Shared::default();
        view.update(|view| {
            view.state = State::Damaged;
            view.reason = why.to_string();
        });
        MappingHandle {
            name: name.to_owned(),
            topic_name: topic_name.to_owned(),
            topic: None,
            view,
            questions: None,
        }
    }
}

impl Mapping {
    /// Restores the mapping's topic. Deliveries are held until the node has joined.
    ///
    /// # Errors
    /// `MappingError`: the data directory cannot be used.
    pub async fn restore(
        options: MappingOptions,
        uuid: NodeUuid,
        space: u32,
        recovered: &Recovered,
        store: Arc<dyn Store>,
        cache: Arc<BodyCache>,
    ) -> Result<Mapping, MappingError> {
        let kept = Kept::of(recovered, space)?;
        let names = Names::of(space);
        for batch in &kept.leftover {
            drop(store.commit(
                Class::Finish,
                vec![Op::Release {
                    key: names.batch(*batch),
                }],
            ));
        }
        let mut published = Vec::new();
        let mut batches = Batches::default();
        let mut damaged = BTreeSet::new();
        for (number, batch) in &kept.batches {
            if batch.damaged {
                tracing::warn!(
                    code = "FAN-4043",
                    mapping = options.name,
                    batch = number.0,
                    segment = batch.at.segment,
                    position = batch.at.position,
                    resolved = batch.resolution.is_some(),
                    "a batch of the local log is damaged"
                );
            }
            match &batch.resolution {
                Some(resolution) => {
                    if batch.damaged && !resolution.won.is_empty() {
                        damaged.insert(*number);
                    }
                    published.push(RestoredBatch {
                        head: batch.head.clone(),
                        at: batch.at,
                        resolution: resolution.clone(),
                    });
                }
                None => batches.insert(
                    *number,
                    Flying {
                        at: Some(batch.at),
                        head: batch.head.clone(),
                        damaged: batch.damaged,
                        ..Flying::default()
                    },
                ),
            }
        }
        let topic_options = TopicOptions {
            name: Arc::from(options.config.topic.as_str()),
            node: Arc::from(options.node.as_str()),
            space,
            apps: app_specs(&options, &kept.terms.since),
            absent: kept
                .terms
                .since
                .keys()
                .filter(|app| !options.config.applications.contains_key(*app))
                .cloned()
                .collect(),
            ambient: options.ambient.clone(),
        };
        let recovery = TopicRecovery {
            values: &recovered.values,
            records: &recovered.records,
        };
        let (topic, topic_events) =
            Topic::start(topic_options, published, recovery, Arc::clone(&store), cache)?;
        for app in options.config.applications.keys() {
            topic.set_paused(app, true).await;
        }
        let mut disk = kept.disk();
        disk.next_offset = disk.next_offset.max(topic.head());
        let remembered = Remembered {
            closed: kept.closed,
            read: disk.witness.position.max(LedgerSeq(kept.epochs.last)),
            ledger_created_ns: kept.epochs.ledger_created_ns,
        };
        let view = Shared::default();
        Ok(Mapping {
            options,
            uuid,
            store,
            names,
            topic,
            topic_events,
            epochs: kept.epochs,
            disk,
            remembered,
            batches,
            damaged,
            terms_known: kept.terms.version,
            view,
            questions: mpsc::channel(QUESTIONS_MAX),
        })
    }

    /// The handle for everybody else.
    #[must_use]
    pub fn handle(&self) -> MappingHandle {
        MappingHandle {
            name: self.options.name.clone(),
            topic_name: self.options.config.topic.clone(),
            topic: Some(self.topic.clone()),
            view: self.view.clone(),
            questions: Some(self.questions.0.clone()),
        }
    }

    /// Messages are pulled over `pulls`; `hub` is for everything else.
    ///
    /// Joins the cluster and runs until `stop`; from `quiesce` on nothing more is pulled. The first verdict of the hub goes to `verdict`: an error there is
    /// one that only an operator can mend, and ends a process that has just started.
    ///
    /// # Errors
    /// `DriverError`: the process must end.
    pub async fn run(
        mut self,
        hub: HubRef,
        pulls: HubRef,
        quiesce: CancellationToken,
        stop: CancellationToken,
        verdict: oneshot::Sender<Result<(), JoinError>>,
    ) -> Result<(), DriverError> {
        let Some(joined) = self.join(&*hub, &quiesce, verdict).await else {
            return Ok(());
        };
        let sources = joined
            .sources
            .iter()
            .map(|(incarnation, source)| (*incarnation, source.terms.clone()));
        let identity = Identity {
            uuid: self.uuid,
            name: self.options.node.clone(),
            nonce: joined.nonce,
            hosts: self.options.hosts(),
            sources: sources.collect(),
        };
        self.view.update(|view| view.state = State::Joining);
        // The node must know every epoch this disk wrote, but its own new one is announced by `EpochAppended`.
        self.disk.epoch = self.disk.epoch.max(joined.follows);
        let node = recover(identity, self.options.policy, self.disk);
        self.remembered.ledger_created_ns = joined.epochs.ledger_created_ns;
        let epoch = joined.epoch;
        let (driver, topic_events, events) = Driver::new(DriverParts {
            options: self.options,
            node,
            hub,
            pulls: PullLink::new(pulls),
            ledger: joined.ledger,
            ledger_size: joined.ledger_size,
            sources: joined.sources,
            store: self.store,
            names: self.names,
            topic: self.topic,
            topic_events: self.topic_events,
            batches: self.batches,
            damaged: self.damaged,
            terms_known: self.terms_known,
            remembered: self.remembered,
            view: self.view,
        });
        let asked = (events, self.questions.1);
        driver.run(epoch, topic_events, asked, quiesce, stop).await
    }

    async fn join(
        &mut self,
        hub: &dyn Hub,
        shutdown: &CancellationToken,
        verdict: oneshot::Sender<Result<(), JoinError>>,
    ) -> Option<Joined> {
        let mut verdict = Some(verdict);
        let mut tries = 0;
        let mut tried = None;
        let mut told = String::new();
        // What nothing changes before the node has joined.
        let mut desk = Desk {
            questions: &mut self.questions.1,
            unjoined: Unjoined {
                node: &self.options.node,
                uuid: self.uuid,
                disk: &self.disk,
                remembered: &self.remembered,
                terms: self.terms_known,
                topic: &self.topic,
                ledger_suspect: false,
            },
            view: &self.view,
            store: &*self.store,
            is_held: false,
        };
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return None,
                () = desk.while_waiting(wait_connected(hub, &self.view)) => {}
            }
            let joined_before = self.epochs.last != 0;
            let context = JoinContext {
                options: &self.options,
                hub,
                store: &self.store,
                names: &self.names,
                uuid: self.uuid,
                witness: self.disk.witness,
                has_read: self.remembered.read,
            };
            let joining = join(&context, &mut self.epochs, &mut tried);
            let result = tokio::select! {
                biased;
                () = shutdown.cancelled() => return None,
                result = desk.while_waiting(joining) => result,
            };
            let error = match result {
                Ok(joined) => {
                    if let Some(verdict) = verdict.take() {
                        // Nobody waits for it when the hub came late.
                        let _ = verdict.send(Ok(()));
                    }
                    return Some(joined);
                }
                Err(error) => error,
            };
            // Nobody waits for the verdict any more when the process has been serving for a while.
            let starting = verdict.as_ref().is_some_and(|verdict| !verdict.is_closed());
            let retryable = error.retryable() && !(starting && error.refuses_start());
            let reason = format!("{}: {}", error.code(), error_chain(&error));
            // A hub that is away for a moment does not make a damaged ledger whole.
            if !desk.is_held || !retryable {
                desk.is_held = error.holds();
                desk.unjoined.ledger_suspect = error.holds();
                let state = if error.holds() {
                    State::Halted
                } else {
                    State::Starting
                };
                self.view.update(|view| {
                    view.state = state;
                    view.reason = reason.clone();
                });
            }
            if retryable {
                tracing::debug!(
                    mapping = self.options.name,
                    reason,
                    "joining failed; trying again"
                );
                desk.while_waiting(tokio::time::sleep(pause(tries))).await;
                tries += 1;
                continue;
            }
            if told != reason {
                tracing::error!(
                    code = error.code(),
                    mapping = self.options.name,
                    reason,
                    "the mapping cannot take part"
                );
                told = reason;
            }
            if let Some(verdict) = verdict.take() {
                let _ = verdict.send(error.verdict(joined_before));
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return None,
                () = desk.while_waiting(tokio::time::sleep(REFUSED_PAUSE)) => {}
            }
        }
    }
}

/// What goes on while the mapping waits to join: questions are answered from the disk, and status is kept.
struct Desk<'a> {
    questions: &'a mut mpsc::Receiver<Question>,
    unjoined: Unjoined<'a>,
    view: &'a Shared,
    store: &'a dyn Store,
    is_held: bool,
}

impl Desk<'_> {
    async fn while_waiting<T>(&mut self, waiting: impl Future<Output = T>) -> T {
        let mut waiting = std::pin::pin!(waiting);
        let mut look = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                biased;
                result = &mut waiting => return result,
                Some(question) = self.questions.recv() => {
                    // An error means that nobody waits for the answer any more.
                    drop(question.reply.send(self.unjoined.holdings(&self.view.get())));
                }
                // The EPOCH's nonce must be on disk first, for which a full one makes it wait.
                _ = look.tick() => {
                    if !self.is_held {
                        note_full_disk(self.store, self.view);
                    }
                    self.view.beat();
                }
            }
        }
    }
}

/// Waits for the hub, and says meanwhile why it is not there.
async fn wait_connected(hub: &dyn Hub, view: &Shared) {
    let mut connected = hub.wait_connected();
    let mut look = tokio::time::interval(TICK);
    let mut told = None;
    loop {
        tokio::select! {
            biased;
            () = &mut connected => break,
            _ = look.tick() => {
                let why = hub.why_away();
                if why.is_some() && why != told {
                    view.update(|view| view.reason = why.clone().unwrap_or_default());
                    told = why;
                }
            }
        }
    }
    if told.is_some_and(|told| view.get().reason == told) {
        view.update(|view| view.reason.clear());
    }
}

fn note_full_disk(store: &dyn Store, view: &Shared) {
    let (waits, told) = (store.usage().waiting, view.get().reason == DISK_FULL);
    if waits != told {
        let reason = if waits { DISK_FULL } else { "" };
        view.update(|view| view.reason = reason.to_owned());
    }
}

fn app_specs(options: &MappingOptions, since: &BTreeMap<String, u32>) -> Vec<AppSpec> {
    let apps = options.config.applications.iter().map(|(name, app)| AppSpec {
        name: Arc::from(name.as_str()),
        policy: DeliveryPolicy {
            max_attempts: app.max_attempts,
            backoff: Backoff {
                initial_ms: millis(app.backoff.initial.0),
                // The configuration bounds the factor to 1..=100.
                factor_milli: (app.backoff.factor * 1000.0).round() as u32,
                max_ms: millis(app.backoff.max.0),
                jitter_percent: app.backoff.jitter.0,
            },
            lease_ms: millis(app.lease.0),
            in_flight_max: app.in_flight,
            instance_in_flight_max: app.instance_in_flight,
        },
        filter: SubjectFilter::new(
            app.filter
                .as_ref()
                .map(|filter| filter.subjects.clone())
                .unwrap_or_default(),
        ),
        since: since.get(name).map(|version| TermsVersion(*version)),
        allowed_uids: app.users.iter().flatten().map(User::uid).collect(),
    });
    apps.collect()
}
