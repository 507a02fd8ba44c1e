//! Goal: a look for holes answers by the filters it is given, those of the terms, and says nothing when it could not look.
//! Method: a real server with a few messages, of which one is gone.

use async_nats::jetstream;
use fanin_hub::HubOptions;
use fanin_localhub::{LocalHub, LocalHubOptions, ServerBinary};

use super::*;

const INCARNATION: Incarnation = Incarnation(7);

/// The answer of a look at `stream` from `first` on.
async fn look(hub: &HubRef, stream: &str, filters: &[&str], first: u64) -> Option<Event> {
    let named = SourceTerms {
        stream: stream.to_owned(),
        filters: filters.iter().map(ToString::to_string).collect(),
    };
    audit(hub.clone(), INCARNATION, TermsVersion(3), named, StreamSeq(first)).await
}

#[tokio::test]
async fn a_look_for_holes_goes_by_the_filters_of_the_terms() {
    let binary = ServerBinary::find_or_fetch(None).expect("a nats-server");
    let server = LocalHub::start(LocalHubOptions::new(binary))
        .await
        .expect("started");
    let client = async_nats::connect(server.url()).await.expect("connected");
    let jetstream = jetstream::new(client);
    let config = jetstream::stream::Config {
        name: "S".to_owned(),
        subjects: vec!["s.>".to_owned()],
        ..Default::default()
    };
    let stream = jetstream.create_stream(config).await.expect("a stream");
    for subject in ["s.c", "s.a", "s.b.1", "s.a", "s.c"] {
        let sent = jetstream.publish(subject, "".into()).await.expect("sent");
        sent.await.expect("stored");
    }
    stream.delete_message(2).await.expect("deleted");
    let hub = fanin_hub::Connection::connect(HubOptions::new([server.url()]))
        .await
        .expect("connected");
    let hub: HubRef = std::sync::Arc::new(hub);
    for (filters, first, expected) in [
        (&[][..], 1, Some(1)),
        (&[][..], 2, Some(3)),
        (&[][..], 6, None),
        (&["s.a"][..], 1, Some(4)),
        (&["s.a"][..], 5, None),
        (&["s.b.*", "s.a"][..], 1, Some(3)),
        (&["s.a", "s.b.*"][..], 1, Some(3)),
        (&["s.a", "s.b.*"][..], 4, Some(4)),
        (&["s.d", "s.c"][..], 2, Some(5)),
        (&["s.d"][..], 1, None),
    ] {
        let found = look(&hub, "S", filters, first).await;
        let Some(Event::Audited {
            incarnation: INCARNATION,
            terms: TermsVersion(3),
            first: from,
            next_matching,
        }) = found
        else {
            panic!("{filters:?} from {first}: no answer")
        };
        assert_eq!(
            (from, next_matching),
            (StreamSeq(first), expected.map(StreamSeq)),
            "{filters:?}"
        );
    }
    assert!(look(&hub, "NOWHERE", &["s.a"], 1).await.is_none());
}

/// Goal: a look at the source says how far it reaches and when known messages were published; a purge takes neither back, and
/// another stream of that name is told. Method: a real server; look, purge, look, create anew, look.
#[tokio::test]
async fn a_purged_source_reaches_as_far_as_before() {
    let binary = ServerBinary::find_or_fetch(None).expect("a nats-server");
    let server = LocalHub::start(LocalHubOptions::new(binary))
        .await
        .expect("started");
    let client = async_nats::connect(server.url()).await.expect("connected");
    let jetstream = jetstream::new(client);
    let config = jetstream::stream::Config {
        name: "S".to_owned(),
        subjects: vec!["s".to_owned()],
        ..Default::default()
    };
    let stream = jetstream.create_stream(config.clone()).await.expect("a stream");
    for _ in 0..5 {
        let sent = jetstream.publish("s", "".into()).await.expect("sent");
        sent.await.expect("stored");
    }
    let stored = stream.get_raw_message(4).await.expect("a message").time;
    let hub = fanin_hub::Connection::connect(HubOptions::new([server.url()]))
        .await
        .expect("connected");
    let info = hub.source_info("S").await.expect("facts");
    let source = Source {
        generation: 0,
        terms: SourceTerms {
            stream: "S".to_owned(),
            filters: Vec::new(),
        },
        info,
    };
    let incarnation = source.info.incarnation(0);
    let asked = SourceProbe {
        reaches: StreamSeq(5),
        newest: Some(StreamSeq(4)),
        before: Some(StreamSeq(2)),
        end: Some(StreamSeq(5)),
    };
    let seen = async || match look_at_source(&hub, incarnation, &source, asked).await {
        Some(Event::SourceSeen {
            reaches: StreamSeq(5),
            last,
            last_ns,
            probes,
            ..
        }) => (last.0, last_ns, probes),
        other => panic!("{other:?}"),
    };
    let (last, last_ns, probes) = seen().await;
    assert_eq!(last, 5);
    let at: Vec<_> = probes.iter().map(|(seq, _)| seq.0).collect();
    assert_eq!(at, [2, 4, 5]);
    assert_eq!(
        probes[2].1, last_ns,
        "the stream's last time is that of its last message"
    );
    assert_eq!(i128::from(probes[1].1), stored.unix_timestamp_nanos());
    stream.purge().await.expect("purged");
    assert_eq!(seen().await, (5, last_ns, Vec::new()));
    jetstream.delete_stream("S").await.expect("deleted");
    jetstream.create_stream(config).await.expect("created again");
    let other = look_at_source(&hub, incarnation, &source, asked).await;
    assert!(matches!(
        other,
        Some(Event::HubBroken(Halt::SourceRecreated { .. }))
    ));
}
