//! nats-server for one run: a port of its own, data in the folder it is given.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

const START_MAX: Duration = Duration::from_secs(20);

pub struct Broker {
    pub url: String,
    /// Dies with this value.
    _child: Child,
}

/// Starts it, and waits until it says where it listens.
pub async fn start(binary: &Path, folder: &Path) -> Result<Broker> {
    let log = folder.join("nats-server.log");
    let mut child = Command::new(binary)
        .args([
            "--addr",
            "127.0.0.1",
            "--port",
            "-1",
            "--jetstream",
            "--store_dir",
        ])
        .arg(folder.join("jetstream"))
        .arg("--ports_file_dir")
        .arg(folder)
        .arg("--log")
        .arg(&log)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {}", binary.display()))?;
    let name = binary
        .file_name()
        .context("nats-server has no file name")?
        .to_string_lossy();
    let id = child.id().context("nats-server ended at once")?;
    let ports = folder.join(format!("{name}_{id}.ports"));
    let deadline = Instant::now() + START_MAX;
    loop {
        // The server writes the file when it listens; it may be seen half written.
        if let Some(url) = read_url(&ports) {
            return Ok(Broker { url, _child: child });
        }
        if let Some(status) = child.try_wait()? {
            bail!("nats-server ended ({status}); its log is {}", log.display());
        }
        if Instant::now() > deadline {
            bail!(
                "nats-server does not listen after {} s; its log is {}",
                START_MAX.as_secs(),
                log.display()
            );
        }
        sleep(Duration::from_millis(20)).await;
    }
}

fn read_url(ports: &Path) -> Option<String> {
    let text = std::fs::read_to_string(ports).ok()?;
    let ports: serde_json::Value = serde_json::from_str(&text).ok()?;
    Some(ports["nats"][0].as_str()?.to_string())
}
