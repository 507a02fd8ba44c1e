//! `fanin subscribe`: the messages of an application on standard output, each acknowledged after it is written.

use std::future::Future;
use std::io::{self, Write as _};
use std::pin::Pin;
use std::time::Duration;

use clap::Args as ClapArgs;
use fanin_sdk::{AckError, Message, Subscription};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;

use super::bridge_socket::{SocketArgs, subscribe_failed};
use super::exit::Exit;
use super::failure::Failure;
use super::limits::{
    SUBSCRIBE_BATCH_MAX, SUBSCRIBE_CLOSE_MAX, SUBSCRIBE_UNCONFIRMED_BATCHES_MAX, TOOL_STOP_MAX,
};
use super::message_line::{self, Reader};
use super::{output, signals, wait};
use crate::telemetry::codes;

/// `fanin subscribe`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The topic.
    topic: String,
    /// The application to be an instance of; it must be named in the mapping's configuration.
    #[arg(short = 'a', long, value_name = "NAME")]
    app: String,
    #[command(flatten)]
    socket: SocketArgs,
    /// How long to wait for a bridge that is not there yet; 0: not at all.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = wait::duration)]
    wait: Duration,
    /// End after this many messages [default: go on until interrupted].
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Print JSON, one object a line: id, topic, app, instance, node, attempt, subject, headers, time, and payload or
    /// payload_base64.
    #[arg(short = 'j', long)]
    pub(super) json: bool,
    /// Name of this instance in status and logs [default: the bridge makes one].
    #[arg(long, value_name = "ID")]
    instance: Option<String>,
    /// Messages held at most; a small number shares work more evenly between instances.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(fanin_sdk::limits::CREDIT_MESSAGES_MAX)))]
    credit: Option<u32>,
}

pub(super) async fn execute(args: &Args) -> Result<Exit, Failure> {
    let stop = signals::stop_token(TOOL_STOP_MAX)?;
    let Some(client) = stop.run_until_cancelled(args.socket.connect(args.wait)).await else {
        return Ok(Exit::Done);
    };
    let client = client?;
    let mut builder = client
        .subscribe(&args.topic, &args.app)
        .close_timeout(SUBSCRIBE_CLOSE_MAX);
    if let Some(instance) = &args.instance {
        builder = builder.instance(instance);
    }
    if let Some(credit) = args.credit {
        builder = builder.credit_messages(credit);
    }
    let Some(opened) = stop.run_until_cancelled(builder.open()).await else {
        return Ok(Exit::Done);
    };
    let mut printing = Printing {
        subscription: opened.map_err(subscribe_failed)?,
        topic: args.topic.clone(),
        app: args.app.clone(),
        json: args.json,
        left: args.count.unwrap_or(u64::MAX),
        confirmations: FuturesUnordered::new(),
        buffer: Vec::new(),
    };
    let ended = printing.run(&stop).await;
    let closed = printing.close().await;
    ended?;
    closed.map(|()| Exit::Done)
}

type Confirmations = FuturesUnordered<Pin<Box<dyn Future<Output = Vec<(String, AckError)>> + Send>>>;

struct Printing {
    subscription: Subscription,
    topic: String,
    app: String,
    json: bool,
    /// Messages still to print.
    left: u64,
    /// Acknowledgements under way, a batch each.
    confirmations: Confirmations,
    buffer: Vec<u8>,
}

impl Printing {
    /// Prints until the count is reached, the stop is asked for, or something fails.
    async fn run(&mut self, stop: &CancellationToken) -> Result<(), Failure> {
        while self.left > 0 {
            let may_take = self.confirmations.len() < SUBSCRIBE_UNCONFIRMED_BATCHES_MAX;
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                Some(failed) = self.confirmations.next(), if !self.confirmations.is_empty() => warn(&failed),
                next = self.subscription.next(), if may_take => match next {
                    Some(Ok(first)) => self.print(first).await?,
                    Some(Err(error)) => return Err(subscribe_failed(error)),
                    None => return Ok(()),
                },
            }
        }
        Ok(())
    }

    /// Prints a message and those that are here already, flushes, and acknowledges them together.
    async fn print(&mut self, first: Message) -> Result<(), Failure> {
        let more = usize::try_from(self.left - 1)
            .unwrap_or(usize::MAX)
            .min(SUBSCRIBE_BATCH_MAX - 1);
        // An error that ends the subscription is told again by the next call, after these messages are done.
        let rest = match more {
            0 => None,
            more => self.subscription.pull(more, Duration::ZERO).await.ok(),
        };
        let messages = || std::iter::once(&first).chain(rest.iter().flatten());
        let printed = messages().count();
        let reader = Reader {
            topic: self.topic.clone(),
            app: self.app.clone(),
            instance: self.subscription.instance(),
        };
        self.buffer.clear();
        for message in messages() {
            if self.json {
                message_line::json(&mut self.buffer, message, &reader)
                    .map_err(|error| Failure::output(error.into()))?;
            } else {
                message_line::text(&mut self.buffer, message);
            }
        }
        let written = {
            let mut out = io::stdout().lock();
            out.write_all(&self.buffer).and_then(|()| out.flush())
        };
        if let Err(error) = written {
            // Nobody has seen them: another instance may have them, uncounted.
            first.release();
            if let Some(rest) = rest {
                rest.release_all();
            }
            return Err(Failure::output(error));
        }
        self.left -= u64::try_from(printed).unwrap_or(u64::MAX);
        let id = first.id().to_owned();
        let first = first.ack();
        let rest = rest.map(fanin_sdk::PulledBatch::ack_all);
        self.confirmations.push(Box::pin(async move {
            let mut failed = Vec::new();
            if let Err(error) = first.await {
                failed.push((id, error));
            }
            if let Some(rest) = rest
                && let Err(error) = rest.await
            {
                failed.extend_from_slice(error.failed());
            }
            failed
        }));
        Ok(())
    }

    /// Waits for what was acknowledged, and closes.
    async fn close(mut self) -> Result<(), Failure> {
        // Closing settles every verdict under way, confirmed or lost, within its time limit.
        let closed = self.subscription.close().await;
        let mut unconfirmed = 0;
        while let Some(failed) = self.confirmations.next().await {
            unconfirmed += failed.len();
            warn(&failed);
        }
        let failure = |text: String| Failure::new(Exit::Failed, codes::ACK_UNCONFIRMED, text);
        match closed {
            Err(error) => {
                Err(failure("the subscription did not close in good order".to_owned()).because(error))
            }
            Ok(()) if unconfirmed > 0 => Err(failure(format!(
                "{unconfirmed} messages were printed and may come again"
            ))),
            Ok(()) => Ok(()),
        }
    }
}

/// Says which messages may come again. The program goes on: that is what it would do after a restart as well.
fn warn(failed: &[(String, AckError)]) {
    for (id, error) in failed {
        output::note(&format!("warning[{}]: {id}: {error}", codes::ACK_UNCONFIRMED));
    }
}
