//! A bridge that does what a test tells it.

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fanin_proto::v1::node_service_server::{NodeService, NodeServiceServer};
use fanin_proto::v1::subscribe_request::Request as Sent;
use fanin_proto::v1::subscribe_response::Response as Answer;
use fanin_proto::v1::topic_service_server::{TopicService, TopicServiceServer};
use fanin_proto::v1::{
    Closing, Confirmed, Deliveries, Delivery, DeliveryRange, Header, HoldingsPart, HoldingsRequest,
    LeasesLost, Open, Opened, Reject, Retry, StatusRequest, StatusResponse, SubscribeRequest,
    SubscribeResponse,
};
use fanin_sdk::{Client, Message, Subscription};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status, Streaming};

/// No condition of these tests takes this long unless it never comes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const LEASE: Duration = Duration::from_secs(30);

pub(crate) struct FakeBridge {
    dir: TempDir,
    sessions: mpsc::Receiver<Session>,
    service: Service,
    server: JoinHandle<()>,
}

#[derive(Clone)]
struct Service {
    sessions: mpsc::Sender<Session>,
    refusals: Arc<Mutex<VecDeque<Status>>>,
}

impl FakeBridge {
    pub(crate) fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("fanin-sdk").tempdir().unwrap();
        let (sender, sessions) = mpsc::channel(16);
        let service = Service {
            sessions: sender,
            refusals: Arc::default(),
        };
        let server = serve(&dir.path().join("s"), service.clone());
        Self {
            dir,
            sessions,
            service,
            server,
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    /// The next call of `Subscribe` fails with this.
    pub(crate) fn refuse_next(&self, status: Status) {
        self.service.refusals.lock().push_back(status);
    }

    /// Stops listening and removes the socket, as a stopped bridge does.
    pub(crate) async fn stop_listening(&mut self) {
        self.server.abort();
        let _ = (&mut self.server).await;
        std::fs::remove_file(self.socket()).unwrap();
    }

    pub(crate) fn listen_again(&mut self) {
        self.server = serve(&self.socket(), self.service.clone());
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(format!("unix://{}", self.socket().display()))
            .await
            .unwrap()
    }

    /// A subscription with usual options and the bridge's end of it.
    pub(crate) async fn subscribe(&mut self) -> (Subscription, Session) {
        let builder = self
            .client()
            .await
            .subscribe("orders", "billing")
            .instance("billing-1");
        let (subscription, session) = tokio::join!(builder.open(), self.accept());
        (subscription.unwrap(), session)
    }

    /// The next call, opened with a usual lease.
    pub(crate) async fn accept(&mut self) -> Session {
        self.accept_with(LEASE).await
    }

    pub(crate) async fn accept_with(&mut self, lease: Duration) -> Session {
        let mut session = self.accept_silently().await;
        let opened = Opened {
            node: "node-a".to_owned(),
            topic: session.open.topic.clone(),
            app: session.open.app.clone(),
            instance: session.open.instance.clone(),
            lease_ms: u64::try_from(lease.as_millis()).unwrap(),
            max_in_flight: 4096,
        };
        session.send(Answer::Opened(opened)).await;
        session
    }

    /// The next call, whose first request is read and not answered.
    pub(crate) async fn accept_silently(&mut self) -> Session {
        let mut session = timeout(PATIENCE, self.sessions.recv())
            .await
            .expect("a call in time")
            .unwrap();
        match session.receive().await {
            Some(Sent::Open(open)) => session.open = open,
            other => panic!("the first request must be the opening, not {other:?}"),
        }
        session
    }
}

impl Drop for FakeBridge {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn serve(path: &Path, service: Service) -> JoinHandle<()> {
    let listener = UnixListenerStream::new(UnixListener::bind(path).unwrap());
    tokio::spawn(async move {
        tonic::transport::Server::builder()
            .add_service(TopicServiceServer::new(service.clone()))
            .add_service(NodeServiceServer::new(service))
            .serve_with_incoming(listener)
            .await
            .unwrap();
    })
}

#[tonic::async_trait]
impl TopicService for Service {
    type SubscribeStream = ReceiverStream<Result<SubscribeResponse, Status>>;

    async fn subscribe(
        &self,
        request: Request<Streaming<SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        if let Some(status) = self.refusals.lock().pop_front() {
            return Err(status);
        }
        let (responses, receiver) = mpsc::channel(64);
        let session = Session {
            requests: request.into_inner(),
            responses,
            open: Open::default(),
            next: 1,
            seen: Seen::default(),
        };
        self.sessions
            .send(session)
            .await
            .map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

#[tonic::async_trait]
impl NodeService for Service {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        Ok(Response::new(StatusResponse {
            node: "node-a".to_owned(),
            ..StatusResponse::default()
        }))
    }

    type HoldingsStream = tokio_stream::Empty<Result<HoldingsPart, Status>>;

    async fn holdings(&self, _: Request<HoldingsRequest>) -> Result<Response<Self::HoldingsStream>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

/// The bridge's end of one call.
pub(crate) struct Session {
    requests: Streaming<SubscribeRequest>,
    responses: mpsc::Sender<Result<SubscribeResponse, Status>>,
    pub(crate) open: Open,
    next: u64,
    pub(crate) seen: Seen,
}

/// What the SDK has sent on one call, added up.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) begun: u64,
    pub(crate) acks: BTreeSet<u64>,
    pub(crate) retries: Vec<Retry>,
    pub(crate) rejects: Vec<Reject>,
    pub(crate) releases: BTreeSet<u64>,
    pub(crate) extends: Vec<u64>,
    pub(crate) credit_bytes: u64,
    pub(crate) credit_messages: u64,
    pub(crate) verdict_frames: usize,
    pub(crate) closed: bool,
    pub(crate) ended: bool,
}

impl Seen {
    fn absorb(&mut self, sent: Sent) {
        match sent {
            Sent::Open(open) => panic!("opened twice: {open:?}"),
            Sent::Credit(credit) => {
                self.credit_bytes += credit.bytes;
                self.credit_messages += u64::from(credit.messages);
            }
            Sent::Close(_) => self.closed = true,
            Sent::Verdicts(verdicts) => {
                self.verdict_frames += 1;
                self.begun = self.begun.max(verdicts.begun_through);
                for ack in numbers(&verdicts.acks) {
                    assert!(
                        ack <= self.begun,
                        "delivery {ack} was answered before its hand-over was told"
                    );
                    assert!(self.acks.insert(ack), "delivery {ack} was acknowledged twice");
                }
                self.retries.extend(verdicts.retries);
                self.rejects.extend(verdicts.rejects);
                self.releases.extend(numbers(&verdicts.releases));
                self.extends.extend(numbers(&verdicts.extends));
            }
        }
    }
}

fn numbers(ranges: &[DeliveryRange]) -> impl Iterator<Item = u64> + '_ {
    ranges.iter().flat_map(|range| range.first..=range.last)
}

impl Session {
    async fn receive(&mut self) -> Option<Sent> {
        let received = timeout(PATIENCE, self.requests.message()).await;
        let received = received.unwrap_or_else(|_| panic!("nothing more came after {:?}", self.seen));
        received.ok().flatten().map(|frame| frame.request.unwrap())
    }

    /// Reads what the SDK sends until it adds up to this, or fails when the call ends or stays silent.
    pub(crate) async fn until(&mut self, condition: impl Fn(&Seen) -> bool) {
        while !condition(&self.seen) {
            match self.receive().await {
                Some(sent) => self.seen.absorb(sent),
                None => {
                    self.seen.ended = true;
                    assert!(condition(&self.seen), "the call ended after {:?}", self.seen);
                }
            }
        }
    }

    pub(crate) async fn send(&mut self, answer: Answer) {
        self.responses
            .send(Ok(SubscribeResponse {
                response: Some(answer),
            }))
            .await
            .unwrap();
    }

    /// Delivers so many messages in one frame.
    pub(crate) async fn deliver(&mut self, count: u64) {
        let deliveries = (self.next..self.next + count).map(|number| delivery(number, b"payload".to_vec()));
        let deliveries = deliveries.collect();
        self.next += count;
        self.send(Answer::Deliveries(Deliveries { deliveries })).await;
    }

    pub(crate) async fn deliver_exactly(&mut self, delivery: Delivery) {
        self.send(Answer::Deliveries(Deliveries {
            deliveries: vec![delivery],
        }))
        .await;
    }

    pub(crate) async fn confirm(&mut self, first: u64, last: u64) {
        let deliveries = vec![DeliveryRange { first, last }];
        self.send(Answer::Confirmed(Confirmed { deliveries })).await;
    }

    pub(crate) async fn lose(&mut self, first: u64, last: u64) {
        let deliveries = vec![DeliveryRange { first, last }];
        self.send(Answer::LeasesLost(LeasesLost { deliveries })).await;
    }

    pub(crate) async fn announce_close(&mut self, code: &str, retryable: bool) {
        let closing = Closing {
            code: code.to_owned(),
            reason: "stopping".to_owned(),
            retryable,
        };
        self.send(Answer::Closing(closing)).await;
    }

    pub(crate) async fn fail(self, status: Status) {
        self.responses.send(Err(status)).await.unwrap();
    }
}

pub(crate) fn delivery(number: u64, payload: Vec<u8>) -> Delivery {
    Delivery {
        delivery: number,
        id: format!("ORDERS:{number}"),
        subject: "orders.created".to_owned(),
        headers: vec![
            Header {
                name: "Trace-Id".to_owned(),
                value: "t1".to_owned(),
            },
            Header {
                name: "trace-id".to_owned(),
                value: "t2".to_owned(),
            },
        ],
        payload: payload.into(),
        attempt: 1,
        published_ns: 1_700_000_000_000_000_000,
        stream: "ORDERS".to_owned(),
        sequence: number,
        possible_duplicate: false,
    }
}

/// The next message, which must come.
pub(crate) async fn next(subscription: &mut Subscription) -> Message {
    timeout(PATIENCE, subscription.next())
        .await
        .expect("a message in time")
        .expect("a message")
        .unwrap()
}

/// Waits for a future that must end.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("an end in time")
}
