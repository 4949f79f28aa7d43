//! What the state machine knows of a saga's code: names, times and numbers of attempts.

use std::time::Duration;

/// The steps in their order, of which the last alone may be [`Undo::Never`].
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) saga: String,
    pub(super) steps: Vec<StepPlan>,
}

#[derive(Debug, Clone)]
pub(super) struct StepPlan {
    pub(super) name: String,
    pub(super) patience: Patience,
    /// Subjects of its answers, for people.
    pub(super) answers: String,
    pub(super) undo: Undo,
}

/// How long and how often.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Until an answer is late.
    pub(super) timeout: Duration,
    /// Commands sent before it is given up; at least 1.
    pub(super) attempts: u32,
}

/// What takes a step back.
#[derive(Debug, Clone)]
pub(super) enum Undo {
    Compensation {
        patience: Patience,
        backoff: Backoff,
        answers: String,
    },
    /// There is nothing to take back, and the code says why.
    Nothing,
    /// The last step: what it does cannot be taken back, and nothing comes after it.
    Never,
}

/// Pauses that double.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backoff {
    pub(super) first: Duration,
    pub(super) most: Duration,
}

impl Backoff {
    /// The pause after attempt `attempt`, counted from 1.
    pub(super) fn after(self, attempt: u32) -> Duration {
        let doubled = 1u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
        self.first.saturating_mul(doubled).min(self.most)
    }
}

impl Plan {
    pub(super) fn step(&self, name: &str) -> Option<&StepPlan> {
        self.steps.iter().find(|step| step.name == name)
    }
}
