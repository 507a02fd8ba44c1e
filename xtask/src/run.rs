//! Runs commands in the workspace and says which.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Why a command did not succeed, as a sentence for people.
#[derive(Debug)]
pub(crate) struct Failed(pub(crate) String);

/// Where things are.
#[derive(Debug)]
pub(crate) struct Workspace {
    root: PathBuf,
    profile_dir: PathBuf,
}

impl Workspace {
    /// The workspace that this program was built in.
    pub(crate) fn of_this_build() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .unwrap_or(Path::new("."))
            .to_path_buf();
        // Cargo puts the binaries of one profile into one directory, wherever the target directory is.
        let exe = std::env::current_exe().ok();
        let dir = exe.as_deref().and_then(Path::parent);
        let profile_dir = dir.map_or_else(|| root.join("target/debug"), Path::to_path_buf);
        Self { root, profile_dir }
    }

    /// The root of the repository.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A binary of the dev profile.
    pub(crate) fn binary(&self, name: &str) -> PathBuf {
        self.profile_dir.join(name)
    }

    /// Where downloaded tools are kept.
    pub(crate) fn tools_dir(&self) -> PathBuf {
        self.profile_dir
            .parent()
            .unwrap_or(&self.profile_dir)
            .join("tools")
    }

    /// A command that runs in the root.
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.current_dir(&self.root);
        command
    }

    /// The cargo that runs this program.
    pub(crate) fn cargo_command(&self, args: &[&str]) -> Command {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = self.command(PathBuf::from(cargo));
        command.args(args);
        command
    }

    /// Runs cargo and wants success.
    pub(crate) fn cargo(&self, args: &[&str]) -> Result<(), Failed> {
        run(self.cargo_command(args))
    }
}

/// Says what is run, runs it, and wants success.
pub(crate) fn run(mut command: Command) -> Result<(), Failed> {
    let shown = shown(&command);
    say(&shown);
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failed(format!("{shown}: {status}"))),
        Err(error) => Err(Failed(format!("{shown}: {error}"))),
    }
}

/// The standard output of a command that must succeed; its errors go where this program's go.
pub(crate) fn output_of(mut command: Command) -> Result<String, Failed> {
    let shown = shown(&command);
    let output = command.stderr(std::process::Stdio::inherit()).output();
    match output {
        Ok(output) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        }
        Ok(output) => Err(Failed(format!("{shown}: {}", output.status))),
        Err(error) => Err(Failed(format!("{shown}: {error}"))),
    }
}

/// A command as people would type it.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program())
        .file_name()
        .unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Prints a line that stands out.
#[expect(clippy::print_stdout, reason = "a command line program")]
pub(crate) fn say(text: &str) {
    println!("\n=== {text}");
}
