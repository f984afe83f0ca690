//! Whether what was asked for is done.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{Resource, ResourceExt};
use shoal_crds::{AccessPhase, Share, ShareAccessRule, ShareBackend, Size, condition::types};

use crate::{lists, status::is_ready};

/// How far something is that was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It is done, and how.
    Done(String),
    /// It is not, and what is being waited for.
    NotYet(String),
    /// It will not be without a change.
    Never(String),
}

/// Not done: for now, or for good if the object says that it is stalled on the spec it has.
fn not_done(object: &impl Resource, answered: Option<i64>, conditions: &[Condition]) -> Progress {
    let current = answered == object.meta().generation;
    let why = lists::why(conditions, "it was not looked at yet; is the operator running?");
    match lists::find(conditions, types::STALLED) {
        Some(_) if current => Progress::Never(why),
        _ if current => Progress::NotYet(why),
        _ => Progress::NotYet("the operator has not looked at the change yet".into()),
    }
}

fn share_not_done(share: &Share) -> Progress {
    let status = share.status.as_ref();
    not_done(
        share,
        status.and_then(|s| s.observed_generation),
        status.map_or(&[], |s| &s.conditions),
    )
}

/// A share that is to have this size.
pub(crate) fn extended(share: &Share, size: Size) -> Progress {
    let has = share.status.as_ref().and_then(|status| status.size);
    match has.filter(|has| has.bytes() >= size.bytes()) {
        Some(has) => Progress::Done(format!("share '{}' has {has}", share.name_any())),
        None => share_not_done(share),
    }
}

/// A share that is to be Ready.
pub(crate) fn ready(share: &Share) -> Progress {
    if is_ready(share) {
        Progress::Done(format!("share '{}' is Ready", share.name_any()))
    } else {
        share_not_done(share)
    }
}

/// A share that was to be verified.
pub(crate) fn share_ensured(share: &Share, token: &str) -> Progress {
    let status = share.status.as_ref();
    if status.and_then(|s| s.last_handled_requested_at.as_deref()) != Some(token) {
        return match share_not_done(share) {
            Progress::Never(why) => Progress::Never(why),
            _ => Progress::NotYet(format!("share '{}' is still to be verified", share.name_any())),
        };
    }
    if is_ready(share) {
        Progress::Done(format!(
            "share '{}' was verified, and is as it should be",
            share.name_any()
        ))
    } else {
        let conditions = status.map_or(&[][..], |s| &s.conditions);
        Progress::Never(format!(
            "it was verified, and is not as it should be: {}",
            lists::why(conditions, "")
        ))
    }
}

/// A backend whose shares were to be verified.
pub(crate) fn backend_ensured(backend: &ShareBackend, token: &str) -> Progress {
    let status = backend.status.clone().unwrap_or_default();
    let far = status
        .ensure
        .as_ref()
        .map(|e| format!("{} of {}", e.done + e.failed, e.total));
    if status.last_handled_requested_at.as_deref() != Some(token) {
        return Progress::NotYet(match far {
            Some(far) => format!("{far} shares are verified"),
            None => "the round has not begun".into(),
        });
    }
    let name = backend.name_any();
    match status.ensure.filter(|ensure| ensure.failed > 0) {
        Some(ensure) => Progress::Never(format!(
            "{} of {} shares are not as they should be; kubectl get shares -A --field-selector status.backendName={name} -o wide says which",
            ensure.failed, ensure.total
        )),
        None => Progress::Done(format!(
            "sharebackend '{name}': {} shares were verified, and are as they should be",
            far.unwrap_or_else(|| "its".into())
        )),
    }
}

/// A rule that is to be in force.
pub(crate) fn in_force(rule: &ShareAccessRule) -> Progress {
    let status = rule.status.as_ref();
    let answered = status.and_then(|s| s.observed_generation);
    if status.and_then(|s| s.phase) == Some(AccessPhase::Active) && answered == rule.metadata.generation {
        Progress::Done(format!("{} is let in", lists::client(rule)))
    } else {
        not_done(rule, answered, status.map_or(&[], |s| &s.conditions))
    }
}

#[cfg(test)]
mod tests;
