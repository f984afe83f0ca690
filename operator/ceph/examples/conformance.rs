//! Plays the conformance suite against a Ceph cluster, beside which it must run, with an admin's keyring at hand and
//! ceph-fuse: in a lab, `$SHOAL_CEPH env … /host/…/conformance`.
#![allow(clippy::unwrap_used)]

use std::{
    collections::HashMap,
    fs,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Value, json};
use shoal_backend::{
    Backend,
    conformance::{self, Flaw, Hand, Outcome, Subject},
};
use shoal_ceph::{CephBackend, CephSettings, Connections, NfsService};
use shoal_crds::{Protocol, RootDirectory};
use shoal_domain::{grant::Key, owner, volume::VolumeRef};

const FS: &str = "cephfs";
const GROUP: &str = "shoal";
const ADMIN: &str = "/tmp/conformance-admin";

struct Lab {
    backend: CephBackend,
    sibling: CephBackend,
    nfs_cluster: String,
    mon_host: String,
    counter: AtomicU64,
    mounts: Mutex<HashMap<u64, String>>,
}

fn run(program: &str, arguments: &[&str], input: &str) -> Hand<String> {
    use std::io::Write;
    let mut child = Command::new("timeout")
        .args(["30", program])
        .args(arguments)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(Flaw::Wrong(format!(
            "{program} {arguments:?}: {}: {words}",
            output.status
        )))
    }
}

fn ceph(arguments: &[&str]) -> Hand<String> {
    run("ceph", arguments, "")
}

impl Lab {
    fn subvolume(words: &[&str], v: &VolumeRef, more: &[&str]) -> Hand<String> {
        let mut all = vec!["fs", "subvolume"];
        all.extend(words);
        all.extend([FS, &v.place.subvolume]);
        all.extend(more);
        all.extend(["--group_name", GROUP]);
        ceph(&all)
    }

    fn path(v: &VolumeRef) -> Hand<String> {
        Self::subvolume(&["getpath"], v, &[])
    }

    fn change_export(&self, v: &VolumeRef, change: impl FnOnce(&mut Value)) -> Hand<()> {
        let pseudo = v.pseudo_path.clone();
        let info = ceph(&["nfs", "export", "info", &self.nfs_cluster, &pseudo])?;
        let mut export: Value = serde_json::from_str(&info).unwrap();
        change(&mut export);
        run(
            "ceph",
            &["nfs", "export", "apply", &self.nfs_cluster, "-i", "-"],
            &export.to_string(),
        )
        .map(drop)
    }

    fn fuse(&self, identity: &str, key: &str, root: &str, at: &str) -> Hand<()> {
        fs::create_dir_all(at).unwrap();
        let keyring = format!("{at}.keyring");
        fs::write(&keyring, format!("[client.{identity}]\n\tkey = {key}\n")).unwrap();
        let fs_name = format!("--client_mds_namespace={FS}");
        run(
            "ceph-fuse",
            &[
                "--id",
                identity,
                "-k",
                &keyring,
                "-m",
                &self.mon_host,
                &fs_name,
                "-r",
                root,
                at,
            ],
            "",
        )
        .map(drop)
    }
}

#[async_trait]
impl Subject for Lab {
    fn backend(&self) -> &dyn Backend {
        &self.backend
    }

    fn sibling(&self) -> Option<&dyn Backend> {
        Some(&self.sibling)
    }

    fn fresh_uid(&self) -> String {
        format!(
            "c{}-{}",
            std::process::id(),
            self.counter.fetch_add(1, Ordering::Relaxed)
        )
    }

    async fn root(&self, v: &VolumeRef) -> Hand<RootDirectory> {
        let stat = run(
            "stat",
            &["-c", "%u %g %a", &format!("{ADMIN}{}", Self::path(v)?)],
            "",
        )?;
        let words: Vec<_> = stat.split(' ').collect();
        Ok(RootDirectory {
            uid: words[0].parse().unwrap(),
            gid: words[1].parse().unwrap(),
            mode: words[2].into(),
        })
    }

    async fn fill(&self, v: &VolumeRef, bytes: u64) -> Hand<()> {
        let file = format!("of={ADMIN}{}/fill", Self::path(v)?);
        run(
            "dd",
            &[
                "if=/dev/zero",
                &file,
                "bs=1048576",
                &format!("count={}", bytes >> 20),
                "conv=fsync",
            ],
            "",
        )?;
        for _ in 0..100 {
            let info: Value = serde_json::from_str(&Self::subvolume(&["info"], v, &[])?).unwrap();
            if info["bytes_used"].as_u64() >= Some(bytes) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Err(Flaw::Wrong("the bytes never showed".into()))
    }

    async fn set_tag(&self, v: &VolumeRef, text: Option<&str>) -> Hand<()> {
        let key = owner::Owner::METADATA_KEY;
        match text {
            Some(text) => Self::subvolume(&["metadata", "set"], v, &[key, text]).map(drop),
            None => Self::subvolume(&["metadata", "rm"], v, &[key]).map(drop),
        }
    }

    async fn set_quota(&self, v: &VolumeRef, bytes: u64) -> Hand<()> {
        Self::subvolume(&["resize"], v, &[&bytes.to_string()]).map(drop)
    }

    async fn delete_subvolume(&self, v: &VolumeRef) -> Hand<()> {
        if v.protocol == Protocol::CephFS {
            // Ceph tells of an identity's capabilities, and takes them away, only by way of the subvolume.
            return conformance::missing("delete_subvolume");
        }
        Self::subvolume(&["rm"], v, &[]).map(drop)
    }

    async fn add_snapshot(&self, v: &VolumeRef) -> Hand<()> {
        Self::subvolume(&["snapshot", "create"], v, &["s"]).map(drop)
    }

    async fn remove_snapshots(&self, v: &VolumeRef) -> Hand<()> {
        Self::subvolume(&["snapshot", "rm"], v, &["s"]).map(drop)
    }

    async fn take_path(&self, v: &VolumeRef, other: &VolumeRef) -> Hand<()> {
        let pseudo = v.pseudo_path.clone();
        let path = Self::path(other)?;
        ceph(&["nfs", "export", "rm", &self.nfs_cluster, &pseudo])?;
        ceph(&[
            "nfs",
            "export",
            "create",
            "cephfs",
            &self.nfs_cluster,
            &pseudo,
            FS,
            "--path",
            &path,
        ])
        .map(drop)
    }

    async fn remove_export(&self, v: &VolumeRef) -> Hand<()> {
        ceph(&["nfs", "export", "rm", &self.nfs_cluster, &v.pseudo_path]).map(drop)
    }

    async fn add_client(&self, v: &VolumeRef) -> Hand<()> {
        self.change_export(v, |export| {
            export["clients"]
                .as_array_mut()
                .unwrap()
                .push(json!({"addresses": ["0.0.0.0/0"], "access_type": "rw", "squash": "none"}));
        })
    }

    async fn open_export(&self, v: &VolumeRef) -> Hand<()> {
        self.change_export(v, |export| export["access_type"] = json!("RW"))
    }

    async fn authorize(&self, v: &VolumeRef, identity: &str) -> Hand<()> {
        let tenant = format!("--tenant_id={}", v.tenant);
        Self::subvolume(&["authorize"], v, &[identity, "--access_level=rw", &tenant]).map(drop)
    }

    async fn deauthorize(&self, v: &VolumeRef, identity: &str) -> Hand<()> {
        // As an export that was interrupted leaves it.
        Self::subvolume(
            &["metadata", "set"],
            v,
            &["shoal.storage/evict", &json!([identity]).to_string()],
        )?;
        Self::subvolume(&["deauthorize"], v, &[identity]).map(drop)
    }

    async fn add_identity(&self, identity: &str) -> Hand<()> {
        ceph(&[
            "auth",
            "get-or-create",
            &format!("client.{identity}"),
            "mon",
            "allow r",
        ])
        .map(drop)
    }

    async fn mount(&self, v: &VolumeRef, identity: &str, key: &Key, directory: &str) -> Hand<u64> {
        let path = Self::path(v)?;
        if !directory.is_empty() {
            fs::create_dir_all(format!("{ADMIN}{path}{directory}")).unwrap();
        }
        let id = self.counter.fetch_add(1, Ordering::Relaxed);
        let at = format!("/tmp/conformance-{}-{id}", std::process::id());
        self.fuse(identity, key.reveal(), &format!("{path}{directory}"), &at)?;
        self.mounts.lock().insert(id, at);
        Ok(id)
    }

    async fn is_mounted(&self, session: u64) -> Hand<bool> {
        let at = self.mounts.lock()[&session].clone();
        Ok(run("ls", &[&at], "").is_ok())
    }

    async fn stall(&self) -> Hand<()> {
        let pid = fs::read_to_string("/lab/run/mgr.x.pid").unwrap();
        run("kill", &["-STOP", pid.trim()], "").map(drop)
    }

    async fn resume(&self) -> Hand<()> {
        let pid = fs::read_to_string("/lab/run/mgr.x.pid").unwrap();
        run("kill", &["-CONT", pid.trim()], "").map(drop)
    }
}

#[tokio::main]
async fn main() {
    let env = |name: &str| std::env::var(name).unwrap();
    let connections = Connections::new();
    let key = fs::read_to_string(format!("/host{}", env("SHOAL_CEPH_KEY_FILE"))).unwrap();
    let settings = |filesystem: &str| CephSettings {
        mon_host: env("SHOAL_CEPH_MON_HOST"),
        user_id: env("SHOAL_CEPH_USER"),
        user_key: Key::new(key.trim()),
        filesystem: filesystem.into(),
        subvolume_group: GROUP.into(),
        data_pool: None,
        namespace_isolated: true,
        nfs: Some(NfsService {
            cluster_id: env("SHOAL_NFS_CLUSTER"),
            endpoints: env("SHOAL_NFS_ENDPOINTS").split(',').map(str::to_owned).collect(),
        }),
        // Module nfs waits 5 s for a Ganesha that does not take note of a change, and then says that all is well.
        command_timeout: Duration::from_secs(10),
    };
    let lab = Arc::new(Lab {
        backend: CephBackend::new(settings(FS), &connections),
        sibling: CephBackend::new(settings("second"), &connections),
        nfs_cluster: env("SHOAL_NFS_CLUSTER"),
        mon_host: env("SHOAL_CEPH_MON_HOST"),
        counter: AtomicU64::new(1),
        mounts: Mutex::default(),
    });
    let admin = ceph(&["auth", "print-key", "client.admin"]).unwrap();
    lab.fuse("admin", &admin, "/", ADMIN).unwrap();
    let report = conformance::run(&*lab, &std::env::args().nth(1).unwrap_or_default()).await;
    for played in &report.played {
        let took = played.took.as_secs_f64();
        match &played.outcome {
            Outcome::Passed => println!("{took:7.2} s  passed   {}", played.scenario),
            Outcome::Failed(why) => println!("{took:7.2} s  FAILED   {}: {why}", played.scenario),
            Outcome::Skipped(why) => println!("{took:7.2} s  skipped  {}: {why}", played.scenario),
        }
    }
    let mounts: Vec<_> = lab.mounts.lock().values().cloned().collect();
    for at in mounts.iter().map(String::as_str).chain([ADMIN]) {
        drop(run("umount", &["-l", at], ""));
    }
    shoal_ceph::exit(i32::from(!report.failed().is_empty()));
}
