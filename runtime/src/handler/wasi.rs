//! WASI 0.2 for guests whose language brings it along: complete enough for them
//! to start, and without any capability.
//!
//! * Clocks stand at the event's time. Waiting takes no time: the monotonic
//!   clock is moved to when the wait would have ended.
//! * Random numbers follow from the event's id and the source's created time.
//! * stdout and stderr are the handler's log; stdin is at its end.
//! * There are no arguments, variables, files or terminals. Sockets are not even
//!   linked, so importing them is refused by name; HTTP only for activities.
//!
//! An activity waits for the outside world, so that its waits take the time they say, and its clock
//! moves with them. Everything else is the same there.
//!
//! Clocks and random numbers are implemented here and not set on
//! `wasmtime-wasi`'s, whose clock would really wait, out of reach of the time
//! limit.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep_until};
use wasmtime::component::{HasData, Linker, Resource, ResourceTable};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream, WasiCli, WasiCliView};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView};
use wasmtime_wasi::p2::bindings::clocks::{monotonic_clock, wall_clock};
use wasmtime_wasi::p2::bindings::random::{insecure, insecure_seed, random};
use wasmtime_wasi::p2::bindings::{cli, filesystem, io, sync};
use wasmtime_wasi::p2::{DynPollable, OutputStream, Pollable, StreamError, StreamResult, subscribe};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::guest_log::{GuestLog, Stream};
use super::host::Host;
use crate::effects::check::Violation;

/// Random bytes that a guest gets at once.
const RANDOM_BYTES_MAX: u64 = 1024 * 1024;

/// Streams and pollables that a guest may hold.
const RESOURCES_MAX: usize = 10_000;

/// Bytes that a guest may write to stdout or stderr at once.
const WRITE_BYTES_MAX: usize = 64 * 1024;

/// The longest wait that takes the time it says: longer than an invocation may be.
const WAIT_MAX: Duration = Duration::from_secs(3_600);

const NS_PER_S: u64 = 1_000_000_000;

/// WASI of one instance.
pub(super) struct Wasi {
    ctx: WasiCtx,
    table: ResourceTable,
    /// Unix nanoseconds.
    wall: u64,
    /// Shared with the guest's waits, which move it.
    monotonic: Arc<AtomicU64>,
    /// Whether waits take time.
    waits: bool,
    random: Random,
}

impl Wasi {
    /// WASI that logs to `log`. `waits`: waiting takes time, and a runtime.
    pub fn new(log: &Arc<Mutex<GuestLog>>, waits: bool) -> Self {
        let output = |stream| GuestOutput {
            log: Arc::clone(log),
            stream,
        };
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES_MAX);
        Wasi {
            ctx: WasiCtx::builder()
                .stdout(output(Stream::Stdout))
                .stderr(output(Stream::Stderr))
                .build(),
            table,
            wall: 0,
            monotonic: Arc::default(),
            waits,
            random: Random::new("", 0),
        }
    }

    /// The resources that the guest has.
    pub fn table(&mut self) -> &mut ResourceTable {
        &mut self.table
    }

    /// Sets clocks and random numbers for one event. `clock` is Unix nanoseconds.
    pub fn begin(&mut self, event_id: &str, source_created: u64, clock: u64) {
        self.wall = clock;
        // Waits may have moved it ahead; going back would break the guest's runtime.
        self.monotonic.fetch_max(clock, Ordering::Relaxed);
        self.random = Random::new(event_id, source_created);
    }
}

/// Links the interfaces that [`allowed`] names.
pub(super) fn add_to_linker(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    add_what_never_waits(linker)?;
    sync::filesystem::types::add_to_linker::<_, WasiFilesystem>(linker, Host::filesystem)?;
    sync::io::error::add_to_linker::<_, HasTable>(linker, table)?;
    sync::io::poll::add_to_linker::<_, HasTable>(linker, table)?;
    sync::io::streams::add_to_linker::<_, HasTable>(linker, table)?;
    Ok(())
}

/// The same for calls that can be suspended, where a guest waits without its thread.
pub(super) fn add_to_linker_async(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    add_what_never_waits(linker)?;
    filesystem::types::add_to_linker::<_, WasiFilesystem>(linker, Host::filesystem)?;
    io::error::add_to_linker::<_, HasTable>(linker, table)?;
    io::poll::add_to_linker::<_, HasTable>(linker, table)?;
    io::streams::add_to_linker::<_, HasTable>(linker, table)?;
    Ok(())
}

fn add_what_never_waits(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    wall_clock::add_to_linker::<_, HasWasi>(linker, wasi)?;
    monotonic_clock::add_to_linker::<_, HasWasi>(linker, wasi)?;
    random::add_to_linker::<_, HasWasi>(linker, wasi)?;
    insecure::add_to_linker::<_, HasWasi>(linker, wasi)?;
    insecure_seed::add_to_linker::<_, HasWasi>(linker, wasi)?;

    cli::exit::add_to_linker::<_, WasiCli>(linker, Host::cli)?;
    cli::environment::add_to_linker::<_, WasiCli>(linker, Host::cli)?;
    cli::stdin::add_to_linker::<_, WasiCli>(linker, Host::cli)?;
    cli::stdout::add_to_linker::<_, WasiCli>(linker, Host::cli)?;
    cli::stderr::add_to_linker::<_, WasiCli>(linker, Host::cli)?;
    cli::terminal_input::add_to_linker::<_, WasiCli>(linker, Host::cli)?;
    cli::terminal_output::add_to_linker::<_, WasiCli>(linker, Host::cli)?;
    cli::terminal_stdin::add_to_linker::<_, WasiCli>(linker, Host::cli)?;
    cli::terminal_stdout::add_to_linker::<_, WasiCli>(linker, Host::cli)?;
    cli::terminal_stderr::add_to_linker::<_, WasiCli>(linker, Host::cli)?;

    filesystem::preopens::add_to_linker::<_, WasiFilesystem>(linker, Host::filesystem)
}

fn table(host: &mut Host) -> &mut ResourceTable {
    &mut wasi(host).table
}

/// Whether an interface (without its version) is linked for guests.
pub(super) fn allowed(interface: &str) -> bool {
    matches!(
        interface,
        "wasi:io/error"
            | "wasi:io/poll"
            | "wasi:io/streams"
            | "wasi:clocks/wall-clock"
            | "wasi:clocks/monotonic-clock"
            | "wasi:random/random"
            | "wasi:random/insecure"
            | "wasi:random/insecure-seed"
            | "wasi:filesystem/types"
            | "wasi:filesystem/preopens"
            | "wasi:cli/environment"
            | "wasi:cli/exit"
            | "wasi:cli/stdin"
            | "wasi:cli/stdout"
            | "wasi:cli/stderr"
            | "wasi:cli/terminal-input"
            | "wasi:cli/terminal-output"
            | "wasi:cli/terminal-stdin"
            | "wasi:cli/terminal-stdout"
            | "wasi:cli/terminal-stderr"
    )
}

struct HasWasi;

impl HasData for HasWasi {
    type Data<'a> = &'a mut Wasi;
}

struct HasTable;

impl HasData for HasTable {
    type Data<'a> = &'a mut ResourceTable;
}

/// These functions are linked only for programs that import WASI, whose stores
/// have it.
fn wasi(host: &mut Host) -> &mut Wasi {
    host.wasi.as_deref_mut().expect("a program that imports WASI")
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let wasi = wasi(self);
        WasiCtxView {
            ctx: &mut wasi.ctx,
            table: &mut wasi.table,
        }
    }
}

impl wall_clock::Host for Wasi {
    fn now(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        Ok(wall_clock::Datetime {
            seconds: self.wall / NS_PER_S,
            nanoseconds: (self.wall % NS_PER_S) as u32,
        })
    }

    fn resolution(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        Ok(wall_clock::Datetime {
            seconds: 0,
            nanoseconds: 1,
        })
    }
}

impl monotonic_clock::Host for Wasi {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(self.monotonic.load(Ordering::Relaxed))
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(1)
    }

    fn subscribe_instant(&mut self, when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let left = when.saturating_sub(self.monotonic.load(Ordering::Relaxed));
        let wait = self.table.push(Wait {
            monotonic: Arc::clone(&self.monotonic),
            until: when,
            // What no clock reaches is longer than any invocation.
            ends: match self.waits {
                true => Some(Instant::now() + Duration::from_nanos(left).min(WAIT_MAX)),
                false => None,
            },
        })?;
        subscribe(&mut self.table, wait)
    }

    fn subscribe_duration(&mut self, ns: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let until = self.monotonic.load(Ordering::Relaxed).saturating_add(ns);
        self.subscribe_instant(until)
    }
}

/// A wait that is over as soon as someone waits for it, but for an activity's.
struct Wait {
    monotonic: Arc<AtomicU64>,
    until: u64,
    /// When it is over, if it takes time.
    ends: Option<Instant>,
}

#[async_trait::async_trait]
impl Pollable for Wait {
    async fn ready(&mut self) {
        if let Some(ends) = self.ends {
            sleep_until(ends).await;
        }
        self.monotonic.fetch_max(self.until, Ordering::Relaxed);
    }
}

/// SHA-256 of the seed and a counter: the same numbers for the same event, and
/// no two events with related ones.
struct Random {
    seed: [u8; 32],
    block: u64,
}

impl Random {
    fn new(event_id: &str, source_created: u64) -> Self {
        let mut hash = Sha256::new();
        hash.update(source_created.to_le_bytes());
        hash.update(event_id);
        Random {
            seed: hash.finalize().into(),
            block: 0,
        }
    }

    fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(32) {
            let mut hash = Sha256::new();
            hash.update(self.seed);
            hash.update(self.block.to_le_bytes());
            self.block += 1;
            let bytes = hash.finalize();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }

    fn u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        if len > RANDOM_BYTES_MAX {
            return Err(Violation::Random {
                bytes: len,
                max: RANDOM_BYTES_MAX,
            }
            .into());
        }
        let mut bytes = vec![0; len as usize];
        self.fill(&mut bytes);
        Ok(bytes)
    }
}

impl random::Host for Wasi {
    fn get_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        self.random.bytes(len)
    }

    fn get_random_u64(&mut self) -> wasmtime::Result<u64> {
        Ok(self.random.u64())
    }
}

impl insecure::Host for Wasi {
    fn get_insecure_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        self.random.bytes(len)
    }

    fn get_insecure_random_u64(&mut self) -> wasmtime::Result<u64> {
        Ok(self.random.u64())
    }
}

impl insecure_seed::Host for Wasi {
    fn insecure_seed(&mut self) -> wasmtime::Result<(u64, u64)> {
        Ok((self.random.u64(), self.random.u64()))
    }
}

/// stdout or stderr of a guest.
#[derive(Clone)]
struct GuestOutput {
    log: Arc<Mutex<GuestLog>>,
    stream: Stream,
}

impl IsTerminal for GuestOutput {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestOutput {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    /// Asked for by WASI versions that are not linked.
    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }
}

#[async_trait::async_trait]
impl Pollable for GuestOutput {
    async fn ready(&mut self) {}
}

impl OutputStream for GuestOutput {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.output(self.stream, &bytes)
            .map_err(|violation| StreamError::Trap(violation.into()))
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_numbers_follow_from_the_event() {
        let draw = |id: &str, created| {
            let mut random = Random::new(id, created);
            (random.u64(), random.bytes(100).unwrap())
        };
        assert_eq!(draw("S:1", 7), draw("S:1", 7));
        assert_ne!(draw("S:1", 7), draw("S:2", 7));
        assert_ne!(draw("S:1", 7), draw("S:1", 8));
        let mut random = Random::new("S:1", 7);
        assert_ne!(random.u64(), random.u64());
        assert!(random.bytes(RANDOM_BYTES_MAX + 1).is_err());
    }
}
