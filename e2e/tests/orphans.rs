//! What no object owns, on a real API server and simulated backends: after etcd was lost, or is an hour old, no share gets an
//! empty volume in the place of its data, and none gets data on the strength of a name alone.

#![cfg(test)]
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use shoal_backend::simulated::Trouble;
use shoal_crds::{
    OrphanStatus, Protocol, Share, ShareBackend,
    condition::reasons,
    names::{FORMER_DATA, START_EMPTY, start_empty},
};
use shoal_domain::{
    grant::Key,
    owner::{Owner, Tag, pseudo_path},
};
use shoal_e2e::{
    holdings::{path_of, subvolume_of},
    lab::KubernetesRelease,
    simulated_storage::{BACKEND, SimulatedStorage, cephx_rule, ip_rule, message, share_spec},
    suite::Suite,
    world::{PATIENCE, condition, eventually, until},
};

static ANEW: Suite<SimulatedStorage> = Suite::new();
static SUITE: Suite<SimulatedStorage> = Suite::new();

fn run<S: Future<Output = Result<()>>>(scenario: impl FnOnce(&'static SimulatedStorage) -> S) {
    SUITE.run(|| SimulatedStorage::start(KubernetesRelease::V1_37), scenario);
}

async fn make_namespace(s: &SimulatedStorage, name: &str) -> Result<()> {
    let namespace = Namespace {
        metadata: ObjectMeta {
            name: Some(name.into()),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    };
    let namespaces: Api<Namespace> = s.world.cluster_api();
    namespaces.create(&PostParams::default(), &namespace).await?;
    Ok(())
}

/// What Git has of a team: an NFS share, a CephFS share, a client of each.
async fn apply(s: &SimulatedStorage, ns: &str) -> Result<()> {
    s.world.share(ns, "docs", share_spec(Protocol::NFS)).await?;
    s.world.share(ns, "data", share_spec(Protocol::CephFS)).await?;
    s.world
        .rule(ns, "office", ip_rule("docs", "10.0.0.1", "ReadWrite"))
        .await?;
    s.world
        .rule(ns, "trainer", cephx_rule("data", None, "ReadWrite"))
        .await?;
    Ok(())
}

fn uid(share: &Share) -> String {
    share.uid().unwrap()
}

fn handle(share: &Share) -> String {
    format!("shoal/{}", subvolume_of(share))
}

/// What asks for the data behind a handle.
fn bringing_back(handle: &str) -> Value {
    let mut spec = share_spec(Protocol::NFS);
    spec["source"] = json!({"existing": {"backendName": BACKEND, "handle": handle}});
    spec
}

async fn cluster_uid(s: &SimulatedStorage) -> Result<String> {
    let namespaces: Api<Namespace> = s.world.cluster_api();
    namespaces.get("kube-system").await?.uid().context("no uid")
}

async fn say(s: &SimulatedStorage, ns: &str, name: &str, verdict: &str) -> kube::Result<Share> {
    let patch = Patch::Merge(json!({"metadata": {"annotations": {FORMER_DATA: verdict}}}));
    let shares = s.world.api::<Share>(ns);
    shares.patch(name, &PatchParams::default(), &patch).await
}

async fn until_orphans(
    s: &SimulatedStorage,
    what: &str,
    are_so: impl Fn(&OrphanStatus) -> bool,
) -> Result<OrphanStatus> {
    let is_so = |backend: &ShareBackend| {
        let found = backend.status.as_ref().and_then(|status| status.orphans.as_ref());
        found.is_some_and(&are_so)
    };
    let backend = until(&s.world.cluster_api::<ShareBackend>(), BACKEND, what, is_so).await?;
    Ok(backend.status.unwrap().orphans.unwrap())
}

async fn until_waiting(s: &SimulatedStorage, ns: &str, name: &str) -> Result<Share> {
    s.until_share(ns, name, "False", reasons::FORMER_DATA_FOUND).await
}

async fn until_ready(s: &SimulatedStorage, ns: &str, name: &str) -> Result<Share> {
    s.until_share(ns, name, "True", reasons::AVAILABLE).await
}

/// A team works; then etcd is lost, and its objects are applied to a new cluster on the same storage.
#[test]
fn etcd_is_lost_and_the_objects_come_back_with_new_uids() {
    ANEW.run(
        || SimulatedStorage::without_operator(KubernetesRelease::V1_37),
        |s| async move {
            const NS: &str = "team";
            let (old_docs, old_data, old_kept, session, former) = {
                let before = SimulatedStorage::start(KubernetesRelease::V1_37).await?;
                make_namespace(&before, NS).await?;
                apply(&before, NS).await?;
                let (docs, data) = (
                    until_ready(&before, NS, "docs").await?,
                    until_ready(&before, NS, "data").await?,
                );
                before.until_rule(NS, "office", "True", reasons::ACTIVE).await?;
                before.until_rule(NS, "trainer", "True", reasons::ACTIVE).await?;
                let mut spec = share_spec(Protocol::NFS);
                spec["deletionPolicy"] = "Retain".into();
                before.world.share(NS, "kept", spec).await?;
                let kept = until_ready(&before, NS, "kept").await?;
                before.delete_share(NS, "kept").await?;
                before.until_share_gone(NS, "kept").await?;
                eventually("what is kept to be marked", PATIENCE, async || {
                    let there = before.holdings().await?.subvolumes;
                    let tag = there
                        .get(&(BACKEND.into(), subvolume_of(&kept)))
                        .map(|held| held.tag.clone());
                    Ok(matches!(tag, Some(Tag::Owner(Owner { left: Some(_), .. }))).then_some(()))
                })
                .await?;
                let secret = before.secret(NS, "trainer-cephx").await?.context("no key")?;
                let text =
                    |key: &str| String::from_utf8(secret.data.as_ref().unwrap()[key].0.clone()).unwrap();
                let cluster = before.cluster(BACKEND).await?;
                let key = Key::new(text("userKey"));
                let session =
                    cluster.mount(BACKEND, &subvolume_of(&data), &text("userID"), &key, "/below")?;
                for share in [&docs, &data] {
                    cluster.set_used(BACKEND, &uid(share), 7)?;
                }
                before.kill_operator().await?;
                let former = cluster_uid(&before).await?;
                s.take_over(&before).await?;
                (docs, data, kept, session, former)
            };
            let held_before = s.holdings().await?;
            make_namespace(s, NS).await?;
            apply(s, NS).await?;
            for name in ["kept", "new"] {
                s.world.share(NS, name, share_spec(Protocol::NFS)).await?;
            }
            s.start_operator("").await?;

            // What was kept on purpose holds nobody up, and what never was neither.
            until_ready(s, NS, "kept").await?;
            until_ready(s, NS, "new").await?;
            let docs = until_waiting(s, NS, "docs").await?;
            let data = until_waiting(s, NS, "data").await?;
            for (share, old) in [(&docs, &old_docs), (&data, &old_data)] {
                let named = &share.status.as_ref().unwrap().former_data;
                ensure!(
                    named.len() == 1 && named[0].handle == handle(old) && named[0].cluster == former,
                    "{named:?}"
                );
                let told = message(&share.status.as_ref().unwrap().conditions, "Ready").unwrap();
                ensure!(told.contains("7 of 1073741824 bytes used"), "{told}");
            }
            let found = until_orphans(s, "has three orphans", |found| found.subvolumes == 3).await?;
            ensure!(found.exports == 1, "{found:?}");
            let kept = found
                .list
                .iter()
                .find(|orphan| orphan.handle == handle(&old_kept));
            ensure!(
                kept.is_some_and(|kept| kept.left.as_deref() == Some("Retained")),
                "{found:?}"
            );
            let metrics = s.metrics().await?;
            ensure!(
                metrics.contains("shoal_orphans{backend=\"simulated\",what=\"subvolume\"} 3"),
                "{metrics}"
            );

            user_may_not_say(s, NS).await?;
            for (name, old) in [("docs", &old_docs), ("data", &old_data)] {
                say(s, NS, name, &format!("{BACKEND}/{}", handle(old))).await?;
                let share = until_ready(s, NS, name).await?;
                ensure!(
                    share.status.as_ref().unwrap().handle == Some(handle(old)),
                    "{share:#?}"
                );
                let held = s.holdings().await?;
                let key = (BACKEND.to_owned(), subvolume_of(old));
                let (was, is) = (&held_before.subvolumes[&key], &held.subvolumes[&key]);
                ensure!(
                    was.path == is.path && is.used_bytes == 7,
                    "{name} has other data: {was:?}, {is:?}"
                );
            }
            s.until_rule(NS, "office", "True", reasons::ACTIVE).await?;
            s.until_rule(NS, "trainer", "True", reasons::ACTIVE).await?;
            let held = s.holdings().await?;
            ensure!(
                !held.exports.contains_key(&pseudo_path(&uid(&old_docs))),
                "the old path still leads there"
            );
            let of_before: Vec<_> = held_before
                .identities
                .keys()
                .filter(|old| held.identities.contains_key(*old))
                .collect();
            ensure!(of_before.is_empty(), "{of_before:?} are still let in");
            ensure!(
                !s.cluster(BACKEND).await?.is_mounted(session)?,
                "a former client is still connected"
            );
            until_orphans(s, "has one orphan", |found| found.subvolumes == 1).await?;
            s.until_settled(Some(NS)).await?;
            s.cluster(BACKEND)
                .await?
                .delete_subvolume(BACKEND, &uid(&old_kept))?;
            s.check_holdings(Some(NS)).await?;

            second_is_refused(s, &old_docs).await?;
            deleted_and_made_again(s, NS).await
        },
    );
}

/// Only who has the verb adopt says what becomes of former data.
async fn user_may_not_say(s: &SimulatedStorage, ns: &str) -> Result<()> {
    let rules = json!([{"apiGroups": ["shoal.storage"], "resources": ["shares"],
        "verbs": ["get", "list", "watch", "create", "update", "patch", "delete"]}]);
    s.world.grant("former-user", &["former-user"], &rules).await?;
    let user = s.world.client_as("former-user").await?;
    let shares: Api<Share> = Api::namespaced(user, ns);
    eventually("the role to be known", PATIENCE, async || {
        Ok(shares.get_opt("none").await.ok())
    })
    .await?;
    for verdict in [START_EMPTY, "simulated/shoal/shoal-x"] {
        let patch = Patch::Merge(json!({"metadata": {"annotations": {FORMER_DATA: verdict}}}));
        let refused = shares.patch("docs", &PatchParams::default(), &patch).await;
        let Err(kube::Error::Api(refused)) = refused else {
            anyhow::bail!("a user has said what becomes of former data");
        };
        ensure!(
            refused.code == 403 && refused.message.contains("takes the verb adopt on shares"),
            "{refused:?}"
        );
    }
    Ok(())
}

/// Two objects that claim the same data.
async fn second_is_refused(s: &SimulatedStorage, old: &Share) -> Result<()> {
    let ns = s.world.namespace("thief").await?;
    s.world.share(&ns, "copy", bringing_back(&handle(old))).await?;
    let refused = s
        .until_share(&ns, "copy", "False", reasons::NOT_TO_BE_BROUGHT_BACK)
        .await?;
    let told = message(&refused.status.as_ref().unwrap().conditions, "Ready").unwrap();
    ensure!(told.contains("Share team/docs"), "{told}");
    s.delete_share(&ns, "copy").await?;
    s.until_share_gone(&ns, "copy").await
}

/// One's own deletions hold nobody up.
async fn deleted_and_made_again(s: &SimulatedStorage, ns: &str) -> Result<()> {
    for name in ["docs", "data"] {
        let protocol = if name == "docs" {
            Protocol::NFS
        } else {
            Protocol::CephFS
        };
        let share = s.world.api::<Share>(ns).get(name).await?;
        s.delete_share(ns, name).await?;
        s.until_share_gone(ns, name).await?;
        s.world.share(ns, name, share_spec(protocol)).await?;
        until_ready(s, ns, name).await?;
        let held = s.holdings().await?;
        let key = (BACKEND.to_owned(), subvolume_of(&share));
        ensure!(!held.subvolumes.contains_key(&key), "{name} was not removed");
    }
    Ok(())
}

/// A share that was made after the backup: its object is not in the etcd that was restored, its data is on the storage.
#[test]
fn a_share_that_the_restored_etcd_does_not_know_is_held_and_adopted() {
    run(|s| async move {
        let _alone = s.alone().await;
        let ns = s.world.namespace("hour").await?;
        let lost = s.ready_share(&ns, "late", Protocol::NFS).await?;
        s.kill_operator().await?;
        forget(s, &ns, "late").await?;
        s.world.share(&ns, "late", share_spec(Protocol::NFS)).await?;
        s.start_operator("").await?;
        let waiting = until_waiting(s, &ns, "late").await?;
        let named = &waiting.status.as_ref().unwrap().former_data;
        ensure!(named[0].cluster == cluster_uid(s).await?, "{named:?}");
        say(s, &ns, "late", &format!("{BACKEND}/{}", handle(&lost))).await?;
        let share = until_ready(s, &ns, "late").await?;
        ensure!(subvolume_of(&share) == subvolume_of(&lost), "{share:#?}");
        ensure!(
            path_of(&share) == pseudo_path(&uid(&share)),
            "{}",
            path_of(&share)
        );
        s.clear(&ns).await
    });
}

/// Rules that were deleted and lowered since the backup: what letting them in again would change is told before it is done.
#[test]
fn what_an_hour_old_etcd_would_change_is_told_before_it_is_done() {
    run(|s| async move {
        let _alone = s.alone().await;
        let ns = s.world.namespace("compared").await?;
        let share = s.ready_share(&ns, "docs", Protocol::NFS).await?;
        let desk = |level| ip_rule("docs", "10.0.0.2", level);
        s.world.rule(&ns, "desk", desk("ReadOnly")).await?;
        s.until_rule(&ns, "desk", "True", reasons::ACTIVE).await?;
        let held = s.held(&share).await?.context("nothing is held")?;
        s.kill_operator().await?;
        s.world.rule(&ns, "desk", desk("ReadWrite")).await?;
        s.world
            .rule(&ns, "laptop", ip_rule("docs", "10.0.0.1", "ReadWrite"))
            .await?;
        dry_run(s, true).await?;
        s.start_operator("").await?;
        until_compared(
            s,
            &ns,
            &[
                "rule 'desk' makes its client ReadWrite, from ReadOnly",
                "rule 'laptop' lets its client in, ReadWrite: it is not let in now",
            ],
        )
        .await?;
        s.until_backend(BACKEND, "False", reasons::DRY_RUN).await?;
        ensure!(s.held(&share).await?.as_ref() == Some(&held), "it was changed");

        // What should not come back is taken away, and the rest may be done.
        s.delete_rule(&ns, "laptop").await?;
        s.world.rule(&ns, "desk", desk("ReadOnly")).await?;
        until_compared(s, &ns, &[]).await?;
        dry_run(s, false).await?;
        s.until_backend(BACKEND, "True", reasons::AVAILABLE).await?;
        s.until_rule(&ns, "desk", "True", reasons::ACTIVE).await?;
        let shares = s.world.api::<Share>(&ns);
        let share = until(&shares, "docs", "is worked on", |share: &Share| {
            share.status.as_ref().is_some_and(|s| s.differences.is_none())
        })
        .await?;
        ensure!(s.held(&share).await?.as_ref() == Some(&held), "it was changed");
        s.clear(&ns).await
    });
}

async fn dry_run(s: &SimulatedStorage, is_dry_run: bool) -> Result<()> {
    let backends = s.world.cluster_api::<ShareBackend>();
    let patch = Patch::Merge(json!({"spec": {"dryRun": is_dry_run}}));
    backends.patch(BACKEND, &PatchParams::default(), &patch).await?;
    Ok(())
}

async fn until_compared(s: &SimulatedStorage, ns: &str, wanted: &[&str]) -> Result<()> {
    let shares = s.world.api::<Share>(ns);
    until(&shares, "docs", "is compared", |share: &Share| {
        let told = share
            .status
            .as_ref()
            .and_then(|status| status.differences.as_ref());
        told.is_some_and(|told| told.list == wanted)
    })
    .await?;
    Ok(())
}

/// Takes an object off the API server as if it had never been there.
async fn forget(s: &SimulatedStorage, ns: &str, name: &str) -> Result<()> {
    let shares = s.world.api::<Share>(ns);
    s.delete_share(ns, name).await?;
    let free = Patch::Merge(json!({"metadata": {"finalizers": Value::Null}}));
    shares.patch(name, &PatchParams::default(), &free).await?;
    s.until_share_gone(ns, name).await
}

/// A subvolume that another cluster's Shoal made for a share of this name.
async fn of_another_cluster(s: &SimulatedStorage, cluster: &str, ns: &str, name: &str) -> Result<String> {
    let uid = format!("{cluster}-{name}");
    let owner = Owner {
        cluster: cluster.into(),
        namespace: ns.into(),
        name: name.into(),
        uid: uid.clone(),
        left: None,
    };
    let storage = s.cluster(BACKEND).await?;
    storage.add_subvolume(BACKEND, &uid, 1 << 30, Some(&owner.to_tag()))?;
    let handle = format!("shoal/shoal-{uid}");
    until_orphans(s, "has been looked through", |found| {
        found.list.iter().any(|orphan| orphan.handle == handle)
    })
    .await?;
    Ok(handle)
}

#[test]
fn an_admin_may_have_it_made_empty() {
    run(|s| async move {
        let ns = s.world.namespace("empty").await?;
        let handle = of_another_cluster(s, "gone", &ns, "a").await?;
        let share = s.world.share(&ns, "a", share_spec(Protocol::CephFS)).await?;
        until_waiting(s, &ns, "a").await?;
        say(s, &ns, "a", &start_empty(&share.uid().unwrap())).await?;
        let share = until_ready(s, &ns, "a").await?;
        ensure!(
            share.status.as_ref().unwrap().former_data.is_empty(),
            "{share:#?}"
        );
        let held = s.holdings().await?;
        let former = handle.strip_prefix("shoal/").unwrap().to_owned();
        ensure!(
            held.subvolumes.contains_key(&(BACKEND.into(), former)),
            "it was removed"
        );
        s.clear(&ns).await
    });
}

#[test]
fn what_lies_in_another_group_is_not_shoals_to_give() {
    run(|s| async move {
        let ns = s.world.namespace("group").await?;
        let handle = of_another_cluster(s, "elsewhere", &ns, "a").await?;
        s.world.share(&ns, "a", share_spec(Protocol::NFS)).await?;
        until_waiting(s, &ns, "a").await?;
        let elsewhere = handle.replace("shoal/", "theirs/");
        say(s, &ns, "a", &format!("{BACKEND}/{elsewhere}")).await?;
        let refused = s
            .until_share(&ns, "a", "False", reasons::NOT_TO_BE_BROUGHT_BACK)
            .await?;
        let told = message(&refused.status.as_ref().unwrap().conditions, "Ready").unwrap();
        ensure!(told.contains("is not in subvolume group 'shoal'"), "{told}");
        say(s, &ns, "a", &format!("{BACKEND}/{handle}")).await?;
        until_ready(s, &ns, "a").await?;
        s.clear(&ns).await
    });
}

#[test]
fn what_nobody_can_look_for_is_waited_for() {
    run(|s| async move {
        let _alone = s.alone().await;
        let ns = s.world.namespace("away").await?;
        let handle = of_another_cluster(s, "unreachable", &ns, "a").await?;
        let storage = s.cluster(BACKEND).await?;
        storage.set_trouble(Some(Trouble::Unreachable))?;
        s.world.share(&ns, "b", bringing_back(&handle)).await?;
        let shares = s.world.api::<Share>(&ns);
        until(&shares, "b", "says that nobody could look", |share: &Share| {
            let conditions = share.status.as_ref().map_or(&[][..], |status| &status.conditions);
            let why = condition(conditions, "Ready").map(|(_, reason)| reason);
            let away = [reasons::BACKEND_UNREACHABLE, reasons::BACKEND_NOT_READY];
            let told = message(conditions, "Ready").unwrap_or_default();
            why.is_some_and(|why| away.contains(&why)) && told.contains("could not be looked at")
        })
        .await?;
        storage.set_trouble(None)?;
        until_ready(s, &ns, "b").await?;
        s.clear(&ns).await
    });
}

#[test]
fn who_waits_for_data_has_it_as_soon_as_it_is_let_go() {
    run(|s| async move {
        let _alone = s.alone().await;
        let ns = s.world.namespace("heir").await?;
        let mut spec = share_spec(Protocol::NFS);
        spec["deletionPolicy"] = "Retain".into();
        s.world.share(&ns, "a", spec).await?;
        let kept = until_ready(s, &ns, "a").await?;
        let said = format!("{BACKEND}/{}", handle(&kept));
        let heir = json!({
            "apiVersion": "shoal.storage/v1alpha1", "kind": "Share",
            "metadata": {"name": "b", "namespace": ns, "annotations": {FORMER_DATA: said}},
            "spec": share_spec(Protocol::NFS),
        });
        s.world.apply(&heir).await?;
        s.until_share(&ns, "b", "False", reasons::NOT_TO_BE_BROUGHT_BACK)
            .await?;
        let began = Instant::now();
        s.delete_share(&ns, "a").await?;
        let share = until_ready(s, &ns, "b").await?;
        ensure!(subvolume_of(&share) == subvolume_of(&kept), "{share:#?}");
        // By itself it looks twice a minute.
        ensure!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        s.clear(&ns).await
    });
}

/// One that has brought data back, which so has another's name, and that a new operator can't read.
#[test]
fn a_share_that_can_not_be_read_keeps_what_it_has() {
    run(|s| async move {
        let _alone = s.alone().await;
        let ns = s.world.namespace("unread").await?;
        let handle = of_another_cluster(s, "brought-back", &ns, "a").await?;
        let spec = bringing_back(&handle);
        s.world.share(&ns, "b", spec.clone()).await?;
        until_ready(s, &ns, "b").await?;
        let own = s.ready_share(&ns, "own", Protocol::NFS).await?;
        let of_any_size = |mut spec: Value| {
            spec["size"] = "1.5Gi".into();
            spec
        };
        s.share_of_any_size(&ns, "b", of_any_size(spec.clone())).await?;
        s.share_of_any_size(&ns, "own", of_any_size(share_spec(Protocol::NFS)))
            .await?;
        s.kill_operator().await?;
        let storage = s.cluster(BACKEND).await?;
        storage.add_subvolume(BACKEND, "nobodys", 1 << 30, None)?;
        s.start_operator("").await?;
        let found = until_orphans(s, "has been looked through anew", |found| {
            found
                .list
                .iter()
                .any(|orphan| orphan.handle == "shoal/shoal-nobodys")
        })
        .await?;
        for kept in [handle, self::handle(&own)] {
            ensure!(found.list.iter().all(|orphan| orphan.handle != kept), "{found:?}");
        }
        storage.delete_subvolume(BACKEND, "nobodys")?;
        s.world.share(&ns, "b", spec).await?;
        s.world.share(&ns, "own", share_spec(Protocol::NFS)).await?;
        until_ready(s, &ns, "b").await?;
        until_ready(s, &ns, "own").await?;
        s.clear(&ns).await
    });
}

#[test]
fn a_neighbours_volumes_hold_nobody_up_and_are_not_to_be_had() {
    run(|s| async move {
        let _alone = s.alone().await;
        let ns = s.world.namespace("near").await?;
        let handle = of_another_cluster(s, "living", &ns, "a").await?;
        s.world.share(&ns, "a", share_spec(Protocol::NFS)).await?;
        until_waiting(s, &ns, "a").await?;
        let backends = s.world.cluster_api::<ShareBackend>();
        let spec = |neighbours: Value| Patch::Merge(json!({"spec": {"neighbours": neighbours}}));
        backends
            .patch(BACKEND, &PatchParams::default(), &spec(json!(["living"])))
            .await?;
        until_ready(s, &ns, "a").await?;
        until_orphans(s, "does not tell of it", |found| {
            found.list.iter().all(|orphan| orphan.handle != handle)
        })
        .await?;
        s.world.share(&ns, "b", bringing_back(&handle)).await?;
        s.until_share(&ns, "b", "False", reasons::NOT_TO_BE_BROUGHT_BACK)
            .await?;
        backends
            .patch(BACKEND, &PatchParams::default(), &spec(Value::Null))
            .await?;
        s.world
            .api::<Share>(&ns)
            .delete("b", &DeleteParams::default())
            .await?;
        s.clear(&ns).await
    });
}
