//! Cells and locks that all keys, handlers and hosts of the ledger share.
//!
//! What an event reads here still holds when its effects are committed; if somebody
//! else was faster, nothing of it counts, and it is handled again. So a read, a
//! decision and a write are one step, whatever others do meanwhile.
//!
//! ```
//! use weir_guest::prelude::*;
//!
//! fn book(event: Event) -> Result {
//!     let seats = shared::cell::<u32>("seats").update(|seats| *seats += 1)?;
//!     output::emit("bookings", &seats)
//! }
//! # let mut host = testing::Host::new();
//! # host.deliver(book, testing::event("book").key("a")).unwrap();
//! # let effects = host.deliver(book, testing::event("book").key("b")).unwrap();
//! # assert_eq!(effects.emitted[0].data, b"2");
//! ```
//!
//! A **lock** is held by the event's key, from one event to a later one, until it is
//! given back or its time is over and somebody else takes it. Its token rises from holder
//! to holder: hand it to whatever is to be protected, so that it can refuse older ones.
//! What an event does after it took a lock is committed only if the lock is still held.
//!
//! ```
//! use std::time::Duration;
//! use weir_guest::prelude::*;
//!
//! fn deliver(event: Event) -> Result {
//!     match event.subject() {
//!         "parcels.delivered" => shared::unlock("van-1"),
//!         // Waits until the van is free, without holding up other keys.
//!         _ => {
//!             let token = shared::lock("van-1", Duration::from_secs(60));
//!             output::emit("vans.load", &token)?;
//!         }
//!     }
//!     Ok(())
//! }
//! # let mut host = testing::Host::new();
//! # host.deliver(deliver, testing::event("parcels.new").key("a")).unwrap();
//! # let waits = host.deliver(deliver, testing::event("parcels.new").key("b"));
//! # assert_eq!(waits.unwrap_err().reason(), "waits for lock \"van-1\"");
//! # host.deliver(deliver, testing::event("parcels.delivered").key("a")).unwrap();
//! # let effects = host.deliver(deliver, testing::event("parcels.new").key("b")).unwrap();
//! # assert_eq!(effects.emitted[0].data, b"2");
//! ```

use std::marker::PhantomData;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::host::calls;
use crate::state::{Codec, Error, Json};

/// The bytes of a shared cell.
pub fn get(name: &str) -> Option<Vec<u8>> {
    calls::shared_get(name)
}

/// Writes the bytes of a shared cell.
pub fn set(name: &str, value: impl AsRef<[u8]>) {
    calls::shared_set(name, value.as_ref());
}

/// Removes a shared cell, if there is one.
pub fn delete(name: &str) {
    calls::shared_delete(name);
}

/// Takes the lock for the event's key, or goes on holding it, until `ttl` from now: its
/// fencing token. `None` where another key or handler holds it.
///
/// A `ttl` below 100 ms is 100 ms; one above seven days is seven days.
pub fn try_lock(name: &str, ttl: Duration) -> Option<u64> {
    calls::try_lock(name, millis(ttl))
}

/// The same, but where another holds the lock, this invocation ends here with nothing
/// done, and the event is handled again once the lock is free. The key's later events wait
/// behind it; other keys do not.
///
/// # Panics
/// Outside Wasm, where another holds the lock: [`crate::testing::Host::deliver`] then fails.
pub fn lock(name: &str, ttl: Duration) -> u64 {
    match calls::lock(name, millis(ttl)) {
        Some(token) => token,
        // Not a panic that is worth a message in the output of a test.
        None => std::panic::resume_unwind(Box::new(Waits(name.to_owned()))),
    }
}

/// Gives the lock back, if the event's key holds it.
pub fn unlock(name: &str) {
    calls::unlock(name);
}

/// What ends an invocation that waits for a lock, outside Wasm.
#[cfg_attr(target_arch = "wasm32", allow(dead_code))]
pub(crate) struct Waits(pub(crate) String);

fn millis(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)
}

/// A typed view of a shared cell, kept as JSON.
pub fn cell<T: Serialize + DeserializeOwned>(name: impl Into<String>) -> Cell<T> {
    Cell {
        name: name.into(),
        holds: PhantomData,
    }
}

/// Made by [`cell`].
pub struct Cell<T> {
    name: String,
    holds: PhantomData<fn() -> T>,
}

impl<T: Serialize + DeserializeOwned> Cell<T> {
    /// The value, or `None` where there is none.
    ///
    /// # Errors
    /// Where the bytes are not a `T`.
    pub fn get(&self) -> Result<Option<T>, Error> {
        let bytes = get(&self.name);
        bytes
            .map(|bytes| {
                Json::decode(&bytes).map_err(|source| Error::new("reading shared", &self.name, source))
            })
            .transpose()
    }

    /// Writes the value.
    ///
    /// # Errors
    /// Where it has no form in JSON.
    pub fn set(&self, value: &T) -> Result<(), Error> {
        let bytes = Json::encode(value).map_err(|source| Error::new("writing shared", &self.name, source))?;
        set(&self.name, bytes);
        Ok(())
    }

    /// Changes the value, or the default where there is none yet, and returns it.
    ///
    /// # Errors
    /// Those of [`Cell::get`] and [`Cell::set`].
    pub fn update(&self, change: impl FnOnce(&mut T)) -> Result<T, Error>
    where
        T: Default,
    {
        let mut value = self.get()?.unwrap_or_default();
        change(&mut value);
        self.set(&value)?;
        Ok(value)
    }

    /// Removes the cell, if there is one.
    pub fn delete(&self) {
        delete(&self.name);
    }
}
