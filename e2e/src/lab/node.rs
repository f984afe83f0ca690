//! A real node, the kubelet and containerd, in namespaces and cgroups of its own.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::control_plane::ControlPlane;
use super::host::is_root;
use super::image;
use super::network::Network;
use super::process::{self, Launcher, Process, Started, output, wait_until};
use super::steps::Steps;

const WHO: &str = "node";
const CGROUPS: &str = "/sys/fs/cgroup";
/// What its cgroups are called, before the number and start time of the process that they belong to.
const GROUP: &str = "shoal-lab-";

/// A running node, whose name is `node`.
#[derive(Debug)]
pub struct Node {
    facts: Facts,
    /// Held only to end everything on drop.
    started: Option<Started>,
}

/// What is written down about a node, so that another process can use it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Facts {
    folder: PathBuf,
    /// Process 1 of the namespaces, by the host's count.
    init: Process,
}

impl Node {
    /// Starts it in `folder`; returns when it is Ready.
    pub(super) fn start(
        folder: &Path,
        control_plane: &ControlPlane,
        network: &Network,
        launcher: &Launcher,
        steps: &Steps,
    ) -> Result<Self> {
        let (kubelet, kubeconfig) = control_plane.for_node()?;
        let pause = image::pause(steps)?;
        write_assets(folder, &pause.name)?;
        symlink(kubelet, folder.join("bin/kubelet"))?;
        symlink(kubeconfig, folder.join("kubelet.kubeconfig"))?;

        let mut command = Command::new("/bin/sh");
        command.arg(folder.join("start")).arg(folder);
        let log = folder.join("log/init.log");
        let mut started = launcher.start(WHO, &network.enter(&command), &log, Stdio::null())?;
        let mut init = None;
        wait_until("the node's namespaces", Duration::from_secs(20), || {
            started.check(&log)?;
            init = started.process.first_child();
            Ok(init.is_some() && folder.join("log/kubelet.log").exists())
        })?;
        let init = init.context("the node has no process 1")?;
        launcher.note(&init)?;
        let node = Self {
            facts: Facts {
                folder: folder.to_owned(),
                init,
            },
            started: Some(started),
        };
        node.import(&pause.archive)?;
        let mut ready = control_plane.kubectl();
        ready.args(["wait", "--for=condition=Ready", "--timeout=2s", "node/node"]);
        wait_until("the node to be Ready", Duration::from_mins(1), || {
            if !node.facts.init.is_alive() {
                bail!(
                    "the node ended; its kubelet's log ends:\n{}",
                    process::tail(&node.log("kubelet"))
                );
            }
            Ok(ready.output()?.status.success())
        })
        .with_context(|| format!("the kubelet's log ends:\n{}", process::tail(&node.log("kubelet"))))?;
        steps.say(WHO, "is Ready");
        Ok(node)
    }

    pub(super) fn attach(facts: Facts) -> Result<Self> {
        if !facts.init.is_alive() {
            bail!("the lab's node (pid {}) no longer runs", facts.init.pid);
        }
        Ok(Self { facts, started: None })
    }

    pub(super) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Process 1 of its namespaces.
    pub fn process(&self) -> &Process {
        &self.facts.init
    }

    /// A program of the host, run on the node.
    pub fn command(&self, program: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--target={}", self.facts.init.pid))
            .args(["--mount", "--pid", "--net", "--"])
            .args(program);
        command
    }

    /// Gives it an image, as `docker save` writes one.
    pub fn import(&self, archive: &Path) -> Result<()> {
        let mut import = self.command(&["ctr", "--namespace=k8s.io", "images", "import"]);
        output(import.arg(archive))
            .map(drop)
            .with_context(|| format!("{} can't be imported", archive.display()))
    }

    fn log(&self, name: &str) -> PathBuf {
        self.facts.folder.join(format!("log/{name}.log"))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(started) = self.started.take()
            && !started.is_detached()
        {
            drop(started);
            // Process 1 is the last to go.
            let gone = || Ok(!self.facts.init.is_alive());
            let _ = wait_until("the node to end", Duration::from_secs(20), gone);
            remove_cgroups();
        }
    }
}

fn write_assets(folder: &Path, pause: &str) -> Result<()> {
    for sub in ["bin", "cni", "containerd", "kubelet", "log"] {
        fs::create_dir_all(folder.join(sub))?;
    }
    for (name, text) in [
        ("start", include_str!("../../lab/node/start")),
        ("init", include_str!("../../lab/node/init")),
        ("containerd.toml", include_str!("../../lab/node/containerd.toml")),
        ("kubelet.yaml", include_str!("../../lab/node/kubelet.yaml")),
        ("cni/lab.conflist", include_str!("../../lab/node/cni.conflist")),
        // There are no names here.
        ("resolv.conf", ""),
    ] {
        let text = text
            .replace("@FOLDER@", &folder.display().to_string())
            .replace("@PAUSE@", pause);
        fs::write(folder.join(name), text)?;
    }
    Ok(())
}

/// An error where no node can run.
pub(super) fn check() -> Result<()> {
    if !is_root() {
        bail!("a node runs in namespaces of its own and needs root");
    }
    if Path::new(CGROUPS).join("cgroup.controllers").exists() {
        bail!("a node runs on cgroup hierarchies of version 1, and this host has that of version 2");
    }
    Ok(())
}

/// Removes the cgroups that nodes which are gone have left: groups outlive their processes.
pub(super) fn remove_cgroups() {
    for hierarchy in folders(Path::new(CGROUPS)) {
        for group in folders(&hierarchy) {
            let name = group
                .file_name()
                .and_then(|name| name.to_str()?.strip_prefix(GROUP));
            let owner = name.and_then(Process::in_name);
            if owner.is_some_and(|owner| !owner.is_alive()) {
                remove_cgroup(&group);
            }
        }
    }
}

/// Groups below go first. One that still has a process stays for the next time.
fn remove_cgroup(group: &Path) {
    folders(group).for_each(|below| remove_cgroup(&below));
    let _ = fs::remove_dir(group);
}

fn folders(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_type().ok()?.is_dir().then(|| entry.path()))
}
