//! A topic over the log's twin in memory, served on a real Unix socket, and a client that speaks the bare contract.

use std::{collections::BTreeMap, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use fanin_bridge::{
    ambient::Ambient,
    serve::{ServeOptions, Server, StatusSource, Topics},
    stage::{RECORD_RESOLUTION, RECORD_STAGE, Resolution, StagedBatch, StagedMessage, runs_of},
    topic::{
        AppSpec, BodyCache, PublishedBatch, RestoredBatch, SubjectFilter, Topic, TopicEvent, TopicFailure,
        TopicOptions, TopicRecovery,
    },
};
use fanin_core::{
    delivery::{Backoff, Policy},
    ids::{BatchNo, Incarnation, LedgerSeq, StreamSeq, TermsVersion},
};
use fanin_proto::v1::{
    Close, Credit, Deliveries, Delivery, DeliveryRange, Open, Opened, StatusResponse, SubscribeRequest,
    SubscribeResponse, Verdicts, subscribe_request::Request, subscribe_response::Response,
    topic_service_client::TopicServiceClient,
};
use fanin_store::{Class, Key, MemStore, Op, Recovered, Store};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::{net::UnixStream, sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint},
};

/// The mapping's space in the log.
pub(crate) const SPACE: u32 = 1;
/// Far above what anything here takes; only a hang reaches it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn policy() -> Policy {
    Policy {
        max_attempts: 3,
        backoff: Backoff {
            initial_ms: 1,
            factor_milli: 1_000,
            max_ms: 1,
            jitter_percent: 0,
        },
        lease_ms: 60_000,
        in_flight_max: 1_000_000,
        instance_in_flight_max: 60_000,
    }
}

pub(crate) fn app(name: &str) -> AppSpec {
    AppSpec {
        name: name.into(),
        policy: policy(),
        filter: SubjectFilter::default(),
        since: Some(TermsVersion(1)),
        allowed_uids: vec![],
    }
}

pub(crate) fn options(apps: Vec<AppSpec>) -> TopicOptions {
    TopicOptions {
        name: "orders".into(),
        node: "n1".into(),
        space: SPACE,
        apps,
        absent: Vec::new(),
        ambient: Ambient::system(),
    }
}

pub(crate) struct World {
    pub(crate) store: Arc<MemStore>,
    pub(crate) cache: Arc<BodyCache>,
    pub(crate) topic: Topic,
    pub(crate) server: Option<Server>,
    /// The applications of the next start.
    pub(crate) apps: Vec<AppSpec>,
    /// Those of the app set that the next start is not configured with.
    pub(crate) absent: Vec<String>,
    /// Batches told as done since the start.
    pub(crate) done: Arc<Mutex<Vec<BatchNo>>>,
    /// Failures told since the start.
    pub(crate) failures: Arc<Mutex<Vec<TopicFailure>>>,
    /// Batches that the topic called damaged.
    pub(crate) damaged: Arc<Mutex<Vec<BatchNo>>>,
    pub(crate) terms: TermsVersion,
    /// Another node wins the first message of each batch.
    pub(crate) lose_first: bool,
    next_batch: u64,
    next_seq: u64,
    directory: tempfile::TempDir,
}

struct Named;

impl StatusSource for Named {
    fn status(&self) -> Pin<Box<dyn Future<Output = StatusResponse> + Send + '_>> {
        Box::pin(async {
            StatusResponse {
                node: "n1".into(),
                ..StatusResponse::default()
            }
        })
    }

    fn holdings<'a>(
        &'a self,
        mapping: &'a str,
        _with_state: bool,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<fanin_proto::v1::HoldingsPart>, tonic::Status>> + Send + 'a>>
    {
        Box::pin(async move { Err(tonic::Status::not_found(mapping)) })
    }
}

impl World {
    pub(crate) async fn new(apps: Vec<AppSpec>) -> World {
        World::with_memory(apps, 64 << 20, 16 << 20).await
    }

    pub(crate) async fn with_memory(apps: Vec<AppSpec>, tail: u64, read: u64) -> World {
        let cache = Arc::new(BodyCache::new(tail, read));
        World::start(
            MemStore::new(1 << 40, 0),
            Recovered::default(),
            (apps, Vec::new()),
            cache,
            (1, 1),
        )
        .await
    }

    pub(crate) async fn in_store(store: Arc<MemStore>, apps: Vec<AppSpec>) -> World {
        let cache = Arc::new(BodyCache::new(64 << 20, 16 << 20));
        World::start(store, Recovered::default(), (apps, Vec::new()), cache, (1, 1)).await
    }

    async fn start(
        store: Arc<MemStore>,
        recovered: Recovered,
        (apps, absent): (Vec<AppSpec>, Vec<String>),
        cache: Arc<BodyCache>,
        next: (u64, u64),
    ) -> World {
        let options = TopicOptions {
            absent: absent.clone(),
            ..options(apps.clone())
        };
        let recovery = TopicRecovery {
            values: &recovered.values,
            records: &recovered.records,
        };
        let batches = restored(&recovered);
        let (topic, mut events) = Topic::start(
            options,
            batches,
            recovery,
            Arc::clone(&store) as Arc<dyn Store>,
            Arc::clone(&cache),
        )
        .unwrap();
        let done = Arc::new(Mutex::new(Vec::new()));
        let failures = Arc::new(Mutex::new(Vec::new()));
        let damaged = Arc::new(Mutex::new(Vec::new()));
        let (told, told_failures) = (Arc::clone(&done), Arc::clone(&failures));
        let told_damaged = Arc::clone(&damaged);
        tokio::spawn(async move {
            loop {
                match events.next().await {
                    TopicEvent::BatchesDone(batches) => told.lock().extend(batches),
                    TopicEvent::Damaged(batch) => told_damaged.lock().push(batch),
                    TopicEvent::Failed(failure) => told_failures.lock().push(failure),
                }
            }
        });
        let topics = Arc::new(Topics::default());
        topics.add(topic.clone());
        let directory = tempfile::tempdir().unwrap();
        let serve = ServeOptions {
            socket: directory.path().join("s"),
            mode: 0o660,
        };
        let server = Server::start(serve, Arc::clone(&topics), Arc::new(Named))
            .await
            .unwrap();
        World {
            store,
            cache,
            topic,
            server: Some(server),
            apps,
            absent,
            done,
            failures,
            damaged,
            terms: TermsVersion(1),
            lose_first: false,
            next_batch: next.0,
            next_seq: next.1,
            directory,
        }
    }

    /// As after a power cut: only what was synced is left; everything else is made anew.
    pub(crate) async fn restart(self) -> World {
        let (store, recovered) = self.store.crash();
        let cache = Arc::new(BodyCache::new(64 << 20, 16 << 20));
        World::start(
            store,
            recovered,
            (self.apps.clone(), self.absent.clone()),
            cache,
            (self.next_batch, self.next_seq),
        )
        .await
    }

    /// Publishes one batch of messages with these subjects and payload sizes. Returns the ids of those that are won.
    pub(crate) async fn publish_as(&mut self, messages: &[(&str, usize)]) -> Vec<String> {
        let staged: Vec<StagedMessage> = messages
            .iter()
            .map(|(subject, size)| {
                let seq = self.next_seq;
                self.next_seq += 1;
                let mut payload = format!("payload {seq} ").into_bytes();
                payload.resize(*size, b'.');
                StagedMessage {
                    seq: StreamSeq(seq),
                    published_ns: 1_700_000_000_000_000_000,
                    subject: (*subject).to_owned(),
                    headers: vec![("Kind".into(), "test".into())],
                    payload: Bytes::from(payload),
                }
            })
            .collect();
        let batch = BatchNo(self.next_batch);
        self.next_batch += 1;
        let body = Arc::new(StagedBatch::new(
            batch,
            Incarnation(7),
            LedgerSeq(1),
            1,
            "ORDERS".into(),
            staged,
        ));
        let lost = usize::from(self.lose_first);
        let won = runs_of(body.messages[lost..].iter().map(|message| message.seq));
        let ids = ids_of(&body.messages[lost..]);
        let resolution = Resolution {
            batch,
            position: LedgerSeq(batch.0),
            terms: self.terms,
            base: self.topic.head(),
            won,
        };
        let (head, pieces) = body.encode();
        let key = Key {
            space: SPACE,
            id: batch.0,
        };
        let ops = vec![
            Op::Append {
                key,
                kind: RECORD_STAGE,
                head,
                body: pieces,
            },
            Op::Append {
                key,
                kind: RECORD_RESOLUTION,
                head: resolution.encode(),
                body: vec![],
            },
        ];
        let locations = self.store.commit(Class::Intake, ops).await.unwrap();
        let published = PublishedBatch {
            base: resolution.base,
            terms: resolution.terms,
            won: resolution.won,
            at: locations[0],
            body,
        };
        self.topic.publish(published).unwrap();
        ids
    }

    pub(crate) async fn publish(&mut self, count: usize) -> Vec<String> {
        self.publish_as(&vec![("orders.new", 100); count]).await
    }

    /// Frees batches that are done, as their owner does.
    pub(crate) async fn release(&self, batches: impl IntoIterator<Item = u64>) {
        let release = |id| Op::Release {
            key: Key { space: SPACE, id },
        };
        let ops = batches.into_iter().map(release).collect();
        self.store.commit(Class::Finish, ops).await.unwrap();
    }

    pub(crate) fn socket(&self) -> std::path::PathBuf {
        self.directory.path().join("s")
    }

    pub(crate) async fn channel(&self) -> Channel {
        let path = self.socket();
        let connect = tower::service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        Endpoint::from_static("http://localhost")
            .connect_with_connector(connect)
            .await
            .unwrap()
    }

    pub(crate) async fn open(&self, app: &str, instance: &str) -> Client {
        Client::open(self.channel().await, "orders", app, instance)
            .await
            .unwrap()
    }

    /// Waits until the named batches are told as done.
    pub(crate) async fn until_done(&self, batches: impl IntoIterator<Item = u64>) {
        let mut wanted: Vec<BatchNo> = batches.into_iter().map(BatchNo).collect();
        wanted.sort_unstable();
        eventually("batches done", || {
            let mut done = self.done.lock().clone();
            done.sort_unstable();
            done == wanted
        })
        .await;
    }
}

/// Yields to the other tasks until the condition holds.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let waited = timeout(PATIENCE, async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    });
    assert!(waited.await.is_ok(), "never came about: {what}");
}

fn ids_of(messages: &[StagedMessage]) -> Vec<String> {
    messages
        .iter()
        .map(|message| format!("ORDERS:{}", message.seq))
        .collect()
}

pub(crate) fn restored(recovered: &Recovered) -> Vec<RestoredBatch> {
    let mut stages = BTreeMap::new();
    let mut batches = Vec::new();
    for record in recovered
        .records
        .iter()
        .filter(|record| record.key.space == SPACE)
    {
        if record.kind == RECORD_STAGE {
            stages.insert(
                record.key,
                (StagedBatch::decode_head(&record.head).unwrap(), record.at),
            );
        } else if record.kind == RECORD_RESOLUTION {
            let (head, at) = stages[&record.key].clone();
            batches.push(RestoredBatch {
                head: Some(head),
                at,
                resolution: Resolution::decode(&record.head).unwrap(),
            });
        }
    }
    batches
}

/// One instance, by the bare contract.
pub(crate) struct Client {
    pub(crate) requests: mpsc::Sender<SubscribeRequest>,
    pub(crate) responses: Streaming<SubscribeResponse>,
    pub(crate) opened: Opened,
    /// Confirmed deliveries so far.
    pub(crate) confirmed: Vec<u64>,
    pub(crate) lost: Vec<u64>,
    pub(crate) closing: Option<String>,
    /// Delivered and not yet taken by the test.
    pub(crate) buffered: Vec<Delivery>,
}

fn request(request: Request) -> SubscribeRequest {
    SubscribeRequest {
        request: Some(request),
    }
}

pub(crate) fn range(first: u64, last: u64) -> Vec<DeliveryRange> {
    vec![DeliveryRange { first, last }]
}

impl Client {
    pub(crate) async fn open(
        channel: Channel,
        topic: &str,
        app: &str,
        instance: &str,
    ) -> Result<Client, Status> {
        let open = Open {
            topic: topic.into(),
            app: app.into(),
            instance: instance.into(),
            client: "test".into(),
        };
        Client::begin(channel, request(Request::Open(open))).await
    }

    pub(crate) async fn begin(channel: Channel, first: SubscribeRequest) -> Result<Client, Status> {
        let (requests, receiver) = mpsc::channel(64);
        requests.send(first).await.unwrap();
        let mut service = TopicServiceClient::new(channel).max_decoding_message_size(80 << 20);
        let mut responses = service
            .subscribe(ReceiverStream::new(receiver))
            .await?
            .into_inner();
        let first = responses.message().await?.and_then(|response| response.response);
        let Some(Response::Opened(opened)) = first else {
            panic!("first response: {first:?}")
        };
        Ok(Client {
            requests,
            responses,
            opened,
            confirmed: vec![],
            lost: vec![],
            closing: None,
            buffered: vec![],
        })
    }

    pub(crate) async fn send(&self, what: Request) {
        self.requests.send(request(what)).await.unwrap();
    }

    pub(crate) async fn credit(&self, bytes: u64, messages: u32) {
        self.send(Request::Credit(Credit { bytes, messages })).await;
    }

    /// Credit for everything a test sends.
    pub(crate) async fn much_credit(&self) {
        self.credit(1 << 30, 60_000).await;
    }

    pub(crate) async fn verdicts(&self, verdicts: Verdicts) {
        self.send(Request::Verdicts(verdicts)).await;
    }

    pub(crate) async fn ack(&self, first: u64, last: u64) {
        self.verdicts(Verdicts {
            begun_through: last,
            acks: range(first, last),
            ..Verdicts::default()
        })
        .await;
    }

    pub(crate) async fn close(&self) {
        self.send(Request::Close(Close {})).await;
    }

    /// Takes one frame in. False when the stream has ended in peace.
    pub(crate) async fn step(&mut self) -> Result<bool, Status> {
        let message = timeout(PATIENCE, self.responses.message())
            .await
            .expect("no frame came")?;
        let Some(response) = message.and_then(|message| message.response) else {
            return Ok(false);
        };
        let numbers =
            |ranges: Vec<DeliveryRange>| ranges.into_iter().flat_map(|range| range.first..=range.last);
        match response {
            Response::Opened(_) => panic!("opened twice"),
            Response::Deliveries(Deliveries { deliveries }) => self.buffered.extend(deliveries),
            Response::Confirmed(confirmed) => self.confirmed.extend(numbers(confirmed.deliveries)),
            Response::LeasesLost(lost) => self.lost.extend(numbers(lost.deliveries)),
            Response::Closing(closing) => self.closing = Some(closing.code),
        }
        Ok(true)
    }

    /// The next `count` deliveries.
    pub(crate) async fn take(&mut self, count: usize) -> Vec<Delivery> {
        while self.buffered.len() < count {
            assert!(self.step().await.unwrap(), "the stream ended");
        }
        self.buffered.drain(..count).collect()
    }

    pub(crate) async fn until_confirmed(&mut self, count: usize) {
        while self.confirmed.len() < count {
            assert!(self.step().await.unwrap(), "the stream ended");
        }
    }

    /// The error that the stream ends with, passing over frames before it.
    pub(crate) async fn until_error(&mut self) -> Status {
        loop {
            match self.step().await {
                Ok(true) => {}
                Ok(false) => panic!("the stream ended in peace"),
                Err(status) => return status,
            }
        }
    }

    pub(crate) async fn until_end_or_error(&mut self) {
        while let Ok(true) = self.step().await {}
    }

    pub(crate) async fn until_end(&mut self) {
        while self.step().await.unwrap() {}
    }
}

pub(crate) fn ids(deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().map(|delivery| delivery.id.clone()).collect()
}
