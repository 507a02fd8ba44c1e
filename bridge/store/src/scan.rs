//! Reads a segment frame by frame, tells damage from a torn tail, and finds the next frame behind a bad region.

use crate::format::{
    ALIGN, COMMIT_END, FRAME_HEADER, FRAMES_START, FrameHeader, FrameType, GROUP_START, SegmentHeader,
    TRAILER, decode_trailer, u32_at,
};
use crc32c::crc32c;
use std::ops::Range;

/// What was found at a position.
#[derive(Debug)]
pub(crate) enum Item {
    /// A frame whose header checks.
    Frame(Frame),
    /// Bytes that no frame header explains.
    Unreadable { position: u64, len: u64 },
}

#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) position: u64,
    pub(crate) header: FrameHeader,
    pub(crate) head: Range<usize>,
    pub(crate) body: Range<usize>,
    pub(crate) fault: Option<Fault>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Head,
    Body,
    CutShort,
}

impl Item {
    pub(crate) fn position(&self) -> u64 {
        match self {
            Self::Frame(frame) => frame.position,
            Self::Unreadable { position, .. } => *position,
        }
    }

    fn is_bad(&self) -> bool {
        match self {
            Self::Frame(frame) => frame.fault.is_some(),
            Self::Unreadable { .. } => true,
        }
    }
}

/// A segment as scanned. `items` holds what counts: everything before the synced point, good or bad, and behind it only the
/// whole commits before the first flaw.
#[derive(Debug)]
pub(crate) struct Scanned {
    pub(crate) items: Vec<Item>,
    /// End of what counts; a torn tail starts here.
    pub(crate) end: u64,
    /// Bytes of the torn tail.
    pub(crate) torn_bytes: u64,
    /// Where the list of the footer lies, if the segment is sealed and the footer checks.
    pub(crate) footer: Option<Range<usize>>,
    /// Everything below `first_group` checks.
    pub(crate) head_intact: bool,
}

/// Scans a whole segment. `last` says that no later segment proves it synced to its end.
pub(crate) fn scan(bytes: &[u8], header: &SegmentHeader, last: bool) -> Scanned {
    let len = bytes.len() as u64;
    let trailer_at = bytes.len().saturating_sub(TRAILER);
    let footer_position = decode_trailer(header.salt, &bytes[trailer_at..]);
    let Walk {
        mut items,
        mut position,
        footer,
    } = walk(bytes, header.salt);

    // 1. Up to where is it proven that it was synced?
    let proven = items.iter().filter_map(|item| match item {
        Item::Frame(frame) if frame.header.flags & GROUP_START != 0 => Some(frame.position),
        Item::Frame(_) | Item::Unreadable { .. } => None,
    });
    let sealed_at = footer.as_ref().map(|_| position).or(footer_position);
    let mut synced = proven.chain(sealed_at).max().unwrap_or(0).max(header.first_group);
    if !last && sealed_at.is_none() {
        // Such a segment was cut to what it held before a later one was made.
        synced = synced.max(written_end(bytes)).max(position);
    }
    if position < synced {
        let bad = synced.min(len).saturating_sub(position).max(1);
        items.push(Item::Unreadable { position, len: bad });
        position = synced;
    }

    // 2. Before that point everything counts; behind it whole commits, up to the first flaw.
    let mut end = synced;
    let mut keep = items.partition_point(|item| item.position() < synced);
    let mut open_commit = keep;
    let mut marker = 0;
    for item in &items[keep..] {
        let Item::Frame(frame) = item else { break };
        if item.is_bad() {
            break;
        }
        if frame.header.frame_type == FrameType::Marker {
            marker = FRAME_HEADER as u64;
            break;
        }
        if frame.position
            != if open_commit == keep {
                end
            } else {
                next_of(&items[open_commit - 1])
            }
        {
            break;
        }
        open_commit += 1;
        if frame.header.flags & COMMIT_END != 0 {
            keep = open_commit;
            end = frame.position + frame.header.frame_len();
        }
    }
    items.truncate(keep);
    let torn_bytes = if sealed_at.is_some() {
        0
    } else {
        written_end(bytes).saturating_sub(end + marker)
    };
    let head_intact = !items
        .iter()
        .any(|i| i.position() < header.first_group && i.is_bad())
        && position >= header.first_group;
    Scanned {
        items,
        end,
        torn_bytes,
        footer: footer.flatten(),
        head_intact,
    }
}

fn next_of(item: &Item) -> u64 {
    match item {
        Item::Frame(frame) => frame.position + frame.header.frame_len(),
        Item::Unreadable { position, len } => position + len,
    }
}

/// One past the last byte that is not zero: the rest is reserved space.
fn written_end(bytes: &[u8]) -> u64 {
    const CHUNK: usize = 4096;
    let zeros = [0; CHUNK];
    let mut end = bytes.len();
    for chunk in bytes.rchunks(CHUNK) {
        if chunk != &zeros[..chunk.len()] {
            let zeros_behind = chunk.iter().rev().take_while(|b| **b == 0).count();
            return (end - zeros_behind) as u64;
        }
        end -= chunk.len();
    }
    0
}

struct Walk {
    items: Vec<Item>,
    /// Where no further frame was found.
    position: u64,
    /// A footer frame starts there; inside, its list if it checks.
    footer: Option<Option<Range<usize>>>,
}

fn walk(bytes: &[u8], salt: u64) -> Walk {
    let len = bytes.len() as u64;
    let mut items = Vec::new();
    let mut position = FRAMES_START;
    while position + FRAME_HEADER as u64 <= len {
        let Some(header) = FrameHeader::decode(salt, position, &bytes[position as usize..]) else {
            let Some(next) = find_frame(bytes, salt, position + ALIGN) else {
                break;
            };
            items.push(Item::Unreadable {
                position,
                len: next - position,
            });
            position = next;
            continue;
        };
        let head_start = position as usize + FRAME_HEADER;
        let head_end = head_start + header.head_len as usize;
        let body_end = head_end + header.body_len as usize;
        let fault = if body_end > bytes.len() {
            Some(Fault::CutShort)
        } else if crc32c(&bytes[head_start..head_end]) != header.head_crc {
            Some(Fault::Head)
        } else if crc32c(&bytes[head_end..body_end]) != header.body_crc {
            Some(Fault::Body)
        } else {
            None
        };
        if header.frame_type == FrameType::Footer {
            // Nothing lies behind a footer. One that does not check costs speed only, no data.
            return Walk {
                items,
                position,
                footer: Some(fault.is_none().then_some(head_end..body_end)),
            };
        }
        items.push(Item::Frame(Frame {
            position,
            header,
            head: head_start..head_end,
            body: head_end..body_end,
            fault,
        }));
        // The length of a frame is covered by its header's checksum, so the next frame is where it says, even if bodies are bad.
        position = (position + header.frame_len()).min(len.next_multiple_of(ALIGN));
    }
    Walk {
        items,
        position,
        footer: None,
    }
}

fn find_frame(bytes: &[u8], salt: u64, from: u64) -> Option<u64> {
    let magic = salt as u32;
    let last = bytes.len().checked_sub(FRAME_HEADER)? as u64;
    (from..=last).step_by(ALIGN as usize).find(|at| {
        u32_at(bytes, *at as usize) == magic
            && FrameHeader::decode(salt, *at, &bytes[*at as usize..]).is_some()
    })
}
