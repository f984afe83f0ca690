//! The Helm chart, by the real helm: what it makes of its values, and its life on a real API server. No node runs its Pods here.

#![cfg(test)]
#![allow(clippy::unwrap_used)]

use std::{fs, process::Command, time::Instant};

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::{
    api::{
        admissionregistration::v1::ValidatingAdmissionPolicy, apps::v1::Deployment, core::v1::Pod,
        rbac::v1::ClusterRole,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, ListParams},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use shoal_crds::{ResourceLock, Share};
use shoal_e2e::{
    helm::{NEW_NAME, changed_chart, chart, helm, output, restricted_namespace},
    lab::{KubernetesRelease, Lab, LabOptions},
    suite::Suite,
    world::{OperatorOptions, PATIENCE, ROLE, SYSTEM_NAMESPACE, USER_ROLES, World, eventually, until_gone},
};

static NEWER: Suite<World> = Suite::new();
static OLDER: Suite<World> = Suite::new();

const MUTATING: &str = "MutatingAdmissionPolicy";
const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// What the chart makes of these settings.
fn render(arguments: &[&str]) -> Result<Vec<Value>> {
    let text = output(
        helm(None)?
            .args(["template", "shoal"])
            .arg(chart())
            .args(arguments),
    )?;
    let documents = serde_saphyr::from_multiple::<Value>(&text)?;
    Ok(documents.into_iter().filter(|d| !d.is_null()).collect())
}

fn count(documents: &[Value], kind: &str) -> usize {
    documents.iter().filter(|d| d["kind"] == kind).count()
}

fn only<'a>(documents: &'a [Value], kind: &str) -> &'a Value {
    let mut found = documents.iter().filter(|d| d["kind"] == kind);
    let only = found.next().unwrap_or_else(|| panic!("no {kind}"));
    assert!(found.next().is_none(), "more than one {kind}");
    only
}

/// Definitions, policies and bindings: file by file, as they are applied without Helm.
fn definitions(mutating: bool) -> Vec<Value> {
    shoal_crds::generated_files()
        .into_iter()
        .flat_map(|(_, documents)| documents)
        .filter(|d| mutating || !d["kind"].as_str().unwrap().starts_with(MUTATING))
        .collect()
}

/// The roles, without the namespace that Helm is told of.
fn roles() -> Vec<Value> {
    let all = [ROLE, USER_ROLES].map(|text| serde_saphyr::from_multiple::<Value>(text).unwrap());
    all.into_iter()
        .flatten()
        .filter(|d| d["kind"] != "Namespace")
        .collect()
}

/// Where not all that is wanted is there. Whoever stored it may have added to it.
fn lacks(there: &Value, wanted: &Value) -> Option<String> {
    match (there, wanted) {
        (_, Value::Null) => None,
        (Value::Null, Value::Object(wanted)) if wanted.is_empty() => None,
        (Value::Object(there), Value::Object(wanted)) => wanted.iter().find_map(|(key, wanted)| {
            let below = lacks(there.get(key).unwrap_or(&Value::Null), wanted)?;
            Some(format!(".{key}{below}"))
        }),
        (Value::Array(there), Value::Array(wanted)) if there.len() == wanted.len() => {
            let mut both = there.iter().zip(wanted).enumerate();
            both.find_map(|(at, (there, wanted))| Some(format!("[{at}]{}", lacks(there, wanted)?)))
        }
        // A bound is 65535.0 to one and 65535 to the other.
        (Value::Number(there), Value::Number(wanted)) if there.as_f64() == wanted.as_f64() => None,
        _ => (there != wanted).then(|| format!(" is {there}, not {wanted}")),
    }
}

fn holds(there: &Value, wanted: &Value) -> bool {
    lacks(there, wanted).is_none()
}

/// The chart makes all of it, and nothing of those kinds beside it.
fn makes(documents: &[Value], wanted: &[Value]) {
    let kinds: std::collections::BTreeSet<_> = wanted.iter().map(|w| w["kind"].as_str().unwrap()).collect();
    let made: Vec<_> = documents
        .iter()
        .filter(|d| kinds.contains(d["kind"].as_str().unwrap()))
        .collect();
    for wanted in wanted {
        let name = &wanted["metadata"]["name"];
        assert!(
            made.iter().any(|d| holds(d, wanted)),
            "no {} {name} as it should be",
            wanted["kind"]
        );
    }
    assert_eq!(made.len(), wanted.len(), "more than there should be");
}

#[test]
fn the_chart_is_well_made() {
    let said = output(helm(None).unwrap().arg("lint").arg("--strict").arg(chart())).unwrap();
    assert!(said.contains("0 chart(s) failed"), "{said}");
    for (unknown, word) in [
        ("replica=3", "replica"),
        ("image.name=x", "name"),
        ("crds.keep=perhaps", "crds.keep"),
        ("settings.leaseSeconds=1", "leaseSeconds"),
        ("image.digest=latest", "digest"),
    ] {
        let refused = render(&["--set", unknown]).unwrap_err().to_string();
        assert!(
            refused.contains("schema") && refused.contains(word),
            "{unknown}: {refused}"
        );
    }
}

#[test]
fn kinds_policies_and_roles_are_those_of_the_plain_manifests() {
    let api = format!("admissionregistration.k8s.io/v1/{MUTATING}");
    let newer = render(&["--api-versions", &api]).unwrap();
    makes(&newer, &[definitions(true), roles()].concat());
    let older = render(&[]).unwrap();
    makes(&older, &[definitions(false), roles()].concat());

    let keep = |documents: &[Value], kind: &str| -> Vec<Value> {
        let of = documents
            .iter()
            .filter(|d| d["kind"].as_str().unwrap().starts_with(kind));
        of.map(|d| d["metadata"]["annotations"].clone()).collect()
    };
    for kind in ["CustomResourceDefinition", "ValidatingAdmissionPolicy", MUTATING] {
        let kept = keep(&newer, kind);
        assert!(
            !kept.is_empty() && kept.iter().all(|a| a["helm.sh/resource-policy"] == "keep"),
            "{kept:?}"
        );
    }
    let gone = render(&["--set=crds.keep=false"]).unwrap();
    let annotations = keep(&gone, "CustomResourceDefinition");
    assert!(
        annotations
            .iter()
            .all(|a| a.get("helm.sh/resource-policy").is_none())
    );
    assert!(
        annotations
            .iter()
            .all(|a| a.get("shoal.storage/allow-deletion").is_some())
    );
    assert!(
        keep(&gone, "ValidatingAdmissionPolicy")
            .iter()
            .all(|a| a.get("helm.sh/resource-policy").is_none())
    );

    makes(&render(&["--set=crds.enabled=false"]).unwrap(), &roles());
    let without = render(&["--set=crds.enabled=false,userRoles.create=false"]).unwrap();
    assert_eq!(
        count(&without, "CustomResourceDefinition") + count(&without, "ValidatingAdmissionPolicy"),
        0
    );
    assert_eq!(count(&without, "ClusterRole"), 1);
}

#[test]
fn values_are_taken() {
    let plain = render(&[]).unwrap();
    for absent in ["ServiceMonitor", "PrometheusRule", "ConfigMap", "NetworkPolicy"] {
        assert_eq!(count(&plain, absent), 0, "{absent}");
    }
    assert_eq!(count(&plain, "Pod"), 0);
    let pod = &only(&plain, "Deployment")["spec"]["template"]["spec"];
    let image = format!("shoal:{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(pod["containers"][0]["image"], image);
    assert_eq!(only(&plain, "Deployment")["spec"]["replicas"], 2);
    let spread = &pod["topologySpreadConstraints"][0];
    let selector = &only(&plain, "Deployment")["spec"]["selector"];
    assert_eq!(&spread["labelSelector"], selector);
    assert_eq!(&only(&plain, "PodDisruptionBudget")["spec"]["selector"], selector);
    assert_eq!(
        only(&plain, "Service")["spec"]["selector"],
        selector["matchLabels"]
    );
    // What it says must be what the operator's flags are.
    let words: Vec<_> = pod["containers"][0]["args"]
        .as_array()
        .unwrap()
        .iter()
        .map(|w| w.as_str().unwrap())
        .collect();
    assert_eq!(words[..2], ["run", "--listen=0.0.0.0:8080"]);

    let values = json!({
        "image": {"registry": "example.org/storage/", "tag": "1", "digest": DIGEST},
        "imagePullSecrets": [{"name": "pull"}],
        "replicas": 3,
        "settings": {"listenAddress": "::", "log": "debug,h2=info", "shareMetrics": true, "otlpEndpoint": "http://collector:4318"},
        "priorityClassName": "system-cluster-critical",
        "nodeSelector": {"a": "b"}, "tolerations": [{"key": "c", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "podAnnotations": {"d": "e"}, "podLabels": {"f": "g"}, "commonLabels": {"h": "i"},
        "podSecurityContext": {"runAsUser": null, "runAsGroup": null},
        "metrics": {
            "serviceMonitor": {"enabled": true, "labels": {"release": "prometheus"}, "interval": "15s"},
            "prometheusRule": {"enabled": true, "labels": {"release": "prometheus"}, "runbookBase": "https://example.org/shoal/"},
            "dashboard": {"enabled": true, "annotations": {"grafana_folder": "Storage"}},
        },
        "networkPolicy": {"enabled": true, "metricsFrom": [{"podSelector": {}}]},
        "test": {"image": "kubectl:1"},
        "extraObjects": [{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "{{ .Release.Name }}-more"}}],
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), values.to_string()).unwrap();
    let all = render(&["--values", file.path().to_str().unwrap()]).unwrap();
    for document in all.iter().filter(|d| d["kind"] != "Secret") {
        assert_eq!(
            document["metadata"]["labels"]["h"], "i",
            "{} {}",
            document["kind"], document["metadata"]["name"]
        );
    }
    let template = &only(&all, "Deployment")["spec"]["template"];
    let pod = &template["spec"];
    let words = json!({
        "metadata": {"annotations": {"d": "e"}, "labels": {"f": "g", "h": "i"}},
        "spec": {
            "imagePullSecrets": [{"name": "pull"}], "priorityClassName": "system-cluster-critical", "nodeSelector": {"a": "b"},
            "tolerations": [{"key": "c", "operator": "Exists"}], "affinity": {"nodeAffinity": {}},
        },
    });
    assert!(holds(template, &words), "{template}");
    assert_eq!(
        pod["containers"][0]["image"],
        format!("example.org/storage/shoal@{DIGEST}")
    );
    let flags = pod["containers"][0]["args"].as_array().unwrap();
    for flag in [
        "--listen=[::]:8080",
        "--log=debug,h2=info",
        "--share-metrics",
        "--otlp-endpoint=http://collector:4318",
    ] {
        assert!(flags.iter().any(|f| f == flag), "{flags:?}");
    }
    assert!(pod["securityContext"].get("runAsUser").is_none(), "{pod}");
    let monitor = only(&all, "ServiceMonitor");
    assert_eq!(monitor["metadata"]["labels"]["release"], "prometheus");
    assert_eq!(monitor["spec"]["endpoints"][0]["interval"], "15s");
    assert!(holds(
        &only(&all, "Service")["metadata"]["labels"],
        &monitor["spec"]["selector"]["matchLabels"]
    ));
    let rule = only(&all, "PrometheusRule");
    assert_eq!(rule["metadata"]["labels"]["release"], "prometheus");
    let file = |name: &str| fs::read_to_string(chart().join("files").join(name)).unwrap();
    let base = file("alerts.yaml").replace("docs/runbooks/", "https://example.org/shoal/docs/runbooks/");
    assert_eq!(rule["spec"], serde_saphyr::from_str::<Value>(&base).unwrap());
    let is_it = |d: &&Value| d["kind"] == "ConfigMap" && d["metadata"]["name"] == "shoal-dashboard";
    let dashboard = all.iter().find(is_it).unwrap();
    assert_eq!(dashboard["metadata"]["labels"]["grafana_dashboard"], "1");
    assert_eq!(dashboard["metadata"]["annotations"]["grafana_folder"], "Storage");
    assert_eq!(
        dashboard["data"]["shoal.json"].as_str().unwrap().trim_end(),
        file("dashboard.json").trim_end()
    );
    let ports = &only(&all, "NetworkPolicy")["spec"]["egress"][0]["ports"];
    assert!(
        ports
            .as_array()
            .unwrap()
            .contains(&json!({"port": 6800, "endPort": 7568})),
        "{ports}"
    );
    assert!(
        ports.as_array().unwrap().contains(&json!({"port": 4318})),
        "{ports}"
    );
    assert_eq!(only(&all, "Secret")["metadata"]["name"], "shoal-more");
}

/// What the examples give to the chart, it takes.
#[test]
fn values_of_the_gitops_examples_are_taken() {
    for (example, kind, values) in [
        ("argocd.yaml", "Application", "/spec/source/helm/valuesObject"),
        ("flux.yaml", "HelmRelease", "/spec/values"),
    ] {
        let file = chart().join("../../examples/gitops").join(example);
        let documents = serde_saphyr::from_multiple::<Value>(&fs::read_to_string(file).unwrap()).unwrap();
        let found = documents
            .iter()
            .filter(|d| d["kind"] == kind)
            .find_map(|d| d.pointer(values));
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), found.unwrap().to_string()).unwrap();
        let made = render(&["--values", file.path().to_str().unwrap()]).unwrap();
        assert_eq!(
            only(&made, "Deployment")["metadata"]["labels"]["team"],
            "storage",
            "{example}"
        );
    }
}

async fn bare(release: KubernetesRelease) -> Result<World> {
    let options = LabOptions {
        ceph: None,
        kubernetes: Some(release),
        ..LabOptions::default()
    };
    let lab = tokio::task::spawn_blocking(move || Lab::start(&options)).await??;
    World::bare(lab).await
}

/// What is on the server is what the plain manifests have.
async fn is_installed(world: &World, mutating: bool) -> Result<()> {
    world.until_established().await?;
    for wanted in definitions(mutating).iter().chain(&roles()) {
        let (name, api) = world.api_of(wanted)?;
        let there = serde_json::to_value(api.get(&name).await?)?;
        if let Some(difference) = lacks(&there, wanted) {
            bail!("{} {name}{difference}", wanted["kind"]);
        }
    }
    // Nobody schedules them. That they are made at all is Pod security's word.
    let pods: Api<Pod> = world.api(SYSTEM_NAMESPACE);
    let ours = ListParams::default().labels("app.kubernetes.io/component=operator");
    eventually("two Pods", PATIENCE, async || {
        Ok((pods.list(&ours).await?.items.len() == 2).then_some(()))
    })
    .await
    .with_context(|| format!("events: {:?}", events(world)))
}

fn events(world: &World) -> Result<String> {
    output(world.lab.control_plane()?.kubectl().args(["get", "events", "-A"]))
}

/// What Helm says to apply next is whole, as it stands in the terminal.
fn can_be_copied(world: &World, said: &str) -> Result<()> {
    let (_, rest) = said
        .split_once("\nkubectl apply -f - <<END\n")
        .context("nothing to apply")?;
    let (objects, _) = rest.split_once("\nEND\n").context("no end")?;
    let file = world.lab.folder().join("notes.yaml");
    fs::write(&file, objects)?;
    let mut apply = world.lab.control_plane()?.kubectl();
    let applied = output(
        apply
            .args(["apply", "--dry-run=server", "--output=name", "--filename"])
            .arg(&file),
    )?;
    ensure!(
        applied.lines().count() == 2 && applied.contains("sharetype") && applied.contains("sharebackend"),
        "{applied}"
    );
    Ok(())
}

/// Makes a share and a lock that keeps it; says how soon after the first install that held.
async fn lock_a_share(world: &World) -> Result<()> {
    let installed = Instant::now();
    world.until_established().await?;
    world.until_objects_are_taken().await?;
    let taken = installed.elapsed();
    world
        .share("default", "kept", json!({"protocol": "NFS", "size": "1Gi"}))
        .await?;
    let lock = json!({
        "apiVersion": "shoal.storage/v1alpha1", "kind": "ResourceLock",
        "metadata": {"namespace": "default", "name": "keep"},
        "spec": {"resourceRef": {"kind": "Share", "name": "kept"}, "action": "Delete", "owner": "admin"},
    });
    world.apply(&lock).await?;
    eventually("the lock to hold", PATIENCE, async || {
        Ok(refusal(world)
            .await?
            .is_some_and(|why| why.contains("is locked"))
            .then_some(()))
    })
    .await?;
    eprintln!(
        "after the install, objects are taken from {:.1} s on, and a lock holds from {:.1} s on",
        taken.as_secs_f64(),
        installed.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Why the share can't be deleted, if so.
async fn refusal(world: &World) -> Result<Option<String>> {
    let only_asked = DeleteParams {
        dry_run: true,
        ..DeleteParams::default()
    };
    match world.api::<Share>("default").delete("kept", &only_asked).await {
        Ok(_) => Ok(None),
        Err(kube::Error::Api(status)) => Ok(Some(status.message.clone())),
        Err(error) => Err(error.into()),
    }
}

async fn is_there<K>(api: Api<K>, name: &str) -> Result<bool>
where
    K: Resource + Clone + std::fmt::Debug + DeserializeOwned,
{
    Ok(api.get_opt(name).await?.is_some())
}

/// What `helm test` does, by hand: no node would run its Pod.
async fn play_the_test(world: &World) -> Result<()> {
    let documents = render(&["--set=test.image=kubectl:1"])?;
    let hooks: Vec<_> = documents
        .iter()
        .filter(|d| d["metadata"]["annotations"]["helm.sh/hook"] == "test")
        .collect();
    for hook in &hooks {
        world.apply(hook).await?;
    }
    let operator = world.operator(&OperatorOptions::quick("operator")).await?;
    operator.wait_until_leading().await?;

    let plane = world.lab.control_plane()?;
    let folder = world.lab.folder().join("test");
    fs::create_dir(&folder)?;
    let data = only(&documents, "ConfigMap")["data"].as_object().unwrap();
    for (name, text) in data {
        fs::write(folder.join(name), text.as_str().unwrap())?;
    }
    let token =
        output(
            plane
                .kubectl()
                .args(["create", "token", "shoal-test", "--namespace", SYSTEM_NAMESPACE]),
        )?;
    let kubeconfig = world.lab.folder().join("test.kubeconfig");
    plane.write_kubeconfig(&kubeconfig, "shoal-test", token.trim())?;
    let pod = &only(&documents, "Pod")["spec"];
    let steps = pod["initContainers"]
        .as_array()
        .unwrap()
        .iter()
        .chain(pod["containers"].as_array().unwrap());
    for step in steps {
        let words = step["args"]
            .as_array()
            .unwrap()
            .iter()
            .map(|w| w.as_str().unwrap());
        let mut command = Command::new(plane.kubectl_program());
        command.arg("--kubeconfig").arg(&kubeconfig);
        command.args(words.map(|w| w.replace("/test", folder.to_str().unwrap())));
        tokio::task::spawn_blocking(move || output(&mut command)).await??;
    }
    for hook in &hooks {
        let (name, api) = world.api_of(hook)?;
        api.delete(&name, &DeleteParams::default().grace_period(0))
            .await?;
    }
    Ok(())
}

fn short_names(crd: &CustomResourceDefinition) -> &[String] {
    crd.spec.names.short_names.as_deref().unwrap_or_default()
}

#[test]
fn installed_upgraded_rolled_back_uninstalled_and_installed_again() {
    NEWER.run(
        || bare(KubernetesRelease::V1_37),
        |world| async move {
            restricted_namespace(world).await?;
            let said = output(helm(Some(world))?.args(["install", "shoal"]).arg(chart()))?;
            ensure!(
                said.contains("kubectl create secret generic ceph-connection"),
                "{said}"
            );
            lock_a_share(world).await?;
            is_installed(world, true).await?;
            can_be_copied(world, &said)?;
            let shares: Api<Share> = world.api("default");
            let uid = shares.get("kept").await?.uid();
            play_the_test(world).await?;

            let newer = changed_chart(world.lab.folder())?;
            output(helm(Some(world))?.args(["upgrade", "shoal"]).arg(&newer))?;
            let crds: Api<CustomResourceDefinition> = world.cluster_api();
            let changed = crds.get("shares.shoal.storage").await?;
            ensure!(
                short_names(&changed) == ["shr", NEW_NAME],
                "{:?}",
                short_names(&changed)
            );
            output(helm(Some(world))?.args(["rollback", "shoal", "1"]))?;
            let back = crds.get("shares.shoal.storage").await?;
            ensure!(short_names(&back) == ["shr"], "{:?}", short_names(&back));

            output(helm(Some(world))?.args(["uninstall", "shoal"]))?;
            ensure!(
                !is_there(world.api::<Deployment>(SYSTEM_NAMESPACE), "shoal").await?,
                "the Deployment stayed"
            );
            ensure!(
                !is_there(world.cluster_api::<ClusterRole>(), "shoal-operator").await?,
                "the role stayed"
            );
            ensure!(shares.get("kept").await?.uid() == uid, "another share");
            let why = refusal(world).await?;
            ensure!(why.as_ref().is_some_and(|w| w.contains("is locked")), "{why:?}");

            output(helm(Some(world))?.args(["install", "shoal"]).arg(chart()))?;
            is_installed(world, true).await?;
            ensure!(shares.get("kept").await?.uid() == uid, "another share");
            goes_for_good(world).await
        },
    );
}

/// With `crds.keep=false` nothing stays. The share goes first, while an operator runs.
async fn goes_for_good(world: &World) -> Result<()> {
    let operator = world.operator(&OperatorOptions::quick("operator")).await?;
    operator.wait_until_leading().await?;
    let locks: Api<ResourceLock> = world.api("default");
    locks.delete("keep", &DeleteParams::default()).await?;
    eventually("the share to be locked no more", PATIENCE, async || {
        Ok(refusal(world).await?.is_none().then_some(()))
    })
    .await?;
    let shares: Api<Share> = world.api("default");
    shares.delete("kept", &DeleteParams::default()).await?;
    until_gone(&shares, "kept").await?;
    operator.terminate()?;
    output(
        helm(Some(world))?
            .args(["upgrade", "shoal", "--set=crds.keep=false"])
            .arg(chart()),
    )?;
    output(helm(Some(world))?.args(["uninstall", "shoal"]))?;
    for wanted in definitions(false) {
        let (name, api) = world.api_of(&wanted)?;
        eventually(&format!("{name} to go"), PATIENCE, async || {
            Ok(api.get_opt(&name).await?.is_none().then_some(()))
        })
        .await?;
    }
    Ok(())
}

/// An API server without MutatingAdmissionPolicy.
#[test]
fn installed_on_an_older_server() {
    OLDER.run(
        || bare(KubernetesRelease::V1_34),
        |world| async move {
            restricted_namespace(world).await?;
            output(helm(Some(world))?.args(["install", "shoal"]).arg(chart()))?;
            lock_a_share(world).await?;
            is_installed(world, false).await?;
            output(helm(Some(world))?.args(["uninstall", "shoal"]))?;
            let why = refusal(world).await?;
            ensure!(why.as_ref().is_some_and(|w| w.contains("is locked")), "{why:?}");
            let policies: Api<ValidatingAdmissionPolicy> = world.cluster_api();
            ensure!(is_there(policies, "locked.shoal.storage").await?, "no policy");
            output(helm(Some(world))?.args(["install", "shoal"]).arg(chart()))?;
            goes_for_good(world).await
        },
    );
}
