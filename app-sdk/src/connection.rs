//! The task behind a subscription. It owns the bidirectional stream, writes what the application says, takes what the
//! bridge sends, keeps leases alive, and connects again for ever.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use fanin_proto::v1::subscribe_request::Request;
use fanin_proto::v1::subscribe_response::Response;
use fanin_proto::v1::topic_service_client::TopicServiceClient;
use fanin_proto::v1::{Closing, Credit, Open, Opened, SubscribeRequest, SubscribeResponse};
use futures_util::stream::poll_fn;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until, timeout};
use tonic::{Status, Streaming};

use crate::client::Client;
use crate::error::{CloseError, SubscribeError};
use crate::limits::{
    BACKOFF_RESET_AFTER, DECODE_BYTES_MAX, EXTEND_DIVISOR, EXTEND_INTERVAL_MIN, FLUSH_INTERVAL,
    REQUESTS_QUEUED_MAX,
};
use crate::retry::Backoff;
use crate::shared::Shared;
use crate::table::Freed;
use crate::verdicts::{Due, request};

/// Name and version that the bridge sees.
const CLIENT: &str = concat!("fanin-sdk-rust/", env!("CARGO_PKG_VERSION"));

/// What is needed to open the same subscription again and again.
#[derive(Debug)]
pub(crate) struct Connector {
    pub(crate) client: Client,
    pub(crate) topic: String,
    pub(crate) app: String,
    pub(crate) instance: String,
    pub(crate) credit: Freed,
    pub(crate) auto_extend: bool,
}

/// An open stream.
pub(crate) struct Connection {
    requests: mpsc::Sender<SubscribeRequest>,
    responses: Streaming<SubscribeResponse>,
    opened: Opened,
}

impl Connection {
    /// What the bridge said when it opened the stream.
    pub(crate) fn opened(&self) -> &Opened {
        &self.opened
    }
}

impl Connector {
    /// Opens the stream: connection, call and handshake, within the client's time limit.
    pub(crate) async fn open(&self) -> Result<Connection, SubscribeError> {
        let limit = self.client.connect_timeout();
        timeout(limit, self.handshake()).await.unwrap_or_else(|_| {
            Err(SubscribeError::new(
                "Connect",
                format!("the bridge did not answer within {limit:?}"),
                true,
            ))
        })
    }

    async fn handshake(&self) -> Result<Connection, SubscribeError> {
        let channel = self.client.open_channel().await?;
        let (requests, mut receiver) = mpsc::channel(REQUESTS_QUEUED_MAX);
        let open = Open {
            topic: self.topic.clone(),
            app: self.app.clone(),
            instance: self.instance.clone(),
            client: CLIENT.to_owned(),
        };
        let credit = Credit {
            bytes: self.credit.bytes,
            messages: self.credit.messages,
        };
        for first in [Request::Open(open), Request::Credit(credit)] {
            requests
                .send(request(first))
                .await
                .map_err(|_| protocol("the call ended before it began"))?;
        }
        let mut topics = TopicServiceClient::new(channel).max_decoding_message_size(DECODE_BYTES_MAX);
        let call = topics.subscribe(poll_fn(move |cx| receiver.poll_recv(cx))).await;
        let mut responses = call.map_err(SubscribeError::from_status)?.into_inner();
        let first = responses.message().await.map_err(SubscribeError::from_status)?;
        match first.and_then(|first| first.response) {
            Some(Response::Opened(opened)) => Ok(Connection {
                requests,
                responses,
                opened,
            }),
            Some(Response::Closing(closing)) => Err(closed_by_bridge(closing)),
            Some(Response::Deliveries(_) | Response::Confirmed(_) | Response::LeasesLost(_)) => {
                Err(protocol("the bridge's first response was not the opening"))
            }
            None => Err(protocol("the bridge ended the call without a word")),
        }
    }
}

/// Why a conversation ended.
enum End {
    /// Closed in good order, as this side asked.
    Closed,
    /// The time limit of a close was reached.
    TimedOut,
    /// The bridge will not have this subscription.
    Refused(SubscribeError),
    /// Anything that a new connection may cure.
    Lost(SubscribeError),
}

impl From<SubscribeError> for End {
    fn from(error: SubscribeError) -> Self {
        if error.is_retryable() {
            Self::Lost(error)
        } else {
            Self::Refused(error)
        }
    }
}

/// Ends the subscription for its readers however the task ends, a panic or a stopped runtime included.
struct EndGuard(Arc<Shared>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.0.end(None);
    }
}

/// Runs a subscription until it is closed or refused for good.
pub(crate) async fn run(
    connector: Connector,
    shared: Arc<Shared>,
    first: Connection,
) -> Result<(), CloseError> {
    let _ended = EndGuard(Arc::clone(&shared));
    let mut connection = first;
    let mut backoff = Backoff::default();
    loop {
        let started = Instant::now();
        let end = converse(&shared, connection, connector.auto_extend).await;
        let (held, closing) = (shared.held(), shared.close_deadline().is_some());
        shared.lose_session();
        let cause = match end {
            End::Closed => return Ok(()),
            End::TimedOut => return Err(CloseError::TimedOut { held }),
            End::Lost(_) | End::Refused(_) if closing => return Err(CloseError::ConnectionLost { held }),
            End::Refused(error) => {
                shared.end(Some(error));
                return Ok(());
            }
            End::Lost(error) => error,
        };
        tracing::warn!(topic = connector.topic, app = connector.app, held, %cause, "connection lost, reconnecting");
        if started.elapsed() >= BACKOFF_RESET_AFTER {
            backoff.reset();
        }
        connection = tokio::select! {
            biased;
            () = until_closing(&shared) => return Ok(()),
            reopened = reopen(&connector, &mut backoff) => match reopened {
                Ok(connection) => connection,
                Err(error) => {
                    shared.end(Some(error));
                    return Ok(());
                }
            },
        };
        shared.begin_session(connection.opened());
        tracing::info!(topic = connector.topic, app = connector.app, "connected again");
    }
}

/// Tries until the subscription is open again or refused for good.
async fn reopen(connector: &Connector, backoff: &mut Backoff) -> Result<Connection, SubscribeError> {
    loop {
        sleep(backoff.next_delay()).await;
        match connector.open().await {
            Err(error) if error.is_retryable() => {
                tracing::debug!(topic = connector.topic, app = connector.app, %error, "still not connected");
            }
            decided => return decided,
        }
    }
}

async fn until_closing(shared: &Shared) {
    while shared.close_deadline().is_none() {
        shared.changed().await;
    }
}

/// One connection, from its opening to its end.
async fn converse(shared: &Shared, connection: Connection, auto_extend: bool) -> End {
    let Connection {
        requests,
        mut responses,
        opened,
    } = connection;
    let lease = Duration::from_millis(opened.lease_ms);
    let every = (lease / EXTEND_DIVISOR).max(EXTEND_INTERVAL_MIN);
    let mut extensions = interval_at(Instant::now() + every, every);
    extensions.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let auto_extend = auto_extend && !lease.is_zero();

    let mut frames = VecDeque::new();
    let mut writable = true;
    let mut closing_by_bridge = None;
    let mut flushed = Instant::now();
    loop {
        let close_deadline = shared.close_deadline();
        let due = if frames.is_empty() {
            shared.due()
        } else {
            Due::Idle
        };
        if due == Due::Now || due == Due::Soon && flushed.elapsed() >= FLUSH_INTERVAL {
            // Whoever is ready to run may add to this frame.
            tokio::task::yield_now().await;
            shared.take_frames(&mut frames);
            flushed = Instant::now();
            continue;
        }
        tokio::select! {
            biased;
            permit = requests.reserve(), if writable && !frames.is_empty() => match (permit, frames.pop_front()) {
                (Ok(permit), Some(frame)) => permit.send(frame),
                // The call has ended; the response side says why.
                (Ok(_) | Err(_), _) => writable = false,
            },
            response = responses.message() => match response {
                Ok(Some(SubscribeResponse { response: Some(Response::Closing(closing)) })) => {
                    shared.close_by_bridge();
                    closing_by_bridge = Some(closed_by_bridge(closing));
                }
                Ok(Some(response)) => if let Err(fault) = take(shared, response) {
                    return End::Lost(fault);
                },
                Ok(None) => return ended(shared, closing_by_bridge),
                Err(status) => return ended_by(status, closing_by_bridge),
            },
            () = shared.changed() => {}
            () = sleep_until(flushed + FLUSH_INTERVAL), if due == Due::Soon => {}
            _ = extensions.tick(), if auto_extend => shared.extend_held(),
            () = sleep_until(close_deadline.unwrap_or(flushed)), if close_deadline.is_some() => return End::TimedOut,
        }
    }
}

/// Takes a response other than `Closing`.
fn take(shared: &Shared, response: SubscribeResponse) -> Result<(), SubscribeError> {
    match response.response {
        Some(Response::Deliveries(frame)) => shared
            .deliver(frame.deliveries)
            .map_err(|fault| protocol(fault.to_string())),
        Some(Response::Confirmed(confirmed)) => {
            shared.confirm(&confirmed.deliveries);
            Ok(())
        }
        Some(Response::LeasesLost(lost)) => {
            shared.lose_leases(&lost.deliveries);
            Ok(())
        }
        Some(Response::Opened(_)) => Err(protocol("the bridge opened the subscription twice")),
        // A response that a newer bridge added; the contract says the older ones suffice.
        Some(Response::Closing(_)) | None => Ok(()),
    }
}

/// The bridge ended the stream without an error.
fn ended(shared: &Shared, closing_by_bridge: Option<SubscribeError>) -> End {
    let asked = shared.close_deadline().is_some();
    match closing_by_bridge {
        _ if asked && shared.is_settled() => End::Closed,
        Some(error) => error.into(),
        None => End::Lost(SubscribeError::new(
            "Connect",
            "the bridge ended the stream",
            true,
        )),
    }
}

/// The stream failed. What the bridge announced before says more than how the stream then broke.
fn ended_by(status: Status, closing_by_bridge: Option<SubscribeError>) -> End {
    closing_by_bridge
        .unwrap_or_else(|| SubscribeError::from_status(status))
        .into()
}

fn closed_by_bridge(closing: Closing) -> SubscribeError {
    SubscribeError::new(closing.code, closing.reason, closing.retryable)
}

fn protocol(text: impl Into<String>) -> SubscribeError {
    SubscribeError::new("Protocol", text, true)
}
