//! Consumers: settings, start positions, floors, pulls.

use std::time::Duration;

use serde_json::{Value, json};

use crate::server::{PATIENCE, Server, error_code};

/// Goal: the server keeps every setting of the shared consumer as it was set. Method: create it with the adapter's own
/// configuration and compare each field with what CONSUMER.INFO returns.
#[tokio::test]
async fn settings_come_back_unchanged() {
    let server = Server::start().await;
    server.stream(json!({})).await;
    let spec = fanin_hub::ConsumerSpec {
        stream: "S".to_owned(),
        prefix: "fanin".to_owned(),
        mapping: "m".to_owned(),
        incarnation: fanin_core::ids::Incarnation(7),
        generation: 0,
        filter_subjects: vec!["s.a".to_owned(), "s.b.>".to_owned()],
        ack_wait: Duration::from_secs(30),
        nodes: 40,
        in_flight_per_node: 5_000,
    };
    let wanted = spec.config(fanin_hub::CreatePolicy::FromStart);
    let name = spec.name();
    let request = json!({ "stream_name": "S", "config": wanted, "action": "create" });
    server
        .must(&format!("CONSUMER.CREATE.S.{name}"), request.clone())
        .await;
    let found = server.must(&format!("CONSUMER.INFO.S.{name}"), Value::Null).await;
    for (setting, value) in wanted.as_object().unwrap() {
        if setting == "metadata" {
            for (key, value) in value.as_object().unwrap() {
                assert_eq!(&found["config"]["metadata"][key], value, "{key}");
            }
        } else {
            assert_eq!(&found["config"][setting], value, "{setting}");
        }
    }

    // Creating it again with equal settings is no error, which lets several nodes start at once.
    server
        .must(&format!("CONSUMER.CREATE.S.{name}"), request.clone())
        .await;
    // With other settings `create` refuses rather than changes.
    let mut other = request;
    other["config"]["ack_wait"] = json!(31_000_000_000u64);
    let refused = server.api(&format!("CONSUMER.CREATE.S.{name}"), other).await;
    assert_eq!(error_code(&refused), Some(10148), "{refused}");
}

/// F14. Goal: a start behind the end of the stream is not pulled back to the end; what is written in between is skipped.
/// So the adapter must never ask for such a start. Method: start at 10 in a stream of 3, write up to 12, and pull.
#[tokio::test]
async fn a_start_behind_the_end_is_not_clamped() {
    let server = Server::start().await;
    server.stream(json!({})).await;
    server.fill(3).await;
    let consumer = server
        .consumer(json!({ "deliver_policy": "by_start_sequence", "opt_start_seq": 10 }))
        .await;
    assert_eq!(consumer["config"]["opt_start_seq"], json!(10));
    for n in 4..=12 {
        server.publish("s.a", &[], &n.to_string()).await;
    }
    assert_eq!(server.pull_one().await.numbers().1, 10);
}

/// Goal: the ack floor passes over messages that do not match the filter, but only once something behind them is
/// acknowledged; so a floor says nothing about whether a message below it matched. Method: a filter on every other
/// message, acknowledge all that match.
#[tokio::test]
async fn the_ack_floor_passes_over_what_does_not_match() {
    let server = Server::start().await;
    server.stream(json!({})).await;
    server.consumer(json!({ "filter_subjects": ["s.yes"] })).await;
    for subject in ["s.no", "s.yes", "s.no", "s.yes", "s.no"] {
        server.publish(subject, &[], "x").await;
    }
    let (deliveries, _) = server.pull(2, PATIENCE).await;
    assert_eq!(
        deliveries.iter().map(|d| d.numbers().1).collect::<Vec<_>>(),
        [2, 4]
    );

    // The first one alone: the floor is at it.
    server.ack(&deliveries[0].ack(), "+ACK").await;
    let floor = server.consumer_info().await["ack_floor"]["stream_seq"]
        .as_u64()
        .unwrap();
    assert!((2..4).contains(&floor), "{floor}");
    // All: the floor reaches at least the last matching message.
    server.ack(&deliveries[1].ack(), "+ACK").await;
    let floor = server.consumer_info().await["ack_floor"]["stream_seq"]
        .as_u64()
        .unwrap();
    assert!((4..=5).contains(&floor), "{floor}");
}

/// Goal: a message acknowledged out of order does not move the floor past an open one. Method: acknowledge the second of
/// two.
#[tokio::test]
async fn the_ack_floor_waits_for_open_messages() {
    let server = Server::start().await;
    server.stream(json!({})).await;
    server.consumer(json!({})).await;
    server.fill(2).await;
    let (deliveries, _) = server.pull(2, PATIENCE).await;
    server.ack(&deliveries[1].ack(), "+ACK").await;
    let info = server.consumer_info().await;
    assert_eq!(info["ack_floor"]["stream_seq"], json!(0));
    assert_eq!(info["num_ack_pending"], json!(1));
}

/// Goal: how a pull ends: 408 when it expires, 503 when the consumer is not there, and `max_bytes` ends it before the
/// message that would not fit. The adapter counts what is owed by these. Method: one pull each.
#[tokio::test]
async fn how_pulls_end() {
    let server = Server::start().await;
    server.stream(json!({})).await;
    server.consumer(json!({})).await;
    let (none, status) = server.pull(5, Duration::from_millis(200)).await;
    assert_eq!((none.len(), status), (0, Some(408)));

    server.publish("s.a", &[], &"x".repeat(1000)).await;
    server.publish("s.a", &[], &"x".repeat(1000)).await;
    let expires = u64::try_from(PATIENCE.as_nanos()).unwrap();
    let (one, end) = server
        .pull_with(json!({ "batch": 5, "max_bytes": 1500, "expires": expires }))
        .await;
    let end = end.expect("a status");
    assert_eq!((one.len(), end.status.unwrap().as_u16()), (1, 409));
    assert_eq!(end.description.as_deref(), Some("Message Size Exceeds MaxBytes"));
    let pending = end
        .headers
        .as_ref()
        .and_then(|h| h.get("Nats-Pending-Messages"))
        .map(|v| v.as_str());
    assert_eq!(pending, Some("4"));

    server.must("CONSUMER.DELETE.S.c", Value::Null).await;
    let (none, status) = server.pull(5, Duration::from_millis(200)).await;
    assert_eq!((none.len(), status), (0, Some(503)));
}
