//! A share on one page.

use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt;
use serde_json::{Value, json};
use shoal_crds::{
    DeletionPolicy, ResourceLock, Share, ShareAccessRule, ShareBackend, ShareDeletion, condition::types,
};

use crate::{
    age,
    failure::Exit,
    lists::{self, find, reason_and_message},
    output::bare,
    text::{Paint, Table, clean},
};

/// What was found, or why it can't be shown.
pub(crate) type Seen<T> = Result<Vec<T>, String>;

/// All that is on the page.
pub(crate) struct Page {
    pub(crate) share: Share,
    /// None if it may not be read, or there is none.
    pub(crate) backend: Option<ShareBackend>,
    pub(crate) rules: Seen<ShareAccessRule>,
    /// Those on the share and on its rules.
    pub(crate) locks: Seen<ResourceLock>,
    /// What is left of shares that had its name. None if they may not be read: they are not for users.
    pub(crate) deletions: Option<Vec<ShareDeletion>>,
    pub(crate) events: Seen<Event>,
}

/// Conditions that are there only while they matter.
const WHILE_TRUE: [&str; 5] = [
    types::RECONCILING,
    types::STALLED,
    types::ENSURING,
    types::DELETION_BLOCKED,
    types::PAUSED,
];

impl Page {
    /// The exit code: whether the share is as its spec asks.
    pub(crate) fn exit(&self) -> Exit {
        if is_ready(&self.share) {
            Exit::Done
        } else {
            Exit::Refused
        }
    }

    /// The objects on it.
    pub(crate) fn value(&self) -> Value {
        fn shown<K: kube::Resource + serde::Serialize + Clone>(seen: &Seen<K>) -> Vec<Value> {
            seen.as_deref().map(bare).unwrap_or_default()
        }
        json!({
            "share": bare(std::slice::from_ref(&self.share)).pop(),
            "backend": self.backend.as_ref().and_then(|backend| bare(std::slice::from_ref(backend)).pop()),
            "accessRules": shown(&self.rules),
            "locks": shown(&self.locks),
            "deletions": self.deletions.as_deref().map(bare).unwrap_or_default(),
            "events": shown(&self.events),
        })
    }

    /// The page.
    pub(crate) fn text(&self, wide: bool, paint: Paint, now: Timestamp) -> String {
        let share = &self.share;
        let mut lines = vec![paint.heading(&format!(
            "Share {} in namespace {}",
            share.name_any(),
            share.namespace().unwrap_or_default()
        ))];
        for (word, said) in self.facts(paint, now) {
            lines.push(format!("  {word:<10} {said}").trim_end().to_owned());
        }
        if wide {
            section(
                &mut lines,
                paint,
                "Conditions",
                &Ok(conditions(share, now)),
                "none yet",
            );
        }
        let name = share.name_any();
        let nobody = format!("none, so nobody is let in; kubectl shoal access allow {name} CLIENT");
        let rules = seen(&self.rules, |rules| lists::rules(rules, false, wide, now));
        section(&mut lines, paint, "Access rules", &rules, &nobody);
        let locks = seen(&self.locks, |locks| lists::locks(locks, false, wide, now));
        section(&mut lines, paint, "Locks", &locks, "none");
        if let Some(deletions) = self
            .deletions
            .as_deref()
            .filter(|deletions| !deletions.is_empty())
        {
            let table = Ok(lists::deletions(deletions, wide, now));
            section(
                &mut lines,
                paint,
                "Left of deleted shares of this name",
                &table,
                "",
            );
        }
        let events = seen(&self.events, |events| lists::events(events, now));
        section(&mut lines, paint, "Events", &events, "none");
        lines.join("\n") + "\n"
    }

    fn facts(&self, paint: Paint, now: Timestamp) -> Vec<(&'static str, String)> {
        let (share, status) = (&self.share, self.share.status.clone().unwrap_or_default());
        let mut facts = vec![("Phase", lists::word_of(status.phase.as_ref()))];
        facts.push(("Ready", ready(share, paint)));
        for kind in WHILE_TRUE {
            if let Some(condition) = find(&status.conditions, kind) {
                facts.push((kind_word(condition.type_.as_str()), reason_and_message(condition)));
            }
        }
        if share.metadata.deletion_timestamp.is_some() {
            let since = age::of(share.metadata.deletion_timestamp.as_ref(), now);
            facts.push(("Deleted", format!("{since} ago, and not gone yet")));
        }
        let asked = share.spec.size;
        facts.push((
            "Size",
            match status.size {
                Some(size) if size == asked => size.to_string(),
                Some(size) => format!("{size}; {asked} is asked for"),
                None => format!("{asked} is asked for"),
            },
        ));
        facts.push(("Protocol", share.spec.protocol.as_str().into()));
        facts.push((
            "Type",
            status.share_type_name.unwrap_or_else(|| "not chosen yet".into()),
        ));
        facts.push(("Backend", self.backend(status.backend_name.as_deref())));
        if status.export_locations.is_empty() {
            facts.push(("Mount", "nowhere yet".into()));
        }
        for (i, location) in status.export_locations.iter().enumerate() {
            facts.push((if i == 0 { "Mount" } else { "" }, clean(&location.path)));
        }
        if !status.export_locations.is_empty() {
            facts.push(("", format!("kubectl shoal mount {} says how", share.name_any())));
        }
        let capabilities = status.capabilities.unwrap_or_default();
        let policy = share.spec.deletion_policy.unwrap_or(capabilities.deletion_policy);
        if policy == DeletionPolicy::Retain {
            facts.push(("Deletion", "keeps the data until an admin says otherwise".into()));
        } else if !capabilities.retention.is_zero() {
            facts.push((
                "Deletion",
                format!("keeps the data for {}", capabilities.retention),
            ));
        }
        facts.push(("Age", age::of(share.metadata.creation_timestamp.as_ref(), now)));
        facts
    }

    fn backend(&self, name: Option<&str>) -> String {
        let Some(name) = name else {
            return "not chosen yet".into();
        };
        let conditions = self.backend.as_ref().and_then(|b| b.status.as_ref());
        match conditions.and_then(|status| find(&status.conditions, types::READY)) {
            Some(ready) if ready.status != "True" => {
                format!("{name}, which is not Ready: {}", reason_and_message(ready))
            }
            _ => name.to_owned(),
        }
    }
}

/// `DeletionBlocked` is too long for the column.
fn kind_word(kind: &str) -> &'static str {
    match kind {
        types::RECONCILING => "Working",
        types::STALLED => "Stalled",
        types::ENSURING => "Ensuring",
        types::DELETION_BLOCKED => "Blocked",
        _ => "Paused",
    }
}

/// Whether it is as its spec asks, as far as is known now.
pub(crate) fn is_ready(share: &Share) -> bool {
    share.status.as_ref().is_some_and(|status| {
        status.observed_generation == share.metadata.generation
            && find(&status.conditions, types::READY).is_some_and(|ready| ready.status == "True")
    })
}

fn ready(share: &Share, paint: Paint) -> String {
    let conditions = share.status.as_ref().map_or(&[][..], |s| &s.conditions);
    let Some(ready) = find(conditions, types::READY) else {
        return paint.judged("False", false) + ", it was not looked at yet; is the operator running?";
    };
    let well = ready.status == "True";
    let said = if well {
        ready.reason.clone()
    } else {
        reason_and_message(ready)
    };
    let stale = share.status.as_ref().and_then(|s| s.observed_generation) != share.metadata.generation;
    let stale = if stale { " (of an earlier spec)" } else { "" };
    format!("{}, {said}{stale}", paint.judged(&ready.status, well))
}

fn conditions(share: &Share, now: Timestamp) -> Table {
    let mut table = Table::new(&["TYPE", "STATUS", "SINCE", "REASON", "MESSAGE"]);
    for condition in share.status.iter().flat_map(|status| &status.conditions) {
        table.row(vec![
            condition.type_.clone(),
            condition.status.clone(),
            age::of(Some(&condition.last_transition_time), now),
            condition.reason.clone(),
            condition.message.clone(),
        ]);
    }
    table
}

fn seen<T>(seen: &Seen<T>, table: impl FnOnce(&[T]) -> Table) -> Result<Table, String> {
    match seen {
        Ok(items) => Ok(table(items)),
        Err(why) => Err(why.clone()),
    }
}

fn section(lines: &mut Vec<String>, paint: Paint, title: &str, table: &Result<Table, String>, nothing: &str) {
    lines.push(String::new());
    match table {
        Ok(table) if table.is_empty() => lines.push(format!("{}: {nothing}", paint.heading(title))),
        Ok(table) => {
            lines.push(paint.heading(title));
            lines.extend(table.lines().iter().map(|line| format!("  {line}")));
        }
        Err(why) => lines.push(format!("{}: not shown: {}", paint.heading(title), clean(why))),
    }
}

#[cfg(test)]
mod tests;
