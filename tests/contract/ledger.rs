//! The ledger's stream: compare-and-set, duplicate window, purge by subject, full, deny delete.

use serde_json::{Value, json};

use crate::server::{Server, error_code};

async fn ledger(extra: Value) -> Server {
    let server = Server::start().await;
    let options = fanin_hub::LedgerOptions::new("m");
    let mut config = options.config();
    config
        .as_object_mut()
        .unwrap()
        .extend(extra.as_object().unwrap().clone());
    server
        .must(&format!("STREAM.CREATE.{}", options.stream()), config)
        .await;
    server
}

/// Goal: the server keeps every setting of the ledger as it was set. Method: compare with STREAM.INFO field by field.
#[tokio::test]
async fn settings_come_back_unchanged() {
    let server = ledger(json!({})).await;
    let options = fanin_hub::LedgerOptions::new("m");
    let found = server.must("STREAM.INFO.FANIN-m", Value::Null).await;
    for (setting, value) in options.config().as_object().unwrap() {
        let kept = &found["config"][setting];
        let left_out = kept.is_null() && (*value == json!(false) || *value == json!(0));
        let with_own = setting == "metadata" && kept["fanin.mapping"] == json!("m");
        assert!(
            left_out || with_own || kept == value,
            "{setting}: {kept} instead of {value}"
        );
    }
}

/// Goal: within the window a repeated message id stores nothing and returns the first sequence, marked as duplicate.
/// Method: publish twice, with another record in between.
#[tokio::test]
async fn a_duplicate_returns_the_first_sequence() {
    let server = ledger(json!({})).await;
    let id = [("Nats-Msg-Id", "one")];
    let first = server.publish("fanin.m.claim.n", &id, "a").await;
    server
        .publish("fanin.m.claim.n", &[("Nats-Msg-Id", "two")], "b")
        .await;
    let again = server.publish("fanin.m.claim.n", &id, "a").await;
    assert_eq!((&first["seq"], &first["duplicate"]), (&json!(1), &Value::Null));
    assert_eq!((&again["seq"], &again["duplicate"]), (&json!(1), &json!(true)));
    assert_eq!(
        server.must("STREAM.INFO.FANIN-m", Value::Null).await["state"]["last_seq"],
        json!(2)
    );
}

/// F12. Goal: Expected-Last-Subject-Sequence is a compare-and-set on one subject; a failure has code 10071, names the last
/// sequence, stores nothing, and the last record can then be read. Method: two writers with one expectation.
#[tokio::test]
async fn compare_and_set() {
    let server = ledger(json!({})).await;
    let expect = |n: &'static str| [("Nats-Expected-Last-Subject-Sequence", n)];
    server.publish("fanin.m.claim.n", &[], "noise").await;
    assert_eq!(
        server.publish("fanin.m.epoch.n", &expect("0"), "first").await["seq"],
        json!(2)
    );
    let lost = server.publish("fanin.m.epoch.n", &expect("0"), "second").await;
    assert_eq!(error_code(&lost), Some(10071), "{lost}");
    assert_eq!(lost["error"]["description"], json!("wrong last sequence: 2"));

    let last = server
        .must(
            "STREAM.MSG.GET.FANIN-m",
            json!({ "last_by_subj": "fanin.m.epoch.n" }),
        )
        .await;
    assert_eq!(last["message"]["seq"], json!(2));
    assert_eq!(
        server.publish("fanin.m.epoch.n", &expect("2"), "next").await["seq"],
        json!(3)
    );
}

/// F12. Goal: a compare-and-set that is repeated because its answer was lost fails with 10071 although it carries the same
/// message id (one replica), or is a duplicate (several): the writer must read the last record to know. Method: send the
/// same one twice.
#[tokio::test]
async fn a_repeated_compare_and_set_must_be_read_to_be_understood() {
    let server = ledger(json!({})).await;
    let headers = [("Nats-Expected-Last-Subject-Sequence", "0"), ("Nats-Msg-Id", "x")];
    assert_eq!(
        server.publish("fanin.m.epoch.n", &headers, "e").await["seq"],
        json!(1)
    );
    let again = server.publish("fanin.m.epoch.n", &headers, "e").await;
    assert!(
        error_code(&again) == Some(10071) || again["duplicate"] == json!(true),
        "{again}"
    );
}

/// Goal: a purge by subject and sequence removes the prefix of that subject only, keeps the named sequence, and leaves
/// holes behind. Method: two subjects in turn, purge one.
#[tokio::test]
async fn purge_by_subject_and_sequence() {
    let server = ledger(json!({})).await;
    for subject in ["claim.a", "claim.b", "claim.a", "claim.b", "claim.a"] {
        server.publish(&format!("fanin.m.{subject}"), &[], "x").await;
    }
    let purged = server
        .must(
            "STREAM.PURGE.FANIN-m",
            json!({ "filter": "fanin.m.claim.a", "seq": 5 }),
        )
        .await;
    assert_eq!(purged["purged"], json!(2));
    let mut left = Vec::new();
    for seq in 1..=5 {
        let got = server.api("STREAM.MSG.GET.FANIN-m", json!({ "seq": seq })).await;
        match error_code(&got) {
            None => left.push(seq),
            code => assert_eq!(code, Some(10037)),
        }
    }
    assert_eq!(left, [2, 4, 5]);
}

/// Goal: a full ledger refuses, with code 10077, and loses nothing that is in it. Method: a tiny size limit.
#[tokio::test]
async fn a_full_ledger_refuses() {
    let server = ledger(json!({ "max_bytes": 4096 })).await;
    let body = "x".repeat(1000);
    let mut stored = 0;
    let refused = loop {
        let answer = server.publish("fanin.m.claim.n", &[], &body).await;
        if answer.get("error").is_some() {
            break answer;
        }
        stored += 1;
        assert!(stored < 10);
    };
    assert_eq!(error_code(&refused), Some(10077), "{refused}");
    assert_eq!(refused["error"]["description"], json!("maximum bytes exceeded"));
    let state = &server.must("STREAM.INFO.FANIN-m", Value::Null).await["state"];
    assert_eq!(
        (&state["first_seq"], &state["messages"]),
        (&json!(1), &json!(stored))
    );
}

/// Goal: single records cannot be deleted, and this cannot be switched off again. Method: try both.
#[tokio::test]
async fn deleting_is_denied_for_good() {
    let server = ledger(json!({})).await;
    server.publish("fanin.m.claim.n", &[], "x").await;
    let refused = server.api("STREAM.MSG.DELETE.FANIN-m", json!({ "seq": 1 })).await;
    assert!(error_code(&refused).is_some(), "{refused}");

    let mut config = server.must("STREAM.INFO.FANIN-m", Value::Null).await["config"].clone();
    config["deny_delete"] = json!(false);
    let refused = server.api("STREAM.UPDATE.FANIN-m", config).await;
    assert!(error_code(&refused).is_some(), "{refused}");
}

/// Goal: a record for another stream than the one named is refused, so a subject that was moved cannot swallow claims.
/// Method: name a wrong stream.
#[tokio::test]
async fn the_expected_stream_is_checked() {
    let server = ledger(json!({})).await;
    let refused = server
        .publish("fanin.m.claim.n", &[("Nats-Expected-Stream", "OTHER")], "x")
        .await;
    assert_eq!(error_code(&refused), Some(10060), "{refused}");
}

/// Goal: a record over the size limit is refused with code 10054. Method: one byte more than allowed.
#[tokio::test]
async fn an_oversized_record_is_refused() {
    let server = ledger(json!({ "max_msg_size": 1024 })).await;
    let refused = server.publish("fanin.m.claim.n", &[], &"x".repeat(1100)).await;
    assert_eq!(error_code(&refused), Some(10054), "{refused}");
}
