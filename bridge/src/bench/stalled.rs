//! `fanin bench stalled-app`: the bridge's memory while one application stands still, and while it catches up.

use std::time::{Duration, Instant};

use fanin_config::ByteSize;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::bridge::{Bridge, Options, TOPIC};
use super::child::App;
use super::compare::{find_server, temporary_dir};
use super::error::BenchError;
use super::limits::{
    BACKLOG_DEFAULT, BRIDGE_BATCH, MESSAGES_MAX, PER_DELIVERY, PHASE_TIMEOUT, RSS_INTERVAL, RUNNING_APPS,
    SIZE_DEFAULT, SIZE_MAX, SIZE_MIN,
};
use super::sides::app_command;
use super::source::{Fill, Source};
use crate::cli::human;
use crate::cli::output::note;

/// The application that stands still.
const STALLED: &str = "stalled";

/// `fanin bench stalled-app`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// Payload bytes that wait for the stalled application in the end.
    #[arg(long, default_value = BACKLOG_DEFAULT)]
    backlog: ByteSize,
    /// Payload bytes of a message.
    #[arg(long, default_value_t = SIZE_DEFAULT, value_parser = clap::value_parser!(u32).range(i64::from(SIZE_MIN)..=i64::from(SIZE_MAX)))]
    size: u32,
    /// Print one JSON document.
    #[arg(short = 'j', long)]
    pub(super) json: bool,
}

/// What the bridge took while something lasted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) max: u64,
    pub(super) last: u64,
}

impl Memory {
    fn note(&mut self, bytes: u64) {
        self.last = bytes;
        self.max = self.max.max(bytes);
    }
}

#[derive(Clone, Copy, Debug)]
struct Outcome {
    idle: u64,
    /// While the backlog grew.
    growing: Memory,
    growing_time: Duration,
    /// Messages and bytes that waited in the end.
    backlog: (u64, u64),
    /// While the stalled application took it in.
    draining: Memory,
    draining_time: Duration,
}

pub(super) async fn run(args: &Args) -> Result<String, BenchError> {
    let binary = find_server().await?;
    let program = std::env::current_exe().map_err(BenchError::io("finding this program"))?;
    let dir = temporary_dir()?;
    let messages = args
        .backlog
        .0
        .div_ceil(u64::from(args.size))
        .clamp(1, MESSAGES_MAX);
    let fill = Fill {
        binary,
        dir: dir.path().join("hub"),
        messages,
        size: args.size,
        sync_always: false,
    };
    note(&format!(
        "filling the hub with {messages} messages of {} B",
        args.size
    ));
    let source = Source::start(&fill).await?;
    source.settle_down().await?;

    let mut names: Vec<String> = (1..=RUNNING_APPS).map(|number| format!("app-{number}")).collect();
    let running_names = names.clone();
    names.push(STALLED.to_owned());
    let options = Options {
        dir: dir.path().to_owned(),
        hub_url: source.url(),
        sync_always: false,
        intake_always: true,
        apps: names,
        quota: 2 * args.backlog.0 + (4 << 30),
        batch: BRIDGE_BATCH,
    };
    // The stalled application is connected and frozen before the first message is pulled: the others come later.
    let mut bridge = Bridge::start(&program, &options).await?;
    let command = |name: &str| {
        let mut command = app_command(&program, "bench-app", name, messages);
        command.args(["--socket", bridge.socket(), "--topic", TOPIC]);
        command
    };
    let idle = resident(&bridge)?;
    let mut stalled = App::start(STALLED, dir.path(), command(STALLED))?;
    let mut running = Vec::new();
    for name in &running_names {
        running.push(App::start(name, dir.path(), command(name))?);
    }
    stalled.ready().await?;
    stalled.child().signal(Signal::STOP)?;

    note("the backlog grows");
    let limit = PHASE_TIMEOUT + PER_DELIVERY * u32::try_from(messages * 3).unwrap_or(u32::MAX);
    let started = Instant::now();
    let waits = running
        .iter_mut()
        .map(async |app| app.done(limit).await.map(|_| ()));
    let all = async { futures_util::future::try_join_all(waits).await.map(|_| ()) };
    let growing = watch(&mut bridge, all).await?;
    let growing_time = started.elapsed();
    bridge.wait_drained(&running_names).await?;
    let backlog = bridge.backlog(STALLED).await?;

    note("the stalled application goes on");
    let started = Instant::now();
    stalled.child().signal(Signal::CONT)?;
    let end = async { stalled.done(limit).await.map(|_| ()) };
    let draining = watch(&mut bridge, end).await?;
    let draining_time = started.elapsed();
    bridge.wait_drained(&options.apps).await?;

    let outcome = Outcome {
        idle,
        growing,
        growing_time,
        backlog,
        draining,
        draining_time,
    };
    if args.json {
        return Ok(format!("{}\n", outcome.json(args.size)));
    }
    Ok(outcome.text())
}

fn resident(bridge: &Bridge) -> Result<u64, BenchError> {
    fanin_localhub::rss(bridge.pid()).map_err(BenchError::io("reading the bridge's resident memory"))
}

/// Looks at the bridge's memory until `end` comes.
pub(super) async fn watch(
    bridge: &mut Bridge,
    end: impl Future<Output = Result<(), BenchError>>,
) -> Result<Memory, BenchError> {
    let mut memory = Memory::default();
    let mut ticks = tokio::time::interval(RSS_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    tokio::pin!(end);
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                bridge.check()?;
                memory.note(resident(bridge)?);
            }
            result = &mut end => {
                result?;
                memory.note(resident(bridge)?);
                return Ok(memory);
            }
        }
    }
}

impl Outcome {
    fn json(&self, size: u32) -> Value {
        json!({
            "benchmark": "stalled-app",
            "size": size,
            "backlog_messages": self.backlog.0,
            "backlog_bytes": self.backlog.1,
            "bridge_rss_idle_bytes": self.idle,
            "bridge_rss_max_bytes": self.growing.max,
            "bridge_rss_with_backlog_bytes": self.growing.last,
            "growing_s": self.growing_time.as_secs_f64(),
            "catch_up_bridge_rss_max_bytes": self.draining.max,
            "catch_up_bridge_rss_end_bytes": self.draining.last,
            "catch_up_s": self.draining_time.as_secs_f64(),
        })
    }

    fn text(&self) -> String {
        let row =
            |what: &str, max: String, last: String, time: String| vec![what.to_owned(), max, last, time];
        let lines = [
            row(
                "bridge RSS",
                "max".to_owned(),
                "at the end".to_owned(),
                "time".to_owned(),
            ),
            row(
                "no traffic yet",
                human::bytes(self.idle),
                human::bytes(self.idle),
                "-".to_owned(),
            ),
            row(
                "one application frozen, the others take everything",
                human::bytes(self.growing.max),
                human::bytes(self.growing.last),
                human::duration(self.growing_time),
            ),
            row(
                "the frozen one catches up",
                human::bytes(self.draining.max),
                human::bytes(self.draining.last),
                human::duration(self.draining_time),
            ),
        ];
        let (messages, bytes) = self.backlog;
        format!(
            "backlog of the frozen application: {messages} messages, {}\n\n{}",
            human::bytes(bytes),
            human::table(0, &lines)
        )
    }
}

#[cfg(test)]
mod tests {
    // Goal: the greatest and the last value are kept apart. Method: values that go up and down.
    use super::*;

    #[test]
    fn memory_keeps_the_greatest() {
        let mut memory = Memory::default();
        for bytes in [5, 9, 7] {
            memory.note(bytes);
        }
        assert_eq!(memory, Memory { max: 9, last: 7 });
    }
}
