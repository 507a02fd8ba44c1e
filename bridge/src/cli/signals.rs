//! SIGTERM and SIGINT: the first asks the command to finish, the second ends the process at once.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::exit::Exit;
use super::failure::Failure;
use crate::telemetry::codes;

/// What a process that a signal ended reports is 128 and the signal's number.
const SIGNAL_BASE: i32 = 128;

/// A token that the first SIGTERM or SIGINT cancels. A second signal, or `stop_max` after the first, ends the process.
///
/// # Errors
/// When the system refuses the handlers.
pub(crate) fn stop_token(stop_max: Duration) -> Result<CancellationToken, Failure> {
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        let first = next(&mut terminate, &mut interrupt).await;
        tracing::info!(signal = first, "stopping");
        cancelled.cancel();
        match tokio::time::timeout(stop_max, next(&mut terminate, &mut interrupt)).await {
            Ok(second) => std::process::exit(SIGNAL_BASE + second),
            Err(_) => {
                let after_ms = u64::try_from(stop_max.as_millis()).unwrap_or(u64::MAX);
                tracing::error!(
                    code = codes::STOP_TIMED_OUT,
                    after_ms,
                    "the process did not stop in time"
                );
                std::process::exit(i32::from(Exit::TryLater.code()));
            }
        }
    });
    Ok(token)
}

/// Says at each SIGHUP that a restart is needed, instead of ending the process.
///
/// # Errors
/// As [`stop_token`].
pub(crate) fn explain_reload() -> Result<(), Failure> {
    let mut hangup = listen(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            tracing::warn!(
                code = codes::RESTART_NEEDED,
                "SIGHUP: the configuration is read at start only; restart the bridge to use a changed one"
            );
        }
    });
    Ok(())
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) -> i32 {
    tokio::select! {
        _ = terminate.recv() => SignalKind::terminate().as_raw_value(),
        _ = interrupt.recv() => SignalKind::interrupt().as_raw_value(),
    }
}

fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| {
        Failure::new(Exit::Io, codes::SIGNALS_UNAVAILABLE, "cannot receive signals").because(error)
    })
}
