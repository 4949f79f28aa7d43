//! Runs other programs, with errors that say which and what to do.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Runs it with our own output, and fails if it does.
pub fn run(command: &mut Command) -> Result<()> {
    eprintln!("$ {}", shown(command));
    let status = command
        .status()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    if !status.success() {
        bail!("`{}` failed ({status})", shown(command));
    }
    Ok(())
}

/// Runs it and returns what it wrote to stdout; its stderr is part of the error.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!(
            "`{}` failed ({}): {}",
            shown(command),
            output.status,
            stderr.trim_end()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The cargo that runs us, so that one toolchain builds all of it.
pub fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Builds all programs of the workspace. All, even where one is needed: a
/// selection would give their dependencies other features, and build them twice.
pub fn build_programs() -> Result<()> {
    let mut build = cargo();
    build.current_dir(crate::root());
    run(build.args(["build", "--workspace", "--bins", "--release", "--locked"]))
}

/// Builds the programs and every test, as one build: else their dependencies would give
/// shared crates other features.
pub fn build_all() -> Result<()> {
    let mut build = cargo();
    build.current_dir(crate::root());
    run(build.args(["build", "--workspace", "--all-targets", "--release", "--locked"]))
}

/// The program's file, where PATH has it.
pub fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// Installs Debian packages. Asks for no password: fails instead.
pub fn apt_install(packages: &[&str], purpose: &str) -> Result<()> {
    let by_hand = format!(
        "{purpose} needs the packages {0}; install them, or what your system calls them: \
         apt-get install --no-install-recommends {0}",
        packages.join(" ")
    );
    if on_path("apt-get").is_none() {
        bail!("{by_hand}");
    }
    let install = || {
        let mut command = as_root("apt-get")?;
        command.args(["install", "--yes", "--no-install-recommends"]);
        run(command.env("DEBIAN_FRONTEND", "noninteractive").args(packages))
    };
    // A new machine's lists are often empty or old: only then are they fetched.
    install()
        .or_else(|_| run(as_root("apt-get")?.arg("update")).and_then(|()| install()))
        .context(by_hand)
}

fn as_root(program: &str) -> Result<Command> {
    if output(Command::new("id").arg("-u"))?.trim() == "0" {
        return Ok(Command::new(program));
    }
    let mut sudo = Command::new("sudo");
    sudo.args(["--non-interactive", program]);
    Ok(sudo)
}

fn shown(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}
