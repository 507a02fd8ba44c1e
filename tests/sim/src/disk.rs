//! One node's disk: syncs take time, are shared by what waits, and may fail.

use std::sync::Arc;

use bytes::Bytes;
use fanin_bridge::topic::DEAD_LETTER_SPACE;
use fanin_store::{Class, Commit, Location, MemStore, Op, ReadError, Recovered, Store, Usage};
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use crate::faults::Fault;
use crate::hub::wire::{Mode, Wire};
use crate::world::World;

/// Bytes a disk has. The reserve is for finishing what was accepted.
const QUOTA_BYTES: u64 = 64 << 20;
/// Bytes of them kept for finishing.
const RESERVE_BYTES: u64 = 8 << 20;

/// A disk while a process uses it.
pub struct SimDisk {
    world: Arc<World>,
    store: Arc<MemStore>,
    written: Notify,
    node: Arc<str>,
}

/// What is on a disk that nobody uses.
pub struct Image {
    store: Arc<MemStore>,
    recovered: Recovered,
}

impl Image {
    /// An empty disk.
    #[must_use]
    pub fn empty() -> Image {
        Image {
            store: MemStore::new(QUOTA_BYTES, RESERVE_BYTES),
            recovered: Recovered::default(),
        }
    }

    /// A process begins to use the disk. The handle is the disk's own work; without it nothing is synced any more.
    pub fn mount(
        self,
        world: &Arc<World>,
        wire: &Arc<Wire>,
        node: &Arc<str>,
    ) -> (Arc<SimDisk>, Recovered, AbortOnDropHandle<()>) {
        self.store.set_quota(QUOTA_BYTES);
        self.store.hold_syncs();
        let disk = Arc::new(SimDisk {
            world: Arc::clone(world),
            store: self.store,
            written: Notify::new(),
            node: Arc::clone(node),
        });
        let (working, wire) = (Arc::clone(&disk), Arc::clone(wire));
        let work = tokio::spawn(async move { working.work(&wire).await });
        (disk, self.recovered, AbortOnDropHandle::new(work))
    }
}

impl SimDisk {
    async fn work(&self, wire: &Wire) {
        loop {
            let written = self.written.notified();
            if self.store.waiting() == 0 {
                written.await;
                continue;
            }
            let ms = if self.world.happens(Fault::SlowSync) {
                self.world.disk.between(50, 3_000)
            } else {
                self.world.disk.below(4)
            };
            let covered = self.store.waiting();
            self.world.pause(ms).await;
            // A node that stands still does not sync either.
            wire.until(|mode| mode != Mode::Held).await;
            self.store.sync(covered);
        }
    }

    /// The process dies: what waited is gone, or some of it is there although nobody heard of it.
    #[must_use]
    pub fn crash(&self) -> Image {
        let waiting = self.store.waiting();
        let kept = if waiting > 0 && self.world.happens(Fault::TornCrash) {
            self.world.disk.between(1, waiting as u64) as usize
        } else {
            0
        };
        let (store, recovered) = self.store.crash_keeping(kept);
        // A damaged dead letter is told and cannot be mended; that is not what this is about.
        let mut keys = store.keys_with_body();
        keys.retain(|key| key.space < DEAD_LETTER_SPACE);
        if !keys.is_empty() && self.world.happens(Fault::Damage) {
            if let Some(key) = self.world.disk.pick(&keys) {
                store.damage(*key);
            }
            let (store, recovered) = store.copy();
            return Image { store, recovered };
        }
        Image { store, recovered }
    }

    /// What a copy of the disk would hold, taken now.
    #[must_use]
    pub fn copy(&self) -> Image {
        let (store, recovered) = self.store.copy();
        Image { store, recovered }
    }

    /// Others fill the disk up, or make room again.
    pub fn fill(&self, is_full: bool) {
        let quota = if is_full { RESERVE_BYTES } else { QUOTA_BYTES };
        self.store.set_quota(quota);
    }

    /// The next sync fails.
    pub fn fail(&self) {
        self.store.fail_syncs(std::io::Error::other("simulated"));
    }
}

impl Store for SimDisk {
    fn commit(&self, class: Class, ops: Vec<Op>) -> Commit {
        let commit = self.store.commit(class, ops);
        self.written.notify_one();
        self.world.perhaps_kill(Fault::CrashAtWrite, &self.node);
        commit
    }

    fn read_body(&self, at: Location) -> Result<Bytes, ReadError> {
        if self.world.happens(Fault::DamageRead)
            && let Some(key) = self.store.key_at(at)
        {
            self.store.damage(key);
        }
        self.store.read_body(at)
    }

    fn reads_block(&self) -> bool {
        self.store.reads_block()
    }

    fn usage(&self) -> Usage {
        self.store.usage()
    }
}
