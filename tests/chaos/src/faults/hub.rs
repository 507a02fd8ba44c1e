//! What the hub does to its own state: leaders, the shared consumer, the source, the stores.

use std::fmt::Display;

use async_nats::jetstream::consumer::DeliverPolicy;
use fanin_tests::wait::until;
use serde_json::{Value, json};

use super::{Outcome, copy_dir, no_victim};
use crate::error::{RunError, during};
use crate::limits::ACT_TIMEOUT;
use crate::plan::{Back, Leader};
use crate::run::tell;
use crate::world::{Copied, LEDGER, STREAM, World};

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

/// Why a fault of the consumer does not bite.
const NO_CONSUMER: &str = "no consumer was found";

/// What the hub said to a request. None is as good as no fault.
fn answered(asked: Result<Value, impl Display>) -> Outcome {
    match asked {
        Ok(answer) => match answer.get("error") {
            Some(error) => {
                let text = error.get("description").and_then(Value::as_str);
                Outcome::nothing(format!("refused: {}", text.unwrap_or("without a word")))
            }
            None => Outcome::Done,
        },
        Err(_) => Outcome::nothing("no answer"),
    }
}

/// Asks a leader to step down. A refusal is fine: there may be no leader while another fault lasts.
pub(super) async fn step_down(world: &World, whose: Leader) -> Result<Outcome, RunError> {
    let subject = match whose {
        Leader::Source => format!("STREAM.LEADER.STEPDOWN.{STREAM}"),
        Leader::Ledger => format!("STREAM.LEADER.STEPDOWN.{LEDGER}"),
        Leader::Consumer => match world.hub.consumer().await {
            Ok(consumer) => format!("CONSUMER.LEADER.STEPDOWN.{STREAM}.{}", consumer.name),
            Err(_) => return Ok(Outcome::nothing(NO_CONSUMER)),
        },
    };
    Ok(answered(world.hub.jetstream.request(subject, &()).await))
}

/// Deletes the shared consumer and makes it again alike: it delivers everything anew.
pub(super) async fn forget_consumer(world: &World) -> Result<Outcome, RunError> {
    let Ok(consumer) = world.hub.consumer().await else {
        return Ok(Outcome::nothing(NO_CONSUMER));
    };
    let (jetstream, name) = (&world.hub.jetstream, consumer.name);
    // Only a deletion that is confirmed is followed by a creation; the other way round it would go on as it is, or be gone.
    if jetstream
        .delete_consumer_from_stream(&name, STREAM)
        .await
        .is_err()
        && world.hub.consumer().await.is_ok()
    {
        return Ok(Outcome::nothing("it was not deleted"));
    }
    let created = until(ACT_TIMEOUT, "the consumer to be made again", || async {
        let created = jetstream.create_consumer_on_stream(consumer.config.clone(), STREAM);
        let Err(error) = created.await else {
            return Ok(());
        };
        // A bridge with the operator's word may be first, and begins elsewhere: what the old one knew is lost as well.
        let is_there = world.hub.consumer().await.is_ok();
        is_there.then_some(()).ok_or_else(|| error.to_string())
    });
    created.await.map(|()| Outcome::Done).map_err(RunError)
}

/// Sets the shared consumer to any sequence, of the source or a little ahead of it: what lies behind is delivered again, what
/// lies before is never delivered. No answer is fine while another fault lasts.
pub(super) async fn reset_consumer(world: &World, pick: u64) -> Result<Outcome, RunError> {
    let Ok(consumer) = world.hub.consumer().await else {
        return Ok(Outcome::nothing(NO_CONSUMER));
    };
    let Ok(last) = world.hub.last_sequence(STREAM).await else {
        return Ok(Outcome::nothing("no answer"));
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
    let wanted = json!({ "seq": seq.max(1) });
    let outcome = answered(world.hub.jetstream.request(subject, &wanted).await);
    let delivered = consumer.delivered.stream_sequence;
    tell(&format!(
        "           to {seq} of {last}, delivered {delivered}: {outcome:?}"
    ));
    Ok(outcome)
}

/// Deletes the shared consumer; [`operators_word`] brings it back.
pub(super) async fn delete_consumer(world: &World) -> Result<Outcome, RunError> {
    let Ok(consumer) = world.hub.consumer().await else {
        return Ok(Outcome::nothing(NO_CONSUMER));
    };
    let jetstream = &world.hub.jetstream;
    // Without an answer it is there or it is not; both are fine.
    let deleted = jetstream
        .delete_consumer_from_stream(&consumer.name, STREAM)
        .await;
    Ok(Outcome::when(deleted.is_ok(), "no answer"))
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
pub(super) async fn keep_copy(world: &mut World) -> Result<Outcome, RunError> {
    let copied_ms = world.hub.copy_stores(&copy_dir(world))?;
    let (source, ledger) = ends(world).await?;
    world.copied = Some(Copied {
        at_ms: copied_ms,
        source,
        ledger,
    });
    Ok(Outcome::Done)
}

/// The last sequences of source and ledger.
async fn ends(world: &World) -> Result<(u64, u64), RunError> {
    let asked = until(ACT_TIMEOUT, "the streams' last sequences", || async {
        let source = world.hub.last_sequence(STREAM).await?;
        Ok::<_, String>((source, world.hub.last_sequence(LEDGER).await?))
    });
    asked.await.map_err(RunError)
}

/// Going back bites when the streams that go back have grown behind the copy.
async fn has_grown(world: &World, what: Back) -> Result<Outcome, RunError> {
    let (source, ledger) = ends(world).await?;
    let has_grown = world.copied.is_some_and(|copied| match what {
        Back::Everything => source > copied.source || ledger > copied.ledger,
        Back::Ledger => ledger > copied.ledger,
        Back::Source => source > copied.source,
    });
    Ok(Outcome::when(has_grown, "nothing was stored behind the copy"))
}

pub(super) async fn roll_back_one(world: &mut World, server: usize) -> Result<Outcome, RunError> {
    let outcome = has_grown(world, Back::Everything).await?;
    let from = copy_dir(world);
    world.hub.restore_store(&from, server).await?;
    Ok(outcome)
}

pub(super) async fn roll_back(world: &mut World, what: Back) -> Result<Outcome, RunError> {
    let outcome = has_grown(world, what).await?;
    let from = copy_dir(world);
    let stream = match what {
        Back::Everything => None,
        Back::Ledger => Some(LEDGER),
        Back::Source => Some(STREAM),
    };
    world.hub.restore_stores(&from, stream).await?;
    Ok(outcome)
}

/// Purges the source while every bridge is frozen, so that messages go that no bridge has claimed.
pub(super) async fn purge(world: &World) -> Result<Outcome, RunError> {
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
    let purged = purged.await.map_err(RunError)?;
    for node in &world.nodes {
        node.bridge.resume().map_err(during("waking a bridge"))?;
    }
    Ok(Outcome::when(purged.purged > 0, "there was nothing to purge"))
}

pub(super) async fn recreate(world: &World) -> Result<Outcome, RunError> {
    let deleted = until(ACT_TIMEOUT, "the source to be deleted", || {
        world.hub.jetstream.delete_stream(STREAM)
    });
    deleted.await.map_err(RunError)?;
    world.hub.create_source().await?;
    Ok(Outcome::Done)
}
