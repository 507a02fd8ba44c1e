//! One connection to the hub: it comes back by itself, says where it stands, and refuses to queue while it is away.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, Event, HeaderMap, Message, Request, RequestErrorKind, ServerError, Subscriber};
use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::{Notify, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::api::ApiError;
use crate::away::Away;
use crate::codes;
use crate::limits;
use crate::options::{HubOptions, prepare};
use crate::reply::AckSubject;

mod error;

pub use error::ConnectError;

/// Where a connection stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionState {
    /// True while a server is connected and logged in.
    pub connected: bool,
    /// Grows by one with each connect and reconnect; 0 before the first. What was learnt or sent under another
    /// generation must be verified again.
    pub generation: u64,
    /// The server announced that it will close; the client moves on by itself.
    pub lame_duck: bool,
    /// The connected server's name; the last one while disconnected.
    pub server: String,
    /// The connected server's version.
    pub version: String,
    /// The largest message the server takes, headers included, bytes.
    pub max_payload: usize,
    /// The last error the server or the client library reported, for people.
    pub last_error: Option<String>,
    /// Why no server is connected, once an attempt has failed; `None` while one is.
    pub away: Option<Away>,
}

impl ConnectionState {
    /// Why no server is connected, with the code of that and the cure in the text; `None` while one is.
    #[must_use]
    pub fn why_away(&self) -> Option<(&'static str, String)> {
        if self.connected {
            return None;
        }
        Some(match (&self.away, &self.last_error) {
            (Some(away), _) => (away.code(), away.to_string()),
            (None, Some(error)) => (codes::HUB_UNREACHABLE, error.clone()),
            (None, None) => (codes::HUB_UNREACHABLE, "no server answered yet".to_owned()),
        })
    }
}

/// Permission violations seen lately; the hub reports them apart from the request they belong to.
#[derive(Debug, Default)]
struct Denied {
    count: u64,
    recent: VecDeque<(u64, String)>,
}

impl Denied {
    fn push(&mut self, subject: String) {
        self.count += 1;
        self.recent.push_back((self.count, subject));
        if self.recent.len() > limits::DENIED_REMEMBERED {
            self.recent.pop_front();
        }
    }

    fn since(&self, mark: u64, subject: &str) -> bool {
        self.recent
            .iter()
            .any(|(n, denied)| *n > mark && denied == subject)
    }
}

/// What the client library's events are noted in. Holds no client, so that it does not keep one alive.
struct Notes {
    state: watch::Sender<ConnectionState>,
    denied: watch::Sender<Denied>,
    wake: Notify,
    ended: AtomicBool,
}

/// Lives in the library's event task and so ends with it.
struct ClientEnd(Arc<Notes>);

impl Drop for ClientEnd {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Release);
        self.0.state.send_modify(|s| s.connected = false);
        self.0.wake.notify_one();
    }
}

struct Inner {
    client: Arc<RwLock<Client>>,
    state: watch::Receiver<ConnectionState>,
    denied: watch::Receiver<Denied>,
    api_prefix: String,
    _keeper: AbortOnDropHandle<()>,
}

/// A connection to the hub; clones share it. It ends when the last clone is dropped.
#[derive(Clone)]
pub struct Connection {
    inner: Arc<Inner>,
}

impl Connection {
    /// Connects.
    ///
    /// With `wait_for_hub` it returns at once, see [`Connection::wait_connected`]; otherwise a server must answer, let us
    /// in, and have JetStream.
    ///
    /// # Errors
    /// [`ConnectError`]; files are read and addresses parsed in either case.
    pub async fn connect(options: HubOptions) -> Result<Connection, ConnectError> {
        let (state_tx, state) = watch::channel(ConnectionState::default());
        let (denied_tx, denied) = watch::channel(Denied::default());
        let notes = Arc::new(Notes {
            state: state_tx,
            denied: denied_tx,
            wake: Notify::new(),
            ended: AtomicBool::new(false),
        });
        let client = Arc::new(RwLock::new(start_client(&options, &notes).await?));
        let keeper = tokio::spawn(keep(Arc::clone(&client), notes, options.clone()));
        let api_prefix = options
            .domain
            .as_ref()
            .map_or_else(|| "$JS.API".to_owned(), |domain| format!("$JS.{domain}.API"));
        let connection = Connection {
            inner: Arc::new(Inner {
                client,
                state,
                denied,
                api_prefix,
                _keeper: AbortOnDropHandle::new(keeper),
            }),
        };
        if !options.wait_for_hub {
            connection.wait_connected().await;
            connection.check_jetstream(limits::JETSTREAM_START_WAIT).await?;
        }
        Ok(connection)
    }

    fn client(&self) -> Client {
        self.inner.client.read().clone()
    }

    /// Where the connection stands now.
    #[must_use]
    pub fn state(&self) -> ConnectionState {
        let mut state = self.inner.state.borrow().clone();
        state.connected &= self.inner.client.read().connection_state() == State::Connected;
        state
    }

    /// Follows the state; the value changes with every connect, disconnect and reported error.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<ConnectionState> {
        self.inner.state.clone()
    }

    /// The current generation, `None` while disconnected.
    #[must_use]
    pub fn generation(&self) -> Option<u64> {
        if self.inner.client.read().connection_state() != State::Connected {
            return None;
        }
        let state = self.inner.state.borrow();
        (state.connected && state.generation > 0).then_some(state.generation)
    }

    /// Waits until a server is connected and its facts are known. Cancel safe.
    pub async fn wait_connected(&self) -> ConnectionState {
        let mut state = self.inner.state.clone();
        loop {
            let Ok(now) = state
                .wait_for(|s| s.connected && !s.version.is_empty())
                .await
                .map(|s| s.clone())
            else {
                // The sender lives as long as this connection; without it no server will ever be connected.
                return std::future::pending().await;
            };
            if self.generation().is_some() {
                return now;
            }
            // The library knows of a loss a moment before its event arrives here.
            tokio::time::sleep(limits::STATE_SETTLES).await;
        }
    }

    /// Waits until the connection of this generation is gone. Cancel safe.
    pub async fn lost(&self, generation: u64) {
        let mut state = self.inner.state.clone();
        // A closed channel means the client ended, which is a loss as well.
        let _ = state
            .wait_for(|s| !s.connected || s.generation != generation)
            .await
            .map(drop);
    }

    /// Asks the hub for account information until it answers or `wait` is over.
    ///
    /// # Errors
    /// [`ConnectError::HubWithoutJetStream`].
    pub async fn check_jetstream(&self, wait: Duration) -> Result<(), ConnectError> {
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            let source = match self.api::<serde_json::Value>("INFO", &()).await {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            // A server that has just started answers before its JetStream does.
            if !source.retryable() || tokio::time::Instant::now() >= deadline {
                return Err(ConnectError::HubWithoutJetStream {
                    server: self.state().server,
                    source,
                });
            }
            tokio::time::sleep(limits::TAIL_PAUSE_FIRST).await;
        }
    }

    /// One request and its reply. It fails at once while disconnected, when the connection is lost on the way, and when
    /// the hub denies the subject; a request that failed may still have reached the hub.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn request(
        &self,
        subject: &str,
        headers: Option<HeaderMap>,
        payload: Bytes,
        wait: Duration,
    ) -> Result<Message, ApiError> {
        let generation = self.generation().ok_or(ApiError::Disconnected)?;
        let mut denied = self.inner.denied.clone();
        let mark = denied.borrow_and_update().count;
        let mut request = Request::new().payload(payload).timeout(Some(wait));
        if let Some(headers) = headers {
            request = request.headers(headers);
        }
        let client = self.client();
        let answer = client.send_request(subject.to_owned(), request);
        let was_denied = async {
            if denied.wait_for(|d| d.since(mark, subject)).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            answer = answer => answer.map_err(|error| match error.kind() {
                RequestErrorKind::TimedOut => ApiError::Timeout {
                    subject: subject.to_owned(),
                    after_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
                },
                RequestErrorKind::NoResponders => ApiError::NoResponders { subject: subject.to_owned() },
                RequestErrorKind::MaxPayloadExceeded => {
                    ApiError::TooLarge { max_bytes: client.max_payload() }
                }
                RequestErrorKind::InvalidSubject => ApiError::BadSubject { subject: subject.to_owned() },
                RequestErrorKind::Other => ApiError::ClientGone,
            }),
            () = self.lost(generation) => Err(ApiError::Disconnected),
            () = was_denied => Err(ApiError::PermissionDenied { subject: subject.to_owned() }),
        }
    }

    /// Sends one body to many subjects without replies. Returning `Ok` only means that the client library has them.
    pub(crate) async fn send_to_all(&self, subjects: &[AckSubject], body: &Bytes) -> Result<(), ApiError> {
        let generation = self.generation().ok_or(ApiError::Disconnected)?;
        let client = self.client();
        let all = async {
            for subject in subjects {
                client
                    .publish(subject.0.clone(), body.clone())
                    .await
                    .map_err(|_| ApiError::ClientGone)?;
            }
            Ok(())
        };
        tokio::select! {
            biased;
            sent = all => sent,
            () = self.lost(generation) => Err(ApiError::Disconnected),
        }
    }

    pub(crate) async fn send_with_reply(
        &self,
        subject: &str,
        reply: String,
        payload: Bytes,
    ) -> Result<(), ApiError> {
        let generation = self.generation().ok_or(ApiError::Disconnected)?;
        let client = self.client();
        tokio::select! {
            biased;
            sent = client.publish_with_reply(subject.to_owned(), reply, payload) => {
                sent.map_err(|_| ApiError::ClientGone)
            }
            () = self.lost(generation) => Err(ApiError::Disconnected),
        }
    }

    pub(crate) async fn subscribe(&self, subject: String) -> Result<Subscriber, ApiError> {
        self.client()
            .subscribe(subject)
            .await
            .map_err(|_| ApiError::ClientGone)
    }

    pub(crate) fn new_inbox(&self) -> String {
        self.inner.client.read().new_inbox()
    }

    pub(crate) fn max_payload(&self) -> usize {
        self.inner.client.read().max_payload()
    }

    pub(crate) fn api_prefix(&self) -> &str {
        &self.inner.api_prefix
    }
}

async fn start_client(options: &HubOptions, notes: &Arc<Notes>) -> Result<Client, ConnectError> {
    let (nats, servers) = prepare(options).await?;
    let end = ClientEnd(Arc::clone(notes));
    let nats = nats.event_callback(move |event| {
        note(&end.0, event);
        std::future::ready(())
    });
    // Called before each attempt; the choice of the server is left to the library.
    let notes = Arc::clone(notes);
    let nats = nats.reconnect_to_server_callback(move |servers, _| {
        if let Some(away) = Away::of_pool(&servers) {
            notes.state.send_if_modified(|s| {
                let is_new = s.away.as_ref() != Some(&away);
                s.away = Some(away);
                is_new
            });
        }
        std::future::ready(None)
    });
    nats.connect(servers).await.map_err(ConnectError::of_client)
}

/// Applies one event of the client library. Runs inside the library's event task, so it must not wait.
fn note(notes: &Notes, event: Event) {
    let state = &notes.state;
    match event {
        Event::Connected => state.send_modify(|s| {
            s.connected = true;
            s.lame_duck = false;
            s.away = None;
            s.generation += 1;
            // Filled in again once the new server's greeting has been taken over.
            s.version.clear();
        }),
        Event::Disconnected | Event::Closed => state.send_modify(|s| s.connected = false),
        Event::LameDuckMode => state.send_modify(|s| s.lame_duck = true),
        Event::Draining => {}
        Event::SlowConsumer(_) => state.send_modify(|s| {
            s.last_error = Some("a subscription was full and the client dropped messages".to_owned());
        }),
        Event::ServerError(error) => {
            if let ServerError::Other(text) = &error
                && let Some(subject) = denied_subject(text)
            {
                notes.denied.send_modify(|d| d.push(subject));
            }
            state.send_modify(|s| {
                s.last_error = Some(error.to_string());
                if let Some(away) = Away::of_server(&error) {
                    s.away = Some(away);
                }
            });
        }
        Event::ClientError(error) => state.send_modify(|s| {
            s.last_error = Some(error.to_string());
            // What a server of the pool said tells more.
            let is_told = s.away.as_ref().is_some_and(|away| !away.server.is_empty());
            if !s.connected && !is_told {
                s.away = Away::of_attempt(&error).or(s.away.take());
            }
        }),
    }
    notes.wake.notify_one();
}

/// The subject in `Permissions Violation for Publish to "a.b"`.
fn denied_subject(text: &str) -> Option<String> {
    if !text.to_lowercase().contains("permissions violation") {
        return None;
    }
    let mut quoted = text.split('"');
    quoted.nth(1).map(str::to_owned)
}

/// Looks after the client for as long as the connection lives.
///
/// After each connect it takes over the server's name, version and limits: the event comes before the library has stored
/// the greeting, but a flush is answered after it. And it replaces a client that ended: a message whose headers the
/// library cannot read (a lone carriage return in a value) makes its task panic, and no publisher of a foreign message
/// may end the bridge.
async fn keep(client: Arc<RwLock<Client>>, notes: Arc<Notes>, options: HubOptions) {
    let options = HubOptions {
        wait_for_hub: true,
        ..options
    };
    loop {
        notes.wake.notified().await;
        if notes.ended.swap(false, Ordering::AcqRel) {
            tracing::warn!(
                code = codes::CLIENT_ENDED,
                connection = options.client_name,
                "the client library ended, perhaps at a message it cannot read; connecting anew"
            );
            replace_client(&client, &notes, &options).await;
        }
        let before = notes.state.borrow().clone();
        if !before.connected || !before.version.is_empty() {
            continue;
        }
        let current = client.read().clone();
        let flushed = tokio::time::timeout(limits::CONNECT_TIMEOUT, current.flush()).await;
        if !matches!(flushed, Ok(Ok(()))) {
            continue;
        }
        let Some(info) = current.try_server_info() else {
            continue;
        };
        tracing::info!(server = %info.server_name, version = %info.version, connection = options.client_name, "connected to the hub");
        notes.state.send_modify(|s| {
            if s.generation == before.generation {
                s.server = info.server_name;
                s.version = info.version;
                s.max_payload = info.max_payload;
            }
        });
    }
}

async fn replace_client(client: &RwLock<Client>, notes: &Arc<Notes>, options: &HubOptions) {
    loop {
        // A pause first: whatever ended the last client may end the next one at once.
        tokio::time::sleep(limits::CLIENT_REPLACE_PAUSE).await;
        match start_client(options, notes).await {
            Ok(new) => {
                *client.write() = new;
                return;
            }
            Err(error) => {
                // A client that was never made also leaves its mark.
                notes.ended.store(false, Ordering::Release);
                notes
                    .state
                    .send_modify(|s| s.last_error = Some(error.to_string()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: events change the state as documented. Method: feed events to the pure part.
    use async_nats::ClientError;

    use super::*;
    use crate::away::AwayKind;

    #[test]
    fn events() {
        let (state, _keep) = watch::channel(ConnectionState::default());
        let (denied, _keep2) = watch::channel(Denied::default());
        let notes = Notes {
            state,
            denied,
            wake: Notify::new(),
            ended: AtomicBool::new(false),
        };
        let at = || (notes.state.borrow().connected, notes.state.borrow().generation);
        note(&notes, Event::Connected);
        note(&notes, Event::Disconnected);
        assert_eq!(at(), (false, 1));
        note(&notes, Event::Connected);
        assert_eq!(at(), (true, 2));
        let text = "Permissions Violation for Publish to \"$JS.API.INFO\"".to_owned();
        note(&notes, Event::ServerError(ServerError::Other(text)));
        let denied = notes.denied.borrow();
        assert!(
            denied.since(0, "$JS.API.INFO") && !denied.since(1, "$JS.API.INFO") && !denied.since(0, "other")
        );
    }

    #[test]
    fn the_reason_of_an_absence_goes_with_it() {
        let (state, _keep) = watch::channel(ConnectionState::default());
        let (denied, _keep2) = watch::channel(Denied::default());
        let notes = Notes {
            state,
            denied,
            wake: Notify::new(),
            ended: AtomicBool::new(false),
        };
        let kind = || notes.state.borrow().away.as_ref().map(|away| away.kind);
        let failed = |text: &str| note(&notes, Event::ClientError(ClientError::Other(text.to_owned())));
        failed("IO error");
        assert_eq!(kind(), Some(AwayKind::Unreachable));
        failed("authorization violation");
        assert_eq!(kind(), Some(AwayKind::LoginRefused));
        note(&notes, Event::Connected);
        assert_eq!(kind(), None);
        failed("IO error");
        assert_eq!(kind(), None, "a server is connected");
    }

    #[test]
    fn denials_are_bounded() {
        let mut denied = Denied::default();
        for n in 0..1000 {
            denied.push(n.to_string());
        }
        assert_eq!(denied.recent.len(), limits::DENIED_REMEMBERED);
    }
}
