//! One sandbox, and the calls made into it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::timeout;
use wasmtime::Store;
use wasmtime::component::TypedFunc;

use super::activity_bindings::Handler as Activity;
use super::artifact::MIGRATE;
use super::bindings::Handler;
use super::bindings::weir::handler::types::{self as wit, Failure, HeaderParam};
use super::fault::clip;
use super::host::Host;
use super::program::Pre;
use super::{Engine, Fault, Program};
use crate::effects::Effects;
use crate::model::event::Event;
use crate::shared::Access;
use crate::state::KeyState;

/// A component's initialisation may take this long even where an event may not:
/// interpreters set up their modules then.
const INITIALISATION_MS_MIN: u32 = 1_000;

/// What an invocation is given beside its event and state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// The partition's clock in Unix nanoseconds; never goes back.
    pub clock: u64,
    /// When the event's source was created: with the event's id, the seed of
    /// random numbers.
    pub source_created: u64,
}

/// One sandbox with its memory. One per partition, reused from event to event.
///
/// It replaces what is inside it by itself: after a trap, because a guest that
/// was stopped at any instruction is in no state to go on; before its memory
/// runs full, because some languages leak a little with every event; and after
/// every event where the manifest says so. Whoever discards effects must drop
/// the instance, whose memory has seen them (PROTOCOL rule 17).
pub struct Instance {
    program: Arc<Program>,
    shared: Option<Arc<dyn Access>>,
    live: Option<Live>,
    poisoned: bool,
}

struct Live {
    store: Store<Host>,
    entry: Entry,
    migrate: Option<Migrate>,
    /// Memory after the first event: what the guest needs when it leaks nothing.
    settled_bytes: Option<usize>,
}

/// The optional export of the world `migration`.
type Migrate = TypedFunc<(u32,), (Result<(), Failure>,)>;

/// What a call of the guest comes to: a trap, or what it returned.
type Returned = wasmtime::Result<Result<(), Failure>>;

/// How the guest is called.
enum Entry {
    Handler(Handler),
    /// On a stack of its own, so that it can be suspended while it waits, and dropped when it waits for
    /// too long.
    Activity(Activity),
}

/// The call of an activity took longer than it may.
struct TooLong;

/// Runs a call that may wait on this thread, and no longer than it may: guest code is interrupted by the
/// epoch, and a call that waits is dropped.
///
/// # Panics
/// Not on a thread that has entered a runtime: [`Executor::for_activities`](crate::dispatch::executor::Executor).
fn within<T>(limit_ms: u32, call: impl Future<Output = T>) -> Result<T, TooLong> {
    let limit = Duration::from_millis(limit_ms.into());
    Handle::current()
        .block_on(async { timeout(limit, call).await })
        .map_err(|_| TooLong)
}

impl Instance {
    pub(super) fn new(program: &Arc<Program>, shared: Option<Arc<dyn Access>>) -> Result<Self, Fault> {
        Ok(Instance {
            live: Some(Live::new(program, shared.clone())?),
            shared,
            program: Arc::clone(program),
            poisoned: false,
        })
    }

    /// Calls the handler with one event. `state` is let go of before this returns.
    ///
    /// Must not be called on a thread of an async runtime; for an activity, on one that has
    /// entered a runtime.
    ///
    /// # Errors
    /// [`Fault`]: nothing of what the invocation did counts.
    pub fn handle(&mut self, event: &Event, call: &Call, state: &Arc<KeyState>) -> Result<Effects, Fault> {
        let live = match &mut self.live {
            Some(live) => live,
            empty => empty.insert(Live::new(&self.program, self.shared.clone())?),
        };
        self.poisoned = false;
        let result = live.handle(&self.program, event, call, state);
        match &result {
            Err(fault) if fault.stops_the_guest() => {
                self.poisoned = true;
                self.live = None;
            }
            _ if self.program.settings.per_event || live.is_leaking() => self.live = None,
            _ => {}
        }
        result
    }

    /// Whether the last call stopped the guest in the middle, so that the next
    /// one will be of a new instance, which costs 20 us to some milliseconds and
    /// forgets what the guest kept in memory.
    pub fn poisoned(&self) -> bool {
        self.poisoned
    }
}

impl Live {
    fn new(program: &Arc<Program>, shared: Option<Arc<dyn Access>>) -> Result<Self, Fault> {
        let limits = &program.settings.limits;
        let settings = Arc::clone(&program.settings);
        let host = Host::new(settings, program.kind, &program.engine.transport, shared);
        let mut store = Store::new(&program.engine.wasmtime, host);
        store.limiter(|host| &mut host.limiter);
        let limit_ms = limits.time_ms.max(INITIALISATION_MS_MIN);
        store.set_epoch_deadline(Engine::ticks(limit_ms));
        let instance = match &program.pre {
            Pre::Handler(pre) => pre.instance_pre().instantiate(&mut store),
            Pre::Activity(pre) => within(limit_ms, pre.instance_pre().instantiate_async(&mut store))
                .map_err(|TooLong| Fault::Timeout { limit_ms })?,
        };
        let entry = instance.and_then(|instance| {
            let migrate = match program.settings.state_version {
                1 => None,
                _ => Some(instance.get_typed_func(&mut store, MIGRATE)?),
            };
            let entry = match &program.pre {
                Pre::Handler(_) => Entry::Handler(Handler::new(&mut store, &instance)?),
                Pre::Activity(_) => Entry::Activity(Activity::new(&mut store, &instance)?),
            };
            Ok((entry, migrate))
        });
        match entry {
            Ok((entry, migrate)) => Ok(Live {
                store,
                entry,
                migrate,
                settled_bytes: None,
            }),
            Err(error) => {
                let host = store.data_mut();
                let refused = host.limiter.take_refused();
                Err(match Fault::of(&error, limits, refused, host.last_words()) {
                    Fault::Timeout { .. } => Fault::Timeout { limit_ms },
                    Fault::Trap { message, backtrace } => Fault::Trap {
                        message: clip(format!("while the component was initialised: {message}")),
                        backtrace,
                    },
                    fault => fault,
                })
            }
        }
    }

    fn handle(
        &mut self,
        program: &Program,
        event: &Event,
        call: &Call,
        state: &Arc<KeyState>,
    ) -> Result<Effects, Fault> {
        let from = state.version();
        let to = program.settings.state_version;
        if from > to {
            return Err(Fault::Host(format!(
                "the cells of key {:?} are of state version {from}, and this code is for {to}: deploy code for \
                 version {from} or later",
                event.key
            )));
        }
        let id = event.id();
        let host = self.store.data_mut();
        host.begin(&id, &event.key, call.clock, state);
        if let Some(wasi) = &mut host.wasi {
            wasi.begin(&id, call.source_created, call.clock);
        }
        if let Some(http) = &mut host.http {
            http.begin(&id, call.source_created);
        }
        let headers: Vec<HeaderParam<'_>> = event
            .headers
            .iter()
            .map(|(name, value)| HeaderParam { name, value })
            .collect();
        let param = wit::Event {
            id: &id,
            stream: &event.stream,
            sequence: event.sequence,
            subject: &event.subject,
            key: &event.key,
            time: event.time,
            timer: event.timer.as_ref().map(|timer| &*timer.name),
            headers: &headers,
            data: &event.data,
        };
        let limits = &program.settings.limits;
        self.store.set_epoch_deadline(Engine::ticks(limits.time_ms));
        let outdated = from < to && state.visible_len() > 0;
        let migrated = match outdated {
            true => self.migrate(limits.time_ms, from..to),
            false => Ok(Ok(Ok(()))),
        };
        let result = match migrated {
            Ok(Ok(Ok(()))) => match &self.entry {
                Entry::Handler(handler) => Ok(handler.call_handle(&mut self.store, param)),
                Entry::Activity(activity) => {
                    within(limits.time_ms, activity.call_handle(&mut self.store, param))
                }
            },
            failed => failed,
        };
        let host = self.store.data_mut();
        let effects = host.end();
        let result = result.map_err(|TooLong| Fault::Timeout {
            limit_ms: limits.time_ms,
        })?;
        match result {
            Ok(Ok(())) => Ok(effects),
            Ok(Err(Failure::Retry(reason))) => Err(Fault::Retry(clip(reason))),
            Ok(Err(Failure::Reject(reason))) => Err(Fault::Reject(clip(reason))),
            Err(error) => {
                let refused = host.limiter.take_refused();
                Err(Fault::of(&error, limits, refused, host.last_words()))
            }
        }
    }

    /// Brings the key's cells through `versions`, a call for each of them.
    fn migrate(&mut self, limit_ms: u32, versions: std::ops::Range<u32>) -> Result<Returned, TooLong> {
        let Some(migrate) = &self.migrate else {
            return Ok(Ok(Ok(())));
        };
        for from in versions {
            let called = match &self.entry {
                Entry::Handler(_) => migrate.call(&mut self.store, (from,)),
                Entry::Activity(_) => within(limit_ms, migrate.call_async(&mut self.store, (from,)))?,
            };
            match called {
                Ok((Ok(()),)) => {}
                Ok((failure,)) => return Ok(Ok(failure)),
                Err(error) => return Ok(Err(error)),
            }
        }
        self.store.data_mut().migrated();
        Ok(Ok(Ok(())))
    }

    /// Whether memory has grown, since the first event, over half of what was
    /// left then, and is nearly used up.
    fn is_leaking(&mut self) -> bool {
        let limiter = &self.store.data().limiter;
        let (used, limit) = (limiter.used_bytes(), limiter.limit_bytes());
        let settled = *self.settled_bytes.get_or_insert(used);
        used > limit / 4 * 3 && used > settled + limit.saturating_sub(settled) / 2
    }
}

impl Fault {
    /// Whether it ended guest code at some instruction rather than on its return.
    fn stops_the_guest(&self) -> bool {
        !matches!(self, Fault::Retry(_) | Fault::Reject(_))
    }
}
