//! Applications: instances that connect to a node's topic as the socket would, take frames, and answer in every way an
//! application can.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::BytesMut;
use fanin_bridge::topic::{ConnectRequest, Connection, Frame, Input, Peer, Topic};
use fanin_core::ids::{Incarnation, NodeUuid};
use fanin_proto::v1::subscribe_response::Response;
use fanin_proto::v1::{Delivery, DeliveryRange, Reject, Retry, SubscribeResponse, Verdicts};
use futures_util::StreamExt;
use prost::Message;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use crate::faults::Fault;
use crate::hub::SimHub;
use crate::oracle::{Attempt, Oracle};
use crate::world::World;

/// Bytes of credit of an instance: enough for anything here.
const CREDIT_BYTES: u64 = 1 << 40;
/// Messages of credit of an instance.
const CREDIT_MESSAGES: u32 = 1 << 30;
/// Pause before an instance connects again, milliseconds.
const RECONNECT_MS: u64 = 300;

/// What the instances of one life of a node share.
#[derive(Clone)]
pub struct Client {
    /// The run.
    pub world: Arc<World>,
    /// The hub, for what the oracle asks of it.
    pub hub: Arc<SimHub>,
    /// The oracle.
    pub oracle: Arc<Oracle>,
    /// The node's topic.
    pub topic: Topic,
    /// Cancelled when the process is dead.
    pub dead: CancellationToken,
    /// The node.
    pub node: NodeUuid,
    /// Its name, for the trace.
    pub name: Arc<str>,
    /// The lease, milliseconds.
    pub lease_ms: u64,
}

/// What an instance is going to say of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Ack,
    Retry,
    Reject,
    Release,
}

/// One connection of one instance.
struct Session {
    client: Client,
    app: u64,
    input: Input,
    /// When to say what, in order.
    plans: BTreeMap<(u64, u64), Answer>,
    /// Deliveries by number.
    held: BTreeMap<u64, (Incarnation, u64)>,
    /// Acknowledged and not confirmed.
    acked: BTreeMap<u64, (Incarnation, u64)>,
    /// Answered twice: the second answer is told as late, whatever becomes of the first.
    twice: BTreeSet<u64>,
    last: u64,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Closed,
    Dies,
    Closes,
}

/// The name of an application.
#[must_use]
pub fn app_name(app: u64) -> String {
    format!("app{app}")
}

impl Client {
    /// Runs one instance of an application until the process is dead.
    pub async fn run(self, app: u64, instance: u64) {
        let name = app_name(app);
        while !self.dead.is_cancelled() {
            let request = ConnectRequest {
                name: format!("{name}-{instance}"),
                peer: Peer::default(),
            };
            let connected = tokio::select! {
                biased;
                () = self.dead.cancelled() => return,
                connected = self.topic.connect(&name, request) => connected,
            };
            if let Ok(connection) = connected {
                self.serve(app, connection).await;
            }
            self.world.pause(RECONNECT_MS).await;
        }
    }

    async fn serve(&self, app: u64, connection: Connection) {
        let Connection { input, mut frames } = connection;
        input.credit(CREDIT_BYTES, CREDIT_MESSAGES).await;
        let mut session = Session {
            client: self.clone(),
            app,
            input,
            plans: BTreeMap::new(),
            held: BTreeMap::new(),
            acked: BTreeMap::new(),
            twice: BTreeSet::new(),
            last: 0,
        };
        let end = loop {
            let due_ms = session
                .plans
                .first_key_value()
                .map_or(u64::MAX / 2, |((at, _), _)| *at);
            tokio::select! {
                biased;
                () = self.dead.cancelled() => break End::Dies,
                frame = frames.next() => match frame {
                    Some(Ok(frame)) => {
                        if let Some(end) = session.take(&frame).await {
                            break end;
                        }
                    }
                    Some(Err(_)) | None => break End::Closed,
                },
                () = sleep_until(self.world.instant(due_ms)), if !session.plans.is_empty() => session.answer().await,
            }
        };
        match end {
            // The bridge learns that the connection is gone as the socket would tell it.
            End::Dies | End::Closed => {
                drop(frames);
                if !self.dead.is_cancelled() {
                    session.input.disconnect(None).await;
                }
            }
            End::Closes => {
                session.input.close().await;
                session.finish(&mut frames).await;
            }
        }
        session.forget();
    }
}

impl Session {
    fn world(&self) -> &World {
        &self.client.world
    }

    /// Takes a frame. The end of the connection, when the instance ends it here.
    async fn take(&mut self, frame: &Frame) -> Option<End> {
        let response = match frame {
            Frame::Control(response) => response.response.clone(),
            Frame::Deliveries(deliveries) => {
                let mut bytes = BytesMut::with_capacity(deliveries.encoded_len());
                deliveries.encode(&mut bytes);
                match SubscribeResponse::decode(bytes.freeze()) {
                    Ok(response) => response.response,
                    Err(error) => {
                        self.world()
                            .violate(format!("a frame cannot be decoded: {error}"));
                        None
                    }
                }
            }
        };
        match response? {
            Response::Deliveries(deliveries) => return self.deliveries(deliveries.deliveries).await,
            Response::Confirmed(confirmed) => {
                for number in numbers(&confirmed.deliveries) {
                    if let Some((incarnation, seq)) = self.acked.remove(&number) {
                        self.client.oracle.confirmed(self.app, incarnation, seq);
                    }
                }
            }
            Response::LeasesLost(lost) => {
                // The node has taken them back: what was said of them does not count.
                for number in numbers(&lost.deliveries) {
                    self.client.world.note(&self.client.name, || {
                        format!("{} has lost {number}", app_name(self.app))
                    });
                    self.held.remove(&number);
                    if !self.twice.contains(&number) {
                        self.acked.remove(&number);
                    }
                }
            }
            Response::Opened(_) | Response::Closing(_) => {}
        }
        None
    }

    async fn deliveries(&mut self, deliveries: Vec<Delivery>) -> Option<End> {
        for delivery in deliveries {
            let published_ns = u64::try_from(delivery.published_ns).unwrap_or_default();
            let Some(incarnation) = self.client.oracle.incarnation_at(published_ns) else {
                self.world().violate(format!(
                    "{} was published before its stream was made",
                    delivery.id
                ));
                continue;
            };
            self.last = self.last.max(delivery.delivery);
            self.held
                .insert(delivery.delivery, (incarnation, delivery.sequence));
            self.client.world.note(&self.client.name, || {
                format!(
                    "delivers {} to {} as {}, attempt {}",
                    delivery.id,
                    app_name(self.app),
                    delivery.delivery,
                    delivery.attempt
                )
            });
            self.client.oracle.attempted(
                &self.client.hub,
                &Attempt {
                    app: self.app,
                    node: self.client.node,
                    incarnation,
                    seq: delivery.sequence,
                    payload: delivery.payload,
                },
            );
            if self.world().happens(Fault::InstanceDies) {
                return Some(End::Dies);
            }
            if self.world().happens(Fault::InstanceCloses) {
                return Some(End::Closes);
            }
            self.plan(delivery.delivery);
        }
        self.answer().await;
        None
    }

    /// Decides what to say of a delivery, and when.
    fn plan(&mut self, number: u64) {
        let world = Arc::clone(&self.client.world);
        let lease_ms = self.client.lease_ms;
        if world.happens(Fault::AnswerNever) {
            return;
        }
        let wait_ms = if world.happens(Fault::AnswerLate) {
            lease_ms + world.apps.between(100, lease_ms)
        } else if world.happens(Fault::AnswerSlow) {
            world.apps.between(1, lease_ms / 2)
        } else {
            0
        };
        let answer = if world.happens(Fault::Retry) {
            Answer::Retry
        } else if world.happens(Fault::Reject) {
            Answer::Reject
        } else if world.happens(Fault::Release) {
            Answer::Release
        } else {
            Answer::Ack
        };
        let now_ms = world.now_ms();
        self.plans.insert((now_ms + wait_ms, number), answer);
        if world.happens(Fault::AnswerTwice) {
            let again_ms = now_ms + wait_ms + world.apps.between(1, 2_000);
            self.plans.insert((again_ms, number), answer);
            self.twice.insert(number);
        }
    }

    /// Says everything that is due.
    async fn answer(&mut self) {
        let now_ms = self.world().now_ms();
        let later = self.plans.split_off(&(now_ms + 1, 0));
        let due = std::mem::replace(&mut self.plans, later);
        let mut verdicts = Verdicts {
            begun_through: self.last,
            ..Verdicts::default()
        };
        for ((_, number), answer) in due {
            self.client.world.note(&self.client.name, || {
                format!("{} says {answer:?} of {number}", app_name(self.app))
            });
            let range = || DeliveryRange {
                first: number,
                last: number,
            };
            match answer {
                Answer::Ack => {
                    verdicts.acks.push(range());
                    if let Some(message) = self.held.remove(&number) {
                        self.acked.insert(number, message);
                    }
                }
                Answer::Retry => verdicts.retries.push(Retry {
                    delivery: number,
                    after_ms: None,
                    reason: "not now".to_owned(),
                }),
                Answer::Reject => verdicts.rejects.push(Reject {
                    delivery: number,
                    reason: "not ever".to_owned(),
                }),
                Answer::Release => verdicts.releases.push(range()),
            }
        }
        // A refusal ends the connection, which is met like any other end.
        drop(self.input.verdicts(verdicts).await);
    }

    /// Reads what still comes after the instance has closed.
    async fn finish(&mut self, frames: &mut fanin_bridge::topic::Frames) {
        let until = self.world().instant(self.world().now_ms() + 2_000);
        let dead = self.client.dead.clone();
        loop {
            tokio::select! {
                biased;
                () = dead.cancelled() => return,
                frame = frames.next() => match frame {
                    Some(Ok(Frame::Control(response))) => {
                        let frame = Frame::Control(response);
                        if self.take(&frame).await.is_some() {
                            return;
                        }
                    }
                    // It takes nothing more.
                    Some(Ok(Frame::Deliveries(_))) => {}
                    Some(Err(_)) | None => return,
                },
                () = sleep_until(until) => {
                    self.input.disconnect(None).await;
                    return;
                }
            }
        }
    }

    /// The connection is over: whether these acknowledgements are durable nobody here will hear.
    fn forget(&mut self) {
        for (incarnation, seq) in std::mem::take(&mut self.acked).into_values() {
            self.client.oracle.unconfirmed(self.app, incarnation, seq);
        }
    }
}

fn numbers(ranges: &[DeliveryRange]) -> Vec<u64> {
    ranges.iter().flat_map(|range| range.first..=range.last).collect()
}
