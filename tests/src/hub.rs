//! A real hub for one test.

use std::time::Duration;

use async_nats::jetstream::{self, stream};
use fanin_localhub::{LocalHub, LocalHubOptions, ServerBinary, free_port};

const ACK_TIMEOUT: Duration = Duration::from_secs(2);

/// A local hub that syncs always, on free ports, gone with the value.
///
/// # Panics
/// When no nats-server can be found, fetched or started; the message names the cure.
pub async fn start_hub() -> LocalHub {
    start_hub_with(|_| {}).await
}

/// [`start_hub`] with other options.
///
/// # Panics
/// As [`start_hub`].
pub async fn start_hub_with(change: impl FnOnce(&mut LocalHubOptions)) -> LocalHub {
    let found = tokio::task::spawn_blocking(|| ServerBinary::find_or_fetch(None)).await;
    let binary = match found {
        Ok(Ok(binary)) => binary,
        Ok(Err(error)) => panic!(
            "{error}: {:?}",
            std::error::Error::source(&error).map(ToString::to_string)
        ),
        Err(error) => panic!("{error}"),
    };
    let mut options = LocalHubOptions::new(binary);
    change(&mut options);
    match LocalHub::start(options).await {
        Ok(hub) => hub,
        Err(error) => panic!("{error}"),
    }
}

/// So many hubs `s0`, `s1`, ... as one cluster, on free ports. Clients are told of no other server than the one they reach: what
/// they know of the others is what they were given.
///
/// # Panics
/// As [`start_hub`].
pub async fn start_cluster(servers: usize) -> Vec<LocalHub> {
    let ports = (0..servers).map(|_| free_port());
    let ports: Vec<u16> = match ports.collect() {
        Ok(ports) => ports,
        Err(error) => panic!("no port for a route: {error}"),
    };
    let routes: Vec<String> = ports
        .iter()
        .map(|port| format!("\"nats://127.0.0.1:{port}\""))
        .collect();
    let routes = routes.join(", ");
    let starting = ports.iter().enumerate().map(|(number, port)| {
        let section = format!(
            "cluster {{\n  name: tests\n  listen: \"127.0.0.1:{port}\"\n  no_advertise: true\n  routes: [{routes}]\n}}"
        );
        start_hub_with(move |options| {
            options.name = format!("s{number}");
            options.extra_config = section;
        })
    });
    futures_util::future::join_all(starting).await
}

/// A JetStream connection for the test itself, which reconnects for ever and fast.
pub async fn connect(
    servers: impl async_nats::ToServerAddrs,
) -> Result<jetstream::Context, async_nats::ConnectError> {
    let options = async_nats::ConnectOptions::new()
        .name("fanin-tests")
        .retry_on_initial_connect()
        .reconnect_delay_callback(|attempt| {
            Duration::from_millis(20 * u64::try_from(attempt.min(10)).unwrap_or(10))
        });
    let client = options.connect(servers).await?;
    // An acknowledgement that went down with the hub never comes; whoever waits for it tries again after this time.
    Ok(jetstream::context::ContextBuilder::new()
        .ack_timeout(ACK_TIMEOUT)
        .build(client))
}

/// Creates a source stream `name` with file storage for `subjects`.
pub async fn create_source(
    jetstream: &jetstream::Context,
    name: &str,
    subjects: &[&str],
) -> Result<stream::Info, jetstream::context::CreateStreamError> {
    create_replicated(jetstream, name, subjects, 1).await
}

/// [`create_source`] with replicas.
pub async fn create_replicated(
    jetstream: &jetstream::Context,
    name: &str,
    subjects: &[&str],
    replicas: usize,
) -> Result<stream::Info, jetstream::context::CreateStreamError> {
    let config = stream::Config {
        name: name.to_owned(),
        subjects: subjects.iter().map(ToString::to_string).collect(),
        storage: stream::StorageType::File,
        duplicate_window: Duration::from_secs(600),
        num_replicas: replicas,
        ..Default::default()
    };
    Ok(jetstream.create_stream(config).await?.cached_info().clone())
}
