//! The running node, as the admin endpoint sees it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use fanin_proto::v1::{HoldingsPart, StatusResponse};
use fanin_store::Store as _;

use super::health::{Check, Health};
use crate::mapping::start::MappingHandle;
use crate::mapping::view::{State, View};
use crate::running::Running;
use crate::serve::StatusSource;
use crate::telemetry::{metrics as names, node_codes};

const STATES: [State; 10] = [
    State::Starting,
    State::Joining,
    State::Active,
    State::Gated,
    State::Full,
    State::Withheld,
    State::Halted,
    State::Fenced,
    State::Damaged,
    State::Stopping,
];

/// Health of a running node.
pub struct NodeHealth {
    node: Arc<Running>,
}

impl NodeHealth {
    /// The health of `node`, whose socket serves.
    #[must_use]
    pub fn new(node: Arc<Running>) -> NodeHealth {
        NodeHealth { node }
    }

    fn store(&self) -> Check {
        let usage = self.node.store().usage();
        if usage.poisoned {
            Check::fail(
                "store",
                format!(
                    "{}: a write or sync failed; restart the bridge",
                    node_codes::STORE_FAILED
                ),
            )
        } else if usage.full {
            Check::condition(
                "store",
                format!("{}: full, nothing is pulled", node_codes::STORE_FULL),
            )
        } else {
            Check::pass("store")
        }
    }

    fn hub(&self) -> Check {
        let state = self.node.hub().state();
        if state.connected {
            return Check::pass("hub");
        }
        let why = state
            .last_error
            .unwrap_or_else(|| "no server answered yet".to_owned());
        Check::condition(
            "hub",
            format!("{}: not connected: {why}", fanin_hub::codes::HUB_UNREACHABLE),
        )
    }
}

/// Readiness of one mapping: it has joined the ledger and delivers.
fn ledger(mapping: &MappingHandle) -> Check {
    let name = format!("ledger/{}", mapping.name);
    let View { state, reason, .. } = mapping.view.get();
    let colon = if reason.is_empty() { "" } else { ": " };
    let detail = format!("{}{colon}{reason}", state.word());
    match state {
        State::Active => Check::pass(name),
        State::Gated | State::Full | State::Withheld | State::Halted => Check::condition(name, detail),
        State::Starting | State::Joining | State::Fenced | State::Damaged | State::Stopping => {
            Check::fail(name, detail)
        }
    }
}

impl StatusSource for NodeHealth {
    fn status(&self) -> Pin<Box<dyn Future<Output = StatusResponse> + Send + '_>> {
        Box::pin(self.node.status())
    }

    fn holdings<'a>(
        &'a self,
        mapping: &'a str,
        with_state: bool,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<HoldingsPart>, tonic::Status>> + Send + 'a>> {
        StatusSource::holdings(&*self.node, mapping, with_state)
    }
}

impl Health for NodeHealth {
    fn stalled_for(&self) -> Duration {
        let age = |mapping: &MappingHandle| match mapping.view.get().state {
            // Before the hub answers, at the end, and for a mapping held back by damage no loop runs.
            State::Starting | State::Damaged | State::Stopping => Duration::ZERO,
            State::Joining
            | State::Active
            | State::Gated
            | State::Full
            | State::Withheld
            | State::Halted
            | State::Fenced => mapping.view.moved().elapsed(),
        };
        self.node.mappings().iter().map(age).max().unwrap_or_default()
    }

    fn checks(&self) -> Vec<Check> {
        let mut checks = vec![self.store(), Check::pass("socket"), self.hub()];
        checks.extend(self.node.mappings().iter().map(ledger));
        checks
    }

    fn is_poisoned(&self) -> bool {
        self.node.store().usage().poisoned
    }

    fn observe(&self) {
        let usage = self.node.store().usage();
        metrics::gauge!(names::STORE_BYTES).set(usage.bytes as f64);
        metrics::gauge!(names::STORE_QUOTA_BYTES).set(usage.quota as f64);
        metrics::gauge!(names::STORE_FREE_BYTES).set(usage.free as f64);
        metrics::gauge!(names::STORE_SEGMENTS).set(usage.segments as f64);
        let hub = self.node.hub().state();
        metrics::gauge!(names::HUB_CONNECTED).set(f64::from(u8::from(hub.connected)));
        metrics::counter!(names::HUB_RECONNECTS).absolute(hub.generation.saturating_sub(1));
        for mapping in self.node.mappings() {
            observe_mapping(mapping);
        }
    }
}

fn observe_mapping(mapping: &MappingHandle) {
    let view = mapping.view.get();
    let name = || mapping.name.clone();
    metrics::gauge!(names::LEDGER_POSITION, "mapping" => name()).set(view.position as f64);
    metrics::gauge!(names::LEDGER_LAG, "mapping" => name()).set(view.lag as f64);
    metrics::gauge!(names::EPOCH, "mapping" => name()).set(view.epoch as f64);
    let ack_pending: u64 = view.sources.values().map(|source| source.ack_pending).sum();
    metrics::gauge!(names::HUB_ACK_PENDING_MESSAGES, "mapping" => name()).set(ack_pending as f64);
    for state in STATES {
        let is_in = f64::from(u8::from(view.state == state));
        metrics::gauge!(names::MAPPING_STATE, "mapping" => name(), "state" => state.word()).set(is_in);
    }
}
