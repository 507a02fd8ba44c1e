//! Ends a child process when this process dies, however it dies.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// Kills a process (SIGKILL) as soon as this process is gone, even if it was killed itself and could not clean up.
///
/// A shell waits at the other end of a pipe that only this process holds; the pipe ends with the process. Dropping
/// the leash lets go of the process *without* killing it: drop it before the process is reaped, as its id may belong
/// to another one afterwards.
#[derive(Debug)]
pub struct Leash {
    watcher: Child,
}

impl Leash {
    /// Ties process `pid`, a child of this process, to the life of this process.
    pub fn tie(pid: u32) -> io::Result<Self> {
        let watcher = Command::new("/bin/sh")
            .args([
                "-c",
                "read -r line; kill -KILL \"$1\" 2>/dev/null",
                "sh",
                &pid.to_string(),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Out of reach of a terminal's Ctrl-C, which would end the watcher first.
            .process_group(0)
            .spawn()?;
        Ok(Self { watcher })
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        // The watcher must be gone before its pipe ends. Errors mean that it is gone already.
        let _ = self.watcher.kill();
        let _ = self.watcher.wait();
    }
}

#[cfg(test)]
mod tests {
    // Goal: the process dies with its holder, and lives on when let go. Method: the holder's death is played by closing
    // the pipe, which is all that a death does to it.
    use super::*;

    fn sleeper() -> Child {
        Command::new("sleep").arg("600").spawn().unwrap()
    }

    #[test]
    fn the_process_dies_when_the_pipe_ends() {
        let mut child = sleeper();
        let mut leash = Leash::tie(child.id()).unwrap();
        drop(leash.watcher.stdin.take());
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn the_process_lives_on_when_let_go() {
        let mut child = sleeper();
        drop(Leash::tie(child.id()).unwrap());
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
