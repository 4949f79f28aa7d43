//! A process that works in terms. A term begins by reading where things stand and
//! ends with whatever goes wrong; there is one way to recover, and it is the
//! way that every start takes.

use std::time::Duration;

use tokio::sync::watch;
use tracing::{error, info, warn};

use super::trouble::Trouble;

/// Waits between two terms: short at first, because most troubles are a server that
/// restarts, and never so long that somebody who has mended something waits for it.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// Tells everybody who holds it that the process is to end.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

/// The other end of a [`Stop`].
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

impl Stop {
    pub fn new() -> (Stopper, Stop) {
        let (sender, receiver) = watch::channel(false);
        (Stopper(sender), Stop(receiver))
    }

    /// Whether it is to end.
    pub fn is_set(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is to end. Cancel safe.
    pub async fn wait(&mut self) {
        // An error means that nobody can say so any more: then it is to end, too.
        let _ = self.0.wait_for(|stop| *stop).await;
    }

    /// Pauses; false if it is to end before that.
    pub async fn pause(&mut self, time: Duration) -> bool {
        tokio::select! {
            () = self.wait() => false,
            () = tokio::time::sleep(time) => true,
        }
    }
}

impl Stopper {
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

/// Something that works in terms.
pub trait Worker {
    /// Works until it is told to stop, or has nothing left to do and was to end
    /// then. Sets `sound` once everything is there and work goes on.
    fn term(&mut self, stop: &mut Stop, sound: &mut bool) -> impl Future<Output = Result<(), Trouble>>;
}

/// Goes from term to term until one ends well.
///
/// # Errors
/// [`Trouble::Stopped`], as text: somebody has to decide.
pub async fn serve(worker: &mut impl Worker, mut stop: Stop) -> anyhow::Result<()> {
    let mut wait = RETRY_FIRST;
    while !stop.is_set() {
        let mut sound = false;
        let trouble = match worker.term(&mut stop, &mut sound).await {
            Ok(()) => return Ok(()),
            Err(trouble) => trouble,
        };
        if sound {
            wait = RETRY_FIRST;
        }
        let pause = wait.mul_f64(rand::random_range(0.5..1.0));
        let seconds = format!("{:.1}", pause.as_secs_f32());
        match trouble {
            Trouble::Stopped(reason) => anyhow::bail!(reason),
            Trouble::Unavailable(reason) => warn!(reason, %seconds, "waiting; nothing is lost meanwhile"),
            Trouble::Blocked(reason) => error!(reason, %seconds, "nothing goes on until this is mended"),
            Trouble::Fenced(reason) => info!(reason, %seconds, "another one of this name has taken over"),
        }
        wait = (wait * 2).min(RETRY_MAX);
        stop.pause(pause).await;
    }
    Ok(())
}
