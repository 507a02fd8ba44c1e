//! The local log's files, changed by whoever changes files: opening never panics, takes bounded memory, and never makes up a record.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use fanin_fuzz::{config, measured};
use fanin_store::format::{ALIGN, COMMIT_END, FrameHeader, FrameType, GROUP_START, SegmentHeader};
use fanin_store::{Class, Key, Op, OpenError, Options, ReadError, SegmentLog, Store};
use proptest::prelude::*;
use proptest::sample::Index;
use tempfile::TempDir;

const QUOTA: u64 = 1024 * 1024;
const SEGMENT: u64 = 16 * 1024;
/// Records written, over several segments.
const RECORDS: u64 = 60;

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
fn written() -> BTreeMap<String, Vec<u8>> {
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

#[derive(Clone, Debug)]
enum Fault {
    /// Bits of one byte.
    Flip(Index, Index, u8),
    /// The file ends here.
    Cut(Index, Index),
    /// Zeros from here for so long.
    Zeros(Index, Index, usize),
    /// A piece of one file over a place of another, on the grain of frames.
    Splice(Index, Index, usize, Index, Index),
    /// One file has the content of another.
    Copy(Index, Index),
    /// The file is gone.
    Remove(Index),
    /// A frame whose checksum is right and whose lengths are not, where another frame may have begun.
    Forge(Index, Index, u32, u32, u8),
}

fn fault() -> impl Strategy<Value = Fault> {
    let at = any::<Index>;
    let len = || prop_oneof![Just(u32::MAX), Just(u32::MAX / 2), Just(1 << 20), 0_u32..64];
    prop_oneof![
        3 => (at(), at(), 1_u8..).prop_map(|(file, at, bits)| Fault::Flip(file, at, bits)),
        1 => (at(), at()).prop_map(|(file, at)| Fault::Cut(file, at)),
        1 => (at(), at(), 1_usize..3_000).prop_map(|(file, at, len)| Fault::Zeros(file, at, len)),
        2 => (at(), at(), 1_usize..400, at(), at()).prop_map(|(a, b, len, c, d)| Fault::Splice(a, b, len, c, d)),
        1 => (at(), at()).prop_map(|(from, to)| Fault::Copy(from, to)),
        1 => at().prop_map(Fault::Remove),
        2 => (at(), at(), len(), len(), 1_u8..8).prop_map(|(file, at, head, body, kind)| Fault::Forge(file, at, head, body, kind)),
    ]
}

/// A place of a file's written part: most of a segment is reserved and empty.
fn place(at: &Index, bytes: &[u8]) -> usize {
    let written = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(1, |last| last + 1);
    at.index(written)
}

fn grain(at: usize) -> usize {
    at - at % ALIGN as usize
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

fn apply(fault: &Fault, files: &mut BTreeMap<String, Vec<u8>>) {
    let names: Vec<String> = files
        .iter()
        .filter(|(_, bytes)| !bytes.is_empty())
        .map(|(name, _)| name.clone())
        .collect();
    if names.is_empty() {
        return;
    }
    let name = |file: &Index| names[file.index(names.len())].clone();
    match fault {
        Fault::Flip(file, at, bits) => {
            let bytes = files.get_mut(&name(file)).unwrap();
            let at = place(at, bytes);
            bytes[at] ^= bits;
        }
        Fault::Cut(file, at) => {
            let bytes = files.get_mut(&name(file)).unwrap();
            bytes.truncate(place(at, bytes));
        }
        Fault::Zeros(file, at, len) => {
            let bytes = files.get_mut(&name(file)).unwrap();
            let at = place(at, bytes);
            let end = (at + len).min(bytes.len());
            bytes[at..end].fill(0);
        }
        Fault::Splice(from, at, len, to, over) => {
            let from = &files[&name(from)];
            let at = grain(place(at, from));
            let piece = from[at..(at + len).min(from.len())].to_vec();
            let to = files.get_mut(&name(to)).unwrap();
            let over = grain(place(over, to));
            let end = (over + piece.len()).min(to.len());
            to[over..end].copy_from_slice(&piece[..end - over]);
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
            let at = grain(place(at, bytes));
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
            header.encode(segment.salt, at as u64, &mut frame);
            let end = (at + frame.len()).min(bytes.len());
            bytes[at..end].copy_from_slice(&frame[..end - at]);
        }
    }
}

/// Opens the files twice and compares what comes back with what was written.
fn judge(files: &BTreeMap<String, Vec<u8>>) -> Result<(), TestCaseError> {
    let directory = TempDir::new().unwrap();
    for (name, bytes) in files {
        std::fs::write(directory.path().join(name), bytes).unwrap();
    }
    let len: usize = files.values().map(Vec::len).sum();
    for start in ["first", "second"] {
        // Each segment is read as a whole, and what is kept of it is less.
        let (log, recovered) = match measured(len, 8, || SegmentLog::open(options(directory.path()))) {
            Ok(opened) => opened,
            Err(OpenError::Version { .. } | OpenError::Io { .. }) => return Ok(()),
            Err(error) => return Err(TestCaseError::fail(format!("{start} start: {error}"))),
        };
        for record in &recovered.records {
            let id = record.key.id;
            prop_assert!(
                (1..=RECORDS).contains(&id) && record.key.space == 1,
                "{start} start: made up: {record:?}"
            );
            prop_assert_eq!((record.kind, &record.head), (7, &head(id)));
            match log.read_body(record.at) {
                Ok(read) => prop_assert_eq!(read, body(id)),
                Err(ReadError::Damaged { .. } | ReadError::Gone | ReadError::Io(_)) => {}
            }
        }
        for (name, found) in &recovered.values {
            let version =
                (1..=RECORDS).find(|id| *name == format!("name-{}", id % 3) && *found == value(*id));
            prop_assert!(version.is_some(), "{start} start: made up: {name} = {found:?}");
        }
        log.close();
    }
    Ok(())
}

/// One run over the cases, on the files of one log.
#[test]
fn files_with_faults() {
    let whole = written();
    assert!(whole.len() > 3, "{:?}", whole.keys());
    judge(&whole).unwrap();
    proptest!(config(16), |(faults in prop::collection::vec(fault(), 1..5))| {
        let mut files = whole.clone();
        for fault in &faults {
            apply(fault, &mut files);
        }
        judge(&files)?;
    });
}
