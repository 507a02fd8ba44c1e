//! The hub of a run: one server, or three as a cluster whose routes go through proxies between every pair.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_nats::jetstream::{self, consumer, stream};
use fanin_localhub::{LocalHub, LocalHubOptions, ServerBinary, free_port};
use fanin_tests::proxy::Proxy;
use fanin_tests::wait::{patience, until};
use futures_util::TryStreamExt;
use tokio::time::timeout;

use crate::error::{RunError, during};
use crate::history::now_ms;
use crate::limits::{ACT_TIMEOUT, READ_TIMEOUT, SERVERS_R3, SOURCE_MESSAGES_MAX};
use crate::listed::Source;
use crate::world::{STREAM, SUBJECT};

/// The hub forgets a dedupe id after this.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(600);
/// An acknowledgement that went down with a server never comes; whoever waits for it tries again after this time.
const ACK_TIMEOUT: Duration = Duration::from_secs(2);

/// Where a server keeps the streams of the only account, below its store.
const STREAMS_DIR: &str = "jetstream/$G/streams";

/// A JetStream connection for the run itself and its producer, which reconnects for ever and fast.
pub(crate) async fn connect(servers: &[String]) -> Result<jetstream::Context, RunError> {
    let options = async_nats::ConnectOptions::new()
        .name("fanin-chaos")
        .retry_on_initial_connect()
        .reconnect_delay_callback(|attempt| {
            Duration::from_millis(20 * u64::try_from(attempt.min(10)).unwrap_or(10))
        });
    let client = options
        .connect(servers)
        .await
        .map_err(during("connecting to the hub"))?;
    Ok(jetstream::context::ContextBuilder::new()
        .ack_timeout(ACK_TIMEOUT)
        .timeout(ACK_TIMEOUT)
        .build(client))
}

/// How to run a hub.
#[derive(Clone, Debug)]
pub(crate) struct HubOptions {
    pub(crate) binary: ServerBinary,
    pub(crate) clustered: bool,
    pub(crate) sync_always: bool,
    pub(crate) dir: PathBuf,
}

/// A running hub. `routes` drop behind the servers.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) servers: Vec<LocalHub>,
    /// By the server that dials and the one that is dialled.
    routes: BTreeMap<(usize, usize), Proxy>,
    pub(crate) jetstream: jetstream::Context,
    replicas: usize,
}

impl Hub {
    /// Starts the servers and creates the source.
    pub(crate) async fn start(options: &HubOptions) -> Result<Self, RunError> {
        let count = if options.clustered { SERVERS_R3 } else { 1 };
        let mut ports = Vec::new();
        for _ in 0..count {
            ports.push(free_port().map_err(during("finding a port"))?);
        }
        let mut routes = BTreeMap::new();
        for from in 0..count {
            for (to, port) in ports.iter().enumerate().filter(|(to, _)| *to != from) {
                let proxy = Proxy::start(*port)
                    .await
                    .map_err(during("starting a route's proxy"))?;
                routes.insert((from, to), proxy);
            }
        }
        let starting = (0..count).map(|server| {
            let mut local = LocalHubOptions::new(options.binary.clone());
            local.dir = Some(options.dir.join(format!("server-{server}")));
            local.sync_always = options.sync_always;
            local.name = format!("s{server}");
            if let (true, Some(port)) = (options.clustered, ports.get(server)) {
                local.extra_config = cluster_section(*port, server, &routes);
            }
            LocalHub::start(local)
        });
        let servers = futures_util::future::try_join_all(starting).await;
        let servers = servers.map_err(during("starting the hub"))?;
        let urls: Vec<String> = servers.iter().map(LocalHub::url).collect();
        let hub = Self {
            servers,
            routes,
            jetstream: connect(&urls).await?,
            replicas: count,
        };
        hub.create_source().await?;
        Ok(hub)
    }

    /// Both directions in which two servers may have dialled each other.
    pub(crate) fn route(&self, one: usize, other: usize) -> Vec<&Proxy> {
        let pairs = [(one, other), (other, one)];
        pairs.iter().filter_map(|pair| self.routes.get(pair)).collect()
    }

    /// Creates the source stream, as often as it takes.
    pub(crate) async fn create_source(&self) -> Result<(), RunError> {
        let config = stream::Config {
            name: STREAM.to_owned(),
            subjects: vec![format!("{SUBJECT}.>")],
            storage: stream::StorageType::File,
            duplicate_window: DUPLICATE_WINDOW,
            num_replicas: self.replicas,
            ..Default::default()
        };
        let created = until(ACT_TIMEOUT, "the source to be created", || {
            self.jetstream.get_or_create_stream(config.clone())
        });
        created.await.map(|_| ()).map_err(RunError)
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

    /// Whether the shared consumer has delivered everything and everything is settled.
    pub(crate) async fn at_rest(&self) -> Result<(), String> {
        let consumer = self.consumer().await?;
        match (consumer.num_pending, consumer.num_ack_pending) {
            (0, 0) => Ok(()),
            (pending, unsettled) => Err(format!("{pending} messages to deliver, {unsettled} to settle")),
        }
    }

    /// A stream's last sequence.
    pub(crate) async fn last_sequence(&self, stream: &str) -> Result<u64, String> {
        let stream = self.jetstream.get_stream(stream).await;
        let stream = stream.map_err(|error| error.to_string())?;
        Ok(stream.cached_info().state.last_sequence)
    }

    /// Every message of the source with its number, as it is now. Nothing when there is no source.
    pub(crate) async fn source(&self) -> Result<Source, RunError> {
        let read = until(ACT_TIMEOUT, "the source to be read", || self.read_source());
        read.await.map_err(RunError)
    }

    async fn read_source(&self) -> Result<Source, String> {
        let told = |error: &dyn std::fmt::Display| error.to_string();
        let stream = self.jetstream.get_stream(STREAM).await;
        let stream = stream.map_err(|error| told(&error))?;
        let mut source = Source::default();
        if stream.cached_info().state.messages == 0 {
            return Ok(source);
        }
        let consumer = stream
            .create_consumer(consumer::pull::OrderedConfig::default())
            .await;
        let consumer = consumer.map_err(|error| told(&error))?;
        let mut messages = consumer.messages().await.map_err(|error| told(&error))?;
        // The producer has ended: what is there now is all there will be.
        for _ in 0..SOURCE_MESSAGES_MAX {
            let next = timeout(patience(READ_TIMEOUT), messages.try_next()).await;
            let next = next.map_err(|_| "the source sends nothing".to_owned())?;
            let Some(message) = next.map_err(|error| told(&error))? else {
                return Err("the source ended".to_owned());
            };
            let info = message.info().map_err(|error| told(&error))?;
            let text = String::from_utf8_lossy(&message.payload);
            let number = text.trim_end().parse().map_err(|error| told(&error))?;
            source.push(info.stream_sequence, number);
            if info.pending == 0 {
                return Ok(source);
            }
        }
        Err(format!(
            "the source holds more than {SOURCE_MESSAGES_MAX} messages"
        ))
    }

    /// Copies the stores of all servers as they are at one moment, which is returned (milliseconds since the Unix epoch):
    /// frozen, as if the power went now.
    pub(crate) fn copy_stores(&self, to: &Path) -> Result<u64, RunError> {
        for server in &self.servers {
            server.pause().map_err(during("freezing the hub"))?;
        }
        let frozen_ms = now_ms();
        let copied = self
            .servers
            .iter()
            .enumerate()
            .try_for_each(|(number, server)| copy(&server.store_dir(), &to.join(number.to_string())));
        for server in &self.servers {
            server.resume().map_err(during("waking the hub"))?;
        }
        copied.map_err(during("copying the hub's stores"))?;
        Ok(frozen_ms)
    }

    /// Kills one server and starts it on its part of the copy.
    pub(crate) async fn restore_store(&mut self, from: &Path, number: usize) -> Result<(), RunError> {
        let server = self.servers.get_mut(number);
        let server = server.ok_or_else(|| RunError(format!("there is no server {number}")))?;
        server.kill().map_err(during("killing a server"))?;
        let (older, current) = (from.join(number.to_string()), server.store_dir());
        let restored = fs::remove_dir_all(&current).and_then(|()| copy(&older, &current));
        restored.map_err(during("restoring a server's store"))?;
        server.restart().await.map_err(during("starting a server"))
    }

    /// Kills every server and starts it on the copy, or with one stream of it.
    pub(crate) async fn restore_stores(&mut self, from: &Path, stream: Option<&str>) -> Result<(), RunError> {
        for server in &mut self.servers {
            server.kill().map_err(during("killing the hub"))?;
        }
        let part = stream.map_or_else(PathBuf::new, |stream| Path::new(STREAMS_DIR).join(stream));
        for (number, server) in self.servers.iter().enumerate() {
            let (older, current) = (
                from.join(number.to_string()).join(&part),
                server.store_dir().join(&part),
            );
            let restored = fs::remove_dir_all(&current).and_then(|()| copy(&older, &current));
            restored.map_err(during("restoring the hub's stores"))?;
        }
        let starting = self.servers.iter_mut().map(LocalHub::restart);
        let started = futures_util::future::try_join_all(starting).await;
        started.map(|_| ()).map_err(during("starting the hub"))
    }
}

/// Servers find each other through the proxies only: what they tell each other of where they listen leads nowhere, and
/// clients are told of no other server.
fn cluster_section(port: u16, server: usize, routes: &BTreeMap<(usize, usize), Proxy>) -> String {
    let to: Vec<String> = routes
        .iter()
        .filter(|((from, _), _)| *from == server)
        .map(|(_, proxy)| format!("\"{}\"", proxy.url()))
        .collect();
    format!(
        "cluster {{\n  name: chaos\n  listen: \"127.0.0.1:{port}\"\n  advertise: \"127.0.0.1:1\"\n  no_advertise: true\n  \
         routes: [{}]\n}}",
        to.join(", ")
    )
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
