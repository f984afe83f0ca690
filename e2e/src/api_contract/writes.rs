//! Replacing, patching and deleting.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, DynamicObject, ObjectMeta, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::json;
use shoal_crds::ShareAccessRule;

use super::{
    applied_status, document, equal, json_of, made_type, merged, merged_status, refused, types, version,
};
use crate::world::eventually;

pub(super) async fn missing_objects(client: &Client, namespace: &str) -> Result<()> {
    let (api, name) = (types(client), format!("{namespace}-none"));
    let mut object: DynamicObject =
        serde_json::from_value(document("ShareType", &name, &json!({"spec": {}})))?;
    refused(api.get(&name).await, 404, "NotFound")?;
    refused(api.get_metadata(&name).await, 404, "NotFound")?;
    refused(merged(&api, &name, &json!({})).await, 404, "NotFound")?;
    refused(merged_status(&api, &name, &json!({})).await, 404, "NotFound")?;
    refused(
        applied_status(client, "m", &name, &json!({})).await,
        404,
        "NotFound",
    )?;
    refused(api.delete(&name, &DeleteParams::default()).await, 404, "NotFound")?;
    object.metadata.resource_version = Some("1".into());
    refused(
        api.replace(&name, &PostParams::default(), &object).await,
        404,
        "NotFound",
    )
}

pub(super) async fn replacement(client: &Client, namespace: &str) -> Result<()> {
    let (api, name) = (types(client), format!("{namespace}-a"));
    let params = PostParams::default();
    let rest = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"shrink": true}});
    let first = made_type(client, &name, &rest).await?;
    let mut next: DynamicObject = serde_json::from_value(document("ShareType", &name, &json!({"spec": {}})))?;
    refused(api.replace(&name, &params, &next).await, 422, "Invalid")?;
    next.metadata.resource_version = first.resource_version();
    next.metadata.uid = Some("other".into());
    refused(api.replace(&name, &params, &next).await, 409, "Conflict")?;
    next.metadata.uid = None;
    let second = api.replace(&name, &params, &next).await?;
    equal("uid", second.uid(), first.uid())?;
    equal("created", second.creation_timestamp(), first.creation_timestamp())?;
    equal("labels", second.labels().len(), 0)?;
    equal("default", &second.data["spec"]["shrink"], &json!(false))?;
    ensure!(version(&second)? > version(&first)?, "the version does not grow");
    refused(api.replace(&name, &params, &next).await, 409, "Conflict")?;
    next.metadata.name = Some("another".into());
    let url = api.replace(&name, &params, &next).await;
    refused(url, 400, "BadRequest")
}

pub(super) async fn merge_patches(client: &Client, namespace: &str) -> Result<()> {
    let (api, name) = (types(client), format!("{namespace}-a"));
    let rest = json!({
        "metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"protocols": ["NFS"], "size": {"min": "1Gi", "max": "2Gi"}},
    });
    let first = made_type(client, &name, &rest).await?;
    let patch = json!({
        "metadata": {"labels": {"a": null, "c": "3"}}, "spec": {"protocols": ["CephFS"], "size": {"min": null}},
    });
    let second = merged(&api, &name, &patch).await?;
    equal(
        "labels",
        second.labels().keys().cloned().collect::<Vec<_>>(),
        vec!["b".into(), "c".into()],
    )?;
    equal(
        "a list is replaced",
        &second.data["spec"]["protocols"],
        &json!(["CephFS"]),
    )?;
    equal("fields", &second.data["spec"]["size"], &json!({"max": "2Gi"}))?;
    let forbidden =
        json!({"metadata": {"creationTimestamp": "2000-01-01T00:00:00Z", "generation": 9, "name": name}});
    let third = merged(&api, &name, &forbidden).await?;
    equal("created", third.creation_timestamp(), first.creation_timestamp())?;
    equal("what only the server writes", version(&third)?, version(&second)?)
}

pub(super) async fn versions_of_patches(client: &Client, namespace: &str) -> Result<()> {
    let (api, name) = (types(client), format!("{namespace}-a"));
    let first = made_type(client, &name, &json!({})).await?;
    let on = |object: &DynamicObject, value: &str| json!({"metadata": {"resourceVersion": object.resource_version(), "labels": {"a": value}}});
    let second = merged(&api, &name, &on(&first, "1")).await?;
    refused(merged(&api, &name, &on(&first, "2")).await, 409, "Conflict")?;
    refused(merged(&api, &name, &on(&first, "1")).await, 409, "Conflict")?;
    merged(&api, &name, &on(&second, "3")).await?;
    let status =
        json!({"metadata": {"resourceVersion": second.resource_version()}, "status": {"phase": "Available"}});
    let params = PatchParams::default();
    let patched = api.patch_status(&name, &params, &Patch::Merge(&status)).await;
    refused(patched, 409, "Conflict")
}

/// A uid guards a patch of an object, but not one of its status.
pub(super) async fn identities_of_patches(client: &Client, namespace: &str) -> Result<()> {
    let (api, name) = (types(client), format!("{namespace}-a"));
    let object = made_type(client, &name, &json!({})).await?;
    let other = json!({"metadata": {"uid": "other", "labels": {"a": "1"}}});
    refused(merged(&api, &name, &other).await, 422, "Invalid")?;
    let both = json!({"metadata": {"uid": "other", "resourceVersion": "1", "labels": {"a": "1"}}});
    refused(merged(&api, &name, &both).await, 409, "Conflict")?;
    let mine = json!({"metadata": {"uid": object.uid(), "labels": {"a": "1"}}});
    merged(&api, &name, &mine).await?;
    let status = json!({"metadata": {"uid": "other"}, "status": {"phase": "Available"}});
    let patched = api
        .patch_status(&name, &PatchParams::default(), &Patch::Merge(&status))
        .await?;
    equal("uid", patched.uid(), object.uid())?;
    equal("phase", &patched.data["status"]["phase"], &json!("Available"))
}

/// What changes nothing is not stored; but that the status has its default is, by the first write of any kind.
pub(super) async fn unchanged_writes(client: &Client, namespace: &str) -> Result<()> {
    let (api, name) = (types(client), format!("{namespace}-a"));
    let born = made_type(client, &name, &json!({"metadata": {"labels": {"a": "1"}}})).await?;
    let first = merged(&api, &name, &json!({"metadata": {"labels": {"a": "1"}}})).await?;
    ensure!(
        version(&first)? > version(&born)?,
        "the status's default is not stored"
    );
    equal("what it says", &first.data, &born.data)?;
    let patched = merged(&api, &name, &json!({"metadata": {"labels": {"a": "1"}}})).await?;
    equal("after a patch", version(&patched)?, version(&first)?)?;
    let replaced = api.replace(&name, &PostParams::default(), &first).await?;
    equal("after a replacement", version(&replaced)?, version(&first)?)?;
    let rest = json!({"status": {"phase": "Available"}});
    let reported = applied_status(client, "m", &name, &rest).await?;
    let again = applied_status(client, "m", &name, &rest).await?;
    equal("after an application", version(&again)?, version(&reported)?)
}

pub(super) async fn status_apart(client: &Client, namespace: &str) -> Result<()> {
    let (api, name) = (types(client), format!("{namespace}-a"));
    made_type(client, &name, &json!({})).await?;
    let first = merged(&api, &name, &json!({"metadata": {"finalizers": null}})).await?;
    let patched = merged(&api, &name, &json!({"status": {"phase": "Available"}})).await?;
    equal("by the object", version(&patched)?, version(&first)?)?;
    let patch = json!({
        "metadata": {"labels": {"a": "1"}, "annotations": {"a": "1"}, "finalizers": ["example.org/held"]},
        "spec": {"shrink": true}, "status": {"phase": "Available"},
    });
    let reported = api
        .patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch))
        .await?;
    equal("spec by the status", &reported.data["spec"], &first.data["spec"])?;
    equal("labels by the status", reported.labels().len(), 0)?;
    equal("annotations by the status", reported.annotations().len(), 0)?;
    equal("finalizers by the status", reported.finalizers().len(), 0)?;
    equal("status", &reported.data["status"]["phase"], &json!("Available"))?;
    let changed = merged(&api, &name, &json!({"spec": {"shrink": true}})).await?;
    equal(
        "status after a change",
        &changed.data["status"]["phase"],
        &json!("Available"),
    )?;
    let emptied = merged(&api, &name, &json!({"spec": {"shrink": false}, "status": null})).await?;
    equal(
        "status taken away",
        &emptied.data["status"]["phase"],
        &json!("Available"),
    )
}

pub(super) async fn deletion(client: &Client, namespace: &str) -> Result<()> {
    let (api, name) = (types(client), format!("{namespace}-a"));
    let made = made_type(client, &name, &json!({})).await?;
    let answer = api.delete(&name, &DeleteParams::default()).await?;
    let status = answer.right().context("an object that is gone was answered")?;
    equal("the uid", status.details.map(|details| details.uid), made.uid())?;
    equal("it", api.get_opt(&name).await?.is_some(), false)
}

pub(super) async fn finalizers(client: &Client, namespace: &str) -> Result<()> {
    let (api, name) = (types(client), format!("{namespace}-a"));
    let (a, b, c) = ("example.org/a", "example.org/b", "example.org/c");
    made_type(client, &name, &json!({"metadata": {"finalizers": [a, b]}})).await?;
    let answer = api.delete(&name, &DeleteParams::default()).await?;
    let deleting = answer.left().context("an object that is held is gone")?;
    ensure!(deleting.metadata.deletion_timestamp.is_some(), "not marked");
    let answer = api.delete(&name, &DeleteParams::default()).await?;
    let again = answer.left().context("an object that is held is gone")?;
    equal("deleted again", json_of(&again)?, json_of(&deleting)?)?;
    let more = merged(&api, &name, &json!({"metadata": {"finalizers": [a, b, c]}})).await;
    refused(more, 422, "Invalid")?;
    let alive = json!({"metadata": {"deletionTimestamp": null}});
    let still = merged(&api, &name, &alive).await?;
    ensure!(still.metadata.deletion_timestamp.is_some(), "it lives again");
    merged(&api, &name, &json!({"spec": {"shrink": true}})).await?;
    merged_status(&api, &name, &json!({"phase": "Available"})).await?;
    let one = merged(&api, &name, &json!({"metadata": {"finalizers": [b]}})).await?;
    equal("one taken off", one.finalizers().len(), 1)?;
    let none = merged(&api, &name, &json!({"metadata": {"finalizers": []}})).await?;
    equal("the last taken off", none.finalizers().len(), 0)?;
    equal("its last version", version(&none)?, version(&one)?)?;
    equal("it", api.get_opt(&name).await?.is_some(), false)
}

pub(super) async fn deletion_preconditions(client: &Client, namespace: &str) -> Result<()> {
    let (api, name) = (types(client), format!("{namespace}-a"));
    let first = made_type(
        client,
        &name,
        &json!({"metadata": {"finalizers": ["example.org/held"]}}),
    )
    .await?;
    let on = |uid: Option<String>, version: Option<String>| DeleteParams {
        preconditions: Some(Preconditions {
            uid,
            resource_version: version,
        }),
        ..DeleteParams::default()
    };
    let old = first.resource_version();
    merged(&api, &name, &json!({"metadata": {"labels": {"a": "1"}}})).await?;
    refused(
        api.delete(&name, &on(Some("other".into()), None)).await,
        409,
        "Conflict",
    )?;
    refused(api.delete(&name, &on(None, old)).await, 409, "Conflict")?;
    api.delete(&name, &on(first.uid(), None)).await?;
    refused(
        api.delete(&name, &on(Some("other".into()), None)).await,
        409,
        "Conflict",
    )?;
    merged(&api, &name, &json!({"metadata": {"finalizers": null}})).await?;
    equal("it", api.get_opt(&name).await?.is_some(), false)
}

pub(super) async fn rebirth(client: &Client, namespace: &str) -> Result<()> {
    let (api, name) = (types(client), format!("{namespace}-a"));
    made_type(client, &name, &json!({})).await?;
    let first = merged(&api, &name, &json!({"spec": {"shrink": true}})).await?;
    merged_status(&api, &name, &json!({"phase": "Available"})).await?;
    api.delete(&name, &DeleteParams::default()).await?;
    let second = made_type(client, &name, &json!({})).await?;
    ensure!(first.uid() != second.uid(), "one uid for two");
    equal("generation", second.metadata.generation, Some(1))?;
    equal(
        "status",
        &second.data["status"],
        &json!({"observedGeneration": -1}),
    )?;
    let late = json!({"metadata": {"uid": first.uid(), "resourceVersion": first.resource_version(), "labels": {"a": "1"}}});
    refused(merged(&api, &name, &late).await, 409, "Conflict")
}

pub(super) async fn collection_of_dependants(client: &Client, namespace: &str) -> Result<()> {
    let rest = json!({"spec": {"shareRef": {"name": "s"}, "accessType": "CephX"}});
    let rules = super::shoal(client, "ShareAccessRule", namespace);
    let mut owners = Vec::new();
    for name in ["a", "b"] {
        let rule = super::made(client, "ShareAccessRule", namespace, name, &rest).await?;
        let rule: ShareAccessRule = rule.try_parse()?;
        owners.push(rule.owner_ref(&()).context("an owner without uid")?);
    }
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let owned = |name: &str, owners: &[OwnerReference]| Secret {
        metadata: ObjectMeta {
            name: Some(name.into()),
            owner_references: Some(owners.to_vec()),
            ..ObjectMeta::default()
        },
        ..Secret::default()
    };
    let params = PostParams::default();
    secrets.create(&params, &owned("of-a", &owners[..1])).await?;
    secrets.create(&params, &owned("of-both", &owners)).await?;
    let free = async |name: &str| -> Result<()> {
        rules.delete(name, &DeleteParams::default()).await?;
        match merged(&rules, name, &json!({"metadata": {"finalizers": null}})).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(error) => Err(error.into()),
        }
    };
    let gone = async |name: &str| -> Result<()> {
        eventually(name, Duration::from_mins(1), async || {
            Ok(secrets.get_opt(name).await?.is_none().then_some(()))
        })
        .await
    };
    free("a").await?;
    gone("of-a").await?;
    ensure!(secrets.get_opt("of-both").await?.is_some(), "one owner lives");
    free("b").await?;
    gone("of-both").await?;
    secrets.create(&params, &owned("late", &owners[..1])).await?;
    gone("late").await
}
