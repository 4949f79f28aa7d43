//! One sandbox, and the calls made into it.

use std::sync::Arc;

use wasmtime::Store;
use wasmtime::component::TypedFunc;

use super::artifact::MIGRATE;
use super::bindings::Handler;
use super::bindings::weir::handler::types::{self as wit, Failure, HeaderParam};
use super::fault::clip;
use super::host::Host;
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
    handler: Handler,
    migrate: Option<TypedFunc<(u32,), (Result<(), Failure>,)>>,
    /// Memory after the first event: what the guest needs when it leaks nothing.
    settled_bytes: Option<usize>,
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
    /// Must not be called on a thread of an async runtime.
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
        let mut store = Store::new(
            &program.engine.wasmtime,
            Host::new(Arc::clone(&program.settings), program.wasi, shared),
        );
        store.limiter(|host| &mut host.limiter);
        let limit_ms = limits.time_ms.max(INITIALISATION_MS_MIN);
        store.set_epoch_deadline(Engine::ticks(limit_ms));
        let exports = program
            .pre
            .instance_pre()
            .instantiate(&mut store)
            .and_then(|instance| {
                let migrate = match program.settings.state_version {
                    1 => None,
                    _ => Some(instance.get_typed_func(&mut store, MIGRATE)?),
                };
                Ok((Handler::new(&mut store, &instance)?, migrate))
            });
        match exports {
            Ok((handler, migrate)) => Ok(Live {
                store,
                handler,
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
        let result = match outdated {
            true => self.migrate(from..to),
            false => Ok(Ok(())),
        };
        let result = match result {
            Ok(Ok(())) => self.handler.call_handle(&mut self.store, param),
            failed => failed,
        };
        let host = self.store.data_mut();
        let effects = host.end();
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
    fn migrate(&mut self, versions: std::ops::Range<u32>) -> wasmtime::Result<Result<(), Failure>> {
        let Some(migrate) = &self.migrate else {
            return Ok(Ok(()));
        };
        for from in versions {
            let (migrated,) = migrate.call(&mut self.store, (from,))?;
            if migrated.is_err() {
                return Ok(migrated);
            }
        }
        self.store.data_mut().migrated();
        Ok(Ok(()))
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
