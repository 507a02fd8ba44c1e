//! How the hub is reached, and what it is declared to keep.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

use crate::decode::{Decode, Section, leaf_by_word};
use crate::units::{HumanDuration, Secret};

/// What the hub keeps of what it acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// The hub syncs to disk at intervals; a power loss may take back what it acknowledged in the last interval.
    #[default]
    Lazy,
    /// The hub syncs before it acknowledges (`sync_interval: always`).
    SyncAlways,
}

leaf_by_word!(Durability: "lazy" => Durability::Lazy, "sync_always" => Durability::SyncAlways);

/// The hub: one NATS JetStream server or a cluster.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct HubConfig {
    /// Servers, such as `nats://hub-1:4222` or `tls://hub-1:4222`. Several: tried in random order, with automatic reconnect.
    pub servers: Vec<String>,
    /// What the operator declares about the hub's disks, which the bridge believes.
    #[schemars(default)]
    pub durability: Durability,
    /// The hub's `sync_interval` when `durability` is `lazy`: another node's claim counts as safe once it is twice as old.
    #[schemars(default = "default_sync_interval")]
    pub sync_interval: HumanDuration,
    /// First part of the names of ledger streams and subjects. The same on every node.
    #[schemars(default = "default_ledger_prefix")]
    pub ledger_prefix: String,
    /// Who the bridge is to the hub. At most one kind.
    #[schemars(default)]
    pub credentials: CredentialsConfig,
    /// TLS towards the hub.
    #[schemars(default)]
    pub tls: TlsConfig,
    /// The connection's name as the hub shows it. Default: `fanin NODE`.
    pub name: Option<String>,
    /// Subject below which replies are received, if the account allows only a certain one.
    pub inbox_prefix: Option<String>,
}

fn default_sync_interval() -> HumanDuration {
    HumanDuration::secs(120)
}

fn default_ledger_prefix() -> String {
    "fanin".to_owned()
}

impl Default for HubConfig {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            durability: Durability::default(),
            sync_interval: default_sync_interval(),
            ledger_prefix: default_ledger_prefix(),
            credentials: CredentialsConfig::default(),
            tls: TlsConfig::default(),
            name: None,
            inbox_prefix: None,
        }
    }
}

impl Decode for HubConfig {
    fn decode(s: &mut Section<'_, '_>) -> Self {
        let d = Self::default();
        Self {
            servers: s.list("servers"),
            durability: s.value("durability", d.durability),
            sync_interval: s.value("sync_interval", d.sync_interval),
            ledger_prefix: s.value("ledger_prefix", d.ledger_prefix),
            credentials: s.section("credentials"),
            tls: s.section("tls"),
            name: s.optional("name"),
            inbox_prefix: s.optional("inbox_prefix"),
        }
    }
}

/// Who the bridge is to the hub: a credentials file, or an nkey seed, or a user with password, or a token.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[schemars(default, deny_unknown_fields)]
pub struct CredentialsConfig {
    /// File with a user's JWT and seed, as `nsc` writes it.
    pub creds_file: Option<PathBuf>,
    /// File with an nkey's seed.
    pub nkey_file: Option<PathBuf>,
    /// User name; with `password_file` or `password`.
    pub user: Option<String>,
    /// File whose first line is the user's password.
    pub password_file: Option<PathBuf>,
    /// The user's password; only by `${VAR}` or the environment.
    pub password: Option<Secret>,
    /// File whose first line is a token.
    pub token_file: Option<PathBuf>,
    /// A token; only by `${VAR}` or the environment.
    pub token: Option<Secret>,
}

impl Decode for CredentialsConfig {
    fn decode(s: &mut Section<'_, '_>) -> Self {
        Self {
            creds_file: s.optional("creds_file"),
            nkey_file: s.optional("nkey_file"),
            user: s.optional("user"),
            password_file: s.optional("password_file"),
            password: s.secret("password"),
            token_file: s.optional("token_file"),
            token: s.secret("token"),
        }
    }
}

/// TLS towards the hub.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[schemars(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// File of the authorities to trust, in PEM. Default: those of the system.
    pub ca: Option<PathBuf>,
    /// File of the client certificate, in PEM; with `key`.
    pub cert: Option<PathBuf>,
    /// File of the client certificate's key, in PEM; with `cert`.
    pub key: Option<PathBuf>,
    /// Whether a connection without TLS is refused. `tls://` servers always use it.
    pub required: bool,
}

impl Decode for TlsConfig {
    fn decode(s: &mut Section<'_, '_>) -> Self {
        Self {
            ca: s.optional("ca"),
            cert: s.optional("cert"),
            key: s.optional("key"),
            required: s.value("required", false),
        }
    }
}
