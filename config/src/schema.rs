//! The JSON Schema of the configuration, for editors and for [`crate::shape`].

use std::collections::BTreeMap;

use schemars::generate::SchemaSettings;
use serde_json::Value;

use crate::model::Config;

fn settings() -> SchemaSettings {
    SchemaSettings::draft2020_12()
}

/// The schema as indented JSON with a line's end, as `config/schema.json` holds it.
pub fn schema() -> String {
    let schema = settings().into_generator().into_root_schema_for::<Config>();
    format!("{:#}\n", sorted(schema.to_value()))
}

/// With its keys in order, whichever map serde_json was built with.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(entries) => {
            let entries: BTreeMap<String, Value> = entries.into_iter().collect();
            Value::Object(
                entries
                    .into_iter()
                    .map(|(key, value)| (key, sorted(value)))
                    .collect(),
            )
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        value @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => value,
    }
}

/// The schema without references.
pub(crate) fn inlined() -> Value {
    let settings = settings().with(|settings| settings.inline_subschemas = true);
    settings
        .into_generator()
        .into_root_schema_for::<Config>()
        .to_value()
}
