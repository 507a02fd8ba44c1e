//! The parent's side of a process of [`crate::roles`]: started, killed, frozen, started again, asked to end.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use fanin_localhub::Leash;
use fanin_tests::wait::until;
use rustix::process::{Pid, Signal, kill_process};

use crate::error::{RunError, during};
use crate::limits::STOP_TIMEOUT;

/// One process. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Role {
    name: String,
    args: Vec<String>,
    log: PathBuf,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    // Fields drop in this order: the leash lets go before the process can be reaped.
    leash: Leash,
    child: Child,
}

impl Role {
    /// Starts this program with `args`; what it prints goes to `log`.
    pub(crate) fn start(name: &str, args: Vec<String>, log: PathBuf) -> Result<Self, RunError> {
        let mut role = Self {
            name: name.to_owned(),
            args,
            log,
            running: None,
        };
        role.launch()?;
        Ok(role)
    }

    fn launch(&mut self) -> Result<(), RunError> {
        let spawn = || -> io::Result<Running> {
            let log = File::options().create(true).append(true).open(&self.log)?;
            let mut child = Command::new(own_binary()?)
                .args(&self.args)
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(log)
                .process_group(0)
                .spawn()?;
            match Leash::tie(child.id()) {
                Ok(leash) => Ok(Running { leash, child }),
                Err(error) => {
                    child.kill()?;
                    child.wait()?;
                    Err(error)
                }
            }
        };
        self.running = Some(spawn().map_err(during(format!("starting {}", self.name)))?);
        Ok(())
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// SIGKILL; nothing when it is gone already.
    pub(crate) fn kill(&mut self) -> Result<(), RunError> {
        let Some(Running { leash, mut child }) = self.running.take() else {
            return Ok(());
        };
        drop(leash);
        let killed = child.kill().and_then(|()| child.wait());
        killed.map_err(during(format!("killing {}", self.name)))?;
        Ok(())
    }

    /// Another life.
    pub(crate) fn restart(&mut self) -> Result<(), RunError> {
        self.kill()?;
        self.launch()
    }

    pub(crate) fn signal(&self, what: Signal) -> Result<(), RunError> {
        let running = self.running.as_ref();
        let pid = running.and_then(|running| Pid::from_raw(i32::try_from(running.child.id()).ok()?));
        match pid {
            Some(pid) => kill_process(pid, what).map_err(during(format!("signalling {}", self.name))),
            None => Err(RunError(format!("{} does not run", self.name))),
        }
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>, RunError> {
        match &mut self.running {
            Some(running) => running
                .child
                .try_wait()
                .map_err(during(format!("watching {}", self.name))),
            None => Ok(None),
        }
    }

    /// Ends its input and waits for a good end.
    pub(crate) async fn stop(&mut self) -> Result<(), RunError> {
        let Some(running) = &mut self.running else {
            return Ok(());
        };
        drop(running.child.stdin.take());
        let what = format!("{} to end", self.name);
        let child = parking(&mut running.child);
        let ended = until(STOP_TIMEOUT, &what, || async {
            child
                .borrow_mut()
                .try_wait()
                .map_err(|error| error.to_string())
                .and_then(|status| status.ok_or_else(|| "it runs".to_owned()))
        });
        let status = ended.await.map_err(RunError)?;
        self.running = None;
        if status.success() {
            return Ok(());
        }
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        Err(RunError(format!("{} ended with {status}: {log}", self.name)))
    }
}

/// This program, also when its file was built anew meanwhile.
fn own_binary() -> io::Result<PathBuf> {
    let own = PathBuf::from("/proc/self/exe");
    if own.exists() {
        Ok(own)
    } else {
        std::env::current_exe()
    }
}

/// The condition asks again and again, each time through a shared reference.
fn parking(child: &mut Child) -> std::cell::RefCell<&mut Child> {
    std::cell::RefCell::new(child)
}

impl Drop for Role {
    fn drop(&mut self) {
        // An error means that it is gone already.
        let _ = self.kill();
    }
}
