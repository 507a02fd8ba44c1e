//! Files of the log: every write and sync passes here, and so through the fault seam.

use crate::{faults::Faults, format::FRAME_HEADER, limits};
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The directory of a log.
#[derive(Debug)]
pub(crate) struct Dir {
    path: PathBuf,
    handle: File,
    faults: Option<Arc<dyn Faults>>,
    readers: Mutex<Readers>,
}

#[derive(Debug, Default)]
struct Readers {
    open: BTreeMap<u64, (Arc<File>, u64)>,
    uses: u64,
}

/// Length of the file name's number in hexadecimal digits.
const NAME_DIGITS: usize = 16;

impl Dir {
    pub(crate) fn open(path: &Path, faults: Option<Arc<dyn Faults>>) -> io::Result<Self> {
        Ok(Self {
            path: path.into(),
            handle: File::open(path)?,
            faults,
            readers: Mutex::default(),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn segment_path(&self, segment: u64) -> PathBuf {
        self.path.join(format!("{segment:0NAME_DIGITS$x}.log"))
    }

    fn new_path(&self, segment: u64) -> PathBuf {
        self.path.join(format!("{segment:0NAME_DIGITS$x}.new"))
    }

    /// Numbers of the segments in ascending order. Removes what a crash left in the making.
    pub(crate) fn segments(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for file in std::fs::read_dir(&self.path)? {
            let name = file?.file_name();
            let Some(name) = name.to_str() else { continue };
            let Some((number, ext)) = name.split_once('.') else {
                continue;
            };
            if number.len() != NAME_DIGITS {
                continue;
            }
            let Ok(number) = u64::from_str_radix(number, 16) else {
                continue;
            };
            match ext {
                "log" => numbers.push(number),
                "new" => std::fs::remove_file(self.path.join(name))?,
                _ => {}
            }
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Creates a segment in the making, with its space reserved and its head synced. It counts after `rename_new`.
    pub(crate) fn create_new(&self, segment: u64, head: &[u8], reserve_bytes: u64) -> io::Result<File> {
        let path = self.new_path(segment);
        let created = (|| {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(&path)?;
            self.allocate(&file, head.len() as u64 + reserve_bytes)?;
            self.write_at(&file, head, 0)?;
            self.sync_all(&file)?;
            Ok(file)
        })();
        if created.is_err() {
            // A leftover is removed at the next start in any case.
            let _ = std::fs::remove_file(&path);
        }
        created
    }

    /// Reserves a file's first `bytes` bytes and room for the marker behind them, so that a later fdatasync has no file size to
    /// update and a write no space to lack.
    pub(crate) fn allocate(&self, file: &File, bytes: u64) -> io::Result<()> {
        let bytes = bytes + FRAME_HEADER as u64;
        if let Some(faults) = &self.faults {
            faults.allocate(bytes)?;
        }
        match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, bytes) {
            // Such a file system only costs speed.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn rename_new(&self, segment: u64) -> io::Result<()> {
        std::fs::rename(self.new_path(segment), self.segment_path(segment))?;
        self.sync_dir()
    }

    pub(crate) fn remove_new(&self, segment: u64) {
        let _ = std::fs::remove_file(self.new_path(segment));
    }

    pub(crate) fn sync_dir(&self) -> io::Result<()> {
        self.sync_all(&self.handle)
    }

    pub(crate) fn remove(&self, segment: u64) -> io::Result<()> {
        self.readers.lock().open.remove(&segment);
        std::fs::remove_file(self.segment_path(segment))
    }

    pub(crate) fn write_at(&self, file: &File, bytes: &[u8], position: u64) -> io::Result<()> {
        if let Some(faults) = &self.faults
            && let Err(fault) = faults.write(bytes.len())
        {
            file.write_all_at(&bytes[..fault.written.min(bytes.len())], position)?;
            return Err(fault.error);
        }
        file.write_all_at(bytes, position)
    }

    pub(crate) fn sync_data(&self, file: &File) -> io::Result<()> {
        if let Some(faults) = &self.faults {
            faults.sync()?;
        }
        file.sync_data()
    }

    pub(crate) fn sync_all(&self, file: &File) -> io::Result<()> {
        if let Some(faults) = &self.faults {
            faults.sync()?;
        }
        file.sync_all()
    }

    /// Free bytes of the file system. `None` when it does not say.
    pub(crate) fn free(&self) -> Option<u64> {
        if let Some(free) = self.faults.as_ref().and_then(|f| f.free()) {
            return Some(free);
        }
        let stat = rustix::fs::fstatvfs(&self.handle).ok()?;
        Some(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// A segment opened for reading; at most `OPEN_FILES_MAX` stay open.
    pub(crate) fn reader(&self, segment: u64) -> io::Result<Arc<File>> {
        let mut readers = self.readers.lock();
        readers.uses += 1;
        let now = readers.uses;
        if let Some((file, used)) = readers.open.get_mut(&segment) {
            *used = now;
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(File::open(self.segment_path(segment))?);
        if readers.open.len() >= limits::OPEN_FILES_MAX
            && let Some(oldest) = readers
                .open
                .iter()
                .min_by_key(|(_, (_, used))| *used)
                .map(|(n, _)| *n)
        {
            readers.open.remove(&oldest);
        }
        readers.open.insert(segment, (Arc::clone(&file), now));
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: reading many segments keeps few files open. Method: more segments than the limit, read twice in turn.
    #[test]
    fn few_files_stay_open() {
        let temp = tempfile::TempDir::new().unwrap();
        let dir = Dir::open(temp.path(), None).unwrap();
        let segments = 2 * limits::OPEN_FILES_MAX as u64;
        for segment in 0..segments {
            std::fs::write(dir.segment_path(segment), segment.to_le_bytes()).unwrap();
        }
        for segment in (0..segments).chain(0..segments) {
            let mut bytes = [0; 8];
            dir.reader(segment).unwrap().read_exact_at(&mut bytes, 0).unwrap();
            assert_eq!(u64::from_le_bytes(bytes), segment);
            assert!(dir.readers.lock().open.len() <= limits::OPEN_FILES_MAX);
        }
        assert!(dir.reader(segments).is_err());
    }
}
