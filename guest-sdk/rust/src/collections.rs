//! Collections over cells, per key: each entry is a cell of its own, so that an
//! event reads and writes only the entries that it touches.
//!
//! | collection | cells |
//! | --- | --- |
//! | [`Map`], from [`state::map`](crate::state::map) | `<name>/<entry's key>` |
//! | [`Queue`], from [`state::queue`](crate::state::queue) | `<name>`: where it begins and ends; `<name>/<number>` |
//!
//! A key has at most 900 cells, those of all its collections together, and a
//! cell's name has at most 128 bytes: `docs/limits.md`.

use std::fmt::Display;
use std::marker::PhantomData;
use std::ops::Range;
use std::str::FromStr;

use crate::host::calls;
use crate::state::{Cell, Codec, Error, Json, cell};

/// A map of the event's key: one cell per entry. Made by [`state::map`](crate::state::map).
///
/// An entry's key is written as its text, and read back from it.
///
/// ```
/// use weir_guest::prelude::*;
///
/// fn handle(event: Event) -> Result {
///     let seats = state::map::<u32, String>("seats");
///     seats.insert(&12, &"ann".into())?;
///     seats.insert(&7, &"bob".into())?;
///     seats.update(&7, |name| name.push('!'))?;
///     assert_eq!(seats.entries()?, [(7, "bob!".to_string()), (12, "ann".to_string())]);
///     seats.remove(&12);
///     assert_eq!((seats.len(), seats.get(&12)?), (1, None));
///     Ok(())
/// }
/// # let mut host = testing::Host::new();
/// # host.deliver(handle, testing::event("a").key("k")).unwrap();
/// # assert_eq!(host.cell("k", "seats/7"), Some(&b"\"bob!\""[..]));
/// ```
pub struct Map<K, V, C = Json> {
    prefix: String,
    key: PhantomData<fn() -> K>,
    value: PhantomData<fn() -> (V, C)>,
}

impl<K: Display + FromStr + Ord, V, C: Codec<V>> Map<K, V, C> {
    pub(crate) fn new(name: &str) -> Self {
        Map {
            prefix: format!("{name}/"),
            key: PhantomData,
            value: PhantomData,
        }
    }

    /// The cell of one entry.
    pub fn entry(&self, key: &K) -> Cell<V, C> {
        Cell::new(format!("{}{key}", self.prefix))
    }

    /// # Errors
    /// Those of [`Cell::get`].
    pub fn get(&self, key: &K) -> Result<Option<V>, Error> {
        self.entry(key).get()
    }

    /// Values of several entries, in one call, in the order of `keys`.
    ///
    /// # Errors
    /// Those of [`Cell::get`].
    pub fn get_many(&self, keys: &[K]) -> Result<Vec<Option<V>>, Error> {
        let names: Vec<String> = keys.iter().map(|key| format!("{}{key}", self.prefix)).collect();
        decoded::<V, C>(&names)
    }

    /// Adds or replaces an entry.
    ///
    /// # Errors
    /// Those of [`Cell::set`].
    pub fn insert(&self, key: &K, value: &V) -> Result<(), Error> {
        self.entry(key).set(value)
    }

    /// Changes an entry, or the default where there is none yet, and returns it.
    ///
    /// # Errors
    /// Those of [`Cell::update`].
    pub fn update(&self, key: &K, change: impl FnOnce(&mut V)) -> Result<V, Error>
    where
        V: Default,
    {
        self.entry(key).update(change)
    }

    /// Removes an entry, if there is one.
    pub fn remove(&self, key: &K) {
        self.entry(key).delete();
    }

    /// The keys in their order.
    ///
    /// # Errors
    /// A cell of that prefix whose name is no `K`.
    pub fn keys(&self) -> Result<Vec<K>, Error> {
        let mut keys = Vec::new();
        for name in calls::cells(&self.prefix) {
            match name[self.prefix.len()..].parse() {
                Ok(key) => keys.push(key),
                Err(_) => {
                    let what = std::any::type_name::<K>();
                    return Err(Error::new(
                        "reading the name of",
                        &name,
                        format!("it is no {what}").into(),
                    ));
                }
            }
        }
        keys.sort();
        Ok(keys)
    }

    /// All entries in the order of their keys. Two calls, however many there are.
    ///
    /// # Errors
    /// Those of [`Map::keys`] and of [`Cell::get`].
    pub fn entries(&self) -> Result<Vec<(K, V)>, Error> {
        let keys = self.keys()?;
        let values = self.get_many(&keys)?;
        let entries = keys.into_iter().zip(values);
        Ok(entries.filter_map(|(key, value)| Some((key, value?))).collect())
    }

    pub fn len(&self) -> usize {
        calls::cells(&self.prefix).len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Removes all entries.
    pub fn clear(&self) {
        for name in calls::cells(&self.prefix) {
            calls::delete(&name);
        }
    }
}

/// First in, first out, of the event's key: one cell per item. Made by
/// [`state::queue`](crate::state::queue).
///
/// ```
/// use weir_guest::prelude::*;
///
/// fn handle(event: Event) -> Result {
///     let waiting = state::queue::<String>("waiting");
///     waiting.push(&event.subject().into())?;
///     if waiting.len()? > 2 {
///         let oldest = waiting.pop()?;
///         output::emit("dropped", &oldest)?;
///     }
///     Ok(())
/// }
/// # let mut host = testing::Host::new();
/// # for subject in ["a", "b"] {
/// #     host.deliver(handle, testing::event(subject).key("k")).unwrap();
/// # }
/// # let effects = host.deliver(handle, testing::event("c").key("k")).unwrap();
/// # assert_eq!(effects.emitted[0].data, br#""a""#);
/// # assert_eq!(host.cell("k", "waiting"), Some(&b"[1,3]"[..]));
/// ```
pub struct Queue<T, C = Json> {
    name: String,
    types: PhantomData<fn() -> (T, C)>,
}

impl<T, C: Codec<T>> Queue<T, C> {
    pub(crate) fn new(name: &str) -> Self {
        Queue {
            name: name.to_owned(),
            types: PhantomData,
        }
    }

    /// Numbers of the first item and of the one to come.
    fn bounds(&self) -> Cell<(u64, u64)> {
        cell(self.name.as_str())
    }

    fn range(&self) -> Result<Range<u64>, Error> {
        let (head, tail) = self.bounds().get()?.unwrap_or_default();
        Ok(head..tail)
    }

    fn item(&self, number: u64) -> Cell<T, C> {
        Cell::new(format!("{}/{number}", self.name))
    }

    /// Adds an item at the end.
    ///
    /// # Errors
    /// Those of [`Cell::get`] and [`Cell::set`].
    pub fn push(&self, value: &T) -> Result<(), Error> {
        let Range { start, end } = self.range()?;
        self.item(end).set(value)?;
        self.bounds().set(&(start, end + 1))
    }

    /// The first item, which stays.
    ///
    /// # Errors
    /// Those of [`Cell::get`].
    pub fn front(&self) -> Result<Option<T>, Error> {
        let range = self.range()?;
        match range.is_empty() {
            true => Ok(None),
            false => self.item(range.start).get(),
        }
    }

    /// Takes the first item.
    ///
    /// # Errors
    /// Those of [`Cell::get`].
    pub fn pop(&self) -> Result<Option<T>, Error> {
        let Range { start, end } = self.range()?;
        if start == end {
            return Ok(None);
        }
        let item = self.item(start);
        let value = item.get()?;
        item.delete();
        match start + 1 == end {
            // Nothing is left of an empty queue.
            true => self.bounds().delete(),
            false => self.bounds().set(&(start + 1, end))?,
        }
        Ok(value)
    }

    /// All items, the first one first; they stay. Two calls, however many there are.
    ///
    /// # Errors
    /// Those of [`Cell::get`].
    pub fn items(&self) -> Result<Vec<T>, Error> {
        let names: Vec<String> = self.range()?.map(|n| format!("{}/{n}", self.name)).collect();
        Ok(decoded::<T, C>(&names)?.into_iter().flatten().collect())
    }

    /// # Errors
    /// Those of [`Cell::get`].
    pub fn len(&self) -> Result<usize, Error> {
        let Range { start, end } = self.range()?;
        Ok(usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX))
    }

    /// # Errors
    /// Those of [`Cell::get`].
    pub fn is_empty(&self) -> Result<bool, Error> {
        Ok(self.range()?.is_empty())
    }

    /// Removes all items.
    ///
    /// # Errors
    /// Those of [`Cell::get`].
    pub fn clear(&self) -> Result<(), Error> {
        for number in self.range()? {
            self.item(number).delete();
        }
        self.bounds().delete();
        Ok(())
    }
}

/// Values of several cells, in one call.
fn decoded<T, C: Codec<T>>(names: &[String]) -> Result<Vec<Option<T>>, Error> {
    let decode = |(name, bytes): (&String, Option<Vec<u8>>)| match bytes {
        None => Ok(None),
        Some(bytes) => C::decode(&bytes)
            .map(Some)
            .map_err(|source| Error::new("reading", name, source)),
    };
    names.iter().zip(calls::get_many(names)).map(decode).collect()
}
