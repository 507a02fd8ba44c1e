//! Connecting, refusals, and what a lost connection does to requests.

use bytes::Bytes;
use fanin_core::ids::StreamSeq;
use fanin_hub::{
    ApiError, AwayKind, ConnectError, Connection, HubOptions, Login, Outgoing, PublishError, Publisher,
    Secret, SourceError, SourceInfo, fetch_message, next_matching,
};

use tokio::io::AsyncWriteExt as _;

use crate::support::{PATIENCE, connect, fill, in_time, start, with_stream};

const ACCOUNTS: &str = r#"
accounts {
  WITH: {
    jetstream: enabled
    users: [
      { user: all, password: secret }
      { user: few, password: secret, permissions: {
          publish: { deny: ["$JS.API.STREAM.INFO.>"] } } }
    ]
  }
  WITHOUT: { users: [ { user: none, password: secret } ] }
}
"#;

fn login(hub: &fanin_localhub::LocalHub, user: &str, password: &str) -> HubOptions {
    let password = Secret::Value(password.to_owned());
    HubOptions {
        login: Login::UserPassword {
            user: user.to_owned(),
            password,
        },
        ..HubOptions::new([hub.url()])
    }
}

/// Goal: each way to fail at start has its own error. Method: one server with accounts, one address nobody listens on.
#[tokio::test]
async fn each_refusal_is_told_apart() {
    let hub = start(ACCOUNTS).await;
    assert!(Connection::connect(login(&hub, "all", "secret")).await.is_ok());
    let error = Connection::connect(login(&hub, "all", "wrong"))
        .await
        .err()
        .unwrap();
    assert!(matches!(error, ConnectError::LoginRefused { .. }), "{error}");
    let error = Connection::connect(login(&hub, "none", "secret"))
        .await
        .err()
        .unwrap();
    assert!(
        matches!(error, ConnectError::HubWithoutJetStream { .. }),
        "{error}"
    );
    assert_eq!(error.code(), "FAN-2005");

    let nobody = format!("nats://127.0.0.1:{}", fanin_localhub::free_port().unwrap());
    let error = Connection::connect(HubOptions::new([nobody]))
        .await
        .err()
        .unwrap();
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error}");
    let error = Connection::connect(HubOptions {
        login: Login::Creds("/nonexistent/a.creds".into()),
        ..HubOptions::new([hub.url()])
    });
    assert!(matches!(
        error.await.err().unwrap(),
        ConnectError::Unreadable { .. }
    ));
}

/// Goal: a bridge that waits for its hub knows why it is not there, and forgets it once it is. Method: the reasons above, over
/// connections that wait; then the hub that was missing.
#[tokio::test]
async fn a_connection_that_waits_knows_why() {
    let hub = start(ACCOUNTS).await;
    let mut late = start("").await;
    late.kill().unwrap();
    // A port on which somebody else serves.
    let other = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let other_url = format!("nats://{}", other.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = other.accept().await {
            let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let mut encrypted = login(&hub, "all", "secret");
    encrypted.tls.required = true;
    let mut waiting = Vec::new();
    for (options, kind) in [
        (login(&hub, "all", "wrong"), AwayKind::LoginRefused),
        (encrypted, AwayKind::Tls),
        (HubOptions::new([other_url]), AwayKind::Unreachable),
        // What tells most is told, whichever server is tried last.
        (
            HubOptions {
                servers: vec![late.url(), hub.url()],
                ..login(&hub, "all", "wrong")
            },
            AwayKind::LoginRefused,
        ),
        (HubOptions::new([late.url()]), AwayKind::Unreachable),
    ] {
        let connection = Connection::connect(HubOptions {
            wait_for_hub: true,
            ..options
        })
        .await
        .unwrap();
        let mut state = connection.watch();
        let knows = state.wait_for(|state| {
            let away = state.away.as_ref();
            away.is_some_and(|away| away.kind == kind && !away.server.is_empty())
        });
        let (code, text) = in_time(knows).await.unwrap().why_away().unwrap();
        assert_eq!(code, kind.code(), "{text}");
        assert!(text.contains("127.0.0.1:") && text.contains("; check "), "{text}");
        waiting.push(connection);
    }
    late.restart().await.unwrap();
    let found = in_time(waiting.pop().unwrap().wait_connected()).await;
    assert_eq!((found.why_away(), found.away), (None, None));
}

/// Goal: asking for encryption never falls back to plain text. Method: demand TLS of a server that has none.
#[tokio::test]
async fn required_encryption_is_required() {
    let hub = start("").await;
    let mut options = HubOptions::new([hub.url()]);
    options.tls.required = true;
    let error = Connection::connect(options).await.err().unwrap();
    assert!(
        matches!(error, ConnectError::Tls { .. }) && error.code() == "FAN-2003",
        "{error}"
    );
}

/// Goal: user and password within the address are used. Method: connect with them only.
#[tokio::test]
async fn the_address_may_carry_the_login() {
    let hub = start(ACCOUNTS).await;
    let url = hub.url().replace("nats://", "nats://all:secret@");
    assert!(Connection::connect(HubOptions::new([url])).await.is_ok());
}

/// Goal: a denied subject is named at once instead of a time-out. Method: a user that may not ask for stream information.
#[tokio::test]
async fn a_denied_subject_is_named() {
    let hub = start(ACCOUNTS).await;
    let connection = Connection::connect(login(&hub, "few", "secret")).await.unwrap();
    let error = SourceInfo::fetch(&connection, "S").await.err().unwrap();
    assert_eq!(error.code(), "FAN-2006");
    let SourceError::Hub {
        source: ApiError::PermissionDenied { subject },
        ..
    } = error
    else {
        panic!("{error}")
    };
    assert_eq!(subject, "$JS.API.STREAM.INFO.S");
}

/// Goal: the state follows the server; while it is away requests fail at once and are not queued; afterwards all goes on
/// under a higher generation. Method: SIGKILL, requests, restart.
#[tokio::test]
async fn a_restart_of_the_hub() {
    let (mut hub, connection) = with_stream().await;
    let state = connection.state();
    assert!(
        state.connected
            && state.generation == 1
            && !state.version.is_empty()
            && state.max_payload >= 1024 * 1024
    );

    hub.kill().unwrap();
    in_time(connection.lost(1)).await;
    let publisher = Publisher::new(&connection, 8);
    let message = Outgoing {
        subject: "s.a".into(),
        payload: Bytes::from_static(b"x"),
        ..Outgoing::default()
    };
    let error = publisher.publish(message.clone()).await.err().unwrap();
    assert!(
        matches!(
            error,
            PublishError::Hub {
                source: ApiError::Disconnected,
                ..
            }
        ),
        "{error}"
    );
    assert!(error.retryable());

    hub.restart().await.unwrap();
    let mut watch = connection.watch();
    in_time(watch.wait_for(|s| s.generation == 2 && !s.version.is_empty()))
        .await
        .unwrap();
    in_time(connection.check_jetstream(PATIENCE)).await.unwrap();
    // The message that failed was not sent behind our back.
    assert_eq!(publisher.publish(message).await.unwrap().seq, 1);
}

/// Goal: with `wait_for_hub` a bridge starts without its hub and finds it later. Method: reserve a port, connect, start
/// the server on it.
#[tokio::test]
async fn the_hub_may_come_later() {
    let mut hub = start("").await;
    let url = hub.url();
    hub.kill().unwrap();
    let connection = Connection::connect(HubOptions {
        wait_for_hub: true,
        ..HubOptions::new([url])
    })
    .await
    .unwrap();
    assert_eq!(connection.generation(), None);
    hub.restart().await.unwrap();
    assert_eq!(in_time(connection.wait_connected()).await.generation, 1);
    in_time(connection.check_jetstream(PATIENCE)).await.unwrap();
}

/// Goal: messages are published in order with ids and headers, and read back by sequence and by filter. Method: publish a
/// few, repeat one, read.
#[tokio::test]
async fn publish_and_read_back() {
    let (_hub, connection) = with_stream().await;
    let publisher = Publisher::new(&connection, 4);
    let headers = vec![("A".to_owned(), "1".to_owned()), ("A".to_owned(), "2".to_owned())];
    let message = |n: u64| Outgoing {
        subject: format!("s.{n}"),
        headers: headers.clone(),
        payload: Bytes::from(n.to_string()),
        msg_id: Some(n.to_string()),
    };
    let acks = publisher.publish_all((1..=20).map(message).collect()).await;
    assert_eq!(
        acks.into_iter().map(|a| a.unwrap().seq).collect::<Vec<_>>(),
        (1..=20).collect::<Vec<u64>>()
    );
    let again = publisher.publish(message(3)).await.unwrap();
    assert_eq!((again.seq, again.duplicate), (3, true));

    let stored = fetch_message(&connection, "S", StreamSeq(3))
        .await
        .unwrap()
        .unwrap();
    assert_eq!((stored.subject.as_str(), &stored.payload[..]), ("s.3", &b"3"[..]));
    assert_eq!(stored.headers[..2], headers[..]);
    assert!(stored.published_ns > 1_600_000_000_000_000_000);
    assert_eq!(
        fetch_message(&connection, "S", StreamSeq(99)).await.unwrap(),
        None
    );
    assert_eq!(
        next_matching(&connection, "S", StreamSeq(4), "s.*")
            .await
            .unwrap()
            .unwrap()
            .seq,
        StreamSeq(4)
    );
    assert_eq!(
        next_matching(&connection, "S", StreamSeq(4), "s.3")
            .await
            .unwrap(),
        None
    );

    let nowhere = Outgoing {
        subject: "nowhere".into(),
        ..Outgoing::default()
    };
    assert!(matches!(
        publisher.publish(nowhere).await,
        Err(PublishError::NoStream { .. })
    ));
}

/// Goal: facts of a stream, and another incarnation for a re-created one. Method: fill, ask, delete, create, ask.
#[tokio::test]
async fn source_facts() {
    let (hub, connection) = with_stream().await;
    fill(&connection, 3, 10).await;
    let before = SourceInfo::fetch(&connection, "S").await.unwrap();
    assert_eq!((before.first_seq, before.last_seq, before.messages), (1, 3, 3));
    assert_eq!(
        (
            before.retention.as_str(),
            before.storage.as_str(),
            before.replicas
        ),
        ("limits", "file", 1)
    );
    assert_eq!(before.subjects, ["s.>"]);
    assert!(!before.mirror && !before.sourced);

    let other = connect(&hub).await;
    crate::support::raw(&other, "STREAM.DELETE.S", serde_json::Value::Null).await;
    assert!(matches!(
        SourceInfo::fetch(&connection, "S").await,
        Err(SourceError::Missing { .. })
    ));
    let config = serde_json::json!({ "name": "S", "subjects": ["s.>"], "storage": "file" });
    crate::support::raw(&other, "STREAM.CREATE.S", config).await;
    let after = SourceInfo::fetch(&connection, "S").await.unwrap();
    assert_ne!(before.incarnation(0), after.incarnation(0));
}
