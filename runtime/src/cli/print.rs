//! Data on stdout: tables for people, JSON for programs, bytes as they are.

use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Value, json};

/// Writes bytes and nothing else.
pub fn bytes(data: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(data)?;
    out.flush()
}

pub fn line(text: &str) -> io::Result<()> {
    bytes(format!("{text}\n").as_bytes())
}

/// Writes the line that a script waits for. A service whose stdout is gone goes on without.
pub fn ready(text: &str) {
    if let Err(error) = line(text) {
        tracing::warn!(%error, text, "cannot write to stdout");
    }
}

/// Writes one JSON document.
pub fn json(value: &impl Serialize) -> anyhow::Result<()> {
    Ok(line(&serde_json::to_string_pretty(value)?)?)
}

/// Writes rows below a header, in aligned columns.
pub fn table<const N: usize>(header: [&str; N], rows: &[[String; N]]) -> io::Result<()> {
    line(&render(header, rows))
}

fn render<const N: usize>(header: [&str; N], rows: &[[String; N]]) -> String {
    let header = header.map(str::to_owned);
    let all = || std::iter::once(&header).chain(rows);
    let width = |column: usize| all().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let lines: Vec<String> = all()
        .map(|row| {
            let cells = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:width$}"));
            let line = cells.collect::<Vec<_>>().join("  ");
            line.trim_end().to_owned()
        })
        .collect();
    lines.join("\n")
}

/// Bytes in JSON: a string if they are UTF-8, else `{"base64": …}`.
pub fn value(data: &[u8]) -> Value {
    match std::str::from_utf8(data) {
        Ok(text) => json!(text),
        Err(_) => json!({ "base64": STANDARD.encode(data) }),
    }
}

/// Bytes in a table: text without control characters, else base64; cut.
pub fn shown(data: &[u8]) -> String {
    /// Characters of one cell of a table.
    const MAX: usize = 100;
    let text = match std::str::from_utf8(data) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        Ok(text) => text.escape_debug().to_string(),
        Err(_) => format!("base64:{}", STANDARD.encode(data)),
    };
    cut(&text, MAX)
}

/// At most `max` characters of the first line.
pub fn cut(text: &str, max: usize) -> String {
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(max) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line.to_owned(),
    }
}

/// Unix nanoseconds as RFC 3339 in UTC, to the second.
pub fn time(unix_ns: u64) -> String {
    let seconds = (unix_ns / 1_000_000_000).try_into().unwrap_or(i64::MAX);
    time::OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|time| time.format(&time::format_description::well_known::Rfc3339).ok())
        .unwrap_or_else(|| format!("{unix_ns} ns"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align_by_characters() {
        let rows = [
            ["ä".to_owned(), "1".to_owned()],
            ["bcd".to_owned(), "22".to_owned()],
        ];
        assert_eq!(render(["A", "B"], &rows), "A    B\nä    1\nbcd  22");
    }

    #[test]
    fn bytes_are_shown_as_what_they_are() {
        assert_eq!(value(b"a\n"), json!("a\n"));
        assert_eq!(value(&[0xff]), json!({ "base64": "/w==" }));
        assert_eq!(shown(b"a\nb"), "a\\nb");
        assert_eq!(shown(&[0xff]), "base64:/w==");
        assert_eq!(cut("äöü\nx", 2), "äö…");
        assert_eq!(time(1_000_000_000), "1970-01-01T00:00:01Z");
        assert_eq!(time(u64::MAX), "2554-07-21T23:34:33Z");
    }
}
