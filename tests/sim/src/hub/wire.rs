//! The network between one node and the hub.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// What gets through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Everything.
    #[default]
    Up,
    /// Nothing, and both sides know.
    Down,
    /// Nothing from the node to the hub; nobody knows.
    OutLost,
    /// Nothing from the hub to the node; nobody knows.
    InLost,
    /// Nothing for now: the node stands still.
    Held,
}

/// The network between one node and the hub.
#[derive(Debug, Default)]
pub struct Wire {
    mode: Mutex<Mode>,
    /// Grows with every new connection.
    generation: AtomicU64,
    changed: Notify,
}

impl Wire {
    /// What gets through now.
    #[must_use]
    pub fn mode(&self) -> Mode {
        *self.mode.lock()
    }

    /// Which connection this is.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// Changes what gets through. A connection that was down is another one when it comes back.
    pub fn set(&self, mode: Mode) {
        let before = std::mem::replace(&mut *self.mode.lock(), mode);
        if before != mode {
            if mode == Mode::Down || before == Mode::OutLost || before == Mode::InLost {
                self.generation.fetch_add(1, Ordering::Relaxed);
            }
            self.changed.notify_waiters();
        }
    }

    /// The connection breaks and is there again at once.
    pub fn renew(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    /// Waits for the next change.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Waits until the mode is one that is wanted.
    pub async fn until(&self, wanted: impl Fn(Mode) -> bool) {
        loop {
            let changed = self.changed.notified();
            if wanted(self.mode()) {
                return;
            }
            changed.await;
        }
    }
}
