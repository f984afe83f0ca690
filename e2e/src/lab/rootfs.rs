//! The root file system that Ceph, NFS-Ganesha and their clients run in: Debian's packages, unpacked once.

use std::fmt::{self, Display};
use std::path::PathBuf;
use std::process::Command;
use std::str::FromStr;

use anyhow::{Context, Result};

use super::cache::Artifact;
use super::host;
use super::process::output;
use super::steps::Steps;

/// The Ceph releases that the lab can run: the oldest and the newest that Shoal supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum CephRelease {
    /// 18.2, with NFS-Ganesha 6 (Debian trixie). The default.
    #[default]
    Reef,
    /// 20.2, with a newer NFS-Ganesha (Debian sid).
    Tentacle,
}

impl CephRelease {
    /// The major version, as on the command line.
    pub const fn major(self) -> &'static str {
        match self {
            Self::Reef => "18",
            Self::Tentacle => "20",
        }
    }

    /// The release's name, as Ceph's own settings want it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reef => "reef",
            Self::Tentacle => "tentacle",
        }
    }

    const fn suite(self) -> &'static str {
        match self {
            Self::Reef => "trixie",
            Self::Tentacle => "sid",
        }
    }
}

impl Display for CephRelease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.major())
    }
}

impl FromStr for CephRelease {
    type Err = anyhow::Error;

    fn from_str(s: &str) -> Result<Self> {
        [Self::Reef, Self::Tentacle]
            .into_iter()
            .find(|r| r.major() == s)
            .with_context(|| format!("Ceph {s} is not one of 18, 20"))
    }
}

const PACKAGES: &[&str] = &[
    "ceph-mon",
    "ceph-mgr",
    "ceph-mds",
    "ceph-osd",
    "ceph-mgr-modules-core",
    "ceph-common",
    "ceph-fuse",
    "nfs-ganesha",
    "nfs-ganesha-ceph",
    "nfs-ganesha-rados-grace",
    "nfs-ganesha-vfs",
    "nfs-ganesha-mem",
    "libnfs-utils",
    "dbus",
    "dbus-bin",
    "librados-dev",
    "python3-cephfs",
    "procps",
    "iproute2",
    "ca-certificates",
    "rpcbind",
    "util-linux",
];

/// What mmdebstrap is told but for the target; with the suite's name in it, also what the result is cached by.
fn arguments(release: CephRelease) -> Vec<String> {
    minimal(release.suite(), PACKAGES)
}

/// The same for any suite and packages.
pub(super) fn minimal(suite: &str, packages: &[&str]) -> Vec<String> {
    let mut arguments: Vec<String> = [
        "--variant=minbase",
        "--mode=root",
        "--format=directory",
        "--aptopt=Apt::Install-Recommends \"false\"",
    ]
    .map(Into::into)
    .into();
    if suite != "trixie" {
        // Lists of suites that still change are often older than they promise to be.
        arguments.push("--aptopt=Acquire::Check-Valid-Until \"false\"".into());
    }
    arguments.push("--dpkgopt=force-unsafe-io".into());
    for folder in ["doc", "man", "locale"] {
        arguments.push(format!("--dpkgopt=path-exclude=/usr/share/{folder}/*"));
    }
    if !packages.is_empty() {
        arguments.push(format!("--include={}", packages.join(",")));
    }
    arguments.push(suite.into());
    arguments
}

fn artifact(release: CephRelease) -> Artifact {
    Artifact {
        kind: "rootfs",
        name: format!("ceph-{release}-{}", release.suite()),
        content: arguments(release).join("\n"),
        takes: "1 to 5 min",
    }
}

/// Whether it is in the cache.
pub(super) fn is_ready(release: CephRelease) -> Result<bool> {
    artifact(release).is_ready()
}

/// The folder with the root file system, after making it if need be. Never written to afterwards.
pub(super) fn get(release: CephRelease, steps: &Steps) -> Result<PathBuf> {
    artifact(release).get(steps, |out| {
        let program = host::find("mmdebstrap").context("no mmdebstrap")?;
        output(Command::new(program).args(arguments(release)).arg(out)).map(drop)
    })
}
