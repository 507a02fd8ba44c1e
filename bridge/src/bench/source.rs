//! The hub of a benchmark: a stream filled beforehand, served by a server that starts afterwards.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::{self, Context, stream};
use bytes::Bytes;
use fanin_localhub::{LocalHub, LocalHubOptions, ServerBinary};
use futures_util::TryStreamExt as _;
use futures_util::future::try_join_all;

use super::error::BenchError;
use super::limits::{
    ACK_WAIT, FILL_CHUNK, NATIVE_ACK_PENDING, POLL_INTERVAL, QUIET_CPU, QUIET_INTERVAL, QUIET_TIMEOUT,
    READY_TIMEOUT, SETTLE_TIMEOUT,
};
use super::tally::{filler, payload};

/// The stream.
pub(super) const STREAM: &str = "BENCH";
const SUBJECT: &str = "bench.messages";

/// How the hub is to be.
#[derive(Clone, Debug)]
pub(super) struct Fill {
    pub(super) binary: ServerBinary,
    /// Its store; a new directory.
    pub(super) dir: PathBuf,
    pub(super) messages: u64,
    /// Payload bytes of a message.
    pub(super) size: u32,
    /// Whether the server that is measured syncs each write.
    pub(super) sync_always: bool,
}

/// A hub whose stream is full and whose process has done nothing else yet.
#[derive(Debug)]
pub(super) struct Source {
    hub: LocalHub,
    context: Context,
}

impl Source {
    /// Fills a stream with one server, and starts another one on the same store.
    pub(super) async fn start(fill: &Fill) -> Result<Self, BenchError> {
        let options = |sync_always| LocalHubOptions {
            dir: Some(fill.dir.clone()),
            sync_always,
            ..LocalHubOptions::new(fill.binary.clone())
        };
        let mut hub = LocalHub::start(options(false)).await?;
        fill_stream(&connect(&hub).await?, fill).await?;
        hub.stop().await?;
        let hub = LocalHub::start(options(fill.sync_always)).await?;
        let context = connect(&hub).await?;
        Ok(Self { hub, context })
    }

    pub(super) fn url(&self) -> String {
        self.hub.url()
    }

    pub(super) fn pid(&self) -> u32 {
        self.hub.pid()
    }

    /// Creates one durable per application.
    pub(super) async fn create_durables(&self, apps: &[String]) -> Result<(), BenchError> {
        let stream = self.stream().await?;
        for app in apps {
            let config = pull::Config {
                durable_name: Some(app.clone()),
                ack_policy: AckPolicy::Explicit,
                ack_wait: ACK_WAIT,
                max_ack_pending: NATIVE_ACK_PENDING,
                ..Default::default()
            };
            stream
                .create_consumer(config)
                .await
                .map_err(BenchError::hub("create a durable"))?;
        }
        Ok(())
    }

    /// Writes out what the pre-fill left dirty and waits until the hub has nothing to do.
    pub(super) async fn settle_down(&self) -> Result<(), BenchError> {
        // Blocks until the disks have it all.
        let synced = tokio::task::spawn_blocking(rustix::fs::sync).await;
        synced.map_err(|error| BenchError::io("syncing the disks")(error.into()))?;
        let deadline = Instant::now() + QUIET_TIMEOUT;
        loop {
            let used =
                || fanin_localhub::cpu_time(self.pid()).map_err(BenchError::io("reading the hub's CPU time"));
            let before = used()?;
            tokio::time::sleep(QUIET_INTERVAL).await;
            if used()?.saturating_sub(before) <= QUIET_CPU {
                return Ok(());
            }
            late(deadline, QUIET_TIMEOUT, || {
                ("the hub's start".to_owned(), "it is still busy".to_owned())
            })?;
        }
    }

    /// Waits until the stream's consumers have nothing pending and nothing unacknowledged.
    pub(super) async fn wait_settled(&self) -> Result<(), BenchError> {
        let stream = self.stream().await?;
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        loop {
            let consumers: Vec<_> = stream
                .consumers()
                .try_collect()
                .await
                .map_err(BenchError::hub("list the consumers"))?;
            let open = |info: &jetstream::consumer::Info| info.num_pending + info.num_ack_pending as u64;
            let open: u64 = consumers.iter().map(open).sum();
            if open == 0 && !consumers.is_empty() {
                return Ok(());
            }
            let hint = || {
                (
                    "the hub's last acknowledgements".to_owned(),
                    format!("{open} are missing"),
                )
            };
            late(deadline, SETTLE_TIMEOUT, hint)?;
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    async fn stream(&self) -> Result<stream::Stream, BenchError> {
        self.context
            .get_stream(STREAM)
            .await
            .map_err(BenchError::hub("show the stream"))
    }
}

/// An error once `deadline` is over.
pub(super) fn late(
    deadline: Instant,
    limit: Duration,
    describe: impl FnOnce() -> (String, String),
) -> Result<(), BenchError> {
    if Instant::now() < deadline {
        return Ok(());
    }
    let (what, hint) = describe();
    Err(BenchError::Late {
        what,
        seconds: limit.as_secs(),
        hint,
    })
}

async fn connect(hub: &LocalHub) -> Result<Context, BenchError> {
    let client = async_nats::connect(hub.url())
        .await
        .map_err(BenchError::hub("accept a connection"))?;
    let mut context = jetstream::new(client);
    context.set_timeout(READY_TIMEOUT);
    Ok(context)
}

async fn fill_stream(context: &Context, fill: &Fill) -> Result<(), BenchError> {
    let config = stream::Config {
        name: STREAM.to_owned(),
        subjects: vec![SUBJECT.to_owned()],
        ..Default::default()
    };
    let stream = context
        .create_stream(config)
        .await
        .map_err(BenchError::hub("create the stream"))?;
    let filler = filler((fill.size as usize).saturating_sub(size_of::<u64>()));
    let mut next = 0;
    while next < fill.messages {
        let end = fill.messages.min(next + FILL_CHUNK);
        publish_all(context, (next..end).map(|number| payload(number, &filler))).await?;
        next = end;
    }
    let stored = stream
        .get_info()
        .await
        .map_err(BenchError::hub("show the stream"))?
        .state
        .messages;
    if stored == fill.messages {
        return Ok(());
    }
    Err(BenchError::Filled {
        stored,
        expected: fill.messages,
    })
}

/// Publishes, then waits for the hub's word on each.
async fn publish_all(context: &Context, payloads: impl Iterator<Item = Bytes>) -> Result<(), BenchError> {
    let mut confirmations = Vec::new();
    for payload in payloads {
        let sent = context.publish(SUBJECT, payload).await;
        confirmations.push(sent.map_err(BenchError::hub("take a message"))?.into_future());
    }
    try_join_all(confirmations)
        .await
        .map_err(BenchError::hub("store a message"))?;
    Ok(())
}
