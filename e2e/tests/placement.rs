//! Where shares go on a real API server and simulated backends, and what becomes of backends that are full, disabled, paused
//! or deleted.

#![cfg(test)]
#![allow(clippy::unwrap_used, clippy::needless_pass_by_value)]

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use kube::{
    ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use shoal_crds::{BackendPhase, Protocol, Share, ShareAccessRule, ShareBackend, ShareType, Size};
use shoal_domain::owner::{pseudo_path, subvolume_name};
use shoal_e2e::{
    lab::KubernetesRelease,
    race::{PLACES, Places, race},
    simulated_storage::{BACKEND, SimulatedStorage, ip_rule, message, share_spec},
    suite::Suite,
    world::{PATIENCE, condition, eventually, until, until_gone},
};

static SUITE: Suite<SimulatedStorage> = Suite::new();

fn run<S: Future<Output = Result<()>>>(scenario: impl FnOnce(&'static SimulatedStorage) -> S) {
    SUITE.run(|| SimulatedStorage::start(KubernetesRelease::V1_37), scenario);
}

/// Makes a backend.
async fn add_backend(s: &SimulatedStorage, name: &str, spec: Value) -> Result<()> {
    s.world
        .apply(&json!({
            "apiVersion": "shoal.storage/v1alpha1", "kind": "ShareBackend", "metadata": {"name": name}, "spec": spec,
        }))
        .await?;
    s.until_backend(name, "True", "Available").await?;
    Ok(())
}

/// Makes backends, and a type that selects them, and gives what a share of that type asks for.
async fn type_on(s: &SimulatedStorage, name: &str, backends: &[(&str, Value)]) -> Result<Value> {
    for (backend, spec) in backends {
        add_backend(s, backend, spec.clone()).await?;
    }
    let names: Vec<_> = backends.iter().map(|(backend, _)| backend).collect();
    let spec = json!({"backendNames": names, "shrink": true});
    s.world.add_type(name, spec, false).await?;
    Ok(json!({"protocol": "NFS", "size": "1Gi", "shareTypeName": name}))
}

fn with(mut spec: Value, more: Value) -> Value {
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    spec
}

fn plain() -> Value {
    json!({"simulated": {}})
}

async fn change_backend(s: &SimulatedStorage, name: &str, spec: Value) -> Result<()> {
    let api = s.world.cluster_api::<ShareBackend>();
    let changed = api
        .patch(
            name,
            &PatchParams::default(),
            &Patch::Merge(json!({"spec": spec})),
        )
        .await?;
    until(&api, name, "answers its spec", |backend: &ShareBackend| {
        let answered = backend.status.as_ref().and_then(|s| s.observed_generation);
        answered >= changed.metadata.generation
    })
    .await?;
    Ok(())
}

async fn remove_backends(s: &SimulatedStorage, names: &[&str]) -> Result<()> {
    let api = s.world.cluster_api::<ShareBackend>();
    for name in names {
        api.delete(name, &DeleteParams::default()).await?;
        until_gone(&api, name).await?;
    }
    Ok(())
}

fn backend_of(share: &Share) -> &str {
    let status = share.status.as_ref().unwrap();
    status.backend_name.as_deref().unwrap_or_default()
}

fn told(share: &Share, type_: &str, words: &[&str]) -> Result<()> {
    let text = message(&share.status.as_ref().unwrap().conditions, type_).unwrap_or_default();
    for word in words {
        ensure!(text.contains(word), "{word:?} is not in {text:?}");
    }
    Ok(())
}

/// Manila 2.14: no new share, the ones there go on being managed, an admin may pin, and enabling places those that wait.
#[test]
fn a_disabled_backend_gets_no_new_share_and_keeps_looking_after_its_own() {
    run(|s| async move {
        let ns = s.world.namespace("disabled").await?;
        let spec = type_on(s, "on-disabled", &[("worn", plain())]).await?;
        s.world.share(&ns, "there", spec.clone()).await?;
        s.until_share(&ns, "there", "True", "Available").await?;
        let disabled = json!({"schedulingEnabled": false, "disabledReason": "disks are swapped"});
        change_backend(s, "worn", disabled).await?;

        s.world.share(&ns, "new", spec.clone()).await?;
        let waits = s.until_share(&ns, "new", "False", "NoBackendFits").await?;
        told(
            &waits,
            "Scheduled",
            &["worn: takes no new shares (disks are swapped)"],
        )?;
        s.until_event(&ns, "new", "NoBackendFits").await?;

        let pinned = with(spec, json!({"placement": {"backendName": "worn"}}));
        s.world.share(&ns, "pinned", pinned).await?;
        let pinned = s.until_share(&ns, "pinned", "True", "Available").await?;
        ensure!(backend_of(&pinned) == "worn");

        s.world
            .rule(&ns, "r", ip_rule("there", "10.0.0.1", "ReadWrite"))
            .await?;
        s.until_rule(&ns, "r", "True", "Active").await?;
        s.change_share(&ns, "there", json!({"size": "2Gi"})).await?;
        let grown = s.until_share(&ns, "there", "True", "Available").await?;
        ensure!(grown.status.unwrap().size.map(Size::bytes) == Some(2 << 30));
        s.delete_rule(&ns, "r").await?;
        s.until_rule_gone(&ns, "r").await?;
        s.delete_share(&ns, "there").await?;
        s.until_share_gone(&ns, "there").await?;

        let api = s.world.api::<Share>(&ns);
        let still = api.get("new").await?;
        ensure!(backend_of(&still).is_empty(), "room alone is not enough");
        change_backend(
            s,
            "worn",
            json!({"schedulingEnabled": true, "disabledReason": null}),
        )
        .await?;
        let placed = s.until_share(&ns, "new", "True", "Available").await?;
        ensure!(backend_of(&placed) == "worn");
        s.clear(&ns).await?;
        remove_backends(s, &["worn"]).await
    });
}

#[test]
fn a_backend_can_be_added_disabled_and_enabled_later() {
    run(|s| async move {
        let ns = s.world.namespace("later").await?;
        let disabled = json!({"simulated": {}, "schedulingEnabled": false});
        let spec = type_on(s, "on-later", &[("later", disabled)]).await?;
        s.world.share(&ns, "a", spec).await?;
        let waits = s.until_share(&ns, "a", "False", "NoBackendFits").await?;
        told(&waits, "Scheduled", &["later: takes no new shares"])?;
        change_backend(s, "later", json!({"schedulingEnabled": true})).await?;
        s.until_share(&ns, "a", "True", "Available").await?;
        s.clear(&ns).await?;
        remove_backends(s, &["later"]).await
    });
}

/// Twenty shares at once for the room of five: never more, and as one goes another gets its place by itself.
#[test]
fn shares_that_race_for_the_last_room_never_get_more_than_there_is() {
    const SHARES: usize = 20;
    run(|s| async move {
        let ns = s.world.namespace("race").await?;
        let narrow = json!({"simulated": {"capacity": "10Gi"}, "overcommitRatio": "0.5"});
        let spec = type_on(s, "on-narrow", &[("narrow", narrow)]).await?;
        let names: Vec<_> = (0..SHARES).map(|n| format!("s{n}")).collect();
        try_join_all(names.iter().map(|name| s.world.share(&ns, name, spec.clone()))).await?;
        let api = s.world.api::<Share>(&ns);
        for round in 0..3 {
            let left = SHARES - round;
            let shares = eventually("five to be placed, and the others told", PATIENCE, async || {
                let shares = api.list(&kube::api::ListParams::default()).await?.items;
                let placed = shares
                    .iter()
                    .filter(|share| !backend_of(share).is_empty())
                    .count();
                ensure!(
                    placed <= 5,
                    "{placed} shares of 1Gi are on a backend that may promise 5Gi"
                );
                let is = |share: &Share, reason: &str| {
                    let status = share.status.as_ref().unwrap();
                    condition(&status.conditions, "Ready").is_some_and(|(_, why)| why == reason)
                };
                let ready = shares.iter().filter(|share| is(share, "Available")).count();
                let waiting = shares.iter().filter(|share| is(share, "NoBackendFits")).count();
                Ok((shares.len() == left && ready == 5 && waiting == left - 5).then_some(shares))
            })
            .await?;
            let waiting = shares.iter().find(|share| backend_of(share).is_empty()).unwrap();
            told(
                waiting,
                "Scheduled",
                &["narrow: has promised its room to other shares"],
            )?;
            let placed = shares.iter().find(|share| !backend_of(share).is_empty()).unwrap();
            s.delete_share(&ns, &placed.name_any()).await?;
        }
        // One that is there waits to grow, and grows when there is room.
        let mut shares = api.list(&kube::api::ListParams::default()).await?.items;
        shares.retain(|share| share.metadata.deletion_timestamp.is_none());
        let (there, waiting): (Vec<_>, Vec<_>) =
            shares.iter().partition(|share| !backend_of(share).is_empty());
        for share in waiting {
            s.delete_share(&ns, &share.name_any()).await?;
            s.until_share_gone(&ns, &share.name_any()).await?;
        }
        let grows = there[0].name_any();
        let placed = eventually("all that are left to be placed", PATIENCE, async || {
            let shares = api.list(&kube::api::ListParams::default()).await?.items;
            let placed = shares
                .iter()
                .filter(|share| !backend_of(share).is_empty())
                .count();
            Ok((placed == shares.len()).then_some(placed))
        })
        .await?;
        s.change_share(&ns, &grows, json!({"size": format!("{}Gi", 7 - placed)}))
            .await?;
        let waits = s.until_share(&ns, &grows, "False", "NoRoomToExtend").await?;
        told(&waits, "Ready", &["spec.size", "'narrow' has promised its room"])?;
        ensure!(
            waits.status.unwrap().size.map(Size::bytes) == Some(1 << 30),
            "it keeps its size"
        );
        s.delete_share(&ns, &there[1].name_any()).await?;
        s.until_share(&ns, &grows, "True", "Available").await?;
        s.clear(&ns).await?;
        remove_backends(s, &["narrow"]).await
    });
}

/// The same as for a quota, with the places on a backend: those of shares that are gone count until nothing is left of them.
#[test]
fn two_hundred_shares_race_for_the_last_room_and_replicas_die() {
    run(|s| async move {
        let _alone = s.alone().await;
        let ns = s.world.namespace("crowd").await?;
        let room = json!({"simulated": {"capacity": format!("{PLACES}Gi")}, "overcommitRatio": 1});
        let spec = type_on(s, "on-crowded", &[("crowded", room)]).await?;
        race(s, &ns, &spec, Places::OnBackend).await?;
        remove_backends(s, &["crowded"]).await
    });
}

#[test]
fn shares_go_with_others_and_apart_from_others() {
    run(|s| async move {
        let ns = s.world.namespace("company").await?;
        let spec = type_on(s, "on-pair", &[("left", plain()), ("right", plain())]).await?;
        let wish = |wish: Value| with(spec.clone(), json!({"placement": wish}));
        let apart = |other: &str| wish(json!({"differentBackendFrom": [other]}));
        try_join_all(vec![
            s.world.share(&ns, "db-0", apart("db-1")),
            s.world.share(&ns, "db-1", apart("db-0")),
        ])
        .await?;
        let zero = s.until_share(&ns, "db-0", "True", "Available").await?;
        let one = s.until_share(&ns, "db-1", "True", "Available").await?;
        ensure!(
            backend_of(&zero) != backend_of(&one),
            "both are on {}",
            backend_of(&one)
        );

        s.world
            .share(&ns, "log", wish(json!({"sameBackendAs": ["db-1"]})))
            .await?;
        let log = s.until_share(&ns, "log", "True", "Available").await?;
        ensure!(backend_of(&log) == backend_of(&one));

        // One that names what does not exist yet waits for it, and then for nothing.
        s.world
            .share(&ns, "first", wish(json!({"sameBackendAs": ["second"]})))
            .await?;
        let waits = s.until_share(&ns, "first", "False", "WaitingForShare").await?;
        told(
            &waits,
            "Scheduled",
            &["spec.placement.sameBackendAs", "'second' does not exist yet"],
        )?;
        s.world
            .share(&ns, "second", wish(json!({"sameBackendAs": ["first"]})))
            .await?;
        let first = s.until_share(&ns, "first", "True", "Available").await?;
        let second = s.until_share(&ns, "second", "True", "Available").await?;
        ensure!(backend_of(&first) == backend_of(&second));

        s.world
            .share(
                &ns,
                "nowhere",
                wish(json!({"differentBackendFrom": ["db-0", "db-1"]})),
            )
            .await?;
        let waits = s.until_share(&ns, "nowhere", "False", "NoBackendFits").await?;
        told(
            &waits,
            "Scheduled",
            &[
                "left: a share that it has to be apart from is on it",
                "right: a share that it has to be apart from is on it",
            ],
        )?;
        s.delete_share(&ns, "db-1").await?;
        let placed = s.until_share(&ns, "nowhere", "True", "Available").await?;
        ensure!(backend_of(&placed) == backend_of(&one));

        s.world
            .share(&ns, "lost", wish(json!({"backendName": "nirvana"})))
            .await?;
        let waits = s.until_share(&ns, "lost", "False", "NoBackendFits").await?;
        told(
            &waits,
            "Scheduled",
            &["spec.placement.backendName: ShareBackend 'nirvana' does not exist"],
        )?;
        s.clear(&ns).await?;
        remove_backends(s, &["left", "right"]).await
    });
}

#[test]
fn a_backend_that_is_deleted_waits_for_its_shares_and_names_them() {
    run(|s| async move {
        let ns = s.world.namespace("leaving").await?;
        let spec = type_on(s, "on-leaving", &[("leaving", plain())]).await?;
        s.world.share(&ns, "a", spec.clone()).await?;
        s.until_share(&ns, "a", "True", "Available").await?;
        let api = s.world.cluster_api::<ShareBackend>();
        api.delete("leaving", &DeleteParams::default()).await?;
        let blocked = until(
            &api,
            "leaving",
            "says what is in the way",
            |backend: &ShareBackend| {
                let status = backend.status.as_ref().unwrap();
                condition(&status.conditions, "DeletionBlocked") == Some(("True", "HasShares"))
            },
        )
        .await?;
        let status = blocked.status.unwrap();
        let text = message(&status.conditions, "DeletionBlocked").unwrap();
        ensure!(text.contains(&format!("1 shares are on it: {ns}/a.")), "{text}");
        ensure!(status.phase == Some(BackendPhase::Deleting));
        s.until_event("default", "leaving", "HasShares").await?;

        s.world.share(&ns, "b", spec).await?;
        let waits = s.until_share(&ns, "b", "False", "NoBackendFits").await?;
        told(&waits, "Scheduled", &["leaving: being deleted"])?;
        s.world
            .rule(&ns, "r", ip_rule("a", "10.0.0.1", "ReadWrite"))
            .await?;
        s.until_rule(&ns, "r", "True", "Active").await?;
        s.clear(&ns).await?;
        until_gone(&api, "leaving").await
    });
}

#[test]
fn a_paused_backend_is_left_alone_until_it_is_not() {
    run(|s| async move {
        let ns = s.world.namespace("paused").await?;
        let spec = type_on(s, "on-paused", &[("paused", plain())]).await?;
        s.world.share(&ns, "a", spec.clone()).await?;
        s.until_share(&ns, "a", "True", "Available").await?;
        change_backend(s, "paused", json!({"paused": true})).await?;
        s.until_backend("paused", "False", "BackendPaused").await?;
        let before = s.cluster("paused").await?.effects()?;
        s.change_share(&ns, "a", json!({"size": "2Gi"})).await?;
        s.world
            .rule(&ns, "r", ip_rule("a", "10.0.0.1", "ReadWrite"))
            .await?;
        s.world.share(&ns, "b", spec).await?;
        let waits = s.until_share(&ns, "b", "False", "NoBackendFits").await?;
        told(&waits, "Scheduled", &["paused: not ready (BackendPaused)"])?;
        s.until_rule(&ns, "r", "False", "ShareNotReady").await?;
        ensure!(
            s.cluster("paused").await?.effects()? == before,
            "something was done there"
        );
        change_backend(s, "paused", json!({"paused": false})).await?;
        s.until_share(&ns, "a", "True", "Available").await?;
        s.until_share(&ns, "b", "True", "Available").await?;
        s.until_rule(&ns, "r", "True", "Active").await?;
        s.clear(&ns).await?;
        remove_backends(s, &["paused"]).await
    });
}

#[test]
fn a_paused_share_is_left_alone_until_it_is_not() {
    run(|s| async move {
        let ns = s.world.namespace("still").await?;
        s.ready_share(&ns, "a", Protocol::NFS).await?;
        s.ready_share(&ns, "b", Protocol::NFS).await?;
        let api = s.world.api::<Share>(&ns);
        let mark = |value: Value| {
            Patch::Merge(json!({"metadata": {"annotations": {"shoal.storage/paused": value}}}))
        };
        let is_paused = |share: &Share| {
            let status = share.status.as_ref().unwrap();
            condition(&status.conditions, "Paused").is_some()
        };
        for name in ["a", "b"] {
            api.patch(name, &PatchParams::default(), &mark("for a look".into()))
                .await?;
            until(&api, name, "says that it is paused", is_paused).await?;
        }
        let before = s.holdings().await?;
        s.change_share(&ns, "a", json!({"size": "2Gi"})).await?;
        s.world
            .rule(&ns, "r", ip_rule("a", "10.0.0.1", "ReadWrite"))
            .await?;
        s.until_rule(&ns, "r", "False", "ShareNotReady").await?;
        s.delete_share(&ns, "b").await?;
        until(&api, "b", "says why it stays", |share: &Share| {
            let status = share.status.as_ref().unwrap();
            condition(&status.conditions, "DeletionBlocked") == Some(("True", "Paused"))
        })
        .await?;
        let now = s.holdings().await?;
        for name in ["a", "b"] {
            let uid = api.get(name).await?.uid().unwrap();
            let (subvolume, path) = (subvolume_name(&uid), pseudo_path(&uid));
            ensure!(
                now.share("simulated", &subvolume, &path) == before.share("simulated", &subvolume, &path)
            );
            api.patch(name, &PatchParams::default(), &mark(Value::Null))
                .await?;
        }
        s.until_share_gone(&ns, "b").await?;
        let share = s.until_share(&ns, "a", "True", "Available").await?;
        ensure!(!is_paused(&share));
        ensure!(share.status.unwrap().size.map(Size::bytes) == Some(2 << 30));
        s.until_rule(&ns, "r", "True", "Active").await?;
        s.clear(&ns).await
    });
}

#[test]
fn of_two_default_types_the_newer_is_taken_and_the_older_says_so() {
    run(|s| async move {
        let _alone = s.alone().await;
        let ns = s.world.namespace("defaults").await?;
        s.world
            .add_type("newer", json!({"backendNames": [BACKEND]}), true)
            .await?;
        let types = s.world.cluster_api::<ShareType>();
        let says = |truth: &'static str, reason: &'static str| {
            move |share_type: &ShareType| {
                let status = share_type.status.as_ref();
                status.is_some_and(|s| condition(&s.conditions, "Default") == Some((truth, reason)))
            }
        };
        until(&types, "newer", "is the default", says("True", "Available")).await?;
        until(
            &types,
            "standard",
            "says that it is not",
            says("False", "NewerDefault"),
        )
        .await?;
        s.until_event("default", "standard", "NewerDefault").await?;
        s.world.share(&ns, "a", share_spec(Protocol::NFS)).await?;
        let share = s.until_share(&ns, "a", "True", "Available").await?;
        ensure!(share.status.unwrap().share_type_name.as_deref() == Some("newer"));
        types.delete("newer", &DeleteParams::default()).await?;
        until(
            &types,
            "standard",
            "is the default again",
            says("True", "Available"),
        )
        .await?;
        let rules = s.world.api::<ShareAccessRule>(&ns);
        ensure!(
            rules
                .list(&kube::api::ListParams::default())
                .await?
                .items
                .is_empty()
        );
        s.clear(&ns).await
    });
}
