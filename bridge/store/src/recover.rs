//! What a directory holds when it is opened: footers for sealed segments, a scan for the last one.

use crate::{
    Damage, DamagedRecord, Key, Location, Recovered, RecoveredRecord,
    files::Dir,
    format::{
        Entry, FRAME_HEADER, FRAMES_START, FrameHeader, FrameType, HeaderFault, SegmentHeader, TRAILER,
        decode_footer, decode_trailer, encode_footer, frame_len,
    },
    index::{Index, Place, decode_carried, place},
    log::OpenError,
    scan::{Fault, Frame, Item, Scanned, scan},
};
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    ops::Range,
    os::unix::fs::FileExt,
};

/// A log ready to be continued in a new segment.
pub(crate) struct Opened {
    pub(crate) index: Index,
    pub(crate) values: BTreeMap<String, Bytes>,
    pub(crate) recovered: Recovered,
    pub(crate) next_segment: u64,
}

#[derive(Default)]
struct Found {
    entries: Vec<Entry>,
    values: BTreeMap<String, Bytes>,
    releases: BTreeMap<Key, Place>,
    /// With the entry that lies there, when its header could be read.
    damages: Vec<(Damage, Option<Entry>)>,
    damaged_values: BTreeMap<String, Damage>,
    /// The segment scanned last, if its content up to its end is known without doubt.
    sure_of: Option<u64>,
}

/// What is known of one segment file after reading it.
struct Part {
    header: Option<SegmentHeader>,
    bytes: u64,
    ending: Ending,
}

/// What must be done to the end of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// Nothing: sealed, or nothing is known of it.
    Keep,
    /// It was the active one: cut it there and seal it.
    SealAt(u64),
    /// Sealed, but damaged: without its trailer every start scans it, and reports the damage again.
    DropTrailer,
}

/// A segment read and scanned as a whole; `scanned` is `None` when its header cannot be read.
struct Loaded {
    number: u64,
    content: Vec<u8>,
    scanned: Option<(SegmentHeader, Scanned)>,
}

/// Reads everything, seals the last segment behind what counts, and makes that durable.
pub(crate) fn recover(dir: &Dir, scan_all: bool) -> Result<Opened, OpenError> {
    let io = |source| OpenError::Io {
        dir: dir.path().into(),
        source,
    };
    let mut numbers = dir.segments().map_err(io)?;
    let last = numbers.pop();
    let mut found = Found::default();
    let mut recovered = Recovered::default();
    let mut parts = BTreeMap::new();

    // The values come from the last segment, and from the one before only if the last one's head is damaged.
    let last_loaded = last.map(|number| load(dir, number, true)).transpose()?;
    let rebuild = last_loaded
        .as_ref()
        .is_some_and(|l| !l.scanned.as_ref().is_some_and(|(_, scanned)| scanned.head_intact));
    for number in numbers {
        let scan_it = scan_all || rebuild && Some(number + 1) == last;
        let part = match read_sealed(dir, number, scan_it)? {
            Some((part, entries)) => {
                found.entries.extend(entries);
                part
            }
            None => found.take(&load(dir, number, false)?, false),
        };
        parts.insert(number, part);
    }
    if let Some(loaded) = last_loaded {
        parts.insert(loaded.number, found.take(&loaded, true));
        recovered.torn_bytes = loaded.scanned.map_or(0, |(_, scanned)| scanned.torn_bytes);
    }

    // Damage counts unless what it hit was released or set anew since.
    let Found {
        mut entries,
        values,
        releases,
        damages,
        damaged_values,
        sure_of: _,
    } = found;
    let released = |key: Key, at: Place| releases.get(&key).is_some_and(|before| at < *before);
    let mut damages: Vec<_> = damages
        .into_iter()
        .filter(|(damage, _)| {
            !damage
                .key
                .is_some_and(|key| released(key, (damage.segment, damage.position)))
        })
        .collect();
    damages.extend(damaged_values.into_values().map(|damage| (damage, None)));
    damages.sort_by_key(|(damage, _)| (damage.segment, damage.position));

    let mut index = Index::default();
    for (&number, part) in &parts {
        let held = damages
            .iter()
            .any(|(d, _)| d.segment == number && d.key.is_none());
        index.add_segment(number, part.header.map_or(0, |h| h.salt), part.bytes, held);
    }
    for entry in entries.iter().filter(|e| released(e.key, place(e.at))) {
        if let Some(before) = releases.get(&entry.key)
            && before.0 != entry.at.segment
        {
            index.note_release(entry.key, *before, entry.at.segment);
        }
    }
    entries.retain(|e| !released(e.key, place(e.at)));
    entries.sort_by_key(|entry| place(entry.at));
    let damaged_entries = damages.iter().filter_map(|(_, entry)| entry.as_ref());
    let mut booked: Vec<_> = entries
        .iter()
        .chain(damaged_entries)
        .map(|e| (e.key, e.at))
        .collect();
    booked.sort_by_key(|(_, at)| place(*at));
    for (key, at) in booked {
        index.append(key, at);
    }

    for (&number, part) in &parts {
        let Some(header) = part.header else { continue };
        let bytes = match part.ending {
            Ending::SealAt(at) => {
                // A damaged segment stays without a footer, for the same reason.
                let whole = !damages.iter().any(|(d, _)| d.segment == number);
                let own: Vec<_> = entries
                    .iter()
                    .filter(|e| e.at.segment == number)
                    .cloned()
                    .collect();
                seal(dir, number, &header, at, whole.then_some(&own[..])).map_err(io)?
            }
            Ending::DropTrailer => {
                seal(dir, number, &header, part.bytes - TRAILER as u64, None).map_err(io)?
            }
            Ending::Keep => part.bytes,
        };
        index.set_bytes(number, bytes);
    }
    recovered.values = values.clone();
    recovered.damaged = damages.into_iter().map(|(damage, _)| damage).collect();
    recovered.records = entries
        .into_iter()
        .map(|Entry { key, kind, head, at }| RecoveredRecord { key, kind, head, at })
        .collect();
    Ok(Opened {
        index,
        values,
        recovered,
        next_segment: last.map_or(1, |n| n + 1),
    })
}

fn load(dir: &Dir, number: u64, last: bool) -> Result<Loaded, OpenError> {
    let path = dir.segment_path(number);
    let content = std::fs::read(&path).map_err(|source| OpenError::Io {
        dir: path.clone(),
        source,
    })?;
    let scanned = match SegmentHeader::decode(&content) {
        Ok(header) if header.segment == number => {
            let scanned = scan(&content, &header, last);
            Some((header, scanned))
        }
        Err(HeaderFault::Version(version)) => return Err(OpenError::Version { path, version }),
        Ok(_) | Err(HeaderFault::Damaged) => None,
    };
    Ok(Loaded {
        number,
        content,
        scanned,
    })
}

/// Reads a segment's footer. `None` when the segment must be scanned.
fn read_sealed(dir: &Dir, number: u64, scan_it: bool) -> Result<Option<(Part, Vec<Entry>)>, OpenError> {
    let path = dir.segment_path(number);
    let read = || -> std::io::Result<Option<(Part, Vec<Entry>)>> {
        let file = File::open(&path)?;
        let bytes = file.metadata()?.len();
        if scan_it || bytes < FRAMES_START + TRAILER as u64 {
            return Ok(None);
        }
        let mut start = vec![0; FRAMES_START as usize];
        file.read_exact_at(&mut start, 0)?;
        let Ok(header) = SegmentHeader::decode(&start) else {
            return Ok(None);
        };
        let mut trailer = [0; TRAILER];
        file.read_exact_at(&mut trailer, bytes - TRAILER as u64)?;
        let Some(position) = decode_trailer(header.salt, &trailer) else {
            return Ok(None);
        };
        let Some(len) = bytes.checked_sub(position + FRAME_HEADER as u64) else {
            return Ok(None);
        };
        let mut footer = vec![0; len as usize + FRAME_HEADER];
        file.read_exact_at(&mut footer, position)?;
        let Some(frame) = FrameHeader::decode(header.salt, position, &footer) else {
            return Ok(None);
        };
        let list = Bytes::from(footer).slice(FRAME_HEADER..);
        if frame.body_len as usize > list.len() || header.segment != number {
            return Ok(None);
        }
        let list = list.slice(..frame.body_len as usize);
        if crc32c::crc32c(&list) != frame.body_crc {
            return Ok(None);
        }
        let part = Part {
            header: Some(header),
            bytes,
            ending: Ending::Keep,
        };
        Ok(decode_footer(number, &list).map(|entries| (part, entries)))
    };
    read().map_err(|source| OpenError::Io {
        dir: path.clone(),
        source,
    })
}

/// Cuts a segment behind what counts, lists what it holds, and syncs it: a later power cut must not take what is recovered now.
fn seal(
    dir: &Dir,
    number: u64,
    header: &SegmentHeader,
    at: u64,
    entries: Option<&[Entry]>,
) -> std::io::Result<u64> {
    let file = OpenOptions::new().write(true).open(dir.segment_path(number))?;
    file.set_len(at)?;
    let mut bytes = at;
    if let Some(footer) = entries.and_then(|entries| encode_footer(header.salt, at, entries)) {
        match dir.write_at(&file, &footer, at) {
            Ok(()) => bytes += footer.len() as u64,
            // A full disk must not keep the log from opening; the next start scans this segment once more.
            Err(error) if is_full(&error) => file.set_len(at)?,
            Err(error) => return Err(error),
        }
    }
    dir.sync_all(&file)?;
    Ok(bytes)
}

/// Whether the error says that there is no space left.
pub(crate) fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

impl Found {
    fn damage(&mut self, segment: u64, position: u64, what: &str) {
        self.damages.push((
            Damage {
                segment,
                position,
                key: None,
                record: None,
                value: None,
                what: what.into(),
            },
            None,
        ));
    }

    /// Takes in a scanned segment.
    fn take(&mut self, loaded: &Loaded, last: bool) -> Part {
        let (number, bytes) = (loaded.number, loaded.content.len() as u64);
        let Some((header, scanned)) = &loaded.scanned else {
            self.damage(number, 0, "the segment's header cannot be read");
            return Part {
                header: None,
                bytes,
                ending: Ending::Keep,
            };
        };
        let known = self.damages.len() + self.damaged_values.len();
        let trailer = bytes
            .checked_sub(TRAILER as u64)
            .and_then(|at| decode_trailer(header.salt, &loaded.content[at as usize..]));
        // Later starts find a later head, but that was written from what the first start after the damage knew. They report the same.
        let values_matter = last || trailer.is_none();
        if scanned.head_intact {
            // The head holds every value, so what older segments said no longer counts.
            self.values.clear();
        } else if self.sure_of.is_some_and(|sure| sure + 1 == number) {
            tracing::warn!(
                code = "FAN-4033",
                segment = number,
                "the damaged head of a segment is rebuilt from the segment before"
            );
        } else if values_matter {
            let what = "the segment's head is damaged: named values may be missing or old";
            self.damage(number, FRAMES_START, what);
        }
        let listed = scanned
            .footer
            .as_ref()
            .and_then(|list| decode_footer(number, &Bytes::copy_from_slice(&loaded.content[list.clone()])));
        for item in &scanned.items {
            match item {
                Item::Frame(frame) => self.take_frame(number, header, frame, &loaded.content),
                Item::Unreadable { position, len } if position + len > header.first_group => {
                    let from = (*position).max(header.first_group);
                    self.take_unreadable(number, from..position + len, listed.as_deref(), values_matter);
                }
                // In the head; dealt with above.
                Item::Unreadable { .. } => {}
            }
        }
        let unharmed = self.damages.len() + self.damaged_values.len() == known;
        self.sure_of = (unharmed && scanned.head_intact).then_some(number);
        let (bytes, ending) = match &scanned.footer {
            None if last => (scanned.end, Ending::SealAt(scanned.end)),
            Some(_) if !unharmed && trailer.is_some() => (bytes, Ending::DropTrailer),
            None | Some(_) => (bytes, Ending::Keep),
        };
        Part {
            header: Some(*header),
            bytes,
            ending,
        }
    }

    /// A region without readable headers. The footer of a sealed segment still knows what lay there.
    fn take_unreadable(
        &mut self,
        segment: u64,
        region: Range<u64>,
        listed: Option<&[Entry]>,
        values_matter: bool,
    ) {
        let mut explained = 0;
        for entry in listed
            .unwrap_or_default()
            .iter()
            .filter(|e| region.contains(&e.at.position))
        {
            explained += frame_len(u64::from(entry.at.head_len), u64::from(entry.at.body_len));
            let what = "the record's header does not match its checksum".into();
            let damage = Damage {
                segment,
                position: entry.at.position,
                key: Some(entry.key),
                record: Some(DamagedRecord {
                    kind: entry.kind,
                    head: Some(entry.head.clone()),
                    at: entry.at,
                }),
                value: None,
                what,
            };
            self.damages.push((damage, Some(entry.clone())));
        }
        // Without a footer nobody knows. With one, there may have been values that are nowhere else.
        if listed.is_none() || values_matter && explained < region.end - region.start {
            self.damage(segment, region.start, "unreadable records");
        }
    }

    fn take_frame(&mut self, segment: u64, segment_header: &SegmentHeader, frame: &Frame, content: &[u8]) {
        let Frame {
            position,
            header,
            head,
            body,
            fault,
        } = frame;
        let in_head = *position < segment_header.first_group;
        let key = header.key;
        let at = Location {
            segment,
            position: *position,
            head_len: header.head_len,
            body_len: header.body_len,
        };
        if let Some(fault) = fault {
            if in_head {
                return;
            }
            let what = match fault {
                Fault::Head => "the record's head does not match its checksum",
                Fault::Body => "the record's body does not match its checksum",
                Fault::CutShort => "the record is cut short",
            };
            let damage = Damage {
                segment,
                position: *position,
                key: None,
                record: None,
                value: None,
                what: what.into(),
            };
            match header.frame_type {
                FrameType::Append => {
                    let entry = Entry {
                        key,
                        kind: header.kind,
                        head: Bytes::new(),
                        at,
                    };
                    let intact_head = *fault == Fault::Body;
                    let record = DamagedRecord {
                        kind: header.kind,
                        head: intact_head.then(|| Bytes::copy_from_slice(&content[head.clone()])),
                        at,
                    };
                    self.damages.push((
                        Damage {
                            key: Some(key),
                            record: Some(record),
                            ..damage
                        },
                        Some(entry),
                    ));
                }
                FrameType::Put | FrameType::Delete if *fault == Fault::Body => {
                    let name = String::from_utf8_lossy(&content[head.clone()]).into_owned();
                    let what = format!("the named value {name:?} does not match its checksum");
                    let value = Some(name.clone());
                    self.damaged_values.insert(
                        name,
                        Damage {
                            what,
                            value,
                            ..damage
                        },
                    );
                }
                FrameType::Put | FrameType::Delete => self.damages.push((damage, None)),
                // These hold nothing of the caller's: a lost release may come undone.
                FrameType::Release | FrameType::Carried | FrameType::Marker | FrameType::Footer => {}
            }
            return;
        }
        let head = &content[head.clone()];
        match header.frame_type {
            FrameType::Append => {
                let head = Bytes::copy_from_slice(head);
                self.entries.push(Entry {
                    key,
                    kind: header.kind,
                    head,
                    at,
                });
            }
            FrameType::Release => self.note_release(key, place(at)),
            FrameType::Put => {
                let name = String::from_utf8_lossy(head).into_owned();
                if !in_head {
                    self.damaged_values.remove(&name);
                }
                self.values
                    .insert(name, Bytes::copy_from_slice(&content[body.clone()]));
            }
            FrameType::Delete => {
                let name = String::from_utf8_lossy(head);
                self.damaged_values.remove(&*name);
                self.values.remove(&*name);
            }
            FrameType::Carried => {
                for (key, before) in decode_carried(&content[body.clone()]) {
                    self.note_release(key, before);
                }
            }
            FrameType::Marker | FrameType::Footer => {}
        }
    }

    fn note_release(&mut self, key: Key, before: Place) {
        let known = self.releases.entry(key).or_default();
        *known = before.max(*known);
    }
}
