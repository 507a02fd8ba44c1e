//! The bridge process.

pub mod app;
pub mod codes;
pub mod failpoint;
pub mod identity;
pub mod mapping;
pub mod serve;
pub mod stage;
pub mod topic;
