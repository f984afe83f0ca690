//! The resources that are served, and what a schema says about a value.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

/// A resource, and the schema of its objects.
#[derive(Debug)]
pub(super) struct Resource {
    pub group: String,
    pub version: String,
    pub plural: String,
    pub kind: String,
    pub namespaced: bool,
    /// Made by a CRD: objects have a generation, are pruned and defaulted.
    pub custom: bool,
    pub status_subresource: bool,
    /// Fields to select by, beside name and namespace.
    pub selectable: Vec<String>,
    pub schema: Value,
}

impl Resource {
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// As messages name it.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.plural.clone()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }
}

const RBAC: &str = "rbac.authorization.k8s.io";

/// Everything that is served.
pub(super) static RESOURCES: LazyLock<Vec<Resource>> = LazyLock::new(|| {
    let mut resources = vec![
        built_in("", "v1", "namespaces", "Namespace", false, &json!({})),
        built_in("", "v1", "secrets", "Secret", true, &secret()),
        built_in(
            "coordination.k8s.io",
            "v1",
            "leases",
            "Lease",
            true,
            &json!({"spec": lease_spec()}),
        ),
        built_in("events.k8s.io", "v1", "events", "Event", true, &json!({})),
        built_in(
            RBAC,
            "v1",
            "roles",
            "Role",
            true,
            &json!({"rules": {"type": "array"}}),
        ),
        built_in(
            RBAC,
            "v1",
            "rolebindings",
            "RoleBinding",
            true,
            &json!({
                "roleRef": {"type": "object", "x-kubernetes-map-type": "atomic"},
                "subjects": {"type": "array"},
            }),
        ),
    ];
    resources.extend(
        shoal_crds::custom_resource_definitions()
            .iter()
            .filter_map(|crd| custom(&serde_json::to_value(crd).ok()?)),
    );
    resources
});

fn text() -> Value {
    json!({"type": "string"})
}

fn map() -> Value {
    json!({"type": "object", "additionalProperties": text()})
}

fn secret() -> Value {
    json!({"data": map(), "stringData": map(), "type": text(), "immutable": {"type": "boolean"}})
}

fn lease_spec() -> Value {
    let names = [
        "acquireTime",
        "holderIdentity",
        "leaseDurationSeconds",
        "leaseTransitions",
        "renewTime",
    ];
    let properties: Map<_, _> = names.map(|name| (name.to_owned(), text())).into_iter().collect();
    json!({"type": "object", "properties": properties})
}

fn metadata() -> Value {
    let owner = json!({
        "type": "object",
        "x-kubernetes-map-type": "atomic",
        "properties": {"apiVersion": text(), "kind": text(), "name": text(), "uid": text(),
            "controller": {"type": "boolean"}, "blockOwnerDeletion": {"type": "boolean"}},
    });
    json!({"type": "object", "properties": {
        "annotations": map(),
        "labels": map(),
        "finalizers": {"type": "array", "x-kubernetes-list-type": "set", "items": text()},
        "ownerReferences": {
            "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["uid"], "items": owner,
        },
    }})
}

fn built_in(
    group: &str,
    version: &str,
    plural: &str,
    kind: &str,
    namespaced: bool,
    properties: &Value,
) -> Resource {
    let mut schema = json!({"type": "object", "properties": properties});
    schema["properties"]["metadata"] = metadata();
    Resource {
        group: group.into(),
        version: version.into(),
        plural: plural.into(),
        kind: kind.into(),
        namespaced,
        custom: false,
        status_subresource: false,
        selectable: Vec::new(),
        schema,
    }
}

fn custom(crd: &Value) -> Option<Resource> {
    let (spec, version) = (&crd["spec"], &crd["spec"]["versions"][0]);
    let mut schema = version["schema"]["openAPIV3Schema"].clone();
    schema["properties"]["metadata"] = metadata();
    let selectable = version["selectableFields"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    Some(Resource {
        group: spec["group"].as_str()?.into(),
        version: version["name"].as_str()?.into(),
        plural: spec["names"]["plural"].as_str()?.into(),
        kind: spec["names"]["kind"].as_str()?.into(),
        namespaced: spec["scope"] == "Namespaced",
        custom: true,
        status_subresource: !version["subresources"]["status"].is_null(),
        selectable: selectable
            .iter()
            .filter_map(|field| Some(field["jsonPath"].as_str()?.trim_start_matches('.').to_owned()))
            .collect(),
        schema,
    })
}

/// What a schema says about a value.
#[derive(Clone, Copy)]
pub(super) enum Shape<'a> {
    /// One value, however large.
    Leaf,
    /// Declared fields.
    Struct(&'a Map<String, Value>),
    /// Any keys, with values of this schema.
    Map(&'a Value),
    /// Items of this schema, known by the values of these keys.
    List(&'a Value, &'a [Value]),
    /// Items that are their own key.
    Set,
}

/// The shape that a schema asks for; with none, maps have fields and all else is a leaf.
pub(super) fn shape(schema: &Value) -> Shape<'_> {
    let is = |key: &str, value: &str| schema[key] == value;
    if is("type", "array") {
        return match schema["x-kubernetes-list-map-keys"].as_array() {
            Some(keys) if is("x-kubernetes-list-type", "map") => Shape::List(&schema["items"], keys),
            _ if is("x-kubernetes-list-type", "set") => Shape::Set,
            _ => Shape::Leaf,
        };
    }
    if is("x-kubernetes-map-type", "atomic") {
        return Shape::Leaf;
    }
    if let Some(properties) = schema["properties"].as_object() {
        Shape::Struct(properties)
    } else if schema["additionalProperties"].is_object() {
        Shape::Map(&schema["additionalProperties"])
    } else {
        Shape::Leaf
    }
}

/// Takes away what the schema does not know, puts in what it has defaults for, and drops nulls where none may be.
pub(super) fn prune_and_default(value: &mut Value, schema: &Value) {
    match value {
        Value::Object(fields) => {
            if let Some(properties) = schema["properties"].as_object() {
                fields.retain(|name, field| {
                    properties
                        .get(name)
                        .is_some_and(|p| !field.is_null() || p["nullable"] == true)
                });
                for (name, property) in properties {
                    if !fields.contains_key(name) && !property["default"].is_null() {
                        fields.insert(name.clone(), property["default"].clone());
                    }
                    if let Some(field) = fields.get_mut(name) {
                        prune_and_default(field, property);
                    }
                }
            }
            if schema["additionalProperties"].is_object() {
                for field in fields.values_mut() {
                    prune_and_default(field, &schema["additionalProperties"]);
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                prune_and_default(item, &schema["items"]);
            }
        }
        _ => {}
    }
}

/// The resource of this name.
pub(super) fn find(group: &str, plural: &str) -> Option<&'static Resource> {
    RESOURCES
        .iter()
        .find(|resource| resource.group == group && resource.plural == plural)
}

/// Whether a schema allows a value that was pruned and defaulted; patterns, CEL and bounds of numbers are not looked at.
/// Err: what is wrong where.
pub(super) fn check(value: &Value, schema: &Value, path: &str) -> Result<(), String> {
    if let Some(choices) = schema["enum"].as_array()
        && !choices.contains(value)
    {
        return Err(format!("{path}: Unsupported value: {value}"));
    }
    let size = match value {
        Value::String(text) => Some(("minLength", "maxLength", text.chars().count())),
        Value::Array(items) => Some(("minItems", "maxItems", items.len())),
        Value::Object(fields) => Some(("minProperties", "maxProperties", fields.len())),
        _ => None,
    };
    if let Some((least, most, size)) = size {
        let bound = |name: &str| {
            schema[name]
                .as_u64()
                .and_then(|bound| usize::try_from(bound).ok())
        };
        if bound(least).is_some_and(|least| size < least) || bound(most).is_some_and(|most| size > most) {
            return Err(format!(
                "{path}: Invalid value: it is too short or too long: {size}"
            ));
        }
    }
    match value {
        Value::Object(fields) => {
            let required = schema["required"].as_array().into_iter().flatten();
            for name in required.filter_map(Value::as_str) {
                if !fields.contains_key(name) {
                    return Err(format!("{path}.{name}: Required value"));
                }
            }
            for (name, field) in fields {
                let inner = match &schema["properties"][name] {
                    Value::Null => &schema["additionalProperties"],
                    property => property,
                };
                check(field, inner, &format!("{path}.{name}"))?;
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                check(item, &schema["items"], &format!("{path}[{at}]"))?;
            }
        }
        _ => {}
    }
    Ok(())
}
