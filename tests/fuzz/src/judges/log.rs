//! The local log's files, changed by whoever changes files: opening never panics, takes bounded memory, and never makes up a record.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

use bytes::Bytes;
use fanin_store::format::{ALIGN, COMMIT_END, FrameHeader, FrameType, GROUP_START, SegmentHeader};
use fanin_store::{Class, Key, Op, OpenError, Options, ReadError, SegmentLog, Store};
use tempfile::TempDir;

use super::Input;
use crate::measured;

const QUOTA: u64 = 1024 * 1024;
const SEGMENT: u64 = 16 * 1024;
/// Records written, over several segments.
const RECORDS: u64 = 60;

/// Most faults in the files of one log.
const FAULTS_MAX: usize = 5;

/// The files of a log, by name.
pub type Files = BTreeMap<String, Vec<u8>>;

fn options(directory: &Path) -> Options {
    Options {
        segment_bytes: SEGMENT,
        reserve_bytes: Some(64 * 1024),
        ..Options::new(directory, QUOTA)
    }
}

fn head(id: u64) -> Bytes {
    format!("head-{id}").into()
}

fn body(id: u64) -> Bytes {
    vec![id as u8 | 1; (id as usize * 37) % 1_500].into()
}

fn value(version: u64) -> Bytes {
    format!("value-{version}-{}", "v".repeat(version as usize % 40)).into()
}

/// The files of a log with sealed segments and an open one, as a crash leaves them.
///
/// # Panics
/// When they cannot be written.
#[must_use]
pub fn written() -> Files {
    let directory = TempDir::new().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (log, _) = SegmentLog::open(options(directory.path())).unwrap();
    runtime.block_on(async {
        for id in 1..=RECORDS {
            let key = Key { space: 1, id };
            let mut ops = vec![
                Op::Append {
                    key,
                    kind: 7,
                    head: head(id),
                    body: vec![body(id)],
                },
                Op::Put {
                    name: format!("name-{}", id % 3),
                    value: value(id),
                },
            ];
            if id % 5 == 0 {
                ops.push(Op::Release {
                    key: Key { space: 1, id: id - 3 },
                });
            }
            log.commit(Class::Intake, ops).await.unwrap();
        }
    });
    std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| {
            (
                entry.file_name().into_string().unwrap(),
                std::fs::read(entry.path()).unwrap(),
            )
        })
        .collect()
}

/// One change of the files. Files and places are numbers taken modulo what there is.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Bits of one byte.
    Flip(u64, u64, u8),
    /// The file ends here.
    Cut(u64, u64),
    /// Zeros from here for so long.
    Zeros(u64, u64, usize),
    /// A piece of one file over a place of another, on the grain of frames.
    Splice(u64, u64, usize, u64, u64),
    /// One file has the content of another.
    Copy(u64, u64),
    /// The file is gone.
    Remove(u64),
    /// A frame whose checksum is right and whose lengths are not, where another frame may have begun.
    Forge(u64, u64, u32, u32, u8),
    /// Bytes from nowhere over a place on the grain of frames.
    Over(u64, u64, Vec<u8>),
}

impl Fault {
    fn read(input: &mut Input<'_>) -> Fault {
        let kind = input.byte();
        let file = u64::from(input.byte());
        // Two bytes name every place of a segment.
        let place = |input: &mut Input<'_>| u64::from(input.byte()) << 8 | u64::from(input.byte());
        let at = place(input);
        match kind % 8 {
            0 => Fault::Flip(file, at, input.byte().max(1)),
            1 => Fault::Cut(file, at),
            2 => Fault::Zeros(file, at, place(input) as usize),
            3 => {
                let len = usize::from(input.byte());
                Fault::Splice(file, at, len, u64::from(input.byte()), place(input))
            }
            4 => Fault::Copy(file, at),
            5 => Fault::Remove(file),
            6 => Fault::Forge(
                file,
                at,
                input.number() as u32,
                input.number() as u32,
                input.byte() % 7 + 1,
            ),
            _ => Fault::Over(file, at, input.bytes().to_vec()),
        }
    }

    /// Puts the fault into the files.
    ///
    /// # Panics
    /// When a file that was named is not there, which is a fault of this module.
    pub fn put(&self, files: &mut Files) {
        let names: Vec<String> = files
            .iter()
            .filter(|(_, bytes)| !bytes.is_empty())
            .map(|(name, _)| name.clone())
            .collect();
        if names.is_empty() {
            return;
        }
        let name = |file: &u64| names[(file % names.len() as u64) as usize].clone();
        match self {
            Fault::Flip(file, at, bits) => {
                let bytes = files.get_mut(&name(file)).unwrap();
                let at = place(*at, bytes);
                bytes[at] ^= bits;
            }
            Fault::Cut(file, at) => {
                let bytes = files.get_mut(&name(file)).unwrap();
                bytes.truncate(place(*at, bytes));
            }
            Fault::Zeros(file, at, len) => {
                let bytes = files.get_mut(&name(file)).unwrap();
                let at = place(*at, bytes);
                let end = (at + len).min(bytes.len());
                bytes[at..end].fill(0);
            }
            Fault::Splice(from, at, len, to, over) => {
                let from = &files[&name(from)];
                let at = grain(place(*at, from));
                let piece = from[at..(at + len).min(from.len())].to_vec();
                lay(files.get_mut(&name(to)).unwrap(), *over, &piece);
            }
            Fault::Copy(from, to) => {
                let content = files[&name(from)].clone();
                files.insert(name(to), content);
            }
            Fault::Remove(file) => drop(files.remove(&name(file))),
            Fault::Forge(file, at, head_len, body_len, kind) => {
                let bytes = files.get_mut(&name(file)).unwrap();
                let Ok(segment) = SegmentHeader::decode(bytes) else {
                    return;
                };
                let position = grain(place(*at, bytes));
                let header = FrameHeader {
                    frame_type: frame_type(*kind),
                    kind: 7,
                    flags: GROUP_START | COMMIT_END,
                    key: Key { space: 1, id: 999 },
                    head_len: *head_len,
                    body_len: *body_len,
                    head_crc: 1,
                    body_crc: 1,
                };
                let mut frame = Vec::new();
                header.encode(segment.salt, position as u64, &mut frame);
                lay(bytes, *at, &frame);
            }
            Fault::Over(file, at, piece) => lay(files.get_mut(&name(file)).unwrap(), *at, piece),
        }
    }
}

/// A place of a file's written part: most of a segment is reserved and empty.
fn place(at: u64, bytes: &[u8]) -> usize {
    let written = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(1, |last| last + 1);
    (at % written as u64) as usize
}

fn grain(at: usize) -> usize {
    at - at % ALIGN as usize
}

/// Puts a piece over a place on the grain of frames, as far as the file goes.
fn lay(bytes: &mut [u8], at: u64, piece: &[u8]) {
    let at = grain(place(at, bytes));
    let end = (at + piece.len()).min(bytes.len());
    bytes[at..end].copy_from_slice(&piece[..end - at]);
}

fn frame_type(byte: u8) -> FrameType {
    [
        FrameType::Append,
        FrameType::Release,
        FrameType::Put,
        FrameType::Delete,
        FrameType::Carried,
        FrameType::Marker,
        FrameType::Footer,
    ][usize::from(byte - 1)]
}

/// Opens the files twice and compares what comes back with what was written.
///
/// # Panics
/// When opening panics, takes too much or fails for no good reason, or a record or value comes that nobody wrote.
pub fn judge(files: &Files) {
    let directory = TempDir::new().unwrap();
    for (name, bytes) in files {
        std::fs::write(directory.path().join(name), bytes).unwrap();
    }
    let len: usize = files.values().map(Vec::len).sum();
    for start in ["first", "second"] {
        // Each segment is read as a whole, and what is kept of it is less.
        let (log, recovered) = match measured(len, 8, || SegmentLog::open(options(directory.path()))) {
            Ok(opened) => opened,
            Err(OpenError::Version { .. } | OpenError::Io { .. }) => return,
            Err(error) => panic!("{start} start: {error}"),
        };
        for record in &recovered.records {
            let id = record.key.id;
            assert!(
                (1..=RECORDS).contains(&id) && record.key.space == 1,
                "{start} start: made up: {record:?}"
            );
            assert_eq!((record.kind, &record.head), (7, &head(id)));
            match log.read_body(record.at) {
                Ok(read) => assert_eq!(read, body(id)),
                Err(ReadError::Damaged { .. } | ReadError::Gone | ReadError::Io(_)) => {}
            }
        }
        for (name, found) in &recovered.values {
            let version =
                (1..=RECORDS).find(|id| *name == format!("name-{}", id % 3) && *found == value(*id));
            assert!(version.is_some(), "{start} start: made up: {name} = {found:?}");
        }
        log.close();
    }
}

/// [`judge`] of the files of one log, with faults that are read from raw bytes.
pub fn log_of(bytes: &[u8]) {
    static WHOLE: OnceLock<Files> = OnceLock::new();
    let mut files = WHOLE.get_or_init(written).clone();
    let mut input = Input::new(bytes);
    for _ in 0..FAULTS_MAX {
        if input.is_empty() {
            break;
        }
        Fault::read(&mut input).put(&mut files);
    }
    judge(&files);
}
