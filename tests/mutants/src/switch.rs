//! A source file with each of its mutants as a switched copy of the function it is in.
//!
//! ```text
//! fn f(a: u8) -> bool {                      fn f(a: u8) -> bool {
//!     a < 3                                      match crate::mutation_switch::id() {
//! }                                                  7 => return f__m7(a),
//!                                                    _ => {}
//!                                                }
//!                                                a < 3
//!                                            }
//!                                            fn f__m7(a: u8) -> bool { a <= 3 }
//! ```
//!
//! A copy that does not compile says nothing of the others: it is left out, as cargo-mutants leaves out what it cannot build.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;

use crate::Failed;
use crate::mutant::{Mutant, Span};

/// What stands before and behind each copy, and behind the line that calls it: errors are told apart by them.
pub(crate) const COPY: &str = "//<m";
pub(crate) const COPY_END: &str = "//</m>";

/// The module that every switch asks. A panic ends the process at once: the mutant is caught.
pub(crate) const MODULE: &str = r#"
#[allow(missing_docs)]
pub mod mutation_switch {
    static ID: std::sync::LazyLock<u32> = std::sync::LazyLock::new(|| {
        let id = std::env::var("FANIN_MUTANT").ok().and_then(|id| id.parse().ok()).unwrap_or(0);
        if id != 0 {
            std::panic::set_hook(Box::new(|_| std::process::exit(101)));
        }
        id
    });
    #[inline]
    pub fn id() -> u32 {
        *ID
    }
}
"#;

/// A function as its text tells.
struct Function<'a> {
    /// Its text, documentation included.
    text: &'a str,
    /// Where its name ends, and where its body begins, in the text.
    named: usize,
    body: usize,
    name: &'a str,
    /// Generics and parameters.
    head: &'a str,
    /// What it returns behind `-> impl`, if that.
    returns_impl: Option<String>,
    /// How it is called, up to its name, and with what.
    receiver: &'static str,
    arguments: String,
}

/// The index behind the bracket that matches the one at `from`.
fn matching(text: &str, from: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let open = *bytes.get(from)?;
    let close = match open {
        b'(' => b')',
        b'<' => b'>',
        _ => return None,
    };
    let mut depth = 0_usize;
    for at in from..bytes.len() {
        let byte = bytes[at];
        let is_arrow = byte == b'>' && at > 0 && matches!(bytes[at - 1], b'-' | b'=');
        if byte == open {
            depth += 1;
        } else if byte == close && !is_arrow {
            depth = depth.checked_sub(1)?;
            if depth == 0 {
                return Some(at + 1);
            }
        }
    }
    None
}

/// The parameters, at the commas that are in no bracket.
fn parameters(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut before) = (0_i32, 0, ' ');
    let mut out = Vec::new();
    for (at, c) in text.char_indices() {
        match c {
            '(' | '[' | '{' | '<' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            '>' if !matches!(before, '-' | '=') => depth -= 1,
            ',' if depth == 0 => {
                out.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
        before = c;
    }
    out.push(text[start..].trim());
    out.retain(|parameter| !parameter.is_empty());
    out
}

impl<'a> Function<'a> {
    /// Reads the signature. `around` is the line that the item around it begins with. `Err` says why it cannot be switched.
    fn read(text: &'a str, is_nested: bool, around: &str) -> Result<Function<'a>, &'static str> {
        let signature = Regex::new(r"(?m)^[ \t]*(pub(?:\([a-z]+\))? )?(const )?fn ([a-z0-9_]+)");
        let found = signature.ok().and_then(|regex| regex.captures(text));
        let found = found.ok_or("no function")?;
        let (whole, name) = (found.get(0).ok_or("no function")?, found.get(3).ok_or("no name")?);
        let is_method = is_nested && around.starts_with("impl");
        if is_method && around.contains(" for ") {
            return Err("method of a trait");
        }
        if found.get(2).is_some() {
            return Err("constant function");
        }
        let named = whole.end();
        let mut at = named;
        if text[at..].starts_with('<') {
            at = matching(text, at).ok_or("generics")?;
        }
        let end = matching(text, at).ok_or("parameters")?;
        let body = end + text[end..].find('{').ok_or("no body")?;
        let returns = text[end..body].trim().strip_prefix("-> impl ").map(|kind| {
            let elided = if kind.contains('\'') { "" } else { " + '_" };
            format!("{}{elided}", kind.trim())
        });
        let receiver = Regex::new(r"^(&('[a-z]+ )?)?(mut )?self$").map_err(|_| "receiver")?;
        let mut is_on_self = false;
        let mut arguments = Vec::new();
        for parameter in parameters(&text[at + 1..end - 1]) {
            let pattern = parameter.split(": ").next().unwrap_or(parameter);
            let pattern = pattern.strip_prefix("mut ").unwrap_or(pattern);
            if receiver.is_match(parameter) {
                is_on_self = true;
            } else if pattern == "_" || pattern.contains(['&', '{']) || pattern.contains("..") {
                return Err("pattern");
            } else {
                arguments.push(pattern);
            }
        }
        Ok(Function {
            text,
            named,
            body,
            name: name.as_str(),
            head: &text[named..end],
            returns_impl: returns,
            receiver: match (is_on_self, is_method) {
                (true, _) => "self.",
                (false, true) => "Self::",
                (false, false) => "",
            },
            arguments: arguments.join(", "),
        })
    }

    fn call(&self, suffix: &str) -> String {
        format!("{}{}{suffix}({})", self.receiver, self.name, self.arguments)
    }

    /// The copy with a part of the text replaced.
    fn copy(&self, id: u32, from: usize, to: usize, replacement: &str) -> String {
        let text = format!("{}{replacement} {}", &self.text[..from], &self.text[to..]);
        let behind = text[self.named..].to_owned();
        format!("\n{COPY}{id}>\nfn {}__m{id}{behind}\n{COPY_END}\n", self.name)
    }
}

/// Byte offsets of lines.
struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Lines<'a> {
        let ends = text.match_indices('\n').map(|(at, _)| at + 1);
        Lines {
            text,
            starts: std::iter::once(0).chain(ends).collect(),
        }
    }

    fn line(&self, number: usize) -> &'a str {
        let from = self.starts.get(number - 1).copied().unwrap_or(self.text.len());
        self.text[from..].lines().next().unwrap_or_default()
    }

    fn offset(&self, (line, column): (usize, usize)) -> Option<usize> {
        let start = *self.starts.get(line.checked_sub(1)?)?;
        let rest = &self.text[start..];
        let mut chars = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
        Some(start + chars.nth(column.checked_sub(1)?)?)
    }

    /// The line that begins the item around a line: nothing is indented there but what is in one.
    fn around(&self, number: usize) -> &'a str {
        let begins = |line: &&str| {
            line.starts_with("impl")
                || line.starts_with('}')
                || line.starts_with("mod")
                || line.starts_with("fn")
        };
        let lines = (1..number).rev().map(|number| self.line(number));
        lines.into_iter().find(begins).unwrap_or_default()
    }
}

/// A switched file.
#[derive(Debug)]
pub(crate) struct Switched {
    pub(crate) text: String,
    /// Mutants that cannot be switched, with the reason.
    pub(crate) not_switched: Vec<(u32, &'static str)>,
}

/// Switches a file. Mutants of `left_out` get no copy.
pub(crate) fn switch(text: &str, mutants: &[&Mutant], left_out: &BTreeSet<u32>) -> Result<Switched, Failed> {
    let lines = Lines::new(text);
    let at = |place| {
        lines
            .offset(place)
            .ok_or_else(|| Failed(format!("{place:?} is no place in its file")))
    };
    let mut functions: BTreeMap<Span, Vec<&Mutant>> = BTreeMap::new();
    let mut not_switched = Vec::new();
    for mutant in mutants {
        match mutant.function {
            Some(span) => functions.entry(span).or_default().push(mutant),
            None => not_switched.push((mutant.id, "constant")),
        }
    }
    let mut inserted: Vec<(usize, String)> = Vec::new();
    for (span, mutants) in functions {
        let (start, end) = (at(span.start)?, at(span.end)?);
        let line = span.start.0;
        let function = Function::read(&text[start..end], span.start.1 > 1, lines.around(line));
        let function = match function {
            Ok(function) => function,
            Err(why) => {
                not_switched.extend(mutants.iter().map(|mutant| (mutant.id, why)));
                continue;
            }
        };
        let (mut arms, mut copies) = (String::new(), String::new());
        for mutant in mutants
            .into_iter()
            .filter(|mutant| !left_out.contains(&mutant.id))
        {
            let (from, to) = (at(mutant.span.start)? - start, at(mutant.span.end)? - start);
            copies.push_str(&function.copy(mutant.id, from, to, &mutant.replacement));
            let mut call = function.call(&format!("__m{}", mutant.id));
            if function.returns_impl.is_some() {
                call = format!("Box::new({call})");
            }
            arms.push_str(&format!("\n{} => return {call}, {COPY}{}>", mutant.id, mutant.id));
        }
        if copies.is_empty() {
            continue;
        }
        let choice = format!("\nmatch crate::mutation_switch::id() {{{arms}\n_ => {{}} }}\n");
        inserted.push((end, copies));
        match &function.returns_impl {
            None => inserted.push((start + function.body + 1, choice)),
            // Each copy returns a type of its own, so the switched function returns them boxed.
            Some(kind) => {
                let (head, rest, name) = (function.head, function.call("__original"), function.name);
                let boxed =
                    format!("{head} -> Box<dyn {kind}> {{{choice}Box::new({rest})\n}}\nfn {name}__original");
                inserted.push((start + function.named, boxed));
            }
        }
    }
    inserted.sort_by_key(|(offset, _)| std::cmp::Reverse(*offset));
    let mut out = text.to_owned();
    for (offset, more) in inserted {
        out.insert_str(offset, &more);
    }
    Ok(Switched {
        text: out,
        not_switched,
    })
}

#[cfg(test)]
mod tests {
    // Goal: what is switched is what was to be changed, and a function that is switched off is what it was. Method: a small file by hand.
    use super::*;

    fn mutant(id: u32, function: ((usize, usize), (usize, usize)), span: Span, replacement: &str) -> Mutant {
        Mutant {
            id,
            file: String::new(),
            name: String::new(),
            function: Some(Span {
                start: function.0,
                end: function.1,
            }),
            span,
            replacement: replacement.to_owned(),
        }
    }

    #[test]
    fn a_method_and_an_iterator() {
        let text = "impl A {\n    pub fn f(&'a mut self, (a, b): (u8, u8)) -> bool {\n        a < b\n    }\n}\n\
                    fn g(x: &[u8]) -> impl Iterator<Item = u8> {\n    x.iter().copied()\n}\n";
        let operator = Span {
            start: (3, 11),
            end: (3, 12),
        };
        let body = Span {
            start: (7, 5),
            end: (7, 22),
        };
        let method = mutant(3, ((2, 5), (4, 6)), operator, "<=");
        let iterator = mutant(4, ((6, 1), (8, 2)), body, "::std::iter::empty()");
        let none = mutant(5, ((6, 1), (8, 2)), body, "nonsense");
        let switched = switch(text, &[&method, &iterator, &none], &[5].into()).unwrap();
        assert!(switched.not_switched.is_empty());
        let dense = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let expected = "impl A { pub fn f(&'a mut self, (a, b): (u8, u8)) -> bool { match crate::mutation_switch::id() { \
                        3 => return self.f__m3((a, b)), //<m3> _ => {} } a < b } //<m3> fn f__m3(&'a mut self, (a, b): (u8, u8)) \
                        -> bool { a <= b } //</m> } fn g(x: &[u8]) -> Box<dyn Iterator<Item = u8> + '_> { match \
                        crate::mutation_switch::id() { 4 => return Box::new(g__m4(x)), //<m4> _ => {} } \
                        Box::new(g__original(x)) } fn g__original(x: &[u8]) -> impl Iterator<Item = u8> { \
                        x.iter().copied() } //<m4> fn g__m4(x: &[u8]) -> impl Iterator<Item = u8> { ::std::iter::empty() } //</m>";
        assert_eq!(dense(&switched.text), expected);
    }
}
