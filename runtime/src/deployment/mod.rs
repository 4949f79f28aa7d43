//! What is deployed: a manifest and a component.
//!
//! ```text
//!   folder ──> plugins ──┐                    ┌── object store: components by digest
//!                        ├─ compile ─> deploy ┤
//!   weir deploy ─────────┘                    └── registry: one key per handler ──> hosts
//! ```
//!
//! * [`manifest`]: `handler.toml`, read and checked.
//! * [`plugins`]: the folders of a directory, each a manifest and its component.
//! * [`folder`]: such a directory, watched.
//! * [`compile`]: from both to a program.
//! * [`artifacts`], [`registry`]: where deployments are kept.
//! * [`signature`]: who vouches for one.
//! * [`generation`]: how a handler's time ends, and which number the next one has.
//! * [`rebuild`]: a generation that is rebuilt beside the one that runs.
//! * [`deploy`]: deploying, rolling back, removing.

pub mod artifacts;
pub mod compile;
pub mod deploy;
pub mod folder;
pub mod generation;
pub mod manifest;
pub mod plugins;
pub mod rebuild;
pub mod registry;
pub mod signature;
