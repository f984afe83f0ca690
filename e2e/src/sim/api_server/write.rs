//! Create, replace, patch, apply and delete.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use shoal_crds::names::FINALIZER;

use super::{
    managers::{self, Identity, Manager},
    refusal::Refusal,
    request::Request,
    resource::{Resource, check, prune_and_default},
    store::{Key, Object, Store},
};

/// An answer's status code and body.
pub(super) type Answer = Result<(u16, String), Refusal>;

pub(super) fn create(store: &mut Store, request: &Request) -> Answer {
    let mut value = request.body()?;
    if !text(&value["metadata"], "resourceVersion").is_empty() {
        let message = "resourceVersion should not be set on objects to be created";
        return Err(Refusal::new(500, "", message));
    }
    let metadata = fields(&mut value["metadata"]);
    let prefix = metadata.get("generateName").and_then(Value::as_str);
    if let (None | Some(""), Some(prefix)) = (metadata.get("name").and_then(Value::as_str), prefix) {
        let name = format!("{prefix}{:05x}", store.random() & 0xf_ffff);
        metadata.insert("name".into(), name.into());
    }
    let (value, managers) = newborn(store, request, value)?;
    let made = insert(store, request, value, managers)?;
    Ok((201, made.json.clone()))
}

/// A new object as it will be stored, owned by whoever asked.
fn newborn(store: &Store, request: &Request, mut value: Value) -> Result<(Value, Vec<Manager>), Refusal> {
    let resource = request.resource;
    begin(store, request, &mut value)?;
    let nothing = json!({});
    let managers = managers::after_update(
        resource,
        &[],
        &nothing,
        &value,
        &request.manager(false),
        &store.now(),
    );
    complete(resource, &mut value);
    Ok((value, managers))
}

/// Makes of what somebody sent an object that can be born.
fn begin(store: &Store, request: &Request, value: &mut Value) -> Result<(), Refusal> {
    let resource = request.resource;
    let metadata = fields(&mut value["metadata"]);
    for servers in SERVERS {
        metadata.remove(servers);
    }
    let name = metadata.get("name").and_then(Value::as_str).unwrap_or_default();
    if name.is_empty() {
        let why = "metadata.name: Required value: name or generateName is required";
        return Err(Refusal::invalid(resource, "", why));
    }
    if resource.namespaced {
        metadata.insert("namespace".into(), request.namespace.clone().into());
    }
    tidy(metadata);
    if resource.custom {
        metadata.insert("generation".into(), 1.into());
    }
    if resource.status_subresource {
        fields(value).remove("status");
    }
    prune(resource, value)?;
    if store.born_held {
        hold(resource, value);
    }
    Ok(())
}

/// What the server adds beside defaults.
pub(super) fn complete(resource: &Resource, value: &mut Value) {
    match resource.plural.as_str() {
        "namespaces" => {
            value["metadata"]["labels"]["kubernetes.io/metadata.name"] = value["metadata"]["name"].clone();
            value["spec"] = json!({"finalizers": ["kubernetes"]});
            value["status"] = json!({"phase": "Active"});
        }
        "secrets" if value["type"].is_null() => value["type"] = "Opaque".into(),
        _ => {}
    }
}

fn insert(
    store: &mut Store,
    request: &Request,
    value: Value,
    managers: Vec<Manager>,
) -> Result<Arc<Object>, Refusal> {
    let resource = request.resource;
    let key = (
        request.namespace.clone(),
        text(&value["metadata"], "name").to_owned(),
    );
    if resource.namespaced {
        let namespaces = super::resource::find("", "namespaces");
        if let Some(namespaces) = namespaces {
            store.get(namespaces, &(String::new(), request.namespace.clone()))?;
        }
    }
    if store.objects(resource).contains_key(&key) {
        return Err(Refusal::already_exists(resource, &key.1));
    }
    if request.dry_run {
        return Ok(Object::unstored(value, managers));
    }
    Ok(store.insert(resource, key, value, managers))
}

pub(super) fn replace(store: &mut Store, request: &Request) -> Answer {
    let resource = request.resource;
    let value = request.body()?;
    let name = text(&value["metadata"], "name");
    if name != request.name {
        let message = format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            request.name
        );
        return Err(Refusal::bad_request(message));
    }
    let old = store.get(resource, &request.key())?;
    let version = text(&value["metadata"], "resourceVersion");
    if version.is_empty() && resource.custom {
        let why = "metadata.resourceVersion: Invalid value: 0: must be specified for an update";
        return Err(Refusal::invalid(resource, name, why));
    }
    let uid = text(&value["metadata"], "uid");
    if !uid.is_empty() && uid != old.meta("uid") {
        let why = format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            old.meta("uid")
        );
        return Err(Refusal::conflict(resource, name, &why));
    }
    write(store, request, &old, value)
}

pub(super) fn merge_patch(store: &mut Store, request: &Request) -> Answer {
    let old = store.get(request.resource, &request.key())?;
    let mut value = managers::shown(&old.value, &old.managers);
    merge(&mut value, &request.body()?);
    write(store, request, &old, value)
}

/// RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    let target = fields(target);
    for (name, value) in patch {
        if value.is_null() {
            target.remove(name);
        } else {
            merge(target.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

pub(super) fn apply(store: &mut Store, request: &Request) -> Answer {
    let resource = request.resource;
    let config = request.body()?;
    if request.field_manager.is_none() {
        return Err(Refusal::bad_request(
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        ));
    }
    if config["metadata"]["managedFields"]
        .as_array()
        .is_some_and(|m| !m.is_empty())
    {
        return Err(Refusal::bad_request("metadata.managedFields must be nil"));
    }
    let id = request.manager(true);
    let now = store.now();
    let old = match store.get(resource, &request.key()) {
        Ok(old) => old,
        Err(missing) if request.subresource.is_some() => return Err(missing),
        Err(_) => return apply_new(store, request, config, &id),
    };
    check_version(resource, &old, &config)?;
    let (mut value, managers) = managers::apply(
        resource,
        &old.managers,
        &old.value,
        &config,
        &id,
        request.force,
        &now,
    )?;
    if let Some(uid) = config["metadata"]["uid"].as_str() {
        value["metadata"]["uid"] = uid.into();
    }
    finish(store, request, &old, value, Some(managers))
}

fn apply_new(store: &mut Store, request: &Request, config: Value, id: &Identity) -> Answer {
    let resource = request.resource;
    if let Some(uid) = config["metadata"]["uid"].as_str() {
        let why = format!(
            "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
        );
        return Err(Refusal::conflict(resource, &request.name, &why));
    }
    let (_, managers) = managers::apply(resource, &[], &json!({}), &config, id, true, &store.now())?;
    let mut value = config;
    value["metadata"]["name"] = request.name.clone().into();
    begin(store, request, &mut value)?;
    complete(resource, &mut value);
    let made = insert(store, request, value, managers)?;
    Ok((201, made.json.clone()))
}

fn check_version(resource: &Resource, old: &Object, sent: &Value) -> Result<(), Refusal> {
    let version = text(&sent["metadata"], "resourceVersion");
    if version.is_empty() || version == old.meta("resourceVersion") {
        return Ok(());
    }
    Err(Refusal::outdated(resource, old.meta("name")))
}

/// Stores what somebody who does not apply wants.
fn write(store: &mut Store, request: &Request, old: &Arc<Object>, value: Value) -> Answer {
    check_version(request.resource, old, &value)?;
    finish(store, request, old, value, None)
}

/// What the server alone writes.
const SERVERS: [&str; 8] = [
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "managedFields",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// Stores a version of an object, with `managers` if it was applied.
fn finish(
    store: &mut Store,
    request: &Request,
    old: &Arc<Object>,
    mut value: Value,
    managers: Option<Vec<Manager>>,
) -> Answer {
    let resource = request.resource;
    if request.subresource.is_some() {
        let status = value["status"].take();
        value = old.value.clone();
        put(&mut value, "status", status);
    } else {
        let uid = text(&value["metadata"], "uid");
        if !uid.is_empty() && uid != old.meta("uid") {
            let why = format!("metadata.uid: Invalid value: \"{uid}\": field is immutable");
            return Err(Refusal::invalid(resource, old.meta("name"), &why));
        }
        restore(&mut value, old);
        if resource.status_subresource {
            put(&mut value, "status", old.value["status"].clone());
        }
    }
    prune(resource, &mut value)?;
    complete(resource, &mut value);
    check_change(resource, old, &value)?;
    let mut managers = match managers {
        Some(managers) => managers,
        None => managers::after_update(
            resource,
            &old.managers,
            &old.value,
            &value,
            &request.manager(false),
            &store.now(),
        ),
    };
    if store.born_held && request.subresource.is_none() && !old.is_deleting() {
        let before = value.clone();
        hold(resource, &mut value);
        let id = request.manager(false);
        managers = managers::after_update(resource, &managers, &before, &value, &id, &store.now());
    }
    if value == old.value && managers::same(&managers, &old.managers) && !old.lacks_status {
        return Ok((200, old.json.clone()));
    }
    if resource.custom && spec_differs(&value, &old.value) {
        let generation = old.value["metadata"]["generation"].as_u64().unwrap_or_default() + 1;
        value["metadata"]["generation"] = generation.into();
    }
    let let_go = old.is_deleting() && finalizers(&value).is_empty();
    if request.dry_run || let_go {
        if let_go && !request.dry_run {
            store.remove(resource, &request.key());
        }
        return Ok((200, Object::unstored(value, managers).json.clone()));
    }
    let stored = store.update(resource, request.key(), value, managers);
    Ok((200, stored.json.clone()))
}

fn check_change(resource: &Resource, old: &Object, new: &Value) -> Result<(), Refusal> {
    let name = old.meta("name");
    let before = finalizers(&old.value);
    let added: Vec<_> = finalizers(new)
        .into_iter()
        .filter(|finalizer| !before.contains(finalizer))
        .collect();
    if old.is_deleting() && !added.is_empty() {
        let why = format!(
            "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found {added:?}"
        );
        return Err(Refusal::invalid(resource, name, &why));
    }
    if resource.plural == "secrets" && old.value["type"] != new["type"] {
        return Err(Refusal::invalid(
            resource,
            name,
            "type: Invalid value: field is immutable",
        ));
    }
    Ok(())
}

pub(super) fn delete(store: &mut Store, request: &Request) -> Answer {
    let resource = request.resource;
    if resource.plural == "namespaces" {
        return Err(Refusal::new(405, "MethodNotAllowed", "namespaces stay here"));
    }
    let old = store.get(resource, &request.key())?;
    let options = request.body()?;
    for (precondition, field) in [("uid", "uid"), ("resourceVersion", "resourceVersion")] {
        let wanted = text(&options["preconditions"], precondition);
        if !wanted.is_empty() && wanted != old.meta(field) {
            let why = format!(
                "the {precondition} in the precondition ({wanted}) does not match the one in record ({})",
                old.meta(field)
            );
            return Err(Refusal::conflict(resource, &request.name, &why));
        }
    }
    if !request.dry_run {
        delete_stored(store, resource, &request.key());
    }
    Ok((200, match store.objects(resource).get(&request.key()) {
        Some(deleting) => deleting.json.clone(),
        None => json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": {
                "name": request.name, "group": resource.group, "kind": resource.plural, "uid": old.meta("uid"),
            },
        })
        .to_string(),
    }))
}

/// Deletes an object, or marks it as being deleted if finalizers hold it.
pub(super) fn delete_stored(store: &mut Store, resource: &'static Resource, key: &Key) {
    let Some(old) = store.objects(resource).get(key).cloned() else {
        return;
    };
    if finalizers(&old.value).is_empty() {
        store.remove(resource, key);
        return;
    }
    if old.is_deleting() {
        return;
    }
    let mut value = old.value.clone();
    value["metadata"]["deletionTimestamp"] = store.now().into();
    value["metadata"]["deletionGracePeriodSeconds"] = 0.into();
    if let Some(generation) = value["metadata"]["generation"].as_u64() {
        value["metadata"]["generation"] = (generation + 1).into();
    }
    store.update(resource, key.clone(), value, old.managers.clone());
}

/// The policy that puts Shoal's finalizer on.
fn hold(resource: &Resource, value: &mut Value) {
    if !["shares", "shareaccessrules"].contains(&resource.plural.as_str()) {
        return;
    }
    let mut all = finalizers(value);
    if !all.iter().any(|finalizer| finalizer == FINALIZER) {
        all.push(FINALIZER.into());
        value["metadata"]["finalizers"] = all.into();
    }
}

fn finalizers(value: &Value) -> Vec<String> {
    let listed = value["metadata"]["finalizers"].as_array();
    listed.map_or_else(Vec::new, |all| {
        all.iter().filter_map(|f| Some(f.as_str()?.to_owned())).collect()
    })
}

fn spec_differs(a: &Value, b: &Value) -> bool {
    let spec = |value: &Value| {
        let mut value = value.clone();
        let all = fields(&mut value);
        all.remove("metadata");
        all.remove("status");
        value
    };
    spec(a) != spec(b)
}

/// Puts back what only the server writes.
fn restore(value: &mut Value, old: &Object) {
    for name in ["apiVersion", "kind"] {
        value[name] = old.value[name].clone();
    }
    let metadata = fields(&mut value["metadata"]);
    for name in SERVERS.into_iter().chain(["name", "namespace", "generateName"]) {
        let before = &old.value["metadata"][name];
        if before.is_null() {
            metadata.remove(name);
        } else {
            metadata.insert(name.into(), before.clone());
        }
    }
    tidy(metadata);
}

/// Empty is as good as absent.
fn tidy(metadata: &mut Map<String, Value>) {
    metadata.retain(|_, value| match value {
        Value::Null => false,
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::String(text) => !text.is_empty(),
        _ => true,
    });
}

/// Prunes, defaults and checks all but the metadata.
fn prune(resource: &Resource, value: &mut Value) -> Result<(), Refusal> {
    if resource.custom {
        let metadata = value["metadata"].take();
        let (api_version, kind) = (value["apiVersion"].take(), value["kind"].take());
        prune_and_default(value, &resource.schema);
        let checked = check(value, &resource.schema, "");
        value["metadata"] = metadata;
        value["apiVersion"] = api_version;
        value["kind"] = kind;
        checked.map_err(|why| Refusal::invalid(resource, text(&value["metadata"], "name"), &why))?;
    } else if resource.plural == "secrets" {
        let secret = fields(value);
        secret.retain(|_, value| !value.is_null());
        if let Some(Value::Object(texts)) = secret.remove("stringData") {
            let data = fields(secret.entry("data").or_insert_with(|| json!({})));
            for (name, text) in texts {
                let bytes = text.as_str().unwrap_or_default().as_bytes().to_vec();
                data.insert(name, json!(k8s_openapi::ByteString(bytes)));
            }
        }
    }
    Ok(())
}

fn put(value: &mut Value, name: &str, field: Value) {
    if field.is_null() {
        fields(value).remove(name);
    } else {
        value[name] = field;
    }
}

/// The fields of an object; what is none becomes an empty one.
fn fields(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = json!({});
    }
    match value {
        Value::Object(fields) => fields,
        _ => unreachable!("it has just been made an object"),
    }
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}
