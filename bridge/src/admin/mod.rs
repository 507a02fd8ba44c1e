//! The admin endpoint: health checks, metrics and status over HTTP, read-only.
//!
//! It is not meant for the open network: bind it to the loopback address or to the pod's.

pub mod health;
pub mod limits;
mod node;
mod page;
mod places;
mod routes;
pub mod status_json;
#[cfg(test)]
mod tests;
mod timeline;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use health::{Check, CheckState, Health};
pub use node::NodeHealth;

use crate::telemetry::metrics::Metrics;
use crate::telemetry::node_codes;
use limits::{ACCEPT_PAUSE, CONNECTION_LIFE_MAX, CONNECTIONS_MAX, HEADER_BYTES_MAX, HEADER_WAIT_MAX};
use places::{Pages, Places};
use timeline::Timeline;

/// The address cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address} for health checks and metrics; change `admin`, or free the port (port 0 takes a free one)"
)]
pub struct BindError {
    /// As configured.
    pub address: SocketAddr,
    /// The system's error.
    pub source: io::Error,
}

impl BindError {
    /// The stable code users can look up.
    #[must_use]
    pub fn code(&self) -> &'static str {
        node_codes::ADMIN_UNBOUND
    }
}

/// A bound address that serves nothing yet.
pub struct AdminServer {
    listener: TcpListener,
    address: SocketAddr,
}

impl AdminServer {
    /// Binds the address. Port 0 takes a free one, see [`AdminServer::address`].
    ///
    /// # Errors
    /// [`BindError`].
    pub async fn bind(address: SocketAddr) -> Result<AdminServer, BindError> {
        let failed = |source| BindError { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(AdminServer { listener, address })
    }

    /// Where it is reached.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`; connections in use are closed then.
    pub async fn serve(self, health: Arc<dyn Health>, metrics: Metrics, stop: CancellationToken) {
        let timeline = Arc::new(Timeline::default());
        let sampling = Arc::clone(&timeline).keep(Arc::clone(&health));
        let sampling = tokio::spawn(stop.clone().run_until_cancelled_owned(sampling));
        let router = routes::router(health, metrics, timeline);
        let places = Places::new(CONNECTIONS_MAX, stop.clone());
        // One more than there are places: nothing is accepted until whoever had to make room is gone.
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX + 1));
        let connections = TaskTracker::new();
        let accepting = async {
            loop {
                // The semaphore is never closed; without a permit nothing would be served.
                let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
                    return;
                };
                match self.listener.accept().await {
                    Ok((stream, _)) => {
                        let place = places.enter();
                        let leave = place.leave();
                        let serving = serve_one(stream, Pages::new(router.clone(), Arc::new(place)));
                        connections.spawn(async move {
                            leave.run_until_cancelled(serving).await;
                            drop(permit);
                        });
                    }
                    Err(error) => {
                        tracing::warn!(code = node_codes::ADMIN_UNBOUND, %error, "a connection to the admin endpoint was not accepted");
                        sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        stop.run_until_cancelled(accepting).await;
        // It ends with `stop`, and has nothing to say.
        let _ = sampling.await;
        connections.close();
        connections.wait().await;
    }
}

async fn serve_one(stream: TcpStream, pages: Pages) {
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_WAIT_MAX)
        .max_buf_size(HEADER_BYTES_MAX);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(pages));
    // A client that went away or spoke nonsense concerns nobody else.
    let _ = timeout(CONNECTION_LIFE_MAX, connection).await;
}
