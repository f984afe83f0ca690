//! `cargo xtask lab`

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use shoal_e2e::lab::{self, CephOptions, CephRelease, KubernetesRelease, Lab, LabOptions, Process};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Which lab, where there are several
    #[arg(long, global = true, default_value = "default")]
    name: String,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Start a lab and leave it running
    Up(Up),
    /// End it, and remove what it left
    Down,
    /// What runs, and where its logs are
    Status,
    /// Shell commands to use it: eval "$(cargo xtask lab env)"
    Env,
    /// Run a command with the lab's environment: cargo xtask lab exec -- kubectl get ns
    Exec {
        /// The command and its arguments
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

#[derive(Args)]
struct Up {
    /// Ceph release: 18, 20 or none
    #[arg(long, default_value = "18", value_parser = ceph)]
    ceph: Optional<CephRelease>,
    /// Kubernetes release: 1.34, 1.37 or none
    #[arg(long, default_value = "1.37", value_parser = kubernetes)]
    kubernetes: Optional<KubernetesRelease>,
    /// Leave the controller manager out: no namespace deletion, no garbage collection
    #[arg(long)]
    no_controller_manager: bool,
    /// A kubelet with containerd, too, and all in a network of their own
    #[arg(long)]
    node: bool,
    /// A second Ceph manager that stands by
    #[arg(long)]
    standby_mgr: bool,
    /// Ceph's mds tick interval in milliseconds; production has 5000
    #[arg(long, default_value_t = CephOptions::default().mds_tick_ms)]
    mds_tick_ms: u32,
}

/// clap gives `Option` a meaning of its own.
#[derive(Clone, Copy)]
struct Optional<T>(Option<T>);

fn ceph(text: &str) -> Result<Optional<CephRelease>> {
    Ok(Optional(if text == "none" { None } else { Some(text.parse()?) }))
}

fn kubernetes(text: &str) -> Result<Optional<KubernetesRelease>> {
    Ok(Optional(if text == "none" { None } else { Some(text.parse()?) }))
}

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode> {
    let folder = lab::default_folder(&arguments.name)?;
    match arguments.action {
        Action::Up(up) => {
            let options = LabOptions {
                ceph: up.ceph.0.map(|release| CephOptions {
                    release,
                    standby_mgr: up.standby_mgr,
                    mds_tick_ms: up.mds_tick_ms,
                }),
                kubernetes: up.kubernetes.0,
                controller_manager: !up.no_controller_manager,
                node: up.node,
                detached: true,
                folder: Some(folder),
                quiet: false,
            };
            Lab::start(&options)?;
            let name = &arguments.name;
            println!("To use it:  eval \"$(cargo xtask lab --name {name} env)\"");
            println!("To end it:  cargo xtask lab --name {name} down");
        }
        Action::Down => {
            let what = if lab::down(&folder)? {
                "ended"
            } else {
                "there was none"
            };
            println!("lab {}: {what}", arguments.name);
        }
        Action::Status => return status(&Lab::attach(&folder)?),
        Action::Env => {
            for (name, value) in environment(&Lab::attach(&folder)?)? {
                println!("export {name}='{value}'");
            }
        }
        Action::Exec { command } => {
            let lab = Lab::attach(&folder)?;
            let (program, rest) = command.split_first().context("no command")?;
            let status = Command::new(program)
                .args(rest)
                .envs(environment(&lab)?)
                .status()
                .with_context(|| format!("cannot run {program}"))?;
            let code = status.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(1);
            return Ok(ExitCode::from(code));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What a shell needs. Values hold no quotes: paths, addresses and names.
fn environment(lab: &Lab) -> Result<Vec<(&'static str, String)>> {
    let mut all = Vec::new();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(lab.programs()).chain(std::env::split_paths(&path));
    all.push(("PATH", utf8(std::env::join_paths(folders)?.into())?));
    all.push(("SHOAL_LAB", utf8(lab.folder().to_owned())?));
    if let Ok(control_plane) = lab.control_plane() {
        all.push(("KUBECONFIG", utf8(control_plane.kubeconfig())?));
    }
    if let Ok(ceph) = lab.ceph() {
        // Prefix of a command that runs beside Ceph.
        all.push(("SHOAL_CEPH", utf8(lab.programs().join("shoal-beside"))?));
        all.push(("SHOAL_CEPH_MON_HOST", ceph.mon_host().to_owned()));
        all.push(("SHOAL_CEPH_USER", ceph.user_id().to_owned()));
        all.push((
            "SHOAL_CEPH_KEY_FILE",
            utf8(ceph.folder().join("client.shoal.key"))?,
        ));
        all.push(("SHOAL_CEPH_FSID", ceph.fsid().to_owned()));
        all.push(("SHOAL_NFS_CLUSTER", ceph.nfs_cluster().to_owned()));
        let endpoints: Vec<_> = ceph.nfs_endpoints().iter().map(ToString::to_string).collect();
        all.push(("SHOAL_NFS_ENDPOINTS", endpoints.join(",")));
    }
    Ok(all)
}

fn utf8(path: PathBuf) -> Result<String> {
    match path.into_os_string().into_string() {
        Ok(text) if !text.contains('\'') => Ok(text),
        Ok(text) => bail!("a quote in {text}"),
        Err(other) => bail!("{} is not UTF-8", other.display()),
    }
}

fn status(lab: &Lab) -> Result<ExitCode> {
    let mut all_run = true;
    let mut line = |name: &str, process: Option<&Process>| {
        let state = process.map_or_else(|| "does not run".to_owned(), |p| format!("pid {}", p.pid));
        println!("{name:24} {state}");
        all_run &= process.is_some();
    };
    if let Ok(control_plane) = lab.control_plane() {
        for process in control_plane.processes() {
            line(&process.name, Some(process));
        }
    }
    if let Ok(node) = lab.node() {
        line("node", Some(node.process()).filter(|p| p.is_alive()));
    }
    if let Ok(ceph) = lab.ceph() {
        for name in ceph.daemons() {
            line(name, ceph.daemon(name)?.process().as_ref());
        }
    }
    println!("folder, with logs        {}", lab.folder().display());
    if let Ok(control_plane) = lab.control_plane() {
        println!("API server               {}", control_plane.server());
    }
    if let Ok(ceph) = lab.ceph() {
        println!("Ceph monitor             {}", ceph.mon_host());
        for endpoint in ceph.nfs_endpoints() {
            println!("NFS                      {endpoint}");
        }
    }
    println!("cache                    {}", lab::cache::root()?.display());
    Ok(if all_run {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
