//! `fanin errors`: what each stable error code means.

use clap::Args as ClapArgs;
use serde_json::{Value, json};

use super::exit::Exit;
use super::failure::Failure;
use super::output;
use crate::telemetry::{codes, node_codes};

/// `fanin errors`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The code to explain, such as FAN-3002 or 3002; without it all codes are listed.
    code: Option<String>,
    /// Print JSON.
    #[arg(short = 'j', long)]
    pub(super) json: bool,
}

/// One code of any part of fanin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The stable code, such as `FAN-3001`.
    pub code: &'static str,
    /// A few words.
    pub title: &'static str,
    /// How it comes about.
    pub cause: &'static str,
    /// What to do.
    pub cure: &'static str,
}

impl Entry {
    fn json(&self) -> Value {
        json!({ "code": self.code, "title": self.title, "cause": self.cause, "cure": self.cure })
    }

    fn text(&self) -> String {
        format!(
            "{}: {}\n  cause: {}\n  cure:  {}\n",
            self.code, self.title, self.cause, self.cure
        )
    }
}

/// An entry from a table whose entries have the same four fields.
macro_rules! entry {
    ($info:expr) => {{
        let info = $info;
        Entry {
            code: info.code,
            title: info.title.trim_end_matches('.'),
            cause: info.cause,
            cure: info.cure,
        }
    }};
}

/// Every code of every part, ascending.
#[must_use]
pub fn table() -> Vec<Entry> {
    let config = fanin_config::Code::ALL.iter().map(|code| entry!(code.info()));
    let hub = fanin_hub::codes::CODES.iter().map(|info| entry!(info));
    let topic = crate::codes::Code::ALL.iter().map(|code| entry!(code.info()));
    let node = node_codes::CODES.iter().map(|info| entry!(info));
    let process = codes::CODES.iter().map(|info| entry!(info));
    let mut entries: Vec<Entry> = config
        .chain(hub)
        .chain(topic)
        .chain(node)
        .chain(process)
        .collect();
    entries.sort_by_key(|entry| entry.code);
    entries
}

/// The entry of a code.
#[must_use]
pub fn lookup(code: &str) -> Option<Entry> {
    table().into_iter().find(|entry| entry.code == code)
}

/// `fan-3002` and `3002` mean `FAN-3002`.
fn normalise(code: &str) -> String {
    let digits = code.trim().to_ascii_uppercase();
    format!("FAN-{}", digits.strip_prefix("FAN-").unwrap_or(&digits))
}

pub(super) fn execute(args: &Args) -> Result<Exit, Failure> {
    let Some(code) = &args.code else {
        let entries = table();
        if args.json {
            output::print_json(&entries.iter().map(Entry::json).collect())?;
        } else {
            let lines: String = entries
                .iter()
                .map(|entry| format!("{}  {}\n", entry.code, entry.title))
                .collect();
            output::print(&lines)?;
        }
        return Ok(Exit::Done);
    };
    let Some(entry) = lookup(&normalise(code)) else {
        return Err(Failure::new(
            Exit::Usage,
            codes::UNKNOWN_CODE,
            format!("there is no error code {code}"),
        ));
    };
    if args.json {
        output::print_json(&entry.json())?;
    } else {
        output::print(&entry.text())?;
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    //! Goal: a code means one thing and is found however it is spelt. Method: the whole table.
    use super::*;

    #[test]
    fn every_code_once_with_cause_and_cure() {
        let entries = table();
        assert!(entries.windows(2).all(|pair| pair[0].code < pair[1].code));
        for entry in &entries {
            assert!(![entry.title, entry.cause, entry.cure].contains(&""), "{entry:?}");
        }
        for part in ["FAN-1", "FAN-2", "FAN-3", "FAN-4", "FAN-5"] {
            assert!(entries.iter().any(|entry| entry.code.starts_with(part)), "{part}");
        }
    }

    #[test]
    fn spellings() {
        for spelling in ["FAN-3002", "fan-3002", " 3002"] {
            assert_eq!(normalise(spelling), "FAN-3002");
        }
        assert!(lookup("FAN-3002").is_some() && lookup("FAN-9999").is_none());
    }
}
