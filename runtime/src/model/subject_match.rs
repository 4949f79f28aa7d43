//! Which subjects a pattern covers, by the rules of NATS: `*` stands for one
//! token, a last `>` for one or more.

/// Whether `pattern` covers the literal `subject`.
///
/// ```
/// use weir::model::subject_match::matches;
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

/// Whether any of `patterns` covers `subject`.
pub fn matches_any(patterns: &[String], subject: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern, subject))
}

#[cfg(test)]
mod tests {
    use super::*;

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
