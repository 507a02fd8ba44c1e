//! The wire contract between bridge and applications, generated from `proto/fanin/v1/*.proto`.
//!
//! Only wire types live here; the meaning of each field stands in the `.proto` files, which are the public
//! contract for every language.
#![allow(missing_docs, clippy::all, unreachable_pub)]

/// Package `fanin.v1`.
pub mod v1 {
    tonic::include_proto!("fanin.v1");
}
