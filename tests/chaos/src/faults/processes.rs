//! Bridges, instances and servers are killed and frozen.

use std::time::Duration;

use rustix::process::Signal;

use super::{Outcome, no_victim};
use crate::error::{RunError, during};
use crate::limits::APPS;
use crate::role::Role;
use crate::world::{Node, World};
use fanin_localhub::LocalHub;

pub(super) fn node(world: &mut World, number: usize) -> Result<&mut Node, RunError> {
    world
        .nodes
        .get_mut(number)
        .ok_or_else(|| no_victim("node", number))
}

fn instance(world: &mut World, number: usize) -> Result<&mut Role, RunError> {
    world
        .instances
        .get_mut(number)
        .ok_or_else(|| no_victim("instance", number))
}

fn server(world: &mut World, number: usize) -> Result<&mut LocalHub, RunError> {
    world
        .hub
        .servers
        .get_mut(number)
        .ok_or_else(|| no_victim("server", number))
}

/// Why a fault of a process does not bite.
const ENDED: &str = "it had ended";

/// Whether a bridge's process is there; a frozen one is.
async fn runs(node: &Node) -> bool {
    node.bridge.wait_exit(Duration::ZERO).await.is_err()
}

pub(super) async fn kill_node(world: &mut World, number: usize) -> Result<Outcome, RunError> {
    let node = node(world, number)?;
    let ran = runs(node).await;
    node.bridge.kill().map_err(during("killing a bridge"))?;
    Ok(Outcome::when(ran, ENDED))
}

pub(super) fn start_node(world: &mut World, number: usize) -> Result<(), RunError> {
    node(world, number)?
        .bridge
        .respawn()
        .map_err(during("starting a bridge"))
}

pub(super) async fn freeze_node(world: &mut World, number: usize) -> Result<Outcome, RunError> {
    let node = node(world, number)?;
    let ran = runs(node).await;
    node.bridge.pause().map_err(during("freezing a bridge"))?;
    Ok(Outcome::when(ran, ENDED))
}

pub(super) fn wake_node(world: &mut World, number: usize) -> Result<(), RunError> {
    node(world, number)?
        .bridge
        .resume()
        .map_err(during("waking a bridge"))
}

pub(super) fn kill_instance(world: &mut World, number: usize) -> Result<Outcome, RunError> {
    let instance = instance(world, number)?;
    let ran = instance.ended()?.is_none();
    instance.kill()?;
    Ok(Outcome::when(ran, ENDED))
}

pub(super) fn start_instance(world: &mut World, number: usize) -> Result<(), RunError> {
    instance(world, number)?.restart()
}

pub(super) fn freeze_instance(world: &mut World, number: usize) -> Result<Outcome, RunError> {
    let instance = instance(world, number)?;
    let ran = instance.ended()?.is_none();
    instance.signal(Signal::STOP)?;
    Ok(Outcome::when(ran, ENDED))
}

pub(super) fn wake_instance(world: &mut World, number: usize) -> Result<(), RunError> {
    instance(world, number)?.signal(Signal::CONT)
}

/// Signals the instances of a bridge. One that does not run needs none.
pub(super) fn signal_instances_of(world: &World, node: usize, what: Signal) {
    let own = world.instances.iter().skip(node * APPS.len()).take(APPS.len());
    for instance in own {
        // It was killed by another fault.
        drop(instance.signal(what));
    }
}

pub(super) fn kill_hub(world: &mut World, number: usize) -> Result<Outcome, RunError> {
    let server = server(world, number)?;
    let ran = server.is_running();
    server.kill().map_err(during("killing a server"))?;
    Ok(Outcome::when(ran, ENDED))
}

pub(super) async fn start_hub(world: &mut World, number: usize) -> Result<(), RunError> {
    server(world, number)?
        .restart()
        .await
        .map_err(during("starting a server"))
}

pub(super) fn freeze_hub(world: &mut World, number: usize) -> Result<Outcome, RunError> {
    let server = server(world, number)?;
    let ran = server.is_running();
    server.pause().map_err(during("freezing a server"))?;
    Ok(Outcome::when(ran, ENDED))
}

pub(super) fn wake_hub(world: &mut World, number: usize) -> Result<(), RunError> {
    server(world, number)?.resume().map_err(during("waking a server"))
}
