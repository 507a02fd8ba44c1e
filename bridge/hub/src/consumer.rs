//! The shared durable pull consumer, the queue group over all nodes of a mapping.

use std::collections::BTreeMap;
use std::time::Duration;

use fanin_core::ids::{Incarnation, StreamSeq};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{ApiError, server_code};
use crate::codes;
use crate::connection::Connection;
use crate::limits;
use crate::timestamp;
use crate::verify::{Mismatch, differences, sentence};

/// What a mapping needs of its shared consumer.
#[derive(Clone, Debug)]
pub struct ConsumerSpec {
    /// The source stream.
    pub stream: String,
    /// The ledger's subject prefix, `fanin` by default; sets apart two installations on one stream.
    pub prefix: String,
    /// The mapping's name.
    pub mapping: String,
    /// The source's incarnation; part of the name, so that a stale acknowledgement cannot reach another incarnation.
    pub incarnation: Incarnation,
    /// Raised when the filter changes or the consumer is re-created on purpose; 0 at first.
    pub generation: u32,
    /// Only these subjects; empty for all.
    pub filter_subjects: Vec<String>,
    /// The hub redelivers after this long without an acknowledgement.
    pub ack_wait: Duration,
    /// How many nodes share the consumer.
    pub nodes: u64,
    /// Messages one node may hold unacknowledged.
    pub in_flight_per_node: u64,
}

/// Whether a missing consumer may be created, and where it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreatePolicy {
    /// Not at all: the ledger has a watermark, so somebody must decide.
    Never,
    /// With all messages of the stream: the mapping is new.
    FromStart,
    /// Behind the watermark W: an operator re-creates it.
    After(StreamSeq),
}

/// The consumer's counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerInfo {
    /// The consumer's name.
    pub name: String,
    /// When it was created, nanoseconds since 1970; another time means it was re-created.
    pub created_ns: u64,
    /// Every message at or below is acknowledged or does not match.
    pub ack_floor: StreamSeq,
    /// The last message delivered to anybody.
    pub delivered: StreamSeq,
    /// Deliveries made so far.
    pub deliveries: u64,
    /// Matching messages not delivered yet.
    pub pending: u64,
    /// Messages delivered and not acknowledged.
    pub ack_pending: u64,
    /// Messages among them that were delivered more than once.
    pub redelivered: u64,
    /// Pull requests waiting.
    pub waiting: u64,
    /// The acknowledgement wait the hub really uses.
    pub ack_wait: Duration,
    /// The most unacknowledged messages the hub allows over all nodes.
    pub max_ack_pending: i64,
}

/// A consumer that is there and has the settings the protocol rests on.
#[derive(Clone, Debug)]
pub struct SharedConsumer {
    /// The source stream.
    pub stream: String,
    /// Its name.
    pub name: String,
    /// Counters and settings as of now.
    pub info: ConsumerInfo,
    /// True when this call created it.
    pub created: bool,
    /// Sizes that this call raised, as more nodes share the consumer now.
    pub grown: Vec<Mismatch>,
}

/// Why there is no usable shared consumer.
#[derive(Debug, thiserror::Error)]
pub enum ConsumerError {
    /// It is missing and must not be created silently.
    #[error(
        "the shared consumer {name} on {stream} is missing although the ledger has a watermark; re-create it behind the watermark by starting one bridge with --recreate-consumer"
    )]
    Missing {
        /// The source stream.
        stream: String,
        /// The consumer.
        name: String,
    },
    /// It exists with settings the protocol cannot work with.
    #[error(
        "the shared consumer {name} on {stream} differs: {}; restore these settings, or make the configurations of all nodes alike",
        sentence(mismatches)
    )]
    Differs {
        /// The source stream.
        stream: String,
        /// The consumer.
        name: String,
        /// Which settings.
        mismatches: Vec<Mismatch>,
    },
    /// There is no such stream.
    #[error(
        "the hub has no stream {stream}; create it, or correct the mapping's source, or name servers of its account and domain"
    )]
    StreamMissing {
        /// The stream.
        stream: String,
    },
    /// The request failed.
    #[error("cannot look after the shared consumer {name} on {stream}")]
    Hub {
        /// The source stream.
        stream: String,
        /// The consumer.
        name: String,
        /// Why.
        source: ApiError,
    },
}

impl ConsumerError {
    /// True when trying again later may help without any change.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            ConsumerError::Missing { .. }
            | ConsumerError::Differs { .. }
            | ConsumerError::StreamMissing { .. } => false,
            ConsumerError::Hub { source, .. } => source.retryable(),
        }
    }

    /// The stable code users can look up.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            ConsumerError::Missing { .. } => codes::CONSUMER_MISSING,
            ConsumerError::Differs { .. } => codes::CONSUMER_DIFFERS,
            ConsumerError::StreamMissing { .. } => codes::SOURCE_MISSING,
            ConsumerError::Hub { source, .. } => source.code(),
        }
    }
}

#[derive(Deserialize)]
struct ConsumerReply {
    name: String,
    created: String,
    config: Value,
    delivered: Sequences,
    ack_floor: Sequences,
    #[serde(default)]
    num_ack_pending: u64,
    #[serde(default)]
    num_redelivered: u64,
    #[serde(default)]
    num_waiting: u64,
    #[serde(default)]
    num_pending: u64,
    /// An operator has paused it, and that has not ended yet.
    #[serde(default)]
    paused: bool,
}

#[derive(Deserialize)]
struct Sequences {
    consumer_seq: u64,
    stream_seq: u64,
}

impl ConsumerReply {
    fn info(&self) -> ConsumerInfo {
        let number = |name: &str| self.config.get(name).and_then(Value::as_i64).unwrap_or(0);
        ConsumerInfo {
            name: self.name.clone(),
            // An unreadable time is 0 on every node; it only weakens the check for a re-created consumer.
            created_ns: timestamp::parse_ns(&self.created).unwrap_or(0),
            ack_floor: StreamSeq(self.ack_floor.stream_seq),
            delivered: StreamSeq(self.delivered.stream_seq),
            deliveries: self.delivered.consumer_seq,
            pending: self.num_pending,
            ack_pending: self.num_ack_pending,
            redelivered: self.num_redelivered,
            waiting: self.num_waiting,
            ack_wait: Duration::from_nanos(u64::try_from(number("ack_wait")).unwrap_or(0)),
            max_ack_pending: number("max_ack_pending"),
        }
    }
}

/// Settings compared as they stand (design section 4); a consumer that differs here is refused.
const BINDING: [&str; 15] = [
    "durable_name",
    "ack_policy",
    "max_deliver",
    "replay_policy",
    "headers_only",
    "mem_storage",
    "deliver_subject",
    "backoff",
    "priority_policy",
    "ack_wait",
    "max_ack_pending",
    "max_waiting",
    "max_batch",
    "num_replicas",
    "rate_limit_bps",
];
/// Sizes that grow with the number of nodes. Where nothing else differs, a bridge may raise them and never lowers them: too
/// small a size stalls the cluster, and of two configurations the larger one is right for both.
const SIZES: [&str; 2] = ["max_ack_pending", "max_waiting"];

impl ConsumerSpec {
    /// The consumer's name: `<prefix>-<mapping>-<first 8 digits of the incarnation>`, with `-g<n>` behind it from
    /// generation 1 on.
    #[must_use]
    pub fn name(&self) -> String {
        let incarnation = self.incarnation.to_string();
        let prefix = self.prefix.replace('.', "_");
        let base = format!(
            "{prefix}-{}-{}",
            self.mapping,
            incarnation.get(..8).unwrap_or_default()
        );
        if self.generation == 0 {
            base
        } else {
            format!("{base}-g{}", self.generation)
        }
    }

    /// Unacknowledged messages over all nodes: twice what the nodes hold, so that one frozen node does not stall the rest.
    #[must_use]
    pub fn max_ack_pending(&self) -> u64 {
        (2 * self.nodes.max(1)).saturating_mul(self.in_flight_per_node.max(1))
    }

    /// The whole configuration as sent to the hub.
    #[must_use]
    pub fn config(&self, policy: CreatePolicy) -> Value {
        let max_waiting = (limits::MAX_WAITING_PER_NODE * self.nodes.max(1)).max(limits::MAX_WAITING_MIN);
        let mut config = json!({
            "durable_name": self.name(),
            "name": self.name(),
            "description": format!("fanin mapping {}", self.mapping),
            "deliver_policy": "all",
            "ack_policy": "explicit",
            "ack_wait": u64::try_from(self.ack_wait.as_nanos()).unwrap_or(u64::MAX),
            "max_deliver": -1,
            "max_ack_pending": self.max_ack_pending(),
            "max_waiting": max_waiting,
            "max_batch": limits::PULL_BATCH_MAX,
            "replay_policy": "instant",
            // 0 replicas: as many as the stream has. No inactive threshold: a durable is kept for ever.
            "num_replicas": 0,
            "metadata": self.metadata(),
        });
        if !self.filter_subjects.is_empty() {
            config["filter_subjects"] = json!(self.filter_subjects);
        }
        if let CreatePolicy::After(watermark) = policy {
            config["deliver_policy"] = json!("by_start_sequence");
            config["opt_start_seq"] = json!(watermark.0 + 1);
        }
        config
    }

    fn metadata(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            ("fanin.mapping".to_owned(), self.mapping.clone()),
            ("fanin.incarnation".to_owned(), self.incarnation.to_string()),
            ("fanin.generation".to_owned(), self.generation.to_string()),
        ])
    }

    /// The settings in which a consumer's configuration differs from this one.
    fn verify(&self, found: &Value, policy: CreatePolicy) -> Vec<Mismatch> {
        let wanted = self.config(policy);
        let mut binding = differences(found, &wanted, &BINDING);
        let filters = filters_of(found);
        let mut wanted_filters = self.filter_subjects.clone();
        wanted_filters.sort();
        if filters != wanted_filters {
            binding.push(Mismatch {
                setting: "filter_subjects".to_owned(),
                found: format!("{filters:?}"),
                wanted: format!("{wanted_filters:?}"),
            });
        }
        if let Some(mismatch) = start_mismatch(found, policy) {
            binding.push(mismatch);
        }
        if found
            .get("inactive_threshold")
            .and_then(Value::as_u64)
            .unwrap_or(0)
            != 0
        {
            binding.push(Mismatch {
                setting: "inactive_threshold".to_owned(),
                found: found["inactive_threshold"].to_string(),
                wanted: "unset".to_owned(),
            });
        }
        for (name, value) in self.metadata() {
            let has = found
                .get("metadata")
                .and_then(|m| m.get(&name))
                .and_then(Value::as_str);
            if has != Some(value.as_str()) {
                binding.push(Mismatch {
                    setting: format!("metadata {name}"),
                    found: has.unwrap_or("unset").to_owned(),
                    wanted: value,
                });
            }
        }
        binding
    }

    /// Whether these are nothing but sizes that are too small.
    fn only_grows(&self, found: &Value, mismatches: &[Mismatch]) -> bool {
        let wanted = self.config(CreatePolicy::Never);
        let size = |config: &Value, name: &str| config.get(name).and_then(Value::as_u64);
        mismatches.iter().all(|mismatch| {
            let name = mismatch.setting.as_str();
            // Left out, zero and -1 mean a limit of the server, which is not a size of ours.
            let found = size(found, name).filter(|&found| found > 0);
            SIZES.contains(&name) && found.is_some_and(|found| Some(found) < size(&wanted, name))
        })
    }

    /// Raises the sizes of a consumer that is right otherwise. Nothing is re-created: its acknowledgement state stays.
    async fn grow(&self, connection: &Connection, mut config: Value) -> Result<ConsumerReply, ConsumerError> {
        let (name, wanted) = (self.name(), self.config(CreatePolicy::Never));
        for size in SIZES {
            config[size] = wanted[size].clone();
        }
        let body = json!({ "stream_name": self.stream, "config": config, "action": "update" });
        connection
            .api(&format!("CONSUMER.CREATE.{}.{name}", self.stream), &body)
            .await
            .map_err(|error| of_api(&self.stream, &name, error))
    }

    /// Makes sure that the consumer exists with the needed settings. Several nodes may do this at once.
    ///
    /// # Errors
    /// [`ConsumerError`]; of an existing consumer nothing is changed but sizes, which may grow.
    pub async fn ensure(
        &self,
        connection: &Connection,
        policy: CreatePolicy,
    ) -> Result<SharedConsumer, ConsumerError> {
        let existing = match fetch(connection, &self.stream, &self.name()).await {
            Ok(reply) => Some(reply),
            Err(ConsumerError::Missing { .. }) => None,
            Err(error) => return Err(error),
        };
        let (mut reply, created) = match existing {
            Some(reply) => (reply, false),
            None if policy == CreatePolicy::Never => {
                return Err(ConsumerError::Missing {
                    stream: self.stream.clone(),
                    name: self.name(),
                });
            }
            None => self.create(connection, policy).await?,
        };
        let mut grown = Vec::new();
        let mut mismatches = self.verify(&reply.config, policy);
        if !mismatches.is_empty() && !reply.paused && self.only_grows(&reply.config, &mismatches) {
            reply = self.grow(connection, reply.config).await?;
            grown = std::mem::replace(&mut mismatches, self.verify(&reply.config, policy));
        }
        if reply.paused {
            mismatches.push(Mismatch {
                setting: "pause_until".to_owned(),
                found: reply
                    .config
                    .get("pause_until")
                    .map_or_else(String::new, Value::to_string),
                wanted: "unset".to_owned(),
            });
        }
        if !mismatches.is_empty() {
            return Err(ConsumerError::Differs {
                stream: self.stream.clone(),
                name: self.name(),
                mismatches,
            });
        }
        Ok(SharedConsumer {
            stream: self.stream.clone(),
            name: self.name(),
            info: reply.info(),
            created,
            grown,
        })
    }

    /// Deletes the consumer; one that is not there is no error. Only for an incarnation that an operator has given up.
    ///
    /// # Errors
    /// [`ConsumerError`].
    pub async fn delete(&self, connection: &Connection) -> Result<(), ConsumerError> {
        let name = self.name();
        let deleted: Result<Value, _> = connection
            .api(&format!("CONSUMER.DELETE.{}.{name}", self.stream), &())
            .await;
        match deleted.map_err(|error| of_api(&self.stream, &name, error)) {
            Ok(_) | Err(ConsumerError::Missing { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn create(
        &self,
        connection: &Connection,
        policy: CreatePolicy,
    ) -> Result<(ConsumerReply, bool), ConsumerError> {
        let name = self.name();
        let body = json!({ "stream_name": self.stream, "config": self.config(policy), "action": "create" });
        match connection
            .api(&format!("CONSUMER.CREATE.{}.{name}", self.stream), &body)
            .await
        {
            Ok(reply) => Ok((reply, true)),
            // Another node was faster, under other settings of speed perhaps: what is there gets verified.
            Err(error)
                if matches!(
                    error.server_code(),
                    Some(server_code::CONSUMER_ALREADY_EXISTS | server_code::CONSUMER_NAME_EXISTS)
                ) =>
            {
                Ok((fetch(connection, &self.stream, &name).await?, false))
            }
            Err(error) => Err(of_api(&self.stream, &name, error)),
        }
    }
}

fn filters_of(config: &Value) -> Vec<String> {
    let mut filters: Vec<String> = config
        .get("filter_subjects")
        .and_then(Value::as_array)
        .map(|list| list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        .unwrap_or_default();
    if let Some(one) = config
        .get("filter_subject")
        .and_then(Value::as_str)
        .filter(|s| !s.is_empty())
    {
        filters.push(one.to_owned());
    }
    filters.sort();
    filters
}

/// A consumer may start with everything, or behind a watermark once it was re-created. Any other start could skip
/// messages for ever.
fn start_mismatch(found: &Value, policy: CreatePolicy) -> Option<Mismatch> {
    let start = found
        .get("deliver_policy")
        .and_then(Value::as_str)
        .unwrap_or("all");
    let from = found.get("opt_start_seq").and_then(Value::as_u64).unwrap_or(0);
    let fine = match (start, policy) {
        ("all", _) | ("by_start_sequence", CreatePolicy::Never) => true,
        ("by_start_sequence", CreatePolicy::After(watermark)) => from <= watermark.0 + 1,
        ("by_start_sequence", CreatePolicy::FromStart) => from <= 1,
        _ => false,
    };
    if fine {
        return None;
    }
    let wanted = match policy {
        CreatePolicy::Never => "all, or by_start_sequence".to_owned(),
        CreatePolicy::FromStart => "all".to_owned(),
        CreatePolicy::After(watermark) => format!("all, or by_start_sequence up to {}", watermark.0 + 1),
    };
    Some(Mismatch {
        setting: "deliver_policy".to_owned(),
        found: format!("{start} {from}"),
        wanted,
    })
}

impl SharedConsumer {
    /// The counters as of now.
    ///
    /// # Errors
    /// [`ConsumerError::Missing`] when it was deleted, or a failed request.
    pub async fn info(&self, connection: &Connection) -> Result<ConsumerInfo, ConsumerError> {
        Ok(fetch(connection, &self.stream, &self.name).await?.info())
    }
}

async fn fetch(connection: &Connection, stream: &str, name: &str) -> Result<ConsumerReply, ConsumerError> {
    connection
        .api(&format!("CONSUMER.INFO.{stream}.{name}"), &())
        .await
        .map_err(|error| of_api(stream, name, error))
}

fn of_api(stream: &str, name: &str, source: ApiError) -> ConsumerError {
    let (stream, name) = (stream.to_owned(), name.to_owned());
    match source.server_code() {
        Some(server_code::CONSUMER_NOT_FOUND) => ConsumerError::Missing { stream, name },
        Some(server_code::STREAM_NOT_FOUND) => ConsumerError::StreamMissing { stream },
        _ => ConsumerError::Hub { stream, name, source },
    }
}

#[cfg(test)]
#[path = "consumer_tests.rs"]
mod tests;
