//! The two streams: flights go into one, and what the handlers emitted is read
//! out of the other.

use std::collections::VecDeque;

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::{Context, stream};
use futures::TryStreamExt;
use indicatif::ProgressBar;

use crate::flights::Flight;
use crate::{LEDGER, STREAM};

/// Publishes that are not acknowledged yet.
const IN_FLIGHT_MAX: usize = 2_000;

/// Creates the stream of flights.
pub async fn create(jetstream: &Context) -> Result<()> {
    let config = stream::Config {
        name: STREAM.into(),
        subjects: vec!["flights.>".into()],
        ..Default::default()
    };
    jetstream
        .create_stream(config)
        .await
        .context("cannot create the stream of flights")?;
    Ok(())
}

/// Publishes the flights in order; each must be stored with the sequence of its
/// row, since the ids that are expected later are made of it.
pub async fn publish(jetstream: &Context, flights: &[Flight], bar: &ProgressBar) -> Result<()> {
    let mut in_flight = VecDeque::with_capacity(IN_FLIGHT_MAX);
    let mut stored = 0;
    for flight in flights {
        let payload = serde_json::to_vec(flight)?;
        in_flight.push_back(
            jetstream
                .publish(flight.subject(), payload.into())
                .await?
                .into_future(),
        );
        if in_flight.len() == IN_FLIGHT_MAX {
            // Half of them, so that the connection is never empty.
            settle(&mut in_flight, IN_FLIGHT_MAX / 2, &mut stored).await?;
            bar.set_position(stored);
        }
    }
    settle(&mut in_flight, 0, &mut stored).await?;
    bar.set_position(stored);
    Ok(())
}

type Ack = <async_nats::jetstream::context::PublishAckFuture as IntoFuture>::IntoFuture;

async fn settle(in_flight: &mut VecDeque<Ack>, leave: usize, stored: &mut u64) -> Result<()> {
    while in_flight.len() > leave {
        let Some(next) = in_flight.pop_front() else { break };
        let ack = next.await.context("a flight was not stored")?;
        *stored += 1;
        ensure!(
            ack.sequence == *stored,
            "flight {stored} was stored with sequence {}",
            ack.sequence
        );
    }
    Ok(())
}

/// An event that a handler emitted.
pub struct Emitted {
    pub subject: String,
    pub payload: String,
}

/// All that the handlers emitted, in the order of the ledger, and the time in
/// Unix nanoseconds at which the last of it was stored.
pub async fn emitted(jetstream: &Context) -> Result<(Vec<Emitted>, i128)> {
    let ledger = jetstream.get_stream(LEDGER).await.context("there is no ledger")?;
    let config = pull::Config {
        filter_subjects: vec!["stats.>".into(), "alerts.>".into(), "rotations.>".into()],
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::None,
        memory_storage: true,
        ..Default::default()
    };
    let mut consumer = ledger.create_consumer(config).await?;
    let mut emitted = Vec::new();
    let mut last = 0;
    if consumer.info().await?.num_pending == 0 {
        return Ok((emitted, last));
    }
    let mut messages = consumer.stream().max_messages_per_batch(5_000).messages().await?;
    while let Some(message) = messages.try_next().await? {
        let info = message
            .info()
            .map_err(|error| anyhow::anyhow!("a message without a sequence: {error}"))?;
        last = info.published.unix_timestamp_nanos();
        let done = info.pending == 0;
        emitted.push(Emitted {
            subject: message.subject.to_string(),
            payload: String::from_utf8_lossy(&message.payload).into_owned(),
        });
        if done {
            break;
        }
    }
    Ok((emitted, last))
}

/// When the first flight was stored, in Unix nanoseconds.
pub async fn first_stored(jetstream: &Context) -> Result<i128> {
    let stream = jetstream.get_stream(STREAM).await?;
    Ok(stream.cached_info().state.first_timestamp.unix_timestamp_nanos())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{broker, flights};

    /// More flights than may be in flight, so that the window turns over.
    #[tokio::test]
    async fn flights_are_stored_in_the_order_of_their_rows() {
        let server = std::env::var("WEIR_NATS_SERVER")
            .expect("WEIR_NATS_SERVER names a nats-server; `cargo xtask test` sets it");
        let folder = tempfile::tempdir().unwrap();
        let broker = broker::start(Path::new(&server), folder.path()).await.unwrap();
        let jetstream = async_nats::jetstream::new(async_nats::connect(&broker.url).await.unwrap());
        create(&jetstream).await.unwrap();

        let flights: Vec<_> = flights::tests::three()
            .into_iter()
            .cycle()
            .take(2 * IN_FLIGHT_MAX + 1)
            .collect();
        let bar = ProgressBar::hidden();
        publish(&jetstream, &flights, &bar).await.unwrap();
        assert_eq!(bar.position(), flights.len() as u64);
        assert!(first_stored(&jetstream).await.unwrap() > 0);

        let stream = jetstream.get_stream(STREAM).await.unwrap();
        for sequence in [1, 2, IN_FLIGHT_MAX, flights.len()] {
            let message = stream.get_raw_message(sequence as u64).await.unwrap();
            let flight = &flights[sequence - 1];
            assert_eq!(message.subject.as_str(), flight.subject());
            assert_eq!(message.payload, serde_json::to_vec(flight).unwrap());
        }
    }
}
