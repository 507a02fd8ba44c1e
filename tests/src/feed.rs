//! Puts messages into the hub and tells their ids.

use std::time::{Duration, Instant};

use async_nats::jetstream::{self, message::PublishMessage};
use bytes::Bytes;
use futures_util::TryStreamExt;
use futures_util::stream::FuturesOrdered;

use crate::limits::{FEED_TIMEOUT, FEED_WINDOW};
use crate::wait::patience;

const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// What to publish. Subjects are `<prefix>.<i % keys>`, bodies hold the number and are padded to `payload_bytes`.
#[derive(Clone, Debug)]
pub struct Feed {
    /// First tokens of the subject.
    pub subject_prefix: String,
    /// How many messages.
    pub count: usize,
    /// Number of the first message: a feed that goes on where another ended starts with its end.
    pub first: usize,
    /// How many different last tokens the subjects have; at least 1.
    pub keys: usize,
    /// Size of each body in bytes, at least the number's own.
    pub payload_bytes: usize,
}

impl Feed {
    /// `count` messages of 128 bytes with 16 keys.
    pub fn new(subject_prefix: &str, count: usize) -> Self {
        Self {
            subject_prefix: subject_prefix.to_owned(),
            count,
            first: 0,
            keys: 16,
            payload_bytes: 128,
        }
    }

    /// Starts with number `first`.
    pub fn starting_at(mut self, first: usize) -> Self {
        self.first = first;
        self
    }

    /// Subject of message `number`.
    pub fn subject(&self, number: usize) -> String {
        format!("{}.{}", self.subject_prefix, number % self.keys.max(1))
    }

    /// Body of message `number`.
    pub fn payload(&self, number: usize) -> Bytes {
        let mut body = number.to_string().into_bytes();
        body.resize(body.len().max(self.payload_bytes), b' ');
        Bytes::from(body)
    }
}

/// A message that the hub did not confirm in time.
#[derive(Debug, thiserror::Error)]
#[error("message {number} of the feed was not stored within {:.0} s: {reason}", patience(FEED_TIMEOUT).as_secs_f64())]
pub struct FeedError {
    number: usize,
    reason: String,
}

/// Publishes a feed and returns the ids (`STREAM:seq`) in its order, which is the stream's order while the hub is well.
///
/// Each message is tried again until the hub confirms it, always with the same dedupe id, so that a hub that is
/// killed meanwhile still holds each message once; then messages may overtake each other.
pub async fn publish(jetstream: &jetstream::Context, feed: &Feed) -> Result<Vec<String>, FeedError> {
    let mut ids = Vec::with_capacity(feed.count);
    let mut under_way = FuturesOrdered::new();
    for number in feed.first..feed.first + feed.count {
        if under_way.len() == FEED_WINDOW {
            ids.extend(under_way.try_next().await?);
        }
        let sent = send(jetstream, feed, number).await;
        under_way.push_back(stored(jetstream, feed, number, sent));
    }
    while let Some(id) = under_way.try_next().await? {
        ids.push(id);
    }
    Ok(ids)
}

type Sent = Result<jetstream::context::PublishAckFuture, jetstream::context::PublishError>;

async fn send(jetstream: &jetstream::Context, feed: &Feed, number: usize) -> Sent {
    let id = format!("{}/{number}", feed.subject_prefix);
    let message = PublishMessage::build()
        .payload(feed.payload(number))
        .message_id(id);
    jetstream.send_publish(feed.subject(number), message).await
}

async fn stored(
    jetstream: &jetstream::Context,
    feed: &Feed,
    number: usize,
    mut sent: Sent,
) -> Result<String, FeedError> {
    let start = Instant::now();
    loop {
        let answer = match sent {
            Ok(ack) => ack.await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(ack) => return Ok(format!("{}:{}", ack.stream, ack.sequence)),
            Err(error) if start.elapsed() > patience(FEED_TIMEOUT) => {
                return Err(FeedError {
                    number,
                    reason: error.to_string(),
                });
            }
            Err(_) => tokio::time::sleep(RETRY_PAUSE).await,
        }
        sent = send(jetstream, feed, number).await;
    }
}

#[cfg(test)]
mod tests {
    // Goal: a feed's ids are what the hub stored, each once, also across a kill of the hub.
    // Method: a real server; the stream is counted afterwards.
    use super::*;
    use crate::hub::{connect, create_source, start_hub};
    use crate::wait::eventually;

    #[tokio::test]
    async fn ids_follow_the_stream_even_when_the_hub_is_killed() {
        let mut hub = start_hub().await;
        let jetstream = connect(&hub.url()).await.unwrap();
        create_source(&jetstream, "FEED", &["feed.>"]).await.unwrap();
        let mut ids = publish(&jetstream, &Feed::new("feed", 600)).await.unwrap();
        assert_eq!((ids[0].as_str(), ids[599].as_str()), ("FEED:1", "FEED:600"));

        let rest = Feed::new("feed", 4_000).starting_at(600);
        let publisher = tokio::spawn({
            let jetstream = jetstream.clone();
            async move { publish(&jetstream, &rest).await }
        });
        let stored = || async {
            let stream = jetstream
                .get_stream("FEED")
                .await
                .map_err(|error| error.to_string())?;
            let messages = stream.cached_info().state.messages;
            if messages > 700 {
                Ok(())
            } else {
                Err(format!("{messages} messages"))
            }
        };
        eventually(Duration::from_secs(20), "the feed to be under way", stored).await;
        hub.restart().await.unwrap();
        ids.extend(publisher.await.unwrap().unwrap());

        let distinct: std::collections::BTreeSet<&String> = ids.iter().collect();
        assert_eq!(distinct.len(), 4_600);
        let info = jetstream.get_stream("FEED").await.unwrap().cached_info().clone();
        assert_eq!(info.state.messages, 4_600);
    }
}
