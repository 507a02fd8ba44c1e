//! Which keys exist where, read from the JSON Schema so that there is one list of keys and not two.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde_json::Value;

use crate::problem::{KeyPath, Segment};

/// What may stand at a place of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One value.
    Scalar,
    /// A list of one shape.
    List(Box<Shape>),
    /// Fixed keys.
    Struct(BTreeMap<String, Shape>),
    /// Names chosen by the user, all of one shape.
    Map(Box<Shape>),
}

impl Shape {
    /// The shape of the whole configuration.
    pub(crate) fn root() -> &'static Shape {
        static ROOT: OnceLock<Shape> = OnceLock::new();
        ROOT.get_or_init(|| Shape::of(&crate::schema::inlined()))
    }

    fn of(schema: &Value) -> Shape {
        let null = |branch: &&Value| branch.get("type").and_then(Value::as_str) != Some("null");
        if let Some(branch) = schema
            .get("anyOf")
            .and_then(Value::as_array)
            .and_then(|all| all.iter().find(null))
        {
            return Shape::of(branch);
        }
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            return Shape::Struct(
                properties
                    .iter()
                    .map(|(key, value)| (key.clone(), Shape::of(value)))
                    .collect(),
            );
        }
        if let Some(items) = schema.get("items") {
            return Shape::List(Box::new(Shape::of(items)));
        }
        match schema.get("additionalProperties") {
            Some(values) if values.is_object() => Shape::Map(Box::new(Shape::of(values))),
            Some(_) | None => Shape::Scalar,
        }
    }

    /// What may stand below this, at a key.
    pub(crate) fn below(&self, key: &str) -> Option<&Shape> {
        match self {
            Shape::Struct(keys) => keys.get(key),
            Shape::Map(shape) => Some(shape),
            Shape::Scalar | Shape::List(_) => None,
        }
    }

    /// Whether a place is known below this.
    pub(crate) fn knows(&self, path: &KeyPath) -> bool {
        let mut shape = self;
        for segment in &path.0 {
            let next = match segment {
                Segment::Key(key) => shape.below(key),
                Segment::Index(_) => shape.item(),
            };
            let Some(next) = next else { return false };
            shape = next;
        }
        true
    }

    /// What the items of a list are.
    pub(crate) fn item(&self) -> Option<&Shape> {
        match self {
            Shape::List(shape) => Some(shape),
            Shape::Scalar | Shape::Struct(_) | Shape::Map(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: the shape follows the schema to its depth. Method: look at a few known places.
    use super::*;

    #[test]
    fn known_places() {
        let mapping = Shape::root()
            .below("mappings")
            .and_then(|shape| shape.below("any"))
            .expect("a mapping");
        assert_eq!(mapping.below("ack_wait"), Some(&Shape::Scalar));
        let source = mapping.below("sources").and_then(Shape::item).expect("a source");
        assert_eq!(
            source.below("subjects"),
            Some(&Shape::List(Box::new(Shape::Scalar)))
        );
        let app = mapping
            .below("applications")
            .and_then(|shape| shape.below("any"))
            .expect("an application");
        assert!(matches!(app.below("filter"), Some(Shape::Struct(_))));
        assert_eq!(app.below("order_by"), None);
    }
}
