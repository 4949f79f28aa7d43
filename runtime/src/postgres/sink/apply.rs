//! One transaction: events applied to tables, refused ones kept, the position moved.

use std::num::NonZeroUsize;

use futures::future::BoxFuture;
use lru::LruCache;
use tokio_postgres::{Client, Error, Statement, Transaction};
use tracing::{debug, warn};

use super::super::identifier::Identifier;
use super::super::trouble::{Trouble, fault_of_row};
use super::operation::{self, Operation};
use super::position::{Counts, Positions};
use crate::log::Stored;
use crate::model::position::Position;

/// Statements that are kept prepared. Their number is that of the shapes of operations
/// (table, columns), which events decide.
const STATEMENTS_MAX: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");

/// Run before the first event of a transaction: what can wait for an event's end, does.
const DEFER: &str = "set constraints all deferred";

/// Run after each event: whatever it broke comes out now, and is this event's.
const CHECK: &str = "set constraints all immediate; set constraints all deferred";

const SAVE: &str = "savepoint weir";
const UNDO: &str = "rollback to savepoint weir";
const KEEP: &str = "release savepoint weir";

/// Applies events for one sink, in one session.
pub struct Applier {
    positions: Positions,
    sink: String,
    stream: String,
    schema: Identifier,
    statements: LruCache<String, Statement>,
}

/// An event, and what it says; or why that cannot be read.
type Planned<'a> = (&'a Stored, Result<Vec<Operation>, String>);

/// An event that the database refused, and why.
type Refused<'a> = (&'a Stored, String);

/// Why statements were given up.
enum Failure {
    /// The database refused one of them, for this reason.
    Row(String),
    Trouble(Trouble),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        match fault_of_row(&error) {
            Some(reason) => Failure::Row(reason),
            None => Failure::Trouble(error.into()),
        }
    }
}

impl Applier {
    pub fn new(positions: Positions, sink: &str, stream: &str, schema: Identifier) -> Applier {
        Applier {
            positions,
            sink: sink.into(),
            stream: stream.into(),
            schema,
            statements: LruCache::new(STATEMENTS_MAX),
        }
    }

    /// Applies `events`, which come after `from`, and moves the position behind the
    /// last of them. Returns the new position.
    ///
    /// # Errors
    /// Nothing is applied, or, where the answer to the commit was lost, perhaps all:
    /// the position in the database says which.
    pub async fn apply(
        &mut self,
        client: &mut Client,
        from: Position,
        events: &[Stored],
    ) -> Result<Position, Trouble> {
        let Some(last) = events.last() else {
            return Ok(from);
        };
        let planned: Vec<Planned<'_>> = events
            .iter()
            .map(|event| (event, operation::read(&self.schema, &event.data)))
            .collect();
        let transaction = client.transaction().await?;
        self.positions.lock(&transaction, &self.sink, from).await?;
        transaction.batch_execute(DEFER).await?;
        transaction.batch_execute(SAVE).await?;
        let refused = match self.all_at_once(&transaction, &planned).await {
            Ok(refused) => refused,
            Err(Failure::Row(reason)) => {
                debug!(
                    reason,
                    events = events.len(),
                    "a row was refused; finding out which"
                );
                transaction.batch_execute(UNDO).await?;
                self.one_by_one(&transaction, &planned).await?
            }
            Err(Failure::Trouble(trouble)) => return Err(trouble),
        };
        for (event, reason) in &refused {
            self.positions
                .reject(
                    &transaction,
                    &self.sink,
                    &self.stream,
                    from.created,
                    event,
                    reason,
                )
                .await?;
        }
        let to = Position {
            sequence: last.sequence,
            stored: last.time,
            ..from
        };
        let counts = Counts {
            applied: signed(events.len() - refused.len()),
            rejected: signed(refused.len()),
            lost: 0,
        };
        self.positions
            .advance(&transaction, &self.sink, to, counts)
            .await?;
        transaction.commit().await?;
        for (event, reason) in refused {
            let (sequence, subject) = (event.sequence, &*event.subject);
            warn!(
                sequence,
                subject, reason, "event rejected; it is in weir_rejected_rows"
            );
        }
        Ok(to)
    }

    /// Notes that the stream has lost what was between the position and `to`.
    ///
    /// # Errors
    /// As [`Applier::apply`].
    pub async fn skip(&self, client: &mut Client, from: Position, to: Position) -> Result<Position, Trouble> {
        let transaction = client.transaction().await?;
        self.positions.lock(&transaction, &self.sink, from).await?;
        let counts = Counts {
            lost: i64::try_from(to.sequence - from.sequence).unwrap_or(i64::MAX),
            ..Counts::default()
        };
        self.positions
            .advance(&transaction, &self.sink, to, counts)
            .await?;
        transaction.commit().await?;
        Ok(to)
    }

    /// All statements one behind the other, without waiting for answers in between. Those
    /// events that cannot be read are the refused ones.
    async fn all_at_once<'a>(
        &mut self,
        transaction: &Transaction<'_>,
        planned: &[Planned<'a>],
    ) -> Result<Vec<Refused<'a>>, Failure> {
        let mut refused = Vec::new();
        let mut steps = Vec::new();
        for (event, plan) in planned {
            match plan {
                Ok(operations) => {
                    for operation in operations {
                        let statement = self.statement(transaction, &operation.sql).await?;
                        steps.push(Some((statement, &operation.row)));
                    }
                    steps.push(None);
                }
                Err(reason) => refused.push((*event, reason.clone())),
            }
        }
        // A statement is on its way when its future is polled for the first time; doing
        // that here, one by one, is what keeps their order.
        let mut answers: Vec<BoxFuture<'_, Result<(), Error>>> = Vec::with_capacity(steps.len());
        for step in &steps {
            let mut answer: BoxFuture<'_, Result<(), Error>> = match step {
                Some((statement, row)) => Box::pin(async move {
                    transaction.execute(statement, &[*row]).await?;
                    Ok(())
                }),
                None => Box::pin(transaction.batch_execute(CHECK)),
            };
            match futures::poll!(&mut answer) {
                std::task::Poll::Ready(done) => done?,
                std::task::Poll::Pending => answers.push(answer),
            }
        }
        for answer in answers {
            answer.await?;
        }
        Ok(refused)
    }

    /// The same with a savepoint before each event.
    async fn one_by_one<'a>(
        &mut self,
        transaction: &Transaction<'_>,
        planned: &[Planned<'a>],
    ) -> Result<Vec<Refused<'a>>, Trouble> {
        let mut refused = Vec::new();
        for (event, plan) in planned {
            let operations = match plan {
                Ok(operations) => operations,
                Err(reason) => {
                    refused.push((*event, reason.clone()));
                    continue;
                }
            };
            transaction.batch_execute(SAVE).await?;
            match self.event(transaction, operations).await {
                Ok(()) => transaction.batch_execute(KEEP).await?,
                Err(Failure::Row(reason)) => {
                    transaction.batch_execute(UNDO).await?;
                    transaction.batch_execute(KEEP).await?;
                    refused.push((*event, reason));
                }
                Err(Failure::Trouble(trouble)) => return Err(trouble),
            }
        }
        Ok(refused)
    }

    async fn event(
        &mut self,
        transaction: &Transaction<'_>,
        operations: &[Operation],
    ) -> Result<(), Failure> {
        for operation in operations {
            let statement = self.statement(transaction, &operation.sql).await?;
            transaction.execute(&statement, &[&operation.row]).await?;
        }
        Ok(transaction.batch_execute(CHECK).await?)
    }

    async fn statement(&mut self, transaction: &Transaction<'_>, sql: &str) -> Result<Statement, Error> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = transaction.prepare(sql).await?;
        self.statements.put(sql.to_owned(), statement.clone());
        Ok(statement)
    }
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
