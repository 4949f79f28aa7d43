//! One row of an outbox, and the message that it becomes.

use bytes::Bytes;
use serde_json::Value;

use crate::commit::group::CAUSE_HEADER;
use crate::effects::check;
use crate::log::Append;
use crate::model::event::Headers;
use crate::model::pattern::matches_any;

/// A row as it was claimed.
#[derive(Debug, Clone)]
pub struct Row {
    pub id: i64,
    pub subject: String,
    /// A JSON object, as text.
    pub headers: Option<String>,
    /// `None` where it is so large that it was not even read.
    pub payload: Option<Bytes>,
    /// Bytes of the payload.
    pub bytes: i64,
}

/// A row that can be sent.
#[derive(Debug, Clone)]
pub struct Sendable {
    pub id: i64,
    pub message: Append,
}

/// What the ledger takes.
#[derive(Debug, Clone)]
pub struct Taken {
    pub ledger: String,
    pub subjects: Vec<String>,
    /// The server's `max_payload`, in bytes.
    pub max_payload: usize,
}

impl Row {
    /// The row's message, or why the ledger can never have it.
    ///
    /// # Errors
    /// A sentence for `<table>_rejected`.
    pub fn message(self, table: &str, taken: &Taken) -> Result<Sendable, (i64, String)> {
        let id = self.id;
        self.build(table, taken).map_err(|reason| (id, reason))
    }

    fn build(self, table: &str, taken: &Taken) -> Result<Sendable, String> {
        check::subject(&self.subject).map_err(|violation| violation.to_string())?;
        if !matches_any(&taken.subjects, &self.subject) {
            return Err(format!(
                "subject {:?} is none of ledger {} ({})",
                self.subject,
                taken.ledger,
                taken.subjects.join(", ")
            ));
        }
        let mut headers = match &self.headers {
            Some(text) => read_headers(text)?,
            None => Headers::new(),
        };
        let header_bytes =
            check::headers(&self.subject, &headers).map_err(|violation| violation.to_string())?;
        let Some(data) = self.payload else {
            return Err(format!(
                "{} bytes of payload; the server takes {} (max_payload)",
                self.bytes, taken.max_payload
            ));
        };
        check::message(&self.subject, header_bytes, data.len(), taken.max_payload)
            .map_err(|violation| violation.to_string())?;
        headers.push((CAUSE_HEADER.into(), format!("postgres:{table}:{}", self.id)));
        let message = Append {
            subject: self.subject,
            headers,
            data,
            ..Append::default()
        };
        Ok(Sendable { id: self.id, message })
    }
}

/// `{"Name": "value", "Another": ["a", "b"]}`. Numbers and booleans are written as JSON writes them.
fn read_headers(text: &str) -> Result<Headers, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("headers: {error}"))?;
    let fields = match value {
        Value::Null => return Ok(Headers::new()),
        Value::Object(fields) => fields,
        _ => return Err("headers are no JSON object of names and values".into()),
    };
    let mut headers = Headers::new();
    for (name, value) in fields {
        let values = match value {
            Value::Array(values) => values,
            one => vec![one],
        };
        for value in values {
            let text = match value {
                Value::String(text) => text,
                Value::Number(_) | Value::Bool(_) => value.to_string(),
                _ => return Err(format!("header {name:?} is neither text nor a list of texts")),
            };
            headers.push((name.clone(), text));
        }
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(subject: &str, headers: Option<&str>, payload: usize) -> Row {
        Row {
            id: 7,
            subject: subject.into(),
            headers: headers.map(Into::into),
            payload: Some(vec![b'x'; payload].into()),
            bytes: payload.try_into().expect("small"),
        }
    }

    fn taken() -> Taken {
        Taken {
            ledger: "SHOP".into(),
            subjects: vec!["orders.>".into(), "$WEIR.SHOP.>".into()],
            max_payload: 10_000,
        }
    }

    #[test]
    fn a_row_becomes_its_message() {
        let headers = r#"{"B": "1", "A": ["x", 2, true]}"#;
        let sendable = row("orders.1", Some(headers), 3)
            .message("outbox", &taken())
            .expect("sound");
        let pairs: Vec<(&str, &str)> = sendable
            .message
            .headers
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        let expected = [
            ("A", "x"),
            ("A", "2"),
            ("A", "true"),
            ("B", "1"),
            ("Weir-Cause", "postgres:outbox:7"),
        ];
        assert_eq!(pairs, expected);
        assert!(row("orders.1", None, 0).message("outbox", &taken()).is_ok());
        assert!(
            row("orders.1", Some("null"), 0)
                .message("outbox", &taken())
                .is_ok()
        );
    }

    #[test]
    fn what_can_never_be_in_the_ledger_says_why() {
        let mut unread = row("orders.1", None, 0);
        unread.payload = None;
        for (row, said) in [
            (row("", None, 0), "empty subject"),
            (row("orders.*", None, 0), "wildcards"),
            (row("$WEIR.SHOP.s.outbox", None, 0), "begin with $"),
            (row("payments.1", None, 0), "none of ledger SHOP (orders.>"),
            (row("orders.1", Some("[]"), 0), "no JSON object"),
            (row("orders.1", Some("{\"a\": {}}"), 0), "\"a\" is neither"),
            (row("orders.1", Some("{\"a b\": \"\"}"), 0), "\"a b\""),
            (
                row("orders.1", Some("{\"Nats-Rollup\": \"all\"}"), 0),
                "belongs to the server",
            ),
            (row("orders.1", None, 10_000), "max_payload"),
            (unread, "max_payload"),
        ] {
            let (id, reason) = row.message("outbox", &taken()).expect_err(said);
            assert!(id == 7 && reason.contains(said), "{reason}");
        }
    }
}
