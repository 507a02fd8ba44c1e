//! Comparing what the hub holds with what fanin needs, setting by setting.

use std::fmt;

use serde_json::Value;

/// One setting of a stream or consumer that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The setting, by its name in the hub's configuration.
    pub setting: String,
    /// What the hub has.
    pub found: String,
    /// What fanin needs.
    pub wanted: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}, needed is {}", self.setting, self.found, self.wanted)
    }
}

/// A list of mismatches in one sentence.
pub(crate) fn sentence(list: &[Mismatch]) -> String {
    list.iter()
        .map(Mismatch::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

/// The settings among `names` in which two configurations differ. A setting that is left out counts as its zero value,
/// as the server leaves zero values out of its answers.
pub(crate) fn differences(found: &Value, wanted: &Value, names: &[&str]) -> Vec<Mismatch> {
    names
        .iter()
        .filter_map(|name| {
            let (found, wanted) = (found.get(name), wanted.get(name));
            if same(found, wanted) {
                return None;
            }
            Some(Mismatch {
                setting: (*name).to_owned(),
                found: show(found),
                wanted: show(wanted),
            })
        })
        .collect()
}

fn same(a: Option<&Value>, b: Option<&Value>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(one), None) | (None, Some(one)) => is_zero(one),
        (Some(a), Some(b)) => a == b || (is_zero(a) && is_zero(b)),
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty() || s == "none",
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
    }
}

fn show(value: Option<&Value>) -> String {
    value.map_or_else(|| "unset".to_owned(), Value::to_string)
}

#[cfg(test)]
mod tests {
    //! Goal: only real differences are named. Method: pairs with left-out zero values.
    use super::*;
    use serde_json::json;

    #[test]
    fn left_out_is_zero() {
        let found = json!({"a": 1, "b": false, "d": "none"});
        let wanted = json!({"a": 2, "c": 0, "e": "x"});
        let names: Vec<String> = differences(&found, &wanted, &["a", "b", "c", "d", "e"])
            .into_iter()
            .map(|m| m.setting)
            .collect();
        assert_eq!(names, ["a", "e"]);
    }
}
