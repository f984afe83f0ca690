//! The documentation from its first page, by somebody who copies each command: without Helm, since no node runs Pods here, and with a
//! backend that only pretends in the place of theirs.

#![cfg(test)]

use std::{fs, os::unix::fs::symlink, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use shoal_e2e::{
    helm::output,
    lab::{Lab, LabOptions},
    suite::Suite,
    world::{OperatorOptions, World},
};

static SUITE: Suite<World> = Suite::new();

async fn bare() -> Result<World> {
    let options = LabOptions {
        ceph: None,
        ..LabOptions::default()
    };
    let lab = tokio::task::spawn_blocking(move || Lab::start(&options)).await??;
    World::bare(lab).await
}

/// The block of a page that has these words.
fn block(page: &str, words: &str) -> Result<String> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(page))?;
    let mut blocks = text.split("\n```").skip(1).step_by(2);
    let block = blocks.find(|block| block.contains(words));
    let block = block.with_context(|| format!("{page} has no block with {words}"))?;
    let (_, commands) = block.split_once('\n').context("an empty block")?;
    Ok(commands.to_owned())
}

/// Their work tree.
struct Desk<'a>(&'a World);

impl Desk<'_> {
    /// With what they were told to put there, and kubectl on the path.
    fn set(&self) -> Result<()> {
        let desk = self.0.lab.folder().join("desk");
        fs::create_dir_all(desk.join("bin"))?;
        let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let parts = ["crds", "examples", "operator"].map(|part| tree.join(part));
        output(Command::new("cp").arg("-r").args(parts).arg(&desk))?;
        symlink(
            self.0.lab.control_plane()?.kubectl_program(),
            desk.join("bin/kubectl"),
        )?;
        fs::write(desk.join("shoal.key"), "no key at all")?;
        let backend = desk.join("examples/quickstart/backend.yaml");
        let theirs = fs::read_to_string(&backend)?;
        let (before, rest) = theirs.split_once("  ceph:\n").context("no ceph")?;
        let (_, after) = rest.split_once("---\n").context("no type")?;
        Ok(fs::write(
            backend,
            format!("{before}  simulated: {{}}\n---\n{after}"),
        )?)
    }

    /// Runs what stands in a block of a page.
    async fn copy(&self, page: &str, words: &str) -> Result<()> {
        self.run(&block(page, words)?)
            .await
            .with_context(|| page.to_owned())
    }

    async fn run(&self, commands: &str) -> Result<()> {
        let desk = self.0.lab.folder().join("desk");
        let path = std::env::var("PATH").unwrap_or_default();
        let mut shell = Command::new("bash");
        shell
            .args(["-euxc", commands])
            .current_dir(&desk)
            .env("PATH", format!("{}:{path}", desk.join("bin").display()))
            .env("KUBECONFIG", self.0.lab.control_plane()?.kubeconfig());
        let ran = tokio::task::spawn_blocking(move || shell.output()).await??;
        ensure!(
            ran.status.success(),
            "{}{}",
            String::from_utf8_lossy(&ran.stdout),
            String::from_utf8_lossy(&ran.stderr)
        );
        Ok(())
    }
}

#[test]
fn each_command_works_as_it_stands() {
    SUITE.run(bare, |world| async move {
        let desk = Desk(world);
        desk.set()?;
        desk.copy("README.md", "verb-policies.yaml").await?;
        world.until_objects_are_taken().await?;
        let operator = world.operator(&OperatorOptions::quick("operator")).await?;
        operator.wait_until_leading().await?;
        let installing = "docs/operations/installing.md";
        desk.copy(installing, "create clusterrolebinding").await?;
        desk.copy(installing, "create secret generic").await?;
        desk.run("kubectl apply -f examples/quickstart/shares.yaml && kubectl wait share documents datasets --for=condition=Ready --timeout=60s")
            .await?;
        desk.copy("docs/operations/ensuring.md", "requested-at").await?;
        desk.copy("docs/operations/backends.md", "disabledReason").await?;
        desk.run("kubectl delete -f examples/quickstart/shares.yaml").await?;
        operator.terminate()
    });
}
