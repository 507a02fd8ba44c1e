//! Source streams: reading by sequence, and what tells one incarnation from another.

use serde_json::{Value, json};

use crate::server::{Server, error_code};

/// Goal: `next_by_subj` finds the first message at or behind a sequence whose subject matches a wildcard; the hole audit
/// rests on it. Method: a mixed stream with a purged part.
#[tokio::test]
async fn next_by_subject_with_wildcards() {
    let server = Server::start().await;
    server.stream(json!({})).await;
    for subject in ["s.a.1", "s.b.1", "s.a.2", "s.b.2", "s.a.3"] {
        server.publish(subject, &[], "x").await;
    }
    let next = async |seq: u64, filter: &str| {
        let got = server
            .api("STREAM.MSG.GET.S", json!({ "seq": seq, "next_by_subj": filter }))
            .await;
        match error_code(&got) {
            None => got["message"]["seq"].as_u64(),
            code => {
                assert_eq!(code, Some(10037), "{got}");
                None
            }
        }
    };
    assert_eq!(next(1, "s.a.*").await, Some(1));
    assert_eq!(next(2, "s.a.*").await, Some(3));
    assert_eq!(next(2, "s.>").await, Some(2));
    assert_eq!(next(4, "s.*.3").await, Some(5));
    assert_eq!(next(1, "s.c.*").await, None);
    assert_eq!(next(6, "s.>").await, None);
    server.must("STREAM.PURGE.S", json!({ "filter": "s.a.2" })).await;
    assert_eq!(next(2, "s.a.*").await, Some(5));
}

/// Goal: a stream that was deleted and created again starts at sequence 1 again and has another creation time, so its
/// incarnation differs. Method: compare `created` before and after.
#[tokio::test]
async fn a_recreated_stream_has_another_creation_time() {
    let server = Server::start().await;
    let before = server.stream(json!({})).await;
    server.fill(2).await;
    server.must("STREAM.DELETE.S", Value::Null).await;
    let after = server.stream(json!({})).await;
    assert_ne!(before["created"], after["created"]);
    server.fill(1).await;
}

/// Goal: a restart keeps the creation time, the messages and the last sequence, so an incarnation is stable. Method:
/// SIGKILL, restart on the same store.
#[tokio::test]
async fn a_restart_keeps_the_creation_time() {
    let mut server = Server::start().await;
    let before = server.stream(json!({})).await;
    server.fill(3).await;
    server.hub.kill().unwrap();
    server.hub.restart().await.unwrap();
    server.client = async_nats::connect(server.hub.url()).await.unwrap();
    let after = server.must("STREAM.INFO.S", Value::Null).await;
    assert_eq!(before["created"], after["created"]);
    assert_eq!(after["state"]["last_seq"], json!(3));
}

/// Goal: a purge keeps the last sequence: sequences are never given twice within an incarnation. Method: purge all,
/// publish one.
#[tokio::test]
async fn a_purge_keeps_the_numbering() {
    let server = Server::start().await;
    server.stream(json!({})).await;
    server.fill(3).await;
    server.must("STREAM.PURGE.S", Value::Null).await;
    assert_eq!(server.publish("s.a", &[], "x").await["seq"], json!(4));
}
