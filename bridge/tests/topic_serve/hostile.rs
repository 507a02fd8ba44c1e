//! Goal: no request, whatever it says, ends anything but its own call, and none reaches another application's messages. Method: random
//! requests at the edges of what can be said, and request bytes with faults, through the real server; a client that behaves works
//! beside them and gets everything once.

use std::time::Duration;

use bytes::{Buf, BufMut};
use fanin_proto::v1::{
    Close, Credit, DeliveryRange, Open, Reject, Retry, SubscribeRequest, Verdicts, subscribe_request::Request,
};
use proptest::{prelude::*, test_runner::TestRunner};
use prost::Message;
use tokio::time::timeout;
use tonic::{
    Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    transport::Channel,
};

use crate::harness::{Client, PATIENCE, World, app, ids};

/// Conversations of one run; `FANIN_FUZZ_CASES` says another number.
const CASES: u32 = 200;
/// Messages beside each conversation.
const MESSAGES: usize = 3;
/// For so long the abuser's call is looked at before its end is forced: most of them end by themselves, at once.
const LOOK: Duration = Duration::from_millis(20);

/// Requests as they are, and answers unread.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = usize;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = usize;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<usize>, Status> {
        let len = from.remaining();
        from.advance(len);
        Ok(Some(len))
    }
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 0_u64..8, 1 => Just(u64::MAX), 1 => Just(u64::MAX - 1), 1 => any::<u64>()]
}

fn ranges() -> impl Strategy<Value = Vec<DeliveryRange>> {
    let range = (number(), number()).prop_map(|(first, last)| DeliveryRange { first, last });
    prop::collection::vec(range, 0..4)
}

fn request() -> BoxedStrategy<Request> {
    let retry =
        (number(), any::<Option<u64>>(), "[a-zé]{0,9}").prop_map(|(delivery, after_ms, reason)| Retry {
            delivery,
            after_ms,
            reason,
        });
    let reject = (number(), "[a-zé]{0,9}").prop_map(|(delivery, reason)| Reject { delivery, reason });
    let (retries, rejects) = (
        prop::collection::vec(retry, 0..3),
        prop::collection::vec(reject, 0..3),
    );
    let verdicts = (number(), ranges(), retries, rejects, ranges(), ranges()).prop_map(
        |(begun_through, acks, retries, rejects, releases, extends)| {
            Request::Verdicts(Verdicts {
                begun_through,
                acks,
                retries,
                rejects,
                releases,
                extends,
            })
        },
    );
    let open =
        ("(orders|order|)", "(abused|good|x{0,300})", "[a-z\0é]{0,6}").prop_map(|(topic, app, instance)| {
            // The application of those who behave is left alone: whoever may use its name may finish its messages.
            let app = if app == "good" { "good ".to_owned() } else { app };
            Request::Open(Open {
                topic,
                app,
                instance,
                client: String::new(),
            })
        });
    prop_oneof![
        6 => verdicts,
        3 => (number(), any::<u32>()).prop_map(|(bytes, messages)| Request::Credit(Credit { bytes, messages })),
        1 => open,
        1 => Just(Request::Close(Close {})),
    ]
    .boxed()
}

/// A conversation: mostly with a proper beginning, some of its bytes changed.
fn conversation() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let faults = prop::collection::vec(
        (
            any::<prop::sample::Index>(),
            any::<prop::sample::Index>(),
            any::<u8>(),
        ),
        0..2,
    );
    (
        prop::bool::weighted(0.9),
        prop::collection::vec(request(), 0..8),
        faults,
    )
        .prop_map(|(proper, requests, faults)| {
            let open = Request::Open(Open {
                topic: "orders".into(),
                app: "abused".into(),
                ..Open::default()
            });
            let begin = proper.then_some(open);
            let encoded = begin.into_iter().chain(requests).map(|request| {
                let request = SubscribeRequest {
                    request: Some(request),
                };
                request.encode_to_vec()
            });
            let mut said: Vec<Vec<u8>> = encoded.collect();
            for (which, at, byte) in faults {
                if said.is_empty() {
                    break;
                }
                let which = which.index(said.len());
                let bytes = &mut said[which];
                if !bytes.is_empty() {
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                }
            }
            said
        })
}

/// Says all of it, looks at the answers for a moment, and goes.
async fn converse(channel: Channel, said: Vec<Vec<u8>>) {
    let path = PathAndQuery::from_static("/fanin.v1.TopicService/Subscribe");
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.unwrap();
    let request = tonic::Request::new(tokio_stream::iter(said));
    let talk = async {
        if let Ok(answer) = grpc.streaming(request, path, Raw).await {
            let mut answers = answer.into_inner();
            while let Ok(Some(_)) = answers.message().await {}
        }
    };
    // Either end is fine.
    let _ = timeout(LOOK, talk).await;
}

#[test]
fn requests_with_faults_end_their_own_call_at_most() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (mut world, channel, mut good) = runtime.block_on(async {
        let world = World::new(vec![app("good"), app("abused")]).await;
        let channel = world.channel().await;
        let good = world.open("good", "g").await;
        good.much_credit().await;
        (world, channel, good)
    });
    let cases = std::env::var("FANIN_FUZZ_CASES").ok();
    let config = ProptestConfig {
        cases: cases.and_then(|text| text.parse().ok()).unwrap_or(CASES),
        failure_persistence: None,
        max_shrink_iters: 0,
        ..ProptestConfig::default()
    };
    let mut acked = 0;
    let state = std::cell::RefCell::new((&mut world, &mut good, &mut acked));
    let run = TestRunner::new(config).run(&conversation(), |said| {
        let (world, good, acked) = &mut *state.borrow_mut();
        runtime.block_on(async {
            let published = world.publish(MESSAGES).await;
            converse(channel.clone(), said).await;
            let got = good.take(MESSAGES).await;
            prop_assert_eq!(ids(&got), published);
            good.ack(**acked + 1, **acked + MESSAGES as u64).await;
            **acked += MESSAGES as u64;
            good.until_confirmed(**acked as usize).await;
            prop_assert!(good.lost.is_empty() && good.closing.is_none());
            Ok(())
        })
    });
    run.unwrap();
    // Whoever comes after all that finds the abused application as usable as any.
    runtime.block_on(async {
        world.publish(1).await;
        let mut last = Client::open(channel, "orders", "abused", "last").await.unwrap();
        last.much_credit().await;
        let taken = timeout(PATIENCE, last.take(1)).await.unwrap();
        assert!(taken[0].payload.starts_with(b"payload "));
        assert!(world.failures.lock().is_empty() && world.damaged.lock().is_empty());
    });
}
