//! The `Idempotency-Key` of each request.
//!
//! It has to be the same whenever the event is executed again, on whichever host, after a retry, a crash or a
//! redrive; and another one for every other request that anybody sends. So it is a hash of
//!
//! * the handler's name, the event's id, and when the event's source was created: a stream that was deleted and made
//!   again numbers its messages from 1 again, and so does that of another installation;
//! * the request's method and its URL without the query, and its number among those that the invocation sent alike.
//!
//! The number counts like requests only, since an instance that is reused may still have what a new one has to fetch first
//! (a token): that must not shift the keys of the requests after it.

use std::collections::HashMap;

use http::{HeaderValue, Method, Uri};
use sha2::{Digest, Sha256};

/// Makes the keys of one invocation.
pub(super) struct Keys {
    invocation: Sha256,
    /// By the hash of method and URL.
    sent: HashMap<[u8; 32], u64>,
}

impl Keys {
    pub fn new(handler: &str, source_created: u64, event_id: &str) -> Keys {
        let mut invocation = Sha256::new();
        part(&mut invocation, b"weir idempotency key 1");
        part(&mut invocation, handler.as_bytes());
        part(&mut invocation, &source_created.to_le_bytes());
        part(&mut invocation, event_id.as_bytes());
        Keys {
            invocation,
            sent: HashMap::new(),
        }
    }

    /// The key of the next request: 36 characters, a UUID of version 8 (RFC 9562).
    pub fn next(&mut self, method: &Method, url: &Uri) -> HeaderValue {
        let mut request = self.invocation.clone();
        part(&mut request, method.as_str().as_bytes());
        part(&mut request, url.scheme_str().unwrap_or_default().as_bytes());
        let authority = url.authority().map_or("", |authority| authority.as_str());
        part(&mut request, authority.as_bytes());
        part(&mut request, url.path().as_bytes());
        let number = self.sent.entry(request.clone().finalize().into()).or_default();
        *number += 1;
        part(&mut request, &number.to_le_bytes());
        uuid(&request.finalize().into())
    }
}

/// Hashes one part so that no other parts come to the same.
fn part(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}

fn uuid(hash: &[u8; 32]) -> HeaderValue {
    let mut bits = u128::from_be_bytes(hash[..16].try_into().expect("16 of 32 bytes"));
    bits = bits & !(0xf << 76) | 0x8 << 76; // version 8: of our own making
    bits = bits & !(0x3 << 62) | 0x2 << 62; // the variant of RFC 9562
    let hex = format!("{bits:032x}");
    let text = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-");
    HeaderValue::try_from(text).expect("hexadecimal digits and hyphens")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(handler: &str, created: u64, event: &str, requests: &[(&str, &str)]) -> Vec<String> {
        let mut keys = Keys::new(handler, created, event);
        let next = requests.iter().map(|(method, url)| {
            let key = keys.next(&method.parse().expect("a method"), &url.parse().expect("a URL"));
            key.to_str().expect("text").to_owned()
        });
        next.collect()
    }

    #[test]
    fn a_key_follows_from_all_that_names_the_request() {
        let base = ("notify", 7, "ORDERS:5", [("POST", "https://a.net/x")]);
        let key = &keys(base.0, base.1, base.2, &base.3)[0];
        // Fixed for ever: servers remember keys from before an upgrade.
        assert_eq!(key, "49ff41bd-4fd2-8bed-b4ee-b95cfcd33a18");
        assert_eq!(key, &keys(base.0, base.1, base.2, &base.3)[0]);
        for other in [
            keys("notif", 7, "yORDERS:5", &base.3),
            keys(base.0, 8, base.2, &base.3),
            keys(base.0, base.1, "ORDERS:6", &base.3),
            keys(base.0, base.1, base.2, &[("PUT", "https://a.net/x")]),
            keys(base.0, base.1, base.2, &[("POST", "https://a.net/y")]),
            keys(base.0, base.1, base.2, &[("POST", "https://b.net/x")]),
            keys(base.0, base.1, base.2, &[("POST", "http://a.net/x")]),
        ] {
            assert_ne!(key, &other[0]);
        }
    }

    #[test]
    fn like_requests_are_numbered_and_others_shift_nothing() {
        let post = ("POST", "https://a.net/x");
        let twice = keys("h", 7, "S:1", &[post, ("POST", "https://a.net/x?again")]);
        assert_ne!(twice[0], twice[1]);
        let with_login = keys("h", 7, "S:1", &[("POST", "https://a.net/login"), post, post]);
        assert_eq!(with_login[1..], twice);
    }
}
