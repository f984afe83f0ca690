//! Tools that are no part of the toolchain: built once into the cache folder.

use std::path::PathBuf;

use anyhow::Result;
use shoal_e2e::lab::Steps;
use shoal_e2e::lab::cache::Artifact;

use crate::workspace::{cargo, output};

const CARGO_DENY: &str = "0.20.2";

/// `cargo-deny`, after building it if it is not there.
pub(crate) fn cargo_deny() -> Result<PathBuf> {
    let artifact = Artifact {
        kind: "tools",
        name: format!("cargo-deny-{CARGO_DENY}"),
        content: format!("cargo install --locked cargo-deny --version {CARGO_DENY}"),
        takes: "about 5 min",
    };
    let folder = artifact.get(&Steps::new(false), |folder| {
        let install = ["install", "--locked", "cargo-deny", "--version", CARGO_DENY];
        output(cargo(install).arg("--root").arg(folder)).map(drop)
    })?;
    Ok(folder.join("bin/cargo-deny"))
}
