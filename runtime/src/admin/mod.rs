//! What people and monitoring see of a host.
//!
//! * [`status`]: what it says of itself; written by the core, read by the others.
//! * [`http`]: `/healthz`, `/readyz` and `/metrics`.

pub mod http;
pub mod status;
