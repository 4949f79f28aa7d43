//! One unit of the NATS client protocol, as far as the proxy needs to tell one
//! from another (<https://docs.nats.io/reference/reference-protocols/nats-protocol>).
//!
//! ```text
//! PUB  <subject> [reply] <bytes>␍␊<payload>␍␊
//! HPUB <subject> [reply] <header bytes> <bytes>␍␊<headers><payload>␍␊
//! MSG  <subject> <sid> [reply] <bytes>␍␊<payload>␍␊
//! HMSG <subject> <sid> [reply] <header bytes> <bytes>␍␊<headers><payload>␍␊
//! anything else (INFO, CONNECT, SUB, PING, +OK, …) is one line
//! ```

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _};

/// Bytes of a message that are believed: far above any `max_payload`.
const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

pub struct Frame {
    /// Everything, as it came and as it is forwarded.
    pub bytes: Vec<u8>,
    /// Empty in what is not a message.
    pub subject: String,
    pub reply: Option<String>,
    /// Header block of HPUB and HMSG, otherwise empty.
    headers: String,
}

impl Frame {
    /// The next frame; `None` at the end of the connection.
    pub async fn read(from: &mut (impl AsyncBufRead + Unpin)) -> Result<Option<Frame>> {
        let mut bytes = Vec::new();
        if from.read_until(b'\n', &mut bytes).await? == 0 {
            return Ok(None);
        }
        let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
        let mut words = line.split_ascii_whitespace();
        let verb = words.next().unwrap_or_default().to_ascii_uppercase();
        let words: Vec<&str> = words.collect();
        // Words before the reply, words after it.
        let (before, after) = match verb.as_str() {
            "PUB" => (1, 1),
            "HPUB" => (1, 2),
            "MSG" => (2, 1),
            "HMSG" => (2, 2),
            _ => {
                return Ok(Some(Frame {
                    bytes,
                    subject: String::new(),
                    reply: None,
                    headers: String::new(),
                }));
            }
        };
        let reply = match words.len().checked_sub(before + after) {
            Some(0) => None,
            Some(1) => Some(words[before].to_owned()),
            _ => bail!("not a NATS message: {line}"),
        };
        let size = |index: usize| -> Result<usize> {
            let size: usize = words[index].parse().with_context(|| format!("no size: {line}"))?;
            anyhow::ensure!(size <= MESSAGE_BYTES_MAX, "an unbelievable size: {line}");
            Ok(size)
        };
        let total = size(words.len() - 1)?;
        let header_bytes = if after == 2 { size(words.len() - 2)? } else { 0 };
        let start = bytes.len();
        bytes.resize(start + total + 2, 0);
        from.read_exact(&mut bytes[start..]).await?;
        let headers = bytes
            .get(start..start + header_bytes)
            .with_context(|| format!("headers longer than the message: {line}"))?;
        Ok(Some(Frame {
            headers: String::from_utf8_lossy(headers).into_owned(),
            subject: words[0].to_owned(),
            reply,
            bytes,
        }))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// Place in an atomic batch, counted from 1.
    pub fn batch_sequence(&self) -> Option<u64> {
        self.header("Nats-Batch-Sequence")?.parse().ok()
    }

    /// Whether this closes an atomic batch (ADR-50).
    pub fn closes_batch(&self) -> bool {
        self.header("Nats-Batch-Commit").is_some()
    }

    /// Whether this is a commit record that stands alone.
    pub fn is_single_record(&self) -> bool {
        let mut tokens = self.subject.split('.');
        tokens.next() == Some("$WEIR") && tokens.nth(1) == Some("c") && self.batch_sequence().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn frames(text: &str) -> Result<Vec<Frame>> {
        let mut from = text.as_bytes();
        let mut all = Vec::new();
        while let Some(frame) = Frame::read(&mut from).await? {
            all.push(frame);
        }
        Ok(all)
    }

    #[tokio::test]
    async fn messages_are_told_from_lines_and_kept_as_they_came() -> Result<()> {
        let block = "NATS/1.0\r\nNats-Batch-Sequence: 2\r\nA: b\r\n\r\n";
        let text = format!(
            "INFO {{}}\r\nPUB a.b 3\r\nx\r\n\r\nPUB a _IN.1 2\r\nok\r\n\
             HPUB $WEIR.L.c.h.1.0 _IN.2 {} {}\r\n{block}hi\r\nPING\r\n",
            block.len(),
            block.len() + 2
        );
        let all = frames(&text).await?;
        let joined: Vec<u8> = all.iter().flat_map(|f| f.bytes.clone()).collect();
        assert_eq!(joined, text.as_bytes());
        assert_eq!(all.len(), 5);
        assert_eq!((all[1].subject.as_str(), all[1].reply.as_deref()), ("a.b", None));
        assert_eq!(all[2].reply.as_deref(), Some("_IN.1"));
        assert_eq!(all[3].batch_sequence(), Some(2));
        assert!(!all[3].closes_batch() && !all[3].is_single_record());
        Ok(())
    }

    #[tokio::test]
    async fn commits_are_recognised() -> Result<()> {
        let block = "NATS/1.0\r\nNats-Batch-Id: x\r\nNats-Batch-Sequence: 9\r\nNats-Batch-Commit: 1\r\n\r\n";
        let text = format!(
            "HPUB $WEIR.L.c.h.1.0 r {0} {0}\r\n{block}\r\nPUB $WEIR.L.c.h.1.0 r 0\r\n\r\nPUB $WEIR.L.d.h.1.0 r 0\r\n\r\n",
            block.len()
        );
        let all = frames(&text).await?;
        let seen: Vec<(bool, bool)> = all
            .iter()
            .map(|f| (f.closes_batch(), f.is_single_record()))
            .collect();
        assert_eq!(seen, [(true, false), (false, true), (false, false)]);
        Ok(())
    }
}
