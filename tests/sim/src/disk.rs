//! One node's disk: syncs take time, are shared by what waits, and may fail.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use fanin_bridge::mapping::disk::runs_to_set;
use fanin_bridge::stage::{
    RECORD_DEAD_LETTER, RECORD_RESOLUTION, RECORD_STAGE, Resolution, StageHead, StagedBatch,
};
use fanin_bridge::topic::DEAD_LETTER_SPACE;
use fanin_bridge::topic::deadletter::DeadLetterHead;
use fanin_core::ids::Incarnation;
use fanin_core::seq_set::SeqSet;
use fanin_store::{Class, Commit, Key, Location, MemStore, Op, ReadError, Recovered, Store, Usage};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use crate::faults::Fault;
use crate::hub::wire::{Mode, Wire};
use crate::mutants::Mutant;
use crate::world::World;

/// Bytes a disk has. The reserve is for finishing what was accepted.
const QUOTA_BYTES: u64 = 64 << 20;
/// Bytes of them kept for finishing.
const RESERVE_BYTES: u64 = 8 << 20;

/// Pause between two tries to sync while the file system is full, milliseconds.
const FULL_PAUSE_MS: u64 = 50;

/// A disk while a process uses it.
pub struct SimDisk {
    world: Arc<World>,
    store: Arc<MemStore>,
    written: Notify,
    node: Arc<str>,
    /// Under a mutant: a twin on which everything is durable at once, and which commits are told to be durable by it.
    early: Option<(Arc<MemStore>, fn(&[Op]) -> bool)>,
    /// For each commit that waits: the messages whose resolution it holds.
    waiting: Mutex<VecDeque<Vec<u64>>>,
    /// Under a mutant: what the disk holds since a sync failed.
    without: Mutex<Option<Image>>,
}

/// A batch that was published.
pub struct Published {
    /// The source.
    pub incarnation: Incarnation,
    /// What of it was won.
    pub won: SeqSet,
    /// Its place in the topic: the offset of its first message.
    pub base: u64,
    /// Its body is damaged.
    pub damaged: bool,
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
        let mut recovered = self.recovered;
        if world.plays(Mutant::DropsStagedAtStart) {
            drop_staged(&mut recovered);
        }
        for record in &recovered.records {
            if record.kind == RECORD_RESOLUTION {
                world.resolved(node, resolved_by(&record.head));
            }
        }
        let early = told_early(world).map(|which| (self.store.copy().0, which));
        let disk = Arc::new(SimDisk {
            world: Arc::clone(world),
            store: self.store,
            written: Notify::new(),
            node: Arc::clone(node),
            early,
            waiting: Mutex::default(),
            without: Mutex::default(),
        });
        let (working, wire) = (Arc::clone(&disk), Arc::clone(wire));
        let work = tokio::spawn(async move { working.work(&wire).await });
        (disk, recovered, AbortOnDropHandle::new(work))
    }

    /// The dead letters on the disk.
    #[must_use]
    pub fn dead_letters(&self) -> Vec<DeadLetterHead> {
        let records = self.recovered.records.iter();
        records
            .filter(|record| record.kind == RECORD_DEAD_LETTER)
            .filter_map(|record| DeadLetterHead::decode(&record.head).ok())
            .collect()
    }

    /// Every staged batch with its number, also one whose body is damaged.
    fn staged(&self) -> impl Iterator<Item = (Key, StageHead)> {
        let whole = self.recovered.records.iter();
        let whole = whole.filter(|record| record.kind == RECORD_STAGE);
        let whole = whole.map(|record| (record.key, &record.head));
        let damaged = self.recovered.damaged.iter().filter_map(|damage| {
            let record = damage
                .record
                .as_ref()
                .filter(|record| record.kind == RECORD_STAGE)?;
            Some((damage.key?, record.head.as_ref()?))
        });
        let heads = whole.chain(damaged);
        heads.filter_map(|(key, head)| Some((key, StagedBatch::decode_head(head).ok()?)))
    }

    /// The messages that lie on the disk.
    #[must_use]
    pub fn bodies(&self) -> Vec<(Incarnation, SeqSet)> {
        let staged = self.staged();
        staged
            .map(|(_, head)| (head.incarnation, runs_to_set(&head.seqs)))
            .collect()
    }

    /// The batches on the disk that were published and are not let go.
    #[must_use]
    pub fn published(&self) -> Vec<Published> {
        let heads: BTreeMap<Key, StageHead> = self.staged().collect();
        let damaged: BTreeSet<Key> = self
            .recovered
            .damaged
            .iter()
            .filter_map(|found| found.key)
            .collect();
        let records = self.recovered.records.iter();
        let resolved = records.filter(|record| record.kind == RECORD_RESOLUTION);
        resolved
            .filter_map(|record| {
                let head = heads.get(&record.key)?;
                let resolution = Resolution::decode(&record.head).ok()?;
                Some(Published {
                    incarnation: head.incarnation,
                    won: runs_to_set(&resolution.won),
                    base: resolution.base.0,
                    damaged: damaged.contains(&record.key),
                })
            })
            .collect()
    }
}

/// Which commits a mutant's disk tells to be durable before they are.
fn told_early(world: &World) -> Option<fn(&[Op]) -> bool> {
    match world.mutant()? {
        Mutant::ClaimsUnsynced => Some(|ops| appended(ops, RECORD_STAGE)),
        Mutant::PublishesUnsynced => Some(|ops| appended(ops, RECORD_RESOLUTION)),
        Mutant::ReportsUnsynced => Some(|ops| is_put(ops, "done/")),
        Mutant::ConfirmsUnsynced => Some(|ops| is_put(ops, "cursor/")),
        _ => None,
    }
}

/// The messages that a resolution makes visible.
fn resolved_by(head: &Bytes) -> Vec<u64> {
    let resolution = Resolution::decode(head).ok();
    let won = resolution.map(|resolution| runs_to_set(&resolution.won));
    won.iter().flat_map(SeqSet::iter).collect()
}

fn appended(ops: &[Op], wanted: u8) -> bool {
    ops.iter()
        .any(|op| matches!(op, Op::Append { kind, .. } if *kind == wanted))
}

fn is_put(ops: &[Op], wanted: &str) -> bool {
    ops.iter()
        .any(|op| matches!(op, Op::Put { name, .. } if name.starts_with(wanted)))
}

/// Forgets what is staged and not resolved.
fn drop_staged(recovered: &mut Recovered) {
    let records = recovered.records.iter();
    let resolved: BTreeSet<_> = records
        .filter(|record| record.kind == RECORD_RESOLUTION)
        .map(|record| record.key)
        .collect();
    recovered
        .records
        .retain(|record| record.kind != RECORD_STAGE || resolved.contains(&record.key));
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
            let synced = self.store.sync(covered);
            for resolved in self.waiting.lock().drain(..synced) {
                self.world.resolved(&self.node, resolved);
            }
            if synced == 0 {
                // The file system is full.
                self.world.pause(FULL_PAUSE_MS).await;
            }
        }
    }

    /// The process dies: what waited is gone, or some of it is there although nobody heard of it.
    #[must_use]
    pub fn crash(&self) -> Image {
        if let Some(without) = self.without.lock().take() {
            drop(self.store.crash());
            return without;
        }
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
        if let Some((twin, _)) = &self.early {
            twin.set_quota(quota);
        }
    }

    /// Others fill the file system up, so that not even what finishes can be written, or make room again.
    pub fn fill_file_system(&self, is_full: bool) {
        self.store.set_full(is_full);
        // What is new is refused by that, and waits no more; the numbers of what finishes are few and kept in order.
        let waiting = self.store.waiting();
        let mut known = self.waiting.lock();
        let refused = known.len().saturating_sub(waiting);
        let mut left = refused;
        known.retain(|resolved| {
            let goes = left > 0 && resolved.is_empty();
            left -= u64::from(goes) as usize;
            !goes
        });
        drop(known);
        if let Some((twin, _)) = &self.early {
            twin.set_full(is_full);
        }
        self.written.notify_one();
    }

    /// The next sync fails.
    pub fn fail(&self) {
        if self.world.plays(Mutant::SyncRetried) {
            self.without.lock().get_or_insert(self.copy());
            return;
        }
        self.store.fail_syncs(std::io::Error::other("simulated"));
    }
}

impl Store for SimDisk {
    fn commit(&self, class: Class, ops: Vec<Op>) -> Commit {
        let early = self.early.as_ref().map(|(twin, which)| {
            let told = twin.commit(class, ops.clone());
            which(&ops).then_some(told)
        });
        let resolved = ops.iter().flat_map(|op| match op {
            Op::Append { kind, head, .. } if *kind == RECORD_RESOLUTION => resolved_by(head),
            Op::Append { .. } | Op::Release { .. } | Op::Put { .. } | Op::Delete { .. } => Vec::new(),
        });
        let (resolved, before) = (resolved.collect(), self.store.waiting());
        let commit = self.store.commit(class, ops);
        if self.store.waiting() > before {
            self.waiting.lock().push_back(resolved);
        }
        let commit = early.flatten().unwrap_or(commit);
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
        match &self.early {
            Some((twin, _)) => twin.read_body(at),
            None => self.store.read_body(at),
        }
    }

    fn reads_block(&self) -> bool {
        self.store.reads_block()
    }

    fn usage(&self) -> Usage {
        self.store.usage()
    }
}
