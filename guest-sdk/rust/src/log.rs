//! The handler's log, which the host keeps with the handler's name and the
//! event's id. The macros format like `println!`.
//!
//! What one invocation may log is bounded; see `[limits]` of `handler.toml`.
//!
//! ```
//! use weir_guest::prelude::*;
//!
//! fn handle(event: Event) {
//!     log::info!("{} bytes on {}", event.data().len(), event.subject());
//! }
//! # let effects = testing::Host::new().deliver(handle, testing::event("a").data("xy")).unwrap();
//! # assert_eq!(effects.log, [(log::Level::Info, "2 bytes on a".to_string())]);
//! ```

use crate::host::calls;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

/// Writes a line. The macros are shorter.
pub fn write(level: Level, message: &str) {
    calls::log(level, message);
}

/// Writes a line at a level, as the other macros do at theirs.
#[doc(hidden)]
#[macro_export]
macro_rules! __log {
    ($level:ident, $($text:tt)+) => {
        $crate::log::write($crate::log::Level::$level, &::std::format!($($text)+))
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __trace { ($($text:tt)+) => { $crate::__log!(Trace, $($text)+) }; }

#[doc(hidden)]
#[macro_export]
macro_rules! __debug { ($($text:tt)+) => { $crate::__log!(Debug, $($text)+) }; }

#[doc(hidden)]
#[macro_export]
macro_rules! __info { ($($text:tt)+) => { $crate::__log!(Info, $($text)+) }; }

#[doc(hidden)]
#[macro_export]
macro_rules! __warn { ($($text:tt)+) => { $crate::__log!(Warn, $($text)+) }; }

#[doc(hidden)]
#[macro_export]
macro_rules! __error { ($($text:tt)+) => { $crate::__log!(Error, $($text)+) }; }

pub use {
    crate::__debug as debug, crate::__error as error, crate::__info as info, crate::__trace as trace,
    crate::__warn as warn,
};
