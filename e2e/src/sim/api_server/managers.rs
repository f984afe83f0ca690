//! Field managers: who owns which fields of an object.

use serde_json::{Value, json};

use super::{
    fields::{Fields, compare, merge, remove},
    refusal::Refusal,
    resource::Resource,
};

/// One entry of `managedFields`.
#[derive(Clone, Debug)]
pub(super) struct Manager {
    pub id: Identity,
    time: String,
    fields: Fields,
}

/// What tells managers apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub name: String,
    pub applies: bool,
    pub subresource: Option<String>,
}

/// Whether two lists say the same, whenever it was written.
pub(super) fn same(a: &[Manager], b: &[Manager]) -> bool {
    a.len() == b.len()
        && a.iter()
            .all(|m| b.iter().any(|n| n.id == m.id && n.fields == m.fields))
}

/// The object with its `managedFields`.
pub(super) fn shown(value: &Value, managers: &[Manager]) -> Value {
    let mut shown = value.clone();
    if !managers.is_empty() {
        let entry = |manager: &Manager| {
            let mut entry = json!({
                "manager": manager.id.name,
                "operation": if manager.id.applies { "Apply" } else { "Update" },
                "apiVersion": value["apiVersion"],
                "time": manager.time,
                "fieldsType": "FieldsV1",
                "fieldsV1": manager.fields.to_json(),
            });
            if let Some(subresource) = &manager.id.subresource {
                entry["subresource"] = subresource.as_str().into();
            }
            entry
        };
        shown["metadata"]["managedFields"] = managers.iter().map(entry).collect();
    }
    shown
}

/// What people can own of a value: neither what identifies the object nor what the server writes.
fn ownable(value: &Value) -> Value {
    const SERVERS: [&str; 9] = [
        "name",
        "namespace",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "uid",
        "generation",
        "managedFields",
        "resourceVersion",
    ];
    let mut value = value.clone();
    if let Some(fields) = value.as_object_mut() {
        fields.remove("apiVersion");
        fields.remove("kind");
    }
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|name, _| !SERVERS.contains(&name.as_str()));
    }
    value
}

/// `metadata` always leads to something, and belongs to nobody.
fn owned(mut fields: Fields) -> Fields {
    fields.release_metadata();
    fields
}

/// Of these fields, those that a write to the object, or to its status, can reach.
fn written(resource: &Resource, id: &Identity, fields: Fields) -> Fields {
    let status = |field: &str| resource.status_subresource && field == "status";
    fields.only(|field| status(field) == id.subresource.is_some())
}

/// Who owns what after somebody wrote `new` over `old` without applying.
pub(super) fn after_update(
    resource: &Resource,
    managers: &[Manager],
    old: &Value,
    new: &Value,
    id: &Identity,
    time: &str,
) -> Vec<Manager> {
    let changes = compare(Some(&ownable(old)), Some(&ownable(new)), &resource.schema);
    let (set, removed) = (owned(changes.set), owned(changes.removed));
    let set = written(resource, id, set);
    let mut after = managers.to_vec();
    for manager in &mut after {
        if manager.id != *id {
            manager.fields = manager.fields.without(&set);
        }
        manager.fields = manager.fields.without(&removed);
    }
    if !set.is_empty() {
        own(&mut after, id, time, |fields| fields.union(&set));
    }
    after.retain(|manager| !manager.fields.is_empty());
    after
}

fn own(managers: &mut Vec<Manager>, id: &Identity, time: &str, change: impl FnOnce(&Fields) -> Fields) {
    let found = managers.iter().position(|manager| manager.id == *id);
    let at = found.unwrap_or_else(|| {
        managers.push(Manager {
            id: id.clone(),
            time: time.into(),
            fields: Fields::default(),
        });
        managers.len() - 1
    });
    let fields = change(&managers[at].fields);
    if fields != managers[at].fields {
        managers[at].fields = fields;
        managers[at].time = time.into();
    }
}

/// Server-side apply of `config` on `live`: the object that comes of it, and who owns what then.
pub(super) fn apply(
    resource: &Resource,
    managers: &[Manager],
    live: &Value,
    config: &Value,
    id: &Identity,
    force: bool,
    time: &str,
) -> Result<(Value, Vec<Manager>), Refusal> {
    let schema = &resource.schema;
    let untypable = |why: String| {
        let message = format!("failed to create typed patch object: {why}");
        Refusal::new(500, "", message)
    };
    let config = ownable(config);
    let set = Fields::of(&config, schema).map_err(untypable)?;
    let set = written(resource, id, owned(set));
    let mut new = merge(live, &config, schema);
    let mut after = managers.to_vec();
    let last = after
        .iter()
        .find(|manager| manager.id == *id)
        .map(|manager| manager.fields.clone())
        .unwrap_or_default();
    own(&mut after, id, time, |_| set);
    let all = after
        .iter()
        .fold(Fields::default(), |all, manager| all.union(&manager.fields));
    let given_up = last.with_parents(schema).without(&all.with_parents(schema));
    remove(&mut new, &owned(given_up), schema);
    let changes = compare(Some(&ownable(live)), Some(&ownable(&new)), schema);
    let mut conflicts = Vec::new();
    for manager in after.iter_mut().filter(|manager| manager.id != *id) {
        let taken = manager.fields.common(&changes.set);
        for path in taken.paths() {
            conflicts.push(format!("conflict with \"{}\": {path}", manager.id.name));
        }
        manager.fields = manager.fields.without(&taken).without(&changes.removed);
    }
    if !conflicts.is_empty() && !force {
        let message = format!(
            "Apply failed with {} conflicts: {}",
            conflicts.len(),
            conflicts.join(", ")
        );
        return Err(Refusal::new(409, "Conflict", message));
    }
    after.retain(|manager| !manager.fields.is_empty());
    Ok((new, after))
}
