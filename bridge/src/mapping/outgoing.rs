//! Everything that is on its way to the hub and changes something there. A mapping that halts, or is fenced, sends nothing from
//! that moment on (I15, P8): what was begun is dropped where it stands, also what was never polled, and nothing new begins.

use fanin_hub::port::HubRef;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;

use super::driver::Event;
use super::ledger_io::Appended;
use super::settle::SettleQueue;

/// Futures that only move while the driver polls them.
pub struct Outgoing {
    /// Records for the ledger.
    pub appends: FuturesUnordered<BoxFuture<'static, Appended>>,
    /// Consumers that are made or verified, and purges of the ledger.
    pub requests: FuturesUnordered<BoxFuture<'static, Option<Event>>>,
    /// Acknowledgements of messages.
    pub settles: SettleQueue,
    /// The ledger is in doubt: nothing moves until it is seen to be what was read.
    pub held: bool,
    silent: bool,
}

impl Outgoing {
    /// Nothing is on its way.
    #[must_use]
    pub fn new(hub: HubRef) -> Outgoing {
        Outgoing {
            appends: FuturesUnordered::new(),
            requests: FuturesUnordered::new(),
            settles: SettleQueue::new(hub),
            held: false,
            silent: false,
        }
    }

    /// Appends a record.
    pub fn append(&mut self, append: BoxFuture<'static, Appended>) {
        if !self.silent {
            self.appends.push(append);
        }
    }

    /// Asks the hub for something else than a record or an acknowledgement.
    pub fn request(&mut self, request: BoxFuture<'static, Option<Event>>) {
        if !self.silent {
            self.requests.push(request);
        }
    }

    /// Drops everything, for good. What the hub has in hand already cannot be called back; what it delivers again is answered
    /// by the fold.
    pub fn fall_silent(&mut self) {
        self.silent = true;
        self.appends.clear();
        self.requests.clear();
        self.settles.fall_silent();
    }
}

#[cfg(test)]
#[path = "outgoing_tests.rs"]
mod tests;
