//! Text as part of a subject, and subjects that match patterns.

use std::fmt::Write;

/// Writes any text as one token of a subject: bytes outside `A-Z a-z 0-9 _ -`
/// become `%XX`. A key that came from a payload may hold dots, spaces or
/// wildcards; a subject made of it must not.
///
/// Empty text stays empty, and no subject has an empty token.
///
/// ```
/// use weir_guest::subject_token;
/// assert_eq!(subject_token("N14228"), "N14228");
/// assert_eq!(subject_token("a.b *"), "a%2Eb%20%2A");
/// assert_eq!(subject_token("ü"), "%C3%BC");
/// ```
pub fn subject_token(text: &str) -> String {
    let mut token = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-' {
            token.push(char::from(byte));
        } else {
            write!(token, "%{byte:02X}").expect("a string takes all that is written");
        }
    }
    token
}

/// The text that [`subject_token`] wrote. What it would have escaped and is not stays as it is.
///
/// `None` where a `%` is not followed by two hexadecimal digits, or the bytes are not UTF-8.
///
/// ```
/// use weir_guest::{from_subject_token, subject_token};
/// assert_eq!(from_subject_token(&subject_token("a.b *")).as_deref(), Some("a.b *"));
/// assert_eq!(from_subject_token("%2"), None);
/// ```
pub fn from_subject_token(token: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(token.len());
    let mut rest = token.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (hex, after) = rest.split_at_checked(2)?;
        let digit = |byte: u8| char::from(byte).to_digit(16);
        bytes.push(u8::try_from(digit(hex[0])? * 16 + digit(hex[1])?).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

/// Whether a subject matches a pattern of NATS: `*` is any one token, `>` at the end one or more.
pub(crate) fn matches(pattern: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    let mut wanted = pattern.split('.').peekable();
    while let Some(want) = wanted.next() {
        match tokens.next() {
            None => return false,
            Some(_) if want == ">" && wanted.peek().is_none() => return true,
            Some(token) if want != "*" && want != token => return false,
            Some(_) => {}
        }
    }
    tokens.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_read_back() {
        for text in ["", "7", "a.b", "ü%*>", "100%"] {
            assert_eq!(from_subject_token(&subject_token(text)).as_deref(), Some(text));
        }
        for bad in ["%", "%4", "%zz", "%+1", "%ff"] {
            assert_eq!(from_subject_token(bad), None, "{bad}");
        }
        assert_eq!(from_subject_token("ü").as_deref(), Some("ü"));
    }

    #[test]
    fn patterns() {
        for (pattern, subject, expected) in [
            ("a.b", "a.b", true),
            ("a.b", "a.c", false),
            ("a.*", "a.b", true),
            ("a.*", "a.b.c", false),
            ("a.*", "a", false),
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
            ("*.b", "a.b", true),
            ("a.b.c", "a.b", false),
        ] {
            assert_eq!(matches(pattern, subject), expected, "{pattern} {subject}");
        }
    }
}
