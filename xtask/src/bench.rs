//! `cargo xtask bench`: set-up for the benchmark programs, which do the rest.

use std::ffi::OsString;

use anyhow::Result;

use crate::languages::Language;
use crate::{exec, plugins, root, setup};

/// The page that has the table of languages.
const LANGUAGES_PAGE: &str = "docs/languages.md";

pub fn command(languages: bool, arguments: &[String]) -> Result<()> {
    match languages {
        true => compare_languages(arguments),
        false => compare_with_native(arguments),
    }
}

fn compare_with_native(arguments: &[String]) -> Result<()> {
    let server = setup::nats_server()?;
    plugins::build(&[], &[Language::Rust])?;
    exec::build_programs()?;
    let mut bench = std::process::Command::new(crate::release_binary("weir-bench"));
    bench.current_dir(root()).env(setup::NATS_SERVER_VARIABLE, server);
    exec::run(bench.args(arguments))
}

/// `rotations` in every language; the table goes into the page that has it.
fn compare_languages(arguments: &[String]) -> Result<()> {
    let rotations = plugins::rotations()?;
    let names: Vec<String> = rotations.iter().map(|guest| guest.name.clone()).collect();
    plugins::build(&names, &[])?;
    exec::build_programs()?;
    let mut bench = std::process::Command::new(crate::release_binary("weir-bench-languages"));
    for guest in rotations {
        let mut argument = OsString::from(format!("{}=", guest.language.title()));
        argument.push(&guest.folder);
        bench.arg(argument);
    }
    bench.arg("--write").arg(root().join(LANGUAGES_PAGE));
    exec::run(bench.args(arguments))
}
