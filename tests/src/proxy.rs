//! A TCP proxy between bridge and hub that misbehaves on command.
//!
//! The two directions of every connection are [`Link`]s. *Requests* flow from the side that connected (the bridge) to
//! the target (the hub), *replies* the other way.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::limits::{PROXY_CHUNK_BYTES, PROXY_CHUNKS_MAX};

const REBIND_PAUSE: Duration = Duration::from_millis(5);

/// How one direction treats its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Bytes arrive this much later than they were sent.
    Flow {
        /// The delay.
        delay: Duration,
    },
    /// Bytes wait and arrive when the link flows again, as after a network partition that heals.
    Stall,
    /// Bytes vanish. A connection that lost some is closed as soon as the link changes.
    Swallow,
}

const DIRECT: Link = Link::Flow {
    delay: Duration::ZERO,
};

#[derive(Clone, Copy, Debug)]
struct State {
    accepting: bool,
    requests: Link,
    replies: Link,
    /// Connections made before this count changed are closed.
    cuts: u64,
}

/// A running proxy; it ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    state: watch::Sender<State>,
    listening: watch::Receiver<bool>,
    used: Arc<Used>,
    running: CancellationToken,
}

/// Who uses a proxy.
#[derive(Debug, Default)]
struct Used {
    accepted: AtomicU64,
    open: AtomicU64,
    /// Whether there was a connection when the proxy was told to misbehave, or one came since.
    met: AtomicBool,
}

/// A connection; dropping it ends that.
struct Connection(Arc<Used>);

impl Connection {
    fn new(used: &Arc<Used>) -> Self {
        used.accepted.fetch_add(1, Ordering::Relaxed);
        used.open.fetch_add(1, Ordering::Relaxed);
        used.met.store(true, Ordering::Relaxed);
        Self(used.clone())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Proxy {
    /// Starts a proxy to 127.0.0.1:`target_port` that passes everything.
    pub async fn start(target_port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, fanin_localhub::free_port()?)).await?;
        let address = listener.local_addr()?;
        let (state, states) = watch::channel(State {
            accepting: true,
            requests: DIRECT,
            replies: DIRECT,
            cuts: 0,
        });
        let (listens, listening) = watch::channel(true);
        let used = Arc::new(Used::default());
        let running = CancellationToken::new();
        let door = Door {
            address,
            target_port,
            states,
            listens,
            used: used.clone(),
            running: running.clone(),
        };
        tokio::spawn(running.clone().run_until_cancelled_owned(door.run(listener)));
        Ok(Self {
            address,
            state,
            listening,
            used,
            running,
        })
    }

    /// Where it listens, as a NATS URL.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.used.accepted.load(Ordering::Relaxed)
    }

    /// Whether what it was told last met a connection: one that was there, or one that came since. Attempts that it refuses are none.
    pub fn has_met_one(&self) -> bool {
        self.used.met.load(Ordering::Relaxed)
    }

    /// Accepts connections and passes everything at once. Returns when it listens.
    pub async fn pass(&self) {
        self.set(|state| (state.accepting, state.requests, state.replies) = (true, DIRECT, DIRECT));
        self.listens(true).await;
    }

    /// Closes every connection there is. New ones are accepted unless refused.
    pub fn cut(&self) {
        self.set(|state| state.cuts += 1);
    }

    /// Closes every connection and listens no more, so that new ones are refused. Returns when that is so.
    pub async fn refuse(&self) {
        self.set(|state| (state.accepting, state.cuts) = (false, state.cuts + 1));
        self.listens(false).await;
    }

    /// Accepts connections and lets everything vanish, in both directions.
    pub fn blackhole(&self) {
        self.links(Link::Swallow, Link::Swallow);
    }

    /// Holds everything back, in both directions.
    pub fn stall(&self) {
        self.links(Link::Stall, Link::Stall);
    }

    /// Delays everything by `delay` in each direction.
    pub fn delay(&self, delay: Duration) {
        self.links(Link::Flow { delay }, Link::Flow { delay });
    }

    /// Sets both directions.
    pub fn links(&self, requests: Link, replies: Link) {
        self.set(|state| (state.requests, state.replies) = (requests, replies));
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        let is_open = self.used.open.load(Ordering::Relaxed) > 0;
        self.used.met.store(is_open, Ordering::Relaxed);
        self.state.send_modify(change);
    }

    async fn listens(&self, wanted: bool) {
        // An error means that the task is gone, which only happens at the end of the runtime.
        let _ = self
            .listening
            .clone()
            .wait_for(|listens| *listens == wanted)
            .await;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.running.cancel();
    }
}

/// The accepting side.
struct Door {
    address: SocketAddr,
    target_port: u16,
    states: watch::Receiver<State>,
    listens: watch::Sender<bool>,
    used: Arc<Used>,
    running: CancellationToken,
}

impl Door {
    async fn run(mut self, listener: TcpListener) {
        let mut listener = Some(listener);
        loop {
            if !self.states.borrow_and_update().accepting {
                listener = None;
                self.listens.send_replace(false);
                if self.states.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let Some(open) = &listener else {
                match TcpListener::bind(self.address).await {
                    Ok(bound) => {
                        listener = Some(bound);
                        self.listens.send_replace(true);
                    }
                    Err(_) => tokio::time::sleep(REBIND_PAUSE).await,
                }
                continue;
            };
            tokio::select! {
                changed = self.states.changed() => if changed.is_err() { return },
                stream = open.accept() => if let Ok((stream, _)) = stream {
                    let connection = Connection::new(&self.used);
                    let served = serve(stream, connection, self.target_port, self.states.clone());
                    tokio::spawn(self.running.clone().run_until_cancelled_owned(served));
                },
            }
        }
    }
}

/// Serves one connection until an end closes it, it is cut, or it cannot go on after bytes were swallowed.
async fn serve(near: TcpStream, _counted: Connection, target_port: u16, mut states: watch::Receiver<State>) {
    let cuts = states.borrow().cuts;
    let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, target_port)).await else {
        return;
    };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let requests = pump(near_read, far_write, states.clone(), |state| state.requests);
    let replies = pump(far_read, near_write, states.clone(), |state| state.replies);
    tokio::select! {
        // Both directions came to a regular end, or one of them was ruined.
        _ = async { tokio::try_join!(requests, replies) } => {}
        _ = states.wait_for(|state| state.cuts != cuts) => {}
    }
}

/// The connection cannot go on.
struct Ruined;

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut states: watch::Receiver<State>,
    link_of: fn(&State) -> Link,
) -> Result<(), Ruined> {
    let (send, mut chunks) = mpsc::channel::<(Instant, Vec<u8>)>(PROXY_CHUNKS_MAX);
    let read = async move {
        let mut buffer = vec![0; PROXY_CHUNK_BYTES];
        loop {
            let length = from.read(&mut buffer).await.map_err(|_| Ruined)?;
            let Some(chunk) = buffer.get(..length).filter(|chunk| !chunk.is_empty()) else {
                return Ok(());
            };
            send.send((Instant::now(), chunk.to_vec()))
                .await
                .map_err(|_| Ruined)?;
        }
    };
    let write = async move {
        loop {
            let chunk = chunks.recv().await;
            let mut lost = false;
            // The link is asked again after each wait, as it may have changed meanwhile.
            loop {
                let link = link_of(&states.borrow_and_update());
                match link {
                    Link::Swallow if chunk.is_some() => {
                        lost = true;
                        break;
                    }
                    // The end of the stream vanishes as well: the other side must not learn of it.
                    Link::Stall | Link::Swallow => states.changed().await.map_err(|_| Ruined)?,
                    Link::Flow { delay } => {
                        let due = chunk
                            .as_ref()
                            .map_or_else(Instant::now, |(sent, _)| *sent + delay);
                        if due <= Instant::now() {
                            break;
                        }
                        tokio::select! {
                            () = tokio::time::sleep_until(due) => {}
                            changed = states.changed() => changed.map_err(|_| Ruined)?,
                        }
                    }
                }
            }
            if lost {
                swallow_all(&mut chunks, &mut states, link_of).await?;
                return Err(Ruined);
            }
            match chunk {
                Some((_, bytes)) => to.write_all(&bytes).await.map_err(|_| Ruined)?,
                None => return to.shutdown().await.map_err(|_| Ruined),
            }
        }
    };
    tokio::try_join!(read, write).map(|_| ())
}

/// Lets everything vanish until the link changes.
async fn swallow_all(
    chunks: &mut mpsc::Receiver<(Instant, Vec<u8>)>,
    states: &mut watch::Receiver<State>,
    link_of: fn(&State) -> Link,
) -> Result<(), Ruined> {
    let drained = async {
        while chunks.recv().await.is_some() {}
        // The other side closed; nobody is told as long as the link swallows.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = drained => Ok(()),
        changed = states.wait_for(|state| link_of(state) != Link::Swallow) => changed.map(|_| ()).map_err(|_| Ruined),
    }
}

#[cfg(test)]
mod tests {
    // Goal: every fault does what its name says. Method: an echo server behind the proxy, real sockets, and a peer that
    // sees only bytes, silence or an end.
    use super::*;
    use crate::wait::eventually;

    const SOON: Duration = Duration::from_millis(150);
    const LONG: Duration = Duration::from_secs(10);

    async fn echo() -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.into_split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
        port
    }

    async fn exchange(stream: &mut TcpStream, text: &[u8]) -> io::Result<Vec<u8>> {
        stream.write_all(text).await?;
        read_exact(stream, text.len()).await
    }

    async fn read_exact(stream: &mut TcpStream, length: usize) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; length];
        stream.read_exact(&mut buffer).await?;
        Ok(buffer)
    }

    #[tokio::test]
    async fn it_passes_cuts_and_refuses() {
        let proxy = Proxy::start(echo().await).await.unwrap();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(exchange(&mut stream, b"one").await.unwrap(), b"one");
        proxy.cut();
        assert!(
            tokio::time::timeout(LONG, read_exact(&mut stream, 1))
                .await
                .unwrap()
                .is_err()
        );
        let mut second = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(exchange(&mut second, b"two").await.unwrap(), b"two");
        assert_eq!(proxy.accepted(), 2);
        proxy.refuse().await;
        assert!(proxy.has_met_one());
        assert!(TcpStream::connect(proxy.address()).await.is_err());
        assert!(
            tokio::time::timeout(LONG, read_exact(&mut second, 1))
                .await
                .unwrap()
                .is_err()
        );
        proxy.pass().await;
        let mut third = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(exchange(&mut third, b"three").await.unwrap(), b"three");
        drop(third);
        eventually(LONG, "the connection's end to be noticed", || async {
            proxy.stall();
            let has_met_one = proxy.has_met_one();
            // A line that is held back does not see that its end is gone.
            proxy.pass().await;
            !has_met_one
        })
        .await;
        proxy.stall();
        assert!(!proxy.has_met_one());
        let _fourth = TcpStream::connect(proxy.address()).await.unwrap();
        eventually(LONG, "a connection to be met", || async { proxy.has_met_one() }).await;
    }

    #[tokio::test]
    async fn a_stall_holds_bytes_back_and_loses_none() {
        let proxy = Proxy::start(echo().await).await.unwrap();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(exchange(&mut stream, b"one").await.unwrap(), b"one");
        proxy.stall();
        assert!(
            tokio::time::timeout(SOON, exchange(&mut stream, b"two"))
                .await
                .is_err()
        );
        proxy.pass().await;
        assert_eq!(
            tokio::time::timeout(LONG, read_exact(&mut stream, 3))
                .await
                .unwrap()
                .unwrap(),
            b"two"
        );
    }

    #[tokio::test]
    async fn what_is_swallowed_is_gone_and_its_connection_ends_with_it() {
        let proxy = Proxy::start(echo().await).await.unwrap();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(exchange(&mut stream, b"one").await.unwrap(), b"one");
        proxy.links(DIRECT, Link::Swallow);
        assert!(
            tokio::time::timeout(SOON, exchange(&mut stream, b"two"))
                .await
                .is_err()
        );
        proxy.pass().await;
        assert!(
            tokio::time::timeout(LONG, read_exact(&mut stream, 1))
                .await
                .unwrap()
                .is_err()
        );
    }

    #[tokio::test]
    async fn a_delay_counts_per_direction_and_keeps_order() {
        let proxy = Proxy::start(echo().await).await.unwrap();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        proxy.delay(Duration::from_millis(40));
        let start = Instant::now();
        for text in [b"one", b"two", b"six"] {
            stream.write_all(text).await.unwrap();
        }
        assert_eq!(read_exact(&mut stream, 9).await.unwrap(), b"onetwosix");
        assert!(
            start.elapsed() >= Duration::from_millis(80),
            "{:?}",
            start.elapsed()
        );
    }

    #[tokio::test]
    async fn an_end_passes_through_and_the_proxy_ends_with_its_value() {
        let proxy = Proxy::start(echo().await).await.unwrap();
        let address = proxy.address();
        let mut stream = TcpStream::connect(address).await.unwrap();
        assert_eq!(exchange(&mut stream, b"one").await.unwrap(), b"one");
        stream.shutdown().await.unwrap();
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
        drop(proxy);
        eventually(LONG, "the port to be closed", || async {
            TcpStream::connect(address).await.is_err()
        })
        .await;
    }
}
