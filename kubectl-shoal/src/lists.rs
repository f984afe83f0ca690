//! What there is, in lines.

use jiff::Timestamp;
use k8s_openapi::{api::events::v1::Event, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};
use shoal_crds::{
    AccessPhase, CredentialsSecretReference, DeletionPhase, DeletionPolicy, Differences, LockAction, Orphan,
    OrphanStatus, ResourceLock, Share, ShareAccessRule, ShareBackend, ShareDeletion, condition::types,
};

use crate::{
    age,
    text::{Table, clean},
};

/// A value as it stands in the API.
pub(crate) fn word(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}")
}

/// The same of one that may be left out.
pub(crate) fn word_of(value: Option<&impl std::fmt::Debug>) -> String {
    value.map_or_else(String::new, word)
}

pub(crate) fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// What stands in the way: what is stalled, what is being waited for, or why it is not Ready.
pub(crate) fn why(conditions: &[Condition], unknown: &str) -> String {
    let kinds = [types::STALLED, types::RECONCILING, types::READY];
    let told = kinds.iter().find_map(|kind| find(conditions, kind));
    told.map_or_else(|| unknown.into(), reason_and_message)
}

pub(crate) fn reason_and_message(condition: &Condition) -> String {
    let message = clean(&condition.message);
    if message.is_empty() {
        condition.reason.clone()
    } else {
        format!("{}: {message}", condition.reason)
    }
}

/// Names of objects, for a message.
pub(crate) fn names<K: Resource>(objects: &[K]) -> String {
    let names: Vec<_> = objects.iter().map(ResourceExt::name_any).collect();
    if names.is_empty() {
        "none".into()
    } else {
        names.join(", ")
    }
}

/// With the namespace in front if there are those of several.
fn with_namespace(all: bool, heading: &[&'static str]) -> Table {
    let namespace = all.then_some("NAMESPACE");
    let heading: Vec<_> = namespace.into_iter().chain(heading.iter().copied()).collect();
    Table::new(&heading)
}

fn in_namespace(all: bool, object: &impl ResourceExt, cells: Vec<String>) -> Vec<String> {
    let namespace = all.then(|| object.namespace().unwrap_or_default());
    namespace.into_iter().chain(cells).collect()
}

/// Access rules.
pub(crate) fn rules(rules: &[ShareAccessRule], all: bool, wide: bool, now: Timestamp) -> Table {
    let mut heading = vec!["NAME", "SHARE", "TYPE", "TO", "LEVEL", "PHASE", "AGE"];
    heading.extend(wide.then_some("SECRET"));
    heading.push("WHY");
    let mut table = with_namespace(all, &heading);
    for rule in rules {
        let status = rule.status.as_ref();
        let phase = status.and_then(|s| s.phase);
        let mut cells = vec![
            rule.name_any(),
            rule.spec.share_ref.name.clone(),
            word(&rule.spec.access_type),
            client(rule),
            level(rule),
            word_of(phase.as_ref()),
            age::of(rule.metadata.creation_timestamp.as_ref(), now),
        ];
        let secret = status.and_then(|s| s.credentials_secret_ref.as_ref());
        cells.extend(wide.then(|| secret.map_or_else(String::new, secret_name)));
        cells.push(match phase {
            Some(AccessPhase::Active) => String::new(),
            _ => why(status.map_or(&[], |s| &s.conditions), ""),
        });
        table.row(in_namespace(all, rule, cells));
    }
    table
}

/// With its namespace where that is not the rule's.
fn secret_name(secret: &CredentialsSecretReference) -> String {
    match &secret.namespace {
        Some(namespace) => format!("{namespace}/{}", secret.name),
        None => secret.name.clone(),
    }
}

/// The identity that was made for a rule that names none.
pub(crate) fn made_identity(rule: &ShareAccessRule) -> String {
    let told = rule.status.as_ref().and_then(|status| status.identity.clone());
    told.unwrap_or_else(|| shoal_crds::names::generated_identity(&rule.uid().unwrap_or_default()))
}

/// Whom a rule lets in, as far as it is for everybody to read.
pub(crate) fn client(rule: &ShareAccessRule) -> String {
    let spec = &rule.spec;
    match (&spec.access_to, &spec.access_to_secret_ref) {
        (Some(to), _) => to.clone(),
        (None, Some(secret)) => format!("Secret {}", secret.name),
        (None, None) => made_identity(rule),
    }
}

/// The level, and the one in force where that is another.
fn level(rule: &ShareAccessRule) -> String {
    let wanted = word(&rule.spec.access_level);
    match rule.status.as_ref().and_then(|s| s.applied_level) {
        Some(applied) if applied != rule.spec.access_level => format!("{wanted} (now {applied:?})"),
        _ => wanted,
    }
}

/// Locks.
pub(crate) fn locks(locks: &[ResourceLock], all: bool, wide: bool, now: Timestamp) -> Table {
    let mut heading = vec!["NAME", "HOLDS", "OWNER", "PHASE", "AGE"];
    heading.extend(wide.then_some("CONTEXT"));
    heading.push("REASON");
    let mut table = with_namespace(all, &heading);
    for lock in locks {
        let phase = lock.status.as_ref().and_then(|s| s.phase);
        let mut cells = vec![
            lock.name_any(),
            held(lock),
            lock.spec.owner.clone(),
            word_of(phase.as_ref()),
            age::of(lock.metadata.creation_timestamp.as_ref(), now),
        ];
        cells.extend(wide.then(|| word(&lock.spec.context)));
        cells.push(lock.spec.reason.clone().unwrap_or_default());
        table.row(in_namespace(all, lock, cells));
    }
    table
}

/// What a lock holds.
pub(crate) fn held(lock: &ResourceLock) -> String {
    let resource = &lock.spec.resource_ref;
    let held = format!("{} {}", resource.kind.as_str(), resource.name);
    match lock.spec.action {
        LockAction::Delete => held,
        LockAction::Show => format!("the key of {held}"),
    }
}

/// ShareDeletions.
pub(crate) fn deletions(deletions: &[ShareDeletion], wide: bool, now: Timestamp) -> Table {
    let mut heading = vec![
        "NAME",
        "NAMESPACE",
        "SHARE",
        "SIZE",
        "BACKEND",
        "PHASE",
        "REVOKED",
        "AGE",
    ];
    heading.extend(wide.then_some("HANDLE"));
    heading.push("WHAT STAYS");
    let mut table = Table::new(&heading);
    for deletion in deletions {
        let (spec, status) = (&deletion.spec, deletion.status.as_ref());
        let mut cells = vec![
            deletion.name_any(),
            spec.share_ref.namespace.clone(),
            spec.share_ref.name.clone(),
            spec.size.to_string(),
            spec.backend_name.clone(),
            word_of(status.and_then(|s| s.phase).as_ref()),
            status.and_then(|s| s.access_revoked).unwrap_or(false).to_string(),
            age::of(deletion.metadata.creation_timestamp.as_ref(), now),
        ];
        cells.extend(wide.then(|| spec.handle.clone().unwrap_or_default()));
        cells.push(what_stays(deletion));
        table.row(cells);
    }
    table
}

/// What becomes of the data of a deleted share.
pub(crate) fn what_stays(deletion: &ShareDeletion) -> String {
    let (spec, status) = (&deletion.spec, deletion.status.as_ref());
    if let Some(adopter) = &spec.adopted_by {
        return format!("the data, for Share {}/{}", adopter.namespace, adopter.name);
    }
    match status.and_then(|s| s.phase) {
        Some(DeletionPhase::Abandoned) => match &spec.handle {
            Some(handle) => format!("all that is left, given up: {handle}"),
            None => "all that is left, given up".into(),
        },
        Some(DeletionPhase::Retained) => match (&spec.retain_until, spec.deletion_policy) {
            (Some(until), _) => format!("the data, until {}", until.0),
            (None, DeletionPolicy::Retain) => "the data, until spec.retainUntil is set".into(),
            (None, DeletionPolicy::Delete) => "the data".into(),
        },
        Some(DeletionPhase::Error) => {
            let error = status.and_then(|s| s.last_error.as_deref());
            format!("tried again: {}", error.unwrap_or("it failed"))
        }
        _ => "nothing, when it is done".into(),
    }
}

/// ShareBackends.
pub(crate) fn backends(backends: &[ShareBackend], wide: bool, now: Timestamp) -> Table {
    let mut heading = vec![
        "NAME",
        "PHASE",
        "READY",
        "PROTOCOLS",
        "NEW SHARES",
        "SHARES",
        "DELETIONS",
        "FREE",
        "PROMISED",
        "AGE",
    ];
    if wide {
        heading.extend(["FILE SYSTEM", "VERSION"]);
    }
    heading.push("WHY");
    let mut table = Table::new(&heading);
    for backend in backends {
        let status = backend.status.clone().unwrap_or_default();
        let ready = find(&status.conditions, types::READY);
        let capacity = status.capacity.unwrap_or_default();
        let protocols: Vec<_> = status.protocols.iter().map(|p| p.as_str()).collect();
        let size = |size: Option<shoal_crds::Size>| size.map_or_else(String::new, |size| size.to_string());
        let count = |count: Option<i64>| count.map_or_else(String::new, |count| count.to_string());
        let mut cells = vec![
            backend.name_any(),
            word_of(status.phase.as_ref()),
            ready.map_or_else(String::new, |ready| ready.status.clone()),
            protocols.join(","),
            new_shares(backend).into(),
            count(status.shares),
            count(status.pending_deletions),
            size(capacity.free),
            size(capacity.provisioned),
            age::of(backend.metadata.creation_timestamp.as_ref(), now),
        ];
        if wide {
            let ceph = status.ceph.as_ref();
            cells.push(ceph.map_or_else(String::new, |ceph| ceph.fs_name.clone()));
            cells.push(ceph.map_or_else(String::new, |ceph| ceph.version.clone()));
        }
        cells.push(about(backend));
        table.row(cells);
    }
    table
}

/// What backends hold that no object owns.
pub(crate) fn orphans(backends: &[ShareBackend]) -> Table {
    let mut table = Table::new(&["BACKEND", "HANDLE", "CLUSTER", "NAMESPACE", "SHARE", "LEFT"]);
    for (backend, orphan) in all_orphans(backends) {
        let owner = orphan.owner.clone().unwrap_or_default();
        table.row(vec![
            backend.name_any(),
            orphan.handle.clone(),
            owner.cluster,
            owner.namespace,
            owner.name,
            orphan.left.clone().unwrap_or_default(),
        ]);
    }
    table
}

/// The same for machines.
pub(crate) fn orphans_value(backends: &[ShareBackend]) -> Value {
    let one = |(backend, orphan): (&ShareBackend, &Orphan)| {
        let mut value = json!(orphan);
        value["backendName"] = backend.name_any().into();
        value
    };
    json!({"apiVersion": "v1", "kind": "List", "items": all_orphans(backends).map(one).collect::<Vec<_>>()})
}

fn all_orphans(backends: &[ShareBackend]) -> impl Iterator<Item = (&ShareBackend, &Orphan)> {
    let of = |backend| found(backend).map_or(&[][..], |found| &found.list);
    backends
        .iter()
        .flat_map(move |backend| of(backend).iter().map(move |orphan| (backend, orphan)))
}

fn found(backend: &ShareBackend) -> Option<&OrphanStatus> {
    backend.status.as_ref()?.orphans.as_ref()
}

/// What the list does not say.
pub(crate) fn about_orphans(backends: &[ShareBackend]) -> Vec<String> {
    let mut notes = Vec::new();
    for backend in backends {
        let name = backend.name_any();
        let Some(found) = found(backend) else {
            notes.push(format!("sharebackend '{name}' was not looked through yet"));
            continue;
        };
        if i64::try_from(found.list.len()).is_ok_and(|shown| shown < found.subvolumes) {
            let (shown, all) = (found.list.len(), found.subvolumes);
            notes.push(format!(
                "sharebackend '{name}': the first {shown} of {all} are shown"
            ));
        }
        if found.exports > 0 {
            let exports = found.exports;
            notes.push(format!(
                "sharebackend '{name}': {exports} NFS exports lead to what no object owns"
            ));
        }
    }
    notes
}

/// What would be changed on backends that are only looked at.
pub(crate) fn differences(shares: &[Share]) -> Table {
    let mut table = Table::new(&["NAMESPACE", "SHARE", "BACKEND", "DIFFERENCE"]);
    for (share, differences) in compared(shares) {
        let untold = usize::try_from(differences.total).unwrap_or_default();
        let untold = untold.saturating_sub(differences.list.len());
        let more = (untold > 0).then(|| format!("{untold} more"));
        for difference in differences.list.iter().chain(&more) {
            table.row(vec![
                share.namespace().unwrap_or_default(),
                share.name_any(),
                backend_of(share).unwrap_or_default().to_owned(),
                difference.clone(),
            ]);
        }
    }
    table
}

/// The same for machines: every share that was compared.
pub(crate) fn differences_value(shares: &[Share]) -> Value {
    let one = |(share, differences): (&Share, &Differences)| {
        json!({
            "namespace": share.namespace(), "name": share.name_any(), "backendName": backend_of(share),
            "total": differences.total, "list": differences.list,
        })
    };
    json!({"apiVersion": "v1", "kind": "List", "items": compared(shares).map(one).collect::<Vec<_>>()})
}

fn compared(shares: &[Share]) -> impl Iterator<Item = (&Share, &Differences)> {
    let all = shares.iter();
    all.filter_map(|share| Some((share, share.status.as_ref()?.differences.as_ref()?)))
}

fn backend_of(share: &Share) -> Option<&str> {
    share.status.as_ref()?.backend_name.as_deref()
}

/// How much of it was compared.
pub(crate) fn about_differences(backends: &[ShareBackend], shares: &[Share]) -> Vec<String> {
    let mut notes = Vec::new();
    for backend in backends.iter().filter(|backend| backend.spec.dry_run) {
        let name = backend.name_any();
        let is_on_it = |share: &&Share| backend_of(share) == Some(&name);
        let all = shares.iter().filter(is_on_it).count();
        let done = compared(shares).filter(|(share, _)| is_on_it(share)).count();
        let why = if done < all { about(backend) } else { String::new() };
        let why = if why.is_empty() { why } else { format!("; {why}") };
        notes.push(format!(
            "sharebackend '{name}': {done} of {all} shares are compared{why}"
        ));
    }
    if notes.is_empty() {
        notes.push("no sharebackend is only looked at (spec.dryRun), so nothing is compared".into());
    }
    notes
}

/// Whether a backend takes new shares.
fn new_shares(backend: &ShareBackend) -> &'static str {
    if backend.spec.paused {
        "paused"
    } else if backend.spec.dry_run {
        "dry run"
    } else if backend.spec.scheduling_enabled && backend.metadata.deletion_timestamp.is_none() {
        "yes"
    } else {
        "no"
    }
}

/// What there is to say of a backend: why it is not Ready, what it waits for, why it takes no shares.
fn about(backend: &ShareBackend) -> String {
    let conditions = backend.status.as_ref().map_or(&[][..], |s| &s.conditions);
    let ready = find(conditions, types::READY);
    if let Some(ready) = ready.filter(|ready| ready.status != "True") {
        return reason_and_message(ready);
    }
    let more = [types::DELETION_BLOCKED, types::ENSURING];
    let told = more.iter().find_map(|kind| find(conditions, kind));
    told.map(reason_and_message)
        .or_else(|| backend.spec.disabled_reason.clone())
        .unwrap_or_default()
}

/// Events, the latest last.
pub(crate) fn events(events: &[Event], now: Timestamp) -> Table {
    let mut table = Table::new(&["LAST", "TYPE", "REASON", "OBJECT", "NOTE"]);
    for event in events {
        let about = event.regarding.as_ref().map_or_else(String::new, |about| {
            let part = |text: &Option<String>| text.clone().unwrap_or_default();
            format!("{} {}", part(&about.kind), part(&about.name))
        });
        let count = event.series.as_ref().map_or(1, |series| series.count);
        let times = if count > 1 {
            format!("{count} times: ")
        } else {
            String::new()
        };
        table.row(vec![
            last(event).map_or_else(
                || "-".into(),
                |at| age::duration(now.as_second() - at.as_second()),
            ),
            event.type_.clone().unwrap_or_default(),
            event.reason.clone().unwrap_or_default(),
            about,
            format!("{times}{}", event.note.clone().unwrap_or_default()),
        ]);
    }
    table
}

/// When it happened last.
pub(crate) fn last(event: &Event) -> Option<Timestamp> {
    let series = event.series.as_ref().map(|series| series.last_observed_time.0);
    let first = event.event_time.as_ref().map(|time| time.0);
    let old = event.deprecated_last_timestamp.as_ref().map(|time| time.0);
    let made = event.metadata.creation_timestamp.as_ref().map(|time| time.0);
    series.or(first).or(old).or(made)
}

#[cfg(test)]
mod tests;
