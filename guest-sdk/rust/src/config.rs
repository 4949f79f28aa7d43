//! The `[config]` table of `handler.toml`.
//!
//! ```
//! use weir_guest::prelude::*;
//!
//! fn handle(_: Event) -> Result {
//!     let threshold: f64 = config::parse("threshold_minutes")?;
//!     let limit: u32 = config::parse_or("limit", 100)?;
//!     output::emit("seen", &(threshold, limit))
//! }
//! # let mut host = testing::Host::new().with_config("threshold_minutes", "30");
//! # assert_eq!(host.deliver(handle, testing::event("a")).unwrap().emitted[0].data, b"[30.0,100]");
//! # let error = testing::Host::new().deliver(handle, testing::event("a")).unwrap_err();
//! # assert_eq!(error.to_string(), "retry: [config] of handler.toml has no \"threshold_minutes\"");
//! ```
//!
//! A wrong setting is a *retry*: the event is not at fault, and may do better
//! once somebody mends the file.

use std::fmt::Display;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::host::calls;

/// A setting's text.
pub fn get(name: &str) -> Option<String> {
    calls::config(name)
}

/// A setting that must be there.
///
/// # Errors
/// Where it is missing or cannot be read as a `T`.
pub fn parse<T: FromStr<Err: Display>>(name: &str) -> Result<T> {
    let text = get(name).ok_or_else(|| Error::retry(format!("[config] of handler.toml has no {name:?}")))?;
    read(name, &text)
}

/// A setting, or `default` where there is none.
///
/// # Errors
/// Where there is one that cannot be read as a `T`.
pub fn parse_or<T: FromStr<Err: Display>>(name: &str, default: T) -> Result<T> {
    match get(name) {
        Some(text) => read(name, &text),
        None => Ok(default),
    }
}

fn read<T: FromStr<Err: Display>>(name: &str, text: &str) -> Result<T> {
    text.parse()
        .map_err(|error| Error::retry(format!("[config] {name} = {text:?}: {error}")))
}
