//! The running node, as the admin endpoint sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use fanin_proto::v1::{HoldingsPart, StatusResponse};
use fanin_store::Store as _;
use parking_lot::Mutex;

use super::health::{Check, Health};
use crate::cli::errors::lookup;
use crate::mapping::start::MappingHandle;
use crate::mapping::view::State;
use crate::running::Running;
use crate::serve::StatusSource;
use crate::telemetry::{codes, metrics as names, node_codes};

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
    reasons: Mutex<BTreeMap<String, Codes>>,
}

/// Codes that the reason of a mapping has had in this process: those that are over are 0 from then on. Only codes of the table are in it.
type Codes = BTreeSet<&'static str>;

impl NodeHealth {
    /// The health of `node`, whose socket serves.
    #[must_use]
    pub fn new(node: Arc<Running>) -> NodeHealth {
        NodeHealth {
            node,
            reasons: Mutex::default(),
        }
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

    fn socket(&self) -> Check {
        if self.node.serves() {
            Check::pass("socket")
        } else {
            let why = format!("{}: nobody serves it; the process ends", codes::SERVING_ENDED);
            Check::fail("socket", why)
        }
    }

    fn hub(&self) -> Check {
        match self.node.hub().state().why_away() {
            None => Check::pass("hub"),
            Some((code, why)) => Check::condition("hub", format!("{code}: not connected: {why}")),
        }
    }
}

/// Readiness of one mapping: it has joined the ledger and delivers.
fn ledger(mapping: &MappingHandle) -> Check {
    let name = format!("ledger/{}", mapping.name);
    let view = mapping.view.get();
    let colon = if view.reason.is_empty() { "" } else { ": " };
    let detail = format!("{}{colon}{}", view.state.word(), view.reason);
    if !view.delivers() {
        Check::fail(name, detail)
    } else if view.state == State::Active {
        Check::pass(name)
    } else {
        Check::condition(name, detail)
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
        let mut checks = vec![self.store(), self.socket(), self.hub()];
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
        metrics::counter!(names::CONNECTIONS_REFUSED).increment(0);
        metrics::counter!(names::HUB_RECONNECTS).absolute(hub.generation.saturating_sub(1));
        let mut reasons = self.reasons.lock();
        for mapping in self.node.mappings() {
            observe_mapping(mapping);
            observe_reason(mapping, reasons.entry(mapping.name.clone()).or_default());
        }
    }
}

/// What happens rarely, by mapping: it counts from 0, so that a first event is seen as an increase.
const RARE: [&str; 8] = [
    names::HOLE_MESSAGES,
    names::SOURCE_LOST_MESSAGES,
    names::HUB_FETCHED_MESSAGES,
    names::LOST_MESSAGES,
    names::MENDED_BATCHES,
    names::REPAIRED_MESSAGES,
    names::STAGED_MESSAGES,
    names::UNREADABLE_MESSAGES,
];

fn observe_mapping(mapping: &MappingHandle) {
    let view = mapping.view.get();
    let name = || mapping.name.clone();
    let gauge = |metric: &'static str, value: u64| {
        metrics::gauge!(metric, "mapping" => name()).set(value as f64);
    };
    gauge(names::LEDGER_POSITION, view.position);
    gauge(names::LEDGER_LAG, view.lag);
    gauge(names::EPOCH, view.epoch);
    let sources = || view.sources.values();
    gauge(
        names::HUB_PENDING_MESSAGES,
        sources().map(|source| source.pending).sum(),
    );
    gauge(
        names::HUB_ACK_PENDING_MESSAGES,
        sources().map(|source| source.ack_pending).sum(),
    );
    let is_paused = f64::from(u8::from(view.state != State::Active));
    metrics::gauge!(names::PAUSED, "mapping" => name(), "axis" => "intake").set(is_paused);
    for metric in RARE {
        metrics::counter!(metric, "mapping" => name()).increment(0);
    }
    for state in STATES {
        let is_in = f64::from(u8::from(view.state == state));
        metrics::gauge!(names::MAPPING_STATE, "mapping" => name(), "state" => state.word()).set(is_in);
    }
}

/// Why the mapping is not simply active, by the code of its reason; `known` are the codes told before.
fn observe_reason(mapping: &MappingHandle, known: &mut Codes) {
    let code = lookup(mapping.view.get().code()).map(|entry| entry.code);
    known.extend(code);
    for told in known.iter().copied() {
        let is_in_force = f64::from(u8::from(code == Some(told)));
        metrics::gauge!(names::MAPPING_REASON, "mapping" => mapping.name.clone(), "code" => told)
            .set(is_in_force);
    }
}

#[cfg(test)]
mod tests {
    //! Goal: figures of a mapping are those of all its sources, its reason is told by its code, and it is ready when it delivers. Method:
    //! a mapping that goes through what the case needs, and a recorder of this test.
    use fanin_core::ids::Incarnation;
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::super::health::CheckState;
    use super::*;
    use crate::mapping::disk::DiskError;
    use crate::mapping::view::SourceView;

    fn held() -> MappingHandle {
        let damaged = DiskError::Damaged {
            segment: 1,
            position: 2,
            what: "a cursor".to_owned(),
        };
        MappingHandle::held("orders", "orders", &damaged)
    }

    /// Goal: one code is in force at a time, one that is over is 0, and what is no code makes no label. Method: reasons after each other.
    #[test]
    fn the_reason_in_force_is_told_by_its_code() {
        let mapping = held();
        let recorder = PrometheusBuilder::new().build_recorder();
        let mut known = Codes::new();
        let mut told = |reason: &str| {
            mapping.view.update(|view| view.reason = reason.to_owned());
            metrics::with_local_recorder(&recorder, || observe_reason(&mapping, &mut known));
            let text = recorder.handle().render();
            let lines = text
                .lines()
                .filter(|line| line.starts_with("fanin_mapping_reason{"));
            let mut lines: Vec<String> = lines.map(str::to_owned).collect();
            lines.sort();
            lines
        };
        let line = |code: &str, value: u8| {
            format!("fanin_mapping_reason{{mapping=\"orders\",code=\"{code}\"}} {value}")
        };
        assert!(told("").is_empty());
        assert!(told("the hub says: FAN-4030").is_empty());
        assert!(told("FAN-9999: nobody knows it").is_empty());
        assert_eq!(
            told("FAN-4019: the ledger is shorter: cure"),
            [line("FAN-4019", 1)]
        );
        assert_eq!(
            told("FAN-4030: another one"),
            [line("FAN-4019", 0), line("FAN-4030", 1)]
        );
        assert_eq!(told(""), [line("FAN-4019", 0), line("FAN-4030", 0)]);
    }

    /// Goal: a node is ready for a mapping while it delivers, also when it takes nothing, and not before it has joined, whatever its state
    /// is called. Method: each state, before and after the join.
    #[test]
    fn a_mapping_that_has_not_joined_is_not_ready() {
        let mapping = held();
        let judge = |delivery: &str| {
            STATES.map(|state| {
                mapping.view.update(|view| {
                    view.state = state;
                    view.delivery = delivery.to_owned();
                });
                ledger(&mapping).state
            })
        };
        assert_eq!(judge(""), STATES.map(|_| CheckState::Fail));
        for (state, judged) in STATES.into_iter().zip(judge("exactly_once")) {
            let expected = match state {
                State::Active => CheckState::Pass,
                State::Gated | State::Full | State::Withheld | State::Halted => CheckState::Condition,
                State::Starting | State::Joining | State::Fenced | State::Damaged | State::Stopping => {
                    CheckState::Fail
                }
            };
            assert_eq!(judged, expected, "{state:?}");
        }
    }

    #[test]
    fn sources_are_added_up() {
        let mapping = held();
        mapping.view.update(|view| {
            for (incarnation, pending) in [(1, 30), (2, 12)] {
                let source = SourceView {
                    pending,
                    ack_pending: 1,
                    ..SourceView::default()
                };
                view.sources.insert(Incarnation(incarnation), source);
            }
        });
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || observe_mapping(&mapping));
        let text = recorder.handle().render();
        for line in [
            "fanin_hub_pending_messages{mapping=\"orders\"} 42",
            "fanin_hub_ack_pending_messages{mapping=\"orders\"} 2",
            "fanin_paused{mapping=\"orders\",axis=\"intake\"} 1",
            "fanin_lost_messages_total{mapping=\"orders\"} 0",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
