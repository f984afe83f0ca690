//! The stories in `examples/`, on a real API server; simulated backends stand in for the Ceph that they name.

#![cfg(test)]
#![allow(clippy::unwrap_used)]

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use shoal_crds::{
    DeletionPhase, LockPhase, ResourceLock, Share, ShareAccessRule, ShareBackend, ShareDeletion,
    names::LOCKED_BY,
};
use shoal_domain::share_deletion;
use shoal_e2e::{
    lab::KubernetesRelease,
    simulated_storage::{BACKEND, SimulatedStorage, message},
    suite::Suite,
    world::{SYSTEM_NAMESPACE, condition, until, until_gone},
};

static SUITE: Suite<SimulatedStorage> = Suite::new();

fn run<S: Future<Output = Result<()>>>(scenario: impl FnOnce(&'static SimulatedStorage) -> S) {
    SUITE.run(|| SimulatedStorage::start(KubernetesRelease::V1_37), scenario);
}

/// Applies a file of `examples/`.
async fn apply(s: &SimulatedStorage, file: &str) -> Result<()> {
    apply_with(s, file, &[]).await
}

/// The same, with what the reader has to put in.
async fn apply_with(s: &SimulatedStorage, file: &str, words: &[(&str, &str)]) -> Result<()> {
    for document in read(file, words)? {
        s.world.apply(&document).await.with_context(|| file.to_owned())?;
    }
    Ok(())
}

/// The documents of a file of `examples/`.
fn read(file: &str, words: &[(&str, &str)]) -> Result<Vec<Value>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../examples")
        .join(file);
    let mut text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    for (word, value) in words {
        text = text.replace(word, value);
    }
    let mut documents = serde_saphyr::from_multiple::<Value>(&text)?;
    for document in &mut documents {
        if document["kind"] == "ShareBackend" {
            let spec = document["spec"].as_object_mut().context("a spec")?;
            ensure!(spec.remove("ceph").is_some(), "{file} is about Ceph");
            spec.insert("simulated".into(), json!({"capacity": "1Ti"}));
        }
    }
    Ok(documents)
}

async fn is_on(s: &SimulatedStorage, namespace: &str, share: &str, backend: &str) -> Result<()> {
    let ready = s.until_share(namespace, share, "True", "Available").await?;
    let on = ready.status.unwrap().backend_name;
    ensure!(
        on.as_deref() == Some(backend),
        "{share} is on {on:?}, not on {backend}"
    );
    Ok(())
}

#[test]
fn two_tiers_and_draining() {
    run(|s| async move {
        apply(s, "two-tiers/backends.yaml").await?;
        apply(s, "two-tiers/shares.yaml").await?;
        is_on(s, "research", "experiments", "flash").await?;
        is_on(s, "research", "results", "disks").await?;

        apply(s, "draining/disabled.yaml").await?;
        for backend in ["disks", "new-disks"] {
            s.until_backend(backend, "True", "Available").await?;
        }
        let more = json!({"protocol": "NFS", "size": "1Gi", "shareTypeName": "large"});
        s.world.share("research", "more-results", more).await?;
        is_on(s, "research", "more-results", "new-disks").await?;
        s.change_share("research", "results", json!({"size": "200Gi"}))
            .await?;
        is_on(s, "research", "results", "disks").await?;

        let backends = s.world.cluster_api::<ShareBackend>();
        backends.delete("disks", &DeleteParams::default()).await?;
        let leaving = until(&backends, "disks", "waiting", |backend: &ShareBackend| {
            let conditions = backend.status.as_ref().map_or(&[][..], |s| &s.conditions);
            condition(conditions, "DeletionBlocked") == Some(("True", "HasShares"))
        })
        .await?;
        let told =
            message(&leaving.status.as_ref().unwrap().conditions, "DeletionBlocked").unwrap_or_default();
        ensure!(told.contains("research/results"), "{told}");
        s.delete_share("research", "results").await?;
        until_gone(&backends, "disks").await?;
        s.clear("research").await
    });
}

/// It is found under this path.
async fn is_found_under(s: &SimulatedStorage, namespace: &str, share: &str, path: &str) -> Result<()> {
    let ready = s.until_share(namespace, share, "True", "Available").await?;
    let locations = ready.status.unwrap().export_locations;
    ensure!(
        !locations.is_empty() && locations.iter().all(|l| l.path.ends_with(&format!(":{path}"))),
        "{locations:?}"
    );
    Ok(())
}

#[test]
fn readable_paths() {
    run(|s| async move {
        // Those of other stories come and go, and each is a storage of its own.
        for mut document in read("readable-paths/types.yaml", &[])? {
            document["spec"]["backendNames"] = json!([BACKEND]);
            s.world.apply(&document).await?;
        }
        apply(s, "readable-paths/shares.yaml").await?;
        is_found_under(s, "geology", "home", "/geology-home").await?;
        is_found_under(s, "botany", "home", "/botany-home").await?;
        is_found_under(s, "geology", "maps", "/maps").await?;
        apply(s, "readable-paths/taken.yaml").await?;
        s.until_share("botany", "maps", "False", "MountPointNameTaken")
            .await?;
        s.delete_share("geology", "maps").await?;
        is_found_under(s, "botany", "maps", "/maps").await?;
        s.clear("geology").await?;
        s.clear("botany").await
    });
}

#[test]
fn two_file_systems() {
    run(|s| async move {
        apply(s, "two-file-systems/backends.yaml").await?;
        apply(s, "two-file-systems/shares.yaml").await?;
        for (name, filesystem) in [("drafts", "projects"), ("letters", "archive")] {
            is_on(s, "history", name, filesystem).await?;
            let share = s.world.api::<Share>("history").get(name).await?;
            let annotations = share.annotations().clone();
            ensure!(
                annotations["shoal.storage/fs-name"] == filesystem,
                "{annotations:?}"
            );
            let locations = share.status.unwrap().export_locations;
            ensure!(
                locations.iter().all(|l| l.metadata.fs_name == filesystem),
                "{locations:?}"
            );
        }
        s.clear("history").await
    });
}

#[test]
fn a_quota_for_a_team() {
    run(|s| async move {
        apply(s, "team-quota/quota.yaml").await?;
        apply(s, "team-quota/shares.yaml").await?;
        for share in ["documents", "scratch"] {
            s.until_share("team-a", share, "True", "Available").await?;
        }
        apply(s, "team-quota/one-more.yaml").await?;
        let api = s.world.api::<Share>("team-a");
        until(&api, "archive", "waiting", |share: &Share| {
            let conditions = share.status.as_ref().map_or(&[][..], |s| &s.conditions);
            condition(conditions, "QuotaReserved") == Some(("False", "QuotaExceeded"))
        })
        .await?;
        s.delete_share("team-a", "scratch").await?;
        s.until_share("team-a", "archive", "True", "Available").await?;
        s.clear("team-a").await
    });
}

#[test]
fn guarding_production() {
    run(|s| async move {
        apply(s, "guarding-production/share.yaml").await?;
        s.until_share("payroll", "ledgers", "True", "Available").await?;
        apply(s, "guarding-production/locks.yaml").await?;
        let locks = s.world.api::<ResourceLock>("payroll");
        for name in ["ledgers", "accounting"] {
            until(&locks, name, "enforced", |lock: &ResourceLock| {
                lock.status
                    .as_ref()
                    .is_some_and(|status| status.enforced == Some(true))
            })
            .await?;
        }
        let (params, all) = (DeleteParams::default(), ListParams::default());
        let shares = s.world.api::<Share>("payroll");
        until(&shares, "ledgers", "marked for both", |share: &Share| {
            let told = share.annotations().get(LOCKED_BY);
            told.is_some_and(|told| told.contains("kept for ten years") && told.contains("'accounting'"))
        })
        .await?;
        let namespaces = Api::<Namespace>::all(s.world.client.clone());
        let rules = s.world.api::<ShareAccessRule>("payroll");
        for refused in [
            shares.delete("ledgers", &params).await.map(drop),
            shares.delete_collection(&params, &all).await.map(drop),
            rules.delete("accounting", &params).await.map(drop),
            namespaces.delete("payroll", &params).await.map(drop),
        ] {
            let refusal = refused.err().context("it was not refused")?.to_string();
            ensure!(refusal.contains("ResourceLock"), "{refusal}");
        }
        locks.delete_collection(&params, &all).await?;
        until(&shares, "ledgers", "not marked any more", |share: &Share| {
            !share.annotations().contains_key(LOCKED_BY)
        })
        .await?;
        until(
            &rules,
            "accounting",
            "not marked any more",
            |rule: &ShareAccessRule| !rule.annotations().contains_key(LOCKED_BY),
        )
        .await?;
        s.clear("payroll").await
    });
}

#[test]
fn hiding_a_key() {
    run(|s| async move {
        apply(s, "hiding-a-key/lock.yaml").await?;
        let locks = s.world.api::<ResourceLock>("research");
        let is = |phase| {
            move |lock: &ResourceLock| {
                lock.status
                    .as_ref()
                    .is_some_and(|status| status.phase == Some(phase))
            }
        };
        until(&locks, "trainer", "waiting for its rule", is(LockPhase::Pending)).await?;
        apply(s, "hiding-a-key/share.yaml").await?;
        until(&locks, "trainer", "enforced", is(LockPhase::Enforced)).await?;
        let rule = s.world.api::<ShareAccessRule>("research").get("trainer").await?;
        let kept = rule.status.and_then(|status| status.credentials_secret_ref);
        let kept = kept.context("no Secret is told")?;
        ensure!(kept.namespace.as_deref() == Some(SYSTEM_NAMESPACE), "{kept:?}");
        let shown = s
            .world
            .api::<Secret>("research")
            .list(&ListParams::default())
            .await?;
        ensure!(shown.items.is_empty(), "a key is in the open");
        s.world.api::<Secret>(SYSTEM_NAMESPACE).get(&kept.name).await?;
        locks.delete("trainer", &DeleteParams::default()).await?;
        s.clear("research").await
    });
}

#[test]
fn moving_monitors() {
    run(|s| async move {
        apply(s, "moving-monitors/backend.yaml").await?;
        apply(s, "moving-monitors/shares.yaml").await?;
        for share in ["images", "catalogue"] {
            is_on(s, "telescope", share, "old-rack").await?;
        }
        // What the storage team does at Ceph.
        let cluster = s.cluster("old-rack").await?;
        cluster.set_monitors(vec!["198.51.100.1:3300".into()])?;
        cluster.set_nfs_endpoints(Some(vec!["nfs.new-rack.example.org".into()]))?;
        apply(s, "moving-monitors/moved.yaml").await?;
        let round = s.world.until_ensured("old-rack", "after-the-move").await?;
        ensure!((round.done, round.failed, round.total) == (2, 0, 2), "{round:?}");
        let shares = s.world.api::<Share>("telescope");
        for (name, host) in [
            ("images", "nfs.new-rack.example.org:/"),
            ("catalogue", "198.51.100.1:3300:/"),
        ] {
            until(&shares, name, "found where it is now", |share: &Share| {
                share.status.as_ref().unwrap().export_locations[0]
                    .path
                    .starts_with(host)
            })
            .await?;
        }
        s.clear("telescope").await
    });
}

#[test]
fn undoing_a_deletion() {
    run(|s| async move {
        apply(s, "undoing-a-deletion/type.yaml").await?;
        apply(s, "undoing-a-deletion/share.yaml").await?;
        let before = s.until_share("photos", "originals", "True", "Available").await?;
        let namespaces = Api::<Namespace>::all(s.world.client.clone());
        namespaces.delete("photos", &DeleteParams::default()).await?;
        until_gone(&namespaces, "photos").await?;

        let deletions = s.world.cluster_api::<ShareDeletion>();
        let name = share_deletion::name(&before.uid().unwrap());
        let kept = until(&deletions, &name, "Retained", |deletion: &ShareDeletion| {
            share_deletion::phase(deletion) == Some(DeletionPhase::Retained)
        })
        .await?;
        let handle = kept.spec.handle.clone().context("a handle")?;
        let words = [("BACKEND", kept.spec.backend_name.as_str()), ("HANDLE", &handle)];
        apply_with(s, "undoing-a-deletion/back.yaml", &words).await?;
        let after = s.until_share("photos", "originals", "True", "Available").await?;
        until_gone(&deletions, &name).await?;
        let path = |share: &Share| {
            let locations = &share.status.as_ref().unwrap().export_locations;
            locations[0].metadata.subvolume_path.clone()
        };
        ensure!(path(&after) == path(&before), "other data came back: {after:#?}");

        s.delete_share("photos", "originals").await?;
        let ended = Patch::Merge(json!({"spec": {"retainUntil": "2020-01-01T00:00:00Z"}}));
        let name = share_deletion::name(&after.uid().unwrap());
        until(&deletions, &name, "written", |_| true).await?;
        deletions.patch(&name, &PatchParams::default(), &ended).await?;
        s.clear("photos").await
    });
}
