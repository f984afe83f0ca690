//! Backends that are not what their ShareBackend says: the reason is told, and they work once it is put right.

#![cfg(test)]
#![allow(clippy::unwrap_used)]

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use shoal_crds::{Share, ShareBackend};
use shoal_e2e::{
    storage::{SIZE, Storage},
    suite::Suite,
    world::{CONNECTION_SECRET, SYSTEM_NAMESPACE, until, until_gone},
};

static SUITE: Suite<Storage> = Suite::new();

/// Makes or changes the Secret of a backend.
async fn secret(suite: &Storage, name: &str, mon_host: &str, user: &str, key: &str) -> Result<()> {
    suite
        .world
        .apply(&json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": SYSTEM_NAMESPACE, "name": name},
            "stringData": {"monHost": mon_host, "userID": user, "userKey": key},
        }))
        .await?;
    Ok(())
}

/// Makes or changes a backend with the Secret of its name.
async fn backend(suite: &Storage, name: &str, ceph: Value) -> Result<()> {
    let mut spec =
        json!({"connectionSecretRef": {"namespace": SYSTEM_NAMESPACE, "name": name}, "filesystem": "cephfs"});
    for (key, value) in ceph.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    suite
        .world
        .apply(&json!({
            "apiVersion": "shoal.storage/v1alpha1", "kind": "ShareBackend", "metadata": {"name": name},
            "spec": {"ceph": spec},
        }))
        .await?;
    Ok(())
}

/// Waits until the backend tells the reason with these words in it, and returns all words.
async fn told(suite: &Storage, name: &str, reason: &str, words: &str) -> Result<String> {
    let api = suite.world.cluster_api::<ShareBackend>();
    let ready = |backend: &ShareBackend| {
        let conditions = backend
            .status
            .as_ref()
            .map(|s| s.conditions.clone())
            .unwrap_or_default();
        conditions.into_iter().find(|c| c.type_ == "Ready")
    };
    let wanted = |backend: &ShareBackend| {
        ready(backend).is_some_and(|c| c.status == "False" && c.reason == reason && c.message.contains(words))
    };
    let backend = until(&api, name, &format!("{reason}: {words}"), wanted).await?;
    let message = ready(&backend).context("no Ready")?.message;
    println!("{name}: {reason}: {message}");
    ensure!(
        !message.contains(suite.ceph().user_key()),
        "the key is in the message"
    );
    Ok(message)
}

/// A share can be made on it.
async fn works(suite: &Storage, name: &str) -> Result<()> {
    suite.until_backend(name, "True", "Available").await?;
    suite
        .world
        .add_type(&format!("on-{name}"), json!({"backendNames": [name]}), false)
        .await?;
    let ns = suite.world.namespace(name).await?;
    suite.share(&ns, "s", "CephFS", &format!("on-{name}")).await?;
    suite.delete_share(&ns, "s").await
}

#[test]
fn credentials() {
    SUITE.run(Storage::start, async |suite| {
        let ceph = suite.ceph();
        let (mon_host, user, key) = (ceph.mon_host(), ceph.user_id(), ceph.user_key());
        let name = "credentials";
        backend(suite, name, json!({})).await?;
        let message = told(suite, name, "SecretNotFound", "monHost").await?;
        ensure!(message.contains(name) && message.contains("monHost"), "{message}");

        // Somebody else's key, of the same kind.
        let other = suite.admin.mon(
            json!({"prefix": "auth get-or-create", "entity": "client.other", "caps": ["mon", "allow r"]}),
        )?;
        let other = other[0]["key"].as_str().context("no key")?.to_owned();
        secret(suite, name, mon_host, user, &other).await?;
        let message = told(suite, name, "BackendCredentialsRefused", user).await?;
        ensure!(message.contains(user) && !message.contains(&other), "{message}");
        secret(suite, name, mon_host, "nobody-knows-me", key).await?;
        let message = told(suite, name, "BackendCredentialsRefused", "nobody-knows-me").await?;
        ensure!(message.contains("nobody-knows-me"), "{message}");
        // What is no key at all, the second one in a key's clothes. In between, a key.
        for garbage in ["no key at all", "dGhpcyBpcyBhIHRleHQsIGFuZCBpcyBubyBrZXku"] {
            secret(suite, name, "no-such-host.invalid", user, key).await?;
            told(suite, name, "BackendUnreachable", "no-such-host.invalid").await?;
            secret(suite, name, mon_host, user, garbage).await?;
            let message = told(suite, name, "BackendCredentialsRefused", "userKey").await?;
            ensure!(!message.contains(garbage), "{message}");
        }
        secret(suite, name, mon_host, user, "").await?;
        told(suite, name, "SecretNotFound", "userKey").await?;

        // Put right; and wrong once more while it is in use.
        secret(suite, name, mon_host, user, key).await?;
        works(suite, name).await?;
        secret(suite, name, mon_host, user, &other).await?;
        told(suite, name, "BackendCredentialsRefused", user).await?;
        secret(suite, name, mon_host, user, key).await?;
        works(suite, name).await
    });
}

#[test]
fn monitors() {
    SUITE.run(Storage::start, async |suite| {
        let ceph = suite.ceph();
        let (user, key) = (ceph.user_id(), ceph.user_key());
        let name = "monitors";
        // Nobody listens there.
        let nobody = format!("[v2:{0}:3300,v1:{0}:6789]", ceph.client_address(9)?);
        secret(suite, name, &nobody, user, key).await?;
        backend(suite, name, json!({})).await?;
        let message = told(suite, name, "BackendUnreachable", &nobody).await?;
        ensure!(message.contains(&nobody), "{message}");
        for wrong in ["no-such-host.invalid", "[v2:"] {
            secret(suite, name, wrong, user, key).await?;
            told(suite, name, "BackendUnreachable", wrong).await?;
        }
        secret(suite, name, ceph.mon_host(), user, key).await?;
        works(suite, name).await
    });
}

#[test]
fn file_systems() {
    SUITE.run(Storage::start, async |suite| {
        let ceph = suite.ceph();
        let name = "third";
        secret(suite, name, ceph.mon_host(), ceph.user_id(), ceph.user_key()).await?;
        backend(suite, name, json!({"filesystem": "third"})).await?;
        let message = told(suite, name, "FileSystemNotFound", "'third'").await?;
        ensure!(message.contains("'third'"), "{message}");
        for pool in ["third.meta", "third.data"] {
            suite
                .admin
                .mon(json!({"prefix": "osd pool create", "pool": pool, "pg_num": 8}))?;
        }
        let new =
            json!({"prefix": "fs new", "fs_name": "third", "metadata": "third.meta", "data": "third.data"});
        suite.admin.mon(new)?;
        works(suite, name).await
    });
}

/// What is published of a share says on which file system it is.
fn is_on(share: &Share, filesystem: &str) -> Result<()> {
    let locations = &share.status.as_ref().context("no status")?.export_locations;
    ensure!(
        !locations.is_empty() && locations.iter().all(|l| l.metadata.fs_name == filesystem),
        "{locations:?}"
    );
    let annotations = share.metadata.annotations.clone().unwrap_or_default();
    ensure!(
        annotations["shoal.storage/fs-name"] == filesystem
            && annotations["shoal.storage/mount-options"] == format!("fs={filesystem}"),
        "{annotations:?}"
    );
    Ok(())
}

/// A file system comes and goes, with its backend, while the operator runs and the shares of others are in use. All backends
/// have one connection, for they name one Secret.
#[test]
fn a_file_system_comes_and_goes() {
    SUITE.run(Storage::start, async |suite| {
        let ns = suite.world.namespace("several").await?;
        let there = suite.share(&ns, "there", "NFS", "on-cephfs").await?;
        is_on(&there, "cephfs")?;
        for pool in ["fourth.meta", "fourth.data"] {
            suite
                .admin
                .mon(json!({"prefix": "osd pool create", "pool": pool, "pg_num": 8}))?;
        }
        suite.admin.mon(json!({
            "prefix": "fs new", "fs_name": "fourth", "metadata": "fourth.meta", "data": "fourth.data",
        }))?;
        let ceph = suite.ceph();
        let endpoints: Vec<String> = ceph.nfs_endpoints().iter().map(ToString::to_string).collect();
        let spec = json!({
            "connectionSecretRef": {"namespace": SYSTEM_NAMESPACE, "name": CONNECTION_SECRET},
            "filesystem": "fourth", "nfs": {"clusterID": ceph.nfs_cluster(), "endpoints": endpoints},
        });
        backend(suite, "fourth", spec).await?;
        suite.until_backend("fourth", "True", "Available").await?;
        suite
            .world
            .add_type("on-fourth", json!({"backendNames": ["fourth"]}), false)
            .await?;
        for (name, protocol) in [("n", "NFS"), ("c", "CephFS")] {
            is_on(&suite.share(&ns, name, protocol, "on-fourth").await?, "fourth")?;
        }
        let backends = suite.world.cluster_api::<ShareBackend>();
        backends
            .delete("fourth", &kube::api::DeleteParams::default())
            .await?;
        for name in ["n", "c"] {
            suite.delete_share(&ns, name).await?;
        }
        until_gone(&backends, "fourth").await?;
        suite
            .admin
            .mon(json!({"prefix": "fs fail", "fs_name": "fourth"}))?;
        suite
            .admin
            .mon(json!({"prefix": "fs rm", "fs_name": "fourth", "yes_i_really_mean_it": true}))?;
        is_on(&suite.ready(&ns, "there").await?, "cephfs")?;
        is_on(&suite.share(&ns, "later", "NFS", "on-second").await?, "second")?;
        for name in ["there", "later"] {
            suite.delete_share(&ns, name).await?;
        }
        Ok(())
    });
}

#[test]
fn nfs_clusters() {
    SUITE.run(Storage::start, async |suite| {
        let ceph = suite.ceph();
        let name = "late";
        secret(suite, name, ceph.mon_host(), ceph.user_id(), ceph.user_key()).await?;
        backend(suite, name, json!({"nfs": {"clusterID": "late"}})).await?;
        let message = told(suite, name, "NFSClusterNotFound", "'late'").await?;
        ensure!(message.contains("'late'"), "{message}");
        ceph.command(&["rados", "-p", ".nfs", "-N", "late", "create", "conf-nfs.late"])?;
        let message = told(suite, name, "NFSEndpointsUnknown", "spec.ceph.nfs.endpoints").await?;
        ensure!(message.contains("spec.ceph.nfs.endpoints"), "{message}");
        backend(
            suite,
            name,
            json!({"nfs": {"clusterID": "late", "endpoints": ["nfs.example", "[fd00::1]:12049"]}}),
        )
        .await?;
        suite.until_backend(name, "True", "Available").await?;
        suite
            .world
            .add_type("on-late", json!({"backendNames": ["late"]}), false)
            .await?;
        let ns = suite.world.namespace("late").await?;
        let share = suite.share(&ns, "s", "NFS", "on-late").await?;
        let locations = share.status.context("no status")?.export_locations;
        ensure!(
            locations[0].path.starts_with("nfs.example:/shoal-"),
            "{locations:?}"
        );
        ensure!(
            locations[1].path.starts_with("[fd00::1]:12049:/shoal-"),
            "{locations:?}"
        );
        suite.delete_share(&ns, "s").await
    });
}

/// A user that may ask, and not do.
#[test]
fn too_few_rights() {
    SUITE.run(Storage::start, async |suite| {
        let name = "poor";
        let poor =
            json!({"prefix": "auth get-or-create", "entity": "client.poor", "caps": ["mon", "allow r"]});
        let poor = suite.admin.mon(poor)?;
        let key = poor[0]["key"].as_str().context("no key")?.to_owned();
        secret(suite, name, suite.ceph().mon_host(), "poor", &key).await?;
        backend(suite, name, json!({})).await?;
        suite
            .world
            .add_type("on-poor", json!({"backendNames": [name]}), false)
            .await?;
        let ns = suite.world.namespace(name).await?;
        suite.ask_for_share(&ns, "s", "CephFS", "on-poor", SIZE).await?;
        let api = suite.world.api::<shoal_crds::Share>(&ns);
        let told = shoal_e2e::world::until(&api, "s", "a reason", |share| {
            shoal_e2e::storage::conditions(share)
                .iter()
                .any(|c| c.type_ == "Ready" && c.status == "False" && c.reason != "Creating")
        })
        .await?;
        for condition in shoal_e2e::storage::conditions(&told) {
            println!(
                "{}: {} {}: {}",
                condition.type_, condition.status, condition.reason, condition.message
            );
            ensure!(!condition.message.contains(&key), "the key is in the message");
        }
        let enough: Vec<_> = shoal_ceph::capabilities()
            .into_iter()
            .flat_map(|(daemon, caps)| [daemon.to_owned(), caps])
            .collect();
        let caps = json!({"prefix": "auth caps", "entity": "client.poor", "caps": enough});
        suite.admin.mon(caps)?;
        suite.ready(&ns, "s").await?;
        suite.delete_share(&ns, "s").await
    });
}
