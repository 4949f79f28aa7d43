//! A fake host for unit tests: no Wasm, no NATS, and the same rule that an
//! invocation's effects are kept as a whole or not at all.
//!
//! ```
//! use weir_guest::prelude::*;
//!
//! fn handle(event: Event) -> Result {
//!     let n = state::cell::<u64>("n").update(|n| *n += 1)?;
//!     output::emit("counts", &n)?;
//!     event.header("Fail").map_or(Ok(()), |why| Err(Error::reject(why)))
//! }
//!
//! let mut host = testing::Host::new();
//! let effects = host.deliver(handle, testing::event("orders.new").key("a")).unwrap();
//! assert_eq!(effects.emitted[0].data, b"1");
//!
//! let failed = host.deliver(handle, testing::event("orders.new").key("a").header("Fail", "no"));
//! assert_eq!(failed.unwrap_err(), Error::reject("no"));
//! assert_eq!(host.cell("a", "n"), Some(&b"1"[..]));
//! ```
//!
//! Timers fire when the test says so, in virtual time:
//!
//! ```
//! use std::time::Duration;
//! use weir_guest::prelude::*;
//!
//! fn handle(event: Event) -> Result {
//!     match event.timer() {
//!         Some(name) => output::emit("late", name)?,
//!         None => timers::after("unpaid", Duration::from_secs(60)),
//!     }
//!     Ok(())
//! }
//!
//! let mut host = testing::Host::new();
//! host.deliver(handle, testing::event("orders.new").key("a").time(Time::from_unix_secs(100))).unwrap();
//! assert_eq!(host.timers("a"), [("unpaid", Time::from_unix_secs(160))]);
//! assert!(host.fire_until(handle, Time::from_unix_secs(159)).unwrap().is_empty());
//! let fired = host.fire_until(handle, Time::from_unix_secs(160)).unwrap();
//! assert_eq!(fired[0].emitted[0].data, br#""unpaid""#);
//! assert!(host.timers("a").is_empty());
//! ```
//!
//! It does not enforce the limits and the emit allowlist of `handler.toml`: `weir test`
//! does, on the component itself.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::bindings;
use crate::error::{Error, Outcome};
use crate::event::{Event, Time};
use crate::log::Level;

mod given;

pub use given::{Decided, Given, given};

/// Names and values of one key.
type Cells = BTreeMap<String, Vec<u8>>;

/// When each timer of one key is due, in Unix nanoseconds, and what it carries.
type Timers = BTreeMap<String, (u64, Vec<u8>)>;

/// Timers that one call of [`Host::fire_until`] fires: it ends a handler whose
/// timers set each other for ever.
const FIRES_MAX: usize = 10_000;

/// The state of one handler, and its configuration.
#[derive(Debug, Default)]
pub struct Host {
    cells: BTreeMap<String, Cells>,
    timers: BTreeMap<String, Timers>,
    config: BTreeMap<String, String>,
    delivered: u64,
}

/// What one invocation did, its cells apart.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Effects {
    pub emitted: Vec<Emitted>,
    pub timers: Vec<Timer>,
    pub log: Vec<(Level, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emitted {
    pub subject: String,
    pub headers: Vec<(String, String)>,
    pub data: Vec<u8>,
}

/// A timer set, or cancelled if it has no time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timer {
    pub name: String,
    pub at: Option<Time>,
    pub data: Vec<u8>,
}

impl Host {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds to what `config::get` answers.
    pub fn with_config(mut self, name: &str, value: &str) -> Self {
        self.config.insert(name.into(), value.into());
        self
    }

    /// Calls the handler, and keeps its cells and timers if it succeeds.
    ///
    /// # Errors
    /// The handler's.
    pub fn deliver<O: Outcome>(
        &mut self,
        handler: impl FnOnce(Event) -> O,
        event: EventBuilder,
    ) -> Result<Effects, Error> {
        let mut event = event.event;
        self.delivered += 1;
        if event.sequence == 0 {
            event.sequence = self.delivered;
        }
        event.id = format!("{}:{}", event.stream, event.sequence);
        let key = event.key.clone();

        let invocation = Invocation {
            cells: self.cells.get(&key).cloned().unwrap_or_default(),
            timers: self.timers.get(&key).cloned().unwrap_or_default(),
            config: self.config.clone(),
            effects: Effects::default(),
        };
        CURRENT.set(Some(invocation));
        crate::host::begin(event.time);
        let result = handler(Event::new(event)).into_result();
        let invocation = CURRENT.take().expect("an invocation does not end another");
        result?;
        self.timers.insert(key.clone(), invocation.timers);
        self.cells.insert(key, invocation.cells);
        Ok(invocation.effects)
    }

    /// Fires the timers of all keys that are due by `until`, in the order in which
    /// they are due, and those that are set meanwhile; what each did. A timer is gone
    /// once it fired, whatever the handler makes of it.
    ///
    /// # Errors
    /// The handler's; timers that come after that one are still set.
    ///
    /// # Panics
    /// If timers set each other without end.
    pub fn fire_until<O: Outcome>(
        &mut self,
        handler: impl Fn(Event) -> O,
        until: Time,
    ) -> Result<Vec<Effects>, Error> {
        let mut fired = Vec::new();
        while let Some((key, name, at, data)) = self.take_due(until) {
            assert!(
                fired.len() < FIRES_MAX,
                "timers fired {FIRES_MAX} times, last {name:?} of key {key:?}: is there an end to them?"
            );
            let event = event("$WEIR.TEST.f.handler.1.0").key(&key).timer(&name);
            let event = event.time(Time::from_unix_nanos(at)).data(data);
            fired.push(self.deliver(&handler, event)?);
        }
        Ok(fired)
    }

    /// Takes the timer that is due first, if it is due by `until`.
    fn take_due(&mut self, until: Time) -> Option<(String, String, u64, Vec<u8>)> {
        let of = |(key, timers): (&String, &Timers)| {
            let first = timers.iter().min_by_key(|(_, (at, _))| *at)?;
            Some((first.1.0, key.clone(), first.0.clone()))
        };
        let (at, key, name) = self.timers.iter().filter_map(of).min()?;
        if at > until.unix_nanos() {
            return None;
        }
        let (_, data) = self.timers.get_mut(&key)?.remove(&name)?;
        Some((key, name, at, data))
    }

    /// Timers of a key that are set, by name, and when they are due.
    pub fn timers(&self, key: &str) -> Vec<(&str, Time)> {
        let timers = self.timers.get(key).into_iter().flatten();
        timers
            .map(|(name, (at, _))| (name.as_str(), Time::from_unix_nanos(*at)))
            .collect()
    }

    /// A cell as the last successful invocation of that key left it.
    pub fn cell(&self, key: &str, cell: &str) -> Option<&[u8]> {
        self.cells.get(key)?.get(cell).map(Vec::as_slice)
    }
}

/// Begins an event of the stream `TEST`, numbered in the order of delivery. Its
/// key is its subject until [`EventBuilder::key`] says another.
pub fn event(subject: &str) -> EventBuilder {
    EventBuilder {
        event: bindings::Event {
            id: String::new(),
            stream: "TEST".into(),
            sequence: 0,
            subject: subject.into(),
            key: subject.into(),
            time: 0,
            timer: None,
            headers: Vec::new(),
            data: Vec::new(),
        },
    }
}

/// An event to deliver.
#[derive(Debug, Clone)]
pub struct EventBuilder {
    event: bindings::Event,
}

impl EventBuilder {
    pub fn key(mut self, key: &str) -> Self {
        self.event.key = key.into();
        self
    }

    /// The stream and the sequence, and with them the id.
    pub fn stored(mut self, stream: &str, sequence: u64) -> Self {
        self.event.stream = stream.into();
        self.event.sequence = sequence;
        self
    }

    pub fn time(mut self, time: Time) -> Self {
        self.event.time = time.unix_nanos();
        self
    }

    /// Makes it a timer that fired.
    pub fn timer(mut self, name: &str) -> Self {
        self.event.timer = Some(name.into());
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.event.headers.push(bindings::weir::handler::types::Header {
            name: name.into(),
            value: value.into(),
        });
        self
    }

    pub fn data(mut self, data: impl Into<Vec<u8>>) -> Self {
        self.event.data = data.into();
        self
    }
}

/// What the handler running on this thread sees and has done.
#[derive(Debug)]
struct Invocation {
    cells: Cells,
    timers: Timers,
    config: BTreeMap<String, String>,
    effects: Effects,
}

thread_local! {
    static CURRENT: RefCell<Option<Invocation>> = const { RefCell::new(None) };
}

/// What [`crate::host`] calls in place of the bindings.
pub(crate) mod calls {
    use super::*;

    fn with<T>(act: impl FnOnce(&mut Invocation) -> T) -> T {
        CURRENT.with_borrow_mut(|current| {
            act(current
                .as_mut()
                .expect("outside Wasm, host calls need testing::Host::deliver around them"))
        })
    }

    pub(crate) fn get(cell: &str) -> Option<Vec<u8>> {
        with(|now| now.cells.get(cell).cloned())
    }

    pub(crate) fn get_many(cells: &[String]) -> Vec<Option<Vec<u8>>> {
        cells.iter().map(|cell| get(cell)).collect()
    }

    pub(crate) fn set(cell: &str, value: &[u8]) {
        with(|now| now.cells.insert(cell.into(), value.into()));
    }

    pub(crate) fn delete(cell: &str) {
        with(|now| now.cells.remove(cell));
    }

    pub(crate) fn cells(prefix: &str) -> Vec<String> {
        with(|now| {
            let names = now.cells.keys();
            names.filter(|name| name.starts_with(prefix)).cloned().collect()
        })
    }

    pub(crate) fn emit(subject: &str, headers: Vec<(String, String)>, data: &[u8]) {
        let emitted = Emitted {
            subject: subject.into(),
            headers,
            data: data.into(),
        };
        with(|now| now.effects.emitted.push(emitted));
    }

    pub(crate) fn set_timer(name: &str, at: u64, data: &[u8]) {
        timer(name, Some(Time::from_unix_nanos(at)), data);
    }

    pub(crate) fn cancel_timer(name: &str) {
        timer(name, None, &[]);
    }

    fn timer(name: &str, at: Option<Time>, data: &[u8]) {
        let timer = Timer {
            name: name.into(),
            at,
            data: data.into(),
        };
        with(|now| {
            match at {
                Some(at) => now.timers.insert(name.into(), (at.unix_nanos(), data.into())),
                None => now.timers.remove(name),
            };
            now.effects.timers.push(timer);
        });
    }

    pub(crate) fn timer_due(name: &str) -> Option<u64> {
        with(|now| now.timers.get(name).map(|(at, _)| *at))
    }

    pub(crate) fn config(name: &str) -> Option<String> {
        with(|now| now.config.get(name).cloned())
    }

    pub(crate) fn log(level: Level, message: &str) {
        with(|now| now.effects.log.push((level, message.into())));
    }
}
