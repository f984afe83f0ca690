//! Sets of fields: who owns which, and what server-side apply does with them.
//!
//! A set is a tree as in `fieldsV1`: `f:` leads to a field, `k:` to the list item with these keys, `v:` to an item of a set.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::resource::{Shape, shape};

/// A set of fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fields {
    /// Whether the field that leads here is in the set itself.
    here: bool,
    inner: BTreeMap<String, Fields>,
}

/// What changed from one value to another.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Added or modified.
    pub set: Fields,
    pub removed: Fields,
}

impl Fields {
    fn leaf() -> Self {
        Self {
            here: true,
            inner: BTreeMap::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        !self.here && self.inner.is_empty()
    }

    fn put(&mut self, step: String, fields: Self) {
        if !fields.is_empty() {
            self.inner.insert(step, fields);
        }
    }

    fn put_once(&mut self, step: String, fields: Self) -> Result<(), String> {
        if self.inner.contains_key(&step) {
            return Err(format!(": duplicate entries for key [{step}]"));
        }
        self.put(step, fields);
        Ok(())
    }

    /// As `fieldsV1` has it.
    pub fn to_json(&self) -> Value {
        let mut json = Map::new();
        if self.here && !self.inner.is_empty() {
            json.insert(".".into(), Value::Object(Map::new()));
        }
        for (step, fields) in &self.inner {
            json.insert(step.clone(), fields.to_json());
        }
        Value::Object(json)
    }

    /// The paths in it, in words.
    pub fn paths(&self) -> Vec<String> {
        let mut paths: Vec<String> = Vec::new();
        for (step, fields) in &self.inner {
            let name = match step.split_once(':') {
                Some(("f", name)) => format!(".{name}"),
                Some((_, key)) => format!("[{key}]"),
                None => String::new(),
            };
            if fields.here {
                paths.push(name.clone());
            }
            paths.extend(fields.paths().into_iter().map(|path| format!("{name}{path}")));
        }
        paths
    }

    pub fn union(&self, other: &Self) -> Self {
        let mut all = self.clone();
        all.here |= other.here;
        for (step, theirs) in &other.inner {
            let ours = all.inner.remove(step).unwrap_or_default();
            all.put(step.clone(), ours.union(theirs));
        }
        all
    }

    pub fn without(&self, other: &Self) -> Self {
        let mut rest = Self {
            here: self.here && !other.here,
            inner: BTreeMap::new(),
        };
        for (step, ours) in &self.inner {
            let left = other
                .inner
                .get(step)
                .map_or_else(|| ours.clone(), |theirs| ours.without(theirs));
            rest.put(step.clone(), left);
        }
        rest
    }

    pub fn common(&self, other: &Self) -> Self {
        let mut both = Self {
            here: self.here && other.here,
            inner: BTreeMap::new(),
        };
        for (step, ours) in &self.inner {
            if let Some(theirs) = other.inner.get(step) {
                both.put(step.clone(), ours.common(theirs));
            }
        }
        both
    }

    /// Only what is below these fields of the object.
    pub fn only(mut self, wanted: impl Fn(&str) -> bool) -> Self {
        self.inner
            .retain(|step, _| step.strip_prefix("f:").is_some_and(&wanted));
        self
    }

    /// Without `metadata` itself, which every object has.
    pub fn release_metadata(&mut self) {
        if let Some(metadata) = self.inner.get_mut("f:metadata") {
            metadata.here = false;
            if metadata.is_empty() {
                self.inner.remove("f:metadata");
            }
        }
    }

    /// With every declared field that leads to a member a member too.
    pub fn with_parents(&self, schema: &Value) -> Self {
        let mut all = self.clone();
        for (step, fields) in &mut all.inner {
            *fields = fields.with_parents(below(schema, step));
            if let (Shape::Struct(properties), Some(name)) = (shape(schema), step.strip_prefix("f:")) {
                fields.here |= properties.contains_key(name);
            }
        }
        all
    }

    /// The fields that a value has. Err: the path of one that is not declared, or of an item that is there twice, and why.
    pub fn of(value: &Value, schema: &Value) -> Result<Self, String> {
        let mut fields = Self::default();
        match (shape(schema), value) {
            (Shape::Struct(properties), Value::Object(map)) => {
                for (name, value) in map {
                    let property = properties
                        .get(name)
                        .ok_or_else(|| format!(".{name}: field not declared in schema"))?;
                    let mut inner = Self::of(value, property).map_err(|path| format!(".{name}{path}"))?;
                    inner.here |= value.is_null() || value.as_object().is_some_and(Map::is_empty);
                    fields.put(format!("f:{name}"), inner);
                }
            }
            (Shape::Map(schema), Value::Object(map)) => {
                for (name, value) in map {
                    let mut inner = Self::of(value, schema).map_err(|path| format!(".{name}{path}"))?;
                    inner.here = true;
                    fields.put(format!("f:{name}"), inner);
                }
            }
            (Shape::List(items, _), Value::Array(list)) => {
                for item in list {
                    let mut inner = Self::of(item, items)?;
                    inner.here = true;
                    fields.put_once(item_step(schema, item), inner)?;
                }
            }
            (Shape::Set, Value::Array(list)) => {
                for item in list {
                    fields.put_once(item_step(schema, item), Self::leaf())?;
                }
            }
            _ => fields.here = true,
        }
        Ok(fields)
    }
}

/// The schema of what a step leads to.
fn below<'a>(schema: &'a Value, step: &str) -> &'a Value {
    match (shape(schema), step.strip_prefix("f:")) {
        (Shape::Struct(properties), Some(name)) => properties.get(name).unwrap_or(&Value::Null),
        (Shape::Map(inner) | Shape::List(inner, _), _) => inner,
        _ => &Value::Null,
    }
}

/// The step that leads to an item of a list.
fn item_step(schema: &Value, item: &Value) -> String {
    match shape(schema) {
        Shape::List(_, keys) => {
            let key: Map<_, _> = keys
                .iter()
                .filter_map(Value::as_str)
                .map(|key| (key.to_owned(), item[key].clone()))
                .collect();
            format!("k:{}", Value::Object(key))
        }
        _ => format!("v:{item}"),
    }
}

/// The children of a value that has fields or keyed items, by step.
fn children<'a>(value: &'a Value, schema: &Value) -> Option<BTreeMap<String, &'a Value>> {
    match (shape(schema), value) {
        (Shape::Struct(_) | Shape::Map(_), Value::Object(map)) => Some(
            map.iter()
                .map(|(name, value)| (format!("f:{name}"), value))
                .collect(),
        ),
        (Shape::List(..) | Shape::Set, Value::Array(list)) => {
            Some(list.iter().map(|item| (item_step(schema, item), item)).collect())
        }
        _ => None,
    }
}

/// What differs.
pub(super) fn compare<'a>(old: Option<&'a Value>, new: Option<&'a Value>, schema: &Value) -> Changes {
    let mut changes = Changes::default();
    let side =
        |value: Option<&'a Value>| value.map_or_else(|| Some(BTreeMap::new()), |v| children(v, schema));
    let (before, after) = (side(old), side(new));
    if let (Some(before), Some(after)) = (&before, &after) {
        let mut steps: Vec<_> = before.keys().chain(after.keys()).collect();
        steps.sort();
        steps.dedup();
        for step in steps {
            let inner = compare(
                before.get(step).copied(),
                after.get(step).copied(),
                below(schema, step),
            );
            changes.set.put(step.clone(), inner.set);
            changes.removed.put(step.clone(), inner.removed);
        }
    } else if old.is_some() && new.is_some() && old != new {
        changes.set.here = true;
    }
    match (old, new) {
        (None, Some(_)) => changes.set.here = true,
        (Some(_), None) => changes.removed.here = true,
        _ => {}
    }
    changes
}

/// `live` with what `config` says laid over it.
pub(super) fn merge(live: &Value, config: &Value, schema: &Value) -> Value {
    match (shape(schema), live, config) {
        (Shape::Struct(_) | Shape::Map(_), Value::Object(live), Value::Object(config)) => {
            let mut merged = live.clone();
            for (name, value) in config {
                let value = live.get(name).map_or_else(
                    || value.clone(),
                    |live| merge(live, value, below(schema, &format!("f:{name}"))),
                );
                merged.insert(name.clone(), value);
            }
            Value::Object(merged)
        }
        (Shape::List(..) | Shape::Set, Value::Array(live), Value::Array(config)) => {
            Value::Array(merge_lists(live, config, schema))
        }
        _ => config.clone(),
    }
}

/// The order is the config's; items that only `live` has stay before what they stood before.
fn merge_lists(live: &[Value], config: &[Value], schema: &Value) -> Vec<Value> {
    let keyed = |list: &[Value]| -> Vec<(String, Value)> {
        list.iter()
            .map(|item| (item_step(schema, item), item.clone()))
            .collect()
    };
    let (live, config) = (keyed(live), keyed(config));
    let ours = |step: &String| config.iter().any(|(other, _)| other == step);
    let find = |step: &String| live.iter().position(|(other, _)| other == step);
    let mut merged = Vec::new();
    let mut at = 0;
    for (step, item) in &config {
        let until = find(step).filter(|until| *until >= at);
        while at < live.len() && (until.is_some_and(|until| at < until) || !ours(&live[at].0)) {
            if !ours(&live[at].0) {
                merged.push(live[at].1.clone());
            }
            at += 1;
        }
        if until == Some(at) {
            at += 1;
        }
        merged.push(find(step).map_or_else(
            || item.clone(),
            |found| merge(&live[found].1, item, below(schema, step)),
        ));
    }
    let rest = live[at.min(live.len())..].iter().filter(|(step, _)| !ours(step));
    merged.extend(rest.map(|(_, item)| item.clone()));
    merged
}

/// Takes these fields out of a value, each with all that is below it. True: nothing is left of what had fields or items.
pub(super) fn remove(value: &mut Value, fields: &Fields, schema: &Value) -> bool {
    let keep = |step: &str, value: &mut Value| match fields.inner.get(step) {
        Some(inner) if inner.here => false,
        Some(inner) => {
            if remove(value, inner, below(schema, step)) {
                *value = Value::Null;
            }
            true
        }
        None => true,
    };
    match (shape(schema), value) {
        (Shape::Struct(_) | Shape::Map(_), Value::Object(map)) => {
            map.retain(|name, value| keep(&format!("f:{name}"), value));
            map.is_empty()
        }
        (Shape::List(..) | Shape::Set, Value::Array(list)) => {
            list.retain_mut(|item| keep(&item_step(schema, item), item));
            list.is_empty()
        }
        _ => false,
    }
}
