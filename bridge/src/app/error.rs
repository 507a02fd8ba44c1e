//! Why a node cannot start or must end, with the stable code and the exit code of each case.

use std::net::SocketAddr;
use std::path::PathBuf;

use fanin_store::{CommitError, OpenError};

use crate::cli::exit::{Exit, connect_exit};
use crate::identity::IdentityError;
use crate::mapping::disk::DiskError;
use crate::mapping::driver::DriverError;
use crate::mapping::join::JoinError;
use crate::mapping::start::MappingError;
use crate::serve::SocketError;

/// Why a node cannot start, or must end.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The data directory cannot be made.
    #[error("FAN-4001: the data directory {dir} cannot be made: {source}; set `data_dir` to a directory this user may write", dir = dir.display())]
    DataDir {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The data directory is in memory, and a mapping requires a delivery that this cannot hold.
    #[error("FAN-4053: the data directory {dir} is on {file_system}, in memory, with which mapping {mapping}'s required_delivery: {required} cannot be held; set `data_dir` to a directory on a disk, or remove required_delivery", dir = dir.display())]
    Volatile {
        /// The directory.
        dir: PathBuf,
        /// The file system's name.
        file_system: &'static str,
        /// The first mapping that requires one.
        mapping: String,
        /// What it requires.
        required: &'static str,
    },
    /// The local log cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The local log failed.
    #[error("FAN-4002: {0}")]
    Store(#[from] CommitError),
    /// The data directory is not this node's.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A mapping cannot be restored.
    #[error("mapping {mapping}: {source}")]
    Mapping {
        /// The mapping.
        mapping: String,
        /// Why.
        source: MappingError,
    },
    /// A mapping cannot take part.
    #[error("{}: mapping {mapping}: {source}", source.code())]
    Join {
        /// The mapping.
        mapping: String,
        /// Why.
        source: JoinError,
    },
    /// A mapping's loop ended.
    #[error("mapping {mapping}: {source}")]
    Driver {
        /// The mapping.
        mapping: String,
        /// Why.
        source: DriverError,
    },
    /// A mapping's loop met a defect.
    #[error("FAN-5014: a mapping's loop ended by a defect: {0}")]
    Crashed(tokio::task::JoinError),
    /// The socket's server ended by itself.
    #[error(
        "FAN-5029: nobody serves the socket any more: its server ended by itself, the log says why; restart the bridge"
    )]
    Deaf,
    /// The hub's options cannot be used.
    #[error("{code}: {0}", code = .0.code())]
    Hub(#[from] fanin_hub::ConnectError),
    /// The socket cannot be served.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// Damage in the local log behind a synced point that concerns the node as a whole.
    #[error("FAN-4007: the local log in {dir} is damaged: {what}; nothing was changed. Restore the disk, or give the node another name and an empty data directory; what it had won and not finished is not delivered then", dir = dir.display())]
    Damaged {
        /// The data directory.
        dir: PathBuf,
        /// Where and what.
        what: String,
    },
    /// The admin endpoint cannot be served.
    #[error(
        "FAN-4008: the admin address {address} cannot be served: {source}; set `admin` to a free address"
    )]
    Admin {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
}

impl AppError {
    /// The stable code users can look up.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            AppError::DataDir { .. } => "FAN-4001",
            AppError::Volatile { .. } => "FAN-4053",
            AppError::Open(OpenError::Locked { .. }) => "FAN-4009",
            AppError::Open(OpenError::NoSpace { .. }) => "FAN-4048",
            AppError::Open(OpenError::QuotaTooSmall { .. } | OpenError::ReserveTooLarge { .. }) => {
                fanin_config::Code::Relation.info().code
            }
            AppError::Open(_) | AppError::Store(_) => "FAN-4002",
            AppError::Identity(error) => error.code(),
            AppError::Mapping { source, .. } => mapping_code(source),
            AppError::Driver { source, .. } => driver_code(source),
            AppError::Join { source, .. } => source.code(),
            AppError::Crashed(_) => "FAN-5014",
            AppError::Deaf => "FAN-5029",
            AppError::Hub(error) => error.code(),
            AppError::Socket(_) => "FAN-4015",
            AppError::Damaged { .. } => "FAN-4007",
            AppError::Admin { .. } => "FAN-4008",
        }
    }

    /// The process's exit code, after sysexits.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            AppError::DataDir { .. } => 73,
            AppError::Volatile { .. } => 78,
            AppError::Open(OpenError::Locked { .. } | OpenError::NoSpace { .. }) => 75,
            AppError::Open(OpenError::QuotaTooSmall { .. } | OpenError::ReserveTooLarge { .. }) => 78,
            AppError::Open(_) | AppError::Store(_) | AppError::Driver { .. } | AppError::Damaged { .. } => 74,
            AppError::Identity(IdentityError::Copied { .. } | IdentityError::OtherNode { .. }) => 78,
            AppError::Identity(_) | AppError::Mapping { .. } => 74,
            AppError::Join { source, .. } => match source {
                JoinError::Connect(error) => connect_exit(error, Exit::Config).code(),
                JoinError::Hub(_) | JoinError::Append(_) => 69,
                JoinError::Store(_) | JoinError::Encode(_) => 74,
                JoinError::Source(_)
                | JoinError::Unfit(_)
                | JoinError::Ledger(_)
                | JoinError::LedgerRecreated { .. }
                | JoinError::LedgerShort { .. }
                | JoinError::LedgerShrank { .. }
                | JoinError::LedgerUnfinished { .. }
                | JoinError::IdentityConflict { .. }
                | JoinError::UnknownEpoch { .. } => 78,
            },
            AppError::Crashed(_) | AppError::Deaf => 1,
            AppError::Hub(error) => connect_exit(error, Exit::Config).code(),
            AppError::Socket(_) | AppError::Admin { .. } => 73,
        }
    }
}

/// The code that the error's text begins with.
fn mapping_code(error: &MappingError) -> &'static str {
    match error {
        MappingError::Disk(DiskError::Value { .. } | DiskError::Record { .. }) => "FAN-4003",
        MappingError::Disk(DiskError::Orphan { .. }) => "FAN-4004",
        MappingError::Disk(DiskError::Damaged { .. }) => "FAN-4044",
        MappingError::Topic(_) => "FAN-4005",
    }
}

/// The code that the error's text begins with.
fn driver_code(error: &DriverError) -> &'static str {
    match error {
        DriverError::Store(_) => "FAN-4002",
        DriverError::Publish(_)
        | DriverError::Topic(_)
        | DriverError::Unknown(_)
        | DriverError::Encode(_) => "FAN-4005",
    }
}
