//! Weir under the same work: a real `weir run` process, one handler, 16
//! partitions, on a ledger of its own.
//!
//! Progress is the host's own counter `weir_events_total`, which counts an event
//! once its commit is settled. The clock runs from the first sample that shows
//! progress (whose events do not count) to the one that shows the last event, as
//! the native loops' clocks leave out their start too. That the counter tells the
//! truth is checked afterwards against the ledger itself: every key has exactly as
//! many events out as it had in, and counts are 1, 2, 3, … in order.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use async_nats::jetstream::{self, consumer};
use futures::StreamExt;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::report::{self, Latency};
use crate::server::Server;
use crate::wire::{Reader, create_stream, key_of};
use crate::{fill, process};

pub const LEDGER: &str = "B1";
pub const PARTITIONS: u32 = 16;

/// The source of the latency run. It has a stream of its own, so that those of
/// the rate runs always hold the same events.
const LATENCY_STREAM: &str = "BENCHLAT";

/// Events per second of the latency run.
const LATENCY_PER_S: u64 = 100;

/// Keys of the latency run. Its first second touches each once, and is not counted.
const LATENCY_KEYS: u64 = LATENCY_PER_S;

/// Compiling a component on a busy machine included.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a host may make no progress.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Between two looks at the host's counters.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(25);

/// A guest of the benchmark.
#[derive(Debug, Clone, Copy)]
pub struct Guest {
    /// Of the handler, and so in the host's metrics.
    pub name: &'static str,
    /// The component, relative to the repository.
    wasm: &'static str,
    /// First token of the subjects it emits to, if it does.
    emits: Option<&'static str>,
    /// Its output carries the key's running number as `n`.
    numbered: bool,
}

/// Counts in cell `n`.
pub const TALLY: Guest = Guest {
    name: "tally",
    wasm: "tests/fixtures/guests/tally/tally.wasm",
    emits: None,
    numbered: false,
};

/// Sends each event on to `out.<key>`.
pub const RELAY: Guest = Guest {
    name: "relay",
    wasm: "tests/fixtures/guests/relay/relay.wasm",
    emits: Some("out"),
    numbered: false,
};

/// Counts in cell `n` and sends the count to `rotations.<key>`.
pub const COUNTER: Guest = Guest {
    name: "counter",
    wasm: "plugins/rotations/rotations.wasm",
    emits: Some("rotations"),
    numbered: true,
};

/// One host's run over all events.
pub struct Run {
    pub per_s: f64,
    pub peak_mib: f64,
}

/// Runs `guest` over the `events` of the filled stream.
pub async fn rate(server: &Server, guest: Guest, events: u64, dir: &Path) -> Result<Run> {
    server.delete_streams_except(&[fill::STREAM]).await?;
    let host = Host::start(server, guest, fill::STREAM, fill::SUBJECTS, dir).await?;
    let per_s = match host.time_to(events).await {
        Ok(per_s) => per_s,
        Err(error) => return Err(error.context(host.last_words().await)),
    };
    let peak_mib = process::peak_mib(&host.child)?;
    drop(host);
    check_output(server, guest, events).await?;
    Ok(Run { per_s, peak_mib })
}

/// Publishes to an idle host at [`LATENCY_PER_S`] for `seconds` and measures
/// from each publish until a consumer of the ledger has the output.
pub async fn latency(server: &Server, guest: Guest, seconds: u64, dir: &Path) -> Result<(Latency, f64)> {
    server.delete_streams_except(&[fill::STREAM]).await?;
    let publisher = server.connect().await?;
    create_stream(&publisher, LATENCY_STREAM, &["lat.>"]).await?;
    let host = Host::start(server, guest, LATENCY_STREAM, "lat.>", dir).await?;
    let measured = async {
        let output = guest.emits.context("latency needs a guest that emits")?;
        let consumer = jetstream::new(server.connect().await?)
            .get_stream(LEDGER)
            .await?
            .create_consumer(consumer::pull::Config {
                ack_policy: consumer::AckPolicy::None,
                filter_subject: format!("{output}.>"),
                memory_storage: true,
                ..Default::default()
            })
            .await?;
        let mut outputs = consumer.messages().await?;

        // Events of one key come out in their order, so that an output belongs to
        // the oldest event of its key.
        let mut waiting: HashMap<String, VecDeque<Instant>> = HashMap::new();
        let events = LATENCY_PER_S * (1 + seconds);
        let (mut published, mut seen) = (0, 0);
        let mut ms = Vec::new();
        let mut ticks = tokio::time::interval(Duration::from_millis(1_000 / LATENCY_PER_S));
        while seen < events {
            tokio::select! {
                _ = ticks.tick(), if published < events => {
                    let key = fill::key_token(published % LATENCY_KEYS);
                    let subject = format!("lat.{key}");
                    waiting.entry(key).or_default().push_back(Instant::now());
                    publisher.publish(subject, fill::payload(published)).await?;
                    published += 1;
                }
                message = outputs.next() => {
                    let message = message.context("the consumer of the outputs ended")??;
                    let key = key_of(&message.subject)?;
                    let sent = waiting.get_mut(key).and_then(VecDeque::pop_front);
                    let sent = sent.with_context(|| format!("an output nobody caused on {}", message.subject))?;
                    seen += 1;
                    if seen > LATENCY_PER_S {
                        ms.push(sent.elapsed().as_secs_f64() * 1e3);
                    }
                }
                () = tokio::time::sleep(STALL_TIMEOUT) => bail!("{seen} of {events} outputs, then none for {STALL_TIMEOUT:?}"),
            }
        }
        report::latency(ms).context("nothing was measured")
    };
    match measured.await {
        Ok(latency) => Ok((latency, process::peak_mib(&host.child)?)),
        Err(error) => Err(error.context(host.last_words().await)),
    }
}

/// A `weir run` process, killed when this is dropped: a host is safe to kill at
/// any instant, and what it committed is checked afterwards.
pub struct Host {
    child: Child,
    /// `host:port` of its HTTP address.
    http: String,
    guest: Guest,
    log: PathBuf,
}

impl Host {
    async fn start(server: &Server, guest: Guest, stream: &str, subjects: &str, dir: &Path) -> Result<Host> {
        let dir = tempfile::Builder::new()
            .prefix(guest.name)
            .tempdir_in(dir)?
            .keep();
        let plugins = dir.join("plugins");
        write_plugin(&plugins.join(guest.name), guest.name, guest, stream, subjects)?;
        Host::launch(server, guest, "bench", Some(&plugins), &dir, READY_TIMEOUT).await
    }

    /// Starts a host of that name, and waits until it is ready. Its data and log are in `dir`.
    pub async fn launch(
        server: &Server,
        guest: Guest,
        name: &str,
        plugins: Option<&Path>,
        dir: &Path,
        timeout: Duration,
    ) -> Result<Host> {
        let program = program()?;
        let log = dir.join(format!("{name}.log"));
        let mut command = Command::new(&program);
        command.arg("run");
        if let Some(plugins) = plugins {
            command.arg("--plugins").arg(plugins);
        }
        let mut child = command
            .args(["--nats", server.url(), "--ledger", LEDGER])
            .args([
                "--subjects",
                "out.>,rotations.>",
                "--http",
                "127.0.0.1:0",
                "--name",
                name,
            ])
            .arg("--data")
            .arg(dir.join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log)?)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let stdout = child.stdout.take().context("the host has no stdout")?;
        let mut host = Host {
            child,
            http: String::new(),
            guest,
            log,
        };

        let mut lines = BufReader::new(stdout).lines();
        let ready = async {
            while let Some(line) = lines.next_line().await? {
                let address = line
                    .split_whitespace()
                    .find_map(|word| word.strip_prefix("http=http://"));
                if let Some(address) = address {
                    return Ok(address.trim_end_matches('/').to_owned());
                }
            }
            bail!("the host ended before it was ready");
        };
        let ready = match tokio::time::timeout(timeout, ready).await {
            Ok(ready) => ready,
            Err(_) => Err(anyhow::anyhow!("the host was not ready within {timeout:?}")),
        };
        match ready {
            Ok(address) => host.http = address,
            Err(error) => return Err(error.context(host.last_words().await)),
        }
        // The host writes no more than its ready line to stdout, but a full pipe
        // would stop it if it did.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(host)
    }

    /// Waits until `events` are committed. Events per second.
    async fn time_to(&self, events: u64) -> Result<f64> {
        let mut first: Option<(Instant, u64)> = None;
        let mut last = (Instant::now(), 0);
        loop {
            let counters = self.counters().await?;
            let now = Instant::now();
            ensure!(
                counters.dead_letters == 0,
                "{} dead-lettered {} events",
                self.guest.name,
                counters.dead_letters
            );
            let done = counters.events;
            ensure!(done <= events, "{done} events committed where there are {events}");
            if done > last.1 {
                first.get_or_insert((now, done));
                last = (now, done);
            }
            match first {
                Some((start, before)) if done == events => {
                    ensure!(before < events, "{events} events are too few to measure");
                    return Ok((events - before) as f64 / (now - start).as_secs_f64());
                }
                _ => {}
            }
            if now - last.0 > STALL_TIMEOUT {
                bail!("{done} of {events} events, then none for {STALL_TIMEOUT:?}");
            }
            tokio::time::sleep(SAMPLE_INTERVAL).await;
        }
    }

    pub async fn counters(&self) -> Result<Counters> {
        let get = async {
            let mut stream = TcpStream::connect(&self.http).await?;
            // HTTP/1.0, so that the body comes whole and ends with the connection.
            stream
                .write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")
                .await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            anyhow::Ok(answer)
        };
        let answer = tokio::time::timeout(STALL_TIMEOUT, get)
            .await
            .context("no answer from the host's /metrics")?
            .context("cannot read the host's /metrics")?;
        let (head, body) = answer.split_once("\r\n\r\n").context("/metrics: not HTTP")?;
        let status = head.lines().next().unwrap_or_default();
        ensure!(status.split(' ').nth(1) == Some("200"), "/metrics: {status}");
        Ok(Counters {
            events: sum(body, "weir_events_total", self.guest.name),
            groups: sum(body, "weir_groups_total", self.guest.name),
            dead_letters: sum(body, "weir_dead_letters_total", self.guest.name),
        })
    }

    /// Processor time that the host has used.
    pub fn cpu(&self) -> Result<Duration> {
        process::cpu(&self.child)
    }

    /// Resident set of the host now.
    pub fn resident_mib(&self) -> Result<f64> {
        process::resident_mib(&self.child)
    }

    /// The end of the host's log, for an error.
    pub async fn last_words(&self) -> String {
        let log = tokio::fs::read_to_string(&self.log).await.unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(20)..].join("\n");
        format!("handler {}; the host's log ends:\n{tail}", self.guest.name)
    }
}

pub struct Counters {
    pub events: u64,
    pub groups: u64,
    dead_letters: u64,
}

/// Sum over the samples of a Prometheus counter that name this handler.
fn sum(metrics: &str, name: &str, handler: &str) -> u64 {
    let label = format!("handler=\"{handler}\"");
    metrics
        .lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix('{')?.split_once('}'))
        .filter(|(labels, _)| labels.split(',').any(|l| l.trim() == label))
        .filter_map(|(_, value)| value.split_whitespace().next()?.parse::<f64>().ok())
        .sum::<f64>() as u64
}

/// `WEIR_BIN`, or the `weir` that was built beside this program.
pub fn program() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("WEIR_BIN") {
        return Ok(path.into());
    }
    let path = std::env::current_exe()?.with_file_name("weir");
    ensure!(
        path.is_file(),
        "{} is missing: `cargo build --release -p weir`",
        path.display()
    );
    Ok(path)
}

/// Writes a folder with `guest` as the handler `name`.
pub fn write_plugin(dir: &Path, name: &str, guest: Guest, stream: &str, subjects: &str) -> Result<()> {
    let wasm = crate::repository().join(guest.wasm);
    std::fs::create_dir_all(dir)?;
    let component = format!("{}.wasm", guest.name);
    std::fs::copy(&wasm, dir.join(&component))
        .with_context(|| format!("no guest {}: `cargo xtask plugins`", wasm.display()))?;
    let emit = match guest.emits {
        Some(token) => format!("[emit]\nsubjects = [\"{token}.>\"]\n"),
        None => String::new(),
    };
    let key = match stream == fill::PARTITIONED {
        true => "[key]\nsubject_token = 3\n\n[partition]\nsubject_token = 2\n",
        false => "[key]\nsubject_token = 2\n",
    };
    let manifest = format!(
        r#"name = "{name}"
component = "{component}"
version = "bench"
partitions = {PARTITIONS}

[[source]]
stream = "{stream}"
subjects = ["{subjects}"]
start = "all"

{key}
{emit}"#
    );
    std::fs::write(dir.join("handler.toml"), manifest)?;
    Ok(())
}

/// The part of a numbered output that is checked.
#[derive(Deserialize)]
struct Numbered {
    n: u64,
}

/// Every key has as many events out as in, and numbers go 1, 2, 3, …
pub async fn check_output(server: &Server, guest: Guest, events: u64) -> Result<()> {
    let Some(token) = guest.emits else {
        return Ok(());
    };
    let client = server.connect().await?;
    let mut reader = Reader::open(&client, LEDGER, &format!("{token}.>"), events).await?;
    let mut seen: HashMap<String, u64> = HashMap::new();
    while let Some(messages) = reader.next().await? {
        for message in messages {
            let key = key_of(&message.subject)?;
            let n = seen.entry(key.to_owned()).or_default();
            *n += 1;
            if guest.numbered {
                let output: Numbered = serde_json::from_slice(&message.payload)?;
                ensure!(output.n == *n, "key {key}: number {} where {n} was due", output.n);
            }
        }
    }
    for (key, expected) in fill::events_per_key(events).into_iter().enumerate() {
        let token = fill::key_token(key as u64);
        let found = seen.get(&token).copied().unwrap_or(0);
        ensure!(
            found == expected,
            "key {token}: {found} events out, {expected} in"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::sum;

    #[test]
    fn only_the_samples_of_the_handler_are_summed() {
        let metrics = "# TYPE weir_events_total counter\n\
            weir_events_total{handler=\"tally\",partition=\"0\"} 3\n\
            weir_events_total{handler=\"tally\",partition=\"1\"} 4\n\
            weir_events_total{handler=\"tally-2\"} 100\n\
            weir_events_total_created{handler=\"tally\"} 1000\n";
        assert_eq!(sum(metrics, "weir_events_total", "tally"), 7);
        assert_eq!(sum(metrics, "weir_dead_letters_total", "tally"), 0);
    }
}
