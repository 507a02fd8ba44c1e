//! The wire contract between bridge and applications, generated from `proto/fanin/v1/*.proto`.
//!
//! Only wire types live here; the meaning of each field stands in the `.proto` files, which are the public
//! contract for every language.
#![allow(missing_docs, clippy::all, unreachable_pub)]

/// Package `fanin.v1`.
pub mod v1 {
    tonic::include_proto!("fanin.v1");
}

/// The contract as an encoded `google.protobuf.FileDescriptorSet`: its messages and fields by their names, for what must not
/// fall behind it.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));
