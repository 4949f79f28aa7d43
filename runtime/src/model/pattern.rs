//! Subjects and subject patterns, by the rules of NATS: tokens separated by
//! dots, `*` for one token, a last `>` for one or more.

/// Longest subject or pattern that Weir takes. The server's bound is that of a
/// protocol line (4,096 bytes), which holds more than the subject.
pub const SUBJECT_BYTES_MAX: usize = 1_024;

/// Bytes of a name that is one token of many subjects: a ledger's, a host's.
pub const TOKEN_BYTES_MAX: usize = 64;

/// Says what is wrong with a pattern, if anything is.
///
/// ```
/// use weir::model::pattern::check;
/// assert!(check("flights.*.UA.>").is_ok());
/// assert!(check("flights..UA").is_err());
/// ```
pub fn check(pattern: &str) -> Result<(), String> {
    if pattern.is_empty() {
        return Err("a subject may not be empty".into());
    }
    if pattern.len() > SUBJECT_BYTES_MAX {
        return Err(format!("`{pattern}` is longer than {SUBJECT_BYTES_MAX} bytes"));
    }
    if let Some(bad) = pattern.chars().find(|c| c.is_whitespace() || c.is_control()) {
        return Err(format!("`{}` holds {bad:?}", pattern.escape_debug()));
    }
    let mut tokens = pattern.split('.').peekable();
    while let Some(token) = tokens.next() {
        if token.is_empty() {
            return Err(format!("`{pattern}` has an empty token"));
        }
        if token == ">" && tokens.peek().is_some() {
            return Err(format!("`{pattern}` has `>` before its last token"));
        }
    }
    Ok(())
}

/// Whether `pattern` matches the literal `subject`.
///
/// ```
/// use weir::model::pattern::matches;
/// assert!(matches("stats.>", "stats.carrier.UA"));
/// assert!(!matches("stats.>", "stats"));
/// assert!(matches("*.new", "orders.new"));
/// ```
pub fn matches(pattern: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    let mut wanted = pattern.split('.').peekable();
    while let Some(want) = wanted.next() {
        let Some(token) = tokens.next() else {
            return false;
        };
        if want == ">" && wanted.peek().is_none() {
            return true;
        }
        if want != "*" && want != token {
            return false;
        }
    }
    tokens.next().is_none()
}

/// Whether any of `patterns` matches `subject`.
pub fn matches_any(patterns: &[String], subject: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern, subject))
}

/// Whether every subject that `inner` matches is matched by `outer` too.
///
/// ```
/// use weir::model::pattern::covers;
/// assert!(covers("stats.>", "stats.carrier.*"));
/// assert!(!covers("stats.*", "stats.>"));
/// ```
pub fn covers(outer: &str, inner: &str) -> bool {
    let mut inner = inner.split('.');
    for want in outer.split('.') {
        match (want, inner.next()) {
            (">", Some(_)) => return true,
            (_, None | Some(">")) => return false,
            ("*", Some(_)) => {}
            (want, Some(token)) if want == token => {}
            _ => return false,
        }
    }
    inner.next().is_none()
}

/// Patterns of all that `pattern` matches and whose token number `n`, counted from 1, is `token`.
///
/// ```
/// use weir::model::pattern::with_token;
/// assert_eq!(with_token("a.*.c", 2, "x"), ["a.x.c"]);
/// assert_eq!(with_token("a.>", 3, "x"), ["a.*.x", "a.*.x.>"]);
/// assert!(with_token("a.b", 2, "x").is_empty());
/// ```
pub fn with_token(pattern: &str, n: usize, token: &str) -> Vec<String> {
    let mut tokens: Vec<&str> = pattern.split('.').collect();
    let open = tokens.last() == Some(&">");
    if open && n >= tokens.len() {
        tokens.pop();
        tokens.resize(n - 1, "*");
        let begin = [&tokens[..], &[token]].concat().join(".");
        return vec![begin.clone(), format!("{begin}.>")];
    }
    match tokens.get_mut(n - 1) {
        Some(place) if *place == "*" || *place == token => *place = token,
        _ => return Vec::new(),
    }
    vec![tokens.join(".")]
}

/// Whether `text` is one token of a literal subject.
pub fn is_literal_token(text: &str) -> bool {
    check(text).is_ok() && !text.contains('.') && text != "*" && text != ">"
}

/// Whether some subject is matched by both.
pub fn overlap(a: &str, b: &str) -> bool {
    let (mut a, mut b) = (a.split('.'), b.split('.'));
    loop {
        match (a.next(), b.next()) {
            (None, None) => return true,
            (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
            (Some(x), Some(y)) if x == y || x == "*" || y == "*" => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for good in ["a", "a.b", "*", ">", "a.*.c", "a.>", "a*", "$X.a", "ü.b"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in ["", ".", "a.", ".a", "a..b", ">.a", "a b", "a\tb", "a.\u{0}"] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
        assert!(check(&"x".repeat(SUBJECT_BYTES_MAX)).is_ok());
        assert!(check(&"x".repeat(SUBJECT_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn covering_and_overlapping() {
        for (outer, inner, covered, overlapping) in [
            ("a", "a", true, true),
            ("a", "b", false, false),
            ("a.*", "a.b", true, true),
            ("a.b", "a.*", false, true),
            ("a.>", "a.b.*", true, true),
            ("a.>", "a.>", true, true),
            ("a.*", "a.>", false, true),
            ("a.>", "a", false, false),
            (">", "a.b", true, true),
            ("*", "a.b", false, false),
            ("a.*.c", "a.b.*", false, true),
            ("a.*.c", "a.b.d", false, false),
        ] {
            assert_eq!(covers(outer, inner), covered, "{outer} covers {inner}");
            assert_eq!(overlap(outer, inner), overlapping, "{outer} overlaps {inner}");
            assert_eq!(overlap(inner, outer), overlapping, "{inner} overlaps {outer}");
        }
    }

    #[test]
    fn wildcards_are_those_of_nats() {
        for (pattern, subject, covered) in [
            ("a", "a", true),
            ("a", "b", false),
            ("a", "a.b", false),
            ("a.b", "a", false),
            ("*", "a", true),
            ("*", "a.b", false),
            ("a.*", "a", false),
            ("a.*.c", "a.b.c", true),
            ("a.*.c", "a.b.d", false),
            (">", "a", true),
            (">", "a.b.c", true),
            ("a.>", "a", false),
            ("a.>", "a.b", true),
            ("a.>", "b.b", false),
            ("a.*.>", "a.b", false),
            ("a.*.>", "a.b.c.d", true),
            // Only a whole token is a wildcard.
            ("a*", "ab", false),
            ("a>", "ab", false),
            // `>` that is not last is an ordinary token.
            (">.a", "b.a", false),
        ] {
            assert_eq!(matches(pattern, subject), covered, "{pattern} {subject}");
        }
    }
}
