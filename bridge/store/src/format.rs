//! The layout of the files. All numbers are little-endian.
//!
//! ```text
//! DIR/lock                     held with flock while a process uses the directory
//! DIR/NNNNNNNNNNNNNNNN.log     segment number N in hexadecimal; the one with the highest number is the active one
//! DIR/NNNNNNNNNNNNNNNN.new     a segment in the making, removed at start
//!
//! segment = header (64) .. copy of the header at 512 .. frames from 1024 on .. [footer frame, trailer (32)]
//! header  = "FANINLOG" version:u16 0:u16 crc:u32 segment:u64 salt:u64 first_group:u64 0:24 bytes
//! frame   = magic:u32 header_crc:u32 position:u64 id:u64 space:u32 head_len:u32 body_len:u32 head_crc:u32 body_crc:u32
//!           type:u8 kind:u8 flags:u8 0:u8, head, body, zeros up to a multiple of 8
//! trailer = footer_position:u64 salt:u64 crc:u32 0:u32 "FANINEND"
//! ```
//! Checksums are CRC32C. `magic` is the low half of the segment's random `salt`, and the salt is part of `header_crc`: nobody who only
//! chooses message bodies can forge a frame, so a search for the next frame behind a damaged one finds real frames only.
//!
//! **Commits.** The frames of a commit follow each other; the last has the flag `COMMIT_END`. A commit without its end never happened.
//!
//! **Synced points.** A group (all commits of one fdatasync) is written only after the group before it was synced. So the flag
//! `GROUP_START` proves that everything before that frame was synced once. When the log is idle, an empty `Marker` with that flag is
//! written behind the last group, without a sync of its own, and overwritten by the next group. A segment gets its final name only after
//! its head was synced and its predecessor sealed, so everything below `first_group`, and all of a segment that is not the last one,
//! is synced too. What is bad before the last synced point is damage and is reported; what is bad behind it is a torn tail and is cut.
//!
//! **Head of a segment.** `Put` frames with every named value and one `Carried` frame with the releases that older segments still need.
//! The log never has to look further back for them.
//!
//! **Footer.** A sealed segment ends with the list of its records that lived then, heads included, so that opening does not read bodies.
//! A footer that does not check is ignored and the segment scanned.

use crate::{Key, Location};
use bytes::{BufMut, Bytes};
use crc32c::{crc32c, crc32c_append};

/// Version of the layout, in every segment's header.
pub const VERSION: u16 = 1;
/// Bytes of a segment's header.
pub const SEGMENT_HEADER: usize = 64;
/// Position of the header's copy.
pub const SEGMENT_HEADER_COPY: usize = 512;
/// Position of the first frame.
pub const FRAMES_START: u64 = 1024;
/// Bytes of a frame's header.
pub const FRAME_HEADER: usize = 48;
/// Bytes of a trailer.
pub const TRAILER: usize = 32;
/// Frames start at multiples of this.
pub const ALIGN: u64 = 8;
/// Bytes of one carried release.
pub(crate) const CARRIED_BYTES: usize = 28;
/// Bytes of one entry of a footer, without its head.
const FOOTER_ENTRY: usize = 29;

const SEGMENT_MAGIC: &[u8; 8] = b"FANINLOG";
const TRAILER_MAGIC: &[u8; 8] = b"FANINEND";

/// The frame proves that everything before it was synced.
pub const GROUP_START: u8 = 1;
/// The frame ends its commit.
pub const COMMIT_END: u8 = 2;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameType {
    /// An appended record.
    Append = 1,
    /// Frees a key.
    Release = 2,
    /// A named value: the head is the name, the body the value.
    Put = 3,
    /// Removes a named value; the head is the name.
    Delete = 4,
    /// Releases that older segments still need.
    Carried = 5,
    /// Nothing: only proves a synced point.
    Marker = 6,
    /// The list of living records of a sealed segment.
    Footer = 7,
}

impl FrameType {
    fn from_byte(byte: u8) -> Option<Self> {
        [
            Self::Append,
            Self::Release,
            Self::Put,
            Self::Delete,
            Self::Carried,
            Self::Marker,
            Self::Footer,
        ]
        .into_iter()
        .find(|t| *t as u8 == byte)
    }
}

/// The header of a frame, apart from its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What it holds.
    pub frame_type: FrameType,
    /// The caller's record kind.
    pub kind: u8,
    /// `GROUP_START`, `COMMIT_END`.
    pub flags: u8,
    /// The key, zero where there is none.
    pub key: Key,
    /// Bytes of the head.
    pub head_len: u32,
    /// Bytes of the body.
    pub body_len: u32,
    /// CRC32C of the head.
    pub head_crc: u32,
    /// CRC32C of the body.
    pub body_crc: u32,
}

impl FrameHeader {
    /// Bytes of the whole frame, padding included.
    #[must_use]
    pub fn frame_len(&self) -> u64 {
        frame_len(u64::from(self.head_len), u64::from(self.body_len))
    }

    /// Appends the 48 bytes.
    pub fn encode(&self, salt: u64, position: u64, out: &mut Vec<u8>) {
        let start = out.len();
        out.put_u32_le(salt as u32);
        out.put_u32_le(0);
        out.put_u64_le(position);
        out.put_u64_le(self.key.id);
        out.put_u32_le(self.key.space);
        out.put_u32_le(self.head_len);
        out.put_u32_le(self.body_len);
        out.put_u32_le(self.head_crc);
        out.put_u32_le(self.body_crc);
        out.put_slice(&[self.frame_type as u8, self.kind, self.flags, 0]);
        let crc = crc32c_append(crc32c(&salt.to_le_bytes()), &out[start + 8..]);
        out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads a header that must lie at `position` of the segment with this salt.
    #[must_use]
    pub fn decode(salt: u64, position: u64, bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..FRAME_HEADER)?;
        if u32_at(bytes, 0) != salt as u32 || u64_at(bytes, 8) != position {
            return None;
        }
        if crc32c_append(crc32c(&salt.to_le_bytes()), &bytes[8..]) != u32_at(bytes, 4) {
            return None;
        }
        Some(Self {
            frame_type: FrameType::from_byte(bytes[44])?,
            kind: bytes[45],
            flags: bytes[46],
            key: Key {
                id: u64_at(bytes, 16),
                space: u32_at(bytes, 24),
            },
            head_len: u32_at(bytes, 28),
            body_len: u32_at(bytes, 32),
            head_crc: u32_at(bytes, 36),
            body_crc: u32_at(bytes, 40),
        })
    }
}

/// Bytes of a frame with this head and body, padding included.
#[must_use]
pub fn frame_len(head_len: u64, body_len: u64) -> u64 {
    (FRAME_HEADER as u64 + head_len + body_len).next_multiple_of(ALIGN)
}

/// Appends a whole frame with one piece of body. The writer's hot path lays out its frames itself.
pub(crate) fn put_frame(
    out: &mut Vec<u8>,
    salt: u64,
    position: u64,
    frame: (FrameType, u8),
    head: &[u8],
    body: &[u8],
) {
    let header = FrameHeader {
        frame_type: frame.0,
        kind: 0,
        flags: frame.1,
        key: Key { space: 0, id: 0 },
        head_len: head.len() as u32,
        body_len: body.len() as u32,
        head_crc: crc32c(head),
        body_crc: crc32c(body),
    };
    let start = out.len();
    header.encode(salt, position, out);
    out.extend_from_slice(head);
    out.extend_from_slice(body);
    out.resize(start + header.frame_len() as usize, 0);
}

/// What a segment's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The segment's number, as in its name.
    pub segment: u64,
    /// Random; part of every frame's checksum.
    pub salt: u64,
    /// End of the copied values, where the first group starts.
    pub first_group: u64,
}

/// Why a segment's header cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderFault {
    /// Neither copy checks.
    Damaged,
    /// Written by another version of the layout.
    Version(u16),
}

impl SegmentHeader {
    fn encode_one(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SEGMENT_HEADER);
        out.put_slice(SEGMENT_MAGIC);
        out.put_u16_le(VERSION);
        out.put_u16_le(0);
        out.put_u32_le(0);
        out.put_u64_le(self.segment);
        out.put_u64_le(self.salt);
        out.put_u64_le(self.first_group);
        out.resize(SEGMENT_HEADER, 0);
        let crc = crc32c(&out);
        out[12..16].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The first `FRAMES_START` bytes of a segment.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let one = self.encode_one();
        let mut out = one.clone();
        out.resize(SEGMENT_HEADER_COPY, 0);
        out.extend_from_slice(&one);
        out.resize(FRAMES_START as usize, 0);
        out
    }

    /// Reads the header or its copy from the start of a segment.
    ///
    /// # Errors
    /// [`HeaderFault`]
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderFault> {
        let mut fault = HeaderFault::Damaged;
        for at in [0, SEGMENT_HEADER_COPY] {
            let Some(one) = bytes.get(at..at + SEGMENT_HEADER) else {
                continue;
            };
            let mut unsigned = one.to_vec();
            unsigned[12..16].fill(0);
            if &one[..8] != SEGMENT_MAGIC || crc32c(&unsigned) != u32_at(one, 12) {
                continue;
            }
            let version = u16::from_le_bytes([one[8], one[9]]);
            if version != VERSION {
                fault = HeaderFault::Version(version);
                continue;
            }
            return Ok(Self {
                segment: u64_at(one, 16),
                salt: u64_at(one, 24),
                first_group: u64_at(one, 32),
            });
        }
        Err(fault)
    }
}

/// One record in a footer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: Key,
    pub(crate) kind: u8,
    pub(crate) head: Bytes,
    pub(crate) at: Location,
}

/// Appends a footer frame and its trailer. `None` when the list does not fit a frame; the segment then goes without.
pub(crate) fn encode_footer(salt: u64, position: u64, entries: &[Entry]) -> Option<Vec<u8>> {
    let len: usize = entries.iter().map(|e| FOOTER_ENTRY + e.head.len()).sum();
    if len as u64 > crate::limits::BODY_BYTES_MAX {
        return None;
    }
    let mut list = Vec::with_capacity(len);
    for entry in entries {
        list.put_u32_le(entry.key.space);
        list.put_u64_le(entry.key.id);
        list.put_u8(entry.kind);
        list.put_u64_le(entry.at.position);
        list.put_u32_le(entry.at.head_len);
        list.put_u32_le(entry.at.body_len);
        list.put_slice(&entry.head);
    }
    let mut out = Vec::with_capacity(list.len() + 128);
    put_frame(
        &mut out,
        salt,
        position,
        (FrameType::Footer, GROUP_START | COMMIT_END),
        &[],
        &list,
    );
    let start = out.len();
    out.put_u64_le(position);
    out.put_u64_le(salt);
    out.put_u64_le(0);
    out.put_slice(TRAILER_MAGIC);
    let crc = crc32c(&out[start..]);
    out[start + 16..start + 20].copy_from_slice(&crc.to_le_bytes());
    Some(out)
}

/// The footer's position, from the last bytes of a segment.
pub(crate) fn decode_trailer(salt: u64, bytes: &[u8]) -> Option<u64> {
    let mut bytes = bytes.get(..TRAILER)?.to_vec();
    let crc = u32_at(&bytes, 16);
    bytes[16..20].fill(0);
    (crc == crc32c(&bytes) && u64_at(&bytes, 8) == salt && &bytes[24..32] == TRAILER_MAGIC)
        .then(|| u64_at(&bytes, 0))
}

/// Reads the body of a footer frame.
pub(crate) fn decode_footer(segment: u64, list: &Bytes) -> Option<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut at = 0;
    while at < list.len() {
        let fixed = list.get(at..at + FOOTER_ENTRY)?;
        let head_len = u32_at(fixed, 21);
        let head_start = at + FOOTER_ENTRY;
        let head_end = head_start.checked_add(head_len as usize)?;
        list.get(head_start..head_end)?;
        entries.push(Entry {
            key: Key {
                space: u32_at(fixed, 0),
                id: u64_at(fixed, 4),
            },
            kind: fixed[12],
            head: list.slice(head_start..head_end),
            at: Location {
                segment,
                position: u64_at(fixed, 13),
                head_len,
                body_len: u32_at(fixed, 25),
            },
        });
        at = head_end;
    }
    Some(entries)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}
