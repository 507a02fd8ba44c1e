//! One connected instance: its credit, the frames on their way to it, and what is known of it.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
};

use fanin_proto::v1::{
    Closing, Confirmed, DeliveryRange, LeasesLost, SubscribeResponse, subscribe_response::Response,
};
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    time::Instant,
};

use super::{
    body::TopicBatch,
    connection::{Peer, Shared},
    frame::{DeliveryFrame, Frame, OutDelivery},
    limits::{
        CREDIT_BYTES_MAX, CREDIT_MESSAGES_MAX, FRAME_BYTES_MAX, FRAME_MESSAGES_MAX, SLICE_BYTES,
        SLICE_MESSAGES,
    },
    pin::Pins,
};
use crate::codes::Refusal;

pub(crate) struct Instance {
    pub(crate) name: Arc<str>,
    pub(crate) peer: Peer,
    pub(crate) connected: Instant,
    pub(crate) shared: Arc<Shared>,
    sender: mpsc::Sender<Frame>,
    outbox: VecDeque<Frame>,
    open: DeliveryFrame,
    pins: Pins,
    pub(crate) valve: Valve,
    /// The number of the delivery handed over last.
    pub(crate) last_delivery: u64,
    /// Verdicts of this instance that finished a message.
    pub(crate) acked: u64,
    /// Takes nothing more; ends when it holds nothing.
    pub(crate) closing: bool,
}

impl Instance {
    pub(crate) fn new(
        name: Arc<str>,
        peer: Peer,
        sender: mpsc::Sender<Frame>,
        shared: Arc<Shared>,
    ) -> Instance {
        Instance {
            name,
            peer,
            connected: Instant::now(),
            shared,
            sender,
            outbox: VecDeque::new(),
            open: DeliveryFrame::default(),
            pins: Pins::default(),
            valve: Valve::default(),
            last_delivery: 0,
            acked: 0,
            closing: false,
        }
    }

    /// Adds a delivery to the open frame. Returns whether that frame was empty before.
    /// `charged` bytes of credit are spent in the delivery machine already.
    pub(crate) fn deliver(
        &mut self,
        (batch, place): (&Arc<TopicBatch>, u32),
        (attempt, number): (u32, u64),
        charged: u64,
    ) -> bool {
        let body = self.pins.body(batch, place);
        let delivery = OutDelivery {
            body,
            attempt,
            number,
        };
        let size = delivery.encoded_len() as u64;
        if self.open.bytes + size > FRAME_BYTES_MAX && !self.open.is_empty() {
            self.finish_frame();
        }
        let first = self.open.is_empty();
        self.last_delivery = delivery.number;
        self.valve.handed(charged, size);
        self.open.bytes += size;
        self.open.deliveries.push(delivery);
        if self.open.len() >= FRAME_MESSAGES_MAX {
            self.finish_frame();
        }
        first
    }

    /// Closes the open frame and puts it behind the others.
    pub(crate) fn finish_frame(&mut self) {
        if !self.open.is_empty() {
            self.outbox
                .push_back(Frame::Deliveries(std::mem::take(&mut self.open)));
        }
    }

    /// Queues a control frame; ranges join those that wait already, so that the queue is bounded by what is held.
    pub(crate) fn control(&mut self, response: Response) {
        self.finish_frame();
        if let Some(Frame::Control(SubscribeResponse {
            response: Some(waiting),
        })) = self.outbox.back_mut()
        {
            match (waiting, &response) {
                (Response::Confirmed(waiting), Response::Confirmed(new)) => {
                    join(&mut waiting.deliveries, &new.deliveries);
                    return;
                }
                (Response::LeasesLost(waiting), Response::LeasesLost(new)) => {
                    join(&mut waiting.deliveries, &new.deliveries);
                    return;
                }
                (
                    Response::Opened(_)
                    | Response::Deliveries(_)
                    | Response::Confirmed(_)
                    | Response::LeasesLost(_)
                    | Response::Closing(_),
                    _,
                ) => {}
            }
        }
        self.outbox.push_back(Frame::Control(SubscribeResponse {
            response: Some(response),
        }));
    }

    pub(crate) fn confirm(&mut self, deliveries: Vec<DeliveryRange>) {
        self.control(Response::Confirmed(Confirmed { deliveries }));
    }

    pub(crate) fn lost(&mut self, deliveries: Vec<DeliveryRange>) {
        if !deliveries.is_empty() {
            self.control(Response::LeasesLost(LeasesLost { deliveries }));
        }
    }

    pub(crate) fn closing(&mut self, refusal: &Refusal) {
        let info = refusal.code.info();
        self.control(Response::Closing(Closing {
            code: info.code.to_owned(),
            reason: refusal.text.clone(),
            retryable: info.retryable,
        }));
    }

    /// Takes back deliveries that are not on their way yet.
    pub(crate) fn drop_deliveries(&mut self) {
        self.open = DeliveryFrame::default();
        self.outbox.retain(|frame| match frame {
            Frame::Control(_) => true,
            Frame::Deliveries(_) => false,
        });
        self.valve.nothing_unsent();
    }

    /// Moves frames into the channel while it has room. Returns false when the client is gone.
    pub(crate) fn pump(&mut self) -> bool {
        if self.shared.ended.is_cancelled() {
            return false;
        }
        while let Some(frame) = self.outbox.pop_front() {
            let sent = match &frame {
                Frame::Deliveries(frame) => (frame.bytes, frame.len() as u64),
                Frame::Control(_) => (0, 0),
            };
            match self.try_send(frame) {
                Ok(()) => self.valve.sent(sent.0, sent.1),
                Err(TrySendError::Full(frame)) => {
                    self.outbox.push_front(frame);
                    return true;
                }
                Err(TrySendError::Closed(_)) => return false,
            }
        }
        true
    }

    fn try_send(&self, frame: Frame) -> Result<(), TrySendError<Frame>> {
        match self.sender.try_send(frame) {
            Err(TrySendError::Full(frame)) => {
                // Tried again behind the mark: room made before the reader saw the mark would wake nobody.
                self.shared.blocked.store(true, Ordering::Release);
                self.sender.try_send(frame)
            }
            other => other,
        }
    }

    /// Whether nothing waits to be sent.
    pub(crate) fn is_flushed(&self) -> bool {
        self.outbox.is_empty() && self.open.is_empty()
    }

    /// Notes why the connection ends. The client sees it when the last frame is read.
    pub(crate) fn refuse(&self, refusal: Refusal) {
        *self.shared.refusal.lock() = Some(refusal);
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.shared.ended.cancel();
    }
}

/// Lets the client's credit into the delivery machine in slices, so that frames which its channel has no room for stay bounded
/// however much it granted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Valve {
    waiting_bytes: u64,
    waiting_messages: u64,
    /// Bytes sent without credit for them: a delivery's number is known, and counts, only after it was charged.
    debt_bytes: u64,
    /// Free credit in the machine; below zero when a message larger than all of it went alone.
    lent_bytes: i64,
    lent_messages: u64,
    unsent_bytes: u64,
    unsent_messages: u64,
}

impl Valve {
    pub(crate) fn granted(&mut self, bytes: u64, messages: u32) {
        let paid = bytes.min(self.debt_bytes);
        self.debt_bytes -= paid;
        self.waiting_bytes = self
            .waiting_bytes
            .saturating_add(bytes - paid)
            .min(CREDIT_BYTES_MAX);
        self.waiting_messages = self
            .waiting_messages
            .saturating_add(u64::from(messages))
            .min(CREDIT_MESSAGES_MAX);
    }

    fn handed(&mut self, charged: u64, size: u64) {
        self.lent_bytes = self.lent_bytes.saturating_sub_unsigned(charged);
        let more = size.saturating_sub(charged);
        let paid = more.min(self.waiting_bytes);
        self.waiting_bytes -= paid;
        self.debt_bytes += more - paid;
        self.lent_messages = self.lent_messages.saturating_sub(1);
        self.unsent_bytes += size;
        self.unsent_messages += 1;
    }

    fn sent(&mut self, bytes: u64, messages: u64) {
        self.unsent_bytes = self.unsent_bytes.saturating_sub(bytes);
        self.unsent_messages = self.unsent_messages.saturating_sub(messages);
    }

    fn nothing_unsent(&mut self) {
        self.unsent_bytes = 0;
        self.unsent_messages = 0;
    }

    /// What to grant to the machine now.
    pub(crate) fn lend(&mut self) -> Option<(u64, u32)> {
        let slice = (SLICE_BYTES as i64)
            .saturating_sub(self.lent_bytes)
            .saturating_sub_unsigned(self.unsent_bytes);
        let bytes = self.waiting_bytes.min(slice.max(0) as u64);
        let room = SLICE_MESSAGES.saturating_sub(self.lent_messages + self.unsent_messages);
        let messages = self.waiting_messages.min(room);
        if bytes == 0 && messages == 0 {
            return None;
        }
        self.waiting_bytes -= bytes;
        self.waiting_messages -= messages;
        self.lent_bytes += bytes as i64;
        self.lent_messages += messages;
        // At most SLICE_MESSAGES.
        Some((bytes, messages as u32))
    }
}

/// Appends ranges, joining those that touch.
pub(crate) fn join(ranges: &mut Vec<DeliveryRange>, more: &[DeliveryRange]) {
    for range in more {
        match ranges.last_mut() {
            Some(last) if last.last + 1 == range.first => last.last = range.last,
            Some(_) | None => ranges.push(*range),
        }
    }
}

/// The same for one delivery.
pub(crate) fn join_one(ranges: &mut Vec<DeliveryRange>, delivery: u64) {
    join(
        ranges,
        &[DeliveryRange {
            first: delivery,
            last: delivery,
        }],
    );
}

#[cfg(test)]
mod tests {
    //! Goal: credit enters the machine in slices and none of it is lost or made up.

    use super::*;

    #[test]
    fn credit_is_lent_in_slices_and_never_lost() {
        let mut valve = Valve::default();
        assert_eq!(valve.lend(), None);
        valve.granted(3 * SLICE_BYTES, 10);
        assert_eq!(valve.lend(), Some((SLICE_BYTES, 10)));
        assert_eq!(valve.lend(), None);
        valve.handed(SLICE_BYTES, SLICE_BYTES);
        assert_eq!(valve.lend(), None, "unsent bytes take the room of free ones");
        valve.sent(SLICE_BYTES, 1);
        assert_eq!(valve.lend(), Some((SLICE_BYTES, 0)));
        // A message above all free credit goes alone; what waits pays for it.
        valve.handed(SLICE_BYTES * 3 / 2, SLICE_BYTES * 3 / 2);
        valve.sent(SLICE_BYTES * 3 / 2, 1);
        assert_eq!(valve.lend(), Some((SLICE_BYTES, 0)));
        assert_eq!(valve.lent_bytes, (SLICE_BYTES / 2) as i64);
        assert_eq!((valve.waiting_bytes, valve.lent_messages), (0, 8));
        // Three bytes more than charged are paid by the next grant.
        valve.handed(SLICE_BYTES / 2, SLICE_BYTES / 2 + 3);
        valve.sent(SLICE_BYTES / 2 + 3, 1);
        valve.granted(10, 0);
        assert_eq!(valve.lend(), Some((7, 0)));
    }

    #[test]
    fn endless_grants_saturate() {
        let mut valve = Valve::default();
        for _ in 0..4 {
            valve.granted(u64::MAX, u32::MAX);
        }
        assert_eq!(valve.lend(), Some((SLICE_BYTES, SLICE_MESSAGES as u32)));
        assert_eq!(valve.lend(), None);
    }

    #[test]
    fn ranges_join_where_they_touch() {
        let mut ranges = Vec::new();
        for delivery in [1, 2, 3, 7, 8, 5] {
            join_one(&mut ranges, delivery);
        }
        let range = |first, last| DeliveryRange { first, last };
        assert_eq!(ranges, [range(1, 3), range(7, 8), range(5, 5)]);
    }
}
