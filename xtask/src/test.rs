//! `cargo xtask test`: all that must hold before a change is taken. `cargo xtask chaos` and `cargo xtask shop`: two
//! of its tests, for longer than that.

use std::time::Instant;

use anyhow::Result;
use clap::ValueEnum;

use crate::languages::Language;
use crate::{demo, exec, plugins, root, setup};

/// Flights of the demonstration in the tests: all airports and carriers, some without a tail number.
const DEMO_EVENTS: usize = 20_000;

pub fn command() -> Result<()> {
    let started = Instant::now();
    let server = setup::nats_server()?;
    let flights = setup::flights()?;
    setup::postgresql()?;

    // First what fails soonest.
    exec::run(
        exec::cargo()
            .current_dir(root())
            .args(["fmt", "--all", "--check"]),
    )?;
    for workspace in plugins::WORKSPACES {
        // With `--all` cargo would also format the SDK, which is checked above.
        let folder = root().join(workspace);
        exec::run(exec::cargo().current_dir(&folder).args(["fmt", "--check"]))?;
    }
    plugins::build(&[], &[])?;
    for language in Language::value_variants() {
        language.test()?;
    }
    exec::run(exec::cargo().current_dir(root()).args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--release",
        "--locked",
        "--",
        "--deny=warnings",
    ]))?;
    // Tests start the commands that this builds.
    exec::build_all()?;
    let mut test = exec::cargo();
    test.current_dir(root()).env(setup::NATS_SERVER_VARIABLE, &server);
    for language in Language::value_variants() {
        test.envs(language.tools()?);
    }
    exec::run(test.args(["test", "--workspace", "--release", "--locked"]))?;

    let demonstration = demo::Arguments {
        events: Some(DEMO_EVENTS),
        lang: Language::Rust,
        json: false,
    };
    demo::run(&server, &flights, &demonstration)?;

    eprintln!("all checks and tests passed in {} s", started.elapsed().as_secs());
    Ok(())
}

/// The test of that name, for longer.
pub fn chaos(minutes: f64, seed: Option<u64>) -> Result<()> {
    plugins::build(&["rotations".into()], &[])?;
    longer("chaos::", ("WEIR_CHAOS_MINUTES", minutes.to_string()), seed)
}

/// The test of that name, with more orders.
pub fn shop(orders: usize, seed: Option<u64>) -> Result<()> {
    setup::postgresql()?;
    let handlers: Vec<String> = plugins::shop()?.into_iter().map(|guest| guest.name).collect();
    plugins::build(&handlers, &[])?;
    longer("shop::", ("WEIR_SHOP_ORDERS", orders.to_string()), seed)
}

/// Runs the tests of a file, with a variable that says how much of it.
fn longer(tests: &str, much: (&str, String), seed: Option<u64>) -> Result<()> {
    let server = setup::nats_server()?;
    exec::build_all()?;
    let mut test = exec::cargo();
    test.current_dir(root())
        .env(setup::NATS_SERVER_VARIABLE, &server)
        .env(much.0, much.1);
    if let Some(seed) = seed {
        test.env("WEIR_SEED", seed.to_string());
    }
    exec::run(test.args([
        "test",
        "--workspace",
        "--release",
        "--locked",
        "--test",
        "all",
        tests,
        "--",
        "--nocapture",
    ]))
}
