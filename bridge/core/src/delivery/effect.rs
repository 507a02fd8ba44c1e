//! What the machine tells its shell, and what it refuses.

use core::fmt;

use crate::ids::{DeliveryNo, InstanceNo, Offset, Tick};

/// How an offset was finished for the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// An instance acknowledged it.
    Acked,
    /// Its dead letter is durable.
    DeadLettered,
    /// It was not for this application.
    Skipped,
}

/// Why a message becomes a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeadLetterReason {
    /// Its counted attempts reached `max_attempts`.
    MaxAttempts,
    /// An instance rejected it.
    Rejected,
    /// Its body was lost before anybody could have it.
    Lost,
}

/// What ended a counted attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AttemptCause {
    /// The instance asked for a retry.
    Retry,
    /// The lease ran out.
    LeaseExpired,
    /// The connection was lost after the handler had begun.
    ConnectionLost,
}

/// A fact for the shell to act on, in the order in which it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The durable cursor changed: persist it, then confirm to the instance.
    Finished {
        /// The finished offset; for a skipped range the last of it.
        offset: Offset,
        /// How it was finished.
        outcome: Outcome,
        /// The delivery whose verdict finished it (an ack, a reject, the last retry). The instance may be gone by now.
        /// None when no verdict did.
        instance: Option<(InstanceNo, DeliveryNo)>,
    },
    /// The lease ran out: tell the instance, whose verdict comes too late from now on.
    LeaseLost {
        /// The instance that held it.
        instance: InstanceNo,
        /// The delivery it lost.
        delivery: DeliveryNo,
        /// The offset of that delivery.
        offset: Offset,
    },
    /// Store a copy durably, then call [`dead_lettered`](super::AppDelivery::dead_lettered). The offset is neither
    /// delivered nor finished until then. The cursor may have changed (the last attempt was counted).
    DeadLetter {
        /// The offset to copy.
        offset: Offset,
        /// Why.
        reason: DeadLetterReason,
        /// Attempts made, the last one included.
        attempts: u32,
        /// The instance that had it last; None when that was before a restart.
        instance: Option<InstanceNo>,
    },
    /// An attempt failed and was counted; the durable cursor changed. Not told for the attempt that leads to
    /// [`Effect::DeadLetter`].
    AttemptCounted {
        /// The offset that steps aside.
        offset: Offset,
        /// Counted attempts so far.
        attempts: u32,
        /// What ended this one.
        cause: AttemptCause,
        /// When it may be handed over again.
        retry_at: Tick,
    },
}

/// The verdict names a delivery that the instance does not hold. The caller answers that the lease is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerdictError {
    /// This instance was never given such a delivery, or is not connected.
    UnknownDelivery,
    /// The delivery had its verdict, was released, or its lease was lost.
    NotHeld,
}

impl fmt::Display for VerdictError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            VerdictError::UnknownDelivery => "this instance was never given such a delivery",
            VerdictError::NotHeld => {
                "the delivery is no longer held: it had its verdict or its lease was lost"
            }
        })
    }
}

impl core::error::Error for VerdictError {}

/// The instance cannot be connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectError {
    /// [`INSTANCES_MAX`](super::limits::INSTANCES_MAX) instances are connected.
    TooManyInstances,
    /// An instance of this number is connected.
    AlreadyConnected,
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectError::TooManyInstances => write!(
                f,
                "the application has {} instances on this node already; close one or raise the credit of those",
                super::limits::INSTANCES_MAX
            ),
            ConnectError::AlreadyConnected => f.write_str("an instance of this number is connected already"),
        }
    }
}

impl core::error::Error for ConnectError {}
