//! Tools that are no part of the toolchain: built once into the cache folder.

use std::path::PathBuf;

use anyhow::Result;
use shoal_e2e::lab::Steps;
use shoal_e2e::lab::cache::Artifact;

use crate::workspace::{cargo, output};

const CARGO_DENY: &str = "0.20.2";

const CARGO_CYCLONEDX: &str = "0.5.9";

/// `cargo-deny`, after building it if it is not there.
pub(crate) fn cargo_deny() -> Result<PathBuf> {
    installed("cargo-deny", CARGO_DENY, "about 5 min")
}

/// `cargo-cyclonedx`, after building it if it is not there.
pub(crate) fn cargo_cyclonedx() -> Result<PathBuf> {
    installed("cargo-cyclonedx", CARGO_CYCLONEDX, "about 2 min")
}

fn installed(name: &str, version: &str, takes: &'static str) -> Result<PathBuf> {
    let artifact = Artifact {
        kind: "tools",
        name: format!("{name}-{version}"),
        content: format!("cargo install --locked {name} --version {version}"),
        takes,
    };
    let folder = artifact.get(&Steps::new(false), |folder| {
        let install = ["install", "--locked", name, "--version", version];
        output(cargo(install).arg("--root").arg(folder)).map(drop)
    })?;
    Ok(folder.join("bin").join(name))
}
