//! Write Weir handlers in Rust.
//!
//! A handler is one function. It is called with one event at a time, in the
//! order of that event's key; whatever it does is committed as a whole when it
//! returns `Ok`, and not at all when it does not.
//!
//! ```
//! use weir_guest::prelude::*;
//!
//! #[handler]
//! fn count(event: Event) -> Result {
//!     let n = state::cell::<u64>("n").update(|n| *n += 1)?;
//!     output::emit(&format!("counts.{}", subject_token(event.key())), &n)
//! }
//! # let mut host = testing::Host::new();
//! # host.deliver(count, testing::event("orders.new").key("a b")).unwrap();
//! # let effects = host.deliver(count, testing::event("orders.new").key("a b")).unwrap();
//! # assert_eq!(effects.emitted[0].subject, "counts.a%20b");
//! # assert_eq!(effects.emitted[0].data, b"2");
//! ```
//!
//! The crate that holds it is a `cdylib`, built for `wasm32-unknown-unknown`;
//! `handler.toml` beside the `.wasm` file says which events it gets and how
//! they get their key.
//!
//! | for | there is |
//! | --- | --- |
//! | what happened | [`Event`]: subject, key, time, headers, [`Event::json`] |
//! | remembering | [`state`]: cells of the event's key, typed or as bytes; maps and queues of them |
//! | telling others | [`output`]: events that appear when this one is committed |
//! | sharing across keys | [`shared`]: cells and locks that all keys, handlers and hosts see |
//! | doing it later | [`timers`]: durable, per key |
//! | event sourcing | [`aggregate`]: commands, events, and what they make |
//! | transactions of several handlers | [`saga`]: steps, timeouts and compensations |
//! | settings | [`config`]: the `[config]` table of `handler.toml` |
//! | telling the operator | [`log`] |
//! | calling the outside world | module `http`, with the feature of that name |
//! | failing | [`Error`]: `retry` or `reject`, and what `?` makes of other errors |
//! | unit tests, without Wasm or NATS | [`testing`] |
//!
//! # What a handler can rely on
//!
//! It sees its event, its cells and its configuration, and nothing else: no
//! files, no network, no clock but [`Event::time`]. The same input gives the
//! same effects, which is what makes it safe to run an event again after a
//! crash. Keep it so: what must survive belongs in a cell, never in a `static`.

pub mod aggregate;
pub mod config;
#[cfg(feature = "http")]
pub mod http;
pub mod log;
pub mod output;
pub mod saga;
pub mod shared;
pub mod state;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
pub mod timers;

mod collections;
mod error;
mod event;
mod host;
mod subject;

pub use error::{Error, OrFail, Outcome, Result};
pub use event::{Control, Event, Time};
pub use subject::{from_subject_token, subject_token};
/// Makes a function the handler of this component.
///
/// The function takes an [`Event`], and returns [`Result`], or `()` if it cannot
/// fail, or a `Result` of any error that `?` would turn into an [`Error`].
/// There is one per component.
///
/// ```
/// #[weir_guest::handler]
/// fn handle(event: weir_guest::Event) {
///     weir_guest::log::info!("{} is {} bytes", event.id(), event.data().len());
/// }
/// # weir_guest::testing::Host::new().deliver(handle, weir_guest::testing::event("a")).unwrap();
/// ```
pub use weir_guest_macros::handler;
/// Makes a function the migration of this component's state.
///
/// It is called at the first event of a key whose cells are older than `state_version` in
/// `handler.toml`, once for each version in between: with 1 where it is to make version 2 of
/// version 1. What it writes is committed with what the handler then does.
///
/// ```
/// use weir_guest::prelude::*;
///
/// #[migrate]
/// fn upgrade(from: u32) -> Result {
///     if from == 1 {
///         // Version 1 kept minutes, version 2 keeps seconds.
///         state::cell::<u64>("age").update(|age| *age *= 60)?;
///     }
///     Ok(())
/// }
/// # let mut host = testing::Host::new().with_cell("k", "age", "2");
/// # host.migrate(upgrade, "k", 1).unwrap();
/// # assert_eq!(host.cell("k", "age"), Some(&b"120"[..]));
/// ```
pub use weir_guest_macros::migrate;

/// All that most handlers name: `use weir_guest::prelude::*;`.
pub mod prelude {
    #[cfg(not(target_arch = "wasm32"))]
    pub use crate::testing;
    pub use crate::{
        Error, Event, OrFail, Result, Time, config, handler, log, migrate, output, shared, state,
        subject_token, timers,
    };
}

/// What the WIT package becomes in Rust. Handlers use the modules above.
#[doc(hidden)]
#[allow(missing_docs)]
pub mod bindings {
    #[cfg(not(feature = "http"))]
    wit_bindgen::generate!({
        path: "../../wit",
        world: "handler",
        pub_export_macro: true,
        default_bindings_module: "weir_guest::bindings",
    });
    #[cfg(feature = "http")]
    wit_bindgen::generate!({
        path: "../../wit",
        world: "activity",
        generate_all,
        pub_export_macro: true,
        default_bindings_module: "weir_guest::bindings",
    });
}

/// What the world `migration` becomes in Rust, with the types of the world `handler`.
#[doc(hidden)]
#[allow(missing_docs)]
pub mod migration {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "migration",
        pub_export_macro: true,
        default_bindings_module: "weir_guest::migration",
        with: { "weir:handler/types@0.1.2": crate::bindings::weir::handler::types },
    });
}

/// What `#[migrate]` calls: from the bindings to the function and back.
#[doc(hidden)]
pub fn invoke_migration<O: Outcome>(
    from: u32,
    migration: impl FnOnce(u32) -> O,
) -> std::result::Result<(), bindings::Failure> {
    migration(from).into_result().map_err(Error::into_failure)
}

/// What `#[handler]` calls: from the bindings to the function and back.
#[doc(hidden)]
pub fn invoke<O: Outcome>(
    event: bindings::Event,
    handler: impl FnOnce(Event) -> O,
) -> std::result::Result<(), bindings::Failure> {
    host::begin(event.time);
    handler(Event::new(event))
        .into_result()
        .map_err(Error::into_failure)
}
