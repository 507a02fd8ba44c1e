//! The bridge process.

pub mod admin;
pub mod ambient;
pub mod app;
pub mod audit;
pub mod bench;
pub mod cli;
pub mod codes;
pub mod demo;
pub mod failpoint;
pub mod identity;
pub mod mapping;
pub mod running;
pub mod serve;
pub mod stage;
pub mod telemetry;
pub mod topic;
pub mod users;
pub mod volatile;
