//! Room in the ledger: a look at its size in short intervals, for the core, which decides whether claims wait; and what the hub
//! refused for want of room.

use std::sync::Arc;
use tokio::time::Instant;

use fanin_core::input::Input;
use fanin_hub::LedgerInfo;
use fanin_hub::port::LedgerRef;
use tokio::sync::{Notify, mpsc};
use tokio_util::task::AbortOnDropHandle;

use super::driver::{Driver, Event};
use super::ledger_io::error_chain;
use super::limits::{LEDGER_LOOK_INTERVAL, LEDGER_REFUSED, PAUSE_FIRST};
use crate::telemetry::metrics as names;

/// What the shell knows of the room in a mapping's ledger.
pub struct LedgerRoom {
    size: LedgerInfo,
    /// When the hub last refused a record for want of room, until it confirms one.
    refused_at: Option<Instant>,
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
            look: Arc::default(),
            task: None,
        }
    }

    /// Begins to look in intervals, and whenever the hub has refused a record. What it sees goes to the driver.
    pub fn start(&mut self, ledger: &LedgerRef, events: mpsc::Sender<Event>) {
        let (ledger, look) = (ledger.clone(), Arc::clone(&self.look));
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(PAUSE_FIRST).await;
                tokio::select! {
                    biased;
                    () = tokio::time::sleep(LEDGER_LOOK_INTERVAL) => {}
                    () = look.notified() => {}
                }
                match ledger.info().await {
                    Ok(info) => {
                        if events.send(Event::LedgerLooked(info)).await.is_err() {
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

    pub(super) fn on_ledger_looked(&mut self, size: LedgerInfo) {
        self.ledger_room.size = size;
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
