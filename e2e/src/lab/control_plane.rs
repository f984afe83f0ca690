//! A real control plane: etcd, kube-apiserver and kube-controller-manager on loopback ports of their own, and for a node
//! kube-scheduler.

use std::fs::{self, Permissions};
use std::io::Write;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::network::{Network, free_ports};
use super::process::{Launcher, Process, Started, output, wait_until};
use super::programs::{Beside, KubernetesRelease, Programs};
use super::steps::Steps;

const WHO: &str = "control plane";

/// A running control plane.
#[derive(Debug)]
pub struct ControlPlane {
    facts: Facts,
    /// What this process started, and ends on drop.
    servers: Mutex<Vec<Server>>,
    launcher: Launcher,
    kubelet: Option<PathBuf>,
}

/// A server, and how it is started.
#[derive(Debug)]
struct Server {
    command: Command,
    started: Started,
    starts: u32,
}

/// What is written down about a control plane, so that another process can use it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Facts {
    folder: PathBuf,
    port: u16,
    kubectl: PathBuf,
    processes: Vec<Process>,
}

impl ControlPlane {
    /// Starts it in an empty folder, and returns when `/readyz` says ok and, with a controller manager, namespace
    /// `default` has its ServiceAccount.
    pub(super) fn start(
        folder: &Path,
        release: KubernetesRelease,
        beside: Beside,
        network: Option<&Network>,
        launcher: &Launcher,
        steps: &Steps,
    ) -> Result<Self> {
        let programs = Programs::get(release, beside, steps)?;
        let log = folder.join("log");
        fs::create_dir_all(&log)?;
        fs::set_permissions(folder, Permissions::from_mode(0o700))?;

        let [etcd_port, peer_port, port] = free_ports()?;
        let tokens = write_identities(folder)?;
        let port = network.map_or(port, Network::port);
        let inside = |command: Command| match network {
            Some(network) => network.enter(&command),
            None => command,
        };
        let mut servers = vec![
            Server::start(
                launcher,
                "etcd",
                inside(etcd(&programs.etcd, folder, etcd_port, peer_port)),
                &log,
            )?,
            Server::start(
                launcher,
                "kube-apiserver",
                inside(api_server(&programs.api_server, folder, port, etcd_port)),
                &log,
            )?,
        ];
        let certificate = folder.join("certs/apiserver.crt");
        let kubeconfig = folder.join("kubeconfig");
        let ready = |servers: &mut Vec<Server>| -> Result<bool> {
            for server in servers {
                server.check(&log)?;
            }
            // Where there is a network of its own, somebody listens before it does.
            if !certificate.exists() || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
                return Ok(false);
            }
            if !kubeconfig.exists() {
                write_kubeconfig(&kubeconfig, port, &certificate, "admin", &tokens.admin)?;
            }
            let mut kubectl = Command::new(&programs.kubectl);
            kubectl
                .arg("--kubeconfig")
                .arg(&kubeconfig)
                .args(["get", "--raw", "/readyz"]);
            Ok(kubectl.output()?.status.success())
        };
        wait_until("the API server's /readyz", Duration::from_mins(1), || {
            ready(&mut servers)
        })?;
        steps.say(
            WHO,
            &format!("kube-apiserver {release} is ready on 127.0.0.1:{port}"),
        );

        if let Some(program) = &programs.controller_manager {
            let own = folder.join("controller-manager.kubeconfig");
            write_kubeconfig(
                &own,
                port,
                &certificate,
                "controller-manager",
                &tokens.controller_manager,
            )?;
            // Only now: it ends at once when there is no API server yet.
            let mut manager = Server::start(
                launcher,
                "kube-controller-manager",
                inside(controller_manager(program, folder, &own)),
                &log,
            )?;
            let mut account = Command::new(&programs.kubectl);
            account.arg("--kubeconfig").arg(&kubeconfig);
            account.args(["get", "serviceaccount", "default", "--namespace", "default"]);
            wait_until(
                "the controller manager's first ServiceAccount",
                Duration::from_mins(1),
                || {
                    manager.check(&log)?;
                    Ok(account.output()?.status.success())
                },
            )?;
            servers.push(manager);
            steps.say(WHO, "kube-controller-manager works");
        }
        if let Some(program) = &programs.scheduler {
            let own = folder.join("scheduler.kubeconfig");
            write_kubeconfig(&own, port, &certificate, "scheduler", &tokens.scheduler)?;
            let command = inside(scheduler(program, &own));
            servers.push(Server::start(launcher, "kube-scheduler", command, &log)?);
        }
        if beside.node {
            let own = folder.join("node.kubeconfig");
            write_kubeconfig(&own, port, &certificate, "node", &tokens.node)?;
        }
        let servers_run = servers.iter().map(|s| &s.started.process);
        let processes = network
            .map(Network::process)
            .into_iter()
            .chain(servers_run)
            .cloned()
            .collect();
        let facts = Facts {
            folder: folder.to_owned(),
            port,
            kubectl: programs.kubectl,
            processes,
        };
        Ok(Self {
            facts,
            servers: Mutex::new(servers),
            launcher: launcher.clone(),
            kubelet: programs.kubelet,
        })
    }

    pub(super) fn attach(facts: Facts) -> Result<Self> {
        if let Some(dead) = facts.processes.iter().find(|p| !p.is_alive()) {
            bail!("the lab's {} (pid {}) no longer runs", dead.name, dead.pid);
        }
        Ok(Self {
            facts,
            servers: Mutex::default(),
            launcher: Launcher::attached(),
            kubelet: None,
        })
    }

    pub(super) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The program of a node, and the node's own kubeconfig.
    pub(super) fn for_node(&self) -> Result<(&Path, PathBuf)> {
        let kubelet = self
            .kubelet
            .as_deref()
            .context("the control plane was started without a node")?;
        Ok((kubelet, self.facts.folder.join("node.kubeconfig")))
    }

    /// `https://127.0.0.1:<port>`
    pub fn server(&self) -> String {
        format!("https://127.0.0.1:{}", self.facts.port)
    }

    /// A kubeconfig for user `admin` of group `system:masters`; mode 0600.
    pub fn kubeconfig(&self) -> PathBuf {
        self.facts.folder.join("kubeconfig")
    }

    /// The API server's certificate authority, PEM.
    pub fn certificate_authority(&self) -> PathBuf {
        self.facts.folder.join("certs/apiserver.crt")
    }

    /// One JSON object per answered request (audit.k8s.io/v1 Event, level Metadata), never rotated.
    pub fn audit_log(&self) -> PathBuf {
        self.facts.folder.join("log/audit.log")
    }

    /// The kubectl program.
    pub fn kubectl_program(&self) -> &Path {
        &self.facts.kubectl
    }

    /// kubectl as the admin.
    pub fn kubectl(&self) -> Command {
        let mut command = Command::new(&self.facts.kubectl);
        command.arg("--kubeconfig").arg(self.kubeconfig());
        command
    }

    /// Writes a kubeconfig (mode 0600) for somebody else, e.g. with a ServiceAccount's token from
    /// `kubectl create token`.
    pub fn write_kubeconfig(&self, path: &Path, user: &str, token: &str) -> Result<()> {
        self.write_kubeconfig_by(path, self.facts.port, user, token)
    }

    /// The same for one who reaches the API server by another port of 127.0.0.1.
    pub fn write_kubeconfig_by(&self, path: &Path, port: u16, user: &str, token: &str) -> Result<()> {
        write_kubeconfig(path, port, &self.certificate_authority(), user, token)
    }

    /// etcd, kube-apiserver, kube-controller-manager, kube-scheduler and what holds their network, those that there are, as they
    /// were started first.
    pub fn processes(&self) -> &[Process] {
        &self.facts.processes
    }

    /// The port of the API server on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.facts.port
    }

    /// One of them by its name, as it is now. An error where another process started the control plane.
    pub fn process(&self, name: &str) -> Result<Process> {
        self.with(name, |server| Ok(server.started.process.clone()))
    }

    /// Starts one again after its end, on what it left on disk; returns when the process runs, not when it serves.
    pub fn restart(&self, name: &str) -> Result<()> {
        self.with(name, |server| {
            if server.started.process.is_alive() {
                bail!("{name} already runs");
            }
            server.starts += 1;
            let log = self
                .facts
                .folder
                .join(format!("log/{name}.{}.log", server.starts));
            server.started = self.launcher.start(name, &server.command, &log, Stdio::null())?;
            Ok(())
        })
    }

    fn with<T>(&self, name: &str, act: impl FnOnce(&mut Server) -> Result<T>) -> Result<T> {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let server = servers.iter_mut().find(|s| s.started.process.name == name);
        act(server.with_context(|| format!("no {name} of this process's own"))?)
    }
}

impl Server {
    fn start(launcher: &Launcher, name: &str, command: Command, logs: &Path) -> Result<Self> {
        let started = launcher.start(name, &command, &log_of(logs, name), Stdio::null())?;
        Ok(Self {
            command,
            started,
            starts: 1,
        })
    }

    fn check(&mut self, logs: &Path) -> Result<()> {
        let log = log_of(logs, &self.started.process.name);
        self.started.check(&log)
    }
}

fn log_of(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.log"))
}

struct Tokens {
    admin: String,
    controller_manager: String,
    scheduler: String,
    node: String,
}

/// Keys, tokens and the audit policy.
fn write_identities(folder: &Path) -> Result<Tokens> {
    let key = folder.join("service-account.key");
    output(
        Command::new("openssl")
            .args(["genrsa", "-out"])
            .arg(&key)
            .arg("2048"),
    )?;
    let admin = token()?;
    let controller_manager = token()?;
    let (scheduler, node) = (token()?, token()?);
    private(
        &folder.join("tokens.csv"),
        &format!(
            "{admin},admin,admin,\"system:masters\"\n\
             {controller_manager},system:kube-controller-manager,system:kube-controller-manager,\n\
             {scheduler},system:kube-scheduler,system:kube-scheduler,\n\
             {node},system:node:node,system:node:node,\"system:nodes\"\n"
        ),
    )?;
    private(
        &folder.join("audit-policy.yaml"),
        include_str!("../../lab/kubernetes/audit-policy.yaml"),
    )?;
    Ok(Tokens {
        admin,
        controller_manager,
        scheduler,
        node,
    })
}

fn etcd(program: &Path, folder: &Path, port: u16, peer_port: u16) -> Command {
    let client = format!("http://127.0.0.1:{port}");
    let peer = format!("http://127.0.0.1:{peer_port}");
    let mut command = Command::new(program);
    command.arg("--data-dir").arg(folder.join("etcd")).args([
        "--listen-client-urls",
        &client,
        "--advertise-client-urls",
        &client,
        "--listen-peer-urls",
        &peer,
        "--initial-advertise-peer-urls",
        &peer,
        "--initial-cluster",
        &format!("default={peer}"),
        "--unsafe-no-fsync",
        "--log-level",
        "warn",
    ]);
    command
}

fn api_server(program: &Path, folder: &Path, port: u16, etcd_port: u16) -> Command {
    let mut command = Command::new(program);
    let file = |flag: &str, name: &str| format!("--{flag}={}", folder.join(name).display());
    command.args([
        "--bind-address=127.0.0.1".into(),
        "--advertise-address=127.0.0.1".into(),
        format!("--secure-port={port}"),
        file("cert-dir", "certs"),
        format!("--etcd-servers=http://127.0.0.1:{etcd_port}"),
        file("token-auth-file", "tokens.csv"),
        "--service-account-issuer=https://kubernetes.default.svc".into(),
        file("service-account-key-file", "service-account.key"),
        file("service-account-signing-key-file", "service-account.key"),
        "--authorization-mode=Node,RBAC".into(),
        "--service-cluster-ip-range=10.96.0.0/16".into(),
        "--endpoint-reconciler-type=none".into(),
        // For nodes.
        "--enable-admission-plugins=NodeRestriction".into(),
        "--allow-privileged=true".into(),
        "--kubelet-preferred-address-types=InternalIP".into(),
        file("audit-policy-file", "audit-policy.yaml"),
        file("audit-log-path", "log/audit.log"),
        // Megabytes; a rotated log would lose what is counted.
        "--audit-log-maxsize=100000".into(),
    ]);
    command
}

fn controller_manager(program: &Path, folder: &Path, kubeconfig: &Path) -> Command {
    let mut command = Command::new(program);
    let file = |flag: &str, path: &Path| format!("--{flag}={}", path.display());
    command.args([
        file("kubeconfig", kubeconfig),
        file(
            "service-account-private-key-file",
            &folder.join("service-account.key"),
        ),
        file("root-ca-file", &folder.join("certs/apiserver.crt")),
        "--use-service-account-credentials=true".into(),
        "--leader-elect=false".into(),
        "--secure-port=0".into(),
        // At the defaults its many informers throttle one another, and the first ServiceAccount takes 6 s.
        "--kube-api-qps=200".into(),
        "--kube-api-burst=400".into(),
    ]);
    command
}

fn scheduler(program: &Path, kubeconfig: &Path) -> Command {
    let mut command = Command::new(program);
    command.args([
        format!("--kubeconfig={}", kubeconfig.display()),
        "--leader-elect=false".into(),
        "--secure-port=0".into(),
    ]);
    command
}

fn write_kubeconfig(path: &Path, port: u16, authority: &Path, user: &str, token: &str) -> Result<()> {
    // The certificate itself and not its path: the file is also used beside Ceph, where paths differ.
    let authority = output(
        Command::new("openssl")
            .args(["base64", "-A", "-in"])
            .arg(authority),
    )?;
    let config = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "lab",
            "cluster": {
                "server": format!("https://127.0.0.1:{port}"),
                "certificate-authority-data": authority.trim(),
            },
        }],
        "users": [{ "name": user, "user": { "token": token } }],
        "contexts": [{ "name": "lab", "context": { "cluster": "lab", "user": user } }],
        "current-context": "lab",
    });
    private(path, &serde_json::to_string_pretty(&config)?)
}

/// Writes a file that only its owner can read.
pub(super) fn private(path: &Path, text: &str) -> Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(text.as_bytes())?;
    Ok(())
}

/// 128 random bits in hexadecimal.
fn token() -> Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/uuid")?
        .trim()
        .replace('-', ""))
}
