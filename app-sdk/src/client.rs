//! How an application finds and reaches the bridge of its node.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fanin_proto::v1::node_service_client::NodeServiceClient;
use fanin_proto::v1::{StatusRequest, StatusResponse};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout};
use tonic::transport::{Channel, Endpoint, Uri};

use crate::consume::Consumer;
use crate::error::{ConnectError, StatusError};
use crate::limits::{
    BRIDGE_WAIT_PAUSE_MAX, CONNECT_TIMEOUT_DEFAULT, CONNECTION_WINDOW_BYTES, DECODE_BYTES_MAX,
    HTTP2_FRAME_BYTES_MAX, KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT, STREAM_WINDOW_BYTES,
};
use crate::retry::Backoff;
use crate::subscription::SubscriptionBuilder;

/// Environment variable that names the bridge's socket.
pub const SOCKET_VARIABLE: &str = "FANIN_SOCKET";
/// Where a bridge listens unless configured otherwise.
pub const SOCKET_DEFAULT: &str = "unix:///run/fanin/fanin.sock";

/// The bridge of this node, as seen by an application. Cheap to clone; each subscription has its own connection.
#[derive(Clone, Debug)]
pub struct Client {
    socket: Arc<Path>,
    connect_timeout: Duration,
}

impl Client {
    /// Connects to `unix:///path/to/fanin.sock`, or to a plain path.
    ///
    /// # Errors
    /// [`ConnectError`] when the address is malformed or no bridge answers there.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), fanin_sdk::ConnectError> {
    /// let client = fanin_sdk::Client::connect("unix:///run/fanin/fanin.sock").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect(address: impl AsRef<str>) -> Result<Self, ConnectError> {
        Self::builder().socket(address.as_ref()).connect().await
    }

    /// Connects to the socket that `FANIN_SOCKET` names, else to [`SOCKET_DEFAULT`].
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn from_env() -> Result<Self, ConnectError> {
        Self::builder().connect().await
    }

    /// All options of a connection.
    pub fn builder() -> ClientBuilder {
        ClientBuilder {
            socket: None,
            connect_timeout: CONNECT_TIMEOUT_DEFAULT,
            wait_for_bridge: Duration::ZERO,
        }
    }

    /// Starts the description of a subscription: this process becomes an instance of the application on the topic.
    pub fn subscribe(&self, topic: impl Into<String>, app: impl Into<String>) -> SubscriptionBuilder {
        SubscriptionBuilder::new(self.clone(), topic.into(), app.into())
    }

    /// Starts the description of a handler loop: the SDK hands each message to a function and gives the verdicts.
    pub fn consume(&self, topic: impl Into<String>, app: impl Into<String>) -> Consumer {
        Consumer::new(self.subscribe(topic, app))
    }

    /// What the node tells about itself: hub, store, mappings, applications and their backlogs.
    ///
    /// # Errors
    /// [`StatusError`] when the bridge is not reached or refuses.
    pub async fn status(&self) -> Result<StatusResponse, StatusError> {
        let channel = self.open_channel().await?;
        let mut node = NodeServiceClient::new(channel).max_decoding_message_size(DECODE_BYTES_MAX);
        let status = timeout(self.connect_timeout, node.status(StatusRequest {})).await;
        let status = status.unwrap_or_else(|_| {
            Err(tonic::Status::deadline_exceeded(format!(
                "no answer within {:?}",
                self.connect_timeout
            )))
        });
        status
            .map(tonic::Response::into_inner)
            .map_err(|status| StatusError::Call(Box::new(status)))
    }

    /// One connection for the other services of package `fanin.v1`, for tools. It does not reconnect by itself.
    ///
    /// # Errors
    /// [`ConnectError`] when no bridge answers in time.
    pub async fn channel(&self) -> Result<Channel, ConnectError> {
        self.open_channel().await
    }

    /// Longest duration of one attempt to open a subscription.
    pub(crate) fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    /// Opens one HTTP/2 connection. It does not reconnect by itself: a lost connection must be seen as one, because
    /// the bridge counts what was in hand.
    pub(crate) async fn open_channel(&self) -> Result<Channel, ConnectError> {
        let mut socket = Some(TokioIo::new(self.open_socket().await?));
        let connector = tower::service_fn(move |_: Uri| {
            let socket = socket
                .take()
                .ok_or_else(|| io::Error::other("the connection was lost"));
            async move { socket }
        });
        Endpoint::from_static("http://fanin.localhost")
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(HTTP2_FRAME_BYTES_MAX)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .connect_timeout(self.connect_timeout)
            .connect_with_connector(connector)
            .await
            .map_err(|source| ConnectError::Handshake {
                path: self.socket.to_path_buf(),
                source,
            })
    }

    async fn open_socket(&self) -> Result<UnixStream, ConnectError> {
        let opened = timeout(self.connect_timeout, UnixStream::connect(&self.socket)).await;
        let opened = opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        opened.map_err(|source| {
            let path = self.socket.to_path_buf();
            if source.kind() == io::ErrorKind::NotFound {
                ConnectError::Missing { path, source }
            } else if source.kind() == io::ErrorKind::PermissionDenied {
                ConnectError::Denied { path, source }
            } else if source.kind() == io::ErrorKind::ConnectionRefused {
                ConnectError::Refused { path, source }
            } else {
                ConnectError::Io { path, source }
            }
        })
    }
}

/// Options of a [`Client`].
#[derive(Clone, Debug)]
#[must_use = "nothing happens before `connect`"]
pub struct ClientBuilder {
    socket: Option<String>,
    connect_timeout: Duration,
    wait_for_bridge: Duration,
}

impl ClientBuilder {
    /// `unix:///path` or a plain path. Default: `FANIN_SOCKET`, else [`SOCKET_DEFAULT`].
    pub fn socket(mut self, address: impl Into<String>) -> Self {
        self.socket = Some(address.into());
        self
    }

    /// Longest duration of one connection attempt. Default:
    /// [`CONNECT_TIMEOUT_DEFAULT`](crate::limits::CONNECT_TIMEOUT_DEFAULT).
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// How long `connect` waits for a bridge that is not up yet. Default: not at all.
    pub fn wait_for_bridge(mut self, limit: Duration) -> Self {
        self.wait_for_bridge = limit;
        self
    }

    /// Connects once, to tell a wrong address at once.
    ///
    /// # Errors
    /// [`ConnectError`] when the address is malformed or no bridge answers there in time.
    pub async fn connect(self) -> Result<Client, ConnectError> {
        let address = self.socket.or_else(|| std::env::var(SOCKET_VARIABLE).ok());
        let socket = socket_path(address.as_deref().unwrap_or(SOCKET_DEFAULT))?;
        let client = Client {
            socket: socket.into(),
            connect_timeout: self.connect_timeout,
        };
        let deadline = Instant::now() + self.wait_for_bridge;
        let mut backoff = Backoff::default();
        loop {
            let Err(error) = client.open_socket().await else {
                return Ok(client);
            };
            let now = Instant::now();
            if !error.is_retryable() || now >= deadline {
                return Err(error);
            }
            let pause = backoff.next_delay().min(BRIDGE_WAIT_PAUSE_MAX);
            // The last attempt is made when the time is over.
            tokio::time::sleep_until((now + pause).min(deadline)).await;
        }
    }
}

fn socket_path(address: &str) -> Result<PathBuf, ConnectError> {
    let malformed = |reason| ConnectError::Address {
        given: address.to_owned(),
        reason,
    };
    let path = match address.strip_prefix("unix:") {
        Some(rest) => rest.strip_prefix("//").unwrap_or(rest),
        None if address.contains("://") => return Err(malformed("only Unix sockets are served")),
        None => address,
    };
    match path {
        "" => Err(malformed("the path is empty")),
        path if address.starts_with("unix://") && !path.starts_with('/') => Err(malformed(
            "a unix:// address needs three slashes, its path is absolute",
        )),
        path => Ok(PathBuf::from(path)),
    }
}

#[cfg(test)]
mod tests {
    //! Goal: every usual spelling of an address works, and a wrong one says so. Method: a table.
    use super::*;

    #[test]
    fn addresses() {
        for (address, path) in [
            ("unix:///run/fanin/fanin.sock", "/run/fanin/fanin.sock"),
            ("unix:/run/fanin.sock", "/run/fanin.sock"),
            ("/run/fanin.sock", "/run/fanin.sock"),
            ("./fanin.sock", "./fanin.sock"),
            ("unix:fanin.sock", "fanin.sock"),
        ] {
            assert_eq!(socket_path(address).unwrap(), PathBuf::from(path));
        }
        for address in [
            "",
            "unix://",
            "unix:",
            "unix://run/fanin.sock",
            "http://127.0.0.1:80",
        ] {
            let error = socket_path(address).unwrap_err();
            assert!(
                matches!(error, ConnectError::Address { .. }) && !error.is_retryable(),
                "{address}"
            );
        }
    }
}
