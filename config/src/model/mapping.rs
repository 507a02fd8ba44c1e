//! What is brought from the hub to which applications.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::decode::{Decode, Section, leaf_by_word};
use crate::units::{ByteSize, HumanDuration, Percent};
use crate::user::User;

/// When a node pulls from the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Intake {
    /// While every application of the mapping is connected here, or was within the grace time.
    #[default]
    Connected,
    /// Always: messages may wait here for applications that are away.
    Always,
}

leaf_by_word!(Intake: "connected" => Intake::Connected, "always" => Intake::Always);

/// What a mapping must be able to hold, or the bridge does not start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RequiredDelivery {
    /// Each message once to every application; needs a hub that syncs before it acknowledges.
    ExactlyOnce,
    /// Each message at least once.
    AtLeastOnce,
}

leaf_by_word!(RequiredDelivery: "exactly_once" => RequiredDelivery::ExactlyOnce, "at_least_once" => RequiredDelivery::AtLeastOnce);

/// One rule: these sources go to this topic, for these applications.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct MappingConfig {
    /// Streams on the hub, each with the subjects wanted.
    pub sources: Vec<SourceConfig>,
    /// The topic's name, `[a-zA-Z0-9._-]{1,64}`, the same on every node. Default: the mapping's name.
    #[schemars(with = "Option<String>")]
    pub topic: String,
    /// How long the hub waits for a batch to be settled before it offers it to another node. Well above stage plus claim.
    #[schemars(default = "default_ack_wait")]
    pub ack_wait: HumanDuration,
    /// How many nodes the shared consumer is sized for; the hub's `max_ack_pending` is twice this times `in_flight`.
    #[schemars(default = "default_nodes", range(min = 1, max = 1000))]
    pub nodes: u32,
    /// Most messages this node has pulled and not yet settled.
    #[schemars(default = "default_in_flight", range(min = 1, max = 1_000_000))]
    pub in_flight: u32,
    /// How much is pulled, staged and claimed together.
    #[schemars(default)]
    pub batch: BatchConfig,
    /// The mapping's ledger on the hub.
    #[schemars(default)]
    pub ledger: LedgerConfig,
    /// When this node pulls.
    #[schemars(default)]
    pub intake: Intake,
    /// How long an application may be away before a node with `intake: connected` stops pulling.
    #[schemars(default = "default_grace")]
    pub grace: HumanDuration,
    /// Refuse to start unless this can be held: neither with a `data_dir` in memory (tmpfs, ramfs), nor by a source kept in memory
    /// or with `persist_mode: async`, nor, for `exactly_once`, by a hub declared `lazy`. Absent: start, and say in `status` what
    /// holds.
    pub required_delivery: Option<RequiredDelivery>,
    /// The applications, by names of `[a-z0-9-]{1,64}`; each gets every message of the mapping once.
    pub applications: BTreeMap<String, ApplicationConfig>,
}

fn default_ack_wait() -> HumanDuration {
    HumanDuration::secs(30)
}

fn default_nodes() -> u32 {
    3
}

fn default_in_flight() -> u32 {
    1024
}

fn default_grace() -> HumanDuration {
    HumanDuration::secs(10)
}

/// All defaults: no sources, no topic and no applications, so not yet valid.
impl Default for MappingConfig {
    fn default() -> Self {
        Self {
            sources: Vec::new(),
            topic: String::new(),
            ack_wait: default_ack_wait(),
            nodes: default_nodes(),
            in_flight: default_in_flight(),
            batch: BatchConfig::default(),
            ledger: LedgerConfig::default(),
            intake: Intake::default(),
            grace: default_grace(),
            required_delivery: None,
            applications: BTreeMap::new(),
        }
    }
}

impl MappingConfig {
    /// The shared consumer's `max_ack_pending`: 2 x nodes x in-flight per node.
    pub fn max_ack_pending(&self) -> i64 {
        2 * i64::from(self.nodes) * i64::from(self.in_flight)
    }
}

impl Decode for MappingConfig {
    fn decode(s: &mut Section<'_, '_>) -> Self {
        let d = Self::default();
        let name = s.own_name();
        let in_flight = s.value("in_flight", d.in_flight);
        let mut batch: BatchConfig = s.section("batch");
        if !s.cx.given(&s.path.key("batch").key("messages")) {
            batch.messages = batch.messages.min(in_flight);
        }
        Self {
            sources: s.section_list("sources"),
            topic: s.value("topic", name),
            ack_wait: s.value("ack_wait", d.ack_wait),
            nodes: s.value("nodes", d.nodes),
            in_flight,
            batch,
            ledger: s.section("ledger"),
            intake: s.value("intake", d.intake),
            grace: s.value("grace", d.grace),
            required_delivery: s.optional("required_delivery"),
            applications: s.named("applications"),
        }
    }
}

/// A stream on the hub, or part of one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct SourceConfig {
    /// The stream's name.
    pub stream: String,
    /// The subjects wanted, with `*` and `>`; they must not overlap. Absent: all of the stream.
    #[schemars(default)]
    pub subjects: Vec<String>,
    /// Raised by the operator to accept that the stream was deleted and created again: its sequences then mean other messages.
    pub generation: Option<u32>,
}

impl Decode for SourceConfig {
    fn decode(s: &mut Section<'_, '_>) -> Self {
        Self {
            stream: s.value("stream", String::new()),
            subjects: s.list("subjects"),
            generation: s.optional("generation"),
        }
    }
}

/// How much is pulled, staged and claimed together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(default, deny_unknown_fields)]
pub struct BatchConfig {
    /// Most messages, at most 1000. Default: 256, or `in_flight` when that is smaller.
    #[schemars(range(min = 1, max = 1000))]
    pub messages: u32,
    /// Most bytes of bodies and headers; a single larger message is a batch of its own.
    pub bytes: ByteSize,
    /// How long a batch that is not full waits for more. With more than 16 384 unfinished batches it waits longer, up to 1 s.
    pub linger: HumanDuration,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self {
            messages: 256,
            bytes: ByteSize::mib(1),
            linger: HumanDuration::millis(5),
        }
    }
}

impl Decode for BatchConfig {
    fn decode(s: &mut Section<'_, '_>) -> Self {
        let d = Self::default();
        Self {
            messages: s.value("messages", d.messages),
            bytes: s.value("bytes", d.bytes),
            linger: s.value("linger", d.linger),
        }
    }
}

/// The mapping's ledger on the hub: the stream in which nodes agree on who owns what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(default, deny_unknown_fields)]
pub struct LedgerConfig {
    /// Size limit of a ledger that this node creates; JetStream sets as much storage aside. An existing ledger keeps its own. Its
    /// content follows the backlog: claims wait while it is at three quarters of the limit.
    pub max_bytes: ByteSize,
}

impl Default for LedgerConfig {
    fn default() -> Self {
        Self {
            max_bytes: ByteSize::gib(1),
        }
    }
}

impl Decode for LedgerConfig {
    fn decode(s: &mut Section<'_, '_>) -> Self {
        let d = Self::default();
        Self {
            max_bytes: s.value("max_bytes", d.max_bytes),
        }
    }
}

/// How one application is served.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(default, deny_unknown_fields)]
pub struct ApplicationConfig {
    /// Attempts after which a message becomes a dead letter.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_attempts: u32,
    /// How long a failed message waits before the next attempt.
    pub backoff: BackoffConfig,
    /// How long an instance may hold a delivery without answering or extending.
    pub lease: HumanDuration,
    /// Most messages the application may hold at once, over all its instances here.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub in_flight: u32,
    /// Most messages one instance may hold at once. Default: 1024, or `in_flight` when that is smaller.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub instance_in_flight: u32,
    /// Which of the topic's messages the application wants. Absent: all.
    pub filter: Option<FilterConfig>,
    /// The users of this machine whose processes may be instances of the application, by name or number; names are looked up
    /// in /etc/passwd at the start. Absent: everybody who may open the socket.
    pub users: Option<Vec<User>>,
}

impl Default for ApplicationConfig {
    fn default() -> Self {
        Self {
            max_attempts: 10,
            backoff: BackoffConfig::default(),
            lease: HumanDuration::secs(30),
            in_flight: 4096,
            instance_in_flight: 1024,
            filter: None,
            users: None,
        }
    }
}

impl Decode for ApplicationConfig {
    fn decode(s: &mut Section<'_, '_>) -> Self {
        let d = Self::default();
        let in_flight = s.value("in_flight", d.in_flight);
        let users = s.list("users");
        Self {
            max_attempts: s.value("max_attempts", d.max_attempts),
            backoff: s.section("backoff"),
            lease: s.value("lease", d.lease),
            in_flight,
            instance_in_flight: s.value("instance_in_flight", d.instance_in_flight.min(in_flight)),
            filter: s.optional_section("filter"),
            users: s.given("users").then_some(users),
        }
    }
}

/// How long a failed message waits: `initial`, then `factor` times as long each time, at most `max`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(default, deny_unknown_fields)]
pub struct BackoffConfig {
    /// The first wait.
    pub initial: HumanDuration,
    /// By how much each wait grows, 1 to 100.
    #[schemars(range(min = 1, max = 100))]
    pub factor: f64,
    /// The longest wait. Default: 1m, or `initial` when that is longer.
    pub max: HumanDuration,
    /// By how much of itself each wait is varied at random.
    pub jitter: Percent,
}

impl Default for BackoffConfig {
    fn default() -> Self {
        Self {
            initial: HumanDuration::millis(200),
            factor: 2.0,
            max: HumanDuration::secs(60),
            jitter: Percent(20),
        }
    }
}

impl Decode for BackoffConfig {
    fn decode(s: &mut Section<'_, '_>) -> Self {
        let d = Self::default();
        let initial = s.value("initial", d.initial);
        Self {
            initial,
            factor: s.value("factor", d.factor),
            max: s.value("max", d.max.max(initial)),
            jitter: s.value("jitter", d.jitter),
        }
    }
}

/// Which messages an application wants.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct FilterConfig {
    /// Subjects, with `*` and `>`; a message that matches any of them is wanted.
    pub subjects: Vec<String>,
}

impl Decode for FilterConfig {
    fn decode(s: &mut Section<'_, '_>) -> Self {
        Self {
            subjects: s.list("subjects"),
        }
    }
}
