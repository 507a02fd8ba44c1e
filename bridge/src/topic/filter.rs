//! Which subjects an application receives.

/// Subject patterns as NATS knows them: tokens between dots, `*` for one token, `>` at the end for one or more.
/// An empty filter matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubjectFilter {
    patterns: Vec<String>,
}

impl SubjectFilter {
    /// A filter that any of the patterns satisfies. The configuration has checked their syntax.
    #[must_use]
    pub fn new(patterns: Vec<String>) -> SubjectFilter {
        SubjectFilter { patterns }
    }

    /// Whether every subject passes.
    #[must_use]
    pub fn passes_all(&self) -> bool {
        self.patterns.is_empty() || self.patterns.iter().any(|pattern| pattern == ">")
    }

    /// Whether this subject passes.
    #[must_use]
    pub fn matches(&self, subject: &str) -> bool {
        self.patterns.is_empty()
            || self
                .patterns
                .iter()
                .any(|pattern| pattern_matches(pattern, subject))
    }
}

fn pattern_matches(pattern: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for wanted in pattern.split('.') {
        let Some(token) = tokens.next() else { return false };
        match wanted {
            ">" => return true,
            "*" => {}
            _ if wanted == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the wildcards mean what they mean to a NATS server. Method: a table.
    #[test]
    fn wildcards() {
        let table = [
            ("a.b", "a.b", true),
            ("a.b", "a.b.c", false),
            ("a.b.c", "a.b", false),
            ("a.*", "a.b", true),
            ("a.*", "a", false),
            ("a.*", "a.b.c", false),
            ("*.b", "a.b", true),
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
            (">", "a", true),
            ("*", "a.b", false),
        ];
        for (pattern, subject, expected) in table {
            let filter = SubjectFilter::new(vec!["never.this".into(), pattern.into()]);
            assert_eq!(filter.matches(subject), expected, "{pattern} on {subject}");
        }
        assert!(SubjectFilter::default().matches("anything.at.all"));
        assert!(SubjectFilter::default().passes_all() && SubjectFilter::new(vec![">".into()]).passes_all());
    }
}
