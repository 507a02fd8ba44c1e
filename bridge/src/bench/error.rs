//! Why a benchmark has no result.

use std::error::Error;
use std::io;

use fanin_localhub::{FetchError, StartError, StopError};

use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::telemetry::codes;

/// Why a benchmark has no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum BenchError {
    /// A file or process failed.
    #[error("{what} failed")]
    Io {
        /// The action.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There is no nats-server to measure with.
    #[error("there is no nats-server to measure with")]
    Server(#[from] FetchError),
    /// The hub does not start.
    #[error("the hub did not start")]
    Start(#[from] StartError),
    /// The hub does not stop.
    #[error("the hub did not stop")]
    Stop(#[from] StopError),
    /// A request to the hub failed.
    #[error("the hub did not do as asked: {what}")]
    Hub {
        /// The request.
        what: &'static str,
        /// What came back.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The bridge does not tell its status.
    #[error("the bridge does not tell its status")]
    Status(#[from] fanin_sdk::StatusError),
    /// A process ended early.
    #[error("{name} ended early; its log ends with:\n{log}")]
    Ended {
        /// The process.
        name: String,
        /// The end of its log.
        log: String,
    },
    /// Something took too long.
    #[error("{what} took longer than {seconds} s; {hint}")]
    Late {
        /// What was waited for.
        what: String,
        /// The limit.
        seconds: u64,
        /// How it stood.
        hint: String,
    },
    /// The pre-fill is not what it should be.
    #[error("the stream holds {stored} messages instead of {expected}")]
    Filled {
        /// Messages in the stream.
        stored: u64,
        /// Messages asked for.
        expected: u64,
    },
    /// What an application counted does not add up, so that no figure means anything.
    #[error("application {app} received {distinct} of {expected} messages in {received} deliveries")]
    Miscounted {
        /// The application.
        app: String,
        /// Different messages.
        distinct: u64,
        /// Messages in the stream.
        expected: u64,
        /// Deliveries.
        received: u64,
    },
    /// A process of an application cannot go on.
    #[error("the application cannot go on")]
    App(#[source] Box<dyn Error + Send + Sync>),
    /// Interrupted.
    #[error("interrupted")]
    Interrupted,
}

impl BenchError {
    /// With its code and exit code.
    pub(super) fn into_failure(self) -> Failure {
        let (exit, code) = match &self {
            Self::Server(_) | Self::Start(_) => (Exit::Unavailable, codes::NO_LOCAL_HUB),
            Self::Interrupted => (Exit::Failed, codes::INTERRUPTED),
            Self::Io { .. } => (Exit::Io, codes::BENCH_FAILED),
            Self::Stop(_)
            | Self::Hub { .. }
            | Self::Status(_)
            | Self::Ended { .. }
            | Self::Late { .. }
            | Self::Filled { .. }
            | Self::Miscounted { .. }
            | Self::App(_) => (Exit::Failed, codes::BENCH_FAILED),
        };
        let interrupted = matches!(self, Self::Interrupted);
        match Failure::of(exit, code, self) {
            // The code's cure is for commands that have something left to send.
            Failure::Told(mut report) if interrupted => {
                report.cure = None;
                Failure::Told(report)
            }
            failure @ (Failure::Told(_) | Failure::ClosedPipe) => failure,
        }
    }

    pub(super) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }

    pub(super) fn hub<E: Error + Send + Sync + 'static>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Hub {
            what,
            source: Box::new(source),
        }
    }
}
