//! One application on fanin-sdk, as a process: `fanin bench-app`.

use std::error::Error;

use fanin_sdk::{Client, Subscription};

use super::child::{READY, Words, tell};
use super::limits::{CREDIT_BYTES, CREDIT_MESSAGES, READY_TIMEOUT};
use super::tally::Tally;

/// Arguments of the hidden subcommand.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The bridge's socket.
    #[arg(long)]
    pub(super) socket: String,
    /// The topic.
    #[arg(long)]
    pub(super) topic: String,
    /// The application.
    #[arg(long)]
    pub(super) app: String,
    /// Messages to expect.
    #[arg(long)]
    pub(super) messages: u64,
    /// Subscribe only at the word to begin.
    #[arg(long)]
    pub(super) late: bool,
}

/// Receives and acknowledges until the standard input ends, and tells when every message has been acknowledged.
///
/// # Errors
/// When the bridge refuses.
pub(super) async fn run(args: &Args) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut words = Words::listen();
    let client = Client::builder()
        .socket(&args.socket)
        .wait_for_bridge(READY_TIMEOUT)
        .connect()
        .await?;
    let subscription = if args.late {
        tell(READY);
        if !words.go().await {
            return Ok(());
        }
        open(&client, args).await?
    } else {
        let subscription = open(&client, args).await?;
        tell(READY);
        subscription
    };
    tokio::select! {
        result = receive(subscription, args.messages) => result,
        () = words.end() => Ok(()),
    }
}

async fn open(client: &Client, args: &Args) -> Result<Subscription, fanin_sdk::SubscribeError> {
    client
        .subscribe(&args.topic, &args.app)
        .instance("bench")
        .credit_messages(CREDIT_MESSAGES)
        .credit_bytes(CREDIT_BYTES)
        .open_timeout(READY_TIMEOUT)
        .open()
        .await
}

async fn receive(mut messages: Subscription, expected: u64) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut tally = Tally::new(expected);
    while let Some(message) = messages.next().await {
        let message = message?;
        if tally.count(message.payload()) {
            // The one that is waited for: durable on the node, and with it, in order, all before it.
            message.ack().await?;
            tell(&serde_json::to_string(&tally.done())?);
        } else {
            message.ack_soon();
        }
    }
    Ok(())
}
