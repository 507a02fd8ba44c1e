//! The names of the topics' metrics, and the handles each application caches.

use metrics::{Counter, Gauge, Histogram, Unit};

/// Deliveries that ended, by outcome.
pub const DELIVERIES: &str = "fanin_deliveries_total";
/// Attempts that failed and were counted, by reason.
pub const REDELIVERIES: &str = "fanin_redeliveries_total";
/// Dead letters written, by reason.
pub const DEAD_LETTERS: &str = "fanin_dead_letters_total";
/// Messages an application has not finished.
pub const APP_BACKLOG_MESSAGES: &str = "fanin_app_backlog_messages";
/// Payload bytes an application has not finished, about.
pub const APP_BACKLOG_BYTES: &str = "fanin_app_backlog_bytes";
/// Age of the oldest unfinished message since the hub stored it.
pub const APP_OLDEST_UNACKED: &str = "fanin_app_oldest_unacked_age_seconds";
/// Connected instances.
pub const APP_INSTANCES: &str = "fanin_app_instances";
/// From the hub's storing a message to its ack, sampled once per request of an instance.
pub const END_TO_END_LATENCY: &str = "fanin_end_to_end_latency_seconds";

/// Describes every metric to the installed recorder.
pub fn describe() {
    use metrics::{describe_counter, describe_gauge, describe_histogram};
    describe_counter!(DELIVERIES, Unit::Count, "Deliveries that ended, by outcome");
    describe_counter!(
        REDELIVERIES,
        Unit::Count,
        "Attempts that failed and were counted, by reason"
    );
    describe_counter!(DEAD_LETTERS, Unit::Count, "Dead letters written, by reason");
    describe_gauge!(
        APP_BACKLOG_MESSAGES,
        Unit::Count,
        "Messages an application has not finished"
    );
    describe_gauge!(
        APP_BACKLOG_BYTES,
        Unit::Bytes,
        "Payload bytes an application has not finished, about"
    );
    describe_gauge!(
        APP_OLDEST_UNACKED,
        Unit::Seconds,
        "Age of the oldest unfinished message since the hub stored it"
    );
    describe_gauge!(
        APP_INSTANCES,
        Unit::Count,
        "Connected instances of an application"
    );
    describe_histogram!(
        END_TO_END_LATENCY,
        Unit::Seconds,
        "From the hub's storing a message to its ack, sampled"
    );
}

/// The metrics of one application. Made once; updates are atomic additions.
pub(crate) struct AppMetrics {
    pub(crate) acked: Counter,
    pub(crate) skipped: Counter,
    pub(crate) dead_lettered: Counter,
    pub(crate) released: Counter,
    pub(crate) lease_lost: Counter,
    pub(crate) retried: Counter,
    pub(crate) redelivered_retry: Counter,
    pub(crate) redelivered_lease: Counter,
    pub(crate) redelivered_connection: Counter,
    pub(crate) dead_max_attempts: Counter,
    pub(crate) dead_rejected: Counter,
    pub(crate) dead_lost: Counter,
    pub(crate) backlog_messages: Gauge,
    pub(crate) backlog_bytes: Gauge,
    pub(crate) oldest_unacked: Gauge,
    pub(crate) instances: Gauge,
    pub(crate) latency: Histogram,
}

impl AppMetrics {
    pub(crate) fn new(topic: &str, app: &str) -> AppMetrics {
        let counter = |name: &'static str, label: &'static str, value: &'static str| metrics::counter!(name, "topic" => topic.to_owned(), "app" => app.to_owned(), label => value);
        let gauge =
            |name: &'static str| metrics::gauge!(name, "topic" => topic.to_owned(), "app" => app.to_owned());
        AppMetrics {
            acked: counter(DELIVERIES, "outcome", "acked"),
            skipped: counter(DELIVERIES, "outcome", "skipped"),
            dead_lettered: counter(DELIVERIES, "outcome", "dead_lettered"),
            released: counter(DELIVERIES, "outcome", "released"),
            lease_lost: counter(DELIVERIES, "outcome", "lease_lost"),
            retried: counter(DELIVERIES, "outcome", "retried"),
            redelivered_retry: counter(REDELIVERIES, "reason", "retry"),
            redelivered_lease: counter(REDELIVERIES, "reason", "lease_expired"),
            redelivered_connection: counter(REDELIVERIES, "reason", "connection_lost"),
            dead_max_attempts: counter(DEAD_LETTERS, "reason", "max_attempts"),
            dead_rejected: counter(DEAD_LETTERS, "reason", "rejected"),
            dead_lost: counter(DEAD_LETTERS, "reason", "lost"),
            backlog_messages: gauge(APP_BACKLOG_MESSAGES),
            backlog_bytes: gauge(APP_BACKLOG_BYTES),
            oldest_unacked: gauge(APP_OLDEST_UNACKED),
            instances: gauge(APP_INSTANCES),
            latency: metrics::histogram!(END_TO_END_LATENCY, "topic" => topic.to_owned(), "app" => app.to_owned()),
        }
    }
}
