//! What goes wrong, as whoever meets it has to act.
//!
//! Look-alikes: [`Trouble`] is about the work as a whole. What a database says
//! against one row is no trouble, it is the row's fate: [`fault_of_row`] tells
//! the two apart, by the class of the error (the first two characters of its
//! SQLSTATE, <https://www.postgresql.org/docs/current/errcodes-appendix.html>).

use std::error::Error as _;

use crate::log::{self, AppendError};

/// Why a term of work ended early. Whatever was not committed is done again by the next one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// Goes away by itself: a server that restarts, a connection that broke.
    #[error("{0}")]
    Unavailable(String),
    /// Somebody else of this name has gone on: it is their turn.
    #[error("{0}")]
    Fenced(String),
    /// Nothing is taken until somebody mends what the text says; tried again meanwhile.
    #[error("{0}")]
    Blocked(String),
    /// Going on could lose or double: somebody has to decide. The process ends.
    #[error("{0}")]
    Stopped(String),
}

/// Classes of errors that say nothing against the row at hand: connection (08),
/// transaction state (25), authorization (28), prepared statements (26), catalog (3D),
/// conflicts with others (40), resources (53), not in the prerequisite state (55),
/// operator intervention (57), system (58), configuration (F0), internal (XX).
const OF_THE_SYSTEM: [&str; 12] = [
    "08", "25", "26", "28", "3D", "40", "53", "55", "57", "58", "F0", "XX",
];

/// Those of them that waiting does not mend, where a session begins: a wrong
/// password or user, a database that does not exist.
const NOT_BY_WAITING: [&str; 2] = ["28", "3D"];

/// What the database has against a row: its sentence, if that is what the error is.
///
/// An error of no known class is the row's, too: it is kept with its reason, whereas
/// the same row would stop everything behind it for ever.
pub fn fault_of_row(error: &tokio_postgres::Error) -> Option<String> {
    let of_database = error.as_db_error()?;
    let class = &of_database.code().code()[..2];
    (!OF_THE_SYSTEM.contains(&class)).then(|| describe(error))
}

/// All that an error says, in one line.
pub fn describe(error: &tokio_postgres::Error) -> String {
    if let Some(of_database) = error.as_db_error() {
        let detail = of_database.detail().map(|detail| format!(" ({detail})"));
        let text = format!(
            "{}{} [SQLSTATE {}]",
            of_database.message(),
            detail.unwrap_or_default(),
            of_database.code().code()
        );
        return text.replace('\n', " ");
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        source = cause.source();
    }
    text.replace('\n', " ")
}

impl Trouble {
    /// An error of a session that could not begin.
    pub fn connecting(error: &tokio_postgres::Error, address: &str) -> Trouble {
        let text = format!("PostgreSQL at {address}: {}", describe(error));
        let refused = error
            .code()
            .is_some_and(|code| NOT_BY_WAITING.contains(&&code.code()[..2]));
        match refused || fails_tls(error) {
            true => Trouble::Stopped(text),
            false => Trouble::Unavailable(text),
        }
    }
}

/// The server has no TLS, or a certificate that is not believed: it will be so the next time.
fn fails_tls(error: &tokio_postgres::Error) -> bool {
    let Some(source) = error.source() else {
        return false;
    };
    if source.to_string() == "server does not support TLS" {
        return true;
    }
    let of_rustls = source
        .downcast_ref::<std::io::Error>()
        .and_then(std::io::Error::get_ref)
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(of_rustls, Some(rustls::Error::InvalidCertificate(_)))
}

/// An error in the midst of work: the session is given up, and what it had not
/// committed is undone.
impl From<tokio_postgres::Error> for Trouble {
    fn from(error: tokio_postgres::Error) -> Trouble {
        let text = format!("PostgreSQL: {}", describe(&error));
        match fault_of_row(&error) {
            // Of a statement of ours: a table that was changed, a permission that is missing.
            Some(_) => Trouble::Blocked(text),
            None => Trouble::Unavailable(text),
        }
    }
}

impl From<log::Error> for Trouble {
    fn from(error: log::Error) -> Trouble {
        match error {
            log::Error::Unavailable(_) => Trouble::Unavailable(error.to_string()),
            log::Error::NoStream(name) => Trouble::Blocked(format!(
                "stream {name} does not exist; it is waited for (a host creates its ledger when it starts: `weir run`)"
            )),
            other => Trouble::Blocked(other.to_string()),
        }
    }
}

/// An append that is not made, or may not have been: the next term finds out.
impl From<AppendError> for Trouble {
    fn from(error: AppendError) -> Trouble {
        match error {
            AppendError::Fenced(reason) => Trouble::Fenced(reason),
            AppendError::Refused { .. } | AppendError::TooLarge(_) => {
                Trouble::Blocked(format!("the ledger takes nothing: {error}"))
            }
            AppendError::Busy { .. } | AppendError::Unknown(_) => {
                Trouble::Unavailable(format!("the ledger: {error}"))
            }
        }
    }
}
