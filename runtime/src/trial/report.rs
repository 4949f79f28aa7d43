//! Outcomes as text for people, and as lines of JSON to keep and to compare.
//!
//! A line is one event, or one timer that fired. What there is none of is left out:
//!
//! ```text
//! {"event":"ORDERS:1","subject":"orders.7","key":"7",
//!  "requests":[{"method":"POST","url":"https://api.example.com/x","data":{"total":5},"status":201}],
//!  "emits":[{"subject":"totals.7","headers":{"A":"b"},"data":{"total":5}}],
//!  "cells":{"n":1},"deleted":["draft"],
//!  "timers":{"unpaid":{"due":"2026-01-01T00:15:00Z","data":{"total":5}}},"cancelled":["paid"],
//!  "dead_letter":{"kind":"reject","reason":"no such product","attempts":1}}
//! {"timer":"unpaid","key":"7","time":"2026-01-01T00:15:00Z", …}
//! ```
//!
//! A payload is `data` where it is JSON on one line, to the byte; else `text`
//! where it is UTF-8, else `data_base64`: the fields of [`super::events`]. A cell is
//! its JSON, or an object of `text` or `data_base64`. The id of a fired timer's event is not
//! in it, since it counts messages of the ledger and would differ with any emit before it.
//!
//! The `status` of a request that got no response is null.
//!
//! What is not an effect (log lines, attempts that were followed by another, backtraces)
//! is in the lines of `--json` and not in those that are compared.

use std::fmt::Write;
use std::io::IsTerminal;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::handler::Asked;
use crate::stage::outcome::{Emitted, Outcome};

/// One line of JSON without its line end; `whole` adds what is not an effect.
pub fn json_line(outcome: &Outcome, whole: bool) -> String {
    let mut line = Object::default();
    match &outcome.timer {
        Some(timer) => {
            line.add("timer", &json!(timer));
            line.add("key", &json!(outcome.key));
            line.add("time", &json!(rfc3339(outcome.time)));
        }
        None => {
            line.add("event", &json!(outcome.id));
            line.add("subject", &json!(outcome.subject));
            line.add("key", &json!(outcome.key));
        }
    }
    if whole && !outcome.log.is_empty() {
        let lines = outcome.log.iter().map(|(level, text)| {
            let level = level.as_str().to_ascii_lowercase();
            json!({ "level": level, "message": text })
        });
        line.add("log", &lines.collect());
    }
    if whole && !outcome.attempts.is_empty() {
        let attempts = outcome
            .attempts
            .iter()
            .map(|attempt| json!({ "reason": attempt.reason, "backoff_ms": attempt.backoff_ms }));
        line.add("failed_attempts", &attempts.collect());
    }
    if !outcome.requests.is_empty() {
        let requests: Vec<String> = outcome.requests.iter().map(request).collect();
        line.add_raw("requests", &format!("[{}]", requests.join(",")));
    }
    if !outcome.emits.is_empty() {
        let emits: Vec<String> = outcome.emits.iter().map(emit).collect();
        line.add_raw("emits", &format!("[{}]", emits.join(",")));
    }
    let (mut cells, mut deleted) = (Object::default(), Vec::new());
    for change in &outcome.cells {
        match &change.after {
            Some(value) => cells.add_raw(&change.name, &cell(value)),
            None => deleted.push(change.name.as_str()),
        }
    }
    line.add_object("cells", cells);
    line.add_list("deleted", &deleted);
    let (mut timers, mut cancelled) = (Object::default(), Vec::new());
    for change in &outcome.timers {
        match &change.set {
            Some((due, data)) => {
                let mut timer = Object::default();
                timer.add("due", &json!(rfc3339(*due)));
                timer.add_payload(data);
                timers.add_raw(&change.name, &timer.finish());
            }
            None => cancelled.push(change.name.as_str()),
        }
    }
    line.add_object("timers", timers);
    line.add_list("cancelled", &cancelled);
    if let Some(letter) = &outcome.dead_letter {
        let mut dead = Object::default();
        dead.add("kind", &json!(letter.kind));
        dead.add("reason", &json!(letter.reason));
        dead.add("attempts", &json!(letter.attempts));
        if let (true, Some(backtrace)) = (whole, &letter.backtrace) {
            dead.add("backtrace", &json!(backtrace));
        }
        line.add_object("dead_letter", dead);
    }
    line.finish()
}

fn request(asked: &Asked) -> String {
    let mut object = Object::default();
    object.add("method", &json!(asked.method.as_str()));
    object.add("url", &json!(asked.url));
    object.add_payload(&asked.body);
    object.add("status", &json!(asked.status.map(|status| status.as_u16())));
    object.finish()
}

fn emit(emitted: &Emitted) -> String {
    let mut object = Object::default();
    object.add("subject", &json!(emitted.subject));
    let mut headers = Object::default();
    let mut rest = &emitted.headers[..];
    while let Some(((name, value), after)) = rest.split_first() {
        rest = after;
        if headers.has(name) {
            continue;
        }
        let mut values = vec![value.as_str()];
        let more = after.iter().filter(|(other, _)| other == name);
        values.extend(more.map(|(_, value)| value.as_str()));
        match values[..] {
            [value] => headers.add(name, &json!(value)),
            _ => headers.add(name, &json!(values)),
        }
    }
    object.add_object("headers", headers);
    object.add_payload(&emitted.data);
    object.finish()
}

/// A JSON object in the making, in the order of what is added.
#[derive(Default)]
struct Object {
    text: String,
    names: Vec<String>,
}

impl Object {
    fn add(&mut self, name: &str, value: &Value) {
        self.add_raw(name, &value.to_string());
    }

    fn add_raw(&mut self, name: &str, json: &str) {
        let comma = if self.text.is_empty() { "" } else { "," };
        let name_json = Value::from(name);
        write!(self.text, "{comma}{name_json}:{json}").expect("a string takes all that is written");
        self.names.push(name.to_owned());
    }

    fn add_object(&mut self, name: &str, object: Object) {
        if !object.text.is_empty() {
            self.add_raw(name, &object.finish());
        }
    }

    fn add_list(&mut self, name: &str, list: &[&str]) {
        if !list.is_empty() {
            self.add(name, &json!(list));
        }
    }

    fn add_payload(&mut self, data: &[u8]) {
        match (json_on_one_line(data), std::str::from_utf8(data)) {
            _ if data.is_empty() => {}
            (Some(json), _) => self.add_raw("data", json),
            (None, Ok(text)) => self.add("text", &json!(text)),
            (None, Err(_)) => self.add("data_base64", &json!(STANDARD.encode(data))),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.names.iter().any(|other| other == name)
    }

    fn finish(self) -> String {
        format!("{{{}}}", self.text)
    }
}

fn cell(value: &[u8]) -> String {
    match json_on_one_line(value) {
        Some(json) => json.to_owned(),
        None if value.is_empty() => json!({ "text": "" }).to_string(),
        None => {
            let mut object = Object::default();
            object.add_payload(value);
            object.finish()
        }
    }
}

/// The bytes as text, if they are one JSON value and nothing else, to the byte.
fn json_on_one_line(data: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(data).ok()?;
    let whole = text.trim() == text && !text.contains(['\n', '\r']);
    let valid = whole && serde_json::from_str::<IgnoredAny>(text).is_ok();
    valid.then_some(text)
}

/// A payload or a cell's value as people read it.
fn shown(data: &[u8]) -> String {
    match std::str::from_utf8(data) {
        Ok("") => "(empty)".into(),
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        Ok(text) => text.escape_debug().to_string(),
        Err(_) => format!("base64:{}", STANDARD.encode(data)),
    }
}

/// Unix nanoseconds as RFC 3339 in UTC, as precise as they are.
pub fn rfc3339(unix_ns: u64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(unix_ns.into())
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| format!("{unix_ns} ns"))
}

/// Colours, where stdout is a terminal and `NO_COLOR` is not set.
#[derive(Debug, Clone, Copy)]
pub struct Paint(bool);

impl Paint {
    pub fn of_stdout() -> Paint {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Paint(wanted && std::io::stdout().is_terminal())
    }

    pub fn plain() -> Paint {
        Paint(false)
    }

    fn with(self, code: u8, text: &str) -> String {
        match self.0 {
            true => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            false => text.to_owned(),
        }
    }

    pub fn bold(self, text: &str) -> String {
        self.with(1, text)
    }

    pub fn red(self, text: &str) -> String {
        self.with(31, text)
    }

    pub fn green(self, text: &str) -> String {
        self.with(32, text)
    }
}

/// An outcome for people: several lines, without the last line end.
pub fn text(outcome: &Outcome, paint: Paint) -> String {
    let mut out = Text(heading(outcome, paint));
    for (level, line) in &outcome.log {
        let level = level.as_str().to_ascii_lowercase();
        out.item("log", &indented(&format!("{level}: {line}")));
    }
    for (n, attempt) in (1..).zip(&outcome.attempts) {
        let reason = indented(&attempt.reason);
        let again = format!("again after {} ms", attempt.backoff_ms);
        out.item("failed", &format!("attempt {n}: {reason}; {again}"));
    }
    for Asked {
        method,
        url,
        body,
        status,
    } in &outcome.requests
    {
        let body = if body.is_empty() {
            String::new()
        } else {
            format!(" {}", shown(body))
        };
        let answer = status.map_or("(no response)".into(), |status| status.as_u16().to_string());
        out.item("request", &format!("{method} {url}{body} -> {answer}"));
    }
    for emitted in &outcome.emits {
        let headers = emitted
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}"));
        let headers: Vec<String> = headers.collect();
        let headers = match headers.is_empty() {
            true => String::new(),
            false => format!(" [{}]", headers.join(", ")),
        };
        let data = shown(&emitted.data);
        out.item("emit", &format!("{}{headers} {data}", emitted.subject));
    }
    for change in &outcome.cells {
        let side = |value: &Option<bytes::Bytes>| value.as_ref().map_or("(none)".into(), |v| shown(v));
        let (before, after) = (side(&change.before), side(&change.after));
        out.item("cell", &format!("{}: {before} -> {after}", change.name));
    }
    for change in &outcome.timers {
        let name = &change.name;
        let what = match &change.set {
            Some((due, data)) if data.is_empty() => format!("{name} set for {}", rfc3339(*due)),
            Some((due, data)) => format!("{name} set for {} with {}", rfc3339(*due), shown(data)),
            None => format!("{name} cancelled"),
        };
        out.item("timer", &what);
    }
    if let Some(letter) = &outcome.dead_letter {
        let reason = indented(&letter.reason);
        let attempts = match letter.attempts {
            0 => "the handler was not called".into(),
            1 => "1 attempt".into(),
            n => format!("{n} attempts"),
        };
        let said = format!("{}: {reason} ({attempts})", letter.kind);
        out.item("dead letter", &paint.red(&said));
        for line in letter.backtrace.iter().flat_map(|backtrace| backtrace.lines()) {
            out.0.push_str(&format!("\n      {}", line.trim_end()));
        }
    }
    if outcome.is_nothing() {
        out.item("nothing", "");
    }
    out.0
}

fn heading(outcome: &Outcome, paint: Paint) -> String {
    let key = match outcome.key.is_empty() {
        true => "no key".into(),
        false => format!("key {}", outcome.key),
    };
    let time = rfc3339(outcome.time);
    match &outcome.timer {
        Some(timer) => format!("{}  {key}  {time}", paint.bold(&format!("timer {timer} fired"))),
        None => format!("{}  {}  {key}  {time}", paint.bold(&outcome.id), outcome.subject),
    }
}

struct Text(String);

impl Text {
    fn item(&mut self, what: &str, said: &str) {
        self.0.push_str(format!("\n  {what:<7} {said}").trim_end());
    }
}

/// Further lines of a text, such as a traceback, stand under its first.
fn indented(text: &str) -> String {
    text.trim_end().replace('\n', "\n          ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::outcome::{CellChange, TimerChange};
    use tracing::Level;

    fn outcome() -> Outcome {
        Outcome {
            id: "S:1".into(),
            subject: "s.a".into(),
            key: "a".into(),
            time: 1_000_000_000,
            timer: None,
            log: vec![(Level::INFO, "hello".into())],
            attempts: Vec::new(),
            requests: Vec::new(),
            emits: vec![Emitted {
                subject: "out.a".into(),
                headers: [("A", "1"), ("B", "2"), ("A", "3")]
                    .map(|(n, v)| (n.into(), v.into()))
                    .into(),
                data: "{\"b\": 1.0,\"a\":2}".into(),
            }],
            cells: vec![
                CellChange {
                    name: "gone".into(),
                    before: Some("x".into()),
                    after: None,
                },
                CellChange {
                    name: "n".into(),
                    before: None,
                    after: Some("7".into()),
                },
                CellChange {
                    name: "t".into(),
                    before: Some("".into()),
                    after: Some("hi\n".into()),
                },
            ],
            timers: vec![
                TimerChange {
                    name: "off".into(),
                    set: None,
                },
                TimerChange {
                    name: "on".into(),
                    set: Some((1_500_000_000, vec![0xff].into())),
                },
            ],
            dead_letter: None,
        }
    }

    #[test]
    fn lines_keep_payloads_to_the_byte() {
        let expected = r#"{"event":"S:1","subject":"s.a","key":"a","emits":[{"subject":"out.a","headers":{"A":["1","3"],"B":"2"},"data":{"b": 1.0,"a":2}}],"cells":{"n":7,"t":{"text":"hi\n"}},"deleted":["gone"],"timers":{"on":{"due":"1970-01-01T00:00:01.5Z","data_base64":"/w=="}},"cancelled":["off"]}"#;
        assert_eq!(json_line(&outcome(), false), expected);
        let whole: Value = serde_json::from_str(&json_line(&outcome(), true)).expect("JSON");
        assert_eq!(whole["log"][0]["message"], "hello");
    }

    #[test]
    fn text_for_people() {
        let expected = "S:1  s.a  key a  1970-01-01T00:00:01Z\n  log     info: hello\n  \
                        emit    out.a [A: 1, B: 2, A: 3] {\"b\": 1.0,\"a\":2}\n  \
                        cell    gone: x -> (none)\n  cell    n: (none) -> 7\n  \
                        cell    t: (empty) -> hi\\n\n  timer   off cancelled\n  \
                        timer   on set for 1970-01-01T00:00:01.5Z with base64:/w==";
        assert_eq!(text(&outcome(), Paint::plain()), expected);
    }

    #[test]
    fn only_whole_json_on_one_line_is_data() {
        for (data, json) in [
            ("{}", true),
            ("1", true),
            ("{} ", false),
            ("[1,\n2]", false),
            ("x", false),
            ("", false),
        ] {
            assert_eq!(json_on_one_line(data.as_bytes()).is_some(), json, "{data:?}");
        }
    }
}
