//! Runs guests written by hand (`tests/fixtures`), so that no Wasm toolchain is
//! needed. `probe.wat` does what its event tells it to; [`Script`] is how a test
//! tells it.

mod http;
mod preview1;
mod tracks;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use wit_component::StringEncoding;
use wit_parser::Resolve;

use super::*;
use crate::deployment::manifest::Limits;
use crate::effects::check::TIMERS_PER_KEY_MAX;
use crate::effects::{Effects, TimerSet};
use crate::model::event::{Event, FiredTimer};
use crate::model::limits::{CELLS_PER_KEY_MAX, EFFECT_MESSAGES_MAX, NAME_BYTES_MAX};
use crate::state::{KeyState, LiveTimer};

const PROBE: &str = include_str!("../../../tests/fixtures/probe.wat");
const WASI: &str = include_str!("../../../tests/fixtures/wasi.wat");

/// What the probe is to do, as its data.
#[derive(Default, Clone)]
struct Script(Vec<u8>);

impl Script {
    fn op(mut self, op: u8) -> Self {
        self.0.push(op);
        self
    }
    fn text(mut self, text: &str) -> Self {
        let len = u16::try_from(text.len()).expect("a short text");
        self.0.extend(len.to_le_bytes());
        self.0.extend(text.as_bytes());
        self
    }
    fn u32(mut self, number: u32) -> Self {
        self.0.extend(number.to_le_bytes());
        self
    }
    fn u64(mut self, number: u64) -> Self {
        self.0.extend(number.to_le_bytes());
        self
    }
    fn emit(self, subject: &str, data: &str) -> Self {
        self.op(b'E').text(subject).text(data)
    }
    fn emit_with(self, subject: &str, name: &str, value: &str) -> Self {
        self.op(b'H').text(subject).text(name).text(value)
    }
    fn emit_zeros(self, subject: &str, bytes: usize) -> Self {
        self.op(b'Z').text(subject).u32(bytes as u32)
    }
    fn set(self, cell: &str, value: &str) -> Self {
        self.op(b'S').text(cell).text(value)
    }
    fn set_zeros(self, cell: &str, bytes: usize) -> Self {
        self.op(b'V').text(cell).u32(bytes as u32)
    }
    fn delete(self, cell: &str) -> Self {
        self.op(b'D').text(cell)
    }
    fn get(self, cell: &str) -> Self {
        self.op(b'G').text(cell)
    }
    fn list(self, prefix: &str) -> Self {
        self.op(b'L').text(prefix)
    }
    fn timer(self, name: &str, at: u64, data: &str) -> Self {
        self.op(b'T').text(name).u64(at).text(data)
    }
    fn cancel(self, name: &str) -> Self {
        self.op(b'X').text(name)
    }
    fn log(self, level: u8, message: &str) -> Self {
        self.op(b'W').op(level).text(message)
    }
}

fn script() -> Script {
    Script::default()
}

const TRACE: u8 = 0;
const ERROR: u8 = 4;

fn limits() -> Limits {
    Limits {
        memory_mib: 8,
        time_ms: 1_000,
        effects_bytes: 512 * 1024,
        log_bytes: 4_096,
        hops: 256,
    }
}

fn settings() -> ProgramSettings {
    ProgramSettings {
        state_version: 1,
        outbox: Vec::new(),
        handler: "probe".into(),
        limits: limits(),
        emit: vec!["out.>".into(), "elsewhere.>".into()],
        ledger_subjects: vec!["out.>".into()],
        config: BTreeMap::from([("threshold".into(), "30".into())]),
        http: None,
        max_payload: 1024 * 1024,
        per_event: false,
    }
}

/// Makes a component of a module in the text format, for the world `handler`,
/// with WASI or without.
fn module(text: &str) -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut resolve = Resolve::default();
    let (handler, _) = resolve.push_path(root.join("wit")).expect("wit/ parses");
    let world = if text.contains("\"wasi:http") {
        resolve.select_world(&[handler], Some("activity"))
    } else if text.contains("\"wasi:") {
        let fixtures = resolve
            .push_path(root.join("tests/fixtures/wasi.wit"))
            .expect("wasi.wit parses")
            .0;
        resolve.select_world(&[fixtures], Some("with-wasi"))
    } else {
        resolve.select_world(&[handler], Some("handler"))
    }
    .expect("the world is there");
    let mut wasm = wat::parse_str(text).expect("valid text");
    wit_component::embed_component_metadata(&mut wasm, &resolve, world, StringEncoding::UTF8)
        .expect("metadata fits");
    wasm
}

fn engine() -> Arc<Engine> {
    Engine::new(8, None).expect("an engine")
}

fn program(settings: ProgramSettings) -> Arc<Program> {
    Program::compile(&engine(), &module(PROBE), settings).expect("the probe is accepted")
}

fn probe() -> Instance {
    program(settings()).instantiate().expect("the probe starts")
}

fn event(script: Script) -> Event {
    Event {
        source: 0,
        stream: "FLIGHTS".into(),
        sequence: 5012,
        offset: 5012,
        subject: "flights.EWR.UA".into(),
        key: "N14228".into(),
        time: 1_357_034_400_000_000_000,
        timer: None,
        headers: vec![("A".into(), "b".into())],
        data: script.0.into(),
    }
}

const CALL: Call = Call {
    clock: 1_357_034_400_000_000_005,
    source_created: 77,
};

fn state(cells: &[(&str, &str)], timers: &[&str]) -> Arc<KeyState> {
    let live = LiveTimer {
        generation: 1,
        due: 9,
    };
    Arc::new(KeyState {
        cells: cells
            .iter()
            .map(|(name, value)| ((*name).into(), Bytes::copy_from_slice(value.as_bytes())))
            .collect(),
        timers: timers.iter().map(|name| ((*name).into(), live)).collect(),
    })
}

/// Runs one script on a key with nothing.
fn run(instance: &mut Instance, script: Script) -> Result<Effects, Fault> {
    instance.handle(&event(script), &CALL, &state(&[], &[]))
}

/// Subjects and payloads of what was emitted.
fn emitted(effects: &Effects) -> Vec<(&str, &str)> {
    let text = |data| std::str::from_utf8(data).expect("text");
    effects
        .emits
        .iter()
        .map(|emit| (emit.subject.as_str(), text(&emit.data)))
        .collect()
}

/// The script fails as a violation whose sentence has all of `parts`.
#[track_caller]
fn violates(instance: &mut Instance, script: Script, parts: &[&str]) {
    let fault = run(instance, script).expect_err("a violation");
    let reason = fault.reason();
    assert_eq!(fault.kind(), "violation", "{reason}");
    assert!(fault.permanent());
    for part in parts {
        assert!(reason.contains(part), "{part:?} not in: {reason}");
    }
}

#[test]
fn an_event_arrives_whole_and_effects_come_back_in_order() {
    let mut probe = probe();
    let mut fired = event(
        script()
            .op(b'Y')
            .emit_with("out.h", "Name", "value")
            .emit("out.a", "1")
            .op(b'C')
            .text("threshold")
            .op(b'C')
            .text("other"),
    );
    fired.timer = Some(FiredTimer {
        name: "late".into(),
        generation: 3,
    });
    let effects = probe.handle(&fired, &CALL, &state(&[], &[])).expect("effects");
    assert_eq!(
        emitted(&effects),
        [
            ("out.event", "FLIGHTS:5012"),
            ("out.event", "FLIGHTS"),
            ("out.event", "flights.EWR.UA"),
            ("out.event", "N14228"),
            ("out.event", "late"),
            ("out.h", ""),
            ("out.a", "1"),
            ("out.some", "30"),
            ("out.none", ""),
        ]
    );
    assert_eq!(
        effects.emits[5].headers,
        [("Name".to_owned(), "value".to_owned())]
    );
}

#[test]
fn reads_see_the_writes_before_them() {
    let mut state = state(&[("a", "1"), ("b", "2"), ("ab", "3")], &[]);
    let effects = probe()
        .handle(
            &event(
                script()
                    .get("a")
                    .set("a", "10")
                    .get("a")
                    .delete("b")
                    .get("b")
                    .set("ac", "4")
                    .set("x", "5")
                    .list("")
                    .list("a")
                    .delete("x")
                    .list("x")
                    .delete("never"),
            ),
            &CALL,
            &state,
        )
        .expect("effects");
    let listed = |names: &[&'static str]| names.iter().map(|n| ("out.cell", *n)).collect::<Vec<_>>();
    let expected = [
        vec![("out.some", "1"), ("out.some", "10"), ("out.none", "")],
        listed(&["a", "ab", "ac", "x"]),
        listed(&["a", "ab", "ac"]),
    ]
    .concat();
    assert_eq!(emitted(&effects), expected);
    let cells: Vec<_> = effects
        .cells
        .iter()
        .map(|(name, value)| (&**name, value.as_deref()))
        .collect();
    assert_eq!(
        cells,
        [("a", Some(&b"10"[..])), ("ac", Some(&b"4"[..])), ("b", None)],
        "what was never there and is not there in the end is no effect"
    );
    // The executor goes on to change the state in place.
    assert!(Arc::get_mut(&mut state).is_some());
}

#[test]
fn timers_keep_their_last_change() {
    let state = state(&[], &["live", "kept"]);
    let effects = probe()
        .handle(
            &event(
                script()
                    .timer("twice", 5, "first")
                    .timer("twice", 6, "second")
                    .timer("dropped", 7, "")
                    .cancel("dropped")
                    .timer("live", 8, "")
                    .cancel("live")
                    .cancel("live")
                    .cancel("unknown"),
            ),
            &CALL,
            &state,
        )
        .expect("effects");
    let set = TimerSet {
        due: 6,
        data: Bytes::from_static(b"second"),
    };
    let expected: BTreeMap<Box<str>, _> = [("live".into(), None), ("twice".into(), Some(set))].into();
    assert_eq!(effects.timers, expected);
}

#[test]
fn typed_failures_leave_the_instance_alive() {
    let mut probe = probe();
    let fault = run(&mut probe, script().set("a", "1").op(b'R').text("later")).unwrap_err();
    assert_eq!(fault, Fault::Retry("later".into()));
    assert!(!fault.permanent() && !probe.poisoned());
    let fault = run(&mut probe, script().op(b'J').text("never")).unwrap_err();
    assert_eq!(fault, Fault::Reject("never".into()));
    assert!(fault.permanent() && !probe.poisoned());
    // The third event of one instance, and nothing left of the first one's cell.
    let effects = run(&mut probe, script().op(b'N').get("a")).expect("effects");
    assert_eq!(effects.emits[0].data, 3_u64.to_le_bytes().to_vec());
    assert_eq!(effects.emits[1].subject, "out.none");
    assert!(effects.cells.is_empty());
}

#[test]
fn a_trap_names_its_cause_and_the_next_event_has_a_new_instance() {
    let mut probe = probe();
    let mut state = state(&[], &[]);
    let fault = probe
        .handle(&event(script().set("a", "1").op(b'U')), &CALL, &state)
        .unwrap_err();
    assert_eq!(fault.kind(), "trap");
    assert!(!fault.permanent() && probe.poisoned());
    assert!(fault.reason().contains("unreachable"), "{}", fault.reason());
    let backtrace = fault.backtrace().expect("a backtrace");
    assert!(backtrace.contains("handle"), "{backtrace}");
    assert!(
        Arc::get_mut(&mut state).is_some(),
        "the state is let go of after a trap, too"
    );

    let effects = run(&mut probe, script().op(b'N')).expect("effects");
    assert_eq!(
        effects.emits[0].data,
        1_u64.to_le_bytes().to_vec(),
        "a new instance"
    );
    assert!(!probe.poisoned());
}

#[test]
fn a_panic_message_that_was_logged_becomes_the_reason() {
    let panic = "panicked at src/lib.rs:7: no such plane";
    let fault = run(
        &mut probe(),
        script()
            .log(ERROR, "earlier")
            .log(ERROR, panic)
            .log(TRACE, "after")
            .op(b'U'),
    )
    .unwrap_err();
    assert!(fault.reason().starts_with(panic), "{}", fault.reason());
    let mut probe = probe();
    run(&mut probe, script().log(ERROR, panic)).expect("an error in the log is no failure");
    let fault = run(&mut probe, script().op(b'U')).unwrap_err();
    assert!(
        !fault.reason().contains(panic),
        "of an earlier event: {}",
        fault.reason()
    );
}

#[test]
fn a_loop_ends_at_its_time_limit() {
    let limits = Limits {
        time_ms: 50,
        ..limits()
    };
    let mut probe = program(ProgramSettings { limits, ..settings() })
        .instantiate()
        .unwrap();
    let began = Instant::now();
    let fault = run(&mut probe, script().op(b'I')).unwrap_err();
    assert_eq!(fault, Fault::Timeout { limit_ms: 50 });
    assert!(probe.poisoned() && !fault.permanent());
    // Generous: the machine may be busy. A missing limit would hang.
    assert!((Duration::from_millis(40)..Duration::from_secs(10)).contains(&began.elapsed()));
    run(&mut probe, script().emit("out.a", "")).expect("the next event is handled");
}

#[test]
fn endless_recursion_is_a_trap_that_says_so() {
    let fault = run(&mut probe(), script().op(b'O')).unwrap_err();
    assert_eq!(fault.kind(), "trap");
    assert!(fault.reason().contains("recursed too deep"), "{}", fault.reason());
}

#[test]
fn endless_allocation_ends_at_the_memory_limit() {
    let mut probe = probe();
    let fault = run(&mut probe, script().op(b'M')).unwrap_err();
    assert_eq!(fault, Fault::Memory { limit_mib: 8 });
    assert!(probe.poisoned() && !fault.permanent());
    run(&mut probe, script().emit("out.a", "")).expect("the next event is handled");
}

#[test]
fn a_module_that_starts_above_its_memory_limit_does_not_start() {
    let limits = Limits {
        memory_mib: 0,
        ..limits()
    };
    let program = program(ProgramSettings { limits, ..settings() });
    assert_eq!(program.instantiate().err(), Some(Fault::Memory { limit_mib: 0 }));
}

#[test]
fn a_log_flood_ends_at_the_log_limit() {
    let mut probe = probe();
    violates(&mut probe, script().op(b'K'), &["4096 bytes logged", "log_bytes"]);
    assert!(probe.poisoned());
    run(&mut probe, script().log(TRACE, "x")).expect("the budget is per event");
}

#[test]
fn effects_that_break_a_rule_name_it() {
    let mut probe = probe();
    violates(
        &mut probe,
        script().emit("other.x", ""),
        &["\"other.x\"", "out.>"],
    );
    violates(
        &mut probe,
        script().emit("elsewhere.x", ""),
        &["\"elsewhere.x\"", "ledger"],
    );
    violates(
        &mut probe,
        script().emit("out.*", ""),
        &["\"out.*\"", "wildcards"],
    );
    violates(
        &mut probe,
        script().emit("$JS.API.X", ""),
        &["\"$JS.API.X\"", "$"],
    );
    violates(
        &mut probe,
        script().emit_with("out.a", "Nats-Rollup", "all"),
        &["\"Nats-Rollup\""],
    );
    violates(
        &mut probe,
        script().emit_with("out.a", "A", "b\r\nc"),
        &["line break"],
    );
    let long = "n".repeat(NAME_BYTES_MAX + 1);
    violates(&mut probe, script().set(&long, ""), &["cell", "129 bytes"]);
    violates(&mut probe, script().timer(&long, 1, ""), &["timer", "129 bytes"]);
}

#[test]
fn sizes_and_counts_are_bounded() {
    let settings = ProgramSettings {
        max_payload: 256 * 1024,
        ..settings()
    };
    let mut probe = program(settings).instantiate().unwrap();
    violates(
        &mut probe,
        script().emit_zeros("out.big", 262_000),
        &["\"out.big\"", "262000 bytes"],
    );
    violates(
        &mut probe,
        script().set_zeros("big", 262_000),
        &["cell \"big\"", "262000 bytes"],
    );
    let two = script().set_zeros("a", 100_000).set_zeros("b", 100_000);
    violates(&mut probe, two, &["200002 bytes together", "commit record"]);
    run(
        &mut probe,
        script().set_zeros("a", 100_000).set_zeros("a", 100_000),
    )
    .expect("a replaced value counts once");
    let three = (0..3).fold(script(), |s, _| s.emit_zeros("out.a", 200_000));
    violates(&mut probe, three, &["600015 bytes", "524288", "effects_bytes"]);

    let emits = |n| (0..n).fold(script(), |s, _| s.emit("out.a", ""));
    run(&mut probe, emits(EFFECT_MESSAGES_MAX)).expect("as many as there may be");
    violates(&mut probe, emits(EFFECT_MESSAGES_MAX + 1), &["more than 900"]);
    let mixed = emits(EFFECT_MESSAGES_MAX).timer("t", 1, "");
    violates(&mut probe, mixed, &["more than 900"]);
    let cells = |n| (0..n).fold(script(), |s, i| s.set(&i.to_string(), ""));
    run(&mut probe, cells(CELLS_PER_KEY_MAX)).expect("as many as there may be");
    run(&mut probe, cells(CELLS_PER_KEY_MAX).delete("0").set("more", "")).expect("one for one");
    violates(
        &mut probe,
        cells(CELLS_PER_KEY_MAX + 1),
        &["cell \"900\"", "901 cells"],
    );
    let timers = |n| (0..n).fold(script(), |s, i| s.timer(&i.to_string(), 1, ""));
    violates(
        &mut probe,
        timers(TIMERS_PER_KEY_MAX + 1),
        &["timer \"256\"", "257 timers"],
    );
}

#[test]
fn two_instances_do_the_same() {
    let program = program(settings());
    let script = script()
        .op(b'Q')
        .set("a", "1")
        .timer("t", 5, "d")
        .emit("out.a", "x")
        .list("");
    let run = |instance: &mut Instance| run(instance, script.clone()).expect("effects");
    let first = run(&mut program.instantiate().unwrap());
    assert_eq!(first, run(&mut program.instantiate().unwrap()));
    let nan = u64::from_le_bytes(first.emits[0].data[..].try_into().unwrap());
    assert_eq!(nan, 0x7ff8_0000_0000_0000, "{nan:x}: NaNs are canonical");
}

#[test]
fn a_per_event_instance_remembers_nothing() {
    let mut probe = program(ProgramSettings {
        per_event: true,
        ..settings()
    })
    .instantiate()
    .unwrap();
    for _ in 0..3 {
        let effects = run(&mut probe, script().op(b'N')).unwrap();
        assert_eq!(effects.emits[0].data, 1_u64.to_le_bytes().to_vec());
    }
}

#[test]
fn an_instance_that_leaks_is_replaced_before_its_memory_is_full() {
    const PAGES_PER_MIB: u32 = 16;
    let mut probe = probe();
    let seen: Vec<u64> = [0, 3, 3, 3, 0]
        .into_iter()
        .map(|mib| {
            let leak = script().op(b'P').u32(mib * PAGES_PER_MIB).op(b'N');
            let effects = run(&mut probe, leak).expect("never out of memory");
            u64::from_le_bytes(effects.emits[0].data[..].try_into().unwrap())
        })
        .collect();
    // 6.25 of 8 MiB are in use after the third event.
    assert_eq!(seen, [1, 2, 3, 1, 2]);
    assert!(!probe.poisoned());
}

#[test]
fn an_instance_that_needs_its_memory_from_the_start_is_kept() {
    let mut probe = probe();
    run(&mut probe, script().op(b'P').u32(7 * 16)).expect("effects");
    let effects = run(&mut probe, script().op(b'N')).expect("effects");
    assert_eq!(effects.emits[0].data, 2_u64.to_le_bytes().to_vec());
}

#[test]
fn wasi_has_the_events_clock_and_random_numbers_and_never_waits() {
    let engine = engine();
    let program = Program::compile(&engine, &module(WASI), settings()).expect("accepted");
    let run = |instance: &mut Instance, sequence, data: &'static str| {
        let event = Event {
            sequence,
            data: data.into(),
            ..event(script())
        };
        instance.handle(&event, &CALL, &state(&[], &[]))
    };
    let began = Instant::now();
    let mut one = program.instantiate().unwrap();
    let mut two = program.instantiate().unwrap();
    let first = run(&mut one, 1, "").expect("effects");
    assert_eq!(
        first,
        run(&mut two, 1, "").expect("effects"),
        "the same event, the same numbers"
    );
    let other = run(&mut two, 2, "").expect("effects");
    assert!(
        began.elapsed() < Duration::from_secs(60),
        "waited for an hour's timer"
    );

    let word = |effects: &Effects, i: usize| {
        let data = &effects.emits[0].data[i * 8..i * 8 + 8];
        u64::from_le_bytes(data.try_into().unwrap())
    };
    const HOUR_NS: u64 = 3_600_000_000_000;
    assert_eq!(word(&first, 0), CALL.clock / 1_000_000_000);
    assert_eq!(word(&first, 1), CALL.clock + HOUR_NS);
    assert_ne!(word(&first, 2), word(&first, 3));
    assert_ne!(word(&first, 2), word(&other, 2));

    let fault = run(&mut one, 3, "trap").unwrap_err();
    assert!(
        fault.reason().starts_with("ValueError: no ("),
        "stderr is the reason: {}",
        fault.reason()
    );
}

/// The sentence with which a file is refused.
fn refused(wasm: &[u8]) -> String {
    let engine = engine();
    let refusal = Program::compile(&engine, wasm, settings())
        .err()
        .expect("a refusal")
        .to_string();
    assert_eq!(inspect(&engine, wasm).accepted, Err(refusal.clone()));
    refusal
}

#[test]
fn files_that_are_no_handlers_are_refused_with_what_to_do() {
    let text = |text: &str| wat::parse_str(text).expect("valid text");
    let whole = module(PROBE);
    let component = |import: &str| text(&format!("(component (import \"{import}\" (instance)))"));
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (vec![], "the file is empty"),
        (
            b"\x7fELF\0\x02".to_vec(),
            "not WebAssembly: the file begins with \\x7fELF",
        ),
        (PROBE.as_bytes().to_vec(), "a text file"),
        (whole[..3].to_vec(), "ends too early"),
        (whole[..whole.len() / 2].to_vec(), "ends too early"),
        (b"\0asm\x07\0\0\0".to_vec(), "unknown version"),
        (vec![0; ARTIFACT_BYTES_MAX + 1], "the limit is 67108864"),
        (text("(module)"), "without a component-type section"),
        (
            text("(module (import \"wasi_snapshot_preview1\" \"fd_write\" (func)))"),
            "without a component-type section",
        ),
        (
            module("(module (import \"env\" \"emscripten_sleep\" (func)))"),
            "imports env emscripten_sleep,",
        ),
        (module("(module)"), "cannot be made a component"),
        (
            component("wasi:sockets/tcp@0.2.0"),
            "imports wasi:sockets/tcp@0.2.0,",
        ),
        (
            component("wasi:http/incoming-handler@0.2.0"),
            "imports wasi:http/incoming-handler@0.2.0,",
        ),
        (
            component("weir:handler/state@0.2.0"),
            "this host has weir:handler@0.1.2",
        ),
        (
            text("(component)"),
            "exports no function `handle` (it exports nothing)",
        ),
        (
            text(
                "(component (instance $i) (export \"handler\" (instance $i)) (export \"run\" (instance $i)))",
            ),
            "the nearest export is \"handler\"",
        ),
        (
            text("(component (instance $i) (export \"handle\" (instance $i)))"),
            "does not fit the world",
        ),
        (
            text(
                "(component (import \"weir:handler/config@0.1.0\" (instance (export \"put\" (func)))) (instance $i) (export \"handle\" (instance $i)))",
            ),
            "does not fit the world",
        ),
    ];
    for (wasm, part) in cases {
        let sentence = refused(&wasm);
        assert!(sentence.contains(part), "{part:?} not in: {sentence}");
    }
}

#[test]
fn inspection_says_what_a_file_is() {
    let inspection = inspect(&engine(), &module(PROBE));
    assert_eq!(inspection.kind, ArtifactKind::CoreModule);
    assert_eq!(inspection.wit.as_deref(), Some("0.1.2"));
    assert_eq!(inspection.exports, ["handle"]);
    assert!(
        inspection
            .imports
            .contains(&"weir:handler/output@0.1.2".to_owned()),
        "{inspection:?}"
    );
    assert_eq!(inspection.accepted, Ok(()));
    let json = serde_json::to_string(&inspection).unwrap();
    assert!(json.contains("\"kind\":\"core-module\""), "{json}");
}

/// Not a test of anything: `cargo test --release -- --ignored --nocapture us_per_call`.
#[test]
#[ignore = "a measurement"]
fn us_per_call() {
    const EVENTS: u32 = 200_000;
    let state = state(&[("n", "41")], &[]);
    let work = script().get("n").set("n", "42");
    for (name, per_event, script) in [
        ("nothing", false, script()),
        ("a cell read, emitted and written", false, work.clone()),
        ("the same, per-event instances", true, work),
    ] {
        let mut probe = program(ProgramSettings {
            per_event,
            ..settings()
        })
        .instantiate()
        .unwrap();
        let event = event(script);
        let events = if per_event { EVENTS / 20 } else { EVENTS };
        let began = Instant::now();
        for _ in 0..events {
            probe.handle(&event, &CALL, &state).expect("effects");
        }
        println!(
            "{name}: {:.2} us per call",
            began.elapsed().as_secs_f64() * 1e6 / f64::from(events)
        );
    }
}
