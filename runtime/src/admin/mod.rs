//! What people and monitoring see of a host.

pub mod status;
