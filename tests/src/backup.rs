//! Backups by the server's own API, as `nats stream backup` and `nats stream restore` make them.

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use futures::StreamExt as _;
use serde_json::{Value, json};

use crate::PATIENCE;
use crate::bus::Bus;

/// What the tool writes into a folder: the stream's configuration and state, and an archive of its files.
#[derive(Clone)]
pub struct Backup {
    stream: String,
    about: Value,
    chunks: Vec<Bytes>,
}

impl Bus {
    /// Takes a backup of a stream, while it may be written to.
    pub async fn backup(&self, stream: &str) -> Result<Backup> {
        let inbox = self.client.new_inbox();
        let mut messages = self.client.subscribe(inbox.clone()).await?;
        let request = json!({ "deliver_subject": inbox, "no_consumers": true });
        let about = self.api(&format!("STREAM.SNAPSHOT.{stream}"), request).await?;
        let mut chunks = Vec::new();
        loop {
            let message = tokio::time::timeout(PATIENCE, messages.next()).await?;
            let message = message.context("the connection ended")?;
            if message.payload.is_empty() {
                ensure!(
                    message.status.is_none_or(|status| status.as_u16() == 204),
                    "{message:?}"
                );
                break;
            }
            chunks.push(message.payload);
            if let Some(reply) = message.reply {
                self.client.publish(reply, Bytes::new()).await?;
            }
        }
        Ok(Backup {
            stream: stream.into(),
            about: json!({ "config": about["config"], "state": about["state"] }),
            chunks,
        })
    }

    /// Makes the stream of a backup, which must not be there.
    pub async fn restore(&self, backup: &Backup) -> Result<()> {
        let call = format!("STREAM.RESTORE.{}", backup.stream);
        let ready = self.api(&call, backup.about.clone()).await?;
        let to = ready["deliver_subject"]
            .as_str()
            .context("nowhere to send to")?
            .to_owned();
        for chunk in &backup.chunks {
            let answer = self.client.request(to.clone(), chunk.clone()).await?;
            ensure!(answer.payload.is_empty(), "{call}: {answer:?}");
        }
        let done = self.client.request(to, Bytes::new()).await?;
        let done: Value = serde_json::from_slice(&done.payload)?;
        ensure!(done.get("error").is_none(), "{call}: {done}");
        Ok(())
    }

    /// When the server says that it made a stream.
    pub async fn created(&self, stream: &str) -> Result<String> {
        let answer = self.api(&format!("STREAM.INFO.{stream}"), Value::Null).await?;
        Ok(answer["created"].as_str().context("no created time")?.to_owned())
    }
}
