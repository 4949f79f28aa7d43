//! The benchmark's own nats-server: one process, file storage, a folder of its
//! own on the disk of the build, a port that the system picks.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use async_nats::jetstream;
use futures::TryStreamExt;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

use crate::process;

/// How long the server may take from its start to its first client.
const START_TIMEOUT: Duration = Duration::from_secs(15);

/// Messages that one subscription may hold before async-nats drops them. The
/// readers never ask for as many (checked in `wire`).
pub const SUBSCRIPTION_CAPACITY: usize = 1 << 17;

/// A running nats-server, killed when this is dropped.
pub struct Server {
    url: String,
    child: Child,
}

impl Server {
    /// Starts a server that stores under `dir`, its log in `dir/nats-server.log`.
    pub async fn start(dir: &Path) -> Result<Server> {
        let program = find().await?;
        let mut child = Command::new(&program)
            .args([
                "--addr",
                "127.0.0.1",
                "--port",
                "-1",
                "--jetstream",
                "--store_dir",
            ])
            .arg(dir.join("jetstream"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let stderr = child.stderr.take().context("nats-server has no stderr")?;
        let mut lines = BufReader::new(stderr).lines();
        let mut log = tokio::fs::File::create(dir.join("nats-server.log")).await?;

        let mut said = String::new();
        let started = async {
            let mut address = None;
            while let Some(line) = lines.next_line().await? {
                said.push_str(&line);
                said.push('\n');
                if let Some((_, a)) = line.split_once("Listening for client connections on ") {
                    address = Some(a.trim().to_owned());
                }
                // The last line of the start: JetStream has recovered by then.
                if line.contains("Server is ready") {
                    return address.context("nats-server never named its port");
                }
            }
            bail!("nats-server ended before it was ready");
        };
        let address = match tokio::time::timeout(START_TIMEOUT, started).await {
            Ok(address) => address,
            Err(_) => Err(anyhow::anyhow!(
                "nats-server was not ready within {START_TIMEOUT:?}"
            )),
        }
        .with_context(|| format!("{} said:\n{said}", program.display()))?;

        // A full pipe would stop the server: keep reading it for as long as it lives.
        tokio::spawn(async move {
            let _ = log.write_all(said.as_bytes()).await;
            while let Ok(Some(line)) = lines.next_line().await {
                // A log that cannot be written costs only the log.
                let _ = log.write_all(format!("{line}\n").as_bytes()).await;
            }
        });
        Ok(Server {
            url: format!("nats://{address}"),
            child,
        })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Processor time that the server has used.
    pub fn cpu(&self) -> Result<Duration> {
        process::cpu(&self.child)
    }

    /// A connection of its own: reading and committing share no socket.
    pub async fn connect(&self) -> Result<async_nats::Client> {
        async_nats::ConnectOptions::new()
            .subscription_capacity(SUBSCRIPTION_CAPACITY)
            .connect(&self.url)
            .await
            .with_context(|| format!("cannot connect to {}", self.url))
    }

    /// Deletes every stream (buckets are streams too) but those in `keep`: two
    /// ledgers with the same subjects cannot stand side by side.
    pub async fn delete_streams_except(&self, keep: &[&str]) -> Result<()> {
        let jetstream = jetstream::new(self.connect().await?);
        let names: Vec<String> = jetstream.stream_names().try_collect().await?;
        for name in names.iter().filter(|n| !keep.contains(&n.as_str())) {
            jetstream
                .delete_stream(name)
                .await
                .with_context(|| format!("cannot delete stream {name}"))?;
        }
        Ok(())
    }
}

/// `WEIR_NATS_SERVER`, then PATH where that one is new enough, then `.tools`.
async fn find() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("WEIR_NATS_SERVER") {
        return Ok(path.into());
    }
    let on_path = std::env::var_os("PATH")
        .iter()
        .flat_map(std::env::split_paths)
        .map(|dir| dir.join("nats-server"))
        .find(|file| file.is_file());
    if let Some(path) = on_path
        && version(&path).await.is_ok_and(supported)
    {
        return Ok(path);
    }
    find_below(&crate::repository().join(".tools")).context(
        "no nats-server in WEIR_NATS_SERVER, PATH (2.12.14 or newer, 2.14.4 on the 2.14 line) or .tools: \
         run `cargo xtask setup`",
    )
}

async fn version(program: &Path) -> Result<(u32, u32, u32)> {
    let output = Command::new(program).arg("--version").output().await?;
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers = text.rsplit('v').next().unwrap_or_default().trim();
    let mut parts = numbers.splitn(3, '.').map(str::parse);
    match (parts.next(), parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch))) => Ok((major, minor, patch)),
        _ => bail!("{} does not tell its version: {text:?}", program.display()),
    }
}

/// Earlier ones refuse valid fences (nats-server #8376).
fn supported(version: (u32, u32, u32)) -> bool {
    version >= (2, 14, 4) || ((2, 12, 14)..(2, 13, 0)).contains(&version)
}

fn find_below(dir: &Path) -> Option<PathBuf> {
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(dir).ok()?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            folders.push(path);
        } else if entry.file_name() == "nats-server" {
            return Some(path);
        }
    }
    folders.iter().find_map(|folder| find_below(folder))
}

#[cfg(test)]
mod tests {
    use super::supported;

    #[test]
    fn servers_that_refuse_valid_fences_are_passed_over() {
        assert!(!supported((2, 12, 13)));
        assert!(supported((2, 12, 14)));
        assert!(!supported((2, 13, 9)));
        assert!(!supported((2, 14, 3)));
        assert!(supported((2, 14, 4)));
        assert!(supported((2, 15, 1)));
        assert!(supported((3, 0, 0)));
    }
}
