//! `${VAR}` and `${VAR:default}` inside values; `$${` stands for a literal `${`.

use std::collections::BTreeMap;

/// A value with its variables put in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Expanded {
    pub(crate) text: String,
    /// The whole value is one defined variable: nothing of it is spelt out in the file.
    pub(crate) from_variable: bool,
}

/// Why a value cannot be expanded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ExpandError {
    Undefined { name: String },
    Malformed { why: &'static str },
}

/// Puts the variables of `env` into `text`.
pub(crate) fn expand(text: &str, env: &BTreeMap<String, String>) -> Result<Expanded, ExpandError> {
    let mut expanded = String::with_capacity(text.len());
    let mut from_variable = false;
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            expanded.push_str(&rest[..at - 1]);
            expanded.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        expanded.push_str(&rest[..at]);
        let body = &rest[at + 2..];
        let Some(end) = body.find('}') else {
            return Err(ExpandError::Malformed {
                why: "a ${ without its }",
            });
        };
        let (name, default) = match body[..end].split_once(':') {
            Some((name, default)) => (name, Some(default)),
            None => (&body[..end], None),
        };
        let first_ok = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if !first_ok
            || !name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        {
            return Err(ExpandError::Malformed {
                why: "not the name of a variable between ${ and }",
            });
        }
        match (env.get(name), default) {
            (Some(value), _) => {
                from_variable = at == 0 && rest.len() == text.len() && end + 3 == text.len();
                expanded.push_str(value);
            }
            (None, Some(default)) => expanded.push_str(default),
            (None, None) => {
                return Err(ExpandError::Undefined {
                    name: name.to_owned(),
                });
            }
        }
        rest = &body[end + 1..];
    }
    expanded.push_str(rest);
    Ok(Expanded {
        text: expanded,
        from_variable,
    })
}

#[cfg(test)]
mod tests {
    //! Goal: the documented forms and no others. Method: a table.
    use super::*;

    #[test]
    fn forms() {
        let env: BTreeMap<String, String> = [("A", "1"), ("B_2", "two"), ("E", "")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into();
        for (text, expected, from_variable) in [
            ("plain $ {x}", "plain $ {x}", false),
            ("${A}", "1", true),
            ("${E}", "", true),
            ("x${A}y${B_2}", "x1ytwo", false),
            ("${NO:fallback}", "fallback", false),
            ("${NO:}", "", false),
            ("${NO:a:b}", "a:b", false),
            ("${A:9}", "1", true),
            ("$${A}", "${A}", false),
            ("$${A}${A}", "${A}1", false),
        ] {
            assert_eq!(
                expand(text, &env),
                Ok(Expanded {
                    text: expected.to_owned(),
                    from_variable
                }),
                "{text}"
            );
        }
        assert_eq!(
            expand("a${NO}", &env),
            Err(ExpandError::Undefined {
                name: "NO".to_owned()
            })
        );
        for text in ["${A", "${}", "${1A}", "${A B}", "${:x}"] {
            assert!(
                matches!(expand(text, &env), Err(ExpandError::Malformed { .. })),
                "{text}"
            );
        }
    }
}
