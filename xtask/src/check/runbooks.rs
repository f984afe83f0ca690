//! Whoever is woken by an alert finds its page, and what alerts and the dashboard ask for is told by the operator.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, ensure};

use crate::generate::monitoring::{ALERTS, alerts};
use crate::workspace::root;

const FOLDER: &str = "docs/runbooks";
const PAGE: &str = "docs/operations/monitoring.md";
const DASHBOARD: &str = "charts/shoal/files/dashboard.json";
/// What each page says.
const PARTS: [&str; 4] = ["## Meaning", "## Impact", "## Diagnosis", "## Mitigation"];

/// Each alert has its page and each page its alert; the metrics that they rest on are those of the documentation.
pub(super) fn check() -> Result<()> {
    let read = |path: &str| fs::read_to_string(root().join(path)).with_context(|| path.to_owned());
    let alerts = alerts(&read(ALERTS)?)?;
    let mut pages = BTreeSet::new();
    for entry in fs::read_dir(root().join(FOLDER)).context(FOLDER)? {
        let name = entry?.file_name().into_string().unwrap_or_default();
        if name != "README.md" {
            pages.insert(format!("{FOLDER}/{name}"));
        }
    }
    let wanted: BTreeSet<_> = alerts.iter().map(|alert| alert.runbook.clone()).collect();
    let missing: Vec<_> = wanted.difference(&pages).collect();
    let unknown: Vec<_> = pages.difference(&wanted).collect();
    ensure!(
        missing.is_empty() && unknown.is_empty(),
        "alerts lack the pages {missing:?}, and {unknown:?} are no alert's"
    );
    for alert in &alerts {
        let (name, page) = (&alert.name, &alert.runbook);
        ensure!(page == &format!("{FOLDER}/{name}.md"), "{name} leads to {page}");
        let text = read(page)?;
        let missing: Vec<_> = PARTS.iter().filter(|part| !text.contains(**part)).collect();
        ensure!(
            text.starts_with(&format!("# {name}\n")) && missing.is_empty(),
            "{page} lacks its heading, or {missing:?}"
        );
    }
    let expressions: Vec<_> = alerts.iter().map(|alert| alert.expression.as_str()).collect();
    let dashboard = read(DASHBOARD)?;
    let asked = metrics(&[expressions.join(" "), dashboard].concat());
    let told: BTreeSet<_> = metrics(&read(PAGE)?);
    let unknown: Vec<_> = asked.difference(&told).collect();
    ensure!(
        unknown.is_empty(),
        "{ALERTS} or {DASHBOARD} ask for {unknown:?}, which {PAGE} does not tell of"
    );
    Ok(())
}

/// The metrics that a text names, of a histogram its own name.
fn metrics(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let names = words.filter(|word| word.starts_with("shoal_"));
    names
        .map(|name| {
            let whole = ["_bucket", "_count", "_sum"]
                .into_iter()
                .find_map(|part| name.strip_suffix(part));
            whole.unwrap_or(name).to_owned()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_found_in_expressions() {
        let found = metrics(r#"sum by (le) (rate(shoal_a_seconds_bucket{b="c"}[5m])) / shoal_d"#);
        assert_eq!(found, ["shoal_a_seconds", "shoal_d"].map(str::to_owned).into());
    }
}
