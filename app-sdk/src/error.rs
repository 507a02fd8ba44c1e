//! What can go wrong, one type per operation. Each answers `is_retryable()` (the same call may succeed later,
//! unchanged) and `may_have_effect()` (the call may have done its work although it failed).

use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tonic::{Code, Status};
use tonic_types::{ErrorInfo, StatusExt as _};

/// Domain of the `google.rpc.ErrorInfo` that a bridge attaches to its errors.
const ERROR_DOMAIN: &str = "fanin";

/// The bridge's socket could not be reached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The address is not one the SDK understands.
    #[error(
        "bad address {given:?}: {reason}; give unix:///path/to/fanin.sock or a plain path (FANIN_SOCKET)"
    )]
    Address {
        /// What was given.
        given: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Nothing exists at the path.
    #[error(
        "no socket at {}: the bridge is not running or listens elsewhere; start it with `fanin run`, or set \
         FANIN_SOCKET to the address of its `listen` setting", path.display()
    )]
    Missing {
        /// The socket's path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The socket exists but this user may not open it.
    #[error(
        "not permitted to open {}: the user of this process needs write permission on the socket and search \
         permission on its directory; join the group the bridge gives the socket to", path.display()
    )]
    Denied {
        /// The socket's path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The socket file is there and nobody listens on it.
    #[error(
        "nobody listens on {}: the bridge has stopped and left the socket behind; start it with `fanin run`, or \
         set FANIN_SOCKET to the address of a running one", path.display()
    )]
    Refused {
        /// The socket's path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Any other failure of the socket, a time-out included.
    #[error("cannot connect to {} (FANIN_SOCKET or the address given names the socket)", path.display())]
    Io {
        /// The socket's path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Whoever listens there does not speak HTTP/2.
    #[error("{} is served by something that is not a fanin bridge; check FANIN_SOCKET", path.display())]
    Handshake {
        /// The socket's path.
        path: PathBuf,
        /// The transport's error.
        source: tonic::transport::Error,
    },
}

impl ConnectError {
    /// Whether the same call may succeed later, for example once the bridge runs.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Address { .. } | Self::Denied { .. } => false,
            Self::Missing { .. } | Self::Refused { .. } | Self::Io { .. } | Self::Handshake { .. } => true,
        }
    }

    /// Never: connecting changes nothing.
    #[must_use]
    pub fn may_have_effect(&self) -> bool {
        false
    }
}

/// A subscription could not be opened, or ended for good.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message} ({code})")]
pub struct SubscribeError {
    code: String,
    message: String,
    retryable: bool,
    source: Option<Arc<dyn StdError + Send + Sync + 'static>>,
}

impl SubscribeError {
    /// `FAN-nnnn` as the bridge gave it (`fanin errors FAN-nnnn` explains it), else the name of the gRPC code, or
    /// `Connect` when the bridge was not reached.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.code
    }

    /// The text for people, without the code.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether opening the same subscription may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.retryable
    }

    /// Never: no message changes hands by opening a subscription.
    #[must_use]
    pub fn may_have_effect(&self) -> bool {
        false
    }

    pub(crate) fn new(code: impl Into<String>, message: impl Into<String>, retryable: bool) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            retryable,
            source: None,
        }
    }

    pub(crate) fn from_status(status: Status) -> Self {
        let info = info_of(&status);
        let retryable = is_retryable_status(&status, info.as_ref());
        let code = match info {
            Some(info) => info.reason,
            None => format!("{:?}", status.code()),
        };
        let message = match status.message() {
            "" => status.code().description().to_owned(),
            text => text.to_owned(),
        };
        Self {
            code,
            message,
            retryable,
            source: Some(Arc::new(status)),
        }
    }
}

impl From<ConnectError> for SubscribeError {
    fn from(error: ConnectError) -> Self {
        Self {
            code: "Connect".to_owned(),
            message: error.to_string(),
            retryable: error.is_retryable(),
            source: Some(Arc::new(error)),
        }
    }
}

/// What the bridge says about its error, when it is the bridge's.
fn info_of(status: &Status) -> Option<ErrorInfo> {
    let info = status.get_error_details().error_info().cloned();
    info.filter(|info| info.domain == ERROR_DOMAIN)
}

/// Whether the same call may succeed later: by the bridge's word, else by the gRPC code.
fn is_retryable_status(status: &Status, info: Option<&ErrorInfo>) -> bool {
    let word = info.and_then(|info| info.metadata.get("retryable"));
    match word.map(String::as_str) {
        Some("true") => true,
        Some("false") => false,
        _ => is_retryable_code(status.code()),
    }
}

/// What a bare gRPC code says when the bridge attached no details. `OutOfRange` is what the transport reports for a
/// frame above the size limit: the same frame would come again.
fn is_retryable_code(code: Code) -> bool {
    match code {
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::Internal
        | Code::Unavailable => true,
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::DataLoss
        | Code::Unauthenticated => false,
    }
}

/// An ack or reject was not confirmed as durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AckError {
    /// This instance no longer holds the message: its lease ran out, its connection was lost before the verdict, or
    /// it was answered already. The verdict has no effect; another instance may have the message.
    #[error("the message is no longer held by this instance; another instance may have it")]
    LeaseLost,
    /// The connection was lost before the bridge confirmed. The verdict may be durable, or the message may come
    /// again: an idempotent handler, keyed by the message id, makes both the same.
    #[error("the connection was lost before the verdict was confirmed; the message may come again")]
    Unconfirmed,
}

impl AckError {
    /// Never: a verdict belongs to one delivery. When the message comes again it brings its own.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        false
    }

    /// Whether the verdict may be durable all the same.
    #[must_use]
    pub fn may_have_effect(&self) -> bool {
        match self {
            Self::LeaseLost => false,
            Self::Unconfirmed => true,
        }
    }
}

/// Some messages of a batch were not confirmed; all others were.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{} of {total} messages of the batch were not confirmed, the first being {}: {}",
    failed.len(), failed[0].0, failed[0].1)]
pub struct BatchAckError {
    total: usize,
    /// Never empty.
    failed: Vec<(String, AckError)>,
}

impl BatchAckError {
    pub(crate) fn new(total: usize, failed: Vec<(String, AckError)>) -> Option<Self> {
        (!failed.is_empty()).then_some(Self { total, failed })
    }

    /// Id and error of each message that was not confirmed.
    #[must_use]
    pub fn failed(&self) -> &[(String, AckError)] {
        &self.failed
    }

    /// Never, see [`AckError::is_retryable`].
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        false
    }

    /// Whether any verdict is or may be durable: messages that are not listed are confirmed.
    #[must_use]
    pub fn may_have_effect(&self) -> bool {
        self.failed.len() < self.total || self.failed.iter().any(|(_, error)| error.may_have_effect())
    }
}

/// A subscription did not close in good order. Messages without confirmed verdict come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CloseError {
    /// Verdicts, or their confirmation, were missing when the time was up.
    #[error("the subscription was closed by its time limit with {held} messages unanswered; they come again")]
    TimedOut {
        /// Messages handed out and not answered.
        held: usize,
    },
    /// The connection was lost while closing.
    #[error(
        "the connection was lost while closing, with {held} messages unanswered; unconfirmed ones come again"
    )]
    ConnectionLost {
        /// Messages handed out and not answered.
        held: usize,
    },
}

impl CloseError {
    /// Never: the subscription is gone.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        false
    }

    /// Always: the subscription is closed, and verdicts given before may be durable.
    #[must_use]
    pub fn may_have_effect(&self) -> bool {
        true
    }
}

/// `consume` ended with an error.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConsumeError {
    /// The subscription could not be opened or ended for good.
    #[error(transparent)]
    Subscribe(#[from] SubscribeError),
    /// The shutdown was asked for and did not end in good order.
    #[error(transparent)]
    Close(#[from] CloseError),
}

impl ConsumeError {
    /// Whether consuming again may succeed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Subscribe(error) => error.is_retryable(),
            Self::Close(error) => error.is_retryable(),
        }
    }

    /// Always: handlers may have run.
    #[must_use]
    pub fn may_have_effect(&self) -> bool {
        true
    }
}

/// The status of the node could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StatusError {
    /// The bridge was not reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The bridge refused or failed the call.
    #[error("the bridge did not answer the status request: {}", .0.message())]
    Call(#[source] Box<Status>),
}

impl StatusError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connect(error) => error.is_retryable(),
            Self::Call(status) => is_retryable_status(status, info_of(status).as_ref()),
        }
    }

    /// Never: reading a status changes nothing.
    #[must_use]
    pub fn may_have_effect(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    //! Goal: the wire's error details become code and retryability, and each error answers as documented. Method: statuses built
    //! as a bridge builds them; a table.
    use tonic_types::ErrorDetails;

    use super::*;

    fn status(code: Code, domain: &str, retryable: Option<&str>) -> Status {
        let mut info = ErrorInfo::new("FAN-3001", domain, []);
        info.metadata
            .extend(retryable.map(|value| ("retryable".to_owned(), value.to_owned())));
        let details = ErrorDetails::with_error_info(info.reason, info.domain, info.metadata);
        Status::with_error_details(code, "no topic orders", details)
    }

    #[test]
    fn details_of_the_bridge_win_over_the_grpc_code() {
        let error = SubscribeError::from_status(status(Code::NotFound, "fanin", Some("true")));
        assert_eq!((error.code(), error.is_retryable()), ("FAN-3001", true));
        let error = SubscribeError::from_status(status(Code::Unavailable, "fanin", Some("false")));
        assert!(!error.is_retryable());
        assert_eq!(error.to_string(), "no topic orders (FAN-3001)");
        assert!(error.source().is_some());
    }

    #[test]
    fn without_our_details_the_grpc_code_decides() {
        let foreign = SubscribeError::from_status(status(Code::NotFound, "example.com", Some("true")));
        assert_eq!((foreign.code(), foreign.is_retryable()), ("NotFound", false));
        assert!(SubscribeError::from_status(Status::unavailable("gone")).is_retryable());
    }

    /// Goal: each error's two answers are those that its documentation gives. Method: one of each kind.
    #[test]
    fn every_error_answers_for_its_kind() {
        let missing = || ConnectError::Missing {
            path: "/run/fanin/fanin.sock".into(),
            source: io::ErrorKind::NotFound.into(),
        };
        let denied = || ConnectError::Denied {
            path: "/run/fanin/fanin.sock".into(),
            source: io::ErrorKind::PermissionDenied.into(),
        };
        let call = |status: Status| StatusError::Call(Box::new(status));
        let told = |word| call(status(Code::Unavailable, "fanin", word));
        for (error, retryable) in [
            (StatusError::from(missing()), true),
            (StatusError::from(denied()), false),
            (call(Status::unavailable("the node is stopping")), true),
            (call(Status::deadline_exceeded("too late")), true),
            (call(Status::unimplemented("an older bridge")), false),
            (call(Status::out_of_range("too large")), false),
            // The bridge's own word wins over the code.
            (told(Some("true")), true),
            (told(Some("false")), false),
            (told(None), true),
            (call(status(Code::NotFound, "fanin", Some("true"))), true),
            (
                call(status(Code::Unavailable, "example.com", Some("false"))),
                true,
            ),
        ] {
            assert_eq!(error.is_retryable(), retryable, "{error:?}");
            assert!(!error.may_have_effect(), "{error:?}");
        }

        let subscribe = |retryable| SubscribeError::new("FAN-3001", "no topic orders", retryable);
        for closed in [
            CloseError::TimedOut { held: 1 },
            CloseError::ConnectionLost { held: 0 },
        ] {
            assert!(!closed.is_retryable() && closed.may_have_effect(), "{closed:?}");
            let consumed = ConsumeError::from(closed);
            assert!(
                !consumed.is_retryable() && consumed.may_have_effect(),
                "{consumed:?}"
            );
        }
        for retryable in [true, false] {
            assert!(!subscribe(retryable).may_have_effect());
            let consumed = ConsumeError::from(subscribe(retryable));
            assert_eq!(consumed.is_retryable(), retryable, "{consumed:?}");
            assert!(consumed.may_have_effect(), "handlers may have run");
        }
        for (error, retryable) in [(missing(), true), (denied(), false)] {
            assert_eq!(error.is_retryable(), retryable, "{error:?}");
            assert!(!error.may_have_effect(), "{error:?}");
            assert_eq!(SubscribeError::from(error).is_retryable(), retryable);
        }

        let batch = |failed: &[AckError]| {
            let failed = failed.iter().map(|error| ("ORDERS:1".to_owned(), *error));
            BatchAckError::new(2, failed.collect()).unwrap()
        };
        for (failed, may_have_effect) in [
            (vec![AckError::LeaseLost; 2], false),
            (vec![AckError::LeaseLost], true),
            (vec![AckError::LeaseLost, AckError::Unconfirmed], true),
        ] {
            let error = batch(&failed);
            assert_eq!(error.may_have_effect(), may_have_effect, "{error:?}");
            assert!(!error.is_retryable(), "{error:?}");
        }
        for (error, may_have_effect) in [(AckError::LeaseLost, false), (AckError::Unconfirmed, true)] {
            assert!(!error.is_retryable() && error.may_have_effect() == may_have_effect);
        }
    }
}
