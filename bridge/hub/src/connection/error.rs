//! Why a connection cannot be made.

use std::path::PathBuf;

use crate::api::ApiError;
use crate::away::AwayKind;
use crate::codes;

/// Why the hub could not be reached at start.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The list of servers is empty.
    #[error("no hub server is configured; set hub.servers or NATS_URL")]
    NoServers,
    /// An address cannot be read.
    #[error("a hub server's address is not valid; write it as nats://host:port or tls://host:port")]
    BadAddress {
        /// What is wrong with it.
        source: std::io::Error,
    },
    /// A certificate without key, or a key without certificate.
    #[error(
        "a client certificate needs both its certificate file and its key file; set hub.tls.cert and hub.tls.key, or --tlscert and --tlskey"
    )]
    HalfCertificate,
    /// A file with a secret or certificate cannot be read.
    #[error("cannot read {}; check the path and that this user may read it", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The hub refused the login.
    #[error("{}", AwayKind::LoginRefused.text())]
    LoginRefused {
        /// As the client library says it.
        source: async_nats::ConnectError,
    },
    /// The encrypted connection could not be made.
    #[error("{}", AwayKind::Tls.text())]
    Tls {
        /// As the client library says it.
        source: async_nats::ConnectError,
    },
    /// No server answered.
    #[error("{}", AwayKind::Unreachable.text())]
    Unreachable {
        /// The last server's failure.
        source: async_nats::ConnectError,
    },
    /// A server answered, but JetStream does not.
    #[error(
        "the hub at {server} has no JetStream for this account; start nats-server with -js, enable it for the account, or name servers of the domain that has the streams"
    )]
    HubWithoutJetStream {
        /// The connected server.
        server: String,
        /// What the request for account information ended with.
        source: ApiError,
    },
}

impl ConnectError {
    /// True when trying again later may help without any change.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            ConnectError::Unreachable { .. } | ConnectError::HubWithoutJetStream { .. } => true,
            ConnectError::NoServers
            | ConnectError::BadAddress { .. }
            | ConnectError::HalfCertificate
            | ConnectError::Unreadable { .. }
            | ConnectError::LoginRefused { .. }
            | ConnectError::Tls { .. } => false,
        }
    }

    /// The stable code users can look up.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            ConnectError::NoServers | ConnectError::BadAddress { .. } | ConnectError::Unreachable { .. } => {
                codes::HUB_UNREACHABLE
            }
            ConnectError::HalfCertificate | ConnectError::Tls { .. } => codes::TLS_FAILED,
            ConnectError::Unreadable { .. } => codes::SECRET_UNREADABLE,
            ConnectError::LoginRefused { .. } => codes::LOGIN_REFUSED,
            ConnectError::HubWithoutJetStream { .. } => codes::HUB_WITHOUT_JETSTREAM,
        }
    }

    pub(super) fn of_client(source: async_nats::ConnectError) -> ConnectError {
        match AwayKind::of_error(&source) {
            AwayKind::LoginRefused => ConnectError::LoginRefused { source },
            AwayKind::Tls => ConnectError::Tls { source },
            AwayKind::Unreachable => ConnectError::Unreachable { source },
        }
    }
}
