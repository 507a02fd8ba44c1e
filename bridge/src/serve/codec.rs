//! The gRPC codec of the subscribe stream: requests through the generated types, delivery frames straight from the shared
//! batches, without a message object per delivery.

use fanin_proto::v1::SubscribeRequest;
use prost::Message;
use tonic::{
    Status,
    codec::{BufferSettings, Codec, EncodeBuf, Encoder},
};
use tonic_prost::ProstDecoder;

use super::limits::ENCODE_BYTES;
use crate::topic::Frame;

#[derive(Debug, Default, Clone, Copy)]
pub(super) struct FrameCodec;

#[derive(Debug)]
pub(super) struct FrameEncoder;

fn settings() -> BufferSettings {
    BufferSettings::new(ENCODE_BYTES / 4, ENCODE_BYTES)
}

impl Codec for FrameCodec {
    type Encode = Frame;
    type Decode = SubscribeRequest;
    type Encoder = FrameEncoder;
    type Decoder = ProstDecoder<SubscribeRequest>;

    fn encoder(&mut self) -> FrameEncoder {
        FrameEncoder
    }

    fn decoder(&mut self) -> ProstDecoder<SubscribeRequest> {
        ProstDecoder::new(BufferSettings::default())
    }
}

impl Encoder for FrameEncoder {
    type Item = Frame;
    type Error = Status;

    fn encode(&mut self, frame: Frame, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        match frame {
            Frame::Control(response) => response
                .encode(out)
                .map_err(|error| Status::internal(format!("encoding a control frame: {error}"))),
            Frame::Deliveries(frame) => {
                out.reserve(frame.encoded_len());
                frame.encode(out);
                Ok(())
            }
        }
    }

    fn buffer_settings(&self) -> BufferSettings {
        settings()
    }
}
