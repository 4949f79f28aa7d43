//! The `weir` command as scripts meet it: exit codes, what goes to stdout and
//! what to stderr. Nothing here needs a server; one that is not there does.

use std::process::{Command, Output};

/// Nothing listens on port 1 of loopback.
const NOWHERE: &str = "nats://127.0.0.1:1";

fn weir(arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("a folder without a weir.toml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WEIR_")) {
        command.env_remove(name);
    }
    command
        .args(arguments)
        .current_dir(folder.path())
        .output()
        .expect("the command starts")
}

#[test]
fn wrong_use_is_2_and_says_what_is_wrong() {
    for (arguments, said) in [
        (&["bogus"][..], "unrecognized subcommand 'bogus'"),
        (&[], "Usage: weir"),
        (&["handlers"], "ledger.name: name the ledger, with --ledger"),
        (&["handlers", "--ledger", "a.b"], "ledger.name: `a.b` is no name"),
        (
            &["run", "--ledger", "L", "--subjects", ">"],
            "begins with a wildcard",
        ),
        (
            &["run", "--ledger", "L", "--subjects", "$JS.a"],
            "subjects that begin with $",
        ),
        (
            &["run", "--ledger", "L", "--http", "here"],
            "host.http: `here` must be",
        ),
        (&["run", "--config", "gone.toml"], "gone.toml: cannot be read"),
        (&["dead-letters", "drop", "h", "--ledger", "L"], "required"),
        (
            &["dead-letters", "drop", "h", "S:1", "--all"],
            "cannot be used with",
        ),
        (&["dead-letters", "show", "h"], "required"),
        (&["new", "x"], "--lang"),
        (&["new", "x", "--lang", "cobol"], "invalid value 'cobol'"),
        (
            &["new", "../x", "--lang", "rust"],
            "`../x` is no name for a handler",
        ),
        (
            &["new", "x", "--lang", "rust", "--sdk", "gone"],
            "--sdk gone: cannot be read",
        ),
        (&["test"], "required"),
        (&["test", "gone"], "gone: cannot be read"),
        (&["state", "get", "h"], "required"),
        (&["outbox-source", "--ledger", "L"], "name the database"),
        (
            &["outbox-source", "--postgres", "postgres://h/d"],
            "ledger.name: name the ledger",
        ),
        (
            &["outbox-source", "--ledger", "L", "--table", "o", "--name", "a.b"],
            "`a.b` is no name for a source",
        ),
        (
            &[
                "postgres-sink",
                "--ledger",
                "L",
                "--name",
                "s",
                "--subjects",
                "a.>,a.b",
            ],
            "`a.b` overlaps `a.>`",
        ),
        (&["postgres-sink", "--ledger", "L", "--subjects", "a"], "required"),
    ] {
        let output = weir(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(
            stderr.contains(said),
            "{arguments:?}\n  said     {stderr}\n  expected {said}"
        );
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

/// A wrong URL of a database is wrong use, and its password is not shown.
#[test]
fn passwords_of_databases_are_not_shown() {
    for url in ["postgres://u:secret@h/d?sslmode=maybe", "u:secret@h"] {
        let output = weir(&["outbox-source", "--ledger", "L", "--postgres", url]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(
            stderr.contains("--postgres") && !stderr.contains("secret"),
            "{stderr}"
        );
    }
}

#[test]
fn what_fails_is_1() {
    let output = weir(&[
        "handlers",
        "--ledger",
        "L",
        "--nats",
        "nats://me:secret@127.0.0.1:1",
    ]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("no connection to NATS at nats://127.0.0.1:1"),
        "{stderr}"
    );
    assert!(!stderr.contains("secret"), "{stderr}");

    let output = weir(&["check", "--nats", NOWHERE, "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let lines: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON on stdout");
    assert_eq!(lines[0]["verdict"], "fail");

    let output = weir(&["inspect", "gone.wasm"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("gone.wasm: cannot be read"));
}

#[test]
fn every_command_has_help_with_examples() {
    for command in [
        &["new"][..],
        &["test"],
        &["up"],
        &["run"],
        &["handlers"],
        &["state"],
        &["state", "get"],
        &["state", "keys"],
        &["dead-letters"],
        &["dead-letters", "list"],
        &["dead-letters", "redrive"],
        &["inspect"],
        &["check"],
        &["outbox-source"],
        &["postgres-sink"],
        &[],
    ] {
        let output = weir(&[command, &["--help"]].concat());
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{command:?}");
        assert!(stdout.contains("Examples:"), "{command:?}: {stdout}");
        assert!(
            !stdout.contains('\u{1b}'),
            "colours where there is no terminal: {command:?}"
        );
    }
}

#[test]
fn secrets_of_the_environment_are_not_in_the_help() {
    let output = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(["run", "--help"])
        .env("WEIR_NATS", "nats://me:secret@127.0.0.1")
        .output()
        .expect("the command starts");
    assert!(!String::from_utf8_lossy(&output.stdout).contains("secret"));
}
