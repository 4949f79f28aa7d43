//! The `weir` command, used as anyone would use it: one host, and questions to it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::LEDGER;

const START_MAX: Duration = Duration::from_secs(60);
const STOP_MAX: Duration = Duration::from_secs(30);

/// How to reach the system that the host belongs to.
pub struct Weir {
    pub binary: PathBuf,
    pub nats: String,
}

/// One line of `weir handlers --json`, as far as it is used here.
#[derive(Debug, Deserialize)]
pub struct Handler {
    pub name: String,
    /// Events that it has still to commit.
    pub lag: u64,
}

/// One line of `weir dead-letters list --json`, as far as it is used here.
#[derive(Debug, Deserialize)]
pub struct DeadLetter {
    pub id: String,
    pub reason: String,
}

impl Weir {
    /// Starts a host and waits until it is ready. Its log goes into `folder`.
    pub async fn run(&self, plugins: &Path, folder: &Path) -> Result<Host> {
        let log = folder.join("weir.log");
        let mut child = Command::new(&self.binary)
            .args(["run", "--nats", &self.nats, "--ledger", LEDGER, "--name", "demo"])
            .args([
                "--subjects",
                "stats.>,alerts.>,rotations.>",
                "--http",
                "127.0.0.1:0",
            ])
            .arg("--plugins")
            .arg(plugins)
            .arg("--data")
            .arg(folder.join("weir"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", self.binary.display()))?;
        let stdout = child.stdout.take().context("weir has no stdout")?;
        let mut lines = BufReader::new(stdout).lines();
        match timeout(START_MAX, lines.next_line()).await {
            Ok(Ok(Some(_ready))) => {}
            Ok(Ok(None)) => bail!("weir ended before it was ready; its log is {}", log.display()),
            Ok(Err(error)) => return Err(error).context("cannot read what weir says"),
            Err(_) => bail!(
                "weir is not ready after {} s; its log is {}",
                START_MAX.as_secs(),
                log.display()
            ),
        }
        // Whatever else it says must not fill the pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Host { child, log })
    }

    pub async fn handlers(&self) -> Result<Vec<Handler>> {
        self.json(&["handlers"]).await
    }

    pub async fn dead_letters(&self, handler: &str) -> Result<Vec<DeadLetter>> {
        self.json(&["dead-letters", "list", handler]).await
    }

    /// A cell that holds a number, or `None` where there is no such cell.
    pub async fn number(&self, handler: &str, key: &str, cell: &str) -> Result<Option<i64>> {
        let cells: serde_json::Map<String, serde_json::Value> =
            self.json(&["state", "get", handler, key]).await?;
        let Some(value) = cells.get(cell) else {
            return Ok(None);
        };
        // A cell's text is shown as text, whatever it holds.
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_string);
        let number = text
            .parse()
            .with_context(|| format!("cell {cell} of {key} is {text:?}"))?;
        Ok(Some(number))
    }

    async fn json<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<T> {
        let command = format!("weir {}", arguments.join(" "));
        let output = Command::new(&self.binary)
            .args(arguments)
            .args(["--nats", &self.nats, "--ledger", LEDGER, "--json"])
            .stdin(Stdio::null())
            .output()
            .await?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "`{command}` failed ({}): {}",
            output.status,
            stderr.trim_end()
        );
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("cannot read what `{command}` printed"))
    }
}

pub struct Host {
    child: Child,
    log: PathBuf,
}

impl Host {
    /// Fails if the host has ended.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("weir ended ({status}); its log is {}", self.log.display()),
            None => Ok(()),
        }
    }

    /// Asks it to stop, and waits until it did.
    pub async fn stop(mut self) -> Result<()> {
        self.check()?;
        let id = self.child.id().context("weir has ended")?;
        let sent = Command::new("kill")
            .args(["-TERM", &id.to_string()])
            .status()
            .await?;
        ensure!(sent.success(), "cannot signal weir");
        let status = timeout(STOP_MAX, self.child.wait())
            .await
            .with_context(|| format!("weir still runs {} s after SIGTERM", STOP_MAX.as_secs()))??;
        ensure!(
            status.success(),
            "weir ended badly ({status}); its log is {}",
            self.log.display()
        );
        Ok(())
    }
}
