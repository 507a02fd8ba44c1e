//! The copy of the core that is built: one package, its integration tests as one binary, every mutant a switch.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use regex::Regex;
use serde_json::Value;

use crate::Failed;
use crate::mutant::{Mutant, by_file};
use crate::switch::{COPY, COPY_END, MODULE, switch};

const CORE: &str = "bridge/core";

/// The one integration test that all of them become.
const ALL: &str = "all";

/// The profile: quick to run, with every assertion.
const PROFILE: &str = "\n[profile.dev]\ndebug = false\nopt-level = 1\nincremental = false\n";

/// What came of building.
#[derive(Debug)]
pub(crate) struct Built {
    /// The core's own tests, and the integration tests.
    pub(crate) tests: [PathBuf; 2],
    /// Where the tests are run.
    pub(crate) dir: PathBuf,
    /// Mutants that do not compile.
    pub(crate) unviable: BTreeSet<u32>,
    /// Mutants that cannot be switched, with the reason.
    pub(crate) not_switched: BTreeMap<u32, &'static str>,
}

fn read(path: &Path) -> Result<String, Failed> {
    fs::read_to_string(path).map_err(|error| Failed::io(&path.display().to_string(), &error))
}

fn write(path: &Path, text: &str) -> Result<(), Failed> {
    let dir = path.parent().unwrap_or(path);
    let told = |error| Failed::io(&path.display().to_string(), &error);
    fs::create_dir_all(dir).map_err(told)?;
    // What has not changed keeps its time, so that it is not built again.
    if fs::read_to_string(path).is_ok_and(|before| before == text) {
        return Ok(());
    }
    fs::write(path, text).map_err(told)
}

/// Every file below a directory.
fn files(dir: &Path) -> Result<Vec<PathBuf>, Failed> {
    let told = |error| Failed::io(&dir.display().to_string(), &error);
    let mut out = Vec::new();
    for entry in fs::read_dir(dir).map_err(told)? {
        let path = entry.map_err(told)?.path();
        if path.is_dir() {
            out.extend(files(&path)?);
        } else {
            out.push(path);
        }
    }
    out.sort();
    Ok(out)
}

/// The manifest of the workspace with only the core in it. Dependencies and lints are inherited from it.
fn manifest(text: &str) -> Result<String, Failed> {
    let regex = |text: &str| Regex::new(text).map_err(|error| Failed(error.to_string()));
    let text = regex(r"(?s)members = \[.*?\]")?.replace(text, "members = [\"bridge/core\"]");
    let text = regex(r"(?m)^(default-members|exclude) = .*\n")?.replace_all(&text, "");
    let profiles = text.find("[profile.").unwrap_or(text.len());
    Ok(format!("{}{PROFILE}", &text[..profiles]))
}

/// An integration test as a module of the one binary.
fn as_module(text: &str) -> Result<String, Failed> {
    let regex = |text: &str| Regex::new(text).map_err(|error| Failed(error.to_string()));
    let text = regex(r"(?s)#!\[(expect|allow|deny|warn)\(.*?\)\]")?.replace_all(text, "");
    let text = regex(r"(?m)^mod support;$")?.replace(&text, "use crate::support;");
    Ok(text.into_owned())
}

fn write_tests(root: &Path, out: &Path) -> Result<(), Failed> {
    let dir = root.join(CORE).join("tests");
    let all = out.join(CORE).join("tests").join(ALL);
    let mut main = "#![allow(warnings)]\nmod support;\n".to_owned();
    for path in files(&dir)? {
        let inner = path.strip_prefix(&dir).unwrap_or(&path);
        write(&all.join(inner), &as_module(&read(&path)?)?)?;
        if let Some(name) = inner.file_stem().filter(|_| inner.components().count() == 1) {
            main.push_str(&format!("mod {};\n", name.to_string_lossy()));
        }
    }
    write(&all.join("main.rs"), &main)
}

/// Writes everything; mutants of `unviable` are left out.
fn write_core(
    root: &Path,
    out: &Path,
    mutants: &[Mutant],
    unviable: &BTreeSet<u32>,
) -> Result<BTreeMap<u32, &'static str>, Failed> {
    for name in ["Cargo.lock", "rust-toolchain.toml"] {
        write(&out.join(name), &read(&root.join(name))?)?;
    }
    write(
        &out.join("Cargo.toml"),
        &manifest(&read(&root.join("Cargo.toml"))?)?,
    )?;
    // Tests of the core read the schema.
    for path in files(&root.join("proto/fanin"))?
        .into_iter()
        .chain([root.join(CORE).join("Cargo.toml")])
    {
        let inner = path.strip_prefix(root).unwrap_or(&path);
        write(&out.join(inner), &read(&path)?)?;
    }
    write_tests(root, out)?;
    let switched = by_file(mutants);
    let mut not_switched = BTreeMap::new();
    for path in files(&root.join(CORE).join("src"))? {
        let inner = path.strip_prefix(root).unwrap_or(&path);
        let mut text = read(&path)?;
        if let Some(mutants) = switched.get(inner.to_string_lossy().as_ref()) {
            let switched = switch(&text, mutants, unviable)?;
            text = switched.text;
            not_switched.extend(switched.not_switched);
        }
        if inner.ends_with("src/lib.rs") {
            text.push_str(MODULE);
        }
        write(&out.join(inner), &text)?;
    }
    Ok(not_switched)
}

/// The mutant whose copy, or whose call, stands at a line.
fn mutant_at(text: &str, line: usize) -> Option<u32> {
    let number = |line: &str| {
        let (_, behind) = line.rsplit_once(COPY)?;
        behind.strip_suffix('>')?.parse().ok()
    };
    let lines: Vec<&str> = text.lines().take(line).collect();
    if let Some(id) = lines.last().and_then(|line| number(line)) {
        return Some(id);
    }
    let begins = lines
        .iter()
        .rev()
        .find(|line| **line == COPY_END || line.starts_with(COPY))?;
    number(begins)
}

/// What cargo says of one build.
struct Said {
    success: bool,
    bad: BTreeSet<u32>,
    tests: BTreeMap<String, PathBuf>,
    others: Vec<String>,
}

fn cargo(out: &Path, args: &[&str]) -> Result<Said, Failed> {
    let output = Command::new("cargo")
        .current_dir(out)
        .args(args)
        .args(["--package", "fanin-core", "--message-format=json"])
        .env("CARGO_TARGET_DIR", out.join("target"))
        .env("RUSTFLAGS", "-A warnings")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Failed::io("cargo", &error))?;
    let mut said = Said {
        success: output.status.success(),
        bad: BTreeSet::new(),
        tests: BTreeMap::new(),
        others: Vec::new(),
    };
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let Ok(value) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        if let (Some(test), Some(name)) = (value["executable"].as_str(), value["target"]["name"].as_str()) {
            said.tests.insert(name.to_owned(), PathBuf::from(test));
        }
        let message = &value["message"];
        if message["level"] != "error" {
            continue;
        }
        let spans = message["spans"].as_array().map(Vec::as_slice).unwrap_or_default();
        let primary = spans.iter().filter(|span| span["is_primary"] == true);
        let found: BTreeSet<u32> = primary
            .filter_map(|span| {
                let text = fs::read_to_string(out.join(span["file_name"].as_str()?)).ok()?;
                mutant_at(&text, usize::try_from(span["line_start"].as_u64()?).ok()?)
            })
            .collect();
        if found.is_empty() {
            said.others
                .push(message["rendered"].as_str().unwrap_or_default().to_owned());
        }
        said.bad.extend(found);
    }
    Ok(said)
}

/// Builds everything, leaving out what does not compile: the compiler stops at the first phase that has errors, so that it takes several rounds.
pub(crate) fn build(root: &Path, out: &Path, mutants: &[Mutant]) -> Result<Built, Failed> {
    let mut unviable = BTreeSet::new();
    let stale = out.join(CORE);
    if stale.exists() {
        fs::remove_dir_all(&stale).map_err(|error| Failed::io("the last copy", &error))?;
    }
    let steps: [&[&str]; 2] = [&["check", "--lib"], &["test", "--lib", "--test", ALL, "--no-run"]];
    for args in steps {
        loop {
            let not_switched = write_core(root, out, mutants, &unviable)?;
            let said = cargo(out, args)?;
            if said.success {
                let [Some(core), Some(all)] = ["fanin_core", ALL].map(|name| said.tests.get(name).cloned())
                else {
                    break;
                };
                return Ok(Built {
                    tests: [core, all],
                    dir: out.join(CORE),
                    unviable,
                    not_switched,
                });
            }
            if said.bad.is_empty() {
                return Err(Failed(format!(
                    "the copy does not build: {}",
                    said.others.join("\n")
                )));
            }
            unviable.extend(said.bad);
        }
    }
    Err(Failed("cargo built no tests".to_owned()))
}
