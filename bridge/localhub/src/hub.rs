//! A nats-server process, with JetStream, on the loopback interface.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

use crate::binary::ServerBinary;
use crate::hub_config::HubConfig;
use crate::leash::Leash;
use crate::limits::{
    GREETING_BYTES_MAX, GREETING_TIMEOUT, LOG_TAIL_BYTES, POLL_INTERVAL, PORT_ATTEMPTS_MAX, READY_TIMEOUT,
    STOP_TIMEOUT,
};
use crate::ports::free_port;

/// How to run a local hub.
#[derive(Clone, Debug)]
pub struct LocalHubOptions {
    /// The server.
    pub binary: ServerBinary,
    /// Directory of store, configuration and log; it stays. Default: a temporary one that goes with the hub.
    pub dir: Option<PathBuf>,
    /// Whether the server has JetStream. Default: yes.
    pub jetstream: bool,
    /// Whether JetStream syncs each write before it answers (`sync_interval: always`). Default: yes.
    pub sync_always: bool,
    /// Port for clients. Default: a free one.
    pub port: Option<u16>,
    /// Lines added to the configuration file as they are.
    pub extra_config: String,
    /// The server's name. Default: `local`.
    pub name: String,
}

impl LocalHubOptions {
    /// A hub on free ports with a temporary store that syncs always.
    pub fn new(binary: ServerBinary) -> Self {
        let name = "local".to_owned();
        Self {
            binary,
            dir: None,
            jetstream: true,
            sync_always: true,
            port: None,
            extra_config: String::new(),
            name,
        }
    }
}

/// Why a local hub did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A file or the process could not be made.
    #[error("{what} failed")]
    Io {
        /// The action.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The server ended at once.
    #[error("nats-server ended ({status}) before it was ready; its log ends with:\n{log}")]
    Exited {
        /// How it ended.
        status: ExitStatus,
        /// The end of its log.
        log: String,
    },
    /// The server runs, but does not answer, or its JetStream is not what the options say.
    #[error("nats-server was not ready within {} s; its log ends with:\n{log}", READY_TIMEOUT.as_secs())]
    NotReady {
        /// The end of its log.
        log: String,
    },
}

/// Why a local hub did not stop as asked.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// It was still there after SIGTERM and has been killed.
    #[error("nats-server did not stop within {} s of SIGTERM and was killed", STOP_TIMEOUT.as_secs())]
    Killed,
    /// The signal or the wait failed.
    #[error("nats-server could not be stopped")]
    Io(#[from] io::Error),
}

/// A running nats-server, killed when dropped and when this process dies.
#[derive(Debug)]
pub struct LocalHub {
    options: LocalHubOptions,
    dir: PathBuf,
    /// Removed with the hub.
    _temporary: Option<TempDir>,
    port: u16,
    monitor_port: u16,
    process: Option<Running>,
    pid: u32,
}

#[derive(Debug)]
struct Running {
    // Fields drop in this order: the leash lets go before the process can be reaped.
    leash: Leash,
    child: Child,
}

/// What a server says of itself when a client connects.
#[derive(Deserialize)]
struct Greeting {
    #[serde(default)]
    jetstream: bool,
}

impl LocalHub {
    /// Starts a server and returns once it answers, with JetStream enabled unless the options leave that out.
    pub async fn start(options: LocalHubOptions) -> Result<Self, StartError> {
        let (dir, temporary) = match &options.dir {
            Some(dir) => {
                fs::create_dir_all(dir).map_err(io_error("creating the hub's directory"))?;
                (dir.clone(), None)
            }
            None => {
                let made = tempfile::Builder::new().prefix("fanin-hub-").tempdir();
                let made = made.map_err(io_error("creating a temporary directory"))?;
                (made.path().to_path_buf(), Some(made))
            }
        };
        let mut hub = Self {
            options,
            dir,
            _temporary: temporary,
            port: 0,
            monitor_port: 0,
            process: None,
            pid: 0,
        };
        let mut attempt = 1;
        loop {
            hub.port = match hub.options.port {
                Some(port) => port,
                None => free_port().map_err(io_error("finding a free port"))?,
            };
            hub.monitor_port = free_port().map_err(io_error("finding a free port"))?;
            match hub.launch().await {
                // A port that was free a moment ago may have been taken since. The monitoring port is always ours to
                // choose, so trying again makes sense even with a given client port.
                Err(StartError::Exited { log, .. })
                    if log.contains("address already in use") && attempt < PORT_ATTEMPTS_MAX =>
                {
                    attempt += 1;
                }
                Err(error) => return Err(error),
                Ok(()) => return Ok(hub),
            }
        }
    }

    /// Where clients connect, `nats://127.0.0.1:PORT`. The same after a restart.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The client port of [`Self::url`].
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Base of the HTTP monitoring pages, `http://127.0.0.1:PORT`. The same after a restart.
    pub fn monitor_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.monitor_port)
    }

    /// Process id of the server that runs, or of the one that ran last.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether a server process is there (a paused one is).
    pub fn is_running(&mut self) -> bool {
        match &mut self.process {
            Some(running) => matches!(running.child.try_wait(), Ok(None)),
            None => false,
        }
    }

    /// Directory of store, configuration and log.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The JetStream store.
    pub fn store_dir(&self) -> PathBuf {
        self.dir.join("store")
    }

    /// The server's log, all lives in one file.
    pub fn log_path(&self) -> PathBuf {
        self.dir.join("nats-server.log")
    }

    /// The end of the log, for error messages.
    pub fn log_tail(&self) -> String {
        let read = || -> io::Result<String> {
            let mut file = fs::File::open(self.log_path())?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
            let mut bytes = Vec::new();
            file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().unwrap_or_else(|error| format!("(log unreadable: {error})"))
    }

    /// Ends the server with SIGKILL. What it wrote stays with the operating system, as after a crash of the process.
    /// Does nothing when no server runs.
    pub fn kill(&mut self) -> io::Result<()> {
        let Some(Running { leash, mut child }) = self.process.take() else {
            return Ok(());
        };
        drop(leash);
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Asks the server to stop (SIGTERM) and waits for it. Does nothing when no server runs.
    pub async fn stop(&mut self) -> Result<(), StopError> {
        let Some(running) = &mut self.process else {
            return Ok(());
        };
        signal(running.child.id(), Signal::TERM)?;
        let deadline = Instant::now() + STOP_TIMEOUT;
        while running.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                self.kill()?;
                return Err(StopError::Killed);
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        self.process = None;
        Ok(())
    }

    /// Kills the server if it runs and starts it again, on the same ports and the same store.
    pub async fn restart(&mut self) -> Result<(), StartError> {
        self.kill().map_err(io_error("killing nats-server"))?;
        self.launch().await
    }

    /// Freezes the server (SIGSTOP): connections stay open, nothing is answered.
    pub fn pause(&self) -> io::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets a paused server go on (SIGCONT).
    pub fn resume(&self) -> io::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, what: Signal) -> io::Result<()> {
        let running = self
            .process
            .as_ref()
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        signal(running.child.id(), what)
    }

    async fn launch(&mut self) -> Result<(), StartError> {
        let config = HubConfig {
            name: &self.options.name,
            port: self.port,
            monitor_port: self.monitor_port,
            store: self.options.jetstream.then(|| self.store_dir()),
            ports_dir: &self.dir,
            sync_always: self.options.sync_always,
            extra: &self.options.extra_config,
        };
        let config_path = self.dir.join("nats-server.conf");
        fs::write(&config_path, config.render()).map_err(io_error("writing nats-server's configuration"))?;
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path());
        let log = log.map_err(io_error("opening nats-server's log"))?;
        let mut child = Command::new(self.options.binary.path())
            .arg("--config")
            .arg(&config_path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // A terminal's Ctrl-C is for the program that runs the hub; that one decides when the hub goes.
            .process_group(0)
            .spawn()
            .map_err(io_error("starting nats-server"))?;
        self.pid = child.id();
        match Leash::tie(child.id()) {
            Ok(leash) => self.process = Some(Running { leash, child }),
            Err(source) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(StartError::Io {
                    what: "watching over nats-server",
                    source,
                });
            }
        }
        let ready = self.wait_ready().await;
        if ready.is_err() {
            self.kill().map_err(io_error("killing nats-server"))?;
        }
        ready
    }

    /// Waits for the file in which *this* server says that it listens, so that a stranger on the same port is never
    /// taken for it, then for its greeting.
    async fn wait_ready(&mut self) -> Result<(), StartError> {
        let server = self
            .options
            .binary
            .path()
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let ports_file = self.dir.join(format!("{server}_{}.ports", self.pid));
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            if let Some(running) = &mut self.process
                && let Some(status) = running
                    .child
                    .try_wait()
                    .map_err(io_error("watching nats-server"))?
            {
                self.process = None;
                return Err(StartError::Exited {
                    status,
                    log: self.log_tail(),
                });
            }
            if ports_file.exists() {
                let greeting = tokio::time::timeout(GREETING_TIMEOUT, greeting(self.port)).await;
                if matches!(greeting, Ok(Ok(Greeting { jetstream })) if jetstream == self.options.jetstream) {
                    // A killed server leaves its file behind, and process ids come round again.
                    fs::remove_file(&ports_file).map_err(io_error("removing the ports file"))?;
                    return Ok(());
                }
            }
            if Instant::now() > deadline {
                return Err(StartError::NotReady { log: self.log_tail() });
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

impl Drop for LocalHub {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            tracing::warn!(%error, pid = self.pid, "a local nats-server could not be killed");
        }
    }
}

async fn greeting(port: u16) -> io::Result<Greeting> {
    let stream = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let mut line = String::new();
    BufReader::new(stream.take(GREETING_BYTES_MAX as u64))
        .read_line(&mut line)
        .await?;
    let json = line
        .strip_prefix("INFO ")
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    Ok(serde_json::from_str(json)?)
}

fn signal(pid: u32, what: Signal) -> io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    Ok(kill_process(pid, what)?)
}

fn io_error(what: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError::Io { what, source }
}
