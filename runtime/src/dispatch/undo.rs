//! What a group has changed in a workspace, so that it can be taken back: kept only for
//! handlers that use shared cells and locks, whose groups are refused whenever others
//! were first. Anything else that goes wrong ends the term.

use std::collections::VecDeque;
use std::sync::Arc;

use rustc_hash::FxHashSet;

use super::execute::Workspace;
use super::parked::Parked;
use crate::model::position::Position;
use crate::source::decode::Queued;
use crate::state::KeyState;

/// A workspace as it was before a group.
#[derive(Debug)]
pub struct Undo {
    positions: Vec<Position>,
    clock: u64,
    timer_generation: u64,
    parked: Parked,
    /// Events that the group took from those that wait, in their order.
    taken: Vec<Queued>,
    /// Keys that the group may have written, as they were, with the number of the group
    /// that had written them last.
    keys: Vec<(Arc<str>, Arc<KeyState>, u64)>,
    seen: FxHashSet<Arc<str>>,
}

impl Undo {
    pub fn new(workspace: &Workspace) -> Undo {
        Undo {
            positions: workspace.positions.clone(),
            clock: workspace.clock,
            timer_generation: workspace.timer_generation,
            parked: workspace.parked.clone(),
            taken: Vec::new(),
            keys: Vec::new(),
            seen: FxHashSet::default(),
        }
    }

    /// An event is no longer among those that wait.
    pub fn taken(&mut self, event: &Queued) {
        self.taken.push(event.clone());
    }

    /// A key is about to be handled; it was last written by group `written`.
    pub fn key(&mut self, key: &Arc<str>, state: &Arc<KeyState>, written: u64) {
        if self.seen.insert(key.clone()) {
            self.keys.push((key.clone(), state.clone(), written));
        }
    }

    /// Makes the workspace what it was. Its next group begins with the events of this one.
    pub fn restore(self, workspace: &mut Workspace) {
        for (key, state, written) in self.keys {
            workspace.cells.restore(key, state, written);
        }
        workspace.positions = self.positions;
        workspace.clock = self.clock;
        workspace.timer_generation = self.timer_generation;
        workspace.parked = self.parked;
        // What was heard of their locks since then is not heard again.
        workspace.parked.wake(None);
        workspace.waiting_bytes += self.taken.iter().map(|queued| queued.bytes).sum::<usize>();
        let mut events = VecDeque::from(self.taken);
        events.append(&mut workspace.events);
        workspace.events = events;
        // It remembers events that come again.
        workspace.instance = None;
    }
}
