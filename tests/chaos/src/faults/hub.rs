//! What the hub does to its own state: leaders, the shared consumer, the source, the stores.

use async_nats::jetstream::consumer::DeliverPolicy;
use fanin_tests::wait::until;
use serde_json::{Value, json};

use super::{copy_dir, no_victim};
use crate::error::{RunError, during};
use crate::limits::ACT_TIMEOUT;
use crate::plan::{Back, Leader};
use crate::world::{LEDGER, STREAM, World};

/// A purge takes at least this many messages that no bridge was handed.
const PURGED_MIN: u64 = 100;

/// A reset goes this far back at most, except each so many times.
const RESET_NEAR: u64 = 2_000;
/// See [`RESET_NEAR`].
const RESET_FAR_EVERY: u64 = 4;
/// Each so many resets go ahead of the source's end, by at most [`RESET_AHEAD`].
const RESET_AHEAD_EVERY: u64 = 4;
/// See [`RESET_AHEAD_EVERY`].
const RESET_AHEAD: u64 = 100;

/// Asks a leader to step down. A refusal is fine: there may be no leader while another fault lasts.
pub(super) async fn step_down(world: &World, whose: Leader) -> Result<(), RunError> {
    let subject = match whose {
        Leader::Source => format!("STREAM.LEADER.STEPDOWN.{STREAM}"),
        Leader::Ledger => format!("STREAM.LEADER.STEPDOWN.{LEDGER}"),
        Leader::Consumer => match world.hub.consumer().await {
            Ok(consumer) => format!("CONSUMER.LEADER.STEPDOWN.{STREAM}.{}", consumer.name),
            Err(_) => return Ok(()),
        },
    };
    let asked: Result<Value, _> = world.hub.jetstream.request(subject, &()).await;
    // The client's own error is no answer either; the fault is as good as none then.
    drop(asked);
    Ok(())
}

/// Deletes the shared consumer and makes it again alike: it delivers everything anew.
pub(super) async fn forget_consumer(world: &World) -> Result<(), RunError> {
    let Ok(consumer) = world.hub.consumer().await else {
        return Ok(());
    };
    let (jetstream, name) = (&world.hub.jetstream, consumer.name);
    // Only a deletion that is confirmed is followed by a creation; the other way round it would go on as it is, or be gone.
    if jetstream
        .delete_consumer_from_stream(&name, STREAM)
        .await
        .is_err()
        && world.hub.consumer().await.is_ok()
    {
        return Ok(());
    }
    let created = until(ACT_TIMEOUT, "the consumer to be made again", || {
        jetstream.create_consumer_on_stream(consumer.config.clone(), STREAM)
    });
    created.await.map(|_| ()).map_err(RunError)
}

/// Sets the shared consumer to any sequence, of the source or a little ahead of it: what lies behind is delivered again, what
/// lies before is never delivered. No answer is fine while another fault lasts.
pub(super) async fn reset_consumer(world: &World, pick: u64) -> Result<(), RunError> {
    let (Ok(consumer), Ok(last)) = (world.hub.consumer().await, world.hub.last_sequence().await) else {
        return Ok(());
    };
    let subject = format!("CONSUMER.RESET.{STREAM}.{}", consumer.name);
    // A consumer that was made again begins somewhere, and is not set before that.
    let first = match consumer.config.deliver_policy {
        DeliverPolicy::ByStartSequence { start_sequence } => start_sequence.min(last),
        DeliverPolicy::All
        | DeliverPolicy::Last
        | DeliverPolicy::New
        | DeliverPolicy::ByStartTime { .. }
        | DeliverPolicy::LastPerSubject => 1,
    };
    // Mostly near the end, where messages are under way.
    let span = (last + 1).saturating_sub(first).max(1);
    let span = if pick.is_multiple_of(RESET_FAR_EVERY) {
        span
    } else {
        span.min(RESET_NEAR)
    };
    // Ahead of the source's end everything is skipped that comes until then.
    let seq = if pick % RESET_AHEAD_EVERY == 1 {
        last + 1 + (pick >> 8) % RESET_AHEAD
    } else {
        last - (pick >> 8) % span
    };
    let asked: Result<Value, _> = world
        .hub
        .jetstream
        .request(subject, &json!({ "seq": seq.max(1) }))
        .await;
    let told = match asked {
        Ok(answer) => match answer.get("error") {
            Some(error) => format!("refused: {error}"),
            None => "done".to_owned(),
        },
        Err(error) => format!("no answer: {error}"),
    };
    eprintln!(
        "           to {seq} of {last}, delivered {}: {told}",
        consumer.delivered.stream_sequence
    );
    Ok(())
}

/// Deletes the shared consumer; [`operators_word`] brings it back.
pub(super) async fn delete_consumer(world: &World) -> Result<(), RunError> {
    if let Ok(consumer) = world.hub.consumer().await {
        // Without an answer it is there or it is not; both are fine.
        drop(
            world
                .hub
                .jetstream
                .delete_consumer_from_stream(&consumer.name, STREAM)
                .await,
        );
    }
    Ok(())
}

/// Starts a bridge once with the operator's word that a missing consumer is to be made again.
pub(super) async fn operators_word(world: &mut World, number: usize) -> Result<(), RunError> {
    let node = world
        .nodes
        .get_mut(number)
        .ok_or_else(|| no_victim("node", number))?;
    if world.hub.consumer().await.is_ok() {
        return Ok(());
    }
    node.bridge.options_mut().args = vec!["--recreate-consumer".to_owned()];
    node.bridge.respawn().map_err(during("starting a bridge"))?;
    node.bridge.options_mut().args.clear();
    Ok(())
}

/// Copies the stores, and notes when: what is stored later is not in the copy.
pub(super) fn keep_copy(world: &mut World) -> Result<(), RunError> {
    let copied_ms = world.hub.copy_stores(&copy_dir(world))?;
    world.copied_ms = Some(copied_ms);
    Ok(())
}

pub(super) async fn roll_back_one(world: &mut World, server: usize) -> Result<(), RunError> {
    let from = copy_dir(world);
    world.hub.restore_store(&from, server).await
}

pub(super) async fn roll_back(world: &mut World, what: Back) -> Result<(), RunError> {
    let from = copy_dir(world);
    let stream = match what {
        Back::Everything => None,
        Back::Ledger => Some(LEDGER),
        Back::Source => Some(STREAM),
    };
    world.hub.restore_stores(&from, stream).await
}

/// Purges the source while every bridge is frozen, so that messages go that no bridge has claimed.
pub(super) async fn purge(world: &World) -> Result<(), RunError> {
    for node in &world.nodes {
        node.bridge.pause().map_err(during("freezing a bridge"))?;
    }
    // What the hub has handed to frozen bridges is theirs already; what lies behind that nobody has.
    let waiting = until(ACT_TIMEOUT, "messages that no bridge was handed", || async {
        let pending = world.hub.consumer().await?.num_pending;
        if pending >= PURGED_MIN {
            Ok(())
        } else {
            Err(format!("{pending} of {PURGED_MIN}"))
        }
    });
    waiting.await.map_err(RunError)?;
    let purged = until(ACT_TIMEOUT, "the purge", || async {
        let stream = world
            .hub
            .jetstream
            .get_stream(STREAM)
            .await
            .map_err(|error| error.to_string())?;
        stream.purge().await.map_err(|error| error.to_string())
    });
    purged.await.map_err(RunError)?;
    for node in &world.nodes {
        node.bridge.resume().map_err(during("waking a bridge"))?;
    }
    Ok(())
}

pub(super) async fn recreate(world: &World) -> Result<(), RunError> {
    let deleted = until(ACT_TIMEOUT, "the source to be deleted", || {
        world.hub.jetstream.delete_stream(STREAM)
    });
    deleted.await.map_err(RunError)?;
    world.hub.create_source().await
}
