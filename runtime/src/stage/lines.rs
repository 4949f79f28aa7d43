//! What guests log on a stage.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::dispatcher::Dispatch;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::handler::GUEST_TARGET;

/// What guests log, and the subscriber that catches it on the execution thread.
pub(super) struct Lines {
    caught: Arc<Mutex<Vec<(Level, String)>>>,
    dispatch: Dispatch,
}

impl Default for Lines {
    fn default() -> Self {
        let caught: Arc<Mutex<Vec<_>>> = Arc::default();
        let layer = GuestLines {
            caught: caught.clone(),
        };
        Lines {
            caught,
            dispatch: Dispatch::new(tracing_subscriber::registry().with(layer)),
        }
    }
}

impl Lines {
    pub fn dispatch(&self) -> Dispatch {
        self.dispatch.clone()
    }

    /// What was caught since the last time.
    pub fn take(&self) -> Vec<(Level, String)> {
        std::mem::take(&mut *self.caught.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Catches what guests log.
struct GuestLines {
    caught: Arc<Mutex<Vec<(Level, String)>>>,
}

impl<S: Subscriber> Layer<S> for GuestLines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        struct Message(String);
        impl Visit for Message {
            fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
                if field.name() == "message" {
                    self.0 = format!("{value:?}");
                }
            }
        }
        if event.metadata().target() == GUEST_TARGET {
            let mut message = Message(String::new());
            event.record(&mut message);
            let mut caught = self.caught.lock().unwrap_or_else(PoisonError::into_inner);
            caught.push((*event.metadata().level(), message.0));
        }
    }
}
