//! What is written from the alerts: a plain manifest, and their table in the documentation.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

/// The alerts, as Prometheus reads them. The chart's template takes them from there, too.
pub(crate) const ALERTS: &str = "charts/shoal/files/alerts.yaml";
pub(super) const MANIFEST: &str = "operator/prometheusrule.yaml";
pub(super) const PAGE: &str = "docs/operations/monitoring.md";

/// Around the table of alerts.
const MARKS: [&str; 2] = [
    "<!-- alerts: written by cargo xtask generate -->\n",
    "<!-- end of alerts -->\n",
];

/// One alert.
#[derive(Debug)]
pub(crate) struct Alert {
    pub(crate) name: String,
    pub(crate) expression: String,
    pub(crate) runbook: String,
    severity: String,
    after: String,
    description: String,
}

/// Path in the tree and text of each file.
pub(super) fn files(root: &Path) -> Result<[(String, String); 2]> {
    let read =
        |path: &str| fs::read_to_string(root.join(path)).with_context(|| format!("cannot read {path}"));
    let text = read(ALERTS)?;
    let page = super::between(&read(PAGE)?, MARKS, &table(&alerts(&text)?))
        .with_context(|| format!("{PAGE} has no place for the alerts: {}", MARKS.concat()))?;
    Ok([(MANIFEST.into(), manifest(&text)), (PAGE.into(), page)])
}

/// All alerts of a file of rules, each with what it has to have.
pub(crate) fn alerts(text: &str) -> Result<Vec<Alert>> {
    let rules: Value = serde_saphyr::from_str(text)?;
    let groups = rules["groups"].as_array().context("no groups")?;
    let all = groups
        .iter()
        .filter_map(|group| group["rules"].as_array())
        .flatten();
    all.map(|rule| {
        let word = |path: &str| {
            let word = rule.pointer(path).and_then(Value::as_str);
            word.map(str::to_owned)
                .with_context(|| format!("{ALERTS}: {} has no {path}", rule["alert"]))
        };
        word("/annotations/summary")?;
        Ok(Alert {
            name: word("/alert")?,
            expression: word("/expr")?,
            runbook: word("/annotations/runbook_url")?,
            severity: word("/labels/severity")?,
            after: word("/for").unwrap_or_else(|_| "at once".into()),
            description: word("/annotations/description")?,
        })
    })
    .collect()
}

fn manifest(alerts: &str) -> String {
    let mut text = format!(
        "{}apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: shoal\n  namespace: shoal-system\n  labels:\n    \
         app.kubernetes.io/name: shoal\nspec:\n",
        super::HEADER
    );
    for line in alerts.lines().filter(|line| !line.starts_with('#')) {
        let indent = if line.is_empty() { "" } else { "  " };
        text.extend([indent, line, "\n"]);
    }
    text
}

fn table(alerts: &[Alert]) -> String {
    let mut table = String::from("| alert | severity | after | |\n| --- | --- | --- | --- |\n");
    for alert in alerts {
        let Alert {
            name,
            severity,
            after,
            description,
            ..
        } = alert;
        // Writing into a String can't fail.
        let _ = writeln!(
            table,
            "| [{name}](../runbooks/{name}.md) | {severity} | {after} | {description} |"
        );
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_has_the_same_rules() {
        let text = fs::read_to_string(crate::workspace::root().join(ALERTS)).unwrap();
        let rules: Value = serde_saphyr::from_str(&text).unwrap();
        let made: Value = serde_saphyr::from_str(&manifest(&text)).unwrap();
        assert_eq!(made["spec"], rules);
    }
}
