//! Runs guest code: compiled programs, their instances, and what an invocation
//! of one comes to.
//!
//! * [`Engine`]: one per process; compiles, and keeps the clock that ends
//!   invocations that take too long.
//! * [`Program`]: one component, compiled and linked, with the limits and
//!   configuration of its manifest. Shared by all partitions of a handler.
//! * [`Instance`]: one sandbox with its memory. One per partition, reused from
//!   event to event, replaced after a fault.
//! * [`CodeCache`]: compiled code on disk, from one start of a host to the next.
//! * [`Refusal`]: why a file does not become a program. Decided before any of
//!   its code runs.
//! * [`Fault`]: why an invocation has no effects. A guest can cause any of them
//!   and none is an error or a panic of the host.
//!
//! Deterministic: what an invocation does follows from its event, the cells it
//! reads, the configuration and what the instance remembers of earlier events.
//! Clocks and random numbers come from the event, NaNs are canonical, there are
//! no threads, files, sockets or environment. Only the faults that bound time
//! and stack depend on the machine, and those leave no effects.
//!
//! Not so an *activity*, a program that imports `wasi:http`: what it does follows from what the outside world
//! answers, too ([`http`](self::http)).
//!
//! Everything here is synchronous: an invocation occupies its thread, which must
//! not be one of an async runtime and needs [`THREAD_STACK_BYTES_MIN`] of stack. That of an activity needs a runtime
//! at hand, which does the waiting.

mod artifact;
mod code_cache;
mod engine;
mod fault;
mod guest_log;
mod host;
mod http;
mod instance;
mod limiter;
mod preview1;
mod program;
mod shared;
#[cfg(test)]
mod tests;
mod wasi;

pub use artifact::{ARTIFACT_BYTES_MAX, ArtifactKind, Inspection, Refusal, inspect};
pub use code_cache::CodeCache;
pub use engine::{EPOCH_TICK, Engine, THREAD_STACK_BYTES_MIN, WASM_STACK_BYTES_MAX};
pub use fault::Fault;
pub use guest_log::TARGET as GUEST_TARGET;
pub use http::{Answer, Answers, Asked, HEAD_BYTES_MAX, REQUESTS_MAX};
pub use instance::{Call, Instance};
pub use program::{Program, ProgramSettings};

/// Generated from `wit/world.wit`: the types and traits of the world `handler`.
mod bindings {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "handler",
        imports: { default: trappable },
        // The event is lowered straight from where the dispatcher holds it.
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}

/// The same world with its export as it is called for an activity: the call can be suspended, while
/// the guest waits for the network.
mod activity_bindings {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "handler",
        exports: { default: async },
        ownership: Borrowing { duplicate_if_necessary: true },
        with: { "weir:handler": super::bindings::weir::handler },
    });
}
