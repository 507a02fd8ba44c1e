//! The metrics of the node and its mappings: their names in one table, and the recorder that keeps them.
//!
//! The names of topics and applications stand in [`crate::topic::metrics`].

use std::time::{Duration, SystemTime};

use metrics::Unit;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

use super::process;

/// Upper bounds of the buckets of durations, seconds: from a local fsync to a message that waited for a minute.
pub const DURATION_BUCKETS: [f64; 16] = [
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];

/// How often what was observed is moved into the buckets; in between it is held in memory.
pub const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// How a metric moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Only up.
    Counter,
    /// Up and down.
    Gauge,
    /// Observations in buckets.
    Histogram,
}

/// One metric of a table.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// The name.
    pub name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) unit: Unit,
    /// One sentence for people.
    pub help: &'static str,
}

/// Makes a constant of each name, and the table of all of them.
macro_rules! metrics_table {
    ($about:literal: $($constant:ident = $name:literal, $kind:ident, $unit:ident, $help:literal;)*) => {
        $(#[doc = $help] pub const $constant: &str = $name;)*
        #[doc = $about]
        pub const TABLE: &[$crate::telemetry::metrics::Metric] = &[$($crate::telemetry::metrics::Metric {
            name: $name,
            kind: $crate::telemetry::metrics::Kind::$kind,
            unit: ::metrics::Unit::$unit,
            help: $help,
        }),*];
    };
}
pub(crate) use metrics_table;

metrics_table! { "Every metric of the node and its mappings.":
    BUILD_INFO = "fanin_build_info", Gauge, Count, "Always 1; its label is the version.";
    HUB_CONNECTED = "fanin_hub_connected", Gauge, Count, "1 while a server of the hub is connected.";
    HUB_RECONNECTS = "fanin_hub_reconnects_total", Counter, Count, "Connections to the hub made after the first.";
    STORE_BYTES = "fanin_store_bytes", Gauge, Bytes, "Bytes of the local log on disk.";
    STORE_QUOTA_BYTES = "fanin_store_quota_bytes", Gauge, Bytes, "Most bytes of the local log on disk.";
    STORE_FREE_BYTES = "fanin_store_free_bytes", Gauge, Bytes, "Bytes free on the local log's disk.";
    STORE_SEGMENTS = "fanin_store_segments", Gauge, Count, "Segment files of the local log.";
    CONFIG_LAST_RELOAD_SUCCESS = "fanin_config_last_reload_success", Gauge, Count, "1 when the last load of the configuration succeeded.";
    CONNECTIONS = "fanin_connections", Gauge, Count, "Connections to the socket.";
    CONNECTIONS_REFUSED = "fanin_connections_refused_total", Counter, Count, "Connections to the socket turned away because there were too many.";
    HUB_FETCHED_MESSAGES = "fanin_hub_fetched_messages_total", Counter, Count, "Messages pulled from the hub, by mapping.";
    HUB_PENDING_MESSAGES = "fanin_hub_pending_messages", Gauge, Count, "Messages the shared consumer has not handed out, by mapping.";
    HUB_ACK_PENDING_MESSAGES = "fanin_hub_ack_pending_messages", Gauge, Count, "Messages the shared consumer handed out to any node and nobody settled, by mapping.";
    STAGED_MESSAGES = "fanin_staged_messages_total", Counter, Count, "Messages made durable and not yet claimed, by mapping.";
    STAGE_SYNC_DURATION = "fanin_stage_sync_duration_seconds", Histogram, Seconds, "Making a batch durable before its claim: its write and one sync of the local log, with the wait for them.";
    CLAIMS = "fanin_claims_total", Counter, Count, "Claims, by mapping and result (won, partial, lost, void).";
    CLAIM_DURATION = "fanin_claim_duration_seconds", Histogram, Seconds, "From sending a claim to seeing it in the ledger.";
    SOURCE_LOST_MESSAGES = "fanin_source_lost_messages_total", Counter, Count, "Sequences that a source has lost, as this node saw it, before any bridge had taken them, by mapping. At most so many messages.";
    HOLE_MESSAGES = "fanin_hole_messages_total", Counter, Count, "Sequences closed by this node without a claim: filtered out, purged, deleted or expired at the hub, by mapping.";
    REPAIRED_MESSAGES = "fanin_repaired_messages_total", Counter, Count, "Messages the hub had given up and that were claimed by sequence, by mapping.";
    MENDED_BATCHES = "fanin_mended_batches_total", Counter, Count, "Damaged batches fetched again and written anew, by mapping.";
    LOST_MESSAGES = "fanin_lost_messages_total", Counter, Count, "Messages that the disk lost and the source had no more, by mapping.";
    UNREADABLE_MESSAGES = "fanin_unreadable_messages_total", Counter, Count, "Messages no node could take in as the hub delivers them and that were claimed by sequence, by mapping.";
    LEDGER_POSITION = "fanin_ledger_position", Gauge, Count, "The ledger record folded last, by mapping.";
    LEDGER_LAG = "fanin_ledger_lag_messages", Gauge, Count, "Ledger records known at the hub and not yet folded, by mapping.";
    LEDGER_BYTES = "fanin_ledger_bytes", Gauge, Bytes, "Bytes the ledger holds, by mapping.";
    LEDGER_LIMIT_BYTES = "fanin_ledger_limit_bytes", Gauge, Bytes, "The ledger's size limit, 0 when it has none, by mapping.";
    EPOCH = "fanin_epoch", Gauge, Count, "This node's epoch, by mapping.";
    PAUSED = "fanin_paused", Gauge, Count, "1 while an axis (intake, visibility, delivery) is paused, by mapping.";
    MAPPING_STATE = "fanin_mapping_state", Gauge, Count, "1 for the state the mapping is in, 0 for the others.";
    MAPPING_REASON = "fanin_mapping_reason", Gauge, Count, "1 for the code of the reason why the mapping is not active, 0 for codes that are over.";
}

/// Why metrics cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The recorder cannot be made.
    #[error("the metrics recorder cannot be set up")]
    Build(#[from] BuildError),
}

/// The recorded metrics of this process.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
    started: SystemTime,
}

impl Metrics {
    /// Installs the recorder of this process and describes every metric.
    ///
    /// # Errors
    /// When a recorder is installed already.
    pub fn install() -> Result<Metrics, MetricsError> {
        let handle = builder()?.install_recorder()?;
        describe(TABLE);
        describe(crate::topic::metrics::TABLE);
        metrics::gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        metrics::gauge!(CONFIG_LAST_RELOAD_SUCCESS).set(1.0);
        Ok(Metrics {
            handle,
            started: SystemTime::now(),
        })
    }

    /// Keeps the memory of observations bounded until `stop`; one task runs it.
    pub async fn keep(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.handle.run_upkeep();
        }
    }

    /// Everything as Prometheus text, the process's own figures included.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = self.handle.render();
        text.push_str(&process::render(self.started));
        text
    }

    /// Metrics of a recorder that is not installed, for tests of the endpoint.
    ///
    /// # Errors
    /// As [`Metrics::install`].
    pub fn detached() -> Result<Metrics, MetricsError> {
        Ok(Metrics {
            handle: builder()?.build_recorder().handle(),
            started: SystemTime::now(),
        })
    }
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &DURATION_BUCKETS)
}

fn describe(table: &[Metric]) {
    for metric in table {
        match metric.kind {
            Kind::Counter => metrics::describe_counter!(metric.name, metric.unit, metric.help),
            Kind::Gauge => metrics::describe_gauge!(metric.name, metric.unit, metric.help),
            Kind::Histogram => metrics::describe_histogram!(metric.name, metric.unit, metric.help),
        }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: names follow the conventions and stand in the manual, and durations get buckets. Method: the tables; a recorder of
    //! this test.
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn all() -> impl Iterator<Item = &'static Metric> {
        TABLE.iter().chain(crate::topic::metrics::TABLE)
    }

    /// Goal: the manual's table lists every metric with its kind, and none that is not there. Method: both, compared.
    #[test]
    fn the_manual_lists_every_metric() {
        let manual = include_str!("../../../docs/operators.md");
        let section = manual.split("\n## Metrics\n").nth(1).unwrap();
        let mut listed = BTreeMap::new();
        for row in section.lines().filter(|line| line.starts_with("| `fanin_")) {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let mut kinds = cells[2].split(", ");
            let mut kind = "";
            for name in cells[1].split(", ") {
                // One kind stands for all names of a row.
                kind = kinds.next().unwrap_or(kind);
                assert_eq!(listed.insert(name.trim_matches('`'), kind), None, "{name} twice");
            }
        }
        let table = all().map(|metric| {
            let kind = match metric.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            (metric.name, kind)
        });
        assert_eq!(listed, table.collect());
    }

    #[test]
    fn names_follow_the_conventions() {
        let names: BTreeSet<&str> = all().map(|metric| metric.name).collect();
        assert_eq!(names.len(), all().count());
        for metric in all() {
            assert!(metric.name.starts_with("fanin_"), "{}", metric.name);
            assert_eq!(
                metric.kind == Kind::Counter,
                metric.name.ends_with("_total"),
                "{}",
                metric.name
            );
            // That is what gives a histogram its buckets.
            assert!(
                metric.kind != Kind::Histogram || metric.name.ends_with("_seconds"),
                "{}",
                metric.name
            );
            assert!(metric.help.ends_with('.'), "{}", metric.name);
        }
        assert!(DURATION_BUCKETS.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn durations_are_histograms() {
        let recorder = builder().unwrap().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            describe(TABLE);
            metrics::histogram!(CLAIM_DURATION).record(0.02);
            metrics::counter!(CLAIMS, "mapping" => "orders", "result" => "won").increment(3);
        });
        let text = handle.render();
        assert!(
            text.contains("# TYPE fanin_claim_duration_seconds histogram"),
            "{text}"
        );
        assert!(
            text.contains("fanin_claim_duration_seconds_bucket{le=\"0.025\"} 1"),
            "{text}"
        );
        assert!(
            text.contains("fanin_claims_total{mapping=\"orders\",result=\"won\"} 3"),
            "{text}"
        );
    }
}
