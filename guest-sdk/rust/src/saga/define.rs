//! How a saga is written down.
//!
//! * [`Steps`] is a saga that lacks its end; [`Saga`] one that has it, and can handle events.
//! * [`Step`] is a command and its answers; [`Compensation`] the same for the way back.
//! * [`Answer`] is a subject, and for those of aggregates the type of the event.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::cell::State;
use super::machine::Act;
use super::plan::{Backoff, Patience, Plan, StepPlan, Undo};
use super::{
    ATTEMPTS_DEFAULT, BACKOFF_DEFAULT, BACKOFF_MAX_DEFAULT, COMPENSATION_ATTEMPTS_DEFAULT, TIMEOUT_DEFAULT,
};
use crate::aggregate::EVENT_TYPE;
use crate::error::Result;
use crate::event::Event;
use crate::output;
use crate::subject::{matches, subject_token};

type Payload<D> = Box<dyn Fn(&D) -> serde_json::Result<Vec<u8>>>;
type Address<D> = Box<dyn Fn(&D) -> String>;
type Keep<D> = Box<dyn Fn(&mut D, &Event) -> Result>;
type Begin<D> = Box<dyn Fn(&Event) -> Result<D>>;

/// A saga whose steps are being listed. [`Steps::last`] or [`Steps::end`] completes it.
#[must_use = "a saga without its end handles nothing"]
pub struct Steps<D> {
    saga: Saga<D>,
}

/// A saga, whole. Made by [`Saga::named`].
#[must_use = "nothing happens before `.handle(&event)`"]
pub struct Saga<D> {
    name: String,
    begins: Vec<(Answer, Option<Begin<D>>)>,
    announces: Option<String>,
    steps: Vec<(Step<D>, Undone<D>)>,
}

/// A command, its answers, and what follows if there is none. Made by [`step`].
#[must_use = "a step does nothing by itself"]
pub struct Step<D> {
    name: String,
    command: Command<D>,
    done: Vec<(Answer, Option<Keep<D>>)>,
    refused: Vec<Answer>,
    patience: Patience,
}

/// A command that takes a step back. Made by [`compensation`].
#[must_use = "a compensation does nothing by itself"]
pub struct Compensation<D> {
    command: Command<D>,
    done: Vec<Answer>,
    refused: Vec<Answer>,
    patience: Patience,
    backoff: Backoff,
}

/// That there is nothing to take back. Made by [`no_compensation`].
#[must_use = "it is the second argument of `Steps::step`"]
pub struct NoCompensation(());

/// What takes a step back, if anything does.
pub enum Undone<D> {
    By(Compensation<D>),
    Nothing,
    /// Of the last step only.
    Never,
}

/// What an answer is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    subject: String,
    kind: Option<String>,
}

/// What an event is to a step.
pub(super) enum Means<'a, D> {
    Done(Option<&'a Keep<D>>),
    Refused,
}

/// Where a command goes, and what it says.
pub(super) struct Command<D> {
    subject: String,
    address: Option<Address<D>>,
    payload: Option<Payload<D>>,
}

/// A step: sends a command on `<subject>.<id of the saga>`. Its name is what a running saga knows it by,
/// also when the code is another: never give it to another step.
pub fn step<D>(name: &str, subject: &str) -> Step<D> {
    Step {
        name: name.to_owned(),
        command: Command::new(subject),
        done: Vec::new(),
        refused: Vec::new(),
        patience: Patience {
            timeout: TIMEOUT_DEFAULT,
            attempts: ATTEMPTS_DEFAULT,
        },
    }
}

/// A compensation: sends a command on `<subject>.<id of the saga>`. It must also succeed where the step did
/// not happen: a step that was never answered is compensated, too.
pub fn compensation<D>(subject: &str) -> Compensation<D> {
    Compensation {
        command: Command::new(subject),
        done: Vec::new(),
        refused: Vec::new(),
        patience: Patience {
            timeout: TIMEOUT_DEFAULT,
            attempts: COMPENSATION_ATTEMPTS_DEFAULT,
        },
        backoff: Backoff {
            first: BACKOFF_DEFAULT,
            most: BACKOFF_MAX_DEFAULT,
        },
    }
}

/// Says why a step needs none, to whoever reads the code.
pub fn no_compensation(_why: &str) -> NoCompensation {
    NoCompensation(())
}

/// An answer that is an event of an [aggregate](crate::aggregate): its subject says which aggregate, its
/// header `Event-Type` what happened.
pub fn typed(subject: &str, event_type: &str) -> Answer {
    Answer {
        subject: subject.to_owned(),
        kind: Some(event_type.to_owned()),
    }
}

impl From<&str> for Answer {
    /// Any event whose subject matches, wildcards allowed.
    fn from(subject: &str) -> Self {
        Answer {
            subject: subject.to_owned(),
            kind: None,
        }
    }
}

impl Answer {
    fn is(&self, event: &Event) -> bool {
        matches(&self.subject, event.subject())
            && self
                .kind
                .as_deref()
                .is_none_or(|kind| event.header(EVENT_TYPE) == Some(kind))
    }

    fn describe(&self) -> String {
        match &self.kind {
            None => self.subject.clone(),
            Some(kind) => format!("{} ({kind})", self.subject),
        }
    }
}

impl<D> Command<D> {
    fn new(subject: &str) -> Self {
        Command {
            subject: subject.to_owned(),
            address: None,
            payload: None,
        }
    }

    pub(super) fn subject(&self, state: &State<D>) -> String {
        match &self.address {
            Some(address) => address(&state.data),
            None => format!("{}.{}", self.subject, id_token(&state.id)),
        }
    }

    pub(super) fn payload(&self, data: &D) -> serde_json::Result<Vec<u8>>
    where
        D: Serialize,
    {
        match &self.payload {
            Some(payload) => payload(data),
            None => serde_json::to_vec(data),
        }
    }
}

/// A saga's id as a token. One that is a token stays as it is, so that the key of an answer, a token of its
/// subject, is the id again.
pub(super) fn id_token(id: &str) -> String {
    let is_token =
        !id.contains(|c: char| matches!(c, '.' | '*' | '>') || c.is_whitespace() || c.is_control());
    match is_token {
        true => id.to_owned(),
        false => subject_token(id),
    }
}

macro_rules! command_methods {
    () => {
        /// Another payload than the saga's data.
        pub fn with<T: Serialize>(mut self, payload: impl Fn(&D) -> T + 'static) -> Self {
            self.command.payload = Some(Box::new(move |data| serde_json::to_vec(&payload(data))));
            self
        }

        /// Another subject than `<subject>.<id of the saga>`, such as one that names a product. Whoever is
        /// there finds the id in `Saga-Id`.
        pub fn to(mut self, subject: impl Fn(&D) -> String + 'static) -> Self {
            self.command.address = Some(Box::new(subject));
            self
        }

        /// How long to wait for an answer before the next attempt.
        pub fn timeout(mut self, timeout: Duration) -> Self {
            self.patience.timeout = timeout;
            self
        }

        /// How often the command is sent before it is given up; at least once.
        pub fn attempts(mut self, attempts: u32) -> Self {
            self.patience.attempts = attempts.max(1);
            self
        }

        /// An answer that it cannot be done. May be said several times.
        pub fn refused_on(mut self, answer: impl Into<Answer>) -> Self {
            self.refused.push(answer.into());
            self
        }
    };
}

impl<D> Step<D> {
    command_methods!();

    /// The answer that it is done. May be said several times; any one will do.
    pub fn done_on(mut self, answer: impl Into<Answer>) -> Self {
        self.done.push((answer.into(), None));
        self
    }

    /// The same, and something of the answer is kept in the saga's data for the steps to come.
    pub fn done_with(
        mut self,
        answer: impl Into<Answer>,
        keep: impl Fn(&mut D, &Event) -> Result + 'static,
    ) -> Self {
        self.done.push((answer.into(), Some(Box::new(keep))));
        self
    }

    fn means(&self, event: &Event) -> Option<Means<'_, D>> {
        match self.done.iter().find(|(answer, _)| answer.is(event)) {
            Some((_, keep)) => Some(Means::Done(keep.as_ref())),
            None => self
                .refused
                .iter()
                .any(|answer| answer.is(event))
                .then_some(Means::Refused),
        }
    }
}

impl<D> Compensation<D> {
    command_methods!();

    /// The answer that the step is undone. May be said several times; any one will do.
    pub fn done_on(mut self, answer: impl Into<Answer>) -> Self {
        self.done.push(answer.into());
        self
    }

    /// The pause after an attempt that did not succeed, and the longest one: it doubles with each.
    pub fn backoff(mut self, first: Duration, most: Duration) -> Self {
        self.backoff = Backoff { first, most };
        self
    }

    fn means(&self, event: &Event) -> Option<Means<'_, D>> {
        match self.done.iter().any(|answer| answer.is(event)) {
            true => Some(Means::Done(None)),
            false => self
                .refused
                .iter()
                .any(|answer| answer.is(event))
                .then_some(Means::Refused),
        }
    }
}

impl<D> From<Compensation<D>> for Undone<D> {
    fn from(compensation: Compensation<D>) -> Self {
        Undone::By(compensation)
    }
}

impl<D> From<NoCompensation> for Undone<D> {
    fn from(_: NoCompensation) -> Self {
        Undone::Nothing
    }
}

impl<D: DeserializeOwned> Steps<D> {
    /// An event that begins a saga; its payload is the saga's data as JSON. May be said several times.
    pub fn starts_on(mut self, event: impl Into<Answer>) -> Self {
        self.saga.begins.push((event.into(), None));
        self
    }

    /// An event that begins a saga, and how its data is made of it.
    pub fn starts_with(
        mut self,
        event: impl Into<Answer>,
        data: impl Fn(&Event) -> Result<D> + 'static,
    ) -> Self {
        self.saga.begins.push((event.into(), Some(Box::new(data))));
        self
    }

    /// Emits on `<subject>.<id>` when a saga has come to rest: `{"saga":…,"id":…,"status":…,"reason":…,"waits_for":…}`,
    /// with the status as the header `Event-Type`. One that was stuck and goes on comes to rest again.
    pub fn announces_on(mut self, subject: &str) -> Self {
        self.saga.announces = Some(subject.to_owned());
        self
    }

    /// The next step, and what takes it back: a [`compensation`], or [`no_compensation`] and why.
    pub fn step(mut self, step: Step<D>, undone: impl Into<Undone<D>>) -> Self {
        self.saga.steps.push((step, undone.into()));
        self
    }

    /// The last step, which is not taken back: nothing comes after it that could fail. If it is not answered,
    /// the saga is stuck, since nobody knows whether it happened.
    pub fn last(mut self, step: Step<D>) -> Saga<D> {
        self.saga.steps.push((step, Undone::Never));
        self.saga
    }

    /// There are no more steps: each has something that takes it back.
    pub fn end(self) -> Saga<D> {
        self.saga
    }
}

impl<D> Saga<D> {
    /// Begins the definition of a saga.
    pub fn named(name: &str) -> Steps<D> {
        Steps {
            saga: Saga {
                name: name.to_owned(),
                begins: Vec::new(),
                announces: None,
                steps: Vec::new(),
            },
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What has to be so, and no type says.
    pub(super) fn check(&self) {
        let name = &self.name;
        assert!(
            !name.is_empty() && !name.contains('/'),
            "saga {name:?}: a name is text without `/`"
        );
        assert!(
            !self.begins.is_empty(),
            "saga {name}: nothing begins it; say starts_on(…)"
        );
        assert!(!self.steps.is_empty(), "saga {name} has no step");
        for (index, (step, undone)) in self.steps.iter().enumerate() {
            let what = format!("saga {name}, step {:?}", step.name);
            assert!(
                !step.name.is_empty() && !step.name.contains(|c: char| c == '/' || c.is_control()),
                "{what}: a name is text without `/`"
            );
            let before = &self.steps[..index];
            assert!(
                before.iter().all(|(other, _)| other.name != step.name),
                "{what}: there are two of that name"
            );
            assert!(!step.done.is_empty(), "{what}: no answer ends it; say done_on(…)");
            for (answer, _) in &step.done {
                assert!(
                    !step.refused.contains(answer),
                    "{what}: {} says both that it is done and that it is refused",
                    answer.describe()
                );
            }
            if let Undone::By(compensation) = undone {
                assert!(
                    !compensation.done.is_empty(),
                    "{what}: no answer ends its compensation; say done_on(…)"
                );
            }
        }
    }

    pub(super) fn plan(&self) -> Plan {
        let steps = self.steps.iter().map(|(step, undone)| StepPlan {
            name: step.name.clone(),
            patience: step.patience,
            answers: list(step.done.iter().map(|(answer, _)| answer).chain(&step.refused)),
            undo: match undone {
                Undone::By(compensation) => Undo::Compensation {
                    patience: compensation.patience,
                    backoff: compensation.backoff,
                    answers: list(compensation.done.iter().chain(&compensation.refused)),
                },
                Undone::Nothing => Undo::Nothing,
                Undone::Never => Undo::Never,
            },
        });
        Plan {
            saga: self.name.clone(),
            steps: steps.collect(),
        }
    }

    fn find(&self, step: &str) -> Option<&(Step<D>, Undone<D>)> {
        self.steps.iter().find(|(known, _)| known.name == step)
    }

    /// What the event is to that step.
    pub(super) fn answer(&self, event: &Event, step: &str, act: Act) -> Option<Means<'_, D>> {
        match (act, self.find(step)?) {
            (Act::Run, (step, _)) => step.means(event),
            (Act::Compensate, (_, Undone::By(compensation))) => compensation.means(event),
            (Act::Compensate, _) => None,
        }
    }

    /// Whether the event is an answer of some step, begins a saga, or is from an operator.
    pub(super) fn knows(&self, event: &Event) -> bool {
        let of_step = |(step, undone): &(Step<D>, Undone<D>)| {
            let back = match undone {
                Undone::By(compensation) => compensation.means(event).is_some(),
                Undone::Nothing | Undone::Never => false,
            };
            back || step.means(event).is_some()
        };
        self.is_beginning(event)
            || self.steps.iter().any(of_step)
            || event.control().is_ok_and(|control| control.is_some())
    }

    pub(super) fn command(&self, step: &str, act: Act) -> Option<&Command<D>> {
        match (act, self.find(step)?) {
            (Act::Run, (step, _)) => Some(&step.command),
            (Act::Compensate, (_, Undone::By(compensation))) => Some(&compensation.command),
            (Act::Compensate, _) => None,
        }
    }

    pub(super) fn is_beginning(&self, event: &Event) -> bool {
        self.begins.iter().any(|(begins, _)| begins.is(event))
    }

    /// Emits that the saga has come to rest, where that is wanted.
    pub(super) fn announce(&self, state: &State<D>) -> Result {
        #[derive(Serialize)]
        struct Rests<'a> {
            saga: &'a str,
            id: &'a str,
            status: &'a str,
            reason: Option<&'a str>,
            waits_for: Option<&'a str>,
        }
        let Some(subject) = &self.announces else {
            return Ok(());
        };
        let status = state.status.as_str();
        output::to(format!("{subject}.{}", id_token(&state.id)))
            .header(EVENT_TYPE, status)
            .json(&Rests {
                saga: &state.saga,
                id: &state.id,
                status,
                reason: state.reason.as_deref(),
                waits_for: state.waits_for.as_deref(),
            })
    }
}

impl<D: DeserializeOwned> Saga<D> {
    /// The data of the saga that the event begins, if it begins one.
    pub(super) fn begins(&self, event: &Event) -> Option<Result<D>> {
        let (_, data) = self.begins.iter().find(|(begins, _)| begins.is(event))?;
        // It is written into headers, where a line's end is none of an id.
        if event.key().contains(['\r', '\n', '\0']) {
            let why = format!("a saga's id cannot contain a line break: {:?}", event.key());
            return Some(Err(crate::Error::reject(why)));
        }
        Some(match data {
            Some(data) => data(event),
            None => event.json().map_err(Into::into),
        })
    }
}

fn list<'a>(answers: impl Iterator<Item = &'a Answer>) -> String {
    answers.map(Answer::describe).collect::<Vec<_>>().join(" or ")
}
