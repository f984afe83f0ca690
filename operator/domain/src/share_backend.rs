//! Decisions about backends.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use shoal_crds::{
    BackendPhase, Capacity, CephStatus, NfsStatus, OrphanStatus, ShareBackend, ShareBackendStatus, Size,
    condition::{reasons, types},
    names::FINALIZER,
    removable_exports,
};

use crate::{
    Class, Decision, Failure, Next, Scope, Step,
    condition::Conditions,
    ensure::{self, Round, Tally},
    identity::{Description, Identity},
    placement::{Candidate, Door, Load},
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
    /// What shares have of it.
    pub load: Load,
    /// The round over its shares that this replica makes, and how far it is.
    pub round: Option<(Round, Tally)>,
    /// How far it has been looked through for what no object owns.
    pub scan: Scan,
    /// Whether shares were asked for it in this pass.
    pub is_asked: bool,
    /// If it is being deleted: some of what is on it, shares as `namespace/name`.
    pub in_the_way: Vec<String>,
    /// Whether the API server itself says that there are none.
    pub is_empty: bool,
}

/// How far a backend has been looked through for what no object owns.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    /// Whether to go on with it now.
    pub is_due: bool,
    /// When it is next.
    pub again: Duration,
    /// What was found, once this replica has looked through all.
    pub found: Option<OrphanStatus>,
    /// Why it did not go on last time.
    pub failed: Option<Failure>,
}

/// What only backends do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Connect, if need be, and ask the backend what it is.
    Describe,
    /// Look through what is there, or some of it.
    Scan(Identity),
    /// Let shares use it, or tell them why not.
    Admit(Box<Result<Description, Failure>>),
    /// Have some more of its shares verified.
    Ensure(Round),
    /// All were.
    EndRound,
    /// Ask the API server itself whether no share is on it, and let none come from now on.
    ConfirmEmpty,
}

impl Effect {
    /// For logs, metrics and failpoints.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Describe => "Describe",
            Self::Scan(_) => "Scan",
            Self::Admit(_) => "Admit",
            Self::Ensure(_) => "Ensure",
            Self::EndRound => "EndRound",
            Self::ConfirmEmpty => "ConfirmEmpty",
        }
    }
}

/// Describes the backend, records what it is at first contact, and admits shares to it only while it answers as recorded.
pub fn decide(observed: &Observed, now: Timestamp) -> Decision<ShareBackendStatus, Effect> {
    let before = observed.backend.status.clone().unwrap_or_default();
    let metadata = &observed.backend.metadata;
    let is_held = metadata.finalizers.iter().flatten().any(|f| f == FINALIZER);
    match (is_held, metadata.deletion_timestamp.is_some()) {
        (false, false) => return Decision::step(before, Step::AddFinalizer),
        (false, true) => return Decision::done(before, Next::Await),
        (true, true) if observed.is_empty => return Decision::step(before, Step::RemoveFinalizer),
        (true, true) if observed.in_the_way.is_empty() => {
            return Decision::step(before, Step::Do(Effect::ConfirmEmpty));
        }
        // Until its shares are gone they are looked after as ever.
        (true, _) => {}
    }
    let answer = match (&observed.description, observed.backend.spec.paused) {
        (_, true) => Err(paused()),
        (Some(answer), _) => answer.clone(),
        (None, _) => return Decision::step(before, Step::Do(Effect::Describe)),
    };
    let verdict = answer.and_then(|description| same_as_recorded(before.ceph.as_ref(), description));
    if let (Ok(description), true) = (&verdict, observed.scan.is_due) {
        let effect = Effect::Scan(description.identity.clone());
        return Decision::step(before, Step::Do(effect));
    }
    let verdict = verdict.and_then(|description| scanned(observed, &before, description));
    let status = status(observed, &before, &verdict, now);
    // The record comes before the first share: a share's choice rests on it. And a round before its first share, for the
    // addresses that began it are stored with it.
    let round = ensure::under_way(&status);
    if verdict.is_ok() && (before.ceph.is_none() || round != ensure::under_way(&before)) {
        return Decision::step(status, Step::Record);
    }
    let told = match only_looked_at(&observed.backend) {
        Some(why) => verdict.clone().and(Err(why)),
        None => verdict.clone(),
    };
    if observed.admitted.as_ref() != Some(&told) {
        return Decision::step(status, Step::Do(Effect::Admit(Box::new(told))));
    }
    if let Err(failure) = &verdict {
        let goes_on = failure.reason == reasons::BACKEND_NOT_SCANNED;
        return Decision::done(
            status,
            Next::After(if goes_on { observed.scan.again } else { RETRY }),
        );
    }
    let poll = POLL.min(observed.scan.again);
    match (round, &observed.round) {
        (Some(round), _) if !observed.is_asked && told.is_ok() => {
            Decision::step(status, Step::Do(Effect::Ensure(round)))
        }
        (Some(_), _) => Decision::done(status, Next::After(ensure::POLL)),
        (None, Some(_)) => Decision::step(status, Step::Do(Effect::EndRound)),
        (None, None) => Decision::done(status, Next::After(poll)),
    }
}

fn paused() -> Failure {
    Failure {
        class: Class::Waiting,
        scope: Scope::Backend,
        reason: reasons::BACKEND_PAUSED,
        message: "spec.paused is true: nothing is asked and nothing changed there until it is false".into(),
    }
}

/// Why nothing is changed on a backend that answers.
fn only_looked_at(backend: &ShareBackend) -> Option<Failure> {
    backend.spec.dry_run.then(|| Failure {
        class: Class::Waiting,
        scope: Scope::Backend,
        reason: reasons::DRY_RUN,
        message: "spec.dryRun is true: it is looked at, its shares say in status.differences what would be changed (kubectl shoal differences), and \
                  nothing is changed there until it is false"
            .into(),
    })
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
                 there. If the old storage is gone for good, delete its shares, set spec.abandon on their ShareDeletions, and \
                 delete this ShareBackend and create another",
                r.fsid, r.fs_name, r.fs_id, found.fsid, found.fs_name, found.fs_id
            ),
        }),
        _ => Ok(description),
    }
}

/// No share is put where nobody has looked yet whether it has data there already. Later replicas look while shares are worked on:
/// those that have no place yet wait for that by themselves.
fn scanned(
    observed: &Observed,
    before: &ShareBackendStatus,
    description: Description,
) -> Result<Description, Failure> {
    if before.orphans.is_some() || observed.scan.found.is_some() {
        return Ok(description);
    }
    Err(Failure {
        class: Class::Waiting,
        scope: Scope::Backend,
        reason: reasons::BACKEND_NOT_SCANNED,
        message: match &observed.scan.failed {
            None => "it is being looked through for data that no object owns".into(),
            Some(why) => format!(
                "it could not be looked through for data that no object owns: {}",
                why.message
            ),
        },
    })
}

fn status(
    observed: &Observed,
    before: &ShareBackendStatus,
    verdict: &Result<Description, Failure>,
    now: Timestamp,
) -> ShareBackendStatus {
    let backend = &observed.backend;
    let generation = backend.metadata.generation.unwrap_or_default();
    let conditions = Conditions::new(&before.conditions, generation, now);
    let is_leaving = backend.metadata.deletion_timestamp.is_some();
    let conditions = if is_leaving {
        conditions.set(
            types::DELETION_BLOCKED,
            true,
            reasons::HAS_SHARES,
            in_the_way(observed),
        )
    } else {
        conditions
    };
    let phase = |phase| Some(if is_leaving { BackendPhase::Deleting } else { phase });
    // What it is, is recorded first; afterwards its addresses stay as they were, for a round begins when they differ.
    let only_looked_at = only_looked_at(backend).filter(|_| before.ceph.is_some());
    let ensure = match verdict {
        Ok(_) if only_looked_at.is_some() => before.ensure.clone(),
        Ok(description) => ensure::advance(
            before,
            ensure::requested(&backend.metadata).as_deref(),
            ensure::has_moved(before, description),
            tally(observed, before),
            now,
        ),
        Err(_) => before.ensure.clone(),
    };
    let has_ended = ensure.as_ref().is_some_and(|e| e.finished_at.is_some());
    let last_handled_requested_at = ensure
        .as_ref()
        .filter(|_| has_ended)
        .and_then(|e| e.requested_at.clone())
        .or_else(|| before.last_handled_requested_at.clone());
    let conditions = match &ensure {
        Some(ensure) if !has_ended => {
            conditions.set(types::ENSURING, true, reasons::ENSURING, ensure::told(ensure))
        }
        _ => conditions,
    };
    let shares = i64::try_from(observed.load.shares).ok();
    let deletions = i64::try_from(observed.load.deletions).ok();
    let pending_deletions = deletions.filter(|count| *count > 0);
    let orphans = observed.scan.found.clone().or_else(|| before.orphans.clone());
    match (verdict, &only_looked_at) {
        (Ok(description), None) => {
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
            let conditions = match exports_stay(backend, description) {
                Some((reason, message)) => conditions.set(types::EXPORTS_STAY, true, reason, message),
                None => conditions,
            };
            ShareBackendStatus {
                observed_generation: Some(generation),
                phase: phase(BackendPhase::Available),
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
                capacity: Some(capacity(before.capacity, description, observed.load)),
                protocols: description.protocols.clone(),
                shares,
                pending_deletions,
                orphans,
                ensure,
                last_handled_requested_at,
            }
        }
        (Err(failure), _) | (Ok(_), Some(failure)) => ShareBackendStatus {
            observed_generation: Some(generation),
            phase: phase(BackendPhase::Unavailable),
            conditions: conditions.failed(failure).build(),
            shares,
            pending_deletions,
            orphans,
            ..before.clone()
        },
    }
}

/// Why no export is removed from its NFS cluster, if that is so.
fn exports_stay(backend: &ShareBackend, description: &Description) -> Option<(&'static str, String)> {
    let cluster_id = &backend.spec.ceph.as_ref()?.nfs.as_ref()?.cluster_id;
    let exports = &description.nfs_exports;
    let most = removable_exports(cluster_id);
    if exports.all > most {
        return Some((
            reasons::TOO_MANY_EXPORTS,
            format!(
                "spec.ceph.nfs.clusterID: NFS cluster '{cluster_id}' has more than {most} exports, and of so many Ceph's 'nfs export rm' loses \
                 some, whoever sends it. Shoal sends none: it lets nobody in by exports that should go. Take exports out by hand \
                 (docs/operations/backends.md says how), and make another NFS cluster, with a ShareBackend of its own, for more"
            ),
        ));
    }
    (!exports.outdated.is_empty()).then(|| {
        (
            reasons::OUTDATED_EXPORTS,
            format!(
                "spec.ceph.nfs.clusterID: NFS cluster '{cluster_id}' has exports of an older Ceph that are not Shoal's, {}; this Ceph removes no \
                 export while they are there. Shoal lets nobody in by exports that should go. Bring them up to date by hand \
                 (docs/operations/upgrading-ceph.md says how)",
                exports.outdated.join(", ")
            ),
        )
    })
}

/// How far the round is that status says goes on. None: this replica has not begun it.
fn tally(observed: &Observed, before: &ShareBackendStatus) -> Option<Tally> {
    let (round, tally) = observed.round.as_ref()?;
    (Some(round) == ensure::under_way(before).as_ref()).then_some(*tally)
}

fn in_the_way(observed: &Observed) -> String {
    let some = observed.in_the_way.join(", ");
    let Load {
        shares, deletions, ..
    } = observed.load;
    let more = if shares + deletions > observed.in_the_way.len() as u64 {
        ", …"
    } else {
        ""
    };
    let left = match deletions {
        0 => String::new(),
        _ => format!(", and what is left of {deletions} deleted ones"),
    };
    format!(
        "{shares} shares are on it{left}: {some}{more}. It goes when they are gone; until then they are looked after, and no others \
         come"
    )
}

/// Room moves all the time; it is written only when it moved by a hundredth of the whole.
fn capacity(before: Option<Capacity>, description: &Description, load: Load) -> Capacity {
    let promised = load.promised_bytes.min(Size::MAX.bytes().into());
    let now = Capacity {
        total: description.total_bytes.and_then(Size::from_bytes),
        free: description.free_bytes.and_then(Size::from_bytes),
        provisioned: u64::try_from(promised).ok().and_then(Size::from_bytes),
    };
    match (before, now) {
        (
            Some(Capacity {
                total: Some(old_total),
                free: Some(old_free),
                ..
            }),
            Capacity {
                total: Some(total),
                free: Some(free),
                ..
            },
        ) if old_total.bytes().abs_diff(total.bytes()) < total.bytes() / 100
            && old_free.bytes().abs_diff(free.bytes()) < total.bytes() / 100 =>
        {
            Capacity {
                total: Some(old_total),
                free: Some(old_free),
                ..now
            }
        }
        _ => now,
    }
}

/// A backend as placement sees it, of all of which shares have this.
pub fn candidate(
    backend: &ShareBackend,
    state: Result<Description, Failure>,
    all: &[ShareBackend],
    loads: &BTreeMap<String, Load>,
) -> Candidate {
    let name = backend.metadata.name.clone().unwrap_or_default();
    let spec = &backend.spec;
    let load_of = |backend: &ShareBackend| {
        let name = backend.metadata.name.as_deref().unwrap_or_default();
        loads.get(name).copied().unwrap_or_default()
    };
    let on_one_nfs_cluster: Vec<_> = all
        .iter()
        .filter(|other| nfs_cluster(backend).is_some() && nfs_cluster(other) == nfs_cluster(backend))
        .collect();
    let most = |other: &&ShareBackend| {
        let nfs = other.spec.ceph.as_ref()?.nfs.as_ref()?;
        Some(nfs.most_exports())
    };
    let others = state
        .as_ref()
        .map_or(0, |description| description.nfs_exports.others);
    Candidate {
        labels: backend.metadata.labels.clone().unwrap_or_default(),
        state,
        door: match (&backend.metadata.deletion_timestamp, spec.scheduling_enabled) {
            (Some(_), _) => Door::Closed,
            (None, true) => Door::Open,
            (None, false) => Door::Disabled(spec.disabled_reason.clone()),
        },
        reserved_percentage: u8::try_from(spec.reserved_percentage).unwrap_or_default(),
        overcommit: spec.overcommit_ratio,
        max_exports: on_one_nfs_cluster.iter().filter_map(most).min(),
        load: Load {
            exports: on_one_nfs_cluster
                .iter()
                .map(|other| load_of(other).exports)
                .sum::<u64>()
                + others,
            ..load_of(backend)
        },
        name,
    }
}

/// Which NFS cluster a backend exports on: of its storage cluster, once that is known, and by its id.
fn nfs_cluster(backend: &ShareBackend) -> Option<(&str, &str)> {
    let nfs = backend.spec.ceph.as_ref()?.nfs.as_ref()?;
    let ceph = backend.status.as_ref()?.ceph.as_ref()?;
    Some((&ceph.fsid, &nfs.cluster_id))
}

/// The clusters whose data is nobody's former data where this backend makes its shares: as it says, or another that makes them there,
/// too.
pub fn neighbours(of: &ShareBackend, all: &[ShareBackend]) -> BTreeSet<String> {
    let beside = all
        .iter()
        .filter(|other| place(of).is_some() && place(other) == place(of));
    let named = beside.flat_map(|other| &other.spec.neighbours);
    of.spec.neighbours.iter().chain(named).cloned().collect()
}

/// Where a backend makes its shares: in a file system of a storage cluster, once that is known, and in a subvolume group.
fn place(backend: &ShareBackend) -> Option<(&str, i64, Option<&str>)> {
    let ceph = backend.status.as_ref()?.ceph.as_ref()?;
    let group = backend
        .spec
        .ceph
        .as_ref()
        .map(|ceph| ceph.subvolume_group.as_str());
    Some((&ceph.fsid, ceph.fs_id, group))
}

/// What a ShareBackend says of itself, if what was recorded on it may be worked on. `exported_on` is the NFS cluster that it was
/// exported on, if that matters: on another one an export that is still there would count as gone.
pub fn usable<'a>(
    name: &str,
    backend: Option<&'a Result<Description, Failure>>,
    recorded: &Identity,
    exported_on: Option<&str>,
) -> Result<&'a Description, Failure> {
    let other_cluster = |d: &Description| match (exported_on, d.nfs_cluster_id.as_deref()) {
        (Some(recorded), Some(now)) if recorded != now => Some((recorded.to_owned(), now.to_owned())),
        _ => None,
    };
    if let Some((recorded, now)) = backend
        .and_then(|state| state.as_ref().ok())
        .and_then(other_cluster)
    {
        return Err(Failure {
            class: Class::Stalled,
            scope: Scope::Backend,
            reason: reasons::BACKEND_REPLACED,
            message: format!(
                "it is exported on NFS cluster '{recorded}', and ShareBackend '{name}' now names '{now}' (spec.ceph.nfs.clusterID); nothing is \
                 touched there. Make a ShareBackend of that name with '{recorded}' again"
            ),
        });
    }
    let description = answering(name, backend)?;
    let found = &description.identity;
    if found.fsid != recorded.fsid || found.fs_id != recorded.fs_id {
        return Err(Failure {
            class: Class::Stalled,
            scope: Scope::Backend,
            reason: reasons::BACKEND_REPLACED,
            message: format!(
                "recorded is cluster {} file system {}, and ShareBackend '{name}' is now cluster {} file system {}; nothing is \
                 touched there",
                recorded.fsid, recorded.fs_id, found.fsid, found.fs_id
            ),
        });
    }
    Ok(description)
}

/// What there is of a ShareBackend that answers; else what is to be waited for.
pub fn answering<'a, T>(name: &str, backend: Option<&'a Result<T, Failure>>) -> Result<&'a T, Failure> {
    let waits = |reason, message| Failure {
        class: Class::Waiting,
        scope: Scope::Backend,
        reason,
        message,
    };
    match backend {
        None => Err(waits(
            reasons::BACKEND_NOT_FOUND,
            format!("ShareBackend '{name}' does not exist; what is on it waits for it"),
        )),
        Some(Err(why)) if why.reason == reasons::BACKEND_NOT_ASKED => Err(why.clone()),
        Some(Err(why)) => Err(waits(
            reasons::BACKEND_NOT_READY,
            format!(
                "ShareBackend '{name}' is not ready ({}); its conditions say more",
                why.reason
            ),
        )),
        Some(Ok(there)) => Ok(there),
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
