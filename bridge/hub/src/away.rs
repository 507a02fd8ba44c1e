//! Why no hub server is connected. The client library goes on trying by itself and tells of an attempt only its kind, so
//! that the reasons are read where it keeps them: in its pool of servers, which it shows before every attempt.

use std::fmt;

use async_nats::{ClientError, ConnectError, ConnectErrorKind, Server, ServerError};

use crate::codes;

/// What kind of thing keeps the hub away; what comes later tells an operator more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AwayKind {
    /// No server answers as one.
    Unreachable,
    /// A server answers, and no encrypted connection to it can be made.
    Tls,
    /// A server answers and refuses the login.
    LoginRefused,
}

/// Why no server is connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Away {
    /// The kind.
    pub kind: AwayKind,
    /// Host and port of the server that said so; empty when the library did not tell.
    pub server: String,
    /// As the client library or the server says it.
    pub detail: String,
}

impl AwayKind {
    /// The kind of a failed attempt that was given up.
    #[must_use]
    pub fn of_error(error: &ConnectError) -> AwayKind {
        match error.kind() {
            ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                AwayKind::LoginRefused
            }
            ConnectErrorKind::Tls => AwayKind::Tls,
            // A failed handshake reaches us as a plain I/O error of the TLS library.
            ConnectErrorKind::Io if mentions_tls(&error.to_string()) => AwayKind::Tls,
            ConnectErrorKind::ServerParse
            | ConnectErrorKind::Dns
            | ConnectErrorKind::TimedOut
            | ConnectErrorKind::Io
            | ConnectErrorKind::MaxReconnects => AwayKind::Unreachable,
        }
    }

    /// The kind of an attempt of which only the text is left.
    fn of_text(text: &str) -> AwayKind {
        if mentions_login(text) {
            AwayKind::LoginRefused
        } else if mentions_tls(text) {
            AwayKind::Tls
        } else {
            AwayKind::Unreachable
        }
    }

    /// The stable code users can look up.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            AwayKind::Unreachable => codes::HUB_UNREACHABLE,
            AwayKind::Tls => codes::TLS_FAILED,
            AwayKind::LoginRefused => codes::LOGIN_REFUSED,
        }
    }

    /// What happened and what to do, as [`crate::ConnectError`] says it too.
    #[must_use]
    pub(crate) fn text(self) -> &'static str {
        match self {
            AwayKind::Unreachable => {
                "no hub server answers; check the addresses, the network, and that nats-server runs"
            }
            AwayKind::Tls => {
                "no TLS connection to the hub; check the authority (hub.tls.ca, --tlsca), the server's name and the client \
                 certificate"
            }
            AwayKind::LoginRefused => {
                "the hub refused the login; check user, password, token, nkey or credentials file, and the account"
            }
        }
    }
}

impl Away {
    /// What the servers of the pool said at their last attempts: what tells most, `None` when no attempt has failed yet.
    pub(crate) fn of_pool(servers: &[Server]) -> Option<Away> {
        let failed = servers.iter().filter_map(|server| {
            let detail = server.last_error.clone()?;
            Some(Away {
                kind: AwayKind::of_text(&detail),
                // Not the address as given: it may hold a password.
                server: format!("{}:{}", server.addr.host(), server.addr.port()),
                detail,
            })
        });
        failed.max_by_key(|away| away.kind)
    }

    /// What an error of the server says about a connection that is not there; most say nothing.
    pub(crate) fn of_server(error: &ServerError) -> Option<Away> {
        let detail = error.to_string();
        let refused = match error {
            ServerError::AuthorizationViolation => true,
            ServerError::Other(text) => mentions_login(text),
            ServerError::SlowConsumer(_) => false,
        };
        refused.then_some(Away {
            kind: AwayKind::LoginRefused,
            server: String::new(),
            detail,
        })
    }

    /// What a failed attempt says before the pool has been seen. The library tells its kind only.
    pub(crate) fn of_attempt(error: &ClientError) -> Option<Away> {
        match error {
            ClientError::Other(text) => Some(Away {
                kind: AwayKind::of_text(text),
                server: String::new(),
                detail: text.clone(),
            }),
            ClientError::MaxReconnects | ClientError::ServerNotInPool => None,
        }
    }

    /// The stable code users can look up.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.kind.code()
    }
}

impl fmt::Display for Away {
    /// The cure included, the code not.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let colon = if self.server.is_empty() { "" } else { ": " };
        write!(f, "{} ({}{colon}{})", self.kind.text(), self.server, self.detail)
    }
}

fn mentions_login(text: &str) -> bool {
    let text = text.to_lowercase();
    // Not "permissions violation": that is about a subject, on a connection that works.
    [
        "authorization violation",
        "authentication",
        "failed signing nonce",
    ]
    .iter()
    .any(|word| text.contains(word))
}

fn mentions_tls(text: &str) -> bool {
    let text = text.to_lowercase();
    ["certificate", "tls", "handshake", "corrupt message"]
        .iter()
        .any(|word| text.contains(word))
}

#[cfg(test)]
mod tests {
    //! Goal: an operator is told what is wrong, not that something is. Method: texts of servers and of the library.
    use super::*;

    #[test]
    fn texts_have_kinds() {
        for (text, kind) in [
            ("authorization violation", AwayKind::LoginRefused),
            ("User Authentication Expired", AwayKind::LoginRefused),
            ("failed signing nonce", AwayKind::LoginRefused),
            ("TLS error", AwayKind::Tls),
            ("IO error: invalid peer certificate: UnknownIssuer", AwayKind::Tls),
            (
                "IO error: Connection refused (os error 111)",
                AwayKind::Unreachable,
            ),
            ("timed out", AwayKind::Unreachable),
            ("DNS error: no such host", AwayKind::Unreachable),
        ] {
            assert_eq!(AwayKind::of_text(text), kind, "{text}");
        }
        assert!(AwayKind::LoginRefused > AwayKind::Tls && AwayKind::Tls > AwayKind::Unreachable);
    }

    #[test]
    fn a_denied_subject_is_no_refused_login() {
        let denied = ServerError::Other("Permissions Violation for Publish to \"a\"".to_owned());
        assert_eq!(Away::of_server(&denied), None);
        let refused = Away::of_server(&ServerError::AuthorizationViolation).unwrap();
        assert_eq!(refused.code(), codes::LOGIN_REFUSED);
        assert!(
            refused
                .to_string()
                .starts_with("the hub refused the login; check"),
            "{refused}"
        );
    }
}
