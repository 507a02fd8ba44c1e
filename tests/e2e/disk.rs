//! A full disk: its quota, or its file system.

use std::time::Duration;

use fanin_tests::logs::Level;
use fanin_tests::wait::eventually;
use serde_json::json;

use crate::cluster::{Cluster, LONG, orders};

/// Goal: a node whose quota is full stops pulling, the other node takes over, and nothing of what it accepted is lost or
/// repeated. Method: a quota of 2 MiB and no instance on the first node, 5 MiB of messages; everything must leave the hub; then
/// an instance comes to the full node and empties it, and the node pulls again.
#[tokio::test]
async fn a_full_node_leaves_the_rest_to_the_others() {
    let mut cluster = Cluster::new(&["billing"]).await;
    let mut small = cluster.options("n1");
    small =
        small.with_config(&json!({ "store": { "quota": "2MiB", "segment": "128KiB", "reserve": "512KiB" } }));
    small.config["mappings"]["orders"]["intake"] = json!("always");
    cluster.add(small, 0).await;
    cluster
        .feed_as(400, |mut feed| {
            feed.payload_bytes = 8 * 1024;
            feed
        })
        .await;
    let status = cluster.nodes[0]
        .wait_status(LONG, "the node to be full", |status| {
            orders(status).state == "full"
        })
        .await
        .unwrap();
    assert!(orders(&status).reason.contains("FAN-4022"), "{status:?}");
    let store = status.store.unwrap();
    assert!(store.bytes <= store.quota_bytes, "{store:?}");

    let other = cluster.options("n2");
    cluster.add(other, 1).await;
    cluster
        .feed_as(200, |mut feed| {
            feed.payload_bytes = 8 * 1024;
            feed
        })
        .await;
    eventually(LONG, "everything to leave the hub", || cluster.hub_at_rest()).await;
    let kept = orders(&cluster.nodes[0].status().await.unwrap()).apps[0].backlog_messages;
    assert!(kept > 0);
    eventually(LONG, "the other node to be done", || async {
        cluster.recorder.count() as u64 + kept == cluster.ids.len() as u64
    })
    .await;

    cluster.instance(0, "billing", "late", |options| options).await;
    cluster.wait_rest().await;
    cluster.nodes[0]
        .wait_status(LONG, "room for more", |status| orders(status).state == "active")
        .await
        .unwrap();
    cluster.feed(200).await;
    cluster.finish().await;
}

/// How often the disk is filled until something waits, and for how long each time.
const TRIES: usize = 10;
const SHORT: Duration = Duration::from_secs(10);
/// The exit status of a process whose disk failed, after sysexits.
const IO_EXIT: i32 = 74;

/// Goal: a file system that somebody else has filled is waited out: the node stays, tells why, confirms nothing that is not
/// durable, and goes on by itself; a stop ends in time and a start is refused with a cure; in the end everything was
/// delivered once. Method: small segments under a steady feed, so that resolutions, cursors and done sets soon need another one, for
/// which the disk has no space while a file exists.
#[tokio::test]
async fn a_full_file_system_is_waited_out() {
    let home = tempfile::tempdir().unwrap();
    let full = home.path().join("full");
    let mut cluster = Cluster::new(&["billing"]).await;
    // The refused start ends with an error, as it should.
    let mut options = cluster.options("n1").allow_error("FAN-4048");
    options = options.with_config(&json!({
        "store": { "quota": "64MiB", "segment": "64KiB", "reserve": "1MiB" },
        "shutdown_grace": "1s",
    }));
    options
        .env
        .insert("FANIN_DISK_FULL".to_owned(), full.display().to_string());
    options.config["mappings"]["orders"]["batch"] = json!({ "messages": 1, "linger": "0ms" });
    options.config["mappings"]["orders"]["intake"] = json!("always");
    cluster.add(options, 0).await;
    let trickle = cluster.stream(Duration::from_millis(20));
    for round in 0..4 {
        // Without an instance only resolutions finish anything, so that one of them is what waits.
        if round == 0 {
            cluster.nodes[0]
                .wait_status(LONG, "some messages", |status| orders(status).head_offset > 200)
                .await
                .unwrap();
        } else {
            cluster.wait_more(300).await;
        }
        let mut waits = Err(String::new());
        for _ in 0..TRIES {
            std::fs::write(&full, "").unwrap();
            let asked = cluster.nodes[0].wait_status(SHORT, "the disk to be full", |status| {
                orders(status).reason.contains("FAN-4048")
            });
            waits = asked.await.map_err(|error| error.to_string());
            if waits.is_ok() {
                break;
            }
            // What was left of the segment happened to be enough for all that had been accepted.
            std::fs::remove_file(&full).unwrap();
            cluster.nodes[0]
                .wait_status(LONG, "the node to go on", |status| {
                    orders(status).state == "active"
                })
                .await
                .unwrap();
        }
        assert_eq!(orders(&waits.unwrap()).state, "full");
        match round {
            // Room comes back, and the same process goes on.
            0 | 1 => {}
            // A crash, and a start that is refused until there is room.
            2 => {
                let node = &mut cluster.nodes[0];
                node.respawn().unwrap();
                let ended = node.wait_exit(LONG).await.unwrap();
                assert_eq!(ended.code(), Some(75), "{ended}\n{}", node.log_tail());
            }
            _ => cluster.nodes[0].stop().await.unwrap(),
        }
        std::fs::remove_file(&full).unwrap();
        if round >= 2 {
            cluster.nodes[0].restart().await.unwrap();
        }
        if round == 0 {
            cluster.instance(0, "billing", "late", |options| options).await;
        }
    }
    cluster.wait_more(300).await;
    cluster.stop_stream(trickle).await;
    cluster.wait_rest().await;
    cluster.assert_published_once().await;
    cluster.finish().await;
}

/// Goal: a sync of the local log that fails ends the process at once, with its code and exit status: what it had been told to be
/// durable may not be, so nothing is tried again in this life. The next one delivers what is on disk, and everything comes once. Method:
/// syncs fail while a file exists; three times under load, and once so early that the start itself fails.
#[tokio::test]
async fn a_failed_sync_ends_the_process() {
    let home = tempfile::tempdir().unwrap();
    let failing = home.path().join("failing");
    let mut cluster = Cluster::new(&["billing"]).await;
    let mut options = cluster.options("n1").allow_error("FAN-4002");
    options
        .env
        .insert("FANIN_DISK_FAILING".to_owned(), failing.display().to_string());
    cluster.add(options, 1).await;
    let trickle = cluster.stream(Duration::from_millis(10));
    for round in 1..=3 {
        cluster.wait_more(200).await;
        std::fs::write(&failing, "").unwrap();
        let node = &cluster.nodes[0];
        let ended = node.wait_exit(LONG).await.unwrap();
        assert_eq!(ended.code(), Some(IO_EXIT), "{ended}\n{}", node.log_tail());
        let told = node
            .log()
            .iter()
            .filter(|line| line.level == Level::Error && line.text.contains("FAN-4002"))
            .count();
        assert!(told >= round, "told {told} times\n{}", node.log_tail());
        if round == 3 {
            // Nothing has been repaired: the next life cannot write either, and says the same.
            let node = &mut cluster.nodes[0];
            node.respawn().unwrap();
            let ended = node.wait_exit(LONG).await.unwrap();
            assert_eq!(ended.code(), Some(IO_EXIT), "{ended}\n{}", node.log_tail());
        }
        std::fs::remove_file(&failing).unwrap();
        cluster.nodes[0].restart().await.unwrap();
    }
    cluster.wait_more(200).await;
    cluster.stop_stream(trickle).await;
    cluster.wait_rest().await;
    cluster.assert_published_once().await;
    cluster.finish().await;
}
