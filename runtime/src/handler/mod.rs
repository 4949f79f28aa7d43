//! Runs guest code: compiled programs, their instances, and what an invocation
//! of one comes to.
//!
//! * [`Engine`]: one per process; compiles, and keeps the clock that ends
//!   invocations that take too long.
//! * [`Program`]: one component, compiled and linked, with the limits and
//!   configuration of its manifest. Shared by all partitions of a handler.
//! * [`Instance`]: one sandbox with its memory. One per partition, reused from
//!   event to event, replaced after a fault.
//!
//! Guest faults are [`Outcome`]s, never errors or panics of the host.
