//! From merged values to typed fields, one key at a time, so that every mistake is found and not only the first.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;

use figment::value::{Dict, Value};

use crate::codes::Code;
use crate::layers::{Layer, error};
use crate::problem::{KeyPath, Origin, Problem, Severity};
use crate::shape::Shape;
use crate::units::{ByteSize, FileMode, HumanDuration, Invalid, Listen, Percent, Secret};
use crate::user::User;

/// What decoding and validation share: where values stand, and what is wrong so far.
pub(crate) struct Context<'a> {
    layers: &'a [Layer],
    /// The file named by the request, for what no layer gives.
    file: PathBuf,
    pub(crate) env: &'a BTreeMap<String, String>,
    pub(crate) problems: Vec<Problem>,
    /// Keys whose values are defaults in place of something wrong: nothing more is concluded from them.
    broken: BTreeSet<KeyPath>,
    /// Keys set from elsewhere than the layers.
    derived: BTreeMap<KeyPath, Origin>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(layers: &'a mut [Layer], file: PathBuf, env: &'a BTreeMap<String, String>) -> Self {
        let problems: Vec<Problem> = layers
            .iter_mut()
            .flat_map(|layer| std::mem::take(&mut layer.problems))
            .collect();
        // A key given twice has a value all the same: the first one.
        let unusable = problems
            .iter()
            .filter(|problem| problem.code != Code::DuplicateKey);
        let broken = unusable.map(|problem| problem.key.clone()).collect();
        Self {
            layers,
            file,
            env,
            problems,
            broken,
            derived: BTreeMap::new(),
        }
    }

    /// Whether a layer sets this key.
    pub(crate) fn given(&self, path: &KeyPath) -> bool {
        self.layers.iter().any(|layer| layer.marks.contains_key(path))
    }

    /// Who set the value in force.
    pub(crate) fn origin(&self, path: &KeyPath) -> Origin {
        if let Some(origin) = self.derived.get(path) {
            return origin.clone();
        }
        let mark = self.layers.iter().rev().find_map(|layer| layer.marks.get(path));
        mark.map_or(Origin::Default, |mark| mark.origin.clone())
    }

    /// Where to look: the value's own place, or that of the nearest section around it.
    pub(crate) fn place(&self, path: &KeyPath) -> Origin {
        let own = self.origin(path);
        if own != Origin::Default {
            return own;
        }
        let mut around = path.parent();
        while let Some(section) = around {
            if let Some(mark) = self.layers.iter().find_map(|layer| layer.marks.get(&section)) {
                return mark.origin.clone();
            }
            around = section.parent();
        }
        Origin::File {
            path: self.file.clone(),
            line: 1,
        }
    }

    /// Whether a value may be spelt out where it stands: it came from a variable.
    fn is_from_environment(&self, path: &KeyPath) -> bool {
        let mark = self.layers.iter().rev().find_map(|layer| layer.marks.get(path));
        mark.is_some_and(|mark| mark.from_variable || matches!(mark.origin, Origin::Env { .. }))
    }

    pub(crate) fn mark_broken(&mut self, path: KeyPath) {
        self.broken.insert(path);
    }

    /// Whether nothing wrong was found at this key, around it or below it.
    pub(crate) fn sound(&self, path: &KeyPath) -> bool {
        !self
            .broken
            .iter()
            .any(|broken| !broken.0.is_empty() && (broken.starts_with(path) || path.starts_with(broken)))
    }

    /// Notes an error, unless the key is known to be wrong already.
    pub(crate) fn fail(
        &mut self,
        code: Code,
        path: &KeyPath,
        value: Option<String>,
        why: impl Into<String>,
        cure: impl Into<String>,
    ) {
        if self.sound(path) {
            let origin = self.place(path);
            self.problems
                .push(error(code, origin, path.clone(), value, why.into(), cure.into()));
            self.mark_broken(path.clone());
        }
    }

    pub(crate) fn warn(
        &mut self,
        code: Code,
        path: &KeyPath,
        value: Option<String>,
        why: String,
        cure: &str,
    ) {
        let origin = self.place(path);
        let problem = error(code, origin, path.clone(), value, why, cure.to_owned());
        self.problems.push(Problem {
            severity: Severity::Warning,
            ..problem
        });
    }

    /// Sets a key that no layer gives, and says where from.
    pub(crate) fn derive(&mut self, path: KeyPath, origin: Origin) {
        self.derived.insert(path, origin);
    }

    /// Who set each key that is not at its default.
    pub(crate) fn origins(&self) -> BTreeMap<String, Origin> {
        let mut origins = BTreeMap::new();
        for layer in self.layers {
            origins.extend(
                layer
                    .marks
                    .iter()
                    .map(|(path, mark)| (path.to_string(), mark.origin.clone())),
            );
        }
        origins.extend(
            self.derived
                .iter()
                .map(|(path, origin)| (path.to_string(), origin.clone())),
        );
        origins
    }
}

/// A section of the configuration.
pub(crate) trait Decode: Sized {
    /// Reads every key of the section; a wrong one is noted and its default taken.
    fn decode(section: &mut Section<'_, '_>) -> Self;
}

/// A value that is one scalar.
pub(crate) trait Leaf: Sized {
    fn parse(text: &str) -> Result<Self, Invalid>;
}

/// A map of fixed keys while it is being read.
pub(crate) struct Section<'s, 'c> {
    pub(crate) cx: &'s mut Context<'c>,
    values: &'s Dict,
    pub(crate) path: KeyPath,
    shape: &'static Shape,
    asked: BTreeSet<&'static str>,
}

/// Decodes the merged values as a whole.
pub(crate) fn decode_root<T: Decode>(cx: &mut Context<'_>, values: &Dict) -> T {
    section(cx, values, KeyPath::default(), Shape::root())
}

fn section<T: Decode>(cx: &mut Context<'_>, values: &Dict, path: KeyPath, shape: &'static Shape) -> T {
    let mut section = Section {
        cx,
        values,
        path,
        shape,
        asked: BTreeSet::new(),
    };
    section.unknown_keys();
    let decoded = T::decode(&mut section);
    debug_assert!(
        matches!(shape, Shape::Struct(keys) if keys.keys().all(|key| section.asked.contains(key.as_str()))),
        "the schema has keys that are never read at `{}`: {:?} of {shape:?}",
        section.path,
        section.asked,
    );
    decoded
}

impl<'s> Section<'s, '_> {
    fn unknown_keys(&mut self) {
        let Shape::Struct(known) = self.shape else { return };
        for key in self.values.keys() {
            if known.contains_key(key) {
                continue;
            }
            let path = self.path.key(key);
            // The value is not shown: it may be a secret whose key is misspelt.
            let near = known
                .keys()
                .map(|known| (strsim::damerau_levenshtein(known, &key.to_lowercase()), known))
                .min();
            let near = near.filter(|(distance, known)| *distance <= (known.len() / 3).clamp(1, 3));
            let cure = match near {
                Some((_, known)) => format!("did you mean `{known}`?"),
                None => format!(
                    "remove it; the keys here are {}",
                    known.keys().cloned().collect::<Vec<_>>().join(", ")
                ),
            };
            self.cx.fail(
                Code::UnknownKey,
                &path,
                None,
                format!("`{key}` is not a key of this version here"),
                cure,
            );
            if let Some((_, known)) = near
                && !self.values.contains_key(known)
            {
                // The key that was meant is not also missing.
                self.cx.mark_broken(self.path.key(known));
            }
        }
    }

    fn find(&mut self, key: &'static str) -> (KeyPath, Option<&'s Value>, &'static Shape) {
        self.asked.insert(key);
        let shape = self.shape.below(key);
        debug_assert!(shape.is_some(), "`{key}` at `{}` is not in the schema", self.path);
        (
            self.path.key(key),
            self.values.get(key),
            shape.unwrap_or(&Shape::Scalar),
        )
    }

    /// Whether a layer sets the key.
    pub(crate) fn given(&self, key: &str) -> bool {
        self.cx.given(&self.path.key(key))
    }

    /// The section's own name, for what is named by the user.
    pub(crate) fn own_name(&self) -> String {
        self.path.last_key().unwrap_or_default().to_owned()
    }

    /// A value with a default.
    pub(crate) fn value<T: Leaf>(&mut self, key: &'static str, default: T) -> T {
        self.optional(key).unwrap_or(default)
    }

    /// A value that may be absent.
    pub(crate) fn optional<T: Leaf>(&mut self, key: &'static str) -> Option<T> {
        let (path, value, _) = self.find(key);
        leaf(self.cx, &path, value?)
    }

    /// A secret, which must come from the environment.
    pub(crate) fn secret(&mut self, key: &'static str) -> Option<Secret> {
        let secret = self.optional::<Secret>(key)?;
        let path = self.path.key(key);
        if !self.cx.is_from_environment(&path) {
            let variable = format!(
                "{}{}",
                crate::layers::ENV_PREFIX,
                path.to_string().replace('.', "__").to_uppercase()
            );
            let cure = format!("use `{key}_file`, or the variable {variable}");
            self.cx.fail(
                Code::PlainSecret,
                &path,
                Some(String::new()),
                "a secret is spelt out here",
                cure,
            );
        }
        Some(secret)
    }

    /// A list of values; a wrong one becomes the default, so that places in the list stay what they are.
    pub(crate) fn list<T: Leaf + Default>(&mut self, key: &'static str) -> Vec<T> {
        let (path, value, _) = self.find(key);
        let items = items(self.cx, &path, value);
        let decode = |(index, item)| leaf(self.cx, &path.index(index), item);
        items
            .iter()
            .enumerate()
            .map(decode)
            .map(Option::unwrap_or_default)
            .collect()
    }

    /// A section that has defaults.
    pub(crate) fn section<T: Decode>(&mut self, key: &'static str) -> T {
        let (path, value, shape) = self.find(key);
        let empty = Dict::new();
        let values = value
            .and_then(|value| dict(self.cx, &path, value))
            .unwrap_or(&empty);
        section(self.cx, values, path, shape)
    }

    /// A section that may be absent.
    pub(crate) fn optional_section<T: Decode>(&mut self, key: &'static str) -> Option<T> {
        let (path, value, shape) = self.find(key);
        let values = dict(self.cx, &path, value?)?;
        Some(section(self.cx, values, path, shape))
    }

    /// A list of sections; a wrong one becomes the default, so that places in the list stay what they are.
    pub(crate) fn section_list<T: Decode + Default>(&mut self, key: &'static str) -> Vec<T> {
        let (path, value, shape) = self.find(key);
        let mut sections = Vec::new();
        for (index, item) in items(self.cx, &path, value).iter().enumerate() {
            let path = path.index(index);
            let decoded = match (dict(self.cx, &path, item), shape.item()) {
                (Some(values), Some(shape)) => section(self.cx, values, path, shape),
                (Some(_) | None, Some(_) | None) => T::default(),
            };
            sections.push(decoded);
        }
        sections
    }

    /// Sections by names that the user chose.
    pub(crate) fn named<T: Decode>(&mut self, key: &'static str) -> BTreeMap<String, T> {
        let (path, value, shape) = self.find(key);
        let mut sections = BTreeMap::new();
        let Some(values) = value.and_then(|value| dict(self.cx, &path, value)) else {
            return sections;
        };
        for (name, value) in values {
            let path = path.key(name);
            if let (Some(values), Some(shape)) = (dict(self.cx, &path, value), shape.below(name)) {
                sections.insert(name.clone(), section(self.cx, values, path, shape));
            }
        }
        sections
    }
}

fn wrong_kind(cx: &mut Context<'_>, path: &KeyPath, value: &Value, expected: &str, cure: &str) {
    let (found, text) = match value {
        Value::Dict(_, entries) => ("a section", Some(format!("a section of {}", entries.len()))),
        Value::Array(_, items) => ("a list", Some(format!("a list of {}", items.len()))),
        Value::Empty(..) => ("nothing", Some("null".to_owned())),
        Value::String(_, text) => ("one value", Some(text.clone())),
        Value::Char(..) | Value::Bool(..) | Value::Num(..) => ("one value", None),
    };
    cx.fail(
        Code::BadValue,
        path,
        text,
        format!("{expected} is wanted here, not {found}"),
        cure,
    );
}

fn leaf<T: Leaf>(cx: &mut Context<'_>, path: &KeyPath, value: &Value) -> Option<T> {
    let Some(text) = value.as_str() else {
        wrong_kind(cx, path, value, "one value", "write one value, or remove the key");
        return None;
    };
    match T::parse(text) {
        Ok(parsed) => Some(parsed),
        Err(invalid) => {
            cx.fail(
                Code::BadValue,
                path,
                Some(text.to_owned()),
                invalid.why,
                invalid.cure,
            );
            None
        }
    }
}

fn dict<'v>(cx: &mut Context<'_>, path: &KeyPath, value: &'v Value) -> Option<&'v Dict> {
    if value.as_dict().is_none() {
        wrong_kind(
            cx,
            path,
            value,
            "a section",
            "write keys and values below it, or {} for defaults",
        );
    }
    value.as_dict()
}

fn items<'v>(cx: &mut Context<'_>, path: &KeyPath, value: Option<&'v Value>) -> &'v [Value] {
    match value {
        None => &[],
        Some(Value::Array(_, items)) => items,
        Some(value) => {
            wrong_kind(cx, path, value, "a list", "write a list, such as [one, two]");
            &[]
        }
    }
}

/// Leaves that already have a `FromStr` with our error.
macro_rules! leaf_by_from_str {
    ($($type:ty),*) => {
        $(impl Leaf for $type {
            fn parse(text: &str) -> Result<Self, Invalid> {
                text.parse()
            }
        })*
    };
}

leaf_by_from_str!(HumanDuration, ByteSize, Percent, FileMode, Listen, User);

/// Leaves that are one of a few words.
macro_rules! leaf_by_word {
    ($type:ty: $($word:literal => $value:expr),*) => {
        impl $crate::decode::Leaf for $type {
            fn parse(text: &str) -> Result<Self, $crate::units::Invalid> {
                match text {
                    $($word => Ok($value),)*
                    _ => Err($crate::units::Invalid::new(
                        format!("`{text}` is not one of the words allowed"),
                        format!("write one of {}", [$($word),*].join(", ")),
                    )),
                }
            }
        }
    };
}
pub(crate) use leaf_by_word;

leaf_by_word!(bool: "true" => true, "false" => false);

impl Leaf for String {
    fn parse(text: &str) -> Result<Self, Invalid> {
        if text.is_empty() {
            return Err(Invalid::new("an empty text", "write a text, or remove the key"));
        }
        Ok(text.to_owned())
    }
}

impl Leaf for Secret {
    fn parse(text: &str) -> Result<Self, Invalid> {
        String::parse(text).map(Secret::new)
    }
}

impl Leaf for PathBuf {
    fn parse(text: &str) -> Result<Self, Invalid> {
        if text.is_empty() || text.contains('\0') {
            return Err(Invalid::new("not a path", "write a path, such as /var/lib/fanin"));
        }
        Ok(PathBuf::from(text))
    }
}

impl Leaf for u32 {
    fn parse(text: &str) -> Result<Self, Invalid> {
        text.parse()
            .map_err(|_| Invalid::new("not a whole number", "write a number of 0 or more in digits"))
    }
}

impl Leaf for f64 {
    fn parse(text: &str) -> Result<Self, Invalid> {
        let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
        number.ok_or_else(|| Invalid::new("not a number", "write a number, such as 2 or 1.5"))
    }
}

impl Leaf for SocketAddr {
    fn parse(text: &str) -> Result<Self, Invalid> {
        text.parse().map_err(|_| {
            Invalid::new(
                "not an address and port",
                "write an IP address and a port, such as 127.0.0.1:8222 or [::1]:8222",
            )
        })
    }
}
