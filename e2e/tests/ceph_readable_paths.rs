//! Shares that are found under names of their own, and what users say of shares, on real Ceph.

#![cfg(test)]
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use shoal_crds::Share;
use shoal_e2e::{
    lab::client::Owner,
    storage::{SIZE, Storage, conditions, ip_rule},
    suite::Suite,
    world::{PATIENCE, condition, eventually},
};

static SUITE: Suite<Storage> = Suite::new();

/// Makes a type whose shares are found under what they ask for, and nothing before it.
async fn add_type(suite: &Storage) -> Result<()> {
    let spec =
        json!({"backendNames": ["cephfs", "second"], "mountPointName": {"enabled": true, "prefix": ""}});
    suite.world.add_type("readable", spec, false).await
}

async fn ask(suite: &Storage, ns: &str, share: &str, name: &str) -> Result<()> {
    let spec = json!({
        "protocol": "NFS", "shareTypeName": "readable", "size": SIZE.to_string(), "mountPointName": name,
    });
    suite.world.share(ns, share, spec).await?;
    Ok(())
}

fn why(share: &Share) -> String {
    let ready = conditions(share).iter().find(|c| c.type_ == "Ready");
    ready.map(|c| c.message.clone()).unwrap_or_default()
}

/// Clients mount what was asked for, beside paths that begin alike, and a file written there is of that share.
#[test]
fn a_client_mounts_by_name() {
    SUITE.run(Storage::start, async |suite| {
        add_type(suite).await?;
        let ns = suite.world.namespace("readable").await?;
        let client = "127.94.0.1".parse()?;
        for name in ["data", "data-2", "Data_3"] {
            let share = name.to_lowercase().replace('_', "-");
            ask(suite, &ns, &share, name).await?;
            suite
                .world
                .rule(&ns, &share, ip_rule(&share, "127.94.0.1", "ReadWrite"))
                .await?;
            let ready = suite.ready(&ns, &share).await?;
            for location in &ready.status.as_ref().context("no status")?.export_locations {
                ensure!(location.path.ends_with(&format!(":/{name}")), "{location:?}");
            }
            ensure!(suite.export(&ready)?.context("no export")?["pseudo"] == format!("/{name}"));
            suite.active(&ns, &share).await?;
            let mut mounted = suite.mount_soon(&ready, client, Owner::ROOT).await?;
            shoal_e2e::storage::soon("the end of the grace period", async || {
                mounted.write("/whose", name.as_bytes())
            })
            .await?;
        }
        for name in ["data", "data-2", "data-3"] {
            let share = suite.ready(&ns, name).await?;
            let mut mounted = suite.mount(&share, client, Owner::ROOT).await?;
            let written = mounted.read("/whose")?;
            ensure!(String::from_utf8(written)?.to_lowercase().replace('_', "-") == name);
            suite.delete_share(&ns, name).await?;
            ensure!(suite.export(&share)?.is_none(), "the export of {name} is left");
        }
        Ok(())
    });
}

/// Two namespaces, on two file systems of one NFS cluster, want one path.
#[test]
fn of_two_namespaces_one_gets_a_path_and_the_other_when_it_is_free() {
    SUITE.run(Storage::start, async |suite| {
        add_type(suite).await?;
        let namespaces = [
            suite.world.namespace("race").await?,
            suite.world.namespace("race").await?,
        ];
        let [first, second] = &namespaces;
        tokio::try_join!(ask(suite, first, "s", "prize"), ask(suite, second, "s", "prize"))?;
        let winner = eventually("the race to be decided", PATIENCE, async || {
            let mut reasons = Vec::new();
            for ns in &namespaces {
                let share = suite.world.api::<Share>(ns).get("s").await?;
                reasons.push(condition(conditions(&share), "Ready").map(|(_, reason)| reason.to_owned()));
            }
            Ok(match [reasons[0].as_deref(), reasons[1].as_deref()] {
                [Some("Available"), Some("MountPointNameTaken")] => Some(0),
                [Some("MountPointNameTaken"), Some("Available")] => Some(1),
                _ => None,
            })
        })
        .await?;
        let (winner, loser) = (&namespaces[winner], &namespaces[1 - winner]);
        let lost = suite.world.api::<Share>(loser).get("s").await?;
        ensure!(
            why(&lost).contains("'prize' is taken") && !why(&lost).contains(winner.as_str()),
            "{}",
            why(&lost)
        );
        ensure!(
            suite.subvolume(&lost)?.is_none(),
            "it was made before it had its path"
        );
        let client = "127.94.0.2".parse()?;
        suite
            .world
            .rule(loser, "r", ip_rule("s", "127.94.0.2", "ReadWrite"))
            .await?;
        suite.delete_share(winner, "s").await?;
        let share = suite.ready(loser, "s").await?;
        suite.active(loser, "r").await?;
        suite.mount_soon(&share, client, Owner::ROOT).await?;
        ensure!(suite.export(&share)?.context("no export")?["pseudo"] == "/prize");
        suite.delete_share(loser, "s").await
    });
}

#[test]
fn anothers_export_under_the_name_is_left_alone() {
    SUITE.run(Storage::start, async |suite| {
        add_type(suite).await?;
        let ns = suite.world.namespace("foreign").await?;
        let other = suite.share(&ns, "other", "NFS", "on-cephfs").await?;
        let path = suite.subvolume(&other)?.context("no subvolume")?["path"].clone();
        suite.apply_export(&json!({
            "pseudo": "/foreign", "path": path, "access_type": "none", "squash": "none",
            "security_label": false, "protocols": [4], "transports": ["TCP"],
            "fsal": {"name": "CEPH", "fs_name": "cephfs"}, "clients": [],
        }))?;
        ask(suite, &ns, "s", "foreign").await?;
        let told = suite.until_share(&ns, "s", "False", "ExportPathTaken").await?;
        ensure!(
            why(&told).contains("/foreign is exported by somebody else") && !why(&told).contains("/volumes"),
            "{}",
            why(&told)
        );
        let there = suite.export(&told)?.context("it is gone")?;
        ensure!(
            there["path"] == path && there["clients"] == json!([]),
            "it was touched: {there}"
        );
        suite.delete_share(&ns, "s").await?;
        ensure!(
            suite.export(&told)?.as_ref() == Some(&there),
            "it went with the share"
        );
        suite.admin.mgr(json!({
            "prefix": "nfs export rm", "cluster_id": suite.ceph().nfs_cluster(), "pseudo_path": "/foreign",
        }))?;
        suite.delete_share(&ns, "other").await
    });
}

/// Whatever users say, Ceph keeps it as it is, and the tag beside it.
#[test]
fn what_users_say_can_be_read_at_the_subvolume() {
    SUITE.run(Storage::start, async |suite| {
        let ns = suite.world.namespace("said").await?;
        let share = suite.share(&ns, "s", "CephFS", "on-cephfs").await?;
        let tag = suite.metadata(&share)?["shoal.storage/owner"].clone();
        ensure!(
            suite.metadata(&share)?.as_object().is_some_and(|kept| kept.len() == 1),
            "{}",
            suite.metadata(&share)?
        );
        let worst: BTreeMap<String, String> = (0..32)
            .map(|n| (format!("{n}{}", "%".repeat(253)), "\u{1f41f}".repeat(1023)))
            .collect();
        for said in [
            json!({"team": "blue"}),
            json!({"Team": "Blue", "team": "blue", "TEAM": "%(owner)s 100%"}),
            json!({"[GLOBAL]": "[x]\n[GLOBAL]\nversion = 9", "a = b": "# c ; d: e", " ": "\r\n\t\u{7f} \\n \""}),
            serde_json::to_value(&worst)?,
            json!({"shoal": "\u{e4}\u{4e2d}"}),
        ] {
            let mut spec = json!({"metadata": said});
            // Keys of before are to go.
            let now = suite.world.api::<Share>(&ns).get("s").await?;
            for key in now.spec.metadata.keys().filter(|key| said.get(key.as_str()).is_none()) {
                spec["metadata"][key] = Value::Null;
            }
            let patch = kube::api::Patch::Merge(json!({"spec": spec}));
            suite
                .world
                .api::<Share>(&ns)
                .patch("s", &kube::api::PatchParams::default(), &patch)
                .await?;
            suite.ready(&ns, "s").await?;
            let kept = suite.metadata(&share)?;
            let text = kept["shoal.storage/metadata"].as_str().context("nothing is kept")?;
            ensure!(serde_json::from_str::<Value>(text)? == said, "kept is {text}");
            ensure!(kept["shoal.storage/owner"] == tag, "{kept}");
        }
        let patch = kube::api::Patch::Merge(json!({"spec": {"metadata": null}}));
        suite
            .world
            .api::<Share>(&ns)
            .patch("s", &kube::api::PatchParams::default(), &patch)
            .await?;
        suite.ready(&ns, "s").await?;
        ensure!(suite.metadata(&share)? == json!({"shoal.storage/owner": tag}));
        suite.delete_share(&ns, "s").await
    });
}
