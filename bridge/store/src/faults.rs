//! A seam for tests: faults of the disk under a [`SegmentLog`](crate::SegmentLog), without a special build.

use std::{fmt, io};

/// A write that fails after some of its bytes reached the file.
#[derive(Debug)]
pub struct WriteFault {
    /// Bytes of this write that still reach the file.
    pub written: usize,
    /// What the writer sees.
    pub error: io::Error,
}

/// Asked before every write and sync of the log. The default answers let everything pass.
pub trait Faults: Send + Sync + fmt::Debug {
    /// Before a write of `bytes` bytes.
    ///
    /// # Errors
    /// A [`WriteFault`] makes the write fail after the bytes it names.
    fn write(&self, bytes: usize) -> Result<(), WriteFault> {
        let _ = bytes;
        Ok(())
    }

    /// Before an fsync or fdatasync. May block, to hold a sync.
    ///
    /// # Errors
    /// The error makes the sync fail; nothing is synced then.
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    /// Before the space of a new segment is reserved.
    ///
    /// # Errors
    /// The error makes the reservation fail.
    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let _ = bytes;
        Ok(())
    }

    /// Replaces the free bytes that the file system reports.
    fn free(&self) -> Option<u64> {
        None
    }
}
