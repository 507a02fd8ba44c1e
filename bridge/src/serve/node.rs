//! `NodeService.Status`: what the node tells about itself, assembled by whoever runs it.

use std::{future::Future, iter::Map, pin::Pin, sync::Arc, vec::IntoIter};

use fanin_proto::v1::{
    HoldingsPart, HoldingsRequest, StatusRequest, StatusResponse,
    node_service_server::{NodeService, NodeServiceServer},
};
use futures_util::stream::{Iter, iter};
use tonic::{Request, Response, Status};

use super::limits::SMALL_REQUEST_BYTES_MAX;

/// Where the node's status comes from.
pub trait StatusSource: Send + Sync + 'static {
    /// The node as it is now. Must answer even when parts of the node hang.
    fn status(&self) -> Pin<Box<dyn Future<Output = StatusResponse> + Send + '_>>;

    /// What a mapping holds, with the fold's state when that is wanted.
    ///
    /// # Errors
    /// Why that cannot be told: there is no such mapping, or it has not joined.
    fn holdings<'a>(
        &'a self,
        mapping: &'a str,
        with_state: bool,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<HoldingsPart>, Status>> + Send + 'a>>;
}

pub(super) struct Node(Arc<dyn StatusSource>);

impl Node {
    pub(super) fn server(source: Arc<dyn StatusSource>) -> NodeServiceServer<Node> {
        NodeServiceServer::new(Node(source)).max_decoding_message_size(SMALL_REQUEST_BYTES_MAX)
    }
}

#[tonic::async_trait]
impl NodeService for Node {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        Ok(Response::new(self.0.status().await))
    }

    type HoldingsStream = Iter<Map<IntoIter<HoldingsPart>, fn(HoldingsPart) -> Result<HoldingsPart, Status>>>;

    async fn holdings(
        &self,
        request: Request<HoldingsRequest>,
    ) -> Result<Response<Self::HoldingsStream>, Status> {
        let HoldingsRequest { mapping, with_state } = request.get_ref();
        let parts = self.0.holdings(mapping, *with_state).await?;
        let sent: fn(HoldingsPart) -> Result<HoldingsPart, Status> = Ok;
        Ok(Response::new(iter(parts.into_iter().map(sent))))
    }
}
