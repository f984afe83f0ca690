//! `cargo xtask release`: everything that is published of a version, in one folder.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::Args;
use shoal_e2e::{
    helm,
    lab::{self, Steps, image},
};

use crate::tools;
use crate::workspace::{cargo, metadata, output, root, run as run_command, target_folder};

const CHANGELOG: &str = "CHANGELOG.md";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What is published beside the chart and the image without Helm, in the order in which it is applied.
const MANIFESTS: [&str; 3] = ["crds/generated", "crds/roles.yaml", "operator/role.yaml"];

#[derive(Args)]
pub(crate) struct Arguments {
    /// Make everything, and publish nothing
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    ensure!(
        arguments.dry_run,
        "there is no place yet to publish to: cargo xtask release --dry-run makes everything that would be"
    );
    ensure!(lab::is_root(), "the image is built in mounts, which needs root");
    let notes = fs::read_to_string(root().join(CHANGELOG))?;
    let notes =
        notes_on(&notes, VERSION).with_context(|| format!("{CHANGELOG} says nothing of {VERSION}"))?;

    let target = target_folder(&metadata()?)?;
    let folder = target.join(format!("release-{VERSION}"));
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("NOTES.md"), notes)?;
    fs::write(folder.join(format!("shoal-{VERSION}.yaml")), manifests()?)?;
    helm::output(
        helm::helm(None)?
            .current_dir(root())
            .args(["package", "charts/shoal", "--destination"])
            .arg(&folder),
    )?;
    plugin(&target, &folder)?;
    software(&folder)?;
    image::shoal(
        root(),
        &folder.join(format!("shoal-image-{VERSION}-linux-amd64.tar")),
        &Steps::new(false),
    )?;
    let sums = checksums(&folder)?;
    fs::write(folder.join("SHA256SUMS"), &sums)?;
    krew(&folder, &sums)?;
    println!("{sums}all in {}", folder.display());
    Ok(ExitCode::SUCCESS)
}

/// The changelog's section on a version.
fn notes_on<'a>(changelog: &'a str, version: &str) -> Option<&'a str> {
    let mut rest = changelog;
    while let Some(start) = rest.find("\n## ") {
        let section = &rest[start + 1..];
        let section = &section[..section[1..].find("\n## ").map_or(section.len(), |end| end + 1)];
        let title = section.lines().next().unwrap_or_default();
        if title.split_whitespace().nth(1) == Some(version) {
            return Some(section);
        }
        rest = &rest[start + 4..];
    }
    None
}

/// Definitions come first: policies are about their kinds.
fn manifests() -> Result<String> {
    let mut all = String::new();
    for place in MANIFESTS.map(|place| root().join(place)) {
        let mut files = vec![place.clone()];
        if place.is_dir() {
            files = fs::read_dir(&place)?
                .map(|entry| Ok(entry?.path()))
                .collect::<Result<_>>()?;
            files.sort_by_key(|file| {
                let name = file
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                (
                    name.ends_with("policy.yaml") || name.ends_with("policies.yaml"),
                    name,
                )
            });
        }
        for file in files {
            let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
            writeln!(all, "---\n{}", text.trim())?;
        }
    }
    Ok(all)
}

/// The kubectl plugin, as krew installs it.
fn plugin(target: &Path, folder: &Path) -> Result<()> {
    run_command(&mut cargo([
        "build",
        "--locked",
        "--release",
        "--package=kubectl-shoal",
    ]))?;
    run_command(
        Command::new("tar")
            .args([
                "--create",
                "--gzip",
                "--sort=name",
                "--owner=0",
                "--group=0",
                "--mtime=@0",
                "--file",
            ])
            .arg(folder.join(format!("kubectl-shoal-{VERSION}-linux-amd64.tar.gz")))
            .arg("--directory")
            .arg(target.join("release"))
            .arg("kubectl-shoal")
            .arg("--directory")
            .arg(root())
            .arg("LICENSE"),
    )
}

/// What the programs are made of, in CycloneDX.
fn software(folder: &Path) -> Result<()> {
    let tool = tools::cargo_cyclonedx()?;
    for package in ["operator", "kubectl-shoal"] {
        let name = format!("sbom-{package}");
        run_command(
            Command::new(&tool)
                .current_dir(root())
                .args(["cyclonedx", "--format=json", "--target=x86_64-unknown-linux-gnu"])
                .arg(format!("--manifest-path={package}/Cargo.toml"))
                .arg(format!("--override-filename={name}")),
        )?;
        // It writes one beside each manifest of the workspace.
        let list = output(
            Command::new("git")
                .args(["ls-files", "-z", "--others"])
                .arg(format!("*{name}.json"))
                .current_dir(root()),
        )?;
        for written in list.split_terminator('\0').map(|name| root().join(name)) {
            if written.parent() == Some(&root().join(package)) {
                fs::copy(&written, folder.join(format!("{name}-{VERSION}.cdx.json")))?;
            }
            fs::remove_file(written)?;
        }
    }
    Ok(())
}

/// As `sha256sum` tells and checks them.
fn checksums(folder: &Path) -> Result<String> {
    let mut names: Vec<_> = fs::read_dir(folder)?
        .map(|entry| Ok(entry?.file_name()))
        .collect::<Result<_>>()?;
    names.sort();
    output(Command::new("sha256sum").current_dir(folder).args(names))
}

/// The plugin's entry in an index, with the archive that there is.
fn krew(folder: &Path, sums: &str) -> Result<()> {
    let archive = format!("kubectl-shoal-{VERSION}-linux-amd64.tar.gz");
    let line = sums.lines().find(|line| line.ends_with(&archive));
    let sum = line
        .and_then(|line| line.split_whitespace().next())
        .context("the plugin's archive has no checksum")?;
    let entry = fs::read_to_string(root().join("kubectl-shoal/krew.yaml"))?
        .replace("${VERSION}", VERSION)
        .replace("${SHA256_LINUX_AMD64}", sum);
    fs::write(folder.join("krew.yaml"), entry)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_has_its_own_notes() {
        let changelog = "# Changelog\n\n## 0.2.0\n\nTwo.\n\n### Upgrading\n\nNo.\n\n## 0.1.0 (not released yet)\n\nOne.\n";
        assert_eq!(
            notes_on(changelog, "0.2.0"),
            Some("## 0.2.0\n\nTwo.\n\n### Upgrading\n\nNo.\n")
        );
        assert_eq!(
            notes_on(changelog, "0.1.0"),
            Some("## 0.1.0 (not released yet)\n\nOne.\n")
        );
        assert_eq!(notes_on(changelog, "0.3.0"), None);
    }

    #[test]
    fn definitions_come_before_policies() {
        let all = manifests().unwrap();
        let kinds: Vec<_> = all
            .lines()
            .filter_map(|line| line.strip_prefix("kind: "))
            .collect();
        let last = kinds.iter().rposition(|kind| *kind == "CustomResourceDefinition");
        let first = kinds.iter().position(|kind| kind.contains("AdmissionPolicy"));
        assert!(last.is_some() && last < first, "{kinds:?}");
    }

    #[test]
    fn this_version_has_notes() {
        let changelog = fs::read_to_string(root().join(CHANGELOG)).unwrap();
        assert!(notes_on(&changelog, VERSION).is_some());
    }
}
