//! `cargo xtask tidy`: rules of this repository that no compiler knows. Also a unit test, so that no run can miss it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::run::{Failed, Workspace, output_of};

/// Lines of a source file at most: a longer one holds more than one concept.
const LINES_MAX: usize = 600;

/// Files that may be longer, each with its reason.
const LONG_FILES: [(&str, &str); 0] = [];

/// Test code that may sleep, each with its reason.
const SLEEPERS: [(&str, &str); 4] = [
    ("tests/src/wait.rs", "polls conditions for everyone else"),
    ("tests/src/proxy.rs", "delays bytes: that is its purpose"),
    (
        "tests/src/feed.rs",
        "pauses between attempts while the hub is away",
    ),
    ("tests/src/apps.rs", "plays a slow application"),
];

/// Which crates of ours each crate may use in what it ships. Dependencies point one way.
const LAYERS: [(&str, &[&str]); 7] = [
    ("bridge/core", &[]),
    ("bridge/store", &[]),
    ("bridge/localhub", &[]),
    ("config", &[]),
    ("proto", &[]),
    ("bridge/hub", &["fanin-core"]),
    ("app-sdk", &["fanin-proto"]),
];

/// What is not part of the repository, where there is no git to say so.
const NOT_OURS: [&str; 3] = [".git", "target", "__pycache__"];

/// All that the core's product code takes from the standard library: no clock, no threads, no I/O, and no collection whose
/// order differs from run to run.
const CORE_STD: [&str; 6] = [
    "std::borrow::",
    "std::collections::{BTree",
    "std::collections::BTree",
    "std::error::Error",
    "std::iter::",
    "std::mem::",
];

/// What must not be named there even when it comes by another way.
const CORE_BANS: [&str; 6] = ["HashMap", "HashSet", "Instant", "SystemTime", "thread", "rand::"];

/// Where the tests of a level are that documents name as `level::file::test`, or by the file alone.
const LEVELS: [(&str, &str); 5] = [
    ("e2e", "tests/e2e"),
    ("core", "bridge/core/tests"),
    ("store", "bridge/store/tests/store"),
    ("topic", "bridge/tests/topic_serve"),
    ("sim", "tests/sim/tests"),
];

/// The document that says which test shows what.
const GUARANTEES: &str = "docs/guarantees.md";

/// A broken rule: where, and what to do.
type Finding = String;

pub(crate) fn run(workspace: &Workspace) -> Result<(), Failed> {
    let findings = check(workspace)?;
    if findings.is_empty() {
        return Ok(());
    }
    Err(Failed(format!(
        "{} findings\n  {}",
        findings.len(),
        findings.join("\n  ")
    )))
}

fn check(workspace: &Workspace) -> Result<Vec<Finding>, Failed> {
    let mut findings = Vec::new();
    for file in files(workspace)? {
        // Files deleted and not yet committed are still listed; binary files hold no rules.
        let Ok(text) = fs::read_to_string(workspace.root().join(&file)) else {
            continue;
        };
        findings.extend(check_text(&file, &text));
    }
    let read = |file: &str| {
        let path = workspace.root().join(file);
        fs::read_to_string(&path).map_err(|error| Failed(format!("{}: {error}", path.display())))
    };
    findings.extend(check_readme(
        &read("README.md")?,
        &read("examples/quickstart.rs")?,
    ));
    findings.extend(check_cited(&read(GUARANTEES)?, |path| read(path).ok()));
    for (folder, allowed) in LAYERS {
        let manifest = read(&format!("{folder}/Cargo.toml"))?;
        findings.extend(check_layer(folder, &manifest, allowed));
    }
    Ok(findings)
}

/// Everything that is or may become part of the repository: what git says, or where there is no git or no repository, such as in an
/// unpacked archive, every file but those of `NOT_OURS`.
fn files(workspace: &Workspace) -> Result<Vec<PathBuf>, Failed> {
    let mut list = workspace.command("git");
    list.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    match output_of(list) {
        Ok(list) => Ok(list
            .split('\0')
            .filter(|path| !path.is_empty())
            .map(PathBuf::from)
            .collect()),
        Err(_) => walk(workspace.root()),
    }
}

/// The files below a directory, as paths from there.
fn walk(root: &Path) -> Result<Vec<PathBuf>, Failed> {
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let failed = |error: std::io::Error| Failed(format!("{}: {error}", folder.display()));
        for entry in fs::read_dir(root.join(&folder)).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let (name, kind) = (entry.file_name(), entry.file_type().map_err(failed)?);
            // In a further work tree `.git` is a file.
            if NOT_OURS.iter().any(|not_ours| name == *not_ours) {
                continue;
            }
            if kind.is_file() {
                files.push(folder.join(name));
            } else if kind.is_dir() {
                folders.push(folder.join(name));
            }
        }
    }
    Ok(files)
}

/// What README.md shows as an application is a program that is compiled.
fn check_readme(readme: &str, program: &str) -> Vec<Finding> {
    let shown = readme
        .split_once("```rust\n")
        .and_then(|(_, rest)| rest.split_once("```"))
        .map(|(shown, _)| shown);
    match shown {
        None => vec!["README.md: shows no application".to_owned()],
        Some(shown) if program.ends_with(shown) => Vec::new(),
        Some(_) => vec!["README.md: its application differs from examples/quickstart.rs".to_owned()],
    }
}

/// Tests that a document names must exist. The simulation has one file, which is not named.
fn check_cited(text: &str, read: impl Fn(&str) -> Option<String>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        // Every second part stands in backticks.
        for cited in line.split('`').skip(1).step_by(2) {
            let mut parts = cited.split("::");
            let level = parts.next().unwrap_or_default();
            let Some((_, folder)) = LEVELS.iter().find(|(name, _)| *name == level) else {
                continue;
            };
            let parts: Vec<&str> = parts.filter(|part| !part.is_empty()).collect();
            let (file, test) = match (level, parts.as_slice()) {
                // The level itself.
                (_, []) => continue,
                ("sim", [test]) => ("sim", Some(*test)),
                (_, [file]) => (*file, None),
                (_, [file, test]) => (*file, Some(*test)),
                (_, _) => ("", None),
            };
            let found = read(&format!("{folder}/{file}.rs")).is_some_and(|source| match test {
                Some(test) => source.contains(&format!("fn {test}(")),
                None => source.contains("fn "),
            });
            if !found {
                findings.push(format!("{GUARANTEES}:{number}: there is no test {cited}"));
            }
        }
    }
    findings
}

/// What a line of the core's product code must not name.
fn core_finding(line: &str) -> Option<String> {
    let from_std = line
        .match_indices("std::")
        .map(|(at, _)| &line[at..])
        .find(|rest| !CORE_STD.iter().any(|allowed| rest.starts_with(allowed)));
    let banned = CORE_BANS.iter().find(|banned| line.contains(**banned));
    let named = match (from_std, banned) {
        (Some(rest), _) => rest,
        (None, Some(banned)) => banned,
        (None, None) => return None,
    };
    Some(format!(
        "the core takes time and chance as arguments, does no I/O and has ordered collections only: {named}"
    ))
}

fn check_text(file: &Path, text: &str) -> Vec<Finding> {
    let name = file.to_string_lossy();
    let mut findings = Vec::new();
    let listed = |list: &[(&str, &str)]| list.iter().any(|(path, _)| *path == name);
    // Written in two parts, so that this file does not find itself.
    let machine_paths = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("/Us", "ers/"),
    ];
    let leftovers = [
        concat!("to", "do!("),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("#[ign", "ore"),
    ];
    let is_rust = name.ends_with(".rs");
    let is_test =
        is_rust && (name.starts_with("tests/") || name.contains("/tests/") || name.ends_with("tests.rs"));
    if is_rust && !listed(&LONG_FILES) && text.lines().count() > LINES_MAX {
        findings.push(format!(
            "{name}: more than {LINES_MAX} lines; split it by concept"
        ));
    }
    for (number, line) in (1..).zip(text.lines()) {
        let mut find = |what: String| findings.push(format!("{name}:{number}: {what}"));
        if name != "Cargo.lock"
            && let Some(path) = machine_paths.iter().find(|path| line.contains(**path))
        {
            find(format!("{path} is a path of one machine"));
        }
        if is_rust && let Some(word) = leftovers.iter().find(|word| line.contains(**word)) {
            find(format!("{word} is a leftover: finish it, or make it an issue"));
        }
        let comment = line.trim_start().starts_with("//");
        if is_rust
            && name.starts_with("bridge/core/src/")
            && !comment
            && let Some(what) = core_finding(line)
        {
            find(what);
        }
        if is_test && !listed(&SLEEPERS) && line.contains(concat!("sle", "ep(")) {
            find("tests wait on conditions (fanin_tests::wait), they do not sleep".to_owned());
        }
    }
    if name.ends_with("Cargo.toml")
        && text.contains("[package]")
        && !text.contains("[workspace]")
        && !text.contains("[lints]\nworkspace = true")
    {
        findings.push(format!(
            "{name}: take the workspace's lints: [lints] workspace = true"
        ));
    }
    findings
}

/// What a crate ships may use the crates of `allowed` only. `fanin-core` may use none at all, not even others' ones.
fn check_layer(folder: &str, manifest: &str, allowed: &[&str]) -> Vec<Finding> {
    let mut section = "";
    let mut findings = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
            // A dependency may also be a table of its own: `[dependencies.name]`.
            if !section.starts_with("[dependencies.") {
                continue;
            }
        }
        let entry = match section.strip_prefix("[dependencies.") {
            Some(name) if line == section => name,
            Some(_) => continue,
            None if section == "[dependencies]" => line,
            None => continue,
        };
        let name = entry
            .split(['.', ' ', '=', ']'])
            .next()
            .unwrap_or_default()
            .trim_matches('"');
        let ours = name.starts_with("fanin-");
        if name.is_empty() || name.starts_with('#') || allowed.contains(&name) {
            continue;
        }
        if ours || folder == "bridge/core" {
            findings.push(format!("{folder}/Cargo.toml: must not depend on {name}"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    // Goal: this repository keeps its rules, and each rule finds what breaks it. Method: the real files, then samples.
    use super::*;

    #[test]
    fn this_repository_is_tidy() {
        let findings = check(&Workspace::of_this_build()).unwrap();
        assert!(findings.is_empty(), "{}", findings.join("\n"));
    }

    #[test]
    fn each_rule_finds_what_breaks_it() {
        let count = |file: &str, text: &str| check_text(Path::new(file), text).len();
        assert_eq!(count("a/src/lib.rs", &"x\n".repeat(LINES_MAX)), 0);
        assert_eq!(count("a/src/lib.rs", &"x\n".repeat(LINES_MAX + 1)), 1);
        assert_eq!(count("a/src/lib.rs", concat!("// FIX", "ME\n")), 1);
        assert_eq!(count("README.md", concat!("FIX", "ME is a word\n")), 0);
        assert_eq!(count("README.md", concat!("see /wo", "rk/x\n")), 1);
        let sleep = concat!("tokio::time::sle", "ep(second).await;\n");
        assert_eq!(count("tests/e2e/main.rs", sleep), 1);
        assert_eq!(count("bridge/hub/tests/tail.rs", sleep), 1);
        assert_eq!(count("tests/src/wait.rs", sleep), 0);
        assert_eq!(count("bridge/src/serve.rs", sleep), 0);
        let core = "bridge/core/src/node/mod.rs";
        assert_eq!(count(core, "use std::collections::{BTreeMap, BTreeSet};\n"), 0);
        assert_eq!(count(core, "// An Instant is not known here.\n"), 0);
        assert_eq!(count(core, "use std::time::Duration;\n"), 1);
        assert_eq!(count(core, "use std::collections::{BTreeMap, HashMap};\n"), 1);
        assert_eq!(count(core, "let now = Instant::now();\n"), 1);
        assert_eq!(count(core, "let x = rand::rng().next();\n"), 1);
        assert_eq!(count("bridge/src/app.rs", "use std::time::Duration;\n"), 0);
        assert_eq!(count("a/Cargo.toml", "[package]\nname = \"a\"\n"), 1);
        assert_eq!(count("a/Cargo.toml", "[package]\n[lints]\nworkspace = true\n"), 0);
    }

    #[test]
    fn without_git_the_same_files_are_found() {
        let workspace = Workspace::of_this_build();
        let walked = walk(workspace.root()).unwrap();
        for file in ["README.md", "xtask/src/tidy.rs", ".ci/run"] {
            assert!(walked.contains(&PathBuf::from(file)), "{file}");
        }
        let built = |file: &&PathBuf| file.starts_with("target") || file.starts_with(".git");
        assert_eq!(walked.iter().find(built), None);
        for file in files(&workspace).unwrap() {
            // A file that was deleted and not yet committed is still in git's list.
            let is_there = workspace.root().join(&file).is_file();
            assert!(!is_there || walked.contains(&file), "{}", file.display());
        }
    }

    #[test]
    fn what_is_cited_exists() {
        let read = |path: &str| {
            let files = ["tests/e2e/links.rs", "tests/sim/tests/sim.rs"];
            files.contains(&path).then(|| "fn cut() {}\n".to_owned())
        };
        let count = |text: &str| check_cited(text, read).len();
        assert_eq!(
            count("`e2e::` runs; `e2e::links`, `e2e::links::cut`; `sim::cut`; `cargo xtask`"),
            0
        );
        assert_eq!(
            count("`e2e::link`, `e2e::links::cu`\n`sim::links::cut` `core::links` `e2e::a::b::c`"),
            5
        );
        assert_eq!(count("e2e::nothing is no citation"), 0);
    }

    #[test]
    fn the_readme_shows_what_is_compiled() {
        let readme = |program: &str| format!("text\n```rust\n{program}```\n");
        assert!(check_readme(&readme("fn main() {}\n"), "//! Doc.\nfn main() {}\n").is_empty());
        assert_eq!(
            check_readme(&readme("fn main() {}\n"), "fn other() {}\n").len(),
            1
        );
        assert_eq!(check_readme("text\n", "fn main() {}\n").len(), 1);
    }

    #[test]
    fn dependencies_point_one_way() {
        let count =
            |folder: &str, manifest: &str, allowed: &[&str]| check_layer(folder, manifest, allowed).len();
        let manifest = "[package]\n[dependencies]\nbytes = \"1\"\nfanin-proto.workspace = true\n[dev-dependencies]\nfanin-core = \"1\"\n";
        assert_eq!(count("app-sdk", manifest, &["fanin-proto"]), 0);
        assert_eq!(count("app-sdk", manifest, &[]), 1);
        assert_eq!(count("bridge/core", manifest, &[]), 2);
        assert_eq!(
            count(
                "bridge/core",
                "[dependencies]\n# none\n\n[features]\na = []\n",
                &[]
            ),
            0
        );
        assert_eq!(
            count(
                "app-sdk",
                "[dependencies.fanin-core]\npath = \"x\"\n",
                &["fanin-proto"]
            ),
            1
        );
    }
}
