//! The bridge of a benchmark: its configuration, its process, its status.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use fanin_proto::v1::{AppStatus, MappingStatus};
use fanin_sdk::Client;
use serde_json::{Map, Value, json};

use super::child::Child;
use super::error::BenchError;
use super::limits::{
    ACK_WAIT, BRIDGE_IN_FLIGHT, CREDIT_MESSAGES, POLL_INTERVAL, READY_TIMEOUT, SETTLE_TIMEOUT,
};
use super::source::{STREAM, late};

/// Mapping and topic.
pub(super) const TOPIC: &str = "bench";

/// What differs between benchmarks; all else is at its default.
#[derive(Clone, Debug)]
pub(super) struct Options {
    /// Gets configuration, socket, data and log.
    pub(super) dir: PathBuf,
    pub(super) hub_url: String,
    pub(super) sync_always: bool,
    /// Pull whether or not every application is connected.
    pub(super) intake_always: bool,
    pub(super) apps: Vec<String>,
    /// Bytes the local log may take.
    pub(super) quota: u64,
    /// Messages that are pulled, staged and claimed together at most.
    pub(super) batch: u32,
}

impl Options {
    /// The address of its socket.
    pub(super) fn socket(&self) -> String {
        format!("unix://{}", self.dir.join("n.sock").display())
    }

    /// The configuration, in the part of YAML that is JSON.
    fn render(&self) -> String {
        // Attempts that end with a frozen process must not use a message up.
        let app = json!({
            "max_attempts": 1000,
            "in_flight": CREDIT_MESSAGES,
            "instance_in_flight": CREDIT_MESSAGES,
        });
        let apps: Map<String, Value> = self.apps.iter().map(|name| (name.clone(), app.clone())).collect();
        let config = json!({
            "node": "bench",
            "data_dir": self.dir.join("data"),
            "hub": {
                "servers": [self.hub_url],
                "durability": if self.sync_always { "sync_always" } else { "lazy" },
            },
            "listen": self.socket(),
            "store": { "quota": self.quota.to_string() },
            "mappings": { TOPIC: {
                "sources": [{ "stream": STREAM }],
                "ack_wait": format!("{}s", ACK_WAIT.as_secs()),
                "nodes": 1,
                "in_flight": BRIDGE_IN_FLIGHT,
                "batch": { "messages": self.batch },
                "intake": if self.intake_always { "always" } else { "connected" },
                "applications": apps,
            }},
        });
        config.to_string()
    }
}

/// A running bridge.
#[derive(Debug)]
pub(super) struct Bridge {
    child: Child,
    client: Client,
    socket: String,
}

impl Bridge {
    /// Starts it and returns when its mapping has joined the ledger.
    pub(super) async fn start(program: &Path, options: &Options) -> Result<Self, BenchError> {
        let child = Self::launch(program, options, None)?;
        Self::joined(child, options).await
    }

    /// Starts its process. Whoever listens at `notify` hears from it as a service manager does.
    pub(super) fn launch(
        program: &Path,
        options: &Options,
        notify: Option<&Path>,
    ) -> Result<Child, BenchError> {
        let config = options.dir.join("fanin.yaml");
        let made = std::fs::create_dir_all(&options.dir);
        made.and_then(|()| std::fs::write(&config, options.render()))
            .map_err(BenchError::io("writing the bridge's configuration"))?;
        let mut command = Command::new(program);
        command.arg("run").arg("--config").arg(&config);
        if let Some(socket) = notify {
            command.env("NOTIFY_SOCKET", socket);
        }
        Child::logged("bridge", &options.dir, command)
    }

    /// Waits until the mapping of a process has joined the ledger.
    pub(super) async fn joined(mut child: Child, options: &Options) -> Result<Self, BenchError> {
        let socket = options.socket();
        let deadline = Instant::now() + READY_TIMEOUT;
        let client = loop {
            child.check()?;
            match Client::connect(&socket).await {
                Ok(client) => break client,
                Err(error) => {
                    late(deadline, READY_TIMEOUT, || {
                        ("the bridge's start".to_owned(), error.to_string())
                    })?;
                }
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        };
        let mut bridge = Self {
            child,
            client,
            socket,
        };
        let ready = |mapping: &MappingStatus| matches!(mapping.state.as_str(), "gated" | "active");
        bridge.wait("the bridge's join", ready).await?;
        Ok(bridge)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// The address of its socket.
    pub(super) fn socket(&self) -> &str {
        &self.socket
    }

    /// An error if it has ended.
    pub(super) fn check(&mut self) -> Result<(), BenchError> {
        self.child.check()
    }

    /// Waits until the mapping's status is as wanted.
    pub(super) async fn wait(
        &mut self,
        what: &str,
        wanted: impl Fn(&MappingStatus) -> bool,
    ) -> Result<(), BenchError> {
        self.wait_for(SETTLE_TIMEOUT, what, wanted).await
    }

    /// The same with another limit.
    pub(super) async fn wait_for(
        &mut self,
        limit: Duration,
        what: &str,
        wanted: impl Fn(&MappingStatus) -> bool,
    ) -> Result<(), BenchError> {
        let deadline = Instant::now() + limit;
        loop {
            self.check()?;
            let status = self.client.status().await?;
            let mapping = status.mappings.first();
            if mapping.is_some_and(&wanted) {
                return Ok(());
            }
            let hint = || (what.to_owned(), mapping.map(describe).unwrap_or_default());
            late(deadline, limit, hint)?;
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Waits until nothing is left for these applications.
    pub(super) async fn wait_drained(&mut self, apps: &[String]) -> Result<(), BenchError> {
        let left = |app: &AppStatus| apps.contains(&app.name) && app.backlog_messages + app.dead_letters > 0;
        self.wait("the bridge's last acknowledgements", |mapping| {
            !mapping.apps.iter().any(left)
        })
        .await
    }

    /// Bytes that its local log takes.
    pub(super) async fn store_bytes(&self) -> Result<u64, BenchError> {
        let status = self.client.status().await?;
        Ok(status.store.map_or(0, |store| store.bytes))
    }

    /// What waits for an application, in messages and bytes.
    pub(super) async fn backlog(&self, app: &str) -> Result<(u64, u64), BenchError> {
        let status = self.client.status().await?;
        let apps = status.mappings.iter().flat_map(|mapping| &mapping.apps);
        let found = apps.into_iter().find(|status| status.name == app);
        Ok(found.map_or((0, 0), |status| (status.backlog_messages, status.backlog_bytes)))
    }
}

fn describe(mapping: &MappingStatus) -> String {
    let apps = mapping
        .apps
        .iter()
        .map(|app| format!("{} {}", app.name, app.backlog_messages));
    let apps: Vec<String> = apps.collect();
    format!(
        "it is {} ({}), backlogs: {}",
        mapping.state,
        mapping.reason,
        apps.join(", ")
    )
}

#[cfg(test)]
mod tests {
    // Goal: what is written is a valid configuration. Method: load it.
    use super::super::limits::BRIDGE_BATCH;
    use super::*;

    #[test]
    fn the_configuration_loads() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            dir: dir.path().to_owned(),
            hub_url: "nats://127.0.0.1:18001".to_owned(),
            sync_always: true,
            intake_always: true,
            apps: vec!["app-1".to_owned(), "app-2".to_owned()],
            quota: 5 << 30,
            batch: BRIDGE_BATCH,
        };
        let file = dir.path().join("fanin.yaml");
        std::fs::write(&file, options.render()).unwrap();
        let request = fanin_config::LoadRequest {
            file,
            ..Default::default()
        };
        let loaded = fanin_config::load(&request).unwrap();
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
        assert_eq!(loaded.config.store.quota.0, 5 << 30);
        let mapping = &loaded.config.mappings[TOPIC];
        assert_eq!(mapping.applications["app-2"].instance_in_flight, CREDIT_MESSAGES);
        assert_eq!(mapping.batch.messages, BRIDGE_BATCH);
    }
}
