//! Small libraries of our own that are loaded into other people's programs; compiled once, on this machine.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::cache::Artifact;
use super::host;
use super::process::output;
use super::steps::Steps;

/// A library, in C.
#[derive(Clone, Copy, Debug)]
pub(super) struct Preload {
    name: &'static str,
    source: &'static str,
}

/// Chooses a client's source address.
pub(super) const BIND_SOURCE: Preload = Preload {
    name: "bind_source",
    source: include_str!("../../lab/bind_source.c"),
};

/// Keeps ceph-mgr 18.2 from crashing on Python 3.13; 20.2 has been mended upstream.
pub(super) const MGR_PYTHON: Preload = Preload {
    name: "mgr_python",
    source: include_str!("../../lab/mgr_python.c"),
};

impl Preload {
    /// The compiled library.
    pub(super) fn get(self) -> Result<PathBuf> {
        let Self { name, source } = self;
        let artifact = Artifact {
            kind: "programs",
            name: name.into(),
            content: source.into(),
            takes: "a moment",
        };
        let folder = artifact.get(&Steps::new(true), |out| {
            fs::create_dir(out)?;
            fs::write(out.join("source.c"), source)?;
            let cc = host::find("cc").context("no C compiler (Debian package gcc)")?;
            let mut compile = Command::new(cc);
            compile.current_dir(out).args([
                "-O2",
                "-shared",
                "-fPIC",
                "-o",
                "library.so",
                "source.c",
                "-ldl",
            ]);
            output(&mut compile).map(drop)
        })?;
        Ok(folder.join("library.so"))
    }
}
