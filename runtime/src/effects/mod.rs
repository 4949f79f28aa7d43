//! All that one invocation did, as one value. Nothing here performs anything:
//! effects are collected, checked, merged into a group and performed by the
//! commit.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::model::event::Headers;
use crate::shared::{Shared, Use};

pub mod check;
pub mod control;
pub mod dead_letter;

/// What one invocation did. A handler that fails leaves none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effects {
    /// In the order of the calls.
    pub emits: Vec<Emit>,
    /// Final value of each cell that was written; `None` deletes it.
    pub cells: BTreeMap<Box<str>, Option<Bytes>>,
    /// Final change of each timer that was touched; `None` cancels it.
    pub timers: BTreeMap<Box<str>, Option<TimerSet>>,
    /// Shared cells and locks that were read or written.
    pub shared: BTreeMap<Shared, Use>,
}

/// One event to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emit {
    pub subject: String,
    pub headers: Headers,
    pub data: Bytes,
    /// The stream that it is for, if that is not the ledger.
    pub stream: Option<Arc<str>>,
}

/// One timer to set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimerSet {
    /// Unix time in nanoseconds.
    pub due: u64,
    pub data: Bytes,
}
