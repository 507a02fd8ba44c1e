//! Running the binary.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::time::timeout;

/// Longest wait for anything: far above what a loaded machine needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A command that has ended.
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Run {
    /// Its output as one JSON document.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }

    /// The error that `--json` put on standard error.
    pub(crate) fn error(&self) -> Value {
        let value: Value =
            serde_json::from_str(&self.err).unwrap_or_else(|error| panic!("{error}: {}", self.err));
        value["error"].clone()
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Run {
        Run {
            code: output.status.code().expect("exits"),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// The binary in an environment in which nothing of the machine's own is found.
pub(crate) fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fanin"));
    command
        .args(args)
        .env_clear()
        .env("HOME", dir)
        .env("HOSTNAME", "test-node")
        .current_dir(dir);
    command
}

/// Runs a command to its end.
pub(crate) fn fanin(dir: &Path, args: &[&str]) -> Run {
    command(dir, args).output().unwrap().into()
}

pub(crate) fn dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// A command that runs on; it is killed with the value.
pub(crate) struct Running(tokio::process::Child);

impl Running {
    pub(crate) fn start(command: Command) -> Running {
        let mut command = tokio::process::Command::from(command);
        Running(command.kill_on_drop(true).spawn().unwrap())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.0.id().expect("runs")).unwrap();
        kill_process(Pid::from_raw(id).unwrap(), signal).unwrap();
    }

    /// Ends it with SIGKILL.
    pub(crate) async fn kill(mut self) {
        self.0.kill().await.unwrap();
    }

    pub(crate) fn stdin(&mut self) -> tokio::process::ChildStdin {
        self.0.stdin.take().expect("piped")
    }

    pub(crate) fn stdout(&mut self) -> tokio::process::ChildStdout {
        self.0.stdout.take().expect("piped")
    }

    pub(crate) async fn end(mut self) -> i32 {
        timeout(PATIENCE, self.0.wait())
            .await
            .expect("ends")
            .unwrap()
            .code()
            .expect("exits")
    }
}
