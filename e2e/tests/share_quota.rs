//! What the shares of a namespace may take, on a real API server and a simulated backend.

#![cfg(test)]
#![allow(clippy::unwrap_used, clippy::needless_pass_by_value)]

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use shoal_crds::{Share, ShareQuota, Size};
use shoal_e2e::{
    lab::KubernetesRelease,
    race::{PLACES, Places, race},
    simulated_storage::{SimulatedStorage, message, share_spec},
    suite::Suite,
    world::{PATIENCE, condition, eventually, until},
};

static SUITE: Suite<SimulatedStorage> = Suite::new();

fn run<S: Future<Output = Result<()>>>(scenario: impl FnOnce(&'static SimulatedStorage) -> S) {
    SUITE.run(|| SimulatedStorage::start(KubernetesRelease::V1_37), scenario);
}

/// Sets the limits, and waits until they are heard of: what is asked for before that is not held to them.
async fn set_quota(s: &SimulatedStorage, namespace: &str, spec: Value) -> Result<()> {
    s.world
        .apply(&json!({
            "apiVersion": "shoal.storage/v1alpha1", "kind": "ShareQuota",
            "metadata": {"name": "team", "namespace": namespace}, "spec": spec,
        }))
        .await?;
    let quotas = s.world.api::<ShareQuota>(namespace);
    until(&quotas, "team", "in force", |quota: &ShareQuota| {
        let status = quota.status.as_ref();
        status.and_then(|status| status.observed_generation) == quota.metadata.generation
    })
    .await?;
    Ok(())
}

fn of(size: &str) -> Value {
    let mut spec = share_spec(shoal_crds::Protocol::NFS);
    spec["size"] = size.into();
    spec
}

fn is(share: &Share, type_: &str, status: &str, reason: &str) -> bool {
    let conditions = share.status.as_ref().map_or(&[][..], |s| &s.conditions);
    condition(conditions, type_) == Some((status, reason))
}

async fn until_exceeded(s: &SimulatedStorage, namespace: &str, name: &str) -> Result<String> {
    let api = s.world.api::<Share>(namespace);
    let share = until(&api, name, "told of the quota", |share: &Share| {
        is(share, "QuotaReserved", "False", "QuotaExceeded") && is(share, "Ready", "False", "QuotaExceeded")
    })
    .await?;
    let conditions = share.status.unwrap().conditions;
    Ok(message(&conditions, "QuotaReserved")
        .unwrap_or_default()
        .to_owned())
}

/// How many shares are charged, and how many bytes.
async fn charged(s: &SimulatedStorage, namespace: &str) -> Result<(usize, u64)> {
    let shares = s
        .world
        .api::<Share>(namespace)
        .list(&ListParams::default())
        .await?
        .items;
    let charges = shares
        .iter()
        .filter_map(|share| share.status.as_ref()?.quota)
        .map(|quota| quota.charged.bytes());
    Ok(charges.fold((0, 0), |(count, sum), bytes| (count + 1, sum + bytes)))
}

/// Manila 3.11. One beyond the limit waits, with nothing taken, and gets its place by itself as another goes, or shrinks, or as
/// the admin allows more.
#[test]
fn a_share_beyond_the_quota_waits_and_gets_its_place_by_itself() {
    run(|s| async move {
        let ns = s.world.namespace("quota").await?;
        set_quota(
            s,
            &ns,
            json!({"hard": {"shares": 2, "capacity": "4Gi", "perShareCapacity": "3Gi"}}),
        )
        .await?;
        for (name, size) in [("a", "1Gi"), ("b", "2Gi")] {
            s.world.share(&ns, name, of(size)).await?;
            let made = s.until_share(&ns, name, "True", "Available").await?;
            ensure!(is(&made, "QuotaReserved", "True", "QuotaReserved"), "{made:#?}");
        }
        s.world.share(&ns, "c", of("1Gi")).await?;
        let told = until_exceeded(s, &ns, "c").await?;
        ensure!(told.contains("'team'") && told.contains("2 shares"), "{told}");
        let waiting = s.world.api::<Share>(&ns).get("c").await?;
        ensure!(s.held(&waiting).await?.is_none(), "it has taken nothing");

        s.delete_share(&ns, "a").await?;
        s.until_share(&ns, "c", "True", "Available").await?;

        s.change_share(&ns, "c", json!({"size": "3Gi"})).await?;
        let told = until_exceeded(s, &ns, "c").await?;
        ensure!(told.contains("4Gi together"), "{told}");
        s.change_share(&ns, "b", json!({"size": "1Gi"})).await?;
        let grown = s.until_share(&ns, "c", "True", "Available").await?;
        ensure!(grown.status.unwrap().size.map(Size::bytes) == Some(3 << 30));

        s.change_share(&ns, "c", json!({"size": "4Gi"})).await?;
        let told = until_exceeded(s, &ns, "c").await?;
        ensure!(
            told.contains("perShareCapacity") && told.contains("3Gi"),
            "{told}"
        );
        set_quota(s, &ns, json!({"hard": {"capacity": "5Gi"}})).await?;
        s.until_share(&ns, "c", "True", "Available").await?;
        ensure!(charged(s, &ns).await? == (2, 5 << 30));
        s.clear(&ns).await
    });
}

/// Lowering a limit below what is used stops growth and nothing else; the display follows what is charged.
#[test]
fn a_limit_below_what_is_used_stops_growth_and_nothing_else() {
    run(|s| async move {
        let ns = s.world.namespace("lowered").await?;
        for name in ["a", "b"] {
            s.world.share(&ns, name, of("2Gi")).await?;
            s.until_share(&ns, name, "True", "Available").await?;
        }
        set_quota(s, &ns, json!({"hard": {"shares": 1, "capacity": "1Gi"}})).await?;
        let quotas = s.world.api::<ShareQuota>(&ns);
        let quota = until(&quotas, "team", "told", |quota: &ShareQuota| {
            quota.status.as_ref().is_some_and(|status| status.used.is_some())
        })
        .await?;
        let status = quota.status.unwrap();
        let used = status.used.unwrap();
        ensure!(
            (used.shares, used.capacity.map(Size::bytes)) == (2, Some(4 << 30)),
            "{used:?}"
        );
        ensure!(status.phase == Some(shoal_crds::QuotaPhase::Exceeded));

        s.world
            .rule(
                &ns,
                "rule",
                shoal_e2e::simulated_storage::ip_rule("a", "10.0.0.1", "ReadWrite"),
            )
            .await?;
        s.until_rule(&ns, "rule", "True", "Active").await?;
        s.change_share(&ns, "a", json!({"size": "3Gi"})).await?;
        until_exceeded(s, &ns, "a").await?;
        s.change_share(&ns, "a", json!({"size": "1Gi"})).await?;
        let shrunk = s.until_share(&ns, "a", "True", "Available").await?;
        ensure!(shrunk.status.unwrap().size.map(Size::bytes) == Some(1 << 30));

        // No new one, and whoever wants to go goes; with the last that was too many the limits hold again.
        s.world.share(&ns, "c", of("1Gi")).await?;
        until_exceeded(s, &ns, "c").await?;
        s.delete_share(&ns, "b").await?;
        s.until_share_gone(&ns, "b").await?;
        let quota = until(&quotas, "team", "no longer exceeded", |quota: &ShareQuota| {
            let phase = quota.status.as_ref().and_then(|status| status.phase);
            phase == Some(shoal_crds::QuotaPhase::Active)
        })
        .await?;
        let used = quota.status.unwrap().used.unwrap();
        ensure!(
            (used.shares, used.capacity.map(Size::bytes)) == (1, Some(1 << 30)),
            "{used:?}"
        );
        until_exceeded(s, &ns, "c").await?;
        s.delete_share(&ns, "a").await?;
        s.until_share(&ns, "c", "True", "Available").await?;
        s.clear(&ns).await
    });
}

#[test]
fn shares_of_a_type_have_limits_of_their_own() {
    run(|s| async move {
        let ns = s.world.namespace("typed").await?;
        s.world.add_type("quota-gold", json!({}), false).await?;
        let gold = {
            let mut spec = of("1Gi");
            spec["shareTypeName"] = "quota-gold".into();
            spec
        };
        let of_gold = json!([{"shareTypeName": "quota-gold", "hard": {"shares": 1}}]);
        set_quota(s, &ns, json!({"perShareType": of_gold})).await?;
        s.world.share(&ns, "a", gold.clone()).await?;
        s.until_share(&ns, "a", "True", "Available").await?;
        s.world.share(&ns, "b", gold).await?;
        let told = until_exceeded(s, &ns, "b").await?;
        ensure!(told.contains("of type 'quota-gold'"), "{told}");
        s.world.share(&ns, "c", of("1Gi")).await?;
        s.until_share(&ns, "c", "True", "Available").await?;
        s.clear(&ns).await
    });
}

/// Two hundred shares at once for fifty places, while one replica after the other is killed: never more, and never fewer for good.
#[test]
fn two_hundred_shares_race_for_fifty_places_and_replicas_die() {
    run(|s| async move {
        let _alone = s.alone().await;
        let ns = s.world.namespace("race").await?;
        set_quota(s, &ns, json!({"hard": {"shares": PLACES}})).await?;
        race(s, &ns, &of("1Gi"), Places::OfQuota).await?;
        s.check_holdings(Some(&ns)).await
    });
}

/// Who may only look at a quota can't change it; and Kubernetes' own quota counts shares, too.
#[test]
fn quotas_are_the_admins() {
    run(|s| async move {
        let ns = s.world.namespace("admins").await?;
        set_quota(s, &ns, json!({"hard": {"shares": 1}})).await?;
        let rules = json!([
            {"apiGroups": ["shoal.storage"], "resources": ["shares"], "verbs": ["*"]},
            {"apiGroups": ["shoal.storage"], "resources": ["sharequotas"], "verbs": ["get", "list", "watch"]},
        ]);
        s.world.grant("quota-user", &["quota-user"], &rules).await?;
        let user = s.world.client_as("quota-user").await?;
        let quotas: Api<ShareQuota> = Api::namespaced(user, &ns);
        // The authorizer hears of roles a moment later.
        eventually("the role to be known", PATIENCE, async || {
            Ok(quotas.get("team").await.ok())
        })
        .await?;
        let more = Patch::Merge(json!({"spec": {"hard": {"shares": 100}}}));
        match quotas.patch("team", &PatchParams::default(), &more).await {
            Err(kube::Error::Api(status)) if status.code == 403 => {
                for word in ["sharequotas.shoal.storage", "\"team\"", "cannot patch"] {
                    ensure!(status.message.contains(word), "{}", status.message);
                }
            }
            other => anyhow::bail!("a user's edit: {other:?}"),
        }

        let counted = s.world.namespace("counted").await?;
        let api: Api<ResourceQuota> = Api::namespaced(s.world.client.clone(), &counted);
        // Kubernetes hears of a new kind half a minute later, and then counts for quotas that change.
        let mut others = 1000;
        eventually("Kubernetes to count shares", 3 * PATIENCE, async || {
            others += 1;
            let quota = json!({
                "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "shares", "namespace": counted},
                "spec": {"hard": {"count/shares.shoal.storage": "1", "count/configmaps": others.to_string()}},
            });
            s.world.apply(&quota).await?;
            let counted = api.get("shares").await?.status.and_then(|status| status.used);
            Ok(counted.filter(|counted| counted.contains_key("count/shares.shoal.storage")))
        })
        .await?;
        s.world.share(&counted, "a", of("1Gi")).await?;
        let refused = s.world.share(&counted, "b", of("1Gi")).await;
        let text = refused
            .err()
            .map(|error| format!("{error:#}"))
            .unwrap_or_default();
        ensure!(text.contains("exceeded quota: shares"), "{text}");
        s.clear(&counted).await
    });
}
