//! Where a database is: `postgres://user:password@host:5432/database?sslmode=verify-full`.
//!
//! What libpq calls `sslmode` means the same here, so that a URL that works with
//! `psql` demands as much of a connection as it does there:
//!
//! | sslmode | encrypted | certificate |
//! | --- | --- | --- |
//! | `disable` | no | |
//! | `prefer`, the default | if the server can | not looked at |
//! | `require` | yes | not looked at, unless `sslrootcert` is given: then as `verify-ca` |
//! | `verify-ca` | yes | from a trusted authority |
//! | `verify-full` | yes | the same, and for this host |
//!
//! A socket (`?host=/run/postgresql`) has no TLS, and needs none: a URL that demands it is refused.
//! Trusted are the authorities of `sslrootcert`, or those of the system.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use super::tls::{Tls, Trust};

/// How long one address may take to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A server that is silent for so long is asked whether it lives, and how often: a
/// machine that is gone is noticed within a minute.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(20);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 4;

/// How long sent bytes may stay unacknowledged.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(40);

/// A database and how to reach it. Shown without its password.
#[derive(Clone)]
pub struct Address {
    pub(super) config: Config,
    pub(super) tls: Option<Tls>,
}

/// What is wrong with a URL. Never holds the URL itself, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(String);

/// The parameters that `tokio-postgres` does not know or reads otherwise.
#[derive(Default)]
struct TlsParameters {
    mode: Option<String>,
    roots: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl Address {
    fn parse(url: &str) -> Result<Address, Invalid> {
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(Invalid(
                "must be a URL like postgres://user@host:5432/database".into(),
            ));
        }
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let mut parameters = TlsParameters::default();
        let mut others = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decode_str(value).decode_utf8_lossy().into_owned();
            match name {
                "sslmode" => parameters.mode = Some(value),
                "sslrootcert" => parameters.roots = Some(value.into()),
                "sslcert" => parameters.certificate = Some(value.into()),
                "sslkey" => parameters.key = Some(value.into()),
                _ => others.push(pair),
            }
        }
        let mut config = Config::from_str(&format!("{base}?{}", others.join("&"))).map_err(|error| {
            let reason = std::error::Error::source(&error).map_or(error.to_string(), ToString::to_string);
            Invalid(format!("cannot be read: {reason}"))
        })?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(Invalid(
                "names no host: postgres://user@host:5432/database".into(),
            ));
        }
        if config.get_password().is_none()
            && let Ok(password) = std::env::var("PGPASSWORD")
        {
            config.password(password);
        }
        config.connect_timeout(CONNECT_TIMEOUT);
        config.keepalives_idle(KEEPALIVE_IDLE);
        config.keepalives_interval(KEEPALIVE_INTERVAL);
        config.keepalives_retries(KEEPALIVE_RETRIES);
        config.tcp_user_timeout(UNACKNOWLEDGED_MAX);
        let tls = parameters.apply(&mut config)?;
        Ok(Address { config, tls })
    }

    /// The same database, under a name that the server shows of its sessions.
    #[must_use]
    pub fn named(mut self, application: &str) -> Address {
        self.config.application_name(application);
        self
    }
}

impl TlsParameters {
    fn apply(self, config: &mut Config) -> Result<Option<Tls>, Invalid> {
        let mode = self.mode.as_deref().unwrap_or("prefer");
        let is_socket = |host: &Host| matches!(host, Host::Unix(_));
        if config.get_hosts().iter().any(is_socket) {
            if !matches!(mode, "disable" | "prefer") {
                return Err(Invalid(format!(
                    "sslmode={mode}: a socket has no TLS; give a host to connect to, or another sslmode"
                )));
            }
            config.ssl_mode(SslMode::Disable);
            return Ok(None);
        }
        let trust = match (mode, &self.roots) {
            ("disable", _) => {
                config.ssl_mode(SslMode::Disable);
                return Ok(None);
            }
            ("prefer", _) => {
                config.ssl_mode(SslMode::Prefer);
                Trust::Anybody
            }
            (mode @ ("require" | "verify-ca" | "verify-full"), roots) => {
                config.ssl_mode(SslMode::Require);
                match mode {
                    "require" if roots.is_none() => Trust::Anybody,
                    "verify-full" => Trust::NameAndAuthority,
                    _ => Trust::Authority,
                }
            }
            (other, _) => {
                return Err(Invalid(format!(
                    "sslmode={other}: must be disable, prefer, require, verify-ca or verify-full"
                )));
            }
        };
        let identity = match (self.certificate, self.key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => {
                return Err(Invalid(
                    "a client certificate and its key go together: give sslcert and sslkey, or neither"
                        .into(),
                ));
            }
        };
        Tls::new(trust, self.roots.as_deref(), identity)
            .map(Some)
            .map_err(Invalid)
    }
}

impl FromStr for Address {
    type Err = Invalid;

    fn from_str(url: &str) -> Result<Address, Invalid> {
        Address::parse(url)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts: Vec<String> = match self.config.get_hosts() {
            [] => self
                .config
                .get_hostaddrs()
                .iter()
                .map(ToString::to_string)
                .collect(),
            hosts => hosts
                .iter()
                .map(|host| match host {
                    Host::Tcp(name) => name.clone(),
                    Host::Unix(folder) => folder.display().to_string(),
                })
                .collect(),
        };
        let ports: Vec<String> = self.config.get_ports().iter().map(ToString::to_string).collect();
        let port = match ports.is_empty() {
            true => String::new(),
            false => format!(":{}", ports.join(",")),
        };
        let database = self.config.get_dbname().unwrap_or_default();
        write!(f, "postgres://{}{port}/{database}", hosts.join(","))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(url: &str) -> (SslMode, Option<Trust>) {
        let address: Address = url.parse().expect(url);
        (address.config.get_ssl_mode(), address.tls.map(|tls| tls.trust))
    }

    #[test]
    fn sslmode_is_that_of_libpq() {
        for (query, expected) in [
            ("", (SslMode::Prefer, Some(Trust::Anybody))),
            ("?sslmode=disable", (SslMode::Disable, None)),
            ("?sslmode=prefer", (SslMode::Prefer, Some(Trust::Anybody))),
            ("?sslmode=require", (SslMode::Require, Some(Trust::Anybody))),
            (
                "?connect_timeout=3&sslmode=verify-ca",
                (SslMode::Require, Some(Trust::Authority)),
            ),
            (
                "?sslmode=verify%2Dfull",
                (SslMode::Require, Some(Trust::NameAndAuthority)),
            ),
        ] {
            assert_eq!(
                mode(&format!("postgres://u@localhost/d{query}")),
                expected,
                "{query}"
            );
        }
    }

    #[test]
    fn what_is_no_address_is_refused_without_showing_it() {
        for (url, said) in [
            ("host=localhost password=secret", "must be a URL"),
            ("postgres://u:secret@h/d?sslmode=always", "sslmode=always"),
            ("postgres://u:secret@h/d?bogus=1", "cannot be read"),
            ("postgres:///d", "names no host"),
            (
                "postgres:///d?host=/run/pg&sslmode=require",
                "a socket has no TLS",
            ),
            (
                "postgres://u:secret@h/d?sslmode=require&sslcert=a.pem",
                "go together",
            ),
            (
                "postgres://u:secret@h/d?sslmode=require&sslrootcert=/gone.pem",
                "/gone.pem",
            ),
        ] {
            let error = url.parse::<Address>().expect_err(url).to_string();
            assert!(
                error.contains(said) && !error.contains("secret"),
                "{url}: {error}"
            );
        }
    }

    #[test]
    fn shown_without_the_password() {
        let shown = |url: &str| url.parse::<Address>().expect(url).to_string();
        assert_eq!(
            shown("postgres://u:secret@db.example:5433/shop"),
            "postgres://db.example:5433/shop"
        );
        assert_eq!(
            shown("postgresql://u@/shop?host=/run/pg"),
            "postgres:///run/pg/shop"
        );
    }
}
