//! `cargo xtask bench`: set-up for the benchmark program, which does the rest.

use anyhow::Result;

use crate::{exec, plugins, root, setup};

pub fn command(arguments: &[String]) -> Result<()> {
    let server = setup::nats_server()?;
    plugins::build(&[], &[])?;
    exec::build_programs()?;
    let mut bench = std::process::Command::new(crate::release_binary("weir-bench"));
    bench.current_dir(root()).env(setup::NATS_SERVER_VARIABLE, server);
    exec::run(bench.args(arguments))
}
