//! Reaching the bridge of this node, and telling what went wrong with it.

use std::time::Duration;

use clap::Args as ClapArgs;
use fanin_sdk::{Client, ConnectError, StatusError, SubscribeError};

use super::exit::Exit;
use super::failure::Failure;
use crate::telemetry::codes;

/// Which bridge to talk to.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct SocketArgs {
    /// The bridge's socket, as unix:///path or a plain path [default: unix:///run/fanin/fanin.sock].
    #[arg(long, value_name = "URI", env = fanin_sdk::SOCKET_VARIABLE)]
    socket: Option<String>,
}

impl SocketArgs {
    /// The bridge's address.
    pub(crate) fn address(&self) -> &str {
        self.socket.as_deref().unwrap_or(fanin_sdk::SOCKET_DEFAULT)
    }

    /// Connects once, or again and again for `wait` while no bridge is there.
    ///
    /// # Errors
    /// No bridge there in time, no permission, or a malformed address.
    pub(crate) async fn connect(&self, wait: Duration) -> Result<Client, Failure> {
        Client::builder()
            .socket(self.address())
            .wait_for_bridge(wait)
            .connect()
            .await
            .map_err(unreachable)
    }
}

fn unreachable(error: ConnectError) -> Failure {
    let exit = exit_of(&error);
    Failure::of(exit, codes::BRIDGE_UNREACHABLE, error)
}

fn exit_of(error: &ConnectError) -> Exit {
    if matches!(error, ConnectError::Address { .. }) {
        Exit::Usage
    } else if matches!(error, ConnectError::Denied { .. }) {
        Exit::NotPermitted
    } else {
        Exit::Unavailable
    }
}

/// The failure of a status request.
pub(crate) fn status_failed(error: StatusError) -> Failure {
    if let StatusError::Connect(error) = error {
        return unreachable(error);
    }
    Failure::of(Exit::Unavailable, codes::BRIDGE_FAILED, error)
}

/// The failure of a subscription: with the bridge's own code if it gave one.
pub(crate) fn subscribe_failed(error: SubscribeError) -> Failure {
    let code = match error.code() {
        code if code.starts_with("FAN-") => code.to_owned(),
        "Connect" => codes::BRIDGE_UNREACHABLE.to_owned(),
        _ => codes::BRIDGE_FAILED.to_owned(),
    };
    let exit = if code == crate::codes::Code::NotPermitted.info().code {
        Exit::NotPermitted
    } else if error.is_retryable() {
        Exit::Unavailable
    } else {
        Exit::Failed
    };
    // The source is the transport's error, which says the same with more words.
    Failure::new(exit, code, error.message())
}
