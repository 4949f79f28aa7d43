//! Event sourcing: an aggregate is what its events made of it.
//!
//! A command comes in, [`Aggregate::decide`] says which events follow from it, and
//! [`Aggregate::evolve`] what each of them changes. Nothing else changes it.
//!
//! ```
//! use serde::{Deserialize, Serialize};
//! use weir_guest::aggregate::{self, Aggregate};
//! use weir_guest::prelude::*;
//!
//! #[derive(Default, Serialize, Deserialize)]
//! struct Account { balance: u64 }
//!
//! #[derive(Serialize, Deserialize)]
//! #[serde(tag = "type")]
//! enum Command { Deposit { amount: u64 }, Withdraw { amount: u64 } }
//!
//! #[derive(Serialize, Deserialize, Debug, PartialEq)]
//! #[serde(tag = "type")]
//! enum Change { Deposited { amount: u64 }, Withdrawn { amount: u64 } }
//!
//! impl Aggregate for Account {
//!     const NAME: &'static str = "bank.account";
//!     type Command = Command;
//!     type Event = Change;
//!     type Rejection = String;
//!
//!     fn decide(&self, command: Command) -> Result<Vec<Change>, String> {
//!         match command {
//!             Command::Deposit { amount } => Ok(vec![Change::Deposited { amount }]),
//!             Command::Withdraw { amount } if amount > self.balance => Err("too little".into()),
//!             Command::Withdraw { amount } => Ok(vec![Change::Withdrawn { amount }]),
//!         }
//!     }
//!
//!     fn evolve(&mut self, event: &Change) {
//!         match event {
//!             Change::Deposited { amount } => self.balance += amount,
//!             Change::Withdrawn { amount } => self.balance -= amount,
//!         }
//!     }
//! }
//!
//! #[handler]
//! fn account(event: Event) -> Result {
//!     aggregate::handle::<Account>(&event)
//! }
//! # let mut host = testing::Host::new();
//! # let deposit = testing::event("accounts.7").key("7").data(r#"{"type":"Deposit","amount":5}"#);
//! # let effects = host.deliver(account, deposit).unwrap();
//! # assert_eq!(effects.emitted[0].subject, "bank.account.7");
//! # assert_eq!(effects.emitted[0].data, br#"{"type":"Deposited","amount":5}"#);
//! # let withdraw = testing::event("accounts.7").key("7").data(r#"{"type":"Withdraw","amount":6}"#);
//! # let effects = host.deliver(account, withdraw).unwrap();
//! # assert_eq!(effects.emitted[0].subject, "bank.account.7.rejected");
//! # testing::given::<Account>([Change::Deposited { amount: 5 }])
//! #     .when(Command::Withdraw { amount: 2 })
//! #     .then([Change::Withdrawn { amount: 2 }]);
//! ```
//!
//! | what | where |
//! | --- | --- |
//! | a command | any subject of the handler's sources; the event's key is the aggregate's id; the payload is a `Command` as JSON |
//! | an event | `<NAME>.<id>`, the payload as JSON, with the headers below |
//! | a rejection | `<NAME>.<id>.rejected`, a [`Rejected`]; so `<NAME>.*` has facts only |
//! | the folded state | the cell `aggregate`: `{"version":3,"state":{…}}`, in the commit of the events |
//!
//! | header | of | holds |
//! | --- | --- | --- |
//! | `Event-Type` | events, rejections | the variant's name; `Rejected` |
//! | `Aggregate-Version` | events, rejections | how many events there are up to this one; of a rejection, how many there were |
//! | `Expected-Version` | commands, optional | the version that whoever sent it has seen; another one is a rejection |
//! | `Saga-…` | all | go from the command to what follows from it, so that a [saga](crate::saga) knows its answers |
//!
//! **Bad input**: a payload that is no `Command`, or an `Expected-Version` that is no number, is
//! rejected to the dead letters, not with a rejection event: nobody's business rule refused it.
//! A panic in `decide` or `evolve` fails the invocation as a whole.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, OrFail, Result};
use crate::event::Event;
use crate::subject::{from_subject_token, subject_token};
use crate::{output, saga, state};

/// Header of a command: the version of the aggregate that its sender has seen.
pub const EXPECTED_VERSION: &str = "Expected-Version";

/// Header of an event: the name of its variant.
pub const EVENT_TYPE: &str = "Event-Type";

/// Header of an event: its number among those of its aggregate, counted from 1.
pub const AGGREGATE_VERSION: &str = "Aggregate-Version";

/// `Event-Type` of a rejection.
pub const REJECTED: &str = "Rejected";

/// The cell that holds version and state.
pub const CELL: &str = "aggregate";

/// What an aggregate is. The module's page has a whole one.
///
/// What `serde` writes of the state and of events outlives the code that wrote it: give new fields a
/// `#[serde(default)]`, and keep reading what was ever written.
pub trait Aggregate: Default + Serialize + DeserializeOwned {
    /// `<domain>.<aggregate>`, like `shop.order`: what the subjects of its events begin with.
    const NAME: &'static str;

    /// An order to do something, which may be refused.
    type Command: DeserializeOwned;

    /// What happened, as an enum: in the past tense, and never refused.
    type Event: Serialize + DeserializeOwned;

    /// Why not. Its JSON is the `reason` of the rejection event.
    type Rejection: Serialize;

    /// Which events follow from a command. None is an answer, too: there is nothing to do.
    ///
    /// # Errors
    /// The command is refused, and changes nothing.
    fn decide(&self, command: Self::Command) -> Result<Vec<Self::Event>, Self::Rejection>;

    /// What an event changes. It happened: this cannot fail.
    fn evolve(&mut self, event: &Self::Event);
}

/// An aggregate as its cell holds it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versioned<A> {
    /// How many events made it.
    pub version: u64,
    pub state: A,
}

/// The payload of a rejection event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected<R = Value> {
    /// The id of the command's event.
    pub command: String,
    /// The aggregate's version, which stays.
    pub version: u64,
    /// The version that the command expected, where that is why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_version: Option<u64>,
    /// What `decide` said, where that is why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<R>,
}

/// An event of an aggregate, as another handler reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded<E> {
    /// The aggregate's id.
    pub id: String,
    /// Its version after this event.
    pub version: u64,
    pub event: E,
}

/// Handles an event whose payload is a command.
///
/// # Errors
/// The payload is no command, or what was decided has no form in JSON.
pub fn handle<A: Aggregate>(event: &Event) -> Result {
    execute::<A>(event, event.json().or_reject("the command")?)
}

/// Handles a command that was made of an event in some other way.
///
/// # Errors
/// What was decided has no form in JSON, or the cell holds something else than an `A`.
pub fn execute<A: Aggregate>(event: &Event, command: A::Command) -> Result {
    let cell = state::cell::<Versioned<A>>(CELL);
    let mut aggregate = cell.get()?.unwrap_or_default();
    let subject = format!("{}.{}", A::NAME, subject_token(event.key()));
    let rejected = |expected_version, reason, version| {
        let rejected = Rejected {
            command: event.id().to_owned(),
            version,
            expected_version,
            reason,
        };
        emit(
            event,
            &format!("{subject}.rejected"),
            REJECTED,
            version,
            &rejected,
        )
    };
    let version = aggregate.version;
    if let Some(expected) = event.header(EXPECTED_VERSION) {
        let expected: u64 = expected
            .parse()
            .or_reject(format!("{EXPECTED_VERSION}: {expected}"))?;
        if expected != version {
            return rejected(Some(expected), None, version);
        }
    }
    let events = match aggregate.state.decide(command) {
        Ok(events) => events,
        Err(reason) => return rejected(None, Some(reason), version),
    };
    for change in &events {
        aggregate.version += 1;
        aggregate.state.evolve(change);
        let value = serde_json::to_value(change)?;
        let kind = type_of(&value).ok_or_else(|| {
            Error::retry(format!(
                "an event of {} has no type: make it an enum, with serde's `tag = \"type\"` or as it is",
                A::NAME
            ))
        })?;
        emit(event, &subject, kind, aggregate.version, change)?;
    }
    match events.is_empty() {
        true => Ok(()),
        false => Ok(cell.set(&aggregate)?),
    }
}

fn emit<T: Serialize>(cause: &Event, subject: &str, kind: &str, version: u64, payload: &T) -> Result {
    let message = output::to(subject)
        .header(EVENT_TYPE, kind)
        .header(AGGREGATE_VERSION, version.to_string());
    saga::headers(cause)
        .fold(message, |message, (name, value)| message.header(name, value))
        .json(payload)
}

/// The name of an enum's variant, from what serde makes of it: text, an object with a `type`, or
/// an object with one field.
fn type_of(value: &Value) -> Option<&str> {
    match value {
        Value::String(name) => Some(name),
        Value::Object(fields) => match fields.get("type") {
            Some(name) => name.as_str(),
            None if fields.len() == 1 => fields.keys().next().map(String::as_str),
            None => None,
        },
        _ => None,
    }
}

/// Reads an event of an aggregate, in a projection or whoever else follows it. `None` where the
/// event is none: it has no `Aggregate-Version`, or it is a rejection.
///
/// ```
/// use std::collections::BTreeMap;
/// use weir_guest::{aggregate, prelude::*};
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// #[serde(tag = "type")]
/// enum Change { Deposited { amount: u64 }, Withdrawn { amount: u64 } }
///
/// /// Keyed by `subject_token = 3`: one balance per account.
/// fn balances(event: Event) -> Result {
///     let Some(recorded) = aggregate::read::<Change>(&event)? else { return Ok(()) };
///     state::cell::<i64>("balance").update(|balance| match recorded.event {
///         Change::Deposited { amount } => *balance += amount as i64,
///         Change::Withdrawn { amount } => *balance -= amount as i64,
///     })?;
///     log::debug!("{} is at version {}", recorded.id, recorded.version);
///     Ok(())
/// }
/// # let mut host = testing::Host::new();
/// # let event = testing::event("bank.account.a%20b").key("a%20b").header("Aggregate-Version", "1");
/// # let effects = host.deliver(balances, event.data(r#"{"type":"Deposited","amount":5}"#)).unwrap();
/// # assert_eq!(host.cell("a%20b", "balance"), Some(&b"5"[..]));
/// # assert_eq!(effects.log[0].1, "a b is at version 1");
/// ```
///
/// # Errors
/// Its version or its payload cannot be read; with `?` a rejection.
pub fn read<E: DeserializeOwned>(event: &Event) -> Result<Option<Recorded<E>>> {
    let Some(version) = event.header(AGGREGATE_VERSION) else {
        return Ok(None);
    };
    if event.header(EVENT_TYPE) == Some(REJECTED) && event.subject().ends_with(".rejected") {
        return Ok(None);
    }
    let id = event.subject().rsplit('.').next().unwrap_or_default();
    Ok(Some(Recorded {
        id: from_subject_token(id).or_reject(format!("the id in subject {}", event.subject()))?,
        version: version.parse().or_reject(AGGREGATE_VERSION)?,
        event: event.json()?,
    }))
}

#[cfg(test)]
mod tests;
