//! The configuration of a bridge that the demo or a benchmark starts.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What differs from node to node and from run to run; everything else stays at its default.
#[derive(Clone, Debug)]
pub(crate) struct NodeConfig {
    pub(crate) node: String,
    pub(crate) hub_url: String,
    pub(crate) sync_always: bool,
    /// Whether a start is to be refused where exactly once cannot be held.
    pub(crate) requires_exactly_once: bool,
    pub(crate) data_dir: PathBuf,
    pub(crate) socket: PathBuf,
    pub(crate) quota_mib: Option<u64>,
    pub(crate) mapping: String,
    pub(crate) stream: String,
    pub(crate) ack_wait: Duration,
    pub(crate) nodes: usize,
    pub(crate) in_flight: u32,
    pub(crate) batch_messages: u32,
    pub(crate) intake_always: bool,
    pub(crate) apps: Vec<String>,
    /// Messages that one instance of an application may hold.
    pub(crate) instance_in_flight: u32,
}

impl NodeConfig {
    /// The file's text.
    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a string never fails.
        let _ = self.write_to(&mut text);
        text
    }

    fn write_to(&self, out: &mut String) -> std::fmt::Result {
        let quoted = |path: &Path| serde_json::Value::from(path.to_string_lossy()).to_string();
        let durability = if self.sync_always { "sync_always" } else { "lazy" };
        let intake = if self.intake_always { "always" } else { "connected" };
        writeln!(out, "node: {}", self.node)?;
        writeln!(out, "data_dir: {}", quoted(&self.data_dir))?;
        writeln!(out, "hub:")?;
        writeln!(out, "  servers: [\"{}\"]", self.hub_url)?;
        writeln!(out, "  durability: {durability}")?;
        writeln!(out, "listen: {}", quoted(Path::new(&socket_uri(&self.socket))))?;
        writeln!(out, "log: {{ format: json, level: info }}")?;
        writeln!(out, "shutdown_grace: 2s")?;
        if let Some(quota) = self.quota_mib {
            writeln!(out, "store: {{ quota: {quota}MiB }}")?;
        }
        writeln!(out, "mappings:")?;
        writeln!(out, "  {}:", self.mapping)?;
        writeln!(out, "    sources: [{{ stream: {} }}]", self.stream)?;
        writeln!(out, "    ack_wait: {}ms", self.ack_wait.as_millis())?;
        writeln!(out, "    nodes: {}", self.nodes)?;
        writeln!(out, "    in_flight: {}", self.in_flight)?;
        writeln!(out, "    batch: {{ messages: {} }}", self.batch_messages)?;
        writeln!(out, "    intake: {intake}")?;
        if self.requires_exactly_once {
            writeln!(out, "    required_delivery: exactly_once")?;
        }
        writeln!(out, "    applications:")?;
        for app in &self.apps {
            // An instance that is killed with a message in hand uses up an attempt of it, and no kill may cost one.
            writeln!(
                out,
                "      {app}: {{ max_attempts: 1000, in_flight: {}, instance_in_flight: {} }}",
                self.instance_in_flight.saturating_mul(8),
                self.instance_in_flight
            )?;
        }
        Ok(())
    }
}

/// The address of a socket, as configurations and clients take it.
pub(crate) fn socket_uri(path: &Path) -> String {
    format!("unix://{}", path.display())
}

#[cfg(test)]
mod tests {
    // Goal: what is written is a valid configuration that means what it should. Method: load it.
    use super::*;

    #[test]
    fn the_text_loads() {
        let config = NodeConfig {
            node: "node-1".to_owned(),
            hub_url: "nats://127.0.0.1:18001".to_owned(),
            sync_always: true,
            requires_exactly_once: true,
            data_dir: "/tmp/a \"b\"/data".into(),
            socket: "/tmp/a/n.sock".into(),
            quota_mib: Some(5_000),
            mapping: "shop".to_owned(),
            stream: "SHOP".to_owned(),
            ack_wait: Duration::from_millis(2_500),
            nodes: 3,
            in_flight: 512,
            batch_messages: 64,
            intake_always: false,
            apps: vec!["billing".to_owned(), "shipping".to_owned()],
            instance_in_flight: 128,
        };
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("fanin.yaml");
        std::fs::write(&file, config.render()).unwrap();
        let request = fanin_config::LoadRequest {
            file,
            ..Default::default()
        };
        let loaded = fanin_config::load(&request).unwrap();
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
        assert_eq!(loaded.config.data_dir, config.data_dir);
        assert_eq!(loaded.config.store.quota, fanin_config::ByteSize::mib(5_000));
        let mapping = &loaded.config.mappings["shop"];
        assert_eq!(mapping.applications.len(), 2);
        assert_eq!(mapping.applications["billing"].instance_in_flight, 128);
        assert_eq!(mapping.ack_wait.0, config.ack_wait);
    }
}
