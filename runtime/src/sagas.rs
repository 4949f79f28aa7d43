//! Lists and shows sagas, and tells their handler what an operator wants, over the log alone: no host needs
//! to run.
//!
//! A saga is the cell [`CELL`] of its key, as the SDKs write it (`guest-sdk/rust/src/saga/cell.rs`). What is
//! not needed here is left as it is, so that a handler may write more than this host knows.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::effects::control::{self, Control};
use crate::log::{AppendError, Log};
use crate::model::subjects::HandlerNames;
use crate::state::query;

/// The cell that holds a saga.
pub const CELL: &str = "saga";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Query(#[from] query::Error),
    #[error("handler {handler} has no saga {id}; `weir sagas list {handler}` shows those there are")]
    NotFound { id: String, handler: String },
    #[error(
        "cell `{CELL}` of key {id} of handler {handler} is no saga ({error}); `weir state get {handler} {id}` shows it"
    )]
    Malformed {
        id: String,
        handler: String,
        error: serde_json::Error,
    },
    #[error("saga {id} is {}: {why}", status.as_str())]
    Useless {
        id: String,
        status: Status,
        why: &'static str,
    },
    #[error("saga {id} was told nothing: {error}")]
    Append { id: String, error: AppendError },
    #[error("whether saga {id} was told is not known ({detail}); `weir sagas show` says what it does")]
    Unknown { id: String, detail: String },
}

/// A saga as its cell has it. Times are Unix nanoseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Saga {
    pub saga: String,
    pub id: String,
    pub status: Status,
    pub started: u64,
    pub updated: u64,
    #[serde(default)]
    pub reason: Option<String>,
    #[serde(default)]
    pub waits_for: Option<String>,
    #[serde(default)]
    pub deadline: Option<u64>,
    #[serde(default)]
    pub data: Value,
    pub steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    pub name: String,
    /// `pending`, `running`, `done`, `failed`, `compensating` or `compensated`.
    pub status: String,
    pub attempts: u32,
    #[serde(default)]
    pub compensation_attempts: u32,
    #[serde(default)]
    pub started: Option<u64>,
    #[serde(default)]
    pub ended: Option<u64>,
    #[serde(default)]
    pub detail: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    Running,
    Compensating,
    Completed,
    Compensated,
    Stuck,
}

impl Status {
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

impl Saga {
    /// A step is on its way back, or was taken back: the saga goes forward no more.
    fn goes_back(&self) -> bool {
        let back = |step: &Step| matches!(&*step.status, "failed" | "compensating" | "compensated");
        self.steps.iter().any(back)
    }

    /// Whether it would do anything about that. The handler decides; this only spares an operator the wait.
    fn check(&self, control: Control) -> Result<(), Error> {
        let why = match (self.status, control) {
            (Status::Completed | Status::Compensated, _) => "it is over",
            (_, Control::Compensate) if self.goes_back() => {
                "it is on its way back already; `weir sagas retry` has it try again"
            }
            _ => return Ok(()),
        };
        Err(Error::Useless {
            id: self.id.clone(),
            status: self.status,
            why,
        })
    }
}

/// The sagas of one handler.
#[derive(Clone, Copy)]
pub struct Sagas<'a> {
    log: &'a dyn Log,
    names: &'a HandlerNames,
}

impl<'a> Sagas<'a> {
    pub fn new(log: &'a dyn Log, names: &'a HandlerNames) -> Self {
        Sagas { log, names }
    }

    /// All of them, the one that began last first.
    ///
    /// # Errors
    /// The handler is unknown, a cell is no saga, or of the log.
    pub async fn list(&self) -> Result<Vec<Saga>, Error> {
        let cells = query::cell_of_all(self.log, self.names, CELL).await?;
        let read = |(id, data): (String, bytes::Bytes)| self.read(&id, &data);
        let mut all: Vec<Saga> = cells.into_iter().map(read).collect::<Result<_, _>>()?;
        all.sort_by(|a, b| b.started.cmp(&a.started).then_with(|| a.id.cmp(&b.id)));
        Ok(all)
    }

    /// The one with this id.
    ///
    /// # Errors
    /// [`Error::NotFound`], and those of [`Sagas::list`].
    pub async fn find(&self, id: &str) -> Result<Saga, Error> {
        let cells = query::get(self.log, self.names, id, false).await?;
        match cells.get(CELL) {
            Some(data) => self.read(id, data),
            None => Err(Error::NotFound {
                id: id.into(),
                handler: self.names.handler.clone(),
            }),
        }
    }

    /// Tells the saga what an operator wants, and returns the id of that event. It is done once the handler
    /// has come to it, in order with all that its key hears.
    ///
    /// # Errors
    /// Nothing was told, but for [`Error::Unknown`].
    pub async fn tell(&self, id: &str, control: Control) -> Result<String, Error> {
        self.find(id).await?.check(control)?;
        let partitions = query::partitions(self.log, self.names).await?;
        let message = control::encode(self.names, partitions, id, control);
        let ledger = &self.names.ledger;
        match self.log.append(ledger, vec![message]).await {
            Ok(appended) => Ok(format!("{ledger}:{}", appended.sequence)),
            Err(AppendError::Unknown(detail)) => Err(Error::Unknown {
                id: id.into(),
                detail,
            }),
            Err(error) => Err(Error::Append { id: id.into(), error }),
        }
    }

    fn read(&self, id: &str, data: &[u8]) -> Result<Saga, Error> {
        serde_json::from_slice(data).map_err(|error| Error::Malformed {
            id: id.into(),
            handler: self.names.handler.clone(),
            error,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saga(status: &str, step: &str) -> Saga {
        let json = serde_json::json!({
            "saga": "order", "id": "7", "status": status, "started": 1, "updated": 2, "data": {},
            "steps": [{"name": "charge", "status": step, "attempts": 1, "more": true}],
        });
        serde_json::from_value(json).expect("a saga")
    }

    #[test]
    fn what_would_do_nothing_is_said_at_once() {
        for (saga, retry, compensate) in [
            (saga("running", "running"), true, true),
            (saga("compensating", "compensating"), true, false),
            (saga("stuck", "compensating"), true, false),
            (saga("stuck", "running"), true, true),
            (saga("completed", "done"), false, false),
            (saga("compensated", "compensated"), false, false),
        ] {
            assert_eq!(saga.check(Control::Retry).is_ok(), retry, "{saga:?}");
            assert_eq!(saga.check(Control::Compensate).is_ok(), compensate, "{saga:?}");
        }
        let error = saga("completed", "done").check(Control::Retry).unwrap_err();
        assert_eq!(error.to_string(), "saga 7 is completed: it is over");
    }
}
