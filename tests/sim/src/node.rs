//! One node: a disk, a wire, and one life after the other of the real mapping on them.

use std::sync::Arc;
use std::time::Duration;

use fanin_bridge::ambient::Ambient;
use fanin_bridge::mapping::MappingOptions;
use fanin_bridge::mapping::driver::DriverError;
use fanin_bridge::mapping::join::JoinError;
use fanin_bridge::mapping::start::{Mapping, MappingHandle};
use fanin_bridge::mapping::view::{State, View};
use fanin_bridge::topic::BodyCache;
use fanin_bridge::topic::deadletter::DeadLetterHead;
use fanin_config::{
    ApplicationConfig, BackoffConfig, BatchConfig, HumanDuration, Intake, MappingConfig, Percent,
    SourceConfig,
};
use fanin_core::ids::{Incarnation, NodeUuid};
use fanin_core::node::{Policy, Stability};
use fanin_core::seq_set::SeqSet;
use fanin_hub::port::HubRef;
use fanin_store::Store;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::apps::{Client, app_name};
use crate::disk::{Image, Published, SimDisk};
use crate::hub::SimHub;
use crate::hub::link::Link;
use crate::hub::wire::Wire;
use crate::logs;
use crate::mutants::Mutant;
use crate::oracle::Oracle;
use crate::plan::Plan;
use crate::world::World;

/// The mapping's name.
pub const MAPPING: &str = "orders";
/// The source stream.
pub const STREAM: &str = "ORDERS";
/// The subjects the mapping wants, in plans with a filter.
pub const WANTED: &str = "orders.>";
/// The mapping's space in the log.
const SPACE: u32 = 1;
/// Bytes of bodies in memory: little, so that slow applications read from the disk.
const TAIL_BYTES: u64 = 64 << 10;
/// The one number that a mutant draws.
const SHARED_NONCE: u64 = 0x5eed;
/// Longest a stop in order takes, milliseconds.
const GRACE_MS: u64 = 5_000;

/// A node.
pub struct Node {
    /// Its name.
    pub name: Arc<str>,
    /// Its data directory's identity.
    pub uuid: NodeUuid,
    /// Its network.
    pub wire: Arc<Wire>,
    /// Whether its next start has the operator's word to create the consumer again.
    pub recreate_consumer: bool,
    /// Why it did not start or ended, when that needs an operator.
    pub refused: Option<String>,
    /// So many of the newest applications its next start lacks.
    pub lacks: u64,
    image: Option<Image>,
    life: Option<Life>,
}

/// One process.
struct Life {
    disk: Arc<SimDisk>,
    _work: AbortOnDropHandle<()>,
    run: JoinHandle<Result<(), DriverError>>,
    handle: MappingHandle,
    quiesce: CancellationToken,
    stop: CancellationToken,
    dead: CancellationToken,
    verdict: Option<oneshot::Receiver<Result<(), JoinError>>>,
}

/// What a node is given by the run.
#[derive(Clone)]
pub struct Ground {
    /// The run.
    pub world: Arc<World>,
    /// The hub.
    pub hub: Arc<SimHub>,
    /// The oracle.
    pub oracle: Arc<Oracle>,
    /// The plan.
    pub plan: Arc<Plan>,
    /// The applications that a process is started with.
    pub apps: u64,
}

impl Node {
    /// A node with an empty disk that was never started.
    #[must_use]
    pub fn new(number: u64) -> Node {
        Node::with_image(
            &format!("node{number}"),
            NodeUuid(0xa000 + u128::from(number)),
            Image::empty(),
        )
    }

    /// A node that uses a disk.
    #[must_use]
    pub fn with_image(name: &str, uuid: NodeUuid, image: Image) -> Node {
        Node {
            name: Arc::from(name),
            uuid,
            wire: Arc::default(),
            recreate_consumer: false,
            refused: None,
            lacks: 0,
            image: Some(image),
            life: None,
        }
    }

    fn options(&self, ground: &Ground) -> MappingOptions {
        let plan = &ground.plan;
        let application = || ApplicationConfig {
            users: Default::default(),
            max_attempts: u32::try_from(plan.attempts).unwrap_or(u32::MAX),
            backoff: BackoffConfig {
                initial: HumanDuration::millis(100),
                factor: 2.0,
                max: HumanDuration::secs(5),
                jitter: Percent(20),
            },
            lease: HumanDuration::secs(plan.lease_s),
            in_flight: 256,
            instance_in_flight: 64,
            filter: None,
        };
        let config = MappingConfig {
            ledger: Default::default(),
            sources: vec![SourceConfig {
                stream: STREAM.to_owned(),
                subjects: if plan.filtered {
                    vec![WANTED.to_owned()]
                } else {
                    Vec::new()
                },
                generation: None,
            }],
            topic: MAPPING.to_owned(),
            ack_wait: HumanDuration::secs(plan.ack_wait_s),
            nodes: u32::try_from(plan.nodes).unwrap_or(1),
            in_flight: u32::try_from(plan.in_flight.max(plan.batch)).unwrap_or(1),
            batch: BatchConfig {
                messages: u32::try_from(plan.batch).unwrap_or(1),
                ..BatchConfig::default()
            },
            intake: if plan.gated {
                Intake::Connected
            } else {
                Intake::Always
            },
            grace: HumanDuration::secs(5),
            required_delivery: None,
            applications: (0..ground.apps - self.lacks.min(ground.apps))
                .map(|app| (app_name(app), application()))
                .collect(),
        };
        let (now, random) = (Arc::clone(&ground.world), Arc::clone(&ground.world));
        MappingOptions {
            name: MAPPING.to_owned(),
            node: self.name.to_string(),
            prefix: "fanin".to_owned(),
            config,
            policy: Policy {
                stability: match plan.stable_ms {
                    _ if ground.world.plays(Mutant::TrustsTheHub) => Stability::SyncAlways,
                    0 => Stability::SyncAlways,
                    ms => Stability::After(ms),
                },
                audit_ms: 15_000,
                stuck_ms: 3_000 * plan.ack_wait_s,
                checkpoint_records: plan.checkpoint,
                ..Policy::default()
            },
            staged_bytes: 16 << 20,
            recreate_consumer: self.recreate_consumer,
            accept_loss: false,
            disk: None,
            ambient: Ambient::new(
                move || i64::try_from(now.now_ns()).unwrap_or(i64::MAX),
                move || match random.plays(Mutant::SharedNonce) {
                    true => SHARED_NONCE,
                    false => random.ambient.next(),
                },
            ),
        }
    }

    /// Whether a process runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.life.is_some()
    }

    /// Starts a process on the disk.
    pub async fn start(&mut self, ground: &Ground) {
        let Some(image) = self.image.take() else {
            return;
        };
        ground.world.note(&self.name, || "starts".to_owned());
        self.refused = None;
        let (disk, recovered, work) = image.mount(&ground.world, &self.wire, &self.name);
        let options = self.options(ground);
        let cache = Arc::new(BodyCache::new(TAIL_BYTES, TAIL_BYTES / 2));
        let store = Arc::clone(&disk) as Arc<dyn Store>;
        let restored = Mapping::restore(options, self.uuid, SPACE, &recovered, store, cache).await;
        let mapping = match restored {
            Ok(mapping) => mapping,
            Err(error) => {
                ground
                    .world
                    .violate(format!("{} cannot be restored from its disk: {error}", self.name));
                self.refused = Some(error.to_string());
                self.image = Some(disk.copy());
                return;
            }
        };
        let dead = CancellationToken::new();
        let link = || -> HubRef {
            Arc::new(Link {
                hub: Arc::clone(&ground.hub),
                wire: Arc::clone(&self.wire),
                dead: dead.clone(),
                node: Arc::clone(&self.name),
            })
        };
        let (quiesce, stop) = (CancellationToken::new(), CancellationToken::new());
        let (told, verdict) = oneshot::channel();
        let handle = mapping.handle();
        if let Some(topic) = &handle.topic {
            for app in 0..ground.apps - self.lacks.min(ground.apps) {
                for instance in 0..ground.plan.instances {
                    let client = Client {
                        world: Arc::clone(&ground.world),
                        hub: Arc::clone(&ground.hub),
                        oracle: Arc::clone(&ground.oracle),
                        topic: topic.clone(),
                        dead: dead.clone(),
                        node: self.uuid,
                        name: Arc::clone(&self.name),
                        lease_ms: ground.plan.lease_s * 1_000,
                    };
                    tokio::spawn(client.run(app, instance));
                }
            }
        }
        let run = mapping.run(link(), link(), quiesce.clone(), stop.clone(), told);
        let run = tokio::spawn(logs::of_node(Arc::clone(&self.name), run));
        self.life = Some(Life {
            disk,
            _work: work,
            run,
            handle,
            quiesce,
            stop,
            dead,
            verdict: Some(verdict),
        });
    }

    /// Kills the process.
    pub async fn crash(&mut self, world: &World) {
        let Some(life) = self.life.take() else { return };
        world.note(&self.name, || "is killed".to_owned());
        life.dead.cancel();
        self.image = Some(life.disk.crash());
        life.run.abort();
        // Everything of it is gone before anything else happens.
        drop(life.run.await);
    }

    /// Stops the process in order; what is not done within the grace time is cut off.
    pub async fn stop(&mut self, world: &World) {
        let Some(life) = &mut self.life else { return };
        world.note(&self.name, || "stops".to_owned());
        life.quiesce.cancel();
        let grace = Duration::from_millis(GRACE_MS);
        if let Some(topic) = &life.handle.topic {
            topic.shutdown(grace).await;
        }
        life.stop.cancel();
        let ended = tokio::time::timeout(grace, &mut life.run).await;
        world.note(&self.name, || format!("has stopped, in order: {}", ended.is_ok()));
        match ended {
            Ok(_) => self.bury(),
            Err(_) => self.crash(world).await,
        }
    }

    /// Looks whether the process has ended by itself. It has to be started again then.
    pub async fn look(&mut self, world: &World) {
        let Some(life) = &mut self.life else { return };
        if let Some(verdict) = &mut life.verdict {
            match verdict.try_recv() {
                Ok(Err(error)) => {
                    let text = format!("{}: {error}", error.code());
                    world.note(&self.name, || format!("refuses to start: {text}"));
                    // A failed disk is no reason to stay down: the supervisor starts it again.
                    self.refused = (!matches!(error, JoinError::Store(_))).then_some(text);
                    self.crash(world).await;
                    return;
                }
                Ok(Ok(())) | Err(oneshot::error::TryRecvError::Closed) => life.verdict = None,
                Err(oneshot::error::TryRecvError::Empty) => {}
            }
        }
        if life.run.is_finished() {
            let ended = (&mut life.run).await;
            match ended {
                Ok(Ok(())) => world.note(&self.name, || "has ended".to_owned()),
                Ok(Err(error)) => world.note(&self.name, || format!("ends: {error}")),
                Err(error) => world.note(&self.name, || format!("ends: {error}")),
            }
            self.bury();
        }
    }

    /// The process has ended: what it left on the disk is what the next one finds.
    fn bury(&mut self) {
        if let Some(life) = self.life.take() {
            life.dead.cancel();
            self.image = Some(life.disk.crash());
        }
    }

    /// Cancelled when the life of its present process is over.
    #[must_use]
    pub fn dead(&self) -> Option<CancellationToken> {
        self.life.as_ref().map(|life| life.dead.clone())
    }

    /// Where its mapping stands.
    #[must_use]
    pub fn view(&self) -> Option<View> {
        self.life.as_ref().map(|life| life.handle.view.get())
    }

    /// Why it is held.
    #[must_use]
    pub fn why_held(&self) -> String {
        match (&self.refused, self.view()) {
            (Some(why), _) => why.clone(),
            (None, Some(view)) => format!("{}: {}", view.state.word(), view.reason),
            (None, None) => String::new(),
        }
    }

    /// Whether it has halted, was fenced, or refuses to start.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.refused.is_some()
            || self
                .view()
                .is_some_and(|view| matches!(view.state, State::Halted | State::Fenced | State::Damaged))
    }

    /// The disk of the running process.
    #[must_use]
    pub fn disk(&self) -> Option<&Arc<SimDisk>> {
        self.life.as_ref().map(|life| &life.disk)
    }

    /// The messages whose bodies lie on its disk.
    #[must_use]
    pub fn bodies(&self) -> Vec<(Incarnation, SeqSet)> {
        match (&self.life, &self.image) {
            (Some(life), _) => life.disk.copy().bodies(),
            (None, Some(image)) => image.bodies(),
            (None, None) => Vec::new(),
        }
    }

    /// What its disk holds published, and has not let go.
    #[must_use]
    pub fn published(&self) -> Vec<Published> {
        match (&self.life, &self.image) {
            (Some(life), _) => life.disk.copy().published(),
            (None, Some(image)) => image.published(),
            (None, None) => Vec::new(),
        }
    }

    /// Puts another disk in. Only when no process runs.
    pub fn replace_disk(&mut self, image: Image) {
        if self.life.is_none() {
            self.image = Some(image);
        }
    }

    /// The dead letters of the running process, or on the disk of one that does not run: application, source, sequence.
    #[must_use]
    pub fn dead_letters(&self) -> Vec<(u64, Incarnation, u64)> {
        let topic = self.life.as_ref().and_then(|life| life.handle.topic.as_ref());
        let heads: Vec<DeadLetterHead> = match (topic, &self.image) {
            (Some(topic), _) => topic
                .dead_letters()
                .into_iter()
                .map(|letter| letter.head)
                .collect(),
            (None, Some(image)) => image.dead_letters(),
            (None, None) => Vec::new(),
        };
        heads
            .into_iter()
            .filter_map(|head| {
                let app = head.app.strip_prefix("app")?.parse().ok()?;
                Some((app, head.incarnation, head.seq.0))
            })
            .collect()
    }
}
