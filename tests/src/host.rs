//! Real `weir` processes: hosts ([`Host`]) and commands ([`Weir`]).

use std::collections::BTreeMap;
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use weir::effects::dead_letter::DeadLetter;

use crate::{PATIENCE, until};

/// Lines of a host's stderr that a failed test shows.
const TAIL_LINES: usize = 40;
/// A command that takes longer hangs.
const COMMAND_TIME_MAX: Duration = Duration::from_secs(120);

/// The `weir` binary of this build: cargo puts it two folders above the tests'
/// executables.
///
/// # Errors
/// If it was not built, with what to do.
pub fn weir_binary() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let profile = test
        .ancestors()
        .nth(2)
        .with_context(|| format!("{} is not in a target folder", test.display()))?;
    let binary = profile.join("weir");
    ensure!(
        binary.is_file(),
        "{} is missing: build it with `cargo build --release -p weir`, and run the tests with --release",
        binary.display()
    );
    Ok(binary)
}

/// How a host is started: what `weir run` is given. Cloning it and changing the
/// name makes a second host on the same ledger; the folder for compiled
/// components is shared, so that only the first start compiles.
#[derive(Clone)]
pub struct Launch {
    pub nats: String,
    pub ledger: String,
    pub subjects: String,
    /// Empty: none.
    pub plugins: PathBuf,
    pub name: String,
    pub http: String,
    pub replicas: usize,
    /// Further arguments of `weir run`.
    pub more: Vec<String>,
    /// Where hosts keep compiled code: a folder of the test's own, unless it says otherwise.
    pub data: PathBuf,
    _own_data: Arc<TempDir>,
}

impl Launch {
    pub fn new(nats: &str, ledger: &str, subjects: &str, plugins: &Path) -> Result<Launch> {
        let own_data = Arc::new(TempDir::new()?);
        Ok(Launch {
            nats: nats.into(),
            ledger: ledger.into(),
            subjects: subjects.into(),
            plugins: plugins.into(),
            name: "h1".into(),
            http: "127.0.0.1:0".into(),
            replicas: 1,
            more: Vec::new(),
            data: own_data.path().into(),
            _own_data: own_data,
        })
    }

    pub fn name(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// With further arguments of `weir run`.
    pub fn with(mut self, more: &[&str]) -> Self {
        self.more.extend(more.iter().map(|word| (*word).to_owned()));
        self
    }

    /// The host reaches NATS by this URL; commands still go to the server.
    pub fn through(mut self, nats: &str) -> Self {
        self.nats = nats.into();
        self
    }

    /// Listens on a port known before the host is ready, for tests that ask a
    /// host that is not.
    pub fn known_port(mut self) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        self.http = format!("127.0.0.1:{port}");
        Ok(self)
    }

    /// Starts a host and waits for its ready line.
    pub async fn start(&self) -> Result<Host> {
        let host = self.spawn()?;
        host.ready().await?;
        Ok(host)
    }

    /// Starts a host without waiting for it.
    pub fn spawn(&self) -> Result<Host> {
        let mut command = Command::new(weir_binary()?);
        command
            .arg("run")
            .args(["--nats", &self.nats, "--ledger", &self.ledger])
            .args(["--subjects", &self.subjects, "--name", &self.name])
            .args(["--http", &self.http, "--replicas", &self.replicas.to_string()])
            .arg("--data")
            .arg(&self.data)
            .args(&self.more);
        if self.plugins != Path::new("") {
            command.arg("--plugins").arg(&self.plugins);
        }
        Host::spawn(command, &self.name, &self.http)
    }
}

/// Starts `weir up PLUGINS --ledger …` in the folder `at`, and waits for its ready line.
pub async fn up(plugins: &Path, ledger: &str, at: &Path) -> Result<Host> {
    let mut command = Command::new(weir_binary()?);
    command.arg("up").arg(plugins).current_dir(at);
    command.args(["--ledger", ledger]);
    let host = Host::spawn(command, "up", "")?;
    host.ready().await?;
    Ok(host)
}

/// A running `weir run` or `weir up`. Dropping it kills the process and prints the end of
/// what it wrote, which cargo shows only of a test that failed.
pub struct Host {
    child: Child,
    pid: u32,
    name: String,
    http: String,
    stderr: PathBuf,
    /// Words of the ready line, once there was one.
    ready: watch::Receiver<Option<String>>,
    _logs: TempDir,
}

impl Host {
    /// Starts the command; a line on its stdout that begins with `weir ready` will say that it is.
    pub fn spawn(mut command: Command, name: &str, http: &str) -> Result<Host> {
        let logs = TempDir::new()?;
        let stderr = logs.path().join("stderr");
        let mut child = command
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&stderr)?)
            .kill_on_drop(true)
            .spawn()?;
        let pid = child.id().context("the host ended at once")?;
        let stdout = child.stdout.take().context("the host has no stdout")?;
        let (ready, seen) = watch::channel(None);
        tokio::spawn(async move {
            let mut lines = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(words) = line.strip_prefix("weir ready ") {
                    ready.send_replace(Some(words.to_owned()));
                }
            }
        });
        Ok(Host {
            child,
            pid,
            name: name.into(),
            http: http.into(),
            stderr,
            ready: seen,
            _logs: logs,
        })
    }

    /// Waits for the ready line.
    pub async fn ready(&self) -> Result<()> {
        let mut ready = self.ready.clone();
        let line = tokio::time::timeout(PATIENCE, ready.wait_for(Option::is_some)).await;
        match line {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => bail!("host {} ended before it was ready:\n{}", self.name, self.tail()),
            Err(_) => bail!(
                "host {} was not ready in {PATIENCE:?}:\n{}",
                self.name,
                self.tail()
            ),
        }
    }

    /// Address of `/readyz` and its siblings.
    fn http(&self) -> String {
        let ready = self.ready.borrow();
        let named = ready.as_deref().and_then(|line| {
            let word = line
                .split_whitespace()
                .find_map(|word| word.strip_prefix("http="))?;
            Some(
                word.trim_start_matches("http://")
                    .trim_end_matches('/')
                    .to_owned(),
            )
        });
        named.unwrap_or_else(|| self.http.clone())
    }

    /// Status and body of `GET path`.
    pub async fn get(&self, path: &str) -> Result<(u16, String)> {
        get(&self.http(), path).await
    }

    /// Waits until `/readyz` answers `status` with a body that contains `text`.
    pub async fn readyz(&self, status: u16, text: &str) -> Result<String> {
        let what = format!("/readyz of {} is {status} and says {text:?}", self.name);
        until(&what, PATIENCE, async || {
            let (found, body) = self.get("/readyz").await?;
            ensure!(found == status && body.contains(text), "it is {found}: {body}");
            Ok(body)
        })
        .await
    }

    /// All that the host has written to stderr.
    pub fn stderr(&self) -> String {
        match std::fs::read(&self.stderr) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => format!("(cannot read its stderr: {error})"),
        }
    }

    /// Waits until the host has written `text` to stderr.
    pub async fn says(&self, text: &str) -> Result<()> {
        until(
            &format!("host {} says {text:?}", self.name),
            PATIENCE,
            async || {
                ensure!(self.stderr().contains(text), "it said:\n{}", self.tail());
                Ok(())
            },
        )
        .await
    }

    fn tail(&self) -> String {
        tail(&self.stderr())
    }

    /// SIGKILL: it ends between two instructions.
    pub async fn kill(mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    /// SIGSTOP: it stands still, with its connections open.
    pub async fn stop(&self) -> Result<()> {
        signal(self.pid, "STOP").await
    }

    /// SIGCONT: it goes on, and does not know that time has passed.
    pub async fn cont(&self) -> Result<()> {
        signal(self.pid, "CONT").await
    }

    /// SIGTERM, then the exit code.
    pub async fn term(self) -> Result<Option<i32>> {
        signal(self.pid, "TERM").await?;
        Ok(self.ends().await?.0)
    }

    /// SIGINT, as Ctrl-C sends it, then the exit code.
    pub async fn interrupt(self) -> Result<Option<i32>> {
        signal(self.pid, "INT").await?;
        Ok(self.ends().await?.0)
    }

    /// The most memory that the process ever had, in bytes.
    pub fn memory_max(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        Ok(kib
            .context("no VmHWM in the process's status")?
            .trim()
            .parse::<u64>()?
            * 1024)
    }

    /// Processes that this one started and that still run (Linux's `/proc`).
    pub fn children(&self) -> Result<Vec<u32>> {
        let mut children = Vec::new();
        for entry in std::fs::read_dir("/proc")? {
            let Ok(pid) = entry?.file_name().to_string_lossy().parse::<u32>() else {
                continue; // no process
            };
            if parent(pid) == Some(self.pid) {
                children.push(pid);
            }
        }
        Ok(children)
    }

    /// Waits for the host to end by itself: its exit code and its stderr.
    pub async fn ends(mut self) -> Result<(Option<i32>, String)> {
        let status = tokio::time::timeout(PATIENCE, self.child.wait())
            .await
            .map_err(|_| anyhow!("host {} does not end:\n{}", self.name, self.tail()))??;
        Ok((status.code(), self.stderr()))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        eprintln!(
            "--- host {} (pid {}), its last lines:\n{}",
            self.name,
            self.pid,
            self.tail()
        );
    }
}

/// Status and body of `GET path` of an address.
pub async fn get(address: &str, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    tokio::time::timeout(Duration::from_secs(10), stream.read_to_string(&mut answer)).await??;
    let (head, body) = answer.split_once("\r\n\r\n").context("half an HTTP answer")?;
    let status = head.split(' ').nth(1).context("no HTTP status")?.parse()?;
    Ok((status, body.to_owned()))
}

/// The parent of a process, unless that process is gone or waits to be buried.
pub fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // `pid (name) state parent …`; the name may contain anything.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    (state != "Z").then_some(parent)
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

/// Sends a signal to a process that this test started.
pub async fn signal(pid: u32, name: &str) -> Result<()> {
    let status = Command::new("kill")
        .args([format!("-{name}"), pid.to_string()])
        .status()
        .await
        .context("run kill")?;
    ensure!(status.success(), "kill -{name} {pid} failed");
    Ok(())
}

/// What a command left.
#[derive(Debug)]
pub struct Output {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// # Errors
    /// If the code is another one, with all that the command said.
    pub fn exits(self, code: i32) -> Result<Output> {
        ensure!(self.code == Some(code), "expected exit code {code} of {self:#?}");
        Ok(self)
    }
}

/// `weir` commands that talk to one ledger.
#[derive(Clone)]
pub struct Weir {
    pub nats: String,
    pub ledger: String,
}

impl Weir {
    pub fn new(nats: &str, ledger: &str) -> Weir {
        Weir {
            nats: nats.into(),
            ledger: ledger.into(),
        }
    }

    /// Runs `weir ARGS… --nats … --ledger …`.
    pub async fn run(&self, args: &[&str]) -> Result<Output> {
        let at = ["--nats", &self.nats, "--ledger", &self.ledger];
        weir(&[args, &at].concat()).await
    }

    /// Runs a command that must succeed, and reads its JSON.
    pub async fn json<T: DeserializeOwned>(&self, args: &[&str]) -> Result<T> {
        let output = self.run(&[args, &["--json"]].concat()).await?.exits(0)?;
        serde_json::from_str(&output.stdout)
            .with_context(|| format!("weir {args:?} --json wrote {output:#?}"))
    }

    /// What `weir handlers` says of one handler.
    pub async fn handler(&self, name: &str) -> Result<Value> {
        let all: Vec<Value> = self.json(&["handlers"]).await?;
        let found = all.into_iter().find(|handler| handler["name"] == name);
        found.with_context(|| format!("`weir handlers` does not know {name}"))
    }

    /// Waits until `weir handlers` shows no lag. What it shows may be a second
    /// old, so that this proves something only once the last output was seen.
    pub async fn caught_up(&self, name: &str) -> Result<Value> {
        until(&format!("{name} has no lag"), PATIENCE, async || {
            let handler = self.handler(name).await?;
            ensure!(handler["lag"] == 0, "{handler}");
            Ok(handler)
        })
        .await
    }

    /// All committed cells of a key, as text.
    pub async fn cells(&self, handler: &str, key: &str) -> Result<BTreeMap<String, String>> {
        let cells: BTreeMap<String, Value> = self.json(&["state", "get", handler, key]).await?;
        let text = |value: Value| match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        Ok(cells
            .into_iter()
            .map(|(name, value)| (name, text(value)))
            .collect())
    }

    /// The handler's dead letters, oldest first.
    pub async fn dead_letters(&self, handler: &str) -> Result<Vec<DeadLetter>> {
        self.json(&["dead-letters", "list", handler]).await
    }
}

/// Runs `weir ARGS…` to its end.
pub async fn weir(args: &[&str]) -> Result<Output> {
    let run = Command::new(weir_binary()?)
        .args(args)
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(COMMAND_TIME_MAX, run)
        .await
        .with_context(|| format!("weir {args:?} does not end"))??;
    Ok(Output {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
