//! The shared consumer: ensure, pull, settle.

use std::collections::BTreeSet;
use std::time::Duration;

use fanin_core::ids::StreamSeq;
use fanin_hub::{AckSubject, ApiError, ConsumerError, CreatePolicy, PullError, Pulled, Puller, Settler};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{LINGER, PATIENCE, connect, consumer, fill, in_time, raw, spec, with_stream};

const MIB: usize = 1024 * 1024;

/// Pulls until `count` different messages were seen; returns how many deliveries that took.
async fn pull_all(puller: &mut Puller, count: usize, settler: &Settler) -> usize {
    let mut seen = BTreeSet::new();
    let mut deliveries = 0;
    while seen.len() < count {
        let batch = match in_time(puller.fetch(256, MIB, LINGER, PATIENCE)).await {
            Ok(batch) => batch,
            Err(error) if error.retryable() => {
                tokio::task::yield_now().await;
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        deliveries += batch.len();
        seen.extend(batch.iter().map(|p| p.facts.stream_seq));
        let acks: Vec<AckSubject> = batch.into_iter().map(|p| p.ack).collect();
        settler.settle(&acks).await.expect("settled");
    }
    deliveries
}

/// Goal: several nodes may create the consumer at once; afterwards it is found, not created. Method: eight at once over
/// two connections.
#[tokio::test]
async fn created_by_several_at_once() {
    let (hub, connection) = with_stream().await;
    let other = connect(&hub).await;
    let spec = spec(&connection).await;
    let tasks = (0..8).map(|n| {
        spec.ensure(
            if n % 2 == 0 { &connection } else { &other },
            CreatePolicy::FromStart,
        )
    });
    for result in join_all(tasks).await {
        assert_eq!(result.expect("the consumer").grown, vec![]);
    }
    assert!(
        !spec
            .ensure(&connection, CreatePolicy::Never)
            .await
            .unwrap()
            .created
    );
}

/// Goal: a consumer that begins behind a watermark serves nobody who knows of none, on which the repair of a source rests; a
/// deleted one is gone, and deleting it again is no error. Method: create, ask as others would, delete twice.
#[tokio::test]
async fn a_start_behind_an_unknown_watermark_is_refused_and_deletion_is_final() {
    let (_hub, connection) = with_stream().await;
    fill(&connection, 10, 10).await;
    let spec = spec(&connection).await;
    let behind = CreatePolicy::After(StreamSeq(5));
    assert!(spec.ensure(&connection, behind).await.unwrap().created);
    let refused = spec.ensure(&connection, CreatePolicy::FromStart).await;
    let error = refused.err().unwrap();
    assert!(
        matches!(error, ConsumerError::Differs { .. }) && error.code() == "FAN-2011",
        "{error}"
    );
    assert!(spec.ensure(&connection, CreatePolicy::Never).await.is_ok());
    spec.delete(&connection).await.unwrap();
    spec.delete(&connection).await.unwrap();
    let missing = spec.ensure(&connection, CreatePolicy::Never).await;
    assert!(matches!(missing, Err(ConsumerError::Missing { .. })));
}

/// Goal: nothing is created behind the operator's back, and what is re-created starts behind the watermark. Method: each
/// policy on an empty stream.
#[tokio::test]
async fn creation_is_by_permission() {
    let (_hub, connection) = with_stream().await;
    fill(&connection, 10, 10).await;
    let spec = spec(&connection).await;
    let error = spec.ensure(&connection, CreatePolicy::Never).await.err().unwrap();
    assert!(
        matches!(error, ConsumerError::Missing { .. }) && error.code() == "FAN-2012",
        "{error}"
    );

    let shared = spec
        .ensure(&connection, CreatePolicy::After(StreamSeq(7)))
        .await
        .unwrap();
    assert!(shared.created);
    let batch = in_time(Puller::new(&connection, &shared).fetch(10, MIB, LINGER, PATIENCE))
        .await
        .unwrap();
    assert_eq!(batch.first().map(|p| p.facts.stream_seq), Some(8));
}

/// Goal: every setting that differs is refused by name, a paused consumer too, and nothing is changed; but sizes that are too
/// small, where nothing else differs, are raised in place. Method: consumers made by hand, as the server has them afterwards.
#[tokio::test]
async fn differences_are_named_and_sizes_grow() {
    let (_hub, connection) = with_stream().await;
    let spec = spec(&connection).await;
    let wanted = spec.config(CreatePolicy::FromStart);
    let name = format!("CONSUMER.CREATE.S.{}", spec.name());
    let request =
        |config: &Value, action: &str| json!({ "stream_name": "S", "config": config, "action": action });
    for (changes, expected) in [
        (vec![("max_deliver", json!(3))], vec!["max_deliver"]),
        (vec![("ack_wait", json!(5_000_000_000_u64))], vec!["ack_wait"]),
        (vec![("max_ack_pending", json!(8_001))], vec!["max_ack_pending"]),
        (
            vec![("max_ack_pending", json!(10)), ("max_waiting", json!(2_000))],
            vec!["max_ack_pending", "max_waiting"],
        ),
        (vec![("max_batch", json!(10))], vec!["max_batch"]),
        (vec![("num_replicas", json!(1))], vec!["num_replicas"]),
        (
            vec![("pause_until", json!("2100-01-01T00:00:00Z"))],
            vec!["pause_until"],
        ),
    ] {
        let mut config = wanted.clone();
        for (setting, value) in changes {
            config[setting] = value;
        }
        raw(&connection, &name, request(&config, "create")).await;
        let before = raw(
            &connection,
            &format!("CONSUMER.INFO.S.{}", spec.name()),
            Value::Null,
        )
        .await;
        let error = spec.ensure(&connection, CreatePolicy::Never).await.err().unwrap();
        assert_eq!(error.code(), "FAN-2011");
        let ConsumerError::Differs { mismatches, .. } = error else {
            panic!("{error}")
        };
        assert_eq!(
            mismatches.iter().map(|m| m.setting.as_str()).collect::<Vec<_>>(),
            expected
        );
        let after = raw(
            &connection,
            &format!("CONSUMER.INFO.S.{}", spec.name()),
            Value::Null,
        )
        .await;
        assert_eq!(before["config"], after["config"]);
        raw(
            &connection,
            &format!("CONSUMER.DELETE.S.{}", spec.name()),
            Value::Null,
        )
        .await;
    }

    let mut config = wanted;
    config["max_ack_pending"] = json!(10);
    raw(&connection, &name, request(&config, "create")).await;
    fill(&connection, 5, 10).await;
    let first = spec.ensure(&connection, CreatePolicy::Never).await.unwrap();
    assert_eq!(
        first.grown.iter().map(|m| m.setting.as_str()).collect::<Vec<_>>(),
        ["max_ack_pending"]
    );
    assert_eq!((first.info.max_ack_pending, first.created), (8_000, false));
    let again = spec.ensure(&connection, CreatePolicy::Never).await.unwrap();
    assert_eq!(
        (again.grown, again.info.created_ns),
        (vec![], first.info.created_ns)
    );
}

/// Goal: batches keep to both limits, arrive in order and complete, and settle. Method: 3000 messages, then look at the
/// consumer's counters.
#[tokio::test]
async fn pull_and_settle() {
    let (_hub, connection) = with_stream().await;
    fill(&connection, 3_000, 500).await;
    let shared = consumer(&connection).await;
    let mut puller = Puller::new(&connection, &shared);
    let settler = Settler::new(&connection);

    let small = in_time(puller.fetch(256, 5_000, LINGER, PATIENCE)).await.unwrap();
    let bytes: usize = small.iter().map(|p| p.payload.len() + p.subject.len()).sum();
    assert!(!small.is_empty() && bytes <= 5_000, "{bytes}");
    assert_eq!(
        small.iter().map(|p| p.facts.stream_seq).collect::<Vec<_>>(),
        (1..=small.len() as u64).collect::<Vec<_>>()
    );
    let first = small.len();
    settler
        .settle(&small.into_iter().map(|p| p.ack).collect::<Vec<_>>())
        .await
        .unwrap();

    assert_eq!(
        pull_all(&mut puller, 3_000 - first, &settler).await,
        3_000 - first
    );
    let info = shared.info(&connection).await.unwrap();
    assert_eq!(
        (info.ack_floor, info.ack_pending, info.pending),
        (StreamSeq(3_000), 0, 0)
    );
    let idle = in_time(puller.fetch(256, MIB, LINGER, Duration::from_millis(50)))
        .await
        .unwrap();
    assert!(idle.is_empty());
    // An open pull serves what comes later, without a new request.
    fill(&connection, 1, 10).await;
    assert_eq!(
        in_time(puller.fetch(256, MIB, LINGER, PATIENCE))
            .await
            .unwrap()
            .len(),
        1
    );
}

/// Goal: two nodes share the work, each message goes to one of them. Method: two pullers over two connections.
#[tokio::test]
async fn two_nodes_share() {
    let (hub, connection) = with_stream().await;
    let shared = consumer(&connection).await;
    let other = connect(&hub).await;
    let mut pullers = [Puller::new(&connection, &shared), Puller::new(&other, &shared)];
    // Both ask before there is anything, so that both take part.
    for puller in &mut pullers {
        assert!(
            puller
                .fetch(100, MIB, LINGER, Duration::from_millis(20))
                .await
                .unwrap()
                .is_empty()
        );
    }
    fill(&connection, 500, 10).await;
    let mut seen = BTreeSet::new();
    let mut shares = [0, 0];
    let settler = Settler::new(&connection);
    while seen.len() < 500 {
        for (puller, share) in pullers.iter_mut().zip(&mut shares) {
            let batch: Vec<Pulled> = puller
                .fetch(100, MIB, LINGER, Duration::from_millis(20))
                .await
                .unwrap();
            *share += batch.len();
            for pulled in &batch {
                assert!(
                    seen.insert(pulled.facts.stream_seq),
                    "{} came twice",
                    pulled.facts.stream_seq
                );
            }
            settler
                .settle(&batch.into_iter().map(|p| p.ack).collect::<Vec<_>>())
                .await
                .unwrap();
        }
    }
    assert!(shares[0] > 0 && shares[1] > 0, "{shares:?}");
}

/// Goal: a batch that is not full waits for more as long as it was told to, and not longer. Method: the rest of a batch is published
/// after its first messages were delivered to a puller with all the time in the world; then one message alone, with little.
#[tokio::test]
async fn a_batch_lingers_as_told() {
    let (_hub, connection) = with_stream().await;
    let shared = consumer(&connection).await;
    fill(&connection, 4, 10).await;
    let mut patient = Puller::new(&connection, &shared);
    let rest = async {
        while shared.info(&connection).await.unwrap().ack_pending < 4 {
            tokio::task::yield_now().await;
        }
        fill(&connection, 6, 10).await;
    };
    let (batch, ()) =
        in_time(async { tokio::join!(patient.fetch(10, MIB, 10 * PATIENCE, PATIENCE), rest) }).await;
    assert_eq!(batch.unwrap().len(), 10);

    patient.release().await;
    fill(&connection, 1, 10).await;
    let mut quick = Puller::new(&connection, &shared);
    let batch = in_time(quick.fetch(10, MIB, LINGER, PATIENCE)).await.unwrap();
    assert_eq!(batch.len(), 1);
}

/// Goal: released messages reach another node at once, not after the acknowledgement wait of 30 s. Method: one puller
/// takes some and releases the rest, another one pulls within the patience of the test, which is shorter.
#[tokio::test]
async fn released_messages_move_on() {
    let (hub, connection) = with_stream().await;
    fill(&connection, 100, 10).await;
    let shared = consumer(&connection).await;
    let mut puller = Puller::new(&connection, &shared);
    let taken = in_time(puller.fetch(100, 50, LINGER, PATIENCE)).await.unwrap();
    puller.release().await;
    assert_eq!(puller.owed(), 0);

    let other = connect(&hub).await;
    let mut second = Puller::new(&other, &shared);
    let mut seen = BTreeSet::new();
    let wanted = 100 - taken.len();
    let step = tokio::time::timeout(Duration::from_secs(15), async {
        while seen.len() < wanted {
            seen.extend(
                second
                    .fetch(100, MIB, LINGER, PATIENCE)
                    .await
                    .unwrap()
                    .iter()
                    .map(|p| p.facts.stream_seq),
            );
        }
    });
    step.await.expect("well before the acknowledgement wait");
}

/// Goal: a puller goes on over a restart of the hub, nothing is lost. Method: pull half, kill, restart, pull the rest;
/// what was on its way comes again after the acknowledgement wait.
#[tokio::test]
async fn a_restart_of_the_hub_loses_nothing() {
    let (mut hub, connection) = with_stream().await;
    fill(&connection, 400, 100).await;
    let spec = fanin_hub::ConsumerSpec {
        ack_wait: Duration::from_secs(2),
        ..spec(&connection).await
    };
    let shared = spec.ensure(&connection, CreatePolicy::FromStart).await.unwrap();
    let mut puller = Puller::new(&connection, &shared);
    let settler = Settler::new(&connection);
    let mut seen = BTreeSet::new();
    let first = in_time(puller.fetch(100, MIB, LINGER, PATIENCE)).await.unwrap();
    seen.extend(first.iter().map(|p| p.facts.stream_seq));

    hub.kill().unwrap();
    in_time(connection.lost(1)).await;
    let acks: Vec<AckSubject> = first.into_iter().map(|p| p.ack).collect();
    let error = settler.settle(&acks).await.err().unwrap();
    assert!(error.retryable() && matches!(error.source, ApiError::Disconnected));
    hub.restart().await.unwrap();
    in_time(connection.wait_connected()).await;
    in_time(connection.check_jetstream(PATIENCE)).await.unwrap();

    in_time(async {
        while seen.len() < 400 {
            match puller.fetch(256, MIB, LINGER, Duration::from_secs(1)).await {
                Ok(batch) => {
                    seen.extend(batch.iter().map(|p| p.facts.stream_seq));
                    // Straight after a restart the consumer may not listen yet; unsettled messages come again.
                    let _ = settler
                        .settle(&batch.into_iter().map(|p| p.ack).collect::<Vec<_>>())
                        .await;
                }
                Err(error) => assert!(error.retryable(), "{error}"),
            }
        }
    })
    .await;
}

/// Goal: a deleted consumer is told at once, to the puller and to the settler. Method: delete it under an open pull.
#[tokio::test]
async fn a_deleted_consumer_is_told() {
    let (_hub, connection) = with_stream().await;
    fill(&connection, 1, 10).await;
    let shared = consumer(&connection).await;
    let mut puller = Puller::new(&connection, &shared);
    let batch = in_time(puller.fetch(10, MIB, LINGER, PATIENCE)).await.unwrap();
    raw(
        &connection,
        &format!("CONSUMER.DELETE.S.{}", shared.name),
        Value::Null,
    )
    .await;

    let error = in_time(puller.fetch(10, MIB, LINGER, PATIENCE))
        .await
        .err()
        .unwrap();
    assert!(
        matches!(
            error,
            PullError::ConsumerDeleted { .. } | PullError::NoConsumer { .. }
        ),
        "{error}"
    );
    let error = in_time(puller.fetch(10, MIB, LINGER, PATIENCE))
        .await
        .err()
        .unwrap();
    assert!(matches!(error, PullError::NoConsumer { .. }), "{error}");
    let acks: Vec<AckSubject> = batch.into_iter().map(|p| p.ack).collect();
    let error = Settler::new(&connection).settle(&acks).await.err().unwrap();
    assert!(matches!(error.source, ApiError::NoResponders { .. }), "{error}");
    assert!(matches!(
        shared.info(&connection).await,
        Err(ConsumerError::Missing { .. })
    ));
}

/// Goal: given back with a delay, a message comes again. Method: give back, pull again, look at the delivery count.
#[tokio::test]
async fn given_back_comes_again() {
    let (_hub, connection) = with_stream().await;
    fill(&connection, 1, 10).await;
    let shared = consumer(&connection).await;
    let mut puller = Puller::new(&connection, &shared);
    let batch = in_time(puller.fetch(10, MIB, LINGER, PATIENCE)).await.unwrap();
    let acks: Vec<AckSubject> = batch.into_iter().map(|p| p.ack).collect();
    Settler::new(&connection)
        .give_back(&acks, Duration::from_millis(200))
        .await
        .unwrap();
    let again = in_time(puller.fetch(10, MIB, LINGER, Duration::from_secs(10)))
        .await
        .unwrap();
    assert_eq!(again.iter().map(|p| p.facts.delivered).collect::<Vec<_>>(), [2]);
}

/// Goal: what waited in a puller longer than the acknowledgement wait is dropped, as another node has it by then. Method:
/// one puller takes a few and keeps the rest waiting; once a second one has got all of them again, the first one fetches.
#[tokio::test]
async fn stale_messages_are_dropped() {
    let (hub, connection) = with_stream().await;
    fill(&connection, 50, 10).await;
    let spec = fanin_hub::ConsumerSpec {
        ack_wait: Duration::from_millis(500),
        ..spec(&connection).await
    };
    let shared = spec.ensure(&connection, CreatePolicy::FromStart).await.unwrap();
    let mut idle = Puller::new(&connection, &shared);
    assert!(
        !in_time(idle.fetch(50, 30, LINGER, PATIENCE))
            .await
            .unwrap()
            .is_empty()
    );

    let other = connect(&hub).await;
    let mut busy = Puller::new(&other, &shared);
    let settler = Settler::new(&other);
    assert!(pull_all(&mut busy, 50, &settler).await >= 50);
    assert_eq!(
        in_time(idle.fetch(50, MIB, LINGER, Duration::from_millis(50)))
            .await
            .unwrap()
            .len(),
        0
    );
    assert!(idle.dropped_stale() > 0);
}
