//! A child process that never outlives this one.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use fanin_localhub::Leash;
use rustix::process::{Pid, Signal, kill_process};

/// Time between two looks at whether a process has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// What ends the child when this process is killed and cannot clean up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tie {
    /// A watcher kills it: for programs that know nothing of this one.
    Leash,
    /// The child ends by itself when its standard input does: for our own subcommands.
    Stdin,
}

/// A running child, killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    leash: Option<Leash>,
}

impl Process {
    /// Starts `command` in a process group of its own, out of reach of a terminal's Ctrl-C, its output appended to
    /// the file `log`.
    pub(crate) fn spawn(mut command: Command, log: &Path, tie: Tie) -> io::Result<Self> {
        let log = OpenOptions::new().create(true).append(true).open(log)?;
        let stdin = match tie {
            Tie::Leash => Stdio::null(),
            Tie::Stdin => Stdio::piped(),
        };
        command
            .stdin(stdin)
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        let mut process = Self {
            child: command.spawn()?,
            leash: None,
        };
        if tie == Tie::Leash {
            process.leash = Some(Leash::tie(process.pid())?);
        }
        Ok(process)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok(kill_process(pid, signal)?)
    }

    /// Asks it to end (SIGTERM) and waits; `None` when it had to be killed.
    pub(crate) async fn stop(mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        // Something frozen hears nothing.
        self.signal(Signal::CONT)?;
        self.signal(Signal::TERM)?;
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if let Some(status) = self.ended()? {
                return Ok(Some(status));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Ok(None)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The leash must let go before the process is reaped, as its id may belong to another one afterwards.
        drop(self.leash.take());
        // An error means that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    // Goal: nothing is left behind. Method: processes that would run for minutes, in each state.
    use super::*;

    fn sleeper(dir: &Path, tie: Tie) -> Process {
        let mut command = Command::new("sleep");
        command.arg("600");
        Process::spawn(command, &dir.join("log"), tie).unwrap()
    }

    fn is_there(pid: u32) -> bool {
        Path::new(&format!("/proc/{pid}")).exists()
    }

    #[test]
    fn a_dropped_process_is_gone_even_when_frozen() {
        let dir = tempfile::tempdir().unwrap();
        for tie in [Tie::Leash, Tie::Stdin] {
            let process = sleeper(dir.path(), tie);
            let pid = process.pid();
            process.signal(Signal::STOP).unwrap();
            assert!(is_there(pid));
            drop(process);
            assert!(!is_there(pid));
        }
    }

    #[tokio::test]
    async fn stop_waits_for_a_good_end_and_kills_what_does_not_end() {
        let dir = tempfile::tempdir().unwrap();
        let ended = sleeper(dir.path(), Tie::Leash)
            .stop(Duration::from_secs(20))
            .await
            .unwrap();
        assert!(ended.is_some());

        let mut command = Command::new("/bin/sh");
        command.args(["-c", "trap '' TERM; echo deaf; while :; do sleep 600; done"]);
        let deaf = Process::spawn(command, &dir.path().join("deaf"), Tie::Stdin).unwrap();
        while std::fs::read_to_string(dir.path().join("deaf"))
            .unwrap()
            .is_empty()
        {
            tokio::task::yield_now().await;
        }
        let pid = deaf.pid();
        assert!(deaf.stop(Duration::from_millis(50)).await.unwrap().is_none());
        assert!(!is_there(pid));
    }

    #[test]
    fn output_goes_to_the_log_and_an_end_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo out; echo err >&2; exit 3"]);
        let mut process = Process::spawn(command, &log, Tie::Stdin).unwrap();
        let status = loop {
            if let Some(status) = process.ended().unwrap() {
                break status;
            }
        };
        assert_eq!(status.code(), Some(3));
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "out\nerr\n");
    }
}
