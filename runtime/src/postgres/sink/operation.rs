//! What an event tells the sink to do: one operation, or several that are done
//! together or not at all.
//!
//! ```json
//! {"table": "orders", "key": {"id": 7}, "set": {"status": "paid", "total": 12.50}}
//! [{"table": "orders", "key": {"id": 7}, "delete": true}, {"table": "gone", "key": {"id": 7}, "set": {}}]
//! ```
//!
//! `key` names the columns of a unique constraint of the table. With `set`, the row of
//! that key gets these values, and is made if there is none; columns that are not named stay as they are, or
//! get their defaults. With `"delete": true` it is removed, if it is there.
//!
//! Values are converted by the types of the table's columns (`jsonb_populate_record`):
//! `"7"` fits an integer, an ISO time a timestamp, an array an array, anything a `jsonb`. They reach the
//! database as they were written, so that no digit of a number is lost.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::OWN_PREFIX;
use super::super::identifier::{Identifier, Table, list};

/// A statement with its one parameter: key and values as a JSON object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    pub sql: String,
    pub row: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written<'a> {
    table: String,
    #[serde(borrow)]
    key: BTreeMap<String, &'a RawValue>,
    #[serde(borrow)]
    set: Option<BTreeMap<String, &'a RawValue>>,
    #[serde(default)]
    delete: bool,
}

/// Reads an event's payload.
///
/// # Errors
/// Why it is no operation: a sentence for `weir_rejected_rows`.
pub fn read(schema: &Identifier, payload: &[u8]) -> Result<Vec<Operation>, String> {
    let text = std::str::from_utf8(payload).map_err(|error| format!("the payload is no text: {error}"))?;
    let several = text.trim_start().starts_with('[');
    let written: Vec<Written<'_>> = match several {
        true => serde_json::from_str(text),
        false => serde_json::from_str(text).map(|one| vec![one]),
    }
    .map_err(|error| format!("the payload is no operation: {error}"))?;
    let many = written.len() > 1;
    let operations = written.iter().enumerate().map(|(index, written)| {
        written.operation(schema).map_err(|reason| match many {
            true => format!("operation {}: {reason}", index + 1),
            false => reason,
        })
    });
    operations.collect()
}

impl Written<'_> {
    fn operation(&self, schema: &Identifier) -> Result<Operation, String> {
        if self.table.starts_with(OWN_PREFIX) {
            return Err(format!(
                "table {:?}: names that begin with {OWN_PREFIX} belong to Weir",
                self.table
            ));
        }
        let table = Table {
            schema: schema.clone(),
            name: Identifier::new(&self.table)?,
        };
        let identifiers = |map: &BTreeMap<String, &RawValue>| {
            map.keys()
                .map(|name| Identifier::new(name))
                .collect::<Result<Vec<_>, _>>()
        };
        let key = identifiers(&self.key)?;
        if key.is_empty() {
            return Err("the key names no column".into());
        }
        if let Some((column, _)) = self.key.iter().find(|(_, value)| value.get() == "null") {
            return Err(format!(
                "column {column:?} of the key is null, which no row equals"
            ));
        }
        match (&self.set, self.delete) {
            (Some(_), true) => Err("it has both \"set\" and \"delete\"".into()),
            (None, false) => Err("it has neither \"set\" nor \"delete\": true".into()),
            (None, true) => Ok(Operation {
                sql: delete(&table, &key),
                row: object(&self.key),
            }),
            (Some(set), false) => {
                if let Some(column) = set.keys().find(|column| self.key.contains_key(*column)) {
                    return Err(format!("column {column:?} is in the key and in \"set\""));
                }
                let mut row = self.key.clone();
                row.extend(set.iter().map(|(column, value)| (column.clone(), *value)));
                Ok(Operation {
                    sql: upsert(&table, &key, &identifiers(set)?),
                    row: object(&row),
                })
            }
        }
    }
}

fn object(row: &BTreeMap<String, &RawValue>) -> String {
    serde_json::to_string(row).expect("a map from text to JSON is JSON")
}

/// The parameter as a row of the table.
fn given(table: &Table) -> String {
    format!("jsonb_populate_record(null::{table}, $1::text::jsonb)")
}

fn matching(key: &[Identifier]) -> String {
    let pairs: Vec<String> = key
        .iter()
        .map(|column| format!("t.{column} = r.{column}"))
        .collect();
    pairs.join(" and ")
}

fn delete(table: &Table, key: &[Identifier]) -> String {
    format!(
        "delete from {table} as t using {} as r where {}",
        given(table),
        matching(key)
    )
}

/// Updates first: an insert of some columns would fail for others that must not be
/// null, before anybody looks whether the row is there.
fn upsert(table: &Table, key: &[Identifier], set: &[Identifier]) -> String {
    let assign = |from: &str| {
        let pairs: Vec<String> = set
            .iter()
            .map(|column| format!("{column} = {from}.{column}"))
            .collect();
        pairs.join(", ")
    };
    let columns = || key.iter().chain(set);
    let (all, values, conflict) = (list("", columns()), list("r.", columns()), list("", key));
    if set.is_empty() {
        return format!(
            "insert into {table} ({all}) select {values} from {} as r on conflict ({conflict}) do nothing",
            given(table)
        );
    }
    format!(
        "with r as materialized (select * from {}), \
              updated as (update {table} as t set {} from r where {} returning 1) \
         insert into {table} ({all}) select {values} from r where not exists (select from updated) \
         on conflict ({conflict}) do update set {}",
        given(table),
        assign("r"),
        matching(key),
        assign("excluded")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operations(payload: &str) -> Result<Vec<Operation>, String> {
        read(&Identifier::new("public").expect("a name"), payload.as_bytes())
    }

    #[test]
    fn values_travel_as_they_were_written() {
        let payload =
            r#"{"table":"o","key":{"id":"7"},"set":{"total":12345678901234567890.10,"a":[1, {"b":null}]}}"#;
        let found = operations(payload).expect("sound");
        assert_eq!(
            found[0].row,
            r#"{"a":[1, {"b":null}],"id":"7","total":12345678901234567890.10}"#
        );
        assert!(
            found[0]
                .sql
                .contains("update \"public\".\"o\" as t set \"a\" = r.\"a\", \"total\" = r.\"total\"")
        );
        let found = operations(
            r#" [{"table":"o","key":{"id":1},"delete":true},{"table":"o","key":{"a":1,"b":2},"set":{}}]"#,
        )
        .expect("sound");
        assert_eq!(found.len(), 2);
        assert!(found[0].sql.starts_with("delete from \"public\".\"o\""));
        assert!(found[1].sql.ends_with("on conflict (\"a\", \"b\") do nothing"));
        assert_eq!(operations("[]"), Ok(Vec::new()));
    }

    #[test]
    fn names_stay_quoted() {
        let found =
            operations(r#"{"table":"o\"; drop table x; --","key":{"i\"d":1},"set":{}}"#).expect("sound");
        assert!(
            found[0]
                .sql
                .starts_with(r#"insert into "public"."o""; drop table x; --" ("i""d")"#),
            "{}",
            found[0].sql
        );
    }

    #[test]
    fn what_is_no_operation_says_why() {
        for (payload, said) in [
            ("", "no operation"),
            ("{}", "missing field"),
            ("7", "no operation"),
            (r#"{"table":"o","key":{"id":1}}"#, "neither"),
            (r#"{"table":"o","key":{"id":1},"set":{},"delete":true}"#, "both"),
            (r#"{"table":"o","key":{},"set":{}}"#, "no column"),
            (
                r#"{"table":"o","key":{"id":null},"set":{}}"#,
                "\"id\" of the key is null",
            ),
            (
                r#"{"table":"o","key":{"id":1},"set":{"id":2}}"#,
                "in the key and in",
            ),
            (r#"{"table":"o","key":{"id":1},"sett":{}}"#, "unknown field"),
            (
                r#"{"table":"weir_positions","key":{"sink":"s"},"delete":true}"#,
                "belong to Weir",
            ),
            (r#"{"table":"","key":{"id":1},"set":{}}"#, "empty"),
            (
                r#"[{"table":"o","key":{"id":1},"set":{}},{"table":"o","key":{},"set":{}}]"#,
                "operation 2",
            ),
        ] {
            let reason = operations(payload).expect_err(payload);
            assert!(reason.contains(said), "{payload}: {reason}");
        }
        assert!(read(&Identifier::new("p").expect("a name"), &[0xff]).is_err());
    }
}
