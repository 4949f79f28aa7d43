//! What the tests that cross crates are written with: a real nats-server
//! ([`nats`]), real `weir` processes ([`host`]), a proxy between the two that
//! loses what it is told to lose ([`proxy`]), the world outside ([`outside`]), and the checks that every run
//! ends with ([`check`]). Most tests start with a [`system::System`], which is
//! all of these wired together. What needs no server runs in the process, on a
//! log in memory ([`inproc`]). What has to do with PostgreSQL starts a server of it ([`postgres`]).
//!
//! Each test starts its own server on its own port with its own folders, so that
//! tests do not meet. Nothing here sleeps to let something happen: [`until`]
//! asks until it has.

pub mod backup;
pub mod bus;
pub mod check;
pub mod host;
pub mod inproc;
pub mod nats;
pub mod outside;
pub mod plugins;
pub mod postgres;
pub mod proxy;
pub mod system;

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// How long a condition may take before a test calls it failed. Far above what
/// any takes on two busy cores: a bound for what never comes, not a measurement.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Pause between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(30);

/// Looks at `condition` until it holds, and returns what it found.
///
/// An `Err` of the condition says why it does not hold yet. The last one is part
/// of the failure, which comes after `bound`.
pub async fn until<T>(
    what: &str,
    bound: Duration,
    mut condition: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let begin = Instant::now();
    loop {
        match condition().await {
            Ok(found) => return Ok(found),
            Err(reason) if begin.elapsed() >= bound => {
                return Err(anyhow!(
                    "waited {} s for: {what}; last: {reason:#}",
                    bound.as_secs()
                ));
            }
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

/// The seed of this run: `WEIR_SEED` where it is set, so that a failure can be
/// repeated; otherwise a new one. Printed either way.
pub fn seed() -> u64 {
    let seed = match std::env::var("WEIR_SEED") {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("WEIR_SEED is {text:?}, which is not a number")),
        Err(_) => rand::random(),
    };
    println!("WEIR_SEED={seed}");
    seed
}

/// The handler that the README shows whole compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// What the pages on patterns show compiles, and does what they say.
#[cfg(doctest)]
#[doc = include_str!("../../docs/patterns/event-sourcing.md")]
struct EventSourcing;

#[cfg(doctest)]
#[doc = include_str!("../../docs/patterns/sagas.md")]
struct Sagas;

#[cfg(doctest)]
#[doc = include_str!("../../docs/patterns/locks.md")]
struct Locks;

#[cfg(doctest)]
#[doc = include_str!("../../docs/state-versions.md")]
struct StateVersions;

#[cfg(doctest)]
#[doc = include_str!("../../docs/patterns/activities.md")]
struct Activities;
