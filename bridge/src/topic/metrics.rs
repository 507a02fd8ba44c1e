//! The names of the topics' metrics, and the handles each application caches.

use metrics::{Counter, Gauge, Histogram};

use crate::telemetry::metrics::metrics_table;

metrics_table! { "Every metric of the topics and their applications.":
    DELIVERIES = "fanin_deliveries_total", Counter, Count, "Deliveries that ended, by outcome.";
    REDELIVERIES = "fanin_redeliveries_total", Counter, Count, "Attempts that failed and were counted, by reason.";
    DEAD_LETTERS = "fanin_dead_letters_total", Counter, Count, "Dead letters written, by reason.";
    APP_BACKLOG_MESSAGES = "fanin_app_backlog_messages", Gauge, Count, "Messages an application has not finished.";
    APP_BACKLOG_BYTES = "fanin_app_backlog_bytes", Gauge, Bytes, "Payload bytes an application has not finished, about.";
    APP_OLDEST_UNACKED = "fanin_app_oldest_unacked_age_seconds", Gauge, Seconds, "Age of the oldest unfinished message since the hub stored it.";
    APP_INSTANCES = "fanin_app_instances", Gauge, Count, "Connected instances of an application.";
    END_TO_END_LATENCY = "fanin_end_to_end_latency_seconds", Histogram, Seconds, "From the hub's storing a message to its ack, sampled once per request of an instance.";
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
