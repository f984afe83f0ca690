//! The alerts and the dashboard, by the real promtool and a real Prometheus that scrapes the operator: what they tell of is made to
//! happen, in a time that goes faster; `SHOAL_E2E_WRITE_DOCS=1` draws the picture of it.

#![cfg(test)]
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use kube::{
    ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use shoal_backend::simulated::{Cluster, Fault, FaultKind, Operation, Trouble};
use shoal_crds::{Protocol, Share, ShareBackend, ShareType};
use shoal_e2e::{
    lab::KubernetesRelease,
    monitoring::{
        PanelQuery, Prometheus, chart_file, dashboard_queries,
        plot::{Plot, svg},
        promtool, quick_alerts,
    },
    simulated_storage::{SimulatedStorage, ip_rule, share_spec},
    suite::Suite,
    world::{PATIENCE, eventually, requested_at},
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
    // Each alert has at least one case in which it fires.
    let tried = fs::read_to_string(cases).unwrap();
    for name in names() {
        assert!(
            tried.contains(&format!("alertname: {name}\n")),
            "{name} has no case"
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

/// What fires, by a name and some labels; waits for it.
struct Watch<'a>(&'a Prometheus);

impl Watch<'_> {
    fn fires(&self, name: &str, labels: &Value) -> Result<bool> {
        let wanted = labels.as_object().context("labels")?;
        let firing = self.0.firing()?;
        let is_it = |alert: &&Value| {
            alert["alertname"] == name && wanted.iter().all(|(label, value)| alert[label] == *value)
        };
        Ok(firing.iter().any(|alert| is_it(&alert)))
    }

    /// All that fire, but for the one on how often backends are asked, which does not go faster.
    fn at_all(&self) -> Result<Vec<Value>> {
        let mut firing = self.0.firing()?;
        firing.retain(|alert| alert["alertname"] != "ShoalBackendNotAsked");
        Ok(firing)
    }

    async fn until(&self, name: &str, labels: &Value, fires: bool) -> Result<()> {
        let what = format!("{name} {labels} {}", if fires { "to fire" } else { "to end" });
        eventually(&what, PATIENCE, async || {
            Ok((self.fires(name, labels)? == fires).then_some(()))
        })
        .await
        .with_context(|| format!("firing: {:?}", self.0.firing()))
    }
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

async fn ensure_all(s: &SimulatedStorage, backend: &str, request: &str) -> Result<()> {
    s.world
        .cluster_api::<ShareBackend>()
        .patch(backend, &PatchParams::default(), &requested_at(request))
        .await?;
    s.world.until_ensured(backend, request).await?;
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
        let watch = Watch(&prometheus);
        watch.until("ShoalNoLeader", &json!({}), true).await?;
        let mut options = s.operator_options("operator");
        options.flags.push("--share-metrics".into());
        s.start_operator_with(&options).await?;
        let began = now();
        prometheus.scrape(&[&s.metrics_address().await?])?;
        watch.until("ShoalNoLeader", &json!({}), false).await?;

        // All is well.
        let ns = s.world.namespace("alerts").await?;
        let (down, sick, failing, small) = tokio::try_join!(
            storage(s, "down"),
            storage(s, "sick"),
            storage(s, "failing"),
            storage(s, "small"),
        )?;
        let (_, _, lost, taken, full, _) = tokio::try_join!(
            ready(s, &ns, "open", "down"),
            ready(s, &ns, "gone", "down"),
            ready(s, &ns, "lost", "sick"),
            ready(s, &ns, "taken", "sick"),
            ready(s, &ns, "full", "small"),
            ready(s, &ns, "kept", "standard"),
        )?;
        for share in ["open", "gone"] {
            s.world
                .rule(&ns, share, ip_rule(share, "10.0.0.1", "ReadWrite"))
                .await?;
            s.until_rule(&ns, share, "True", "Active").await?;
        }
        quota(s, &ns, 100).await?;
        ensure!(watch.at_all()?.is_empty(), "{:?}", watch.at_all()?);

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
        // Where no quota is in the way first.
        let other = s.world.namespace("alerts").await?;
        s.world.share(&other, "nowhere", spec("nowhere")).await?;
        quota(s, &ns, 9).await?;
        s.until_share(&ns, "lost", "False", "VolumeMissing").await?;
        s.until_share(&ns, "taken", "False", "OwnedByAnother").await?;
        ensure_all(s, "sick", "1").await?;
        let alerts = [
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
            watch.until(name, labels, true).await?;
        }
        check_dashboard(&prometheus).await?;

        // It is again.
        down.set_trouble(None)?;
        failing.end_faults()?;
        sick.set_tag("sick", &taken.uid().unwrap_or_default(), None)?;
        s.delete_share(&ns, "lost").await?;
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
            watch.until(name, labels, false).await?;
        }
        eventually("nothing to fire", PATIENCE, async || {
            Ok(watch.at_all()?.is_empty().then_some(()))
        })
        .await
        .with_context(|| format!("firing: {:?}", watch.at_all()))?;
        if std::env::var_os("SHOAL_E2E_WRITE_DOCS").is_some() {
            draw(&prometheus, began, now())?;
        }

        s.kill_operator().await?;
        watch.until("ShoalNoLeader", &json!({}), true).await?;
        s.start_operator_with(&options).await?;
        prometheus.scrape(&[&s.metrics_address().await?])?;
        watch.until("ShoalNoLeader", &json!({}), false).await?;
        s.clear(&other).await?;
        s.clear(&ns).await
    });
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
