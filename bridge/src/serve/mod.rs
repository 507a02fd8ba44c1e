//! The server on the node's Unix socket: topics for applications, the node's status, and gRPC health.

mod codec;
mod door;
pub mod limits;
mod node;
mod socket;
mod status;
mod subscribe;
mod whole;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::RwLock;
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic_health::{ServingStatus, server::HealthReporter};

pub use node::StatusSource;
pub use socket::SocketError;
pub use status::{DOMAIN, to_status};
pub use subscribe::SERVICE;

use crate::{
    codes::{Code, Refusal},
    telemetry::codes,
    topic::Topic,
};
use door::{Door, visitors};
use limits::{
    CONNECTION_WINDOW_BYTES, HTTP2_FRAME_BYTES_MAX, KEEPALIVE_EVERY, KEEPALIVE_WAIT_MAX,
    SMALL_REQUEST_BYTES_MAX, STREAM_WINDOW_BYTES, STREAMS_PER_CONNECTION_MAX,
};
use node::Node;
use socket::Socket;
use subscribe::TopicServer;

/// How long connections may take to end after their calls have.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// The topics that clients can find.
#[derive(Default)]
pub struct Topics {
    state: RwLock<TopicsState>,
}

#[derive(Default)]
struct TopicsState {
    by_name: BTreeMap<String, Topic>,
    /// Topics that exist and cannot be served, with what their applications are told.
    held: BTreeMap<String, Refusal>,
    stopping: bool,
}

impl Topics {
    /// Makes a topic known. One of the same name is replaced.
    pub fn add(&self, topic: Topic) {
        self.state.write().by_name.insert(topic.name().to_owned(), topic);
    }

    /// Makes a topic known that cannot be served.
    pub fn hold(&self, name: &str, refusal: Refusal) {
        self.state.write().held.insert(name.to_owned(), refusal);
    }

    /// The topics, in the order of their names.
    #[must_use]
    pub fn all(&self) -> Vec<Topic> {
        self.state.read().by_name.values().cloned().collect()
    }

    fn find(&self, name: &str) -> Result<Topic, Refusal> {
        let state = self.state.read();
        if state.stopping {
            return Err(Refusal::new(
                Code::Stopping,
                "the node is stopping; connect again later",
            ));
        }
        if let Some(refusal) = state.held.get(name) {
            return Err(refusal.clone());
        }
        state.by_name.get(name).cloned().ok_or_else(|| {
            let names: Vec<&str> = state.by_name.keys().map(String::as_str).collect();
            Refusal::new(
                Code::UnknownTopic,
                format!("this node has no topic {name:?}; it has: {}", names.join(", ")),
            )
        })
    }
}

/// Where and for whom to serve.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// The socket's path.
    pub socket: PathBuf,
    /// The socket's file mode, for example 0o660.
    pub mode: u32,
}

/// Says in the gRPC health service, under `fanin.v1.TopicService/<topic>`, whether a topic delivers.
#[derive(Clone)]
pub struct TopicHealth(pub(crate) HealthReporter);

impl TopicHealth {
    /// Says so of one topic. Who watches it is told of each change.
    pub async fn set(&self, topic: &str, serving: bool) {
        let status = if serving {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        self.0
            .set_service_status(format!("{SERVICE}/{topic}"), status)
            .await;
    }
}

/// A running server.
pub struct Server {
    socket: Socket,
    topics: Arc<Topics>,
    health: TopicHealth,
    stop: CancellationToken,
    deaf: CancellationToken,
    serving: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Server {
    /// Binds the socket and serves on the current runtime. Topics may be added later.
    ///
    /// # Errors
    /// When the socket cannot be bound.
    pub async fn start(
        options: ServeOptions,
        topics: Arc<Topics>,
        status: Arc<dyn StatusSource>,
    ) -> Result<Server, SocketError> {
        let (socket, listener) = Socket::bind(&options.socket, options.mode)?;
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_service_status(SERVICE, ServingStatus::Serving).await;
        let stop = CancellationToken::new();
        let server = tonic::transport::Server::builder()
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(HTTP2_FRAME_BYTES_MAX)
            .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
            .http2_keepalive_interval(Some(KEEPALIVE_EVERY))
            .http2_keepalive_timeout(Some(KEEPALIVE_WAIT_MAX))
            .add_service(TopicServer::new(Arc::clone(&topics)))
            .add_service(Node::server(status))
            .add_service(health_service.max_decoding_message_size(SMALL_REQUEST_BYTES_MAX))
            .serve_with_incoming_shutdown(visitors(listener, Door::new()), stop.clone().cancelled_owned());
        let deaf = CancellationToken::new();
        let ended = deaf.clone().drop_guard();
        let server = Server {
            socket,
            topics,
            health: TopicHealth(health),
            stop,
            deaf,
            serving: tokio::spawn(async move {
                // Dropped at a return as well as by a panic.
                let _ended = ended;
                server.await
            }),
        };
        for topic in server.topics.all() {
            // Whoever runs the topic's mapping says when it delivers.
            server.health.set(topic.name(), false).await;
        }
        tracing::info!(socket = %server.path().display(), "serving");
        Ok(server)
    }

    /// The socket's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.socket.path()
    }

    /// What the gRPC health service says of each topic.
    #[must_use]
    pub fn health(&self) -> TopicHealth {
        self.health.clone()
    }

    /// Cancelled when nobody is served any more: at the end, or because the server's task ended by itself.
    #[must_use]
    pub fn deaf(&self) -> CancellationToken {
        self.deaf.clone()
    }

    /// Ends everything in order: no new calls; clients are told and have up to `grace` for their verdicts; cursors become
    /// durable; connections end; the socket goes.
    pub async fn shutdown(mut self, grace: Duration) {
        self.topics.state.write().stopping = true;
        self.health
            .0
            .set_service_status(SERVICE, ServingStatus::NotServing)
            .await;
        let topics = self.topics.all();
        futures_util::future::join_all(topics.iter().map(|topic| topic.shutdown(grace))).await;
        self.stop.cancel();
        match timeout(LAST_WAIT, &mut self.serving).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => {
                tracing::warn!(code = codes::SERVING_FAILED, %error, "the server ended with an error")
            }
            Ok(Err(error)) => tracing::error!(code = codes::PANIC, %error, "the server's task failed"),
            // A client that keeps its connection open without calls; it finds out by itself.
            Err(_) => self.serving.abort(),
        }
    }
}
