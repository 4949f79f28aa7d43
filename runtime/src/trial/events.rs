//! The events of a trial: a file with one JSON object per line.
//!
//! ```text
//! {"subject": "orders.7", "data": {"total": 5}, "headers": {"From": "web"}, "time": "2026-01-01T12:00:00Z"}
//! ```
//!
//! | field | holds |
//! | --- | --- |
//! | `subject` | a subject that a `[[source]]` of the manifest takes |
//! | `data`, `text` or `data_base64` | the payload: JSON to the byte as it stands, text, or any bytes; without one it is empty |
//! | `headers` | an object; a value is a string, or a list of them |
//! | `time` | RFC 3339, not before the event above; where it is left out, a second after that |
//! | `stream` | needed only where several sources take the subject |
//!
//! Empty lines are skipped. Anything else is an [`Error`] that names the line and the field.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::deployment::manifest::Source;
use crate::effects::check;
use crate::model::event::Headers;
use crate::model::pattern::matches_any;

/// When the first event is stored where it does not say: the beginning of 2026,
/// in Unix nanoseconds.
pub const FIRST_TIME: u64 = 1_767_225_600_000_000_000;

/// How long after the event above one is stored that does not say when.
pub const TIME_STEP: u64 = 1_000_000_000;

const FIELDS: [&str; 7] = [
    "subject",
    "data",
    "text",
    "data_base64",
    "headers",
    "time",
    "stream",
];

/// One event to store in a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// Counted from 1.
    pub line: usize,
    /// Index of the source in the manifest.
    pub source: usize,
    pub subject: String,
    pub headers: Headers,
    pub data: Bytes,
    /// Unix nanoseconds; never before the event above.
    pub time: u64,
}

/// What is wrong with a line. Shown as `events.jsonl:3: time: …`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}:{line}: {}{problem}", file.display(), if field.is_empty() { String::new() } else { format!("{field}: ") })]
pub struct Error {
    pub file: PathBuf,
    /// Counted from 1.
    pub line: usize,
    /// Empty where no field is concerned.
    pub field: String,
    pub problem: String,
}

/// Reads the events in the text of `file`, for these sources.
///
/// # Errors
/// The first thing that is wrong.
pub fn read(file: &Path, text: &str, sources: &[Source]) -> Result<Vec<Given>, Error> {
    let mut events: Vec<Given> = Vec::new();
    for (line, text) in lines(text) {
        let before = events.last().map(|event| event.time);
        let event = read_line(text, sources, before).map_err(|problem| problem.at(file, line))?;
        events.push(Given { line, ..event });
    }
    Ok(events)
}

/// Lines that are not empty, with their numbers.
pub(super) fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = (1..).zip(text.lines());
    lines.filter(|(_, text)| !text.trim().is_empty())
}

pub(super) struct Problem {
    field: &'static str,
    problem: String,
}

impl Problem {
    pub(super) fn at(self, file: &Path, line: usize) -> Error {
        Error {
            file: file.to_owned(),
            line,
            field: self.field.into(),
            problem: self.problem,
        }
    }
}

pub(super) fn wrong<T>(field: &'static str, problem: impl Into<String>) -> Result<T, Problem> {
    Err(Problem {
        field,
        problem: problem.into(),
    })
}

/// Fields of one line: the text of each value, as it stands there.
pub(super) struct Line<'a>(BTreeMap<String, &'a str>);

impl<'a> Line<'a> {
    /// Reads a line that may have these fields.
    pub(super) fn parse(text: &'a str, known: &[&str]) -> Result<Line<'a>, Problem> {
        if let Err(error) = serde_json::from_str::<BTreeMap<String, IgnoredAny>>(text) {
            return wrong("", format!("no JSON object: {error}"));
        }
        let mut fields = BTreeMap::new();
        // The text is an object: what is not `"name": value` is a comma, or its end.
        let mut rest = text.trim_start().trim_start_matches('{');
        while let Some((name, after)) = first::<String>(rest.trim_start_matches(is_between)) {
            let value = after.trim_start_matches(is_between);
            let Some((IgnoredAny, after)) = first(value) else {
                break;
            };
            let value = &value[..value.len() - after.len()];
            if fields.insert(name.clone(), value).is_some() {
                return wrong("", format!("field `{name}` is there twice"));
            }
            rest = after;
        }
        if let Some(unknown) = fields.keys().find(|name| !known.contains(&name.as_str())) {
            return wrong(
                "",
                format!("unknown field `{unknown}`; there are {}", known.join(", ")),
            );
        }
        Ok(Line(fields))
    }

    pub(super) fn get<T: DeserializeOwned>(
        &self,
        field: &'static str,
        what: &str,
    ) -> Result<Option<T>, Problem> {
        match self.0.get(field) {
            None => Ok(None),
            Some(value) => match serde_json::from_str(value) {
                Ok(value) => Ok(Some(value)),
                Err(_) => wrong(field, format!("{value} is not {what}")),
            },
        }
    }
}

/// What stands between names and values of an object.
fn is_between(character: char) -> bool {
    character.is_ascii_whitespace() || matches!(character, ',' | ':')
}

/// The JSON value that a text begins with, and the text after it.
fn first<T: DeserializeOwned>(text: &str) -> Option<(T, &str)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<T>();
    let value = values.next()?.ok()?;
    Some((value, &text[values.byte_offset()..]))
}

fn read_line(text: &str, sources: &[Source], before: Option<u64>) -> Result<Given, Problem> {
    let line = Line::parse(text, &FIELDS)?;
    let Some(subject) = line.get::<String>("subject", "a string")? else {
        return wrong("subject", "missing");
    };
    if let Err(violation) = check::subject(&subject) {
        return wrong("subject", violation.to_string());
    }
    let stream = line.get::<String>("stream", "a string")?;
    Ok(Given {
        line: 0,
        source: source(&subject, stream.as_deref(), sources)?,
        headers: headers(&line)?,
        data: payload(&line, ["data", "text", "data_base64"])?,
        time: time(&line, before)?,
        subject,
    })
}

/// The source that takes a subject.
fn source(subject: &str, stream: Option<&str>, sources: &[Source]) -> Result<usize, Problem> {
    let taking: Vec<usize> = (0..sources.len())
        .filter(|n| matches_any(&sources[*n].subjects, subject))
        .collect();
    let listed = || {
        let all = sources
            .iter()
            .map(|source| format!("{} ({})", source.stream, source.subjects.join(", ")));
        all.collect::<Vec<_>>().join(", ")
    };
    if let Some(stream) = stream {
        return match taking.iter().find(|n| sources[**n].stream == stream) {
            Some(source) => Ok(*source),
            None => wrong(
                "stream",
                format!(
                    "no [[source]] takes `{subject}` from {stream}; there are {}",
                    listed()
                ),
            ),
        };
    }
    match taking[..] {
        [source] => Ok(source),
        [] => wrong(
            "subject",
            format!("no [[source]] takes `{subject}`; there are {}", listed()),
        ),
        _ => wrong(
            "stream",
            format!("missing, and several sources take `{subject}`: {}", listed()),
        ),
    }
}

/// The payload of a line, which is in one of these fields: as JSON, as text, or in Base64.
pub(super) fn payload(line: &Line<'_>, fields: [&'static str; 3]) -> Result<Bytes, Problem> {
    let [json, text, base64] = fields;
    let given: Vec<&'static str> = fields
        .into_iter()
        .filter(|field| line.0.contains_key(*field))
        .collect();
    if let [first, second, ..] = given[..] {
        return wrong(second, format!("beside `{first}`: there is one payload"));
    }
    if let Some(json) = line.0.get(json) {
        return Ok((*json).to_owned().into());
    }
    if let Some(text) = line.get::<String>(text, "a string")? {
        return Ok(text.into());
    }
    let Some(encoded) = line.get::<String>(base64, "a string")? else {
        return Ok(Bytes::new());
    };
    match STANDARD.decode(encoded) {
        Ok(bytes) => Ok(bytes.into()),
        Err(error) => wrong(base64, error.to_string()),
    }
}

/// The headers of a line.
pub(super) fn headers(line: &Line<'_>) -> Result<Headers, Problem> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Values {
        One(String),
        Several(Vec<String>),
    }
    let what = "an object of strings, or of lists of them";
    let given = line
        .get::<BTreeMap<String, Values>>("headers", what)?
        .unwrap_or_default();
    let mut headers = Headers::new();
    for (name, values) in given {
        if name.is_empty() || name.contains([':', ' ', '\r', '\n']) || !name.is_ascii() {
            return wrong("headers", format!("`{name}` is no header name"));
        }
        let values = match values {
            Values::One(value) => vec![value],
            Values::Several(values) => values,
        };
        for value in values {
            if value.contains(['\r', '\n']) {
                return wrong("headers", format!("the value of `{name}` holds a line end"));
            }
            headers.push((name.clone(), value));
        }
    }
    Ok(headers)
}

fn time(line: &Line<'_>, before: Option<u64>) -> Result<u64, Problem> {
    let Some(text) = line.get::<String>("time", "a time like \"2026-01-01T12:00:00Z\"")? else {
        return Ok(before.map_or(FIRST_TIME, |before| before.saturating_add(TIME_STEP)));
    };
    let parsed = OffsetDateTime::parse(&text, &Rfc3339).ok();
    let nanos = parsed.and_then(|time| u64::try_from(time.unix_timestamp_nanos()).ok());
    match (nanos, before) {
        (None, _) => wrong(
            "time",
            format!("`{text}` is not an RFC 3339 time since 1970, like \"2026-01-01T12:00:00Z\""),
        ),
        (Some(nanos), Some(before)) if nanos < before => wrong(
            "time",
            format!(
                "`{text}` is before the event above; a stream keeps its events in the order of their times"
            ),
        ),
        (Some(nanos), _) => Ok(nanos),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Start;

    fn sources() -> Vec<Source> {
        [("A", &["a.>"][..]), ("B", &["b.*", "a.both"])]
            .map(|(stream, subjects)| Source {
                stream: stream.into(),
                subjects: subjects.iter().map(|s| (*s).to_owned()).collect(),
                start: Start::First,
            })
            .into()
    }

    fn events(text: &str) -> Result<Vec<Given>, String> {
        read(Path::new("e.jsonl"), text, &sources()).map_err(|error| error.to_string())
    }

    #[test]
    fn payloads_are_kept_to_the_byte() {
        let text = "\n{\"subject\": \"a.x\", \"data\": {\"b\": 1.0,  \"a\":2} }\n\
                    {\"subject\": \"b.y\", \"text\": \"ü\\n\"}\n\
                    {\"subject\": \"b.y\", \"data_base64\": \"/w==\"}\n{\"subject\": \"b.y\"}\n\
                    {\"data\":-1.50e+3,\"subject\":\"b.y\"}";
        let events = events(text).expect("valid lines");
        let data: Vec<&[u8]> = events.iter().map(|event| &event.data[..]).collect();
        assert_eq!(
            data,
            [
                &b"{\"b\": 1.0,  \"a\":2}"[..],
                "ü\n".as_bytes(),
                b"\xff",
                b"",
                b"-1.50e+3"
            ]
        );
        let places: Vec<_> = events.iter().map(|event| (event.line, event.source)).collect();
        assert_eq!(places, [(2, 0), (3, 1), (4, 1), (5, 1), (6, 1)]);
    }

    #[test]
    fn times_step_by_a_second_from_the_last_one_given() {
        let text = "{\"subject\":\"a.x\"}\n{\"subject\":\"a.x\",\"time\":\"2026-01-01T00:10:00+00:00\"}\n\
                    {\"subject\":\"a.x\"}";
        let seconds: Vec<u64> = events(text)
            .expect("valid lines")
            .iter()
            .map(|event| (event.time - FIRST_TIME) / TIME_STEP)
            .collect();
        assert_eq!(seconds, [0, 600, 601]);
    }

    #[test]
    fn headers_may_have_several_values() {
        let text = r#"{"subject":"a.x","headers":{"B":["1","2"],"A":"0"}}"#;
        let expected = [("A", "0"), ("B", "1"), ("B", "2")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert_eq!(events(text).expect("a valid line")[0].headers, expected);
    }

    #[test]
    fn bad_lines_are_named_with_their_field() {
        for (line, said) in [
            ("no", "e.jsonl:2: no JSON object"),
            ("[1]", "e.jsonl:2: no JSON object"),
            (r#"{"data": 1}"#, "e.jsonl:2: subject: missing"),
            (r#"{"subject": 7}"#, "e.jsonl:2: subject: 7 is not a string"),
            (r#"{"subject": "a..b"}"#, "e.jsonl:2: subject:"),
            (
                r#"{"subject": "c.x"}"#,
                "e.jsonl:2: subject: no [[source]] takes `c.x`; there are A (a.>), B",
            ),
            (r#"{"subject": "a.both"}"#, "e.jsonl:2: stream: missing"),
            (
                r#"{"subject": "a.x", "stream": "B"}"#,
                "e.jsonl:2: stream: no [[source]]",
            ),
            (
                r#"{"subject": "a.x", "bogus": 1}"#,
                "e.jsonl:2: unknown field `bogus`",
            ),
            (
                r#"{"subject": "a.x", "subject": "a.y"}"#,
                "e.jsonl:2: field `subject` is there twice",
            ),
            (
                r#"{"subject": "a.x", "data": 1, "text": ""}"#,
                "e.jsonl:2: text: beside `data`",
            ),
            (
                r#"{"subject": "a.x", "data_base64": "?"}"#,
                "e.jsonl:2: data_base64:",
            ),
            (
                r#"{"subject": "a.x", "time": "noon"}"#,
                "e.jsonl:2: time: `noon` is not",
            ),
            (
                r#"{"subject": "a.x", "time": "2025-01-01T00:00:00Z"}"#,
                "e.jsonl:2: time: `2025",
            ),
            (
                r#"{"subject": "a.x", "headers": {"A": 1}}"#,
                "e.jsonl:2: headers: {\"A\": 1} is not",
            ),
            (
                r#"{"subject": "a.x", "headers": {"A b": ""}}"#,
                "e.jsonl:2: headers: `A b`",
            ),
        ] {
            let error = events(&format!("{{\"subject\":\"a.x\"}}\n{line}\n")).expect_err(line);
            assert!(
                error.starts_with(said),
                "{line}\n  said     {error}\n  expected {said}"
            );
        }
    }

    #[test]
    fn a_subject_of_several_sources_needs_its_stream() {
        let both = events(r#"{"subject": "a.both", "stream": "B"}"#).expect("a valid line");
        assert_eq!(both[0].source, 1);
    }
}
