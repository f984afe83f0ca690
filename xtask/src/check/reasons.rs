//! Whoever meets a reason in a condition finds it in the documentation.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, ensure};

use crate::workspace::root;

const REASONS: &str = "crds/src/condition.rs";
const PAGE: &str = "docs/troubleshooting.md";

/// The page has every reason that a condition can carry, and no others.
pub(crate) fn check() -> Result<()> {
    let read = |path: &str| fs::read_to_string(root().join(path)).with_context(|| path.to_owned());
    let there = reasons(&read(REASONS)?);
    let told = told(&read(PAGE)?);
    ensure!(!there.is_empty(), "no reason found in {REASONS}");
    let missing: Vec<_> = there.difference(&told).collect();
    let unknown: Vec<_> = told.difference(&there).collect();
    ensure!(
        missing.is_empty() && unknown.is_empty(),
        "{PAGE} lacks {missing:?}, and tells of {unknown:?}, which there are none of"
    );
    Ok(())
}

/// The values of the constants in `mod reasons`.
fn reasons(source: &str) -> BTreeSet<String> {
    let (_, reasons) = source.split_once("pub mod reasons {").unwrap_or_default();
    let constants = reasons.lines().filter(|line| line.contains("pub const "));
    let values = constants.filter_map(|line| line.split('"').nth(1));
    values.map(str::to_owned).collect()
}

/// The words in backticks in the first cells of the page's tables, and in its last line.
fn told(page: &str) -> BTreeSet<String> {
    let cells = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let well = page
        .lines()
        .filter_map(|line| line.strip_prefix("All is well: `"));
    let words = cells
        .chain(well)
        .flat_map(|cell| cell.split(['`', ',', ' ', '.']));
    words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_found_where_they_are_and_where_they_are_told() {
        let source = "pub mod types { pub const A: &str = \"A\"; }\npub mod reasons {\n/// One.\npub const B: &str = \"One\";\n}";
        assert_eq!(reasons(source), ["One".to_owned()].into());
        let page = "| reason | what |\n| --- | --- |\n| `One`, `Two` | `three` |\nAll is well: `Four`.";
        assert_eq!(told(page), ["One", "Two", "Four"].map(str::to_owned).into());
    }
}
