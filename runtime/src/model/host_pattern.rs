//! Hosts that an activity may send requests to, as `[http] hosts` names them.

use std::fmt;
use std::net::IpAddr;

use http::Uri;
use http::uri::Scheme;

/// One host, or all below a domain: `[SCHEME://]HOST[:PORT]`.
///
/// * HOST is a name, an IPv4 address, an IPv6 address in brackets, or `*.` and a domain: every
///   name below it, at any depth, but not the domain itself. Names differ in no other way than
///   by their letters' case.
/// * Without a scheme it is HTTPS; of a loopback host (`localhost`, `127.…`, `[::1]`) plain HTTP, too,
///   since nothing of it goes over a wire.
/// * Without a port it is the scheme's.
///
/// ```
/// use weir::model::host_pattern::HostPattern;
///
/// let shop: HostPattern = "*.example.com:8443".parse().unwrap();
/// let allows = |url: &str| shop.allows(&url.parse().unwrap());
/// assert!(allows("https://eu.api.example.com:8443/orders"));
/// assert!(!allows("https://example.com:8443/") && !allows("https://eu.example.com/"));
/// assert!(!allows("http://eu.example.com:8443/"), "not encrypted");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPattern {
    /// `None`: not said.
    scheme: Option<Scheme>,
    /// In lower case; of a wildcard, what follows the `*`, with its dot.
    host: String,
    wildcard: bool,
    port: Option<u16>,
}

impl std::str::FromStr for HostPattern {
    type Err = String;

    /// # Errors
    /// A sentence that begins with what was given and says what would be right.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("`{}` {why}", text.escape_debug());
        let (scheme, rest) = match text.split_once("://") {
            Some(("http", rest)) => (Some(Scheme::HTTP), rest),
            Some(("https", rest)) => (Some(Scheme::HTTPS), rest),
            Some(_) => return Err(wrong("must begin with http:// or https://, if with any scheme")),
            None => (None, text),
        };
        let (wildcard, host) = match rest.strip_prefix("*.") {
            Some(domain) => (true, domain),
            None => (false, rest),
        };
        if host.contains('*') {
            return Err(wrong(
                "has a `*` that is not the first label: name a host, or `*.` and a domain",
            ));
        }
        if host.contains(['/', '@', '?', '#']) {
            return Err(wrong("must be a host and, if need be, a port: no path, no user"));
        }
        let authority: http::uri::Authority = host
            .parse()
            .map_err(|_| wrong("must be a host and, if need be, a port, like api.example.com:8443"))?;
        let port_written = authority.as_str().len() > authority.host().len();
        let port = authority.port_u16();
        if authority.host().is_empty() || (port_written && port.is_none_or(|port| port == 0)) {
            return Err(wrong("must be a host and, if need be, a port from 1 to 65535"));
        }
        let host = authority.host().to_ascii_lowercase();
        if wildcard && (ip(&host).is_some() || host.starts_with('.')) {
            return Err(wrong("must have a domain after `*.`"));
        }
        Ok(HostPattern {
            scheme,
            host: if wildcard { format!(".{host}") } else { host },
            wildcard,
            port,
        })
    }
}

impl HostPattern {
    /// Whether a request may go to this absolute URL.
    pub fn allows(&self, url: &Uri) -> bool {
        let (Some(scheme), Some(host)) = (url.scheme(), url.host()) else {
            return false;
        };
        let host = host.to_ascii_lowercase();
        let is_host = match self.wildcard {
            true => host.len() > self.host.len() && host.ends_with(&self.host),
            false => host == self.host,
        };
        let is_scheme = match &self.scheme {
            Some(named) => named == scheme,
            None => *scheme == Scheme::HTTPS || (*scheme == Scheme::HTTP && is_loopback(&self.host)),
        };
        let default_port = if *scheme == Scheme::HTTP { 80 } else { 443 };
        let port = url.port_u16().unwrap_or(default_port);
        is_host && is_scheme && port == self.port.unwrap_or(default_port)
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(scheme) = &self.scheme {
            write!(f, "{scheme}://")?;
        }
        write!(f, "{}{}", if self.wildcard { "*" } else { "" }, self.host)?;
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

fn ip(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    bare.unwrap_or(host).parse().ok()
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || ip(host).is_some_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_pattern_allows() {
        for (pattern, allowed, denied) in [
            (
                "api.example.com",
                &["https://api.example.com/x?y", "https://API.Example.com:443/"][..],
                &[
                    "http://api.example.com/",
                    "https://api.example.com:8443/",
                    "https://example.com/",
                    "https://xapi.example.com/",
                    "https://api.example.com.evil.net/",
                    "https://api.example.com./",
                    "/x",
                ][..],
            ),
            (
                "*.example.com",
                &["https://a.example.com/", "https://a.b.example.com/"],
                &[
                    "https://example.com/",
                    "https://.example.com/",
                    "https://badexample.com/",
                ],
            ),
            (
                "http://sidecar:8080",
                &["http://sidecar:8080/"],
                &["https://sidecar:8080/", "http://sidecar/"],
            ),
            (
                "http://sidecar",
                &["http://sidecar/", "http://sidecar:80/"],
                &["http://sidecar:443/"],
            ),
            (
                "127.0.0.1:8080",
                &["http://127.0.0.1:8080/", "https://127.0.0.1:8080/"],
                &["http://127.0.0.1/", "http://127.0.0.2:8080/"],
            ),
            (
                "[::1]:80",
                &["http://[::1]/"],
                &["http://[::2]/", "https://[::1]/"],
            ),
            ("10.0.0.1:80", &[], &["http://10.0.0.1/"]),
        ] {
            let parsed: HostPattern = pattern.parse().expect(pattern);
            assert_eq!(parsed.to_string(), pattern);
            let allows = |url: &&str| parsed.allows(&url.parse().expect("a URL"));
            for url in allowed {
                assert!(allows(url), "{pattern} allows {url}");
            }
            for url in denied {
                assert!(!allows(url), "{pattern} denies {url}");
            }
        }
    }

    #[test]
    fn what_is_no_pattern() {
        for text in [
            "",
            "*",
            "*.",
            "*.*.com",
            "a.*.com",
            "*.10.0.0.1",
            "ftp://a",
            "https://",
            "a/b",
            "user@a",
            "a:0",
            "a:99999",
            "a:",
            "a b",
            "a?b",
            ":80",
            "*..a",
        ] {
            let error = text.parse::<HostPattern>().expect_err(text);
            assert!(error.starts_with(&format!("`{text}` ")), "{error}");
        }
    }
}
