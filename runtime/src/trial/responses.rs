//! What the outside world answers in a trial: a file with one JSON object per line.
//!
//! ```text
//! {"method": "POST", "url": "https://api.example.com/charges", "status": 201, "body": {"id": "ch_1"}}
//! ```
//!
//! | field | holds |
//! | --- | --- |
//! | `method`, `url` | the request that it answers: both the same, to the letter |
//! | `status` | 100 to 999; 200 where it is left out |
//! | `headers` | an object; a value is a string, or a list of them |
//! | `body`, `text` or `body_base64` | the body: JSON to the byte as it stands, text, or any bytes; without one it is empty |
//!
//! Several lines for one request answer it in their order, the last one again and again. A request without
//! a line is refused, like one to a server that is down.

use std::path::Path;

use http::{HeaderName, HeaderValue, Method, StatusCode, Uri};

use super::events::{Error, Line, Problem, headers, lines, payload, wrong};
use crate::handler::{Answer, Answers};

const FIELDS: [&str; 7] = [
    "method",
    "url",
    "status",
    "headers",
    "body",
    "text",
    "body_base64",
];

/// Reads the answers in the text of `file`.
///
/// # Errors
/// The first thing that is wrong.
pub fn read(file: &Path, text: &str) -> Result<Answers, Error> {
    let mut answers = Answers::default();
    for (number, text) in lines(text) {
        let (method, url, answer) = read_line(text).map_err(|problem| problem.at(file, number))?;
        answers.push(method, url, answer);
    }
    Ok(answers)
}

fn read_line(text: &str) -> Result<(Method, String, Answer), Problem> {
    let line = Line::parse(text, &FIELDS)?;
    let Some(method) = line.get::<String>("method", "a string")? else {
        return wrong("method", "missing");
    };
    let Ok(method) = method.parse::<Method>() else {
        return wrong("method", format!("`{method}` is no method, like GET"));
    };
    let Some(url) = line.get::<String>("url", "a string")? else {
        return wrong("url", "missing");
    };
    let Some(url) = url.parse::<Uri>().ok().filter(|url| url.host().is_some()) else {
        return wrong(
            "url",
            format!("`{url}` is no absolute URL, like https://api.example.com/x"),
        );
    };
    let status = line.get::<u16>("status", "a number")?.unwrap_or(200);
    let Ok(status) = StatusCode::from_u16(status) else {
        return wrong("status", format!("{status} must be from 100 to 999"));
    };
    let mut valid = Vec::new();
    for (name, value) in headers(&line)? {
        match (name.parse::<HeaderName>(), HeaderValue::try_from(value)) {
            (Ok(name), Ok(value)) => valid.push((name, value)),
            _ => return wrong("headers", format!("`{name}` or its value is not valid in HTTP")),
        }
    }
    let answer = Answer {
        status,
        headers: valid,
        body: payload(&line, ["body", "text", "body_base64"])?,
    };
    // As a request is written that has this URL.
    Ok((method, url.to_string(), answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_names_its_place() {
        for (line, expected) in [
            (r#"{"url": "http://a/"}"#, "r.jsonl:2: method: missing"),
            (r#"{"method": "GET"}"#, "r.jsonl:2: url: missing"),
            (
                r#"{"method": "G T", "url": "http://a/"}"#,
                "r.jsonl:2: method: `G T` is no method",
            ),
            (
                r#"{"method": "GET", "url": "/a"}"#,
                "r.jsonl:2: url: `/a` is no absolute URL",
            ),
            (
                r#"{"method": "GET", "url": "http://a/", "status": 99}"#,
                "r.jsonl:2: status: 99 must be from 100 to 999",
            ),
            (
                r#"{"method": "GET", "url": "http://a/", "data": 1}"#,
                "r.jsonl:2: unknown field `data`; there are method, url, status",
            ),
            (
                r#"{"method": "GET", "url": "http://a/", "headers": {"a/b": "c"}}"#,
                "r.jsonl:2: headers: `a/b` or its value is not valid in HTTP",
            ),
            (
                r#"{"method": "GET", "url": "http://a/", "body": 1, "text": "x"}"#,
                "r.jsonl:2: text: beside `body`",
            ),
        ] {
            let error = read(Path::new("r.jsonl"), &format!("\n{line}"))
                .expect_err(line)
                .to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
