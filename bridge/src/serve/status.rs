//! The one table from refusals to gRPC statuses.

use std::time::Duration;

use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt};

use crate::codes::{Code, Refusal};

/// The domain of every `google.rpc.ErrorInfo` of fanin.
pub const DOMAIN: &str = "fanin";

/// How long a client is asked to wait before it calls again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

fn grpc_code(code: Code) -> tonic::Code {
    match code {
        Code::UnknownTopic | Code::UnknownApplication => tonic::Code::NotFound,
        Code::OpenExpected | Code::Malformed => tonic::Code::InvalidArgument,
        Code::LimitExceeded => tonic::Code::ResourceExhausted,
        Code::NotPermitted => tonic::Code::PermissionDenied,
        Code::Stopping | Code::Fenced | Code::Damaged => tonic::Code::Unavailable,
    }
}

/// The status that a client gets: the text, with `ErrorInfo` (reason = the stable code) and, when another try can
/// succeed, `RetryInfo`.
#[must_use]
pub fn to_status(refusal: &Refusal) -> Status {
    let info = refusal.code.info();
    #[allow(
        clippy::disallowed_types,
        reason = "the type that tonic-types takes; one entry has one order"
    )]
    let metadata = std::collections::HashMap::from([("retryable".to_owned(), info.retryable.to_string())]);
    let mut details = ErrorDetails::with_error_info(info.code, DOMAIN, metadata);
    if info.retryable {
        details.set_retry_info(Some(RETRY_AFTER));
    }
    Status::with_error_details(
        grpc_code(refusal.code),
        format!("{}: {}", info.code, refusal.text),
        details,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: each code reaches the client with its stable reason. Method: all codes through the real encoding.
    #[test]
    fn every_code_carries_its_reason() {
        for code in Code::ALL {
            let status = to_status(&Refusal::new(*code, "text"));
            let details = status.get_error_details();
            let info = details.error_info().unwrap();
            assert_eq!(
                (info.reason.as_str(), info.domain.as_str()),
                (code.info().code, DOMAIN)
            );
            assert_eq!(info.metadata["retryable"], code.info().retryable.to_string());
            assert_eq!(details.retry_info().is_some(), code.info().retryable);
        }
    }
}
