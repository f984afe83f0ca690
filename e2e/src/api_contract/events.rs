//! Watches.

use std::{pin::Pin, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use futures::{Stream, StreamExt};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, DynamicObject, ListParams, WatchEvent, WatchParams},
};
use serde_json::json;
use tokio::time::timeout;

use super::{equal, json_of, made, merged, merged_status, shoal, version};

/// What a watch delivers.
type Events<K> = Pin<Box<dyn Stream<Item = kube::Result<WatchEvent<K>>> + Send>>;

async fn watch(api: &Api<DynamicObject>, params: &WatchParams, since: &str) -> Result<Events<DynamicObject>> {
    Ok(api.watch(params, since).await?.boxed())
}

/// The next event that is no bookmark; none at the stream's end.
async fn next<K>(events: &mut Events<K>) -> Result<Option<WatchEvent<K>>> {
    loop {
        let event = timeout(Duration::from_mins(1), events.next())
            .await
            .context("no event in a minute")?
            .transpose()?;
        if !matches!(event, Some(WatchEvent::Bookmark(_))) {
            return Ok(event);
        }
    }
}

/// The next event, as its kind and object.
async fn event<K: Clone>(events: &mut Events<K>) -> Result<(&'static str, K)> {
    match next(events).await? {
        Some(WatchEvent::Added(object)) => Ok(("ADDED", object)),
        Some(WatchEvent::Modified(object)) => Ok(("MODIFIED", object)),
        Some(WatchEvent::Deleted(object)) => Ok(("DELETED", object)),
        Some(other) => bail!("{other:?}"),
        None => bail!("the watch ended"),
    }
}

fn share() -> serde_json::Value {
    json!({"metadata": {"labels": {"a": "1"}}, "spec": {"protocol": "NFS", "size": "1Gi"}})
}

/// The version that a list has now.
async fn now(api: &Api<DynamicObject>) -> Result<String> {
    let list = api.list(&ListParams::default()).await?;
    list.metadata.resource_version.context("a list without a version")
}

pub(super) async fn changes(client: &Client, namespace: &str) -> Result<()> {
    let api = shoal(client, "Share", namespace);
    made(client, "Share", namespace, "early", &share()).await?;
    let since = now(&api).await?;
    let born = made(client, "Share", namespace, "a", &share()).await?;
    let mut events = watch(&api, &WatchParams::default(), &since).await?;
    let (kind, object) = event(&mut events).await?;
    equal("birth", (kind, json_of(&object)?), ("ADDED", json_of(&born)?))?;
    let patch = json!({"metadata": {"labels": {"b": "2"}}});
    let changed = merged(&api, "a", &patch).await?;
    merged(&api, "a", &patch).await?;
    let reported = merged_status(&api, "a", &json!({"phase": "Pending"})).await?;
    for wanted in [&changed, &reported] {
        let (kind, object) = event(&mut events).await?;
        equal(
            "change",
            (kind, json_of(&object)?),
            ("MODIFIED", json_of(wanted)?),
        )?;
    }
    let held = merged(
        &api,
        "a",
        &json!({"metadata": {"finalizers": ["example.org/held"]}}),
    )
    .await?;
    let mut last = held;
    if event(&mut events).await?.1.finalizers().len() > 1 {
        last = merged(
            &api,
            "a",
            &json!({"metadata": {"finalizers": ["example.org/held"]}}),
        )
        .await?;
    }
    api.delete("a", &DeleteParams::default()).await?;
    let (kind, object) = event(&mut events).await?;
    equal("mark", kind, "MODIFIED")?;
    ensure!(object.metadata.deletion_timestamp.is_some(), "no mark");
    ensure!(version(&object)? > version(&last)?, "the version does not grow");
    merged(&api, "a", &json!({"metadata": {"finalizers": null}})).await?;
    let (kind, gone) = event(&mut events).await?;
    equal("end", kind, "DELETED")?;
    ensure!(version(&gone)? > version(&object)?, "the version does not grow");
    equal("who", gone.uid(), born.uid())
}

pub(super) async fn beginnings(client: &Client, namespace: &str) -> Result<()> {
    let api = shoal(client, "Share", namespace);
    let first = made(client, "Share", namespace, "a", &share()).await?;
    for since in ["", "0"] {
        let mut events = watch(&api, &WatchParams::default(), since).await?;
        let (kind, object) = event(&mut events).await?;
        equal(
            "what is there",
            (kind, json_of(&object)?),
            ("ADDED", json_of(&first)?),
        )?;
    }
    let mut events = watch(&api, &WatchParams::default(), "").await?;
    event(&mut events).await?;
    made(client, "Share", namespace, "b", &share()).await?;
    equal("what comes", event(&mut events).await?.1.name_any().as_str(), "b")
}

/// An object that begins to be selected appears, and one that ceases to be disappears as it last was.
pub(super) async fn selected_changes(client: &Client, namespace: &str) -> Result<()> {
    let api = shoal(client, "Share", namespace);
    made(client, "Share", namespace, "a", &share()).await?;
    let since = now(&api).await?;
    let by_field = WatchParams::default().fields("status.phase=Error");
    let mut by_field = watch(&api, &by_field, &since).await?;
    let mut by_label = watch(&api, &WatchParams::default().labels("a=1"), &since).await?;
    merged_status(&api, "a", &json!({"phase": "Pending"})).await?;
    let chosen = merged_status(&api, "a", &json!({"phase": "Error"})).await?;
    let left = merged_status(&api, "a", &json!({"phase": "Available"})).await?;
    let (kind, object) = event(&mut by_field).await?;
    equal(
        "it comes",
        (kind, json_of(&object)?),
        ("ADDED", json_of(&chosen)?),
    )?;
    let (kind, object) = event(&mut by_field).await?;
    equal("it goes", kind, "DELETED")?;
    equal("as it was", &object.data["status"]["phase"], &json!("Error"))?;
    equal("when", version(&object)?, version(&left)?)?;
    for _ in 0..3 {
        equal("one that stays", event(&mut by_label).await?.0, "MODIFIED")?;
    }
    merged(&api, "a", &json!({"metadata": {"labels": {"a": null}}})).await?;
    equal("one that goes", event(&mut by_label).await?.0, "DELETED")
}

pub(super) async fn forgotten_versions(client: &Client, namespace: &str) -> Result<()> {
    let api = shoal(client, "Share", namespace);
    let mut events = watch(&api, &WatchParams::default(), "1").await?;
    match next(&mut events).await? {
        Some(WatchEvent::Error(status)) => {
            equal("refusal", (status.code, status.reason.as_str()), (410, "Expired"))?;
        }
        other => bail!("{other:?}"),
    }
    ensure!(next(&mut events).await?.is_none(), "it goes on");
    Ok(())
}

pub(super) async fn time_outs(client: &Client, namespace: &str) -> Result<()> {
    let api = shoal(client, "Share", namespace);
    made(client, "Share", namespace, "a", &share()).await?;
    let mut events = watch(&api, &WatchParams::default().timeout(1), "").await?;
    event(&mut events).await?;
    ensure!(next(&mut events).await?.is_none(), "it goes on");
    Ok(())
}

pub(super) async fn metadata_of_changes(client: &Client, namespace: &str) -> Result<()> {
    let api = shoal(client, "Share", namespace);
    let since = now(&api).await?;
    let born = made(client, "Share", namespace, "a", &share()).await?;
    let mut events = api.watch_metadata(&WatchParams::default(), &since).await?.boxed();
    let (kind, object) = event(&mut events).await?;
    equal("birth", (kind, object.metadata), ("ADDED", born.metadata))
}

/// The last event of an object shows it as it last was, at a version of its own.
pub(super) async fn deletion_events(client: &Client, namespace: &str) -> Result<()> {
    let api = shoal(client, "ShareType", namespace);
    let name = format!("{namespace}-a");
    let selector = format!("metadata.name={name}");
    let since = now(&api).await?;
    let rest = json!({"spec": {}});
    let mut events = watch(&api, &WatchParams::default().fields(&selector), &since).await?;
    let first = made(client, "ShareType", "", &name, &rest).await?;
    api.delete(&name, &DeleteParams::default()).await?;
    let mut held = rest.clone();
    held["metadata"] = json!({"finalizers": ["example.org/held"]});
    made(client, "ShareType", "", &name, &held).await?;
    api.delete(&name, &DeleteParams::default()).await?;
    let last = api.get(&name).await?;
    merged(&api, &name, &json!({"metadata": {"finalizers": null}})).await?;
    event(&mut events).await?;
    let (kind, object) = event(&mut events).await?;
    equal("first end", (kind, object.uid()), ("DELETED", first.uid()))?;
    ensure!(object.metadata.deletion_timestamp.is_none(), "it was marked");
    ensure!(version(&object)? > version(&first)?, "the version does not grow");
    event(&mut events).await?;
    event(&mut events).await?;
    let (kind, object) = event(&mut events).await?;
    equal("second end", kind, "DELETED")?;
    equal("finalizers", object.finalizers(), last.finalizers())?;
    equal("status", &object.data["status"], &last.data["status"])?;
    ensure!(version(&object)? > version(&last)?, "the version does not grow");
    Ok(())
}
