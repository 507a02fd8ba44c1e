//! `NodeService.Status`: what the node tells about itself, assembled by whoever runs it.

use std::{future::Future, pin::Pin, sync::Arc};

use fanin_proto::v1::{
    StatusRequest, StatusResponse,
    node_service_server::{NodeService, NodeServiceServer},
};
use tonic::{Request, Response, Status};

use super::limits::REQUEST_BYTES_MAX;

/// Where the node's status comes from.
pub trait StatusSource: Send + Sync + 'static {
    /// The node as it is now. Must answer even when parts of the node hang.
    fn status(&self) -> Pin<Box<dyn Future<Output = StatusResponse> + Send + '_>>;
}

pub(super) struct Node(Arc<dyn StatusSource>);

impl Node {
    pub(super) fn server(source: Arc<dyn StatusSource>) -> NodeServiceServer<Node> {
        NodeServiceServer::new(Node(source)).max_decoding_message_size(REQUEST_BYTES_MAX)
    }
}

#[tonic::async_trait]
impl NodeService for Node {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        Ok(Response::new(self.0.status().await))
    }
}
