//! `cargo xtask demo`: set-up for the demonstration, which is the program in
//! `demo/`.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::languages::Language;
use crate::{exec, plugins, release_binary, root, setup};

#[derive(clap::Args)]
pub struct Arguments {
    /// Publish only the first N flights
    #[arg(long, value_name = "N")]
    pub events: Option<usize>,
    /// Language of the handler that numbers the flights
    #[arg(long, value_enum, default_value = "rust")]
    pub lang: Language,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

pub fn command(arguments: &Arguments) -> Result<()> {
    let server = setup::nats_server()?;
    let flights = setup::flights()?;
    plugins::build(&["delays".into(), rotations_of(arguments.lang)], &[])?;
    exec::build_programs()?;
    run(&server, &flights, arguments)
}

/// The demonstration, with everything built.
pub fn run(server: &Path, flights: &Path, arguments: &Arguments) -> Result<()> {
    let mut demo = Command::new(release_binary("weir-demo"));
    demo.arg("--weir").arg(release_binary("weir"));
    demo.arg("--nats-server").arg(server);
    demo.arg("--flights").arg(flights);
    let folder = tempfile::tempdir()?;
    lay_out(arguments.lang, folder.path())?;
    demo.arg("--plugins").arg(folder.path());
    if let Some(events) = arguments.events {
        demo.arg("--events").arg(events.to_string());
    }
    if arguments.json {
        demo.arg("--json");
    }
    exec::run(&mut demo)
}

/// The name of a language's `rotations` on the command line of `cargo xtask plugins`.
fn rotations_of(language: Language) -> String {
    match language {
        Language::Rust => "rotations".into(),
        other => format!("{}/rotations", other.name()),
    }
}

/// The two handlers, as a host's `plugins` folder. Whatever language `rotations` is
/// in, it has the same name here.
fn lay_out(language: Language, folder: &Path) -> Result<()> {
    for (name, from) in [
        ("delays", "delays".to_owned()),
        ("rotations", rotations_of(language)),
    ] {
        let (from, to) = (root().join("plugins").join(from), folder.join(name));
        fs::create_dir(&to)?;
        let file = format!("{name}.wasm");
        fs::copy(from.join(&file), to.join(&file))
            .with_context(|| format!("{} was not built", from.join(&file).display()))?;
        let manifest = fs::read_to_string(from.join("handler.toml"))?;
        let manifest = manifest.lines().map(|line| match line.starts_with("name = ") {
            true => format!("name = \"{name}\"\n"),
            false => format!("{line}\n"),
        });
        fs::write(to.join("handler.toml"), manifest.collect::<String>())?;
    }
    Ok(())
}
