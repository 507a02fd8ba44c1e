//! The field of a JSON line that identifies its message.

use std::fmt;
use std::str::FromStr;

use serde_json::Value;

/// A path such as `id`, `order.id` or `items.0.sku`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FieldPath(Vec<String>);

impl FromStr for FieldPath {
    type Err = String;

    fn from_str(text: &str) -> Result<FieldPath, String> {
        let steps: Vec<String> = text.split('.').map(str::to_owned).collect();
        if steps.iter().any(String::is_empty) {
            return Err("write the names from the outside in, separated by dots: order.id".to_owned());
        }
        Ok(FieldPath(steps))
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("."))
    }
}

/// Why a line has no message id.
#[derive(Debug, thiserror::Error)]
pub(super) enum FieldError {
    #[error("it is not valid JSON")]
    Json(#[from] serde_json::Error),
    #[error("it has no field {0}")]
    Missing(FieldPath),
    #[error("its field {0} is neither a text that is not empty nor a number")]
    NotScalar(FieldPath),
}

impl FieldPath {
    /// The id of a line.
    ///
    /// # Errors
    /// The line is no JSON, or the field is missing or cannot be an id.
    pub(super) fn of(&self, line: &[u8]) -> Result<String, FieldError> {
        let root: Value = serde_json::from_slice(line)?;
        let found = self.0.iter().try_fold(&root, |value, step| match value {
            Value::Object(fields) => fields.get(step),
            Value::Array(items) => items.get(step.parse::<usize>().ok()?),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        });
        match found {
            None => Err(FieldError::Missing(self.clone())),
            Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
            Some(Value::Number(number)) => Ok(number.to_string()),
            Some(Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_)) => {
                Err(FieldError::NotScalar(self.clone()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: ids are found, and what is no id is refused. Method: examples.
    use super::*;

    #[test]
    fn paths() {
        let line = br#"{"id": 7, "order": {"id": "o-1"}, "items": [{"sku": "a"}], "empty": "", "yes": true}"#;
        let of = |path: &str| path.parse::<FieldPath>().unwrap().of(line);
        assert_eq!(of("id").unwrap(), "7");
        assert_eq!(of("order.id").unwrap(), "o-1");
        assert_eq!(of("items.0.sku").unwrap(), "a");
        assert!(matches!(of("nope"), Err(FieldError::Missing(_))));
        assert!(matches!(of("items.1.sku"), Err(FieldError::Missing(_))));
        for path in ["empty", "yes", "order", "items"] {
            assert!(matches!(of(path), Err(FieldError::NotScalar(_))), "{path}");
        }
        assert!(matches!(
            "id".parse::<FieldPath>().unwrap().of(b"{nope"),
            Err(FieldError::Json(_))
        ));
        assert!("a..b".parse::<FieldPath>().is_err() && "".parse::<FieldPath>().is_err());
    }
}
