//! `cargo xtask demo`: set-up for the demonstration, which is the program in
//! `demo/`.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::{exec, plugins, release_binary, root, setup};

#[derive(Default, clap::Args)]
pub struct Arguments {
    /// Publish only the first N flights
    #[arg(long, value_name = "N")]
    pub events: Option<usize>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

pub fn command(arguments: &Arguments) -> Result<()> {
    let server = setup::nats_server()?;
    let flights = setup::flights()?;
    plugins::build(&["delays".into(), "rotations".into()], &[])?;
    exec::build_programs()?;
    run(&server, &flights, arguments)
}

/// The demonstration, with everything built.
pub fn run(server: &Path, flights: &Path, arguments: &Arguments) -> Result<()> {
    let mut demo = Command::new(release_binary("weir-demo"));
    demo.arg("--weir").arg(release_binary("weir"));
    demo.arg("--nats-server").arg(server);
    demo.arg("--flights").arg(flights);
    demo.arg("--plugins").arg(root().join("plugins"));
    if let Some(events) = arguments.events {
        demo.arg("--events").arg(events.to_string());
    }
    if arguments.json {
        demo.arg("--json");
    }
    exec::run(&mut demo)
}
