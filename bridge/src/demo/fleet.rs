//! All processes of the demo: bridges, and instances of applications. Started, killed, frozen and started again.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::faults::Blow;
use super::limits::{LOG_TAIL_BYTES, STOP_TIMEOUT};
use super::node_config::{NodeConfig, socket_uri};
use super::process::{Process, Tie};
use super::verdict::Faults;

/// How long a process that ended by itself stays down.
const EXIT_PAUSE: Duration = Duration::from_secs(1);
/// How often processes may end by themselves before the run is given up.
const EXITS_MAX: u64 = 8;

/// Why processes cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FleetError {
    /// A file or process failed.
    #[error("{what} failed")]
    Io {
        /// The action.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Processes end again and again.
    #[error("{name} ended by itself ({status}); its log ends with:\n{log}")]
    Ends {
        /// The process.
        name: String,
        /// How it ended.
        status: String,
        /// The end of its log.
        log: String,
    },
}

/// What a process does at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    Up,
    /// Frozen until then.
    Frozen(Instant),
    /// Started again then.
    Down(Instant),
}

#[derive(Debug)]
struct Slot {
    name: String,
    log: PathBuf,
    tie: Tie,
    start: Start,
    lives: u32,
    process: Option<Process>,
    condition: Condition,
}

#[derive(Debug)]
enum Start {
    Bridge {
        config: PathBuf,
    },
    Instance {
        socket: PathBuf,
        topic: String,
        app: String,
        instance: String,
        records: PathBuf,
        node: String,
    },
}

/// The processes of one run; all are killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Fleet {
    program: PathBuf,
    // Instances first: they go before the bridges when all is dropped.
    instances: Vec<Slot>,
    bridges: Vec<Slot>,
    pub(crate) faults: Faults,
}

impl Fleet {
    /// Writes the configurations and starts the bridges. `root` gets everything they write.
    pub(crate) fn start(program: PathBuf, root: &Path, nodes: &[NodeConfig]) -> Result<Self, FleetError> {
        let mut fleet = Self {
            program,
            instances: Vec::new(),
            bridges: Vec::new(),
            faults: Faults::default(),
        };
        for node in nodes {
            let dir = root.join("nodes").join(&node.node);
            std::fs::create_dir_all(&dir).map_err(io_error("creating a node's directory"))?;
            let config = dir.join("fanin.yaml");
            std::fs::write(&config, node.render()).map_err(io_error("writing a node's configuration"))?;
            let slot = Slot {
                name: node.node.clone(),
                log: dir.join("bridge.log"),
                tie: Tie::Leash,
                start: Start::Bridge { config },
                lives: 0,
                process: None,
                condition: Condition::Up,
            };
            fleet.bridges.push(slot);
        }
        for bridge in &mut fleet.bridges {
            bridge.launch(&fleet.program)?;
        }
        Ok(fleet)
    }

    /// Starts `each` instances of every application on every node, their records going to `records`.
    pub(crate) fn start_instances(
        &mut self,
        root: &Path,
        records: &Path,
        nodes: &[NodeConfig],
        each: usize,
    ) -> Result<(), FleetError> {
        let logs = root.join("instances");
        std::fs::create_dir_all(&logs).map_err(io_error("creating the directory of the instances' logs"))?;
        for node in nodes {
            for app in &node.apps {
                for number in 1..=each {
                    let instance = format!("{app}-{number}");
                    let mut slot = Slot {
                        name: format!("{}/{instance}", node.node),
                        log: logs.join(format!("{}.{instance}.log", node.node)),
                        tie: Tie::Stdin,
                        start: Start::Instance {
                            socket: node.socket.clone(),
                            topic: node.mapping.clone(),
                            app: app.clone(),
                            instance,
                            records: records.to_owned(),
                            node: node.node.clone(),
                        },
                        lives: 0,
                        process: None,
                        condition: Condition::Up,
                    };
                    slot.launch(&self.program)?;
                    self.instances.push(slot);
                }
            }
        }
        Ok(())
    }

    /// Deals a blow. `None` when its process is not up, so that it must wait; otherwise what to tell about it.
    pub(crate) fn strike(&mut self, blow: Blow, now: Instant) -> Result<Option<String>, FleetError> {
        let (slot, time) = match blow {
            Blow::KillBridge { node, down } => (self.bridges.get_mut(node), down),
            Blow::PauseBridge { node, frozen } => (self.bridges.get_mut(node), frozen),
            Blow::KillInstance { instance, down } => (self.instances.get_mut(instance), down),
        };
        let Some(slot) = slot.filter(|slot| slot.condition == Condition::Up) else {
            return Ok(None);
        };
        let seconds = time.as_secs_f64();
        let text = match blow {
            Blow::PauseBridge { .. } => {
                if let Some(process) = &slot.process {
                    process
                        .signal(Signal::STOP)
                        .map_err(io_error("freezing a bridge"))?;
                }
                slot.condition = Condition::Frozen(now + time);
                self.faults.bridge_pauses += 1;
                format!("SIGSTOP bridge   {} for {seconds:.1} s", slot.name)
            }
            Blow::KillBridge { .. } | Blow::KillInstance { .. } => {
                slot.process = None;
                slot.condition = Condition::Down(now + time);
                if matches!(blow, Blow::KillBridge { .. }) {
                    self.faults.bridge_kills += 1;
                    format!("SIGKILL bridge   {}, back in {seconds:.1} s", slot.name)
                } else {
                    self.faults.instance_kills += 1;
                    format!("SIGKILL instance {}, back in {seconds:.1} s", slot.name)
                }
            }
        };
        Ok(Some(text))
    }

    /// Starts what is due, wakes what is due, and notices what ended by itself. Returns what to tell.
    pub(crate) fn tick(&mut self, now: Instant) -> Result<Vec<String>, FleetError> {
        let mut told = Vec::new();
        for slot in self.bridges.iter_mut().chain(&mut self.instances) {
            match slot.condition {
                Condition::Down(until) if until <= now => {
                    slot.launch(&self.program)?;
                    told.push(format!("started {} again", slot.name));
                }
                Condition::Frozen(until) if until <= now => {
                    if let Some(process) = &slot.process {
                        process
                            .signal(Signal::CONT)
                            .map_err(io_error("waking a bridge"))?;
                    }
                    slot.condition = Condition::Up;
                    told.push(format!("SIGCONT bridge   {}", slot.name));
                }
                Condition::Down(_) | Condition::Frozen(_) => {}
                Condition::Up => {
                    let Some(process) = &mut slot.process else {
                        continue;
                    };
                    let ended = process.ended().map_err(io_error("watching a process"))?;
                    let Some(status) = ended else { continue };
                    slot.process = None;
                    slot.condition = Condition::Down(now + EXIT_PAUSE);
                    self.faults.unexpected_exits += 1;
                    told.push(format!("{} ended by itself: {status}", slot.name));
                    if self.faults.unexpected_exits >= EXITS_MAX {
                        let name = slot.name.clone();
                        let log = log_tail(&slot.log);
                        return Err(FleetError::Ends {
                            name,
                            status: status.to_string(),
                            log,
                        });
                    }
                }
            }
        }
        Ok(told)
    }

    /// The first process that ended by itself, as an error: while nothing is killed on purpose, none may.
    pub(crate) fn all_up(&mut self) -> Result<(), FleetError> {
        for slot in self.bridges.iter_mut().chain(&mut self.instances) {
            let Some(process) = &mut slot.process else {
                continue;
            };
            if let Some(status) = process.ended().map_err(io_error("watching a process"))? {
                let name = slot.name.clone();
                return Err(FleetError::Ends {
                    name,
                    status: status.to_string(),
                    log: log_tail(&slot.log),
                });
            }
        }
        Ok(())
    }

    /// Whether every process runs and none is frozen.
    pub(crate) fn is_whole(&self) -> bool {
        self.bridges
            .iter()
            .chain(&self.instances)
            .all(|slot| slot.condition == Condition::Up)
    }

    pub(crate) fn bridge_condition(&self, node: usize) -> Option<Condition> {
        self.bridges.get(node).map(|slot| slot.condition)
    }

    /// Ends the instances, then the bridges with SIGTERM. Returns those that did not end well.
    pub(crate) async fn stop(&mut self) -> Vec<String> {
        self.instances.clear();
        let stops = self.bridges.drain(..).filter_map(|mut slot| {
            let process = slot.process.take()?;
            Some(async move {
                match process.stop(STOP_TIMEOUT).await {
                    Ok(Some(status)) if status.success() => None,
                    Ok(Some(status)) => Some(format!("{} ended with {status} on SIGTERM", slot.name)),
                    Ok(None) => Some(format!(
                        "{} did not end within {STOP_TIMEOUT:?} of SIGTERM",
                        slot.name
                    )),
                    Err(error) => Some(format!("{} could not be stopped: {error}", slot.name)),
                }
            })
        });
        futures_util::future::join_all(stops)
            .await
            .into_iter()
            .flatten()
            .collect()
    }
}

impl Slot {
    fn launch(&mut self, program: &Path) -> Result<(), FleetError> {
        self.lives += 1;
        let mut command = Command::new(program);
        match &self.start {
            Start::Bridge { config } => {
                command.arg("run").arg("--config").arg(config);
            }
            Start::Instance {
                socket,
                topic,
                app,
                instance,
                records,
                node,
            } => {
                let records = records.join(format!("{node}.{instance}.{}.tsv", self.lives));
                command
                    .args([
                        "demo-app",
                        "--socket",
                        &socket_uri(socket),
                        "--topic",
                        topic,
                        "--app",
                        app,
                    ])
                    .args(["--instance", instance, "--records"])
                    .arg(records);
            }
        }
        let process = Process::spawn(command, &self.log, self.tie).map_err(io_error("starting a process"))?;
        self.process = Some(process);
        self.condition = Condition::Up;
        Ok(())
    }
}

/// The end of a log file, for error messages.
pub(crate) fn log_tail(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    let keep = usize::try_from(LOG_TAIL_BYTES).unwrap_or(0).min(bytes.len());
    String::from_utf8_lossy(bytes.get(bytes.len() - keep..).unwrap_or_default()).into_owned()
}

fn io_error(what: &'static str) -> impl FnOnce(io::Error) -> FleetError {
    move |source| FleetError::Io { what, source }
}

#[cfg(test)]
mod tests {
    // Goal: blows fall on the right process, and everything comes back or is gone. Method: a shell script that plays
    // the program and only waits; time is an argument.
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn node(name: &str, dir: &Path) -> NodeConfig {
        NodeConfig {
            node: name.to_owned(),
            hub_url: "nats://127.0.0.1:1".to_owned(),
            sync_always: true,
            requires_exactly_once: true,
            data_dir: dir.join("data"),
            socket: dir.join("s.sock"),
            quota_mib: None,
            mapping: "shop".to_owned(),
            stream: "SHOP".to_owned(),
            ack_wait: Duration::from_secs(1),
            nodes: 1,
            in_flight: 64,
            batch_messages: 64,
            intake_always: false,
            apps: vec!["billing".to_owned()],
            instance_in_flight: 8,
        }
    }

    fn fleet(dir: &Path, script: &str) -> Fleet {
        let program = dir.join("program");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let nodes = [node("node-1", dir), node("node-2", dir)];
        let mut fleet = Fleet::start(program, dir, &nodes).unwrap();
        fleet.start_instances(dir, dir, &nodes, 2).unwrap();
        fleet
    }

    fn pids(fleet: &Fleet) -> Vec<u32> {
        let slots = fleet.bridges.iter().chain(&fleet.instances);
        slots
            .filter_map(|slot| slot.process.as_ref().map(Process::pid))
            .collect()
    }

    #[test]
    fn blows_fall_and_everything_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut fleet = fleet(dir.path(), "exec sleep 600");
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let before = pids(&fleet);
        assert_eq!(before.len(), 6);

        let kill = Blow::KillBridge {
            node: 1,
            down: second,
        };
        assert!(fleet.strike(kill, now).unwrap().is_some());
        assert!(fleet.strike(kill, now).unwrap().is_none(), "it is down already");
        assert!(
            fleet
                .strike(
                    Blow::KillInstance {
                        instance: 3,
                        down: second
                    },
                    now
                )
                .unwrap()
                .is_some()
        );
        assert!(
            fleet
                .strike(
                    Blow::PauseBridge {
                        node: 0,
                        frozen: second
                    },
                    now
                )
                .unwrap()
                .is_some()
        );
        assert!(!fleet.is_whole());
        assert!(fleet.tick(now).unwrap().is_empty());
        assert_eq!(pids(&fleet).len(), 4);
        assert_eq!(fleet.tick(now + second).unwrap().len(), 3);
        assert!(fleet.is_whole());
        let after = pids(&fleet);
        assert_eq!(
            (
                after.len(),
                after.iter().filter(|pid| before.contains(pid)).count()
            ),
            (6, 4)
        );
        let expected = Faults {
            bridge_kills: 1,
            bridge_pauses: 1,
            instance_kills: 1,
            unexpected_exits: 0,
        };
        assert_eq!(fleet.faults, expected);

        drop(fleet);
        assert!(
            after
                .iter()
                .all(|pid| !Path::new(&format!("/proc/{pid}")).exists())
        );
    }

    #[test]
    fn an_end_by_itself_is_noticed_and_ends_the_run_when_it_repeats() {
        let dir = tempfile::tempdir().unwrap();
        let mut fleet = fleet(dir.path(), "echo broken; exit 3");
        while fleet.all_up().is_ok() {
            std::thread::yield_now();
        }
        let mut now = Instant::now();
        let error = loop {
            now += EXIT_PAUSE;
            match fleet.tick(now) {
                Ok(_) => std::thread::yield_now(),
                Err(error) => break error,
            }
        };
        assert!(
            matches!(&error, FleetError::Ends { log, .. } if log.contains("broken")),
            "{error}"
        );
        assert_eq!(fleet.faults.unexpected_exits, EXITS_MAX);
    }

    #[tokio::test]
    async fn stop_tells_who_did_not_end_well() {
        let dir = tempfile::tempdir().unwrap();
        let mut fleet = fleet(
            dir.path(),
            "trap 'exit 0' TERM; echo up; while :; do sleep 0.01; done",
        );
        let ready = |slot: &Slot| !log_tail(&slot.log).is_empty();
        while !fleet.bridges.iter().all(ready) {
            tokio::task::yield_now().await;
        }
        let pids = pids(&fleet);
        assert_eq!(fleet.stop().await, Vec::<String>::new());
        assert!(
            pids.iter()
                .all(|pid| !Path::new(&format!("/proc/{pid}")).exists())
        );
    }
}
