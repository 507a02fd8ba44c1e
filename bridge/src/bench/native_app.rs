//! One application on a JetStream durable of its own, as a process: `fanin bench-native-app`.

use std::error::Error;

use async_nats::jetstream::consumer::PullConsumer;
use futures_util::StreamExt as _;

use super::child::{READY, Words, tell};
use super::limits::NATIVE_BATCH;
use super::tally::Tally;

/// Arguments of the hidden subcommand.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The hub.
    #[arg(long)]
    pub(super) server: String,
    /// The stream.
    #[arg(long)]
    pub(super) stream: String,
    /// The durable consumer.
    #[arg(long)]
    pub(super) app: String,
    /// Messages to expect.
    #[arg(long)]
    pub(super) messages: u64,
}

/// Receives and acknowledges until the standard input ends, and tells when every message has been acknowledged.
///
/// # Errors
/// When the hub refuses.
pub(super) async fn run(args: &Args) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut words = Words::listen();
    let context = async_nats::jetstream::new(async_nats::connect(&args.server).await?);
    let consumer: PullConsumer = context.get_consumer_from_stream(&args.app, &args.stream).await?;
    tell(READY);
    if !words.go().await {
        return Ok(());
    }
    tokio::select! {
        result = receive(consumer, args.messages) => result,
        () = words.end() => Ok(()),
    }
}

async fn receive(consumer: PullConsumer, expected: u64) -> Result<(), Box<dyn Error + Send + Sync>> {
    let batch = usize::try_from(NATIVE_BATCH)?;
    // Sends the next pull when half of the last one has arrived.
    let mut messages = consumer.stream().max_messages_per_batch(batch).messages().await?;
    let mut tally = Tally::new(expected);
    while let Some(message) = messages.next().await {
        let message = message?;
        if tally.count(&message.payload) {
            // The one that is waited for: when the hub has answered, it has taken all that this connection sent before.
            message.double_ack().await?;
            tell(&serde_json::to_string(&tally.done())?);
        } else {
            message.ack().await?;
        }
    }
    Ok(())
}
