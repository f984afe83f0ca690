//! Shares on a real API server and a simulated backend: their life, and what bad ones are told.

#![cfg(test)]
#![allow(clippy::unwrap_used, clippy::needless_pass_by_value)]

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};
use shoal_crds::{
    DeletionPhase, Protocol, Share, ShareAccessRule, ShareBackend, ShareDeletion, SharePhase, ShareType,
    names::FINALIZER,
};
use shoal_domain::owner::{Tag, pseudo_path};
use shoal_domain::share_deletion;
use shoal_e2e::{
    holdings::{path_of, subvolume_of},
    lab::KubernetesRelease,
    simulated_storage::{BACKEND, SimulatedStorage, cephx_rule, ip_rule, message, share_spec},
    suite::Suite,
    world::{PATIENCE, condition, eventually, until, until_gone},
};

static SUITE: Suite<SimulatedStorage> = Suite::new();
/// Below 1.36 the operator puts the finalizer on.
static OLDER: Suite<SimulatedStorage> = Suite::new();

fn run<S: Future<Output = Result<()>>>(scenario: impl FnOnce(&'static SimulatedStorage) -> S) {
    SUITE.run(|| SimulatedStorage::start(KubernetesRelease::V1_37), scenario);
}

#[test]
fn an_nfs_share_lives() {
    run(|s| life(s, Protocol::NFS));
}

#[test]
fn a_cephfs_share_lives() {
    run(|s| life(s, Protocol::CephFS));
}

#[test]
fn shares_live_where_the_operator_puts_the_finalizer_on() {
    OLDER.run(
        || SimulatedStorage::start(KubernetesRelease::V1_34),
        |s| async move {
            life(s, Protocol::NFS).await?;
            life(s, Protocol::CephFS).await
        },
    );
}

/// From nothing to nothing, with rules, and with sizes.
async fn life(s: &SimulatedStorage, protocol: Protocol) -> Result<()> {
    let ns = s.world.namespace("life").await?;
    let share = s.ready_share(&ns, "data", protocol).await?;
    ensure!(
        share.finalizers() == [FINALIZER],
        "finalizers {:?}",
        share.finalizers()
    );
    published(&share, protocol)?;
    ensure!(
        s.let_in(&share).await?.is_empty(),
        "somebody is let in before the first rule"
    );

    let rules = match protocol {
        Protocol::NFS => [
            ("one", ip_rule("data", "10.0.0.0/24", "ReadWrite")),
            ("two", ip_rule("data", "fd00::5", "ReadOnly")),
        ],
        Protocol::CephFS => [
            ("one", cephx_rule("data", Some("alice"), "ReadWrite")),
            ("two", cephx_rule("data", None, "ReadOnly")),
        ],
    };
    for (name, spec) in &rules {
        s.world.rule(&ns, name, spec.clone()).await?;
    }
    for (name, _) in &rules {
        let rule = s.until_rule(&ns, name, "True", "Active").await?;
        ensure!(
            rule.finalizers() == [FINALIZER],
            "finalizers {:?}",
            rule.finalizers()
        );
        let status = rule.status.clone().unwrap();
        ensure!(
            status.applied_level == Some(rule.spec.access_level) && status.share_uid == share.uid(),
            "{status:?}"
        );
        let secret = status.credentials_secret_ref.map(|r| r.name);
        ensure!(
            secret == (protocol == Protocol::CephFS).then(|| format!("{name}-cephx")),
            "{secret:?}"
        );
    }
    s.until_settled(Some(&ns)).await?;
    s.check_holdings(Some(&ns)).await?;
    let summary = s
        .world
        .api::<Share>(&ns)
        .get("data")
        .await?
        .status
        .unwrap()
        .access
        .unwrap();
    ensure!(
        (summary.total, summary.applied, summary.failed) == (2, 2, 0),
        "{summary:?}"
    );

    // Levels change in place.
    for level in ["ReadOnly", "ReadWrite"] {
        s.change_rule(&ns, "one", json!({"accessLevel": level})).await?;
        s.until_settled(Some(&ns)).await?;
        s.check_holdings(Some(&ns)).await?;
    }

    for size in ["3Gi", "2Gi", "2147483649"] {
        s.change_share(&ns, "data", json!({"size": size})).await?;
        s.until_settled(Some(&ns)).await?;
        s.check_holdings(Some(&ns)).await?;
    }

    // A rule that goes takes its client's access and key with it.
    s.delete_rule(&ns, "one").await?;
    s.until_rule_gone(&ns, "one").await?;
    s.until_settled(Some(&ns)).await?;
    s.check_holdings(Some(&ns)).await?;

    s.delete_share(&ns, "data").await?;
    s.until_share_gone(&ns, "data").await?;
    s.until_rule(&ns, "two", "False", "ShareNotFound").await?;
    s.check_gone(&share).await?;
    s.check_holdings(Some(&ns)).await?;
    s.delete_rule(&ns, "two").await?;
    s.until_rule_gone(&ns, "two").await
}

/// What users and CSI drivers read.
fn published(share: &Share, protocol: Protocol) -> Result<()> {
    let status = share.status.clone().unwrap();
    ensure!(status.phase == Some(SharePhase::Available), "{:?}", status.phase);
    for condition_type in ["Ready", "Scheduled", "Provisioned", "Exported", "AccessApplied"] {
        let truth = condition(&status.conditions, condition_type).map(|(truth, _)| truth);
        ensure!(truth == Some("True"), "{condition_type} is {truth:?}");
    }
    for condition_type in ["Reconciling", "Stalled"] {
        ensure!(
            condition(&status.conditions, condition_type).is_none(),
            "{condition_type} is there"
        );
    }
    let uid = share.uid().unwrap();
    ensure!(
        status.backend_name.as_deref() == Some(BACKEND)
            && status.share_type_name.as_deref() == Some("standard")
    );
    ensure!(status.size == Some(share.spec.size), "{:?}", status.size);
    let handle = status.handle.clone().unwrap_or_default();
    ensure!(handle.ends_with(&format!("shoal-{uid}")), "handle {handle}");
    let locations = &status.export_locations;
    let preferred: Vec<_> = locations.iter().filter(|l| l.preferred).collect();
    ensure!(
        preferred.len() == 1 && preferred[0].id == locations[0].id,
        "{locations:?}"
    );
    let ids: std::collections::BTreeSet<_> = locations.iter().map(|l| &l.id).collect();
    ensure!(ids.len() == locations.len(), "{locations:?}");
    for location in locations {
        let metadata = &location.metadata;
        ensure!(
            metadata.fs_name == BACKEND && Some(&metadata.ceph_fsid) == status.fsid.as_ref(),
            "{metadata:?}"
        );
        let tail = match protocol {
            Protocol::NFS => format!(":/shoal-{uid}"),
            Protocol::CephFS => format!(":{}", metadata.subvolume_path),
        };
        ensure!(
            location.protocol == protocol && location.path.ends_with(&tail),
            "{location:?}"
        );
    }
    // Two NFS servers, or all monitors in one location.
    ensure!(
        locations.len() == if protocol == Protocol::NFS { 2 } else { 1 },
        "{locations:?}"
    );
    let annotation = |name: &str| {
        share
            .annotations()
            .get(&format!("shoal.storage/{name}"))
            .cloned()
            .unwrap_or_default()
    };
    let told = [
        "export-location",
        "protocol",
        "fs-name",
        "mount-options",
        "export-revision",
    ]
    .map(annotation);
    let revision = status.export_revision.clone().unwrap_or_default();
    let expected = [
        &preferred[0].path,
        protocol.as_str(),
        BACKEND,
        &format!("fs={BACKEND}"),
        &revision,
    ];
    ensure!(!revision.is_empty() && told == expected, "annotations {told:?}");
    let all: Value = serde_json::from_str(&annotation("export-locations"))?;
    ensure!(
        all == serde_json::to_value(locations)?,
        "annotation export-locations {all}"
    );
    Ok(())
}

#[test]
fn a_share_made_again_under_its_name_gets_its_rules_and_nothing_else() {
    run(|s| async move {
        for protocol in [Protocol::NFS, Protocol::CephFS] {
            let ns = s.world.namespace("again").await?;
            let rule = match protocol {
                Protocol::NFS => ip_rule("data", "10.1.0.0/24", "ReadWrite"),
                Protocol::CephFS => cephx_rule("data", None, "ReadWrite"),
            };
            // A rule may come before its share.
            s.world.rule(&ns, "early", rule).await?;
            let waiting = s.until_rule(&ns, "early", "False", "ShareNotFound").await?;
            ensure!(waiting.status.unwrap().share_uid.is_none());
            let first = s.ready_share(&ns, "data", protocol).await?;
            s.until_rule(&ns, "early", "True", "Active").await?;
            s.delete_share(&ns, "data").await?;
            // At once: the name is free as soon as the API server says so.
            eventually("the name to be free", PATIENCE, async || {
                Ok(
                    match s
                        .world
                        .api::<Share>(&ns)
                        .create(&kube::api::PostParams::default(), &new_share(protocol)?)
                        .await
                    {
                        Ok(_) => Some(()),
                        Err(kube::Error::Api(status)) if status.code == 409 => None,
                        Err(error) => return Err(error.into()),
                    },
                )
            })
            .await?;
            let second = s.until_share(&ns, "data", "True", "Available").await?;
            ensure!(first.uid() != second.uid());
            let api = s.world.api::<ShareAccessRule>(&ns);
            until(
                &api,
                "early",
                "in force on the second",
                |rule: &ShareAccessRule| {
                    rule.status
                        .as_ref()
                        .is_some_and(|s| s.share_uid == second.uid() && s.applied_level.is_some())
                },
            )
            .await?;
            s.until_settled(Some(&ns)).await?;
            s.check_holdings(Some(&ns)).await?;
            s.check_gone(&first).await?;
            s.clear(&ns).await?;
        }
        Ok(())
    });
}

fn new_share(protocol: Protocol) -> Result<Share> {
    let document = json!({
        "apiVersion": "shoal.storage/v1alpha1", "kind": "Share", "metadata": {"name": "data"}, "spec": share_spec(protocol),
    });
    Ok(serde_json::from_value(document)?)
}

#[test]
fn a_size_that_can_not_be_had_is_refused_and_the_share_stays_as_it_is() {
    run(|s| async move {
        let ns = s.world.namespace("sizes").await?;
        let limits =
            json!({"size": {"min": "1Gi", "max": "4Gi"}, "shrink": false, "backendNames": [BACKEND]});
        s.world.add_type("limited", limits, false).await?;
        let spec = |size: &str| json!({"protocol": "NFS", "size": size, "shareTypeName": "limited"});
        for (name, size, words) in [
            ("small", "1Mi", "1Mi is below the type's smallest size, 1Gi"),
            ("large", "5Gi", "5Gi is above the type's largest size, 4Gi"),
        ] {
            s.world.share(&ns, name, spec(size)).await?;
            let share = s.until_share(&ns, name, "False", "SizeOutOfRange").await?;
            told(&share, "Stalled", &["spec.size", words])?;
            s.until_event(&ns, name, "SizeOutOfRange").await?;
        }
        // Corrected, it goes on.
        s.change_share(&ns, "small", json!({"size": "2Gi"})).await?;
        let share = s.until_share(&ns, "small", "True", "Available").await?;

        let refusals = [
            ("1536Mi", "ShrinkNotAllowed", "1536Mi is below 2Gi"),
            ("8Gi", "SizeOutOfRange", "8Gi is above"),
        ];
        for (size, reason, words) in refusals {
            s.change_share(&ns, "small", json!({"size": size})).await?;
            let refused = s.until_share(&ns, "small", "False", reason).await?;
            told(&refused, "Stalled", &["spec.size", words])?;
            ensure!(
                s.held(&share).await?.unwrap().size_bytes == Some(2 << 30),
                "the quota was changed"
            );
            s.until_event(&ns, "small", reason).await?;
        }
        s.check_quiet(&ns).await?;
        s.change_share(&ns, "small", json!({"size": "4Gi"})).await?;
        s.until_share(&ns, "small", "True", "Available").await?;
        ensure!(s.held(&share).await?.unwrap().size_bytes == Some(4 << 30));

        // Never below what is used.
        let used = s.ready_share(&ns, "used", Protocol::NFS).await?;
        s.cluster(BACKEND)
            .await?
            .set_used(BACKEND, &used.uid().unwrap(), 600 << 20)?;
        s.change_share(&ns, "used", json!({"size": "512Mi"})).await?;
        let refused = s.until_share(&ns, "used", "False", "ShrinkBelowUsed").await?;
        told(
            &refused,
            "Stalled",
            &["spec.size", "512Mi", "629145600 bytes in use", "remove data"],
        )?;
        ensure!(s.held(&used).await?.unwrap().size_bytes == Some(1 << 30));
        s.cluster(BACKEND)
            .await?
            .set_used(BACKEND, &used.uid().unwrap(), 100 << 20)?;
        // The next look finds room.
        s.until_share(&ns, "used", "True", "Available").await?;
        ensure!(s.held(&used).await?.unwrap().size_bytes == Some(512 << 20));
        s.clear(&ns).await
    });
}

/// Who has the verb grows a share beyond the largest size of its type, as far as the type says; what is charged grows with it.
#[test]
fn an_admin_grows_a_share_beyond_the_largest_size_and_no_further_than_the_type_says() {
    run(|s| async move {
        let ns = s.world.namespace("beyond").await?;
        let limits = json!({"size": {"max": "2Gi", "maxExtend": "4Gi"}, "backendNames": [BACKEND]});
        s.world.add_type("stretching", limits, false).await?;
        let spec = |size: &str| json!({"protocol": "NFS", "size": size, "shareTypeName": "stretching"});
        s.world.share(&ns, "data", spec("1Gi")).await?;
        s.until_share(&ns, "data", "True", "Available").await?;
        s.change_share(&ns, "data", json!({"size": "4Gi"})).await?;
        let grown = s.until_share(&ns, "data", "True", "Available").await?;
        ensure!(s.held(&grown).await?.unwrap().size_bytes == Some(4 << 30));
        let charged = grown.status.as_ref().unwrap().quota.unwrap().charged;
        ensure!(charged.bytes() == 4 << 30, "{charged}");

        s.change_share(&ns, "data", json!({"size": "5Gi"})).await?;
        let refused = s.until_share(&ns, "data", "False", "SizeOutOfRange").await?;
        told(&refused, "Stalled", &["spec.size", "5Gi", "4Gi"])?;
        ensure!(s.held(&refused).await?.unwrap().size_bytes == Some(4 << 30));
        // It is for growing: none is born as large.
        s.world.share(&ns, "new", spec("3Gi")).await?;
        let refused = s.until_share(&ns, "new", "False", "SizeOutOfRange").await?;
        told(&refused, "Stalled", &["spec.size", "3Gi", "2Gi"])?;
        s.clear(&ns).await
    });
}

/// A share goes on with the terms that its type had when it was placed; one that comes later has those of the day.
#[test]
fn a_share_keeps_the_terms_it_was_made_with() {
    run(|s| async move {
        let ns = s.world.namespace("terms").await?;
        let first = json!({
            "backendNames": [BACKEND], "shrink": true, "snapshots": true, "createFromSnapshot": true,
            "size": {"min": "1Mi", "max": "4Gi", "maxExtend": "8Gi"}, "squash": "Root",
            "root": {"uid": 7, "gid": 8, "mode": "0711"},
            "deletion": "Wait", "retention": "1h", "deletionPolicy": "Retain",
        });
        s.world.add_type("terms", first.clone(), false).await?;
        let spec = json!({"protocol": "NFS", "size": "1Gi", "shareTypeName": "terms"});
        s.world.share(&ns, "before", spec.clone()).await?;
        let has = |share: &Share| json!(share.status.as_ref().unwrap().capabilities);
        let copied = |of: &Share, terms: &Value| {
            let has = has(of);
            for (name, value) in terms.as_object().unwrap() {
                ensure!(
                    name == "backendNames" || has[name] == *value,
                    "{name} is {}, and the type said {value}",
                    has[name]
                );
            }
            Ok(())
        };
        let before = s.until_share(&ns, "before", "True", "Available").await?;
        copied(&before, &first)?;

        let then = json!({
            "backendNames": [BACKEND], "shrink": false, "snapshots": false, "createFromSnapshot": false,
            "size": {"min": "1Mi", "max": "2Gi"}, "squash": "All", "root": {"uid": 9, "gid": 9, "mode": "0700"},
            "deletion": "Deferred", "deletionPolicy": "Delete",
        });
        s.world.add_type("terms", then.clone(), false).await?;
        s.world.share(&ns, "after", spec).await?;
        let after = s.until_share(&ns, "after", "True", "Available").await?;
        copied(&after, &then)?;
        ensure!(has(&after).get("retention").is_none(), "{}", has(&after));
        s.change_share(&ns, "before", json!({"size": "512Mi"})).await?;
        let again = s.until_share(&ns, "before", "True", "Available").await?;
        ensure!(has(&again) == has(&before), "{}", has(&again));

        // Made for data that is kept: it still is.
        for name in ["before", "after"] {
            s.delete_share(&ns, name).await?;
            s.until_share_gone(&ns, name).await?;
        }
        let deletions = s.world.cluster_api::<ShareDeletion>();
        let kept = share_deletion::name(&before.uid().unwrap());
        until(&deletions, &kept, "kept", |deletion: &ShareDeletion| {
            share_deletion::phase(deletion) == Some(DeletionPhase::Retained)
        })
        .await?;
        let end = Patch::Merge(json!({"spec": {"retainUntil": "2020-01-01T00:00:00Z"}}));
        deletions.patch(&kept, &PatchParams::default(), &end).await?;
        s.clear(&ns).await
    });
}

/// A condition's message, word for word where it matters.
fn told(share: &Share, condition_type: &str, words: &[&str]) -> Result<()> {
    let conditions = share.status.as_ref().map_or(&[][..], |s| &s.conditions);
    let text = message(conditions, condition_type)
        .with_context(|| format!("no condition {condition_type}: {conditions:#?}"))?;
    for word in words {
        ensure!(text.contains(word), "{word:?} is not in {condition_type}: {text}");
    }
    Ok(())
}

#[test]
fn a_share_waits_for_its_type_and_goes_on_by_itself() {
    run(|s| async move {
        let ns = s.world.namespace("type").await?;
        s.world
            .share(
                &ns,
                "data",
                json!({"protocol": "NFS", "size": "1Gi", "shareTypeName": "later"}),
            )
            .await?;
        s.world
            .rule(&ns, "rule", ip_rule("data", "10.0.0.1", "ReadWrite"))
            .await?;
        let share = s.until_share(&ns, "data", "False", "ShareTypeNotFound").await?;
        told(
            &share,
            "Reconciling",
            &["spec.shareTypeName", "'later' does not exist"],
        )?;
        ensure!(share.status.as_ref().unwrap().phase == Some(SharePhase::Pending));
        s.until_event(&ns, "data", "ShareTypeNotFound").await?;
        s.until_rule(&ns, "rule", "False", "ShareNotReady").await?;
        s.check_quiet(&ns).await?;
        s.world
            .add_type("later", json!({"backendNames": [BACKEND]}), false)
            .await?;
        s.until_share(&ns, "data", "True", "Available").await?;
        s.until_rule(&ns, "rule", "True", "Active").await?;
        s.clear(&ns).await
    });
}

#[test]
fn a_namespace_that_may_not_use_a_type_is_told_and_served_once_it_may() {
    run(|s| async move {
        let ns = s.world.namespace("allowed").await?;
        let kind = json!({"backendNames": [BACKEND], "allowedNamespaces": {"matchLabels": {"team": "gold"}}});
        s.world.add_type("gold", kind, false).await?;
        s.world
            .share(
                &ns,
                "data",
                json!({"protocol": "NFS", "size": "1Gi", "shareTypeName": "gold"}),
            )
            .await?;
        let share = s.until_share(&ns, "data", "False", "ShareTypeNotAllowed").await?;
        told(&share, "Stalled", &["spec.shareTypeName", "'gold'"])?;
        s.until_event(&ns, "data", "ShareTypeNotAllowed").await?;
        let label = Patch::Merge(json!({"metadata": {"labels": {"team": "gold"}}}));
        s.world
            .cluster_api::<Namespace>()
            .patch(&ns, &PatchParams::default(), &label)
            .await?;
        s.until_share(&ns, "data", "True", "Available").await?;

        // What it got it keeps.
        let label = Patch::Merge(json!({"metadata": {"labels": {"team": null}}}));
        s.world
            .cluster_api::<Namespace>()
            .patch(&ns, &PatchParams::default(), &label)
            .await?;
        s.world
            .share(
                &ns,
                "more",
                json!({"protocol": "NFS", "size": "1Gi", "shareTypeName": "gold"}),
            )
            .await?;
        s.until_share(&ns, "more", "False", "ShareTypeNotAllowed").await?;
        s.change_share(&ns, "data", json!({"size": "2Gi"})).await?;
        s.until_share(&ns, "data", "True", "Available").await?;
        s.clear(&ns).await
    });
}

#[test]
fn without_a_default_type_a_share_says_so_and_waits() {
    run(|s| async move {
        let _alone = s.alone().await;
        let ns = s.world.namespace("default").await?;
        let mark = |value: &str| {
            Patch::Merge(json!({"metadata": {"annotations": {"shoal.storage/is-default-share-type": value}}}))
        };
        let types = s.world.cluster_api::<ShareType>();
        types
            .patch("standard", &PatchParams::default(), &mark("false"))
            .await?;
        s.world.share(&ns, "data", share_spec(Protocol::NFS)).await?;
        let waits = s.until_share(&ns, "data", "False", "NoDefaultShareType").await;
        types
            .patch("standard", &PatchParams::default(), &mark("true"))
            .await?;
        told(
            &waits?,
            "Reconciling",
            &["spec.shareTypeName", "shoal.storage/is-default-share-type"],
        )?;
        s.until_event(&ns, "data", "NoDefaultShareType").await?;
        s.until_share(&ns, "data", "True", "Available").await?;
        s.clear(&ns).await
    });
}

#[test]
fn a_share_that_fits_no_backend_is_told_why_backend_by_backend() {
    run(|s| async move {
        let ns = s.world.namespace("fits").await?;
        s.world
            .apply(&backend("small", json!({"simulated": {"capacity": "1Gi"}})))
            .await?;
        s.world.apply(&backend("away", ceph("no-such-secret"))).await?;
        s.until_backend("small", "True", "Available").await?;
        s.until_backend("away", "False", "SecretNotFound").await?;
        s.world
            .add_type("picky", json!({"backendNames": ["small", "away", "new"]}), false)
            .await?;
        s.world
            .share(
                &ns,
                "data",
                json!({"protocol": "NFS", "size": "2Gi", "shareTypeName": "picky"}),
            )
            .await?;
        let share = s.until_share(&ns, "data", "False", "NoBackendFits").await?;
        let words = [
            "small: has no room for it",
            "away: not ready (SecretNotFound)",
            &format!("{BACKEND}: not selected by the type"),
        ];
        told(&share, "Reconciling", &words)?;
        told(&share, "Scheduled", &words)?;
        s.until_event(&ns, "data", "NoBackendFits").await?;
        s.check_quiet(&ns).await?;
        // A backend that fits appears.
        s.world.apply(&backend("new", json!({"simulated": {}}))).await?;
        // Whether the one that is away has data of a former share of that name nobody knows yet.
        s.until_share(&ns, "data", "False", "BackendNotScanned").await?;
        remove_backends(s, &["away"]).await?;
        let share = s.until_share(&ns, "data", "True", "Available").await?;
        ensure!(share.status.unwrap().backend_name.as_deref() == Some("new"));
        s.clear(&ns).await?;
        remove_backends(s, &["small", "new"]).await
    });
}

fn backend(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "shoal.storage/v1alpha1", "kind": "ShareBackend", "metadata": {"name": name}, "spec": spec})
}

fn ceph(secret: &str) -> Value {
    json!({"ceph": {"connectionSecretRef": {"namespace": "default", "name": secret}, "filesystem": "cephfs"}})
}

async fn remove_backends(s: &SimulatedStorage, names: &[&str]) -> Result<()> {
    let api = s.world.cluster_api::<ShareBackend>();
    for name in names {
        api.delete(name, &DeleteParams::default()).await?;
        until_gone(&api, name).await?;
    }
    Ok(())
}

#[test]
fn a_protocol_that_the_type_does_not_offer_is_refused() {
    run(|s| async move {
        let ns = s.world.namespace("offer").await?;
        s.world
            .add_type(
                "nfs-only",
                json!({"protocols": ["NFS"], "backendNames": [BACKEND]}),
                false,
            )
            .await?;
        s.world
            .share(
                &ns,
                "data",
                json!({"protocol": "CephFS", "size": "1Gi", "shareTypeName": "nfs-only"}),
            )
            .await?;
        let share = s.until_share(&ns, "data", "False", "ProtocolNotOffered").await?;
        told(
            &share,
            "Stalled",
            &["spec.protocol", "'nfs-only' offers NFS, not CephFS"],
        )?;
        s.until_event(&ns, "data", "ProtocolNotOffered").await?;
        s.clear(&ns).await
    });
}

#[test]
fn a_backend_without_its_secret_says_so() {
    run(|s| async move {
        s.world.apply(&backend("keyless", ceph("missing"))).await?;
        let told = s.until_backend("keyless", "False", "SecretNotFound").await?;
        let conditions = told.status.unwrap().conditions;
        let text = message(&conditions, "Ready").unwrap();
        for word in [
            "spec.ceph.connectionSecretRef",
            "default/missing does not exist",
            "monHost, userID and userKey",
        ] {
            ensure!(text.contains(word), "{word:?} is not in {text}");
        }
        s.until_event("default", "keyless", "SecretNotFound").await?;
        let mark = s.audit_mark()?;
        tokio::time::sleep(shoal_e2e::simulated_storage::QUIET).await;
        let writes: Vec<_> = s
            .writes_since(mark)
            .await?
            .into_iter()
            .filter(|w| w.name == "keyless")
            .collect();
        ensure!(writes.is_empty(), "a hot loop: {writes:#?}");
        remove_backends(s, &["keyless"]).await
    });
}

#[test]
fn a_share_whose_backend_goes_away_stays_ready_and_goes_on_when_it_is_back() {
    run(|s| async move {
        let ns = s.world.namespace("away").await?;
        s.world
            .apply(&backend("fragile", json!({"simulated": {}})))
            .await?;
        s.world
            .add_type("fragile", json!({"backendNames": ["fragile"]}), false)
            .await?;
        s.until_backend("fragile", "True", "Available").await?;
        s.world
            .share(
                &ns,
                "data",
                json!({"protocol": "NFS", "size": "1Gi", "shareTypeName": "fragile"}),
            )
            .await?;
        s.until_share(&ns, "data", "True", "Available").await?;
        let cluster = s.cluster("fragile").await?;
        cluster.set_trouble(Some(shoal_backend::simulated::Trouble::Unreachable))?;
        s.until_backend("fragile", "False", "BackendUnreachable").await?;
        let api = s.world.api::<Share>(&ns);
        let status = api.get("data").await?.status.unwrap();
        ensure!(
            condition(&status.conditions, "Ready") == Some(("True", "Available")),
            "{:?}",
            status.conditions
        );
        // What it is asked now waits, and is told why.
        s.change_share(&ns, "data", json!({"size": "2Gi"})).await?;
        s.world
            .rule(&ns, "rule", ip_rule("data", "10.0.0.1", "ReadWrite"))
            .await?;
        let waits = until(&api, "data", "Reconciling BackendNotReady", |share: &Share| {
            condition(&share.status.as_ref().unwrap().conditions, "Reconciling")
                == Some(("True", "BackendNotReady"))
        })
        .await?;
        ensure!(condition(&waits.status.unwrap().conditions, "Ready") == Some(("True", "Available")));
        s.until_rule(&ns, "rule", "False", "ShareNotReady").await?;
        s.check_quiet(&ns).await?;
        cluster.set_trouble(None)?;
        s.until_backend("fragile", "True", "Available").await?;
        let share = s.until_share(&ns, "data", "True", "Available").await?;
        s.until_rule(&ns, "rule", "True", "Active").await?;
        let held = cluster
            .snapshot()?
            .share("fragile", &subvolume_of(&share), &path_of(&share))
            .unwrap();
        ensure!(
            held.size_bytes == Some(2 << 30) && held.access.len() == 1,
            "{held:?}"
        );

        // Another storage under the same name: nothing is touched there.
        cluster.replace(77)?;
        s.until_backend("fragile", "False", "BackendReplaced").await?;
        s.delete_share(&ns, "data").await?;
        until_gone(&api, "data").await?;
        let deletions = s.world.cluster_api::<ShareDeletion>();
        let name = share_deletion::name(&share.uid().unwrap());
        until(&deletions, &name, "waits", |deletion: &ShareDeletion| {
            let conditions = deletion.status.as_ref().map_or(&[][..], |s| &s.conditions);
            condition(conditions, "Ready").is_some_and(|(is, _)| is == "False")
        })
        .await?;
        // The old storage is gone for good.
        let given_up = Patch::Merge(json!({"spec": {"abandon": true}}));
        deletions.patch(&name, &PatchParams::default(), &given_up).await?;
        deletions.delete(&name, &DeleteParams::default()).await?;
        s.clear(&ns).await?;
        remove_backends(s, &["fragile"]).await
    });
}

#[test]
fn drift_is_repaired_and_lost_data_is_told_and_never_made_again_empty() {
    run(|s| async move {
        let ns = s.world.namespace("drift").await?;
        let nfs = s.ready_share(&ns, "nfs", Protocol::NFS).await?;
        let native = s.ready_share(&ns, "native", Protocol::CephFS).await?;
        s.world
            .rule(&ns, "ip", ip_rule("nfs", "10.0.0.0/24", "ReadOnly"))
            .await?;
        s.world
            .rule(&ns, "cephx", cephx_rule("native", Some("drifter"), "ReadWrite"))
            .await?;
        s.until_rule(&ns, "ip", "True", "Active").await?;
        s.until_rule(&ns, "cephx", "True", "Active").await?;
        let cluster = s.cluster(BACKEND).await?;
        let (nfs_uid, native_uid) = (nfs.uid().unwrap(), native.uid().unwrap());
        let again = async |what: &str| {
            let mut last = None;
            eventually(&format!("{what} to be repaired"), PATIENCE, async || {
                last = s.check_holdings(Some(&ns)).await.err();
                Ok(last.is_none().then_some(()))
            })
            .await
            .with_context(|| format!("{last:?}"))
        };
        cluster.remove_export(&pseudo_path(&nfs_uid))?;
        again("a removed export").await?;
        cluster.set_clients(&pseudo_path(&nfs_uid), Vec::new())?;
        again("an emptied client list").await?;
        cluster.open_export(&pseudo_path(&nfs_uid))?;
        again("an open export").await?;
        cluster.set_quota(BACKEND, &nfs_uid, Some(7))?;
        again("a changed quota").await?;
        cluster.deauthorize(BACKEND, &native_uid, "drifter")?;
        again("a deauthorized identity").await?;
        ensure!(
            s.unsettled(Some(&ns)).await?.is_none(),
            "a repaired share says otherwise"
        );

        cluster.delete_subvolume(BACKEND, &nfs_uid)?;
        let lost = s.until_share(&ns, "nfs", "False", "VolumeMissing").await?;
        told(&lost, "Stalled", &["not made again"])?;
        s.until_event(&ns, "nfs", "VolumeMissing").await?;
        ensure!(s.held(&nfs).await?.is_none(), "a lost subvolume was made again");
        s.clear(&ns).await?;
        s.check_gone(&nfs).await?;
        s.check_gone(&native).await?;
        s.check_holdings(Some(&ns)).await
    });
}

#[test]
fn a_share_that_can_not_be_parsed_is_told_and_hinders_no_other() {
    run(|s| async move {
        let _alone = s.alone().await;
        let ns = s.world.namespace("parse").await?;
        let bad = json!({"protocol": "NFS", "size": "1.5Gi"});
        s.share_of_any_size(&ns, "broken", bad).await?;
        let resource = kube::api::ApiResource::erase::<Share>(&());
        let api: Api<DynamicObject> = Api::namespaced_with(s.world.client.clone(), &ns, &resource);
        let ready = eventually("the broken share to be told", PATIENCE, async || {
            let object = api.get("broken").await?;
            let conditions = object.data["status"]["conditions"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            Ok(conditions
                .into_iter()
                .find(|c| c["type"] == "Ready" && c["status"] == "False"))
        })
        .await?;
        ensure!(
            ready["reason"] == "InvalidObject" && ready["message"].to_string().contains("1.5Gi"),
            "{ready}"
        );
        s.until_event(&ns, "broken", "InvalidObject").await?;
        s.ready_share(&ns, "other", Protocol::NFS).await?;
        s.check_quiet(&ns).await?;
        // Corrected, it goes on.
        eventually("the schema to be restored", PATIENCE, async || {
            Ok(s.change_share(&ns, "other", json!({"size": "2.5Gi"}))
                .await
                .is_err()
                .then_some(()))
        })
        .await?;
        let fix = Patch::Merge(json!({"spec": {"size": "1536Mi"}}));
        api.patch("broken", &PatchParams::default(), &fix).await?;
        s.until_share(&ns, "broken", "True", "Available").await?;
        s.clear(&ns).await
    });
}

#[test]
fn kubectl_shows_columns() {
    run(|s| async move {
        let ns = s.world.namespace("columns").await?;
        s.share_let_in(
            &ns,
            "data",
            Protocol::NFS,
            "rule",
            ip_rule("data", "10.0.0.0/24", "ReadWrite"),
        )
        .await?;
        let control_plane = s.world.lab.control_plane()?;
        let table = |words: &[&str]| -> Result<Vec<Vec<String>>> {
            let output = control_plane
                .kubectl()
                .args(["--namespace", &ns, "get"])
                .args(words)
                .output()?;
            ensure!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            let text = String::from_utf8(output.stdout)?;
            Ok(text
                .lines()
                .map(|l| l.split_whitespace().map(str::to_owned).collect())
                .collect())
        };
        let shares = table(&["shr"])?;
        ensure!(
            shares[0]
                == [
                    "NAME", "PHASE", "READY", "SIZE", "PROTOCOL", "TYPE", "BACKEND", "AGE"
                ],
            "{shares:?}"
        );
        ensure!(
            shares[1][..7] == ["data", "Available", "True", "1Gi", "NFS", "standard", BACKEND],
            "{shares:?}"
        );
        let wide = table(&["shr", "-o", "wide"])?;
        ensure!(
            wide[0].contains(&"EXPORT".to_owned()) && wide[0].contains(&"REASON".to_owned()),
            "{wide:?}"
        );
        let rules = table(&["shacc"])?;
        ensure!(
            rules[0] == ["NAME", "SHARE", "TYPE", "TO", "LEVEL", "PHASE", "AGE"],
            "{rules:?}"
        );
        ensure!(
            rules[1][..6] == ["rule", "data", "IP", "10.0.0.0/24", "ReadWrite", "Active"],
            "{rules:?}"
        );
        let backends = table(&["shbe", BACKEND])?;
        ensure!(backends[1][..3] == [BACKEND, "Available", "True"], "{backends:?}");
        let all = table(&["shoal"])?;
        ensure!(
            all.iter()
                .flatten()
                .any(|cell| cell == "share.shoal.storage/data"),
            "{all:?}"
        );
        s.clear(&ns).await
    });
}

#[test]
fn a_namespace_goes_with_everything_in_it() {
    run(|s| async move {
        let ns = s.world.namespace("goes").await?;
        let tenant = s.world.cluster_api::<Namespace>().get(&ns).await?.uid();
        for (share, protocol) in [("nfs", Protocol::NFS), ("native", Protocol::CephFS)] {
            s.ready_share(&ns, share, protocol).await?;
        }
        s.world
            .rule(&ns, "ip", ip_rule("nfs", "10.0.0.0/24", "ReadWrite"))
            .await?;
        s.world
            .rule(&ns, "cephx", cephx_rule("native", None, "ReadWrite"))
            .await?;
        s.world
            .rule(&ns, "shareless", ip_rule("none", "10.0.0.0/24", "ReadWrite"))
            .await?;
        s.world
            .share(
                &ns,
                "waiting",
                json!({"protocol": "NFS", "size": "1Gi", "shareTypeName": "never"}),
            )
            .await?;
        s.until_rule(&ns, "ip", "True", "Active").await?;
        s.until_rule(&ns, "cephx", "True", "Active").await?;
        s.until_rule(&ns, "shareless", "False", "ShareNotFound").await?;
        s.until_share(&ns, "waiting", "False", "ShareTypeNotFound")
            .await?;
        s.world
            .cluster_api::<Namespace>()
            .delete(&ns, &DeleteParams::default())
            .await?;
        until_gone(&s.world.cluster_api::<Namespace>(), &ns).await?;
        let holdings = s.holdings().await?;
        let left = |tag: &Tag| matches!(tag, Tag::Owner(owner) if owner.namespace == ns);
        ensure!(
            !holdings.subvolumes.values().any(|held| left(&held.tag)),
            "the namespace is gone and its subvolumes are not"
        );
        ensure!(
            !holdings.identities.values().any(|held| held.tenant == tenant),
            "the namespace is gone and its keys are not"
        );
        Ok(())
    });
}

/// Kubernetes' garbage collector does it, which takes half a minute to hear of new kinds.
#[test]
fn the_secret_with_a_key_goes_with_its_rule() {
    run(|s| async move {
        let ns = s.world.namespace("garbage").await?;
        s.share_let_in(
            &ns,
            "data",
            Protocol::CephFS,
            "rule",
            cephx_rule("data", None, "ReadWrite"),
        )
        .await?;
        ensure!(s.secret(&ns, "rule-cephx").await?.is_some());
        s.delete_rule(&ns, "rule").await?;
        s.until_rule_gone(&ns, "rule").await?;
        eventually("the key's Secret to be gone", PATIENCE, async || {
            Ok(s.secret(&ns, "rule-cephx").await?.is_none().then_some(()))
        })
        .await?;
        s.clear(&ns).await
    });
}
