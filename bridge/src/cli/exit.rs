//! Exit codes, as `sysexits.h` and the documentation have them.

use std::process::ExitCode;

use fanin_hub::ConnectError;

/// How a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// Failed; the message says why.
    Failed,
    /// Wrong usage of the command line.
    Usage,
    /// The hub, or the bridge's socket, is not available.
    Unavailable,
    /// The local log cannot be created.
    CannotCreate,
    /// Reading or writing failed.
    Io,
    /// Try later: a lock is held, or a stop took too long.
    TryLater,
    /// Not permitted.
    NotPermitted,
    /// The configuration is wrong.
    Config,
}

impl Exit {
    const ALL: [Exit; 9] = [
        Exit::Done,
        Exit::Failed,
        Exit::Usage,
        Exit::Unavailable,
        Exit::CannotCreate,
        Exit::Io,
        Exit::TryLater,
        Exit::NotPermitted,
        Exit::Config,
    ];

    /// The number the process ends with.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Unavailable => 69,
            Exit::CannotCreate => 73,
            Exit::Io => 74,
            Exit::TryLater => 75,
            Exit::NotPermitted => 77,
            Exit::Config => 78,
        }
    }

    /// The meaning of a number; a number without one means [`Exit::Failed`].
    #[must_use]
    pub fn of(code: u8) -> Exit {
        Exit::ALL
            .into_iter()
            .find(|exit| exit.code() == code)
            .unwrap_or(Exit::Failed)
    }
}

/// How a command, or the bridge, ends that cannot connect to the hub. `asked` is the exit of whatever named the hub wrongly:
/// the command line, or the configuration.
#[must_use]
pub fn connect_exit(error: &ConnectError, asked: Exit) -> Exit {
    match error {
        ConnectError::NoServers | ConnectError::BadAddress { .. } | ConnectError::HalfCertificate => asked,
        ConnectError::Unreadable { .. } => Exit::Io,
        ConnectError::LoginRefused { .. } => Exit::NotPermitted,
        ConnectError::Tls { .. }
        | ConnectError::Unreachable { .. }
        | ConnectError::HubWithoutJetStream { .. } => Exit::Unavailable,
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    //! Goal: numbers and meanings are one to one. Method: round trip.
    use std::io;

    use async_nats::ConnectErrorKind;

    use super::*;

    fn attempt(kind: ConnectErrorKind) -> async_nats::ConnectError {
        async_nats::ConnectError::new(kind)
    }

    #[test]
    fn round_trip() {
        for exit in Exit::ALL {
            assert_eq!(Exit::of(exit.code()), exit);
        }
        assert_eq!(Exit::of(42), Exit::Failed);
    }

    /// Goal: a hub that cannot be reached ends every command alike. Method: the reasons that need no server; `online.rs` has the
    /// rest.
    #[test]
    fn reasons_of_a_failed_connection() {
        let failed = || io::Error::other("on purpose");
        let path = "a.creds".into();
        for (error, asked, exit) in [
            (ConnectError::NoServers, Exit::Usage, 2),
            (ConnectError::NoServers, Exit::Config, 78),
            (ConnectError::BadAddress { source: failed() }, Exit::Config, 78),
            (ConnectError::HalfCertificate, Exit::Usage, 2),
            (
                ConnectError::Unreadable {
                    path,
                    source: failed(),
                },
                Exit::Config,
                74,
            ),
            (
                ConnectError::Tls {
                    source: attempt(ConnectErrorKind::Tls),
                },
                Exit::Config,
                69,
            ),
            (
                ConnectError::Unreachable {
                    source: attempt(ConnectErrorKind::Io),
                },
                Exit::Usage,
                69,
            ),
            (
                ConnectError::LoginRefused {
                    source: attempt(ConnectErrorKind::AuthorizationViolation),
                },
                Exit::Config,
                77,
            ),
        ] {
            assert_eq!(connect_exit(&error, asked).code(), exit, "{error}");
        }
    }
}
