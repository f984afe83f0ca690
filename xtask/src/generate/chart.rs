//! What of the Helm chart is written from somewhere else: definitions, policies and roles, as templates, and its table of values.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

pub(super) const CRDS: &str = "charts/shoal/templates/crds";
pub(super) const POLICIES: &str = "charts/shoal/templates/policies";
pub(super) const ROLES: &str = "charts/shoal/templates/roles";
pub(super) const README: &str = "charts/shoal/README.md";

const VALUES: &str = "charts/shoal/values.yaml";
/// The namespace that plain manifests name.
const NAMESPACE: &str = "shoal-system";
/// Around the table of values.
const MARKS: [&str; 2] = [
    "<!-- values: written by cargo xtask generate -->\n",
    "<!-- end of values -->\n",
];

/// Path in the tree and text of each file, from the manifests of definitions and policies, and from what is in the tree.
pub(super) fn files(root: &Path, manifests: &[(String, String)]) -> Result<Vec<(String, String)>> {
    let read =
        |path: &str| fs::read_to_string(root.join(path)).with_context(|| format!("cannot read {path}"));
    let mut files: Vec<_> = manifests
        .iter()
        .map(|(name, text)| {
            if text.contains("\nkind: CustomResourceDefinition\n") {
                (format!("{CRDS}/{name}"), template(text, CRD))
            } else if text.contains("\nkind: MutatingAdmissionPolicy\n") {
                (format!("{POLICIES}/{name}"), template(text, MUTATING_POLICY))
            } else {
                (format!("{POLICIES}/{name}"), template(text, POLICY))
            }
        })
        .collect();
    for (source, name, how) in [
        ("operator/role.yaml", "operator.yaml", OPERATOR_ROLE),
        ("crds/roles.yaml", "users.yaml", USER_ROLE),
    ] {
        files.push((format!("{ROLES}/{name}"), template(&read(source)?, how)));
    }
    let readme = super::between(&read(README)?, MARKS, &values_table(&read(VALUES)?)?)
        .with_context(|| format!("{README} has no place for the values: {}", MARKS.concat()))?;
    files.push((README.into(), readme));
    Ok(files)
}

/// When objects are part of a release, and the helper that names their annotations.
#[derive(Clone, Copy)]
struct How {
    condition: Option<&'static str>,
    annotations: Option<&'static str>,
}

const CRD: How = How {
    condition: Some(".Values.crds.enabled"),
    annotations: Some("shoal.crdAnnotations"),
};
const POLICY: How = How {
    condition: Some(".Values.crds.enabled"),
    annotations: Some("shoal.policyAnnotations"),
};
const MUTATING_POLICY: How = How {
    condition: Some(
        r#"and .Values.crds.enabled (.Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy")"#,
    ),
    annotations: POLICY.annotations,
};
const USER_ROLE: How = How {
    condition: Some(".Values.userRoles.create"),
    annotations: None,
};
const OPERATOR_ROLE: How = How {
    condition: None,
    annotations: None,
};

/// Manifests as a template: in the release's namespace, and with the chart's labels. Text and not objects, so that comments stay.
fn template(manifests: &str, how: How) -> String {
    let escaped = manifests.replace("{{", r#"{{ "{{" }}"#);
    // The release's namespace is there already.
    let documents: Vec<_> = escaped
        .split("\n---\n")
        .map(|document| document.strip_prefix(super::HEADER).unwrap_or(document))
        .filter(|document| !document.contains("kind: Namespace\n"))
        .map(|document| {
            with_metadata(document.trim_end(), how.annotations).replace(NAMESPACE, "{{ .Release.Namespace }}")
        })
        .collect();
    let text = documents.join("\n---\n");
    let header = super::HEADER;
    match how.condition {
        Some(condition) => format!("{header}{{{{- if {condition} }}}}\n{text}\n{{{{- end }}}}\n"),
        None => format!("{header}{text}\n"),
    }
}

/// The document with the chart's labels beside its own, and annotations.
fn with_metadata(document: &str, annotations: Option<&str>) -> String {
    let include = |helper: &str| format!("\n    {{{{- include \"{helper}\" . | nindent 4 }}}}");
    let labels = include("shoal.labels");
    let annotations = annotations.map_or(String::new(), |helper| {
        format!("\n  annotations:{}", include(helper))
    });
    if document.contains("\n  labels:\n") {
        document.replacen("\n  labels:", &format!("{annotations}\n  labels:{labels}"), 1)
    } else {
        document.replacen(
            "\nmetadata:",
            &format!("\nmetadata:{annotations}\n  labels:{labels}"),
            1,
        )
    }
}

/// A row for each key with a comment above it.
fn values_table(text: &str) -> Result<String> {
    let values: Value = serde_saphyr::from_str(text)?;
    let mut rows = String::new();
    for (path, comment) in documented(text) {
        let default = values
            .pointer(&format!("/{}", path.join("/")))
            .with_context(|| format!("{VALUES} has no {}", path.join(".")))?;
        writeln!(rows, "| `{}` | `{default}` | {comment} |", path.join("."))?;
    }
    Ok(format!("| value | default | |\n| --- | --- | --- |\n{rows}"))
}

/// Path and comment of each key that has one directly above it.
fn documented(text: &str) -> Vec<(Vec<&str>, String)> {
    let mut found = Vec::new();
    let mut path: Vec<(usize, &str)> = Vec::new();
    let mut comment: Vec<&str> = Vec::new();
    for line in text.lines() {
        let words = line.trim_start();
        if let Some(words) = words.strip_prefix("# ") {
            comment.push(words);
            continue;
        }
        if let Some((key, _)) = words.split_once(':') {
            let indent = line.len() - words.len();
            path.retain(|(of_another, _)| *of_another < indent);
            path.push((indent, key));
            if !comment.is_empty() {
                found.push((path.iter().map(|(_, key)| *key).collect(), comment.join(" ")));
            }
        }
        comment.clear();
    }
    found
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::workspace::root;

    fn read(path: &str) -> String {
        fs::read_to_string(root().join(path)).unwrap()
    }

    #[test]
    fn a_document_gets_labels_beside_its_own() {
        let plain = "kind: A\nmetadata:\n  name: a\n  namespace: shoal-system";
        assert_eq!(
            template(plain, OPERATOR_ROLE),
            format!(
                "{}kind: A\nmetadata:\n  labels:\n    {{{{- include \"shoal.labels\" . | nindent 4 }}}}\n  name: a\n  \
                 namespace: {{{{ .Release.Namespace }}}}\n",
                super::super::HEADER
            )
        );
        let labelled = template("kind: A\nmetadata:\n  name: a\n  labels:\n    b: c", CRD);
        assert_eq!(labelled.matches("  labels:\n").count(), 1);
        assert!(labelled.contains(
            "  annotations:\n    {{- include \"shoal.crdAnnotations\" . | nindent 4 }}\n  labels:\n"
        ));
        assert!(labelled.contains("nindent 4 }}\n    b: c\n{{- end }}\n"));
    }

    #[test]
    fn what_looks_like_an_action_stays_text() {
        assert!(
            template("kind: A\nmetadata:\n  name: a{{b}}", OPERATOR_ROLE)
                .ends_with("name: a{{ \"{{\" }}b}}\n")
        );
    }

    #[test]
    fn keys_have_the_comment_above_them() {
        let text = "# About the file.\n\na:\n  # One,\n  # two.\n  b: 1\n  c: 2\n# Three.\nd: [x]\n";
        let words = |path: &[&'static str], comment: &str| (path.to_vec(), comment.to_owned());
        assert_eq!(
            documented(text),
            [words(&["a", "b"], "One, two."), words(&["d"], "Three.")]
        );
        let table = values_table(text).unwrap();
        assert!(
            table.ends_with("| `a.b` | `1` | One, two. |\n| `d` | `[\"x\"]` | Three. |\n"),
            "{table}"
        );
    }

    /// Every value is described, and the schema knows it and no other.
    #[test]
    fn values_and_schema_and_readme_agree() {
        fn agree(path: &str, values: &Value, schema: &Value, described: &BTreeSet<String>) {
            if described.contains(path) {
                return;
            }
            let names = |value: &Value| {
                value
                    .as_object()
                    .unwrap()
                    .keys()
                    .cloned()
                    .collect::<BTreeSet<_>>()
            };
            let mut known = names(&schema["properties"]);
            if path.is_empty() {
                assert!(known.remove("global"), "a chart of charts hands it on");
            }
            assert_eq!(names(values), known, "below {path:?}");
            assert_eq!(schema["additionalProperties"], false, "{path:?}");
            for (key, value) in values.as_object().unwrap() {
                let below = [path, key].join(if path.is_empty() { "" } else { "." });
                agree(&below, value, &schema["properties"][key], described);
            }
        }
        let text = read(VALUES);
        let described: BTreeSet<_> = documented(&text).iter().map(|(path, _)| path.join(".")).collect();
        let values: Value = serde_saphyr::from_str(&text).unwrap();
        let schema: Value = serde_json::from_str(&read("charts/shoal/values.schema.json")).unwrap();
        agree("", &values, &schema, &described);
    }

    #[test]
    fn the_chart_says_what_is_in_it() {
        let chart: Value = serde_saphyr::from_str(&read("charts/shoal/Chart.yaml")).unwrap();
        for version in ["version", "appVersion"] {
            assert_eq!(chart[version], env!("CARGO_PKG_VERSION"), "{version}");
        }
        let said: Vec<Value> =
            serde_saphyr::from_str(chart["annotations"]["artifacthub.io/crds"].as_str().unwrap()).unwrap();
        let said: Vec<_> = said
            .iter()
            .map(|crd| (crd["name"].clone(), crd["kind"].clone()))
            .collect();
        let crds = shoal_crds::custom_resource_definitions();
        let kinds: Vec<_> = crds
            .iter()
            .map(|crd| {
                (
                    crd.metadata.name.clone().into(),
                    crd.spec.names.kind.clone().into(),
                )
            })
            .collect();
        assert_eq!(said, kinds);
    }
}
