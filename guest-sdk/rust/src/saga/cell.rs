//! Where a saga stands: the cell `saga`, as JSON.
//!
//! ```text
//! {"saga":"order","id":"7","status":"running","started":1767225600000000000,"updated":1767225601000000000,
//!  "reason":null,"waits_for":"an answer to charge: payments.charged.*","deadline":1767225631000000000,
//!  "data":{…},
//!  "steps":[{"name":"charge","status":"running","attempts":1,"started":…,"ended":null,"detail":null}, …]}
//! ```
//!
//! Times are Unix nanoseconds. The list of steps is the one that the saga began with, whatever
//! the code says since: what each of them *does* is the code's that runs now, found by its name.
//!
//! **Invariants**: at most one step is `running` or `compensating`, and the saga is `completed` or
//! `compensated` only if none is. What comes after a step that is not `done` is `pending`.
//! Where a step is `failed`, `compensating` or `compensated`, the saga goes back.

use serde::{Deserialize, Serialize};

/// All of a saga. `D` is the data that its commands are made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State<D> {
    /// The saga's type.
    pub saga: String,
    /// The key.
    pub id: String,
    pub status: Status,
    /// When its first event was stored.
    pub started: u64,
    /// When the event that changed it last was stored.
    pub updated: u64,
    /// Why it goes back, or went back.
    pub reason: Option<String>,
    /// What it waits for, in words.
    pub waits_for: Option<String>,
    /// When it waits no longer.
    pub deadline: Option<u64>,
    pub data: D,
    pub steps: Vec<StepState>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// On its way forward.
    Running,
    /// On its way back.
    Compensating,
    /// Every step is done. Final.
    Completed,
    /// What was done is undone. Final.
    Compensated,
    /// Waits for an operator: see [`State::waits_for`]. An answer that comes after all still counts.
    Stuck,
}

impl Status {
    /// Nothing changes it any more.
    pub fn is_final(self) -> bool {
        matches!(self, Status::Completed | Status::Compensated)
    }

    /// As the cell has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Running => "running",
            Status::Compensating => "compensating",
            Status::Completed => "completed",
            Status::Compensated => "compensated",
            Status::Stuck => "stuck",
        }
    }
}

/// Where one step stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepState {
    pub name: String,
    pub status: StepStatus,
    /// Commands sent.
    pub attempts: u32,
    /// Commands sent to compensate it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub compensation_attempts: u32,
    /// Of the attempts at what it does now, those that were made before an operator said *retry*.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub forgiven: u32,
    /// When its first command was sent.
    pub started: Option<u64>,
    /// When it was answered for good, one way or the other.
    pub ended: Option<u64>,
    /// Why it failed, or what the last attempt to compensate it was answered.
    pub detail: Option<String>,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepStatus {
    /// No command was sent.
    Pending,
    /// Waits for an answer.
    Running,
    Done,
    /// Refused, or given up where there is nothing to undo.
    Failed,
    /// Waits for the answer to a compensation.
    Compensating,
    Compensated,
}

impl StepState {
    pub(super) fn new(name: &str) -> Self {
        StepState {
            name: name.to_owned(),
            status: StepStatus::Pending,
            attempts: 0,
            compensation_attempts: 0,
            forgiven: 0,
            started: None,
            ended: None,
            detail: None,
        }
    }
}
