//! What runs in processes of its own: the producer and the application instances. Each ends in good order when its standard
//! input ends, and writes its own history.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use fanin_sdk::{AckError, Client, Message};
use fanin_tests::feed::{Feed, publish};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use crate::error::{RunError, during};
use crate::history::{Delivery, Event, Writer};
use crate::hub::connect;
use crate::limits::{ACKS_UNDER_WAY_MAX, CHUNK, CHUNK_PAUSE};
use crate::world::{SUBJECT, TOPIC};

/// One attempt to open a subscription may take this long; a bridge that is down may stay so for longer.
const OPEN_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two attempts to open a subscription.
const REOPEN_PAUSE: Duration = Duration::from_millis(200);
/// Every so many deliveries one is given back, on its first attempt.
const RETRIED_EVERY: usize = 53;

/// The producer's arguments.
#[derive(Clone, Debug, Args)]
pub(crate) struct Produce {
    #[arg(long, value_delimiter = ',')]
    servers: Vec<String>,
    #[arg(long)]
    history: PathBuf,
}

/// An instance's arguments.
#[derive(Clone, Debug, Args)]
pub(crate) struct Consume {
    #[arg(long)]
    socket: String,
    #[arg(long)]
    app: String,
    #[arg(long)]
    name: String,
    #[arg(long)]
    history: PathBuf,
}

/// Standard input, which is a pipe whose other end the run holds.
fn input() -> Result<pipe::Receiver, RunError> {
    let input = std::io::stdin().as_fd().try_clone_to_owned();
    input
        .and_then(pipe::Receiver::from_owned_fd)
        .map_err(during("taking standard input"))
}

/// Ends when the input does.
async fn told_to_stop(mut input: pipe::Receiver) {
    let mut rest = Vec::new();
    // An error ends the input as well.
    let _ = input.read_to_end(&mut rest).await;
}

/// Publishes in chunks until told to stop. A message is tried again under one dedupe id until the hub confirms it.
pub(crate) async fn produce(args: Produce) -> Result<(), RunError> {
    let failed = "writing the producer's history";
    let mut history = Writer::open(&args.history).map_err(during(failed))?;
    history
        .write(Event::Started { app: String::new() })
        .map_err(during(failed))?;
    let jetstream = connect(&args.servers).await?;
    let mut stop = std::pin::pin!(told_to_stop(input()?));
    let mut beat = tokio::time::interval(CHUNK_PAUSE);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut first = 0;
    loop {
        tokio::select! {
            () = &mut stop => return Ok(()),
            _ = beat.tick() => {}
        }
        let feed = Feed::new(SUBJECT, CHUNK).starting_at(first);
        let ids = publish(&jetstream, &feed).await.map_err(during("publishing"))?;
        for (number, id) in (first..).zip(ids) {
            history
                .write(Event::Stored { number, id })
                .map_err(during(failed))?;
        }
        first += CHUNK;
    }
}

type Answer = (u64, Result<(), AckError>);

/// Subscribes, acknowledges nearly everything, and opens the subscription again when it ends.
pub(crate) async fn consume(args: Consume) -> Result<(), RunError> {
    let failed = "writing the instance's history";
    let mut history = Writer::open(&args.history).map_err(during(failed))?;
    history
        .write(Event::Started {
            app: args.app.clone(),
        })
        .map_err(during(failed))?;
    let mut stop = std::pin::pin!(told_to_stop(input()?));
    let mut beat = tokio::time::interval(REOPEN_PAUSE);
    let mut nth = 0;
    loop {
        let why = tokio::select! {
            () = &mut stop => return Ok(()),
            opened = open(&args) => match opened {
                Err(why) => why,
                Ok(subscription) => {
                    let ended = work(subscription, &mut history, &mut nth, stop.as_mut()).await?;
                    let Some(why) = ended else { return Ok(()) };
                    why
                }
            },
        };
        history
            .write(Event::Interrupted { why })
            .map_err(during(failed))?;
        beat.tick().await;
    }
}

async fn open(args: &Consume) -> Result<fanin_sdk::Subscription, String> {
    let connected = Client::builder()
        .socket(&args.socket)
        .wait_for_bridge(OPEN_TIMEOUT)
        .connect()
        .await;
    let client = connected.map_err(|error| error.to_string())?;
    let opened = client
        .subscribe(TOPIC, &args.app)
        .instance(&args.name)
        .open()
        .await;
    opened.map_err(|error| error.to_string())
}

/// Works until told to stop (`None`) or until the subscription ends (why).
async fn work(
    mut subscription: fanin_sdk::Subscription,
    history: &mut Writer,
    nth: &mut u64,
    mut stop: std::pin::Pin<&mut impl Future<Output = ()>>,
) -> Result<Option<String>, RunError> {
    let mut acks: FuturesUnordered<BoxFuture<'static, Answer>> = FuturesUnordered::new();
    let ended = loop {
        tokio::select! {
            () = &mut stop => break None,
            Some(answer) = acks.next() => record(history, answer)?,
            message = subscription.next(), if acks.len() < ACKS_UNDER_WAY_MAX => match message {
                Some(Ok(message)) => {
                    *nth += 1;
                    if let Some(ack) = handle(history, *nth, message)? {
                        acks.push(ack);
                    }
                }
                Some(Err(error)) => break Some(error.to_string()),
                None => break Some("the subscription ended".to_owned()),
            },
        }
    };
    // Closing waits for the verdicts under way, and they need this task to go on.
    let mut closing = std::pin::pin!(subscription.close());
    let mut closed = false;
    while !closed || !acks.is_empty() {
        tokio::select! {
            _ = &mut closing, if !closed => closed = true,
            Some(answer) = acks.next() => record(history, answer)?,
        }
    }
    Ok(ended)
}

fn handle(
    history: &mut Writer,
    nth: u64,
    message: Message,
) -> Result<Option<BoxFuture<'static, Answer>>, RunError> {
    let failed = "writing the instance's history";
    let text = String::from_utf8_lossy(message.payload());
    let number = text.trim_end().parse().map_err(during("reading a body"))?;
    let delivered = Delivery {
        nth,
        id: message.id().to_owned(),
        number,
        node: message.node().to_owned(),
        attempt: message.attempt(),
    };
    history
        .write(Event::Delivered(delivered))
        .map_err(during(failed))?;
    if number % RETRIED_EVERY == 0 && message.attempt() == 1 {
        history.write(Event::GivenBack { nth }).map_err(during(failed))?;
        message.retry(None, "chaos gives this one back");
        return Ok(None);
    }
    let confirmed = message.ack();
    Ok(Some(Box::pin(async move { (nth, confirmed.await) })))
}

fn record(history: &mut Writer, (nth, result): Answer) -> Result<(), RunError> {
    let event = match result {
        Ok(()) => Event::Confirmed { nth },
        // It may be durable although its confirmation was lost.
        Err(error) if error.may_have_effect() => Event::Doubted { nth },
        // It certainly is not; the message comes again, here or elsewhere.
        Err(_) => Event::Refused { nth },
    };
    history
        .write(event)
        .map_err(during("writing the instance's history"))
}
