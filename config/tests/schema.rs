//! Goal: an editor that holds a sample against the committed schema finds nothing, and finds what is wrong. Method: the keywords
//! that our schema uses, checked here; another one is a failure, so that none is passed over.
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a schema's keyword is one kind of value, all others are wrong"
)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;

use regex::Regex;
use serde_json::Value;

/// Keywords that say nothing about validity.
const NOTES: [&str; 7] = [
    "$schema",
    "$defs",
    "title",
    "description",
    "default",
    "examples",
    "format",
];

/// What of `value` does not fit `schema`; `root` has the definitions.
fn mistakes(value: &Value, schema: &Value, root: &Value, place: &str) -> Vec<String> {
    let keywords = match schema {
        Value::Bool(true) => return Vec::new(),
        Value::Object(keywords) => keywords,
        _ => return vec![format!("{place}: nothing may stand here")],
    };
    let mut found = Vec::new();
    let mut expect = |holds: bool, keyword: &str| {
        if !holds {
            found.push(format!("{place}: {keyword}"));
        }
    };
    for (keyword, rule) in keywords {
        match keyword.as_str() {
            "type" => expect(is_of_type(value, rule), "type"),
            "const" => expect(value == rule, "const"),
            "enum" => expect(rule.as_array().unwrap().contains(value), "enum"),
            "minimum" => expect(
                number(value).is_none_or(|n| n >= number(rule).unwrap()),
                "minimum",
            ),
            "maximum" => expect(
                number(value).is_none_or(|n| n <= number(rule).unwrap()),
                "maximum",
            ),
            "pattern" => {
                let pattern = Regex::new(rule.as_str().unwrap()).unwrap();
                expect(
                    value.as_str().is_none_or(|text| pattern.is_match(text)),
                    "pattern",
                );
            }
            "required" => {
                for key in rule.as_array().unwrap() {
                    let key = key.as_str().unwrap();
                    expect(value.as_object().is_none_or(|map| map.contains_key(key)), key);
                }
            }
            "anyOf" | "oneOf" => {
                let fits = |one: &&Value| mistakes(value, one, root, place).is_empty();
                let fitting = rule.as_array().unwrap().iter().filter(fits).count();
                let enough = if keyword == "oneOf" {
                    fitting == 1
                } else {
                    fitting > 0
                };
                expect(enough, keyword);
            }
            "$ref" => {
                let name = rule.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
                let below = mistakes(value, &root["$defs"][name], root, place);
                below.iter().for_each(|mistake| expect(false, mistake));
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    let below = mistakes(item, rule, root, &format!("{place}[{index}]"));
                    below.iter().for_each(|mistake| expect(false, mistake));
                }
            }
            "properties" | "additionalProperties" => {
                let named = keywords.get("properties").and_then(Value::as_object);
                for (key, below) in value.as_object().into_iter().flatten() {
                    let known = named.and_then(|named| named.get(key));
                    let rule = match (keyword.as_str(), known) {
                        ("properties", Some(rule)) => rule,
                        ("additionalProperties", None) => rule,
                        _ => continue,
                    };
                    let below = mistakes(below, rule, root, &format!("{place}.{key}"));
                    below.iter().for_each(|mistake| expect(false, mistake));
                }
            }
            note => assert!(
                NOTES.contains(&note),
                "the keyword {note} is not checked by this test"
            ),
        }
    }
    found
}

fn number(value: &Value) -> Option<f64> {
    value.as_f64()
}

fn is_of_type(value: &Value, rule: &Value) -> bool {
    let is = |name: &Value| match name.as_str().unwrap() {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("the type {other} is not checked by this test"),
    };
    match rule {
        Value::Array(names) => names.iter().any(is),
        name => is(name),
    }
}

fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn judge(text: &str) -> Vec<String> {
    let schema = fs::read_to_string(folder().join("schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let value: Value = serde_saphyr::from_str(text).unwrap();
    mistakes(&value, &schema, &schema, "")
}

#[test]
fn every_sample_fits_the_schema() {
    let mut count = 0;
    for entry in fs::read_dir(folder().join("samples")).unwrap() {
        let file = entry.unwrap().path();
        let found = judge(&fs::read_to_string(&file).unwrap());
        assert!(found.is_empty(), "{}: {found:?}", file.display());
        count += 1;
    }
    assert!(count >= 4, "only {count} samples");
}

#[test]
fn what_does_not_fit_is_found() {
    let good = fs::read_to_string(folder().join("samples/production.yaml")).unwrap();
    for (from, to) in [
        ("node:", "nod:"),
        ("quota: 64GiB", "quota: plenty"),
        ("nodes: 6", "nodes: some"),
        ("durability: sync_always", "durability: always"),
        ("backoff: {", "backoff: { factors: 2, "),
        ("stream: ORDERS,", "stream: [a],"),
        ("required: true", "required: perhaps"),
    ] {
        assert!(good.contains(from), "{from}");
        assert_ne!(judge(&good.replacen(from, to, 1)), Vec::<String>::new(), "{to}");
    }
    assert_ne!(judge("node: n1\n"), Vec::<String>::new(), "keys are missing");
}
