//! What applications say on a call, below the gRPC server: decoded as the server decodes it, and given to a real topic over the log's
//! twin in memory. Another application works beside the abuser and gets everything once.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanin_bridge::ambient::Ambient;
use fanin_bridge::codes::Refusal;
use fanin_bridge::stage::{RECORD_STAGE, StagedBatch, StagedMessage, runs_of};
use fanin_bridge::topic::{
    AppSpec, BodyCache, ConnectRequest, Connection, Frame, PublishedBatch, SubjectFilter, Topic, TopicEvent,
    TopicEvents, TopicOptions, TopicRecovery,
};
use fanin_core::delivery::{Backoff, Policy};
use fanin_core::ids::{BatchNo, Incarnation, LedgerSeq, StreamSeq, TermsVersion};
use fanin_proto::v1::subscribe_request::Request;
use fanin_proto::v1::{DeliveryRange, SubscribeRequest, Verdicts, subscribe_response::Response};
use fanin_store::{Class, Key, MemStore, Op, Store};
use futures_util::{FutureExt, StreamExt};
use prost::Message;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::Input;
use crate::measured;

/// Most requests of one conversation.
const REQUESTS_MAX: usize = 12;
/// Messages published beside each conversation.
const MESSAGES: u64 = 3;
/// Conversations on one topic, after which a new one is made: what its log keeps must not grow for ever.
const CONVERSATIONS_MAX: u64 = 256;
/// Far above what anything here takes; only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes in memory for a byte of a request: an empty verdict is two bytes and becomes a place of 56 in a list that doubles.
const FACTOR: u64 = 128;

const SPACE: u32 = 1;

/// A topic with two applications: `good`, which finishes what it gets, and `abused`.
struct World {
    runtime: Runtime,
    store: Arc<MemStore>,
    topic: Topic,
    events: TopicEvents,
    good: Connection,
    acked: u64,
    batches: u64,
}

fn app(name: &str) -> AppSpec {
    AppSpec {
        name: name.into(),
        policy: Policy {
            max_attempts: 3,
            backoff: Backoff {
                initial_ms: 1,
                factor_milli: 1_000,
                max_ms: 1,
                jitter_percent: 0,
            },
            lease_ms: 60_000,
            in_flight_max: 1_000_000,
            instance_in_flight_max: 60_000,
        },
        filter: SubjectFilter::default(),
        since: Some(TermsVersion(1)),
        allowed_uids: vec![],
    }
}

impl World {
    fn new() -> World {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let inside = runtime.enter();
        let store = MemStore::new(1 << 40, 0);
        let options = TopicOptions {
            name: "orders".into(),
            node: "n1".into(),
            space: SPACE,
            apps: vec![app("good"), app("abused")],
            absent: Vec::new(),
            ambient: Ambient::system(),
        };
        let nothing = TopicRecovery {
            values: &BTreeMap::new(),
            records: &[],
        };
        let cache = Arc::new(BodyCache::new(64 << 20, 16 << 20));
        let (topic, events) = Topic::start(
            options,
            Vec::new(),
            nothing,
            Arc::clone(&store) as Arc<dyn Store>,
            cache,
        )
        .unwrap();
        let good = runtime.block_on(async {
            let good = connect(&topic, "good", "").await.unwrap();
            good.input.credit(1 << 40, u32::MAX).await;
            good
        });
        drop(inside);
        World {
            runtime,
            store,
            topic,
            events,
            good,
            acked: 0,
            batches: 0,
        }
    }
}

async fn connect(topic: &Topic, app: &str, instance: &str) -> Result<Connection, Refusal> {
    let request = ConnectRequest {
        name: instance.to_owned(),
        peer: Default::default(),
    };
    topic.connect(app, request).await
}

async fn publish(topic: &Topic, store: &MemStore, number: u64) {
    let messages = (0..MESSAGES).map(|n| StagedMessage {
        seq: StreamSeq(number * MESSAGES + n + 1),
        published_ns: 1,
        subject: "orders.new".to_owned(),
        headers: Vec::new(),
        payload: Bytes::from_static(b"payload"),
    });
    let batch = BatchNo(number + 1);
    let body = StagedBatch::new(
        batch,
        Incarnation(7),
        LedgerSeq(1),
        1,
        "ORDERS".into(),
        messages.collect(),
    );
    let body = Arc::new(body);
    let (head, pieces) = body.encode();
    let key = Key {
        space: SPACE,
        id: batch.0,
    };
    let append = Op::Append {
        key,
        kind: RECORD_STAGE,
        head,
        body: pieces,
    };
    let at = store.commit(Class::Intake, vec![append]).await.unwrap();
    let published = PublishedBatch {
        base: topic.head(),
        terms: TermsVersion(1),
        won: runs_of(body.messages.iter().map(|message| message.seq)),
        at: at[0],
        body,
    };
    topic.publish(published).unwrap();
}

/// Says all of it as the server would pass it on, and goes.
async fn converse(topic: &Topic, said: &[SubscribeRequest]) {
    let Ok(mut abused) = connect(topic, "abused", "").await else {
        return;
    };
    for request in said {
        match &request.request {
            Some(Request::Credit(credit)) => abused.input.credit(credit.bytes, credit.messages).await,
            Some(Request::Verdicts(verdicts)) => {
                if let Err(refusal) = abused.input.verdicts(verdicts.clone()).await {
                    abused.input.disconnect(Some(refusal)).await;
                    return;
                }
            }
            Some(Request::Close(_)) => abused.input.close().await,
            // As a second one it ends the call; here it begins another, whose name may be refused.
            Some(Request::Open(open)) if open.app != "good" => {
                drop(connect(topic, &open.app, &open.instance).await);
            }
            Some(Request::Open(_)) | None => {}
        }
        // The application's task takes its turn, and frames that are not read fill their channel.
        tokio::task::yield_now().await;
        if request.request.is_none() {
            let _ = abused.frames.next().now_or_never();
        }
    }
    abused.input.disconnect(None).await;
}

/// No conversation ends anything but its own call, and none reaches another application's messages.
///
/// # Panics
/// When the other application misses a message, gets one twice, or the topic fails.
pub fn conversation(said: &[SubscribeRequest]) {
    thread_local! {
        static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
    }
    WORLD.with_borrow_mut(|slot| {
        let world = slot.get_or_insert_with(World::new);
        let World {
            runtime,
            store,
            topic,
            events,
            good,
            acked,
            batches,
        } = world;
        runtime.block_on(async {
            publish(topic, store, *batches).await;
            *batches += 1;
            converse(topic, said).await;
            let (first, last) = (*acked + 1, *acked + MESSAGES);
            let mut confirmed = *acked;
            let mut got = *acked;
            while confirmed < last {
                let frame = timeout(PATIENCE, good.frames.next())
                    .await
                    .expect("no frame came");
                match frame.expect("the stream ended").expect("the stream was refused") {
                    Frame::Deliveries(frame) => {
                        got += frame.len() as u64;
                        assert!(got <= last, "a message came twice");
                        if got == last {
                            let acks = vec![DeliveryRange { first, last }];
                            let verdicts = Verdicts {
                                begun_through: last,
                                acks,
                                ..Verdicts::default()
                            };
                            good.input.verdicts(verdicts).await.unwrap();
                        }
                    }
                    Frame::Control(response) => match response.response {
                        Some(Response::Confirmed(sure)) => {
                            confirmed += sure
                                .deliveries
                                .iter()
                                .map(|range| range.last - range.first + 1)
                                .sum::<u64>();
                        }
                        Some(Response::LeasesLost(lost)) => panic!("lost: {lost:?}"),
                        Some(Response::Closing(closing)) => panic!("closing: {closing:?}"),
                        Some(Response::Opened(_) | Response::Deliveries(_)) | None => {}
                    },
                }
            }
            assert_eq!(confirmed, last);
            *acked = last;
            while let Some(event) = events.next().now_or_never() {
                match event {
                    TopicEvent::BatchesDone(_) => {}
                    TopicEvent::Damaged(batch) => panic!("damaged: {batch}"),
                    TopicEvent::Failed(failure) => panic!("failed: {failure}"),
                }
            }
        });
        if *batches >= CONVERSATIONS_MAX {
            *slot = None;
        }
    });
}

/// [`conversation`] of requests that are read from raw bytes, each behind its length in one byte.
pub fn requests_of(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut said = Vec::new();
    while said.len() < REQUESTS_MAX && !input.is_empty() {
        let bytes = input.bytes();
        let decoded = measured(bytes.len(), FACTOR, || SubscribeRequest::decode(bytes));
        match decoded {
            Ok(request) => said.push(request),
            // The server ends a call whose request it cannot read.
            Err(_) => break,
        }
    }
    conversation(&said);
}
