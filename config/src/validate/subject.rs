//! Subjects with wildcards: their syntax, and whether two can match one message.

use crate::limits::SUBJECT_BYTES_MAX;

/// Checks a subject that may hold the wildcards `*` and `>`.
///
/// # Errors
/// What is wrong with it, as a clause.
pub fn check_pattern(subject: &str) -> Result<(), String> {
    if subject.is_empty() || subject.len() > SUBJECT_BYTES_MAX {
        return Err(format!("a subject has 1 to {SUBJECT_BYTES_MAX} bytes"));
    }
    let mut tokens = subject.split('.').peekable();
    while let Some(token) = tokens.next() {
        if token.is_empty() {
            return Err("a subject has no empty part between its dots".to_owned());
        }
        if token.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err("a subject has no blanks".to_owned());
        }
        if token == ">" && tokens.peek().is_some() {
            return Err("`>` stands only at a subject's end".to_owned());
        }
        if token.len() > 1 && token.contains(['*', '>']) {
            return Err("a wildcard is a whole part of a subject".to_owned());
        }
    }
    Ok(())
}

/// Checks a subject without wildcards.
///
/// # Errors
/// What is wrong with it, as a clause.
pub fn check_literal(subject: &str) -> Result<(), String> {
    check_pattern(subject)?;
    if subject.split('.').any(|token| token == "*" || token == ">") {
        return Err("wildcards cannot stand here".to_owned());
    }
    Ok(())
}

/// Whether some subject matches both patterns.
pub fn overlap(left: &str, right: &str) -> bool {
    let (mut left, mut right) = (left.split('.'), right.split('.'));
    loop {
        match (left.next(), right.next()) {
            (None, None) => return true,
            // `>` needs at least one part, which the other side has when it is not at its end.
            (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
            (Some(a), Some(b)) if a == b || a == "*" || b == "*" => {}
            (Some(_) | None, Some(_) | None) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: the hub's own rules of subjects. Method: tables.
    use super::*;

    #[test]
    fn syntax() {
        for good in ["a", "a.b", "a.*.c", "a.>", ">", "*", "$KV.x", "a-b_c"] {
            assert_eq!(check_pattern(good), Ok(()), "{good}");
        }
        for bad in ["", ".", "a.", ".a", "a..b", "a.>.b", "a b", "a.b*", "a.>x", "a\t"] {
            assert!(check_pattern(bad).is_err(), "{bad}");
        }
        assert!(check_literal("a.b").is_ok() && check_literal("a.*").is_err() && check_literal(">").is_err());
    }

    #[test]
    fn overlaps() {
        for (left, right, expected) in [
            ("a", "a", true),
            ("a", "b", false),
            ("a.*", "a.b", true),
            ("a.>", "a", false),
            ("a.>", "a.b.c", true),
            (">", "x", true),
            ("*.b", "a.*", true),
            ("a.*", "a.b.c", false),
            ("a.*.c", "a.b.d", false),
            ("a.b.>", "a.*.c", true),
        ] {
            assert_eq!(overlap(left, right), expected, "{left} {right}");
            assert_eq!(overlap(right, left), expected, "{right} {left}");
        }
    }
}
