//! The writer thread: group commit, turnover of segments, and removal of those that nothing needs.

use crate::{
    Class, CommitError, Location,
    format::{
        COMMIT_END, Entry, FRAME_HEADER, FRAMES_START, FrameType, GROUP_START, SegmentHeader, encode_footer,
        frame_len, put_frame,
    },
    index::place,
    limits,
    log::{Queued, Shared},
    prepare::ValueSizes,
    recover::is_full,
};
use bytes::Bytes;
use parking_lot::MutexGuard;
use std::{
    collections::{BTreeMap, VecDeque},
    fs::File,
    hash::{BuildHasher, Hasher, RandomState},
    io,
    sync::Arc,
    time::Instant,
};

pub(crate) struct Writer {
    shared: Arc<Shared>,
    values: BTreeMap<String, Bytes>,
    segment_bytes: u64,
    active: Active,
    /// The group being written; kept for its capacity.
    buffer: Vec<u8>,
}

/// The segment that is written to.
struct Active {
    number: u64,
    salt: u64,
    file: File,
    first_group: u64,
    /// End of the reserved space. Only the marker lies beyond, in space of its own.
    limit: u64,
    /// Where the next group goes. Everything before is synced.
    position: u64,
    entries: Vec<Entry>,
}

/// What became of a try to make space for a commit that the active segment cannot take.
enum Space {
    Made,
    /// The file system has none; the active segment is as it was.
    None,
}

impl Writer {
    /// Begins the next segment and removes those that nothing needs.
    pub(crate) fn start(
        shared: Arc<Shared>,
        values: BTreeMap<String, Bytes>,
        number: u64,
        segment_bytes: u64,
    ) -> io::Result<Self> {
        let Some(active) = Active::create(&shared, &values, number, segment_bytes, 0)? else {
            return Err(io::ErrorKind::StorageFull.into());
        };
        shared.dir.rename_new(number)?;
        let mut writer = Self {
            shared,
            values,
            segment_bytes,
            active,
            buffer: Vec::new(),
        };
        writer.begun();
        writer.remove_dead_segments();
        Ok(writer)
    }

    /// Runs until the log is closed or poisoned.
    pub(crate) fn run(mut self) {
        while let Some(mut group) = self.next_group() {
            if let Err(error) = self.write(&mut group) {
                self.poison(error, group);
                return;
            }
        }
        if self.shared.queue.lock().poisoned.is_some() {
            return;
        }
        if let Err(error) = self.seal() {
            self.poison(error, VecDeque::new());
        }
    }

    /// Waits for commits. `None` when the log is closed and all is written.
    fn next_group(&mut self) -> Option<VecDeque<Queued>> {
        let shared = Arc::clone(&self.shared);
        let mut queue = shared.queue.lock();
        let mut marked = self.active.position == self.active.first_group;
        while queue.commits.is_empty() {
            if queue.closing {
                return None;
            }
            if !marked {
                // Idle: say on disk that all before is synced, so that damage to it is not taken for a torn tail.
                marked = true;
                if let Err(error) = MutexGuard::unlocked(&mut queue, || self.write_marker()) {
                    drop(queue);
                    self.poison(error, VecDeque::new());
                    return None;
                }
                continue;
            }
            queue.writer_waits = true;
            shared.wake.wait(&mut queue);
            queue.writer_waits = false;
        }
        let mut bytes = 0;
        let fits = |commit: &&Queued| {
            bytes += commit.bytes;
            bytes <= limits::GROUP_BYTES_MAX
        };
        let count = queue.commits.iter().take_while(fits).count().max(1);
        Some(queue.commits.drain(..count).collect())
    }

    fn write(&mut self, commits: &mut VecDeque<Queued>) -> io::Result<()> {
        while let Some(first) = commits.front() {
            let limit = self.active.limit;
            let fresh = self.active.position == self.active.first_group;
            let mut end = self.active.position;
            let fits = |commit: &&Queued| {
                end += commit.bytes;
                end <= limit
            };
            let count = commits.iter().take_while(fits).count();
            if count > 0 {
                self.write_group(commits, count)?;
                continue;
            }
            // A commit larger than a segment gets one for itself.
            let bytes = first.bytes;
            let space = if fresh {
                self.grow(bytes)?
            } else {
                self.turn_over(bytes)?
            };
            match space {
                Space::Made => self.has_room_again(),
                Space::None => self.wait_for_room(commits),
            }
        }
        Ok(())
    }

    /// Writes the first `count` commits as one group, syncs them and completes them.
    fn write_group(&mut self, commits: &mut VecDeque<Queued>, count: usize) -> io::Result<()> {
        self.buffer.clear();
        let mut locations = Vec::with_capacity(count);
        for commit in commits.iter().take(count) {
            locations.push(self.active.lay_out(commit, &mut self.buffer));
        }
        if !self.buffer.is_empty() {
            self.shared
                .dir
                .write_at(&self.active.file, &self.buffer, self.active.position)?;
            self.shared.dir.sync_data(&self.active.file)?;
        }
        let start = self.active.position;
        self.active.position += self.buffer.len() as u64;

        let mut released = false;
        let mut index = self.shared.index.lock();
        let mut position = start;
        for frame in commits.iter().take(count).flat_map(|commit| &commit.frames) {
            let header = &frame.header;
            let at = self.active.location(position, header.head_len, header.body_len);
            match header.frame_type {
                FrameType::Append => {
                    index.append(header.key, at);
                    let head = Bytes::copy_from_slice(&frame.head);
                    self.active.entries.push(Entry {
                        key: header.key,
                        kind: header.kind,
                        head,
                        at,
                    });
                }
                FrameType::Release => {
                    released = true;
                    index.release(header.key, place(at));
                }
                FrameType::Put => {
                    // Copied, so that a small value does not keep a caller's large buffer alive.
                    let value: Vec<u8> = frame.body.concat();
                    self.values
                        .insert(String::from_utf8_lossy(&frame.head).into_owned(), value.into());
                }
                FrameType::Delete => {
                    self.values.remove(&*String::from_utf8_lossy(&frame.head));
                }
                FrameType::Carried | FrameType::Marker | FrameType::Footer => {}
            }
            position += header.frame_len();
        }
        index.set_bytes(self.active.number, self.active.position);
        drop(index);

        let free = self.shared.free();
        {
            let mut queue = self.shared.queue.lock();
            queue.used += self.buffer.len() as u64;
            queue.queued_bytes -= self.buffer.len() as u64;
            queue.reserved_ahead = queue.reserved_ahead.saturating_sub(self.buffer.len() as u64);
            queue.free = free;
        }
        if self.buffer.capacity() as u64 > 2 * limits::GROUP_BYTES_MAX {
            self.buffer = Vec::new();
        }
        for (commit, locations) in commits.drain(..count).zip(locations) {
            // A caller that no longer waits does not matter.
            let _ = commit.done.send(Ok(locations));
        }
        if released {
            self.remove_dead_segments();
        }
        Ok(())
    }

    fn write_marker(&mut self) -> io::Result<()> {
        let mut marker = Vec::with_capacity(FRAME_HEADER);
        let kind = (FrameType::Marker, GROUP_START | COMMIT_END);
        put_frame(
            &mut marker,
            self.active.salt,
            self.active.position,
            kind,
            &[],
            &[],
        );
        self.shared
            .dir
            .write_at(&self.active.file, &marker, self.active.position)
    }

    /// Lets the active segment, which is empty, take a commit larger than itself.
    fn grow(&mut self, bytes: u64) -> io::Result<Space> {
        let limit = self.active.position + bytes;
        match self.shared.dir.allocate(&self.active.file, limit) {
            Ok(()) => {
                self.active.limit = limit;
                self.shared.queue.lock().reserved_ahead = bytes;
                Ok(Space::Made)
            }
            Err(error) if is_full(&error) => Ok(Space::None),
            Err(error) => Err(error),
        }
    }

    /// Begins the next segment, with room for a commit of these bytes, and seals the one before.
    fn turn_over(&mut self, bytes: u64) -> io::Result<Space> {
        let number = self.active.number + 1;
        let Some(next) = Active::create(&self.shared, &self.values, number, self.segment_bytes, bytes)?
        else {
            return Ok(Space::None);
        };
        if let Err(error) = self.seal() {
            self.shared.dir.remove_new(number);
            return Err(error);
        }
        self.shared.dir.rename_new(number)?;
        self.active = next;
        self.begun();
        self.remove_dead_segments();
        Ok(Space::Made)
    }

    /// Books a segment that has just been begun, with the directory synced.
    fn begun(&mut self) {
        let mut index = self.shared.index.lock();
        index.removals_synced();
        index.add_segment(self.active.number, self.active.salt, self.active.position, false);
        self.book(&index);
        self.shared.queue.lock().reserved_ahead = self.active.limit - self.active.position;
    }

    fn book(&self, index: &crate::index::Index) {
        let mut queue = self.shared.queue.lock();
        queue.used = index.bytes();
        queue.segments = index.segment_count();
        queue.free = self.shared.free();
    }

    /// Lists what lives in the active segment at its end, cuts it there and syncs it.
    fn seal(&mut self) -> io::Result<()> {
        let active = &mut self.active;
        let mut entries = std::mem::take(&mut active.entries);
        let mut bytes = active.position;
        {
            let index = self.shared.index.lock();
            entries.retain(|entry| index.lives(entry.key, entry.at));
        }
        active.file.set_len(bytes)?;
        if let Some(footer) = encode_footer(active.salt, active.position, &entries) {
            match self.shared.dir.write_at(&active.file, &footer, active.position) {
                Ok(()) => bytes += footer.len() as u64,
                // It only saves a scan.
                Err(error) if is_full(&error) => active.file.set_len(bytes)?,
                Err(error) => return Err(error),
            }
        }
        self.shared.dir.sync_all(&active.file)?;
        let mut index = self.shared.index.lock();
        index.set_bytes(active.number, bytes);
        self.book(&index);
        Ok(())
    }

    fn remove_dead_segments(&mut self) {
        let mut index = self.shared.index.lock();
        let dead = index.dead_segments(self.active.number);
        for segment in &dead {
            index.remove_segment(*segment);
        }
        if dead.is_empty() {
            return;
        }
        self.book(&index);
        drop(index);
        for segment in dead {
            if let Err(error) = self.shared.dir.remove(segment) {
                tracing::warn!(code = "FAN-4034", segment, %error, "a segment could not be removed; the next start tries again");
            }
        }
    }

    /// No space for the first of these commits. What finishes accepted data stays, in its order, and the next try comes after a pause;
    /// the rest fails, having changed nothing. When the log is being closed nothing stays.
    fn wait_for_room(&self, commits: &mut VecDeque<Queued>) {
        let shared = Arc::clone(&self.shared);
        let mut queue = shared.queue.lock();
        let full = CommitError::Full {
            used: queue.used,
            quota: shared.quota,
        };
        let closing = queue.closing;
        let refused = |commit: &Queued| closing || commit.class != Class::Finish;
        let answer = if closing { CommitError::Closed } else { full };
        let mut waiting = std::mem::take(&mut queue.commits);
        for commits in [&mut *commits, &mut waiting] {
            for commit in std::mem::take(commits) {
                if refused(&commit) {
                    queue.queued_bytes -= commit.bytes;
                    let _ = commit.done.send(Err(answer.clone()));
                } else {
                    commits.push_back(commit);
                }
            }
        }
        queue.commits = waiting;
        let mut sizes = ValueSizes::of(&self.values);
        for commit in commits.iter().chain(&queue.commits) {
            sizes.apply(&commit.frames);
        }
        queue.sizes = sizes;
        queue.no_space_at = Some(Instant::now());
        if commits.is_empty() {
            return;
        }
        if !std::mem::replace(&mut queue.room_waits, true) {
            tracing::warn!(
                code = "FAN-4048",
                dir = %shared.dir.path().display(),
                "the file system of the local log is full: what is accepted waits to be finished, nothing new is taken; make room there"
            );
        }
        shared.wake.wait_for(&mut queue, limits::ROOM_RETRY);
    }

    fn has_room_again(&self) {
        let mut queue = self.shared.queue.lock();
        queue.no_space_at = None;
        if std::mem::take(&mut queue.room_waits) {
            tracing::info!(
                code = "FAN-4048",
                "the file system of the local log has room again"
            );
        }
    }

    /// Fails everything from here on: after a failed sync nobody knows what the disk holds.
    fn poison(&self, error: io::Error, group: VecDeque<Queued>) {
        tracing::error!(code = "FAN-4002", %error, "the local log is poisoned");
        let error = Arc::new(error);
        let waiting = {
            let mut queue = self.shared.queue.lock();
            queue.poisoned = Some(Arc::clone(&error));
            queue.queued_bytes = 0;
            std::mem::take(&mut queue.commits)
        };
        for commit in group.into_iter().chain(waiting) {
            let _ = commit.done.send(Err(CommitError::Poisoned(Arc::clone(&error))));
        }
    }
}

impl Active {
    /// Makes a segment with room for a commit of these bytes, that starts with all values and carried releases. It counts once it is
    /// renamed. `None`: the file system is full.
    fn create(
        shared: &Shared,
        values: &BTreeMap<String, Bytes>,
        number: u64,
        segment_bytes: u64,
        bytes: u64,
    ) -> io::Result<Option<Self>> {
        // On a nearly full disk a small segment still lets accepted work finish.
        for room in [segment_bytes.max(bytes), limits::SEGMENT_BYTES_MIN.max(bytes)] {
            match Self::create_with_room(shared, values, number, room) {
                Ok(created) => return Ok(Some(created)),
                Err(error) if is_full(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn create_with_room(
        shared: &Shared,
        values: &BTreeMap<String, Bytes>,
        number: u64,
        room: u64,
    ) -> io::Result<Self> {
        let salt = RandomState::new().build_hasher().finish();
        let carried = shared.index.lock().encode_carried();
        let mut frames = Vec::new();
        let end = |frames: &Vec<u8>| FRAMES_START + frames.len() as u64;
        for (name, value) in values {
            let position = end(&frames);
            put_frame(
                &mut frames,
                salt,
                position,
                (FrameType::Put, COMMIT_END),
                name.as_bytes(),
                value,
            );
        }
        if !carried.is_empty() {
            let position = end(&frames);
            put_frame(
                &mut frames,
                salt,
                position,
                (FrameType::Carried, COMMIT_END),
                &[],
                &carried,
            );
        }
        let first_group = end(&frames);
        let mut head = SegmentHeader {
            segment: number,
            salt,
            first_group,
        }
        .encode();
        head.append(&mut frames);
        let file = shared.dir.create_new(number, &head, room)?;
        let (limit, position) = (first_group + room, first_group);
        Ok(Self {
            number,
            salt,
            file,
            first_group,
            limit,
            position,
            entries: Vec::new(),
        })
    }

    fn location(&self, position: u64, head_len: u32, body_len: u32) -> Location {
        Location {
            segment: self.number,
            position,
            head_len,
            body_len,
        }
    }

    /// Appends a commit's frames to the group. Returns the locations of its appended records.
    fn lay_out(&self, commit: &Queued, out: &mut Vec<u8>) -> Vec<Location> {
        let mut locations = Vec::new();
        let last = commit.frames.len().saturating_sub(1);
        for (i, frame) in commit.frames.iter().enumerate() {
            let start = out.len();
            let position = self.position + start as u64;
            let mut header = frame.header;
            if start == 0 {
                header.flags |= GROUP_START;
            }
            if i == last {
                header.flags |= COMMIT_END;
            }
            header.encode(self.salt, position, out);
            out.extend_from_slice(&frame.head);
            for piece in &frame.body {
                out.extend_from_slice(piece);
            }
            let len = frame_len(u64::from(header.head_len), u64::from(header.body_len));
            out.resize(start + len as usize, 0);
            if header.frame_type == FrameType::Append {
                locations.push(self.location(position, header.head_len, header.body_len));
            }
        }
        locations
    }
}
