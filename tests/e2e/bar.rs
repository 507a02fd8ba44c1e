//! The bar: exactly once over many messages, with bridges killed and frozen, and in the second variant the hub killed too.
//!
//! Small by default; `FANIN_BAR=1` runs the full size (50 000 messages, 12 SIGKILLs, 3 SIGSTOPs, the hub killed twice), which
//! takes minutes.

use std::time::Duration;

use fanin_tests::feed::{Feed, publish};
use fanin_tests::wait::eventually;

use crate::cluster::{ACK_WAIT, Cluster, LONG, SUBJECT};

const APPS: [&str; 3] = ["billing", "shipping", "audit"];
const NODES: usize = 3;
const INSTANCES: usize = 2;

struct Size {
    /// Messages fed during each round.
    round: usize,
    /// What happens in the middle of each round.
    faults: Vec<Fault>,
}

#[derive(Clone, Copy)]
enum Fault {
    Kill(usize),
    Freeze(usize),
    KillHub,
}

impl Size {
    fn of_this_run(with_hub: bool) -> Self {
        let full = std::env::var_os("FANIN_BAR").is_some_and(|value| value == "1");
        let (kills, freezes, hub_kills, total) = if full {
            (12, 3, 2, 50_000)
        } else {
            (3, 1, 1, 3_000)
        };
        let mut faults: Vec<Fault> = (0..kills).map(|number| Fault::Kill(number % NODES)).collect();
        for number in 0..freezes {
            faults.insert(
                (number + 1) * kills / (freezes + 1) + number,
                Fault::Freeze((number + 1) % NODES),
            );
        }
        for number in 0..if with_hub { hub_kills } else { 0 } {
            faults.insert((number + 1) * faults.len() / (hub_kills + 1), Fault::KillHub);
        }
        Self {
            round: usize::div_ceil(total, faults.len()),
            faults,
        }
    }
}

async fn run(with_hub: bool) {
    let size = Size::of_this_run(with_hub);
    let mut cluster = Cluster::with_nodes(&APPS, NODES, INSTANCES).await;
    for (number, fault) in size.faults.iter().enumerate() {
        let jetstream = cluster.jetstream.clone();
        let feed = Feed::new(SUBJECT, size.round).starting_at(number * size.round);
        let feeding = tokio::spawn(async move { publish(&jetstream, &feed).await });
        cluster.wait_more(size.round).await;
        match *fault {
            Fault::Kill(node) => cluster.nodes[node].restart().await.unwrap(),
            Fault::Freeze(node) => {
                cluster.nodes[node].pause().unwrap();
                let frozen = tokio::time::Instant::now();
                let long_enough = ACK_WAIT.mul_f64(1.5);
                eventually(LONG, "the hub's wait to be over", || async {
                    frozen.elapsed() > long_enough
                })
                .await;
                cluster.nodes[node].resume().unwrap();
            }
            Fault::KillHub => {
                cluster.hub.restart().await.unwrap();
            }
        }
        cluster.ids.extend(
            tokio::time::timeout(6 * LONG, feeding)
                .await
                .unwrap()
                .unwrap()
                .unwrap(),
        );
    }
    let waited = tokio::time::timeout(Duration::from_secs(600), cluster.wait_rest());
    waited.await.unwrap();
    cluster.assert_published_once().await;
    eprintln!("{}", cluster.report());
    eprintln!(
        "{} faults, {} acknowledgements lost their answer",
        size.faults.len(),
        cluster.recorder.doubts()
    );
    cluster.finish().await;
}

/// Goal: the bar of this design. Method: three nodes, three applications with two instances on each node, a feed in rounds, a
/// SIGKILL or a SIGSTOP beyond the hub's wait in the middle of each.
#[tokio::test]
async fn exactly_once_with_bridges_killed_and_frozen() {
    run(false).await;
}

/// Goal and method: the same, and the hub is killed too.
#[tokio::test]
async fn exactly_once_with_bridges_and_hub_killed() {
    run(true).await;
}
