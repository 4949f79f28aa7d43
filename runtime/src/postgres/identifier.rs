//! Names of tables and columns. They come from flags and from events, so each is
//! checked once and only ever written quoted.

use std::fmt;
use std::str::FromStr;

/// Bytes that PostgreSQL keeps of a name. It cuts the rest off with a mere notice,
/// so that a longer name would be that of something else.
const BYTES_MAX: usize = 63;

/// The schema of a table that names none.
pub const PUBLIC: &str = "public";

/// A name as the database has it, upper and lower case as they stand.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identifier(String);

impl Identifier {
    /// # Errors
    /// It is empty, too long, or holds a control character.
    pub fn new(name: &str) -> Result<Identifier, String> {
        match name {
            "" => Err("a name of a table or column is empty".into()),
            name if name.len() > BYTES_MAX => Err(format!(
                "the name {:?}… is {} bytes long; PostgreSQL takes {BYTES_MAX}",
                &name[..name.floor_char_boundary(BYTES_MAX)],
                name.len()
            )),
            name if name.contains(char::is_control) => {
                Err(format!("the name {name:?} holds a control character"))
            }
            name => Ok(Identifier(name.into())),
        }
    }

    /// As it is, without quotes.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Quoted, to stand in a statement.
impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.replace('"', "\"\""))
    }
}

impl FromStr for Identifier {
    type Err = String;

    fn from_str(name: &str) -> Result<Identifier, String> {
        Identifier::new(name)
    }
}

/// A table in its schema.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Table {
    pub schema: Identifier,
    pub name: Identifier,
}

impl Table {
    /// Another table in the same schema.
    ///
    /// # Errors
    /// As [`Identifier::new`].
    pub fn beside(&self, name: &str) -> Result<Table, String> {
        Ok(Table {
            schema: self.schema.clone(),
            name: Identifier::new(name)?,
        })
    }

    /// `schema.name` without quotes: what a trigger calls its table.
    pub fn plain(&self) -> String {
        format!("{}.{}", self.schema.as_str(), self.name.as_str())
    }

    /// The same, without the schema where that is the usual one: as people write it.
    pub fn short(&self) -> String {
        match self.schema.as_str() {
            PUBLIC => self.name.as_str().to_owned(),
            _ => self.plain(),
        }
    }
}

/// Quoted, to stand in a statement.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// `orders`, in the schema `public`, or `sales.orders`.
impl FromStr for Table {
    type Err = String;

    fn from_str(text: &str) -> Result<Table, String> {
        let (schema, name) = text.split_once('.').unwrap_or((PUBLIC, text));
        Ok(Table {
            schema: Identifier::new(schema)?,
            name: Identifier::new(name)?,
        })
    }
}

/// Identifiers, quoted, with something before each, separated by commas.
pub fn list<'a>(prefix: &str, names: impl IntoIterator<Item = &'a Identifier>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| format!("{prefix}{name}")).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_quotes() {
        let name = Identifier::new("a\"; drop table x; --").expect("a name");
        assert_eq!(name.to_string(), "\"a\"\"; drop table x; --\"");
        for bad in ["", "a\0b", "a\nb", &"x".repeat(64), &"ü".repeat(32)] {
            assert!(Identifier::new(bad).is_err(), "{bad:?}");
        }
        assert!(Identifier::new(&"x".repeat(63)).is_ok());
    }

    #[test]
    fn tables_are_in_a_schema() {
        let table: Table = "outbox".parse().expect("a table");
        assert_eq!(
            (table.to_string(), table.plain()),
            ("\"public\".\"outbox\"".into(), "public.outbox".into())
        );
        let table: Table = "Sales.out.box".parse().expect("a table");
        assert_eq!(table.to_string(), "\"Sales\".\"out.box\"");
        assert!(".x".parse::<Table>().is_err() && "x.".parse::<Table>().is_err());
    }
}
