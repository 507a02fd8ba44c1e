//! What applications say on a call, below the gRPC server; `bridge/tests/topic_serve/hostile.rs` says it to a real one.

use fanin_fuzz::{config, hostile, judges, number};
use fanin_proto::v1::subscribe_request::Request;
use fanin_proto::v1::{Close, Credit, DeliveryRange, Open, Reject, Retry, SubscribeRequest, Verdicts};
use proptest::prelude::*;
use prost::Message;

fn ranges() -> impl Strategy<Value = Vec<DeliveryRange>> {
    let range = (number(), number()).prop_map(|(first, last)| DeliveryRange { first, last });
    prop::collection::vec(range, 0..4)
}

fn verdicts() -> impl Strategy<Value = Verdicts> {
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
    (number(), ranges(), retries, rejects, ranges(), ranges()).prop_map(
        |(begun_through, acks, retries, rejects, releases, extends)| Verdicts {
            begun_through,
            acks,
            retries,
            rejects,
            releases,
            extends,
        },
    )
}

/// One request's bytes.
fn request() -> BoxedStrategy<Vec<u8>> {
    let open = ("(abused|good|x{0,300})", "[a-z\0é]{0,6}").prop_map(|(app, instance)| Open {
        topic: "orders".to_owned(),
        app,
        instance,
        client: String::new(),
    });
    let request = prop_oneof![
        6 => verdicts().prop_map(Request::Verdicts),
        3 => (number(), any::<u32>()).prop_map(|(bytes, messages)| Request::Credit(Credit { bytes, messages })),
        1 => open.prop_map(Request::Open),
        1 => Just(Request::Close(Close {})),
    ];
    let encoded = request.prop_map(|request| {
        let request = SubscribeRequest {
            request: Some(request),
        };
        request.encode_to_vec()
    });
    // As long as the reader of raw conversations allows.
    encoded
        .prop_filter("a byte tells the length", |bytes| bytes.len() < 256)
        .boxed()
}

/// A conversation as raw bytes: each request behind its length.
pub(crate) fn conversation() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(request(), 0..8).prop_map(|requests| {
        let mut said = Vec::new();
        for request in requests {
            said.push(request.len() as u8);
            said.extend(request);
        }
        said
    })
}

proptest! {
    #![proptest_config(config(8))]

    #[test]
    fn conversations_with_faults(said in hostile(conversation())) {
        judges::requests::requests_of(&said);
    }
}
