//! Damage in the local log behind a synced point (design section 5).
//!
//! Method of all: a node is killed, bytes of its log are flipped where its own reader says that a record lies, and it is
//! started again. What was damaged is fetched again from the source; at the end the checker wants every message once.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fanin_proto::v1::StatusResponse;
use fanin_sdk::Client;
use fanin_store::format::FRAME_HEADER;
use fanin_store::{Key, Location, Options, Recovered, SegmentLog};
use fanin_tests::apps::{AppInstance, AppOptions};
use fanin_tests::checker::Recorder;
use fanin_tests::feed::{Feed, publish};
use fanin_tests::process::BridgeOptions;
use fanin_tests::proxy::{Link, Proxy};
use fanin_tests::wait::eventually;
use serde_json::json;

use crate::cluster::{Cluster, LONG, STREAM, TOPIC, mapping, orders};
use crate::hub_store::{self, put_back, snapshot};
use crate::regrown::{assert_halts, quick_to_believe};

/// The space of the only mapping, and the kinds of its records.
const SPACE: u32 = 1;
const STAGE: u8 = 1;
const RESOLUTION: u8 = 2;
const QUOTA: u64 = 1 << 30;
/// Bytes of each payload.
const PAYLOAD: usize = 1024;

/// What a start would find in a log. Looks at a copy.
fn look(data: &Path) -> Recovered {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(data.join("log")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let options = Options {
        scan_all: true,
        ..Options::new(copy.path(), QUOTA)
    };
    SegmentLog::open(options).unwrap().1
}

fn segment_path(data: &Path, segment: u64) -> PathBuf {
    data.join("log").join(format!("{segment:016x}.log"))
}

/// Flips one bit of a segment.
fn flip(data: &Path, segment: u64, position: u64) {
    let path = segment_path(data, segment);
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, position).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], position).unwrap();
}

/// Numbers of the last two messages of a staged batch: their payloads are the end of its body.
fn last_two(data: &Path, at: Location) -> [usize; 2] {
    let file = File::open(segment_path(data, at.segment)).unwrap();
    let end = at.position + FRAME_HEADER as u64 + u64::from(at.head_len) + u64::from(at.body_len);
    [2, 1].map(|from_end| {
        let mut payload = vec![0; PAYLOAD];
        file.read_exact_at(&mut payload, end - (from_end * PAYLOAD) as u64)
            .unwrap();
        let text = String::from_utf8(payload).unwrap();
        text.trim_end().parse().unwrap()
    })
}

/// Damages the body of a record.
fn damage(data: &Path, at: Location) {
    let body = at.position + FRAME_HEADER as u64 + u64::from(at.head_len);
    flip(data, at.segment, body + u64::from(at.body_len) / 2);
}

fn stages(recovered: &Recovered) -> Vec<(Key, Location)> {
    let own = recovered
        .records
        .iter()
        .filter(|record| record.key.space == SPACE && record.kind == STAGE);
    own.map(|record| (record.key, record.at)).collect()
}

fn is_resolved(recovered: &Recovered, key: Key) -> bool {
    recovered
        .records
        .iter()
        .any(|record| record.key == key && record.kind == RESOLUTION)
}

/// Keys that a start would call damaged.
fn damaged(recovered: &Recovered) -> Vec<Key> {
    recovered.damaged.iter().filter_map(|damage| damage.key).collect()
}

/// A node that holds `count` published messages for applications that are not there.
async fn holding(count: usize, store: &serde_json::Value) -> Cluster {
    let mut cluster = Cluster::new(&["billing", "shipping"]).await;
    let mut options = cluster.options("n1").with_config(&json!({ "store": store }));
    options.config["mappings"][TOPIC]["intake"] = json!("always");
    cluster.add(options, 0).await;
    cluster
        .feed_as(count, |mut feed| {
            feed.payload_bytes = PAYLOAD;
            feed
        })
        .await;
    cluster.nodes[0]
        .wait_status(LONG, "everything to be published", |status| {
            orders(status).head_offset == count as u64
        })
        .await
        .unwrap();
    eventually(LONG, "everything to be settled", || cluster.hub_at_rest()).await;
    cluster
}

async fn add_instances(cluster: &mut Cluster) {
    for app in ["billing", "shipping"] {
        cluster.instance(0, app, "late", |options| options).await;
    }
}

/// Goal: published batches that are damaged are fetched again, whether the start finds the damage or a reader does, and a
/// further start finds everything well.
#[tokio::test]
async fn published_batches_are_fetched_again() {
    // Small segments: most of them are sealed, and a start trusts what their footers list.
    let mut cluster = holding(
        400,
        &json!({ "segment": "64KiB", "quota": "16MiB", "reserve": "1MiB" }),
    )
    .await;
    cluster.nodes[0].kill().unwrap();
    let data = cluster.nodes[0].data_dir();
    let all = stages(&look(&data));
    assert!(all.len() >= 20, "{}", all.len());
    let victims = [0, all.len() / 2, all.len() - 2];
    for victim in victims {
        damage(&data, all[victim].1);
    }
    let segments: Vec<u64> = victims.iter().map(|victim| all[*victim].1.segment).collect();
    assert!(segments[0] < segments[2], "{segments:?}");

    cluster.nodes[0].restart().await.unwrap();
    add_instances(&mut cluster).await;
    cluster.feed(100).await;
    cluster.wait_rest().await;
    let mended = |cluster: &Cluster| {
        let log = cluster.nodes[0].log();
        log.iter().filter(|line| line.text.contains("FAN-4047")).count()
    };
    assert_eq!(mended(&cluster), victims.len());

    cluster.nodes[0].kill().unwrap();
    cluster.nodes[0].restart().await.unwrap();
    cluster.feed(100).await;
    cluster.wait_rest().await;
    assert_eq!(mended(&cluster), victims.len(), "nothing is fetched twice");
    cluster.finish().await;
}

/// Goal: what is fetched again survives a crash before anybody has read it, though the damaged record is still there.
#[tokio::test]
async fn a_mended_batch_stays_mended() {
    let mut cluster = holding(100, &json!({})).await;
    cluster.nodes[0].kill().unwrap();
    let data = cluster.nodes[0].data_dir();
    let victim = stages(&look(&data))[1];
    damage(&data, victim.1);
    assert_eq!(damaged(&look(&data)), [victim.0]);
    cluster.nodes[0].restart().await.unwrap();
    cluster.nodes[0].wait_log(LONG, "FAN-4047").await.unwrap();
    cluster.nodes[0].kill().unwrap();
    let after = look(&data);
    let copies = stages(&after).iter().filter(|(key, _)| *key == victim.0).count();
    assert_eq!(copies, 1, "the new record");
    assert_eq!(damaged(&after), [victim.0], "and the old one");
    // Nothing more can be had from the source: what counts is on the disk.
    let stream = cluster.jetstream.get_stream(STREAM).await.unwrap();
    stream.purge().await.unwrap();
    cluster.nodes[0].restart().await.unwrap();
    add_instances(&mut cluster).await;
    cluster.finish().await;
}

/// Goal: what the source does not have any more is not lost in silence: it is counted and becomes a dead letter of every
/// application, all else is delivered, and a restart finds it so. Method: the source loses its first messages.
#[tokio::test]
async fn what_the_source_has_dropped_becomes_a_dead_letter() {
    let mut cluster = holding(100, &json!({})).await;
    cluster.nodes[0].kill().unwrap();
    let data = cluster.nodes[0].data_dir();
    let victim = stages(&look(&data))[0];
    let through = last_two(&data, victim.1)[1].min(4);
    damage(&data, victim.1);
    let gone: Vec<String> = cluster.ids.drain(..=through).collect();
    let (_, kept) = cluster.ids[0].split_once(':').unwrap();
    let stream = cluster.jetstream.get_stream(STREAM).await.unwrap();
    stream.purge().sequence(kept.parse().unwrap()).await.unwrap();
    cluster.nodes[0].restart().await.unwrap();
    add_instances(&mut cluster).await;
    let dead = |status: &StatusResponse| {
        let apps = &orders(status).apps;
        apps.len() == 2 && apps.iter().all(|app| app.dead_letters == gone.len() as u64)
    };
    cluster.nodes[0]
        .wait_status(LONG, "the dead letters", dead)
        .await
        .unwrap();
    cluster.nodes[0].wait_log(LONG, "FAN-4045").await.unwrap();
    cluster.wait_rest().await;
    cluster.nodes[0].restart().await.unwrap();
    cluster.nodes[0]
        .wait_status(LONG, "the dead letters again", dead)
        .await
        .unwrap();
    cluster.feed(50).await;
    cluster.finish().await;
}

/// Goal: sequences of a stream that was created again are not taken for the lost messages; until the operator says that the
/// loss is accepted, nothing is pulled, the reason says what to do, and what is not damaged is delivered.
#[tokio::test]
async fn another_stream_of_the_same_name_mends_nothing() {
    let mut cluster = holding(100, &json!({})).await;
    cluster.nodes[0].kill().unwrap();
    let data = cluster.nodes[0].data_dir();
    let all = stages(&look(&data));
    let victim = all[all.len() - 2];
    damage(&data, victim.1);
    cluster.jetstream.delete_stream(STREAM).await.unwrap();
    let subjects = format!("{}.>", crate::cluster::SUBJECT);
    fanin_tests::hub::create_source(&cluster.jetstream, STREAM, &[&subjects])
        .await
        .unwrap();
    cluster.feed(100).await;
    cluster.nodes[0].options_mut().args = vec!["--accept-terms".to_owned()];
    cluster.nodes[0].restart().await.unwrap();
    let status = cluster.nodes[0]
        .wait_status(LONG, "the reason", |status| {
            orders(status).reason.contains("--accept-loss")
        })
        .await
        .unwrap();
    assert_eq!(orders(&status).state, "withheld");
    add_instances(&mut cluster).await;
    let before = before(&all, victim.0);
    eventually(LONG, "what lies before the damage", || async {
        cluster.recorder.count() as u64 >= 2 * before
    })
    .await;
    let consumer = cluster.consumer().await.unwrap();
    assert_eq!(
        consumer.delivered.stream_sequence, 0,
        "nothing is pulled: {consumer:?}"
    );

    cluster.nodes[0].options_mut().args = vec!["--accept-loss".to_owned()];
    cluster.nodes[0].restart().await.unwrap();
    cluster.nodes[0].wait_log(LONG, "FAN-4045").await.unwrap();
    let status = cluster.nodes[0]
        .wait_status(LONG, "everything to be finished", |status| {
            let apps = &orders(status).apps;
            orders(status).state == "active" && apps.iter().all(|app| app.backlog_messages == 0)
        })
        .await
        .unwrap();
    // Both streams' messages have the same ids here, so the counts are the proof.
    let lost = orders(&status).apps[0].dead_letters;
    assert!(lost > 0, "{status:?}");
    eventually(LONG, "all others", || async {
        cluster.recorder.count() as u64 == 2 * (200 - lost)
    })
    .await;
    cluster.nodes[0].stop().await.unwrap();
}

/// Goal: on a node that has halted because it doubts its source a damaged batch waits, though the source has it, and everything behind it
/// in the topic waits with it; what lies before is delivered. With the source restored and the node restarted it is fetched, and nothing is
/// lost or comes twice. Method: little memory for bodies, so that they are read from the disk; the source is put back to a copy that holds
/// the batch, then the batch is damaged under the running node.
#[tokio::test]
async fn what_is_damaged_waits_while_the_source_is_doubted() {
    let mut cluster = Cluster::new(&["billing"]).await;
    let little = json!({ "memory": { "tail": "64KiB" } });
    let options = cluster.options("n1").with_config(&little).allow_error("FAN-4036");
    let mut options = quick_to_believe(options);
    options.config["mappings"][TOPIC]["intake"] = json!("always");
    cluster.add(options, 0).await;
    let away = tempfile::tempdir().unwrap();
    let (older, newer) = (away.path().join("older"), away.path().join("newer"));
    for (count, copy) in [(100, &older), (200, &newer)] {
        let large = |mut feed: Feed| {
            feed.payload_bytes = PAYLOAD;
            feed
        };
        cluster.feed_as(100, large).await;
        let held = cluster.nodes[0].wait_status(LONG, "everything to be published", |status| {
            orders(status).head_offset == count
        });
        held.await.unwrap();
        eventually(LONG, "everything to be settled", || cluster.hub_at_rest()).await;
        snapshot(&mut cluster, copy).await;
    }
    put_back(&mut cluster, &older, &[hub_store::source()]).await;
    assert_halts(&cluster.nodes[0], "FAN-4036", &[]).await;

    let data = cluster.nodes[0].data_dir();
    let all = stages(&look(&data));
    let victim = all[2];
    damage(&data, victim.1);
    // Messages are numbered from 0, and lie in the order of their numbers.
    let before = last_two(&data, all[1].1)[1] as u64 + 1;
    cluster.instance(0, "billing", "late", |options| options).await;
    cluster.nodes[0].wait_log(LONG, "FAN-4043").await.unwrap();
    eventually(LONG, "what lies before the damage", || async {
        cluster.recorder.count() as u64 >= before
    })
    .await;
    cluster.nodes[0].stop().await.unwrap();
    assert_eq!(
        cluster.recorder.count() as u64,
        before,
        "something behind it was delivered"
    );
    let log = cluster.nodes[0].log();
    let fetched = log
        .iter()
        .find(|line| line.text.contains("fetching a damaged batch again"));
    assert!(fetched.is_none(), "{fetched:?}");

    put_back(&mut cluster, &newer, &[hub_store::source()]).await;
    cluster.nodes[0].respawn().unwrap();
    cluster.nodes[0].wait_log(LONG, "FAN-4047").await.unwrap();
    cluster.wait_rest().await;
    cluster.assert_published_once().await;
    cluster.finish().await;
}

/// How many messages the batches before this one hold.
fn before(all: &[(Key, Location)], victim: Key) -> u64 {
    let before = all.iter().take_while(|(key, _)| *key != victim);
    before
        .map(|(_, at)| u64::from(at.body_len) / (PAYLOAD as u64 + 64))
        .sum()
}

/// Goal: a batch that was staged and whose claim never got to the ledger is forgotten, and the hub delivers its messages again.
/// Method: what the node sends to the hub is held back from some moment on, so that what it is still handed is staged in vain.
#[tokio::test]
async fn a_batch_never_claimed_is_forgotten() {
    let mut cluster = Cluster::new(&["billing"]).await;
    let proxy = Proxy::start(cluster.hub.port()).await.unwrap();
    let far = BridgeOptions::new("n1", &proxy.url(), mapping(&["billing"]));
    cluster.add(far, 1).await;
    cluster.feed(40).await;
    cluster.wait_rest().await;
    let direct = Link::Flow {
        delay: Duration::ZERO,
    };
    proxy.links(Link::Stall, direct);
    cluster.feed(20).await;
    let data = cluster.nodes[0].data_dir();
    let open = |recovered: &Recovered| {
        let own = stages(recovered).into_iter();
        own.filter(|(key, _)| !is_resolved(recovered, *key))
            .collect::<Vec<_>>()
    };
    eventually(LONG, "a batch to be staged", || async {
        !open(&look(&data)).is_empty()
    })
    .await;
    cluster.nodes[0].kill().unwrap();
    let victims = open(&look(&data));
    for (_, at) in &victims {
        damage(&data, *at);
    }
    let found = damaged(&look(&data));
    assert!(victims.iter().any(|(key, _)| found.contains(key)), "{found:?}");

    cluster.nodes[0].options_mut().config["hub"]["servers"] = json!([cluster.hub.url()]);
    cluster.nodes[0].restart().await.unwrap();
    cluster.nodes[0]
        .wait_log(LONG, "had not been claimed")
        .await
        .unwrap();
    cluster.wait_rest().await;
    cluster.assert_published_once().await;
    cluster.finish().await;
}

/// Goal: a death right behind the mending changes nothing.
#[tokio::test]
async fn a_node_may_die_as_soon_as_it_has_mended() {
    let mut cluster = holding(100, &json!({})).await;
    cluster.nodes[0].kill().unwrap();
    let data = cluster.nodes[0].data_dir();
    let all = stages(&look(&data));
    damage(&data, all[1].1);
    damage(&data, all[2].1);
    let env = &mut cluster.nodes[0].options_mut().env;
    env.insert("FANIN_FAILPOINTS".to_owned(), "after_mend=kill@2".to_owned());
    cluster.nodes[0].respawn().unwrap();
    let ended = cluster.nodes[0].wait_exit(LONG).await.unwrap();
    assert_eq!(ended.signal(), Some(9), "{}", cluster.nodes[0].log_tail());
    cluster.nodes[0].options_mut().env.clear();
    cluster.nodes[0].restart().await.unwrap();
    add_instances(&mut cluster).await;
    cluster.wait_rest().await;
    cluster.assert_published_once().await;
    cluster.finish().await;
}

/// Goal: batches that were staged and not resolved: what an earlier life had won with them is published, whatever else they
/// held goes back to the hub. Method: death right behind a claim, as often as it takes to find such a batch that is not the
/// log's very end, which would count as torn.
#[tokio::test]
async fn unresolved_batches_are_decided_by_the_ledger() {
    let mut cluster = Cluster::with_nodes(&["billing", "shipping"], 2, 1).await;
    let mut hit = 0;
    for nth in (3..).take(12) {
        let node = &mut cluster.nodes[0];
        let env = &mut node.options_mut().env;
        env.insert("FANIN_FAILPOINTS".to_owned(), format!("after_claim=kill@{nth}"));
        node.respawn().unwrap();
        let trickle = cluster.stream(Duration::from_millis(5));
        let node = &mut cluster.nodes[0];
        let ended = node.wait_exit(LONG).await.unwrap();
        assert_eq!(ended.signal(), Some(9), "{}", node.log_tail());
        node.options_mut().env.clear();
        cluster.stop_stream(trickle).await;
        let node = &mut cluster.nodes[0];
        let data = node.data_dir();
        let before = look(&data);
        let open = stages(&before)
            .into_iter()
            .filter(|(key, _)| !is_resolved(&before, *key));
        for (key, at) in open.collect::<Vec<_>>() {
            damage(&data, at);
            if damaged(&look(&data)).contains(&key) {
                hit += 1;
            } else {
                // It counts as torn; put it back.
                damage(&data, at);
            }
        }
        cluster.nodes[0].restart().await.unwrap();
        cluster.wait_rest().await;
        if hit >= 3 {
            break;
        }
    }
    assert!(hit > 0, "no unresolved batch was met");
    cluster.assert_published_once().await;
    cluster.finish().await;
}

/// Goal: damage to what tells how far an application is holds back its mapping, with a reason and a cure; another mapping of
/// the node goes on, and nothing is delivered twice. Method: two mappings; the newest cursor of one is hit.
#[tokio::test]
async fn a_damaged_cursor_holds_back_its_mapping_alone() {
    let mut cluster = Cluster::new(&["billing"]).await;
    let mut both = mapping(&["billing"]);
    let mut other = both[TOPIC].clone();
    other["sources"] = json!([{ "stream": "OTHER" }]);
    both["other"] = other;
    let subjects = ["other.>"];
    fanin_tests::hub::create_source(&cluster.jetstream, "OTHER", &subjects)
        .await
        .unwrap();
    let mut options = cluster.options("n1").allow_error("FAN-4044");
    options.config["mappings"] = both;
    cluster.add(options, 1).await;
    cluster.feed(60).await;
    cluster.wait_rest().await;
    let recorded = cluster.recorder.count();
    let data = cluster.nodes[0].data_dir();
    let value = format!("cursor/{}/billing", space_of(&look(&data), TOPIC));
    cluster.nodes[0].kill().unwrap();
    cluster.instances.clear();
    let (segment, position) = last_put(&data, &value);
    flip(&data, segment, position + value.len() as u64);
    let hit = look(&data);
    assert!(
        hit.damaged
            .iter()
            .any(|damage| damage.value.as_deref() == Some(&*value)),
        "{:?}",
        hit.damaged
    );

    cluster.nodes[0].respawn().unwrap();
    let status = cluster.nodes[0]
        .wait_status(LONG, "the other mapping to join", |status| {
            status.mappings.iter().any(|m| m.name == "other" && m.epoch > 0)
        })
        .await
        .unwrap();
    let held = orders(&status);
    assert_eq!(held.state, "damaged");
    assert!(
        held.reason.starts_with("FAN-4044") && held.reason.contains(&value),
        "{}",
        held.reason
    );
    let options = AppOptions::new(&cluster.nodes[0].socket(), "other", "billing", "o");
    let elsewhere = Recorder::new();
    let instance = AppInstance::start(options, elsewhere.clone()).await.unwrap();
    let ids = publish(&cluster.jetstream, &Feed::new("other", 40))
        .await
        .unwrap();
    eventually(LONG, "the other mapping to deliver", || async {
        elsewhere.count() == ids.len()
    })
    .await;
    instance.stop().await.unwrap();
    let client = Client::connect(&cluster.nodes[0].socket()).await.unwrap();
    let opened = client
        .subscribe(TOPIC, "billing")
        .open_timeout(Duration::from_secs(1))
        .open()
        .await;
    let refused = opened.err().map(|error| format!("{error:?}")).unwrap_or_default();
    assert!(refused.contains("FAN-3009"), "{refused}");
    assert_eq!(cluster.recorder.count(), recorded, "nothing is delivered");
    cluster.nodes[0].stop().await.unwrap();
}

/// The number of a mapping's space.
fn space_of(recovered: &Recovered, mapping: &str) -> u32 {
    let value = &recovered.values[&format!("space/{mapping}")];
    u32::from_be_bytes(value.as_ref().try_into().unwrap())
}

/// Where the name of a value's newest record lies.
fn last_put(data: &Path, name: &str) -> (u64, u64) {
    let mut segments: Vec<_> = std::fs::read_dir(data.join("log"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    segments.sort();
    let newest = segments.iter().rev().find_map(|path| {
        let bytes = std::fs::read(path).unwrap();
        let at = bytes
            .windows(name.len())
            .rposition(|window| window == name.as_bytes())?;
        let stem = path.file_stem().unwrap().to_string_lossy();
        Some((u64::from_str_radix(&stem, 16).unwrap(), at as u64))
    });
    newest.unwrap_or_else(|| panic!("no record of {name}"))
}
