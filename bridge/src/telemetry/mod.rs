//! What the process tells about itself: logs, metrics, and notes to the service manager.
//!
//! | part | what it does |
//! |---|---|
//! | [`logs`] | `tracing` on standard error, for people or as JSON lines, with the level policy |
//! | [`metrics`] | the Prometheus recorder, and the table of the node's metric names |
//! | [`process`] | memory, CPU time and open files of this process, from `/proc` |
//! | [`notify`] | READY, STATUS and STOPPING to systemd |
//! | [`codes`], [`node_codes`] | the error codes of the process and its command line; of the node and its mappings |

pub mod codes;
pub mod logs;
pub mod metrics;
pub mod node_codes;
pub mod notify;
pub mod process;
