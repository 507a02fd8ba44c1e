//! What the application's side and the connection task of a subscription share: received deliveries, verdicts, and
//! the phase of life. One lock, never held across an await or while a waker runs.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use fanin_proto::v1::subscribe_request::Request;
use fanin_proto::v1::{Close, Delivery, DeliveryRange, Opened, SubscribeRequest};
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::confirmation::Waiter;
use crate::error::{AckError, SubscribeError};
use crate::limits::{CREDIT_LOW_DIVISOR, UNCONFIRMED_MAX};
use crate::table::{Freed, Table};
use crate::verdicts::{Due, Pending, Verdict, request};

/// One connection of a subscription, as its messages remember it.
#[derive(Debug)]
pub(crate) struct Session {
    /// Counts the connections of the subscription; a verdict is good only on the connection it came by.
    number: u64,
    pub(crate) node: String,
    pub(crate) instance: String,
    /// Zero: the bridge names no lease.
    pub(crate) lease: Duration,
}

/// A delivery that was handed out, and the connection it came by.
pub(crate) type Received = (Delivery, Arc<Session>);

/// Why a connection cannot go on: the bridge broke the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bridge sent delivery {found} where {expected} was due")]
pub(crate) struct NumberingFault {
    expected: u64,
    found: u64,
}

/// Everything that both sides of a subscription touch.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Wakes the connection task.
    writer: Notify,
    credit: Freed,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    session: Arc<Session>,
    connected: bool,
    /// The bridge announced the end of this connection: nothing more is handed out from it.
    bridge_closing: bool,
    table: Table,
    pending: Pending,
    /// Received frames, oldest first, as far as they are not handed out.
    received: VecDeque<std::vec::IntoIter<Delivery>>,
    /// Who waits for a delivery.
    readers: Vec<Waker>,
}

#[derive(Debug)]
enum Phase {
    Running,
    Closing { deadline: Instant, told: bool },
    Ended(Option<SubscribeError>),
}

impl Shared {
    /// Credit is what was granted when the connection was opened.
    pub(crate) fn new(credit: Freed) -> Self {
        let session = Session {
            number: 0,
            node: String::new(),
            instance: String::new(),
            lease: Duration::ZERO,
        };
        Self {
            state: Mutex::new(State {
                phase: Phase::Running,
                session: Arc::new(session),
                connected: false,
                bridge_closing: false,
                table: Table::new(),
                pending: Pending::new(),
                received: VecDeque::new(),
                readers: Vec::new(),
            }),
            writer: Notify::new(),
            credit,
        }
    }

    // The application's side.

    /// The next delivery, its lease begun; `None` once the subscription is closing or closed.
    pub(crate) fn poll_next(&self, cx: &Context<'_>) -> Poll<Option<Result<Received, SubscribeError>>> {
        let mut state = self.state.lock();
        match &state.phase {
            Phase::Running => {}
            Phase::Closing { .. } => return Poll::Ready(None),
            Phase::Ended(error) => return Poll::Ready(error.clone().map(Err)),
        }
        while let Some(frame) = state.received.front_mut() {
            let Some(delivery) = frame.next() else {
                state.received.pop_front();
                continue;
            };
            // A lease that was lost before the hand-over belongs to somebody else by now.
            if !state.table.hand_out(delivery.delivery) {
                continue;
            }
            state.pending.begin(delivery.delivery);
            let wake = state.pending.ask(Due::Soon);
            let session = Arc::clone(&state.session);
            drop(state);
            if wake {
                self.writer.notify_one();
            }
            return Poll::Ready(Some(Ok((delivery, session))));
        }
        if !state.readers.iter().any(|reader| reader.will_wake(cx.waker())) {
            state.readers.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Gives the verdict on a delivery. Whoever waits hears at once when it is not held any more. True when taken.
    pub(crate) fn answer(
        &self,
        session: &Session,
        delivery: u64,
        verdict: Verdict,
        waiter: Option<Waiter>,
    ) -> bool {
        let mut state = self.state.lock();
        let awaited = waiter.is_some();
        let taken = match state.holds_session(session) {
            true => state.table.answer(delivery, waiter),
            false => Err(waiter),
        };
        match taken {
            Ok(freed) => {
                state.pending.verdict(delivery, verdict);
                state.pending.free(freed);
                let due = if awaited || state.credit_is_low(self.credit) {
                    Due::Now
                } else {
                    Due::Soon
                };
                let wake = state.pending.ask(due);
                drop(state);
                if wake {
                    self.writer.notify_one();
                }
                true
            }
            Err(waiter) => {
                drop(state);
                if let Some(waiter) = waiter {
                    waiter.resolve(Err(AckError::LeaseLost));
                }
                false
            }
        }
    }

    /// Starts the lease of a held delivery anew. False when it is not held any more.
    pub(crate) fn extend(&self, session: &Session, delivery: u64) -> bool {
        let mut state = self.state.lock();
        let held = state.holds_session(session) && state.table.is_held(delivery);
        if held {
            state.pending.extend([DeliveryRange {
                first: delivery,
                last: delivery,
            }]);
            let wake = state.pending.ask(Due::Soon);
            drop(state);
            if wake {
                self.writer.notify_one();
            }
        }
        held
    }

    pub(crate) fn is_held(&self, session: &Session, delivery: u64) -> bool {
        let state = self.state.lock();
        state.holds_session(session) && state.table.is_held(delivery)
    }

    pub(crate) fn is_running(&self) -> bool {
        matches!(self.state.lock().phase, Phase::Running)
    }

    pub(crate) fn session(&self) -> Arc<Session> {
        Arc::clone(&self.state.lock().session)
    }

    /// Starts a graceful close that lasts at most until `deadline`. A second call can only shorten it.
    pub(crate) fn begin_close(&self, deadline: Instant) {
        let mut state = self.state.lock();
        match &mut state.phase {
            Phase::Running => {
                state.phase = Phase::Closing {
                    deadline,
                    told: false,
                }
            }
            Phase::Closing {
                deadline: earlier, ..
            } => *earlier = deadline.min(*earlier),
            Phase::Ended(_) => return,
        }
        // `Close` gives back what was not begun; the bridge needs no list of it.
        state.received.clear();
        state.table.give_back_buffered();
        let readers = std::mem::take(&mut state.readers);
        let _ = state.pending.ask(Due::Now);
        drop(state);
        self.writer.notify_one();
        readers.into_iter().for_each(Waker::wake);
    }

    // The connection task's side.

    pub(crate) async fn changed(&self) {
        self.writer.notified().await;
    }

    pub(crate) fn due(&self) -> Due {
        self.state.lock().pending.due()
    }

    pub(crate) fn close_deadline(&self) -> Option<Instant> {
        match self.state.lock().phase {
            Phase::Closing { deadline, .. } => Some(deadline),
            Phase::Running | Phase::Ended(_) => None,
        }
    }

    pub(crate) fn held(&self) -> usize {
        self.state.lock().table.held()
    }

    /// Whether no verdict is owed and no confirmation waited for.
    pub(crate) fn is_settled(&self) -> bool {
        let state = self.state.lock();
        state.table.held() == 0 && state.table.awaiting() == 0
    }

    /// A connection is open: deliveries are numbered from one again.
    pub(crate) fn begin_session(&self, opened: &Opened) {
        let mut state = self.state.lock();
        state.session = Arc::new(Session {
            number: state.session.number + 1,
            node: opened.node.clone(),
            instance: opened.instance.clone(),
            lease: Duration::from_millis(opened.lease_ms),
        });
        state.connected = true;
        state.bridge_closing = false;
        state.pending = Pending::new();
        if let Phase::Closing { told, .. } = &mut state.phase {
            *told = false;
            let _ = state.pending.ask(Due::Now);
        }
    }

    /// The connection is gone: the bridge gives its deliveries to others.
    pub(crate) fn lose_session(&self) {
        let mut state = self.state.lock();
        state.connected = false;
        state.received.clear();
        state.pending = Pending::new();
        let waiters = state.table.clear();
        drop(state);
        for waiter in waiters {
            waiter.resolve(Err(AckError::Unconfirmed));
        }
    }

    /// Takes a received frame.
    pub(crate) fn deliver(&self, frame: Vec<Delivery>) -> Result<(), NumberingFault> {
        let costs: Vec<u32> = frame.iter().map(cost).collect();
        let mut state = self.state.lock();
        for (delivery, cost) in frame.iter().zip(costs) {
            let expected = state.table.next();
            if delivery.delivery != expected {
                return Err(NumberingFault {
                    expected,
                    found: delivery.delivery,
                });
            }
            state.table.push(cost);
        }
        if state.bridge_closing || !matches!(state.phase, Phase::Running) {
            state.give_back_received();
            return Ok(());
        }
        if !frame.is_empty() {
            state.received.push_back(frame.into_iter());
        }
        let readers = std::mem::take(&mut state.readers);
        drop(state);
        readers.into_iter().for_each(Waker::wake);
        Ok(())
    }

    pub(crate) fn confirm(&self, ranges: &[DeliveryRange]) {
        let mut waiters = Vec::new();
        let mut state = self.state.lock();
        for range in ranges {
            state.table.confirm(range, &mut waiters);
        }
        // Credit may have been held back because too many confirmations were outstanding.
        if state.pending.credit() != Freed::default() {
            let _ = state.pending.ask(Due::Soon);
        }
        drop(state);
        for waiter in waiters {
            waiter.resolve(Ok(()));
        }
    }

    pub(crate) fn lose_leases(&self, ranges: &[DeliveryRange]) {
        let mut waiters = Vec::new();
        let mut state = self.state.lock();
        for range in ranges {
            let freed = state.table.lose(range, &mut waiters);
            state.pending.free(freed);
        }
        let _ = state.pending.ask(Due::Soon);
        drop(state);
        for waiter in waiters {
            waiter.resolve(Err(AckError::LeaseLost));
        }
    }

    /// The bridge will end this connection: what was not handed out goes back uncounted.
    pub(crate) fn close_by_bridge(&self) {
        let mut state = self.state.lock();
        state.bridge_closing = true;
        state.received.clear();
        state.give_back_received();
    }

    /// Starts the leases of everything that handlers hold anew.
    pub(crate) fn extend_held(&self) {
        let mut state = self.state.lock();
        let held = state.table.held_ranges();
        if !held.is_empty() {
            state.pending.extend(held);
            let _ = state.pending.ask(Due::Now);
        }
    }

    /// Moves everything that waits into request frames.
    pub(crate) fn take_frames(&self, frames: &mut VecDeque<SubscribeRequest>) {
        let mut state = self.state.lock();
        let running = matches!(state.phase, Phase::Running) && !state.bridge_closing;
        let grant = running && state.table.awaiting() < UNCONFIRMED_MAX;
        state.pending.take_frames(grant, frames);
        if let Phase::Closing { told, .. } = &mut state.phase
            && !*told
        {
            *told = true;
            frames.push_back(request(Request::Close(Close {})));
        }
    }

    /// The subscription is over. The first call decides why.
    pub(crate) fn end(&self, error: Option<SubscribeError>) {
        self.lose_session();
        let mut state = self.state.lock();
        if !matches!(state.phase, Phase::Ended(_)) {
            state.phase = Phase::Ended(error);
        }
        let readers = std::mem::take(&mut state.readers);
        drop(state);
        readers.into_iter().for_each(Waker::wake);
    }
}

impl State {
    fn holds_session(&self, session: &Session) -> bool {
        self.connected && self.session.number == session.number
    }

    fn credit_is_low(&self, credit: Freed) -> bool {
        let freed = self.pending.credit();
        freed.messages >= credit.messages / CREDIT_LOW_DIVISOR
            || freed.bytes >= credit.bytes / u64::from(CREDIT_LOW_DIVISOR)
    }

    fn give_back_received(&mut self) {
        if let Some(range) = self.table.give_back_buffered() {
            self.pending.release(range);
            let _ = self.pending.ask(Due::Soon);
        }
    }
}

/// What a delivery takes of the byte credit: its size on the wire.
fn cost(delivery: &Delivery) -> u32 {
    u32::try_from(delivery.encoded_len()).unwrap_or(u32::MAX)
}
