//! The execution threads. Guest code runs here and nowhere else, so that a
//! handler that computes for a second never delays a commit or a heartbeat.
//!
//! Two sets of them: few for handlers, which use a processor while they run, and many for activities, which mostly
//! wait. An activity that waits for a minute holds a thread of its own set, its own partition, and nothing else.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::handler::{Program, THREAD_STACK_BYTES_MIN};

/// Guest code runs on the thread's own stack, and so do the host functions that
/// it calls.
const THREAD_STACK_BYTES: usize = THREAD_STACK_BYTES_MIN + 1024 * 1024;

type Job = Box<dyn FnOnce() + Send>;

/// The threads of a host.
#[derive(Debug, Clone)]
pub struct Executors {
    pub handlers: Executor,
    pub activities: Executor,
}

impl Executors {
    /// Starts so many threads of each; called within a runtime.
    ///
    /// # Errors
    /// The system has no thread left to give.
    pub fn start(handlers: usize, activities: usize) -> std::io::Result<Executors> {
        Ok(Executors {
            handlers: Executor::start(handlers)?,
            activities: Executor::for_activities(activities)?,
        })
    }

    pub fn of(&self, program: &Program) -> &Executor {
        match program.is_activity() {
            true => &self.activities,
            false => &self.handlers,
        }
    }
}

/// Runs jobs on a fixed number of threads, first come, first served. The queue
/// has at most one job per lane.
#[derive(Debug, Clone)]
pub struct Executor {
    jobs: crossbeam_channel::Sender<Job>,
}

impl Executor {
    /// Starts `threads` threads; they end when the last handle is dropped.
    ///
    /// # Errors
    /// The system has no thread left to give.
    pub fn start(threads: usize) -> std::io::Result<Executor> {
        Executor::named("weir-exec", threads, None)
    }

    /// The same for activities: while they wait, the runtime from which this is called
    /// does the rest.
    ///
    /// # Errors
    /// The system has no thread left to give.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn for_activities(threads: usize) -> std::io::Result<Executor> {
        Executor::named("weir-act", threads, Some(Handle::current()))
    }

    fn named(name: &str, threads: usize, runtime: Option<Handle>) -> std::io::Result<Executor> {
        let (jobs, receiver) = crossbeam_channel::unbounded::<Job>();
        for n in 0..threads.max(1) {
            let (receiver, runtime) = (receiver.clone(), runtime.clone());
            std::thread::Builder::new()
                .name(format!("{name}-{n}"))
                .stack_size(THREAD_STACK_BYTES)
                .spawn(move || {
                    let _entered = runtime.as_ref().map(Handle::enter);
                    for job in receiver {
                        // A panic here is a broken invariant of ours. The job's reply is
                        // dropped with it, which stops its lane before the next commit;
                        // the other lanes go on.
                        let _ = catch_unwind(AssertUnwindSafe(job));
                    }
                })?;
        }
        Ok(Executor { jobs })
    }

    /// Runs `work` on a thread. The receiver errs if `work` panicked.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> oneshot::Receiver<T> {
        let (reply, receiver) = oneshot::channel();
        let job = Box::new(move || {
            // A lane that gave up does not want the answer any more.
            let _ = reply.send(work());
        });
        // Threads live as long as a handle does, so the channel is open.
        let _ = self.jobs.send(job);
        receiver
    }
}
