//! How each fault is done and undone, one file a group.

mod disk;
mod hub;
mod links;
mod processes;

use std::path::PathBuf;

use crate::error::RunError;
use crate::plan::Fault;
use crate::world::World;

/// Begins a fault.
pub(crate) async fn begin(world: &mut World, fault: Fault) -> Result<(), RunError> {
    match fault {
        Fault::KillNode { node } => processes::kill_node(world, node),
        Fault::FreezeNode { node } => processes::freeze_node(world, node),
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
        Fault::DamageBatch { node, pick } => disk::damage_batch(world, node, pick),
        Fault::RollBack { .. } | Fault::RollBackOne { .. } => hub::keep_copy(world),
        Fault::Purge => hub::purge(world).await,
        Fault::Recreate => hub::recreate(world).await,
        Fault::FlipBit { node, pick } => disk::flip_bit(world, node, pick),
        Fault::CutLog { node, pick } => disk::cut_log(world, node, pick),
    }
}

/// Ends it: everything is well again, as far as it can be.
pub(crate) async fn end(world: &mut World, fault: Fault) -> Result<(), RunError> {
    match fault {
        Fault::KillNode { node } | Fault::DamageBatch { node, .. } => processes::start_node(world, node),
        Fault::FlipBit { node, .. } | Fault::CutLog { node, .. } => processes::start_node(world, node),
        Fault::FreezeNode { node } => processes::wake_node(world, node),
        Fault::KillInstance { instance } => processes::start_instance(world, instance),
        Fault::FreezeInstance { instance } => processes::wake_instance(world, instance),
        Fault::KillHub { server } => processes::start_hub(world, server).await,
        Fault::FreezeHub { server } => processes::wake_hub(world, server),
        Fault::Link { node, server, .. } => links::heal(links::of_node(world, node, server)).await,
        Fault::Route { from, to, .. } => links::heal(world.hub.route(from, to)).await,
        Fault::ProducerLink { server, .. } => links::heal(links::of_producer(world, server)).await,
        Fault::StepDown { .. }
        | Fault::ForgetConsumer
        | Fault::ResetConsumer { .. }
        | Fault::Recreate
        | Fault::Purge => Ok(()),
        Fault::DeleteConsumer { node } => hub::operators_word(world, node).await,
        Fault::FillDisk { node } => disk::empty(world, node),
        Fault::FailSync { node } => disk::repair_sync(world, node),
        Fault::RollBack { what } => hub::roll_back(world, what).await,
        Fault::RollBackOne { server } => hub::roll_back_one(world, server).await,
    }
}

/// Where a copy of the hub's stores lies.
fn copy_dir(world: &World) -> PathBuf {
    world.dir.join("store-copy")
}

/// No such victim: the plan and the world do not fit.
fn no_victim(what: &str, number: usize) -> RunError {
    RunError(format!("there is no {what} {number}"))
}
