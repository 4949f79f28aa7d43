//! Text as part of a subject.

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
