//! A nats-server of our own, for development: found, started, stopped.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::oneshot;

use crate::log::jetstream::check_server_version;
use crate::os;

/// Names the binary to use.
pub const VARIABLE: &str = "WEIR_NATS_SERVER";

/// Used where it is free, so that other tools find the server without a URL.
const PORT_PREFERRED: u16 = 4222;

/// A server that has to recover a large store is slow to start.
const START_MAX: Duration = Duration::from_secs(60);

/// A server writes its state when it is asked to stop.
const STOP_MAX: Duration = Duration::from_secs(10);

/// Lines of its log that an error shows.
const LAST_LINES: usize = 8;

/// Folders below `.tools` that are searched: `.tools/nats-server/2.15.1/…`.
const TOOLS_DEPTH_MAX: usize = 4;

/// A running server. Dropping it kills it; so does the end of this process.
pub struct NatsServer {
    child: Child,
    pub url: String,
}

impl NatsServer {
    /// Starts a server on loopback that keeps its data in `folder`. Call from
    /// the main thread (see [`os::tie_to_us`]).
    ///
    /// # Errors
    /// No server that is new enough, or it does not start.
    pub async fn start(folder: &Path) -> anyhow::Result<NatsServer> {
        let binary = find().await?;
        std::fs::create_dir_all(folder)
            .with_context(|| format!("{}: cannot be created", folder.display()))?;
        let log_path = folder.join("nats-server.log");
        let port = match TcpListener::bind(("127.0.0.1", PORT_PREFERRED)).await {
            Ok(_free) => PORT_PREFERRED.to_string(),
            Err(_) => "-1".to_owned(), // the server chooses one
        };
        let mut command = std::process::Command::new(&binary);
        command
            .args([
                "--jetstream",
                "--addr",
                "127.0.0.1",
                "--port",
                &port,
                "--store_dir",
            ])
            .arg(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        os::tie_to_us(&mut command);
        let mut child = Command::from(command)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{}: cannot be started", binary.display()))?;
        let stderr = child.stderr.take().context("nats-server has no stderr")?;
        let log = File::create(&log_path)
            .await
            .with_context(|| format!("{}: cannot be written", log_path.display()))?;
        let (started, starting) = oneshot::channel();
        tokio::spawn(follow(stderr, log, started));
        match tokio::time::timeout(START_MAX, starting).await {
            Ok(Ok(Ok(address))) => Ok(NatsServer {
                child,
                url: format!("nats://{address}"),
            }),
            Ok(Ok(Err(last_lines))) => {
                bail!("nats-server ended at once; {}:\n{last_lines}", log_path.display())
            }
            Ok(Err(_)) | Err(_) => {
                bail!(
                    "nats-server was not ready within {} s; see {}",
                    START_MAX.as_secs(),
                    log_path.display()
                )
            }
        }
    }

    /// Waits until the server ends by itself, which it should not.
    pub async fn ended(&mut self) -> anyhow::Error {
        match self.child.wait().await {
            Ok(status) => {
                anyhow::anyhow!("nats-server ended by itself ({status}); see nats-server.log in its folder")
            }
            Err(error) => anyhow::anyhow!("nats-server cannot be watched: {error}"),
        }
    }

    /// Asks the server to stop, and kills it if it does not.
    ///
    /// # Errors
    /// Of the system.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let asked = self.child.id().is_some_and(os::terminate);
        if !asked || tokio::time::timeout(STOP_MAX, self.child.wait()).await.is_err() {
            self.child.kill().await.context("nats-server cannot be stopped")?;
        }
        Ok(())
    }
}

/// Copies the server's log to a file, and says when the server is ready: its
/// address, or its last lines if it ended first.
async fn follow(stderr: ChildStderr, mut log: File, started: oneshot::Sender<Result<String, String>>) {
    let mut lines = BufReader::new(stderr).lines();
    let mut address = None;
    let mut started = Some(started);
    let mut last: VecDeque<String> = VecDeque::new();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some((_, rest)) = line.split_once("Listening for client connections on ") {
            address = Some(rest.trim().to_owned());
        }
        if line.ends_with("Server is ready")
            && let (Some(address), Some(started)) = (address.take(), started.take())
        {
            let _ = started.send(Ok(address)); // nobody waits any more: nothing to do
        }
        if let Err(error) = log.write_all(format!("{line}\n").as_bytes()).await {
            tracing::warn!(%error, "the log of nats-server cannot be written");
        }
        last.push_back(line);
        if last.len() > LAST_LINES {
            last.pop_front();
        }
    }
    if let Some(started) = started {
        let _ = started.send(Err(Vec::from(last).join("\n")));
    }
}

/// The server to use: the one that `WEIR_NATS_SERVER` names, the one in PATH if
/// it is new enough, or one in a `.tools` folder here or above.
async fn find() -> anyhow::Result<PathBuf> {
    if let Some(named) = std::env::var_os(VARIABLE).filter(|value| !value.is_empty()) {
        let path = PathBuf::from(named);
        return match suffices(&path).await {
            Ok(()) => Ok(path),
            Err(problem) => bail!("{VARIABLE}={}: {problem}", path.display()),
        };
    }
    let mut refused = String::new();
    let in_path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&in_path).map(|folder| folder.join("nats-server"));
    let here = std::env::current_dir()?;
    let in_tools = here
        .ancestors()
        .filter_map(|folder| in_folder(&folder.join(".tools"), TOOLS_DEPTH_MAX));
    for path in in_path.filter(|path| path.is_file()).chain(in_tools) {
        match suffices(&path).await {
            Ok(()) => return Ok(path),
            Err(problem) => refused += &format!("\n  {}: {problem}", path.display()),
        }
    }
    bail!(
        "no nats-server that will do: run `cargo xtask setup` in the Weir repository, install one, or name it \
         with {VARIABLE}{refused}"
    )
}

/// A file `nats-server` in a folder or some levels below.
fn in_folder(folder: &Path, depth: usize) -> Option<PathBuf> {
    let file = folder.join("nats-server");
    if file.is_file() {
        return Some(file);
    }
    if depth == 0 {
        return None;
    }
    let mut folders: Vec<PathBuf> = std::fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    folders
        .iter()
        .rev()
        .find_map(|folder| in_folder(folder, depth - 1))
}

/// Whether this server is new enough; else why not.
async fn suffices(binary: &Path) -> Result<(), String> {
    let output = Command::new(binary)
        .arg("--version")
        .output()
        .await
        .map_err(|error| format!("cannot be started: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.trim().rsplit_once(": v") {
        Some((_, version)) => check_server_version(version),
        None => Err(format!("says `{}` instead of its version", text.trim())),
    }
}
