//! What waits for a client that does not read.

use fanin_proto::v1::Credit;
use fanin_proto::v1::subscribe_request::Request;
use fanin_tests::hub::start_hub_with;
use fanin_tests::wait::eventually;
use serde_json::json;

use crate::cluster::{Cluster, LONG, SUBJECT, TOPIC, orders};
use crate::hostile::{call, channel, open};

/// Batches, of which each holds one message for the application.
const ROUNDS: usize = 256;
/// Messages of each batch that its filter leaves out, and their size: a batch is about a MiB, all of them far above the cap.
const OTHERS: usize = 15;
const OTHER_BYTES: usize = 64 * 1024;
/// Messages of the same size for the application before them: more than the windows of its connection and the frames on their way to it
/// hold, so that what follows has to wait in the bridge; less than the bridge lends it in credit beyond them.
const AHEAD: usize = 96;
/// `memory.staged` and `memory.tail` of the node.
const STAGED_BYTES: u64 = 8 << 20;
const TAIL_BYTES: u64 = 1 << 20;
/// What may wait for one instance: the bridge's own bound of that name, rounded up.
const OUTBOUND_BYTES_MAX: u64 = 21 << 20;
/// Beyond what its limits say: buffers of the connection to the hub and of the log, and what the allocator keeps.
const SPARE_BYTES: u64 = 96 << 20;

const _: () = assert!(
    2 * (STAGED_BYTES + TAIL_BYTES + OUTBOUND_BYTES_MAX + SPARE_BYTES)
        <= 2 * (ROUNDS * OTHERS * OTHER_BYTES) as u64
);

/// Goal: what waits for an instance is bounded in bytes also where a filter picks one small message of each large batch: the
/// message waits, not its batch. Method: such a backlog behind what fills every buffer on the way to a client that grants all the credit there is and never
/// reads; when all of it has been handed to that client, the peak of resident memory is what the limits say; then the client goes, and another one gets
/// everything once.
#[tokio::test]
async fn a_sparse_filter_and_a_client_that_does_not_read_keep_no_batches() {
    let hub = start_hub_with(|options| options.sync_always = false).await;
    let mut cluster = Cluster::on(hub, &["billing"]).await;
    cluster
        .feed_as(AHEAD, |mut feed| {
            feed.subject_prefix = format!("{SUBJECT}.rare");
            feed.payload_bytes = OTHER_BYTES;
            feed
        })
        .await;
    let mut wanted = cluster.ids.clone();
    for _ in 0..ROUNDS {
        cluster
            .feed_as(1, |mut feed| {
                feed.subject_prefix = format!("{SUBJECT}.rare");
                feed
            })
            .await;
        wanted.extend(cluster.ids.last().cloned());
        cluster
            .feed_as(OTHERS, |mut feed| {
                feed.subject_prefix = format!("{SUBJECT}.other");
                feed.payload_bytes = OTHER_BYTES;
                feed
            })
            .await;
    }
    cluster.ids = wanted;

    let mut options = cluster.options("n1").with_config(&json!({
        "hub": { "durability": "lazy" },
        "memory": { "tail": TAIL_BYTES.to_string(), "staged": STAGED_BYTES.to_string() },
    }));
    options.config["mappings"][TOPIC]["applications"]["billing"]["filter"] =
        json!({ "subjects": [format!("{SUBJECT}.rare.>")] });
    // What waits counts as backlog, of which a gated node takes only so much.
    options.config["mappings"][TOPIC]["intake"] = json!("always");
    cluster.add(options, 0).await;
    let node = &cluster.nodes[0];
    let idle = node.peak_resident_bytes().unwrap();

    let way = channel(node).await;
    let endless = Request::Credit(Credit {
        bytes: u64::MAX,
        messages: u32::MAX,
    });
    let deaf = call(&way, vec![open(TOPIC, "billing"), endless]).await.unwrap();
    eventually(LONG, "the node to have everything", || cluster.hub_at_rest()).await;
    let held = node
        .wait_status(LONG, "everything to be handed over", |status| {
            orders(status).apps[0].in_flight == (AHEAD + ROUNDS) as u64
        })
        .await;
    held.unwrap();
    let grown = node.peak_resident_bytes().unwrap().saturating_sub(idle);
    eprintln!("idle {} MiB, {} MiB more at the peak", idle >> 20, grown >> 20);
    let most = STAGED_BYTES + TAIL_BYTES + OUTBOUND_BYTES_MAX + SPARE_BYTES;
    assert!(grown < most, "{} MiB of at most {} MiB", grown >> 20, most >> 20);

    drop((deaf, way));
    cluster.instance(0, "billing", "late", |options| options).await;
    cluster.finish().await;
}
