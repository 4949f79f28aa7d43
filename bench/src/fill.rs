//! The events of the benchmark: stream `BENCH`, subjects `bench.<key>`, 10,000
//! keys in an order that looks random and is always the same, 200 bytes each.

use anyhow::Result;
use async_nats::Subject;
use bytes::Bytes;

use crate::server::Server;
use crate::weir::PARTITIONS;
use crate::wire::{BATCH_MESSAGES_MAX, Sender, create_stream};

pub const STREAM: &str = "BENCH";
pub const SUBJECTS: &str = "bench.>";
/// The same events, their partition of [`PARTITIONS`](crate::weir::PARTITIONS) in the subject.
pub const PARTITIONED: &str = "PARTED";
pub const PARTITIONED_SUBJECTS: &str = "parted.*.*";
pub const KEYS: u64 = 10_000;
pub const EVENT_BYTES: usize = 200;

/// Number of the key that event `index` belongs to (SplitMix64, so that a group of
/// consecutive events touches nearly as many keys as it has events).
pub fn key(index: u64) -> u64 {
    let mut z = index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) % KEYS
}

/// The key as a subject token.
pub fn key_token(key: u64) -> String {
    format!("k{key:05}")
}

/// How many events each key has among the first `events`.
pub fn events_per_key(events: u64) -> Vec<u64> {
    let mut counts = vec![0; KEYS as usize];
    for index in 0..events {
        counts[key(index) as usize] += 1;
    }
    counts
}

/// A JSON document of exactly [`EVENT_BYTES`].
pub fn payload(index: u64) -> Bytes {
    let head = format!(r#"{{"index":{index},"pad":""#);
    let padding = EVENT_BYTES - head.len() - 2;
    format!(r#"{head}{}"}}"#, "x".repeat(padding)).into()
}

/// NATS's own `partition()`: 32-bit FNV-1a of the key.
fn partition(key: &str) -> u32 {
    let hash = key.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    hash % PARTITIONS
}

/// Creates the stream and appends `events` to it.
pub async fn fill(server: &Server, events: u64) -> Result<()> {
    fill_as(server, STREAM, SUBJECTS, events, |key| format!("bench.{key}")).await
}

/// The same events with the partition's number in their subjects.
pub async fn fill_partitioned(server: &Server, events: u64) -> Result<()> {
    fill_as(server, PARTITIONED, PARTITIONED_SUBJECTS, events, |key| {
        format!("parted.{}.{key}", partition(&key))
    })
    .await
}

async fn fill_as(
    server: &Server,
    stream: &str,
    subjects: &str,
    events: u64,
    subject: impl Fn(String) -> String,
) -> Result<()> {
    let client = server.connect().await?;
    create_stream(&client, stream, &[subjects]).await?;
    let mut sender = Sender::new(&client).await?;
    let mut index = 0;
    while index < events {
        let end = events.min(index + BATCH_MESSAGES_MAX as u64);
        let batch: Vec<(Subject, Bytes)> = (index..end)
            .map(|i| (subject(key_token(key(i))).into(), payload(i)))
            .collect();
        sender.send(batch).await?;
        index = end;
    }
    sender.settle().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_has_the_size_that_the_report_names() {
        for index in [0, 9, 1_000_000, u64::MAX] {
            let data = payload(index);
            assert_eq!(data.len(), EVENT_BYTES);
            serde_json::from_slice::<serde_json::Value>(&data).expect("a JSON document");
        }
    }

    #[test]
    fn keys_are_spread_evenly() {
        let counts = events_per_key(KEYS * 100);
        assert_eq!(counts.iter().sum::<u64>(), KEYS * 100);
        assert!(counts.iter().all(|&n| (40..200).contains(&n)));
    }
}
