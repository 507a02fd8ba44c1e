//! YAML text to a tree that knows its lines.
//!
//! Scalars stay text: what `0660` or `no` means is decided by the key that takes it, not by YAML's guess.

use std::collections::BTreeMap;

use granit_parser::{Event, Parser, ScalarStyle};

use crate::limits::YAML_NODES_MAX;

/// A value and the line it starts on, from 1.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) line: usize,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    /// Nothing: `key:`, `~` or `null`.
    Null,
    /// A scalar's text, and whether it came whole from one variable.
    Scalar {
        text: String,
        from_variable: bool,
    },
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_line: usize,
    pub(crate) value: Node,
}

impl Node {
    pub(crate) fn scalar(line: usize, text: impl Into<String>) -> Self {
        Self {
            line,
            kind: Kind::Scalar {
                text: text.into(),
                from_variable: false,
            },
        }
    }

    /// The value in a few words: a scalar's text, or how much a list or map holds.
    pub(crate) fn brief(&self) -> String {
        match &self.kind {
            Kind::Null => "null".to_owned(),
            Kind::Scalar { text, .. } => text.clone(),
            Kind::List(items) => format!("a list of {}", items.len()),
            Kind::Map(entries) => format!("a section of {}", entries.len()),
        }
    }

    fn count(&self) -> usize {
        match &self.kind {
            Kind::Null | Kind::Scalar { .. } => 1,
            Kind::List(items) => 1 + items.iter().map(Self::count).sum::<usize>(),
            Kind::Map(entries) => 1 + entries.iter().map(|entry| entry.value.count()).sum::<usize>(),
        }
    }
}

/// Why a text is not one YAML document, and on which line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    pub(crate) line: usize,
    pub(crate) why: String,
}

/// A list or map whose end has not been read yet.
enum Open {
    List {
        line: usize,
        anchor: usize,
        items: Vec<Node>,
    },
    Map {
        line: usize,
        anchor: usize,
        entries: Vec<Entry>,
        key: Option<(String, usize)>,
    },
}

struct Builder {
    open: Vec<Open>,
    anchors: BTreeMap<usize, Node>,
    root: Option<Node>,
    nodes: usize,
}

impl Builder {
    fn count(&mut self, line: usize, nodes: usize) -> Result<(), SyntaxError> {
        self.nodes += nodes;
        if self.nodes > YAML_NODES_MAX {
            return Err(SyntaxError {
                line,
                why: format!("more than {YAML_NODES_MAX} values"),
            });
        }
        Ok(())
    }

    /// Puts a finished node where it belongs: a key, a value, an item or the whole document.
    fn place(&mut self, node: Node, anchor: usize) -> Result<(), SyntaxError> {
        if anchor != 0 {
            // A copy is kept for aliases, so that it counts like what it repeats.
            self.count(node.line, node.count())?;
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map { entries, key, .. }) => match key.take() {
                Some((key, key_line)) => entries.push(Entry {
                    key,
                    key_line,
                    value: node,
                }),
                None => {
                    let line = node.line;
                    *key = Some(match node.kind {
                        Kind::Scalar { text, .. } => (text, line),
                        Kind::Null => ("null".to_owned(), line),
                        Kind::List(_) | Kind::Map(_) => {
                            return Err(SyntaxError {
                                line,
                                why: "a key must be a plain word".to_owned(),
                            });
                        }
                    });
                }
            },
        }
        Ok(())
    }
}

/// The parser names the beginning of what a tab broke; people look for the tab.
fn syntax_error(text: &str, error: &granit_parser::ScanError) -> SyntaxError {
    let (line, why) = (error.marker().line(), error.info());
    let indented_by_tab = |line: &&str| line.trim_start_matches(' ').starts_with('\t');
    let tab = text
        .lines()
        .skip(line.saturating_sub(1))
        .position(|line| indented_by_tab(&line));
    let line = if why.contains("tab") {
        line + tab.unwrap_or(0)
    } else {
        line
    };
    SyntaxError { line, why }
}

/// Parses one document. An empty text is an empty map.
pub(crate) fn parse(text: &str) -> Result<Node, SyntaxError> {
    let mut builder = Builder {
        open: Vec::new(),
        anchors: BTreeMap::new(),
        root: None,
        nodes: 0,
    };
    let mut documents = 0;
    for next in Parser::new_from_str(text) {
        let (event, span) = next.map_err(|error| syntax_error(text, &error))?;
        let line = span.start.line();
        builder.count(line, 1)?;
        match event {
            Event::DocumentStart(..) => {
                documents += 1;
                if documents > 1 {
                    return Err(SyntaxError {
                        line,
                        why: "a second document begins here".to_owned(),
                    });
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                let null = style == ScalarStyle::Plain
                    && tag.is_none()
                    && matches!(text.as_ref(), "" | "~" | "null" | "Null" | "NULL");
                let node = if null {
                    Node {
                        line,
                        kind: Kind::Null,
                    }
                } else {
                    Node::scalar(line, text)
                };
                builder.place(node, anchor)?;
            }
            Event::SequenceStart(_, anchor, _) => builder.open.push(Open::List {
                line,
                anchor,
                items: Vec::new(),
            }),
            Event::MappingStart(_, anchor, _) => {
                builder.open.push(Open::Map {
                    line,
                    anchor,
                    entries: Vec::new(),
                    key: None,
                });
            }
            Event::SequenceEnd | Event::MappingEnd => match builder.open.pop() {
                Some(Open::List { line, anchor, items }) => {
                    builder.place(
                        Node {
                            line,
                            kind: Kind::List(items),
                        },
                        anchor,
                    )?;
                }
                Some(Open::Map {
                    line,
                    anchor,
                    entries,
                    ..
                }) => {
                    builder.place(
                        Node {
                            line,
                            kind: Kind::Map(entries),
                        },
                        anchor,
                    )?;
                }
                None => {
                    return Err(SyntaxError {
                        line,
                        why: "an end without a beginning".to_owned(),
                    });
                }
            },
            Event::Alias(anchor) => {
                let Some(node) = builder.anchors.get(&anchor).cloned() else {
                    return Err(SyntaxError {
                        line,
                        why: "an alias inside of what it names".to_owned(),
                    });
                };
                builder.count(line, node.count())?;
                builder.place(node, 0)?;
            }
            Event::UnresolvedAlias(name) => {
                return Err(SyntaxError {
                    line,
                    why: format!("`*{name}` names no anchor before it"),
                });
            }
            // These carry no value, and what the enum may grow is not emitted unless asked for.
            Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentEnd
            | Event::Anchor(..)
            | Event::Comment(..)
            | _ => {}
        }
    }
    Ok(builder.root.unwrap_or(Node {
        line: 1,
        kind: Kind::Map(Vec::new()),
    }))
}

#[cfg(test)]
mod tests {
    //! Goal: lines and texts come out as written, and hostile input is refused. Method: small documents.
    use super::*;

    fn map(node: &Node) -> &[Entry] {
        match &node.kind {
            Kind::Map(entries) => entries,
            Kind::Null | Kind::Scalar { .. } | Kind::List(_) => panic!("not a map: {node:?}"),
        }
    }

    #[test]
    fn lines_and_texts() {
        let root = parse("# comment\na: 0660\nb:\n  - x\n  - \"y\"\nc: {d: ~}\ne:\n").expect("valid");
        let entries = map(&root);
        assert_eq!(
            entries
                .iter()
                .map(|e| (e.key.as_str(), e.key_line))
                .collect::<Vec<_>>(),
            [("a", 2), ("b", 3), ("c", 6), ("e", 7)]
        );
        assert_eq!(entries[0].value, Node::scalar(2, "0660"));
        assert_eq!(
            entries[1].value.kind,
            Kind::List(vec![Node::scalar(4, "x"), Node::scalar(5, "y")])
        );
        assert_eq!(map(&entries[2].value)[0].value.kind, Kind::Null);
        assert_eq!(entries[3].value.kind, Kind::Null);
        assert!(map(&parse("").expect("empty")).is_empty());
        assert!(map(&parse("# only a comment\n").expect("empty")).is_empty());
    }

    #[test]
    fn aliases() {
        let root = parse("a: &x {k: v}\nb: *x\n").expect("valid");
        assert_eq!(map(&root)[0].value.kind, map(&root)[1].value.kind);
    }

    #[test]
    fn refused() {
        for (text, line) in [
            ("a: [1\nb: 2\n", 2),
            ("a: 1\n---\nb: 2\n", 2),
            ("a: *nothing\n", 1),
            ("a: 1\n\tb: 2\n", 2),
            ("a: \"open\n", 2),
            ("? [1]\n: 2\n", 1),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.line.abs_diff(line) <= 1, "{text:?}: {error:?}");
        }
        let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for level in 1..10 {
            let before = format!("*a{}", level - 1);
            bomb += &format!("a{level}: &a{level} [{}]\n", vec![before; 10].join(","));
        }
        assert!(parse(&bomb).expect_err("too many").why.contains("more than"));
    }
}
