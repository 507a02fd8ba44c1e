//! How each fault is done and undone, one file a group.

mod disk;
mod hub;
mod links;
mod processes;

use std::fmt::Display;
use std::path::PathBuf;

use crate::error::RunError;
use crate::plan::Fault;
use crate::world::World;

/// Whether a fault met anything that it could harm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It bit, as far as can be told.
    Done,
    /// It did not, for this reason.
    Nothing(String),
}

impl Outcome {
    fn nothing(why: impl Display) -> Self {
        Self::Nothing(why.to_string())
    }

    /// [`Self::Done`] when that holds.
    fn when(holds: bool, why_not: &str) -> Self {
        if holds { Self::Done } else { Self::nothing(why_not) }
    }
}

/// Begins a fault, and tells whether it bites. Some show that only in the end.
pub(crate) async fn begin(world: &mut World, fault: Fault) -> Result<Outcome, RunError> {
    match fault {
        Fault::KillNode { node } => processes::kill_node(world, node).await,
        Fault::FreezeNode { node } => processes::freeze_node(world, node).await,
        Fault::KillInstance { instance } => processes::kill_instance(world, instance),
        Fault::FreezeInstance { instance } => processes::freeze_instance(world, instance),
        Fault::KillHub { server } => processes::kill_hub(world, server),
        Fault::FreezeHub { server } => processes::freeze_hub(world, server),
        Fault::Link { node, server, how } => links::disturb(links::of_node(world, node, server), how).await,
        Fault::Route { from, to, how } => links::disturb(world.hub.route(from, to), how).await,
        Fault::ProducerLink { server, how } => links::disturb(links::of_producer(world, server), how).await,
        Fault::StepDown { whose } => hub::step_down(world, whose).await,
        Fault::ForgetConsumer => hub::forget_consumer(world).await,
        Fault::ResetConsumer { pick } => hub::reset_consumer(world, pick).await,
        Fault::DeleteConsumer { .. } => hub::delete_consumer(world).await,
        Fault::FillDisk { node } => disk::fill(world, node),
        Fault::FailSync { node } => disk::fail_sync(world, node),
        Fault::DamageBatch { node, pick } => disk::damage_batch(world, node, pick).await,
        Fault::RollBack { .. } | Fault::RollBackOne { .. } => hub::keep_copy(world).await,
        Fault::Purge => hub::purge(world).await,
        Fault::Recreate => hub::recreate(world).await,
        Fault::FlipBit { node, pick } => disk::flip_bit(world, node, pick).await,
        Fault::CutLog { node, pick } => disk::cut_log(world, node, pick).await,
    }
}

/// Ends it: everything is well again, as far as it can be. Tells whether it bit, where its beginning did not show that.
pub(crate) async fn end(world: &mut World, fault: Fault) -> Result<Option<Outcome>, RunError> {
    let done = match fault {
        Fault::KillNode { node } | Fault::DamageBatch { node, .. } => processes::start_node(world, node),
        Fault::FlipBit { node, .. } | Fault::CutLog { node, .. } => processes::start_node(world, node),
        Fault::FreezeNode { node } => processes::wake_node(world, node),
        Fault::KillInstance { instance } => processes::start_instance(world, instance),
        Fault::FreezeInstance { instance } => processes::wake_instance(world, instance),
        Fault::KillHub { server } => processes::start_hub(world, server).await,
        Fault::FreezeHub { server } => processes::wake_hub(world, server),
        Fault::Link { node, server, .. } => {
            return links::heal(links::of_node(world, node, server)).await.map(Some);
        }
        Fault::Route { from, to, .. } => return links::heal(world.hub.route(from, to)).await.map(Some),
        Fault::ProducerLink { server, .. } => {
            return links::heal(links::of_producer(world, server)).await.map(Some);
        }
        Fault::StepDown { .. }
        | Fault::ForgetConsumer
        | Fault::ResetConsumer { .. }
        | Fault::Recreate
        | Fault::Purge => Ok(()),
        Fault::DeleteConsumer { node } => hub::operators_word(world, node).await,
        Fault::FillDisk { node } => disk::empty(world, node),
        Fault::FailSync { node } => return disk::repair_sync(world, node).await.map(Some),
        Fault::RollBack { what } => return hub::roll_back(world, what).await.map(Some),
        Fault::RollBackOne { server } => return hub::roll_back_one(world, server).await.map(Some),
    };
    done.map(|()| None)
}

/// Where a copy of the hub's stores lies.
fn copy_dir(world: &World) -> PathBuf {
    world.dir.join("store-copy")
}

/// No such victim: the plan and the world do not fit.
fn no_victim(what: &str, number: usize) -> RunError {
    RunError(format!("there is no {what} {number}"))
}
