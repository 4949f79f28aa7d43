//! What is deployed: a manifest and a component.

pub mod manifest;
