//! What is deployed: a manifest and a component.
//!
//! * [`manifest`]: `handler.toml`, read and checked.
//! * [`plugins`]: the folders of a directory, each a manifest and its component.

pub mod manifest;
pub mod plugins;
