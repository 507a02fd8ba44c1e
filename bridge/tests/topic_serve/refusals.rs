//! What the server refuses, and that a refused client costs nobody else anything.

use fanin_bridge::serve::{DOMAIN, SERVICE};
use fanin_proto::v1::{
    Close, Open, Retry, StatusRequest, SubscribeRequest, Verdicts, node_service_client::NodeServiceClient,
    subscribe_request::Request,
};
use tonic::{Code, Status};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_types::StatusExt;

use crate::harness::{Client, World, app, ids, range};

fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    let info = details.error_info().expect("ErrorInfo");
    assert_eq!(info.domain, DOMAIN);
    info.reason.clone()
}

async fn refused(client: Result<Client, Status>) -> Status {
    match client {
        Ok(_) => panic!("must be refused"),
        Err(status) => status,
    }
}

#[tokio::test]
async fn unknown_names_are_refused_with_the_known_ones() {
    let world = World::new(vec![app("billing"), app("shipping")]).await;
    let channel = world.channel().await;
    let status = refused(Client::open(channel.clone(), "order", "billing", "i").await).await;
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::NotFound, "FAN-3001")
    );
    assert!(status.message().contains("orders"), "{status}");
    let status = refused(Client::open(channel, "orders", "bill", "i").await).await;
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::NotFound, "FAN-3002")
    );
    assert!(status.message().contains("billing, shipping"), "{status}");
    assert_eq!(
        status.get_error_details().error_info().unwrap().metadata["retryable"],
        "false"
    );
}

#[tokio::test]
async fn the_first_request_must_be_open_and_only_the_first() {
    let world = World::new(vec![app("a")]).await;
    let close = SubscribeRequest {
        request: Some(Request::Close(Close {})),
    };
    let status = refused(Client::begin(world.channel().await, close).await).await;
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::InvalidArgument, "FAN-3003")
    );
    let mut client = world.open("a", "i").await;
    client.send(Request::Open(Open::default())).await;
    assert_eq!(reason(&client.until_error().await), "FAN-3003");
}

#[tokio::test]
async fn other_users_may_be_kept_out() {
    let mut spec = app("a");
    spec.allowed_uids = vec![u32::MAX - 1];
    let world = World::new(vec![spec]).await;
    let status = refused(Client::open(world.channel().await, "orders", "a", "i").await).await;
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::PermissionDenied, "FAN-3005")
    );
}

#[tokio::test]
async fn malformed_and_oversized_requests_end_the_call_and_lose_nothing() {
    let mut world = World::new(vec![app("a")]).await;
    let published = world.publish(10).await;
    let huge = Retry {
        delivery: 1,
        after_ms: None,
        reason: "x".repeat(2 << 20),
    };
    let bad = [
        Verdicts {
            acks: range(1, u64::MAX),
            ..Verdicts::default()
        },
        Verdicts {
            acks: range(0, 0),
            ..Verdicts::default()
        },
        Verdicts {
            begun_through: 11,
            ..Verdicts::default()
        },
        Verdicts {
            retries: vec![huge],
            ..Verdicts::default()
        },
    ];
    for verdicts in bad {
        let mut client = world.open("a", "i").await;
        client.much_credit().await;
        client.take(10).await;
        client.verdicts(verdicts).await;
        let status = client.until_error().await;
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::InvalidArgument, "FAN-3007"),
            "{status}"
        );
    }
    let mut client = world.open("a", "i").await;
    client.much_credit().await;
    let got = client.take(10).await;
    assert_eq!(ids(&got), published);
    assert!(
        got.iter().all(|delivery| delivery.attempt == 1),
        "what was not begun is not counted"
    );
    client.ack(1, 10).await;
    world.until_done([1]).await;
}

#[tokio::test]
async fn too_many_instances_are_refused() {
    let world = World::new(vec![app("a")]).await;
    let channel = world.channel().await;
    let mut clients = Vec::new();
    let mut channels = vec![channel];
    for n in 0..fanin_core::delivery::limits::INSTANCES_MAX {
        // A connection carries a limited number of calls.
        if n % 100 == 99 {
            channels.push(world.channel().await);
        }
        let channel = channels[channels.len() - 1].clone();
        clients.push(Client::open(channel, "orders", "a", "i").await.unwrap());
    }
    let status = refused(Client::open(world.channel().await, "orders", "a", "i").await).await;
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::ResourceExhausted, "FAN-3004")
    );
    assert!(status.get_error_details().retry_info().is_some());
}

#[tokio::test]
async fn status_and_health_are_served_on_the_same_socket() {
    let world = World::new(vec![app("a")]).await;
    let channel = world.channel().await;
    let status = NodeServiceClient::new(channel.clone())
        .status(StatusRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(status.node, "n1");
    let mut health = HealthClient::new(channel);
    let server = world.server.as_ref().unwrap();
    for (service, expected) in [
        (SERVICE.to_owned(), ServingStatus::Serving),
        (format!("{SERVICE}/orders"), ServingStatus::Serving),
        (format!("{SERVICE}/orders"), ServingStatus::NotServing),
    ] {
        let serving = expected == ServingStatus::Serving;
        server.health().set("orders", serving).await;
        let answer = health
            .check(HealthCheckRequest { service })
            .await
            .unwrap()
            .into_inner();
        assert_eq!(answer.status(), expected);
    }
}
