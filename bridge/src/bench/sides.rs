//! The measured phase of either side: everything is connected, then the clock and the pulling start at one signal, and
//! the clock stops when every application has acknowledged every message.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::bridge::{Bridge, Options, TOPIC};
use super::child::App;
use super::error::BenchError;
use super::limits::{BRIDGE_BATCH, PER_DELIVERY, PHASE_TIMEOUT};
use super::machine::Cpu;
use super::source::{Fill, STREAM, Source};
use super::tally::{Done, now_us};

/// Local log beside the payloads: segments are freed whole, and records have heads.
const QUOTA_SPARE: u64 = 2 << 30;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// One durable per application.
    Native,
    /// One bridge.
    Fanin,
}

/// Which run to measure.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) program: PathBuf,
    /// A new directory for this run; the hub's is in it as well.
    pub(super) dir: PathBuf,
    pub(super) fill: Fill,
    pub(super) apps: Vec<String>,
}

/// What one run of one side gave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Outcome {
    pub(super) deliveries: u64,
    /// From the signal to the last confirmed acknowledgement of the last application.
    pub(super) wall: Duration,
    /// From the signal to the first delivery to any application.
    pub(super) first: Duration,
    /// From the signal until hub and bridge have accounted for everything.
    pub(super) cpu: Cpu,
    /// Deliveries beyond one per application and message.
    pub(super) repeated: u64,
}

impl Run {
    /// Measures one side.
    pub(super) async fn measure(&self, side: Side) -> Result<Outcome, BenchError> {
        let source = Source::start(&self.fill).await?;
        match side {
            Side::Native => self.native(&source).await,
            Side::Fanin => self.fanin(&source).await,
        }
    }

    async fn native(&self, source: &Source) -> Result<Outcome, BenchError> {
        source.create_durables(&self.apps).await?;
        let mut apps = Vec::new();
        for name in &self.apps {
            let mut command = self.command("bench-native-app", name);
            command.args(["--server", &source.url(), "--stream", STREAM]);
            apps.push(App::start(name, &self.dir, command)?);
        }
        for app in &mut apps {
            app.ready().await?;
        }
        source.settle_down().await?;
        let clock = Clock::start(source.pid(), None, &apps)?;
        for app in &mut apps {
            app.go()?;
        }
        let (dones, wall) = self.wait_done(&mut apps, &clock).await?;
        source.wait_settled().await?;
        clock.stop(&dones, wall, self.fill.messages)
    }

    async fn fanin(&self, source: &Source) -> Result<Outcome, BenchError> {
        let options = Options {
            dir: self.dir.clone(),
            hub_url: source.url(),
            sync_always: self.fill.sync_always,
            intake_always: false,
            apps: self.apps.clone(),
            quota: self.fill.messages * u64::from(self.fill.size) + QUOTA_SPARE,
            batch: BRIDGE_BATCH,
        };
        let mut bridge = Bridge::start(&self.program, &options).await?;
        let mut apps = Vec::new();
        for (index, name) in self.apps.iter().enumerate() {
            // The bridge pulls when all applications are there: the last one to come is the signal.
            let late = index + 1 == self.apps.len();
            apps.push(App::start(
                name,
                &self.dir,
                self.fanin_command(&bridge, name, late),
            )?);
        }
        for app in &mut apps {
            app.ready().await?;
        }
        source.settle_down().await?;
        let clock = Clock::start(source.pid(), Some(bridge.pid()), &apps)?;
        if let Some(last) = apps.last_mut() {
            last.go()?;
        }
        let (dones, wall) = self.wait_done(&mut apps, &clock).await?;
        bridge.wait_drained(&self.apps).await?;
        source.wait_settled().await?;
        clock.stop(&dones, wall, self.fill.messages)
    }

    fn command(&self, subcommand: &str, app: &str) -> Command {
        app_command(&self.program, subcommand, app, self.fill.messages)
    }

    fn fanin_command(&self, bridge: &Bridge, app: &str, late: bool) -> Command {
        let mut command = self.command("bench-app", app);
        command.args(["--socket", bridge.socket(), "--topic", TOPIC]);
        if late {
            command.arg("--late");
        }
        command
    }

    /// Waits for every application, and returns when the last one was done.
    async fn wait_done(
        &self,
        apps: &mut [App],
        clock: &Clock,
    ) -> Result<(Vec<(String, Done)>, Duration), BenchError> {
        let deliveries = u32::try_from(self.fill.messages * self.apps.len() as u64).unwrap_or(u32::MAX);
        let limit = PHASE_TIMEOUT + PER_DELIVERY * deliveries;
        let waits = apps.iter_mut().map(async |app| {
            let done = app.done(limit).await?;
            Ok::<_, BenchError>((app.name().to_owned(), done))
        });
        let dones = futures_util::future::try_join_all(waits).await?;
        Ok((dones, clock.started.elapsed()))
    }
}

/// A process of an application.
pub(super) fn app_command(program: &Path, subcommand: &str, app: &str, messages: u64) -> Command {
    let mut command = Command::new(program);
    command.args([subcommand, "--app", app, "--messages", &messages.to_string()]);
    command
}

/// Wall time and CPU time since the signal.
struct Clock {
    hub: u32,
    bridge: Option<u32>,
    apps: Vec<u32>,
    before: Cpu,
    started: Instant,
    started_us: u64,
}

impl Clock {
    fn start(hub: u32, bridge: Option<u32>, apps: &[App]) -> Result<Self, BenchError> {
        let apps: Vec<u32> = apps.iter().map(|app| app.child().pid()).collect();
        let before = Cpu::read(hub, bridge, &apps)?;
        Ok(Self {
            hub,
            bridge,
            apps,
            before,
            started: Instant::now(),
            started_us: now_us(),
        })
    }

    fn stop(self, dones: &[(String, Done)], wall: Duration, messages: u64) -> Result<Outcome, BenchError> {
        let cpu = Cpu::read(self.hub, self.bridge, &self.apps)?.since(self.before);
        for (app, done) in dones {
            if done.distinct != messages {
                return Err(BenchError::Miscounted {
                    app: app.clone(),
                    distinct: done.distinct,
                    expected: messages,
                    received: done.received,
                });
            }
        }
        let first_us = dones
            .iter()
            .map(|(_, done)| done.first_us)
            .min()
            .unwrap_or_default();
        Ok(Outcome {
            deliveries: messages * dones.len() as u64,
            wall,
            first: Duration::from_micros(first_us.saturating_sub(self.started_us)),
            cpu,
            repeated: dones.iter().map(|(_, done)| done.received - done.distinct).sum(),
        })
    }
}
