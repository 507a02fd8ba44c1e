//! What lies below a bridge: no room, fsync that fails, flipped bits, files cut short.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fanin_store::format::FRAME_HEADER;
use fanin_store::{Location, Options, Recovered, SegmentLog};
use fanin_tests::wait::until;
use rustix::process::Signal;

use super::{Outcome, processes};
use crate::error::{RunError, during};
use crate::world::World;

/// The space of the only mapping, and the kinds of its records.
const SPACE: u32 = 1;
const STAGE: u8 = 1;
const RESOLUTION: u8 = 2;
const QUOTA: u64 = 1 << 30;

/// A message that waits for an application is awaited for so long.
const PUBLISHED_WITHIN: Duration = Duration::from_millis(1_500);

/// Why nothing of a log is harmed.
const EMPTY: &str = "the log holds nothing";

pub(super) fn fill(world: &mut World, number: usize) -> Result<Outcome, RunError> {
    processes::node(world, number)?
        .disk
        .fill()
        .map(|()| Outcome::Done)
}

pub(super) fn empty(world: &mut World, number: usize) -> Result<(), RunError> {
    processes::node(world, number)?.disk.empty()
}

/// From now on fsync fails: the bridge ends itself as soon as it has something to sync.
pub(super) fn fail_sync(world: &mut World, number: usize) -> Result<Outcome, RunError> {
    let node = processes::node(world, number)?;
    node.may_end = true;
    fs::write(&node.failing, "").map_err(during("breaking a disk"))?;
    Ok(Outcome::Done)
}

/// It has bitten if the bridge has ended itself.
pub(super) async fn repair_sync(world: &mut World, number: usize) -> Result<Outcome, RunError> {
    let node = processes::node(world, number)?;
    let has_ended = node.bridge.wait_exit(Duration::ZERO).await.is_ok();
    fs::remove_file(&node.failing).map_err(during("repairing a disk"))?;
    node.may_end = false;
    node.bridge.respawn().map_err(during("starting a bridge"))?;
    Ok(Outcome::when(has_ended, "the bridge synced nothing"))
}

/// Kills a bridge and flips a bit in the body of a batch that it has published, and that is not the log's end. Its instances are
/// frozen first, as they finish everything at once; one that another fault froze goes on earlier for that.
pub(super) async fn damage_batch(world: &mut World, number: usize, pick: u64) -> Result<Outcome, RunError> {
    processes::signal_instances_of(world, number, Signal::STOP);
    let bridge = &processes::node(world, number)?.bridge;
    let waited = until(
        PUBLISHED_WITHIN,
        "a message that waits for its application",
        || async {
            let status = bridge.status().await.map_err(|error| error.to_string())?;
            let mut apps = status.mappings.iter().flat_map(|mapping| &mapping.apps);
            let waits = apps.any(|app| app.backlog_messages + app.in_flight > 0);
            waits.then_some(()).ok_or_else(|| "none".to_owned())
        },
    );
    // While another fault lasts there may be none; what the log holds tells.
    drop(waited.await);
    let killed = processes::kill_node(world, number).await;
    processes::signal_instances_of(world, number, Signal::CONT);
    killed?;
    let data = processes::node(world, number)?.data_dir();
    let found = published_batches(&look(&data)?);
    // A node that holds nothing has nothing to damage; it was killed at least.
    let Some(at) = picked(&found, pick).copied() else {
        return Ok(Outcome::nothing("the log holds no published batch"));
    };
    let body = at.position + FRAME_HEADER as u64 + u64::from(at.head_len);
    let path = data.join("log").join(format!("{:016x}.log", at.segment));
    flip(&path, body + u64::from(at.body_len) / 2, 0x10)?;
    Ok(Outcome::Done)
}

/// Kills a bridge and flips any bit of any segment, as far as that is written.
pub(super) async fn flip_bit(world: &mut World, number: usize, pick: u64) -> Result<Outcome, RunError> {
    processes::kill_node(world, number).await?;
    let data = processes::node(world, number)?.data_dir();
    let segments = segments(&data)?;
    let Some((path, written)) = picked(&segments, pick) else {
        return Ok(Outcome::nothing(EMPTY));
    };
    flip(path, (pick >> 16) % written, 1 << (pick % 8))?;
    Ok(Outcome::Done)
}

/// Kills a bridge and cuts the end off one of its segments.
pub(super) async fn cut_log(world: &mut World, number: usize, pick: u64) -> Result<Outcome, RunError> {
    processes::kill_node(world, number).await?;
    let data = processes::node(world, number)?.data_dir();
    let segments = segments(&data)?;
    let Some((path, written)) = picked(&segments, pick) else {
        return Ok(Outcome::nothing(EMPTY));
    };
    let file = File::options().write(true).open(path);
    let cut = file.and_then(|file| file.set_len((pick >> 16) % written));
    cut.map_err(during("cutting a segment"))?;
    Ok(Outcome::Done)
}

fn picked<T>(of: &[T], pick: u64) -> Option<&T> {
    let count = u64::try_from(of.len()).unwrap_or(0);
    of.get(usize::try_from(pick.checked_rem(count)?).unwrap_or(0))
}

/// Every segment that holds something, with its length up to the last byte that is not zero: what lies behind is only reserved.
fn segments(data: &Path) -> Result<Vec<(PathBuf, u64)>, RunError> {
    let listed = fs::read_dir(data.join("log")).map_err(during("listing segments"))?;
    let mut segments = Vec::new();
    for entry in listed {
        let path = entry.map_err(during("listing segments"))?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            let bytes = fs::read(&path).map_err(during("reading a segment"))?;
            let last = bytes.iter().rposition(|byte| *byte != 0);
            segments.extend(last.map(|last| (path, last as u64 + 1)));
        }
    }
    segments.sort();
    Ok(segments)
}

/// What a start would find in a log. Looks at a copy.
fn look(data: &Path) -> Result<Recovered, RunError> {
    let copy = tempfile::tempdir().map_err(during("making a directory"))?;
    for path in fs::read_dir(data.join("log")).map_err(during("listing segments"))? {
        let path = path.map_err(during("listing segments"))?;
        fs::copy(path.path(), copy.path().join(path.file_name())).map_err(during("copying a segment"))?;
    }
    let options = Options {
        scan_all: true,
        ..Options::new(copy.path(), QUOTA)
    };
    Ok(SegmentLog::open(options).map_err(during("reading a log"))?.1)
}

fn published_batches(recovered: &Recovered) -> Vec<Location> {
    let own = |kind: u8| {
        let records = recovered.records.iter();
        records.filter(move |record| record.key.space == SPACE && record.kind == kind)
    };
    own(STAGE)
        .filter(|stage| own(RESOLUTION).any(|resolution| resolution.key == stage.key))
        .map(|stage| stage.at)
        .collect()
}

fn flip(path: &Path, position: u64, bits: u8) -> Result<(), RunError> {
    let flipped = || {
        let file = File::options().read(true).write(true).open(path)?;
        let mut byte = [0];
        file.read_exact_at(&mut byte, position)?;
        file.write_all_at(&[byte[0] ^ bits], position)
    };
    flipped().map_err(during("flipping a bit"))
}
