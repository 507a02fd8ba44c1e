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
    /// Settings that only cost speed when they differ (after a change of `nodes`, for instance); see
    /// [`SharedConsumer::tune`].
    pub tuning: Vec<Mismatch>,
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
        "the shared consumer {name} on {stream} differs: {}; restore these settings",
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

/// Settings on which the rules rest; a consumer that differs here is refused.
const BINDING: [&str; 9] = [
    "durable_name",
    "ack_policy",
    "max_deliver",
    "replay_policy",
    "headers_only",
    "mem_storage",
    "deliver_subject",
    "backoff",
    "priority_policy",
];
/// Settings that only cost speed.
const TUNING: [&str; 4] = ["ack_wait", "max_ack_pending", "max_waiting", "max_batch"];

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

    /// Compares a consumer's configuration with this one: settings that must agree, and settings that should.
    fn verify(&self, found: &Value, policy: CreatePolicy) -> (Vec<Mismatch>, Vec<Mismatch>) {
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
        (binding, differences(found, &wanted, &TUNING))
    }

    /// Makes sure that the consumer exists with the needed settings. Several nodes may do this at once.
    ///
    /// # Errors
    /// [`ConsumerError`]; an existing consumer is never changed here.
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
        let (reply, created) = match existing {
            Some(reply) => (reply, false),
            None if policy == CreatePolicy::Never => {
                return Err(ConsumerError::Missing {
                    stream: self.stream.clone(),
                    name: self.name(),
                });
            }
            None => self.create(connection, policy).await?,
        };
        let (binding, tuning) = self.verify(&reply.config, policy);
        if !binding.is_empty() {
            return Err(ConsumerError::Differs {
                stream: self.stream.clone(),
                name: self.name(),
                mismatches: binding,
            });
        }
        Ok(SharedConsumer {
            stream: self.stream.clone(),
            name: self.name(),
            info: reply.info(),
            created,
            tuning,
        })
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

    /// Brings the settings of speed to what `spec` says; nothing else changes.
    ///
    /// # Errors
    /// [`ConsumerError`].
    pub async fn tune(&mut self, connection: &Connection, spec: &ConsumerSpec) -> Result<(), ConsumerError> {
        let mut config = fetch(connection, &self.stream, &self.name).await?.config;
        let wanted = spec.config(CreatePolicy::Never);
        for name in TUNING {
            config[name] = wanted[name].clone();
        }
        let body = json!({ "stream_name": self.stream, "config": config, "action": "update" });
        let reply: ConsumerReply = connection
            .api(&format!("CONSUMER.CREATE.{}.{}", self.stream, self.name), &body)
            .await
            .map_err(|error| of_api(&self.stream, &self.name, error))?;
        self.info = reply.info();
        self.tuning = differences(&reply.config, &wanted, &TUNING);
        Ok(())
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
mod tests {
    //! Goal: names and the verdict on existing consumers. Method: configurations as the server returns them.
    use super::*;

    fn spec() -> ConsumerSpec {
        ConsumerSpec {
            stream: "ORDERS".to_owned(),
            prefix: "fanin".to_owned(),
            mapping: "orders".to_owned(),
            incarnation: Incarnation(0x1234_5678_9abc_def0),
            generation: 0,
            filter_subjects: vec!["b".to_owned(), "a".to_owned()],
            ack_wait: Duration::from_secs(30),
            nodes: 3,
            in_flight_per_node: 1000,
        }
    }

    #[test]
    fn names() {
        assert_eq!(spec().name(), "fanin-orders-12345678");
        assert_eq!(
            ConsumerSpec {
                generation: 2,
                prefix: "a.b".into(),
                ..spec()
            }
            .name(),
            "a_b-orders-12345678-g2"
        );
    }

    #[test]
    fn an_equal_one_is_accepted_and_single_filters_are_too() {
        let config = spec().config(CreatePolicy::FromStart);
        assert_eq!(spec().verify(&config, CreatePolicy::Never), (vec![], vec![]));
        let one = ConsumerSpec {
            filter_subjects: vec!["a".into()],
            ..spec()
        };
        let mut config = one.config(CreatePolicy::FromStart);
        config["filter_subject"] = json!("a");
        config["filter_subjects"] = Value::Null;
        assert_eq!(one.verify(&config, CreatePolicy::Never), (vec![], vec![]));
    }

    #[test]
    fn each_binding_setting_is_named() {
        for (setting, value) in [
            ("ack_policy", json!("none")),
            ("max_deliver", json!(5)),
            ("filter_subjects", json!(["a"])),
            ("headers_only", json!(true)),
            ("inactive_threshold", json!(1)),
            ("backoff", json!([1])),
            ("deliver_policy", json!("new")),
        ] {
            let mut config = spec().config(CreatePolicy::FromStart);
            config[setting] = value;
            let (binding, tuning) = spec().verify(&config, CreatePolicy::Never);
            assert_eq!(
                binding.iter().map(|m| m.setting.as_str()).collect::<Vec<_>>(),
                [setting]
            );
            assert_eq!(tuning, vec![]);
        }
    }

    #[test]
    fn a_start_behind_the_watermark_is_refused() {
        let config = spec().config(CreatePolicy::After(StreamSeq(10)));
        assert!(start_mismatch(&config, CreatePolicy::After(StreamSeq(10))).is_none());
        assert!(start_mismatch(&config, CreatePolicy::After(StreamSeq(9))).is_some());
        assert!(start_mismatch(&config, CreatePolicy::FromStart).is_some());
    }
}
