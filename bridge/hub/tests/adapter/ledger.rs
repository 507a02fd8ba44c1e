//! The ledger: ensure, append, read, purge.

use bytes::Bytes;
use fanin_core::ids::LedgerSeq;
use fanin_hub::ledger::AppendError;
use fanin_hub::{Ledger, LedgerError, LedgerOptions};
use futures_util::future::join_all;
use serde_json::Value;

use crate::support::{connect, in_time, ledger, ledger_options, raw, start};

fn body(text: &str) -> Bytes {
    Bytes::from(text.to_owned())
}

/// Goal: several nodes may create the ledger at once, also with different size limits; a later one finds it. Method: six
/// at once, then one that may not create.
#[tokio::test]
async fn created_by_several_at_once() {
    let hub = start("").await;
    let connection = connect(&hub).await;
    let options: Vec<LedgerOptions> = (0..6)
        .map(|n| LedgerOptions {
            max_bytes: (16 + n) * 1024 * 1024,
            ..ledger_options()
        })
        .collect();
    let made = join_all(options.iter().map(|o| Ledger::ensure(&connection, o))).await;
    let created: Vec<u64> = made
        .into_iter()
        .map(|l| l.expect("the ledger").created_ns())
        .collect();
    assert!(created.windows(2).all(|pair| pair[0] == pair[1]));
    assert!(
        Ledger::ensure(
            &connection,
            &LedgerOptions {
                may_create: false,
                ..ledger_options()
            }
        )
        .await
        .is_ok()
    );
}

/// Goal: a missing ledger is not created when it must exist, a differing one is refused by name, one that does not fit is
/// explained. Method: one case each.
#[tokio::test]
async fn refusals() {
    let hub = start("").await;
    let connection = connect(&hub).await;
    let never = LedgerOptions {
        may_create: false,
        ..ledger_options()
    };
    let error = Ledger::ensure(&connection, &never).await.err().unwrap();
    assert!(
        matches!(error, LedgerError::Missing { .. }) && error.code() == "FAN-2013",
        "{error}"
    );

    let huge = LedgerOptions {
        max_bytes: 1 << 60,
        ..ledger_options()
    };
    let error = Ledger::ensure(&connection, &huge).await.err().unwrap();
    assert!(matches!(error, LedgerError::NoRoom { .. }), "{error}");

    let mut config = ledger_options().config();
    config["allow_direct"] = Value::Bool(true);
    raw(&connection, "STREAM.CREATE.FANIN-m", config).await;
    let error = Ledger::ensure(&connection, &ledger_options())
        .await
        .err()
        .unwrap();
    let LedgerError::Differs { mismatches, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(
        mismatches.iter().map(|m| m.setting.as_str()).collect::<Vec<_>>(),
        ["allow_direct"]
    );
}

/// Goal: positions, duplicates, compare-and-set, size limit. Method: append each way and look at the results.
#[tokio::test]
async fn append_and_read() {
    let hub = start("").await;
    let connection = connect(&hub).await;
    let ledger = ledger(&connection).await;
    let first = ledger
        .append("claim.n", Some("a"), body("1"), None)
        .await
        .unwrap();
    let again = ledger
        .append("claim.n", Some("a"), body("1"), None)
        .await
        .unwrap();
    assert_eq!(
        (first.seq, first.duplicate, again.seq, again.duplicate),
        (1, false, 1, true)
    );

    assert_eq!(
        ledger
            .append("epoch.n", None, body("e1"), Some(LedgerSeq(0)))
            .await
            .unwrap()
            .seq,
        2
    );
    let error = ledger
        .append("epoch.n", None, body("e2"), Some(LedgerSeq(0)))
        .await
        .err()
        .unwrap();
    assert!(
        matches!(
            error,
            AppendError::WrongLastSequence {
                last: Some(LedgerSeq(2))
            }
        ),
        "{error}"
    );
    assert!(!error.retryable());
    let last = ledger.last_of_subject("epoch.n").await.unwrap().unwrap();
    assert_eq!(
        (last.seq, last.subject_suffix.as_str(), &last.body[..]),
        (LedgerSeq(2), "epoch.n", &b"e1"[..])
    );
    assert_eq!(
        ledger
            .append("epoch.n", None, body("e2"), Some(LedgerSeq(2)))
            .await
            .unwrap()
            .seq,
        3
    );

    let error = ledger
        .append("claim.n", None, Bytes::from(vec![0; 300 * 1024]), None)
        .await
        .err()
        .unwrap();
    assert!(matches!(error, AppendError::TooLarge { .. }), "{error}");
    assert_eq!(ledger.last_of_subject("gen").await.unwrap(), None);
    let epochs = ledger.read_subject("epoch.*", LedgerSeq(1)).await.unwrap();
    assert_eq!(epochs.iter().map(|r| r.seq.0).collect::<Vec<_>>(), [2, 3]);
    let info = ledger.info().await.unwrap();
    assert_eq!(
        (info.first_seq, info.last_seq, info.messages, info.max_bytes),
        (1, 3, 3, 16 * 1024 * 1024)
    );
}

/// Goal: a purge removes one subject's prefix and nothing else; a bound of 0 or 1 removes nothing. Method: two subjects.
#[tokio::test]
async fn purge() {
    let hub = start("").await;
    let connection = connect(&hub).await;
    let ledger = ledger(&connection).await;
    for suffix in ["claim.a", "close", "claim.a", "close", "claim.a"] {
        ledger.append(suffix, None, body("x"), None).await.unwrap();
    }
    assert_eq!(ledger.purge_subject("claim.a", LedgerSeq(0)).await.unwrap(), 0);
    assert_eq!(ledger.purge_subject("claim.a", LedgerSeq(1)).await.unwrap(), 0);
    assert_eq!(ledger.purge_subject("claim.*", LedgerSeq(5)).await.unwrap(), 2);
    assert_eq!(ledger.record_at(LedgerSeq(1)).await.unwrap(), None);
    assert!(ledger.record_at(LedgerSeq(5)).await.unwrap().is_some());
    assert_eq!(ledger.info().await.unwrap().messages, 3);
}

/// Goal: a full ledger says so; while the hub is away an append fails at once and does not land later. Method: fill a
/// small one; then kill the server, append, restart, look.
#[tokio::test]
async fn full_and_disconnected() {
    let mut hub = start("").await;
    let connection = connect(&hub).await;
    let options = LedgerOptions {
        max_bytes: 64 * 1024,
        ..ledger_options()
    };
    let ledger = Ledger::ensure(&connection, &options).await.unwrap();
    let error = loop {
        if let Err(error) = ledger
            .append("claim.n", None, Bytes::from(vec![0; 10_000]), None)
            .await
        {
            break error;
        }
    };
    assert!(
        matches!(error, AppendError::Full) && error.code() == "FAN-2017",
        "{error}"
    );
    let last = ledger.info().await.unwrap().last_seq;

    hub.kill().unwrap();
    in_time(connection.lost(1)).await;
    let error = ledger.append("close", None, body("x"), None).await.err().unwrap();
    assert!(
        matches!(error, AppendError::Disconnected) && error.retryable(),
        "{error}"
    );
    hub.restart().await.unwrap();
    in_time(connection.wait_connected()).await;
    in_time(connection.check_jetstream(crate::support::PATIENCE))
        .await
        .unwrap();
    assert_eq!(ledger.info().await.unwrap().last_seq, last);
}
