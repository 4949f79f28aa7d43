//! The tests that SDKs and examples have in their own language. That of the SDK in Rust
//! is part of the workspace.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{Language, Variables, make_target};
use crate::{exec, plugins, root};

/// Runs what a language has.
///
/// # Errors
/// A test failed, or does not run.
pub fn run(language: Language, variables: &Variables) -> Result<()> {
    let at = |folder: &str| root().join(folder);
    match language {
        Language::Rust => {
            for examples in ["plugins", plugins::SHOP] {
                let mut cargo = exec::cargo();
                // The folder in which they are built for Wasm, too.
                let target = at("target/guests");
                cargo.current_dir(at(examples)).env("CARGO_TARGET_DIR", target);
                exec::run(cargo.args(["test", "--locked"]))?;
            }
            Ok(())
        }
        Language::C => {
            make_target(&at("guest-sdk/c/tests"), variables, "test")?;
            make_target(&at("plugins/c/window"), variables, "test")
        }
        Language::Go => {
            let sdk = at("guest-sdk/go");
            for verb in ["vet", "test"] {
                let mut go = program(tool(variables, "GO")?, &sdk, variables);
                // Of modules there are only those of the repository.
                go.env("GOPROXY", "off").env("GOTOOLCHAIN", "local");
                exec::run(go.args([verb, "./weir/..."]))?;
            }
            make_target(&at("plugins/go/sessions"), variables, "test")?;
            make_target(&at("examples/shop/stock"), variables, "test")
        }
        Language::Javascript => {
            let sdk = at("guest-sdk/javascript");
            let mut node = program(tool(variables, "NODE")?, &sdk, variables);
            exec::run(node.arg("--test").args(files(&sdk.join("test"), ".test.js")?))?;
            make_target(&at("plugins/javascript/orders"), variables, "test")?;
            make_target(&at("examples/shop/couriers"), variables, "test")
        }
        Language::Typescript => {
            let tsc = tool(variables, "JS_TOOLS")?.join("node_modules/typescript/bin/tsc");
            let sdk = at("guest-sdk/javascript");
            let mut node = program(tool(variables, "NODE")?, &sdk, variables);
            exec::run(node.arg(tsc).args(["--noEmit", "-p", "test/types"]))?;
            make_target(&at("examples/shop/sales"), variables, "test")
        }
        Language::Python => {
            let sdk = at("guest-sdk/python");
            let mut own = program("python3".into(), &sdk, variables);
            exec::run(own.args(["-m", "unittest", "discover", "tests"]))?;
            make_target(&at("plugins/python/reviews"), variables, "test")?;
            make_target(&at("examples/shop/payments"), variables, "test")
        }
    }
}

fn program(program: PathBuf, folder: &Path, variables: &Variables) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder);
    for (name, value) in variables {
        command.env(name, value);
    }
    command
}

/// A path that the set-up of a language has named.
fn tool(variables: &Variables, name: &str) -> Result<PathBuf> {
    let found = variables.iter().find(|(variable, _)| *variable == name);
    found
        .map(|(_, value)| value.into())
        .with_context(|| format!("the set-up does not name {name}"))
}

/// Files of a folder whose names end so.
fn files(folder: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(ending) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
