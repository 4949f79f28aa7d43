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
#[cfg(feature = "http")]
use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;

use crate::bindings;
use crate::error::{Error, Outcome};
use crate::event::{Event, Time};
#[cfg(feature = "http")]
use crate::http;
use crate::log::Level;
use crate::shared::Waits;

mod given;

pub use given::{Decided, Given, given};

/// Names and values of one key.
type Cells = BTreeMap<String, Vec<u8>>;

/// When each timer of one key is due, in Unix nanoseconds, and what it carries.
type Timers = BTreeMap<String, (u64, Vec<u8>)>;

/// Responses that are left, by method and URL.
#[cfg(feature = "http")]
type Responses = BTreeMap<(String, String), VecDeque<http::Response>>;

/// Timers that one call of [`Host::fire_until`] fires: it ends a handler whose
/// timers set each other for ever.
const FIRES_MAX: usize = 10_000;

/// The state of one handler, and its configuration.
#[derive(Debug, Default)]
pub struct Host {
    cells: BTreeMap<String, Cells>,
    timers: BTreeMap<String, Timers>,
    config: BTreeMap<String, String>,
    shared: BTreeMap<String, Vec<u8>>,
    locks: BTreeMap<String, Lock>,
    #[cfg(feature = "http")]
    responses: Responses,
    delivered: u64,
}

/// A lock: the key that holds it, if any does, and the last token.
#[derive(Debug, Clone, Default)]
struct Lock {
    holder: Option<String>,
    token: u64,
}

/// What one invocation did, its cells apart.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Effects {
    pub emitted: Vec<Emitted>,
    pub timers: Vec<Timer>,
    pub log: Vec<(Level, String)>,
    /// In the order in which they were sent, those without a response, too.
    #[cfg(feature = "http")]
    pub requests: Vec<http::Request>,
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

    /// Writes a cell of a key, as an earlier event would have.
    pub fn with_cell(mut self, key: &str, cell: &str, value: impl Into<Vec<u8>>) -> Self {
        let cells = self.cells.entry(key.into()).or_default();
        cells.insert(cell.into(), value.into());
        self
    }

    /// Writes a shared cell, as another handler would have.
    pub fn with_shared(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.shared.insert(name.into(), value.into());
        self
    }

    /// A shared cell as the last successful invocation left it.
    pub fn shared(&self, name: &str) -> Option<&[u8]> {
        self.shared.get(name).map(Vec::as_slice)
    }

    /// The key that holds a lock. Locks do not expire here; [`Host::break_lock`] ends one.
    pub fn lock_holder(&self, name: &str) -> Option<&str> {
        self.locks.get(name)?.holder.as_deref()
    }

    /// Takes a lock away from whoever holds it, as its expiry does.
    pub fn break_lock(&mut self, name: &str) {
        if let Some(lock) = self.locks.get_mut(name) {
            lock.holder = None;
        }
    }

    /// Calls a migration for the cells of `key`, and keeps what it made of them if it succeeds.
    ///
    /// # Errors
    /// The migration's.
    pub fn migrate<O: Outcome>(
        &mut self,
        migration: impl FnOnce(u32) -> O,
        key: &str,
        from: u32,
    ) -> Result<(), Error> {
        self.deliver(|_| migration(from), event("migrate").key(key))?;
        Ok(())
    }

    /// Answers requests of that method and URL. Several responses are given in their order, the
    /// last one again and again; a request without any fails.
    #[cfg(feature = "http")]
    pub fn respond(mut self, method: &str, url: &str, response: http::Response) -> Self {
        let of = (method.into(), url.into());
        self.responses.entry(of).or_default().push_back(response);
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
            key: key.clone(),
            shared: self.shared.clone(),
            locks: self.locks.clone(),
            #[cfg(feature = "http")]
            responses: std::mem::take(&mut self.responses),
            effects: Effects::default(),
        };
        CURRENT.set(Some(invocation));
        crate::host::begin(event.time);
        let call = AssertUnwindSafe(|| handler(Event::new(event)).into_result());
        let result = std::panic::catch_unwind(call);
        let invocation = CURRENT.take().expect("an invocation does not end another");
        #[cfg(feature = "http")]
        {
            self.responses = invocation.responses;
        }
        match result {
            Ok(result) => result?,
            Err(panic) => match panic.downcast::<Waits>() {
                Ok(waits) => return Err(Error::retry(format!("waits for lock {:?}", waits.0))),
                Err(panic) => std::panic::resume_unwind(panic),
            },
        }
        self.shared = invocation.shared;
        self.locks = invocation.locks;
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
    key: String,
    shared: BTreeMap<String, Vec<u8>>,
    locks: BTreeMap<String, Lock>,
    #[cfg(feature = "http")]
    responses: Responses,
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

    pub(crate) fn shared_get(name: &str) -> Option<Vec<u8>> {
        with(|now| now.shared.get(name).cloned())
    }

    pub(crate) fn shared_set(name: &str, value: &[u8]) {
        with(|now| now.shared.insert(name.into(), value.into()));
    }

    pub(crate) fn shared_delete(name: &str) {
        with(|now| now.shared.remove(name));
    }

    pub(crate) fn try_lock(name: &str, _ttl_ms: u64) -> Option<u64> {
        with(|now| {
            let lock = now.locks.entry(name.into()).or_default();
            match &lock.holder {
                Some(holder) if *holder == now.key => {}
                Some(_) => return None,
                None => {
                    lock.token += 1;
                    lock.holder = Some(now.key.clone());
                }
            }
            Some(lock.token)
        })
    }

    pub(crate) fn lock(name: &str, ttl_ms: u64) -> Option<u64> {
        try_lock(name, ttl_ms)
    }

    pub(crate) fn unlock(name: &str) {
        with(|now| {
            if let Some(lock) = now.locks.get_mut(name)
                && lock.holder.as_ref() == Some(&now.key)
            {
                lock.holder = None;
            }
        });
    }

    pub(crate) fn config(name: &str) -> Option<String> {
        with(|now| now.config.get(name).cloned())
    }

    pub(crate) fn log(level: Level, message: &str) {
        with(|now| now.effects.log.push((level, message.into())));
    }

    #[cfg(feature = "http")]
    pub(crate) fn send(request: http::Request) -> Result<http::Response, http::Error> {
        http::parts(&request.url)?;
        let of = (request.method.clone(), request.url.clone());
        with(|now| {
            now.effects.requests.push(request);
            let responses = now.responses.get_mut(&of);
            let response = responses.and_then(|left| match left.len() {
                0 | 1 => left.front().cloned(),
                _ => left.pop_front(),
            });
            let (method, url) = of;
            response.ok_or_else(|| http::Error::new(format!("no response of the test for {method} {url}")))
        })
    }
}
