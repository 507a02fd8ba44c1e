//! `fanin bench recovery`: how long a bridge with a backlog on disk takes to be back after SIGKILL, and what memory it takes.

use std::path::Path;
use std::time::{Duration, Instant};

use fanin_sdk::Client;
use serde_json::{Value, json};
use tokio::net::UnixDatagram;

use super::bridge::{Bridge, Options, TOPIC};
use super::child::{App, Child};
use super::compare::{find_server, temporary_dir};
use super::error::BenchError;
use super::limits::{
    BRIDGE_BATCH, MESSAGES_MAX, NOTE_BYTES_MAX, PER_DELIVERY, PHASE_TIMEOUT, POLL_INTERVAL, READY_TIMEOUT,
    RECOVERY_MESSAGE_SPARE, RECOVERY_MESSAGES_DEFAULT, RECOVERY_STARTS_DEFAULT, REPEAT_MAX, SIZE_DEFAULT,
    SIZE_MAX, SIZE_MIN,
};
use super::sides::app_command;
use super::source::{Fill, Source};
use super::stalled::{Memory, watch};
use crate::cli::human;
use crate::cli::output::note;

/// The one application, which takes nothing until the end.
const WAITING: &str = "waiting";

/// `fanin bench recovery`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// Messages that wait on disk when the bridge is killed.
    #[arg(long, default_value_t = RECOVERY_MESSAGES_DEFAULT, value_parser = clap::value_parser!(u64).range(1..=MESSAGES_MAX))]
    messages: u64,
    /// Payload bytes of a message.
    #[arg(long, default_value_t = SIZE_DEFAULT, value_parser = clap::value_parser!(u32).range(i64::from(SIZE_MIN)..=i64::from(SIZE_MAX)))]
    size: u32,
    /// Messages of one batch of the bridge at most. Recovery reads one record per batch.
    #[arg(long, default_value_t = BRIDGE_BATCH, value_parser = clap::value_parser!(u32).range(1..=i64::from(fanin_config::limits::BATCH_MESSAGES_MAX)))]
    batch: u32,
    /// How often the bridge is killed and started.
    #[arg(long, default_value_t = RECOVERY_STARTS_DEFAULT, value_parser = clap::value_parser!(u32).range(1..=i64::from(REPEAT_MAX)))]
    repeat: u32,
    /// Print one JSON document.
    #[arg(short = 'j', long)]
    pub(super) json: bool,
}

/// One start of a killed bridge; times since its process began.
#[derive(Clone, Copy, Debug)]
struct Start {
    /// Until it told the service manager that it is ready: recovered, and its socket served.
    ready: Duration,
    /// Until an application that connects then has its first message.
    first: Duration,
    /// Resident memory when it was ready, bytes.
    resident: u64,
}

#[derive(Clone, Debug)]
struct Outcome {
    messages: u64,
    size: u32,
    batch: u32,
    /// Bytes of the local log.
    store: u64,
    filling: Duration,
    starts: Vec<Start>,
    /// While the application took the backlog in, at the end.
    draining: Memory,
    draining_time: Duration,
    /// Deliveries beyond one of each message: what had been handed out when the bridge was killed.
    repeated: u64,
}

pub(super) async fn run(args: &Args) -> Result<String, BenchError> {
    let binary = find_server().await?;
    let program = std::env::current_exe().map_err(BenchError::io("finding this program"))?;
    let dir = temporary_dir()?;
    let fill = Fill {
        binary,
        dir: dir.path().join("hub"),
        messages: args.messages,
        size: args.size,
        sync_always: false,
    };
    note(&format!(
        "filling the hub with {} messages of {} B",
        args.messages, args.size
    ));
    let source = Source::start(&fill).await?;
    let options = Options {
        dir: dir.path().to_owned(),
        hub_url: source.url(),
        sync_always: false,
        intake_always: true,
        apps: vec![WAITING.to_owned()],
        quota: args.messages * (u64::from(args.size) + RECOVERY_MESSAGE_SPARE) + (4 << 30),
        batch: args.batch,
    };
    let limit = PHASE_TIMEOUT + PER_DELIVERY * u32::try_from(args.messages * 3).unwrap_or(u32::MAX);

    note("the bridge takes them in, batch by batch, and nobody takes any from it");
    let begun = Instant::now();
    let mut bridge = Bridge::start(&program, &options).await?;
    bridge
        .wait_for(limit, "the backlog", |mapping| {
            mapping.unresolved_batches == 0
                && mapping
                    .apps
                    .iter()
                    .any(|app| app.backlog_messages == args.messages)
        })
        .await?;
    source.wait_settled().await?;
    let filling = begun.elapsed();
    let store = bridge.store_bytes().await?;

    let mut starts = Vec::new();
    for number in 1..=args.repeat {
        // SIGKILL, as a process that is dropped gets.
        drop(bridge);
        let (started, again) = start(&program, &options).await?;
        note(&format!(
            "start {number}: ready after {}",
            human::duration(started.ready)
        ));
        starts.push(started);
        bridge = again;
    }

    note("an application takes the backlog");
    let begun = Instant::now();
    let mut command = app_command(&program, "bench-app", WAITING, args.messages);
    command.args(["--socket", bridge.socket(), "--topic", TOPIC]);
    let mut app = App::start(WAITING, dir.path(), command)?;
    let mut taken = None;
    let draining = watch(&mut bridge, async {
        taken = Some(app.done(limit).await?);
        Ok(())
    })
    .await?;
    let draining_time = begun.elapsed();
    bridge.wait_drained(&options.apps).await?;
    let (received, distinct) = taken.map_or((0, 0), |done| (done.received, done.distinct));
    if distinct != args.messages {
        return Err(BenchError::Miscounted {
            app: WAITING.to_owned(),
            distinct,
            expected: args.messages,
            received,
        });
    }

    let outcome = Outcome {
        messages: args.messages,
        size: args.size,
        batch: args.batch,
        store,
        filling,
        starts,
        draining,
        draining_time,
        repeated: received - distinct,
    };
    if args.json {
        return Ok(format!("{}\n", outcome.json()));
    }
    Ok(outcome.text())
}

/// Starts the bridge on what it has on disk, and takes one message from it without acknowledging it.
async fn start(program: &Path, options: &Options) -> Result<(Start, Bridge), BenchError> {
    let socket = options.dir.join("notify.sock");
    let manager = Manager::bind(&socket)?;
    let begun = Instant::now();
    let mut child = Bridge::launch(program, options, Some(&socket))?;
    manager.ready(&mut child).await?;
    let ready = begun.elapsed();
    let resident_ready =
        fanin_localhub::rss(child.pid()).map_err(BenchError::io("reading the bridge's resident memory"))?;
    first_message(options)
        .await
        .map_err(|error| BenchError::App(error.into()))?;
    let first = begun.elapsed();
    let bridge = Bridge::joined(child, options).await?;
    let started = Start {
        ready,
        first,
        resident: resident_ready,
    };
    Ok((started, bridge))
}

/// Why no first message came.
#[derive(Debug, thiserror::Error)]
enum FirstError {
    /// No connection.
    #[error("cannot connect to the bridge")]
    Connect(#[from] fanin_sdk::ConnectError),
    /// Not let in.
    #[error("the bridge does not let the application in")]
    Subscribe(#[from] fanin_sdk::SubscribeError),
    /// Ended.
    #[error("the subscription ended without a message")]
    Ended,
}

async fn first_message(options: &Options) -> Result<(), FirstError> {
    let client = Client::connect(&options.socket()).await?;
    let subscription = client
        .subscribe(TOPIC, WAITING)
        .instance("first")
        .credit_messages(1)
        .open_timeout(READY_TIMEOUT);
    let mut messages = subscription.open().await?;
    let first = tokio::time::timeout(READY_TIMEOUT, messages.next()).await;
    match first {
        Ok(Some(Ok(_))) => Ok(()),
        Ok(Some(Err(_)) | None) | Err(_) => Err(FirstError::Ended),
    }
}

/// Listens to a bridge as a service manager does.
#[derive(Debug)]
struct Manager(UnixDatagram);

impl Manager {
    fn bind(path: &Path) -> Result<Self, BenchError> {
        // Left by the start before; an error means that there is none.
        let _ = std::fs::remove_file(path);
        let bound = UnixDatagram::bind(path);
        Ok(Self(bound.map_err(BenchError::io("listening to the bridge"))?))
    }

    /// Waits until the process says that it is ready.
    async fn ready(&self, child: &mut Child) -> Result<(), BenchError> {
        let deadline = Instant::now() + READY_TIMEOUT;
        let mut heard = vec![0; NOTE_BYTES_MAX];
        loop {
            child.check()?;
            match tokio::time::timeout(POLL_INTERVAL, self.0.recv(&mut heard)).await {
                Ok(Ok(length)) => {
                    let text = String::from_utf8_lossy(heard.get(..length).unwrap_or_default());
                    if text.lines().any(|line| line == "READY=1") {
                        return Ok(());
                    }
                }
                Ok(Err(source)) => return Err(BenchError::io("listening to the bridge")(source)),
                Err(_) => super::source::late(deadline, READY_TIMEOUT, || {
                    ("the bridge's start".to_owned(), "it is not ready".to_owned())
                })?,
            }
        }
    }
}

impl Outcome {
    fn json(&self) -> Value {
        let starts = self.starts.iter().map(|start| {
            json!({
                "ready_s": start.ready.as_secs_f64(),
                "first_delivery_s": start.first.as_secs_f64(),
                "rss_ready_bytes": start.resident,
            })
        });
        json!({
            "benchmark": "recovery",
            "messages": self.messages,
            "size": self.size,
            "batch": self.batch,
            "store_bytes": self.store,
            "filling_s": self.filling.as_secs_f64(),
            "starts": starts.collect::<Vec<_>>(),
            "catch_up_s": self.draining_time.as_secs_f64(),
            "catch_up_bridge_rss_max_bytes": self.draining.max,
            "catch_up_bridge_rss_end_bytes": self.draining.last,
            "repeated_deliveries": self.repeated,
        })
    }

    fn text(&self) -> String {
        let head = ["start", "ready", "first delivery", "bridge RSS when ready"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        for (number, start) in self.starts.iter().enumerate() {
            rows.push(vec![
                format!("{}", number + 1),
                milliseconds(start.ready),
                milliseconds(start.first),
                human::bytes(start.resident),
            ]);
        }
        format!(
            "backlog after SIGKILL: {} messages of {} B in batches of up to {}, {} on disk\n\n{}\nbacklog taken in {} with at most \
             {} resident; every message came, {} of them again\n",
            self.messages,
            self.size,
            self.batch,
            human::bytes(self.store),
            human::table(0, &rows),
            human::duration(self.draining_time),
            human::bytes(self.draining.max),
            self.repeated,
        )
    }
}

fn milliseconds(duration: Duration) -> String {
    format!("{} ms", duration.as_millis())
}

#[cfg(test)]
mod tests {
    // Goal: only READY counts, and a process that ends early is told. Method: notes on a socket, and a shell that ends.
    use super::*;

    #[tokio::test]
    async fn ready_is_heard() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("n");
        let manager = Manager::bind(&path).unwrap();
        let bridge = UnixDatagram::unbound().unwrap();
        bridge.send_to(b"STATUS=recovering", &path).await.unwrap();
        bridge.send_to(b"READY=1\nSTATUS=here", &path).await.unwrap();
        let shell = |script: &str| {
            let mut command = std::process::Command::new("/bin/sh");
            command.args(["-c", script]);
            command
        };
        let mut waits = Child::logged("waits", dir.path(), shell("exec tail -f /dev/null")).unwrap();
        manager.ready(&mut waits).await.unwrap();
        let again = Manager::bind(&path).unwrap();
        let mut ends = Child::logged("ends", dir.path(), shell("exit 1")).unwrap();
        let error = again.ready(&mut ends).await.unwrap_err();
        assert!(matches!(error, BenchError::Ended { .. }), "{error}");
    }
}
