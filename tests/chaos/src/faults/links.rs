//! Lines between bridges and servers, and between servers.

use std::time::Duration;

use fanin_tests::proxy::{Link, Proxy};

use super::Outcome;
use crate::error::RunError;
use crate::plan::How;
use crate::world::World;

const DIRECT: Link = Link::Flow {
    delay: Duration::ZERO,
};

/// The line of a bridge to a server.
pub(super) fn of_node(world: &World, node: usize, server: usize) -> Vec<&Proxy> {
    let node = world.nodes.get(node);
    node.and_then(|node| node.links.get(server)).into_iter().collect()
}

/// The line of the producer to a server.
pub(super) fn of_producer(world: &World, server: usize) -> Vec<&Proxy> {
    world.producer_links.get(server).into_iter().collect()
}

/// Whether it bites is known when it is over: somebody may come who finds the line like that.
pub(super) async fn disturb(lines: Vec<&Proxy>, how: How) -> Result<Outcome, RunError> {
    if lines.is_empty() {
        return Err(RunError("there is no such line".to_owned()));
    }
    for line in lines {
        match how {
            How::Cut => line.cut(),
            How::Refuse => line.refuse().await,
            How::Stall => line.stall(),
            How::Swallow => line.blackhole(),
            How::SwallowRequests => line.links(Link::Swallow, DIRECT),
            How::SwallowReplies => line.links(DIRECT, Link::Swallow),
            How::Delay(milliseconds) => line.delay(Duration::from_millis(milliseconds)),
        }
    }
    Ok(Outcome::Done)
}

pub(super) async fn heal(lines: Vec<&Proxy>) -> Result<Outcome, RunError> {
    let mut met = false;
    for line in lines {
        met |= line.has_met_one();
        line.pass().await;
    }
    Ok(Outcome::when(met, "nobody used the line"))
}
