//! Given these events, when this command comes, then those events follow: an aggregate's rules as
//! sentences, without a host.

use std::fmt::Debug;

use crate::aggregate::Aggregate;

/// An aggregate as these events made it.
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// # use weir_guest::{aggregate::Aggregate, testing::given};
/// # #[derive(Default, Serialize, Deserialize)] struct Door { open: bool }
/// # #[derive(Deserialize)] enum Command { Open }
/// # #[derive(Serialize, Deserialize, Debug, PartialEq)] enum Event { Opened }
/// # impl Aggregate for Door {
/// #     const NAME: &'static str = "house.door";
/// #     type Command = Command; type Event = Event; type Rejection = &'static str;
/// #     fn decide(&self, _: Command) -> Result<Vec<Event>, &'static str> {
/// #         if self.open { Err("it is open") } else { Ok(vec![Event::Opened]) }
/// #     }
/// #     fn evolve(&mut self, _: &Event) { self.open = true; }
/// # }
/// given::<Door>([]).when(Command::Open).then([Event::Opened]);
/// given::<Door>([Event::Opened]).when(Command::Open).rejects("it is open");
/// ```
///
/// State and events go through JSON on the way, as they do on a host, so that what serde is told
/// to skip is missing here, too.
///
/// # Panics
/// If an event or the state cannot be written as JSON and read again.
pub fn given<A: Aggregate>(events: impl IntoIterator<Item = A::Event>) -> Given<A> {
    let mut aggregate = A::default();
    for event in events {
        aggregate.evolve(&stored(&event, "an event"));
        aggregate = stored(&aggregate, "the state");
    }
    Given { aggregate }
}

fn stored<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T, what: &str) -> T {
    let json =
        serde_json::to_vec(value).unwrap_or_else(|error| panic!("{what} has no form in JSON: {error}"));
    serde_json::from_slice(&json).unwrap_or_else(|error| {
        let json = String::from_utf8_lossy(&json);
        panic!("{what} cannot be read from the JSON it was written as, {json}: {error}")
    })
}

/// Made by [`given`].
#[must_use = "nothing is asserted before `.when(…).then(…)`"]
pub struct Given<A> {
    aggregate: A,
}

impl<A: Aggregate> Given<A> {
    /// Decides on a command.
    pub fn when(self, command: A::Command) -> Decided<A> {
        Decided {
            decision: self.aggregate.decide(command),
        }
    }

    /// The state, for what no command shows.
    pub fn state(self) -> A {
        self.aggregate
    }
}

/// Made by [`Given::when`].
#[must_use = "nothing is asserted before `.then(…)` or `.rejects(…)`"]
pub struct Decided<A: Aggregate> {
    decision: Result<Vec<A::Event>, A::Rejection>,
}

impl<A: Aggregate> Decided<A>
where
    A::Event: Debug + PartialEq,
    A::Rejection: Debug + PartialEq,
{
    /// # Panics
    /// Unless exactly these events follow.
    #[track_caller]
    pub fn then(self, expected: impl IntoIterator<Item = A::Event>) {
        let expected: Vec<A::Event> = expected.into_iter().collect();
        match self.decision {
            Ok(events) => assert!(
                events == expected,
                "{} decided {events:?}, and not {expected:?}",
                A::NAME
            ),
            Err(reason) => panic!(
                "{} rejected it ({reason:?}), and did not decide {expected:?}",
                A::NAME
            ),
        }
    }

    /// # Panics
    /// Unless the command is rejected for this reason.
    #[track_caller]
    pub fn rejects(self, expected: A::Rejection) {
        match self.decision {
            Ok(events) => panic!(
                "{} decided {events:?}, and did not reject it ({expected:?})",
                A::NAME
            ),
            Err(reason) => assert!(
                reason == expected,
                "{} rejected it because of {reason:?}, and not {expected:?}",
                A::NAME
            ),
        }
    }
}
