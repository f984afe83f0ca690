//! No names of hosts that packages are downloaded from: a machine says itself where its packages come from.

use std::fs;
use std::process::Command;

use anyhow::{Result, bail};

use crate::workspace::{output, root};

/// Top-level domains that such hosts are in.
const TOP: &[&str] = &["com", "io", "org"];

/// Names that may be written, with everything below them: API groups, documentation, the namespace of SVG, and a Go module's own name.
const ALLOWED: &[&str] = &[
    "argoproj.io",
    "artifacthub.io",
    "ceph.com",
    "coreos.com",
    "etcd.io",
    "example.com",
    "example.org",
    "fluxcd.io",
    "json-schema.org",
    "k8s.io",
    "krew.googlecontainertools.github.com",
    "kubernetes.io",
    "rook.io",
    "w3.org",
];

/// Files that name a module by the host it comes from, or that are somebody else's text.
const LEFT_OUT: &[&str] = &["Cargo.lock", "LICENSE", "go.mod", "go.sum"];

pub(super) fn check() -> Result<()> {
    let list = output(
        Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root()),
    )?;
    let mut found = Vec::new();
    for file in list.split('\0').filter(|file| !file.is_empty()) {
        let name = file.rsplit('/').next().unwrap_or(file);
        // A deleted file is listed until the deletion is staged; a binary one names nothing.
        let Ok(text) = fs::read_to_string(root().join(file)) else {
            continue;
        };
        if LEFT_OUT.contains(&name) {
            continue;
        }
        for (number, line) in (1..).zip(text.lines()) {
            found.extend(forbidden(line).map(|host| format!("{file}:{number}: {host}")));
        }
    }
    if !found.is_empty() {
        bail!("names of hosts: {}", found.join(", "));
    }
    Ok(())
}

fn forbidden(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '-')
        .map(|word| word.trim_matches(['.', '-']))
        .filter(|word| {
            let top = word.rsplit_once('.').map(|(_, top)| top.to_ascii_lowercase());
            top.is_some_and(|top| TOP.contains(&top.as_str()))
        })
        .filter(|word| {
            !ALLOWED.iter().any(|allowed| {
                word.strip_suffix(allowed)
                    .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_hosts_and_nothing_else() {
        let found = |line| forbidden(line).collect::<Vec<_>>();
        let host = ["registry", "invalid", "org"].join(".");
        let line = format!("see https://{host}/simple, or {host}.");
        assert_eq!(found(&line), [&host, &host]);
        assert_eq!(
            found("rbac.authorization.k8s.io/v1 in std::io.read, kubernetes.io, foo.example.com, 10.0.0.1"),
            Vec::<&str>::new()
        );
    }
}
