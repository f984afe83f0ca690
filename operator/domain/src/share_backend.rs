//! Decisions about backends.

use std::time::Duration;

use jiff::Timestamp;
use shoal_crds::{
    BackendPhase, Capacity, CephStatus, NfsStatus, ShareBackend, ShareBackendStatus, Size,
    condition::{reasons, types},
};

use crate::{
    Class, Decision, Failure, Next, Scope, Step,
    condition::Conditions,
    identity::{Description, Identity},
};

/// How often a backend that answers is asked again.
const POLL: Duration = Duration::from_secs(30);
/// How often one that does not is.
const RETRY: Duration = Duration::from_secs(3);

/// What a pass over a ShareBackend sees.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The backend.
    pub backend: ShareBackend,
    /// What it said of itself in this pass, or why not. None: not asked yet.
    pub description: Option<Result<Description, Failure>>,
    /// What shares were last told of it in this pass.
    pub admitted: Option<Result<Description, Failure>>,
}

/// What only backends do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Connect, if need be, and ask the backend what it is.
    Describe,
    /// Let shares use it, or tell them why not.
    Admit(Box<Result<Description, Failure>>),
}

impl Effect {
    /// For logs, metrics and failpoints.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Describe => "Describe",
            Self::Admit(_) => "Admit",
        }
    }
}

/// Describes the backend, records what it is at first contact, and admits shares to it only while it answers as recorded.
pub fn decide(observed: &Observed, now: Timestamp) -> Decision<ShareBackendStatus, Effect> {
    let before = observed.backend.status.clone().unwrap_or_default();
    let Some(answer) = &observed.description else {
        return Decision::step(before, Step::Do(Effect::Describe));
    };
    let verdict = answer
        .clone()
        .and_then(|description| same_as_recorded(before.ceph.as_ref(), description));
    let status = status(&observed.backend, &before, &verdict, now);
    // The record comes before the first share: a share's choice rests on it.
    if verdict.is_ok() && before.ceph.is_none() {
        return Decision::step(status, Step::Record);
    }
    if observed.admitted.as_ref() != Some(&verdict) {
        return Decision::step(status, Step::Do(Effect::Admit(Box::new(verdict))));
    }
    Decision::done(status, Next::After(if verdict.is_ok() { POLL } else { RETRY }))
}

/// Another cluster or file system than the one recorded holds none of our shares: no effects at all there.
fn same_as_recorded(recorded: Option<&CephStatus>, description: Description) -> Result<Description, Failure> {
    let found = &description.identity;
    match recorded {
        Some(r) if r.fsid != found.fsid || r.fs_id != found.fs_id => Err(Failure {
            class: Class::Stalled,
            scope: Scope::Backend,
            reason: reasons::BACKEND_REPLACED,
            message: format!(
                "recorded: cluster {} file system {} ({}); found: cluster {} file system {} ({}). Nothing is touched \
                 there. If the old storage is gone for good, delete its shares and this ShareBackend, and create another",
                r.fsid, r.fs_name, r.fs_id, found.fsid, found.fs_name, found.fs_id
            ),
        }),
        _ => Ok(description),
    }
}

fn status(
    backend: &ShareBackend,
    before: &ShareBackendStatus,
    verdict: &Result<Description, Failure>,
    now: Timestamp,
) -> ShareBackendStatus {
    let generation = backend.metadata.generation.unwrap_or_default();
    let conditions = Conditions::new(&before.conditions, generation, now);
    match verdict {
        Ok(description) => {
            let conditions = conditions.ready("it answers");
            let conditions = if backend.spec.simulated.is_some() {
                conditions.set(
                    reasons::SIMULATED,
                    true,
                    reasons::SIMULATED,
                    "for evaluation: nothing is stored anywhere",
                )
            } else {
                conditions
            };
            ShareBackendStatus {
                observed_generation: Some(generation),
                phase: Some(BackendPhase::Available),
                conditions: conditions.build(),
                ceph: Some(CephStatus {
                    fsid: description.identity.fsid.clone(),
                    fs_name: description.identity.fs_name.clone(),
                    fs_id: description.identity.fs_id,
                    version: description.version.clone(),
                    monitors: description.monitors.clone(),
                }),
                nfs: (!description.nfs_endpoints.is_empty()).then(|| NfsStatus {
                    endpoints: description.nfs_endpoints.clone(),
                }),
                capacity: Some(capacity(before.capacity, description)),
                protocols: description.protocols.clone(),
            }
        }
        Err(failure) => ShareBackendStatus {
            observed_generation: Some(generation),
            phase: Some(BackendPhase::Unavailable),
            conditions: conditions.failed(failure).build(),
            ..before.clone()
        },
    }
}

/// Room moves all the time; it is written only when it moved by a hundredth of the whole.
fn capacity(before: Option<Capacity>, description: &Description) -> Capacity {
    let now = Capacity {
        total: description.total_bytes.and_then(Size::from_bytes),
        free: description.free_bytes.and_then(Size::from_bytes),
    };
    match (before, now) {
        (
            Some(Capacity {
                total: Some(old_total),
                free: Some(old_free),
            }),
            Capacity {
                total: Some(total),
                free: Some(free),
            },
        ) if old_total.bytes().abs_diff(total.bytes()) < total.bytes() / 100
            && old_free.bytes().abs_diff(free.bytes()) < total.bytes() / 100 =>
        {
            Capacity {
                total: Some(old_total),
                free: Some(old_free),
            }
        }
        _ => now,
    }
}

/// What was recorded of a backend at first contact.
pub fn recorded(status: &ShareBackendStatus) -> Option<Identity> {
    status.ceph.as_ref().map(|c| Identity {
        fsid: c.fsid.clone(),
        fs_name: c.fs_name.clone(),
        fs_id: c.fs_id,
    })
}

/// Whether a status says that the backend is Ready.
pub fn is_ready(status: &ShareBackendStatus) -> bool {
    crate::condition::is_true(&status.conditions, types::READY)
}
