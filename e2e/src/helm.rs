//! The chart, and the real helm.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, ensure};
use serde_json::json;

use crate::{
    lab::{self, Steps},
    world::{SYSTEM_NAMESPACE, World},
};

/// Folder of the chart.
pub fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/shoal")
}

/// helm with nothing of its user's; with a cluster, if one is given.
pub fn helm(world: Option<&World>) -> Result<Command> {
    let mut command = Command::new(lab::helm(&Steps::new(true))?);
    let home = std::env::temp_dir().join("shoal-helm-without-a-home");
    for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        command.env(variable, &home);
    }
    let kubeconfig = match world {
        Some(world) => world.lab.control_plane()?.kubeconfig(),
        None => home.join("no-cluster"),
    };
    command
        .env("KUBECONFIG", kubeconfig)
        .args(["--namespace", SYSTEM_NAMESPACE]);
    Ok(command)
}

/// What a command prints; an error, with what it complains of, when it fails.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed: {said}");
    Ok(String::from_utf8(output.stdout)?)
}

/// Makes the system's namespace, one that takes no Pod which asks for more than it needs.
pub async fn restricted_namespace(world: &World) -> Result<()> {
    let labels = json!({"pod-security.kubernetes.io/enforce": "restricted"});
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM_NAMESPACE, "labels": labels},
    });
    world.apply(&namespace).await?;
    Ok(())
}

/// A copy of the chart in `folder`, with a further short name of kind Share.
pub fn changed_chart(folder: &Path) -> Result<PathBuf> {
    let changed = folder.join("chart");
    output(Command::new("cp").arg("-r").arg(chart()).arg(&changed))?;
    let file = changed.join("templates/crds/shares.yaml");
    let text = std::fs::read_to_string(&file)?;
    ensure!(text.contains("    - shr\n"), "no short name to add to");
    let text = text.replacen("    - shr\n", &format!("    - shr\n    - {NEW_NAME}\n"), 1);
    std::fs::write(&file, text)?;
    Ok(changed)
}

/// The short name that [`changed_chart`] adds.
pub const NEW_NAME: &str = "shrnew";
