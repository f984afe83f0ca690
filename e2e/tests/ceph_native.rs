//! CephFS shares on real Ceph, as ceph-fuse sees them.

#![cfg(test)]
#![allow(clippy::unwrap_used)]

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::{Api, ResourceExt, api::DeleteParams};
use serde_json::json;
use shoal_crds::{LockPhase, ResourceLock, Share, ShareAccessRule};
use shoal_e2e::{
    lab::{
        CephFsMount,
        client::{Failure, Owner},
    },
    storage::{SIZE, Storage, at, cephx_rule, conditions, expect_failure, fails_soon, soon},
    suite::Suite,
    world::{until, until_gone},
};

static SUITE: Suite<Storage> = Suite::new();

const USER: Owner = Owner { uid: 1000, gid: 1000 };

/// The whole life of a share on one file system.
async fn life(suite: &Storage, filesystem: &str) -> Result<()> {
    let ns = suite.world.namespace("native").await?;
    let share_type = format!("on-{filesystem}");
    let share = suite.share(&ns, "life", "CephFS", &share_type).await?;
    let other = suite.share(&ns, "other", "CephFS", &share_type).await?;
    let status = share.status.as_ref().context("no status")?;
    let [location] = status.export_locations.as_slice() else {
        anyhow::bail!("{:?}", status.export_locations)
    };
    let subvolume = suite.subvolume(&share)?.context("no subvolume")?;
    ensure!(subvolume["bytes_quota"] == SIZE, "{subvolume}");
    ensure!(
        subvolume["features"].is_array() && subvolume["pool_namespace"] != "",
        "{subvolume}"
    );
    let monitor = suite.ceph().mon_host();
    let (hosts, path) = location.path.rsplit_once(':').context("no path")?;
    ensure!(
        monitor.contains(hosts) && subvolume["path"] == path,
        "{}",
        location.path
    );
    ensure!(location.metadata.fs_name == filesystem);

    // Who has a key for another share has none for this one.
    let [writer, reader, outsider] =
        ["writer", "reader", "outsider"].map(|who| format!("{who}-{filesystem}"));
    suite
        .rule(&ns, "outsider", cephx_rule("other", &outsider, "ReadWrite"))
        .await?;
    let (_, outsiders) = suite.credentials(&ns, "outsider").await?;
    let refused = suite.mount_native(&share, &outsider, &outsiders, "").map(drop);
    expect_failure("an outsider's mount", Failure::Denied, refused)?;
    drop(suite.mount_native(&other, &outsider, &outsiders, "")?);

    suite
        .rule(&ns, "writer", cephx_rule("life", &writer, "ReadWrite"))
        .await?;
    let (identity, key) = suite.credentials(&ns, "writer").await?;
    ensure!(identity == writer);
    let mount = suite.mount_native(&share, &identity, &key, "")?;
    let mut root = mount.user(Owner::ROOT)?;
    root.mkdir("/below")?;
    root.write("/below/hello", b"native")?;
    expect_failure(
        "a stranger's write",
        Failure::Denied,
        mount.user(USER)?.write("/no", b""),
    )?;

    suite
        .rule(&ns, "reader", cephx_rule("life", &reader, "ReadOnly"))
        .await?;
    let (_, readers) = suite.credentials(&ns, "reader").await?;
    ensure!(readers != key);
    for below in ["", "/below"] {
        let mount = suite.mount_native(&share, &reader, &readers, below)?;
        let mut user = mount.user(Owner::ROOT)?;
        let file = if below.is_empty() {
            "/below/hello"
        } else {
            "/hello"
        };
        ensure!(user.read(file)? == b"native");
        expect_failure("a reader's write", Failure::Denied, user.write("/no", b""))?;
        expect_failure("a reader's removal", Failure::Denied, user.remove(file))?;
    }

    // What clients see of the quota follows it.
    for bytes in [3 << 30, 512 << 20] {
        suite
            .ask_for_share(&ns, "life", "CephFS", &share_type, bytes)
            .await?;
        suite.ready(&ns, "life").await?;
        ensure!(suite.quota(&share)? == Some(bytes));
        soon("df to show the quota", async || {
            let seen = root.size()?;
            ensure!(seen == bytes, "df shows {seen}");
            Ok(())
        })
        .await?;
    }

    suite.delete_share(&ns, "life").await?;
    fails_soon(
        "a client of a share that is gone",
        &[Failure::Evicted, Failure::NotFound, Failure::Denied],
        || root.write("/below/hello", b"no"),
    )
    .await?;
    ensure!(suite.subvolume(&share)?.is_none());
    for identity in [&writer, &reader] {
        ensure!(suite.entity(identity)?.is_none(), "client.{identity} is left");
    }
    ensure!(suite.entity(&outsider)?.is_some());
    Ok(())
}

#[test]
fn a_share_on_the_first_file_system() {
    SUITE.run(Storage::start, async |suite| life(suite, "cephfs").await);
}

#[test]
fn a_share_on_the_second_file_system() {
    SUITE.run(Storage::start, async |suite| life(suite, "second").await);
}

/// Read-write → read-only and removal cut off what is mounted, at the root and below it, and let nobody else feel it.
#[test]
fn who_loses_access_is_cut_off() {
    SUITE.run(Storage::start, async |suite| {
        let ns = suite.world.namespace("cut").await?;
        let share = suite.share(&ns, "s", "CephFS", "standard").await?;
        for who in ["down", "gone", "stays"] {
            suite
                .rule(&ns, who, cephx_rule("s", &format!("cut-{who}"), "ReadWrite"))
                .await?;
        }
        let (_, stays) = suite.credentials(&ns, "stays").await?;
        let witness_mount = suite.mount_native(&share, "cut-stays", &stays, "")?;
        let mut witness = witness_mount.user(Owner::ROOT)?;
        witness.mkdir("/d")?;
        witness.mkdir("/d/e")?;

        let mut mounts = Vec::new();
        for who in ["down", "gone"] {
            let (identity, key) = suite.credentials(&ns, who).await?;
            for below in ["", "/d", "/d/e"] {
                let mount = suite.mount_native(&share, &identity, &key, below)?;
                let mut user = mount.user(Owner::ROOT)?;
                user.write(&format!("/by-{who}"), b"before")?;
                mounts.push((who, below, mount, user));
            }
        }
        let (_, down) = suite.credentials(&ns, "down").await?;
        let (_, gone) = suite.credentials(&ns, "gone").await?;

        suite
            .rule(&ns, "down", cephx_rule("s", "cut-down", "ReadOnly"))
            .await?;
        suite.delete_rule(&ns, "gone").await?;
        // The rules say it is so: from now on not one write gets through.
        for (who, below, _, user) in &mut mounts {
            let what = format!("{who} at '{below}'");
            for _ in 0..3 {
                let outcome = user.write(&format!("/by-{who}-after"), b"after");
                ensure!(outcome.is_err(), "{what} went on writing");
            }
        }
        let names = witness.list("/")?;
        ensure!(names == ["by-down", "by-gone", "d"], "{names:?}");
        witness.write("/d/witness", b"not hindered")?;

        let mount = suite.mount_native(&share, "cut-down", &down, "/d")?;
        let mut user = mount.user(Owner::ROOT)?;
        ensure!(user.read("/witness")? == b"not hindered");
        expect_failure(
            "a downgraded identity's write",
            Failure::Denied,
            user.write("/no", b""),
        )?;
        for below in ["", "/d"] {
            let refused = suite.mount_native(&share, "cut-gone", &gone, below).map(drop);
            expect_failure("a removed identity's mount", Failure::Denied, refused)?;
        }
        until_gone(&suite.world.api::<Secret>(&ns), "gone-cephx").await?;

        // And up again.
        suite
            .rule(&ns, "down", cephx_rule("s", "cut-down", "ReadWrite"))
            .await?;
        let mount = suite.mount_native(&share, "cut-down", &down, "")?;
        mount.user(Owner::ROOT)?.write("/up", b"again")?;
        ensure!(
            suite.credentials(&ns, "down").await?.1 == down,
            "the key has changed"
        );
        Ok(())
    });
}

/// Ceph says "no such identity" of one whose own file it has lost; its key opens the share as before.
#[test]
fn an_identity_that_ceph_forgot_is_not_taken_for_gone() {
    SUITE.run(Storage::start, async |suite| {
        let _alone = suite.alone().await;
        let ns = suite.world.namespace("forgot").await?;
        let share = suite.share(&ns, "s", "CephFS", "standard").await?;
        suite
            .rule(&ns, "r", cephx_rule("s", "forgotten", "ReadWrite"))
            .await?;
        let (identity, key) = suite.credentials(&ns, "r").await?;
        let admin = suite
            .admin
            .mon(json!({"prefix": "auth get-key", "entity": "client.admin"}))?;
        let admin = admin["key"].as_str().context("no key")?.to_owned();
        let filesystem = share.status.as_ref().unwrap().export_locations[0]
            .metadata
            .fs_name
            .clone();
        {
            let whole = tokio::task::block_in_place(|| {
                CephFsMount::mount(suite.ceph(), "admin", &admin, &filesystem, "/")
            })?;
            whole.user(Owner::ROOT)?.remove("/volumes/$forgotten.meta")?;
        }
        let rules = suite.world.api::<ShareAccessRule>(&ns);
        rules.delete("r", &DeleteParams::default()).await?;
        let told = |share: &Share| {
            let mut told = conditions(share).iter();
            told.any(|c| c.message.contains("'forgotten'") && c.message.contains("--allow-existing-id"))
        };
        until(&suite.world.api::<Share>(&ns), "s", "told what to do", told).await?;
        ensure!(rules.get_opt("r").await?.is_some(), "it said that access is gone");
        let namespaces = Api::<Namespace>::all(suite.world.client.clone());
        let tenant = namespaces.get(&ns).await?.metadata.uid.context("no uid")?;
        let mut once_more = at(&share, "fs subvolume authorize");
        once_more["auth_id"] = "forgotten".into();
        once_more["tenant_id"] = tenant.into();
        once_more["allow_existing_id"] = true.into();
        suite.admin.mgr(once_more)?;
        until_gone(&rules, "r").await?;
        let refused = suite.mount_native(&share, &identity, &key, "").map(drop);
        expect_failure("a removed identity's mount", Failure::Denied, refused)
    });
}

#[test]
fn whoever_owns_the_root_writes() {
    SUITE.run(Storage::start, async |suite| {
        let ns = suite.world.namespace("team").await?;
        let share = suite.share(&ns, "team", "CephFS", "team").await?;
        suite
            .rule(&ns, "any", cephx_rule("team", "", "ReadWrite"))
            .await?;
        let (identity, key) = suite.credentials(&ns, "any").await?;
        let mount = suite.mount_native(&share, &identity, &key, "")?;
        let mut user = mount.user(USER)?;
        user.mkdir("/folder")?;
        user.write("/folder/note", b"not root")?;
        expect_failure(
            "a stranger's write",
            Failure::Denied,
            mount.user(Owner { uid: 4711, gid: 4711 })?.write("/no", b""),
        )?;
        mount
            .user(Owner { uid: 4712, gid: 1000 })?
            .write("/mate", b"of the group")?;
        Ok(())
    });
}

/// What others may have read opens nothing any more once the key is hidden, and nobody is cut off when it is shown again.
#[test]
fn who_has_the_key_of_before_is_cut_off_when_it_is_hidden() {
    SUITE.run(Storage::start, async |suite| {
        let ns = suite.world.namespace("hidden").await?;
        let share = suite.share(&ns, "s", "CephFS", "standard").await?;
        suite.rule(&ns, "one", cephx_rule("s", "", "ReadWrite")).await?;
        let (identity, key) = suite.credentials(&ns, "one").await?;
        let mount = suite.mount_native(&share, &identity, &key, "")?;
        let mut user = mount.user(Owner::ROOT)?;
        user.write("/note", b"before")?;

        let lock = json!({
            "apiVersion": "shoal.storage/v1alpha1", "kind": "ResourceLock", "metadata": {"namespace": ns, "name": "hide"},
            "spec": {
                "resourceRef": {"kind": "ShareAccessRule", "name": "one"}, "action": "Show", "owner": "alice",
            },
        });
        suite.world.apply(&lock).await?;
        let locks = suite.world.api::<ResourceLock>(&ns);
        until(&locks, "hide", "Enforced", |lock: &ResourceLock| {
            lock.status.as_ref().and_then(|status| status.phase) == Some(LockPhase::Enforced)
        })
        .await?;
        ensure!(user.write("/note", b"after").is_err(), "it goes on writing");
        let refused = suite.mount_native(&share, &identity, &key, "").map(drop);
        expect_failure("a mount with the old key", Failure::Denied, refused)?;
        ensure!(suite.entity(&identity)?.is_none(), "client.{identity} is left");
        let (hidden, new) = suite.credentials(&ns, "one").await?;
        ensure!(hidden != identity && new != key);
        let mount = suite.mount_native(&share, &hidden, &new, "")?;
        let mut user = mount.user(Owner::ROOT)?;
        ensure!(user.read("/note")? == b"before");

        locks.delete("hide", &kube::api::DeleteParams::default()).await?;
        let secrets = suite.world.api::<Secret>(&ns);
        soon("the same key to be shown again", async || {
            let shown = suite.credentials(&ns, "one").await?;
            ensure!((&shown.0, &shown.1) == (&hidden, &new), "another key");
            Ok(secrets.get("one-cephx").await?)
        })
        .await?;
        user.write("/note", b"still there")?;
        Ok(())
    });
}

#[test]
fn an_identity_is_made_when_none_is_named() {
    SUITE.run(Storage::start, async |suite| {
        let ns = suite.world.namespace("made").await?;
        let share = suite.share(&ns, "s", "CephFS", "standard").await?;
        suite.rule(&ns, "one", cephx_rule("s", "", "ReadWrite")).await?;
        let mut rule = cephx_rule("s", "", "ReadOnly");
        rule["credentialsSecretName"] = "reads".into();
        let rule = suite.rule(&ns, "two", rule).await?;
        let (one, one_key) = suite.credentials(&ns, "one").await?;
        let (two, two_key) = suite.credentials(&ns, "two").await?;
        ensure!(one != two && one_key != two_key);
        ensure!(two == format!("shoal-{}", rule.uid().context("no uid")?));
        let status = rule.status.context("no status")?;
        ensure!(status.credentials_secret_ref.context("no Secret")?.name == "reads");
        suite
            .mount_native(&share, &one, &one_key, "")?
            .user(Owner::ROOT)?
            .write("/note", b"x")?;
        let mount = suite.mount_native(&share, &two, &two_key, "")?;
        ensure!(mount.user(Owner::ROOT)?.read("/note")? == b"x");

        // A Secret that was deleted comes back, with the same key.
        suite
            .world
            .api::<Secret>(&ns)
            .delete("reads", &kube::api::DeleteParams::default())
            .await?;
        let key = soon("the Secret to be written again", async || {
            suite.credentials(&ns, "two").await
        })
        .await?;
        ensure!(key == (two, two_key), "another key");
        Ok(())
    });
}

#[test]
fn what_is_not_to_be_had_is_refused() {
    SUITE.run(Storage::start, async |suite| {
        let ns = suite.world.namespace("refused").await?;
        suite.share(&ns, "s", "CephFS", "standard").await?;
        let own = suite.ceph().user_id();
        let before = suite.entity(own)?;
        suite.world.rule(&ns, "own", cephx_rule("s", own, "ReadWrite")).await?;
        suite.refused(&ns, "own", "IdentityReserved").await?;
        ensure!(suite.entity(own)? == before, "the operator's own user was touched");
        for reserved in ["admin", "mgr"] {
            let denied = suite.world.rule(&ns, "reserved", cephx_rule("s", reserved, "ReadWrite")).await;
            ensure!(denied.is_err(), "'{reserved}' was admitted");
        }

        // One that the cluster's admin made is not Shoal's to give.
        let made = serde_json::json!({"prefix": "auth get-or-create", "entity": "client.made-by-hand", "caps": ["mon", "allow r"]});
        suite.admin.mon(made)?;
        let before = suite.entity("made-by-hand")?.context("not made")?;
        suite.world.rule(&ns, "foreign", cephx_rule("s", "made-by-hand", "ReadWrite")).await?;
        suite.refused(&ns, "foreign", "IdentityNotAvailable").await?;
        ensure!(suite.entity("made-by-hand")?.as_ref() == Some(&before), "it was touched");
        ensure!(suite.world.api::<Secret>(&ns).get_opt("foreign-cephx").await?.is_none());

        // A Secret that Shoal did not make is not overwritten.
        let theirs = serde_json::json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": ns, "name": "taken-cephx"},
            "stringData": {"userKey": "theirs"},
        });
        suite.world.apply(&theirs).await?;
        suite.world.rule(&ns, "taken", cephx_rule("s", "", "ReadWrite")).await?;
        suite.refused(&ns, "taken", "SecretNotOurs").await?;
        let kept = suite.world.api::<Secret>(&ns).get("taken-cephx").await?;
        ensure!(kept.data.context("no data")?["userKey"].0 == b"theirs");
        suite.world.api::<Secret>(&ns).delete("taken-cephx", &kube::api::DeleteParams::default()).await?;
        suite.active(&ns, "taken").await?;

        // And a good one beside all these.
        suite.rule(&ns, "good", cephx_rule("s", "", "ReadWrite")).await?;
        let rules = suite.world.api::<ShareAccessRule>(&ns);
        until(&rules, "foreign", "still refused", |rule| rule.status.is_some()).await?;
        Ok(())
    });
}
