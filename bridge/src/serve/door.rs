//! The socket's door: how many connections there may be, of all users and of one, and how long a new one may stay silent.
//!
//! Every connection costs a file and buffers, so their number is bounded, well below the files this process may open. One user
//! gets no more than a share, so that a client that connects without end cannot keep the others, nor `fanin status`, out.

use std::{
    collections::BTreeMap,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::{Stream, stream};
use parking_lot::Mutex;
use rustix::process::{Resource, getrlimit};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{UnixListener, UnixStream},
    time::{Sleep, sleep},
};
use tonic::transport::server::{Connected, UdsConnectInfo};

use super::limits::{
    ACCEPT_PAUSE, CONNECTIONS_MAX, FILES_SHARE, GREETING_BYTES, GREETING_WAIT_MAX, USER_EIGHTHS,
};
use crate::telemetry::{metrics as names, node_codes};

/// What is let in: at most so many connections in all.
pub(super) struct Door {
    max: usize,
    inside: Mutex<Inside>,
}

#[derive(Default)]
struct Inside {
    count: usize,
    by_user: BTreeMap<u32, usize>,
    /// Somebody was turned away, and it was not quiet since: it was told already.
    told: bool,
}

impl Door {
    /// For the files that this process may open.
    pub(super) fn new() -> Arc<Door> {
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let files = usize::try_from(files).unwrap_or(usize::MAX);
        Door::of(CONNECTIONS_MAX.min(files / FILES_SHARE))
    }

    fn of(max: usize) -> Arc<Door> {
        metrics::gauge!(names::CONNECTIONS).set(0.0);
        metrics::counter!(names::CONNECTIONS_REFUSED).increment(0);
        Arc::new(Door {
            max,
            inside: Mutex::default(),
        })
    }

    /// Connections that one user may have.
    fn user_max(&self) -> usize {
        (self.max * USER_EIGHTHS / 8).max(1)
    }

    /// A place for one more connection of this user, if there is one.
    fn enter(self: &Arc<Door>, user: u32) -> Option<Place> {
        let (has, told) = {
            let mut inside = self.inside.lock();
            let has = inside.by_user.get(&user).copied().unwrap_or_default();
            if inside.count < self.max && has < self.user_max() {
                inside.count += 1;
                *inside.by_user.entry(user).or_default() += 1;
                metrics::gauge!(names::CONNECTIONS).set(inside.count as f64);
                return Some(Place {
                    door: Arc::clone(self),
                    user,
                });
            }
            (has, std::mem::replace(&mut inside.told, true))
        };
        metrics::counter!(names::CONNECTIONS_REFUSED).increment(1);
        if !told {
            tracing::warn!(
                code = node_codes::CONNECTIONS_FULL,
                user,
                has,
                user_max = self.user_max(),
                max = self.max,
                "connections to the socket are turned away; this is told again when it had been quiet"
            );
        }
        None
    }

    /// A connection is gone. The next refusal is told again once half of the places are free.
    fn leave(&self, user: u32) {
        let mut inside = self.inside.lock();
        inside.count = inside.count.saturating_sub(1);
        if let Some(has) = inside.by_user.get_mut(&user) {
            *has = has.saturating_sub(1);
            if *has == 0 {
                inside.by_user.remove(&user);
            }
        }
        if inside.count <= self.max / 2 {
            inside.told = false;
        }
        metrics::gauge!(names::CONNECTIONS).set(inside.count as f64);
    }
}

/// The place of one connection, free again when this is dropped.
struct Place {
    door: Arc<Door>,
    user: u32,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.door.leave(self.user);
    }
}

/// The connections that are let in. It goes on whatever `accept` says: a process without files to spare has them again later.
pub(super) fn visitors(
    listener: UnixListener,
    door: Arc<Door>,
) -> impl Stream<Item = Result<Visitor, io::Error>> {
    stream::unfold(
        (listener, door, false),
        |(listener, door, mut failing)| async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        failing = false;
                        // A client that is gone already is nobody's.
                        let Ok(user) = stream.peer_cred().map(|peer| peer.uid()) else {
                            continue;
                        };
                        if let Some(place) = door.enter(user) {
                            return Some((Ok(Visitor::new(stream, place)), (listener, door, failing)));
                        }
                    }
                    Err(error) => {
                        if !std::mem::replace(&mut failing, true) {
                            tracing::warn!(code = node_codes::CONNECTIONS_FULL, %error, "a connection to the socket was not accepted");
                        }
                        sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        },
    )
}

/// A connection that was let in. It ends when the client has not sent a whole HTTP/2 greeting in time; from then on the
/// keep-alive looks after it.
pub(super) struct Visitor {
    stream: UnixStream,
    /// Bytes of the greeting still to come, and until when.
    greeting: Option<(usize, Pin<Box<Sleep>>)>,
    _place: Place,
}

impl Visitor {
    fn new(stream: UnixStream, place: Place) -> Visitor {
        Visitor {
            stream,
            greeting: Some((GREETING_BYTES, Box::pin(sleep(GREETING_WAIT_MAX)))),
            _place: place,
        }
    }
}

impl Connected for Visitor {
    type ConnectInfo = UdsConnectInfo;

    fn connect_info(&self) -> UdsConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Visitor {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let Some((missing, deadline)) = &mut self.greeting else {
            return read;
        };
        *missing = missing.saturating_sub(buffer.filled().len() - before);
        if *missing == 0 {
            self.greeting = None;
        } else if read.is_pending() && deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Visitor {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    //! Goal: no more connections than allowed, in all and of one user; a place comes back with its connection; who says nothing
    //! is shown out. Method: the door with few places; a real socket under paused time.
    use futures_util::StreamExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn places_are_counted_in_all_and_by_user() {
        let door = Door::of(8);
        let mut of_one: Vec<Place> = (0..6).map_while(|_| door.enter(1)).collect();
        assert_eq!((of_one.len(), door.enter(1).is_none()), (6, true));
        assert!(door.inside.lock().told);
        let others: Vec<Place> = [2, 3].into_iter().filter_map(|user| door.enter(user)).collect();
        assert_eq!((others.len(), door.enter(4).is_none()), (2, true));
        of_one.truncate(5);
        let fourth = door.enter(4);
        assert!(fourth.is_some() && door.enter(1).is_none(), "it is full again");
        drop((of_one, others, fourth));
        let inside = door.inside.lock();
        assert_eq!((inside.count, inside.by_user.len(), inside.told), (0, 0, false));
    }

    #[test]
    fn the_files_of_this_process_bound_it() {
        let door = Door::new();
        assert!((1..=CONNECTIONS_MAX).contains(&door.max), "{}", door.max);
        assert_eq!(Door::of(1).user_max(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_silent_are_shown_out_and_the_excess_is_turned_away() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let door = Door::of(2);
        let mut visitors = Box::pin(visitors(listener, Arc::clone(&door)));

        let mut client = UnixStream::connect(&path).await.unwrap();
        client.write_all(&[b'P'; GREETING_BYTES - 1]).await.unwrap();
        let mut silent = visitors.next().await.unwrap().unwrap();
        let mut read = Vec::new();
        let error = silent.read_to_end(&mut read).await.unwrap_err();
        assert_eq!(
            (error.kind(), read.len()),
            (io::ErrorKind::TimedOut, GREETING_BYTES - 1)
        );

        // Two are allowed, and one user may have one of them: the second client is turned away.
        let mut excess = UnixStream::connect(&path).await.unwrap();
        let third = async {
            let turned_away = excess.read_u8().await.is_err();
            drop(silent);
            (turned_away, UnixStream::connect(&path).await.unwrap())
        };
        let (next, (turned_away, mut client)) = tokio::join!(visitors.next(), third);
        assert!(turned_away);

        // Who has greeted may be silent for as long as it likes.
        client.write_all(&[b'P'; GREETING_BYTES]).await.unwrap();
        let mut greeted = next.unwrap().unwrap();
        greeted.read_exact(&mut [0; GREETING_BYTES]).await.unwrap();
        let waited = tokio::time::timeout(10 * GREETING_WAIT_MAX, greeted.read_u8()).await;
        assert!(waited.is_err(), "{waited:?}");
    }
}
