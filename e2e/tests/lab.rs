//! The lab itself: what other suites take for granted about it.

#![cfg(test)]
#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use shoal_e2e::lab::client::{Failure, Owner, failure};
use shoal_e2e::lab::process::wait_until;
use shoal_e2e::lab::{
    Ceph, CephFsMount, CephOptions, CephRelease, KubernetesRelease, Lab, LabOptions, NfsClient,
};

const USER: Owner = Owner { uid: 1000, gid: 1000 };

fn only_ceph(release: CephRelease) -> Lab {
    let ceph = CephOptions {
        release,
        standby_mgr: true,
        ..CephOptions::default()
    };
    Lab::start(&LabOptions {
        ceph: Some(ceph),
        kubernetes: None,
        ..LabOptions::default()
    })
    .unwrap()
}

/// `ceph …` as the operator's own user, and so with its capabilities.
fn operator(ceph: &Ceph, words: &[&str]) -> Value {
    let all = [&["--id", ceph.user_id()], words].concat();
    ceph.ceph(&all).unwrap()
}

fn subvolume(ceph: &Ceph, filesystem: &str, name: &str) -> String {
    let make = [
        "fs",
        "subvolume",
        "create",
        filesystem,
        name,
        "--size",
        "104857600",
        "--mode",
        "0770",
    ];
    operator(
        ceph,
        &[
            &make[..],
            &["--uid", "1000", "--gid", "1000", "--namespace-isolated"],
        ]
        .concat(),
    );
    ceph.command(&["ceph", "fs", "subvolume", "getpath", filesystem, name])
        .unwrap()
        .trim()
        .to_owned()
}

fn apply(ceph: &Ceph, export: &Value) {
    let file = "/lab/run/export.json";
    std::fs::write(ceph.path_outside(file), export.to_string()).unwrap();
    operator(ceph, &["nfs", "export", "apply", ceph.nfs_cluster(), "-i", file]);
}

fn export(ceph: &Ceph, filesystem: &str, name: &str, clients: &Value) {
    let path = ceph
        .command(&["ceph", "fs", "subvolume", "getpath", filesystem, name])
        .unwrap();
    let export = json!({
        "pseudo": format!("/{name}"), "path": path.trim(), "access_type": "none", "squash": "none",
        "security_label": false, "protocols": [4], "transports": ["TCP"],
        "fsal": {"name": "CEPH", "fs_name": filesystem}, "clients": clients,
    });
    apply(ceph, &export);
}

/// An update that leaves `fsal.user_id` out is one that wants a restart, and fails without an orchestrator.
fn change_clients(ceph: &Ceph, name: &str, clients: &Value) {
    let mut export = operator(
        ceph,
        &["nfs", "export", "info", ceph.nfs_cluster(), &format!("/{name}")],
    );
    export["clients"] = clients.clone();
    apply(ceph, &export);
}

fn soon<T>(what: &str, mut action: impl FnMut() -> anyhow::Result<T>) -> T {
    let mut last = None;
    wait_until(what, Duration::from_secs(20), || {
        last = Some(action());
        Ok(last.as_ref().is_some_and(Result::is_ok))
    })
    .unwrap_or_else(|e| panic!("{e}: {:?}", last.as_ref().and_then(|l| l.as_ref().err())));
    last.unwrap().unwrap()
}

fn ceph_works(release: CephRelease) {
    let lab = only_ceph(release);
    let ceph = lab.ceph().unwrap();
    let version = ceph.command(&["ceph", "version"]).unwrap();
    assert!(
        version.starts_with(&format!("ceph version {}.", release.major())),
        "{version}"
    );
    assert!(!format!("{ceph:?}").contains(ceph.user_key()));

    nfs_clients(ceph);
    cephfs_clients(ceph);
    daemons(ceph);
}

fn nfs_clients(ceph: &Ceph) {
    let [listed, reader, unlisted] = [1, 2, 3].map(|n| ceph.client_address(n).unwrap());
    let v6 = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let entry = |address: IpAddr, access: &str| json!({"addresses": [address], "access_type": access, "squash": "none"});
    for filesystem in ceph.filesystems() {
        let name = format!("{filesystem}-nfs");
        subvolume(ceph, filesystem, &name);
        let clients = json!([entry(listed, "rw"), entry(v6, "rw"), entry(reader, "ro")]);
        export(ceph, filesystem, &name, &clients);
        let mount = |server: SocketAddr, source: IpAddr| {
            NfsClient::mount(ceph, server, &format!("/{name}"), source, USER)
        };
        let [server4, server6] = ceph.nfs_endpoints() else {
            panic!("two endpoints")
        };

        let mut writer = soon("the export", || mount(*server4, listed));
        soon("the end of the grace period", || {
            writer.write("/hello", b"from IPv4")
        });
        let mut over_v6 = soon("the export on IPv6", || mount(*server6, v6));
        assert_eq!(over_v6.read("/hello").unwrap(), b"from IPv4");
        over_v6.write("/six", b"from IPv6").unwrap();
        assert_eq!(writer.list("/").unwrap(), ["hello", "six"]);

        let mut reads = mount(*server4, reader).unwrap();
        assert_eq!(reads.read("/hello").unwrap(), b"from IPv4");
        assert_eq!(
            failure(&reads.write("/no", b"").unwrap_err()),
            Some(Failure::ReadOnly)
        );
        assert_eq!(
            failure(&mount(*server4, unlisted).unwrap_err()),
            Some(Failure::NotFound)
        );

        // A stranger's uid is refused by the mode of the share's root.
        let stranger = Owner { uid: 4711, gid: 4711 };
        let mut stranger = NfsClient::mount(ceph, *server4, &format!("/{name}"), listed, stranger).unwrap();
        assert_eq!(
            failure(&stranger.write("/no", b"").unwrap_err()),
            Some(Failure::Denied)
        );

        // A mounted client notices a change of its level.
        change_clients(ceph, &name, &json!([entry(listed, "ro")]));
        soon("the writer to be a reader", || match writer.write("/no", b"") {
            Err(e) if failure(&e) == Some(Failure::ReadOnly) => Ok(()),
            other => anyhow::bail!("{other:?}"),
        });
        operator(
            ceph,
            &["nfs", "export", "rm", ceph.nfs_cluster(), &format!("/{name}")],
        );
    }
}

fn cephfs_clients(ceph: &Ceph) {
    let [filesystem, ..] = ceph.filesystems() else {
        panic!("two file systems")
    };
    let path = subvolume(ceph, filesystem, "native");
    let authorize = |id: &str, level: &str| {
        let words = [
            "fs",
            "subvolume",
            "authorize",
            filesystem,
            "native",
            id,
            "--access-level",
            level,
        ];
        let text = ceph.command(
            &[
                &["ceph", "--id", ceph.user_id()],
                &words[..],
                &["--tenant-id", "t"],
            ]
            .concat(),
        );
        let text = text.unwrap();
        // 18.2 answers with the key, 20.2 may answer with JSON.
        text.trim().trim_matches('"').to_owned()
    };
    let alice = authorize("alice", "rw");
    let mount = CephFsMount::mount(ceph, "alice", &alice, filesystem, &path).unwrap();
    let mut user = mount.user(USER).unwrap();
    user.mkdir("/d").unwrap();
    user.write("/d/hello", b"native").unwrap();
    assert_eq!(user.read("/d/hello").unwrap(), b"native");
    assert_eq!(user.size().unwrap(), 104_857_600);

    let bob = authorize("bob", "r");
    let below = CephFsMount::mount(ceph, "bob", &bob, filesystem, &format!("{path}/d")).unwrap();
    let mut reader = below.user(USER).unwrap();
    assert_eq!(reader.read("/hello").unwrap(), b"native");
    assert_eq!(
        failure(&reader.write("/no", b"").unwrap_err()),
        Some(Failure::Denied)
    );
    below.unmount().unwrap();

    // Alice may not mount what she has no capability for.
    let other = subvolume(ceph, filesystem, "other");
    let refused = CephFsMount::mount(ceph, "alice", &alice, filesystem, &other).unwrap_err();
    assert_eq!(failure(&refused), Some(Failure::Denied), "{refused}");

    // The operator's capabilities are enough to find and evict her session.
    let target = format!("mds.{filesystem}:0");
    let sessions = operator(ceph, &["tell", &target, "session", "ls"]);
    let of_alice = |s: &&Value| s["client_metadata"]["entity_id"] == "alice";
    let session = sessions.as_array().unwrap().iter().find(of_alice);
    let id = session.unwrap_or_else(|| panic!("{sessions:#}"))["id"].to_string();
    operator(
        ceph,
        &["fs", "subvolume", "deauthorize", filesystem, "native", "alice"],
    );
    operator(ceph, &["tell", &target, "client", "evict", &format!("id={id}")]);
    soon("alice to be cut off", || match user.write("/d/more", b"no") {
        Err(e) if failure(&e) == Some(Failure::Evicted) => Ok(()),
        other => anyhow::bail!("{other:?}"),
    });
    mount.unmount().unwrap();
}

fn daemons(ceph: &Ceph) {
    let ganesha = ceph.daemon("ganesha.0").unwrap();
    let pid = ganesha.pid().unwrap();

    let mgr = ceph.daemon("mgr.x").unwrap();
    let before = mgr.pid().unwrap();
    mgr.kill().unwrap();
    assert!(mgr.pid().is_err());
    mgr.start().unwrap();
    assert_ne!(mgr.pid().unwrap(), before);
    // Here or on the standby, the module answers again.
    soon("module volumes", || {
        ceph.command(&["timeout", "5", "ceph", "fs", "subvolume", "ls", "cephfs"])
    });

    let mon = ceph.daemon("mon.a").unwrap();
    mon.stop().unwrap();
    assert!(ceph.command(&["timeout", "2", "ceph", "status"]).is_err());
    mon.cont().unwrap();
    soon("the monitor", || {
        ceph.command(&["timeout", "5", "ceph", "status"])
    });
    mon.terminate().unwrap();
    mon.start().unwrap();
    soon("the monitor, started again", || {
        ceph.command(&["timeout", "5", "ceph", "status"])
    });

    assert_eq!(ganesha.pid().unwrap(), pid);
    assert!(ceph.daemon("mgr.none").is_err());
}

#[test]
fn ceph_18_works() {
    ceph_works(CephRelease::Reef);
}

#[test]
fn ceph_20_works() {
    ceph_works(CephRelease::Tentacle);
}

fn control_plane_works(release: KubernetesRelease) {
    let options = LabOptions {
        ceph: None,
        kubernetes: Some(release),
        ..LabOptions::default()
    };
    let lab = Lab::start(&options).unwrap();
    let plane = lab.control_plane().unwrap();
    let kubectl = |words: &[&str]| {
        let out = plane.kubectl().args(words).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    assert!(kubectl(&["version"]).contains(&format!("Server Version: v{}", release.version())));

    // Namespaces really go away, and ServiceAccounts have real tokens and only their own rights.
    kubectl(&["create", "namespace", "passing"]);
    kubectl(&["create", "serviceaccount", "operator", "--namespace", "passing"]);
    let token = kubectl(&["create", "token", "operator", "--namespace", "passing"]);
    let config = lab.folder().join("operator.kubeconfig");
    plane.write_kubeconfig(&config, "operator", token.trim()).unwrap();
    let refused = std::process::Command::new(plane.kubectl_program())
        .arg("--kubeconfig")
        .arg(&config)
        .args(["get", "secrets"])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("system:serviceaccount:passing:operator"));
    kubectl(&["delete", "namespace", "passing", "--timeout=30s"]);

    let audit = std::fs::read_to_string(plane.audit_log()).unwrap();
    let events: Vec<Value> = audit.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let creates = events.iter().filter(|e| {
        e["verb"] == "create"
            && e["stage"] == "ResponseComplete"
            && e["user"]["username"] == "admin"
            && e["objectRef"]["resource"] == "namespaces"
    });
    assert_eq!(creates.count(), 1);
}

#[test]
fn kubernetes_1_34_works() {
    control_plane_works(KubernetesRelease::V1_34);
}

#[test]
fn kubernetes_1_37_works() {
    control_plane_works(KubernetesRelease::V1_37);
}

#[test]
fn nothing_is_left_after_the_end() {
    let options = LabOptions {
        controller_manager: false,
        quiet: true,
        ..LabOptions::default()
    };
    let lab = Lab::start(&options).unwrap();
    let ceph = lab.ceph().unwrap();
    let mut processes = lab.control_plane().unwrap().processes().to_vec();
    for name in ceph.daemons() {
        processes.push(ceph.daemon(name).unwrap().process().unwrap());
    }
    let folder = lab.folder().to_owned();
    drop(lab);
    // The kernel needs a moment to end a whole pid namespace.
    thread::sleep(Duration::from_millis(500));
    let left: Vec<_> = processes.iter().filter(|p| p.is_alive()).collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(!folder.exists());
}
