//! The compiler and allocator that all programs of a process share.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use wasmtime::component::{Component, Linker};
use wasmtime::{Config, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::bindings::Handler;
use super::code_cache::CodeCache;
use super::host::{Host, HostData};
use super::http::{self, Answers, Transport};
use super::limiter::TABLE_ELEMENTS_MAX;
use super::wasi;

/// How often running guests look at the clock: the precision of `time_ms`.
pub const EPOCH_TICK: Duration = Duration::from_millis(10);

/// Stack that guest code may use; deeper recursion is a trap.
pub const WASM_STACK_BYTES_MAX: usize = 1024 * 1024;

/// Stack that a thread needs to call guests: theirs, and the host functions that
/// they call. It is the default of Rust's threads.
pub const THREAD_STACK_BYTES_MIN: usize = 2 * WASM_STACK_BYTES_MAX;

/// Functions named in a trap's backtrace.
const BACKTRACE_FRAMES_MAX: usize = 32;

/// Core instances in one component: interpreters compiled with their standard
/// library have about 40.
pub(super) const CORE_INSTANCES_MAX: u32 = 128;
pub(super) const MEMORIES_MAX: u32 = 8;
pub(super) const TABLES_MAX: u32 = 64;

/// Memory and metadata of one component's instances; about 300 KiB seen.
const INSTANCE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Compiles programs and ends invocations that take too long. One per process:
/// it reserves address space for all instances there may be.
pub struct Engine {
    pub(super) wasmtime: wasmtime::Engine,
    /// What every program may import.
    pub(super) linker: Linker<Host>,
    /// The same, and WASI without capabilities.
    pub(super) linker_wasi: Linker<Host>,
    /// What an activity may import: all of that, and `wasi:http`. Its calls can be suspended.
    pub(super) linker_activity: Linker<Host>,
    /// Where the requests of activities go.
    pub(super) transport: Arc<Transport>,
    /// Where compiled code is kept, if it is.
    code_cache: Option<CodeCache>,
    /// Dropped to stop the ticker.
    running: Option<Sender<()>>,
    ticker: Option<JoinHandle<()>>,
}

impl Engine {
    /// An engine for at most `instances_max` live instances, which keeps what it
    /// compiles in `code_cache`, if there is one.
    ///
    /// # Errors
    /// This machine cannot run it: a processor without a backend, too little
    /// address space (`ulimit -v`) for that many instances, no thread left.
    pub fn new(instances_max: u32, code_cache: Option<CodeCache>) -> anyhow::Result<Arc<Engine>> {
        Engine::with_transport(instances_max, code_cache, Transport::network())
    }

    /// An engine whose activities reach no network: their requests are answered from what was
    /// written down.
    ///
    /// # Errors
    /// As [`Engine::new`].
    pub fn offline(
        instances_max: u32,
        code_cache: Option<CodeCache>,
        answers: Arc<Answers>,
    ) -> anyhow::Result<Arc<Engine>> {
        Engine::with_transport(instances_max, code_cache, Transport::answers(answers))
    }

    fn with_transport(
        instances_max: u32,
        code_cache: Option<CodeCache>,
        transport: Transport,
    ) -> anyhow::Result<Arc<Engine>> {
        let mut config = Config::new();
        config
            .allocation_strategy(allocation(instances_max.max(1)))
            .epoch_interruption(true)
            .max_wasm_stack(WASM_STACK_BYTES_MAX)
            .wasm_backtrace_max_frames(BACKTRACE_FRAMES_MAX.try_into().ok())
            .cranelift_nan_canonicalization(true)
            .relaxed_simd_deterministic(true)
            .wasm_memory64(false)
            // Costs 45 % of a call where a dependency turns the feature on.
            .concurrency_support(false);
        let wasmtime = wasmtime::Engine::new(&config).map_err(anyhow::Error::from).with_context(|| {
            format!("cannot set up the Wasm engine for {instances_max} instances; allow more address space (ulimit -v) or run fewer partitions on this host")
        })?;
        let mut linker = Linker::new(&wasmtime);
        Handler::add_to_linker::<_, HostData>(&mut linker, |host| host)?;
        let mut linker_wasi = linker.clone();
        wasi::add_to_linker(&mut linker_wasi)?;
        let mut linker_activity = linker.clone();
        wasi::add_to_linker_async(&mut linker_activity)?;
        http::add_to_linker(&mut linker_activity)?;

        let (running, stopped) = channel::<()>();
        let clock = wasmtime.clone();
        let ticker = std::thread::Builder::new()
            .name("weir-epoch".into())
            .spawn(move || {
                while stopped.recv_timeout(EPOCH_TICK) == Err(RecvTimeoutError::Timeout) {
                    clock.increment_epoch();
                }
            })
            .context("cannot start the thread that ends handlers that take too long")?;
        Ok(Arc::new(Engine {
            wasmtime,
            linker,
            linker_wasi,
            linker_activity,
            transport: Arc::new(transport),
            code_cache,
            running: Some(running),
            ticker: Some(ticker),
        }))
    }

    /// Compiles a component, or takes it from the cache.
    pub(super) fn component(&self, bytes: &[u8]) -> wasmtime::Result<Component> {
        let compile = || Component::from_binary(&self.wasmtime, bytes);
        match &self.code_cache {
            Some(cache) => cache.component(&self.wasmtime, bytes, compile),
            None => compile(),
        }
    }

    /// Ticks after which an invocation of `limit_ms` is over. One more than fit,
    /// because the first one may come at once.
    pub(super) fn ticks(limit_ms: u32) -> u64 {
        u64::from(limit_ms).div_ceil(EPOCH_TICK.as_millis() as u64) + 1
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        drop(self.running.take());
        if let Some(ticker) = self.ticker.take()
            && ticker.join().is_err()
        {
            tracing::error!("the thread that ends handlers that take too long had panicked");
        }
    }
}

/// Slots for all instances, reserved once: a new instance reuses the pages of
/// the last one, which makes `instance = "per-event"` about twice as fast as
/// mapping its memory anew. Slots are address space, not memory.
fn allocation(instances_max: u32) -> InstanceAllocationStrategy {
    // Nearly every component has one memory and a few tables; the bound per
    // component is for the exceptions. Slots of memory are what uses up address space.
    const MEMORIES_SPARE: u32 = 64;
    const TABLES_EACH: u32 = 16;
    const CORE_INSTANCES_EACH: u32 = 48;
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(instances_max)
        .max_component_instance_size(INSTANCE_BYTES_MAX)
        .max_core_instances_per_component(CORE_INSTANCES_MAX)
        .total_core_instances(
            instances_max
                .saturating_mul(CORE_INSTANCES_EACH)
                .max(CORE_INSTANCES_MAX),
        )
        .max_core_instance_size(INSTANCE_BYTES_MAX)
        .max_memories_per_component(MEMORIES_MAX)
        .max_memories_per_module(MEMORIES_MAX)
        .total_memories(instances_max.saturating_add(MEMORIES_SPARE))
        .max_tables_per_component(TABLES_MAX)
        .max_tables_per_module(TABLES_MAX)
        .total_tables(instances_max.saturating_mul(TABLES_EACH).max(TABLES_MAX))
        .table_elements(TABLE_ELEMENTS_MAX);
    InstanceAllocationStrategy::Pooling(pool)
}
