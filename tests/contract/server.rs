//! A server of its own for each test, and the JetStream API in plain JSON.

use std::time::Duration;

use async_nats::{Client, HeaderMap, Message, Subscriber};
use bytes::Bytes;
use fanin_localhub::{LocalHub, LocalHubOptions, ServerBinary};
use futures_util::StreamExt;
use serde_json::{Value, json};

/// How long any single answer may take before a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A running server with one client.
pub(crate) struct Server {
    pub(crate) hub: LocalHub,
    pub(crate) client: Client,
}

/// One delivery of a pull, or the status that ended it.
pub(crate) struct Delivery {
    pub(crate) message: Message,
}

impl Delivery {
    /// The reply subject: where it is acknowledged.
    pub(crate) fn ack(&self) -> String {
        self.message
            .reply
            .as_ref()
            .expect("a delivery has a reply subject")
            .to_string()
    }

    /// The numbers in the reply subject: deliveries, stream sequence, consumer sequence.
    pub(crate) fn numbers(&self) -> (u64, u64, u64) {
        let facts = fanin_hub::DeliveryFacts::parse(&self.ack()).expect("a reply subject of JetStream");
        (facts.delivered, facts.stream_seq, facts.consumer_seq)
    }
}

impl Server {
    pub(crate) async fn start() -> Server {
        let binary = ServerBinary::find_or_fetch(None).expect("a nats-server");
        let hub = LocalHub::start(LocalHubOptions::new(binary))
            .await
            .expect("the server starts");
        let client = async_nats::connect(hub.url()).await.expect("the server answers");
        Server { hub, client }
    }

    /// A request to `$JS.API.<name>`; errors of the API are in the returned value.
    pub(crate) async fn api(&self, name: &str, body: Value) -> Value {
        let payload = if body.is_null() {
            Bytes::new()
        } else {
            Bytes::from(body.to_string())
        };
        let reply = tokio::time::timeout(PATIENCE, self.client.request(format!("$JS.API.{name}"), payload))
            .await
            .expect("an answer in time")
            .expect("an answer");
        serde_json::from_slice(&reply.payload).expect("JSON")
    }

    /// Like [`Server::api`], for requests that must succeed.
    pub(crate) async fn must(&self, name: &str, body: Value) -> Value {
        let value = self.api(name, body).await;
        assert!(value.get("error").is_none(), "{name}: {value}");
        value
    }

    /// A stream `S` on `s.>` with settings on top.
    pub(crate) async fn stream(&self, extra: Value) -> Value {
        let mut config = json!({ "name": "S", "subjects": ["s.>"], "storage": "file", "num_replicas": 1 });
        merge(&mut config, extra);
        self.must("STREAM.CREATE.S", config).await
    }

    /// A durable pull consumer `c` on `S` with explicit acknowledgements and settings on top.
    pub(crate) async fn consumer(&self, extra: Value) -> Value {
        let mut config = json!({ "durable_name": "c", "ack_policy": "explicit", "max_deliver": -1 });
        merge(&mut config, extra);
        let request = json!({ "stream_name": "S", "config": config, "action": "create" });
        self.must("CONSUMER.CREATE.S.c", request).await
    }

    /// Publishes and returns the stream's answer.
    pub(crate) async fn publish(&self, subject: &str, headers: &[(&str, &str)], body: &str) -> Value {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, *value);
        }
        let reply = self
            .client
            .request_with_headers(subject.to_owned(), map, Bytes::from(body.to_owned()))
            .await
            .expect("an answer");
        serde_json::from_slice(&reply.payload).expect("JSON")
    }

    /// Publishes `count` messages to `s.a`.
    pub(crate) async fn fill(&self, count: u64) {
        for n in 1..=count {
            assert_eq!(self.publish("s.a", &[], &format!("{n}")).await["seq"], json!(n));
        }
    }

    /// Pulls up to `batch` messages; returns those delivered before the pull ended, and the status that ended it.
    pub(crate) async fn pull(&self, batch: u64, expires: Duration) -> (Vec<Delivery>, Option<u16>) {
        let request = json!({ "batch": batch, "expires": u64::try_from(expires.as_nanos()).unwrap() });
        let (deliveries, end) = self.pull_with(request).await;
        (
            deliveries,
            end.and_then(|message| message.status)
                .map(|status| status.as_u16()),
        )
    }

    /// Sends one pull request; returns what was delivered, and the status message that ended it, if one did.
    pub(crate) async fn pull_with(&self, request: Value) -> (Vec<Delivery>, Option<Message>) {
        let inbox = self.client.new_inbox();
        let mut answers = self
            .client
            .subscribe(inbox.clone())
            .await
            .expect("a subscription");
        let batch = usize::try_from(request["batch"].as_u64().expect("a batch")).unwrap();
        self.client
            .publish_with_reply(
                "$JS.API.CONSUMER.MSG.NEXT.S.c",
                inbox,
                Bytes::from(request.to_string()),
            )
            .await
            .expect("sent");
        let mut deliveries = Vec::new();
        while deliveries.len() < batch {
            let message = next(&mut answers).await;
            if message.status.is_some() {
                return (deliveries, Some(message));
            }
            deliveries.push(Delivery { message });
        }
        (deliveries, None)
    }

    /// Pulls exactly one message.
    pub(crate) async fn pull_one(&self) -> Delivery {
        let (mut deliveries, status) = self.pull(1, PATIENCE).await;
        assert_eq!(status, None);
        deliveries.remove(0)
    }

    /// Acknowledges with a reply and returns it.
    pub(crate) async fn ack(&self, subject: &str, body: &'static str) -> Message {
        tokio::time::timeout(
            PATIENCE,
            self.client
                .request(subject.to_owned(), Bytes::from_static(body.as_bytes())),
        )
        .await
        .expect("an answer in time")
        .expect("an answer")
    }

    pub(crate) async fn consumer_info(&self) -> Value {
        self.must("CONSUMER.INFO.S.c", Value::Null).await
    }
}

/// The next message of a subscription.
pub(crate) async fn next(answers: &mut Subscriber) -> Message {
    tokio::time::timeout(PATIENCE, answers.next())
        .await
        .expect("a message in time")
        .expect("an open subscription")
}

fn merge(config: &mut Value, extra: Value) {
    if let (Some(config), Value::Object(extra)) = (config.as_object_mut(), extra) {
        config.extend(extra);
    }
}

/// The exact code of an error answer.
pub(crate) fn error_code(value: &Value) -> Option<u64> {
    value.get("error")?.get("err_code")?.as_u64()
}
