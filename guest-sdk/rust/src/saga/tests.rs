//! The state machine: every state that can be reached, then many at random. After that the layer that
//! emits, on the fake host.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use proptest::prelude::*;

use super::machine::{apply, begin};
use super::plan::{Backoff, Patience, Plan, StepPlan, Undo};
use super::*;
use crate::event::Control;
use crate::prelude::*;
use crate::saga::{compensation, no_compensation, step};

const SECOND: Duration = Duration::from_secs(1);

/// What a step has to go back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Back {
    Compensation(u32),
    Nothing,
    Never,
}

fn plan(steps: &[(u32, Back)]) -> Plan {
    let step = |(index, (attempts, back)): (usize, &(u32, Back))| StepPlan {
        name: format!("s{index}"),
        patience: Patience {
            timeout: SECOND,
            attempts: *attempts,
        },
        answers: String::new(),
        undo: match back {
            Back::Compensation(attempts) => Undo::Compensation {
                patience: Patience {
                    timeout: SECOND,
                    attempts: *attempts,
                },
                backoff: Backoff {
                    first: SECOND,
                    most: 10 * SECOND,
                },
                answers: String::new(),
            },
            Back::Nothing => Undo::Nothing,
            Back::Never => Undo::Never,
        },
    };
    Plan {
        saga: "test".into(),
        steps: steps.iter().enumerate().map(step).collect(),
    }
}

/// A saga, and all that it ever sent: what the promises are about.
#[derive(Clone)]
struct Run<'a> {
    plan: &'a Plan,
    state: State<()>,
    sent: Vec<Attempt>,
    /// The timer that is set.
    timer: Option<Attempt>,
    now: u64,
}

impl<'a> Run<'a> {
    fn begin(plan: &'a Plan) -> Run<'a> {
        let (state, actions) = begin(plan, "7", (), 0);
        let mut run = Run {
            plan,
            state,
            sent: Vec::new(),
            timer: None,
            now: 0,
        };
        run.perform(actions);
        run
    }

    fn apply(&mut self, input: Input) {
        self.now += 1;
        let before = self.state.clone();
        let (state, actions) = apply(self.state.clone(), self.plan, input.clone(), self.now);
        self.state = state;
        let waited_for = match &input {
            Input::Answered(act, step) | Input::Refused(act, step, ..) => before
                .current()
                .is_some_and(|(index, current)| current == *act && before.steps[index].name == *step),
            Input::Timer(attempt) => self.timer.as_ref() == Some(attempt),
            Input::Control(_) => true,
        };
        let ignored = matches!(&actions[..], [Action::Ignored(_)]);
        assert!(waited_for || ignored, "nobody waited for {input:?}");
        if ignored {
            assert_eq!(self.state, before, "what is ignored changes nothing");
        }
        if before.status.is_final() {
            assert_eq!(self.state, before, "{input:?} changed a saga that was over");
        }
        self.perform(actions);
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send(attempt) => {
                    self.check_sent(&attempt);
                    self.sent.push(attempt);
                }
                Action::SetTimer(at, attempt) => {
                    assert!(at > self.now, "a deadline that has passed");
                    self.timer = Some(attempt);
                }
                Action::CancelTimer => self.timer = None,
                Action::Rests(status) => assert_eq!(self.state.status, status),
                Action::Ignored(_) => {}
            }
        }
        self.check_state();
    }

    fn check_sent(&self, attempt: &Attempt) {
        assert!(!self.sent.contains(attempt), "{attempt:?} was sent twice");
        let same = |sent: &&Attempt| sent.step == attempt.step && sent.act == attempt.act;
        let before = self.sent.iter().filter(same).count();
        assert_eq!(before + 1, attempt.number as usize, "attempts are counted");
        let gone_back = self.sent.iter().any(|sent| sent.act == Act::Compensate);
        if attempt.act == Act::Run {
            assert!(!gone_back, "{attempt:?} was sent on the way back");
        }
        let index = |name: &str| name[1..].parse::<usize>().expect("s<number>");
        if let Some(last) = self.sent.last().filter(|last| last.act == attempt.act) {
            let (last, this) = (index(&last.step), index(&attempt.step));
            match attempt.act {
                Act::Run => assert!(this == last || this == last + 1, "steps go forward, one by one"),
                Act::Compensate => assert!(this <= last, "compensations go backward"),
            }
        }
        if attempt.act == Act::Compensate {
            let run = |sent: &Attempt| sent.step == attempt.step && sent.act == Act::Run;
            assert!(
                self.sent.iter().any(run),
                "{attempt:?} of a step that was never sent"
            );
        }
    }

    fn check_state(&self) {
        let state = &self.state;
        let active =
            |step: &&StepState| matches!(step.status, StepStatus::Running | StepStatus::Compensating);
        let current = state.steps.iter().filter(active).count();
        assert!(current <= 1, "{state:?}");
        match state.status {
            Status::Running | Status::Compensating => {
                assert_eq!(current, 1, "{state:?}");
                let timer = self.timer.as_ref().expect("who waits has a deadline");
                let (index, act) = state.current().expect("one is current");
                assert_eq!((&timer.step, timer.act), (&state.steps[index].name, act));
                assert!(state.deadline.is_some() && state.waits_for.is_some());
            }
            Status::Completed => {
                assert!(
                    state.steps.iter().all(|step| step.status == StepStatus::Done),
                    "{state:?}"
                );
            }
            Status::Compensated => {
                for (step, plan) in state.steps.iter().zip(&self.plan.steps) {
                    let undone = match step.status {
                        StepStatus::Pending | StepStatus::Failed | StepStatus::Compensated => true,
                        StepStatus::Done => matches!(plan.undo, Undo::Nothing),
                        StepStatus::Running | StepStatus::Compensating => false,
                    };
                    assert!(undone, "{} is left over: {state:?}", step.name);
                }
                assert!(state.reason.is_some());
            }
            Status::Stuck => {
                let why = state.waits_for.as_deref().unwrap_or_default();
                assert!(why.starts_with("an operator: "), "{why}");
            }
        }
        if !matches!(state.status, Status::Running | Status::Compensating) {
            assert_eq!(
                (&self.timer, state.deadline),
                (&None, None),
                "who rests has no timer"
            );
        }
        let json = serde_json::to_string(state).expect("JSON");
        let read: State<()> = serde_json::from_str(&json).expect("what was just written");
        assert_eq!(&read, state);
    }
}

/// All inputs that there can be, answers to what was never asked among them.
fn inputs(plan: &Plan, numbers: u32) -> Vec<Input> {
    let mut all = vec![
        Input::Control(Control::Retry),
        Input::Control(Control::Compensate),
    ];
    for step in &plan.steps {
        for act in [Act::Run, Act::Compensate] {
            all.push(Input::Answered(act, step.name.clone()));
            let attempts = [None, Some(1)].into_iter();
            all.extend(attempts.map(|attempt| Input::Refused(act, step.name.clone(), attempt, "no".into())));
            all.extend((1..=numbers).map(|number| {
                Input::Timer(Attempt {
                    step: step.name.clone(),
                    act,
                    number,
                })
            }));
        }
    }
    all
}

/// Every state of small sagas, by every way that leads there, as far as an operator's patience goes.
#[test]
fn every_state_keeps_the_promises() {
    /// Commands of one saga, those that an operator asked for included: without a bound there is no end to
    /// them. Enough for every step to be sent, to be sent again, and to be compensated.
    const SENT_MAX: u32 = 7;
    let compensation = Back::Compensation(2);
    let mut reached = HashSet::new();
    for steps in [
        &[(2, compensation), (1, Back::Nothing), (2, Back::Never)][..],
        &[(1, compensation), (2, compensation), (1, compensation)],
        &[(2, Back::Never)],
        &[(1, Back::Nothing)],
    ] {
        let plan = plan(steps);
        let inputs = inputs(&plan, 3);
        let mut seen = HashSet::new();
        let mut open = VecDeque::from([Run::begin(&plan)]);
        while let Some(run) = open.pop_front() {
            reached.insert(run.state.status.as_str());
            for input in &inputs {
                let mut next = run.clone();
                next.apply(input.clone());
                let sent = |step: &StepState| step.attempts + step.compensation_attempts;
                let sent: u32 = next.state.steps.iter().map(sent).sum();
                // Times differ with the way there, and nothing else depends on them.
                let mut state = next.state.clone();
                (state.updated, state.deadline) = (0, state.deadline.map(|_| 0));
                for step in &mut state.steps {
                    (step.started, step.ended) = (step.started.map(|_| 0), step.ended.map(|_| 0));
                }
                let known = serde_json::to_string(&state).expect("JSON");
                if sent <= SENT_MAX && seen.insert(known) {
                    open.push_back(next);
                }
            }
        }
        println!("{steps:?}: {} states", seen.len());
        assert!(seen.len() >= 3, "{steps:?} has {} states", seen.len());
    }
    assert_eq!(reached.len(), 5, "{reached:?}");
}

fn steps() -> impl Strategy<Value = Vec<(u32, Back)>> {
    let back = prop_oneof![
        3 => (1u32..4).prop_map(Back::Compensation),
        1 => Just(Back::Nothing),
    ];
    let step = (1u32..4, back);
    (prop::collection::vec(step, 1..6), any::<bool>()).prop_map(|(mut steps, pivot)| {
        if let (true, Some(last)) = (pivot, steps.last_mut()) {
            last.1 = Back::Never;
        }
        steps
    })
}

/// What the world does, chosen by number from what is possible: mostly something to the point.
#[derive(Debug, Clone)]
enum Happens {
    Answer,
    Refusal,
    Deadline,
    /// Any of all inputs there are: late, double, unknown, stale.
    Anything(prop::sample::Index),
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        4 => Just(Happens::Answer),
        1 => Just(Happens::Refusal),
        2 => Just(Happens::Deadline),
        3 => any::<prop::sample::Index>().prop_map(Happens::Anything),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever happens in whatever order, and then nothing at all: it comes to rest.
    #[test]
    fn every_saga_comes_to_rest(steps in steps(), world in prop::collection::vec(happens(), 0..60)) {
        let plan = plan(&steps);
        let inputs = inputs(&plan, 4);
        let mut run = Run::begin(&plan);
        for event in world {
            let current = run.state.current().map(|(index, act)| (run.state.steps[index].name.clone(), act));
            let input = match (event, current) {
                (Happens::Anything(index), _) => Some(index.get(&inputs).clone()),
                (Happens::Answer, Some((step, act))) => Some(Input::Answered(act, step)),
                (Happens::Refusal, Some((step, act))) => Some(Input::Refused(act, step, None, "no".into())),
                (Happens::Deadline, _) => run.timer.clone().map(Input::Timer),
                _ => None,
            };
            if let Some(input) = input {
                run.apply(input);
            }
        }
        let most: u32 = steps.iter().map(|(attempts, back)| match back {
            Back::Compensation(more) => attempts + more,
            _ => *attempts,
        }).sum();
        let mut fired = 0;
        while let Some(timer) = run.timer.clone() {
            run.apply(Input::Timer(timer));
            fired += 1;
            prop_assert!(fired <= most, "no more deadlines than attempts");
        }
        prop_assert!(!matches!(run.state.status, Status::Running | Status::Compensating));
    }

    /// Who answers everything that is asked ends it well, and every command is sent once.
    #[test]
    fn a_world_without_failures_completes_it(steps in steps()) {
        let plan = plan(&steps);
        let mut run = Run::begin(&plan);
        while let Some((index, act)) = run.state.current() {
            let step = run.state.steps[index].name.clone();
            run.apply(Input::Answered(act, step));
        }
        prop_assert_eq!(run.state.status, Status::Completed);
        prop_assert_eq!(run.sent.len(), steps.len());
    }

    /// A refusal anywhere takes back exactly what was done and can be, the last first.
    #[test]
    fn a_refusal_takes_back_what_was_done(steps in steps(), at in any::<prop::sample::Index>()) {
        let plan = plan(&steps);
        let refused = at.index(steps.len());
        let mut run = Run::begin(&plan);
        while let Some((index, act)) = run.state.current() {
            let step = run.state.steps[index].name.clone();
            match act == Act::Run && index == refused {
                true => run.apply(Input::Refused(act, step, None, "no".into())),
                false => run.apply(Input::Answered(act, step)),
            }
        }
        let expected: Vec<String> = (0..refused).rev()
            .filter(|index| matches!(steps[*index].1, Back::Compensation(_)))
            .map(|index| format!("s{index}"))
            .collect();
        let back: Vec<String> = run.sent.iter()
            .filter(|sent| sent.act == Act::Compensate)
            .map(|sent| sent.step.clone())
            .collect();
        prop_assert_eq!(back, expected);
        prop_assert_eq!(run.state.status, Status::Compensated);
    }
}

#[test]
fn pauses_double_up_to_the_longest() {
    let backoff = Backoff {
        first: SECOND,
        most: 10 * SECOND,
    };
    let pauses: Vec<u64> = (1..7).map(|attempt| backoff.after(attempt).as_secs()).collect();
    assert_eq!(pauses, [1, 2, 4, 8, 10, 10]);
    assert_eq!(backoff.after(u32::MAX), 10 * SECOND);
}

/// A deployment between two steps: the saga keeps its list, and each step does what the new code says.
#[test]
fn running_sagas_keep_the_steps_they_began_with() {
    let compensation = Back::Compensation(1);
    let one = plan(&[(1, compensation), (1, Back::Never)]);
    let two = plan(&[(1, compensation), (1, compensation), (1, Back::Never)]);
    let answered =
        |state, plan: &Plan, step: &str| apply(state, plan, Input::Answered(Act::Run, step.into()), 0);

    // Another step at the end is for sagas that begin later.
    let (state, _) = begin(&one, "7", (), 0);
    let (state, _) = answered(state, &two, "s0");
    let (state, _) = answered(state, &two, "s1");
    assert_eq!((state.status, state.steps.len()), (Status::Completed, 2));

    // Back to code that lacks a step: stuck, until there is code that has it.
    let (state, _) = begin(&two, "7", (), 0);
    let (state, _) = answered(state, &two, "s0");
    let (state, actions) = answered(state, &one, "s1");
    assert_eq!(actions, [Action::CancelTimer, Action::Rests(Status::Stuck)]);
    assert!(
        state
            .waits_for
            .as_ref()
            .is_some_and(|why| why.contains("has no step s2"))
    );
    let (still, _) = apply(state.clone(), &one, Input::Control(Control::Retry), 0);
    assert_eq!(still.status, Status::Stuck);
    let (state, actions) = apply(state, &two, Input::Control(Control::Retry), 0);
    assert!(
        matches!(&actions[0], Action::Send(attempt) if attempt.step == "s2"),
        "{actions:?}"
    );

    // On its way back, a step that this code cannot undo stops it just so.
    let refused = Input::Refused(Act::Run, "s2".into(), None, "no".into());
    let (state, _) = apply(state, &one, refused, 0);
    assert_eq!(state.status, Status::Stuck);
    let (state, actions) = apply(state, &two, Input::Control(Control::Retry), 0);
    assert!(
        matches!(&actions[0], Action::Send(attempt) if attempt.step == "s1"),
        "{actions:?}"
    );
    assert_eq!(state.status, Status::Compensating);
}

// ---- the layer that emits ---------------------------------------------------

#[derive(serde::Serialize, serde::Deserialize)]
struct Trip {
    who: String,
    #[serde(default)]
    seat: u32,
}

fn trip() -> Saga<Trip> {
    Saga::<Trip>::named("trip")
        .starts_on("trips.new.*")
        .announces_on("trips.ended")
        .step(
            step("seat", "seats.book")
                .done_with("seats.booked.*", |trip: &mut Trip, answer| {
                    trip.seat = answer.json()?;
                    Ok(())
                })
                .refused_on("seats.full.*")
                .timeout(SECOND)
                .attempts(2),
            compensation("seats.free")
                .done_on("seats.freed.*")
                .refused_on("seats.busy.*")
                .attempts(2),
        )
        .step(
            step("look", "weather.ask")
                .with(|trip: &Trip| trip.seat)
                .done_on("weather.told.*"),
            no_compensation("it only reads"),
        )
        .last(
            step("pay", "unused")
                .to(|trip: &Trip| format!("banks.{}", trip.who))
                .done_on(typed("bank.account.*", "Paid"))
                .refused_on(typed("bank.account.*.rejected", "Rejected")),
        )
}

fn run(event: Event) -> Result {
    trip().handle(&event)
}

struct World {
    host: testing::Host,
    said: Vec<String>,
}

impl World {
    fn new() -> World {
        let mut world = World {
            host: testing::Host::new(),
            said: Vec::new(),
        };
        world.hears(testing::event("trips.new.7").data(r#"{"who":"ann"}"#));
        world
    }

    fn hears(&mut self, event: testing::EventBuilder) {
        let effects = self.host.deliver(run, event.key("7")).expect("handled");
        self.keep(effects);
    }

    fn waits(&mut self, until: Duration) {
        let until = Time::from_unix_nanos(0) + until;
        for effects in self.host.fire_until(run, until).expect("handled") {
            self.keep(effects);
        }
    }

    fn keep(&mut self, effects: testing::Effects) {
        for one in effects.emitted {
            let data = String::from_utf8_lossy(&one.data).into_owned();
            self.said.push(format!("{} {data}", one.subject));
        }
        self.said.extend(effects.log.into_iter().map(|(_, line)| line));
    }

    /// What was emitted and logged since the last time.
    fn said(&mut self) -> Vec<String> {
        std::mem::take(&mut self.said)
    }

    fn saga(&self) -> State<Trip> {
        let cell = self.host.cell("7", CELL).expect("a saga");
        serde_json::from_slice(cell).expect("a saga's cell")
    }
}

#[test]
fn a_trip_that_goes_well() {
    let mut world = World::new();
    assert_eq!(world.said(), [r#"seats.book.7 {"who":"ann","seat":0}"#]);
    world.hears(testing::event("seats.booked.7").data("12"));
    assert_eq!(world.said(), ["weather.ask.7 12"]);
    // A second time, and something that is no answer to what was asked last.
    world.hears(testing::event("seats.booked.7").data("13"));
    world.hears(testing::event("trips.new.7").data("{}"));
    let said = world.said();
    assert!(said[0].contains("is ignored: no step waits for it"), "{said:?}");
    assert!(
        said[1].contains("is ignored: the saga has begun before"),
        "{said:?}"
    );
    world.hears(testing::event("weather.told.7"));
    assert_eq!(world.said(), [r#"banks.ann {"who":"ann","seat":12}"#]);
    world.hears(testing::event("bank.account.ann").header("Event-Type", "Opened"));
    assert!(world.said()[0].contains("no step waits for it"));
    world.hears(testing::event("bank.account.ann").header("Event-Type", "Paid"));
    assert_eq!(
        world.said(),
        [r#"trips.ended.7 {"saga":"trip","id":"7","status":"completed","reason":null,"waits_for":null}"#]
    );
    assert_eq!(
        (world.saga().status, world.host.timers("7").len()),
        (Status::Completed, 0)
    );
}

#[test]
fn a_seat_that_nobody_answers_for_is_freed() {
    let mut world = World::new();
    world.waits(Duration::from_millis(2_500));
    assert_eq!(
        world.said(),
        [
            r#"seats.book.7 {"who":"ann","seat":0}"#,
            r#"seats.book.7 {"who":"ann","seat":0}"#,
            r#"seats.free.7 {"who":"ann","seat":0}"#,
        ]
    );
    let saga = world.saga();
    assert_eq!(saga.reason.as_deref(), Some("seat: no answer in 2 attempts"));
    assert_eq!(
        (saga.steps[0].attempts, saga.steps[0].compensation_attempts),
        (2, 1)
    );
    // The answer comes after all, and is too late: the seat is about to be freed.
    world.hears(
        testing::event("seats.booked.7")
            .data("12")
            .header(SAGA_STEP, "seat"),
    );
    assert!(world.said()[0].contains("nobody waits for an answer to seat"));
    let freed = testing::event("seats.freed.7").header(SAGA_STEP, "seat/compensation");
    world.hears(freed);
    assert_eq!(
        world.said(),
        [
            r#"trips.ended.7 {"saga":"trip","id":"7","status":"compensated","reason":"seat: no answer in 2 attempts","waits_for":null}"#
        ]
    );
}

/// It was refused, and asked for again since the refusal was late; meanwhile there is a seat. Who goes back at
/// the refusal leaves it booked.
#[test]
fn a_refusal_does_not_decide_a_later_attempt() {
    let answer = |subject: &str, attempt: &str| {
        let answer = testing::event(subject).data("12").header(SAGA_STEP, "seat");
        answer.header(SAGA_ATTEMPT, attempt)
    };
    let asked_twice = || {
        let mut world = World::new();
        world.waits(Duration::from_millis(1_500));
        world.said();
        world.hears(answer("seats.full.7", "1"));
        assert!(world.said()[0].contains("attempt 1 at seat was refused, and attempt 2 is waited for"));
        assert_eq!(world.saga().status, Status::Running);
        world
    };
    let mut world = asked_twice();
    world.hears(answer("seats.booked.7", "2"));
    assert_eq!(world.said(), ["weather.ask.7 12"]);

    let mut world = asked_twice();
    world.hears(answer("seats.full.7", "2"));
    assert_eq!(world.saga().status, Status::Compensated);
    assert_eq!(world.saga().steps[0].compensation_attempts, 0);
}

#[test]
fn a_compensation_that_fails_waits_for_an_operator() {
    let mut world = World::new();
    world.hears(testing::event("seats.booked.7").data("12"));
    world.hears(testing::event("weather.told.7"));
    let rejected = testing::event("bank.account.ann.rejected").header("Event-Type", "Rejected");
    world.hears(rejected.data(r#"{"command":"X:1","version":0,"reason":"poor"}"#));
    assert_eq!(world.saga().reason.as_deref(), Some("pay was refused: poor"));
    world.hears(testing::event("seats.busy.7").data("later"));
    world.waits(Duration::from_secs(1));
    world.said();
    world.hears(testing::event("seats.busy.7").data(r#""never""#));
    let said = world.said();
    assert!(said[0].contains(r#""status":"stuck""#), "{said:?}");
    assert!(said[1].contains("is stuck; it waits for an operator"), "{said:?}");
    let saga = world.saga();
    assert_eq!(
        (saga.status, saga.steps[0].detail.as_deref()),
        (Status::Stuck, Some("never"))
    );

    let told = |what: &str| testing::event("$WEIR.control").data(format!(r#"{{"do":"{what}"}}"#));
    world.hears(told("compensate"));
    assert!(world.said()[0].contains("goes forward no more"));
    world.hears(told("retry"));
    assert_eq!(world.said(), [r#"seats.free.7 {"who":"ann","seat":12}"#]);
    world.hears(testing::event("seats.freed.7"));
    assert_eq!(world.saga().status, Status::Compensated);
}

#[test]
fn an_operator_gives_up_a_trip() {
    let mut world = World::new();
    world.hears(testing::event("seats.booked.7").data("12"));
    world.said();
    world.hears(testing::event("$WEIR.control").data(r#"{"do":"compensate"}"#));
    assert_eq!(world.said(), [r#"seats.free.7 {"who":"ann","seat":12}"#]);
    assert_eq!(world.saga().reason.as_deref(), Some("given up by an operator"));
    let unknown = testing::event("$WEIR.control").key("7").data(r#"{"do":"dance"}"#);
    assert!(world.host.deliver(run, unknown).unwrap_err().is_reject());
}

#[test]
fn commands_say_whose_they_are() {
    let mut host = testing::Host::new();
    let effects = host
        .deliver(
            run,
            testing::event("trips.new.7").key("7").data(r#"{"who":"ann"}"#),
        )
        .unwrap();
    let headers: Vec<(&str, &str)> = effects.emitted[0]
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    assert_eq!(
        headers,
        [
            ("Saga-Id", "7"),
            ("Saga-Step", "seat"),
            ("Saga-Attempt", "1"),
            ("Idempotency-Key", "trip/7/seat"),
        ]
    );
}

#[test]
fn what_begins_no_saga_is_ignored() {
    let mut host = testing::Host::new();
    let effects = host
        .deliver(run, testing::event("seats.booked.9").key("9"))
        .unwrap();
    assert!(effects.log[0].1.contains("it has not begun") && host.cell("9", CELL).is_none());
    let bad = testing::event("trips.new.9").key("9").data("{}");
    assert!(host.deliver(run, bad).unwrap_err().is_reject());
    let line_break = testing::event("trips.new.9").key("9\n").data(r#"{"who":"ann"}"#);
    assert!(host.deliver(run, line_break).unwrap_err().is_reject());
}

fn panics(saga: Saga<Trip>) -> String {
    let handle = |event: Event| saga.handle(&event);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        testing::Host::new().deliver(handle, testing::event("a").key("7"))
    }));
    let message = panicked.expect_err("a definition that makes no sense");
    *message.downcast::<String>().expect("a panic with a message")
}

#[test]
fn a_definition_that_makes_no_sense_is_named() {
    let ok = || step("a", "a").done_on("b");
    for (saga, expected) in [
        (Saga::named("x").last(ok()), "saga x: nothing begins it"),
        (Saga::named("x").starts_on("s").end(), "saga x has no step"),
        (
            Saga::named("x").starts_on("s").last(step("a", "a")),
            "saga x, step \"a\": no answer ends it",
        ),
        (
            Saga::named("x")
                .starts_on("s")
                .step(ok(), compensation("c"))
                .end(),
            "saga x, step \"a\": no answer ends its compensation",
        ),
        (
            Saga::named("x")
                .starts_on("s")
                .step(ok(), no_compensation(""))
                .last(ok()),
            "saga x, step \"a\": there are two of that name",
        ),
        (
            Saga::named("x").starts_on("s").last(ok().refused_on("b")),
            "saga x, step \"a\": b says both",
        ),
    ] {
        let message = panics(saga);
        assert!(message.starts_with(expected), "{message}");
    }
}
