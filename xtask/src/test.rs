//! `cargo xtask test`: all that must hold before a change is taken.

use std::time::Instant;

use anyhow::Result;

use crate::{exec, plugins, root, setup};

pub fn command() -> Result<()> {
    let started = Instant::now();
    let server = setup::nats_server()?;

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
    plugins::build(&[])?;
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
    exec::build_programs()?;
    let mut test = exec::cargo();
    test.current_dir(root()).env(setup::NATS_SERVER_VARIABLE, server);
    exec::run(test.args(["test", "--workspace", "--release", "--locked"]))?;

    eprintln!("all checks and tests passed in {} s", started.elapsed().as_secs());
    Ok(())
}
