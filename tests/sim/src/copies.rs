//! Copies of the source and of disks, taken at moments that nobody chose, so that whoever wants to put one back finds one.

use crate::disk::Image;
use crate::events::{Cluster, Lasting};
use crate::faults::Fault;
use crate::hub::consumer::Consumer;
use crate::hub::stream::Stream;
use crate::node::STREAM;
use crate::world::World;

/// One in so many looks takes a copy: some ten simulated seconds lie between two.
const LOOKS_A_COPY: u64 = 20;
/// Most copies of the source that are kept. One more takes the place of any of them, so that some are old.
const SOURCES_MAX: usize = 4;
/// Most copies of one disk that are kept, each of another epoch.
const DISKS_MAX: usize = 3;

/// A copy of a disk.
struct DiskCopy {
    /// Of which node.
    node: usize,
    /// The newest epoch of that node's data directory then.
    epoch: u64,
    image: Image,
}

/// All copies.
#[derive(Default)]
pub(crate) struct Copies {
    sources: Vec<Stream>,
    disks: Vec<DiskCopy>,
}

impl Copies {
    fn keep_source(&mut self, world: &World, stream: &Stream) {
        if self.sources.len() >= SOURCES_MAX {
            let at = world.copies.below(SOURCES_MAX as u64) as usize;
            self.sources.remove(at);
        }
        self.sources.push(stream.clone());
    }

    fn keep_disk(&mut self, world: &World, copy: DiskCopy) {
        let is_of = |other: &DiskCopy| other.node == copy.node;
        self.disks
            .retain(|other| !is_of(other) || other.epoch != copy.epoch);
        let of_node: Vec<usize> = (0..self.disks.len())
            .filter(|at| is_of(&self.disks[*at]))
            .collect();
        if of_node.len() >= DISKS_MAX
            && let Some(at) = world.copies.pick(&of_node)
        {
            self.disks.remove(*at);
        }
        self.disks.push(copy);
    }

    /// A copy that ends earlier than a stream does. What was copied behind its end is of a life that is over then.
    pub(crate) fn older_source(&mut self, world: &World, stream: &Stream) -> Option<Stream> {
        let is_older = |copy: &&Stream| copy.created_ns == stream.created_ns && copy.last < stream.last;
        let older: Vec<&Stream> = self.sources.iter().filter(is_older).collect();
        let copy = (*world.copies.pick(&older)?).clone();
        self.sources.retain(|other| other.last <= copy.last);
        Some(copy)
    }
}

impl Cluster {
    /// The present state is one that hub, source and disks may go back to later.
    pub(crate) fn remember(&mut self) {
        let ground = &self.ground;
        let world = &ground.world;
        if world.hub.one_in(LOOKS_A_COPY) {
            let mut state = ground.hub.state.lock();
            state.consumers.values_mut().for_each(Consumer::remember);
        }
        if ground.plan.rate(Fault::SourceRollback) > 0 && world.copies.one_in(LOOKS_A_COPY) {
            let state = ground.hub.state.lock();
            if let Some(stream) = state.streams.get(STREAM) {
                self.copies.keep_source(world, stream);
            }
        }
        if ground.plan.rate(Fault::DiskRestored) > 0 && world.copies.one_in(LOOKS_A_COPY) {
            let node = world.copies.below(self.nodes.len() as u64) as usize;
            let epoch = self.newest_epoch(node);
            if let Some(disk) = self.nodes[node].disk().filter(|_| epoch > 0) {
                let image = disk.copy();
                self.copies
                    .keep_disk(&self.ground.world, DiskCopy { node, epoch, image });
            }
        }
    }

    fn newest_epoch(&self, n: usize) -> u64 {
        let state = self.ground.hub.state.lock();
        state.truth.epoch(self.nodes[n].uuid)
    }

    /// A running node's disk is replaced by a copy of it that was taken in an earlier epoch.
    pub(crate) async fn restore_disk(&mut self) -> bool {
        let is_older =
            |copy: &DiskCopy| self.nodes[copy.node].is_alive() && copy.epoch < self.newest_epoch(copy.node);
        let older: Vec<usize> = (0..self.copies.disks.len())
            .filter(|at| is_older(&self.copies.disks[*at]))
            .collect();
        let Some(at) = self.world().copies.pick(&older).copied() else {
            return false;
        };
        let DiskCopy { node, epoch, image } = self.copies.disks.remove(at);
        let world = self.world().clone();
        world.note("world", || {
            format!("node {node} gets its disk of epoch {epoch} back")
        });
        self.nodes[node].crash(&world).await;
        self.nodes[node].replace_disk(image);
        self.last(RESTORED_MS, Lasting::Down(node));
        true
    }
}

/// A node is started on a restored disk after this time, milliseconds.
const RESTORED_MS: u64 = 100;
