//! Cells: what a handler remembers of the event's key.
//!
//! A cell is a name and some bytes. Reads see the writes of this invocation;
//! all of them are committed with everything else it did. [`cell`] gives a typed
//! view, as JSON unless told otherwise, so that `weir state get` shows something
//! that people can read; [`get`] and [`set`] are for bytes. [`map`] and [`queue`] keep
//! many values, each in a cell of its own.
//!
//! ```
//! use weir_guest::prelude::*;
//!
//! fn handle(event: Event) -> Result {
//!     let seen = state::cell::<u64>("seen").update(|n| *n += 1)?;
//!     state::cell("last").set(&event.subject().to_string())?;
//!     log::info!("{seen} of {}", event.key());
//!     Ok(())
//! }
//! # let mut host = testing::Host::new();
//! # host.deliver(handle, testing::event("a.b").key("k")).unwrap();
//! # assert_eq!(host.cell("k", "seen"), Some(&b"1"[..]));
//! # assert_eq!(host.cell("k", "last"), Some(&br#""a.b""#[..]));
//! ```

use std::fmt::{self, Display};
use std::marker::PhantomData;
use std::str::FromStr;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use crate::collections::{Map, Queue};
use crate::host::calls;

/// The bytes of a cell of the event's key.
pub fn get(cell: &str) -> Option<Vec<u8>> {
    calls::get(cell)
}

/// Writes the bytes of a cell.
pub fn set(cell: &str, value: impl AsRef<[u8]>) {
    calls::set(cell, value.as_ref());
}

/// Removes a cell, if there is one.
pub fn delete(cell: &str) {
    calls::delete(cell);
}

/// Names of the key's cells that begin with `prefix`, in byte order.
pub fn cells(prefix: &str) -> Vec<String> {
    calls::cells(prefix)
}

/// The bytes of several cells, in one call, in the order of `cells`.
pub fn get_many(cells: &[&str]) -> Vec<Option<Vec<u8>>> {
    let names: Vec<String> = cells.iter().map(|&cell| cell.to_owned()).collect();
    calls::get_many(&names)
}

/// A map with a cell per entry, its values kept as JSON.
pub fn map<K: Display + FromStr + Ord, V: Serialize + DeserializeOwned>(name: &str) -> Map<K, V> {
    Map::new(name)
}

/// A queue with a cell per item, kept as JSON.
pub fn queue<T: Serialize + DeserializeOwned>(name: &str) -> Queue<T> {
    Queue::new(name)
}

/// A typed view of the cell, kept as JSON: an integer is its decimal text.
pub fn cell<T>(name: impl Into<String>) -> Cell<T, Json> {
    cell_with(name)
}

/// A typed view of the cell in an encoding of your own.
///
/// ```
/// use weir_guest::prelude::*;
/// use weir_guest::state::{BoxError, Codec};
///
/// struct BigEndian;
///
/// impl Codec<u64> for BigEndian {
///     fn encode(value: &u64) -> Result<Vec<u8>, BoxError> {
///         Ok(value.to_be_bytes().to_vec())
///     }
///     fn decode(bytes: &[u8]) -> Result<u64, BoxError> {
///         Ok(u64::from_be_bytes(bytes.try_into()?))
///     }
/// }
///
/// fn handle(_: Event) -> Result {
///     state::cell_with::<u64, BigEndian>("n").update(|n| *n += 1)?;
///     Ok(())
/// }
/// # let mut host = testing::Host::new();
/// # host.deliver(handle, testing::event("a").key("k")).unwrap();
/// # assert_eq!(host.cell("k", "n"), Some(&[0, 0, 0, 0, 0, 0, 0, 1][..]));
/// ```
pub fn cell_with<T, C>(name: impl Into<String>) -> Cell<T, C> {
    Cell::new(name.into())
}

/// A cell of the event's key that holds a `T`, written by the codec `C`.
pub struct Cell<T, C = Json> {
    name: String,
    types: PhantomData<fn() -> (T, C)>,
}

impl<T, C> Cell<T, C> {
    pub(crate) fn new(name: String) -> Self {
        Cell {
            name,
            types: PhantomData,
        }
    }
}

impl<T, C: Codec<T>> Cell<T, C> {
    /// The value, or `None` where nothing was ever written.
    ///
    /// # Errors
    /// Where the bytes are not a `T`. With `?` it is a retry, not a rejection:
    /// the event is not to blame for what an older version wrote.
    pub fn get(&self) -> Result<Option<T>, Error> {
        let Some(bytes) = calls::get(&self.name) else {
            return Ok(None);
        };
        C::decode(&bytes)
            .map(Some)
            .map_err(|source| self.error("reading", source))
    }

    /// Writes the value.
    ///
    /// # Errors
    /// Where the codec has no form for it.
    pub fn set(&self, value: &T) -> Result<(), Error> {
        let bytes = C::encode(value).map_err(|source| self.error("writing", source))?;
        calls::set(&self.name, &bytes);
        Ok(())
    }

    /// Removes the cell, if there is one.
    pub fn delete(&self) {
        calls::delete(&self.name);
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

    fn error(&self, doing: &'static str, source: BoxError) -> Error {
        Error::new(doing, &self.name, source)
    }
}

/// How a value becomes the bytes of a cell. The bytes outlive the code that
/// wrote them: let a new version read what the old one wrote.
pub trait Codec<T> {
    fn encode(value: &T) -> Result<Vec<u8>, BoxError>;

    fn decode(bytes: &[u8]) -> Result<T, BoxError>;
}

/// Any error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The usual codec.
pub struct Json;

impl<T: Serialize + DeserializeOwned> Codec<T> for Json {
    fn encode(value: &T) -> Result<Vec<u8>, BoxError> {
        Ok(serde_json::to_vec(value)?)
    }

    fn decode(bytes: &[u8]) -> Result<T, BoxError> {
        Ok(serde_json::from_slice(bytes)?)
    }
}

/// A cell whose bytes its codec cannot read, or a value it cannot write.
#[derive(Debug)]
pub struct Error {
    doing: &'static str,
    cell: String,
    source: BoxError,
}

impl Error {
    pub(crate) fn new(doing: &'static str, cell: &str, source: BoxError) -> Self {
        Error {
            doing,
            cell: cell.to_owned(),
            source,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cell {:?}", self.doing, self.cell)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.source)
    }
}
