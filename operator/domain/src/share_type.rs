//! Decisions about share types.

use std::collections::BTreeMap;

use jiff::Timestamp;
use shoal_crds::{
    Capabilities, Protocol, ShareType, ShareTypePhase, ShareTypeStatus, Size, SizeLimits,
    condition::{reasons, types},
    names::DEFAULT_SHARE_TYPE,
};

use crate::{
    Class, Decision, Failure, Next,
    class::failure,
    condition::Conditions,
    placement::{self, Candidate},
};

/// What a pass over a ShareType sees.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The type.
    pub share_type: ShareType,
    /// Every backend.
    pub candidates: Vec<Candidate>,
    /// Another type, if it is what shares without a type get.
    pub newer_default: Option<String>,
}

/// A type takes no steps of its own.
#[derive(Clone, Debug, PartialEq)]
pub enum Never {}

/// Says which backends the type selects.
pub fn decide(observed: &Observed, now: Timestamp) -> Decision<ShareTypeStatus, Never> {
    let before = observed.share_type.status.clone().unwrap_or_default();
    let generation = observed.share_type.metadata.generation.unwrap_or_default();
    let mut names: Vec<String> = observed
        .candidates
        .iter()
        .filter(|c| placement::selects(&observed.share_type, &c.name, &c.labels))
        .map(|c| c.name.clone())
        .collect();
    names.sort();
    names.truncate(256);
    let conditions = Conditions::new(&before.conditions, generation, now);
    let conditions = match &observed.newer_default {
        _ if !is_default(&observed.share_type) => conditions,
        None => conditions.set(
            types::DEFAULT,
            true,
            reasons::AVAILABLE,
            "shares without spec.shareTypeName are of it",
        ),
        Some(newer) => conditions.set(
            types::DEFAULT,
            false,
            reasons::NEWER_DEFAULT,
            format!(
                "ShareType '{newer}' is newer and marked as the default, too, so it is taken; take {DEFAULT_SHARE_TYPE} off \
                 one of them"
            ),
        ),
    };
    let (phase, conditions) = if names.is_empty() {
        let failure = failure(
            Class::Waiting,
            reasons::NO_BACKEND_FITS,
            selects_nothing(&observed.share_type),
        );
        (ShareTypePhase::Unavailable, conditions.failed(&failure))
    } else {
        (
            ShareTypePhase::Available,
            conditions.ready("shares can be made from it"),
        )
    };
    let status = ShareTypeStatus {
        observed_generation: Some(generation),
        phase: Some(phase),
        conditions: conditions.build(),
        backend_names: names,
    };
    Decision::done(status, Next::Await)
}

fn selects_nothing(share_type: &ShareType) -> String {
    let spec = &share_type.spec;
    match (&spec.backend_names, &spec.backend_selector) {
        (Some(names), _) => format!(
            "spec.backendNames: no ShareBackend is named {}; create one, or name another",
            names.join(" or ")
        ),
        (None, Some(selector)) => {
            let labels = selector.match_labels.iter();
            let labels: Vec<_> = labels.map(|(key, value)| format!("{key}={value}")).collect();
            format!(
                "spec.backendSelector: no ShareBackend carries {}; label one, or select others",
                labels.join(" and ")
            )
        }
        (None, None) => "there is no ShareBackend; create one".into(),
    }
}

/// The type that a share asks for: by name, or the one marked as default; of several the newest.
pub fn resolve(name: Option<&str>, types: &[ShareType]) -> Result<ShareType, Failure> {
    let name_of = |t: &ShareType| t.metadata.name.clone().unwrap_or_default();
    match name {
        Some(name) => types.iter().find(|t| name_of(t) == name).cloned().ok_or_else(|| {
            failure(Class::Waiting, reasons::SHARE_TYPE_NOT_FOUND, format!("spec.shareTypeName: ShareType '{name}' does not exist"))
        }),
        None => default_of(types).cloned().ok_or_else(|| {
                failure(
                    Class::Waiting,
                    reasons::NO_DEFAULT_SHARE_TYPE,
                    format!("spec.shareTypeName is not set and no ShareType is annotated {DEFAULT_SHARE_TYPE}: \"true\""),
                )
            }),
    }
}

/// What shares get that name no type: of those marked as default the newest, as with Kubernetes' StorageClasses.
pub fn default_of(types: &[ShareType]) -> Option<&ShareType> {
    let age = |t: &ShareType| t.metadata.creation_timestamp.as_ref().map(|t| t.0);
    types
        .iter()
        .filter(|t| is_default(t))
        .max_by_key(|t| (age(t), std::cmp::Reverse(t.metadata.name.clone())))
}

/// Whether it is marked as what shares get that name no type.
pub fn is_default(share_type: &ShareType) -> bool {
    share_type
        .metadata
        .annotations
        .as_ref()
        .and_then(|a| a.get(DEFAULT_SHARE_TYPE))
        .is_some_and(|value| value == "true")
}

/// Whether a share of this namespace, protocol and size may be made from the type.
pub fn admit(
    share_type: &ShareType,
    namespace_labels: &BTreeMap<String, String>,
    protocol: Protocol,
    size: Size,
) -> Result<(), Failure> {
    let name = share_type.metadata.name.as_deref().unwrap_or_default();
    if share_type
        .spec
        .allowed_namespaces
        .as_ref()
        .is_some_and(|s| !s.matches(namespace_labels))
    {
        return Err(failure(
            Class::Stalled,
            reasons::SHARE_TYPE_NOT_ALLOWED,
            format!(
                "spec.shareTypeName: this namespace may not use ShareType '{name}'; ask for its labels, or use another type"
            ),
        ));
    }
    if !share_type.spec.protocols.is_empty() && !share_type.spec.protocols.contains(&protocol) {
        let offered: Vec<_> = share_type.spec.protocols.iter().map(|p| p.as_str()).collect();
        return Err(failure(
            Class::Stalled,
            reasons::PROTOCOL_NOT_OFFERED,
            format!(
                "spec.protocol: ShareType '{name}' offers {}, not {}",
                offered.join(", "),
                protocol.as_str()
            ),
        ));
    }
    within(share_type.spec.size, size)
}

/// Whether a size is within limits.
pub fn within(limits: SizeLimits, size: Size) -> Result<(), Failure> {
    let refuse = |what: String| Err(failure(Class::Stalled, reasons::SIZE_OUT_OF_RANGE, what));
    match (limits.min, limits.max) {
        (Some(min), _) if size < min => refuse(format!(
            "spec.size: {size} is below the type's smallest size, {min}; ask for at least that"
        )),
        (_, Some(max)) if size > max => refuse(format!(
            "spec.size: {size} is above the type's largest size, {max}; ask for at most that"
        )),
        _ => Ok(()),
    }
}

/// Whether a share may become as large as this. Growing beyond `max`, up to `maxExtend`, took a verb at admission; one that
/// is larger than `max` already may shrink.
pub fn may_become(limits: SizeLimits, now: Size, asked: Size) -> Result<(), Failure> {
    let max = limits.max_extend.or(limits.max).map(|max| max.max(now));
    within(SizeLimits { max, ..limits }, asked)
}

/// What a share copies from its type when it is made: later edits of the type don't change it (a Manila rule).
pub fn capabilities(share_type: &ShareType) -> Capabilities {
    Capabilities {
        shrink: share_type.spec.shrink,
        snapshots: share_type.spec.snapshots,
        create_from_snapshot: share_type.spec.create_from_snapshot,
        size: share_type.spec.size,
        root: share_type.spec.root.clone(),
        squash: share_type.spec.squash,
        deletion: share_type.spec.deletion,
        retention: share_type.spec.retention,
        deletion_policy: share_type.spec.deletion_policy,
    }
}
