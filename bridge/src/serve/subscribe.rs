//! `TopicService.Subscribe`: one call is one instance. The call's reader turns requests into commands; the frames come
//! from the application's task.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use fanin_proto::v1::{Open, SubscribeRequest, subscribe_request::Request as Asked};
use futures_util::{Stream, StreamExt};
use tokio::time::timeout;
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codegen::{BoxFuture, Service, http},
    server::{Grpc, NamedService, StreamingService},
    transport::server::UdsConnectInfo,
};

use super::{
    Topics,
    codec::FrameCodec,
    limits::{NAME_BYTES_MAX, OPEN_WAIT_MAX, REQUEST_BYTES_MAX},
    status::to_status,
    whole::{Unfinished, WholeMessages},
};
use crate::{
    codes::{Code, Refusal},
    topic::{ConnectRequest, Frame, Input, Peer},
};

/// The service's name in the contract.
pub const SERVICE: &str = "fanin.v1.TopicService";
const SUBSCRIBE: &str = "/fanin.v1.TopicService/Subscribe";

/// The topic service. Written by hand instead of generated because its responses are encoded by hand.
#[derive(Clone)]
pub(super) struct TopicServer {
    topics: Arc<Topics>,
    unfinished: Arc<Unfinished>,
}

impl TopicServer {
    pub(super) fn new(topics: Arc<Topics>) -> TopicServer {
        TopicServer {
            topics,
            unfinished: Arc::default(),
        }
    }
}

impl NamedService for TopicServer {
    const NAME: &'static str = SERVICE;
}

impl Service<http::Request<Body>> for TopicServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let method = Subscribe(Arc::clone(&self.topics));
        let unfinished = Arc::clone(&self.unfinished);
        let request = request.map(|body| WholeMessages::new(body, unfinished));
        Box::pin(async move {
            if request.uri().path() != SUBSCRIBE {
                let text = format!("{} is no method of {SERVICE}", request.uri().path());
                return Ok(Status::unimplemented(text).into_http());
            }
            let mut grpc = Grpc::new(FrameCodec).apply_max_message_size_config(Some(REQUEST_BYTES_MAX), None);
            Ok(grpc.streaming(method, request).await)
        })
    }
}

struct Subscribe(Arc<Topics>);

type FrameStream = Pin<Box<dyn Stream<Item = Result<Frame, Status>> + Send>>;

impl StreamingService<SubscribeRequest> for Subscribe {
    type Response = Frame;
    type ResponseStream = FrameStream;
    type Future = BoxFuture<Response<FrameStream>, Status>;

    fn call(&mut self, request: Request<Streaming<SubscribeRequest>>) -> Self::Future {
        let topics = Arc::clone(&self.0);
        Box::pin(async move {
            subscribe(&topics, request)
                .await
                .map_err(|refusal| to_status(&refusal))
        })
    }
}

async fn subscribe(
    topics: &Topics,
    request: Request<Streaming<SubscribeRequest>>,
) -> Result<Response<FrameStream>, Refusal> {
    let peer = peer_of(&request);
    let mut requests = request.into_inner();
    let open = first_request(&mut requests).await?;
    tracing::debug!(
        topic = open.topic,
        app = open.app,
        client = open.client,
        pid = peer.pid,
        "subscribe"
    );
    let topic = topics.find(&open.topic)?;
    let joined = topic
        .connect(
            &open.app,
            ConnectRequest {
                name: open.instance,
                peer,
            },
        )
        .await?;
    tokio::spawn(read(joined.input, requests));
    let frames = joined
        .frames
        .map(|frame| frame.map_err(|refusal| to_status(&refusal)));
    Ok(Response::new(Box::pin(frames)))
}

/// Who calls, as the kernel says. The listener is a Unix socket, so only a platform without peer credentials leaves this
/// empty.
fn peer_of<T>(request: &Request<T>) -> Peer {
    let info = request.extensions().get::<UdsConnectInfo>();
    let Some(credentials) = info.and_then(|info| info.peer_cred) else {
        return Peer::default();
    };
    Peer {
        pid: credentials
            .pid()
            .and_then(|pid| u32::try_from(pid).ok())
            .unwrap_or_default(),
        uid: credentials.uid(),
        gid: credentials.gid(),
    }
}

async fn first_request(requests: &mut Streaming<SubscribeRequest>) -> Result<Open, Refusal> {
    let expected = |text: String| Err(Refusal::new(Code::OpenExpected, text));
    let first = match timeout(OPEN_WAIT_MAX, requests.message()).await {
        Err(_) => {
            return expected(format!(
                "no request came within {OPEN_WAIT_MAX:?}; send Open at once"
            ));
        }
        Ok(Err(status)) => return Err(Refusal::new(Code::Malformed, status.message())),
        Ok(Ok(first)) => first.and_then(|request| request.request),
    };
    match first {
        Some(Asked::Open(open)) => {
            for (what, name) in [
                ("topic", &open.topic),
                ("app", &open.app),
                ("instance", &open.instance),
            ] {
                if name.len() > NAME_BYTES_MAX {
                    let text = format!(
                        "`{what}` has {} bytes; at most {NAME_BYTES_MAX} are allowed",
                        name.len()
                    );
                    return Err(Refusal::new(Code::Malformed, text));
                }
            }
            Ok(open)
        }
        Some(Asked::Credit(_) | Asked::Verdicts(_) | Asked::Close(_)) | None => {
            expected("the first request must be Open".to_owned())
        }
    }
}

/// Turns requests into commands until the call ends, whichever side ends it.
async fn read(input: Input, mut requests: Streaming<SubscribeRequest>) {
    let mut closed = false;
    let refusal = loop {
        let request = tokio::select! {
            biased;
            () = input.ended() => break None,
            request = requests.message() => request,
        };
        match request {
            Ok(Some(request)) => match request.request {
                Some(Asked::Credit(credit)) => input.credit(credit.bytes, credit.messages).await,
                Some(Asked::Verdicts(verdicts)) => {
                    if let Err(refusal) = input.verdicts(verdicts).await {
                        break Some(refusal);
                    }
                }
                Some(Asked::Close(_)) => {
                    closed = true;
                    input.close().await;
                }
                Some(Asked::Open(_)) => {
                    break Some(Refusal::new(Code::OpenExpected, "Open came a second time"));
                }
                // A request that a newer client knows; the contract says the older ones suffice.
                None => {}
            },
            // After Close a client may stop writing and still wait for its confirmations.
            Ok(None) if closed => {
                input.ended().await;
                break None;
            }
            Ok(None) => break None,
            Err(status) => break Some(Refusal::new(Code::Malformed, status.message())),
        }
    };
    input.disconnect(refusal).await;
}
