//! The configuration file of a local hub.

use std::path::{Path, PathBuf};

use crate::limits::{FILE_STORE_BYTES_MAX, MEMORY_STORE_BYTES_MAX};

/// What the file says.
pub(crate) struct HubConfig<'a> {
    pub(crate) name: &'a str,
    pub(crate) port: u16,
    pub(crate) monitor_port: u16,
    /// Where JetStream keeps its store; without JetStream `None`.
    pub(crate) store: Option<PathBuf>,
    /// Where the server says which ports it listens on, once it does.
    pub(crate) ports_dir: &'a Path,
    pub(crate) sync_always: bool,
    pub(crate) extra: &'a str,
}

impl HubConfig<'_> {
    pub(crate) fn render(&self) -> String {
        let sync = if self.sync_always {
            "sync_interval: always"
        } else {
            ""
        };
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let jetstream = self.store.as_ref().map_or_else(String::new, |store| {
            format!(
                "jetstream {{\n  store_dir: {store}\n  max_memory_store: {MEMORY_STORE_BYTES_MAX}\n  \
                 max_file_store: {FILE_STORE_BYTES_MAX}\n  {sync}\n}}\n",
                store = quoted(&store.to_string_lossy()),
            )
        });
        format!(
            "server_name: {name}\n\
             listen: \"127.0.0.1:{port}\"\n\
             http: \"127.0.0.1:{monitor_port}\"\n\
             ports_file_dir: {ports_dir}\n\
             {jetstream}{extra}\n",
            name = quoted(self.name),
            port = self.port,
            monitor_port = self.monitor_port,
            ports_dir = quoted(&self.ports_dir.to_string_lossy()),
            extra = self.extra,
        )
    }
}
