//! Server-side apply: who owns which field, and what becomes of it.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, ResourceExt,
    api::{DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::{
    applied, applied_status, document, equal, forced, json_of, made_type, merged, merged_status, refused,
    types, version,
};

/// A condition of this type.
fn condition(type_: &str, status: &str) -> Value {
    json!({
        "type": type_, "status": status, "reason": "Tried", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
    })
}

/// The fields of one manager, as `managedFields` has them.
fn owned_by(object: &DynamicObject, manager: &str, operation: &str) -> Result<Option<Value>> {
    let all = json_of(object)?["metadata"]["managedFields"].take();
    let found = all.as_array().into_iter().flatten();
    let mut found = found.filter(|m| m["manager"] == manager && m["operation"] == operation);
    let fields = found.next().map(|m| m["fieldsV1"].clone());
    ensure!(found.next().is_none(), "{manager} has two entries");
    Ok(fields)
}

pub(super) async fn application_creates(client: &Client, namespace: &str) -> Result<()> {
    let name = format!("{namespace}-a");
    let rest = json!({
        "metadata": {"labels": {"a": "1"}}, "spec": {"shrink": true}, "status": {"phase": "Available"},
    });
    let with_uid = json!({"metadata": {"uid": "other"}, "spec": {}});
    refused(applied(client, "m", &name, &with_uid).await, 409, "Conflict")?;
    let made = applied(client, "m", &name, &rest).await?;
    equal("generation", made.metadata.generation, Some(1))?;
    equal("status", &made.data["status"], &json!({"observedGeneration": -1}))?;
    equal("labels", made.labels().len(), 1)?;
    let stored = applied(client, "m", &name, &rest).await?;
    let again = applied(client, "m", &name, &rest).await?;
    equal("applied again", version(&again)?, version(&stored)?)?;
    let fields = json!({"f:metadata": {"f:labels": {"f:a": {}}}, "f:spec": {"f:shrink": {}}});
    equal("what it owns", owned_by(&made, "m", "Apply")?, Some(fields))
}

pub(super) async fn application_withdraws(client: &Client, namespace: &str) -> Result<()> {
    let name = format!("{namespace}-a");
    let user = json!({"metadata": {"annotations": {"user": "1"}}, "spec": {}});
    made_type(client, &name, &user).await?;
    let two = json!({"metadata": {"annotations": {"x": "1", "y": "2"}, "labels": {"l": "1"}}});
    applied(client, "m", &name, &two).await?;
    let one = applied(
        client,
        "m",
        &name,
        &json!({"metadata": {"annotations": {"x": "3"}}}),
    )
    .await?;
    let names: Vec<_> = one.annotations().keys().map(String::as_str).collect();
    equal("annotations", names, vec!["user", "x"])?;
    equal("labels", one.metadata.labels, None)?;
    equal(
        "what changed",
        &one.metadata.annotations.unwrap_or_default()["x"],
        &"3".to_owned(),
    )?;
    let none = applied(client, "m", &name, &json!({})).await?;
    equal("what is left", none.annotations().len(), 1)?;
    equal("what it owns", owned_by(&none, "m", "Apply")?, None)?;
    let full = json!({"status": {"phase": "Available", "backendNames": ["a"], "observedGeneration": 1}});
    applied_status(client, "m", &name, &full).await?;
    let less = json!({"status": {"phase": "Available", "observedGeneration": 1}});
    let less = applied_status(client, "m", &name, &less).await?;
    equal(
        "status",
        &less.data["status"],
        &json!({"phase": "Available", "observedGeneration": 1}),
    )?;
    let null = applied_status(
        client,
        "m",
        &name,
        &json!({"status": {"observedGeneration": null}}),
    )
    .await?;
    equal(
        "a null",
        &null.data["status"],
        &json!({"observedGeneration": null}),
    )?;
    let wrong = applied_status(client, "m", &name, &json!({"status": {"phase": null}})).await;
    refused(wrong, 422, "Invalid")?;
    let bare = applied_status(client, "m", &name, &json!({})).await?;
    equal(
        "all of it",
        &bare.data["status"],
        &json!({"observedGeneration": -1}),
    )
}

pub(super) async fn shared_fields(client: &Client, namespace: &str) -> Result<()> {
    let name = format!("{namespace}-a");
    let both = json!({"metadata": {"labels": {"a": "1"}}, "spec": {"squash": "Root"}});
    applied(client, "one", &name, &both).await?;
    let more = json!({"metadata": {"labels": {"a": "1", "b": "2"}}});
    applied(client, "two", &name, &more).await?;
    let without = applied(client, "one", &name, &json!({"spec": {"squash": "Root"}})).await?;
    equal("one let go", without.labels().len(), 2)?;
    let without = applied(client, "two", &name, &json!({})).await?;
    equal("both let go", without.labels().len(), 0)?;
    refused(applied(client, "one", &name, &json!({})).await, 422, "Invalid")?;
    let reset = applied(client, "one", &name, &json!({"spec": {}})).await?;
    equal("a default again", &reset.data["spec"]["squash"], &json!("None"))
}

pub(super) async fn conflicts(client: &Client, namespace: &str) -> Result<()> {
    let name = format!("{namespace}-a");
    let with = |squash: &str| json!({"spec": {"squash": squash}});
    applied(client, "one", &name, &with("Root")).await?;
    refused(applied(client, "two", &name, &with("All")).await, 409, "Conflict")?;
    applied(client, "two", &name, &with("Root")).await?;
    refused(applied(client, "two", &name, &with("All")).await, 409, "Conflict")?;
    let taken = forced(client, "two", &name, &with("All")).await?;
    equal("by force", &taken.data["spec"]["squash"], &json!("All"))?;
    equal("who lost it", owned_by(&taken, "one", "Apply")?, None)?;
    let left = applied(client, "one", &name, &json!({})).await?;
    equal("it stays", &left.data["spec"]["squash"], &json!("All"))?;
    let patched = merged(&types(client), &name, &with("None")).await?;
    equal("a patch takes it", owned_by(&patched, "two", "Apply")?, None)?;
    refused(applied(client, "two", &name, &with("All")).await, 409, "Conflict")
}

pub(super) async fn maps_by_key(client: &Client, namespace: &str) -> Result<()> {
    let name = format!("{namespace}-a");
    made_type(client, &name, &json!({})).await?;
    let status =
        |conditions: &[Value]| json!({"status": {"observedGeneration": 1, "conditions": conditions}});
    let kinds = |object: &DynamicObject| -> Vec<String> {
        let list = object.data["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        list.iter()
            .map(|c| format!("{}={}", c["type"], c["status"]).replace('"', ""))
            .collect()
    };
    let one = status(&[
        condition("A", "True"),
        condition("B", "True"),
        condition("C", "True"),
    ]);
    applied_status(client, "one", &name, &one).await?;
    let two = status(&[condition("D", "True"), condition("B", "True")]);
    let all = applied_status(client, "two", &name, &two).await?;
    equal(
        "both",
        kinds(&all),
        ["A=True", "D=True", "B=True", "C=True"].map(str::to_owned).into(),
    )?;
    let one = status(&[condition("C", "False"), condition("A", "True")]);
    let less = applied_status(client, "one", &name, &one).await?;
    equal(
        "one without B",
        kinds(&less),
        ["D=True", "B=True", "C=False", "A=True"]
            .map(str::to_owned)
            .into(),
    )?;
    let none = applied_status(client, "two", &name, &json!({})).await?;
    equal(
        "two without any",
        kinds(&none),
        ["C=False", "A=True"].map(str::to_owned).into(),
    )?;
    let twice = status(&[condition("A", "True"), condition("A", "False")]);
    ensure!(
        applied_status(client, "one", &name, &twice).await.is_err(),
        "one key twice"
    );
    let emptied = applied_status(client, "one", &name, &status(&[])).await?;
    equal("emptied", emptied.data["status"].get("conditions"), None)?;
    let empty = applied_status(client, "one", &name, &status(&[])).await?;
    equal("empty", &empty.data["status"]["conditions"], &json!([]))?;
    let bare = applied_status(
        client,
        "one",
        &name,
        &json!({"status": {"observedGeneration": 1}}),
    )
    .await?;
    equal("none", kinds(&bare), Vec::new())
}

pub(super) async fn sets_and_atoms(client: &Client, namespace: &str) -> Result<()> {
    let name = format!("{namespace}-a");
    applied(client, "one", &name, &json!({"spec": {"protocols": ["NFS"]}})).await?;
    let both = applied(client, "two", &name, &json!({"spec": {"protocols": ["CephFS"]}})).await?;
    equal(
        "a set",
        &both.data["spec"]["protocols"],
        &json!(["NFS", "CephFS"]),
    )?;
    let less = applied(client, "one", &name, &json!({"spec": {}})).await?;
    equal("less of it", &less.data["spec"]["protocols"], &json!(["CephFS"]))?;
    let held = json!({"metadata": {"finalizers": ["example.org/a"]}});
    applied(client, "one", &name, &held).await?;
    let both = json!({"metadata": {"finalizers": ["example.org/a", "example.org/b"]}});
    merged(&types(client), &name, &both).await?;
    let less = applied(client, "one", &name, &json!({})).await?;
    equal("finalizers", less.finalizers(), &["example.org/b".to_owned()])?;
    merged(&types(client), &name, &json!({"metadata": {"finalizers": null}})).await?;
    applied_status(
        client,
        "one",
        &name,
        &json!({"status": {"backendNames": ["a", "b"]}}),
    )
    .await?;
    let whole = applied_status(client, "two", &name, &json!({"status": {"backendNames": ["c"]}})).await?;
    equal("one value", &whole.data["status"]["backendNames"], &json!(["c"]))
}

pub(super) async fn undeclared_fields(client: &Client, namespace: &str) -> Result<()> {
    let name = format!("{namespace}-a");
    refused(
        applied(client, "m", &name, &json!({"spec": {"bogus": 1}})).await,
        500,
        "",
    )?;
    made_type(client, &name, &json!({})).await?;
    refused(
        applied_status(client, "m", &name, &json!({"status": {"bogus": 1}})).await,
        500,
        "",
    )?;
    let fields = json!({"metadata": {"managedFields": [{"manager": "m"}]}});
    refused(applied(client, "m", &name, &fields).await, 400, "BadRequest")
}

pub(super) async fn managers_by_subresource(client: &Client, namespace: &str) -> Result<()> {
    let name = format!("{namespace}-a");
    made_type(client, &name, &json!({})).await?;
    let all = json!({"spec": {"shrink": true}, "status": {"phase": "Available", "observedGeneration": 1}});
    let reported = applied_status(client, "m", &name, &all).await?;
    equal(
        "spec by the status",
        &reported.data["spec"]["shrink"],
        &json!(false),
    )?;
    let fields = json!({"f:status": {"f:observedGeneration": {}, "f:phase": {}}});
    equal("fields", owned_by(&reported, "m", "Apply")?, Some(fields))?;
    let spec = forced(client, "m", &name, &json!({"spec": {"shrink": true}})).await?;
    equal(
        "status by the object",
        &spec.data["status"]["phase"],
        &json!("Available"),
    )?;
    let less = applied_status(client, "m", &name, &json!({"status": {"observedGeneration": 1}})).await?;
    equal("phase", less.data["status"].get("phase"), None)?;
    equal("spec", &less.data["spec"]["shrink"], &json!(true))
}

/// A version guards every application; a uid only that of an object, not that of its status.
pub(super) async fn versions_of_applications(client: &Client, namespace: &str) -> Result<()> {
    let name = format!("{namespace}-a");
    let first = made_type(client, &name, &json!({})).await?;
    let second = merged(
        &types(client),
        &name,
        &json!({"metadata": {"labels": {"a": "1"}}}),
    )
    .await?;
    let on = |object: &DynamicObject, phase: &str| {
        json!({
            "metadata": {"uid": object.uid(), "resourceVersion": object.resource_version()},
            "status": {"phase": phase},
        })
    };
    refused(
        applied_status(client, "m", &name, &on(&first, "Available")).await,
        409,
        "Conflict",
    )?;
    let third = applied_status(client, "m", &name, &on(&second, "Available")).await?;
    refused(
        applied_status(client, "m", &name, &on(&second, "Available")).await,
        409,
        "Conflict",
    )?;
    let mut other = on(&third, "Unavailable");
    other["metadata"]["uid"] = "other".into();
    let reported = applied_status(client, "m", &name, &other).await?;
    equal("uid", reported.uid(), first.uid())?;
    let mut annotated = json!({"metadata": {
        "uid": first.uid(), "resourceVersion": first.resource_version(), "annotations": {"a": "1"},
    }});
    refused(forced(client, "m", &name, &annotated).await, 409, "Conflict")?;
    annotated["metadata"]["resourceVersion"] = json!(reported.resource_version());
    annotated["metadata"]["uid"] = "other".into();
    refused(forced(client, "m", &name, &annotated).await, 422, "Invalid")?;
    annotated["metadata"]["uid"] = json!(first.uid());
    forced(client, "m", &name, &annotated).await?;
    Ok(())
}

pub(super) async fn secrets_of_others(client: &Client, namespace: &str) -> Result<()> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let params = PatchParams::apply("m").force();
    let wanted = |name: &str, type_: &str, data: &Value| -> Result<Patch<Secret>> {
        Ok(Patch::Apply(serde_json::from_value(
            json!({"metadata": {"name": name}, "type": type_, "data": data}),
        )?))
    };
    let ours = wanted("ours", "example.org/key", &json!({"a": "MQ==", "b": "Mg=="}))?;
    let first = api.patch("ours", &params, &ours).await?;
    let again = api.patch("ours", &params, &ours).await?;
    equal(
        "applied again",
        again.resource_version(),
        first.resource_version(),
    )?;
    let less = wanted("ours", "example.org/key", &json!({"a": "MQ=="}))?;
    let less = api.patch("ours", &params, &less).await?;
    equal("data", less.data.map(|data| data.len()), Some(1))?;
    let theirs: Secret =
        serde_json::from_value(json!({"metadata": {"name": "theirs"}, "data": {"x": "MQ=="}}))?;
    api.create(&PostParams::default(), &theirs).await?;
    let over = wanted("theirs", "example.org/key", &json!({"a": "MQ=="}))?;
    refused(api.patch("theirs", &params, &over).await, 422, "Invalid")
}

pub(super) async fn ownership_of_updates(client: &Client, namespace: &str) -> Result<()> {
    let name = format!("{namespace}-a");
    let object: DynamicObject = serde_json::from_value(document(
        "ShareType",
        &name,
        &json!({"metadata": {"labels": {"a": "1"}}, "spec": {"shrink": true}}),
    ))?;
    let params = PostParams {
        field_manager: Some("user".into()),
        ..PostParams::default()
    };
    let made = types(client).create(&params, &object).await?;
    let fields = json!({
        "f:metadata": {"f:labels": {".": {}, "f:a": {}}},
        "f:spec": {
            ".": {}, "f:root": {".": {}, "f:gid": {}, "f:mode": {}, "f:uid": {}}, "f:shrink": {}, "f:squash": {},
            "f:snapshots": {}, "f:createFromSnapshot": {}, "f:deletion": {}, "f:deletionPolicy": {},
        },
    });
    equal("of a creator", owned_by(&made, "user", "Update")?, Some(fields))?;
    let params = PatchParams {
        field_manager: Some("other".into()),
        ..PatchParams::default()
    };
    let patch = json!({"metadata": {"labels": {"a": "2"}, "finalizers": ["example.org/held"]}});
    let patched = types(client).patch(&name, &params, &Patch::Merge(&patch)).await?;
    let fields = json!({
        "f:metadata": {
            "f:finalizers": {".": {}, "v:\"example.org/held\"": {}},
            "f:labels": {"f:a": {}},
        },
    });
    equal(
        "of a patcher",
        owned_by(&patched, "other", "Update")?,
        Some(fields),
    )?;
    merged_status(&types(client), &name, &json!({"phase": "Available"})).await?;
    let rest = json!({"metadata": {"labels": {"a": null}, "finalizers": null}});
    let freed = types(client).patch(&name, &params, &Patch::Merge(&rest)).await?;
    equal("of what is gone", owned_by(&freed, "other", "Update")?, None)
}
