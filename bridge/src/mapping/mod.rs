//! One mapping on this node: from the hub's consumer through stage, claim and publish to the topic, and back to settle.
//!
//! | part | what it does |
//! |---|---|
//! | [`start`] | the topic at once from disk, the cluster as soon as the hub answers |
//! | [`disk`] | what the local log keeps of a mapping, and building the core's node from it |
//! | [`join`] | the hub side of starting: sources, ledger, consumers, EPOCH |
//! | [`driver`] | the one loop that owns the core's node, executes its effects and feeds what comes of them back |
//! | [`batches`] | bodies and acknowledgement subjects of batches on their way |
//! | [`intake`] | pulling by demand: the gate, room on disk and in memory |
//! | [`ledger_io`] | appending, tailing, loading checkpoints, purging |
//! | `repaired` | joining a ledger that an operator's repair has begun |
//! | [`room`] | looking at the ledger's size, so that claims stop before it is full |
//! | [`settle`] | acknowledging to the hub |
//! | [`source_check`] | what the settings of a source mean for delivery |
//! | [`mend`] | batches that the disk has lost are fetched again |
//! | [`stuck`] | messages no node can take in as the hub delivers them; the connection for pulling |
//! | [`watch`] | looking after the consumer: its floor, holes, repairs |
//! | [`holdings`] | what this node holds, for tools that compare nodes with the ledger or repair it |
//! | [`view`] | what status and metrics see |

pub mod arrivals;
pub mod batches;
pub mod disk;
pub mod driver;
mod effects;
mod gate;
pub mod holdings;
pub mod intake;
pub mod join;
pub mod ledger_io;
pub mod limits;
mod linger;
pub mod mend;
pub mod outgoing;
mod repaired;
pub mod room;
pub mod settle;
pub mod source_check;
pub mod start;
pub mod storing;
pub mod stuck;
pub mod view;
pub mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fanin_config::{Config, Durability, Intake, MappingConfig};
use fanin_core::node::{Policy, Stability};

use crate::ambient::Ambient;
use crate::volatile::Volatile;

/// What one mapping needs to know of the configuration.
#[derive(Clone, Debug)]
pub struct MappingOptions {
    /// The mapping's name.
    pub name: String,
    /// The node's name.
    pub node: String,
    /// Subject prefix of ledgers.
    pub prefix: String,
    /// The mapping's own section.
    pub config: MappingConfig,
    /// Times and thresholds of the protocol.
    pub policy: Policy,
    /// Bytes of subjects, headers and payloads that may be pulled or staged and not yet published.
    pub staged_bytes: u64,
    /// Whether a missing consumer is created again behind the watermark: the operator's word.
    pub recreate_consumer: bool,
    /// What damage took and no source has any more becomes dead letters: the operator's word.
    pub accept_loss: bool,
    /// The file system of the data directory, when it is in memory.
    pub disk: Option<Volatile>,
    /// Time of day and chance.
    pub ambient: Ambient,
}

impl MappingOptions {
    /// Takes what concerns a mapping out of the configuration. `accept_terms` and `recreate_consumer` are the
    /// operator's word for this start.
    #[must_use]
    pub fn of(
        config: &Config,
        name: &str,
        mapping: &MappingConfig,
        accept_terms: bool,
        recreate_consumer: bool,
    ) -> Self {
        let stability = match config.hub.durability {
            Durability::SyncAlways => Stability::SyncAlways,
            Durability::Lazy => Stability::After(2 * millis(config.hub.sync_interval.0)),
        };
        MappingOptions {
            name: name.to_owned(),
            node: config.node.clone(),
            prefix: config.hub.ledger_prefix.clone(),
            config: mapping.clone(),
            policy: Policy {
                stability,
                accept_terms,
                stuck_ms: limits::STUCK_ACK_WAITS * millis(mapping.ack_wait.0),
                audit_ms: crate::failpoint::audit_ms(Policy::default().audit_ms),
                ..Policy::default()
            },
            // The node's bound, in equal parts: a busy mapping cannot take another's.
            staged_bytes: config.memory.staged.0 / config.mappings.len().max(1) as u64,
            recreate_consumer,
            accept_loss: false,
            disk: None,
            ambient: Ambient::system(),
        }
    }

    /// The applications this node hosts.
    #[must_use]
    pub fn hosts(&self) -> BTreeSet<String> {
        self.config.applications.keys().cloned().collect()
    }

    /// Whether pulling waits for the applications.
    #[must_use]
    pub fn is_gated(&self) -> bool {
        self.config.intake == Intake::Connected
    }
}

/// A duration in whole milliseconds, saturating.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A source as configured, by its stream's name.
pub(crate) type BySource<T> = BTreeMap<fanin_core::ids::Incarnation, T>;
