//! A real Ceph cluster with two file systems and a clustered NFS service, in namespaces of its own.

use std::fmt;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use shoal_ceph::capabilities;

use super::address::Block;
use super::control_plane::private;
use super::network::Network;
use super::preload::MGR_PYTHON;
use super::process::{self, Launcher, Process, Started, output, spawn, wait_until};
use super::rootfs::{self, CephRelease};
use super::steps::Steps;

const WHO: &str = "ceph";
const FILE_SYSTEMS: [&str; 2] = ["cephfs", "second"];
const NFS_CLUSTER: &str = "shoal-nfs";
const USER: &str = "shoal";
/// Which address of the lab's block a monitor moves to.
const MOVED_MONITOR: u8 = 2;

/// Which Ceph to start, and how it differs from the usual.
#[derive(Clone, Copy, Debug)]
pub struct CephOptions {
    /// Which release.
    pub release: CephRelease,
    /// Whether a second manager, `mgr.y`, stands by.
    pub standby_mgr: bool,
    /// Ceph's `mds tick interval`, in milliseconds. Production has 5000: there a clone takes 10 s.
    pub mds_tick_ms: u32,
}

impl Default for CephOptions {
    fn default() -> Self {
        Self {
            release: CephRelease::default(),
            standby_mgr: false,
            mds_tick_ms: 500,
        }
    }
}

/// A running Ceph cluster.
#[derive(Debug)]
pub struct Ceph {
    facts: Facts,
    key: Key,
    /// Held only to end everything on drop.
    namespace: Option<Started>,
}

/// A cephx key; never shown.
#[derive(Clone)]
struct Key(String);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// What is written down about a cluster, so that another process can use it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Facts {
    folder: PathBuf,
    fsid: String,
    mon_host: String,
    nfs_endpoints: Vec<SocketAddr>,
    /// Process 1 of the namespaces, by the host's count.
    init: Process,
    daemons: Vec<String>,
}

impl Ceph {
    /// Starts a fresh cluster, with its state in memory and its logs in `folder`; returns at HEALTH_OK with both
    /// Ganeshas listening.
    pub(super) fn start(
        folder: &Path,
        options: CephOptions,
        network: Option<&Network>,
        launcher: &Launcher,
        steps: &Steps,
    ) -> Result<Self> {
        let rootfs = rootfs::get(options.release, steps)?;
        for sub in ["log", "run", "root", "python"] {
            fs::create_dir_all(folder.join(sub))?;
        }
        fs::set_permissions(folder, Permissions::from_mode(0o700))?;
        let block = Block::take(network.is_some())?;
        let address = block.address(1);
        let mon_host = format!("[v2:{address}:3300,v1:{address}:6789]");
        let fsid = uuid()?;
        let port = TcpListener::bind((Ipv6Addr::LOCALHOST, 0))
            .context("no free port on ::1")?
            .local_addr()?
            .port();
        let nfs_endpoints = vec![
            SocketAddr::new(block.address(11).into(), port),
            SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port),
        ];
        write_assets(folder, options, &fsid, address, &mon_host, &nfs_endpoints)?;

        let mut unshare = Command::new("unshare");
        unshare.args([
            "--mount",
            "--pid",
            "--fork",
            "--propagation",
            "slave",
            "--kill-child",
            "--",
        ]);
        unshare
            .arg("/bin/sh")
            .arg(folder.join("init"))
            .arg(&rootfs)
            .arg(folder);
        if let Some(network) = network {
            unshare = network.enter(&unshare);
        }
        let log = folder.join("log/init.out");
        // The block's lock goes to process 1 as its standard input: it is held exactly as long as that lives.
        let mut namespace = launcher.start("ceph", &unshare, &log, Stdio::from(block.lock))?;
        let pid_file = folder.join("run/init.pid");
        wait_until("the namespaces", Duration::from_secs(20), || {
            namespace.check(&log)?;
            Ok(pid_file.exists())
        })?;
        let init = Process::find("ceph's process 1", read_pid(&pid_file)?).context("process 1 is gone")?;
        launcher.note(&init)?;
        let ganeshas = (0..nfs_endpoints.len()).map(|n| format!("ganesha.{n}"));
        let daemons = ["mon.a", "mgr.x", "osd.0", "mds.a", "mds.b", "mds.c"]
            .map(Into::into)
            .into_iter()
            .chain(options.standby_mgr.then(|| "mgr.y".into()))
            .chain(ganeshas)
            .collect();
        let facts = Facts {
            folder: folder.to_owned(),
            fsid,
            mon_host,
            nfs_endpoints,
            init,
            daemons,
        };
        let mut ceph = Self {
            facts,
            key: Key(String::new()),
            namespace: Some(namespace),
        };
        ceph.bootstrap(steps)?;
        ceph.key = ceph.read_key()?;
        Ok(ceph)
    }

    pub(super) fn attach(facts: Facts) -> Result<Self> {
        if !facts.init.is_alive() {
            bail!("the lab's Ceph (pid {}) no longer runs", facts.init.pid);
        }
        let mut ceph = Self {
            facts,
            key: Key(String::new()),
            namespace: None,
        };
        ceph.key = ceph.read_key()?;
        Ok(ceph)
    }

    fn bootstrap(&self, steps: &Steps) -> Result<()> {
        let mut command = self.inside(&["/lab/bootstrap"]);
        let log = self.facts.folder.join("log/bootstrap.out");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&log)?);
        let mut child = spawn(command)?;
        let stdout = child.stdout.take().context("no standard output")?;
        let steps_there = *steps;
        let relay = thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                steps_there.say(WHO, &line);
            }
        });
        let limit = Duration::from_mins(3);
        let mut status = None;
        let waited = wait_until("Ceph to start", limit, || {
            status = child.try_wait()?;
            Ok(status.is_some())
        });
        if waited.is_err() {
            child.kill()?;
            child.wait()?;
        }
        if waited.is_err() || !status.is_some_and(|s| s.success()) {
            bail!(
                "Ceph did not start; the last lines of log/bootstrap.out:\n{}",
                process::tail(&log)
            );
        }
        // It only ends when the pipe is closed, and daemons have outputs of their own.
        relay
            .join()
            .map_err(|_| anyhow::anyhow!("the thread that relays Ceph's progress panicked"))?;
        for endpoint in &self.facts.nfs_endpoints {
            wait_until(
                &format!("NFS-Ganesha on {endpoint}"),
                Duration::from_mins(1),
                || {
                    let (address, port) = (endpoint.ip(), endpoint.port());
                    let connect = format!("exec 3<>/dev/tcp/{address}/{port}");
                    Ok(self.beside(&["bash", "-c", &connect]).output()?.status.success())
                },
            )?;
        }
        steps.say(WHO, "both NFS-Ganeshas listen");
        Ok(())
    }

    /// Makes another cluster in this one's place, with nothing in it: another fsid and other keys, but the same addresses
    /// and, for the operator's user, the same key.
    pub fn replace(&mut self) -> Result<()> {
        for name in self.facts.daemons.iter().rev() {
            if let Some(process) = self.daemon(name)?.process() {
                process.kill()?;
            }
        }
        let fsid = uuid()?;
        for name in ["names", "ceph.conf"] {
            let path = self.facts.folder.join(name);
            let text = fs::read_to_string(&path)?.replace(&self.facts.fsid, &fsid);
            private(&path, &text)?;
        }
        self.facts.fsid = fsid;
        let clear =
            "rm -rf /var/lib/ceph/*/* /etc/ceph/keyring /run/monmap && cp /lab/ceph.conf /etc/ceph/ceph.conf";
        self.command(&["sh", "-c", clear])?;
        self.bootstrap(&Steps::new(true))?;
        let keyring = "/lab/run/shoal.keyring";
        let caps = capabilities().map(|(daemon, caps)| {
            let caps = caps.replace('"', "\\\"");
            format!("\tcaps {daemon} = \"{caps}\"\n")
        });
        let text = format!("[client.{USER}]\n\tkey = {}\n{}", self.key.0, caps.concat());
        private(&self.path_outside(keyring), &text)?;
        self.command(&["ceph", "auth", "import", "-i", keyring]).map(drop)
    }

    /// Moves the monitor, as an admin does: another one joins, and `mon.a` leaves, and so ends. The answer is where it is now, as
    /// clients are told.
    pub fn move_monitor(&self) -> Result<String> {
        let Some(SocketAddr::V4(endpoint)) = self.facts.nfs_endpoints.first() else {
            bail!("the lab has no IPv4 NFS endpoint")
        };
        let [a, b, c, _] = endpoint.ip().octets();
        let address = Ipv4Addr::from([a, b, c, MOVED_MONITOR]);
        let addresses = format!("[v2:{address}:3300,v1:{address}:6789]");
        // The daemon that it starts is to end with the cluster.
        let mut script = self.inside(&["timeout", "60", "/lab/move_monitor", &addresses]);
        output(&mut script).context("the monitor could not be moved")?;
        let old = self.daemon("mon.a")?;
        wait_until("mon.a to end", Duration::from_secs(20), || {
            Ok(old.process().is_none())
        })?;
        Ok(format!("{address}:6789"))
    }

    fn read_key(&self) -> Result<Key> {
        let path = self.facts.folder.join("client.shoal.key");
        let key = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Key(key.trim().to_owned()))
    }

    pub(super) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The cluster's fsid.
    pub fn fsid(&self) -> &str {
        &self.facts.fsid
    }

    /// The monitor's addresses in Ceph's notation, v2 and v1.
    pub fn mon_host(&self) -> &str {
        &self.facts.mon_host
    }

    /// The operator's cephx user without the `client.`; it has just the capabilities that the operator needs.
    pub fn user_id(&self) -> &'static str {
        USER
    }

    /// The operator's cephx key.
    pub fn user_key(&self) -> &str {
        &self.key.0
    }

    /// The file systems' names.
    pub fn filesystems(&self) -> &'static [&'static str] {
        &FILE_SYSTEMS
    }

    /// The NFS cluster's id, as mgr/nfs knows it.
    pub fn nfs_cluster(&self) -> &'static str {
        NFS_CLUSTER
    }

    /// Where its Ganeshas listen: the first on an IPv4 address of the lab's own, the second on `::1`.
    pub fn nfs_endpoints(&self) -> &[SocketAddr] {
        &self.facts.nfs_endpoints
    }

    /// An address of this lab's own block that nothing listens on, for a client to come from; `n` up to 150.
    pub fn client_address(&self, n: u8) -> Result<IpAddr> {
        match self.facts.nfs_endpoints.first() {
            Some(SocketAddr::V4(endpoint)) => {
                let [a, b, c, _] = endpoint.ip().octets();
                Ok(IpAddr::from([
                    a,
                    b,
                    c,
                    100_u8.checked_add(n).context("no such client address")?,
                ]))
            }
            _ => bail!("the lab has no IPv4 NFS endpoint"),
        }
    }

    /// Runs a program of the root file system to its end; its standard output, or an error with its standard error.
    pub fn command(&self, program: &[&str]) -> Result<String> {
        output(&mut self.beside(program))
    }

    /// `ceph ARGS… --format json` as the cluster's admin.
    pub fn ceph(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        let words = [&["ceph"], arguments, &["--format", "json"]].concat();
        let text = self.command(&words)?;
        let text = text.trim();
        if text.is_empty() {
            return Ok(serde_json::Value::Null);
        }
        serde_json::from_str(text).with_context(|| format!("no JSON from {}", words.join(" ")))
    }

    /// A program in Ceph's root file system, as a process of the host's pid namespace: the child's pid is the program's
    /// own, and signals and waiting are as usual. It outlives the cluster if nobody ends it.
    pub fn beside(&self, program: &[&str]) -> Command {
        self.enter(&[], program)
    }

    /// A program that ends with the cluster, in its pid namespace; the child is only its herald.
    pub(super) fn inside(&self, program: &[&str]) -> Command {
        self.enter(&["--pid"], program)
    }

    fn enter(&self, more: &[&str], program: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--target={}", self.facts.init.pid))
            .args(["--mount", "--net", "--root", "--wd"]);
        command.args(more).arg("--").args(program);
        command
    }

    /// How a path of the host is called in Ceph's root file system.
    pub fn path_inside(&self, path: &Path) -> Result<PathBuf> {
        let path = path
            .canonicalize()
            .with_context(|| format!("no {}", path.display()))?;
        Ok(Path::new("/host").join(path.strip_prefix("/")?))
    }

    /// How a path of Ceph's root file system is called on the host, by root.
    pub fn path_outside(&self, path: &str) -> PathBuf {
        PathBuf::from(format!(
            "/proc/{}/root/{}",
            self.facts.init.pid,
            path.trim_start_matches('/')
        ))
    }

    /// The lab's folder for Ceph, mode 0700; `/lab` in Ceph's root file system. Logs are in `log`.
    pub fn folder(&self) -> &Path {
        &self.facts.folder
    }

    /// The names of all daemons.
    pub fn daemons(&self) -> &[String] {
        &self.facts.daemons
    }

    /// One daemon by its name: `mon.a`, `mgr.x`, `mgr.y` (where wanted), `osd.0`, `mds.a` to `mds.c`, `ganesha.0`,
    /// `ganesha.1`.
    pub fn daemon(&self, name: &str) -> Result<Daemon<'_>> {
        match self.facts.daemons.iter().find(|d| *d == name) {
            Some(name) => Ok(Daemon { ceph: self, name }),
            None => bail!("no daemon {name}; there are {}", self.facts.daemons.join(", ")),
        }
    }
}

impl Drop for Ceph {
    fn drop(&mut self) {
        if let Some(namespace) = self.namespace.take()
            && !namespace.is_detached()
        {
            drop(namespace);
            // Process 1 is the last to go. Whoever removes the folder next wants nobody writing there.
            let gone = || Ok(!self.facts.init.is_alive());
            let _ = wait_until("Ceph to end", Duration::from_secs(10), gone);
        }
    }
}

/// One daemon of the cluster.
#[derive(Clone, Copy, Debug)]
pub struct Daemon<'a> {
    ceph: &'a Ceph,
    name: &'a str,
}

impl Daemon<'_> {
    /// The process that it is now; `None` when it does not run.
    pub fn process(&self) -> Option<Process> {
        let pid = read_pid(&self.pid_file()).ok()?;
        // A pid file outlives its process, and the pid may have gone to another one since.
        let inside = fs::read_link(format!("/proc/{pid}/ns/pid")).ok()?;
        let ours = fs::read_link(format!("/proc/{}/ns/pid", self.ceph.facts.init.pid)).ok()?;
        if inside == ours {
            Process::find(self.name, pid)
        } else {
            None
        }
    }

    /// Its pid in the host's pid namespace.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.running()?.pid)
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&self) -> Result<()> {
        self.running()?.kill()
    }

    /// SIGTERM, and waits until it is gone.
    pub fn terminate(&self) -> Result<()> {
        let process = self.running()?;
        process.signal(Signal::TERM)?;
        wait_until(&format!("{} to end", self.name), Duration::from_secs(30), || {
            Ok(!process.is_alive())
        })
    }

    /// SIGSTOP: it hangs until [`Daemon::cont`].
    pub fn stop(&self) -> Result<()> {
        self.running()?.signal(Signal::STOP).map(drop)
    }

    /// SIGCONT.
    pub fn cont(&self) -> Result<()> {
        self.running()?.signal(Signal::CONT).map(drop)
    }

    /// Starts it again after its end; returns when the process runs, not when it serves.
    pub fn start(&self) -> Result<()> {
        if let Some(process) = self.process() {
            bail!("{} already runs, pid {}", self.name, process.pid);
        }
        if let Err(e) = fs::remove_file(self.pid_file())
            && e.kind() != std::io::ErrorKind::NotFound
        {
            return Err(e.into());
        }
        output(&mut self.ceph.inside(&["/lab/start", self.name]))?;
        wait_until(
            &format!("{} to start", self.name),
            Duration::from_secs(10),
            || Ok(self.process().is_some()),
        )
    }

    fn running(&self) -> Result<Process> {
        self.process()
            .with_context(|| format!("{} does not run", self.name))
    }

    fn pid_file(&self) -> PathBuf {
        self.ceph
            .facts
            .folder
            .join("run")
            .join(format!("{}.pid", self.name))
    }
}

fn read_pid(path: &Path) -> Result<u32> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    text.trim()
        .parse()
        .with_context(|| format!("no pid in {}", path.display()))
}

fn uuid() -> Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/uuid")?
        .trim()
        .to_owned())
}

/// Scripts and configuration, from this program into the lab's folder.
fn write_assets(
    folder: &Path,
    options: CephOptions,
    fsid: &str,
    address: Ipv4Addr,
    mon_host: &str,
    nfs_endpoints: &[SocketAddr],
) -> Result<()> {
    for (name, text) in [
        ("init", include_str!("../../lab/ceph/init")),
        ("start", include_str!("../../lab/ceph/start")),
        ("bootstrap", include_str!("../../lab/ceph/bootstrap")),
        ("move_monitor", include_str!("../../lab/ceph/move_monitor")),
        ("setup.py", include_str!("../../lab/ceph/setup.py")),
        (
            "python/bcrypt.py",
            include_str!("../../lab/ceph/python/bcrypt.py"),
        ),
        ("nfs_client.py", include_str!("../../lab/ceph/nfs_client.py")),
        ("file_client.py", include_str!("../../lab/ceph/file_client.py")),
    ] {
        let path = folder.join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, Permissions::from_mode(0o755))?;
    }
    if options.release == CephRelease::Reef {
        fs::copy(MGR_PYTHON.get()?, folder.join("mgr_python.so"))?;
    }
    let tick = f64::from(options.mds_tick_ms) / 1000.0;
    let conf = include_str!("../../lab/ceph/ceph.conf")
        .replace("@FSID@", fsid)
        .replace("@MON_ADDRESSES@", mon_host)
        .replace("@ADDRESS@", &address.to_string())
        .replace("@MDS_TICK@", &tick.to_string());
    fs::write(folder.join("ceph.conf"), conf)?;
    let mut nodes = Vec::new();
    for (n, endpoint) in nfs_endpoints.iter().enumerate() {
        let node = format!("ganesha.{n}");
        let conf = include_str!("../../lab/ceph/ganesha.conf")
            .replace("@ADDRESS@", &endpoint.ip().to_string())
            .replace("@PORT@", &endpoint.port().to_string())
            .replace("@NFS_CLUSTER@", NFS_CLUSTER)
            .replace("@NODE@", &node);
        fs::write(folder.join(format!("{node}.conf")), conf)?;
        nodes.push(node);
    }
    let names = format!(
        "FSID='{fsid}'\nMON_ADDRESSES='{mon_host}'\nMIN_RELEASE='{}'\nOSD_UUID='{}'\nFILE_SYSTEMS='{}'\n\
         NFS_CLUSTER='{NFS_CLUSTER}'\nGANESHAS='{}'\nSTANDBY_MGRS='{}'\n{}",
        options.release.name(),
        uuid()?,
        FILE_SYSTEMS.join(" "),
        nodes.join(" "),
        if options.standby_mgr { "y" } else { "" },
        capabilities()
            .map(|(daemon, caps)| format!("SHOAL_{}='{caps}'\n", daemon.to_uppercase()))
            .concat(),
    );
    private(&folder.join("names"), &names)
}
