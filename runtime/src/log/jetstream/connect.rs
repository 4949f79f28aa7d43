//! Connecting, and the oldest server that will do.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_nats::{Event, ServerError};
use tokio::sync::{broadcast, watch};

use super::{Inner, JetStream};

/// Denied publishes that may wait to be seen by those whose they are.
const DENIED_WAITING_MAX: usize = 256;

/// How to reach NATS.
#[derive(Debug, Clone, Default)]
pub struct ConnectOptions {
    /// One or several `nats://` or `tls://` URLs, separated by commas; may hold user and password.
    pub url: String,
    /// Credentials file: a JWT and its seed.
    pub creds: Option<PathBuf>,
    /// File with an nkey seed.
    pub nkey: Option<PathBuf>,
    pub tls: Tls,
    /// Name of this connection, as the server shows it.
    pub name: Option<String>,
}

/// Files for TLS. Without any of them a `tls://` URL still works, with the roots
/// of the system.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// Roots to trust beside those of the system.
    pub ca: Option<PathBuf>,
    /// Certificate of this client, with its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Refuse to speak without TLS.
    pub required: bool,
}

/// Why no connection could even be tried. A server that does not answer is none
/// of these: that is waited for.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("reading {}: {error}", path.display())]
    File { path: PathBuf, error: std::io::Error },
    #[error("connecting to {url}: {error}")]
    Client {
        url: String,
        error: async_nats::ConnectError,
    },
}

/// Why the last try to connect failed: said once, not with each try.
#[derive(Default)]
struct Failures(Mutex<Option<String>>);

impl Failures {
    fn is_news(&self, reason: &str) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let news = last.as_deref() != Some(reason);
        *last = Some(reason.to_owned());
        news
    }

    /// The next one is news.
    fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Connects in the background, now and whenever the connection breaks, for
/// ever: a host can start while NATS is down. [`super::Log::connected`] and
/// [`JetStream::wait_connected`] tell whether it stands.
///
/// # Errors
/// Files that cannot be read and URLs that are none.
pub async fn connect(options: ConnectOptions) -> Result<JetStream, ConnectError> {
    let (connects, connects_seen) = watch::channel(0);
    let (denied, _) = broadcast::channel(DENIED_WAITING_MAX);
    let denied_events = denied.clone();
    let failures = Failures::default();
    let mut client = async_nats::ConnectOptions::new()
        .retry_on_initial_connect()
        .event_callback(move |event| {
            match event {
                Event::Connected => {
                    connects.send_modify(|n| *n += 1);
                    failures.forget();
                }
                Event::ClientError(error) => {
                    let reason = error.to_string();
                    if failures.is_news(&reason) {
                        tracing::warn!(reason, "not connected to NATS yet; trying again");
                    }
                }
                Event::ServerError(ServerError::Other(text)) => {
                    tracing::warn!(error = %text, "NATS reports an error");
                    if let Some(subject) = denied_subject(&text) {
                        // No receiver means that nobody is waiting for an answer.
                        let _ = denied_events.send(Arc::from(subject));
                    }
                }
                Event::Disconnected => tracing::warn!("connection to NATS lost; reconnecting"),
                _ => {}
            }
            async {}
        });
    if let Some(path) = options.creds {
        client = client
            .credentials_file(&path)
            .await
            .map_err(|error| ConnectError::File { path, error })?;
    }
    if let Some(path) = options.nkey {
        let seed = std::fs::read_to_string(&path).map_err(|error| ConnectError::File { path, error })?;
        client = client.nkey(seed.trim().to_owned());
    }
    if let Some(ca) = options.tls.ca {
        client = client.add_root_certificates(ca);
    }
    if let Some((certificate, key)) = options.tls.certificate {
        client = client.add_client_certificate(certificate, key);
    }
    if options.tls.required {
        client = client.require_tls(true);
    }
    if let Some(name) = options.name {
        client = client.name(name);
    }
    if let Some((user, password)) = credentials(&options.url) {
        client = match password {
            Some(password) => client.user_and_password(user, password),
            None => client.token(user), // as in NATS's other clients
        };
    }
    let servers: Vec<&str> = options.url.split(',').map(str::trim).collect();
    let client = client
        .connect(servers)
        .await
        .map_err(|error| ConnectError::Client {
            url: without_credentials(&options.url),
            error,
        })?;
    Ok(JetStream {
        inner: Arc::new(Inner {
            client,
            connects: connects_seen,
            denied,
        }),
    })
}

/// URLs, separated by commas, without users and passwords: to be shown.
pub fn without_credentials(urls: &str) -> String {
    let one = |url: &str| match url.split_once("://") {
        Some((scheme, rest)) => {
            let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
            format!("{scheme}://{host}")
        }
        None => url.rsplit_once('@').map_or(url, |(_, host)| host).to_owned(),
    };
    let shown: Vec<String> = urls.split(',').map(|url| one(url.trim())).collect();
    shown.join(",")
}

/// User and password of the first URL, which `async-nats` parses but does not use.
fn credentials(urls: &str) -> Option<(String, Option<String>)> {
    let first = urls.split(',').next()?.trim();
    let rest = first.split_once("://").map_or(first, |(_, rest)| rest);
    let (info, _) = rest.rsplit_once('@')?;
    Some(match info.split_once(':') {
        Some((user, password)) => (percent_decoded(user), Some(percent_decoded(password))),
        None => (percent_decoded(info), None),
    })
}

/// What is no valid `%XX` stays as it is.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(decoded) if byte == b'%' => {
                bytes.push(decoded);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Subject of `Permissions Violation for Publish to "subject"`.
fn denied_subject(text: &str) -> Option<&str> {
    let rest = text.split_once("Permissions Violation for Publish to \"")?.1;
    rest.split_once('"').map(|(subject, _)| subject)
}

/// Whether this version of nats-server will do: 2.12.14 on the 2.12 line, 2.14.4
/// on the 2.14 line, or anything later. Older ones refuse valid fences
/// (nats-server #8376). A pre-release of the first good one may lack its fix.
///
/// # Errors
/// A sentence for the operator.
///
/// ```
/// use weir::log::jetstream::check_server_version;
/// assert!(check_server_version("2.15.1").is_ok());
/// assert!(check_server_version("2.14.3").is_err());
/// ```
pub fn check_server_version(version: &str) -> Result<(), String> {
    let refuse = || {
        Err(format!(
            "nats-server {version} is too old: Weir needs 2.12.14 or later on the 2.12 line, \
             2.14.4 or later on the 2.14 line, or anything newer"
        ))
    };
    let plain = version.trim_start_matches('v');
    let (numbers, pre_release) = match plain.split_once('-') {
        Some((numbers, _)) => (numbers, true),
        None => (plain, false),
    };
    let mut parts = numbers.split('.').map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch)), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(format!("`{version}` does not read as a version of nats-server"));
    };
    let first_good = match (major, minor) {
        (2, 12) => 14,
        (2, 14) => 4,
        (2, 15..) | (3.., _) => return Ok(()),
        _ => return refuse(),
    };
    if patch > first_good || (patch == first_good && !pre_release) {
        Ok(())
    } else {
        refuse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for good in [
            "2.12.14",
            "v2.12.15",
            "2.14.4",
            "2.14.5-RC.1",
            "2.15.0",
            "2.15.0-preview.1",
            "3.0.0",
        ] {
            assert_eq!(check_server_version(good), Ok(()), "{good}");
        }
        for bad in [
            "2.12.13",
            "2.12.14-RC.1",
            "2.13.9",
            "2.14.3",
            "2.11.20",
            "1.9.9",
            "2.15",
            "",
            "two",
            "2.12.14.1",
        ] {
            assert!(check_server_version(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_url_is_shown_without_its_secrets() {
        for (url, shown) in [
            ("nats://me:pass@word@h:1", "nats://h:1"),
            ("token@h", "h"),
            ("nats://a:1, tls://u:p@b", "nats://a:1,tls://b"),
        ] {
            assert_eq!(without_credentials(url), shown);
        }
    }

    #[test]
    fn a_failure_is_news_once_until_connected() {
        let failures = Failures::default();
        let news = ["refused", "refused", "timeout", "refused"].map(|reason| failures.is_news(reason));
        assert_eq!(news, [true, false, true, true]);
        failures.forget();
        assert!(failures.is_news("refused"));
    }

    #[test]
    fn credentials_in_a_url() {
        let pair = |user: &str, password: &str| Some((user.to_owned(), Some(password.to_owned())));
        assert_eq!(credentials("nats://u:p%40s@h:1, nats://h:2"), pair("u", "p@s"));
        assert_eq!(credentials("u:5%@h"), pair("u", "5%"));
        assert_eq!(credentials("nats://token@h"), Some(("token".into(), None)));
        assert_eq!(credentials("nats://h:4222"), None);
    }

    #[test]
    fn denials_name_their_subject() {
        assert_eq!(
            denied_subject("Permissions Violation for Publish to \"$JS.API.INFO\""),
            Some("$JS.API.INFO")
        );
        assert_eq!(
            denied_subject("Permissions Violation for Subscription to \"x\""),
            None
        );
    }
}
