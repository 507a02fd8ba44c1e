//! The configuration as `fanin config show` prints it: complete, without secrets, with the origin of each value.

use serde_json::Value;

use crate::model::Config;
use crate::problem::{KeyPath, Origin};
use crate::{Loaded, RenderError};

/// One value in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Effective {
    /// The key.
    pub key: KeyPath,
    /// Its value; secrets are redacted.
    pub value: Value,
    /// Who set it.
    pub origin: Origin,
}

impl Config {
    /// The whole configuration as JSON, defaults included, secrets redacted.
    ///
    /// # Errors
    /// A value that JSON cannot hold, such as a path that is not UTF-8.
    pub fn redacted_json(&self) -> Result<Value, RenderError> {
        Ok(serde_json::to_value(self)?)
    }

    /// The whole configuration as YAML, defaults included, secrets redacted.
    ///
    /// # Errors
    /// A value that YAML cannot hold, such as a path that is not UTF-8.
    pub fn redacted_yaml(&self) -> Result<String, RenderError> {
        // By way of JSON, which leaves out what is absent, so that the result is itself a valid configuration.
        let mut value = self.redacted_json()?;
        drop_nulls(&mut value);
        Ok(serde_saphyr::to_string(&value)?)
    }
}

impl Loaded {
    /// Every value in force, with who set it, in the order of the keys.
    ///
    /// # Errors
    /// As [`Config::redacted_json`].
    pub fn effective(&self) -> Result<Vec<Effective>, RenderError> {
        let mut all = Vec::new();
        self.flatten(KeyPath::default(), self.config.redacted_json()?, &mut all);
        all.sort_by(|left, right| left.key.cmp(&right.key));
        Ok(all)
    }

    fn flatten(&self, key: KeyPath, value: Value, all: &mut Vec<Effective>) {
        match value {
            Value::Object(entries) if !entries.is_empty() => {
                for (name, value) in entries {
                    self.flatten(key.key(&name), value, all);
                }
            }
            Value::Array(items) if !items.is_empty() => {
                for (index, value) in items.into_iter().enumerate() {
                    self.flatten(key.index(index), value, all);
                }
            }
            Value::Null => {}
            value @ (Value::Object(_)
            | Value::Array(_)
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)) => {
                let origin = self.origin(&key);
                all.push(Effective { key, value, origin });
            }
        }
    }
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(entries) => {
            entries.retain(|_, value| !value.is_null());
            entries.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
