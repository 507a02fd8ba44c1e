//! The `fanin` command, run against a cluster as an operator would.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use fanin_tests::process::binary_path;
use serde_json::Value;

use crate::cluster::Cluster;

/// How a run of the binary ended.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    /// Standard output.
    pub(crate) text: String,
    /// Its last line as JSON, if it is that.
    pub(crate) out: Value,
    /// Standard error.
    pub(crate) told: String,
}

impl Ended {
    /// The kinds of what was found.
    pub(crate) fn kinds(&self) -> Vec<&str> {
        let findings = self.out["findings"].as_array();
        let findings = findings.unwrap_or_else(|| panic!("no findings: {} {}", self.text, self.told));
        findings
            .iter()
            .map(|finding| finding["kind"].as_str().unwrap())
            .collect()
    }

    /// The error that was told as JSON, whatever notes stand before it.
    pub(crate) fn error(&self) -> Value {
        let line = self.told.lines().last().unwrap_or_default();
        let told: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {}", self.told));
        told["error"].clone()
    }
}

/// Runs the binary with these words, in a directory, dying at a fail point if one is named.
pub(crate) async fn run(words: &[&str], dir: &Path, point: &str) -> Ended {
    let mut command = Command::new(binary_path().unwrap());
    command.args(words).current_dir(dir).stdin(Stdio::null());
    if !point.is_empty() {
        command.env("FANIN_FAILPOINTS", format!("{point}=kill"));
    }
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let last = text.lines().last().map(serde_json::from_str);
    Ended {
        code: output.status.code(),
        signal: output.status.signal(),
        out: last.and_then(Result::ok).unwrap_or(Value::Null),
        told: String::from_utf8_lossy(&output.stderr).into_owned(),
        text,
    }
}

/// Runs a command about the cluster's mapping, with `--json`, against the sockets of these nodes.
pub(crate) async fn about(
    cluster: &Cluster,
    words: &[&str],
    nodes: &[usize],
    dir: &Path,
    point: &str,
) -> Ended {
    let config = cluster.nodes[0].config_path().display().to_string();
    let sockets: Vec<String> = nodes.iter().map(|node| cluster.nodes[*node].socket()).collect();
    let mut all = words.to_vec();
    all.extend(["--json", "--config", &config]);
    for socket in &sockets {
        all.extend(["--node", socket]);
    }
    run(&all, dir, point).await
}
