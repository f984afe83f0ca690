//! Access rules on a real API server and a simulated backend: what bad ones are told, and that they hinder no other.

#![cfg(test)]
#![allow(clippy::unwrap_used)]

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use shoal_crds::{AccessPhase, Protocol, Share, ShareAccessRule, names::cephx_secret};
use shoal_e2e::{
    holdings::secret_text,
    lab::KubernetesRelease,
    simulated_storage::{BACKEND, SimulatedStorage, cephx_rule, ip_rule, message},
    suite::Suite,
    world::{PATIENCE, eventually},
};

static SUITE: Suite<SimulatedStorage> = Suite::new();

fn run<S: Future<Output = Result<()>>>(scenario: impl FnOnce(&'static SimulatedStorage) -> S) {
    SUITE.run(|| SimulatedStorage::start(KubernetesRelease::V1_37), scenario);
}

/// A rule is refused for this reason, in these words, as condition and event.
async fn is_refused(
    s: &SimulatedStorage,
    ns: &str,
    name: &str,
    reason: &str,
    words: &[&str],
) -> Result<ShareAccessRule> {
    let rule = s.until_rule(ns, name, "False", reason).await?;
    let status = rule.status.clone().unwrap();
    ensure!(
        status.phase == Some(AccessPhase::Error) && status.applied_level.is_none(),
        "{status:?}"
    );
    let told = message(&status.conditions, "Ready").unwrap_or_default();
    let event = s.until_event(ns, name, reason).await?;
    for word in words {
        ensure!(told.contains(word), "{word:?} is not in the condition: {told}");
        ensure!(event.contains(word), "{word:?} is not in the event: {event}");
    }
    Ok(rule)
}

fn secret(ns: &str, name: &str, labelled: bool, text: &str) -> Value {
    let labels = if labelled {
        json!({"shoal.storage/access": "true"})
    } else {
        json!({})
    };
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": ns, "name": name, "labels": labels},
        "stringData": {"to": text},
    })
}

fn by_secret(access_type: &str, name: &str, key: &str) -> Value {
    json!({"shareRef": {"name": "data"}, "accessType": access_type, "accessToSecretRef": {"name": name, "key": key}})
}

#[test]
fn a_rule_of_the_wrong_type_is_refused_and_the_others_are_in_force() {
    run(|s| async move {
        for (protocol, good, bad, word) in [
            (
                Protocol::NFS,
                ip_rule("data", "10.0.0.1", "ReadWrite"),
                cephx_rule("data", None, "ReadWrite"),
                "IP",
            ),
            (
                Protocol::CephFS,
                cephx_rule("data", None, "ReadWrite"),
                ip_rule("data", "10.0.0.1", "ReadWrite"),
                "CephX",
            ),
        ] {
            let ns = s.world.namespace("fit").await?;
            s.world.rule(&ns, "bad", bad).await?;
            s.world.rule(&ns, "good", good).await?;
            let share = s.ready_share(&ns, "data", protocol).await?;
            let words = ["spec.accessType", &format!("takes rules of accessType {word}")];
            is_refused(s, &ns, "bad", "AccessTypeNotSupported", &words).await?;
            s.until_rule(&ns, "good", "True", "Active").await?;
            ensure!(
                s.let_in(&share).await?.len() == 1,
                "{:?}",
                s.let_in(&share).await?
            );
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
                (summary.total, summary.applied, summary.failed) == (2, 1, 1),
                "{summary:?}"
            );
            s.check_quiet(&ns).await?;
            s.clear(&ns).await?;
        }
        Ok(())
    });
}

#[test]
fn of_two_rules_for_one_client_the_older_wins() {
    run(|s| async move {
        for (protocol, first, second) in [
            (
                Protocol::NFS,
                ip_rule("data", "10.0.0.1", "ReadOnly"),
                ip_rule("data", "10.0.0.1/32", "ReadWrite"),
            ),
            (
                Protocol::CephFS,
                cephx_rule("data", Some("twin"), "ReadOnly"),
                cephx_rule("data", Some("twin"), "ReadWrite"),
            ),
        ] {
            let ns = s.world.namespace("twins").await?;
            let share = s.ready_share(&ns, "data", protocol).await?;
            s.world.rule(&ns, "z-older", first).await?;
            let older = s.until_rule(&ns, "z-older", "True", "Active").await?;
            // Age is counted in seconds.
            let born = older.metadata.creation_timestamp.as_ref().unwrap().0;
            eventually("the next second", PATIENCE, async || {
                Ok((jiff::Timestamp::now().as_second() > born.as_second()).then_some(()))
            })
            .await?;
            s.world.rule(&ns, "a-younger", second).await?;
            is_refused(
                s,
                &ns,
                "a-younger",
                "DuplicateRule",
                &["an older rule of this share names the same client"],
            )
            .await?;
            s.until_rule(&ns, "z-older", "True", "Active").await?;
            let let_in = s.let_in(&share).await?;
            ensure!(let_in.len() == 1 && let_in[0].ends_with("ReadOnly"), "{let_in:?}");
            s.check_quiet(&ns).await?;
            // When the older goes, the other takes its place.
            s.delete_rule(&ns, "z-older").await?;
            s.until_rule(&ns, "a-younger", "True", "Active").await?;
            let let_in = s.let_in(&share).await?;
            ensure!(
                let_in.len() == 1 && let_in[0].ends_with("ReadWrite"),
                "{let_in:?}"
            );
            s.clear(&ns).await?;
        }
        Ok(())
    });
}

#[test]
fn a_client_named_by_a_secret_is_let_in_once_the_secret_is_there_and_labelled() {
    run(|s| async move {
        for (protocol, kind, value, bad) in [
            (Protocol::NFS, "IP", "10.9.0.0/24", "10.9.0.1/24"),
            (Protocol::CephFS, "CephX", "unseen", "un.seen"),
        ] {
            let ns = s.world.namespace("hidden").await?;
            let share = s.ready_share(&ns, "data", protocol).await?;
            s.world.rule(&ns, "rule", by_secret(kind, "who", "to")).await?;
            let words = ["spec.accessToSecretRef", "'who' does not exist"];
            is_refused(s, &ns, "rule", "SecretNotFound", &words).await?;
            s.world.apply(&secret(&ns, "who", false, value)).await?;
            let words = [
                "spec.accessToSecretRef",
                "'who' lacks the label shoal.storage/access",
            ];
            let told = is_refused(s, &ns, "rule", "SecretNotLabelled", &words).await?;
            ensure!(
                !serde_json::to_string(&told)?.contains(value),
                "the value is echoed"
            );
            s.world.apply(&secret(&ns, "who", true, bad)).await?;
            let told = is_refused(s, &ns, "rule", "InvalidAccessTo", &["accessToSecretRef"]).await?;
            ensure!(
                !serde_json::to_string(&told)?.contains(bad),
                "the value is echoed"
            );
            ensure!(s.let_in(&share).await?.is_empty());
            s.world.apply(&secret(&ns, "who", true, value)).await?;
            let rule = s.until_rule(&ns, "rule", "True", "Active").await?;
            ensure!(
                s.let_in(&share).await? == [format!("{value} ReadWrite")],
                "{:?}",
                s.let_in(&share).await?
            );
            ensure!(
                !serde_json::to_string(&rule)?.contains(value),
                "the value is echoed"
            );
            s.world
                .rule(&ns, "keyless", by_secret(kind, "who", "none"))
                .await?;
            is_refused(
                s,
                &ns,
                "keyless",
                "SecretNotFound",
                &["'who' has no text under key 'none'"],
            )
            .await?;
            s.check_quiet(&ns).await?;
            s.clear(&ns).await?;
        }
        Ok(())
    });
}

#[test]
fn a_foreign_secret_of_the_credentials_name_is_never_written() {
    run(|s| async move {
        let ns = s.world.namespace("foreign").await?;
        let share = s.ready_share(&ns, "data", Protocol::CephFS).await?;
        s.world.apply(&secret(&ns, "taken", true, "precious")).await?;
        let named = json!({"credentialsSecretName": "taken"});
        let mut spec = cephx_rule("data", Some("guest"), "ReadWrite");
        spec.as_object_mut()
            .unwrap()
            .extend(named.as_object().cloned().unwrap());
        s.world.rule(&ns, "rule", spec).await?;
        let words = [
            "Secret 'taken' exists and was not made for this rule",
            "delete it, or name another",
        ];
        is_refused(s, &ns, "rule", "SecretNotOurs", &words).await?;
        ensure!(
            s.let_in(&share).await?.is_empty(),
            "{:?}",
            s.let_in(&share).await?
        );
        let kept = s.secret(&ns, "taken").await?.context("the Secret is gone")?;
        ensure!(
            secret_text(&kept, "to").as_deref() == Some("precious") && kept.data.as_ref().unwrap().len() == 1
        );
        s.check_quiet(&ns).await?;
        // A rule made again under its name has another uid: the Secret of the one before is not its own either.
        s.world
            .rule(&ns, "again", cephx_rule("data", Some("again"), "ReadWrite"))
            .await?;
        s.until_rule(&ns, "again", "True", "Active").await?;
        Api::<Secret>::namespaced(s.world.client.clone(), &ns)
            .delete("taken", &DeleteParams::default())
            .await?;
        s.until_rule(&ns, "rule", "True", "Active").await?;
        s.until_settled(Some(&ns)).await?;
        s.check_holdings(Some(&ns)).await?;
        s.clear(&ns).await
    });
}

#[test]
fn a_lost_secret_is_written_again_with_the_same_key() {
    run(|s| async move {
        let ns = s.world.namespace("lost").await?;
        s.share_let_in(
            &ns,
            "data",
            Protocol::CephFS,
            "rule",
            cephx_rule("data", None, "ReadWrite"),
        )
        .await?;
        let key =
            |secret: Option<Secret>| secret.and_then(|secret| secret_text(&secret, cephx_secret::USER_KEY));
        let before = key(s.secret(&ns, "rule-cephx").await?).context("no key")?;
        let secrets: Api<Secret> = Api::namespaced(s.world.client.clone(), &ns);
        secrets.delete("rule-cephx", &DeleteParams::default()).await?;
        let after = eventually("the Secret to be back", PATIENCE, async || {
            Ok(key(s.secret(&ns, "rule-cephx").await?))
        })
        .await?;
        ensure!(before == after, "another key");
        s.until_settled(Some(&ns)).await?;
        s.check_holdings(Some(&ns)).await?;
        // A key that was taken out of it comes back too.
        let emptied = Patch::Merge(json!({"data": {"userKey": null}}));
        secrets
            .patch("rule-cephx", &PatchParams::default(), &emptied)
            .await?;
        eventually("the key to be back", PATIENCE, async || {
            Ok((key(s.secret(&ns, "rule-cephx").await?).as_deref() == Some(&before)).then_some(()))
        })
        .await?;
        s.clear(&ns).await
    });
}

#[test]
fn reserved_and_foreign_identities_are_refused() {
    run(|s| async move {
        let ns = s.world.namespace("reserved").await?;
        let share = s.ready_share(&ns, "data", Protocol::CephFS).await?;
        // The backend's own; one that is reserved everywhere, hidden from admission in a Secret.
        s.world
            .rule(&ns, "own", cephx_rule("data", Some("shoal"), "ReadWrite"))
            .await?;
        s.world.apply(&secret(&ns, "who", true, "admin")).await?;
        s.world
            .rule(&ns, "reserved", by_secret("CephX", "who", "to"))
            .await?;
        for name in ["own", "reserved"] {
            let words = [
                "the identity is reserved",
                "choose another, or leave accessTo out",
            ];
            is_refused(s, &ns, name, "IdentityReserved", &words).await?;
        }
        // One that somebody else made, and one of another namespace.
        s.cluster(BACKEND).await?.add_identity(BACKEND, "elsewhere")?;
        s.world
            .rule(&ns, "made", cephx_rule("data", Some("elsewhere"), "ReadWrite"))
            .await?;
        is_refused(s, &ns, "made", "IdentityNotAvailable", &[]).await?;
        let other = s.world.namespace("reserved").await?;
        s.ready_share(&other, "data", Protocol::CephFS).await?;
        s.world
            .rule(&other, "first", cephx_rule("data", Some("wanted"), "ReadWrite"))
            .await?;
        s.until_rule(&other, "first", "True", "Active").await?;
        s.world
            .rule(&ns, "second", cephx_rule("data", Some("wanted"), "ReadWrite"))
            .await?;
        is_refused(s, &ns, "second", "IdentityNotAvailable", &[]).await?;
        ensure!(
            s.secret(&ns, "second-cephx").await?.is_none(),
            "another namespace's key was handed out"
        );
        ensure!(
            s.secret(&ns, "made-cephx").await?.is_none(),
            "another tool's key was handed out"
        );
        // All of it hinders nobody.
        s.world
            .rule(&ns, "good", cephx_rule("data", None, "ReadWrite"))
            .await?;
        s.until_rule(&ns, "good", "True", "Active").await?;
        ensure!(
            s.let_in(&share).await?.len() == 1,
            "{:?}",
            s.let_in(&share).await?
        );
        s.check_quiet(&ns).await?;
        s.clear(&ns).await?;
        s.clear(&other).await
    });
}

#[test]
fn an_identity_may_have_several_shares_of_its_namespace_and_loses_them_one_by_one() {
    run(|s| async move {
        let ns = s.world.namespace("several").await?;
        for share in ["one", "two"] {
            s.ready_share(&ns, share, Protocol::CephFS).await?;
            s.world
                .rule(&ns, share, cephx_rule(share, Some("both"), "ReadWrite"))
                .await?;
            s.until_rule(&ns, share, "True", "Active").await?;
        }
        s.until_settled(Some(&ns)).await?;
        s.check_holdings(Some(&ns)).await?;
        s.delete_rule(&ns, "one").await?;
        s.until_rule_gone(&ns, "one").await?;
        s.until_settled(Some(&ns)).await?;
        s.check_holdings(Some(&ns)).await?;
        s.delete_share(&ns, "two").await?;
        s.until_share_gone(&ns, "two").await?;
        s.until_settled(Some(&ns)).await?;
        s.check_holdings(Some(&ns)).await?;
        s.clear(&ns).await
    });
}

#[test]
fn twenty_rules_stand_in_the_order_in_which_they_match() {
    run(|s| async move {
        let ns = s.world.namespace("twenty").await?;
        let share = s.ready_share(&ns, "data", Protocol::NFS).await?;
        for i in 0..20_u8 {
            let prefix = 8 + i;
            let network = format!("{}.0.0.0/{prefix}", 10 + i % 2);
            let level = if i % 3 == 0 { "ReadOnly" } else { "ReadWrite" };
            s.world
                .rule(&ns, &format!("r{i}"), ip_rule("data", &network, level))
                .await?;
        }
        for i in 0..20 {
            s.until_rule(&ns, &format!("r{i}"), "True", "Active").await?;
        }
        s.until_settled(Some(&ns)).await?;
        s.check_holdings(Some(&ns)).await?;
        let prefixes: Vec<u8> = s
            .let_in(&share)
            .await?
            .iter()
            .map(|client| client.split(['/', ' ']).nth(1).unwrap().parse().unwrap())
            .collect();
        ensure!(prefixes == (8..28).rev().collect::<Vec<_>>(), "{prefixes:?}");
        // Half of them go at once, the share with the rest.
        for i in (0..20).step_by(2) {
            s.delete_rule(&ns, &format!("r{i}")).await?;
        }
        s.until_settled(Some(&ns)).await?;
        s.check_holdings(Some(&ns)).await?;
        s.clear(&ns).await
    });
}

#[test]
fn squash_is_the_rule_s_own_or_the_type_s_at_the_share_s_birth() {
    run(|s| async move {
        let ns = s.world.namespace("squash").await?;
        let kind = |squash: &str| json!({"squash": squash, "backendNames": [BACKEND]});
        s.world.add_type("squashing", kind("Root"), false).await?;
        s.world
            .share(
                &ns,
                "data",
                json!({"protocol": "NFS", "size": "1Gi", "shareTypeName": "squashing"}),
            )
            .await?;
        s.until_share(&ns, "data", "True", "Available").await?;
        s.world.add_type("squashing", kind("All"), false).await?;
        let mut own = ip_rule("data", "10.0.0.2", "ReadWrite");
        own["squash"] = "None".into();
        s.world.rule(&ns, "own", own).await?;
        s.world
            .rule(&ns, "default", ip_rule("data", "10.0.0.1", "ReadWrite"))
            .await?;
        s.until_rule(&ns, "own", "True", "Active").await?;
        s.until_rule(&ns, "default", "True", "Active").await?;
        let share = s.world.api::<Share>(&ns).get("data").await?;
        let squash: Vec<_> = s
            .held(&share)
            .await?
            .unwrap()
            .access
            .iter()
            .map(|grant| format!("{} {:?}", grant.client, grant.squash))
            .collect();
        ensure!(squash == ["10.0.0.1 Root", "10.0.0.2 None"], "{squash:?}");
        s.change_rule(&ns, "own", json!({"squash": "All"})).await?;
        s.until_settled(Some(&ns)).await?;
        s.check_holdings(Some(&ns)).await?;
        ensure!(share.uid().is_some());
        s.clear(&ns).await
    });
}
