//! The documentation's links lead somewhere, and the book has every page.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

use crate::workspace::{output, root};

const SUMMARY: &str = "docs/SUMMARY.md";

/// Every page has whole links, and every one below `docs/` is in the book's summary.
pub(super) fn check() -> Result<()> {
    let list = output(
        Command::new("git")
            .args([
                "ls-files",
                "-z",
                "--cached",
                "--others",
                "--exclude-standard",
                "*.md",
            ])
            .current_dir(root()),
    )?;
    let mut pages = BTreeMap::new();
    for name in list.split_terminator('\0').map(PathBuf::from) {
        // A deleted file is listed until the deletion is staged.
        if let Ok(text) = fs::read_to_string(root().join(&name)) {
            pages.insert(name, Page::read(&text));
        }
    }
    let mut broken = Vec::new();
    for (name, page) in &pages {
        broken.extend(page.links.iter().filter_map(|link| {
            let why = trouble(name, link, &pages)?;
            Some(format!("{}: {link}: {why}", name.display()))
        }));
    }
    ensure!(broken.is_empty(), "links lead nowhere: {}", broken.join(", "));

    let summary = pages.get(Path::new(SUMMARY)).context("the book has no summary")?;
    let in_book: BTreeSet<_> = summary
        .links
        .iter()
        .map(|link| Path::new("docs").join(link))
        .collect();
    let left_out: Vec<_> = pages
        .keys()
        .filter(|name| name.starts_with("docs") && *name != Path::new(SUMMARY) && !in_book.contains(*name))
        .collect();
    ensure!(left_out.is_empty(), "{SUMMARY} has no {left_out:?}");
    Ok(())
}

#[derive(Default)]
struct Page {
    links: Vec<String>,
    /// What can be linked to within it.
    headings: BTreeSet<String>,
}

impl Page {
    fn read(text: &str) -> Self {
        let mut page = Self::default();
        let mut heading = None;
        for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
            match event {
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    page.links.push(dest_url.into_string());
                }
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    page.headings
                        .extend(heading.take().map(|title: String| anchor(&title)));
                }
                Event::Text(text) | Event::Code(text) => {
                    if let Some(title) = &mut heading {
                        title.push_str(&text);
                    }
                }
                _ => {}
            }
        }
        page
    }
}

/// As Git hosts and mdBook make it of a heading.
fn anchor(title: &str) -> String {
    let kept = title
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

fn trouble(from: &Path, link: &str, pages: &BTreeMap<PathBuf, Page>) -> Option<String> {
    // Elsewhere, or a draft of the book.
    if link.contains("://") || link.is_empty() {
        return None;
    }
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = match path {
        "" => from.to_owned(),
        path => plain(&from.with_file_name(path)),
    };
    if !root().join(&target).exists() {
        return Some("there is no such file".to_owned());
    }
    let page = pages.get(&target);
    let is_there = anchor.is_empty() || page.is_some_and(|page| page.headings.contains(anchor));
    (!is_there).then(|| "there is no such heading".to_owned())
}

/// Without `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            part => plain.push(part),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_headings_are_read() {
        let page = Page::read("# The `one` way: up\n[a](b.md#c), `[no](x)`\n\n| t |\n|---|\n| [d](../e) |\n");
        assert_eq!(page.links, ["b.md#c", "../e"]);
        assert_eq!(page.headings, ["the-one-way-up".to_owned()].into());
    }

    #[test]
    fn what_leads_nowhere_is_told() {
        let pages = BTreeMap::from([(PathBuf::from("README.md"), Page::read("# Here\n"))]);
        let told = |link| trouble(Path::new("docs/a.md"), link, &pages);
        assert_eq!(told("../README.md#here"), None);
        assert_eq!(told("https://ceph.com/x"), None);
        assert!(told("../README.md#there").is_some_and(|why| why.contains("heading")));
        assert!(told("nowhere.md").is_some_and(|why| why.contains("file")));
    }
}
