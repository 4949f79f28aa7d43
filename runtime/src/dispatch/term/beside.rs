//! A term of a generation that is rebuilt: it stays behind the one that runs.

use std::time::{Duration, Instant};

use tracing::debug;

use super::{End, Term};
use crate::dispatch::context::State;
use crate::dispatch::quiet::Held;
use crate::dispatch::tenure::Failure;

/// How soon a lane that has caught up with the running generation looks how far that is.
const LOOK_FURTHER: Duration = Duration::from_millis(100);

/// How soon one looks again that waits for somebody to redrive or drop a dead letter.
const LOOK_WHETHER_DONE: Duration = Duration::from_secs(1);

impl Term<'_> {
    /// The next event is one that the running generation has not done.
    pub(super) fn hold(&mut self, held: Held) {
        self.held = true;
        let pause = match held {
            Held::NotYetThere => LOOK_FURTHER,
            Held::GivenUp(_) => LOOK_WHETHER_DONE,
        };
        self.retry_at = Some(Instant::now() + pause);
        if let Held::GivenUp(event) = held {
            let reason = format!(
                "waits for event {event}, which the running generation has given up: redrive or drop its dead letter"
            );
            self.lane.show(State::Retrying, Some(reason));
        }
    }

    /// Once everything is handled over again, nothing is quiet any more.
    pub(super) fn forget_what_is_done(&mut self) {
        let quiet = self.tenure.quiet.as_ref();
        if quiet.is_some_and(|quiet| quiet.recorded(&self.tenure.positions).is_none()) {
            self.tenure.quiet = None;
            if let Some(workspace) = self.workspace.as_mut() {
                workspace.quiet = None;
            }
        }
    }

    /// How far the running generation has come by now, if this one is beside it.
    pub(super) async fn look_at_the_one_before(&mut self) -> Result<(), End> {
        let (Some(quiet), Some(workspace)) = (self.tenure.quiet.as_mut(), self.workspace.as_mut()) else {
            return Ok(());
        };
        if !quiet.beside() {
            return Ok(());
        }
        match quiet.look(&self.context, self.partition).await {
            Ok(()) => workspace.quiet = Some(quiet.clone()),
            // What was seen before holds.
            Err(Failure::Unavailable(reason)) => {
                debug!(
                    partition = self.partition,
                    reason, "the running generation cannot be read"
                );
            }
            Err(Failure::Stopped(reason)) => return Err(End::Stopped(reason)),
            // The takeover meets it, too, and does what is to be done.
            Err(error) => return Err(End::Restart(error.to_string())),
        }
        Ok(())
    }
}
