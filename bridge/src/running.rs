//! A node that runs, as status, readiness and the admin endpoint see it.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use fanin_config::Durability;
use fanin_core::ids::NodeUuid;
use fanin_hub::Connection;
use fanin_proto::v1::{HoldingsPart, HubStatus, StatusResponse, StoreStatus};
use fanin_store::{SegmentLog, Store};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::mapping::start::MappingHandle;
use crate::serve::StatusSource;

/// A node that runs: what status, readiness and the admin endpoint look at.
pub struct Running {
    pub(crate) node: String,
    pub(crate) uuid: NodeUuid,
    pub(crate) started: Instant,
    pub(crate) durability: Durability,
    pub(crate) hub: Connection,
    pub(crate) store: Arc<SegmentLog>,
    pub(crate) mappings: Vec<MappingHandle>,
    pub(crate) admin: Mutex<Option<SocketAddr>>,
    /// Cancelled when the socket's server has ended; empty before it runs.
    pub(crate) deaf: OnceLock<CancellationToken>,
}

impl Running {
    /// The mappings, in the order of their names.
    #[must_use]
    pub fn mappings(&self) -> &[MappingHandle] {
        &self.mappings
    }

    /// The hub.
    #[must_use]
    pub fn hub(&self) -> &Connection {
        &self.hub
    }

    /// The local log.
    #[must_use]
    pub fn store(&self) -> &SegmentLog {
        &self.store
    }

    /// Whether the socket's server runs.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.deaf.get().is_some_and(|deaf| !deaf.is_cancelled())
    }

    /// Notes where the admin endpoint listens.
    pub fn set_admin(&self, address: SocketAddr) {
        *self.admin.lock() = Some(address);
    }

    /// The whole status.
    pub async fn status(&self) -> StatusResponse {
        let state = self.hub.state();
        let reason = state.why_away().map(|(code, why)| format!("{code}: {why}"));
        let usage = self.store.usage();
        let mut mappings = Vec::with_capacity(self.mappings.len());
        for mapping in &self.mappings {
            let mut status = mapping.view.get().to_status(&mapping.name, &mapping.topic_name);
            if let Some(topic) = &mapping.topic {
                let stats = topic.stats().await;
                status.apps = stats.iter().map(crate::topic::AppStats::to_status).collect();
            }
            mappings.push(status);
        }
        StatusResponse {
            node: self.node.clone(),
            node_uuid: self.uuid.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            pid: std::process::id(),
            admin: self
                .admin
                .lock()
                .map(|address| address.to_string())
                .unwrap_or_default(),
            hub: Some(HubStatus {
                connected: state.connected,
                server: state.server,
                server_version: state.version,
                durability: match self.durability {
                    Durability::Lazy => "lazy".to_owned(),
                    Durability::SyncAlways => "sync_always".to_owned(),
                },
                reconnects: state.generation.saturating_sub(1),
                reason: reason.unwrap_or_default(),
            }),
            store: Some(StoreStatus {
                bytes: usage.bytes,
                quota_bytes: usage.quota,
                free_bytes: usage.free,
                segments: usage.segments,
                poisoned: usage.poisoned,
            }),
            mappings,
            resident_bytes: resident_bytes(),
        }
    }
}

impl StatusSource for Running {
    fn status(&self) -> Pin<Box<dyn Future<Output = StatusResponse> + Send + '_>> {
        Box::pin(Running::status(self))
    }

    fn holdings<'a>(
        &'a self,
        mapping: &'a str,
        with_state: bool,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<HoldingsPart>, tonic::Status>> + Send + 'a>> {
        Box::pin(async move {
            let found = self.mappings.iter().find(|found| found.name == mapping);
            let Some(found) = found else {
                let names: Vec<&str> = self.mappings.iter().map(|found| found.name.as_str()).collect();
                let text = format!(
                    "this node has no mapping {mapping:?}; it has: {}",
                    names.join(", ")
                );
                return Err(tonic::Status::not_found(text));
            };
            found.holdings(with_state).await.ok_or_else(|| {
                let state = found.view.get().state.word();
                tonic::Status::unavailable(format!(
                    "mapping {mapping} cannot tell what it holds: it is {state}"
                ))
            })
        })
    }
}

/// Resident memory of this process in bytes; 0 where the system does not tell.
#[must_use]
pub fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm
        .split_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .unwrap_or(0);
    pages * rustix::param::page_size() as u64
}
