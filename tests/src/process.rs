//! A bridge as its own process: started, killed, frozen and restarted like in production.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use fanin_localhub::Leash;
use fanin_proto::v1::node_service_client::NodeServiceClient;
use fanin_proto::v1::{StatusRequest, StatusResponse};
use parking_lot::Mutex;
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use serde_json::{Value, json};
use tempfile::TempDir;
use tonic::transport::Endpoint;

use crate::limits::{
    JOINED_TIMEOUT, LOG_TAIL_LINES, SERVING_TIMEOUT, SOCKET_PATH_BYTES_MAX, STATUS_TIMEOUT, STOP_TIMEOUT,
};
use crate::logs::{self, LogLine};
use crate::wait::{patience, until};

/// How to run a bridge.
#[derive(Clone, Debug)]
pub struct BridgeOptions {
    /// Node name.
    pub node: String,
    /// The configuration, as one JSON value: JSON is YAML. `data_dir`, `listen`, `admin` and `log` are set by the
    /// harness where they are absent.
    pub config: Value,
    /// Variables for the process, on top of the inherited ones.
    pub env: BTreeMap<String, String>,
    /// Arguments behind `run --config FILE`.
    pub args: Vec<String>,
    /// An ERROR line that holds one of these texts is expected.
    pub allowed_errors: Vec<String>,
}

impl BridgeOptions {
    /// A node on the hub at `hub_url`, declared as `sync_always`, with the given `mappings` section.
    pub fn new(node: &str, hub_url: &str, mappings: Value) -> Self {
        let config = json!({
            "node": node,
            "hub": { "servers": [hub_url], "durability": "sync_always" },
            "mappings": mappings,
        });
        let node = node.to_owned();
        Self {
            node,
            config,
            env: BTreeMap::new(),
            args: Vec::new(),
            allowed_errors: Vec::new(),
        }
    }

    /// Sets `FANIN_FAILPOINTS` for the next life.
    pub fn failpoints(mut self, spec: &str) -> Self {
        self.env.insert("FANIN_FAILPOINTS".to_owned(), spec.to_owned());
        self
    }

    /// Expects ERROR lines that hold `text`.
    pub fn allow_error(mut self, text: &str) -> Self {
        self.allowed_errors.push(text.to_owned());
        self
    }

    /// Lays `patch` over the configuration: objects are merged, everything else is replaced.
    pub fn with_config(mut self, patch: &Value) -> Self {
        merge(&mut self.config, patch);
        self
    }
}

/// Why something with a bridge's process failed. Each text ends with the end of its log.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The binary is not where it should be.
    #[error(
        "no fanin binary at {path}: run `cargo xtask test`, or build it with \
             `cargo build -p fanin-bridge --features failpoints`, or set FANIN_BIN"
    )]
    NoBinary {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A file, process or signal failed.
    #[error("{what} failed: {source}")]
    Io {
        /// The action.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// It ended although it should run.
    #[error("{node} ended ({status}); its log ends with\n{log}")]
    Ended {
        /// The node.
        node: String,
        /// How.
        status: ExitStatus,
        /// The end of its log.
        log: String,
    },
    /// It was to end with success.
    #[error("{node} ended with {status} on SIGTERM; its log ends with\n{log}")]
    BadExit {
        /// The node.
        node: String,
        /// How.
        status: ExitStatus,
        /// The end of its log.
        log: String,
    },
    /// A condition did not come to hold.
    #[error("{node}: {reason}; its log ends with\n{log}")]
    Waited {
        /// The node.
        node: String,
        /// What was awaited, and the last answer.
        reason: String,
        /// The end of its log.
        log: String,
    },
    /// The status call failed.
    #[error("{node} does not tell its status: {reason}")]
    Status {
        /// The node.
        node: String,
        /// Why.
        reason: String,
    },
}

/// A bridge process with its own data directory, which outlives the process and goes with this value.
///
/// Dropping it kills the process, and fails the test when the log holds an unexpected error; a failing test prints the
/// log's end and keeps the directory.
#[derive(Debug)]
pub struct Bridge {
    options: BridgeOptions,
    home: Option<TempDir>,
    process: Mutex<Option<Running>>,
    pid: u32,
}

#[derive(Debug)]
struct Running {
    // Fields drop in this order: the leash lets go before the process can be reaped.
    leash: Leash,
    child: Child,
}

impl Bridge {
    /// Starts a bridge and returns once every mapping takes part (see [`Self::wait_joined`]).
    pub async fn start(options: BridgeOptions) -> Result<Self, ProcessError> {
        let bridge = Self::spawn(options)?;
        bridge.wait_joined().await?;
        Ok(bridge)
    }

    /// Starts a bridge and does not wait for anything.
    pub fn spawn(options: BridgeOptions) -> Result<Self, ProcessError> {
        let home = short_temp_dir().map_err(io_error("making the node's directory"))?;
        let mut bridge = Self {
            options,
            home: Some(home),
            process: Mutex::new(None),
            pid: 0,
        };
        bridge.launch()?;
        Ok(bridge)
    }

    /// Node name.
    pub fn node(&self) -> &str {
        &self.options.node
    }

    /// Options of the next life; change them before [`Self::restart`].
    pub fn options_mut(&mut self) -> &mut BridgeOptions {
        &mut self.options
    }

    /// The socket as `unix://` URI, for applications.
    pub fn socket(&self) -> String {
        format!("unix://{}", self.socket_path().display())
    }

    /// The socket's path.
    pub fn socket_path(&self) -> PathBuf {
        self.home().join("s")
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.home().join("data")
    }

    /// The configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.home().join("fanin.yaml")
    }

    /// Everything that all lives printed.
    pub fn log_path(&self) -> PathBuf {
        self.home().join("log")
    }

    /// Process id of this life, or of the last one.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The log so far, all lives.
    pub fn log(&self) -> Vec<LogLine> {
        let bytes = fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&bytes)
            .lines()
            .filter_map(LogLine::parse)
            .collect()
    }

    /// The end of the log, for messages.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let tail = log
            .get(log.len().saturating_sub(LOG_TAIL_LINES)..)
            .unwrap_or_default();
        tail.iter().map(|line| format!("  {line}\n")).collect()
    }

    /// What the node tells about itself.
    pub async fn status(&self) -> Result<StatusResponse, ProcessError> {
        let failed = |reason: String| ProcessError::Status {
            node: self.options.node.clone(),
            reason,
        };
        let asked = async {
            let endpoint = Endpoint::from_shared(self.socket()).map_err(|error| error.to_string())?;
            let channel = endpoint.connect().await.map_err(|error| format!("{error:?}"))?;
            let answer = NodeServiceClient::new(channel).status(StatusRequest {}).await;
            answer
                .map(tonic::Response::into_inner)
                .map_err(|status| status.to_string())
        };
        match tokio::time::timeout(patience(STATUS_TIMEOUT), asked).await {
            Ok(answer) => answer.map_err(failed),
            Err(_) => Err(failed(format!("no answer within {STATUS_TIMEOUT:?}"))),
        }
    }

    /// Waits until the socket answers.
    pub async fn wait_serving(&self) -> Result<StatusResponse, ProcessError> {
        self.wait_status(SERVING_TIMEOUT, "the socket to answer", |_| true)
            .await
    }

    /// Waits until no mapping is `starting` or `joining` any more: the node has its epoch and knows its own claims.
    pub async fn wait_joined(&self) -> Result<StatusResponse, ProcessError> {
        self.wait_status(JOINED_TIMEOUT, "every mapping to take part", |status| {
            status
                .mappings
                .iter()
                .all(|mapping| !matches!(mapping.state.as_str(), "starting" | "joining"))
        })
        .await
    }

    /// Waits until `holds` is true of the node's status. Fails at once when the process ends.
    pub async fn wait_status(
        &self,
        time: Duration,
        what: &str,
        holds: impl Fn(&StatusResponse) -> bool,
    ) -> Result<StatusResponse, ProcessError> {
        // The end of the process is an answer too, so that nobody waits for the dead.
        let waited = until(time, what, || async {
            if let Some(status) = self.ended()? {
                return Ok(Err(status));
            }
            match self.status().await {
                Ok(status) if holds(&status) => Ok(Ok(status)),
                Ok(status) => Err(format!("last status: {status:?}")),
                Err(error) => Err(error.to_string()),
            }
        })
        .await;
        let (node, log) = (self.options.node.clone(), self.log_tail());
        match waited {
            Ok(Ok(status)) => Ok(status),
            Ok(Err(status)) => Err(ProcessError::Ended { node, status, log }),
            Err(reason) => Err(ProcessError::Waited { node, reason, log }),
        }
    }

    /// Waits until a line of the log holds `text`.
    pub async fn wait_log(&self, time: Duration, text: &str) -> Result<LogLine, ProcessError> {
        let what = format!("{text:?} in the log");
        let waited = until(time, &what, || async {
            self.log().into_iter().find(|line| line.text.contains(text))
        })
        .await;
        waited.map_err(|reason| self.waited(reason))
    }

    /// Waits until the process ends by itself, as at a fail point, and tells how.
    pub async fn wait_exit(&self, time: Duration) -> Result<ExitStatus, ProcessError> {
        let waited = until(time, "the process to end", || async {
            self.ended()
                .and_then(|status| status.ok_or_else(|| "it runs".to_owned()))
        })
        .await;
        waited.map_err(|reason| self.waited(reason))
    }

    /// Ends the process with SIGKILL. Does nothing when none runs.
    pub fn kill(&self) -> Result<(), ProcessError> {
        let Some(Running { leash, mut child }) = self.process.lock().take() else {
            return Ok(());
        };
        drop(leash);
        child
            .kill()
            .and_then(|()| child.wait())
            .map_err(io_error("killing the bridge"))?;
        Ok(())
    }

    /// Asks the process to stop (SIGTERM), waits for it, and wants exit code 0.
    pub async fn stop(&self) -> Result<(), ProcessError> {
        self.signal(Signal::TERM)?;
        let status = self.wait_exit(STOP_TIMEOUT).await?;
        *self.process.lock() = None;
        if status.success() {
            return Ok(());
        }
        Err(ProcessError::BadExit {
            node: self.options.node.clone(),
            status,
            log: self.log_tail(),
        })
    }

    /// Freezes the process (SIGSTOP).
    pub fn pause(&self) -> Result<(), ProcessError> {
        self.signal(Signal::STOP)
    }

    /// Lets a frozen process go on (SIGCONT).
    pub fn resume(&self) -> Result<(), ProcessError> {
        self.signal(Signal::CONT)
    }

    /// Sets a limit of this life, `RLIMIT_AS` in bytes for instance; `None` takes it away as far as the system allows.
    pub fn limit(&self, what: Resource, most: Option<u64>) -> Result<Rlimit, ProcessError> {
        let failed = io_error("limiting the bridge");
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else {
            return Err(failed(io::ErrorKind::NotFound.into()));
        };
        let now = rustix::process::getrlimit(what);
        let new = Rlimit {
            current: most.or(now.maximum),
            maximum: now.maximum,
        };
        prlimit(Some(pid), what, new).map_err(|error| failed(error.into()))
    }

    /// The most memory that was ever resident in this life, bytes.
    pub fn peak_resident_bytes(&self) -> Result<u64, ProcessError> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))
            .map_err(io_error("reading the bridge's memory"))?;
        let peak = status.lines().find_map(|line| {
            line.strip_prefix("VmHWM:")?
                .trim()
                .strip_suffix(" kB")?
                .trim()
                .parse::<u64>()
                .ok()
        });
        peak.map(|kib| kib * 1024)
            .ok_or_else(|| io_error("reading the bridge's memory")(io::ErrorKind::InvalidData.into()))
    }

    /// Files that are open in this life.
    pub fn open_files(&self) -> Result<usize, ProcessError> {
        let files = fs::read_dir(format!("/proc/{}/fd", self.pid));
        Ok(files.map_err(io_error("counting the bridge's files"))?.count())
    }

    /// Kills the process if it runs and starts the next life on the same data directory and socket.
    pub fn respawn(&mut self) -> Result<(), ProcessError> {
        self.kill()?;
        self.launch()
    }

    /// [`Self::respawn`], then [`Self::wait_joined`].
    pub async fn restart(&mut self) -> Result<(), ProcessError> {
        self.respawn()?;
        self.wait_joined().await?;
        Ok(())
    }

    /// # Panics
    /// When the log holds an error line that the options do not allow. Dropping the value checks the same.
    #[track_caller]
    pub fn assert_no_errors(&self) {
        let log = self.log();
        let bad: String = logs::unexpected(&log, &self.options.allowed_errors)
            .iter()
            .take(LOG_TAIL_LINES)
            .map(|line| format!("  {line}\n"))
            .collect();
        assert!(
            bad.is_empty(),
            "unexpected errors in the log of {}:\n{bad}",
            self.options.node
        );
    }

    fn home(&self) -> &Path {
        self.home.as_ref().map_or_else(|| Path::new(""), TempDir::path)
    }

    fn waited(&self, reason: String) -> ProcessError {
        ProcessError::Waited {
            node: self.options.node.clone(),
            reason,
            log: self.log_tail(),
        }
    }

    /// How the process ended, if it did.
    fn ended(&self) -> Result<Option<ExitStatus>, String> {
        match &mut *self.process.lock() {
            Some(running) => running.child.try_wait().map_err(|error| error.to_string()),
            None => Err("no process was started".to_owned()),
        }
    }

    fn signal(&self, what: Signal) -> Result<(), ProcessError> {
        let failed = io_error("signalling the bridge");
        let process = self.process.lock();
        let pid = process
            .as_ref()
            .and_then(|running| i32::try_from(running.child.id()).ok())
            .and_then(Pid::from_raw);
        let Some(pid) = pid else {
            return Err(failed(io::ErrorKind::NotFound.into()));
        };
        kill_process(pid, what).map_err(|error| failed(error.into()))
    }

    fn launch(&mut self) -> Result<(), ProcessError> {
        let binary = binary_path().map_err(io_error("finding the fanin binary"))?;
        if !binary.is_file() {
            return Err(ProcessError::NoBinary { path: binary });
        }
        let mut config = json!({
            "data_dir": self.data_dir(),
            "listen": self.socket(),
            "admin": "127.0.0.1:0",
            "log": { "format": "json" },
        });
        merge(&mut config, &self.options.config);
        fs::write(self.config_path(), format!("{config:#}\n"))
            .map_err(io_error("writing the configuration"))?;
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path());
        let log = log.map_err(io_error("opening the log"))?;
        let log_too = log.try_clone().map_err(io_error("opening the log"))?;
        let mut child = Command::new(binary)
            .arg("run")
            .arg("--config")
            .arg(self.config_path())
            .args(&self.options.args)
            .env_remove("FANIN_FAILPOINTS")
            .envs(&self.options.env)
            .stdin(Stdio::null())
            .stdout(log_too)
            .stderr(log)
            .process_group(0)
            .spawn()
            .map_err(io_error("starting the bridge"))?;
        self.pid = child.id();
        match Leash::tie(child.id()) {
            Ok(leash) => *self.process.lock() = Some(Running { leash, child }),
            Err(source) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(ProcessError::Io {
                    what: "watching over the bridge",
                    source,
                });
            }
        }
        Ok(())
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let killed = self.kill();
        if std::thread::panicking() {
            let home = self.home.take().map(TempDir::keep);
            eprintln!("--- {} kept in {home:?}; killed: {killed:?}", self.options.node);
            // `home` is gone from the value, so the tail is read from where it was kept.
            if let Some(home) = home {
                let text = fs::read_to_string(home.join("log")).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                let tail = lines
                    .get(lines.len().saturating_sub(LOG_TAIL_LINES)..)
                    .unwrap_or_default();
                eprintln!("{}", tail.join("\n"));
            }
        } else {
            self.assert_no_errors();
        }
    }
}

/// `FANIN_BIN`, else `fanin` beside the directory of the running test binary: `target/<profile>/fanin`.
pub fn binary_path() -> io::Result<PathBuf> {
    if let Some(path) = std::env::var_os("FANIN_BIN").filter(|path| !path.is_empty()) {
        return Ok(PathBuf::from(path));
    }
    let exe = std::env::current_exe()?;
    let mut dir = exe.parent().unwrap_or(Path::new("."));
    if dir.ends_with("deps") {
        dir = dir.parent().unwrap_or(dir);
    }
    Ok(dir.join("fanin"))
}

/// A temporary directory whose path leaves room for a socket's name.
fn short_temp_dir() -> io::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix("fanin-");
    let dir = builder.tempdir()?;
    if dir.path().as_os_str().len() + "/s".len() <= SOCKET_PATH_BYTES_MAX {
        return Ok(dir);
    }
    builder.tempdir_in("/tmp")
}

fn merge(base: &mut Value, patch: &Value) {
    match (base, patch) {
        (Value::Object(base), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(base.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (base, patch) => *base = patch.clone(),
    }
}

fn io_error(what: &'static str) -> impl FnOnce(io::Error) -> ProcessError {
    move |source| ProcessError::Io { what, source }
}

#[cfg(test)]
#[path = "process_tests.rs"]
mod tests;
