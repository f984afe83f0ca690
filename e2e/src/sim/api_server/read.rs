//! Get, list, and selectors.

use std::ops::Bound;

use serde_json::{Value, json};

use super::{
    refusal::Refusal,
    request::Request,
    resource::Resource,
    store::{Key, Object, Store},
    write::Answer,
};

pub(super) fn get(store: &Store, request: &Request) -> Answer {
    let object = store.get(request.resource, &request.key())?;
    Ok((200, shown(&object, request.metadata_only)))
}

/// The object's JSON, or only its metadata's.
pub(super) fn shown(object: &Object, metadata_only: bool) -> String {
    if !metadata_only {
        return object.json.clone();
    }
    let whole: Value = serde_json::from_str(&object.json).unwrap_or_default();
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": whole["metadata"]})
        .to_string()
}

pub(super) fn list(store: &mut Store, request: &Request) -> Answer {
    let resource = request.resource;
    let selection = Selection::parse(request)?;
    let limit = match request.number("limit")? {
        None | Some(0) => usize::MAX,
        Some(limit) => usize::try_from(limit).unwrap_or(usize::MAX),
    };
    if request
        .number("resourceVersion")?
        .is_some_and(|version| version > store.version())
    {
        return Err(Refusal::new(504, "Timeout", "Too large resource version"));
    }
    let (version, after) = match request.parameter("continue") {
        None => (store.version(), None),
        Some(token) => {
            let wrong = || Refusal::bad_request("continue key is not valid");
            let (version, after) = token.split_once(':').ok_or_else(wrong)?;
            let (namespace, name) = after.split_once('/').ok_or_else(wrong)?;
            let version = version.parse().map_err(|_| wrong())?;
            (version, Some((namespace.to_owned(), name.to_owned())))
        }
    };
    let objects = if after.is_none() {
        store.objects(resource)
    } else {
        store.snapshot(resource, version).ok_or_else(|| {
            Refusal::expired(
                "The provided continue parameter is too old to display a consistent list result.",
            )
        })?
    };
    let first = after.map_or(Bound::Unbounded, Bound::Excluded);
    let mut wanted = objects
        .range::<Key, _>((first, Bound::Unbounded))
        .filter(|(_, object)| selection.takes(&object.value));
    let page: Vec<_> = wanted.by_ref().take(limit).collect();
    let left = wanted.count();
    let items: Vec<_> = page
        .iter()
        .map(|(_, object)| shown(object, request.metadata_only))
        .collect();
    let mut metadata = json!({"resourceVersion": version.to_string()});
    if let (Some(((namespace, name), _)), true) = (page.last(), left > 0) {
        metadata["continue"] = format!("{version}:{namespace}/{name}").into();
        if selection.is_everything() {
            metadata["remainingItemCount"] = left.into();
        }
        store.keep_snapshot_of(resource, version);
    }
    let (api_version, kind) = if request.metadata_only {
        (
            "meta.k8s.io/v1".to_owned(),
            "PartialObjectMetadataList".to_owned(),
        )
    } else {
        (resource.api_version(), format!("{}List", resource.kind))
    };
    let list = format!(
        "{{\"apiVersion\":\"{api_version}\",\"kind\":\"{kind}\",\"metadata\":{metadata},\"items\":[{}]}}",
        items.join(",")
    );
    Ok((200, list))
}

/// Which objects a list or a watch is about.
#[derive(Clone, Debug)]
pub(super) struct Selection {
    namespace: String,
    fields: Vec<Requirement>,
    labels: Vec<Requirement>,
}

#[derive(Clone, Debug)]
struct Requirement {
    path: Vec<String>,
    wanted: Wanted,
}

#[derive(Clone, Debug)]
enum Wanted {
    Equal(String),
    Unequal(String),
    Present,
    Absent,
}

impl Requirement {
    fn parse(text: &str) -> (&str, Wanted) {
        if let Some((name, value)) = text.split_once("!=") {
            (name.trim(), Wanted::Unequal(value.trim().into()))
        } else if let Some((name, value)) = text.split_once('=') {
            let value = value.strip_prefix('=').unwrap_or(value);
            (name.trim(), Wanted::Equal(value.trim().into()))
        } else if let Some(name) = text.strip_prefix('!') {
            (name.trim(), Wanted::Absent)
        } else {
            (text.trim(), Wanted::Present)
        }
    }

    fn is_met(&self, object: &Value, absent: Option<&str>) -> bool {
        let found = self.path.iter().try_fold(object, |value, step| value.get(step));
        let found = match found {
            Some(Value::String(text)) => Some(text.clone()),
            None | Some(Value::Null) => absent.map(str::to_owned),
            Some(value) => Some(value.to_string()),
        };
        match &self.wanted {
            Wanted::Equal(value) => found.as_ref() == Some(value),
            Wanted::Unequal(value) => found.as_ref() != Some(value),
            Wanted::Present => found.is_some(),
            Wanted::Absent => found.is_none(),
        }
    }
}

impl Selection {
    pub fn parse(request: &Request) -> Result<Self, Refusal> {
        let parts = |name: &str| {
            let text = request.parameter(name).unwrap_or_default();
            text.split(',').filter(|part| !part.is_empty())
        };
        let mut fields = Vec::new();
        for part in parts("fieldSelector") {
            let (name, wanted) = Requirement::parse(part);
            if !is_selectable(request.resource, name) {
                return Err(Refusal::bad_request(format!("field label not supported: {name}")));
            }
            let path = name.split('.').map(str::to_owned).collect();
            fields.push(Requirement { path, wanted });
        }
        let labels = parts("labelSelector").map(|part| {
            let (name, wanted) = Requirement::parse(part);
            let path = ["metadata", "labels", name].map(str::to_owned).into();
            Requirement { path, wanted }
        });
        Ok(Self {
            namespace: request.namespace.clone(),
            labels: labels.collect(),
            fields,
        })
    }

    fn is_everything(&self) -> bool {
        self.fields.is_empty() && self.labels.is_empty()
    }

    pub fn takes(&self, object: &Value) -> bool {
        (self.namespace.is_empty() || object["metadata"]["namespace"] == self.namespace.as_str())
            && self.fields.iter().all(|field| field.is_met(object, Some("")))
            && self.labels.iter().all(|label| label.is_met(object, None))
    }
}

fn is_selectable(resource: &Resource, field: &str) -> bool {
    field == "metadata.name"
        || (field == "metadata.namespace" && resource.namespaced)
        || resource.selectable.iter().any(|known| known == field)
}
