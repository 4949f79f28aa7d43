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
//! It does not enforce the limits and the emit allowlist of `handler.toml`, and
//! fires no timers: deliver `event(…).timer("name")`.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::bindings;
use crate::error::{Error, Outcome};
use crate::event::{Event, Time};
use crate::log::Level;

/// Names and values of one key.
type Cells = BTreeMap<String, Vec<u8>>;

/// The state of one handler, and its configuration.
#[derive(Debug, Default)]
pub struct Host {
    cells: BTreeMap<String, Cells>,
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

    /// Calls the handler, and keeps its cells if it succeeds.
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
            config: self.config.clone(),
            effects: Effects::default(),
        };
        CURRENT.set(Some(invocation));
        crate::host::begin(event.time);
        let result = handler(Event::new(event)).into_result();
        let invocation = CURRENT.take().expect("an invocation does not end another");
        result?;
        self.cells.insert(key, invocation.cells);
        Ok(invocation.effects)
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
        with(|now| now.effects.timers.push(timer));
    }

    pub(crate) fn config(name: &str) -> Option<String> {
        with(|now| now.config.get(name).cloned())
    }

    pub(crate) fn log(level: Level, message: &str) {
        with(|now| now.effects.log.push((level, message.into())));
    }
}
