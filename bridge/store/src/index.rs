//! What lives where: which records hold which segments, and which releases must be carried.

use crate::{Key, Location, format::CARRIED_BYTES, format::u32_at, format::u64_at, limits};
use bytes::BufMut;
use std::collections::{BTreeMap, BTreeSet};

/// A place in the log; places compare in log order.
pub(crate) type Place = (u64, u64);

pub(crate) fn place(at: Location) -> Place {
    (at.segment, at.position)
}

#[derive(Debug, Default)]
pub(crate) struct Index {
    living: BTreeMap<Key, Vec<Location>>,
    segments: BTreeMap<u64, Segment>,
    released: BTreeMap<Key, Released>,
    /// Removed files whose removal is not yet durable.
    removed: BTreeSet<u64>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) salt: u64,
    pub(crate) bytes: u64,
    living: u64,
    /// Holds damage that nobody can name a key for.
    held: bool,
}

/// A release that older segments, whose footers do not know of it, still need.
#[derive(Debug, Default)]
struct Released {
    before: Place,
    segments: BTreeSet<u64>,
}

impl Index {
    pub(crate) fn add_segment(&mut self, segment: u64, salt: u64, bytes: u64, held: bool) {
        self.segments.insert(
            segment,
            Segment {
                salt,
                bytes,
                living: 0,
                held,
            },
        );
    }

    pub(crate) fn segment(&self, segment: u64) -> Option<Segment> {
        self.segments.get(&segment).copied()
    }

    pub(crate) fn set_bytes(&mut self, segment: u64, bytes: u64) {
        if let Some(found) = self.segments.get_mut(&segment) {
            found.bytes = bytes;
        }
    }

    pub(crate) fn unhold(&mut self, segment: u64) {
        if let Some(found) = self.segments.get_mut(&segment) {
            found.held = false;
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.segments.values().map(|s| s.bytes).sum()
    }

    pub(crate) fn segment_count(&self) -> u64 {
        self.segments.len() as u64
    }

    /// Books a living record. The records of a key come in log order.
    pub(crate) fn append(&mut self, key: Key, at: Location) {
        self.living.entry(key).or_default().push(at);
        if let Some(segment) = self.segments.get_mut(&at.segment) {
            segment.living += 1;
        }
    }

    pub(crate) fn lives(&self, key: Key, at: Location) -> bool {
        self.living.get(&key).is_some_and(|locations| {
            locations
                .binary_search_by_key(&place(at), |l| place(*l))
                .is_ok_and(|i| locations[i] == at)
        })
    }

    /// Frees a key's records before this place.
    pub(crate) fn release(&mut self, key: Key, before: Place) {
        let Some(locations) = self.living.remove(&key) else {
            return;
        };
        for at in locations {
            if let Some(segment) = self.segments.get_mut(&at.segment) {
                segment.living -= 1;
            }
            // Within one segment the release is found, or the footer written later leaves the record out.
            if at.segment != before.0 {
                self.note_release(key, before, at.segment);
            }
        }
    }

    /// Remembers a release for a segment that is still on disk.
    pub(crate) fn note_release(&mut self, key: Key, before: Place, segment: u64) {
        let released = self.released.entry(key).or_default();
        released.before = released.before.max(before);
        released.segments.insert(segment);
        if self.released.len() > limits::CARRIED_RELEASES_MAX {
            self.released.pop_first();
        }
    }

    /// Segments that nothing needs, apart from the active one.
    pub(crate) fn dead_segments(&self, active: u64) -> Vec<u64> {
        let dead = |(n, s): (&u64, &Segment)| (s.living == 0 && !s.held && *n != active).then_some(*n);
        self.segments.iter().filter_map(dead).collect()
    }

    pub(crate) fn remove_segment(&mut self, segment: u64) {
        if self.segments.remove(&segment).is_some() {
            self.removed.insert(segment);
        }
    }

    /// After a sync of the directory: removed segments cannot come back, so their releases can go.
    pub(crate) fn removals_synced(&mut self) {
        let removed = std::mem::take(&mut self.removed);
        if removed.is_empty() {
            return;
        }
        self.released.retain(|_, released| {
            released.segments.retain(|s| !removed.contains(s));
            !released.segments.is_empty()
        });
    }

    /// The body of a `Carried` frame, empty when there is nothing to carry.
    pub(crate) fn encode_carried(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.released.len() * CARRIED_BYTES);
        for (key, released) in &self.released {
            out.put_u32_le(key.space);
            out.put_u64_le(key.id);
            out.put_u64_le(released.before.0);
            out.put_u64_le(released.before.1);
        }
        out
    }
}

/// Reads the body of a `Carried` frame.
pub(crate) fn decode_carried(body: &[u8]) -> impl Iterator<Item = (Key, Place)> {
    body.chunks_exact(CARRIED_BYTES).map(|one| {
        (
            Key {
                space: u32_at(one, 0),
                id: u64_at(one, 4),
            },
            (u64_at(one, 12), u64_at(one, 20)),
        )
    })
}
