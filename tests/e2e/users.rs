//! Peer credentials: whose processes may be instances of which application.

use fanin_sdk::Client;
use rustix::process::getuid;
use serde_json::json;

use crate::cluster::{Cluster, LONG, TOPIC, orders};
use crate::starts::fanin;

/// Goal: an application that names its users takes instances of theirs and of nobody else; one that names none takes
/// everybody. Method: the real socket; this process's own user is named for one application, another one's number for the second.
#[tokio::test]
async fn only_users_who_are_named_may_be_instances() {
    let mut cluster = Cluster::new(&["billing"]).await;
    let own = getuid().as_raw();
    let patch = json!({ "mappings": { "orders": {
        "intake": "always",
        "applications": {
            "billing": { "users": [own] },
            "audit": { "users": [own + 1, own + 2] },
            "open": {},
        },
    } } });
    let options = cluster.options("n1").with_config(&patch);
    cluster.add(options, 1).await;
    let client = Client::connect(cluster.nodes[0].socket()).await.unwrap();
    let refused = client.subscribe(TOPIC, "audit").open().await.unwrap_err();
    assert!(
        refused.code() == "FAN-3005"
            && !refused.is_retryable()
            && refused.message().contains(&own.to_string()),
        "{refused:?}"
    );
    // The same from the command line: what a script goes by is the exit code, what its author reads is the cure.
    let socket = cluster.nodes[0].socket();
    let (exit, told) = fanin(&["subscribe", TOPIC, "--app", "audit", "--socket", &socket]).await;
    assert!(
        exit == Some(77) && told.contains("error[FAN-3005]: ") && told.contains("\n  cure: "),
        "{exit:?}: {told}"
    );
    let open = client.subscribe(TOPIC, "open").open().await.unwrap();
    open.close().await.unwrap();

    cluster.feed(40).await;
    let billing = |status: &fanin_proto::v1::StatusResponse| {
        let apps = &orders(status).apps;
        apps.iter().any(|app| app.name == "billing" && app.acked == 40)
    };
    let status = cluster.nodes[0]
        .wait_status(LONG, "what billing acknowledges", billing)
        .await
        .unwrap();
    let audit = orders(&status)
        .apps
        .iter()
        .find(|app| app.name == "audit")
        .unwrap();
    assert_eq!((audit.deliveries, audit.backlog_messages), (0, 40));
    assert_eq!(audit.instances.len(), 0);
}
