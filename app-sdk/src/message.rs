//! One message in the hands of an application, and its verdicts.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use fanin_proto::v1::{Delivery, Header};

use crate::confirmation::{Confirmation, Waiter};
use crate::shared::{Session, Shared};
use crate::verdicts::Verdict;

/// Reason that a retry carries when a message was dropped without a verdict.
const DROPPED: &str = "dropped without a verdict";

/// A message, leased to this instance until a verdict is given.
///
/// Verdicts: [`ack`](Self::ack) or [`ack_soon`](Self::ack_soon) when done, [`retry`](Self::retry) after a fault that
/// may pass, [`reject`](Self::reject) when it never will, [`release`](Self::release) to give it back unhandled.
///
/// Dropping a message without a verdict is a fault of the handler: it is retried with the reason "dropped without a
/// verdict", which counts as an attempt. Once the subscription is closing, it is released uncounted instead.
///
/// While it is held its lease is extended automatically, so a handler may take any time, unless
/// [`auto_extend`](crate::SubscriptionBuilder::auto_extend) is off.
#[derive(Debug)]
#[must_use = "a message that is dropped without a verdict is retried"]
pub struct Message {
    lease: Lease,
    delivery: Delivery,
}

impl Message {
    pub(crate) fn new(lease: Lease, delivery: Delivery) -> Self {
        Self { lease, delivery }
    }

    /// `STREAM:seq`: the same at every attempt and for ever; the key of an idempotent handler.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.delivery.id
    }

    /// The subject the message was published to on the hub.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.delivery.subject
    }

    /// The headers, in the publisher's order.
    #[must_use]
    pub fn headers(&self) -> Headers<'_> {
        Headers(&self.delivery.headers)
    }

    /// The body. A clone of it shares the bytes.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        &self.delivery.payload
    }

    /// Takes the body out; what is left in the message is empty.
    #[must_use]
    pub fn take_payload(&mut self) -> Bytes {
        std::mem::take(&mut self.delivery.payload)
    }

    /// 1 at the first attempt.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.delivery.attempt
    }

    /// When the hub stored the message.
    #[must_use]
    pub fn published(&self) -> SystemTime {
        let since = Duration::from_nanos(self.delivery.published_ns.unsigned_abs());
        let published = match self.delivery.published_ns {
            0.. => SystemTime::UNIX_EPOCH.checked_add(since),
            ..0 => SystemTime::UNIX_EPOCH.checked_sub(since),
        };
        published.unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// Name of the node that owns the message.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.lease.session.node
    }

    /// The hub's stream it came from.
    #[must_use]
    pub fn stream(&self) -> &str {
        &self.delivery.stream
    }

    /// Its sequence in that stream.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.delivery.sequence
    }

    /// Whether the message was re-driven from a lost node that may have handed it to a handler.
    #[must_use]
    pub fn possible_duplicate(&self) -> bool {
        self.delivery.possible_duplicate
    }

    /// Whether this instance still holds the message, as far as it knows. A long handler may stop early when not.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.lease
            .shared
            .is_held(&self.lease.session, self.lease.delivery)
    }

    /// Done. The verdict is given at once; the future resolves when it is durable on the node, and then it survives
    /// any crash.
    ///
    /// # Errors
    /// [`AckError::LeaseLost`](crate::AckError::LeaseLost) or
    /// [`AckError::Unconfirmed`](crate::AckError::Unconfirmed); in both cases the message may come again.
    pub fn ack(mut self) -> Confirmation {
        let (confirmation, waiter) = Confirmation::new();
        self.lease.answer(Verdict::Ack, Some(waiter));
        confirmation
    }

    /// Done, without waiting to hear that it is durable: the cheapest verdict. When it gets lost, the message comes
    /// again.
    pub fn ack_soon(mut self) {
        self.lease.answer(Verdict::Ack, None);
    }

    /// Failed for now: deliver it again, `after` this long at the earliest, or after the application's back-off when
    /// `None`. Counts as an attempt; the last attempt leads to the dead letters. The reason is kept with the message,
    /// up to [`REASON_BYTES_MAX`](crate::limits::REASON_BYTES_MAX) bytes.
    pub fn retry(mut self, after: Option<Duration>, reason: impl Into<String>) {
        self.lease.answer(
            Verdict::Retry {
                after,
                reason: reason.into(),
            },
            None,
        );
    }

    /// Failed for good: move it to the dead letters now, with the reason. The future resolves when that is durable.
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    pub fn reject(mut self, reason: impl Into<String>) -> Confirmation {
        let (confirmation, waiter) = Confirmation::new();
        self.lease.answer(
            Verdict::Reject {
                reason: reason.into(),
            },
            Some(waiter),
        );
        confirmation
    }

    /// Not handled: another instance may have it at once. Not counted as an attempt.
    pub fn release(mut self) {
        self.lease.answer(Verdict::Release, None);
    }

    /// Starts the lease anew; needed only when automatic extension is off. False when the message is no longer held.
    pub fn extend(&self) -> bool {
        self.lease.shared.extend(&self.lease.session, self.lease.delivery)
    }

    pub(crate) fn ack_with(mut self, waiter: Waiter) {
        self.lease.answer(Verdict::Ack, Some(waiter));
    }

    pub(crate) fn take_id(&mut self) -> String {
        std::mem::take(&mut self.delivery.id)
    }

    /// A second claim to the same verdict, for `consume`, which decides after the handler: the message itself no
    /// longer answers when it is dropped. The first verdict counts.
    pub(crate) fn split_lease(&mut self) -> Lease {
        self.lease.on_drop = OnDrop::Nothing;
        Lease {
            shared: Arc::clone(&self.lease.shared),
            session: Arc::clone(&self.lease.session),
            delivery: self.lease.delivery,
            on_drop: OnDrop::Release,
        }
    }
}

/// The headers of a message. A name may occur more than once; names are compared without regard to case.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a>(&'a [Header]);

impl<'a> Headers<'a> {
    /// The first value of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.0
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value.as_str())
    }

    /// All values of a name, in order.
    pub fn get_all<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        let named = self
            .0
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name));
        named.map(|header| header.value.as_str())
    }

    /// Names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        self.0
            .iter()
            .map(|header| (header.name.as_str(), header.value.as_str()))
    }

    /// Number of name and value pairs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What happens to a lease that is dropped unanswered.
#[derive(Clone, Copy, Debug)]
enum OnDrop {
    Retry,
    Release,
    Nothing,
}

/// The right, and the duty, to give the verdict on one delivery.
#[derive(Debug)]
pub(crate) struct Lease {
    shared: Arc<Shared>,
    session: Arc<Session>,
    delivery: u64,
    on_drop: OnDrop,
}

impl Lease {
    pub(crate) fn new(shared: Arc<Shared>, session: Arc<Session>, delivery: u64) -> Self {
        Self {
            shared,
            session,
            delivery,
            on_drop: OnDrop::Retry,
        }
    }

    /// Gives the verdict, if none was given.
    pub(crate) fn answer(&mut self, verdict: Verdict, waiter: Option<Waiter>) {
        self.on_drop = OnDrop::Nothing;
        self.shared.answer(&self.session, self.delivery, verdict, waiter);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let verdict = match self.on_drop {
            OnDrop::Nothing => return,
            OnDrop::Retry if self.shared.is_running() => Verdict::Retry {
                after: None,
                reason: DROPPED.to_owned(),
            },
            OnDrop::Retry | OnDrop::Release => Verdict::Release,
        };
        self.shared.answer(&self.session, self.delivery, verdict, None);
    }
}
