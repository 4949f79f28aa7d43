//! Weir: runs WebAssembly handlers over NATS JetStream and commits what they did
//! atomically. `ARCHITECTURE.md` is the map of this crate.

pub mod admin;
pub mod adopt;
pub mod cli;
pub mod commit;
pub mod config;
pub mod connect;
pub mod dead_letters;
pub mod deployment;
pub mod dispatch;
pub mod effects;
pub mod explain;
pub mod handler;
pub mod history;
pub mod ledger;
pub mod log;
pub mod membership;
pub mod metrics;
pub mod model;
pub mod os;
pub mod postgres;
pub mod runtime;
pub mod sagas;
pub mod shared;
pub mod source;
pub mod stage;
pub mod state;
pub mod telemetry;
pub mod toml_file;
pub mod trial;
