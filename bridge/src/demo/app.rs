//! One instance of one application, as a process: `fanin demo-app`.

use std::io::{self, Read as _};
use std::path::PathBuf;

use fanin_sdk::{AckError, Client, Confirmation, ConnectError, Message, SubscribeError};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};

use super::limits::{ACKS_MAX, CREDIT_MESSAGES, HANDS_MAX, START_TIMEOUT};
use super::output;
use super::record::{Happened, Record, Recorder, now_us};
use crate::cli::exit::Exit;

/// Arguments of the hidden subcommand.
#[derive(Clone, Debug, clap::Args)]
pub struct AppArgs {
    /// The bridge's socket.
    #[arg(long)]
    socket: String,
    /// The topic.
    #[arg(long)]
    topic: String,
    /// The application.
    #[arg(long)]
    app: String,
    /// Name of this instance.
    #[arg(long)]
    instance: String,
    /// File for the records of this life; it must not exist.
    #[arg(long)]
    records: PathBuf,
}

/// Why an instance ended.
#[derive(Debug, thiserror::Error)]
enum AppError {
    #[error("the records cannot be written")]
    Records(#[source] io::Error),
    #[error("the bridge cannot be reached")]
    Connect(#[from] ConnectError),
    #[error("the subscription ended")]
    Subscribe(#[from] SubscribeError),
}

/// An acknowledgement on its way, and the line to write when it is confirmed.
async fn confirmed(confirmation: Confirmation, mut record: Record) -> Option<Record> {
    match confirmation.await {
        Ok(()) => {
            record.happened = Happened::Acked;
            record.at_us = now_us();
            Some(record)
        }
        // Its outcome is unknown here, or the message comes again: the other records tell.
        Err(AckError::LeaseLost | AckError::Unconfirmed | _) => None,
    }
}

/// Receives, records, acknowledges and records again, until the standard input ends or the process is killed.
pub async fn run(args: &AppArgs) -> Exit {
    tokio::select! {
        result = work(args) => match result {
            Ok(()) => Exit::Done,
            Err(error) => {
                output::complain(&error);
                Exit::Failed
            }
        },
        () = stdin_ends() => Exit::Done,
    }
}

async fn work(args: &AppArgs) -> Result<(), AppError> {
    let mut recorder = Recorder::create(&args.records).map_err(AppError::Records)?;
    let client = Client::builder()
        .socket(&args.socket)
        .wait_for_bridge(START_TIMEOUT)
        .connect()
        .await?;
    let mut messages = client
        .subscribe(&args.topic, &args.app)
        .instance(&args.instance)
        .credit_messages(CREDIT_MESSAGES)
        .open_timeout(START_TIMEOUT)
        .open()
        .await?;
    let mut acks = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some(acked) = acks.next(), if !acks.is_empty() => {
                let mut next = Some(acked);
                while let Some(acked) = next {
                    if let Some(record) = acked {
                        recorder.add(&record);
                    }
                    next = acks.next().now_or_never().flatten();
                }
                recorder.flush().map_err(AppError::Records)?;
            }
            // The end of the stream is told by an error before it.
            next = messages.next(), if acks.len() < ACKS_MAX => {
                let Some(first) = next else { return Ok(()) };
                let mut hands = vec![first?];
                while hands.len() < HANDS_MAX {
                    match messages.next().now_or_never() {
                        Some(Some(message)) => hands.push(message?),
                        Some(None) | None => break,
                    }
                }
                let records: Vec<Record> = hands.iter().map(|message| record(args, message)).collect();
                records.iter().for_each(|record| recorder.add(record));
                // Received is on record before the acknowledgement leaves: what is killed now was not answered.
                recorder.flush().map_err(AppError::Records)?;
                for (message, record) in hands.into_iter().zip(records) {
                    acks.push(confirmed(message.ack(), record));
                }
            }
        }
    }
}

fn record(args: &AppArgs, message: &Message) -> Record {
    Record {
        happened: Happened::Received,
        app: args.app.clone(),
        instance: args.instance.clone(),
        node: message.node().to_owned(),
        id: message.id().to_owned(),
        attempt: message.attempt(),
        at_us: now_us(),
    }
}

/// Resolves when the process at the other end of the standard input is gone.
pub(crate) async fn stdin_ends() {
    let (ended, end) = tokio::sync::oneshot::channel();
    // A thread of its own: the runtime would wait for a read of its own to come back before it ends.
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while matches!(io::stdin().lock().read(&mut buffer), Ok(read) if read > 0) {}
        // Nobody listens when the process ends for another reason.
        let _ = ended.send(());
    });
    let _ = end.await;
}
