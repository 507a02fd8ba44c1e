//! Several servers in `hub.servers`.

use std::time::Duration;

use fanin_localhub::LocalHub;
use fanin_tests::hub::{connect, create_replicated, start_cluster};
use fanin_tests::wait::{eventually, until};
use serde_json::json;

use crate::cluster::{Cluster, LEDGER, LONG, STREAM, SUBJECT};

/// Servers of the hub, and replicas of its streams.
const SERVERS: usize = 3;

/// Whether all replicas of a stream are there and have everything.
async fn is_whole(cluster: &Cluster, stream: &str) -> Result<(), String> {
    let found = cluster
        .jetstream
        .get_stream(stream)
        .await
        .map_err(|error| error.to_string())?;
    let replicas = found
        .cached_info()
        .cluster
        .as_ref()
        .map_or(&[][..], |group| &group.replicas);
    let current = replicas
        .iter()
        .filter(|replica| replica.current && !replica.offline)
        .count();
    if current + 1 == SERVERS {
        Ok(())
    } else {
        Err(format!("{current} followers of {stream} are current"))
    }
}

/// The server that a node is connected to.
async fn server_of(cluster: &Cluster, node: usize) -> Result<String, String> {
    let status = cluster.nodes[node]
        .status()
        .await
        .map_err(|error| error.to_string())?;
    match status.hub {
        Some(hub) if hub.connected => Ok(hub.server),
        hub => Err(format!("not connected: {hub:?}")),
    }
}

/// Goal: `hub.servers` with several servers is failover: when the connected one is killed, the node goes on over another one, by
/// itself. Method: a cluster of three that tells its clients of nobody, a source and a ledger with three replicas, two nodes; under
/// load the very server that the first node is connected to is killed, until it is connected to another one and delivers; then the
/// server comes back, and so twice more.
#[tokio::test]
async fn a_node_goes_on_over_another_server() {
    let mut servers: Vec<LocalHub> = start_cluster(SERVERS).await;
    let urls: Vec<String> = servers.iter().map(LocalHub::url).collect();
    let jetstream = connect(&urls).await.unwrap();
    let subjects = format!("{SUBJECT}.>");
    let subjects = [subjects.as_str()];
    let created = until(LONG, "the cluster to take a stream", || {
        create_replicated(&jetstream, STREAM, &subjects, SERVERS)
    });
    created.await.unwrap();
    let mut cluster = Cluster::of(servers.remove(0), jetstream, &["billing"]);
    for node in ["n1", "n2"] {
        let options = cluster
            .options(node)
            .with_config(&json!({ "hub": { "servers": urls } }));
        cluster.add(options, 1).await;
    }
    let trickle = cluster.stream(Duration::from_millis(20));
    for _ in 0..3 {
        cluster.wait_more(200).await;
        for stream in [STREAM, LEDGER] {
            eventually(LONG, "all replicas", || is_whole(&cluster, stream)).await;
        }
        let before = server_of(&cluster, 0).await.unwrap();
        let number: usize = before
            .strip_prefix('s')
            .and_then(|number| number.parse().ok())
            .unwrap();
        match number {
            0 => cluster.hub.kill().unwrap(),
            other => servers[other - 1].kill().unwrap(),
        }
        eventually(LONG, "a connection to another server", || async {
            match server_of(&cluster, 0).await? {
                now if now == before => Err(format!("still {now}")),
                _ => Ok(()),
            }
        })
        .await;
        let wanted = cluster.share_of("n1") + 100;
        eventually(LONG, "the node to deliver over it", || async {
            let now = cluster.share_of("n1");
            if now >= wanted {
                Ok(())
            } else {
                Err(format!("{now} of {wanted}"))
            }
        })
        .await;
        match number {
            0 => cluster.hub.restart().await.unwrap(),
            other => servers[other - 1].restart().await.unwrap(),
        }
    }
    cluster.stop_stream(trickle).await;
    cluster.wait_rest().await;
    cluster.assert_published_once().await;
    cluster.finish().await;
}
