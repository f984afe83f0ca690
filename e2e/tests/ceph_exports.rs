//! NFS exports that Ceph itself can't remove, or change, as they are. In a lab of their own: the manager and the NFS service are started anew.

#![cfg(test)]
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::json;
use shoal_crds::{Share, ShareBackend, ShareDeletion, removable_exports};
use shoal_domain::{owner::pseudo_path, share_deletion};
use shoal_e2e::{
    lab::{
        CephRelease,
        client::{Failure, Owner},
    },
    storage::{SIZE, Storage, conditions, fails_soon, ip_rule, message, release, soon, uid},
    suite::Suite,
    world::{condition, eventually, until, until_gone},
};

static SUITE: Suite<Storage> = Suite::new();

/// Somebody else's exports fill an NFS cluster, with more than Ceph's `nfs export rm` reads of its own list.
#[test]
#[ignore = "cargo xtask test --faults: the manager and the NFS service are started anew"]
fn an_nfs_cluster_with_more_exports_than_ceph_can_remove_one_of() {
    SUITE.run(Storage::start, async |suite| {
        let _alone = suite.alone().await;
        suite.start_operator("").await?;
        // The longest id there can be has the fewest.
        let id = "c".repeat(128);
        let list = format!("conf-nfs.{id}");
        let rados = |words: &[&str]| {
            let command = [&["rados", "-p", ".nfs", "-N", id.as_str()], words].concat();
            suite.ceph().command(&command)
        };
        rados(&["create", &list])?;
        let backends = suite.world.cluster_api::<ShareBackend>();
        let mut spec = serde_json::to_value(backends.get("cephfs").await?.spec)?;
        spec["ceph"]["nfs"] = json!({"clusterID": id, "endpoints": ["127.96.3.1"]});
        let crowded = json!({
            "apiVersion": "shoal.storage/v1alpha1", "kind": "ShareBackend", "metadata": {"name": "crowded"}, "spec": spec,
        });
        suite.world.apply(&crowded).await?;
        suite.until_backend("crowded", "True", "Available").await?;
        let on_it = json!({"backendNames": ["crowded"]});
        suite.world.add_type("on-crowded", on_it, false).await?;
        let ns = suite.world.namespace("crowded").await?;
        let share = suite.share(&ns, "first", "NFS", "on-crowded").await?;
        suite.rule(&ns, "first", ip_rule("first", "127.96.3.2", "ReadWrite")).await?;
        let many = removable_exports(&id) + 2;
        for n in 0..many {
            suite.admin.mgr(json!({
                "prefix": "nfs export create cephfs", "cluster_id": id, "fsname": "cephfs", "path": "/",
                "pseudo_path": format!("/theirs-{n}"),
            }))?;
        }
        let before = rados(&["get", &list, "-"])?;
        ensure!(before.len() > 8192, "{} bytes", before.len());

        // No more come: first at the NFS cluster itself, and once that is known, by placement.
        suite.ask_for_share(&ns, "late", "NFS", "on-crowded", SIZE).await?;
        until(&suite.world.api::<Share>(&ns), "late", "no export", |share: &Share| {
            let told = condition(conditions(share), "Ready");
            told == Some(("False", "TooManyExports")) || told == Some(("False", "NoBackendFits"))
        })
        .await?;
        until(&backends, "crowded", "ExportsStay", |backend| {
            let status = backend.status.as_ref();
            status.is_some_and(|s| condition(&s.conditions, "ExportsStay") == Some(("True", "TooManyExports")))
        })
        .await?;
        suite.ask_for_share(&ns, "later", "NFS", "on-crowded", SIZE).await?;
        let told = suite.until_share(&ns, "later", "False", "NoBackendFits").await?;
        ensure!(message(&told).contains("exports"), "{}", message(&told));
        for name in ["late", "later"] {
            suite.delete_share(&ns, name).await?;
        }

        // None goes either; but nobody is let in.
        suite.forget_share(&ns, "first").await?;
        suite.until_deletion_waits(&share, &["TooManyExports"]).await?;
        let export = suite.admin.mgr(json!({
            "prefix": "nfs export info", "cluster_id": id, "pseudo_path": pseudo_path(&uid(&share)),
        }))?;
        ensure!(export["clients"] == json!([]), "{export}");
        ensure!(rados(&["get", &list, "-"])? == before, "Ceph's list was written");

        // What the page for admins says helps: theirs are taken out by hand.
        suite.stop_operator().await?;
        let theirs: Vec<_> = (2..2 + many).map(|n| format!("export-{n}")).collect();
        let by_hand = format!(
            r#"rados -p .nfs -N {id} get {list} /tmp/list
            for export in {theirs}; do sed -i "/$export\"/,+1d" /tmp/list; done
            rados -p .nfs -N {id} put {list} /tmp/list
            rados -p .nfs -N {id} rm {theirs}"#,
            theirs = theirs.join(" "),
        );
        suite.ceph().command(&["sh", "-e", "-c", &by_hand])?;
        suite.admin.mon(json!({"prefix": "mgr fail"}))?;
        soon("the manager to have read them", async || {
            let left = suite.admin.mgr(json!({"prefix": "nfs export ls", "cluster_id": id}))?;
            ensure!(left.as_array().is_some_and(|left| left.len() == 1), "{left}");
            Ok(())
        })
        .await?;
        suite.start_operator("").await?;
        // On 20 what is removed waits a minute for what the manager before it held.
        let deletions = suite.world.cluster_api::<ShareDeletion>();
        let name = share_deletion::name(&uid(&share));
        eventually("the deletion to be finished", Duration::from_mins(2), async || {
            Ok(deletions.get_opt(&name).await?.is_none().then_some(()))
        })
        .await?;
        backends.delete("crowded", &kube::api::DeleteParams::default()).await?;
        until_gone(&backends, "crowded").await?;
        rados(&["rm", &list])?;
        suite.delete_rule(&ns, "first").await?;
        suite.until_consistent().await
    });
}

/// Rewrites all exports as Ceph 18 made them: a user of its own for each, and no word of where its client mounts.
const AS_18_MADE_THEM: &str = r#"
import json, rados, re, sys
cluster = rados.Rados(conffile="/etc/ceph/ceph.conf", name="client.admin")
cluster.connect()
ioctx = cluster.open_ioctx(".nfs")
ioctx.set_namespace(sys.argv[1])
for key in [o.key for o in ioctx.list_objects() if o.key.startswith("export-")]:
    text = ioctx.read(key, 1 << 20).decode()
    user = f"nfs.{sys.argv[1]}.{key.removeprefix('export-')}"
    caps = ["mon", "allow r", "osd", f"allow rw pool=.nfs namespace={sys.argv[1]}, allow rw tag cephfs data=cephfs",
            "mds", f"allow rw path={re.search('(?m)^ *path = "(.*)";', text)[1]}"]
    command = {"prefix": "auth get-or-create", "entity": f"client.{user}", "caps": caps, "format": "json"}
    code, out, error = cluster.mon_command(json.dumps(command), b"")
    assert code == 0, error
    text = re.sub(r"user_id = .*;", f'user_id = "{user}";', text)
    text = re.sub(r"secret_access_key = .*;", f'secret_access_key = "{json.loads(out)[0]["key"]}";', text)
    ioctx.write_full(key, re.sub(r" *cmount_path = .*;\n", "", text).encode())
"#;

/// Ceph 20 neither changes nor removes an export of 18, nor any other while one is there.
#[test]
#[ignore = "cargo xtask test --faults: the manager and the NFS service are started anew"]
fn exports_of_before_an_upgrade_of_ceph() {
    SUITE.run(Storage::start, async |suite| {
        if release()? == CephRelease::Reef {
            return Ok(());
        }
        let _alone = suite.alone().await;
        suite.start_operator("").await?;
        let ns = suite.world.namespace("upgraded").await?;
        let cluster = suite.ceph().nfs_cluster();
        let [one, two] = ["127.96.4.1".parse()?, "127.96.4.2".parse()?];
        let mut shares = Vec::new();
        for name in ["changes", "goes", "stays"] {
            shares.push(suite.share(&ns, name, "NFS", "on-cephfs").await?);
            for (rule, client) in [("one", "127.96.4.1"), ("two", "127.96.4.2")] {
                let rule = format!("{name}-{rule}");
                suite.rule(&ns, &rule, ip_rule(name, client, "ReadWrite")).await?;
            }
        }
        let [changes, goes, stays] = shares.as_slice() else {
            unreachable!()
        };
        suite.admin.mgr(json!({
            "prefix": "nfs export create cephfs", "cluster_id": cluster, "pseudo_path": "/theirs", "fsname": "cephfs", "path": "/",
        }))?;
        suite.ceph().command(&["python3", "-c", AS_18_MADE_THEM, cluster])?;
        suite.admin.mon(json!({"prefix": "mgr fail"}))?;
        // What sessions hold that were made as another user nobody else takes over.
        let ganeshas = ["ganesha.0", "ganesha.1"];
        for name in ganeshas {
            suite.ceph().daemon(name)?.terminate()?;
        }
        let mds = ["tell", "mds.cephfs:0"];
        let sessions = suite.ceph().ceph(&[&mds[..], &["session", "ls"]].concat())?;
        for session in sessions.as_array().into_iter().flatten() {
            let user = session["auth_name"]["id"].as_str();
            if user.is_some_and(|user| user.starts_with("nfs.")) {
                let id = format!("id={}", session["id"]);
                suite.ceph().ceph(&[&mds[..], &["client", "evict", &id]].concat())?;
            }
        }
        for name in ganeshas {
            suite.ceph().daemon(name)?.start()?;
        }
        soon("the manager to have read them", async || {
            let export = suite.export(changes)?.context("no export")?;
            ensure!(export["fsal"].get("cmount_path").is_none(), "{export}");
            Ok(())
        })
        .await?;
        let mut first = suite.mount_soon(changes, one, Owner::ROOT).await?;
        soon("the end of the grace period", async || first.write("/first", b"in")).await?;

        suite.delete_rule(&ns, "changes-one").await?;
        let refused = [Failure::NotFound, Failure::Denied, Failure::Other];
        fails_soon("a client whose rule is gone", &refused, || {
            first.write("/first", b"too late")
        })
        .await?;
        suite.not_let_in(changes, one).await?;
        suite.mount_soon(changes, two, Owner::ROOT).await?.read("/first")?;

        // Nothing is removed on account of somebody else's, which is told; but nobody is let in.
        suite.forget_share(&ns, "goes").await?;
        let told = suite.until_deletion_waits(goes, &["OutdatedExports"]).await?;
        let why = told.status.and_then(|status| status.last_error).unwrap_or_default();
        ensure!(why.contains("lead nowhere, /theirs,"), "{why}");
        ensure!(suite.export(goes)?.context("no export")?["clients"] == json!([]));
        soon("Ganesha to let nobody in", async || {
            suite.not_let_in(goes, one).await
        })
        .await?;
        let backends = suite.world.cluster_api::<ShareBackend>();
        let stays_told = |backend: &ShareBackend| {
            let status = backend.status.as_ref()?;
            condition(&status.conditions, "ExportsStay").map(|(_, reason)| reason.to_owned())
        };
        until(&backends, "cephfs", "ExportsStay", |backend| {
            stays_told(backend).as_deref() == Some("OutdatedExports")
        })
        .await?;

        // What the page for admins says helps.
        let by_hand = format!(
            "ceph nfs export info {cluster} /theirs --format json > /tmp/export.json
            sed -i 's/\"user_id\": *\"[^\"]*\"/\"cmount_path\": \"\\/\"/' /tmp/export.json
            ceph nfs export apply {cluster} -i /tmp/export.json || true
            ceph nfs export apply {cluster} -i /tmp/export.json"
        );
        suite.ceph().command(&["sh", "-e", "-c", &by_hand])?;
        suite.until_finished(goes).await?;
        suite.mount_soon(stays, one, Owner::ROOT).await?;
        suite.admin.mgr(json!({"prefix": "nfs export rm", "cluster_id": cluster, "pseudo_path": "/theirs"}))?;
        until(&backends, "cephfs", "no ExportsStay", |backend| stays_told(backend).is_none()).await?;
        for name in ["changes", "stays"] {
            suite.delete_share(&ns, name).await?;
        }
        for rule in ["changes-two", "goes-one", "goes-two", "stays-one", "stays-two"] {
            suite.delete_rule(&ns, rule).await?;
        }
        suite.until_consistent().await
    });
}
