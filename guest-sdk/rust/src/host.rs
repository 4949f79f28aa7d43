//! The calls into the host, in one place: the bindings in Wasm, and the fake of
//! [`crate::testing`] everywhere else. Also what one invocation needs before the
//! handler runs: the event's time, and a panic hook.

#[cfg(all(feature = "http", target_arch = "wasm32"))]
mod outgoing;

use std::cell::Cell;

use crate::event::Time;

thread_local! {
    /// Time of the event being handled, so that `timers::after` needs no event.
    static NOW: Cell<u64> = const { Cell::new(0) };
}

/// Called before each invocation with the event's time in Unix nanoseconds.
pub(crate) fn begin(time: u64) {
    NOW.set(time);
    #[cfg(target_arch = "wasm32")]
    report_panics();
}

/// Time of the event being handled.
pub(crate) fn now() -> Time {
    Time::from_unix_nanos(NOW.get())
}

/// A panic in Wasm is a trap, which knows nothing of the message: write it to
/// the host's log first. A test keeps the hook of its test runner.
#[cfg(target_arch = "wasm32")]
fn report_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|panic| {
            calls::log(crate::log::Level::Error, &panic.to_string());
        }));
    });
}

#[cfg(target_arch = "wasm32")]
pub(crate) mod calls {
    use crate::bindings::weir::handler as wit;
    use crate::log::Level;

    pub(crate) fn get(cell: &str) -> Option<Vec<u8>> {
        wit::state::get(cell)
    }

    pub(crate) fn get_many(cells: &[String]) -> Vec<Option<Vec<u8>>> {
        wit::state::get_many(cells)
    }

    pub(crate) fn set(cell: &str, value: &[u8]) {
        wit::state::set(cell, value)
    }

    pub(crate) fn delete(cell: &str) {
        wit::state::delete(cell)
    }

    pub(crate) fn cells(prefix: &str) -> Vec<String> {
        wit::state::cells(prefix)
    }

    pub(crate) fn emit(subject: &str, headers: Vec<(String, String)>, data: &[u8]) {
        let headers: Vec<_> = headers
            .into_iter()
            .map(|(name, value)| wit::types::Header { name, value })
            .collect();
        wit::output::emit(subject, &headers, data)
    }

    pub(crate) fn set_timer(name: &str, at: u64, data: &[u8]) {
        wit::timers::set(name, at, data)
    }

    pub(crate) fn cancel_timer(name: &str) {
        wit::timers::cancel(name)
    }

    pub(crate) fn timer_due(name: &str) -> Option<u64> {
        wit::timers::due(name)
    }

    pub(crate) fn shared_get(name: &str) -> Option<Vec<u8>> {
        wit::shared::get(name)
    }

    pub(crate) fn shared_set(name: &str, value: &[u8]) {
        wit::shared::set(name, value)
    }

    pub(crate) fn shared_delete(name: &str) {
        wit::shared::delete(name)
    }

    pub(crate) fn try_lock(name: &str, ttl_ms: u64) -> Option<u64> {
        wit::shared::try_lock(name, ttl_ms)
    }

    pub(crate) fn lock(name: &str, ttl_ms: u64) -> Option<u64> {
        // Does not return where another holds it.
        Some(wit::shared::lock(name, ttl_ms))
    }

    pub(crate) fn unlock(name: &str) {
        wit::shared::unlock(name)
    }

    pub(crate) fn config(name: &str) -> Option<String> {
        wit::config::get(name)
    }

    pub(crate) fn log(level: Level, message: &str) {
        let level = match level {
            Level::Trace => wit::log::Level::Trace,
            Level::Debug => wit::log::Level::Debug,
            Level::Info => wit::log::Level::Info,
            Level::Warn => wit::log::Level::Warn,
            Level::Error => wit::log::Level::Error,
        };
        wit::log::write(level, message)
    }

    #[cfg(feature = "http")]
    pub(crate) fn send(request: crate::http::Request) -> Result<crate::http::Response, crate::http::Error> {
        super::outgoing::send(request)
    }
}

#[cfg(not(target_arch = "wasm32"))]
pub(crate) use crate::testing::calls;
