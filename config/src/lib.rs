//! The YAML configuration of fanin: types, layers, validation, schema.
