//! Why the demo cannot be run to its end.

use std::io;
use std::path::PathBuf;

use fanin_localhub::{FetchError, StartError};

use super::feed::FeedError;
use super::fleet::FleetError;
use super::input::InputError;
use super::journal::JournalError;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::telemetry::codes;

/// Everything that ends the demo without a verdict.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoError {
    #[error("the input cannot be fed")]
    Input(#[from] InputError),
    #[error("{path} cannot be used")]
    Place {
        path: PathBuf,
        cure: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("the path of this program is not known")]
    Program(#[source] io::Error),
    #[error("there is no nats-server for the demo")]
    NoServer(#[from] FetchError),
    #[error("the demo's nats-server does not start")]
    Hub(#[from] StartError),
    #[error("{what} failed at the demo's hub")]
    HubCall {
        what: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the processes are not ready after {seconds} s: {missing}; the log of {node} ends with:\n{log}")]
    NotReady {
        seconds: u64,
        missing: String,
        node: String,
        log: String,
    },
    #[error("the processes of the demo cannot go on")]
    Fleet(#[from] FleetError),
    #[error("feeding ended early")]
    Feed(#[from] FeedError),
    #[error("the records of the instances cannot be read")]
    Journal(#[from] JournalError),
    #[error("a part of the demo ended early")]
    Task(#[from] tokio::task::JoinError),
    #[error("the verdict cannot be written as JSON")]
    Json(#[source] serde_json::Error),
    #[error("interrupted; everything that the demo started has ended")]
    Interrupted,
}

impl DemoError {
    /// For the command line.
    pub(crate) fn into_failure(self) -> Failure {
        let (exit, code) = match &self {
            Self::Input(InputError::Unreadable { .. }) => (Exit::Io, codes::INPUT_UNREADABLE),
            Self::Input(
                InputError::Empty { .. } | InputError::TooManyLines { .. } | InputError::LineTooLong { .. },
            ) => (Exit::Failed, codes::INPUT_UNREADABLE),
            Self::Place { .. } => (Exit::CannotCreate, codes::DEMO_FAILED),
            Self::NoServer(_) | Self::Hub(_) => (Exit::Unavailable, codes::NO_LOCAL_HUB),
            Self::Program(_)
            | Self::HubCall { .. }
            | Self::NotReady { .. }
            | Self::Fleet(_)
            | Self::Feed(_)
            | Self::Journal(_)
            | Self::Task(_)
            | Self::Json(_) => (Exit::Failed, codes::DEMO_FAILED),
            Self::Interrupted => (Exit::Failed, codes::INTERRUPTED),
        };
        // What the table of codes says fits other commands better than these cases, which name their own.
        let cure = match &self {
            Self::Place { cure, .. } => Some(Some((*cure).to_owned())),
            Self::Input(_) | Self::Interrupted => Some(None),
            Self::Program(_)
            | Self::NoServer(_)
            | Self::Hub(_)
            | Self::HubCall { .. }
            | Self::NotReady { .. }
            | Self::Fleet(_)
            | Self::Feed(_)
            | Self::Journal(_)
            | Self::Task(_)
            | Self::Json(_) => None,
        };
        match (Failure::of(exit, code, self), cure) {
            (Failure::Told(mut report), Some(cure)) => {
                report.cure = cure;
                Failure::Told(report)
            }
            (failure, _) => failure,
        }
    }
}

/// Wraps whatever a call of the hub's client ended with.
pub(crate) fn hub_call<E>(what: &'static str) -> impl FnOnce(E) -> DemoError
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    move |source| DemoError::HubCall {
        what,
        source: source.into(),
    }
}
