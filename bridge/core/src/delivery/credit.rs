//! What an instance allows to be sent to it.

use super::limits::{CREDIT_BYTES_MAX, CREDIT_MESSAGES_MAX};

/// Free credit. A message above the whole credit is sent alone all the same, and leaves a debt that later grants pay
/// first, so that the instance gets no more afterwards than it asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Credit {
    bytes: u64,
    messages: u32,
    debt_bytes: u64,
}

impl Credit {
    pub(super) fn grant(&mut self, bytes: u64, messages: u32) {
        let paid = bytes.min(self.debt_bytes);
        self.debt_bytes -= paid;
        self.bytes = self.bytes.saturating_add(bytes - paid).min(CREDIT_BYTES_MAX);
        self.messages = self.messages.saturating_add(messages).min(CREDIT_MESSAGES_MAX);
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether anything at all may be sent.
    pub(super) fn is_open(&self) -> bool {
        self.bytes > 0 && self.messages > 0
    }

    pub(super) fn covers(&self, size: u64) -> bool {
        size <= self.bytes
    }

    /// Pays for one message. Only when open.
    pub(super) fn spend(&mut self, size: u64) {
        let paid = size.min(self.bytes);
        self.bytes -= paid;
        self.debt_bytes = self.debt_bytes.saturating_add(size - paid);
        self.messages = self.messages.saturating_sub(1);
    }

    pub(super) fn is_sound(&self) -> bool {
        self.bytes <= CREDIT_BYTES_MAX
            && self.messages <= CREDIT_MESSAGES_MAX
            && (self.debt_bytes == 0 || self.bytes == 0)
    }
}
