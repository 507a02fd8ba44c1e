//! Exit codes, as `sysexits.h` and the documentation have them.

use std::process::ExitCode;

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

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    //! Goal: numbers and meanings are one to one. Method: round trip.
    use super::*;

    #[test]
    fn round_trip() {
        for exit in Exit::ALL {
            assert_eq!(Exit::of(exit.code()), exit);
        }
        assert_eq!(Exit::of(42), Exit::Failed);
    }
}
