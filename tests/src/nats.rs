//! A nats-server of a test's own: a free port, its own store, gone with the value.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use weir::log::jetstream::check_server_version;

use crate::{PATIENCE, until};

/// How long a server may take until it answers.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// Between two looks at a server that starts.
const POLL: Duration = Duration::from_millis(20);

/// Free ports to try: somebody else may take one between the look and the start.
const PORT_TRIES: usize = 5;

/// A running nats-server with JetStream. Killed when dropped.
pub struct NatsServer {
    binary: PathBuf,
    dir: TempDir,
    port: u16,
    config: String,
    child: Option<Child>,
}

impl NatsServer {
    /// Starts a server with nothing but JetStream configured.
    ///
    /// # Errors
    /// No nats-server that will do, or it does not start; says which.
    pub fn start() -> Result<Self> {
        Self::start_with("")
    }

    /// Starts a server with more lines in its configuration file. They must
    /// not set the port, nor JetStream's store.
    ///
    /// # Errors
    /// As [`NatsServer::start`]; the server's log is in the message.
    pub fn start_with(config: &str) -> Result<Self> {
        let binary = find_binary()?;
        let mut last = None;
        for _ in 0..PORT_TRIES {
            let mut server = NatsServer {
                binary: binary.clone(),
                dir: tempfile::Builder::new().prefix("weir-nats-").tempdir()?,
                port: free_port()?,
                config: config.into(),
                child: None,
            };
            match server.restart() {
                Ok(()) => return Ok(server),
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("no port was tried")?)
    }

    /// URL for clients.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Folder with the configuration, the log and JetStream's data.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Kills the server with SIGKILL; what it had not written is lost.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only for a process that has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Sends the process a signal, such as `STOP`.
    ///
    /// # Errors
    /// It does not run.
    pub async fn signal(&self, name: &str) -> Result<()> {
        let pid = self.child.as_ref().context("it does not run")?.id();
        crate::host::signal(pid, name).await
    }

    /// Changes the lines of [`NatsServer::start_with`] while it runs.
    ///
    /// # Errors
    /// The server's log, where it does not take them.
    pub async fn reload(&mut self, config: &str) -> Result<()> {
        let log = self.dir.path().join("nats.log");
        let reloads = || read_log(&log).matches("Reloaded server configuration").count();
        let before = reloads();
        self.config = config.into();
        self.write_config(&self.dir.path().join("nats.conf"))?;
        let pid = self.child.as_ref().context("it does not run")?.id();
        crate::host::signal(pid, "HUP").await?;
        until(
            "the server has read its configuration again",
            PATIENCE,
            async || {
                ensure!(reloads() > before, "{}", read_log(&log));
                Ok(())
            },
        )
        .await
    }

    fn write_config(&self, file: &Path) -> Result<()> {
        fs::write(
            file,
            format!(
                "listen: \"127.0.0.1:{}\"\njetstream {{ store_dir: {:?} }}\n{}\n",
                self.port,
                self.dir.path().join("data"),
                self.config
            ),
        )?;
        Ok(())
    }

    /// Starts it again on the same port and data, after killing it if it runs.
    ///
    /// # Errors
    /// The server's log, where it does not come up.
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        let config = self.dir.path().join("nats.conf");
        let log = self.dir.path().join("nats.log");
        self.write_config(&config)?;
        let ready_before = read_log(&log).matches("Server is ready").count();
        let mut child = Command::new(&self.binary)
            .arg("-c")
            .arg(&config)
            .arg("-l")
            .arg(&log)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {}", self.binary.display()))?;
        let begun = Instant::now();
        while read_log(&log).matches("Server is ready").count() == ready_before {
            let ended = child.try_wait()?;
            if ended.is_some() || begun.elapsed() > START_TIMEOUT {
                let _ = child.kill(); // it may have ended already
                child.wait()?;
                bail!("nats-server did not start:\n{}", read_log(&log));
            }
            std::thread::sleep(POLL);
        }
        self.child = Some(child);
        Ok(())
    }
}

/// Servers of one cluster, each of which can be killed, stopped and started again.
pub struct Cluster {
    servers: Vec<NatsServer>,
    /// Where each says whether it is healthy.
    monitors: Vec<u16>,
}

impl Cluster {
    /// Starts `size` servers that replicate among themselves. They do not tell clients
    /// of each other: a client that is to come through proxies would go round them.
    ///
    /// # Errors
    /// As [`NatsServer::start`].
    pub async fn start(size: usize) -> Result<Cluster> {
        let ports = (0..2 * size).map(|_| free_port()).collect::<Result<Vec<_>>>()?;
        let (routes, monitors) = ports.split_at(size);
        let all: Vec<String> = routes
            .iter()
            .map(|port| format!("\"nats://127.0.0.1:{port}\""))
            .collect();
        let mut servers = Vec::new();
        for n in 0..size {
            servers.push(NatsServer::start_with(&format!(
                "server_name: s{n}\nhttp: \"127.0.0.1:{}\"\n\
                 cluster {{ name: c, listen: \"127.0.0.1:{}\", no_advertise: true, routes: [{}] }}",
                monitors[n],
                routes[n],
                all.join(", ")
            ))?);
        }
        let cluster = Cluster {
            servers,
            monitors: monitors.to_vec(),
        };
        for n in 0..size {
            cluster.healthy(n).await?;
        }
        Ok(cluster)
    }

    /// URLs of all servers, for clients.
    pub fn url(&self) -> String {
        self.urls().join(",")
    }

    /// URL of each server.
    pub fn urls(&self) -> Vec<String> {
        self.servers.iter().map(NatsServer::url).collect()
    }

    pub fn size(&self) -> usize {
        self.servers.len()
    }

    pub fn server(&mut self, n: usize) -> &mut NatsServer {
        &mut self.servers[n]
    }

    /// Waits until a server has caught up with the others.
    ///
    /// # Errors
    /// It does not in time; says what it says.
    pub async fn healthy(&self, n: usize) -> Result<()> {
        until(&format!("server {n} is healthy"), PATIENCE, async || {
            let answer = crate::host::get(&format!("127.0.0.1:{}", self.monitors[n]), "/healthz").await?;
            ensure!(answer.0 == 200, "{}", answer.1);
            Ok(())
        })
        .await
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The server appends to its log while we read: bytes that are no text yet do not matter.
fn read_log(path: &Path) -> String {
    fs::read(path).map_or_else(
        |_| String::new(),
        |bytes| String::from_utf8_lossy(&bytes).into_owned(),
    )
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// `WEIR_NATS_SERVER`, then PATH if it is new enough, then the workspace's `.tools`.
///
/// # Errors
/// Says how to get one.
pub fn find_binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("WEIR_NATS_SERVER") {
        let path = PathBuf::from(path);
        version_will_do(&path)?;
        return Ok(path);
    }
    let on_path = std::env::var_os("PATH").map(|path| {
        std::env::split_paths(&path)
            .map(|dir| dir.join("nats-server"))
            .collect::<Vec<_>>()
    });
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools");
    let mut candidates = on_path.unwrap_or_default();
    find_named(&tools, "nats-server", &mut candidates);
    candidates
        .into_iter()
        .find(|path| path.is_file() && version_will_do(path).is_ok())
        .context("no nats-server that is new enough: run `cargo xtask setup`, or set WEIR_NATS_SERVER")
}

fn version_will_do(path: &Path) -> Result<()> {
    let output = Command::new(path)
        .arg("--version")
        .output()
        .with_context(|| format!("running {}", path.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.trim().rsplit(' ').next().unwrap_or_default();
    check_server_version(version).map_err(|why| anyhow::anyhow!("{}: {why}", path.display()))
}

fn find_named(dir: &Path, name: &str, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return }; // no such folder: nothing in it
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            find_named(&path, name, found);
        } else if path.file_name().is_some_and(|file| file == name) {
            found.push(path);
        }
    }
}
