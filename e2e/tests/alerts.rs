//! The alerts and the dashboard, by the real promtool and a real Prometheus that scrapes the operator: what they tell of is made to
//! happen, in a time that goes faster; `SHOAL_E2E_WRITE_DOCS=1` draws the picture of it.

#![cfg(test)]
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use futures::future::try_join_all;
use kube::{
    ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use shoal_backend::simulated::{Cluster, Fault, FaultKind, Operation, Trouble};
use shoal_crds::{Protocol, Share, ShareBackend, ShareType};
use shoal_domain::owner::Owner;
use shoal_e2e::{
    lab::KubernetesRelease,
    monitoring::{
        PanelQuery, Prometheus, chart_file, dashboard_queries,
        plot::{Plot, svg},
        promtool, quick_alerts,
    },
    simulated_storage::{SimulatedStorage, ip_rule, share_spec},
    suite::Suite,
    world::{PATIENCE, ROLE, eventually, requested_at},
};

static SUITE: Suite<SimulatedStorage> = Suite::new();

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn rules_are_well_made_and_judge_as_they_say() {
    promtool(&[
        Path::new("check"),
        Path::new("rules"),
        Path::new("--lint-fatal"),
        &chart_file("alerts.yaml"),
    ])
    .unwrap();
    let cases = repository().join("e2e/monitoring/alerts.test.yaml");
    promtool(&[Path::new("test"), Path::new("rules"), &cases]).unwrap();
    // Each alert has at least one case in which it fires, and a scenario that makes its cause happen, here or where there is a real
    // Ceph; but for defects, which nobody can order.
    let tried = fs::read_to_string(cases).unwrap();
    let scenarios = ["alerts.rs", "ceph_ownership.rs"]
        .map(|file| fs::read_to_string(repository().join("e2e/tests").join(file)).unwrap());
    for name in names() {
        assert!(
            tried.contains(&format!("alertname: {name}\n")),
            "{name} has no case"
        );
        let quoted = format!("\"{name}\"");
        assert!(
            name == "ShoalDefect" || scenarios.iter().any(|file| file.contains(&quoted)),
            "{name} has no scenario"
        );
    }
}

fn names() -> BTreeSet<String> {
    let rules = quick_alerts().unwrap();
    let groups = rules["groups"].as_array().unwrap();
    let rules = groups.iter().flat_map(|group| group["rules"].as_array().unwrap());
    rules
        .map(|rule| rule["alert"].as_str().unwrap().to_owned())
        .collect()
}

/// All that fire, but for the one on how often backends are asked, which does not go faster.
fn firing(prometheus: &Prometheus) -> Result<Vec<Value>> {
    let mut firing = prometheus.firing()?;
    firing.retain(|alert| alert["alertname"] != "ShoalBackendNotAsked");
    Ok(firing)
}

async fn until_none_fires(prometheus: &Prometheus) -> Result<()> {
    eventually("nothing to fire", PATIENCE, async || {
        Ok(firing(prometheus)?.is_empty().then_some(()))
    })
    .await
    .with_context(|| format!("firing: {:?}", firing(prometheus)))
}

/// A simulated ShareBackend that is Ready, and a type of its own.
async fn storage(s: &SimulatedStorage, name: &str) -> Result<Cluster> {
    s.world.add_simulated_backend_named(name).await?;
    s.world
        .add_type(name, json!({"backendNames": [name]}), false)
        .await?;
    s.until_backend(name, "True", "Available").await?;
    s.cluster(name).await
}

fn spec(on: &str) -> Value {
    let mut spec = share_spec(Protocol::NFS);
    spec["shareTypeName"] = on.into();
    spec
}

/// What a share of this name, of another cluster, has left.
fn plant_former_data(storage: &Cluster, backend: &str, namespace: &str, name: &str) -> Result<()> {
    let owner = Owner {
        cluster: "another".into(),
        namespace: namespace.into(),
        name: name.into(),
        uid: format!("former-{name}"),
        left: None,
    };
    Ok(storage.add_subvolume(backend, &owner.uid, 1 << 30, Some(&owner.to_tag()))?)
}

async fn ready(s: &SimulatedStorage, namespace: &str, name: &str, on: &str) -> Result<Share> {
    s.world.share(namespace, name, spec(on)).await?;
    s.until_share(namespace, name, "True", "Available").await
}

async fn set_capacity(s: &SimulatedStorage, backend: &str, capacity: &str) -> Result<()> {
    let changed = json!({
        "apiVersion": "shoal.storage/v1alpha1", "kind": "ShareBackend", "metadata": {"name": backend},
        "spec": {"simulated": {"capacity": capacity}},
    });
    s.world.apply(&changed).await?;
    Ok(())
}

async fn request_round(s: &SimulatedStorage, backend: &str, request: &str) -> Result<()> {
    s.world
        .cluster_api::<ShareBackend>()
        .patch(backend, &PatchParams::default(), &requested_at(request))
        .await?;
    Ok(())
}

async fn ensure_all(s: &SimulatedStorage, backend: &str, request: &str) -> Result<()> {
    request_round(s, backend, request).await?;
    s.world.until_ensured(backend, request).await?;
    Ok(())
}

/// Makes each command of a backend take so long.
async fn set_latency(s: &SimulatedStorage, backend: &str, milliseconds: u32) -> Result<()> {
    let changed = json!({
        "apiVersion": "shoal.storage/v1alpha1", "kind": "ShareBackend", "metadata": {"name": backend},
        "spec": {"simulated": {"latencyMilliseconds": milliseconds}},
    });
    s.world.apply(&changed).await?;
    Ok(())
}

async fn quota(s: &SimulatedStorage, namespace: &str, shares: u32) -> Result<()> {
    let quota = json!({
        "apiVersion": "shoal.storage/v1alpha1", "kind": "ShareQuota", "metadata": {"namespace": namespace, "name": "team"},
        "spec": {"hard": {"shares": shares, "capacity": format!("{}Gi", shares * 10)}},
    });
    s.world.apply(&quota).await?;
    Ok(())
}

fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

#[test]
fn alerts_fire_and_end_with_their_causes_and_the_dashboard_shows_them() {
    let start = || SimulatedStorage::without_operator(KubernetesRelease::default());
    SUITE.run(start, |s| async move {
        let prometheus = Prometheus::start(&s.world.lab.folder().join("prometheus"), &quick_alerts()?)?;
        prometheus.until("ShoalNoLeader", &json!({}), true).await?;
        let mut options = s.operator_options("operator");
        options.flags.push("--share-metrics".into());
        s.start_operator_with(&options).await?;
        let began = now();
        prometheus.scrape(&[&s.metrics_address().await?])?;
        prometheus.until("ShoalNoLeader", &json!({}), false).await?;

        // All is well.
        let ns = s.world.namespace("alerts").await?;
        let (down, sick, failing, small, _) = tokio::try_join!(
            storage(s, "down"),
            storage(s, "sick"),
            storage(s, "failing"),
            storage(s, "small"),
            storage(s, "slow"),
        )?;
        let (_, _, lost, taken, full, _) = tokio::try_join!(
            ready(s, &ns, "open", "down"),
            ready(s, &ns, "gone", "down"),
            ready(s, &ns, "lost", "sick"),
            ready(s, &ns, "taken", "sick"),
            ready(s, &ns, "full", "small"),
            ready(s, &ns, "kept", "standard"),
        )?;
        // Where no quota is in the way first.
        let other = s.world.namespace("alerts").await?;
        plant_former_data(&sick, "sick", &other, "heir")?;
        for share in ["open", "gone"] {
            s.world
                .rule(&ns, share, ip_rule(share, "10.0.0.1", "ReadWrite"))
                .await?;
            s.until_rule(&ns, share, "True", "Active").await?;
        }
        let crowd = s.world.namespace("crowd").await?;
        let many: Vec<_> = (0..24).map(|n| format!("slow-{n}")).collect();
        try_join_all(many.iter().map(|name| ready(s, &crowd, name, "slow"))).await?;
        quota(s, &ns, 100).await?;
        until_none_fires(&prometheus).await?;

        // It is not.
        down.set_trouble(Some(Trouble::Unreachable))?;
        s.until_backend("down", "False", "BackendUnreachable").await?;
        s.delete_rule(&ns, "open").await?;
        s.delete_share(&ns, "gone").await?;
        s.world
            .rule(&ns, "late", ip_rule("open", "10.0.0.2", "ReadWrite"))
            .await?;
        sick.delete_subvolume("sick", &lost.uid().unwrap_or_default())?;
        sick.set_tag("sick", &taken.uid().unwrap_or_default(), Some("another's"))?;
        small.set_used("small", &full.uid().unwrap_or_default(), 1020 << 20)?;
        set_capacity(s, "small", "1Gi").await?;
        failing.script((1..200).map(|call| Fault {
            operation: Operation::Create,
            call,
            write: 0,
            kind: FaultKind::FailBefore,
        }))?;
        let failed = ["a", "b", "c", "d"].map(|name| format!("failed-{name}"));
        for name in &failed {
            s.world.share(&ns, name, spec("failing")).await?;
        }
        s.world
            .add_type("nowhere", json!({"backendNames": ["nowhere"]}), false)
            .await?;
        s.world.share(&other, "nowhere", spec("nowhere")).await?;
        quota(s, &ns, 9).await?;
        eventually("what no object owns to be found", PATIENCE, async || {
            let backend = s.world.cluster_api::<ShareBackend>().get("sick").await?;
            let found = backend.status.and_then(|status| status.orphans);
            Ok(found.filter(|found| found.subvolumes > 0))
        })
        .await?;
        s.world.share(&other, "heir", spec("sick")).await?;
        s.until_share(&ns, "lost", "False", "VolumeMissing").await?;
        s.until_share(&ns, "taken", "False", "OwnedByAnother").await?;
        ensure_all(s, "sick", "1").await?;
        // Four shares at a time are looked at, and a look is two commands: a round takes half a minute.
        set_latency(s, "slow", 3000).await?;
        request_round(s, "slow", "1").await?;
        let alerts = [
            ("ShoalEnsureStuck", json!({"backend": "slow"})),
            ("ShoalBackendSlow", json!({"backend": "slow"})),
            (
                "ShoalBackendNotReady",
                json!({"backend": "down", "severity": "critical"}),
            ),
            ("ShoalAccessNotApplied", json!({"backend": "down"})),
            ("ShoalAccessNotRevoked", json!({})),
            ("ShoalDeletedShareAccessible", json!({"backend": "down"})),
            ("ShoalDeletionStuck", json!({"backend": "down"})),
            ("ShoalVolumeMissing", json!({"backend": "sick"})),
            (
                "ShoalShareStalled",
                json!({"backend": "sick", "reason": "OwnedByAnother"}),
            ),
            ("ShoalEnsureFailed", json!({"backend": "sick"})),
            ("ShoalFormerDataFound", json!({})),
            ("ShoalBackendErrors", json!({"backend": "failing"})),
            ("ShoalShareNotReady", json!({"backend": "failing"})),
            ("ShoalBackendFillingUp", json!({"backend": "small"})),
            ("ShoalShareNearlyFull", json!({"namespace": ns, "share": "full"})),
            ("ShoalNoBackendFits", json!({})),
            (
                "ShoalQuotaNearlyUsedUp",
                json!({"namespace": ns, "quota": "team"}),
            ),
        ];
        for (name, labels) in &alerts {
            prometheus.until(name, labels, true).await?;
        }
        check_dashboard(&prometheus).await?;

        // It is again.
        set_latency(s, "slow", 0).await?;
        down.set_trouble(None)?;
        failing.end_faults()?;
        sick.set_tag("sick", &taken.uid().unwrap_or_default(), None)?;
        s.delete_share(&ns, "lost").await?;
        s.delete_share(&other, "heir").await?;
        for name in &failed {
            s.delete_share(&ns, name).await?;
        }
        small.set_used("small", &full.uid().unwrap_or_default(), 100 << 20)?;
        set_capacity(s, "small", "10Gi").await?;
        let somewhere = Patch::Merge(json!({"spec": {"backendNames": ["simulated"]}}));
        s.world
            .cluster_api::<ShareType>()
            .patch("nowhere", &PatchParams::default(), &somewhere)
            .await?;
        quota(s, &ns, 100).await?;
        s.until_share(&ns, "taken", "True", "Available").await?;
        s.until_share_gone(&ns, "lost").await?;
        ensure_all(s, "sick", "2").await?;
        for (name, labels) in &alerts {
            prometheus.until(name, labels, false).await?;
        }
        until_none_fires(&prometheus).await?;
        if std::env::var_os("SHOAL_E2E_WRITE_DOCS").is_some() {
            draw(&prometheus, began, now())?;
        }

        the_operator_itself(s, &prometheus, &ns).await?;
        s.kill_operator().await?;
        prometheus.until("ShoalNoLeader", &json!({}), true).await?;
        s.start_operator_with(&options).await?;
        prometheus.scrape(&[&s.metrics_address().await?])?;
        prometheus.until("ShoalNoLeader", &json!({}), false).await?;
        for namespace in [&crowd, &other, &ns] {
            s.clear(namespace).await?;
        }
        Ok(())
    });
}

/// What is the matter with the operator, and not with the storage.
async fn the_operator_itself(s: &SimulatedStorage, prometheus: &Prometheus, ns: &str) -> Result<()> {
    // Scraped twice, it seems to be two.
    let address = s.metrics_address().await?;
    prometheus.scrape(&[&address, &address.replace("127.0.0.1", "localhost")])?;
    prometheus.until("ShoalTwoLeaders", &json!({}), true).await?;
    prometheus.scrape(&[&address])?;
    prometheus.until("ShoalTwoLeaders", &json!({}), false).await?;

    // A Share of another version.
    let shares = json!({"kind": "Share"});
    s.share_of_any_size(ns, "newer", json!({"protocol": "NFS", "size": "1.5Gi"}))
        .await?;
    prometheus
        .until("ShoalObjectNotUnderstood", &shares, true)
        .await?;
    s.change_share(ns, "newer", json!({"size": "1536Mi"})).await?;
    prometheus
        .until("ShoalObjectNotUnderstood", &shares, false)
        .await?;

    // Its rights are taken away. The authorizer hears of it a moment later.
    let nothing = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "shoal-operator"}, "rules": [],
    });
    s.world.apply(&nothing).await?;
    let (refused, types) = (json!({"kind": "ShareType"}), s.world.cluster_api::<ShareType>());
    let mut shrink = false;
    eventually("ShoalReconcileErrors to fire", PATIENCE, async || {
        shrink = !shrink;
        let change = Patch::Merge(json!({"spec": {"shrink": shrink}}));
        types.patch("nowhere", &PatchParams::default(), &change).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(prometheus.fires("ShoalReconcileErrors", &refused)?.then_some(()))
    })
    .await?;
    s.world.apply_yaml(ROLE).await?;
    prometheus.until("ShoalReconcileErrors", &refused, false).await?;

    // What has no shares is asked every half minute, which here is once in hours.
    storage(s, "idle").await?;
    let idle = json!({"backend": "idle"});
    prometheus.until("ShoalBackendNotAsked", &idle, true).await?;
    ready(s, ns, "asks", "idle").await?;
    prometheus.until("ShoalBackendNotAsked", &idle, false).await?;
    until_none_fires(prometheus).await
}

/// Each panel of the dashboard has something to show, once there is something of all.
async fn check_dashboard(prometheus: &Prometheus) -> Result<()> {
    for PanelQuery { title, query, .. } in dashboard_queries()? {
        eventually(
            &format!("'{title}' to show something: {query}"),
            PATIENCE,
            async || {
                let found = prometheus.query(&query)?;
                Ok((!found.is_empty()).then_some(()))
            },
        )
        .await?;
    }
    Ok(())
}

/// A plot of what the dashboard's panels show.
fn draw(prometheus: &Prometheus, from: f64, to: f64) -> Result<()> {
    const PANELS: [&str; 8] = [
        "Shares by phase",
        "Shares not ready, by reason",
        "Ready",
        "Room used",
        "Access not taken away for",
        "What is left of deleted shares",
        "Operations",
        "Errors",
    ];
    let mut plots = Vec::new();
    for panel in PANELS {
        let mut lines = Vec::new();
        for asked in dashboard_queries()?.iter().filter(|asked| asked.title == panel) {
            for (labels, samples) in prometheus.query_range(&asked.query, from, to, 0.5)? {
                lines.push((asked.legend(&labels), samples));
            }
        }
        plots.push(Plot {
            title: panel.into(),
            lines,
        });
    }
    let below = "A plot of the dashboard's queries, from the suite `alerts`: no screenshot. Time goes faster there than in life.";
    let drawn = svg(&plots, from, to, below);
    fs::write(repository().join("docs/operations/dashboard.svg"), drawn)?;
    Ok(())
}
