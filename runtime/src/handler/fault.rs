//! Why an invocation has no effects.

use wasmtime::{PoolConcurrencyLimitError, Trap, WasmBacktrace};

use super::WASM_STACK_BYTES_MAX;
use super::shared::{Locked, Unreadable};
use crate::deployment::manifest::Limits;
use crate::effects::check::Violation;
use crate::effects::dead_letter::TEXT_BYTES_MAX;

/// How an invocation failed. Its effects are discarded; whether the event is
/// tried again depends on [`Fault::permanent`].
///
/// ```
/// use weir::handler::Fault;
/// let fault = Fault::Reject("no such product".into());
/// assert!(fault.permanent());
/// assert_eq!((fault.kind(), fault.reason().as_str()), ("reject", "no such product"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The handler asks to be called again later.
    Retry(String),
    /// The handler will never take this event.
    Reject(String),
    /// The handler did what it may not: its effects or its log break a rule.
    Violation(String),
    /// The guest stopped: a panic, an unreachable instruction, a bad memory
    /// access, too deep a recursion, an exit.
    Trap { message: String, backtrace: String },
    /// The invocation took longer than it may.
    Timeout { limit_ms: u32 },
    /// The guest stopped after it was refused more memory.
    Memory { limit_mib: u32 },
    /// The host cannot run it at this moment: it has no sandbox to give, or the key's
    /// state is newer than the code. Not the guest's doing: the event waits, and no
    /// attempt is counted.
    Host(String),
    /// Another holds a lock that the handler waits for, until then (Unix nanoseconds) or
    /// until it is freed. No attempt is counted.
    Locked { lock: String, until: u64 },
    /// The event is handled over again while the handler is rebuilt, and does what others would
    /// see twice.
    Unrepeatable(String),
}

impl Fault {
    /// The word for it in dead letters, metrics and logs.
    pub fn kind(&self) -> &'static str {
        match self {
            Fault::Retry(_) => "retry",
            Fault::Reject(_) => "reject",
            Fault::Violation(_) => "violation",
            Fault::Trap { .. } => "trap",
            Fault::Timeout { .. } => "timeout",
            Fault::Memory { .. } => "memory",
            Fault::Host(_) => "host",
            Fault::Locked { .. } => "locked",
            Fault::Unrepeatable(_) => "unrepeatable",
        }
    }

    /// Whether trying again is pointless, so that the event is dead-lettered at once.
    pub fn permanent(&self) -> bool {
        matches!(
            self,
            Fault::Reject(_) | Fault::Violation(_) | Fault::Unrepeatable(_)
        )
    }

    /// A sentence for the handler's author, at most [`TEXT_BYTES_MAX`] bytes.
    pub fn reason(&self) -> String {
        match self {
            Fault::Retry(reason) | Fault::Reject(reason) | Fault::Violation(reason) => reason.clone(),
            Fault::Host(reason) | Fault::Unrepeatable(reason) => reason.clone(),
            Fault::Locked { lock, .. } => format!("waits for lock {lock:?}, which another holds"),
            Fault::Trap { message, .. } => message.clone(),
            Fault::Timeout { limit_ms } => {
                format!("took longer than {limit_ms} ms (time_ms in [limits] of handler.toml)")
            }
            Fault::Memory { limit_mib } => {
                format!("needed more than {limit_mib} MiB of memory (memory_mib in [limits] of handler.toml)")
            }
        }
    }

    /// Where in the guest a trap happened, innermost function first.
    pub fn backtrace(&self) -> Option<&str> {
        match self {
            Fault::Trap { backtrace, .. } if !backtrace.is_empty() => Some(backtrace),
            _ => None,
        }
    }

    /// What an error that ended guest code means. `memory_refused`: the limiter
    /// turned the guest down before. `last_words`: what the guest wrote as an
    /// error in this invocation, such as its panic message.
    pub(super) fn of(
        error: &wasmtime::Error,
        limits: &Limits,
        memory_refused: bool,
        last_words: Option<String>,
    ) -> Fault {
        if let Some(violation) = error.downcast_ref::<Violation>() {
            return Fault::Violation(clip(violation.to_string()));
        }
        if let Some(locked) = error.downcast_ref::<Locked>() {
            return Fault::Locked {
                lock: locked.name.clone(),
                until: locked.until,
            };
        }
        if let Some(unreadable) = error.downcast_ref::<Unreadable>() {
            return Fault::Host(unreadable.to_string());
        }
        if error.is::<PoolConcurrencyLimitError>() {
            return Fault::Host(format!(
                "this host has no sandbox left; run fewer partitions on it, or more hosts ({error})"
            ));
        }
        let trap = error.downcast_ref::<Trap>();
        if trap == Some(&Trap::Interrupt) {
            return Fault::Timeout {
                limit_ms: limits.time_ms,
            };
        }
        if memory_refused {
            return Fault::Memory {
                limit_mib: limits.memory_mib,
            };
        }
        let cause = match trap {
            Some(Trap::StackOverflow) => format!(
                "recursed too deep: the call stack is limited to {} KiB",
                WASM_STACK_BYTES_MAX / 1024
            ),
            // The stack of C and Rust guests lies in their memory, below everything else.
            Some(Trap::MemoryOutOfBounds) => {
                "out of bounds memory access (where the guest recursed too deep, its stack overflowed)".into()
            }
            Some(trap) => trap.to_string(),
            None => match error.downcast_ref::<wasmtime_wasi::I32Exit>() {
                Some(exit) => format!("the handler called exit({})", exit.0),
                None => error.root_cause().to_string(),
            },
        };
        let message = match last_words {
            Some(words) => format!("{words} ({cause})"),
            None => cause,
        };
        let backtrace = error
            .downcast_ref::<WasmBacktrace>()
            .map(|backtrace| clip(backtrace.to_string()))
            .unwrap_or_default();
        Fault::Trap {
            message: clip(message),
            backtrace,
        }
    }
}

/// Cuts a text that a guest may have made as long as it likes to what a dead
/// letter keeps.
pub(super) fn clip(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    text
}
