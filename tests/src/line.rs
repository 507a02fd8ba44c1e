//! A line between a bridge and its hub on which single requests are changed and replies are held back, by the bytes they hold.
//!
//! A hub may answer a read from an older state, or die in the middle of a long answer. Here a test says in which request and
//! where in the answer. What is matched lies within one protocol message; it is found wherever the network cuts the stream.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::limits::PROXY_CHUNK_BYTES;

/// The next `left` occurrences of `find` in requests become `with`.
#[derive(Clone, Debug)]
struct Rewrite {
    find: String,
    with: String,
    left: u64,
}

/// Replies pass up to the `left`-th occurrence of `text` from now on, which does not.
#[derive(Clone, Debug)]
struct Hold {
    text: String,
    left: u64,
}

#[derive(Clone, Debug, Default)]
struct State {
    /// The first one is in force until it is used up.
    rewrites: VecDeque<Rewrite>,
    hold: Option<Hold>,
}

/// A running line; it ends when dropped, with its connections.
#[derive(Debug)]
pub struct Line {
    address: SocketAddr,
    state: watch::Sender<State>,
    running: CancellationToken,
}

impl Line {
    /// Starts a line to 127.0.0.1:`target_port` that passes everything.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(target_port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let state = watch::Sender::new(State::default());
        let running = CancellationToken::new();
        let (states, ends) = (state.clone(), running.clone());
        let accept = async move {
            while let Ok((near, _)) = listener.accept().await {
                let served = serve(near, target_port, states.clone());
                tokio::spawn(ends.clone().run_until_cancelled_owned(served));
            }
        };
        tokio::spawn(running.clone().run_until_cancelled_owned(accept));
        Ok(Self {
            address,
            state,
            running,
        })
    }

    /// Where it listens, as a NATS URL.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Replaces the next `times` occurrences of `find` in requests, counted over all connections; behind what earlier calls
    /// asked for.
    ///
    /// # Panics
    /// When the two texts have different lengths: a request announces its length.
    pub fn rewrite(&self, find: &str, with: &str, times: u64) {
        assert_eq!(find.len(), with.len(), "{find} and {with}");
        let rewrite = Rewrite {
            find: find.to_owned(),
            with: with.to_owned(),
            left: times,
        };
        self.state.send_modify(|state| state.rewrites.push_back(rewrite));
    }

    /// How many replacements asked for have not happened yet.
    pub fn rewrites_left(&self) -> u64 {
        self.state
            .borrow()
            .rewrites
            .iter()
            .map(|rewrite| rewrite.left)
            .sum()
    }

    /// Passes requests as they are from now on.
    pub fn stop_rewriting(&self) {
        self.state.send_modify(|state| state.rewrites.clear());
    }

    /// Lets replies pass up to the `nth` occurrence of `text` (from 1), counted over all connections; then none passes until
    /// [`Self::release`].
    pub fn hold_replies_at(&self, text: &str, nth: u64) {
        let hold = Hold {
            text: text.to_owned(),
            left: nth.max(1),
        };
        self.state.send_modify(|state| state.hold = Some(hold));
    }

    /// Lets replies pass again.
    pub fn release(&self) {
        self.state.send_modify(|state| state.hold = None);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.running.cancel();
    }
}

impl State {
    /// Rewrites what arrived and says how much of it may go on; the rest may be the beginning of a match.
    fn rewrite(&mut self, bytes: &mut [u8]) -> usize {
        let mut at = 0;
        while let Some(rule) = self.rewrites.front_mut() {
            let Some(found) = find(bytes.get(at..).unwrap_or_default(), rule.find.as_bytes()) else {
                return bytes.len() - beginning_at_end(bytes, rule.find.as_bytes());
            };
            let end = at + found + rule.with.len();
            if let Some(place) = bytes.get_mut(at + found..end) {
                place.copy_from_slice(rule.with.as_bytes());
            }
            at = end;
            rule.left -= 1;
            if rule.left == 0 {
                self.rewrites.pop_front();
            }
        }
        bytes.len()
    }

    /// How much of what arrived may pass, and whether nothing may behind that.
    fn pass(&mut self, bytes: &[u8]) -> (usize, bool) {
        let Some(hold) = &mut self.hold else {
            return (bytes.len(), false);
        };
        let mut at = 0;
        while hold.left > 0 {
            let Some(found) = find(bytes.get(at..).unwrap_or_default(), hold.text.as_bytes()) else {
                let rest = bytes.get(at..).unwrap_or_default();
                return (bytes.len() - beginning_at_end(rest, hold.text.as_bytes()), false);
            };
            hold.left -= 1;
            at += found + if hold.left == 0 { 0 } else { hold.text.len() };
        }
        (at, true)
    }
}

fn find(bytes: &[u8], text: &[u8]) -> Option<usize> {
    bytes.windows(text.len().max(1)).position(|window| window == text)
}

/// Length of the longest end of `bytes` with which `text` begins, without being all of it.
fn beginning_at_end(bytes: &[u8], text: &[u8]) -> usize {
    let longest = bytes.len().min(text.len().saturating_sub(1));
    (1..=longest)
        .rev()
        .find(|length| bytes.ends_with(text.get(..*length).unwrap_or_default()))
        .unwrap_or(0)
}

/// Serves one connection until an end closes it.
async fn serve(near: TcpStream, target_port: u16, state: watch::Sender<State>) {
    let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, target_port)).await else {
        return;
    };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    tokio::select! {
        _ = requests(near_read, far_write, &state) => {}
        _ = replies(far_read, near_write, &state) => {}
    }
}

async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: &watch::Sender<State>,
) -> io::Result<()> {
    let mut waiting = Vec::with_capacity(PROXY_CHUNK_BYTES);
    while from.read_buf(&mut waiting).await? > 0 {
        let mut ready = 0;
        state.send_if_modified(|state| {
            ready = state.rewrite(&mut waiting);
            false
        });
        to.write_all(waiting.get(..ready).unwrap_or_default()).await?;
        waiting.drain(..ready);
    }
    Ok(())
}

async fn replies(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: &watch::Sender<State>,
) -> io::Result<()> {
    let mut waiting = Vec::with_capacity(PROXY_CHUNK_BYTES);
    let mut released = state.subscribe();
    while from.read_buf(&mut waiting).await? > 0 {
        loop {
            let (mut ready, mut held) = (0, false);
            state.send_if_modified(|state| {
                (ready, held) = state.pass(&waiting);
                false
            });
            to.write_all(waiting.get(..ready).unwrap_or_default()).await?;
            waiting.drain(..ready);
            if !held {
                break;
            }
            // An error means that the line is gone, and this connection with it.
            if released.wait_for(|state| state.hold.is_none()).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    // Goal: what is named is changed or held back, however the stream is cut, and nothing else. Method: the rules on bytes in
    // every cut; then a line to a server that says what it got.
    use super::*;

    fn state(rewrites: &[(&str, &str, u64)], hold: Option<(&str, u64)>) -> State {
        let rewrite = |&(find, with, left): &(&str, &str, u64)| Rewrite {
            find: find.to_owned(),
            with: with.to_owned(),
            left,
        };
        State {
            rewrites: rewrites.iter().map(rewrite).collect(),
            hold: hold.map(|(text, left)| Hold {
                text: text.to_owned(),
                left,
            }),
        }
    }

    #[test]
    fn requests_are_rewritten_in_order_wherever_they_are_cut() {
        let text = b"GET abc GET abab abc xyz abc GET xyz";
        for cut in 0..=text.len() {
            let mut state = state(&[("abc", "ABC", 2), ("xyz", "---", 1)], None);
            let (mut out, mut waiting) = (Vec::new(), Vec::new());
            for part in [&text[..cut], &text[cut..]] {
                waiting.extend_from_slice(part);
                let ready = state.rewrite(&mut waiting);
                out.extend(waiting.drain(..ready));
            }
            out.append(&mut waiting);
            let expected = "GET ABC GET abab ABC --- abc GET xyz";
            assert_eq!(String::from_utf8_lossy(&out), expected, "cut at {cut}");
            assert!(state.rewrites.is_empty());
        }
    }

    #[test]
    fn replies_pass_up_to_the_named_occurrence() {
        let text = b"MSG a MSG b MSMSG c MSG d";
        for cut in 0..=text.len() {
            let mut state = state(&[], Some(("MSG ", 3)));
            let (mut out, mut waiting, mut last) = (Vec::new(), Vec::new(), false);
            for part in [&text[..cut], &text[cut..]] {
                waiting.extend_from_slice(part);
                let (ready, held) = state.pass(&waiting);
                out.extend(waiting.drain(..ready));
                last = held;
            }
            assert_eq!(String::from_utf8_lossy(&out), "MSG a MSG b MS", "cut at {cut}");
            assert!(last);
            state.hold = None;
            assert_eq!(state.pass(&waiting), (waiting.len(), false));
        }
    }

    #[tokio::test]
    async fn a_line_changes_requests_and_holds_replies() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let line = Line::start(server.local_addr().unwrap().port()).await.unwrap();
        line.rewrite("one", "ONE", 1);
        line.hold_replies_at("two", 1);
        let mut client = TcpStream::connect(line.address).await.unwrap();
        let (mut served, _) = server.accept().await.unwrap();
        client.write_all(b"one, one.").await.unwrap();
        let mut got = [0; 9];
        served.read_exact(&mut got).await.unwrap();
        assert_eq!((&got, line.rewrites_left()), (b"ONE, one.", 0));
        served.write_all(b"three two three").await.unwrap();
        let mut got = [0; 6];
        client.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"three ");
        line.release();
        let mut got = [0; 9];
        client.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"two three");
        drop(served);
        assert_eq!(client.read(&mut got).await.unwrap(), 0);
    }
}
