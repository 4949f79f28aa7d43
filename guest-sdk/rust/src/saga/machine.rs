//! The state machine of a saga. Pure: an input changes a [`State`] and returns what is to be done,
//! and nothing here does it.
//!
//! ```text
//!                    answer           last one answered
//!   pending ─> running ─> done ─> (next step) ─────────────> completed
//!                 │ refused, or attempts used up
//!                 v
//!   (the step itself, where its outcome is not known; then those done, the last one first)
//!          compensating ─> compensated ─> … ─────────────────> compensated
//!                 │ attempts used up
//!                 v
//!               stuck ── an operator says retry, or the answer comes after all ──> on as before
//! ```
//!
//! 1. A command goes out once per attempt, and attempts are counted in the state.
//! 2. One timer at a time, which carries what it is for: one for anything else is ignored.
//! 3. A step *refused* did not happen, unless a later attempt is under way: goods may have come in
//!    meanwhile, and that one is answered, too. A step *not answered* may have happened: its own compensation
//!    runs first. The last step has none: without an answer the saga is stuck, because forward and
//!    back may both be wrong, and a person decides.
//! 4. Where the code that runs has no step of a name, the saga is stuck until some other code has.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::cell::{State, Status, StepState, StepStatus};
use super::plan::{Plan, StepPlan, Undo};
use crate::event::Control;

/// Characters kept of a refusal's text.
pub(super) const DETAIL_CHARS_MAX: usize = 500;

/// Which command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Act {
    Run,
    Compensate,
}

/// One attempt: what a timer carries, so that it is known what it was for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Attempt {
    pub(super) step: String,
    pub(super) act: Act,
    /// Counted from 1, per step and act.
    pub(super) number: u32,
}

/// What may happen to a saga.
#[derive(Debug, Clone)]
pub(super) enum Input {
    Answered(Act, String),
    /// Which attempt, if the answer says so, and why.
    Refused(Act, String, Option<u32>, String),
    Timer(Attempt),
    Control(Control),
}

/// What is to be done about it, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    Send(Attempt),
    /// In place of the timer there is; Unix nanoseconds.
    SetTimer(u64, Attempt),
    CancelTimer,
    /// The saga has come to rest.
    Rests(Status),
    /// The input changes nothing, and why.
    Ignored(String),
}

/// A saga begins.
pub(super) fn begin<D>(plan: &Plan, id: &str, data: D, now: u64) -> (State<D>, Vec<Action>) {
    let state = State {
        saga: plan.saga.clone(),
        id: id.to_owned(),
        status: Status::Running,
        started: now,
        updated: now,
        reason: None,
        waits_for: None,
        deadline: None,
        data,
        steps: plan.steps.iter().map(|step| StepState::new(&step.name)).collect(),
    };
    let mut machine = Machine::new(state, plan, now);
    machine.go_on();
    machine.end()
}

/// Something happens to a saga.
pub(super) fn apply<D>(state: State<D>, plan: &Plan, input: Input, now: u64) -> (State<D>, Vec<Action>) {
    let mut machine = Machine::new(state, plan, now);
    match input {
        Input::Answered(act, step) => machine.answered(act, &step),
        Input::Refused(act, step, attempt, why) => machine.refused(act, &step, attempt, &why),
        Input::Timer(attempt) => machine.timer(&attempt),
        Input::Control(Control::Retry) => machine.retry(),
        Input::Control(Control::Compensate) => machine.give_up_by_operator(),
    }
    machine.end()
}

impl<D> State<D> {
    /// The step that an answer is waited for, and to which command.
    pub(super) fn current(&self) -> Option<(usize, Act)> {
        let act = |step: &StepState| match step.status {
            StepStatus::Running => Some(Act::Run),
            StepStatus::Compensating => Some(Act::Compensate),
            _ => None,
        };
        let mut steps = self.steps.iter().enumerate();
        steps.find_map(|(index, step)| Some((index, act(step)?)))
    }

    fn goes_back(&self) -> bool {
        let back = |step: &StepState| {
            matches!(
                step.status,
                StepStatus::Failed | StepStatus::Compensating | StepStatus::Compensated
            )
        };
        self.steps.iter().any(back)
    }
}

/// One input at work.
struct Machine<'a, D> {
    state: State<D>,
    plan: &'a Plan,
    now: u64,
    actions: Vec<Action>,
}

impl<'a, D> Machine<'a, D> {
    fn new(state: State<D>, plan: &'a Plan, now: u64) -> Self {
        Machine {
            state,
            plan,
            now,
            actions: Vec::new(),
        }
    }

    fn end(mut self) -> (State<D>, Vec<Action>) {
        if !matches!(self.actions[..], [Action::Ignored(_)]) {
            self.state.updated = self.now;
        }
        (self.state, self.actions)
    }

    // ---- inputs -------------------------------------------------------------

    fn answered(&mut self, act: Act, step: &str) {
        let Some(index) = self.waits_for(act, step) else {
            return self.ignore(format!("nobody waits for an answer to {}", named(act, step)));
        };
        let step = &mut self.state.steps[index];
        step.ended = Some(self.now);
        step.detail = None;
        match act {
            Act::Run => {
                step.status = StepStatus::Done;
                self.go_on();
            }
            Act::Compensate => {
                step.status = StepStatus::Compensated;
                self.go_back();
            }
        }
    }

    fn refused(&mut self, act: Act, step: &str, attempt: Option<u32>, why: &str) {
        let Some(index) = self.waits_for(act, step) else {
            return self.ignore(format!("nobody waits for a refusal of {}", named(act, step)));
        };
        let last = self.number(index, act);
        if let Some(attempt) = attempt.filter(|attempt| *attempt < last) {
            let step = named(act, step);
            return self.ignore(format!(
                "attempt {attempt} at {step} was refused, and attempt {last} is waited for"
            ));
        }
        let why: String = why.chars().take(DETAIL_CHARS_MAX).collect();
        if act == Act::Run {
            return self.fail(index, &why, format!("{step} was refused: {why}"));
        }
        // It waits for its next attempt already, or for a person.
        if self.state.steps[index].detail.is_some() || self.state.status == Status::Stuck {
            let number = self.number(index, act);
            return self.ignore(format!(
                "attempt {number} at {} has failed before",
                named(act, step)
            ));
        }
        self.state.steps[index].detail = Some(why);
        match self.plan_of(index) {
            Some(StepPlan {
                undo: Undo::Compensation {
                    patience, backoff, ..
                },
                ..
            }) if self.used(index, act) < patience.attempts => {
                let pause = backoff.after(self.used(index, act));
                self.wait(
                    index,
                    act,
                    pause,
                    format!("the next attempt to compensate {step}"),
                );
            }
            _ => self.used_up(index, act),
        }
    }

    fn timer(&mut self, attempt: &Attempt) {
        let current = self.waits_for(attempt.act, &attempt.step);
        let index = current.filter(|index| {
            self.number(*index, attempt.act) == attempt.number && self.state.status != Status::Stuck
        });
        let Some(index) = index else {
            let what = named(attempt.act, &attempt.step);
            return self.ignore(format!(
                "nobody waits for attempt {} at {what} any more",
                attempt.number
            ));
        };
        let Some(plan) = self.plan_of(index) else {
            return self.unknown(index);
        };
        let attempts = match (attempt.act, &plan.undo) {
            (Act::Run, _) => plan.patience.attempts,
            (Act::Compensate, Undo::Compensation { patience, .. }) => patience.attempts,
            (Act::Compensate, _) => return self.cannot_be_undone(index),
        };
        match self.used(index, attempt.act) < attempts {
            true => self.send(index, attempt.act),
            false => self.used_up(index, attempt.act),
        }
    }

    fn retry(&mut self) {
        if self.state.status.is_final() {
            let status = self.state.status.as_str();
            return self.ignore(format!("there is nothing to retry, the saga is {status}"));
        }
        match self.state.current() {
            Some((index, act)) => {
                self.state.steps[index].forgiven = self.number(index, act);
                self.send(index, act);
            }
            // Stuck, because some code knew no step of a name.
            None if self.state.goes_back() => self.go_back(),
            None => self.go_on(),
        }
    }

    fn give_up_by_operator(&mut self) {
        const WHY: &str = "given up by an operator";
        if self.state.status.is_final() || self.state.goes_back() {
            let status = self.state.status.as_str();
            return self.ignore(format!("the saga is {status} and goes forward no more"));
        }
        match self.state.current() {
            Some((index, _)) => match self.plan_of(index).map(|plan| &plan.undo) {
                None => self.unknown(index),
                // The operator knows that it did not happen, and answers for it.
                Some(Undo::Never) => self.fail(index, WHY, WHY.into()),
                Some(_) => self.take_back(index, WHY, WHY.into()),
            },
            None => {
                let pending = |step: &StepState| step.status == StepStatus::Pending;
                let next = self.state.steps.iter().position(pending);
                let next = next.expect("a saga that is not final and waits for no answer has a step to come");
                self.fail(next, WHY, WHY.into());
            }
        }
    }

    // ---- what follows -------------------------------------------------------

    /// Attempts at a step are used up.
    fn used_up(&mut self, index: usize, act: Act) {
        let attempts = self.used(index, act);
        let step = self.state.steps[index].name.clone();
        match act {
            Act::Compensate => self.stick(format!(
                "compensating {step} did not succeed in {attempts} attempts"
            )),
            Act::Run => {
                let why = format!("no answer in {attempts} attempts");
                match self.plan_of(index).map(|plan| &plan.undo) {
                    None => self.unknown(index),
                    Some(Undo::Never) => self.stick(format!(
                        "{step} was not answered in {attempts} attempts, and it cannot be undone: find out whether it \
                         happened, then retry or compensate"
                    )),
                    Some(_) => self.take_back(index, &why, format!("{step}: {why}")),
                }
            }
        }
    }

    /// Goes back from a step that may have happened.
    fn take_back(&mut self, index: usize, detail: &str, reason: String) {
        match self.plan_of(index).map(|plan| &plan.undo) {
            Some(Undo::Compensation { .. }) => {
                self.state.reason = Some(reason);
                self.send(index, Act::Compensate);
            }
            _ => self.fail(index, detail, reason),
        }
    }

    /// Goes back from a step that did not happen.
    fn fail(&mut self, index: usize, detail: &str, reason: String) {
        let step = &mut self.state.steps[index];
        step.status = StepStatus::Failed;
        step.ended = Some(self.now);
        step.detail = Some(detail.to_owned());
        self.state.reason = Some(reason);
        self.go_back();
    }

    /// Sends the next step's command, or is at the end.
    fn go_on(&mut self) {
        let pending = |step: &StepState| step.status == StepStatus::Pending;
        match self.state.steps.iter().position(pending) {
            Some(next) => self.send(next, Act::Run),
            None => self.rest(Status::Completed),
        }
    }

    /// Compensates the last step that is done, or is at the end.
    fn go_back(&mut self) {
        for index in (0..self.state.steps.len()).rev() {
            if self.state.steps[index].status != StepStatus::Done {
                continue;
            }
            match self.plan_of(index).map(|plan| &plan.undo) {
                None => return self.unknown(index),
                Some(Undo::Compensation { .. }) => return self.send(index, Act::Compensate),
                Some(Undo::Nothing) => {}
                Some(Undo::Never) => return self.cannot_be_undone(index),
            }
        }
        self.rest(Status::Compensated);
    }

    /// Sends the command of another attempt, and waits for its answer.
    fn send(&mut self, index: usize, act: Act) {
        let Some(plan) = self.plan_of(index) else {
            return self.unknown(index);
        };
        let (timeout, answers) = match (act, &plan.undo) {
            (Act::Run, _) => (plan.patience.timeout, &plan.answers),
            (
                Act::Compensate,
                Undo::Compensation {
                    patience,
                    backoff,
                    answers,
                },
            ) => {
                // Who does not answer is asked less and less often.
                let pause = backoff.after(self.used(index, act) + 1);
                (patience.timeout.max(pause), answers)
            }
            (Act::Compensate, _) => return self.cannot_be_undone(index),
        };
        let now = self.now;
        let step = &mut self.state.steps[index];
        step.detail = None;
        let status = match act {
            Act::Run => {
                step.status = StepStatus::Running;
                step.attempts += 1;
                step.started.get_or_insert(now);
                Status::Running
            }
            Act::Compensate => {
                if step.status != StepStatus::Compensating {
                    step.forgiven = 0;
                }
                step.status = StepStatus::Compensating;
                step.compensation_attempts += 1;
                step.ended = None;
                Status::Compensating
            }
        };
        let waits_for = format!("an answer to {}: {answers}", named(act, &step.name));
        let attempt = self.attempt(index, act);
        self.state.status = status;
        self.actions.push(Action::Send(attempt));
        self.wait(index, act, timeout, waits_for);
    }

    fn wait(&mut self, index: usize, act: Act, pause: Duration, waits_for: String) {
        let pause = u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX);
        let until = self.now.saturating_add(pause);
        let attempt = self.attempt(index, act);
        self.state.deadline = Some(until);
        self.state.waits_for = Some(waits_for);
        self.actions.push(Action::SetTimer(until, attempt));
    }

    fn rest(&mut self, status: Status) {
        self.state.status = status;
        self.state.deadline = None;
        self.state.waits_for = None;
        self.actions.push(Action::CancelTimer);
        self.actions.push(Action::Rests(status));
    }

    fn stick(&mut self, why: String) {
        self.rest(Status::Stuck);
        self.state.waits_for = Some(format!("an operator: {why}"));
    }

    fn unknown(&mut self, index: usize) {
        let step = &self.state.steps[index].name;
        self.stick(format!(
            "this version of the handler has no step {step}: deploy one that has, then retry"
        ));
    }

    fn cannot_be_undone(&mut self, index: usize) {
        let step = &self.state.steps[index].name;
        self.stick(format!(
            "this version of the handler cannot undo step {step}: deploy one that can, then retry"
        ));
    }

    fn ignore(&mut self, why: String) {
        self.actions.push(Action::Ignored(why));
    }

    // ---- reading ------------------------------------------------------------

    /// The step of that name, if it is the current one with that act.
    fn waits_for(&self, act: Act, step: &str) -> Option<usize> {
        let (index, current) = self.state.current()?;
        (current == act && self.state.steps[index].name == step).then_some(index)
    }

    fn plan_of(&self, index: usize) -> Option<&'a StepPlan> {
        self.plan.step(&self.state.steps[index].name)
    }

    /// Commands sent so far.
    fn number(&self, index: usize, act: Act) -> u32 {
        let step = &self.state.steps[index];
        match act {
            Act::Run => step.attempts,
            Act::Compensate => step.compensation_attempts,
        }
    }

    /// Those of them that count.
    fn used(&self, index: usize, act: Act) -> u32 {
        self.number(index, act) - self.state.steps[index].forgiven_of(act)
    }

    fn attempt(&self, index: usize, act: Act) -> Attempt {
        Attempt {
            step: self.state.steps[index].name.clone(),
            act,
            number: self.number(index, act),
        }
    }
}

impl StepState {
    /// Forgiven attempts are those at what the step does now.
    fn forgiven_of(&self, act: Act) -> u32 {
        match (self.status, act) {
            (StepStatus::Running, Act::Run) | (StepStatus::Compensating, Act::Compensate) => self.forgiven,
            _ => 0,
        }
    }
}

/// A command, for people.
fn named(act: Act, step: &str) -> String {
    match act {
        Act::Run => step.to_owned(),
        Act::Compensate => format!("the compensation of {step}"),
    }
}
