//! Where keys come from, the partition of each, and how a key or a cell's name
//! is written as one token of a subject or of a bucket key.

/// Where an event's key comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyFrom {
    Subject,
    Header(String),
    /// Token of the subject, counted from 1.
    SubjectToken(usize),
    /// JSON pointer (RFC 6901) into the payload.
    Json(String),
}

impl KeyFrom {
    /// The rule as text: recorded with each commit, and shown to people.
    pub fn describe(&self) -> String {
        match self {
            KeyFrom::Subject => "subject".into(),
            KeyFrom::Header(name) => format!("header {name}"),
            KeyFrom::SubjectToken(n) => format!("subject_token {n}"),
            KeyFrom::Json(pointer) => format!("json {pointer}"),
        }
    }
}

/// The partition of `key`: 32-bit FNV-1a modulo `partitions`, which is the hash
/// of NATS's own `partition()` subject mapping.
///
/// ```
/// assert!(weir::model::key::partition("N14228", 16) < 16);
/// ```
pub fn partition(key: &str, partitions: u32) -> u32 {
    const OFFSET: u32 = 2_166_136_261;
    const PRIME: u32 = 16_777_619;
    let hash = key
        .bytes()
        .fold(OFFSET, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(PRIME));
    hash % partitions
}

/// Writes any string as one token that is valid in a subject and in a KV key:
/// bytes outside `A-Z a-z 0-9 _ -` become `=XX`, the empty string becomes `=`.
///
/// ```
/// use weir::model::key::{token, untoken};
/// assert_eq!(token("a.b"), "a=2Eb");
/// assert_eq!(untoken("a=2Eb").as_deref(), Some("a.b"));
/// ```
pub fn token(text: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    if text.is_empty() {
        return "=".into();
    }
    let mut out = String::with_capacity(text.len() + 8);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-' {
            out.push(char::from(byte));
        } else {
            out.push('=');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    out
}

/// The string that [`token`] wrote, or `None` if it did not write this one.
pub fn untoken(token: &str) -> Option<String> {
    if token == "=" {
        return Some(String::new());
    }
    let mut bytes = Vec::with_capacity(token.len());
    let mut rest = token.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'=' {
            let high = char::from(rest.next()?).to_digit(16)?;
            let low = char::from(rest.next()?).to_digit(16)?;
            bytes.push((high * 16 + low) as u8);
        } else {
            bytes.push(byte);
        }
    }
    let text = String::from_utf8(bytes).ok()?;
    (self::token(&text) == token).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_those_of_nats() {
        // fnv1a32 test vectors, http://www.isthe.com/chongo/src/fnv/test_fnv.c
        assert_eq!(partition("", u32::MAX), 0x811c_9dc5);
        assert_eq!(partition("a", u32::MAX), 0xe40c_292c);
        assert_eq!(partition("foobar", u32::MAX), 0xbf9c_f968);
    }

    #[test]
    fn tokens_round_trip_and_nothing_else_reads_as_one() {
        for text in ["", "=", "a b", "N14228", "ü.*>", "%41", "a=41", "x\u{0}y"] {
            let token = token(text);
            assert!(
                token
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"_-=".contains(&b)),
                "{token}"
            );
            assert_eq!(untoken(&token).as_deref(), Some(text));
        }
        for other in ["=4", "=zz", "=61", "==", "=ff", "a=t"] {
            assert_eq!(untoken(other), None, "{other}");
        }
    }
}
