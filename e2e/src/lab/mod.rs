//! The lab: a real Kubernetes control plane and a real Ceph on loopback, fresh each time.
//!
//! Everything it needs is built or downloaded once into the [`cache`] folder. Its processes die with the process that
//! started them, or, detached, stay until they are ended by [`down`]. The control plane needs no privileges; Ceph and a node
//! need root, for their namespaces.

pub mod cache;
pub mod client;
pub mod image;
pub mod process;

mod address;
mod admin;
mod ceph;
mod cephfs;
mod control_plane;
mod host;
mod network;
mod nfs;
mod node;
mod preload;
mod programs;
mod proxy;
mod rootfs;
mod steps;
mod temporary;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

pub use admin::Admin;
pub use ceph::{Ceph, CephOptions, Daemon};
pub use cephfs::{CephFsMount, FileUser};
pub use control_plane::ControlPlane;
pub use host::{find as find_on_host, is_root};
pub use nfs::NfsClient;
pub use node::Node;
pub use process::Process;
pub use programs::{KubernetesRelease, PrometheusPrograms, helm, prometheus};
pub use proxy::Proxy;
pub use rootfs::CephRelease;
pub use steps::Steps;

use host::Needed;
use network::Network;
use process::Launcher;
use programs::Beside;
use temporary::Temporary;

/// What to start.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools)] // Each goes with each other.
pub struct LabOptions {
    /// Which Ceph, if any.
    pub ceph: Option<CephOptions>,
    /// Which control plane, if any.
    pub kubernetes: Option<KubernetesRelease>,
    /// Whether a kube-controller-manager runs: namespace deletion and garbage collection need one.
    pub controller_manager: bool,
    /// Whether there is a node, and a scheduler. Then all servers are in a network of their own, which the host reaches by the
    /// API server's port alone.
    pub node: bool,
    /// Whether the lab outlives this process.
    pub detached: bool,
    /// The lab's folder; `None` for a temporary one, gone with the lab.
    pub folder: Option<PathBuf>,
    /// No line per step.
    pub quiet: bool,
}

impl Default for LabOptions {
    fn default() -> Self {
        Self {
            ceph: Some(CephOptions::default()),
            kubernetes: Some(KubernetesRelease::default()),
            controller_manager: true,
            node: false,
            detached: false,
            folder: None,
            quiet: false,
        }
    }
}

/// A running lab. Dropping it ends it, unless it is detached.
#[derive(Debug)]
pub struct Lab {
    node: Option<Node>,
    control_plane: Option<ControlPlane>,
    ceph: Option<Ceph>,
    _network: Option<Network>,
    folder: PathBuf,
    /// Last, so that the folder goes after the processes that write to it.
    temporary: Option<Temporary>,
}

/// What is written down about a lab, in `lab.json` in its folder.
#[derive(Serialize, Deserialize)]
struct Facts {
    node: Option<node::Facts>,
    control_plane: Option<control_plane::Facts>,
    ceph: Option<ceph::Facts>,
}

impl Facts {
    fn read(folder: &Path) -> Result<Option<Self>> {
        match fs::read(facts_file(folder)) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("cannot read {}", facts_file(folder).display())),
        }
    }
}

fn facts_file(folder: &Path) -> PathBuf {
    folder.join("lab.json")
}

fn process_list(folder: &Path) -> PathBuf {
    folder.join("processes")
}

/// Where the lab of this name is, if it is not said otherwise.
pub fn default_folder(name: &str) -> Result<PathBuf> {
    Ok(cache::root()?.join("labs").join(name))
}

impl Lab {
    /// Starts a lab, control plane and Ceph side by side.
    ///
    /// An error when one already runs in the folder; what a lab that ended left there is removed.
    pub fn start(options: &LabOptions) -> Result<Self> {
        let steps = Steps::new(options.quiet);
        if options.ceph.is_some() && !is_root() {
            bail!(
                "Ceph runs in namespaces of its own and needs root; without it there is the control plane only"
            );
        }
        if let Some(release) = options.kubernetes {
            programs::check(release, options.beside())?;
        } else if options.node {
            bail!("a node needs a control plane");
        }
        if options.node {
            node::check()?;
        }
        // Of labs that were killed, or whose program just ended.
        node::remove_cgroups();
        host::require(&needs(options)?, &steps)?;
        let (folder, temporary) = if let Some(folder) = &options.folder {
            if process::listed(&process_list(folder))?
                .iter()
                .any(Process::is_alive)
            {
                bail!("a lab already runs in {}", folder.display());
            }
            clear(folder)?;
            (folder.canonicalize()?, None)
        } else {
            let temporary = Temporary::new(&cache::root()?.join("labs"))?;
            (temporary.path().to_owned(), Some(temporary))
        };
        fs::set_permissions(&folder, Permissions::from_mode(0o700))?;

        let launcher = if options.detached {
            Launcher::detached(process_list(&folder))
        } else {
            Launcher::attached()
        };
        let own_network = if options.node {
            Some(Network::start(&folder.join("network"), &launcher)?)
        } else {
            None
        };
        let network = own_network.as_ref();
        let (control_plane, ceph) = thread::scope(|scope| {
            let ceph = options.ceph.map(|ceph| {
                let (folder, launcher) = (folder.join("ceph"), &launcher);
                scope.spawn(move || Ceph::start(&folder, ceph, network, launcher, &steps))
            });
            let control_plane = options.kubernetes.map(|release| {
                let folder = folder.join("kubernetes");
                let plane =
                    ControlPlane::start(&folder, release, options.beside(), network, &launcher, &steps)?;
                let node = network.map(|network| {
                    let folder = folder.with_file_name("node");
                    Node::start(&folder, &plane, network, &launcher, &steps)
                });
                Ok::<_, anyhow::Error>((node.transpose()?, plane))
            });
            (
                control_plane.transpose(),
                ceph.map(thread::ScopedJoinHandle::join),
            )
        });
        let ceph = ceph
            .map(|c| c.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .transpose();
        let (control_plane, ceph) = match (control_plane, ceph) {
            (Ok(control_plane), Ok(ceph)) => (control_plane, ceph),
            // Half a lab is of no use. Its folder stays, for the logs.
            (Err(error), _) | (_, Err(error)) => {
                end_listed(&folder)?;
                let kept = temporary.map_or(folder, Temporary::keep);
                return Err(error.context(format!("the lab's logs are in {}", kept.display())));
            }
        };
        let (node, control_plane) = control_plane.unzip();
        let lab = Self {
            node: node.flatten(),
            control_plane,
            ceph,
            _network: own_network,
            folder,
            temporary,
        };
        lab.write_facts()?;
        lab.write_programs()?;
        steps.say("lab", &format!("up in {}", lab.folder.display()));
        Ok(lab)
    }

    /// A detached lab that another process started.
    pub fn attach(folder: &Path) -> Result<Self> {
        let facts = Facts::read(folder)?.with_context(|| format!("no lab in {}", folder.display()))?;
        Ok(Self {
            node: facts.node.map(Node::attach).transpose()?,
            control_plane: facts.control_plane.map(ControlPlane::attach).transpose()?,
            ceph: facts.ceph.map(Ceph::attach).transpose()?,
            _network: None,
            folder: folder.canonicalize()?,
            temporary: None,
        })
    }

    /// The control plane; an error when there is none.
    pub fn control_plane(&self) -> Result<&ControlPlane> {
        self.control_plane
            .as_ref()
            .context("the lab has no control plane")
    }

    /// The node; an error when there is none.
    pub fn node(&self) -> Result<&Node> {
        self.node.as_ref().context("the lab has no node")
    }

    /// The Ceph cluster; an error when there is none.
    pub fn ceph(&self) -> Result<&Ceph> {
        self.ceph.as_ref().context("the lab has no Ceph")
    }

    /// Ceph, to make another one of it; an error when the lab has none.
    pub fn ceph_mut(&mut self) -> Result<&mut Ceph> {
        self.ceph.as_mut().context("the lab has no Ceph")
    }

    /// The lab's folder, mode 0700.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A folder with `kubectl`, and with `ceph`, `rados` and `shoal-beside` that run beside Ceph.
    pub fn programs(&self) -> PathBuf {
        self.folder.join("bin")
    }

    /// Starts more processes that end when the lab does.
    pub fn launcher(&self) -> Launcher {
        let list = process_list(&self.folder);
        if list.exists() {
            Launcher::detached(list)
        } else {
            Launcher::attached()
        }
    }

    /// Keeps the logs when the lab ends, since something failed in it; returns where they then are.
    pub fn keep_logs(&mut self) -> PathBuf {
        match &mut self.temporary {
            Some(temporary) => temporary.keep_on_drop(),
            None => self.folder.clone(),
        }
    }

    fn write_facts(&self) -> Result<()> {
        let facts = Facts {
            node: self.node.as_ref().map(|n| n.facts().clone()),
            control_plane: self.control_plane.as_ref().map(|c| c.facts().clone()),
            ceph: self.ceph.as_ref().map(|c| c.facts().clone()),
        };
        control_plane::private(&facts_file(&self.folder), &serde_json::to_string_pretty(&facts)?)
    }

    fn write_programs(&self) -> Result<()> {
        let bin = self.programs();
        fs::create_dir_all(&bin)?;
        if let Some(control_plane) = &self.control_plane {
            symlink(control_plane.kubectl_program(), bin.join("kubectl"))?;
        }
        if let Some(ceph) = &self.ceph {
            for (name, program) in [("ceph", "ceph"), ("rados", "rados"), ("shoal-beside", "")] {
                let enter = ceph.beside(&[]);
                let words: Vec<_> = enter.get_args().map(|a| a.display().to_string()).collect();
                let path = bin.join(name);
                fs::write(
                    &path,
                    format!("#!/bin/sh\nexec nsenter {} {program} \"$@\"\n", words.join(" ")),
                )?;
                fs::set_permissions(&path, Permissions::from_mode(0o755))?;
            }
        }
        Ok(())
    }
}

impl LabOptions {
    fn beside(&self) -> Beside {
        Beside {
            controller_manager: self.controller_manager,
            node: self.node,
        }
    }
}

fn needs(options: &LabOptions) -> Result<Vec<Needed>> {
    let mut needs = host::ALWAYS.to_vec();
    if options.node {
        needs.extend(host::FOR_NODE);
    }
    if let Some(ceph) = options.ceph {
        needs.extend(host::FOR_CEPH);
        if !rootfs::is_ready(ceph.release)? {
            needs.extend(host::FOR_ROOTFS);
        }
    }
    Ok(needs)
}

/// Makes `folder` an empty one. Only ever removes what a lab left there.
fn clear(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        if ![
            "lab.json",
            "processes",
            "bin",
            "ceph",
            "kubernetes",
            "network",
            "node",
        ]
        .iter()
        .any(|own| name == **own)
        {
            bail!(
                "{} holds {}, which no lab left there",
                folder.display(),
                name.display()
            );
        }
    }
    fs::remove_dir_all(folder)?;
    Ok(fs::create_dir_all(folder)?)
}

/// Ends a detached lab and removes its folder; `false` when there was none.
pub fn down(folder: &Path) -> Result<bool> {
    if !folder.exists() {
        return Ok(false);
    }
    end_listed(folder)?;
    clear(folder)?;
    fs::remove_dir(folder)?;
    Ok(true)
}

fn end_listed(folder: &Path) -> Result<()> {
    process::listed(&process_list(folder))?
        .iter()
        .try_for_each(Process::kill)?;
    node::remove_cgroups();
    Ok(())
}
