//! Sagas: a transaction of several handlers, with a way back.
//!
//! A saga is a list of steps. Each sends a command and waits for its answer; where one is refused, or
//! never answered, what was done before is compensated, the last step first.
//!
//! ```
//! use weir_guest::prelude::*;
//! use weir_guest::saga::{Saga, compensation, no_compensation, step};
//!
//! #[derive(serde::Serialize, serde::Deserialize)]
//! struct Order { customer: String, product: String, cents: u64 }
//!
//! #[handler]
//! fn order_saga(event: Event) -> Result {
//!     Saga::<Order>::named("order")
//!         .starts_on("orders.placed.*")
//!         .step(
//!             step("charge", "payments.charge").done_on("payments.charged.*").refused_on("payments.declined.*"),
//!             compensation("payments.refund").done_on("payments.refunded.*"),
//!         )
//!         .step(
//!             step("rate", "rates.ask").with(|order: &Order| order.product.clone()).done_on("rates.told.*"),
//!             no_compensation("it only reads"),
//!         )
//!         .last(step("ship", "shipping.ship").done_on("shipping.shipped.*").refused_on("shipping.refused.*"))
//!         .handle(&event)
//! }
//! # let mut host = testing::Host::new();
//! # let order = r#"{"customer":"ann","product":"tea","cents":300}"#;
//! # let placed = testing::event("orders.placed.7").key("7").data(order);
//! # let effects = host.deliver(order_saga, placed).unwrap();
//! # assert_eq!(effects.emitted[0].subject, "payments.charge.7");
//! # assert_eq!(effects.emitted[0].data, order.as_bytes());
//! # let charged = testing::event("payments.charged.7").key("7");
//! # let effects = host.deliver(order_saga, charged).unwrap();
//! # assert_eq!(effects.emitted[0].data, br#""tea""#);
//! # host.deliver(order_saga, testing::event("rates.told.7").key("7")).unwrap();
//! # let refused = testing::event("shipping.refused.7").key("7");
//! # let effects = host.deliver(order_saga, refused).unwrap();
//! # assert_eq!(effects.emitted[0].subject, "payments.refund.7");
//! ```
//!
//! One handler is one type of saga, and the event's key is the saga's id: the event that begins it and
//! all answers need that key. A step other than the last without something to take it back does not compile.
//!
//! | what | where |
//! | --- | --- |
//! | a command | `<subject of the step>.<id>`, the saga's data as JSON, unless [`Step::to`] and [`Step::with`] say otherwise |
//! | `Saga-Id`, `Saga-Step`, `Saga-Attempt` | headers of commands; of a compensation the step is `<step>/compensation` |
//! | `Idempotency-Key` | header of commands: `<saga>/<id>/<Saga-Step>`, the same in every attempt |
//! | the saga | the cell `saga`: [`State`]; `weir sagas` shows it |
//! | its deadline | one timer of the key, also called `saga` |
//!
//! A handler that is given a command answers with [`reply`], which copies these headers; so does an
//! [aggregate](crate::aggregate) with all that follows from a command. An answer with a `Saga-Step` counts for
//! that step only; one without it for whichever step waits and names its subject.
//!
//! What is ignored is logged: answers that nobody waits for, a second beginning, events that are neither.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, OrFail, Result};
use crate::event::Event;
use crate::output::Message;
use crate::{log, output, state, timers};

mod cell;
mod define;
mod machine;
mod plan;
#[cfg(test)]
mod tests;

pub use cell::{State, Status, StepState, StepStatus};
pub use define::{
    Answer, Compensation, NoCompensation, Saga, Step, Steps, Undone, compensation, no_compensation, step,
    typed,
};

use machine::{Act, Action, Attempt, Input};

/// The cell that holds a saga.
pub const CELL: &str = "saga";

/// Header of a command and of its answer: the saga's id.
pub const SAGA_ID: &str = "Saga-Id";

/// Header of a command and of its answer: the step, and for a compensation `/compensation` after it.
pub const SAGA_STEP: &str = "Saga-Step";

/// Header of a command and of its answer: which attempt, counted from 1.
pub const SAGA_ATTEMPT: &str = "Saga-Attempt";

/// Header of a command: the same in every attempt, so that who receives it can tell.
pub const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

/// What stands after a step's name where its compensation is meant.
const COMPENSATION: &str = "/compensation";

/// The timer's name.
const TIMER: &str = "saga";

/// How long a step waits for its answer, unless it says otherwise.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// How often a step's command is sent, unless it says otherwise.
pub const ATTEMPTS_DEFAULT: u32 = 3;

/// How often a compensation is sent, unless it says otherwise: with the pauses below, for an hour.
pub const COMPENSATION_ATTEMPTS_DEFAULT: u32 = 20;

/// Pause after a compensation that did not succeed; it doubles with each.
pub const BACKOFF_DEFAULT: Duration = Duration::from_secs(1);

/// The longest such pause.
pub const BACKOFF_MAX_DEFAULT: Duration = Duration::from_secs(300);

/// Begins the answer to a command, on `<subject>.<id of the saga>` and with the saga's headers.
///
/// ```
/// use weir_guest::{prelude::*, saga};
///
/// fn charge(event: Event) -> Result {
///     let cents: u64 = event.json()?;
///     match cents {
///         0..10_000 => saga::reply(&event, "payments.charged")?.json(&cents),
///         _ => saga::reply(&event, "payments.declined")?.json(&"too much"),
///     }
/// }
/// # let command = testing::event("payments.charge.7").header("Saga-Id", "7").header("Saga-Step", "charge");
/// # let effects = testing::Host::new().deliver(charge, command.data("5")).unwrap();
/// # assert_eq!(effects.emitted[0].subject, "payments.charged.7");
/// # assert_eq!(effects.emitted[0].headers[1], ("Saga-Step".to_string(), "charge".to_string()));
/// ```
///
/// # Errors
/// A rejection, where the event has no `Saga-Id`: no saga sent it.
pub fn reply<'a>(command: &Event, subject: &str) -> Result<Message<'a>> {
    let id = command.header(SAGA_ID).or_reject("a command without Saga-Id")?;
    let message = output::to(format!("{subject}.{}", define::id_token(id)));
    Ok(headers(command).fold(message, |message, (name, value)| message.header(name, value)))
}

/// The headers that go from a command to its answer.
pub(crate) fn headers(command: &Event) -> impl Iterator<Item = (&'static str, &str)> {
    let names = [SAGA_ID, SAGA_STEP, SAGA_ATTEMPT].into_iter();
    names.filter_map(|name| Some((name, command.header(name)?)))
}

impl<D: Serialize + DeserializeOwned> Saga<D> {
    /// Handles an event: one that begins a saga, an answer, a deadline, or a word from an operator.
    ///
    /// # Errors
    /// A beginning that does not read as the saga's data, or data that has no form in JSON.
    ///
    /// # Panics
    /// If the saga's definition makes no sense, which is said of saga and step: a name used twice, a step
    /// without an answer, no beginning.
    pub fn handle(&self, event: &Event) -> Result {
        self.check();
        let cell = state::cell::<State<D>>(CELL);
        let plan = self.plan();
        let now = event.time().unix_nanos();
        let (state, actions) = match cell.get()? {
            None => match self.begins(event) {
                Some(data) => machine::begin(&plan, event.key(), data?, now),
                None => {
                    self.ignore(event, "it has not begun");
                    return Ok(());
                }
            },
            Some(mut state) => {
                let input = match self.input(event, &mut state)? {
                    Ok(input) => input,
                    Err(why) => {
                        self.ignore(event, &why);
                        return Ok(());
                    }
                };
                machine::apply(state, &plan, input, now)
            }
        };
        if let [Action::Ignored(why)] = &actions[..] {
            self.ignore(event, why);
            return Ok(());
        }
        for action in actions {
            self.act(&state, action)?;
        }
        Ok(cell.set(&state)?)
    }

    /// Says that an event changes nothing. One that is no answer of any step is nothing to warn of: subjects
    /// of aggregates carry more than answers.
    fn ignore(&self, event: &Event, why: &str) {
        let level = match event.timer().is_some() || self.knows(event) {
            true => log::Level::Warn,
            false => log::Level::Debug,
        };
        let text = format!(
            "saga {} {}: {} is ignored: {why}",
            self.name(),
            event.key(),
            told(event)
        );
        log::write(level, &text);
    }

    /// What an event means to a saga that has begun, or why nothing.
    fn input(&self, event: &Event, state: &mut State<D>) -> Result<Result<Input, String>> {
        if let Some(attempt) = timers::timer::<Attempt>(TIMER).fired(event)? {
            return Ok(Ok(Input::Timer(attempt)));
        }
        if let Some(control) = event.control()? {
            return Ok(Ok(Input::Control(control)));
        }
        // A step that waits decides what an answer without a name is an answer to.
        let waiting = state
            .current()
            .map(|(index, act)| (state.steps[index].name.clone(), act));
        let (name, act) = match event.header(SAGA_STEP) {
            Some(step) => match step.strip_suffix(COMPENSATION) {
                Some(step) => (step.to_owned(), Act::Compensate),
                None => (step.to_owned(), Act::Run),
            },
            None => match waiting.clone() {
                Some(waiting) => waiting,
                None => return Ok(Err(format!("the saga is {}", state.status.as_str()))),
            },
        };
        let answer = self.answer(event, &name, act);
        let waits = waiting.is_some_and(|waiting| waiting == (name.clone(), act));
        Ok(match answer {
            Some(define::Means::Done(keep)) => {
                if let (true, Some(keep)) = (waits, keep) {
                    keep(&mut state.data, event)?;
                }
                Ok(Input::Answered(act, name))
            }
            Some(define::Means::Refused) => {
                let attempt = event.header(SAGA_ATTEMPT).map(str::parse).transpose();
                Ok(Input::Refused(
                    act,
                    name,
                    attempt.or_reject(SAGA_ATTEMPT)?,
                    reason(event),
                ))
            }
            None if self.is_beginning(event) => Err("the saga has begun before".into()),
            None => Err("no step waits for it".into()),
        })
    }

    fn act(&self, state: &State<D>, action: Action) -> Result {
        match action {
            Action::Send(attempt) => self.send(state, &attempt)?,
            Action::SetTimer(at, attempt) => {
                timers::timer(TIMER).set(crate::Time::from_unix_nanos(at), &attempt)?;
            }
            Action::CancelTimer => timers::cancel(TIMER),
            Action::Rests(status) => {
                if status == Status::Stuck {
                    let waits_for = state.waits_for.as_deref().unwrap_or_default();
                    log::error!(
                        "saga {} {} is stuck; it waits for {waits_for}",
                        self.name(),
                        state.id
                    );
                }
                self.announce(state)?;
            }
            Action::Ignored(why) => log::warn!("saga {} {}: {why}", self.name(), state.id),
        }
        Ok(())
    }

    fn send(&self, state: &State<D>, attempt: &Attempt) -> Result {
        let step = match attempt.act {
            Act::Run => attempt.step.clone(),
            Act::Compensate => format!("{}{COMPENSATION}", attempt.step),
        };
        let command = self
            .command(&attempt.step, attempt.act)
            .ok_or_else(|| Error::retry(format!("saga {} has no command for {step}", self.name())))?;
        output::to(command.subject(state))
            .header(SAGA_ID, &*state.id)
            .header(SAGA_STEP, &*step)
            .header(SAGA_ATTEMPT, attempt.number.to_string())
            .header(IDEMPOTENCY_KEY, format!("{}/{}/{step}", self.name(), state.id))
            .bytes(command.payload(&state.data)?);
        Ok(())
    }
}

/// An event, for the log.
fn told(event: &Event) -> String {
    format!("{} on {}", event.id(), event.subject())
}

/// What a refusal says: the `reason` of a JSON object, or its text.
fn reason(event: &Event) -> String {
    match event.json::<serde_json::Value>() {
        Ok(serde_json::Value::String(text)) => text,
        Ok(value) => match value.get("reason") {
            Some(serde_json::Value::String(text)) => text.clone(),
            Some(reason) => reason.to_string(),
            None => value.to_string(),
        },
        Err(_) => String::from_utf8_lossy(event.data()).into_owned(),
    }
}
