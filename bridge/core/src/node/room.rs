//! Room in the ledger: when claims wait, and when a checkpoint is worth its place before many records call for one (design
//! section 4).
//!
//! Claims stop at three quarters of the size limit; the rest is for the records that empty the ledger. They go on at five eighths, so that
//! a ledger at the mark does not stop and start with every record. From half on, a checkpoint is written as soon as the purge
//! behind it would free enough: few large records can fill a ledger long before their number is due.

#[cfg(test)]
mod tests;

use super::Node;
use crate::effect::Effect;
use crate::ids::Tick;
use crate::limits::{
    CHECKPOINT_OVERHEAD_BYTES, CHECKPOINT_PART_BYTES, LEDGER_BRISK_EIGHTHS, LEDGER_GAIN_EIGHTHS,
    LEDGER_RESUME_EIGHTHS, LEDGER_STOP_EIGHTHS,
};

/// What is known of the ledger's size. Nothing at first: the shell looks before the node can claim.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Room {
    bytes: u64,
    /// The limit; `None` when there is none.
    max: Option<u64>,
    /// Claims wait.
    short: bool,
    /// Whether a checkpoint was worth its place, and when that was judged: it takes an encoding of the whole state.
    pays: Option<(Tick, bool)>,
}

impl Room {
    /// Whether so many bytes are at or above so many eighths of the limit.
    fn reaches(&self, eighths: u64) -> bool {
        let reaches = |max: u64| u128::from(self.bytes) * 8 >= u128::from(max) * u128::from(eighths);
        self.max.is_some_and(reaches)
    }

    fn note(&mut self, bytes: u64, max: Option<u64>) {
        (self.bytes, self.max) = (bytes, max);
        self.short = self.reaches(if self.short {
            LEDGER_RESUME_EIGHTHS
        } else {
            LEDGER_STOP_EIGHTHS
        });
    }

    /// Whether a checkpoint of a state of so many bytes fits, and the purge behind it frees enough to be worth it.
    fn gains(&self, state: usize) -> bool {
        let parts = state.div_ceil(CHECKPOINT_PART_BYTES).max(1);
        let size = (state + parts * CHECKPOINT_OVERHEAD_BYTES) as u64;
        let fits = self.max.is_some_and(|max| self.bytes.saturating_add(size) <= max);
        let freed = self.bytes.saturating_sub(size);
        fits && u128::from(freed) * 8 >= u128::from(self.bytes) * u128::from(LEDGER_GAIN_EIGHTHS)
    }
}

impl Node {
    pub(super) fn on_ledger_size(&mut self, now: Tick, bytes: u64, max: Option<u64>, out: &mut Vec<Effect>) {
        let was_short = self.room.short;
        self.room.note(bytes, max);
        if was_short && !self.room.short {
            self.claim_waiting(now, out);
        }
    }

    /// Whether claims wait for room in the ledger: its size and its limit, bytes, when they do.
    #[must_use]
    pub fn ledger_short(&self) -> Option<(u64, u64)> {
        let max = self.room.max.filter(|_| self.room.short)?;
        Some((self.room.bytes, max))
    }

    /// Whether the ledger is so large that a checkpoint should not wait for many records.
    pub(super) fn checkpoint_pays(&mut self, now: Tick) -> bool {
        // One at a time: until what is behind the last one is purged, and the size was looked at since, another one would only
        // add to the ledger.
        if !self.room.reaches(LEDGER_BRISK_EIGHTHS) || self.upkeep.awaits_purge(now, self.policy.resend_ms) {
            self.room.pays = None;
            return false;
        }
        match self.room.pays {
            Some((judged, pays)) if now.since(judged) < self.policy.resend_ms => pays,
            Some(_) | None => {
                let pays = self.room.gains(self.fold.encode().len());
                self.room.pays = Some((now, pays));
                pays
            }
        }
    }
}
