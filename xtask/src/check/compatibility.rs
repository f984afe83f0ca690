//! Whether the API has kept what its last release promised: manifests and stored objects of then are taken now.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::workspace::root;

/// The definitions of the last release. docs/operations/installing.md says what is promised.
const RELEASED: &str = "crds/released";

/// Compares the definitions with those of the last release.
pub(super) fn check() -> Result<()> {
    let folder = root().join(RELEASED);
    let now: Vec<Value> = shoal_crds::generated_files()
        .into_iter()
        .flat_map(|(_, documents)| documents)
        .collect();
    let mut broken = Vec::new();
    // Before the first release there is nothing to keep.
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry?.path();
        let before: Value = serde_saphyr::from_str(&fs::read_to_string(&path)?)
            .with_context(|| path.display().to_string())?;
        let name = &before["metadata"]["name"];
        match now.iter().find(|now| now["metadata"]["name"] == *name) {
            Some(now) => broken.extend(breaks(&before, now)),
            None => broken.push(format!("{name} is gone")),
        }
    }
    ensure!(broken.is_empty(), "{}", broken.join("; "));
    Ok(())
}

/// What somebody who used the old definition would miss.
fn breaks(before: &Value, now: &Value) -> Vec<String> {
    let kind = before["spec"]["names"]["kind"].as_str().unwrap_or_default();
    let mut broken = Vec::new();
    for part in ["scope", "group"] {
        if before["spec"][part] != now["spec"][part] {
            broken.push(format!("{kind}: another {part}"));
        }
    }
    let versions = |definition: &Value| {
        definition["spec"]["versions"]
            .as_array()
            .cloned()
            .unwrap_or_default()
    };
    for old in versions(before) {
        let name = old["name"].as_str().unwrap_or_default();
        match versions(now)
            .iter()
            .find(|version| version["name"] == old["name"])
        {
            Some(new) if new["served"] == true || old["served"] == false => {
                let schema = |version: &Value| version["schema"]["openAPIV3Schema"].clone();
                compare(
                    &format!("{kind} {name}"),
                    &schema(&old),
                    &schema(new),
                    &mut broken,
                );
            }
            _ => broken.push(format!("{kind}: {name} is not served any more")),
        }
    }
    broken
}

fn compare(path: &str, old: &Value, new: &Value, broken: &mut Vec<String>) {
    for fixed in [
        "type",
        "format",
        "pattern",
        "x-kubernetes-int-or-string",
        "x-kubernetes-list-type",
        "default",
    ] {
        if old[fixed] != new[fixed] && !(fixed == "pattern" && new[fixed].is_null()) {
            broken.push(format!(
                "{path}: {fixed} was {} and is {}",
                old[fixed], new[fixed]
            ));
        }
    }
    for (bound, is_upper) in [
        ("maximum", true),
        ("maxLength", true),
        ("maxItems", true),
        ("maxProperties", true),
        ("minimum", false),
        ("minLength", false),
        ("minItems", false),
    ] {
        let Some(now) = new[bound].as_f64() else { continue };
        let is_tighter = old[bound]
            .as_f64()
            .is_none_or(|before| if is_upper { now < before } else { now > before });
        if is_tighter {
            broken.push(format!("{path}: {bound} was {} and is {now}", old[bound]));
        }
    }
    let list = |schema: &Value, name: &str| schema[name].as_array().cloned().unwrap_or_default();
    let values = list(new, "enum");
    for value in list(old, "enum")
        .iter()
        .filter(|value| !values.is_empty() && !values.contains(value))
    {
        broken.push(format!("{path}: {value} is not taken any more"));
    }
    if list(old, "enum").is_empty() && !values.is_empty() {
        broken.push(format!("{path}: only some values are taken"));
    }
    let before = list(old, "required");
    for field in list(new, "required")
        .iter()
        .filter(|field| !before.contains(field))
    {
        broken.push(format!("{path}: {field} is required now"));
    }
    for (name, old) in old["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        match &new["properties"][name] {
            Value::Null => broken.push(format!("{path} is gone")),
            new => compare(&path, old, new, broken),
        }
    }
    for inner in ["items", "additionalProperties"] {
        if old[inner].is_object() {
            compare(&format!("{path}[]"), &old[inner], &new[inner], broken);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(old: &Value, new: &Value) -> Vec<String> {
        let mut broken = Vec::new();
        compare("Share", old, new, &mut broken);
        broken
    }

    #[test]
    fn what_is_added_or_loosened_breaks_nobody() {
        let old = json!({"type": "object", "required": ["a", "b"], "properties": {
            "a": {"type": "string", "maxLength": 3, "enum": ["x"]},
            "b": {"type": "array", "items": {"type": "integer", "minimum": 1}}}});
        let new = json!({"type": "object", "required": ["a"], "properties": {
            "a": {"type": "string", "maxLength": 5, "enum": ["x", "y"]},
            "b": {"type": "array", "items": {"type": "integer"}},
            "c": {"type": "boolean"}}});
        assert_eq!(told(&old, &new), Vec::<String>::new());
        assert_eq!(told(&old, &old), Vec::<String>::new());
    }

    #[test]
    fn what_is_taken_away_or_tightened_is_told() {
        let old = json!({"type": "object", "properties": {
            "gone": {"type": "string"},
            "size": {"type": "integer", "minimum": 1},
            "how": {"type": "string", "enum": ["x", "y"]},
            "list": {"type": "array", "items": {"type": "string"}}}});
        let new = json!({"type": "object", "required": ["size"], "properties": {
            "size": {"type": "integer", "minimum": 2},
            "how": {"type": "string", "enum": ["x"], "default": "x"},
            "list": {"type": "array", "maxItems": 4, "items": {"type": "integer"}}}});
        let told = told(&old, &new);
        for words in [
            "\"size\" is required now",
            "Share.gone is gone",
            "Share.size: minimum was 1 and is 2",
            "Share.how: \"y\" is not taken any more",
            "Share.how: default was null",
            "Share.list: maxItems was null and is 4",
            "Share.list[]: type was \"string\"",
        ] {
            assert!(told.iter().any(|told| told.contains(words)), "{words}: {told:?}");
        }
        assert_eq!(told.len(), 7, "{told:?}");
    }

    #[test]
    fn a_version_or_kind_that_is_gone_is_told() {
        let definition = |version: &str| {
            json!({"metadata": {"name": "shares"}, "spec": {"group": "g", "scope": "Namespaced", "names": {"kind": "Share"},
                "versions": [{"name": version, "served": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]}})
        };
        assert_eq!(breaks(&definition("v1"), &definition("v1")), Vec::<String>::new());
        assert_eq!(
            breaks(&definition("v1"), &definition("v2")),
            ["Share: v1 is not served any more"]
        );
    }
}
