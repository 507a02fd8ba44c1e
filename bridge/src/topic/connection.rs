//! The two ends of one instance's connection that the server holds: commands in, frames out.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use fanin_core::{delivery::Policy, ids::InstanceNo};
use fanin_proto::v1::Verdicts;
use futures_util::Stream;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{frame::Frame, stats::AppStats, verdicts::check_count};
use crate::codes::Refusal;

/// Who is at the other end of the socket, as the kernel says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Process id; 0 when the kernel does not tell.
    pub pid: u32,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// A request to join an application as an instance.
#[derive(Clone, Debug)]
pub struct ConnectRequest {
    /// The instance's name; empty: the topic makes one.
    pub name: String,
    /// Who asks.
    pub peer: Peer,
}

pub(crate) enum AppCommand {
    Connect {
        request: ConnectRequest,
        reply: oneshot::Sender<Result<Connection, Refusal>>,
    },
    Credit {
        instance: InstanceNo,
        bytes: u64,
        messages: u32,
    },
    Verdicts {
        instance: InstanceNo,
        verdicts: Verdicts,
    },
    Close {
        instance: InstanceNo,
    },
    Disconnect {
        instance: InstanceNo,
        refusal: Option<Refusal>,
    },
    SetPaused(bool),
    SetPolicy(Policy),
    /// Tell what is finished and what is held.
    Holdings(oneshot::Sender<super::holdings::AppHoldings>),
    Stats(oneshot::Sender<AppStats>),
}

/// What both sides of a connection share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// The channel was full: the application's task wants to hear when there is room.
    pub(crate) blocked: AtomicBool,
    /// Why the connection ends, when not in peace.
    pub(crate) refusal: Mutex<Option<Refusal>>,
    /// Set when either side has ended the connection.
    pub(crate) ended: CancellationToken,
}

/// A joined instance.
#[derive(Debug)]
pub struct Connection {
    /// What the client sends goes in here.
    pub input: Input,
    /// What goes to the client comes out here, beginning with `Opened`.
    pub frames: Frames,
}

/// The client's side of a connection. When the last verdict is in, call [`Input::disconnect`]; dropping it alone leaves the
/// instance connected.
#[derive(Debug)]
pub struct Input {
    pub(crate) instance: InstanceNo,
    pub(crate) commands: mpsc::Sender<AppCommand>,
    pub(crate) shared: Arc<Shared>,
}

impl Input {
    /// The number of this instance.
    #[must_use]
    pub fn instance(&self) -> InstanceNo {
        self.instance
    }

    /// The client grants more. Waits while the application's task is busy.
    pub async fn credit(&self, bytes: u64, messages: u32) {
        self.send(AppCommand::Credit {
            instance: self.instance,
            bytes,
            messages,
        })
        .await;
    }

    /// The client's verdicts. Whatever they contain is checked.
    ///
    /// # Errors
    /// When there are too many of them; nothing is done then, and the connection is to be ended with this refusal.
    pub async fn verdicts(&self, verdicts: Verdicts) -> Result<(), Refusal> {
        check_count(&verdicts)?;
        self.send(AppCommand::Verdicts {
            instance: self.instance,
            verdicts,
        })
        .await;
        Ok(())
    }

    /// The client takes nothing more; the stream ends when what it has begun has its verdicts.
    pub async fn close(&self) {
        self.send(AppCommand::Close {
            instance: self.instance,
        })
        .await;
    }

    /// The connection is gone, or is ended here for the reason given.
    pub async fn disconnect(&self, refusal: Option<Refusal>) {
        self.send(AppCommand::Disconnect {
            instance: self.instance,
            refusal,
        })
        .await;
    }

    /// Resolves when the frames are no longer read, or the topic has ended the connection.
    pub async fn ended(&self) {
        self.shared.ended.cancelled().await;
    }

    async fn send(&self, command: AppCommand) {
        // An error means that the application's task has ended, and with it everything the command is about.
        let _ = self.commands.send(command).await;
    }
}

/// The frames for one client. Dropping it tells the topic that the connection is gone.
#[derive(Debug)]
pub struct Frames {
    pub(crate) receiver: mpsc::Receiver<Frame>,
    pub(crate) shared: Arc<Shared>,
    /// Wakes the application's task.
    pub(crate) wake: Arc<Notify>,
    /// Set when nothing may be delivered any more.
    pub(crate) fenced: Arc<AtomicBool>,
}

impl Stream for Frames {
    type Item = Result<Frame, Refusal>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let Poll::Ready(frame) = self.receiver.poll_recv(cx) else {
                return Poll::Pending;
            };
            if self.shared.blocked.swap(false, Ordering::AcqRel) {
                self.wake.notify_one();
            }
            match frame {
                // What waited in the channel when the fence came is not delivered either.
                Some(Frame::Deliveries(_)) if self.fenced.load(Ordering::Acquire) => {}
                Some(frame) => return Poll::Ready(Some(Ok(frame))),
                None => return Poll::Ready(self.shared.refusal.lock().take().map(Err)),
            }
        }
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        self.shared.ended.cancel();
    }
}
