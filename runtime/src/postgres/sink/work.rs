//! The sink itself: a term from its position to trouble.

use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

use super::super::address::Address;
use super::super::identifier::Identifier;
use super::super::service::{Stop, Worker};
use super::super::session::{PING_EVERY, Session};
use super::super::trouble::Trouble;
use super::apply::Applier;
use super::position::{Found, Positions};
use crate::log::{Reader, SharedLog, Start, Stored};
use crate::model::position::Position;
use crate::model::subjects::{INTERNAL_PREFIX, ledger_internal};
use crate::source::identity::{self, Unsound};

/// Events of one transaction. More would not be faster: the cost of a commit is
/// small beside that of so many statements.
const EVENTS_MAX: usize = 1_000;

/// Bytes of their payloads, of which statements are made in memory, beside the event that
/// goes over it.
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// What a sink was told to do.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Of the sink, unique in its schema.
    pub name: String,
    pub stream: String,
    pub subjects: Vec<String>,
    /// Of the tables that it writes.
    pub schema: Identifier,
    /// Where a sink begins that has no position yet.
    pub start: Start,
    /// End when everything was applied.
    pub once: bool,
}

/// Applies one stream.
pub struct Sink<R> {
    log: SharedLog,
    address: Address,
    settings: Settings,
    /// Called when the first term is under way.
    ready: Option<R>,
}

impl<R: FnOnce()> Sink<R> {
    pub fn new(log: SharedLog, address: Address, settings: Settings, ready: R) -> Sink<R> {
        Sink {
            log,
            address,
            settings,
            ready: Some(ready),
        }
    }
}

impl<R: FnOnce()> Worker for Sink<R> {
    async fn term(&mut self, stop: &mut Stop, sound: &mut bool) -> Result<(), Trouble> {
        let settings = &self.settings;
        let positions = Positions::of(&settings.schema).map_err(Trouble::Stopped)?;
        let mut session = Session::open(&self.address, None).await?;
        positions.ensure(&mut session.client).await?;
        let turn = format!("weir sink {} {}", settings.schema, settings.name);
        if !session.take_turn(&turn, stop).await? {
            return Ok(());
        }
        let position = position(&self.log, &session, &positions, settings).await?;
        let mut term = Term {
            applier: Applier::new(
                positions.clone(),
                &settings.name,
                &settings.stream,
                settings.schema.clone(),
            ),
            log: self.log.clone(),
            settings,
            positions,
            session,
            position,
        };
        let reader = term.open().await?;
        info!(
            sink = settings.name,
            stream = settings.stream,
            position = term.position.sequence,
            unread = reader.found(),
            "the sink is ours"
        );
        *sound = true;
        if let Some(ready) = self.ready.take() {
            ready();
        }
        term.work(reader, stop).await
    }
}

/// Where the sink is; made if it has been nowhere yet.
async fn position(
    log: &SharedLog,
    session: &Session,
    positions: &Positions,
    settings: &Settings,
) -> Result<Position, Trouble> {
    let (client, name) = (&session.client, &settings.name);
    let found = match positions.find(client, name).await? {
        Some(found) => found,
        None => {
            let created = log.stream(&settings.stream).await?.created;
            let first = log.resolve(&settings.stream, settings.start).await?;
            let new = Found {
                stream: settings.stream.clone(),
                subjects: settings.subjects.clone(),
                position: Position {
                    created,
                    sequence: first.saturating_sub(1),
                    stored: 0,
                },
            };
            positions.begin(client, name, &new).await?;
            new
        }
    };
    let update = |what: &str| {
        format!(
            "choose another --name; or, if you know that nothing of what was not read so far matters: update {} set {what} \
             where sink = '{name}'",
            positions.shown()
        )
    };
    if found.stream != settings.stream {
        return Err(Trouble::Stopped(format!(
            "sink {name} reads stream {}, not {}: its position means nothing there. Choose another --name",
            found.stream, settings.stream
        )));
    }
    if found.subjects != settings.subjects {
        return Err(Trouble::Stopped(format!(
            "sink {name} reads {} so far, not {}: what it has passed is not read again. {}",
            found.subjects.join(","),
            settings.subjects.join(","),
            update(&format!("subjects = '{{{}}}'", settings.subjects.join(",")))
        )));
    }
    Ok(found.position)
}

/// What one term knows.
struct Term<'a> {
    log: SharedLog,
    settings: &'a Settings,
    session: Session,
    positions: Positions,
    applier: Applier,
    position: Position,
}

impl Term<'_> {
    /// A reader after the position, once it is known that the position is in the stream.
    async fn open(&mut self) -> Result<Box<dyn Reader>, Trouble> {
        let Settings {
            name,
            stream,
            subjects,
            ..
        } = self.settings;
        let reader = self
            .log
            .read(stream, subjects, self.position.sequence + 1)
            .await?;
        // After the reader is opened, which ends with whatever breaks: no other stream can
        // come between the two.
        let checked = identity::check(&*self.log, stream, [self.position]).await?;
        if let Some(why) = checked.unsound.get(&self.position) {
            let positions = self.positions.shown();
            // What else the position says is compared again at the next start.
            let restored = match why {
                Unsound::CreatedAgain => format!(
                    " If it is that stream, restored from a backup, run: weir adopt {stream}; or, where no handler \
                     reads it: update {positions} set created = {} where sink = '{name}'.",
                    checked.state.created
                ),
                _ => String::new(),
            };
            return Err(Trouble::Stopped(format!(
                "sink {name}: {}.{restored} Its tables hold what came of the stream before. To apply the stream as it is \
                 now from its beginning, delete from {positions} where sink = '{name}'",
                why.describe(&checked.state, self.position.sequence),
            )));
        }
        // From a ledger Weir itself removes what is done with: a gap says nothing there.
        let ledger = checked.state.settings.subjects.contains(&ledger_internal(stream));
        let first = checked.state.first;
        if !ledger && first > self.position.sequence + 1 {
            let to = Position {
                sequence: first - 1,
                stored: 0,
                ..self.position
            };
            let lost = to.sequence - self.position.sequence;
            warn!(
                stream,
                lost, "messages were removed from the stream before they were read"
            );
            self.position = self
                .applier
                .skip(&mut self.session.client, self.position, to)
                .await?;
        }
        Ok(reader)
    }

    async fn work(&mut self, mut reader: Box<dyn Reader>, stop: &mut Stop) -> Result<(), Trouble> {
        let mut unread = reader.found();
        let mut events: Vec<Stored> = Vec::new();
        let mut ping = tokio::time::interval(PING_EVERY);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !(self.settings.once && unread == 0) {
            tokio::select! {
                biased;
                () = stop.wait() => return Ok(()),
                trouble = self.session.ended() => return Err(trouble),
                _ = ping.tick() => {
                    self.session.ping().await?;
                    continue;
                }
                read = reader.next(&mut events) => unread = read?,
            }
            // Of a ledger, records are none of the user's events, whatever the pattern.
            let own = |event: &Stored| event.subject.starts_with(INTERNAL_PREFIX);
            events.retain(|event| !own(event));
            for chunk in chunks(&events) {
                if stop.is_set() {
                    return Ok(());
                }
                self.position = self
                    .applier
                    .apply(&mut self.session.client, self.position, chunk)
                    .await?;
            }
            events.clear();
        }
        Ok(())
    }
}

/// Events in pieces of at most [`EVENTS_MAX`] and, but for a single one, [`BYTES_MAX`].
fn chunks(events: &[Stored]) -> impl Iterator<Item = &[Stored]> {
    let mut rest = events;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = rest.iter().take(EVENTS_MAX).take_while(|event| {
            bytes += event.data.len();
            bytes <= BYTES_MAX
        });
        let count = fits.count().max(1).min(rest.len());
        let (chunk, others) = rest.split_at(count);
        rest = others;
        (!chunk.is_empty()).then_some(chunk)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(bytes: usize) -> Stored {
        Stored {
            subject: "s".into(),
            sequence: 1,
            time: 0,
            headers: Vec::new(),
            data: vec![0; bytes].into(),
        }
    }

    #[test]
    fn chunks_hold_all_events_within_the_bounds() {
        let sizes = |sizes: &[usize]| {
            let events: Vec<Stored> = sizes.iter().map(|bytes| event(*bytes)).collect();
            chunks(&events).map(<[Stored]>::len).collect::<Vec<_>>()
        };
        assert_eq!(sizes(&[]), [0; 0]);
        assert_eq!(sizes(&[1; 2_001]), [1_000, 1_000, 1]);
        assert_eq!(sizes(&[BYTES_MAX + 1, 1, BYTES_MAX, 1]), [1, 1, 1, 1]);
        assert_eq!(sizes(&[BYTES_MAX - 1, 1, 1]), [2, 1]);
    }
}
