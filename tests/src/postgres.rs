//! A PostgreSQL server of a test's own: its own folder, reached by a socket in it, gone
//! with the value. And the services that connect to it, as processes.
//!
//! PostgreSQL refuses to run as root. Where tests do, it runs as `postgres`, or as `nobody`.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

use crate::host::Host;

/// How long the server may take until it answers, or ends.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Between two looks at a server that starts or ends.
const POLL: Duration = Duration::from_millis(20);

/// Where Debian has the server's programs, which are not in PATH.
const DEBIAN: &str = "/usr/lib/postgresql";

/// The user of the database's owner; nobody is asked for a password.
const USER: &str = "weir";

/// A running server. Killed when dropped.
pub struct Postgres {
    binaries: PathBuf,
    dir: TempDir,
    /// Who it runs as, where that is not us.
    user: Option<(String, u32)>,
    port: u16,
    child: Option<Child>,
}

impl Postgres {
    /// Makes a database cluster and starts its server.
    ///
    /// # Errors
    /// No PostgreSQL is installed, or it does not start; with its log.
    pub fn start() -> Result<Postgres> {
        let mut server = Postgres {
            binaries: find_binaries()?,
            dir: tempfile::Builder::new().prefix("weir-pg-").tempdir()?,
            user: other_user()?,
            port: TcpListener::bind("127.0.0.1:0")?.local_addr()?.port(),
            child: None,
        };
        if let Some((_, id)) = &server.user {
            chown(server.dir.path(), Some(*id), None)?;
        }
        let output = server
            .command("initdb")
            .arg("-D")
            .arg(server.data())
            .args(["-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"])
            .output()
            .context("running initdb")?;
        ensure!(
            output.status.success(),
            "initdb failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        server.restart()?;
        Ok(server)
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Folder of the server's files, which it can read.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// URL of its database, by the socket.
    pub fn url(&self) -> String {
        format!(
            "postgres://{USER}@/postgres?host={}&port={}",
            self.dir.path().display(),
            self.port
        )
    }

    /// URL of the same, by TCP.
    pub fn tcp_url(&self) -> String {
        format!("postgres://{USER}@localhost:{}/postgres", self.port)
    }

    fn command(&self, program: &str) -> Command {
        let program = self.binaries.join(program);
        let mut command = match &self.user {
            Some((name, _)) => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid", name, "--regid"]);
                // `nobody` has another group's name on some systems.
                command
                    .arg(group(name))
                    .args(["--clear-groups", "--"])
                    .arg(program);
                command
            }
            None => Command::new(program),
        };
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }

    /// Appends lines to its configuration; they count from the next start on.
    pub fn configure(&self, lines: &str) -> Result<()> {
        let file = self.data().join("postgresql.conf");
        let before = fs::read_to_string(&file)?;
        Ok(fs::write(&file, format!("{before}\n{lines}\n"))?)
    }

    /// Makes a file that the server, and nobody else, may read.
    pub fn secret(&self, name: &str, content: &[u8]) -> Result<PathBuf> {
        use std::os::unix::fs::PermissionsExt as _;
        let file = self.dir.path().join(name);
        fs::write(&file, content)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
        if let Some((_, id)) = &self.user {
            chown(&file, Some(*id), None)?;
        }
        Ok(file)
    }

    /// Ends the server and all its sessions at once; what was committed stays.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        // Immediate shutdown: as after a crash, but without sessions left over.
        let status = Command::new("kill")
            .args(["-QUIT", &child.id().to_string()])
            .status()?;
        ensure!(status.success(), "the server had ended before");
        let begun = Instant::now();
        while child.try_wait()?.is_none() {
            if begun.elapsed() > START_TIMEOUT {
                child.kill()?;
                child.wait()?;
                bail!("the server did not end:\n{}", self.log());
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Starts it again, after ending it if it runs, and waits until it answers.
    ///
    /// # Errors
    /// Its log, where it does not come up.
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.path().join("log"))?;
        let mut child = self
            .command("postgres")
            .arg("-D")
            .arg(self.data())
            .arg("-k")
            .arg(self.dir.path())
            // Nobody pulls the plug of a test: what the system has is safe.
            .args(["-c", "fsync=off", "-c", "full_page_writes=off"])
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "max_connections=50"])
            .args(["-p", &self.port.to_string()])
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting postgres")?;
        let begun = Instant::now();
        loop {
            let ready = self
                .command("pg_isready")
                .arg("-q")
                .arg("-h")
                .arg(self.dir.path())
                .args(["-p", &self.port.to_string(), "-U", USER])
                .status()?;
            if ready.success() {
                break;
            }
            let ended = child.try_wait()?;
            if ended.is_some() || begun.elapsed() > START_TIMEOUT {
                let _ = child.kill(); // it may have ended already
                child.wait()?;
                bail!("postgres did not start:\n{}", self.log());
            }
            std::thread::sleep(POLL);
        }
        self.child = Some(child);
        Ok(())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// A session of the test's own.
    pub async fn connect(&self) -> Result<Client> {
        let (client, connection) = tokio_postgres::connect(&self.url(), NoTls).await?;
        tokio::spawn(async move {
            // Its end is the client's, which says so to whoever uses it.
            let _ = connection.await;
        });
        Ok(client)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("stopping PostgreSQL: {error:#}");
        }
    }
}

/// Who the server runs as, where we are root.
fn other_user() -> Result<Option<(String, u32)>> {
    let id = |arguments: &[&str]| -> Result<u32> {
        let output = Command::new("id")
            .args(arguments)
            .output()
            .context("running id")?;
        ensure!(output.status.success(), "id {arguments:?} failed");
        Ok(String::from_utf8_lossy(&output.stdout).trim().parse()?)
    };
    if id(&["-u"])? != 0 {
        return Ok(None);
    }
    for name in ["postgres", "nobody"] {
        if let Ok(id) = id(&["-u", name]) {
            return Ok(Some((name.into(), id)));
        }
    }
    bail!("PostgreSQL refuses to run as root, and there is neither a user postgres nor nobody")
}

fn group(user: &str) -> String {
    let output = Command::new("id").args(["-g", user]).output();
    output.map_or_else(
        |_| user.to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

/// The folder with `initdb` and `postgres`: the newest of Debian's, else that of PATH.
fn find_binaries() -> Result<PathBuf> {
    let mut folders: Vec<(u32, PathBuf)> = Vec::new();
    if let Ok(entries) = fs::read_dir(DEBIAN) {
        for entry in entries.flatten() {
            let version = entry.file_name().to_string_lossy().parse();
            folders.extend(version.map(|version| (version, entry.path().join("bin"))));
        }
    }
    folders.sort();
    let mut candidates: Vec<PathBuf> = folders.into_iter().rev().map(|(_, folder)| folder).collect();
    if let Some(path) = std::env::var_os("PATH") {
        candidates.extend(std::env::split_paths(&path));
    }
    candidates
        .into_iter()
        .find(|folder| folder.join("initdb").is_file() && folder.join("postgres").is_file())
        .context("no PostgreSQL server: run `cargo xtask setup`, or install it (Debian: apt-get install postgresql)")
}

/// Starts `weir ARGS…` as a service, without waiting for it.
pub fn service(args: &[&str]) -> Result<Host> {
    let mut command = tokio::process::Command::new(crate::host::weir_binary()?);
    command.args(args);
    Host::spawn(command, args.first().copied().unwrap_or_default(), "")
}
