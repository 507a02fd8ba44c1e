//! The typed configuration. The fields' comments are the reference and the schema's descriptions.

mod hub;
mod mapping;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

pub use hub::{CredentialsConfig, Durability, HubConfig, TlsConfig};
pub use mapping::{
    ApplicationConfig, BackoffConfig, BatchConfig, FilterConfig, Intake, LedgerConfig, MappingConfig,
    RequiredDelivery, SourceConfig,
};

use crate::decode::{Decode, Section, leaf_by_word};
use crate::problem::{KeyPath, Origin};
use crate::units::{ByteSize, FileMode, HumanDuration, Listen};

/// The configuration of one bridge.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(title = "fanin configuration", deny_unknown_fields)]
pub struct Config {
    /// The node's name, `[a-zA-Z0-9._-]{1,64}`; one per data directory, and no two alike on one hub. Default: the
    /// variable HOSTNAME.
    #[schemars(with = "Option<String>")]
    pub node: String,
    /// Where the local log lives. A relative path starts at the working directory.
    #[schemars(default = "default_data_dir")]
    pub data_dir: PathBuf,
    /// The hub.
    pub hub: HubConfig,
    /// Where applications connect: a Unix socket whose path is shorter than 108 bytes.
    #[schemars(default = "default_listen")]
    pub listen: Listen,
    /// The socket's permission bits, in octal.
    #[schemars(default = "default_socket_mode")]
    pub socket_mode: FileMode,
    /// Address and port of health checks, metrics and the status page; absent, they are not served. Port 0 takes a free one.
    #[schemars(with = "Option<String>")]
    pub admin: Option<SocketAddr>,
    /// Bounds of the local log.
    #[schemars(default)]
    pub store: StoreConfig,
    /// Bounds of what is held in memory.
    #[schemars(default)]
    pub memory: MemoryConfig,
    /// What the bridge writes about itself.
    #[schemars(default)]
    pub log: LogConfig,
    /// How long a stop waits for deliveries in progress.
    #[schemars(default = "default_shutdown_grace")]
    pub shutdown_grace: HumanDuration,
    /// What is brought from the hub to which applications, by names of `[a-z0-9-]{1,64}`.
    pub mappings: BTreeMap<String, MappingConfig>,
}

fn default_data_dir() -> PathBuf {
    PathBuf::from("/var/lib/fanin")
}

fn default_listen() -> Listen {
    Listen::Unix(PathBuf::from("/run/fanin/fanin.sock"))
}

fn default_socket_mode() -> FileMode {
    FileMode(0o660)
}

fn default_shutdown_grace() -> HumanDuration {
    HumanDuration::secs(10)
}

/// All defaults: no node name, no servers and no mappings, so not yet valid.
impl Default for Config {
    fn default() -> Self {
        Self {
            node: String::new(),
            data_dir: default_data_dir(),
            hub: HubConfig::default(),
            listen: default_listen(),
            socket_mode: default_socket_mode(),
            admin: None,
            store: StoreConfig::default(),
            memory: MemoryConfig::default(),
            log: LogConfig::default(),
            shutdown_grace: default_shutdown_grace(),
            mappings: BTreeMap::new(),
        }
    }
}

impl Decode for Config {
    fn decode(s: &mut Section<'_, '_>) -> Self {
        let d = Self::default();
        let hostname =
            s.cx.env
                .get("HOSTNAME")
                .filter(|name| !name.is_empty() && !s.given("node"))
                .cloned();
        if hostname.is_some() {
            s.cx.derive(
                KeyPath::of(&["node"]),
                Origin::Env {
                    name: "HOSTNAME".to_owned(),
                },
            );
        }
        Self {
            node: s.value("node", hostname.unwrap_or_default()),
            data_dir: s.value("data_dir", d.data_dir),
            hub: s.section("hub"),
            listen: s.value("listen", d.listen),
            socket_mode: s.value("socket_mode", d.socket_mode),
            admin: s.optional("admin"),
            store: s.section("store"),
            memory: s.section("memory"),
            log: s.section("log"),
            shutdown_grace: s.value("shutdown_grace", d.shutdown_grace),
            mappings: s.named("mappings"),
        }
    }
}

/// Bounds of the local log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// Most bytes of the local log on disk. When it is reached the node stops pulling and other nodes take over.
    pub quota: ByteSize,
    /// Size of one segment of the log; at least four must fit in the quota.
    pub segment: ByteSize,
    /// Bytes of the quota kept free for finishing what was accepted: resolutions, cursors, outbox. Default: a 32nd of the quota.
    #[schemars(with = "Option<ByteSize>")]
    pub reserve: ByteSize,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            quota: ByteSize::gib(8),
            segment: ByteSize::mib(64),
            reserve: ByteSize::mib(256),
        }
    }
}

impl Decode for StoreConfig {
    fn decode(s: &mut Section<'_, '_>) -> Self {
        let d = Self::default();
        let quota = s.value("quota", d.quota);
        Self {
            quota,
            segment: s.value("segment", d.segment),
            reserve: s.value("reserve", ByteSize(quota.0 / 32)),
        }
    }
}

/// Bounds of what is held in memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(default, deny_unknown_fields)]
pub struct MemoryConfig {
    /// Bytes of the newest messages kept in memory for applications that keep up; slower ones read from disk.
    pub tail: ByteSize,
    /// Bytes of subjects, headers and bodies pulled or staged and not yet published; mappings and their sources have equal parts.
    pub staged: ByteSize,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self {
            tail: ByteSize::mib(32),
            staged: ByteSize::mib(64),
        }
    }
}

impl Decode for MemoryConfig {
    fn decode(s: &mut Section<'_, '_>) -> Self {
        let d = Self::default();
        Self {
            tail: s.value("tail", d.tail),
            staged: s.value("staged", d.staged),
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

leaf_by_word!(LogFormat: "text" => LogFormat::Text, "json" => LogFormat::Json);

/// What the bridge writes about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(default, deny_unknown_fields)]
pub struct LogConfig {
    /// For people or for machines.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace` or `off`, and if need be levels of parts: `info,fanin_hub=debug`.
    pub level: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            level: "info".to_owned(),
        }
    }
}

impl Decode for LogConfig {
    fn decode(s: &mut Section<'_, '_>) -> Self {
        let d = Self::default();
        Self {
            format: s.value("format", d.format),
            level: s.value("level", d.level),
        }
    }
}
