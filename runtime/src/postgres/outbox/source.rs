//! The source itself: a term from takeover to trouble.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::super::address::Address;
use super::super::service::{Stop, Worker};
use super::super::session::Session;
use super::super::trouble::Trouble;
use super::record::Record;
use super::row::{Row, Sendable, Taken};
use super::schema::{CHANNEL, Tables};
use super::state::{Outbox, State};
use crate::commit::committer::{self, Attempts};
use crate::ledger;
use crate::log::{AppendError, SharedLog};
use crate::model::pattern::matches_any;
use crate::model::subjects;

/// How often the table is looked at where nothing wakes the source.
const POLL_EVERY: Duration = Duration::from_secs(1);

/// What has become of a ledger that is behind the database, and what to do.
const LOST_TAIL: &str = "the ledger lost its tail or was restored from an older copy. Rows that it lost are marked as \
    sent, unless --delete has removed them: set their `sent` to null to send them again.";

/// What a source was told to do.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Of the source; its record is `$WEIR.<ledger>.s.<name>`.
    pub name: String,
    pub tables: Tables,
    pub ledger: String,
    /// Delete rows once they are known to be in the ledger.
    pub delete: bool,
    /// Create the tables that are missing.
    pub create: bool,
    /// End when no row is left.
    pub once: bool,
}

/// Tails one outbox.
pub struct Source<R> {
    log: SharedLog,
    address: Address,
    settings: Settings,
    attempts: Arc<Attempts>,
    /// Called when the first term is under way.
    ready: Option<R>,
}

impl<R: FnOnce()> Source<R> {
    pub fn new(log: SharedLog, address: Address, settings: Settings, ready: R) -> Source<R> {
        Source {
            log,
            address,
            settings,
            attempts: Attempts::new(&format!("{:032x}", rand::random::<u128>())),
            ready: Some(ready),
        }
    }
}

impl<R: FnOnce()> Worker for Source<R> {
    async fn term(&mut self, stop: &mut Stop, sound: &mut bool) -> Result<(), Trouble> {
        let tables = &self.settings.tables;
        let listen = (CHANNEL, tables.outbox.plain());
        let mut session = Session::open(&self.address, Some(listen)).await?;
        if self.settings.create {
            tables.create(&mut session.client).await?;
        }
        let columns = tables.check(&session.client).await?;
        let turn = format!("weir outbox {}", tables.outbox);
        if !session.take_turn(&turn, stop).await? {
            return Ok(());
        }
        let outbox = Outbox::prepare(&session.client, tables, &columns, self.settings.delete).await?;
        let mut term = Term::begin(self, session, outbox).await?;
        *sound = true;
        if let Some(ready) = self.ready.take() {
            ready();
        }
        term.work(self.settings.once, stop).await
    }
}

/// What one term knows.
struct Term {
    log: SharedLog,
    attempts: Arc<Attempts>,
    session: Session,
    outbox: Outbox,
    /// As in `Weir-Cause`.
    table: String,
    identity: String,
    taken: Taken,
    subject: String,
    /// Of the state row.
    term: i64,
    /// Sequence of the last record: what the next one expects.
    last: u64,
    /// The last claim that is in the ledger, whole.
    sent: i64,
    /// Claimed, checked and not sent; of claim `sent + 1`, or the rest of claim `sent`.
    waiting: VecDeque<Sendable>,
    /// Claim that `waiting` is of.
    claim: i64,
    /// Rows of one batch; less than all where the server takes only smaller ones.
    rows_max: usize,
}

impl Term {
    async fn begin<R>(source: &Source<R>, mut session: Session, outbox: Outbox) -> Result<Term, Trouble> {
        let Settings {
            name, tables, ledger, ..
        } = &source.settings;
        let (log, table) = (source.log.clone(), tables.outbox.short());
        let found = ledger::find(&*log, ledger).await?;
        let created = signed(found.created);
        let state = outbox.found(&mut session.client, name, ledger, created).await?;
        same(&state, &source.settings, created)?;

        let subject = subjects::source_record(ledger, name);
        let last = log.last(ledger, &subject).await?;
        let record = match &last {
            Some(stored) => Some(Record::decode(stored).map_err(Trouble::Stopped)?),
            None => None,
        };
        let (sent, through) = match &record {
            None if state.term > 0 => {
                return Err(Trouble::Stopped(format!(
                    "ledger {ledger} has no record {subject} any more, but outbox {table} has been read under this \
                     name: somebody removed it. {}",
                    anew(tables)
                )));
            }
            None => (0, 0),
            Some(record) if record.outbox != state.identity => {
                return Err(Trouble::Stopped(format!(
                    "source {name} of ledger {ledger} has read another outbox than {table} of {}: choose another \
                     --name",
                    source.address
                )));
            }
            Some(_)
                if last
                    .as_ref()
                    .is_some_and(|stored| signed(stored.sequence) < state.term) =>
            {
                return Err(Trouble::Stopped(format!(
                    "the last record {subject} of ledger {ledger} is older than the term of outbox {table} in the \
                     database, {}: {LOST_TAIL} {}",
                    state.term,
                    anew(tables)
                )));
            }
            Some(record) => (record.claim, record.through),
        };
        // From here on nothing of an owner before us can arrive.
        let expected = last.as_ref().map_or(0, |stored| stored.sequence);
        let takeover = Record::new(&state.identity, sent, through);
        let takeover = takeover.message(&subject, expected, source.attempts.next());
        let last = log.append(ledger, vec![takeover]).await?.sequence;
        let term = signed(last);
        let state = outbox.begin(&mut session.client, term).await?;
        let mut this = Term {
            taken: Taken {
                ledger: ledger.clone(),
                subjects: found.subjects,
                max_payload: log.max_payload(),
            },
            claim: state.claim,
            rows_max: usize::MAX,
            waiting: VecDeque::new(),
            attempts: source.attempts.clone(),
            identity: state.identity.clone(),
            log,
            session,
            outbox,
            table,
            subject,
            term,
            last,
            sent,
        };
        this.resume(&state, through, tables).await?;
        info!(
            term,
            claim = this.claim,
            sent = this.sent,
            waiting = this.waiting.len(),
            "the outbox is ours"
        );
        Ok(this)
    }

    /// Finds out what the claim that the database has is waiting for.
    async fn resume(&mut self, state: &State, through: i64, tables: &Tables) -> Result<(), Trouble> {
        let (sent, table) = (self.sent, &self.table);
        let through = match state.claim - sent {
            0 => through,
            1 => i64::MIN,
            ..0 => {
                return Err(Trouble::Stopped(format!(
                    "the ledger has claim {sent} of outbox {table}, but the database knows only {}: it was restored \
                     from an older copy, and rows may be in the ledger that it takes for unsent. Mark those as sent \
                     (their ids are in the messages' Weir-Cause). {}",
                    state.claim,
                    anew(tables)
                )));
            }
            _ => {
                return Err(Trouble::Stopped(format!(
                    "the database has claim {} of outbox {table}, but the ledger only {sent}: {LOST_TAIL} {}",
                    state.claim,
                    anew(tables)
                )));
            }
        };
        let bytes_max = self.bytes_max();
        let rows = self
            .outbox
            .claimed(&self.session.client, state, through, bytes_max)
            .await?;
        self.take(rows).await
    }

    fn bytes_max(&self) -> i64 {
        i64::try_from(self.taken.max_payload).unwrap_or(i64::MAX)
    }

    async fn work(&mut self, once: bool, stop: &mut Stop) -> Result<(), Trouble> {
        loop {
            self.send_waiting().await?;
            let (term, sent, bytes_max) = (self.term, self.sent, self.bytes_max());
            let outbox = &self.outbox;
            if stop.is_set() {
                return outbox.settle(&mut self.session.client, term, sent).await;
            }
            let claim = outbox
                .advance(&mut self.session.client, term, sent, bytes_max)
                .await?;
            let none = claim.rows.is_empty();
            self.claim = claim.number;
            self.take(claim.rows).await?;
            if none {
                if once {
                    return Ok(());
                }
                self.wait(stop).await?;
            }
        }
    }

    /// Waits for a row that is not sent, or for the end.
    async fn wait(&self, stop: &mut Stop) -> Result<(), Trouble> {
        while !self.outbox.has_rows(&self.session.client).await? {
            tokio::select! {
                () = stop.wait() => return Ok(()),
                () = self.session.woken() => {}
                trouble = self.session.ended() => return Err(trouble),
                // Also what keeps the session from being taken for dead.
                () = tokio::time::sleep(POLL_EVERY) => {}
            }
        }
        Ok(())
    }

    /// Takes claimed rows that can be sent; rejects the others.
    async fn take(&mut self, rows: Vec<Row>) -> Result<(), Trouble> {
        let unknown = |row: &Row| !matches_any(&self.taken.subjects, &row.subject);
        if rows.iter().any(unknown) {
            // The ledger may have got more subjects since the term began.
            self.taken.subjects = ledger::find(&*self.log, &self.taken.ledger).await?.subjects;
        }
        let mut bad = Vec::new();
        for row in rows {
            match row.message(&self.table, &self.taken) {
                Ok(sendable) => self.waiting.push_back(sendable),
                Err(reason) => bad.push(reason),
            }
        }
        match bad.is_empty() {
            true => Ok(()),
            false => self.reject(bad).await,
        }
    }

    async fn reject(&mut self, bad: Vec<(i64, String)>) -> Result<(), Trouble> {
        let term = self.term;
        self.outbox.reject(&mut self.session.client, term, &bad).await?;
        for (id, reason) in bad {
            warn!(
                table = self.table,
                id, reason, "row rejected; it is in {}_rejected", self.table
            );
        }
        Ok(())
    }

    /// Sends what waits, in as few batches as the server takes.
    async fn send_waiting(&mut self) -> Result<(), Trouble> {
        let mut sends = 0;
        while !self.waiting.is_empty() {
            let count = self.waiting.len().min(self.rows_max);
            let through = self.waiting[count - 1].id;
            let record = Record::new(&self.identity, self.claim, through);
            let mut batch: Vec<_> = self
                .waiting
                .iter()
                .take(count)
                .map(|sendable| sendable.message.clone())
                .collect();
            batch.push(record.message(&self.subject, self.last, self.attempts.next()));
            match self.log.append(&self.taken.ledger, batch).await {
                Ok(appended) => {
                    self.last = appended.sequence;
                    self.sent = self.claim;
                    self.waiting.drain(..count);
                    self.rows_max = self.rows_max.saturating_mul(2);
                    sends = 0;
                }
                Err(AppendError::Busy { code, description }) => {
                    sends += 1;
                    if sends >= committer::SENDS_MAX {
                        return Err(AppendError::Busy { code, description }.into());
                    }
                    // It may take only smaller batches, and does not say so.
                    self.rows_max = (count / 2).max(1);
                    tokio::time::sleep(committer::backoff(sends)).await;
                }
                Err(AppendError::TooLarge(_)) if count > 1 => self.rows_max = count / 2,
                Err(AppendError::TooLarge(reason)) => {
                    // Nothing of it is visible, and nobody else can have sent it in our term.
                    let bad = self.waiting.pop_front().map(|sendable| (sendable.id, reason));
                    self.reject(bad.into_iter().collect()).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// A number of the ledger's, as the database has it.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The state row is of this source and this ledger.
fn same(state: &State, settings: &Settings, created: i64) -> Result<(), Trouble> {
    let table = settings.tables.outbox.short();
    if state.source != settings.name {
        return Err(Trouble::Stopped(format!(
            "outbox {table} is read by source {}, not {}: two sources of one table would share its rows; use --name {}",
            state.source, settings.name, state.source
        )));
    }
    if state.ledger != settings.ledger || state.ledger_created != created {
        let what = match state.ledger == settings.ledger {
            true => format!(
                "was deleted and created again since (if it is that ledger, restored from a backup, run: weir adopt {}; or, \
                 where no handler runs on it: update {} set ledger_created = {created} where outbox = '{}')",
                settings.ledger,
                settings.tables.state.short(),
                settings.tables.outbox.name.as_str()
            ),
            false => format!("is not ledger {}, which got the rows so far", state.ledger),
        };
        return Err(Trouble::Stopped(format!(
            "ledger {} {what}, and outbox {table} goes on in the old one only. {}",
            settings.ledger,
            anew(&settings.tables)
        )));
    }
    Ok(())
}

/// How an outbox begins anew, where somebody has decided that it may.
fn anew(tables: &Tables) -> String {
    format!(
        "To begin anew with the rows that are not marked as sent: delete from {} where outbox = '{}'; then start with \
         another --name, or on a ledger that does not have this one yet",
        tables.state.short(),
        tables.outbox.name.as_str()
    )
}
