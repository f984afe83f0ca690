//! How objects come into the world, and the kinds that are not Shoal's.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Namespace, Secret},
        events::v1::Event,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DynamicObject, ListParams, Patch, PatchParams, PostParams},
    runtime::events::{Event as News, EventType, Recorder, Reporter},
};
use serde_json::{Value, json};

use super::{
    document, equal, json_of, made, made_type, merged, merged_status, refused, shoal, types, version,
};

/// A share that is in order.
fn share() -> Value {
    json!({"spec": {"protocol": "NFS", "size": "1Gi"}})
}

pub(super) async fn birth(client: &Client, namespace: &str) -> Result<()> {
    let rest = json!({
        "metadata": {
            "uid": "mine", "generation": 7, "labels": {"a": "b"}, "finalizers": ["example.org/held"],
            "deletionTimestamp": "2026-01-01T00:00:00Z",
        },
        "status": {"phase": "Available"},
    });
    let name = format!("{namespace}-a");
    let first = made_type(client, &name, &rest).await?;
    equal("uid", first.uid().unwrap_or_default().len(), 36)?;
    equal("generation", first.metadata.generation, Some(1))?;
    equal("deletion", first.metadata.deletion_timestamp.is_some(), false)?;
    ensure!(first.creation_timestamp().is_some(), "no time of creation");
    equal("labels", first.labels().len(), 1)?;
    equal("finalizers", first.finalizers(), &["example.org/held".to_owned()])?;
    equal(
        "status",
        &first.data["status"],
        &json!({"observedGeneration": -1}),
    )?;
    let second = made_type(client, &format!("{namespace}-b"), &json!({})).await?;
    ensure!(first.uid() != second.uid(), "two objects have one uid");
    ensure!(version(&first)? < version(&second)?, "versions do not grow");
    let read = types(client).get(&name).await?;
    equal("what is read", json_of(&read)?, json_of(&first)?)
}

pub(super) async fn birth_refused(client: &Client, namespace: &str) -> Result<()> {
    let api = shoal(client, "Share", namespace);
    let params = PostParams::default();
    let object = |name: &str, rest: &Value| -> Result<DynamicObject> {
        Ok(serde_json::from_value(document("Share", name, rest))?)
    };
    api.create(&params, &object("a", &share())?).await?;
    refused(
        api.create(&params, &object("a", &share())?).await,
        409,
        "AlreadyExists",
    )?;
    refused(api.create(&params, &object("", &share())?).await, 422, "Invalid")?;
    let nowhere = shoal(client, "Share", &format!("{namespace}-none"));
    refused(
        nowhere.create(&params, &object("a", &share())?).await,
        404,
        "NotFound",
    )?;
    let mut versioned = object("b", &share())?;
    versioned.metadata.resource_version = Some("5".into());
    refused(api.create(&params, &versioned).await, 500, "")
}

pub(super) async fn generated_names(client: &Client, namespace: &str) -> Result<()> {
    let prefix = format!("{namespace}-");
    let mut object: DynamicObject = serde_json::from_value(document("ShareType", "", &json!({"spec": {}})))?;
    object.metadata.name = None;
    object.metadata.generate_name = Some(prefix.clone());
    let one = types(client).create(&PostParams::default(), &object).await?;
    let two = types(client).create(&PostParams::default(), &object).await?;
    for made in [&one, &two] {
        let name = made.name_any();
        ensure!(
            name.strip_prefix(&prefix).is_some_and(|rest| rest.len() == 5),
            "{name}"
        );
    }
    ensure!(one.name_any() != two.name_any(), "one name for two");
    Ok(())
}

pub(super) async fn defaults_and_pruning(client: &Client, namespace: &str) -> Result<()> {
    let rest = json!({"spec": {"shareRef": {"name": "s", "odd": 1}, "accessType": "IP", "accessTo": "10.0.0.1",
        "accessToSecretRef": null, "accessLevel": null, "unknown": {"a": 1}}, "top": 1});
    let rule = made(client, "ShareAccessRule", namespace, "r", &rest).await?;
    let spec = json!({
        "shareRef": {"name": "s"}, "accessType": "IP", "accessTo": "10.0.0.1", "accessToSecretRef": null,
        "accessLevel": "ReadWrite",
    });
    equal("spec", &rule.data["spec"], &spec)?;
    equal("what is beside", rule.data.get("top"), None)?;
    let name = format!("{namespace}-a");
    let made = made_type(client, &name, &json!({"spec": {"root": {"uid": 5}}})).await?;
    let spec = json!({
        "root": {"uid": 5, "gid": 0, "mode": "0755"}, "shrink": false, "squash": "None", "snapshots": false,
        "createFromSnapshot": false, "deletion": "Deferred", "deletionPolicy": "Delete",
    });
    equal("spec of a type", &made.data["spec"], &spec)?;
    let without = merged(
        &types(client),
        &name,
        &json!({"spec": {"root": null, "squash": null}}),
    )
    .await?;
    equal(
        "a default that was taken away",
        &without.data["spec"]["squash"],
        &json!("None"),
    )?;
    equal(
        "and one with fields",
        &without.data["spec"]["root"]["uid"],
        &json!(0),
    )?;
    equal("which is no change but one", without.metadata.generation, Some(2))?;
    let nulls = merged_status(&types(client), &name, &json!({"phase": "Available", "bogus": 1})).await?;
    let status = json!({"observedGeneration": -1, "phase": "Available"});
    equal("status", &nulls.data["status"], &status)
}

pub(super) async fn generations(client: &Client, namespace: &str) -> Result<()> {
    let (api, name) = (types(client), format!("{namespace}-a"));
    made_type(
        client,
        &name,
        &json!({"metadata": {"finalizers": ["example.org/held"]}}),
    )
    .await?;
    let labelled = merged(&api, &name, &json!({"metadata": {"labels": {"a": "b"}}})).await?;
    equal("after a label", labelled.metadata.generation, Some(1))?;
    let reported = merged_status(&api, &name, &json!({"phase": "Available"})).await?;
    equal("after a status", reported.metadata.generation, Some(1))?;
    let changed = merged(&api, &name, &json!({"spec": {"shrink": true}})).await?;
    equal("after a change", changed.metadata.generation, Some(2))?;
    api.delete(&name, &kube::api::DeleteParams::default()).await?;
    equal(
        "after a deletion",
        api.get(&name).await?.metadata.generation,
        Some(3),
    )?;
    let let_go = merged(&api, &name, &json!({"metadata": {"finalizers": null}})).await?;
    equal("after the end", let_go.metadata.generation, Some(3))
}

pub(super) async fn dry_runs(client: &Client, namespace: &str) -> Result<()> {
    let (api, name) = (types(client), format!("{namespace}-a"));
    let object: DynamicObject = serde_json::from_value(document("ShareType", &name, &json!({"spec": {}})))?;
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    api.create(&dry, &object).await?;
    equal("it", api.get_opt(&name).await?.is_some(), false)?;
    let first = made_type(client, &name, &json!({})).await?;
    let params = PatchParams {
        dry_run: true,
        ..PatchParams::default()
    };
    let patch = json!({"spec": {"shrink": true}});
    let shown = api.patch(&name, &params, &Patch::Merge(&patch)).await?;
    equal("what is shown", &shown.data["spec"]["shrink"], &json!(true))?;
    equal(
        "what is stored",
        version(&api.get(&name).await?)?,
        version(&first)?,
    )
}

fn secret(name: &str, rest: &Value) -> Result<Secret> {
    let mut secret = json!({"metadata": {"name": name}});
    super::overlay(&mut secret, rest);
    Ok(serde_json::from_value(secret)?)
}

pub(super) async fn secrets(client: &Client, namespace: &str) -> Result<()> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let rest = json!({"data": {"a": "MQ=="}, "stringData": {"b": "two", "a": "won"}});
    let made = api.create(&PostParams::default(), &secret("s", &rest)?).await?;
    equal("type", made.type_.as_deref(), Some("Opaque"))?;
    equal("generation", made.metadata.generation, None)?;
    let text = |secret: &Secret, key: &str| -> Option<String> {
        String::from_utf8(secret.data.as_ref()?.get(key)?.0.clone()).ok()
    };
    equal("a", text(&made, "a").as_deref(), Some("won"))?;
    equal("b", text(&made, "b").as_deref(), Some("two"))?;
    equal("texts", made.string_data, None)?;
    let patch = json!({"data": {"a": null, "c": "Mw=="}});
    let patched = api
        .patch("s", &PatchParams::default(), &Patch::Merge(&patch))
        .await?;
    equal("a, taken away", text(&patched, "a"), None)?;
    equal("c", text(&patched, "c").as_deref(), Some("3"))?;
    let replaced = api
        .replace("s", &PostParams::default(), &secret("s", &json!({}))?)
        .await?;
    equal("data, replaced without a version", replaced.data, None)
}

pub(super) async fn types_of_secrets(client: &Client, namespace: &str) -> Result<()> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    api.create(&PostParams::default(), &secret("s", &json!({}))?)
        .await?;
    let patch = json!({"type": "example.org/other"});
    let patched = api
        .patch("s", &PatchParams::default(), &Patch::Merge(&patch))
        .await;
    refused(patched, 422, "Invalid")
}

pub(super) async fn namespaces(client: &Client, namespace: &str) -> Result<()> {
    let api: Api<Namespace> = Api::all(client.clone());
    let found = api.get(namespace).await?;
    let label = found.labels().get("kubernetes.io/metadata.name").cloned();
    equal("label", label.as_deref(), Some(namespace))?;
    equal(
        "phase",
        found.status.and_then(|s| s.phase).as_deref(),
        Some("Active"),
    )?;
    let patch = json!({"metadata": {"labels": {"team": "a"}}});
    let labelled = api
        .patch(namespace, &PatchParams::default(), &Patch::Merge(&patch))
        .await?;
    equal("labels", labelled.labels().len(), 2)?;
    equal(
        "uid",
        api.get_metadata(namespace).await?.uid(),
        found.metadata.uid,
    )
}

pub(super) async fn leases(client: &Client, namespace: &str) -> Result<()> {
    let api: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let lease: Lease = serde_json::from_value(json!({"metadata": {"name": "l"}, "spec": {
        "holderIdentity": "a", "leaseDurationSeconds": 15, "leaseTransitions": 1, "renewTime": "2026-01-01T00:00:00.000000Z",
    }}))?;
    let mine = api.create(&PostParams::default(), &lease).await?;
    refused(
        api.create(&PostParams::default(), &lease).await,
        409,
        "AlreadyExists",
    )?;
    let mut renewed = mine.clone();
    let spec = renewed.spec.as_mut().context("a Lease without spec")?;
    spec.holder_identity = Some("b".into());
    let theirs = api.replace("l", &PostParams::default(), &renewed).await?;
    ensure!(
        theirs.resource_version() != mine.resource_version(),
        "the version stays"
    );
    refused(
        api.replace("l", &PostParams::default(), &renewed).await,
        409,
        "Conflict",
    )?;
    let again = api.replace("l", &PostParams::default(), &theirs).await?;
    equal(
        "what changed nothing",
        again.resource_version(),
        theirs.resource_version(),
    )?;
    equal(
        "holder",
        again.spec.and_then(|s| s.holder_identity).as_deref(),
        Some("b"),
    )
}

pub(super) async fn recorded_events(client: &Client, namespace: &str) -> Result<()> {
    let recorder = Recorder::new(
        client.clone(),
        Reporter {
            controller: "contract".into(),
            instance: Some("one".into()),
        },
    );
    let about: Namespace = Api::<Namespace>::all(client.clone()).get(namespace).await?;
    let mut about = about.object_ref(&());
    about.namespace = Some(namespace.into());
    for _ in 0..3 {
        let news = News {
            type_: EventType::Warning,
            reason: "Tried".into(),
            note: Some("it was tried".into()),
            action: "Try".into(),
            secondary: None,
        };
        recorder.publish(&news, &about).await?;
    }
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    let events = api.list(&ListParams::default()).await?.items;
    equal("how many", events.len(), 1)?;
    equal(
        "series",
        events[0].series.as_ref().map(|series| series.count),
        Some(3),
    )?;
    let gone = Event {
        metadata: ObjectMeta {
            name: Some("none".into()),
            ..ObjectMeta::default()
        },
        ..Event::default()
    };
    let patched = api
        .patch("none", &PatchParams::default(), &Patch::Merge(&gone))
        .await;
    refused(patched, 404, "NotFound")
}

/// With the policy that puts the finalizer on.
pub(super) async fn born_held(client: &Client, namespace: &str) -> Result<()> {
    let held = [shoal_crds::names::FINALIZER.to_owned()];
    let api = shoal(client, "Share", namespace);
    let born = made(client, "Share", namespace, "a", &share()).await?;
    equal("at birth", born.finalizers(), &held)?;
    let stored = merged(&api, "a", &json!({})).await?;
    let clung = merged(&api, "a", &json!({"metadata": {"finalizers": null}})).await?;
    equal("taken off", clung.finalizers(), &held)?;
    equal("which changed nothing", version(&clung)?, version(&stored)?)?;
    let both = merged(
        &api,
        "a",
        &json!({"metadata": {"finalizers": ["example.org/held"]}}),
    )
    .await?;
    equal("replaced", both.finalizers().len(), 2)?;
    let params = PatchParams::apply("user");
    let apply = async || {
        let patch = Patch::Apply(document("Share", "b", &share()));
        api.patch("b", &params, &patch).await
    };
    equal("applied", apply().await?.finalizers(), &held)?;
    let stored = apply().await?;
    equal("applied again", version(&apply().await?)?, version(&stored)?)?;
    api.delete("b", &kube::api::DeleteParams::default()).await?;
    merged(&api, "b", &json!({"metadata": {"finalizers": null}})).await?;
    equal("taken off at the end", api.get_opt("b").await?.is_some(), false)
}
