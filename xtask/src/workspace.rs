//! Where things are in the work tree, and running programs in it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The top folder of the work tree.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
}

/// `cargo`, the one that runs this program, in the top folder.
pub(crate) fn cargo<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    command
}

/// Runs it with the terminal as its own; an error when it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot run {}", words(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", words(command));
    }
    Ok(())
}

/// What it prints on stdout; an error, with what it prints on stderr, when it fails.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", words(command)))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        bail!("{} failed ({}): {}", words(command), output.status, why.trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{} prints no text", words(command)))
}

/// The members of the workspace, and the folder that cargo builds in.
pub(crate) fn metadata() -> Result<Value> {
    let text = output(&mut cargo([
        "metadata",
        "--format-version=1",
        "--no-deps",
        "--locked",
    ]))?;
    serde_json::from_str(&text).context("cargo metadata prints no JSON")
}

/// The folder that cargo builds in.
pub(crate) fn target_folder(metadata: &Value) -> Result<PathBuf> {
    metadata
        .get("target_directory")
        .and_then(Value::as_str)
        .map(PathBuf::from)
        .context("cargo metadata names no target folder")
}

fn words(command: &Command) -> String {
    let program = Path::new(command.get_program());
    std::iter::once(program.file_name().unwrap_or(program.as_os_str()))
        .chain(command.get_args())
        .map(|word| word.display().to_string())
        .collect::<Vec<_>>()
        .join(" ")
}
