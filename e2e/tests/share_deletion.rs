//! How shares end on a real API server and simulated backends: at once for who deletes them, whatever the storage says.

#![cfg(test)]
#![allow(clippy::unwrap_used, clippy::needless_pass_by_value)]

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use shoal_backend::simulated::{Cluster, Trouble};
use shoal_crds::{DeletionPhase, Share, ShareBackend, ShareDeletion, ShareQuota};
use shoal_domain::{
    owner::{Left, Tag, pseudo_path, subvolume_name},
    share_deletion,
};
use shoal_e2e::{
    lab::KubernetesRelease,
    simulated_storage::{SimulatedStorage, ip_rule, message},
    suite::Suite,
    world::{PATIENCE, condition, eventually, until, until_gone},
};

static SUITE: Suite<SimulatedStorage> = Suite::new();

fn run<S: Future<Output = Result<()>>>(scenario: impl FnOnce(&'static SimulatedStorage) -> S) {
    SUITE.run(|| SimulatedStorage::start(KubernetesRelease::V1_37), scenario);
}

/// A backend of the scenario's own with a type that selects it alone, and what a share of that type asks for.
async fn storage(s: &SimulatedStorage, name: &str, share_type: Value) -> Result<(Cluster, Value)> {
    s.world
        .apply(&json!({
            "apiVersion": "shoal.storage/v1alpha1", "kind": "ShareBackend", "metadata": {"name": name},
            "spec": {"simulated": {}},
        }))
        .await?;
    s.until_backend(name, "True", "Available").await?;
    let mut spec = share_type;
    spec["backendNames"] = json!([name]);
    s.world.add_type(name, spec, false).await?;
    let asked = json!({"protocol": "NFS", "size": "1Gi", "shareTypeName": name});
    Ok((s.cluster(name).await?, asked))
}

/// A share of it that one client is let in to.
async fn used_share(s: &SimulatedStorage, namespace: &str, name: &str, spec: &Value) -> Result<Share> {
    s.world.share(namespace, name, spec.clone()).await?;
    let rule = format!("{name}-client");
    s.world
        .rule(namespace, &rule, ip_rule(name, "10.0.0.1", "ReadWrite"))
        .await?;
    s.until_rule(namespace, &rule, "True", "Active").await?;
    s.until_share(namespace, name, "True", "Available").await
}

fn uid(share: &Share) -> String {
    share.uid().unwrap()
}

fn deletions(s: &SimulatedStorage) -> Api<ShareDeletion> {
    s.world.cluster_api()
}

async fn until_deletion(
    s: &SimulatedStorage,
    of: &Share,
    what: &str,
    is_so: impl Fn(&ShareDeletion) -> bool,
) -> Result<ShareDeletion> {
    until(&deletions(s), &share_deletion::name(&uid(of)), what, is_so).await
}

async fn until_phase(s: &SimulatedStorage, of: &Share, phase: DeletionPhase) -> Result<ShareDeletion> {
    until_deletion(s, of, phase.as_str(), |deletion| {
        share_deletion::phase(deletion) == Some(phase)
    })
    .await
}

async fn until_finished(s: &SimulatedStorage, of: &Share) -> Result<()> {
    until_gone(&deletions(s), &share_deletion::name(&uid(of))).await
}

async fn change_deletion(s: &SimulatedStorage, of: &Share, spec: Value) -> Result<()> {
    let patch = Patch::Merge(json!({"spec": spec}));
    deletions(s)
        .patch(&share_deletion::name(&uid(of)), &PatchParams::default(), &patch)
        .await?;
    Ok(())
}

fn subvolume(
    cluster: &Cluster,
    backend: &str,
    of: &Share,
) -> Result<Option<shoal_backend::simulated::HeldSubvolume>> {
    let key = (backend.to_owned(), subvolume_name(&uid(of)));
    Ok(cluster.snapshot()?.subvolumes.get(&key).cloned())
}

fn nobody_is_let_in(cluster: &Cluster, of: &Share) -> Result<()> {
    let exported = cluster.snapshot()?.exports.contains_key(&pseudo_path(&uid(of)));
    ensure!(!exported, "{} is still exported", of.name_any());
    Ok(())
}

/// Lets the namespace have so many shares.
async fn set_quota(s: &SimulatedStorage, namespace: &str, shares: u32) -> Result<()> {
    s.world
        .apply(&json!({
            "apiVersion": "shoal.storage/v1alpha1", "kind": "ShareQuota",
            "metadata": {"name": "few", "namespace": namespace}, "spec": {"hard": {"shares": shares}},
        }))
        .await?;
    Ok(())
}

/// Waits until the quota tells of so many.
async fn until_used(s: &SimulatedStorage, namespace: &str, shares: i64) -> Result<()> {
    let quotas = s.world.api::<ShareQuota>(namespace);
    until(&quotas, "few", &format!("{shares} used"), |quota: &ShareQuota| {
        let used = quota.status.as_ref().and_then(|status| status.used);
        used.is_some_and(|used| used.shares == shares)
    })
    .await?;
    Ok(())
}

/// Gives back what [`storage`] made.
async fn put_away(s: &SimulatedStorage, namespace: &str, backend: &str) -> Result<()> {
    s.clear(namespace).await?;
    let backends = s.world.cluster_api::<ShareBackend>();
    backends.delete(backend, &DeleteParams::default()).await?;
    until_gone(&backends, backend).await
}

/// Manila 2.1 (a), (b) and (d), 8 (s). The backend refuses: name and quota are free, the remainder is told to admins alone,
/// waits longer and longer, and finishes by itself.
#[test]
fn a_refused_deletion_lets_the_share_go_and_is_finished_later() {
    run(|s| async move {
        let ns = s.world.namespace("refused").await?;
        let (cluster, spec) = storage(s, "refusing", json!({})).await?;
        set_quota(s, &ns, 1).await?;
        let first = used_share(s, &ns, "data", &spec).await?;
        cluster.set_snapshots("refusing", &uid(&first), 1)?;
        s.delete_share(&ns, "data").await?;
        s.until_share_gone(&ns, "data").await?;

        // The only place of the quota, and the name.
        s.world.share(&ns, "data", spec.clone()).await?;
        let second = s.until_share(&ns, "data", "True", "Available").await?;
        ensure!(uid(&second) != uid(&first));

        let told = until_deletion(s, &first, "a second attempt", |deletion| {
            let status = deletion.status.clone().unwrap_or_default();
            status.phase == Some(DeletionPhase::Error)
                && status.attempts.is_some_and(|attempts| attempts >= 2)
                && status.next_retry_time.is_some()
        })
        .await?;
        let status = told.status.clone().unwrap();
        ensure!(status.access_revoked == Some(true), "{status:#?}");
        ensure!(
            status.last_error.unwrap().contains("HasSnapshots")
                && condition(&status.conditions, "Ready") == Some(("False", "HasSnapshots"))
        );
        ensure!(told.spec.share_ref.name == "data" && told.spec.share_ref.namespace == ns);
        s.until_event("default", &told.name_any(), "HasSnapshots").await?;
        nobody_is_let_in(&cluster, &first)?;
        let backend = until(
            &s.world.cluster_api::<ShareBackend>(),
            "refusing",
            "one deletion",
            |b: &ShareBackend| b.status.as_ref().is_some_and(|b| b.pending_deletions == Some(1)),
        )
        .await?;
        ensure!(backend.status.unwrap().shares == Some(1));

        cluster.set_snapshots("refusing", &uid(&first), 0)?;
        until_finished(s, &first).await?;
        ensure!(subvolume(&cluster, "refusing", &first)?.is_none());
        ensure!(subvolume(&cluster, "refusing", &second)?.is_some());
        // What was given back at once is not given back again.
        s.world.share(&ns, "third", spec.clone()).await?;
        s.until_share(&ns, "third", "False", "QuotaExceeded").await?;
        until_used(s, &ns, 1).await?;
        put_away(s, &ns, "refusing").await
    });
}

/// Manila 2.1 (c), 8 (c). A command hangs: the user does not, through a restart of the operator, and the late effect leaves
/// nothing behind.
#[test]
fn a_hanging_deletion_lets_the_share_go_and_survives_a_restart() {
    run(|s| async move {
        let _alone = s.alone().await;
        let ns = s.world.namespace("hanging").await?;
        let (cluster, spec) = storage(s, "stalled", json!({})).await?;
        let first = used_share(s, &ns, "data", &spec).await?;
        let other = used_share(s, &ns, "other", &spec).await?;
        set_quota(s, &ns, 2).await?;
        until_used(s, &ns, 2).await?;
        cluster.stall()?;
        s.delete_share(&ns, "data").await?;
        s.until_share_gone(&ns, "data").await?;
        let left = until_deletion(s, &first, "written", |_| true).await?;
        ensure!(share_deletion::may_have_access(&left), "{left:#?}");

        s.kill_operator().await?;
        s.start_operator("").await?;
        // What is left of it is charged to nobody, whoever adds that up.
        until_used(s, &ns, 1).await?;
        // Of a backend that is in trouble from the start.
        s.delete_share(&ns, "other").await?;
        s.until_share_gone(&ns, "other").await?;
        for share in [&first, &other] {
            until_deletion(s, share, "in trouble, access not revoked", |deletion| {
                let status = deletion.status.clone().unwrap_or_default();
                status.access_revoked == Some(false)
                    && condition(&status.conditions, "Ready").is_some_and(|(is, _)| is == "False")
            })
            .await?;
        }
        cluster.resume()?;
        for share in [&first, &other] {
            until_finished(s, share).await?;
            ensure!(subvolume(&cluster, "stalled", share)?.is_none());
            nobody_is_let_in(&cluster, share)?;
        }
        put_away(s, &ns, "stalled").await
    });
}

/// A type that waits keeps the Share until its backend has accepted, and tells why.
#[test]
fn a_type_that_waits_keeps_the_share() {
    run(|s| async move {
        let ns = s.world.namespace("waiting").await?;
        let (cluster, spec) = storage(s, "waited-for", json!({"deletion": "Wait"})).await?;
        let share = used_share(s, &ns, "data", &spec).await?;
        cluster.set_trouble(Some(Trouble::Unreachable))?;
        s.until_backend("waited-for", "False", "BackendUnreachable")
            .await?;
        s.delete_share(&ns, "data").await?;
        let api = s.world.api::<Share>(&ns);
        let blocked = until(&api, "data", "DeletionBlocked", |share: &Share| {
            condition(&share.status.as_ref().unwrap().conditions, "DeletionBlocked").is_some()
        })
        .await?;
        let told = message(&blocked.status.as_ref().unwrap().conditions, "DeletionBlocked");
        ensure!(told.is_some_and(|told| told.contains("waited-for")), "{told:?}");
        ensure!(
            deletions(s)
                .get_opt(&share_deletion::name(&uid(&share)))
                .await?
                .is_none()
        );
        cluster.set_trouble(None)?;
        s.until_share_gone(&ns, "data").await?;
        s.until_backend("waited-for", "True", "Available").await?;
        ensure!(subvolume(&cluster, "waited-for", &share)?.is_none());
        put_away(s, &ns, "waited-for").await
    });
}

/// A namespace deleted by mistake: its shares are gone, their data is kept without access, and comes back in another one, as
/// it was. What is not brought back is removed when its time has come.
#[test]
fn what_a_retention_keeps_is_brought_back_or_removed_in_time() {
    run(|s| async move {
        let ns = s.world.namespace("mistake").await?;
        let (cluster, spec) = storage(s, "keeping", json!({"retention": "1h"})).await?;
        let mut shares = Vec::new();
        for n in 0..4 {
            shares.push(used_share(s, &ns, &format!("data-{n}"), &spec).await?);
        }
        for share in &shares {
            cluster.set_used("keeping", &uid(share), 4711)?;
        }
        let namespaces = Api::<Namespace>::all(s.world.client.clone());
        namespaces.delete(&ns, &DeleteParams::default()).await?;
        eventually("the namespace to be gone", 3 * PATIENCE, async || {
            Ok(namespaces.get_opt(&ns).await?.is_none().then_some(()))
        })
        .await?;

        let again = s.world.namespace("again").await?;
        for (n, share) in shares.iter().take(3).enumerate() {
            let kept = until_phase(s, share, DeletionPhase::Retained).await?;
            let until = kept.spec.retain_until.as_ref().context("kept for an hour")?.0;
            let left = until.duration_since(kept.creation_timestamp().unwrap().0);
            ensure!((3500..3700).contains(&left.as_secs()), "{left}");
            ensure!(kept.status.as_ref().unwrap().access_revoked == Some(true));
            nobody_is_let_in(&cluster, share)?;
            let before = subvolume(&cluster, "keeping", share)?.context("its data")?;
            ensure!(before.used_bytes == 4711);

            let name = format!("back-{n}");
            let mut back = spec.clone();
            back["size"] = "2Gi".into();
            back["source"] = json!({"existing": {"backendName": "keeping", "handle": kept.spec.handle}});
            let back = used_share(s, &again, &name, &back).await?;
            until_finished(s, share).await?;
            let after = subvolume(&cluster, "keeping", share)?.context("its data")?;
            ensure!(after.path == before.path && after.used_bytes == 4711, "{after:?}");
            ensure!(after.size_bytes == Some(2 << 30), "{after:?}");
            ensure!(
                matches!(&after.tag, Tag::Owner(owner) if owner.uid == uid(&back)),
                "{after:?}"
            );
            let location = &back.status.as_ref().unwrap().export_locations[0];
            ensure!(location.path.ends_with(&pseudo_path(&uid(&back))), "{location:?}");
            ensure!(location.metadata.subvolume_path == before.path);
        }

        // Brought back once, and deleted again: kept again, under its own name.
        let back = s.world.api::<Share>(&again).get("back-0").await?;
        s.delete_share(&again, "back-0").await?;
        s.until_share_gone(&again, "back-0").await?;
        let kept = until_phase(s, &back, DeletionPhase::Retained).await?;
        ensure!(kept.spec.handle == Some(format!("shoal/{}", subvolume_name(&uid(&shares[0])))));

        // An earlier end, by hand.
        for share in [&back, &shares[3]] {
            until_phase(s, share, DeletionPhase::Retained).await?;
            change_deletion(s, share, json!({"retainUntil": "2020-01-01T00:00:00Z"})).await?;
            until_finished(s, share).await?;
        }
        for share in [&shares[0], &shares[3]] {
            ensure!(subvolume(&cluster, "keeping", share)?.is_none());
        }
        for share in &shares[1..3] {
            ensure!(subvolume(&cluster, "keeping", share)?.is_some());
        }
        for name in ["back-1", "back-2"] {
            let back = s.world.api::<Share>(&again).get(name).await?;
            s.delete_share(&again, name).await?;
            until_phase(s, &back, DeletionPhase::Retained).await?;
            change_deletion(s, &back, json!({"retainUntil": "2020-01-01T00:00:00Z"})).await?;
        }
        put_away(s, &again, "keeping").await
    });
}

/// What is brought back is a share like any other: it is held to the quota, and waits for its place.
#[test]
fn what_is_brought_back_is_held_to_the_quota() {
    run(|s| async move {
        let ns = s.world.namespace("full").await?;
        let (cluster, spec) = storage(s, "scarce", json!({"deletionPolicy": "Retain"})).await?;
        let first = used_share(s, &ns, "data", &spec).await?;
        s.delete_share(&ns, "data").await?;
        s.until_share_gone(&ns, "data").await?;
        let kept = until_phase(s, &first, DeletionPhase::Retained).await?;
        set_quota(s, &ns, 1).await?;
        s.world.share(&ns, "other", spec.clone()).await?;
        s.until_share(&ns, "other", "True", "Available").await?;
        until_used(s, &ns, 1).await?;

        let mut back = spec.clone();
        back["source"] = json!({"existing": {"backendName": "scarce", "handle": kept.spec.handle}});
        s.world.share(&ns, "back", back).await?;
        s.until_share(&ns, "back", "False", "QuotaExceeded").await?;
        let still = until_phase(s, &first, DeletionPhase::Retained).await?;
        ensure!(still.spec.adopted_by.is_none(), "{still:#?}");
        s.change_share(&ns, "other", json!({"deletionPolicy": "Delete"}))
            .await?;
        s.delete_share(&ns, "other").await?;
        s.until_share(&ns, "back", "True", "Available").await?;
        until_finished(s, &first).await?;
        ensure!(subvolume(&cluster, "scarce", &first)?.is_some());
        s.change_share(&ns, "back", json!({"deletionPolicy": "Delete"}))
            .await?;
        s.until_share(&ns, "back", "True", "Available").await?;
        put_away(s, &ns, "scarce").await
    });
}

/// `Retain` keeps the data until somebody says otherwise, on the backend too; it is in the way of the backend's deletion, and
/// what an admin gives up is not.
#[test]
fn retained_and_abandoned_data_is_marked_and_named() {
    run(|s| async move {
        let ns = s.world.namespace("retain").await?;
        let (cluster, mut spec) = storage(s, "left-behind", json!({})).await?;
        spec["deletionPolicy"] = "Retain".into();
        let kept = used_share(s, &ns, "kept", &spec).await?;
        let (given_up, quota) = (used_share(s, &ns, "given-up", &spec).await?, spec["size"].clone());
        for share in [&kept, &given_up] {
            s.delete_share(&ns, &share.name_any()).await?;
            s.until_share_gone(&ns, &share.name_any()).await?;
            let retained = until_phase(s, share, DeletionPhase::Retained).await?;
            ensure!(retained.spec.retain_until.is_none() && json!(retained.spec.size) == quota);
            let held = subvolume(&cluster, "left-behind", share)?.context("its data")?;
            let marked = matches!(&held.tag, Tag::Owner(owner) if owner.left == Some(Left::Retained));
            ensure!(marked, "{held:?}");
            nobody_is_let_in(&cluster, share)?;
        }
        // Deleting the record does nothing: the data is still kept.
        let name = share_deletion::name(&uid(&kept));
        deletions(s).delete(&name, &DeleteParams::default()).await?;

        change_deletion(s, &given_up, json!({"abandon": true})).await?;
        let abandoned = until_phase(s, &given_up, DeletionPhase::Abandoned).await?;
        let told = message(&abandoned.status.as_ref().unwrap().conditions, "Ready")
            .unwrap_or_default()
            .to_owned();
        for word in [
            "left-behind",
            &subvolume_name(&uid(&given_up)),
            "1Gi",
            "nobody is let in",
        ] {
            ensure!(told.contains(word), "{told}");
        }
        s.until_event("default", &abandoned.name_any(), "Abandoned")
            .await?;
        let held = subvolume(&cluster, "left-behind", &given_up)?.context("its data")?;
        let marked = matches!(&held.tag, Tag::Owner(owner) if owner.left == Some(Left::Abandoned));
        ensure!(marked, "{held:?}");

        let backends = s.world.cluster_api::<ShareBackend>();
        backends.delete("left-behind", &DeleteParams::default()).await?;
        let leaving = until(&backends, "left-behind", "waiting", |backend: &ShareBackend| {
            let conditions = backend.status.as_ref().map_or(&[][..], |s| &s.conditions);
            condition(conditions, "DeletionBlocked") == Some(("True", "HasShares"))
        })
        .await?;
        let told = message(&leaving.status.as_ref().unwrap().conditions, "DeletionBlocked")
            .unwrap_or_default()
            .to_owned();
        ensure!(
            told.contains(&name) && !told.contains(&abandoned.name_any()),
            "{told}"
        );
        let still = until_phase(s, &kept, DeletionPhase::Retained).await?;
        ensure!(still.metadata.deletion_timestamp.is_some());
        change_deletion(s, &kept, json!({"retainUntil": "2020-01-01T00:00:00Z"})).await?;
        until_finished(s, &kept).await?;
        until_gone(&backends, "left-behind").await?;
        ensure!(subvolume(&cluster, "left-behind", &kept)?.is_none());
        ensure!(subvolume(&cluster, "left-behind", &given_up)?.is_some());
        // Nobody has it in hand any more: it goes at once, without its backend.
        deletions(s)
            .delete(&abandoned.name_any(), &DeleteParams::default())
            .await?;
        until_finished(s, &given_up).await?;
        s.clear(&ns).await
    });
}

/// What is asked for is told with field, value and remedy; and nobody but Shoal says that a share is gone.
#[test]
fn what_can_not_be_brought_back_or_deleted() {
    run(|s| async move {
        let ns = s.world.namespace("bad").await?;
        let (cluster, spec) = storage(s, "strict", json!({"deletionPolicy": "Retain"})).await?;
        let share = used_share(s, &ns, "data", &spec).await?;

        // Made by an admin: a live share is not touched.
        let status = share.status.clone().unwrap();
        let forged: ShareDeletion = serde_json::from_value(json!({
            "apiVersion": "shoal.storage/v1alpha1", "kind": "ShareDeletion",
            "metadata": {"name": "forged"},
            "spec": {
                "shareRef": {"namespace": ns, "namespaceUID": "x", "name": "data", "uid": uid(&share)},
                "protocol": "NFS", "size": "1Gi", "backendName": "strict",
                "fsid": status.fsid, "fsName": status.fs_name, "fsID": status.fs_id, "handle": status.handle,
            },
        }))?;
        deletions(s).create(&PostParams::default(), &forged).await?;
        let refused = until(&deletions(s), "forged", "refused", |deletion: &ShareDeletion| {
            let status = deletion.status.clone().unwrap_or_default();
            condition(&status.conditions, "Ready") == Some(("False", "ShareExists"))
        })
        .await?;
        ensure!(
            message(&refused.status.unwrap().conditions, "Ready")
                .unwrap()
                .contains("data")
        );
        ensure!(subvolume(&cluster, "strict", &share)?.is_some());
        deletions(s).delete("forged", &DeleteParams::default()).await?;
        until_gone(&deletions(s), "forged").await?;

        let source = |handle: &str, size: &str| {
            let mut asked = spec.clone();
            asked["size"] = size.into();
            asked["source"] = json!({"existing": {"backendName": "strict", "handle": handle}});
            asked
        };
        let handle = status.handle.clone().unwrap();
        s.world.share(&ns, "back", source(&handle, "1Gi")).await?;
        // It is a live share's.
        let waits = s.until_share(&ns, "back", "False", "NotToBeBroughtBack").await?;
        let told = message(&waits.status.as_ref().unwrap().conditions, "Ready")
            .unwrap()
            .to_owned();
        for word in [&handle, &format!("Share {ns}/data")] {
            ensure!(told.contains(word), "{told}");
        }
        s.world.share(&ns, "smaller", source(&handle, "1Mi")).await?;
        s.until_share(&ns, "smaller", "False", "NotToBeBroughtBack")
            .await?;

        // It comes back by itself once it is kept; the other one is too small for it, and then too late.
        s.delete_share(&ns, "data").await?;
        let back = s.until_share(&ns, "back", "True", "Available").await?;
        until_finished(s, &share).await?;
        s.until_share(&ns, "smaller", "False", "NotToBeBroughtBack")
            .await?;
        ensure!(back.status.unwrap().handle == Some(handle.clone()));

        let immutable = s.change_share(
            &ns,
            "back",
            json!({"source": {"existing": {"backendName": "strict", "handle": "shoal/x"}}}),
        );
        match immutable.await {
            Err(kube::Error::Api(status)) => {
                ensure!(
                    status.message.contains("source is immutable"),
                    "{}",
                    status.message
                );
            }
            other => bail!("another source: {other:?}"),
        }

        s.change_share(&ns, "back", json!({"deletionPolicy": "Delete"}))
            .await?;
        s.until_share(&ns, "back", "True", "Available").await?;
        put_away(s, &ns, "strict").await
    });
}

/// Whoever may make shares may neither say that one is gone nor bring one back.
#[test]
fn verbs_that_users_do_not_have() {
    run(|s| async move {
        let ns = s.world.namespace("verbs").await?;
        let rules = json!([
            {"apiGroups": ["shoal.storage"], "resources": ["shares", "sharedeletions"],
             "verbs": ["get", "list", "watch", "create", "update", "patch", "delete"]},
        ]);
        s.world.grant("deletion-user", &["deletion-user"], &rules).await?;
        let user = s.world.client_as("deletion-user").await?;
        let shares: Api<Share> = Api::namespaced(user.clone(), &ns);
        eventually("the role to be known", PATIENCE, async || {
            Ok(shares.get_opt("none").await.ok())
        })
        .await?;
        let source = json!({"existing": {"backendName": "any", "handle": "shoal/shoal-x"}});
        let share: Share = serde_json::from_value(json!({
            "apiVersion": "shoal.storage/v1alpha1", "kind": "Share", "metadata": {"name": "back"},
            "spec": {"protocol": "NFS", "size": "1Gi", "source": source},
        }))?;
        let deletion: ShareDeletion = serde_json::from_value(json!({
            "apiVersion": "shoal.storage/v1alpha1", "kind": "ShareDeletion",
            "metadata": ObjectMeta { name: Some("shoal-x".into()), ..ObjectMeta::default() },
            "spec": {
                "shareRef": {"namespace": ns, "namespaceUID": "x", "name": "data", "uid": "x"},
                "protocol": "NFS", "size": "1Gi", "backendName": "any", "fsid": "x", "fsName": "x", "fsID": 1,
            },
        }))?;
        let refused = |what: &str, answer: kube::Result<()>, words: &[&str]| match answer {
            Err(kube::Error::Api(status)) if status.code == 403 => {
                for word in words {
                    ensure!(status.message.contains(word), "{what}: {}", status.message);
                }
                Ok(())
            }
            other => bail!("{what}: {other:?}"),
        };
        let made = shares.create(&PostParams::default(), &share).await.map(drop);
        refused(
            "a source",
            made,
            &["spec.source.existing", "shoal/shoal-x", "verb adopt"],
        )?;
        let all: Api<ShareDeletion> = Api::all(user);
        let made = all.create(&PostParams::default(), &deletion).await.map(drop);
        refused("a deletion", made, &["ShareDeletion shoal-x", "verb operate"])?;
        s.clear(&ns).await
    });
}

/// What deletions wait for, and for how long, can be alerted on.
#[test]
fn deletions_are_measured() {
    run(|s| async move {
        let ns = s.world.namespace("measured").await?;
        let (cluster, spec) = storage(s, "measured", json!({})).await?;
        let share = used_share(s, &ns, "data", &spec).await?;
        cluster.set_trouble(Some(Trouble::Unreachable))?;
        s.until_backend("measured", "False", "BackendUnreachable").await?;
        s.delete_share(&ns, "data").await?;
        s.until_share_gone(&ns, "data").await?;
        until_phase(s, &share, DeletionPhase::Error).await?;
        let value = |text: &str, metric: &str| {
            let line = text.lines().find(|line| line.starts_with(metric));
            line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        };
        eventually("the metrics to tell", PATIENCE, async || {
            let text = s.metrics().await?;
            let access = value(&text, "shoal_share_deletions_with_access{backend=\"measured\"}");
            let errors = value(
                &text,
                "shoal_share_deletions{backend=\"measured\",phase=\"Error\"}",
            );
            let oldest = value(&text, "shoal_share_deletion_oldest_seconds{backend=\"measured\"}");
            let let_in = value(
                &text,
                "shoal_share_deletions_with_access_oldest_seconds{backend=\"measured\"}",
            );
            let told = access >= Some(1.0) && errors >= Some(1.0) && oldest > Some(1.0) && let_in > Some(1.0);
            Ok(told.then_some(()))
        })
        .await?;
        cluster.set_trouble(None)?;
        until_finished(s, &share).await?;
        put_away(s, &ns, "measured").await
    });
}
