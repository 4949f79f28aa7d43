//! The guest languages: for each, which tools it needs and where they come from.
//!
//! Every language but Rust is built by `make` in the handler's own folder, with
//! the Makefile that `weir new` gives a user too; what is set up here only tells
//! it, by variables, where the tools are. A language's tools are either all
//! there or not at all, and are fetched when something is built in it, not before.

pub mod c;
pub mod go;
pub mod javascript;
mod own_tests;
pub mod python;
pub mod rust;

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use clap::ValueEnum;

use crate::exec;

/// Languages that guests can be written in here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
pub enum Language {
    Rust,
    Python,
    /// And TypeScript, which has the same tools.
    Javascript,
    Typescript,
    C,
    Go,
}

/// Where the tools of a language are: variables of its Makefiles.
pub type Variables = Vec<(&'static str, OsString)>;

impl Language {
    /// As on the command line, and as the folder under `plugins/` is called.
    pub fn name(self) -> &'static str {
        match self {
            Language::Rust => "rust",
            Language::Python => "python",
            Language::Javascript => "javascript",
            Language::Typescript => "typescript",
            Language::C => "c",
            Language::Go => "go",
        }
    }

    /// As in a text.
    pub fn title(self) -> &'static str {
        match self {
            Language::Rust => "Rust",
            Language::Python => "Python",
            Language::Javascript => "JavaScript",
            Language::Typescript => "TypeScript",
            Language::C => "C",
            Language::Go => "Go",
        }
    }

    /// Sets the language up if it is not yet.
    ///
    /// # Errors
    /// A tool cannot be fetched; says which, and how to get it by hand.
    pub fn set_up(self) -> Result<Variables> {
        match self {
            Language::Rust => rust::compiler().map(|_| Variables::new()),
            Language::Python => python::set_up(),
            Language::Javascript | Language::Typescript => javascript::set_up(),
            Language::C => c::set_up(),
            Language::Go => go::set_up(),
        }
    }

    /// Where its compilers are, without the places of this repository's SDK: what a
    /// project has to be told that has an SDK of its own.
    ///
    /// # Errors
    /// As [`Language::set_up`].
    pub fn tools(self) -> Result<Variables> {
        let mut variables = self.set_up()?;
        variables.retain(|(name, _)| !name.ends_with("_SDK") && *name != "WEIR_WIT");
        Ok(variables)
    }

    /// Runs the tests that its SDK and examples have in the language itself.
    ///
    /// # Errors
    /// One failed, or does not run.
    pub fn test(self) -> Result<()> {
        own_tests::run(self, &self.set_up()?)
    }
}

/// Runs `make` in a handler's folder.
pub fn make(folder: &Path, variables: &Variables) -> Result<()> {
    make_target(folder, variables, "all")
}

fn make_target(folder: &Path, variables: &Variables, target: &str) -> Result<()> {
    if exec::on_path("make").is_none() {
        exec::apt_install(&["make"], "building guests")?;
    }
    let mut make = Command::new("make");
    make.arg("--directory").arg(folder).arg(target);
    for (name, value) in variables {
        make.env(name, value);
    }
    // Of the cargo that runs us; a guest's build is not a part of it.
    make.env_remove("MAKEFLAGS").env_remove("CARGO_MAKEFLAGS");
    exec::run(&mut make)
}
