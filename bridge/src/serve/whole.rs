//! Requests given to the gRPC library only when they are whole.
//!
//! tonic reserves what a message's length prefix promises as soon as it has read the prefix: five bytes would buy a client a mebibyte
//! on each of its calls. Here a message costs what has come of it, the large ones of all calls together have one bound, and a message
//! that does not get whole in time ends its call.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http_body::Frame;
use tokio::time::{Sleep, sleep};
use tonic::{Status, codegen::Body};

use super::{
    limits::{REQUEST_BYTES_MAX, REQUEST_WAIT_MAX, SMALL_REQUEST_BYTES_MAX, UNFINISHED_BYTES_MAX},
    status::to_status,
};
use crate::codes::{Code, Refusal};

/// Bytes before a message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// Bytes of the large unfinished requests of all calls.
#[derive(Debug, Default)]
pub(super) struct Unfinished(AtomicUsize);

impl Unfinished {
    fn take(&self, bytes: usize) -> bool {
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
            now.checked_add(bytes).filter(|sum| *sum <= UNFINISHED_BYTES_MAX)
        });
        taken.is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The body of a call, message by message.
pub(super) struct WholeMessages<B> {
    inner: B,
    held: BytesMut,
    /// Where `taken` comes from.
    unfinished: Arc<Unfinished>,
    /// Bytes of `held` that are taken of the common bound.
    taken: usize,
    /// When the message that `held` begins with must be whole.
    deadline: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

impl<B> WholeMessages<B> {
    pub(super) fn new(inner: B, unfinished: Arc<Unfinished>) -> Self {
        WholeMessages {
            inner,
            held: BytesMut::new(),
            unfinished,
            taken: 0,
            deadline: None,
            ended: false,
        }
    }

    /// What can be passed on: whole messages, or what the library is to refuse.
    fn whole(&mut self) -> Option<Bytes> {
        let mut end = 0;
        while let Some(promised) = promised(&self.held[end..]) {
            if promised > REQUEST_BYTES_MAX {
                end = self.held.len();
                break;
            }
            if self.held.len() - end < PREFIX_BYTES + promised {
                break;
            }
            end += PREFIX_BYTES + promised;
        }
        let cut_off = self.ended && !self.held.is_empty();
        if end == 0 && !cut_off {
            return None;
        }
        let whole = if self.ended {
            std::mem::take(&mut self.held).freeze()
        } else {
            self.held.split_to(end).freeze()
        };
        self.deadline = None;
        self.account(0);
        Some(whole)
    }

    /// Has `wanted` bytes taken of the common bound; false when there are not so many.
    fn account(&mut self, wanted: usize) -> bool {
        let enough = match wanted.checked_sub(self.taken) {
            Some(more) => self.unfinished.take(more),
            None => {
                self.unfinished.give_back(self.taken - wanted);
                true
            }
        };
        if enough {
            self.taken = wanted;
        }
        enough
    }
}

/// The length that a prefix promises.
fn promised(bytes: &[u8]) -> Option<usize> {
    let len = bytes.get(1..PREFIX_BYTES)?.try_into().ok()?;
    usize::try_from(u32::from_be_bytes(len)).ok()
}

impl<B> Drop for WholeMessages<B> {
    fn drop(&mut self) {
        self.account(0);
    }
}

impl<B> Body for WholeMessages<B>
where
    B: Body<Data = Bytes, Error = Status> + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        loop {
            if let Some(whole) = this.whole() {
                return Poll::Ready(Some(Ok(Frame::data(whole))));
            }
            if this.ended {
                return Poll::Ready(None);
            }
            match Pin::new(&mut this.inner).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        this.held.extend_from_slice(&data);
                        // Small ones are free: they cost less than the call they come on.
                        let large = this.held.len().saturating_sub(SMALL_REQUEST_BYTES_MAX);
                        if this.held.len() < REQUEST_BYTES_MAX + PREFIX_BYTES && !this.account(large) {
                            let text = format!(
                                "the unfinished requests of all calls hold {UNFINISHED_BYTES_MAX} bytes; send again later"
                            );
                            let refusal = Refusal::new(Code::LimitExceeded, text);
                            return Poll::Ready(Some(Err(to_status(&refusal))));
                        }
                    }
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                Poll::Ready(Some(Err(status))) => return Poll::Ready(Some(Err(status))),
                Poll::Ready(None) => this.ended = true,
                Poll::Pending if this.held.is_empty() => return Poll::Pending,
                Poll::Pending => {
                    let deadline = this
                        .deadline
                        .get_or_insert_with(|| Box::pin(sleep(REQUEST_WAIT_MAX)));
                    std::task::ready!(deadline.as_mut().poll(cx));
                    let text = format!("a request was not whole after {REQUEST_WAIT_MAX:?}");
                    let refusal = Refusal::new(Code::Malformed, text);
                    return Poll::Ready(Some(Err(to_status(&refusal))));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: messages come out whole and unchanged, and cost what has come of them. Method: bodies in pieces of every size, promises
    //! that are not kept, and more of them than the bound allows; time is tokio's and paused.
    use std::collections::VecDeque;

    use futures_util::FutureExt;

    use super::*;

    /// Pieces, and then silence or the end.
    struct Pieces(VecDeque<Bytes>, bool);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            match self.0.pop_front() {
                Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
                None if self.1 => Poll::Ready(None),
                None => Poll::Pending,
            }
        }
    }

    fn message(len: usize) -> Vec<u8> {
        let mut message = vec![0];
        message.extend((len as u32).to_be_bytes());
        message.extend((0..len).map(|n| n as u8));
        message
    }

    async fn next<B: Body<Data = Bytes, Error = Status> + Unpin>(
        body: &mut WholeMessages<B>,
    ) -> Option<Result<Bytes, Status>> {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await?;
        Some(frame.map(|frame| frame.into_data().unwrap()))
    }

    fn pieces(bytes: &[u8], len: usize, ends: bool) -> Pieces {
        Pieces(bytes.chunks(len).map(Bytes::copy_from_slice).collect(), ends)
    }

    #[tokio::test]
    async fn messages_come_out_whole() {
        let sizes = [0, 1, 7, 5_000, 0, 300];
        let said: Vec<u8> = sizes.iter().flat_map(|len| message(*len)).collect();
        for len in [1, 3, 64, 4_096, said.len()] {
            let unfinished = Arc::new(Unfinished::default());
            let mut body = WholeMessages::new(pieces(&said, len, true), Arc::clone(&unfinished));
            let mut got = Vec::new();
            while let Some(whole) = next(&mut body).await {
                let whole = whole.unwrap();
                let mut rest = &whole[..];
                while !rest.is_empty() {
                    rest = &rest[PREFIX_BYTES + promised(rest).unwrap()..];
                }
                got.extend_from_slice(&whole);
            }
            assert!(got == said, "in pieces of {len}");
            assert_eq!(unfinished.0.load(Ordering::Relaxed), 0);
        }
    }

    #[tokio::test]
    async fn what_the_library_refuses_it_gets_at_once() {
        let unfinished = Arc::new(Unfinished::default());
        let promise = [&[0][..], &u32::MAX.to_be_bytes(), b"x"].concat();
        let mut body = WholeMessages::new(pieces(&promise, 6, false), Arc::clone(&unfinished));
        assert_eq!(next(&mut body).await.unwrap().unwrap(), promise);
        // An end in the middle of a message is the library's business too.
        let mut body = WholeMessages::new(pieces(&message(9)[..8], 8, true), unfinished);
        assert_eq!(next(&mut body).await.unwrap().unwrap(), message(9)[..8]);
        assert!(next(&mut body).await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn promises_cost_nothing_and_end() {
        let unfinished = Arc::new(Unfinished::default());
        let promise = [&[0][..], &(REQUEST_BYTES_MAX as u32).to_be_bytes()].concat();
        let mut body = WholeMessages::new(pieces(&promise, 5, false), Arc::clone(&unfinished));
        assert!(next(&mut body).now_or_never().is_none());
        assert!(body.held.capacity() < SMALL_REQUEST_BYTES_MAX);
        let status = next(&mut body).await.unwrap().unwrap_err();
        assert!(status.message().contains("not whole"), "{status:?}");
    }

    #[tokio::test]
    async fn large_ones_share_a_bound() {
        let unfinished = Arc::new(Unfinished::default());
        let large = message(REQUEST_BYTES_MAX);
        let mut bodies: Vec<_> = (0..=UNFINISHED_BYTES_MAX / REQUEST_BYTES_MAX)
            .map(|_| {
                let pieces = pieces(&large[..REQUEST_BYTES_MAX], REQUEST_BYTES_MAX, false);
                WholeMessages::new(pieces, Arc::clone(&unfinished))
            })
            .collect();
        let refused: Vec<Status> = bodies
            .iter_mut()
            .filter_map(|body| next(body).now_or_never())
            .map(|ended| ended.unwrap().unwrap_err())
            .collect();
        assert_eq!(refused.len(), 1, "{refused:?}");
        assert_eq!(refused[0].code(), tonic::Code::ResourceExhausted);
        // Small ones get through, and with the large ones the bound goes free.
        let mut small = WholeMessages::new(pieces(&message(100), 7, true), Arc::clone(&unfinished));
        assert_eq!(next(&mut small).await.unwrap().unwrap(), message(100));
        drop(bodies);
        assert_eq!(unfinished.0.load(Ordering::Relaxed), 0);
    }
}
