//! The processes of a benchmark: none outlives it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::time::Duration;

use fanin_localhub::Leash;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::ChildStdout;

use super::error::BenchError;
use super::limits::{LOG_TAIL_BYTES, READY_TIMEOUT};
use super::tally::Done;

/// What an application writes when it is connected.
pub(super) const READY: &str = "ready";
/// What makes an application begin.
const GO: &[u8] = b"go\n";

/// A running process, killed when dropped and when this process dies.
#[derive(Debug)]
pub(super) struct Child {
    name: String,
    log: PathBuf,
    child: std::process::Child,
    leash: Option<Leash>,
}

impl Child {
    /// Starts it in a process group of its own, out of reach of a terminal's Ctrl-C, its errors (and its output,
    /// unless that is piped) appended to a file in `dir`.
    fn spawn(name: &str, dir: &Path, mut command: Command, piped: bool) -> Result<Self, BenchError> {
        let log = dir.join(format!("{name}.log"));
        let file = OpenOptions::new().create(true).append(true).open(&log);
        let file = file.map_err(BenchError::io("creating a log"))?;
        if piped {
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
        } else {
            let file = file.try_clone().map_err(BenchError::io("creating a log"))?;
            command.stdin(Stdio::null()).stdout(file);
        }
        let child = command.stderr(file).process_group(0).spawn();
        let child = child.map_err(BenchError::io("starting a process"))?;
        let mut started = Self {
            name: name.to_owned(),
            log,
            child,
            leash: None,
        };
        let leash = Leash::tie(started.pid()).map_err(BenchError::io("watching over a process"))?;
        started.leash = Some(leash);
        Ok(started)
    }

    /// Starts a process that only logs.
    pub(super) fn logged(name: &str, dir: &Path, command: Command) -> Result<Self, BenchError> {
        Self::spawn(name, dir, command, false)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An error if it has ended.
    pub(super) fn check(&mut self) -> Result<(), BenchError> {
        match self
            .child
            .try_wait()
            .map_err(BenchError::io("watching a process"))?
        {
            None => Ok(()),
            Some(_) => Err(self.ended()),
        }
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<(), BenchError> {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        let sent = pid.map_or(Err(rustix::io::Errno::SRCH), |pid| kill_process(pid, signal));
        sent.map_err(|errno| BenchError::Io {
            what: "sending a signal",
            source: errno.into(),
        })
    }

    fn ended(&self) -> BenchError {
        BenchError::Ended {
            name: self.name.clone(),
            log: log_tail(&self.log),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // The leash lets go before the process is reaped: its id may belong to another one afterwards.
        drop(self.leash.take());
        // An error means that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The process of one application: it says when it is connected, begins at a word, and says when it is done.
#[derive(Debug)]
pub(super) struct App {
    child: Child,
    words: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl App {
    /// Starts it.
    pub(super) fn start(name: &str, dir: &Path, command: Command) -> Result<Self, BenchError> {
        let mut child = Child::spawn(name, dir, command, true)?;
        let missing = || BenchError::io("talking to a process")(io::ErrorKind::BrokenPipe.into());
        let words = child.child.stdin.take().ok_or_else(missing)?;
        let stdout = child.child.stdout.take().ok_or_else(missing)?;
        let stdout = ChildStdout::from_std(stdout).map_err(BenchError::io("talking to a process"))?;
        Ok(Self {
            child,
            words,
            lines: BufReader::new(stdout).lines(),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.child.name
    }

    pub(super) fn child(&self) -> &Child {
        &self.child
    }

    /// Waits until it is connected.
    pub(super) async fn ready(&mut self) -> Result<(), BenchError> {
        loop {
            if self.line(READY_TIMEOUT, "connecting").await? == READY {
                return Ok(());
            }
        }
    }

    /// Lets it begin.
    pub(super) fn go(&mut self) -> Result<(), BenchError> {
        let written = self.words.write_all(GO).and_then(|()| self.words.flush());
        written.map_err(BenchError::io("talking to a process"))
    }

    /// Waits until it has acknowledged everything.
    pub(super) async fn done(&mut self, limit: Duration) -> Result<Done, BenchError> {
        loop {
            let line = self.line(limit, "receiving everything").await?;
            if let Ok(done) = serde_json::from_str(&line) {
                return Ok(done);
            }
        }
    }

    async fn line(&mut self, limit: Duration, what: &str) -> Result<String, BenchError> {
        match tokio::time::timeout(limit, self.lines.next_line()).await {
            Ok(Ok(Some(line))) => Ok(line),
            Ok(Ok(None)) => Err(self.child.ended()),
            Ok(Err(source)) => Err(BenchError::Io {
                what: "talking to a process",
                source,
            }),
            Err(_) => Err(BenchError::Late {
                what: format!("{}, {what},", self.child.name),
                seconds: limit.as_secs(),
                hint: format!("its log ends with:\n{}", log_tail(&self.child.log)),
            }),
        }
    }
}

/// The other end: what a process of an application hears from the benchmark.
#[derive(Debug)]
pub(super) struct Words(tokio::sync::mpsc::Receiver<()>);

impl Words {
    /// Starts to listen on the standard input.
    pub(super) fn listen() -> Self {
        let (heard, words) = tokio::sync::mpsc::channel(1);
        // A thread of its own: a read of the runtime's would hold up the end of the process.
        std::thread::spawn(move || {
            let mut lines = io::stdin().lines();
            while let Some(Ok(_)) = lines.next() {
                if heard.blocking_send(()).is_err() {
                    return;
                }
            }
        });
        Self(words)
    }

    /// Waits for the word to begin. False when the benchmark has ended instead.
    pub(super) async fn go(&mut self) -> bool {
        self.0.recv().await.is_some()
    }

    /// Waits for the end of the benchmark.
    pub(super) async fn end(&mut self) {
        while self.0.recv().await.is_some() {}
    }
}

/// Tells the benchmark something. When nobody listens the process is about to be killed anyway.
pub(super) fn tell(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn log_tail(log: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_else(|error| format!("(log unreadable: {error})"))
}

#[cfg(test)]
mod tests {
    // Goal: words go both ways, an early end is told with its log, and nothing is left behind. Method: shells.
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn words_go_both_ways() {
        let dir = tempfile::tempdir().unwrap();
        let script = r#"echo noise; echo ready; read -r word; [ "$word" = go ] && echo '{"received":3,"distinct":2,"first_us":1}'; read -r word"#;
        let mut app = App::start("app", dir.path(), shell(script)).unwrap();
        app.ready().await.unwrap();
        app.go().unwrap();
        let done = app.done(Duration::from_secs(20)).await.unwrap();
        assert_eq!((done.received, done.distinct), (3, 2));
        let pid = app.child().pid();
        drop(app);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[tokio::test]
    async fn an_early_end_shows_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let mut app = App::start("app", dir.path(), shell("echo broken >&2; exit 1")).unwrap();
        let error = app.ready().await.unwrap_err();
        assert!(
            error.to_string().contains("app ended early") && error.to_string().contains("broken"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn waiting_has_an_end() {
        let dir = tempfile::tempdir().unwrap();
        let mut app = App::start("app", dir.path(), shell("read -r word")).unwrap();
        let error = app.done(Duration::ZERO).await.unwrap_err();
        assert!(matches!(error, BenchError::Late { .. }), "{error}");
    }
}
