//! What the host must have, checked at once and before anything is started.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::process::output;
use super::steps::Steps;

/// A program or file of the host, and the Debian package that brings it.
#[derive(Clone, Copy, Debug)]
pub struct Needed {
    /// A program looked up in PATH and the sbin folders, or an absolute path.
    pub what: &'static str,
    /// Debian package.
    pub package: &'static str,
}

const fn needed(what: &'static str, package: &'static str) -> Needed {
    Needed { what, package }
}

/// For starting and ending processes, and for the API server's signing key.
pub const ALWAYS: &[Needed] = &[
    needed("setpriv", "util-linux"),
    needed("setsid", "util-linux"),
    needed("openssl", "openssl"),
];

/// For Ceph in namespaces of its own, and for clients with chosen source addresses.
pub const FOR_CEPH: &[Needed] = &[
    needed("unshare", "util-linux"),
    needed("nsenter", "util-linux"),
    needed("mount", "mount"),
    needed("cc", "gcc"),
];

/// For making a Ceph root file system.
pub const FOR_ROOTFS: &[Needed] = &[
    needed("mmdebstrap", "mmdebstrap"),
    needed(
        "/usr/share/keyrings/debian-archive-keyring.gpg",
        "debian-archive-keyring",
    ),
];

/// For making container images, beside [`FOR_ROOTFS`].
pub const FOR_IMAGES: &[Needed] = &[needed("buildah", "buildah"), needed("cc", "gcc")];

/// For a node.
pub const FOR_NODE: &[Needed] = &[
    needed("unshare", "util-linux"),
    needed("nsenter", "util-linux"),
    needed("mount", "mount"),
    needed("ip", "iproute2"),
    needed("socat", "socat"),
    needed("containerd", "containerd"),
    needed("runc", "runc"),
    needed("/usr/lib/cni/bridge", "containernetworking-plugins"),
];

/// Whether this process is root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Makes sure that all of it is there: installs Debian packages when this is root and apt-get exists, and otherwise
/// says which ones to install.
pub fn require(needs: &[Needed], steps: &Steps) -> Result<()> {
    let mut missing = lacking(needs);
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<_> = missing.iter().map(|n| n.package).collect();
    if is_root() && find("apt-get").is_some() {
        steps.say(
            "host",
            &format!("installing the Debian packages {}", packages.join(" ")),
        );
        let apt = |args: &[&str]| {
            output(
                Command::new("apt-get")
                    .args(args)
                    .env("DEBIAN_FRONTEND", "noninteractive"),
            )
        };
        // Another lab may be at it, too.
        let install: Vec<&str> = [
            "install",
            "-y",
            "-qq",
            "--no-install-recommends",
            "-o",
            "DPkg::Lock::Timeout=600",
        ]
        .into_iter()
        .chain(packages)
        .collect();
        if apt(&install).is_err() {
            apt(&["update", "-qq"])?;
            apt(&install)?;
        }
        missing = lacking(needs);
    }
    if !missing.is_empty() {
        let lines: Vec<_> = missing
            .iter()
            .map(|n| format!("  {}  (Debian package {})", n.what, n.package))
            .collect();
        bail!(
            "the host lacks:\n{}\nInstall them and try again.",
            lines.join("\n")
        );
    }
    Ok(())
}

fn lacking(needs: &[Needed]) -> Vec<Needed> {
    let mut missing: Vec<Needed> = Vec::new();
    for need in needs {
        if find(need.what).is_none() && !missing.iter().any(|m| m.package == need.package) {
            missing.push(*need);
        }
    }
    missing
}

/// The full path of a program, from PATH or the sbin folders, which not every user's PATH has.
pub fn find(program: &str) -> Option<PathBuf> {
    if program.starts_with('/') {
        return Path::new(program).exists().then(|| program.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(sbin)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// Go, which builds the control plane's programs; an error when there is none, or one too old.
pub(super) fn go() -> Result<PathBuf> {
    const REMEDY: &str = "install Go 1.26 or newer, or set KUBEBUILDER_ASSETS to a folder with kube-apiserver, \
                          kube-controller-manager, etcd and kubectl";
    let go = find("go").with_context(|| {
        format!("the control plane's programs are built from source, and there is no Go on PATH: {REMEDY}")
    })?;
    let version = output(Command::new(&go).args(["env", "GOVERSION"]))?;
    let minor = version
        .trim()
        .strip_prefix("go1.")
        .and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
    if minor.is_some_and(|minor| minor < 26) {
        bail!(
            "{} is {}, too old to build the control plane's programs: {REMEDY}",
            go.display(),
            version.trim()
        );
    }
    Ok(go)
}
