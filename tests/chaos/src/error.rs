//! Why a run could not be done: not a verdict.

/// A sentence for people.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct RunError(pub(crate) String);

/// Turns any error into a [`RunError`] that says during what.
pub(crate) fn during<E: std::fmt::Display>(what: impl std::fmt::Display) -> impl FnOnce(E) -> RunError {
    move |error| RunError(format!("{what}: {error}"))
}
