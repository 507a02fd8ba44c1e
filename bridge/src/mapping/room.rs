//! Room in the ledger: a look at its size in short intervals, for the core, which decides whether claims wait; and what the hub
//! refused for want of room. The same look tells where the ledger ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::time::Instant;

use fanin_core::ids::LedgerSeq;
use fanin_core::input::Input;
use fanin_core::node::Phase;
use fanin_hub::LedgerInfo;
use fanin_hub::port::LedgerRef;
use tokio::sync::{Notify, mpsc};
use tokio_util::task::AbortOnDropHandle;

use super::driver::{Driver, Event};
use super::ledger_io::error_chain;
use super::limits::{LEDGER_LOOK_INTERVAL, LEDGER_REFUSED, LEDGER_SHORT_LOOKS, PAUSE_FIRST};
use crate::telemetry::metrics as names;

/// What the shell knows of the room in a mapping's ledger.
pub struct LedgerRoom {
    size: LedgerInfo,
    /// When the hub last refused a record for want of room, until it confirms one.
    refused_at: Option<Instant>,
    /// What this node has read, for the next look.
    read: Arc<AtomicU64>,
    /// Looks in a row that found the ledger ending before what had been read.
    short_looks: u32,
    look: Arc<Notify>,
    task: Option<AbortOnDropHandle<()>>,
}

impl LedgerRoom {
    /// The room of a ledger of this size.
    #[must_use]
    pub fn new(size: LedgerInfo) -> LedgerRoom {
        LedgerRoom {
            size,
            refused_at: None,
            read: Arc::default(),
            short_looks: 0,
            look: Arc::default(),
            task: None,
        }
    }

    /// Begins to look in intervals, and whenever the hub has refused a record. What it sees goes to the driver.
    pub fn start(&mut self, ledger: &LedgerRef, events: mpsc::Sender<Event>) {
        let (ledger, look) = (ledger.clone(), Arc::clone(&self.look));
        let position = Arc::clone(&self.read);
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(PAUSE_FIRST).await;
                tokio::select! {
                    biased;
                    () = tokio::time::sleep(LEDGER_LOOK_INTERVAL) => {}
                    () = look.notified() => {}
                }
                // Before the hub is asked, so that what is read meanwhile plays no part.
                let read = LedgerSeq(position.load(Ordering::Acquire));
                match ledger.info().await {
                    Ok(info) => {
                        if events.send(Event::LedgerLooked { info, read }).await.is_err() {
                            return;
                        }
                    }
                    // The last size stands; if the ledger is gone or another one, the tail finds out.
                    Err(error) => {
                        tracing::debug!(code = error.code(), error = %error_chain(&error), "no size of the ledger");
                    }
                }
            }
        });
        self.task = Some(AbortOnDropHandle::new(task));
    }

    /// The ledger was read up to this position.
    pub fn note_read(&self, position: LedgerSeq) {
        self.read.store(position.0, Ordering::Release);
    }

    /// Whether so many looks in a row found the ledger ending before what had been read that it has to be verified. One alone
    /// may have been answered by a leader that is being replaced.
    fn is_doubtful(&mut self, last: LedgerSeq, read: LedgerSeq) -> bool {
        self.short_looks = if last < read { self.short_looks + 1 } else { 0 };
        let is_doubtful = self.short_looks >= LEDGER_SHORT_LOOKS;
        if is_doubtful {
            self.short_looks = 0;
        }
        is_doubtful
    }

    /// The size, for the core.
    #[must_use]
    pub fn input(&self) -> Input {
        Input::LedgerSize {
            bytes: self.size.bytes,
            max: self.max(),
        }
    }

    /// The limit in bytes, if there is one.
    fn max(&self) -> Option<u64> {
        u64::try_from(self.size.max_bytes).ok().filter(|max| *max > 0)
    }

    /// The hub confirmed a record.
    pub fn on_confirmed(&mut self) {
        self.refused_at = None;
    }

    /// Why nothing should be pulled, when the hub has just refused a record for want of room.
    #[must_use]
    pub fn refused(&self) -> Option<String> {
        self.refused_at.filter(|at| at.elapsed() < LEDGER_REFUSED)?;
        let bytes = self.size.bytes;
        let size = match self.max() {
            Some(max) => format!("{bytes} of {max} bytes"),
            None => format!("{bytes} bytes"),
        };
        Some(format!(
            "FAN-4023: the hub has no room for a record in the ledger, which holds {size}; see who is behind, raise its max_bytes, or \
             give the hub's account more storage"
        ))
    }
}

impl Driver {
    /// Tells the core, and whoever reads the metrics, how large the ledger is.
    pub(super) fn feed_ledger_size(&mut self) {
        let mapping = || self.options.name.clone();
        metrics::gauge!(names::LEDGER_BYTES, "mapping" => mapping()).set(self.ledger_room.size.bytes as f64);
        metrics::gauge!(names::LEDGER_LIMIT_BYTES, "mapping" => mapping())
            .set(self.ledger_room.max().unwrap_or(0) as f64);
        self.feed(self.ledger_room.input());
    }

    /// A ledger that seems to end before what was read is not believed to: the tail opens anew, which looks for longer than a
    /// leader that was replaced goes on answering, sends nothing meanwhile, and compares the record it read last. A healthy node
    /// is held up by that for a moment; one whose tail reads on from a replica that nobody else has, halts.
    pub(super) fn on_ledger_looked(&mut self, size: LedgerInfo, read: LedgerSeq) {
        self.ledger_room.size = size;
        let folds = match self.node.phase() {
            Phase::Joining | Phase::Active => true,
            Phase::Halted(_) | Phase::Fenced(_) => false,
        };
        if folds && self.ledger_room.is_doubtful(LedgerSeq(size.last_seq), read) {
            tracing::debug!(
                mapping = self.options.name,
                last = size.last_seq,
                read = read.0,
                "the ledger seems to end before what was read; it is verified"
            );
            if let Some(tail) = &self.tail {
                tail.verify();
            }
        }
        let was_short = self.node.ledger_short().is_some();
        self.feed_ledger_size();
        match (was_short, self.node.ledger_short()) {
            (false, Some((bytes, max))) => tracing::warn!(
                code = "FAN-4023",
                mapping = self.options.name,
                bytes,
                max,
                "the ledger is nearly full: claims wait until applications finish what they have"
            ),
            (true, None) => tracing::info!(
                code = "FAN-4023",
                mapping = self.options.name,
                bytes = size.bytes,
                "the ledger has room again: claims go on"
            ),
            (false, None) | (true, Some(_)) => {}
        }
        self.look_over();
    }

    /// The hub refused a record for want of room: the size is looked at now.
    pub(super) fn on_ledger_refused(&mut self) {
        if self.ledger_room.refused().is_none() {
            tracing::warn!(
                code = "FAN-4023",
                mapping = self.options.name,
                bytes = self.ledger_room.size.bytes,
                max_bytes = self.ledger_room.size.max_bytes,
                "the hub has no room for a record in the ledger; it is tried again"
            );
        }
        self.ledger_room.refused_at = Some(Instant::now());
        self.ledger_room.look.notify_one();
    }
}

#[cfg(test)]
mod tests {
    //! Goal: the ledger is verified when it seems too short several times in a row, and not for a single stale answer. Method:
    //! looks by hand.
    use super::*;

    #[test]
    fn one_short_look_is_no_reason() {
        let size = LedgerInfo {
            first_seq: 1,
            last_seq: 5,
            messages: 5,
            bytes: 0,
            max_bytes: -1,
            created_ns: 1,
        };
        let mut room = LedgerRoom::new(size);
        let looks = [(5, 9), (9, 9), (5, 9), (5, 9), (5, 9), (10, 9), (8, 9), (7, 9)];
        let doubted = looks.map(|(last, read)| room.is_doubtful(LedgerSeq(last), LedgerSeq(read)));
        assert_eq!(doubted, [false, false, false, true, false, false, false, true]);
    }
}
