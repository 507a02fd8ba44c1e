//! What nearly every test needs: a hub with the stream `ORDERS`, nodes, instances on them, a feed, and the end at which
//! everything is judged.

use std::time::Duration;

use async_nats::jetstream::{self, consumer};
use fanin_localhub::LocalHub;
use fanin_proto::v1::{MappingStatus, StatusResponse};
use fanin_tests::apps::{AppInstance, AppOptions};
use fanin_tests::checker::{Recorder, Report};
use fanin_tests::feed::{Feed, publish};
use fanin_tests::hub::{connect, create_source, start_hub};
use fanin_tests::process::{Bridge, BridgeOptions};
use fanin_tests::wait::{eventually, until};
use futures_util::TryStreamExt;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The source stream.
pub(crate) const STREAM: &str = "ORDERS";
/// First token of its subjects.
pub(crate) const SUBJECT: &str = "orders";
/// The mapping, and its topic.
pub(crate) const TOPIC: &str = "orders";
/// The ledger of that mapping.
pub(crate) const LEDGER: &str = "FANIN-orders";
/// The hub's wait before it redelivers, as configured in every test.
pub(crate) const ACK_WAIT: Duration = Duration::from_secs(2);
/// How long anything may take before the test gives up.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// One mapping from `ORDERS` for these applications, with short times and small batches, so that little traffic makes
/// many of them.
pub(crate) fn mapping(apps: &[&str]) -> Value {
    json!({ TOPIC: {
        "sources": [{ "stream": STREAM }],
        "ack_wait": "2s",
        "grace": "1s",
        "nodes": 3,
        "in_flight": 256,
        "batch": { "messages": 20, "linger": "2ms" },
        "applications": applications(apps),
    } })
}

/// An `applications` section.
pub(crate) fn applications(apps: &[&str]) -> Value {
    let one = json!({ "backoff": { "initial": "50ms", "max": "1s" }, "lease": "10s", "max_attempts": 20 });
    apps.iter().map(|app| ((*app).to_owned(), one.clone())).collect()
}

/// A hub with nodes and applications.
///
/// Fields go in this order at the end: instances leave before their nodes, nodes before their hub.
pub(crate) struct Cluster {
    pub(crate) instances: Vec<AppInstance>,
    pub(crate) nodes: Vec<Bridge>,
    pub(crate) jetstream: jetstream::Context,
    pub(crate) recorder: Recorder,
    /// Ids of everything fed so far.
    pub(crate) ids: Vec<String>,
    pub(crate) apps: Vec<&'static str>,
    pub(crate) hub: LocalHub,
    fed: usize,
}

impl Cluster {
    /// A hub and an empty stream, no nodes yet.
    pub(crate) async fn new(apps: &[&'static str]) -> Self {
        Self::on(start_hub().await, apps).await
    }

    /// [`Self::new`] on a hub that runs already.
    pub(crate) async fn on(hub: LocalHub, apps: &[&'static str]) -> Self {
        let jetstream = connect(hub.url()).await.unwrap();
        let subjects = format!("{SUBJECT}.>");
        create_source(&jetstream, STREAM, &[&subjects]).await.unwrap();
        Self::of(hub, jetstream, apps)
    }

    /// [`Self::on`] with a connection, on a hub that has the stream.
    pub(crate) fn of(hub: LocalHub, jetstream: jetstream::Context, apps: &[&'static str]) -> Self {
        Self {
            instances: Vec::new(),
            nodes: Vec::new(),
            jetstream,
            recorder: Recorder::new(),
            ids: Vec::new(),
            apps: apps.to_vec(),
            hub,
            fed: 0,
        }
    }

    /// [`Self::new`] with `nodes` nodes `n1`, `n2`, ... and `instances` instances of each application on each.
    pub(crate) async fn with_nodes(apps: &[&'static str], nodes: usize, instances: usize) -> Self {
        let mut cluster = Self::new(apps).await;
        for number in 1..=nodes {
            let options = cluster.options(&format!("n{number}"));
            cluster.add(options, instances).await;
        }
        cluster
    }

    /// Options of a node with the usual mapping.
    pub(crate) fn options(&self, node: &str) -> BridgeOptions {
        BridgeOptions::new(node, &self.hub.url(), mapping(&self.apps))
    }

    /// The same, and its log tells which claims it has not heard of: [`unheard_claims`].
    pub(crate) fn talkative(&self, node: &str) -> BridgeOptions {
        self.options(node).with_config(&talkative())
    }

    /// Starts a node with `instances` instances of each application.
    pub(crate) async fn add(&mut self, options: BridgeOptions, instances: usize) {
        self.nodes.push(Bridge::start(options).await.unwrap());
        let last = self.nodes.len() - 1;
        for number in 1..=instances {
            for app in self.apps.clone() {
                self.instance(last, app, &format!("{app}-{number}"), |options| options)
                    .await;
            }
        }
    }

    /// Starts one instance on node number `node` (from 0).
    pub(crate) async fn instance(
        &mut self,
        node: usize,
        app: &str,
        name: &str,
        change: impl FnOnce(AppOptions) -> AppOptions,
    ) {
        let options = AppOptions::new(&self.nodes[node].socket(), TOPIC, app, name);
        let started = AppInstance::start(change(options), self.recorder.clone()).await;
        self.instances.push(started.unwrap());
    }

    /// Publishes `count` messages and waits until the hub has them.
    pub(crate) async fn feed(&mut self, count: usize) {
        self.feed_as(count, |feed| feed).await;
    }

    /// Number of the next message.
    pub(crate) fn fed(&self) -> usize {
        self.fed
    }

    /// [`Self::feed`] with other bodies or subjects.
    pub(crate) async fn feed_as(&mut self, count: usize, change: impl FnOnce(Feed) -> Feed) {
        let feed = change(Feed::new(SUBJECT, count).starting_at(self.fed));
        self.fed += count;
        self.ids.extend(publish(&self.jetstream, &feed).await.unwrap());
    }

    /// Publishes in the background, 20 messages at a time, until [`Self::stop_stream`].
    pub(crate) fn stream(&self, every: Duration) -> Trickle {
        let (jetstream, first) = (self.jetstream.clone(), self.fed);
        let stop = CancellationToken::new();
        let task = tokio::spawn({
            let stop = stop.clone();
            async move {
                let mut beat = tokio::time::interval(every);
                let mut ids = Vec::new();
                while !stop.is_cancelled() {
                    beat.tick().await;
                    let feed = Feed::new(SUBJECT, 20).starting_at(first + ids.len());
                    ids.extend(publish(&jetstream, &feed).await.unwrap());
                }
                ids
            }
        });
        Trickle { stop, task }
    }

    /// Ends a background feed.
    pub(crate) async fn stop_stream(&mut self, trickle: Trickle) {
        trickle.stop.cancel();
        let ids = trickle.task.await.unwrap();
        self.fed += ids.len();
        self.ids.extend(ids);
    }

    /// Waits until `count` more acknowledgements are confirmed, over all applications.
    pub(crate) async fn wait_more(&self, count: usize) {
        let wanted = self.recorder.count() + count;
        eventually(LONG, "more acknowledgements", || async {
            let now = self.recorder.count();
            if now >= wanted {
                Ok(())
            } else {
                Err(format!("{now} of {wanted}"))
            }
        })
        .await;
    }

    /// Waits until every application has everything, the hub has nothing left to deliver or to be settled, and no node
    /// holds anything: what comes twice must have come by then.
    pub(crate) async fn wait_rest(&self) {
        let waited = until(LONG, "everything to be finished", || async {
            self.unfinished().await
        })
        .await;
        if let Err(error) = waited {
            let logs: String = self
                .nodes
                .iter()
                .map(|node| format!("--- {}\n{}", node.node(), node.log_tail()))
                .collect();
            panic!("{error}\n{}\n{logs}", self.report());
        }
    }

    async fn unfinished(&self) -> Result<(), String> {
        for app in &self.apps {
            let got = self.recorder.settled_by(app);
            if got < self.ids.len() {
                return Err(format!("{app} has {got} of {}", self.ids.len()));
            }
        }
        self.hub_at_rest().await?;
        for node in &self.nodes {
            let status = node.status().await.map_err(|error| error.to_string())?;
            at_rest(&status)?;
        }
        Ok(())
    }

    /// Whether the shared consumer has delivered everything and everything is settled.
    pub(crate) async fn hub_at_rest(&self) -> Result<(), String> {
        let consumer = self.consumer().await?;
        match (consumer.num_pending, consumer.num_ack_pending) {
            (0, 0) => Ok(()),
            (pending, unsettled) => Err(format!("{pending} messages to deliver, {unsettled} to settle")),
        }
    }

    /// The shared consumer as of now.
    pub(crate) async fn consumer(&self) -> Result<consumer::Info, String> {
        let stream = self
            .jetstream
            .get_stream_no_info(STREAM)
            .await
            .map_err(|error| error.to_string())?;
        let mut consumers = stream.consumers();
        let first = consumers.try_next().await.map_err(|error| error.to_string())?;
        first.ok_or_else(|| "no consumer".to_owned())
    }

    /// How often the hub has delivered something again since the consumer was made. The source has no gaps and no other
    /// subjects, so that what goes beyond one delivery of each sequence is that.
    pub(crate) async fn redelivered(&self) -> Result<u64, String> {
        let delivered = self.consumer().await?.delivered;
        Ok(delivered
            .consumer_sequence
            .saturating_sub(delivered.stream_sequence))
    }

    /// Waits until everything that the hub has delivered up to now is settled, whoever settles it: what a node that cannot
    /// answer holds has been delivered to another one then.
    pub(crate) async fn wait_settled_by_others(&self) {
        let delivered = self.consumer().await.unwrap().delivered.stream_sequence;
        eventually(LONG, "what was delivered to be settled by others", || async {
            let floor = self.consumer().await?.ack_floor.stream_sequence;
            if floor >= delivered {
                Ok(())
            } else {
                Err(format!("{floor} of {delivered}"))
            }
        })
        .await;
    }

    /// Wants every message to have exactly one place in exactly one node's topic. Together with [`Self::wait_rest`] this
    /// judges also the messages whose confirmation was lost, which the checker has to believe.
    pub(crate) async fn assert_published_once(&self) {
        let mut published = Vec::new();
        for node in &self.nodes {
            published.push(orders(&node.status().await.unwrap()).head_offset);
        }
        let all: u64 = published.iter().sum();
        assert_eq!(
            all,
            self.ids.len() as u64,
            "published by node: {published:?}\n{}",
            self.report()
        );
    }

    /// Judges what was recorded so far.
    pub(crate) fn report(&self) -> Report {
        self.recorder.judge(&self.ids, &self.apps)
    }

    /// How many messages were confirmed to `billing` by this node.
    pub(crate) fn share_of(&self, node: &str) -> usize {
        let report = self.report();
        let shares = report.apps["billing"].shares.iter();
        let own = shares.filter(|((of, _), _)| &**of == node);
        own.map(|(_, share)| *share).sum()
    }

    /// Waits for the rest, wants every message once per application, and stops everything in order: every instance
    /// without an error, every node with exit code 0.
    pub(crate) async fn finish(mut self) {
        self.wait_rest().await;
        self.report().assert_exactly_once();
        for instance in self.instances.drain(..) {
            instance.stop().await.unwrap();
        }
        for node in &self.nodes {
            node.stop().await.unwrap();
        }
        self.report().assert_exactly_once();
    }
}

/// The log level at which a node tells of each append that was not confirmed.
pub(crate) fn talkative() -> Value {
    json!({ "log": { "level": "info,fanin_bridge=debug" } })
}

/// How many times a node has sent a claim and not heard of it.
pub(crate) fn unheard_claims(node: &Bridge) -> usize {
    let is_one = |text: &str| text.contains("an append is not confirmed") && text.contains("\"claim\":");
    node.log().iter().filter(|line| is_one(&line.text)).count()
}

/// A feed in the background.
pub(crate) struct Trickle {
    stop: CancellationToken,
    task: JoinHandle<Vec<String>>,
}

/// Whether a node has handed out and finished all it holds.
pub(crate) fn at_rest(status: &StatusResponse) -> Result<(), String> {
    for mapping in &status.mappings {
        if mapping.staged_batches + mapping.unresolved_batches > 0 {
            return Err(format!("{} has unresolved batches: {mapping:?}", status.node));
        }
        for app in &mapping.apps {
            if app.backlog_messages + app.in_flight > 0 {
                return Err(format!(
                    "{} still holds messages for {}: {app:?}",
                    status.node, app.name
                ));
            }
        }
    }
    Ok(())
}

/// The usual mapping's part of a status.
pub(crate) fn orders(status: &StatusResponse) -> &MappingStatus {
    status
        .mappings
        .iter()
        .find(|mapping| mapping.name == TOPIC)
        .unwrap()
}
