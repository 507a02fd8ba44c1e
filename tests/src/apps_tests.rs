//! Goal: an instance answers as decided and records exactly what was confirmed.
//! Method: the real SDK against a minimal node that delivers three messages, confirms every acknowledgement but the last
//! message's, and breaks the connection when it sees that one.

use std::pin::Pin;

use fanin_proto::v1::subscribe_request::Request as Asked;
use fanin_proto::v1::subscribe_response::Response as Answered;
use fanin_proto::v1::topic_service_server::{TopicService, TopicServiceServer};
use fanin_proto::v1::{Confirmed, Deliveries, Delivery, Opened, SubscribeRequest, SubscribeResponse};
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status, Streaming};

use super::*;
use crate::wait::eventually;

const LONG: Duration = Duration::from_secs(20);

struct Node;

#[tonic::async_trait]
impl TopicService for Node {
    type SubscribeStream = Pin<Box<dyn Stream<Item = Result<SubscribeResponse, Status>> + Send>>;

    async fn subscribe(
        &self,
        request: Request<Streaming<SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let (send, responses) = mpsc::channel(16);
        tokio::spawn(converse(request.into_inner(), send));
        Ok(Response::new(Box::pin(ReceiverStream::new(responses))))
    }
}

async fn converse(
    mut requests: Streaming<SubscribeRequest>,
    send: mpsc::Sender<Result<SubscribeResponse, Status>>,
) -> Option<()> {
    let answer = |response| {
        Ok(SubscribeResponse {
            response: Some(response),
        })
    };
    let opened = Opened {
        node: "n1".into(),
        lease_ms: 30_000,
        max_in_flight: 16,
        ..Default::default()
    };
    while let Ok(Some(SubscribeRequest {
        request: Some(request),
    })) = requests.message().await
    {
        match request {
            Asked::Open(open) => {
                let deliveries = (1..=3).map(|delivery| Delivery {
                    delivery,
                    id: format!("S:{delivery}"),
                    attempt: 1,
                    ..Default::default()
                });
                let deliveries = Deliveries {
                    deliveries: deliveries.collect(),
                };
                send.send(answer(Answered::Opened(Opened {
                    instance: open.instance,
                    ..opened.clone()
                })))
                .await
                .ok()?;
                send.send(answer(Answered::Deliveries(deliveries))).await.ok()?;
            }
            Asked::Verdicts(verdicts) => {
                for range in verdicts.acks {
                    if range.last == 3 {
                        return None;
                    }
                    send.send(answer(Answered::Confirmed(Confirmed {
                        deliveries: vec![range],
                    })))
                    .await
                    .ok()?;
                }
            }
            Asked::Credit(_) => {}
            Asked::Close(_) => return None,
        }
    }
    None
}

#[tokio::test]
async fn confirmations_are_recorded_and_lost_answers_are_doubts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListenerStream::new(UnixListener::bind(&path).unwrap());
    let server = tonic::transport::Server::builder().add_service(TopicServiceServer::new(Node));
    let server = tokio::spawn(server.serve_with_incoming(listener));

    let recorder = Recorder::new();
    let socket = format!("unix://{}", path.display());
    let options = AppOptions::new(&socket, "orders", "billing", "b1").decide(|message| match message.id() {
        "S:1" => Decision::Ack,
        "S:2" => Decision::Retry("not now".into()),
        _ => Decision::AckAfter(Duration::from_millis(50)),
    });
    let instance = AppInstance::start(options, recorder.clone()).await.unwrap();
    eventually(LONG, "both verdicts", || async {
        recorder.settled_by("billing") == 2
    })
    .await;
    server.abort();
    instance.stop().await.unwrap();

    let ids: Vec<String> = ["S:1", "S:2", "S:3"].map(str::to_owned).into();
    let report = recorder.judge(&ids, &["billing"]);
    let billing = &report.apps["billing"];
    assert_eq!(
        (billing.missing.as_slice(), billing.in_doubt.as_slice()),
        (&ids[1..2], &ids[2..3]),
        "{report}"
    );
    assert!(
        recorder
            .confirmations()
            .iter()
            .all(|one| one.id == "S:1" && &*one.node == "n1"),
        "{report}"
    );
}
