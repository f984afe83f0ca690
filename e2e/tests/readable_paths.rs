//! Shares that are found under names of their own, and what users say of shares: on a real API server, with a simulated backend.

#![cfg(test)]
#![allow(clippy::unwrap_used)]

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use kube::{
    ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use shoal_crds::{DeletionPhase, Share, ShareDeletion, ShareType};
use shoal_domain::share_deletion;
use shoal_e2e::{
    holdings::{path_of, subvolume_of},
    lab::KubernetesRelease,
    simulated_storage::{BACKEND, SimulatedStorage, ip_rule, message},
    suite::Suite,
    world::{PATIENCE, condition, eventually, until, until_gone},
};

static SUITE: Suite<SimulatedStorage> = Suite::new();

fn run<S: Future<Output = Result<()>>>(scenario: impl FnOnce(&'static SimulatedStorage) -> S) {
    SUITE.run(|| SimulatedStorage::start(KubernetesRelease::V1_37), scenario);
}

/// A type that lets its shares be named; without a prefix of its own it puts the namespace before them.
async fn add_type(s: &SimulatedStorage, name: &str, prefix: Option<&str>, more: Value) -> Result<()> {
    let mut spec = json!({"backendNames": [BACKEND], "mountPointName": {"enabled": true, "prefix": prefix}});
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    s.world.add_type(name, spec, false).await
}

fn named(share_type: &str, name: &str) -> Value {
    json!({"protocol": "NFS", "size": "1Gi", "shareTypeName": share_type, "mountPointName": name})
}

fn why(share: &Share) -> &str {
    message(&share.status.as_ref().unwrap().conditions, "Ready").unwrap_or_default()
}

/// It is exported under this path and no other, and says so.
async fn is_found_under(s: &SimulatedStorage, share: &Share, path: &str) -> Result<()> {
    let status = share.status.as_ref().unwrap();
    ensure!(path_of(share) == path, "{} and not {path}", path_of(share));
    for location in &status.export_locations {
        ensure!(location.path.ends_with(&format!(":{path}")), "{location:?}");
    }
    let shown = &share.annotations()["shoal.storage/export-location"];
    ensure!(shown.ends_with(&format!(":{path}")), "{shown}");
    let subvolume = &status.export_locations[0].metadata.subvolume_path;
    let backend = status.backend_name.as_deref().unwrap_or_default();
    let exports = s.cluster(backend).await?.snapshot()?.exports;
    let leading_there: Vec<_> = exports
        .iter()
        .filter(|(_, export)| export.path == *subvolume)
        .collect();
    ensure!(
        leading_there.len() == 1 && leading_there[0].0 == path,
        "exported as {leading_there:?}, not as {path}"
    );
    Ok(())
}

#[test]
fn a_name_with_its_types_prefix_is_the_path_for_good() {
    run(|s| async move {
        let ns = s.world.namespace("named").await?;
        add_type(s, "by-namespace", None, json!({})).await?;
        add_type(s, "by-template", Some("{name}_of_{namespace}-"), json!({})).await?;
        s.world.share(&ns, "a", named("by-namespace", "data")).await?;
        s.world.share(&ns, "b", named("by-template", "Data_1")).await?;
        let a = s.until_share(&ns, "a", "True", "Available").await?;
        is_found_under(s, &a, &format!("/{ns}-data")).await?;
        let b = s.until_share(&ns, "b", "True", "Available").await?;
        is_found_under(s, &b, &format!("/b_of_{ns}-Data_1")).await?;

        // Later edits of the type are for later shares.
        add_type(s, "by-namespace", Some("other-"), json!({})).await?;
        let types = s.world.cluster_api::<ShareType>();
        until(&types, "by-namespace", "answers", |t: &ShareType| {
            t.status.as_ref().and_then(|s| s.observed_generation) == t.metadata.generation
        })
        .await?;
        s.world
            .rule(&ns, "r", ip_rule("a", "10.0.0.1", "ReadWrite"))
            .await?;
        s.until_rule(&ns, "r", "True", "Active").await?;
        s.change_share(&ns, "a", json!({"size": "2Gi"})).await?;
        let a = s.until_share(&ns, "a", "True", "Available").await?;
        is_found_under(s, &a, &format!("/{ns}-data")).await?;
        s.start_operator("").await?;
        s.change_share(&ns, "a", json!({"size": "3Gi"})).await?;
        let later = s.until_share(&ns, "a", "True", "Available").await?;
        let locations = |share: &Share| share.status.as_ref().unwrap().export_locations.clone();
        ensure!(
            locations(&later) == locations(&a),
            "ids and paths outlive a restart"
        );

        // What is none with its prefix is said at the share.
        add_type(s, "long", Some(&"x".repeat(255)), json!({})).await?;
        s.world.share(&ns, "c", named("long", "data")).await?;
        let refused = s.until_share(&ns, "c", "False", "InvalidMountPointName").await?;
        ensure!(
            why(&refused).contains("has 259 characters and may have 255"),
            "{}",
            why(&refused)
        );
        s.world.share(&ns, "d", named("standard", "data")).await?;
        let refused = s
            .until_share(&ns, "d", "False", "MountPointNameNotAllowed")
            .await?;
        ensure!(
            why(&refused).contains("ShareType 'standard'"),
            "{}",
            why(&refused)
        );
        s.until_event(&ns, "d", "MountPointNameNotAllowed").await?;
        s.clear(&ns).await
    });
}

/// Two namespaces want one path, again and again: one gets it, the other says so, and has it when it is free.
#[test]
fn of_two_that_race_for_a_name_one_gets_it_and_the_other_when_it_is_free() {
    run(|s| async move {
        add_type(s, "bare", Some(""), json!({})).await?;
        let namespaces = [s.world.namespace("race").await?, s.world.namespace("race").await?];
        let names: Vec<_> = (0..20).map(|n| format!("prize-{n}")).collect();
        let asked = names.iter().flat_map(|name| {
            namespaces
                .each_ref()
                .map(|ns| s.world.share(ns, name, named("bare", name)))
        });
        try_join_all(asked).await?;
        for name in &names {
            let winner = eventually(&format!("{name} to be decided"), PATIENCE, async || {
                let mut reasons = Vec::new();
                for ns in &namespaces {
                    let share = s.world.api::<Share>(ns).get(name).await?;
                    let conditions = share.status.unwrap_or_default().conditions;
                    reasons.push(condition(&conditions, "Ready").map(|(_, reason)| reason.to_owned()));
                }
                Ok(match [reasons[0].as_deref(), reasons[1].as_deref()] {
                    [Some("Available"), Some("MountPointNameTaken")] => Some(0),
                    [Some("MountPointNameTaken"), Some("Available")] => Some(1),
                    _ => None,
                })
            })
            .await?;
            let (winner, loser) = (&namespaces[winner], &namespaces[1 - winner]);
            let path = format!("/{name}");
            let won = s.world.api::<Share>(winner).get(name).await?;
            is_found_under(s, &won, &path).await?;
            let lost = s.world.api::<Share>(loser).get(name).await?;
            ensure!(
                why(&lost).contains(&format!("'{name}' is taken"))
                    && !why(&lost).contains(winner.as_str())
                    && why(&lost).contains("another name"),
                "{}",
                why(&lost)
            );
            s.delete_share(winner, name).await?;
            let taken_over = s.until_share(loser, name, "True", "Available").await?;
            is_found_under(s, &taken_over, &path).await?;
        }
        for ns in &namespaces {
            s.clear(ns).await?;
        }
        Ok(())
    });
}

/// A name is free when nothing is left of its export: not while a deletion has not got that far, and not if that was given up.
#[test]
fn a_name_is_free_when_its_old_export_is_gone() {
    run(|s| async move {
        let ns = s.world.namespace("reused").await?;
        s.world.add_simulated_backend_named("reused").await?;
        s.until_backend("reused", "True", "Available").await?;
        let kept = json!({"retention": "1h", "backendNames": ["reused"]});
        add_type(s, "kept", Some(""), kept).await?;
        s.world.share(&ns, "old", named("kept", "reused")).await?;
        let old = s.until_share(&ns, "old", "True", "Available").await?;
        let cluster = s.cluster("reused").await?;
        // What has another's tag is not touched, and so nobody is shut out yet.
        let uid = old.uid().unwrap();
        cluster.set_tag("reused", &uid, Some("made by hand"))?;
        s.delete_share(&ns, "old").await?;
        s.until_share_gone(&ns, "old").await?;
        s.world.share(&ns, "new", named("kept", "reused")).await?;
        s.until_share(&ns, "new", "False", "MountPointNameTaken").await?;
        ensure!(
            cluster.snapshot()?.exports.contains_key("/reused"),
            "it is not there any more"
        );
        cluster.set_tag("reused", &uid, None)?;
        let new = s.until_share(&ns, "new", "True", "Available").await?;
        is_found_under(s, &new, "/reused").await?;

        // What is kept comes back under a name of its own.
        let deletions = s.world.cluster_api::<ShareDeletion>();
        let name = share_deletion::name(&old.uid().unwrap());
        let kept = until(&deletions, &name, "Retained", |deletion: &ShareDeletion| {
            share_deletion::phase(deletion) == Some(DeletionPhase::Retained)
        })
        .await?;
        ensure!(
            kept.spec.resolved_mount_point_name.as_deref() == Some("reused"),
            "{:?}",
            kept.spec
        );
        let mut back = named("kept", "back");
        back["source"] = json!({"existing": {"backendName": "reused", "handle": kept.spec.handle}});
        s.world.share(&ns, "back", back).await?;
        let back = s.until_share(&ns, "back", "True", "Available").await?;
        is_found_under(s, &back, "/back").await?;
        until_gone(&deletions, &name).await?;

        for share in ["new", "back"] {
            let uid = s
                .world
                .api::<Share>(&ns)
                .get(share)
                .await?
                .uid()
                .context("a uid")?;
            s.delete_share(&ns, share).await?;
            let name = share_deletion::name(&uid);
            until(&deletions, &name, "written", |_| true).await?;
            let ended = Patch::Merge(json!({"spec": {"retainUntil": "2020-01-01T00:00:00Z"}}));
            deletions.patch(&name, &PatchParams::default(), &ended).await?;
        }
        s.clear(&ns).await
    });
}

#[test]
fn anothers_export_under_the_name_is_left_alone() {
    run(|s| async move {
        let ns = s.world.namespace("foreign").await?;
        add_type(s, "bare-too", Some(""), json!({})).await?;
        let cluster = s.cluster(BACKEND).await?;
        cluster.take_path("/foreign", BACKEND, "/somebody/elses")?;
        let before = s.holdings().await?.exports["/foreign"].clone();
        s.world.share(&ns, "s", named("bare-too", "foreign")).await?;
        let told = s.until_share(&ns, "s", "False", "ExportPathTaken").await?;
        ensure!(
            why(&told).contains("/foreign is exported by somebody else") && !why(&told).contains("elses"),
            "{}",
            why(&told)
        );
        ensure!(
            s.holdings().await?.exports["/foreign"] == before,
            "it was touched"
        );
        s.delete_share(&ns, "s").await?;
        s.until_share_gone(&ns, "s").await?;
        ensure!(
            s.holdings().await?.exports["/foreign"] == before,
            "it was touched"
        );
        cluster.remove_export("/foreign")?;
        Ok(())
    });
}

#[test]
fn what_users_say_of_shares_rules_and_locations() {
    run(|s| async move {
        let ns = s.world.namespace("said").await?;
        // Of its own, so that what is written there can be counted.
        s.world.add_simulated_backend_named("said").await?;
        s.until_backend("said", "True", "Available").await?;
        let on_said = json!({"backendNames": ["said"], "shrink": true});
        s.world.add_type("on-said", on_said, false).await?;
        let spec = json!({
            "protocol": "NFS", "size": "1Gi", "shareTypeName": "on-said", "metadata": {"team": "blue", "100%": "[x]\n"},
        });
        s.world.share(&ns, "s", spec).await?;
        let share = s.until_share(&ns, "s", "True", "Available").await?;
        let cluster = s.cluster("said").await?;
        let kept = || {
            let holdings = cluster.snapshot()?;
            let held = holdings.share("said", &subvolume_of(&share), &path_of(&share));
            anyhow::Ok(held.context("it is held")?.metadata.unwrap_or_default())
        };
        let text = r#"{"100\u0025":"\u005bx\u005d\u000a","team":"blue"}"#;
        ensure!(kept()? == text, "{}", kept()?);

        // A change of that alone is one write there.
        let before = cluster.effects()?;
        s.change_share(&ns, "s", json!({"metadata": {"team": "red", "100%": null}}))
            .await?;
        s.until_share(&ns, "s", "True", "Available").await?;
        ensure!(kept()? == r#"{"team":"red"}"#, "{}", kept()?);
        let writes = cluster.effects()? - before;
        ensure!(writes == 1, "{writes} writes");

        let mut rule = ip_rule("s", "10.0.0.1", "ReadWrite");
        rule["metadata"] = json!({"whose": "the office"});
        s.world.rule(&ns, "r", rule).await?;
        let rule = s.until_rule(&ns, "r", "True", "Active").await?;
        ensure!(rule.spec.metadata["whose"] == "the office", "{:?}", rule.spec);

        let location = share.status.as_ref().unwrap().export_locations[0].clone();
        let said = json!([{"id": location.id, "metadata": {"rack": "7"}}]);
        s.change_share(&ns, "s", json!({"exportLocationMetadata": said}))
            .await?;
        let share = s.until_share(&ns, "s", "True", "Available").await?;
        s.start_operator("").await?;
        s.change_share(&ns, "s", json!({"size": "2Gi"})).await?;
        let later = s.until_share(&ns, "s", "True", "Available").await?;
        for share in [&share, &later] {
            let now = &share.status.as_ref().unwrap().export_locations[0];
            ensure!(
                now.id == location.id && now.metadata.of_users["rack"] == "7",
                "{now:?}"
            );
            ensure!(now.metadata.fs_name == location.metadata.fs_name, "{now:?}");
        }
        let shown = &later.annotations()["shoal.storage/export-locations"];
        ensure!(shown.contains(r#""rack":"7""#), "{shown}");
        s.clear(&ns).await
    });
}
