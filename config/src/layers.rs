//! The layers of the configuration (files, environment, flags), each a figment provider that remembers where
//! its values stand.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use figment::value::{Dict, Empty, Map, Tag, Value};
use figment::{Metadata, Profile, Provider};

use crate::codes::Code;
use crate::interpolate::{ExpandError, expand};
use crate::problem::{KeyPath, Origin, Problem, Segment, Severity};
use crate::shape::Shape;
use crate::yaml::{self, Entry, Kind, Node};

/// What variables that set keys begin with; `__` goes one level down.
pub(crate) const ENV_PREFIX: &str = "FANIN__";

/// Where a value stands, and whether it came whole from a variable.
#[derive(Debug, Clone)]
pub(crate) struct Mark {
    pub(crate) origin: Origin,
    pub(crate) from_variable: bool,
}

/// One layer.
#[derive(Debug, Default)]
pub(crate) struct Layer {
    name: String,
    values: Dict,
    pub(crate) marks: BTreeMap<KeyPath, Mark>,
    pub(crate) problems: Vec<Problem>,
}

impl Provider for &Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.values.clone())]))
    }
}

pub(crate) fn error(
    code: Code,
    origin: Origin,
    key: KeyPath,
    value: Option<String>,
    why: String,
    cure: String,
) -> Problem {
    let value = value.map(|text| shown(&key, text));
    Problem {
        severity: Severity::Error,
        code,
        origin,
        key,
        value,
        why,
        cure,
    }
}

/// A value as messages may show it.
pub(crate) fn shown(key: &KeyPath, text: String) -> String {
    if key.is_secret() {
        return crate::units::REDACTED.to_owned();
    }
    // What stands before an `@` in an address is a user, a password or a token.
    let Some(at) = text.rfind('@') else { return text };
    let start = text[..at].find("://").map_or(0, |scheme| scheme + 3);
    format!("{}{}{}", &text[..start], crate::units::REDACTED, &text[at..])
}

/// Where the lines of a tree are: a file's, or one variable or flag for all of it.
enum Place<'a> {
    File(&'a Path),
    One(Origin),
}

impl Place<'_> {
    fn at(&self, line: usize) -> Origin {
        match self {
            Self::File(path) => Origin::File {
                path: path.to_path_buf(),
                line,
            },
            Self::One(origin) => origin.clone(),
        }
    }
}

impl Layer {
    /// A file's layer. A syntax error leaves the layer empty but for its problem.
    pub(crate) fn of_file(path: &Path, text: &str, env: &BTreeMap<String, String>) -> Self {
        let mut layer = Layer {
            name: path.display().to_string(),
            ..Layer::default()
        };
        let place = Place::File(path);
        match yaml::parse(text) {
            Ok(mut root) => {
                layer.expand(&mut root, &KeyPath::default(), &place, env);
                match root.kind {
                    Kind::Map(entries) => {
                        layer.values = layer.map(entries, &KeyPath::default(), Some(Shape::root()), &place)
                    }
                    Kind::Null => {}
                    Kind::Scalar { .. } | Kind::List(_) => layer.problems.push(error(
                        Code::BadValue,
                        place.at(root.line),
                        KeyPath::default(),
                        None,
                        "the file must hold keys and values".to_owned(),
                        "begin with a key such as `hub:`".to_owned(),
                    )),
                }
            }
            Err(syntax) => layer.problems.push(error(
                Code::Syntax,
                place.at(syntax.line),
                KeyPath::default(),
                None,
                syntax.why,
                "mend this line or the one beside it".to_owned(),
            )),
        }
        layer
    }

    /// The layer of the variables that begin with [`ENV_PREFIX`].
    pub(crate) fn of_env(env: &BTreeMap<String, String>) -> Self {
        let mut layer = Layer {
            name: "environment".to_owned(),
            ..Layer::default()
        };
        for (name, value) in env {
            if let Some(rest) = name.strip_prefix(ENV_PREFIX) {
                let (path, shape) = resolve(rest.split("__"), true);
                layer.set(path, shape, value, Origin::Env { name: name.clone() });
            }
        }
        layer
    }

    /// The layer of the flags: a dotted key and its value each; the last one of a key counts.
    pub(crate) fn of_overrides(overrides: &[(String, String)]) -> Self {
        let mut layer = Layer {
            name: "flags".to_owned(),
            ..Layer::default()
        };
        let last: BTreeMap<&String, &String> = overrides.iter().map(|(key, value)| (key, value)).collect();
        for (key, value) in last {
            let (path, shape) = resolve(key.split('.'), false);
            layer.set(path, shape, value, Origin::Flag { key: key.clone() });
        }
        layer
    }

    /// Puts variables into every scalar of a tree.
    fn expand(&mut self, node: &mut Node, path: &KeyPath, place: &Place<'_>, env: &BTreeMap<String, String>) {
        match &mut node.kind {
            Kind::Null => {}
            Kind::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.expand(item, &path.index(index), place, env);
                }
            }
            Kind::Map(entries) => {
                for entry in entries {
                    self.expand(&mut entry.value, &path.key(&entry.key), place, env);
                }
            }
            Kind::Scalar { text, from_variable } => match expand(text, env) {
                Ok(expanded) => {
                    *text = expanded.text;
                    *from_variable = expanded.from_variable;
                }
                Err(fault) => {
                    let (why, cure) = match fault {
                        ExpandError::Undefined { name } => (
                            format!("the variable {name} is not defined"),
                            format!("define {name}, or give a default with ${{{name}:default}}"),
                        ),
                        ExpandError::Malformed { why } => (
                            why.to_owned(),
                            "write ${VAR} or ${VAR:default}; $${ stands for a literal ${".to_owned(),
                        ),
                    };
                    let origin = place.at(node.line);
                    // Below a key that is not known anything may stand, a secret too.
                    let value = Shape::root().knows(path).then(|| text.clone());
                    self.problems.push(error(
                        Code::UndefinedVariable,
                        origin,
                        path.clone(),
                        value,
                        why,
                        cure,
                    ));
                }
            },
        }
    }

    fn map(&mut self, entries: Vec<Entry>, path: &KeyPath, shape: Option<&Shape>, place: &Place<'_>) -> Dict {
        let mut dict = Dict::new();
        let mut lines: BTreeMap<String, usize> = BTreeMap::new();
        for Entry { key, key_line, value } in entries {
            let path = path.key(&key);
            let below = shape.and_then(|shape| shape.below(&key));
            if let Some(first) = lines.get(&key) {
                let why = format!("`{key}` is given at {} already", place.at(*first));
                let cure = "remove or rename one of the two".to_owned();
                self.problems.push(error(
                    Code::DuplicateKey,
                    place.at(key_line),
                    path,
                    // What stands below a key that is not known may be a secret.
                    below.map(|_| value.brief()),
                    why,
                    cure,
                ));
                continue;
            }
            lines.insert(key.clone(), key_line);
            let value = self.value(value, key_line, &path, below, place);
            dict.insert(key, value);
        }
        dict
    }

    /// Turns a tree into figment's, and notes where each value stands.
    fn value(
        &mut self,
        node: Node,
        key_line: usize,
        path: &KeyPath,
        shape: Option<&Shape>,
        place: &Place<'_>,
    ) -> Value {
        let line = if matches!(node.kind, Kind::Scalar { .. }) {
            node.line
        } else {
            key_line
        };
        let mut mark = Mark {
            origin: place.at(line),
            from_variable: false,
        };
        let value = match node.kind {
            // A section whose keys are all commented out is an empty section.
            Kind::Null if matches!(shape, Some(Shape::Struct(_) | Shape::Map(_))) => {
                Value::Dict(Tag::Default, Dict::new())
            }
            Kind::Null => Value::Empty(Tag::Default, Empty::None),
            Kind::Scalar { text, from_variable } => {
                mark.from_variable = from_variable;
                Value::String(Tag::Default, text)
            }
            Kind::List(items) => {
                let shape = shape.and_then(Shape::item);
                let items = items.into_iter().enumerate().map(|(index, item)| {
                    let line = item.line;
                    self.value(item, line, &path.index(index), shape, place)
                });
                Value::Array(Tag::Default, items.collect())
            }
            Kind::Map(entries) => Value::Dict(Tag::Default, self.map(entries, path, shape, place)),
        };
        self.marks.insert(path.clone(), mark);
        value
    }

    /// Sets one value from a variable or a flag. Lists and maps are written as YAML; a list also with commas.
    fn set(&mut self, path: KeyPath, shape: Option<&Shape>, text: &str, origin: Origin) {
        let node = match shape {
            Some(Shape::Scalar) | None => Node::scalar(0, text),
            Some(shape @ (Shape::List(_) | Shape::Struct(_) | Shape::Map(_))) => match yaml::parse(text) {
                Ok(Node {
                    kind: Kind::Scalar { .. },
                    ..
                }) if shape.item().is_some() => {
                    let items = text.split(',').map(|item| Node::scalar(0, item.trim()));
                    Node {
                        line: 0,
                        kind: Kind::List(items.collect()),
                    }
                }
                Ok(node) => node,
                Err(syntax) => {
                    let cure = "write a list as a,b and a section as {key: value}".to_owned();
                    self.problems
                        .push(error(Code::Syntax, origin, path, None, syntax.why, cure));
                    return;
                }
            },
        };
        let place = Place::One(origin);
        let written = shape.map(|_| node.brief());
        let value = self.value(node, 0, &path, shape, &place);
        let origin = place.at(0);
        let mut dict = &mut self.values;
        let Some((Segment::Key(last), parents)) = path.0.split_last() else {
            return;
        };
        for (depth, segment) in parents.iter().enumerate() {
            let Segment::Key(key) = segment else { return };
            let parent = KeyPath(path.0[..=depth].to_vec());
            self.marks.entry(parent).or_insert_with(|| Mark {
                origin: origin.clone(),
                from_variable: false,
            });
            let below = dict
                .entry(key.clone())
                .or_insert_with(|| Value::Dict(Tag::Default, Dict::new()));
            let Value::Dict(_, below) = below else {
                return self.conflict(path, origin, written);
            };
            dict = below;
        }
        if dict.contains_key(last) {
            return self.conflict(path, origin, written);
        }
        dict.insert(last.clone(), value);
    }

    fn conflict(&mut self, path: KeyPath, origin: Origin, written: Option<String>) {
        let why = format!("the {} set this key twice", self.name);
        let cure = "set a section as a whole or its keys one by one, and each key once".to_owned();
        self.problems
            .push(error(Code::DuplicateKey, origin, path, written, why, cure));
    }
}

/// The key that the words of a variable or flag name, and its shape. Unknown words stay, for the message.
fn resolve<'a>(words: impl Iterator<Item = &'a str>, variable: bool) -> (KeyPath, Option<&'static Shape>) {
    let mut path = KeyPath::default();
    let mut shape = Some(Shape::root());
    for word in words {
        let mut key = word.to_owned();
        if variable {
            key.make_ascii_lowercase();
            if matches!(shape, Some(Shape::Map(_))) {
                key = key.replace('_', "-");
            }
        }
        shape = shape.and_then(|shape| shape.below(&key));
        path = path.key(&key);
    }
    (path, shape)
}

/// Reads a file as text, within the size limit.
pub(crate) fn read(path: &Path) -> Result<String, Box<Problem>> {
    use std::io::Read as _;
    let fail = |why: String| {
        let origin = Origin::File {
            path: path.to_path_buf(),
            line: 0,
        };
        let cure = "check the path and its permissions".to_owned();
        Box::new(error(
            Code::FileUnreadable,
            origin,
            KeyPath::default(),
            None,
            why,
            cure,
        ))
    };
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| {
            file.take(crate::limits::FILE_BYTES_MAX + 1)
                .read_to_end(&mut bytes)
        })
        .map_err(|error| fail(error.to_string()))?;
    if bytes.len() as u64 > crate::limits::FILE_BYTES_MAX {
        return Err(fail(format!(
            "larger than {} bytes",
            crate::limits::FILE_BYTES_MAX
        )));
    }
    String::from_utf8(bytes).map_err(|_| fail("not UTF-8 text".to_owned()))
}

/// The `*.yaml` files of the folder `conf.d` beside `file`, by name. No folder, no files.
pub(crate) fn drop_ins(file: &Path) -> Result<Vec<PathBuf>, Box<Problem>> {
    let folder = file.parent().unwrap_or(Path::new("")).join("conf.d");
    let fail = |why: String| {
        let origin = Origin::File {
            path: folder.clone(),
            line: 0,
        };
        let cure = "check the folder and its permissions".to_owned();
        Box::new(error(
            Code::FileUnreadable,
            origin,
            KeyPath::default(),
            None,
            why,
            cure,
        ))
    };
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(fail(error.to_string())),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| fail(error.to_string()))?.path();
        let hidden = path
            .file_name()
            .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|extension| extension == "yaml") {
            files.push(path);
        }
    }
    if files.len() > crate::limits::CONF_D_FILES_MAX {
        return Err(fail(format!(
            "more than {} files",
            crate::limits::CONF_D_FILES_MAX
        )));
    }
    files.sort();
    Ok(files)
}
