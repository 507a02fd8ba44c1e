//! Test harness: real servers, real processes, a cuttable proxy, an offline checker.
//!
//! - [`hub`]: a real nats-server with the streams a test needs; [`feed`] puts messages into it and knows their ids.
//! - [`process`]: a bridge as its own process, to be killed, frozen and restarted.
//! - [`proxy`]: a TCP proxy between bridge and hub that cuts, stalls, swallows and delays.
//! - [`line`]: a line to the hub that changes single requests and holds replies back at a named place.
//! - [`apps`]: application instances that record what they were confirmed.
//! - [`checker`]: judges afterwards whether each application got each message once.
//! - [`wait`]: conditions instead of sleeps.

pub mod apps;
pub mod checker;
pub mod feed;
pub mod hub;
pub mod limits;
pub mod line;
pub mod logs;
pub mod process;
pub mod proxy;
pub mod wait;
