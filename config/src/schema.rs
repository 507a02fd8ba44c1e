//! The JSON Schema of the configuration, for editors and for [`crate::shape`].

use schemars::generate::SchemaSettings;
use serde_json::Value;

use crate::model::Config;

fn settings() -> SchemaSettings {
    SchemaSettings::draft2020_12()
}

/// The schema as indented JSON with a line's end, as `config/schema.json` holds it.
pub fn schema() -> String {
    let schema = settings().into_generator().into_root_schema_for::<Config>();
    format!("{:#}\n", schema.to_value())
}

/// The schema without references.
pub(crate) fn inlined() -> Value {
    let settings = settings().with(|settings| settings.inline_subschemas = true);
    settings
        .into_generator()
        .into_root_schema_for::<Config>()
        .to_value()
}
