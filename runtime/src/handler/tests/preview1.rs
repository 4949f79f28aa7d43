//! Core modules that import WASI 0.1, with the adapter that the host brings along.

use super::*;

const PREVIEW1: &str = include_str!("../../../../tests/fixtures/preview1.wat");

const EBADF: u64 = 8;
const HOUR_NS: u64 = 3_600_000_000_000;

fn guest() -> Arc<Program> {
    Program::compile(&engine(), &module(PREVIEW1), settings()).expect("accepted")
}

/// What the guest emits for one event of a new instance.
fn emits(program: &Arc<Program>, event: &Event) -> Vec<u8> {
    let mut instance = program.instantiate().expect("starts");
    let effects = instance.handle(event, &CALL, &state(&[], &[])).expect("effects");
    effects.emits[0].data.to_vec()
}

fn number(data: &[u8], at: usize, bytes: usize) -> u64 {
    let mut number = [0; 8];
    number[..bytes].copy_from_slice(&data[at..at + bytes]);
    u64::from_le_bytes(number)
}

#[test]
fn clocks_are_the_events_and_waiting_takes_no_time() {
    let began = Instant::now();
    let data = emits(&guest(), &event(script()));
    assert!(began.elapsed() < Duration::from_secs(60));
    let clocks: Vec<u64> = (0..4).map(|clock| number(&data, clock * 8, 8)).collect();
    let after = CALL.clock + HOUR_NS;
    assert_eq!(clocks, [CALL.clock, CALL.clock, after, after]);
    assert_eq!(number(&data, 68, 4), 1, "the wait's event");
}

#[test]
fn random_numbers_follow_from_the_event() {
    let program = guest();
    let random = |event: &Event| emits(&program, event)[32..52].to_vec();
    let first = event(script());
    let other = Event {
        sequence: 5013,
        offset: 5013,
        ..event(script())
    };
    assert_eq!(random(&first), random(&first));
    assert_ne!(random(&first), random(&other));
    assert_ne!(random(&first)[16..], [0; 4], "the rest of a number");
}

#[test]
fn files_sockets_and_arguments_are_refused_and_memory_is_left_alone() {
    let data = emits(&guest(), &event(script()));
    for (what, at, want) in [
        ("path_open", 52, EBADF),
        ("sock_send", 56, EBADF),
        ("fd_write", 60, EBADF),
        ("args_sizes_get", 64, 0),
    ] {
        assert_eq!(number(&data, at, 4), want, "{what}");
    }
    assert_eq!(&data[72..], b"leave me alone!!");
}

#[test]
fn what_was_written_to_stderr_before_an_exit_is_the_reason() {
    let mut instance = guest().instantiate().expect("starts");
    let fault = run(&mut instance, script().op(b'x')).expect_err("an exit");
    assert_eq!(fault.kind(), "trap");
    assert_eq!(fault.reason(), "panic: no go (the handler called exit(1))");
    assert!(instance.poisoned());
}

#[test]
fn a_command_and_an_unknown_function_are_refused_with_a_sentence() {
    let command = PREVIEW1.replace("\"_initialize\"", "\"_start\"");
    let unknown = PREVIEW1.replace("\"sock_send\"", "\"sock_open\"");
    for (text, sentence) in [
        (command, "a command, which runs once and ends (it exports _start)"),
        (
            unknown,
            "imports sock_open of wasi_snapshot_preview1, which is no function of WASI 0.1",
        ),
    ] {
        let refusal = Program::compile(&engine(), &module(&text), settings()).err();
        let refusal = refusal.expect("refused").to_string();
        assert!(refusal.contains(sentence), "{refusal}");
    }
}
