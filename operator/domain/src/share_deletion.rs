//! Decisions about what is left of shares that are gone: made when a backend does not accept a deletion at once, or when data
//! is kept, and finished without the Share, for ever if need be.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use shoal_crds::{
    DeletedShareReference, DeletionPhase, DeletionPolicy, Protocol, ShareDeletion, ShareDeletionSpec,
    ShareDeletionStatus,
    condition::{reasons, types},
    names::FINALIZER,
};

use crate::{
    Class, Decision, Failure, Next, Scope, Step, backoff,
    class::failure,
    condition::{Conditions, is_true, whole_seconds},
    identity::{Description, Identity},
    owner::{Left, Owner, Place, Tag, subvolume_name},
    share,
    share_backend::usable,
    volume::{Export, Sight, Volume, VolumeRef, Whose, owned_by_another, whose},
};

/// How soon it is looked again whether the Share has let go, or the Share that brings the data back has it, if nothing
/// wakes the deletion earlier.
const AGAIN: Duration = Duration::from_secs(15);

/// What a pass over a ShareDeletion sees.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The deletion.
    pub deletion: ShareDeletion,
    /// This Kubernetes cluster: uid of the namespace kube-system.
    pub cluster: String,
    /// The backend: what it says of itself, or why it can't be used. None: there is no such ShareBackend.
    pub backend: Option<Result<Description, Failure>>,
    /// Whether a command for the share goes on that was begun before the Share was let go.
    pub is_in_hand: bool,
    /// The Share that is said to be gone, as the API server itself has it. None: not read in this pass.
    pub share: Option<Whereabouts>,
    /// The Share that brings the data back, as the API server itself has it. None: not read in this pass.
    pub adopter: Option<Whereabouts>,
    /// What the backend has. None: not looked in this pass.
    pub sight: Option<Sight>,
    /// What went wrong in this pass: it takes no further step.
    pub failure: Option<Failure>,
}

/// Where a Share is, by its uid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// It is gone, or has been let go.
    Gone,
    /// It is being deleted, and has not been let go.
    Leaving,
    /// It is there.
    There,
}

/// What only deletions do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Ask the API server itself where the Share is.
    FindShare,
    /// Ask the API server itself where the Share is that brings the data back.
    FindAdopter,
    /// Take the claim of a Share that is gone off.
    Unclaim,
    /// See what the backend has.
    Look,
    /// Take all access away.
    Unexport,
    /// Say in the subvolume's tag that it is left there, and why.
    Mark(Left),
    /// Remove the subvolume.
    Remove,
    /// Delete the object: nothing is left to do.
    Finish,
}

impl Effect {
    /// For logs, metrics and failpoints.
    pub fn name(&self) -> &'static str {
        match self {
            Self::FindShare => "FindShare",
            Self::FindAdopter => "FindAdopter",
            Self::Unclaim => "Unclaim",
            Self::Look => "Look",
            Self::Unexport => "Unexport",
            Self::Mark(_) => "Mark",
            Self::Remove => "Remove",
            Self::Finish => "Finish",
        }
    }

    /// Whether it changes something on the backend.
    pub fn changes_backend(&self) -> bool {
        matches!(self, Self::Unexport | Self::Mark(_) | Self::Remove)
    }

    /// Whether it speaks to the backend.
    pub fn speaks_to_backend(&self) -> bool {
        self.changes_backend() || matches!(self, Self::Look)
    }
}

type DeletionDecision = Decision<ShareDeletionStatus, Effect>;

/// Name of the ShareDeletion of the share with this uid: made twice, it is one.
pub fn name(share_uid: &str) -> String {
    subvolume_name(share_uid)
}

/// What is left to do of a share that is to be let go, with everything that it takes.
pub fn of(o: &share::Observed, now: Timestamp) -> Option<ShareDeletion> {
    let status = o.share.status.as_ref()?;
    let on = share::recorded(status)?;
    let capabilities = status.capabilities.clone().unwrap_or_default();
    // What never was there holds no data.
    let (keep, policy) = if o.may_hold_data() {
        (!capabilities.retention.is_zero(), share::deletion_policy(o))
    } else {
        (false, DeletionPolicy::Delete)
    };
    let until = now
        .saturating_add(capabilities.retention.duration())
        .unwrap_or(now);
    let spec = ShareDeletionSpec {
        share_ref: DeletedShareReference {
            namespace: o.share.metadata.namespace.clone()?,
            namespace_uid: o.tenant.clone(),
            name: o.share.metadata.name.clone()?,
            uid: o.uid().to_owned(),
        },
        share_type_name: status.share_type_name.clone(),
        protocol: o.share.spec.protocol,
        size: status.quota.map_or(o.share.spec.size, |quota| quota.charged),
        backend_name: status.backend_name.clone()?,
        fsid: on.fsid,
        fs_name: on.fs_name,
        fs_id: on.fs_id,
        handle: o.handle(),
        nfs_cluster_id: status.nfs_cluster_id.clone(),
        resolved_mount_point_name: status.resolved_mount_point_name.clone(),
        deletion_policy: policy,
        retain_until: (keep && policy == DeletionPolicy::Delete).then(|| Time(whole_seconds(until))),
        abandon: false,
        adopted_by: None,
    };
    Some(ShareDeletion {
        metadata: ObjectMeta {
            name: Some(name(o.uid())),
            finalizers: Some(vec![FINALIZER.into()]),
            ..ObjectMeta::default()
        },
        spec,
        status: None,
    })
}

/// What the backend has to know of the share that is gone.
pub fn volume_ref(deletion: &ShareDeletion, cluster: &str) -> VolumeRef {
    let spec = &deletion.spec;
    VolumeRef {
        owner: Owner {
            cluster: cluster.to_owned(),
            namespace: spec.share_ref.namespace.clone(),
            name: spec.share_ref.name.clone(),
            uid: spec.share_ref.uid.clone(),
            left: None,
        },
        protocol: spec.protocol,
        tenant: spec.share_ref.namespace_uid.clone(),
        place: Place::of(spec.handle.as_deref(), &spec.share_ref.uid),
        pseudo_path: share::pseudo_path(spec.resolved_mount_point_name.as_deref(), &spec.share_ref.uid),
    }
}

/// The storage that was recorded when the share's backend was chosen.
pub fn recorded(spec: &ShareDeletionSpec) -> Identity {
    Identity {
        fsid: spec.fsid.clone(),
        fs_name: spec.fs_name.clone(),
        fs_id: spec.fs_id,
    }
}

/// Whether something is left to be done, now or later: one that was given up is nobody's work any more.
pub fn is_pending(deletion: &ShareDeletion) -> bool {
    phase(deletion) != Some(DeletionPhase::Abandoned)
}

/// Whether clients may still be let in.
pub fn may_have_access(deletion: &ShareDeletion) -> bool {
    let status = deletion.status.as_ref();
    status.and_then(|status| status.access_revoked) != Some(true)
}

/// Since when clients may have been let in to a share whose user was told that it is gone. None: nobody is, an admin has given it up,
/// and so has seen to that, or the share has not gone.
pub fn accessible_since(deletion: &ShareDeletion) -> Option<Timestamp> {
    let status = deletion.status.as_ref();
    let mut told = status.into_iter().flat_map(|status| &status.conditions);
    let has_gone = !told.any(|c| c.type_ == types::READY && c.reason == reasons::SHARE_EXISTS);
    let made = deletion.metadata.creation_timestamp.as_ref()?.0;
    (may_have_access(deletion) && is_pending(deletion) && has_gone).then_some(made)
}

/// Since when it should be done: what was kept for a while is due when that has ended.
pub fn due_since(deletion: &ShareDeletion) -> Option<Timestamp> {
    let made = deletion.metadata.creation_timestamp.as_ref()?.0;
    let kept_until = deletion.spec.retain_until.as_ref();
    Some(kept_until.map_or(made, |until| until.0.max(made)))
}

/// How far it is.
pub fn phase(deletion: &ShareDeletion) -> Option<DeletionPhase> {
    deletion.status.as_ref()?.phase
}

/// Whether this Share may bring the data back, or why not.
pub fn may_be_adopted(deletion: &ShareDeletion, by: &str) -> Result<(), Failure> {
    let refuse = |message: String| {
        Err(Failure {
            class: Class::Waiting,
            scope: Scope::Object,
            reason: reasons::NOT_TO_BE_BROUGHT_BACK,
            message,
        })
    };
    let name = deletion.metadata.name.as_deref().unwrap_or_default();
    if let Some(other) = deletion.spec.adopted_by.as_ref().filter(|other| other.uid != by) {
        return refuse(format!(
            "spec.source.existing: Share {}/{} brings back what ShareDeletion '{name}' kept; name another, or delete this Share",
            other.namespace, other.name
        ));
    }
    // Its own pass may be at work on it, until it has answered a change of its spec and has nothing left to try.
    let is_at_rest = deletion.status.as_ref().is_some_and(|status| {
        status.observed_generation == deletion.metadata.generation && status.last_error.is_none()
    });
    match phase(deletion) {
        Some(phase) if phase.is_adoptable() && !may_have_access(deletion) && is_at_rest => Ok(()),
        Some(phase) if phase.is_adoptable() && !may_have_access(deletion) => refuse(format!(
            "spec.source.existing: ShareDeletion '{name}' is being worked on; what it holds can be brought back when that is done"
        )),
        Some(DeletionPhase::Abandoned) => refuse(format!(
            "spec.source.existing: ShareDeletion '{name}' was given up with clients still let in; set its spec.abandon to false, so that \
             access is taken away, and to keep the data its spec.retainUntil"
        )),
        phase => refuse(format!(
            "spec.source.existing: ShareDeletion '{name}' is {}; what it holds can be brought back while it is Retained or Abandoned",
            phase.unwrap_or(DeletionPhase::Accepted).as_str()
        )),
    }
}

/// Finishes what is left of a share.
pub fn decide(o: &Observed, now: Timestamp) -> DeletionDecision {
    Pass {
        o,
        now,
        before: o.deletion.status.clone().unwrap_or_default(),
    }
    .decide()
}

struct Pass<'a> {
    o: &'a Observed,
    now: Timestamp,
    before: ShareDeletionStatus,
}

/// Until when the data is kept.
#[derive(Clone, Copy, PartialEq)]
enum Keep {
    Until(Timestamp),
    ForGood,
}

impl Pass<'_> {
    fn decide(&self) -> DeletionDecision {
        let metadata = &self.o.deletion.metadata;
        let is_held = metadata.finalizers.iter().flatten().any(|f| f == FINALIZER);
        match (is_held, metadata.deletion_timestamp.is_some()) {
            (false, false) => return Decision::step(self.before.clone(), Step::AddFinalizer),
            (false, true) => return self.rest(Next::Await),
            (true, _) => {}
        }
        // What goes on ends by itself, and wakes this.
        if self.o.is_in_hand {
            return self.rest(Next::Await);
        }
        match &self.o.share {
            None if !self.is_at_rest() => return self.step(Effect::FindShare),
            // It was not made by Shoal, and so nothing rests on it.
            Some(Whereabouts::There) if metadata.deletion_timestamp.is_some() => return self.finish(),
            Some(Whereabouts::There) => return self.fail(&self.share_is_there()),
            // It may yet finish by itself: never two hands on one subvolume.
            Some(Whereabouts::Leaving) if self.has_lasted(AGAIN) => return self.until_it_goes(),
            Some(Whereabouts::Leaving) => return self.rest(Next::After(AGAIN)),
            None | Some(Whereabouts::Gone) => {}
        }
        match (&self.o.deletion.spec.adopted_by, self.o.adopter) {
            (None, _) => {}
            (Some(_), None) => return self.step(Effect::FindAdopter),
            // It has left it here, or its tag is on it by now: that is seen.
            (Some(_), Some(Whereabouts::Gone)) => return self.step(Effect::Unclaim),
            (Some(_), Some(Whereabouts::There | Whereabouts::Leaving)) => return self.until_handed_over(),
        }
        if self.o.deletion.spec.abandon {
            return self.abandon();
        }
        if let Some(kept) = self.still_kept() {
            return kept;
        }
        if let Some(waits) = self.until_it_can_be_worked_on() {
            return waits;
        }
        match &self.o.sight {
            None => self.step(Effect::Look),
            Some(Sight::Absent { leftovers: true }) => self.revoke(),
            Some(Sight::Absent { leftovers: false }) => self.finish(),
            Some(Sight::Present(volume)) => match whose(volume, &self.volume_ref().owner) {
                Whose::Anothers(_) if self.was_brought_back(volume) || self.never_had(volume) => {
                    self.finish()
                }
                Whose::Anothers(whose) => self.fail(&owned_by_another(volume, &whose)),
                Whose::Ours | Whose::Unfinished if lets_in(&volume.export) => self.revoke(),
                Whose::Ours | Whose::Unfinished => self.without_access(volume),
            },
        }
    }

    /// Whether the Share was to have what is there, and went before it had: nothing says that it was its.
    fn never_had(&self, volume: &Volume) -> bool {
        let is_its_by_name = self.volume_ref().place.subvolume == subvolume_name(self.uid());
        // Who is let in by CephX is let in by whoever has it.
        let is_exported = self.o.deletion.spec.protocol == Protocol::NFS && lets_in(&volume.export);
        !is_its_by_name && !is_exported
    }

    fn usable_backend(&self) -> Result<&Description, Failure> {
        let spec = &self.o.deletion.spec;
        // Where nobody is let in any more, it does not matter where they were.
        let exported_on = spec.nfs_cluster_id.as_deref().filter(|_| !self.is_revoked());
        usable(
            &spec.backend_name,
            self.o.backend.as_ref(),
            &recorded(spec),
            exported_on,
        )
    }

    /// What stands in the way of asking the backend for anything.
    fn until_it_can_be_worked_on(&self) -> Option<DeletionDecision> {
        match self.usable_backend() {
            Err(failure) if failure.reason == reasons::BACKEND_NOT_ASKED => {
                return Some(self.rest(Next::Await));
            }
            Err(failure) => return Some(self.fail(&failure)),
            Ok(_) => {}
        }
        if let Some(failure) = &self.o.failure {
            return Some(self.fail(failure));
        }
        self.still_backing_off().map(|wait| self.rest(Next::After(wait)))
    }

    /// Nobody is let in any more: the data is kept or removed.
    fn without_access(&self, volume: &Volume) -> DeletionDecision {
        match self.keep() {
            Some(keep) => {
                if keep == Keep::ForGood && !is_marked(volume, Left::Retained) {
                    return self.step(Effect::Mark(Left::Retained));
                }
                let next = self.until_it_ends(keep);
                Decision::done(self.retained(keep), next)
            }
            // What could be brought back can't be any more once this is stored.
            None if self.before.phase.is_some_and(DeletionPhase::is_adoptable) => {
                Decision::step(self.working(DeletionPhase::Purging), Step::Record)
            }
            None => Decision::step(self.working(DeletionPhase::Purging), Step::Do(Effect::Remove)),
        }
    }

    /// From the claim on, the Share that brings it back has it in hand, and writes its own tag on it.
    fn until_handed_over(&self) -> DeletionDecision {
        if let Some(waits) = self.until_it_can_be_worked_on() {
            return waits;
        }
        match &self.o.sight {
            None => self.step(Effect::Look),
            Some(Sight::Present(volume)) if self.was_brought_back(volume) => self.finish(),
            // The Share is told what is the matter with it.
            Some(_) => self.rest(Next::After(AGAIN)),
        }
    }

    /// An admin has given it up: the backend is told if it can be, and people are told what is left.
    fn abandon(&self) -> DeletionDecision {
        if self.is_at_rest() && self.o.share.is_none() {
            return self.rest(Next::Await);
        }
        let mut is_told = false;
        if self.usable_backend().is_ok() && self.o.failure.is_none() {
            match &self.o.sight {
                None => return self.step(Effect::Look),
                Some(Sight::Absent { leftovers: false }) => return self.finish(),
                Some(Sight::Present(volume)) if self.was_brought_back(volume) => return self.finish(),
                Some(Sight::Present(volume))
                    if !matches!(whose(volume, &self.volume_ref().owner), Whose::Anothers(_))
                        && !is_marked(volume, Left::Abandoned) =>
                {
                    return self.step(Effect::Mark(Left::Abandoned));
                }
                Some(_) => is_told = true,
            }
        }
        let revoked = self.is_revoked();
        let message = format!(
            "given up: {} of {} is left on ShareBackend '{}' (file system {} of cluster {}), {}. Delete this object once you have \
             seen to it",
            self.subject(),
            self.o.deletion.spec.size,
            self.o.deletion.spec.backend_name,
            self.o.deletion.spec.fs_name,
            self.o.deletion.spec.fsid,
            if revoked {
                "and nobody is let in"
            } else {
                "and who was let in may still be"
            }
        );
        let failure = failure(Class::Stalled, reasons::ABANDONED, message);
        let status = ShareDeletionStatus {
            conditions: self.conditions().failed(&failure).build(),
            access_revoked: Some(revoked),
            last_error: (!is_told).then(|| match self.usable_backend().err().or(self.o.failure.clone()) {
                Some(why) => format!("its tag does not say so yet: {why}"),
                None => "its tag does not say so yet".into(),
            }),
            ..self.calm(DeletionPhase::Abandoned)
        };
        match (
            self.o.deletion.metadata.deletion_timestamp.is_some(),
            self.before.phase,
        ) {
            // The backend is told as soon as it can be.
            (false, _) if !is_told && self.usable_backend().is_ok() => {
                Decision::done(status, Next::After(backoff::spread(AGAIN, self.uid(), 0)))
            }
            (false, _) => Decision::done(status, Next::Await),
            (true, Some(DeletionPhase::Abandoned)) => Decision::step(status, Step::RemoveFinalizer),
            // What is left is told before the object goes.
            (true, _) => Decision::step(status, Step::Record),
        }
    }

    /// Kept without a need to ask anybody.
    fn still_kept(&self) -> Option<DeletionDecision> {
        let keep = self.keep()?;
        (self.is_at_rest() && self.o.sight.is_none()).then(|| self.rest(self.until_it_ends(keep)))
    }

    /// Whether status says that the data is kept, nothing has changed since, and its time has not come.
    fn is_at_rest(&self) -> bool {
        let spec = &self.o.deletion.spec;
        match self.before.phase {
            Some(DeletionPhase::Retained) => {
                self.keep().is_some()
                    && !spec.abandon
                    && spec.adopted_by.is_none()
                    && self.before.access_revoked == Some(true)
                    && is_true(&self.before.conditions, types::READY)
                    && self.is_answered()
            }
            Some(DeletionPhase::Abandoned) => {
                spec.abandon
                    && spec.adopted_by.is_none()
                    && self.is_answered()
                    && (self.before.last_error.is_none() || self.usable_backend().is_err())
                    && self.o.deletion.metadata.deletion_timestamp.is_none()
            }
            _ => false,
        }
    }

    fn is_answered(&self) -> bool {
        self.before.observed_generation == Some(self.generation())
    }

    fn keep(&self) -> Option<Keep> {
        let spec = &self.o.deletion.spec;
        match (&spec.retain_until, spec.deletion_policy) {
            (Some(until), _) => (self.now < until.0).then_some(Keep::Until(until.0)),
            (None, DeletionPolicy::Retain) => Some(Keep::ForGood),
            (None, DeletionPolicy::Delete) => None,
        }
    }

    fn until_it_ends(&self, keep: Keep) -> Next {
        match keep {
            Keep::ForGood => Next::Await,
            Keep::Until(until) => {
                let wait = Duration::try_from(until.duration_since(self.now)).unwrap_or_default();
                Next::After(wait.max(Duration::from_secs(1)))
            }
        }
    }

    fn finish(&self) -> DeletionDecision {
        if self.o.deletion.metadata.deletion_timestamp.is_some() {
            Decision::step(self.before.clone(), Step::RemoveFinalizer)
        } else {
            self.step(Effect::Finish)
        }
    }

    fn revoke(&self) -> DeletionDecision {
        Decision::step(
            self.working(DeletionPhase::RevokingAccess),
            Step::Do(Effect::Unexport),
        )
    }

    /// Whether another share of this cluster has it, and nothing is left of this one's: no business of ours any more.
    fn was_brought_back(&self, volume: &Volume) -> bool {
        let own = &self.volume_ref().owner;
        let anothers = |tagged: &Owner| tagged.cluster == own.cluster && !tagged.is_same(own);
        // Identities of native CephFS are the other's by now. An NFS export is the share's own, but at a name that its successor
        // may have asked for again, once nobody was let in any more.
        let spec = &self.o.deletion.spec;
        let may_be_the_others =
            spec.resolved_mount_point_name.is_some() && self.before.access_revoked == Some(true);
        let left = spec.protocol == Protocol::NFS && lets_in(&volume.export) && !may_be_the_others;
        matches!(&volume.tag, Tag::Owner(tagged) if anothers(tagged)) && !left
    }

    /// Whether it is known that nobody is let in.
    fn is_revoked(&self) -> bool {
        match &self.o.sight {
            Some(Sight::Absent { leftovers }) => !leftovers,
            Some(Sight::Present(volume)) => !lets_in(&volume.export),
            None => self.before.access_revoked == Some(true),
        }
    }

    fn still_backing_off(&self) -> Option<Duration> {
        if !self.is_answered() || self.o.sight.is_some() {
            return None;
        }
        backoff::left(self.before.next_retry_time.as_ref(), self.now)
    }

    // ---- what it says

    fn rest(&self, next: Next) -> DeletionDecision {
        let status = if self.before.phase.is_none() {
            self.working(DeletionPhase::Accepted)
        } else {
            self.before.clone()
        };
        Decision::done(status, next)
    }

    fn step(&self, effect: Effect) -> DeletionDecision {
        Decision::step(self.before.clone(), Step::Do(effect))
    }

    fn retained(&self, keep: Keep) -> ShareDeletionStatus {
        let message = match keep {
            Keep::Until(until) => format!(
                "{} is kept until {}, and nobody is let in",
                self.subject(),
                whole_seconds(until)
            ),
            Keep::ForGood => format!(
                "{} is kept, and nobody is let in; set spec.retainUntil to have it removed",
                self.subject()
            ),
        };
        ShareDeletionStatus {
            conditions: self.conditions().ready_for(reasons::RETAINED, message).build(),
            ..self.calm(DeletionPhase::Retained)
        }
    }

    fn working(&self, phase: DeletionPhase) -> ShareDeletionStatus {
        let message = match phase {
            DeletionPhase::Accepted => "the backend is about to be asked",
            DeletionPhase::RevokingAccess => "access is being taken away",
            _ => "the subvolume is being removed",
        };
        ShareDeletionStatus {
            observed_generation: Some(self.generation()),
            phase: Some(phase),
            conditions: self.conditions().reconciling(reasons::DELETING, message).build(),
            access_revoked: Some(self.is_revoked()),
            ..self.before.clone()
        }
    }

    /// Nothing is being tried.
    fn calm(&self, phase: DeletionPhase) -> ShareDeletionStatus {
        ShareDeletionStatus {
            observed_generation: Some(self.generation()),
            phase: Some(phase),
            conditions: Vec::new(),
            access_revoked: Some(self.is_revoked()),
            attempts: None,
            last_error: None,
            next_retry_time: None,
        }
    }

    /// Back-off of its own failures is kept in status, so that a restart does not forget it; the backend's trouble is the
    /// backend's, which wakes this when it is over.
    fn fail(&self, failure: &Failure) -> DeletionDecision {
        let (attempts, next_retry_time, next) = match (failure.scope, failure.class) {
            (Scope::Backend, _) => {
                let next = if self.o.failure.is_some() {
                    Next::After(backoff::spread(AGAIN, self.uid(), 0))
                } else {
                    Next::Await
                };
                (self.before.attempts, self.before.next_retry_time.clone(), next)
            }
            (Scope::Object, _) => backoff::next(self.before.attempts, self.uid(), self.now),
        };
        let status = ShareDeletionStatus {
            observed_generation: Some(self.generation()),
            phase: Some(match (failure.scope, self.before.phase) {
                // Nothing is to be done for one that is kept.
                (Scope::Backend, Some(DeletionPhase::Retained)) if self.keep().is_some() => {
                    DeletionPhase::Retained
                }
                _ => DeletionPhase::Error,
            }),
            conditions: self.conditions().failed(failure).build(),
            access_revoked: Some(self.is_revoked()),
            attempts,
            last_error: Some(failure.to_string().chars().take(1024).collect()),
            next_retry_time,
        };
        Decision::done(status, next)
    }

    fn share_is_there(&self) -> Failure {
        let share = &self.o.deletion.spec.share_ref;
        failure(
            Class::Stalled,
            reasons::SHARE_EXISTS,
            format!(
                "spec.shareRef: Share {}/{} (uid {}) is there and not being deleted; nothing of it is touched. Delete this object",
                share.namespace, share.name, share.uid
            ),
        )
    }

    /// A lock came after this was written, and before the Share was let go. Nothing is tried meanwhile.
    fn until_it_goes(&self) -> DeletionDecision {
        let share = &self.o.deletion.spec.share_ref;
        let waits = failure(
            Class::Waiting,
            reasons::SHARE_EXISTS,
            format!(
                "Share {}/{} is being deleted and has not gone yet; its condition DeletionBlocked says what it waits for",
                share.namespace, share.name
            ),
        );
        let status = ShareDeletionStatus {
            observed_generation: Some(self.generation()),
            conditions: self.conditions().failed(&waits).build(),
            ..self.before.clone()
        };
        Decision::done(status, Next::After(AGAIN))
    }

    /// Whether it has not been Ready for so long.
    fn has_lasted(&self, time: Duration) -> bool {
        let mut conditions = self.before.conditions.iter();
        let since = conditions.find(|c| c.type_ == types::READY && c.status == "False");
        let age = since.map(|c| self.now.duration_since(c.last_transition_time.0));
        age.and_then(|age| Duration::try_from(age).ok())
            .is_some_and(|age| age > time)
    }

    fn volume_ref(&self) -> VolumeRef {
        volume_ref(&self.o.deletion, &self.o.cluster)
    }

    /// What it is about, for people.
    fn subject(&self) -> String {
        let name = self.o.deletion.spec.handle.clone();
        format!(
            "subvolume {}",
            name.unwrap_or_else(|| self.volume_ref().place.subvolume)
        )
    }

    fn uid(&self) -> &str {
        &self.o.deletion.spec.share_ref.uid
    }

    fn generation(&self) -> i64 {
        self.o.deletion.metadata.generation.unwrap_or_default()
    }

    fn conditions(&self) -> Conditions<'_> {
        Conditions::new(&self.before.conditions, self.generation(), self.now)
    }
}

/// Whether there is anything to take away: an NFS export, or clients of native CephFS, which needs no export.
fn lets_in(export: &Export) -> bool {
    match export {
        Export::Absent | Export::Taken(_) => false,
        Export::Ours {
            pseudo_path,
            access,
            intact,
        } => pseudo_path.is_some() || !access.is_empty() || !intact,
    }
}

fn is_marked(volume: &Volume, as_: Left) -> bool {
    matches!(&volume.tag, Tag::Owner(owner) if owner.left == Some(as_))
}
