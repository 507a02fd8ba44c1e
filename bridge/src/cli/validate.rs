//! `fanin validate`: every problem of configuration files, before anything is bound or connected.

use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use fanin_config::{Problem, Severity};
use serde_json::{Value, json};

use super::environment::{self, Finding};
use super::exit::Exit;
use super::failure::Failure;
use super::load::{self, Overrides, problem_json};
use super::output;
use crate::users;

/// `fanin validate`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Configuration files, each on its own; conf.d/*.yaml beside a file is read with it.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    overrides: Overrides,
    /// Print one JSON document.
    #[arg(short = 'j', long)]
    pub(super) json: bool,
    /// Let a warning count as an error.
    #[arg(long)]
    deny_warnings: bool,
    /// Check the files only, not whether the paths and users they name exist on this machine.
    #[arg(long)]
    no_environment: bool,
}

/// What was found in one file.
struct Verdict {
    file: PathBuf,
    problems: Vec<Problem>,
    findings: Vec<Finding>,
}

impl Verdict {
    fn of(file: &Path, args: &Args) -> Verdict {
        let (problems, findings) = match load::load(file, &args.overrides) {
            Ok(loaded) if args.no_environment => (loaded.warnings, Vec::new()),
            Ok(loaded) => {
                let findings = environment::check(&loaded);
                let mut problems = users::unknown(&loaded);
                problems.extend(loaded.warnings);
                (problems, findings)
            }
            Err(error) => (error.problems, Vec::new()),
        };
        Verdict {
            file: file.to_owned(),
            problems,
            findings,
        }
    }

    fn errors(&self) -> usize {
        self.count(Severity::Error) + self.findings.len()
    }

    fn warnings(&self) -> usize {
        self.count(Severity::Warning)
    }

    fn count(&self, severity: Severity) -> usize {
        self.problems
            .iter()
            .filter(|problem| problem.severity == severity)
            .count()
    }

    fn text(&self) -> String {
        let problems = self.problems.iter().map(|problem| format!("{problem}\n\n"));
        let findings = self
            .findings
            .iter()
            .map(|finding| format!("{}\n\n", finding_text(finding)));
        let details: String = problems.chain(findings).collect();
        let counts = match (self.errors(), self.warnings()) {
            (0, 0) => "ok".to_owned(),
            (errors, warnings) => format!("{errors} error(s), {warnings} warning(s)"),
        };
        format!("{details}{}: {counts}\n", self.file.display())
    }

    fn json(&self) -> Value {
        let problems = self.problems.iter().map(problem_json);
        let findings = self.findings.iter().map(finding_json);
        json!({
            "file": self.file.display().to_string(),
            "errors": self.errors(),
            "warnings": self.warnings(),
            "problems": problems.chain(findings).collect::<Vec<_>>(),
        })
    }
}

fn finding_text(finding: &Finding) -> String {
    let (title, cure) = title_and_cure(finding.code);
    format!(
        "error {} at {}: {}\n  key:   {}\n  value: {}\n  why:   {}\n  cure:  {}",
        finding.code,
        finding.origin,
        title,
        finding.key,
        finding.path.display(),
        finding.why,
        cure,
    )
}

fn finding_json(finding: &Finding) -> Value {
    let (file, line) = load::file_and_line(&finding.origin);
    let (title, cure) = title_and_cure(finding.code);
    json!({
        "severity": "error",
        "code": finding.code,
        "title": title,
        "origin": finding.origin.to_string(),
        "file": file,
        "line": line,
        "key": finding.key.to_string(),
        "value": finding.path.display().to_string(),
        "why": finding.why,
        "cure": cure,
    })
}

fn title_and_cure(code: &str) -> (&'static str, &'static str) {
    super::errors::lookup(code).map_or(("", ""), |entry| (entry.title, entry.cure))
}

pub(super) fn execute(args: &Args) -> Result<Exit, Failure> {
    let verdicts: Vec<Verdict> = args.files.iter().map(|file| Verdict::of(file, args)).collect();
    let is_bad = |verdict: &Verdict| verdict.errors() > 0 || (args.deny_warnings && verdict.warnings() > 0);
    let valid = !verdicts.iter().any(is_bad);
    if args.json {
        let files: Vec<Value> = verdicts.iter().map(Verdict::json).collect();
        output::print_json(&json!({ "valid": valid, "files": files }))?;
    } else {
        output::print(&verdicts.iter().map(Verdict::text).collect::<String>())?;
    }
    Ok(if valid { Exit::Done } else { Exit::Config })
}
