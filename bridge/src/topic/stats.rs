//! What an application's task tells about itself.

use std::sync::Arc;

use fanin_proto::v1::{AppStatus, InstanceStatus};

use super::{app::AppTask, connection::Peer};

/// Totals since the topic started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) acked: u64,
    pub(crate) deliveries: u64,
    pub(crate) redeliveries: u64,
}

/// An application as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppStats {
    /// The application.
    pub name: Arc<str>,
    /// Messages not finished, those in flight included.
    pub backlog_messages: u64,
    /// Their payload bytes, about.
    pub backlog_bytes: u64,
    /// Messages held by instances.
    pub in_flight: u64,
    /// Messages acknowledged since the topic started.
    pub acked: u64,
    /// Deliveries since the topic started.
    pub deliveries: u64,
    /// Those of them that were not the first attempt.
    pub redeliveries: u64,
    /// Dead letters that the local log holds.
    pub dead_letters: u64,
    /// Milliseconds since the hub stored the oldest unfinished message; 0 without backlog.
    pub oldest_unacked_ms: u64,
    /// Connected instances.
    pub instances: Vec<InstanceStats>,
    /// Whether an operator has paused delivery.
    pub paused: bool,
}

/// An instance as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceStats {
    /// Its name.
    pub name: Arc<str>,
    /// Messages it holds.
    pub in_flight: u64,
    /// Messages it has acknowledged.
    pub acked: u64,
    /// Milliseconds since it connected.
    pub connected_ms: u64,
    /// Who is at the other end.
    pub peer: Peer,
}

impl AppStats {
    /// The wire form.
    #[must_use]
    pub fn to_status(&self) -> AppStatus {
        AppStatus {
            name: self.name.to_string(),
            backlog_messages: self.backlog_messages,
            backlog_bytes: self.backlog_bytes,
            in_flight: self.in_flight,
            acked: self.acked,
            deliveries: self.deliveries,
            redeliveries: self.redeliveries,
            dead_letters: self.dead_letters,
            oldest_unacked_ms: self.oldest_unacked_ms,
            instances: self
                .instances
                .iter()
                .map(|instance| InstanceStatus {
                    name: instance.name.to_string(),
                    in_flight: instance.in_flight,
                    acked: instance.acked,
                    connected_ms: instance.connected_ms,
                    peer_pid: instance.peer.pid,
                    peer_uid: instance.peer.uid,
                })
                .collect(),
        }
    }
}

impl AppTask {
    /// The stats without the list of instances: cheap.
    fn summary(&self) -> AppStats {
        let stats = self.machine.stats();
        let (backlog_bytes, oldest_ns) = self.topic.backlog_from(self.machine.floor());
        let age_ns = oldest_ns.map_or(0, |oldest| {
            self.topic.ambient.now_ns().saturating_sub(oldest).max(0)
        });
        AppStats {
            name: Arc::clone(&self.spec.name),
            backlog_messages: stats.backlog,
            backlog_bytes: if stats.backlog == 0 { 0 } else { backlog_bytes },
            in_flight: stats.in_flight,
            acked: self.totals.acked,
            deliveries: self.totals.deliveries,
            redeliveries: self.totals.redeliveries,
            dead_letters: self.topic.dead_letters.lock().count(&self.spec.name),
            oldest_unacked_ms: if stats.backlog == 0 {
                0
            } else {
                age_ns as u64 / 1_000_000
            },
            instances: Vec::new(),
            paused: self.paused,
        }
    }

    pub(super) fn stats(&self) -> AppStats {
        let instances = self
            .instances
            .iter()
            .map(|(no, instance)| InstanceStats {
                name: Arc::clone(&instance.name),
                in_flight: u64::from(self.machine.held_count(*no)),
                acked: instance.acked,
                connected_ms: instance.connected.elapsed().as_millis() as u64,
                peer: instance.peer,
            })
            .collect();
        AppStats {
            instances,
            ..self.summary()
        }
    }

    pub(super) fn update_gauges(&self) {
        let stats = self.summary();
        self.metrics.backlog_messages.set(stats.backlog_messages as f64);
        self.metrics.backlog_bytes.set(stats.backlog_bytes as f64);
        self.metrics
            .oldest_unacked
            .set(stats.oldest_unacked_ms as f64 / 1_000.0);
        self.metrics.instances.set(self.instances.len() as f64);
    }
}
