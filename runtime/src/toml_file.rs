//! Errors in TOML files, for both kinds that people write: `handler.toml`
//! ([`crate::deployment::manifest`]) and `weir.toml` ([`crate::config`]). Each
//! names the file, line, column and field, so that an editor can jump there.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// Where in a file something is wrong, and what. Shown as
/// `handler.toml:3:14: partitions: must be …`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    pub file: PathBuf,
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1, in characters.
    pub column: usize,
    /// Dotted, as in `source.subjects`; empty where no field is concerned.
    pub field: String,
    pub problem: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file.display(), self.line, self.column)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.problem)
    }
}

impl std::error::Error for Error {}

/// A file's name and text, to say where in it a span is.
#[derive(Debug, Clone, Copy)]
pub struct Document<'a> {
    pub file: &'a Path,
    pub text: &'a str,
}

impl Document<'_> {
    /// Reads the text as `T`.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, Error> {
        toml::from_str(self.text).map_err(|error| {
            let span = error.span().unwrap_or(0..0);
            let problem = error.message().replace('\n', "; ");
            let field = field_at(self.text, span.start);
            self.error(span, &field, problem)
        })
    }

    /// An error about the field at `span`.
    pub fn error(&self, span: Range<usize>, field: &str, problem: impl Into<String>) -> Error {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Error {
            file: self.file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            field: field.to_owned(),
            problem: problem.into(),
        }
    }
}

/// The dotted name of the field whose line holds `offset`. The parser knows it
/// only for some errors, so it is read from the text: the last table header
/// above, and the name before `=`.
fn field_at(text: &str, offset: usize) -> String {
    let mut table = "";
    let mut field = "";
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        if start > offset {
            break;
        }
        start += line.len();
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.starts_with('[') && line.ends_with(']') && !line.contains('=') {
            table = line.trim_matches(['[', ']']).trim();
            field = "";
        } else if let Some((name, _)) = line.split_once('=')
            && !name.contains(['"', '[', '{'])
        {
            field = name.trim();
        }
    }
    match (table, field) {
        ("", field) => field.to_owned(),
        (table, "") => table.to_owned(),
        (table, field) => format!("{table}.{field}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_table_and_line() {
        let text = "a = 1\n[t]\n# note\nb = [\n  \"x\",\n  2,\n]\n[[s]]\nc = 'd=e'\n";
        for (needle, expected) in [
            ("1", "a"),
            ("[t]", "t"),
            ("2,", "t.b"),
            ("[[s]]", "s"),
            ("'d=e'", "s.c"),
        ] {
            let offset = text.find(needle).expect("the needle is in the text");
            assert_eq!(field_at(text, offset), expected, "{needle}");
        }
    }

    #[test]
    fn columns_count_characters() {
        let text = "x = 1\nname = \"äö\" 7\n";
        let document = Document {
            file: Path::new("f.toml"),
            text,
        };
        let at = text.find('7').expect("the needle is in the text");
        let error = document.error(at..at + 1, "name", "stray");
        assert_eq!(error.to_string(), "f.toml:2:13: name: stray");
    }
}
