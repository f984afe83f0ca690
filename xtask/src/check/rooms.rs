//! Who may import whom.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::workspace::{cargo, metadata, output};

/// What a member of the workspace may depend on.
struct Room {
    package: &'static str,
    /// Other members.
    may_import: &'static [&'static str],
    /// Whether it runs anything: holds a Kubernetes client or an async runtime.
    runs: bool,
}

const fn room(package: &'static str, may_import: &'static [&'static str], runs: bool) -> Room {
    Room {
        package,
        may_import,
        runs,
    }
}

/// A new room is a line here. The clock that decisions may not read is forbidden by `operator/domain/clippy.toml`.
const ROOMS: &[Room] = &[
    room("shoal-crds", &[], false),
    room("shoal-domain", &["shoal-crds"], false),
    room("shoal-backend", &["shoal-crds", "shoal-domain"], true),
    room(
        "shoal-ceph",
        &["shoal-crds", "shoal-domain", "shoal-backend"],
        true,
    ),
    room(
        "shoal-operator",
        &["shoal-crds", "shoal-domain", "shoal-backend", "shoal-ceph"],
        true,
    ),
    room("kubectl-shoal", &["shoal-crds"], true),
    room("shoal-e2e", EVERYTHING, true),
    room("xtask", EVERYTHING, true),
];

/// Everything but the developer commands.
const EVERYTHING: &[&str] = &[
    "shoal-crds",
    "shoal-domain",
    "shoal-backend",
    "shoal-ceph",
    "shoal-operator",
    "shoal-e2e",
];

/// Crates that a room which runs nothing must not bring along, not even through others.
const RUNNING: &[&str] = &[
    "async-std",
    "hyper",
    "kube-client",
    "kube-runtime",
    "smol",
    "tokio",
];

pub(super) fn check() -> Result<()> {
    let mut wrong = wrong_imports(&imports(&metadata()?)?);
    for room in ROOMS.iter().filter(|room| !room.runs) {
        // `cargo metadata` has the features of the whole workspace put together; `cargo tree` those of one member.
        let tree = output(&mut cargo([
            "tree",
            "--locked",
            "--edges=normal",
            "--prefix=none",
            "--format={p}",
            "--package",
            room.package,
        ]))?;
        let all: BTreeSet<_> = tree
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        for running in RUNNING.iter().filter(|name| all.contains(*name)) {
            wrong.push(format!("{} brings {running} along", room.package));
        }
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("; "));
    }
    Ok(())
}

/// For each member the members it depends on, for its tests and its build script too.
fn imports(metadata: &Value) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let text = |value: &Value| Some(value.as_str()?.to_owned());
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata names no packages")?;
    let members: BTreeSet<_> = packages.iter().filter_map(|p| text(&p["name"])).collect();
    packages
        .iter()
        .map(|package| {
            let name = text(&package["name"]).context("a package has a name")?;
            let dependencies = package["dependencies"]
                .as_array()
                .context("a package has a list of dependencies")?;
            let own = dependencies
                .iter()
                .filter_map(|d| text(&d["name"]))
                .filter(|name| members.contains(name))
                .collect();
            Ok((name, own))
        })
        .collect()
}

fn wrong_imports(imports: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    imports
        .iter()
        .flat_map(|(name, own)| {
            let room = ROOMS.iter().find(|room| room.package == name);
            let Some(room) = room else {
                return vec![format!("{name} is no room of the table")];
            };
            own.iter()
                .filter(|import| !room.may_import.contains(&import.as_str()))
                .map(|import| format!("{name} imports {import}"))
                .collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_what_is_wrong() {
        let package = |name, dependencies: &[&str]| {
            let dependencies: Vec<_> = dependencies
                .iter()
                .map(|d| json!({"name": d, "kind": "dev"}))
                .collect();
            json!({"name": name, "dependencies": dependencies})
        };
        let metadata = json!({"packages": [
            package("shoal-crds", &["serde"]),
            package("shoal-domain", &["serde", "shoal-crds", "shoal-backend"]),
            package("shoal-backend", &["shoal-crds", "shoal-domain"]),
            package("shoal-new", &["shoal-crds"]),
        ]});
        assert_eq!(
            wrong_imports(&imports(&metadata).unwrap()),
            [
                "shoal-domain imports shoal-backend",
                "shoal-new is no room of the table"
            ]
        );
    }
}
