//! Decisions about shares: from the first look for a backend to the last trace gone.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use shoal_crds::{
    Capabilities, Charge, DeletionMode, DeletionPolicy, ExistingShare, ExportLocation, LockedKind, Protocol,
    ResourceLock, Share, ShareDeletion, SharePhase, ShareQuota, ShareStatus, ShareType, Size,
    condition::{reasons, types},
    names::{FINALIZER, FORMER_DATA, PAUSED},
};

use crate::{
    Class, Decision, Failure, Next, Scope, Step, backoff,
    class::failure,
    condition::{Conditions, is_true},
    difference,
    ensure::{self, Round},
    export_location,
    grant::{Access, Client, Grant, Key},
    identity::{Description, Identity},
    ledger, metadata,
    mount_point::{self, NfsCluster},
    orphan::{self, Former, Orphan, Verdict},
    owner::{self, Owner, Place, Tag, subvolume_name},
    placement::{self, Candidate, Neighbour},
    resource_lock::{self, Mark},
    share_access_rule::{self as rules, Credentials, Plan, Report, RuleView, Terms},
    share_backend, share_deletion,
    share_quota::{self, Asked, Usage},
    share_type,
    volume::{Export, NewVolume, Sight, Volume, VolumeRef, Whose, owned_by_another, whose},
};

/// What a pass over a share sees. What a step learns is folded in, and decided on again.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The share.
    pub share: Share,
    /// This Kubernetes cluster: uid of the namespace kube-system.
    pub cluster: String,
    /// The namespace's uid: Ceph's tenant id.
    pub tenant: String,
    /// Since when the namespace is being deleted, if it is: nothing can be created in it.
    pub namespace_deleted: Option<Time>,
    /// The namespace's labels.
    pub namespace_labels: BTreeMap<String, String>,
    /// The type it asks for.
    pub share_type: Result<ShareType, Failure>,
    /// Where it could go; once it is somewhere, that alone if it asks for more, and else nothing.
    pub candidates: Vec<Candidate>,
    /// Shares that it names, or that name it, to be with or apart from.
    pub neighbours: Vec<Neighbour>,
    /// The NFS clusters on which somebody else has the name that it asks for.
    pub taken_on: BTreeSet<NfsCluster>,
    /// The quotas of its namespace, if it asks for more than it is charged.
    pub quotas: Vec<ShareQuota>,
    /// What other shares of the namespace are charged.
    pub usage: Usage,
    /// As of which reservation of others the candidates, neighbours and usage are.
    pub ledger_revision: u64,
    /// The backend that holds it: what it says of itself, or why it can't be used. None: there is no such ShareBackend.
    pub backend: Option<Result<Description, Failure>>,
    /// What that says of itself while nothing may be changed there: it is only looked at.
    pub dry_run: Option<Description>,
    /// The rules that name it.
    pub rules: Vec<RuleView>,
    /// Whether `rules` come from the API server itself, with what their Secrets hold, and not from a watch cache.
    pub rules_confirmed: bool,
    /// The locks that hold it, and those that hold one of its rules.
    pub locks: Vec<ResourceLock>,
    /// Whether they come from the API server itself, asked after it had accepted the deletion.
    pub locks_confirmed: bool,
    /// Whether it is time to look for drift.
    pub look_due: bool,
    /// When it is next.
    pub look_again: Duration,
    /// The round over its backend's shares that it was not verified in yet.
    pub round: Option<Round>,
    /// What the backend has. None: not looked in this pass.
    pub sight: Option<Sight>,
    /// What was requested of the share when it was looked at.
    pub looked_for: Option<String>,
    /// Keys learned in this pass and not put into their Secrets yet, by identity.
    pub keys: BTreeMap<String, Key>,
    /// Clients that the backend refused in this pass.
    pub refused: HashMap<Client, Failure>,
    /// What is kept of a deleted share that this one brings back.
    pub source: Option<ShareDeletion>,
    /// What no object owns, as far as this one is concerned.
    pub former: Former,
    /// What its deletion rests on beside.
    pub going: Going,
    /// What went wrong in this pass: it takes no further step.
    pub failure: Option<Failure>,
}

/// So many keys are fetched before they are stored.
const MOST_KEYS: usize = 64;

/// What the deletion of a share rests on beside its storage.
#[derive(Clone, Copy, Debug, Default)]
pub struct Going {
    /// Whether a ShareDeletion has it: nothing is left to be done but to let it go.
    pub is_handed_on: bool,
    /// Whether a command goes on that was begun in an earlier pass.
    pub is_in_hand: bool,
    /// Whether this replica has worked for so long that a backend not asked yet is in trouble.
    pub is_warm: bool,
}

/// What only shares do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// See what the backend has.
    Look,
    /// See what is there of data that no object owns, and that may be its.
    LookAtFormer,
    /// Read the rules and their Secrets from the API server itself.
    ConfirmRules,
    /// Read the locks from the API server itself.
    ConfirmLocks,
    /// Say that it is locked, or is not any more.
    Mark(Mark),
    /// Put the finalizer on these rules.
    HoldRules(Vec<String>),
    /// Make the subvolume.
    Create(NewVolume),
    /// Set the quota, in bytes.
    Resize(u64),
    /// Throw away the Secrets of these rules, wherever they are: they hold keys that open nothing, or are where they don't belong.
    ForgetKeys(Vec<String>),
    /// Write what users say of it where the storage's admins see it, or take it off.
    SetMetadata(Option<String>),
    /// Let in exactly these.
    Export(Access),
    /// Fetch the keys of clients that are let in.
    FetchKeys(Vec<Grant>),
    /// Tell the rules.
    ReportRules(Vec<Report>),
    /// Mark it as one whose export or access is being made again: nobody changes it meanwhile.
    Fence,
    /// Take that mark off.
    LiftFence,
    /// Mirror the export locations into annotations.
    Annotate(BTreeMap<String, String>),
    /// Claim what is kept of a deleted share.
    Claim,
    /// Take away all access that there was to what it brings back, while that is another's.
    Revoke,
    /// Make it the share's own.
    BringBack,
    /// Take all access away.
    Unexport,
    /// Remove the subvolume.
    Remove,
    /// Leave the rest of the deletion to this.
    HandOn(Box<ShareDeletion>),
}

impl Effect {
    /// For logs, metrics and failpoints.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Look => "Look",
            Self::LookAtFormer => "LookAtFormer",
            Self::ConfirmRules => "ConfirmRules",
            Self::ConfirmLocks => "ConfirmLocks",
            Self::Mark(_) => "Mark",
            Self::HoldRules(_) => "HoldRules",
            Self::Create(_) => "Create",
            Self::Resize(_) => "Resize",
            Self::ForgetKeys(_) => "ForgetKeys",
            Self::SetMetadata(_) => "SetMetadata",
            Self::Export(_) => "Export",
            Self::FetchKeys(_) => "FetchKeys",
            Self::ReportRules(_) => "ReportRules",
            Self::Fence => "Fence",
            Self::LiftFence => "LiftFence",
            Self::Annotate(_) => "Annotate",
            Self::Claim => "Claim",
            Self::Revoke => "Revoke",
            Self::BringBack => "BringBack",
            Self::Unexport => "Unexport",
            Self::Remove => "Remove",
            Self::HandOn(_) => "HandOn",
        }
    }

    /// Whether it changes something on the backend.
    pub fn changes_backend(&self) -> bool {
        match self {
            Self::Create(_)
            | Self::Resize(_)
            | Self::SetMetadata(_)
            | Self::Export(_)
            | Self::FetchKeys(_)
            | Self::Revoke
            | Self::BringBack
            | Self::Unexport
            | Self::Remove => true,
            Self::Look
            | Self::LookAtFormer
            | Self::ConfirmRules
            | Self::ConfirmLocks
            | Self::Mark(_)
            | Self::HoldRules(_)
            | Self::ForgetKeys(_)
            | Self::ReportRules(_)
            | Self::Fence
            | Self::LiftFence
            | Self::Annotate(_)
            | Self::Claim
            | Self::HandOn(_) => false,
        }
    }

    /// Whether a share that has changed meanwhile may make it wrong: what changes the backend, letting a rule go because
    /// nobody is let in, and saying that the share, which may be gone, has left something.
    pub fn needs_live_object(&self) -> bool {
        let lets_go = matches!(self, Self::ReportRules(reports) if reports.iter().any(|r| r.release));
        self.changes_backend() || lets_go || matches!(self, Self::Fence | Self::Claim | Self::HandOn(_))
    }
}

type ShareDecision = Decision<ShareStatus, Effect>;

/// How soon a share looks again after a command failed for its backend's reasons. The backend itself is asked more often,
/// and wakes its shares when it comes back; this is for when it never noticed.
const AFTER_BACKEND_TROUBLE: Duration = Duration::from_secs(15);

/// How soon a share without a place looks for one again, if nothing wakes it earlier.
const PLACE_AGAIN: Duration = Duration::from_secs(30);

/// Decides about a share.
pub fn decide(o: &Observed, now: Timestamp) -> ShareDecision {
    let mut before = o.share.status.clone().unwrap_or_default();
    if !o.is_paused() {
        before
            .conditions
            .retain(|c| c.type_ != types::PAUSED && c.reason != reasons::PAUSED);
    }
    before
        .conditions
        .retain(|c| c.type_ != types::DELETION_BLOCKED || c.reason != reasons::LOCKED);
    // Until a new operator has asked the backend it is as it was.
    if matches!(&o.backend, Some(Ok(_))) {
        before.differences = None;
    }
    if !ensure::is_marked(&o.share) {
        before.conditions.retain(|c| c.type_ != types::ENSURING);
        if before.phase == Some(SharePhase::Ensuring) {
            let is_ready = is_true(&before.conditions, types::READY);
            before.phase = Some(if is_ready {
                SharePhase::Available
            } else {
                SharePhase::Error
            });
        }
    }
    // Where it is stands in status as soon as it is said to be there.
    if let Some(volume) = o.tagged_as_ours() {
        before.handle = Some(volume.handle.clone());
    }
    let decision = Pass { o, now, before }.decide();
    // However a pass ends, the share is not kept as it is any longer; but a backend that is about to be asked wakes it, and then it
    // is seen to.
    let is_about_to_be_asked = matches!(&o.backend, Some(Err(why)) if is_not_asked(why));
    if decision.step.is_none() && ensure::is_marked(&o.share) && (o.is_paused() || !is_about_to_be_asked) {
        return Decision::step(decision.status, Step::Do(Effect::LiftFence));
    }
    match resource_lock::told(LockedKind::Share, &o.locks) {
        Some(by) if o.is_deleted() && o.is_held() && !o.is_paused() => waits_for_locks(o, decision, &by, now),
        _ => decision,
    }
}

/// A share whose deletion waits for locks is kept as any other, and says what it waits for.
fn waits_for_locks(o: &Observed, mut decision: ShareDecision, by: &str, now: Timestamp) -> ShareDecision {
    let stored = o
        .share
        .status
        .as_ref()
        .map_or(&[][..], |status| &status.conditions);
    let generation = o.share.metadata.generation.unwrap_or_default();
    let conditions = &mut decision.status.conditions;
    conditions.retain(|c| c.type_ != types::DELETION_BLOCKED);
    conditions.extend(
        Conditions::new(stored, generation, now)
            .set(
                types::DELETION_BLOCKED,
                true,
                reasons::LOCKED,
                format!("locked by {by}; it goes when they are deleted, and is kept until then"),
            )
            .build(),
    );
    conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
    decision
}

/// What the backend has to know of the share.
pub fn volume_ref(o: &Observed) -> VolumeRef {
    let status = o.share.status.as_ref();
    VolumeRef {
        owner: Owner {
            cluster: o.cluster.clone(),
            namespace: o.share.metadata.namespace.clone().unwrap_or_default(),
            name: o.share.metadata.name.clone().unwrap_or_default(),
            uid: o.uid().to_owned(),
            left: None,
        },
        protocol: o.share.spec.protocol,
        tenant: o.tenant.clone(),
        place: Place::of(status.and_then(|status| status.handle.as_deref()), o.uid()),
        pseudo_path: pseudo_path(
            status.and_then(|status| status.resolved_mount_point_name.as_deref()),
            o.uid(),
        ),
    }
}

/// The same of what it brings back, as whoever has that now has it.
pub fn former_volume(o: &Observed) -> Option<VolumeRef> {
    if let Some(kept) = &o.source {
        return Some(share_deletion::volume_ref(kept, &o.cluster));
    }
    let Some(Sight::Present(volume)) = &o.sight else {
        return None;
    };
    let Tag::Owner(owner) = &volume.tag else {
        return None;
    };
    Some(VolumeRef {
        owner: owner.clone(),
        ..volume_ref(o)
    })
}

/// What it brings back: as it was recorded, or as is asked for.
pub fn brings_back(share: &Share) -> Option<ExistingShare> {
    let status = share.status.as_ref();
    if let Some(backend_name) = status.and_then(|status| status.backend_name.clone()) {
        let own = subvolume_name(share.metadata.uid.as_deref().unwrap_or_default());
        let handle = status.and_then(|status| status.handle.clone());
        let handle = handle.filter(|handle| Place::of(Some(handle), "").subvolume != own)?;
        return Some(ExistingShare { backend_name, handle });
    }
    asks_for(share)
}

/// What of the data that is there already it asks for, by itself or in an admin's word.
fn asks_for(share: &Share) -> Option<ExistingShare> {
    let source = share.spec.source.as_ref().map(|source| source.existing.clone());
    source.or_else(|| match orphan::verdict(share) {
        Ok(Some(Verdict::Adopt(existing))) => Some(existing),
        _ => None,
    })
}

/// Path of a share on its NFS cluster: by the name that it asked for, and else by its uid.
pub fn pseudo_path(resolved_name: Option<&str>, uid: &str) -> String {
    resolved_name.map_or_else(|| owner::pseudo_path(uid), |name| format!("/{name}"))
}

/// Whether a subvolume was there, and ours.
pub fn was_provisioned(status: &ShareStatus) -> bool {
    is_true(&status.conditions, types::PROVISIONED)
}

/// What becomes of the data when the share is deleted.
pub fn deletion_policy(o: &Observed) -> DeletionPolicy {
    let of_its_type = || Some(o.share.status.as_ref()?.capabilities.as_ref()?.deletion_policy);
    o.share
        .spec
        .deletion_policy
        .or_else(of_its_type)
        .unwrap_or_default()
}

/// How long a user waits for the backend to accept a deletion.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// The storage that was recorded when the share's backend was chosen. None: none was chosen yet.
pub fn recorded(status: &ShareStatus) -> Option<Identity> {
    Some(Identity {
        fsid: status.fsid.clone()?,
        fs_name: status.fs_name.clone()?,
        fs_id: status.fs_id?,
    })
}

impl Observed {
    /// The share's uid.
    pub fn uid(&self) -> &str {
        self.share.metadata.uid.as_deref().unwrap_or_default()
    }

    /// The storage cluster that is worked on for it: its own, or that of the data that it looks for. That may be on several, and is seldom
    /// there at all.
    pub fn fsid(&self) -> Option<String> {
        let status = self.share.status.as_ref();
        let own = status.and_then(|status| status.fsid.clone());
        own.or_else(|| {
            let wanted = self.brings_back().map(|existing| existing.backend_name);
            let found = self
                .former
                .orphans
                .iter()
                .map(|orphan| orphan.backend_name.clone());
            let holds = |name: String| {
                let holder = self.candidates.iter().find(|candidate| candidate.name == name)?;
                Some(holder.state.as_ref().ok()?.identity.fsid.clone())
            };
            wanted.into_iter().chain(found).find_map(holds)
        })
    }

    /// Whether its deletion was asked for.
    fn is_deleted(&self) -> bool {
        self.share.metadata.deletion_timestamp.is_some()
    }

    /// Whether it is to go.
    fn is_leaving(&self) -> bool {
        self.is_deleted() && self.locks.is_empty()
    }

    /// Whether it goes when it is deleted, whatever the backend says.
    pub fn is_deferred(&self) -> bool {
        let capabilities = self.share.status.as_ref().and_then(|s| s.capabilities.as_ref());
        self.is_leaving() && capabilities.map(|c| c.deletion).unwrap_or_default() == DeletionMode::Deferred
    }

    fn brings_back(&self) -> Option<ExistingShare> {
        brings_back(&self.share)
    }

    /// The subvolume as seen in this pass, if it is there and says that it is the share's.
    fn tagged_as_ours(&self) -> Option<&Volume> {
        match &self.sight {
            Some(Sight::Present(volume)) => {
                let is_ours = whose(volume, &volume_ref(self).owner) == Whose::Ours;
                is_ours.then_some(&**volume)
            }
            _ => None,
        }
    }

    /// Whether there may be data of its own: clients may have written to it before its status said that it is there, and it
    /// may have brought some back.
    pub fn may_hold_data(&self) -> bool {
        if self.share.status.as_ref().is_some_and(was_provisioned) || self.has_claimed() {
            return true;
        }
        match &self.sight {
            // What kept the data is gone as soon as the data is the share's own, whatever its status came to say.
            None => self.brings_back().is_none() || self.source.is_none(),
            Some(_) => self.tagged_as_ours().is_some(),
        }
    }

    /// Whether the data that it brings back is kept for it alone.
    fn has_claimed(&self) -> bool {
        let by = self
            .source
            .as_ref()
            .and_then(|kept| kept.spec.adopted_by.as_ref());
        by.is_some_and(|by| by.uid == self.uid())
    }

    /// The name of its data on the backend. What it was to bring back and has not claimed is not its.
    pub fn handle(&self) -> Option<String> {
        match self.tagged_as_ours() {
            Some(volume) => Some(volume.handle.clone()),
            None if self.brings_back().is_some() && !self.may_hold_data() => None,
            None => self.share.status.as_ref()?.handle.clone(),
        }
    }

    /// Whether somebody waits for it to be verified, or it was being ensured when the operator ended.
    fn is_to_be_verified(&self) -> bool {
        self.round.is_some() || self.is_asked_for() || ensure::is_marked(&self.share)
    }

    fn is_asked_for(&self) -> bool {
        let handled = self
            .share
            .status
            .as_ref()
            .and_then(|s| s.last_handled_requested_at.as_ref());
        let requested = ensure::requested(&self.share.metadata);
        requested.is_some() && requested.as_ref() != handled
    }

    /// Whether it was found, in the pass that has ended, to be exported as it should be, or made so. None: nobody could look.
    pub fn is_verified(&self) -> Option<bool> {
        match (&self.failure, &self.sight) {
            _ if self.dry_run.is_some() => None,
            (Some(failure), _) if failure.scope == Scope::Backend => None,
            (None, None) => None,
            (Some(_), _) => Some(false),
            (None, Some(_)) => Some(
                self.tagged_as_ours()
                    .is_some_and(|volume| matches!(volume.export, Export::Ours { intact: true, .. })),
            ),
        }
    }

    fn is_paused(&self) -> bool {
        self.share
            .metadata
            .annotations
            .as_ref()
            .is_some_and(|annotations| annotations.contains_key(PAUSED))
    }

    fn is_held(&self) -> bool {
        self.share
            .metadata
            .finalizers
            .iter()
            .flatten()
            .any(|f| f == FINALIZER)
    }
}

struct Pass<'a> {
    o: &'a Observed,
    now: Timestamp,
    before: ShareStatus,
}

impl Pass<'_> {
    fn decide(&self) -> ShareDecision {
        if let Some(mark) = resource_lock::mark(LockedKind::Share, &self.o.share.metadata, &self.o.locks) {
            return Decision::step(self.before.clone(), Step::Do(Effect::Mark(mark)));
        }
        if self.o.is_paused() {
            return self.pause();
        }
        if self.o.is_leaving() {
            return self.unless_locked(self.delete());
        }
        if self.o.is_deleted() && (!self.o.is_held() || recorded(&self.before).is_none()) {
            return self.begin_nothing();
        }
        if !self.o.is_held() {
            return Decision::step(self.before.clone(), Step::AddFinalizer);
        }
        let Some(recorded) = recorded(&self.before) else {
            return self.schedule();
        };
        if let Some(backend) = &self.o.dry_run {
            return self.compare(backend, &recorded);
        }
        let backend = match self.usable_backend(&recorded) {
            Ok(backend) => backend,
            Err(failure) if is_not_asked(&failure) => return self.until_asked(),
            Err(failure) => return self.hold(&failure),
        };
        if let Some(failure) = &self.o.failure {
            return self.fail(failure);
        }
        if let Some(wait) = self.still_backing_off() {
            return Decision::done(self.before.clone(), Next::After(wait));
        }
        match &self.o.sight {
            None if self.is_settled(backend) && !self.o.is_to_be_verified() => Decision::done(self.before.clone(), Next::After(self.o.look_again)),
            // What was never there needs no look: making it looks for itself. One that could not be made does: rules that
            // go wait until it is known that nobody is let in.
            None if !self.was_provisioned()
                && !self.is_stalled()
                && self.new_size().is_ok()
                && self.o.brings_back().is_none() =>
            {
                self.create()
            }
            None => self.progress(reasons::CREATING, "looking at what is there", Effect::Look),
            // Nothing is left to be let in to, so rules that go need not wait for the subvolume to be restored.
            Some(Sight::Absent { leftovers: true })
                if self.was_provisioned() && self.o.rules.iter().any(RuleView::is_leaving) =>
            {
                self.progress(reasons::APPLYING_ACCESS, "access is being taken away", Effect::Unexport)
            }
            Some(Sight::Absent { .. }) if self.was_provisioned() => self.fail(&failure(
                Class::Stalled,
                reasons::VOLUME_MISSING,
                format!(
                    "the subvolume {} was there and is gone; it is not made again, for it would be empty. Restore it \
                     under that name, or delete the Share",
                    self.before.handle.as_deref().unwrap_or("of this share")
                ),
            )),
            Some(Sight::Absent { .. }) if self.o.brings_back().is_some() => self.fail(&nothing_to_bring_back(
                "what spec.source.existing names is not there any more; delete this Share".into(),
            )),
            Some(Sight::Absent { .. }) => self.create(),
            Some(Sight::Present(volume)) => match self.whose(volume) {
                Whose::Ours => self.bring_in_line(backend, volume),
                Whose::Unfinished => self.create(),
                Whose::Anothers(_) if self.o.brings_back().is_some() && !self.was_provisioned() => {
                    self.bring_back(volume)
                }
                Whose::Anothers(whose) => self.fail(&owned_by_another(volume, &whose)),
            },
        }
    }

    /// Nothing is asked and nothing changed, until the annotation goes; that wakes the share.
    fn pause(&self) -> ShareDecision {
        let message =
            format!("it carries the annotation {PAUSED}; Shoal leaves it alone until that is taken off");
        let mut conditions = self
            .keeping()
            .set(types::PAUSED, true, reasons::PAUSED, message.clone());
        if self.o.is_deleted() && self.o.is_held() {
            conditions = conditions.set(types::DELETION_BLOCKED, true, reasons::PAUSED, message);
        }
        let status = ShareStatus {
            conditions: conditions.build(),
            ..self.before.clone()
        };
        let why = failure(Class::Waiting, reasons::PAUSED, "the share is paused".into());
        self.done_telling_rules(status, Next::Await, &why)
    }

    // ---- bringing back

    /// Claims what is kept, and makes it the share's own. The claim is stored first: from then on nobody removes it.
    fn bring_back(&self, volume: &Volume) -> ShareDecision {
        let Some(kept) = &self.o.source else {
            return self.adopt(volume);
        };
        let from = share_deletion::volume_ref(kept, &self.o.cluster).owner;
        if matches!(whose(volume, &from), Whose::Anothers(_)) {
            return self.fail(&owned_by_another(
                volume,
                "neither this Share nor the one that was deleted",
            ));
        }
        if self.o.has_claimed() {
            return self.progress(reasons::CREATING, "being brought back", Effect::BringBack);
        }
        match share_deletion::may_be_adopted(kept, self.o.uid()) {
            Ok(()) => self.progress(reasons::CREATING, "being brought back", Effect::Claim),
            // What is kept wakes it when it may be had.
            Err(refusal) => self.fail(&Failure {
                class: Class::Stalled,
                ..refusal
            }),
        }
    }

    /// Makes the share's own what no object owns. Its handle stands in status by now, so nobody else gets it. Who was let in to it
    /// is cut off first: no rule of today lets them in.
    fn adopt(&self, volume: &Volume) -> ShareDecision {
        let Tag::Owner(former) = &volume.tag else {
            return self.fail(&owned_by_another(volume, "nobody whose tag can be read"));
        };
        if asks_for(&self.o.share) != self.o.brings_back() {
            return self.fail(&owned_by_another(
                volume,
                "another, and what said that it becomes this Share's was taken back",
            ));
        }
        if let Err(refusal) = self.may_adopt(&volume.handle, former) {
            return self.fail(&Failure {
                class: Class::Stalled,
                ..refusal
            });
        }
        let effect = if self.o.former.is_revoked {
            Effect::BringBack
        } else {
            Effect::Revoke
        };
        self.progress(reasons::CREATING, "being brought back", effect)
    }

    /// Whether what no object owned may become this share's.
    fn may_adopt(&self, handle: &str, former: &Owner) -> Result<(), Failure> {
        let others = &self.o.former.others;
        let why = if let Some(holder) = &self.o.former.claimed_by {
            format!("'{handle}' is {holder}'s")
        } else if others.neighbours.contains(&former.cluster) {
            format!(
                "'{handle}' is the data of Share {}/{} of cluster {}, which spec.neighbours of a ShareBackend names",
                former.namespace, former.name, former.cluster
            )
        } else if others.unread.contains(&former.uid) {
            format!(
                "'{handle}' is the data of Share {}/{} (uid {}), which, or what is left of which, can't be understood",
                former.namespace, former.name, former.uid
            )
        } else {
            return Ok(());
        };
        Err(failure(
            Class::Waiting,
            reasons::NOT_TO_BE_BROUGHT_BACK,
            format!("{why}; nothing of it is touched. Name another, or delete this Share"),
        ))
    }

    /// What a storage admin has to decide before this share gets a volume of its own: no name alone gives anybody data, and nobody
    /// gets an empty volume in the place of data.
    fn undecided(&self) -> Option<&[Orphan]> {
        let orphans = &self.o.former.orphans;
        let is_said = self.o.brings_back().is_some() || orphan::verdict(&self.o.share) != Ok(None);
        (!is_said && !orphans.is_empty()).then_some(orphans)
    }

    /// Whether that was told before: it is looked at again when the scan finds something else.
    fn is_told_of_former_data(&self) -> Option<Failure> {
        let ready = self.before.conditions.iter().find(|c| c.type_ == types::READY)?;
        let is_told = ready.reason == reasons::FORMER_DATA_FOUND
            && ready.observed_generation == Some(self.generation());
        let named = orphan::named(self.undecided()?);
        (is_told && self.before.former_data == named)
            .then(|| failure(Class::Waiting, reasons::FORMER_DATA_FOUND, ready.message.clone()))
    }

    /// That no data of its own may be where nobody has looked yet.
    fn all_were_scanned(&self, share_type: &ShareType) -> Result<(), Failure> {
        let may_hold = |name: &str| {
            let candidate = self.o.candidates.iter().find(|candidate| candidate.name == name);
            candidate.is_none_or(|candidate| placement::selects(share_type, name, &candidate.labels))
        };
        let unscanned = self.o.former.unscanned.iter();
        let unscanned: Vec<_> = unscanned.filter(|(name, _)| may_hold(name)).collect();
        let in_trouble = unscanned
            .iter()
            .find_map(|(name, why)| Some((name, why.as_ref()?)));
        match (in_trouble, unscanned.first()) {
            (Some((name, why)), _) => Err(orphan::not_scanned(name, why)),
            // The end of the scan wakes it.
            (None, Some((name, _))) => Err(failure(
                Class::Waiting,
                reasons::BACKEND_NOT_ASKED,
                format!("ShareBackend '{name}' is being looked through"),
            )),
            (None, None) => Ok(()),
        }
    }

    /// Whether what is to be brought back is where its backend makes shares. What lies elsewhere is not Shoal's, or another's.
    fn is_in_its_group(&self, existing: &ExistingShare) -> Result<(), Failure> {
        let ExistingShare { backend_name, handle } = existing;
        let mut candidates = self.o.candidates.iter();
        let holder = candidates.find(|candidate| candidate.name == *backend_name);
        // Of one that does not answer nothing is brought back.
        let Some(Ok(description)) = holder.map(|holder| &holder.state) else {
            return Ok(());
        };
        let group = Place::of(Some(handle), "").group.unwrap_or_default();
        if group == description.group {
            return Ok(());
        }
        let field = match &self.o.share.spec.source {
            Some(_) => "spec.source.existing.handle".into(),
            None => format!("metadata.annotations: {FORMER_DATA}"),
        };
        Err(failure(
            Class::Stalled,
            reasons::NOT_TO_BE_BROUGHT_BACK,
            format!(
                "{field}: '{handle}' is not in subvolume group '{}', which is ShareBackend '{backend_name}''s; name what kubectl shoal orphans \
                 shows, or a ShareBackend whose spec.ceph.subvolumeGroup is '{group}'",
                description.group
            ),
        ))
    }

    /// What no object owns, if the share may have it.
    fn orphan(&self, existing: &ExistingShare) -> Result<&Orphan, Failure> {
        self.is_in_its_group(existing)?;
        let ExistingShare { backend_name, handle } = existing;
        if let Some(why) = &self.o.former.not_looked_for {
            return Err(Failure {
                message: format!(
                    "'{handle}' on ShareBackend '{backend_name}' could not be looked at: {}",
                    why.message
                ),
                ..why.clone()
            });
        }
        let there = self.o.former.orphans.iter().find(|orphan| {
            orphan.backend_name == *backend_name && orphan.handle == *handle && orphan.volume.is_some()
        });
        let Some(orphan) = there else {
            return Err(Failure {
                class: Class::Waiting,
                ..nothing_to_bring_back(format!(
                    "neither does a ShareDeletion keep '{handle}' on ShareBackend '{backend_name}', nor is it there with the tag of a Share; take both from kubectl get sharedeletions -o wide, or from kubectl shoal orphans"
                ))
            });
        };
        self.may_adopt(handle, &orphan.owner)?;
        Ok(orphan)
    }

    /// The backend that holds what is to be brought back, if that may be.
    fn where_it_is_kept(
        &self,
        share_type: &ShareType,
        existing: &ExistingShare,
        mount_point_name: Option<&str>,
    ) -> Result<(String, Description), Failure> {
        let name = &existing.backend_name;
        let (has, recorded) = if let Some(kept) = &self.o.source {
            share_deletion::may_be_adopted(kept, self.o.uid())?;
            (Some(kept.spec.size), Some(share_deletion::recorded(&kept.spec)))
        } else {
            let volume = self.orphan(existing)?.volume.as_ref();
            (volume.and_then(|v| v.size_bytes).and_then(Size::from_bytes), None)
        };
        if let Some(has) = has
            && self.o.share.spec.size < has
        {
            return Err(failure(
                Class::Stalled,
                reasons::SIZE_OUT_OF_RANGE,
                format!(
                    "spec.size: {} is below {has}, the size of what is brought back; ask for that at least",
                    self.o.share.spec.size
                ),
            ));
        }
        let wishes = self.o.share.spec.placement.clone().unwrap_or_default();
        let own_name = self.o.share.metadata.name.as_deref().unwrap_or_default();
        // What is there already takes no more room.
        let chosen = placement::choose(
            &placement::Request {
                share_type,
                protocol: self.o.share.spec.protocol,
                size_bytes: 0,
                pin: Some(name),
                company: placement::company(own_name, &wishes, &self.o.neighbours)?,
                mount_point_name,
                taken_on: &self.o.taken_on,
            },
            &self.o.candidates,
        )?;
        let description = chosen.state.as_ref().map_err(Clone::clone)?;
        if let Some(recorded) = recorded {
            share_backend::usable(name, Some(&chosen.state), &recorded, None)?;
        }
        let (has, asked) = (has.map_or(0, Size::bytes), self.o.share.spec.size.bytes());
        // What was given up has no room any more, and what no object owns has none.
        let has_room = self.o.source.as_ref().is_some_and(share_deletion::is_pending);
        if asked > has || !has_room {
            placement::may_extend(chosen, has, asked)?;
        }
        Ok((name.clone(), description.clone()))
    }

    // ---- finding a place

    fn schedule(&self) -> ShareDecision {
        let share = &self.o.share;
        if let Some(told) = self.is_told_of_former_data() {
            return self.done_telling_rules(self.before.clone(), Next::Await, &told);
        }
        // What the scan has found may be gone since.
        let wanted = self.o.brings_back().filter(|_| self.o.source.is_none());
        let wants_an_orphan = wanted.is_some_and(|existing| self.is_in_its_group(&existing).is_ok());
        if !self.o.former.is_confirmed && (wants_an_orphan || self.undecided().is_some()) {
            return Decision::step(self.before.clone(), Step::Do(Effect::LookAtFormer));
        }
        if self.o.former.is_to_be_asked {
            return self.until_asked();
        }
        let chosen = self.o.share_type.clone().and_then(|share_type| {
            share_type::admit(
                &share_type,
                &self.o.namespace_labels,
                share.spec.protocol,
                share.spec.size,
            )?;
            let mount_point_name = mount_point::resolve(share, &share_type)?;
            let asked = Asked {
                share_type_name: share_type.metadata.name.as_deref().unwrap_or_default(),
                bytes: share.spec.size.bytes(),
                grows: false,
            };
            share_quota::admit(&self.o.quotas, &self.o.usage, &asked)?;
            let verdict = orphan::verdict(share)?;
            if let Some(existing) = self.o.brings_back() {
                let (name, description) =
                    self.where_it_is_kept(&share_type, &existing, mount_point_name.as_deref())?;
                return Ok((share_type, name, description, mount_point_name));
            }
            if verdict.is_none() {
                self.undecided()
                    .map_or(Ok(()), |orphans| Err(orphan::found(orphans)))?;
            }
            let wishes = share.spec.placement.clone().unwrap_or_default();
            let name = share.metadata.name.as_deref().unwrap_or_default();
            let request = placement::Request {
                share_type: &share_type,
                protocol: share.spec.protocol,
                size_bytes: share.spec.size.bytes(),
                pin: wishes.backend_name.as_deref(),
                company: placement::company(name, &wishes, &self.o.neighbours)?,
                mount_point_name: mount_point_name.as_deref(),
                taken_on: &self.o.taken_on,
            };
            let candidate = placement::choose(&request, &self.o.candidates)?;
            if verdict.is_none() {
                self.all_were_scanned(&share_type)?;
            }
            let description = candidate.state.clone()?;
            Ok((share_type, candidate.name.clone(), description, mount_point_name))
        });
        match chosen {
            Ok((share_type, backend_name, description, resolved_mount_point_name)) => {
                let is_nfs = share.spec.protocol == Protocol::NFS;
                let conditions = self
                    .conditions()
                    .reconciling(reasons::CREATING, "being created")
                    .set(
                        types::SCHEDULED,
                        true,
                        reasons::SCHEDULED,
                        format!("placed on {backend_name}"),
                    );
                let status = ShareStatus {
                    observed_generation: Some(self.generation()),
                    phase: Some(SharePhase::Creating),
                    conditions: self.with_quota(conditions, None).build(),
                    share_type_name: share_type.metadata.name.clone(),
                    backend_name: Some(backend_name),
                    nfs_cluster_id: description.nfs_cluster_id.filter(|_| is_nfs),
                    resolved_mount_point_name,
                    fsid: Some(description.identity.fsid),
                    fs_name: Some(description.identity.fs_name),
                    fs_id: Some(description.identity.fs_id),
                    quota: Some(Charge {
                        charged: share.spec.size,
                    }),
                    capabilities: Some(share_type::capabilities(&share_type)),
                    handle: self.o.brings_back().map(|existing| existing.handle),
                    ..ShareStatus::default()
                };
                Decision::step(status, Step::Record)
            }
            Err(failure) if is_not_asked(&failure) => self.until_asked(),
            Err(failure) => {
                let conditions = self.conditions().failed(&failure).set(
                    types::SCHEDULED,
                    false,
                    failure.reason,
                    failure.message.clone(),
                );
                let undecided = self
                    .undecided()
                    .filter(|_| failure.reason == reasons::FORMER_DATA_FOUND);
                let status = ShareStatus {
                    observed_generation: Some(self.generation()),
                    phase: Some(SharePhase::Pending),
                    conditions: self.with_quota(conditions, Some(&failure)).build(),
                    former_data: undecided.map(orphan::named).unwrap_or_default(),
                    ..ShareStatus::default()
                };
                // Room can appear without an event.
                let next = undecided.map_or(Next::After(PLACE_AGAIN), |_| Next::Await);
                self.done_telling_rules(status, next, &failure)
            }
        }
    }

    /// Says whether the share is charged what it asks for, where there is, or was, a quota.
    fn with_quota<'a>(&self, conditions: Conditions<'a>, refusal: Option<&Failure>) -> Conditions<'a> {
        let was_told = || {
            let mut told = self.before.conditions.iter();
            told.any(|condition| condition.type_ == types::QUOTA_RESERVED)
        };
        match refusal {
            Some(failure) if failure.reason == reasons::QUOTA_EXCEEDED => conditions.set(
                types::QUOTA_RESERVED,
                false,
                failure.reason,
                failure.message.clone(),
            ),
            // What else is in the way of one that has no place yet says nothing of the quota.
            Some(_) if self.before.backend_name.is_none() => conditions,
            _ if !self.o.quotas.is_empty() || was_told() => conditions.set(
                types::QUOTA_RESERVED,
                true,
                reasons::QUOTA_RESERVED,
                "its size is charged",
            ),
            _ => conditions,
        }
    }

    // ---- its backend

    fn usable_backend(&self, recorded: &Identity) -> Result<&Description, Failure> {
        let name = self.before.backend_name.as_deref().unwrap_or_default();
        // In the very pass that chose it, it is still among those it was chosen from.
        let chosen = || {
            self.o
                .candidates
                .iter()
                .find(|c| c.name == name)
                .map(|c| &c.state)
        };
        let exported_on = self.before.nfs_cluster_id.as_deref();
        share_backend::usable(
            name,
            self.o.backend.as_ref().or_else(chosen),
            recorded,
            exported_on,
        )
    }

    /// The first answer wakes the share, whatever it is; until then there is nothing to tell.
    fn until_asked(&self) -> ShareDecision {
        Decision::done(self.before.clone(), Next::Await)
    }

    /// The backend's trouble is told on the backend: a share with nothing to do stays as it is, without a write.
    fn hold(&self, failure: &Failure) -> ShareDecision {
        let outstanding = !self.is_ready_for_spec() || !self.rules_settled();
        let next = self.after_backend_trouble();
        if !outstanding && failure.class == Class::Waiting {
            return Decision::done(self.before.clone(), next);
        }
        let conditions = self.keeping();
        let conditions = if failure.class == Class::Waiting && is_true(&self.before.conditions, types::READY)
        {
            conditions.without(types::STALLED).set(
                types::RECONCILING,
                true,
                failure.reason,
                failure.message.clone(),
            )
        } else {
            conditions.failed(failure)
        };
        let phase = if failure.class == Class::Waiting {
            self.before.phase
        } else {
            Some(SharePhase::Error)
        };
        let status = ShareStatus {
            observed_generation: Some(self.generation()),
            phase,
            conditions: conditions.build(),
            ..self.before.clone()
        };
        self.done_telling_rules(status, next, failure)
    }

    /// A backend that can't be used wakes its shares when it can; one that failed a command may not know.
    fn after_backend_trouble(&self) -> Next {
        if self.o.failure.is_some() {
            Next::After(backoff::spread(AFTER_BACKEND_TROUBLE, self.o.uid(), 0))
        } else {
            Next::Await
        }
    }

    // ---- while its backend is only looked at

    /// Says what would be changed there. What was said before may be so no more: each pass looks.
    fn compare(&self, backend: &Description, recorded: &Identity) -> ShareDecision {
        let exported_on = self.before.nfs_cluster_id.as_deref();
        let answers = Ok(backend.clone());
        let usable = share_backend::usable(self.backend_name(), Some(&answers), recorded, exported_on);
        if let Some(failure) = usable.err().as_ref().or(self.o.failure.as_ref()) {
            return self.hold(failure);
        }
        let look = |effect| Decision::step(self.before.clone(), Step::Do(effect));
        let Some(sight) = &self.o.sight else {
            return look(Effect::Look);
        };
        if !self.o.rules_confirmed {
            return look(Effect::ConfirmRules);
        }
        let status = ShareStatus {
            differences: Some(difference::told(self.differences(backend, sight))),
            ..self.before.clone()
        };
        Decision::done(status, Next::After(self.o.look_again))
    }

    /// What would come to be done on the backend, or can't; what lets in more first.
    fn differences(&self, backend: &Description, sight: &Sight) -> Vec<String> {
        let plan = self.plan(backend);
        let anew = |why: String| {
            let mut all = difference::of_access(&plan, &Access::new());
            all.push(why);
            all
        };
        let volume = match sight {
            Sight::Present(volume) => volume,
            Sight::Absent { .. } if self.was_provisioned() => {
                return vec!["its data is not there; it is not made again".into()];
            }
            Sight::Absent { .. } if self.o.brings_back().is_some() => {
                return vec!["what it brings back is not there".into()];
            }
            Sight::Absent { .. } => return anew("its subvolume is made".into()),
        };
        let whose = self.whose(volume);
        if let Whose::Anothers(whose) = whose {
            let is_to_have_it = self.o.brings_back().is_some() && !self.was_provisioned();
            let step = self.bring_back(volume).step;
            let has_it = matches!(
                step,
                Some(Step::Do(Effect::Claim | Effect::Revoke | Effect::BringBack))
            );
            if is_to_have_it && has_it {
                return anew(format!(
                    "what is tagged as belonging to {whose} becomes its own, and all access that there is ends"
                ));
            }
            return vec![format!(
                "its subvolume is tagged as belonging to {whose}; it is not touched"
            )];
        }
        let mut all = match &volume.export {
            Export::Taken(_) => {
                return vec!["its pseudo path is exported by somebody else; it is not touched".into()];
            }
            Export::Absent => anew("its export is made".into()),
            Export::Ours { access, intact, .. } => {
                let mut all = difference::of_access(&plan, access);
                if !intact {
                    all.push("its export is made as Shoal makes it".into());
                }
                all
            }
        };
        if whose == Whose::Unfinished {
            all.push("its subvolume is tagged as its own".into());
        }
        let (size, _) = self.wanted_size(volume);
        if volume.size_bytes != Some(size.bytes()) {
            let is = volume.size_bytes.and_then(Size::from_bytes);
            let is = is.map_or("none".into(), |is| is.to_string());
            all.push(format!("its quota becomes {size}, from {is}"));
        }
        if volume.metadata != metadata::to_text(&self.o.share.spec.metadata) {
            all.push("its metadata is written anew".into());
        }
        all
    }

    // ---- being there

    fn was_provisioned(&self) -> bool {
        was_provisioned(&self.before)
    }

    fn is_stalled(&self) -> bool {
        is_true(&self.before.conditions, types::STALLED)
    }

    fn is_ready_for_spec(&self) -> bool {
        is_true(&self.before.conditions, types::READY)
            && !is_true(&self.before.conditions, types::RECONCILING)
            && self.before.observed_generation == Some(self.generation())
    }

    fn rules_settled(&self) -> bool {
        let total = self.before.access.unwrap_or_default().total;
        usize::try_from(total) == Ok(self.o.rules.len())
            && self.o.rules.iter().all(|r| r.is_settled(self.o.uid()))
    }

    /// Whether status says that all is well, nothing has changed since, and it is not time to look.
    fn is_settled(&self, backend: &Description) -> bool {
        let Some(location) = self.before.export_locations.first() else {
            return false;
        };
        let pseudo_path = volume_ref(self.o).pseudo_path;
        let expected = self.locations(backend, &location.metadata.subvolume_path, Some(&pseudo_path));
        !self.o.look_due
            && !self.is_said_to_differ()
            && self.is_ready_for_spec()
            && self.rules_settled()
            && self.before.export_locations == expected
            && self.is_annotated(&expected)
    }

    /// Whether something was found to be changed when nothing might be.
    fn is_said_to_differ(&self) -> bool {
        let stored = self.o.share.status.as_ref();
        let differences = stored.and_then(|status| status.differences.as_ref());
        differences.is_some_and(|differences| differences.total > 0)
    }

    /// The size to make it with. One that was there and lost its tag keeps its quota: growing and shrinking have rules of
    /// their own.
    fn new_size(&self) -> Result<Size, Failure> {
        if self.was_provisioned()
            && let Some(in_force) = self.before.size
        {
            return Ok(in_force);
        }
        let asked = self.o.share.spec.size;
        let charged = self.before.quota.map_or(asked, |quota| quota.charged);
        share_type::may_become(self.capabilities().size, charged, asked)?;
        // One that was enlarged meanwhile is made as large as it was placed, and grows as any other.
        Ok(asked.min(charged))
    }

    fn create(&self) -> ShareDecision {
        let size = match self.new_size() {
            Ok(size) => size,
            Err(failure) => return self.fail(&failure),
        };
        let new = NewVolume {
            size_bytes: size.bytes(),
            root: self.capabilities().root,
            was_there: self.was_provisioned(),
        };
        self.progress(reasons::CREATING, "being created", Effect::Create(new))
    }

    /// Access comes first: a client that must not be let in must not wait for anything else.
    fn bring_in_line(&self, backend: &Description, volume: &Volume) -> ShareDecision {
        let plan = self.plan(backend);
        if let Some(decision) = self.align_access(volume, &plan) {
            return decision;
        }
        let (size, refusal) = self.wanted_size(volume);
        // Room is shared out by what is stored, so that comes before the growing.
        if size.bytes() > self.charged() {
            let status = ShareStatus {
                quota: Some(Charge { charged: size }),
                ..self.before.clone()
            };
            return Decision::step(status, Step::Record);
        }
        if volume.size_bytes != Some(size.bytes()) {
            return self.progress(
                reasons::RESIZING,
                &format!("quota being set to {size}"),
                Effect::Resize(size.bytes()),
            );
        }
        let metadata = metadata::to_text(&self.o.share.spec.metadata);
        if volume.metadata != metadata {
            return self.progress(
                reasons::CREATING,
                "its metadata is being written",
                Effect::SetMetadata(metadata),
            );
        }
        let Export::Ours { pseudo_path, .. } = &volume.export else {
            // align_access leaves no other.
            return self.fail(&failure(
                Class::Bug,
                reasons::INTERNAL_ERROR,
                "exported to nobody's knowledge".into(),
            ));
        };
        let locations = self.locations(backend, &volume.path, pseudo_path.as_deref());
        if !self.is_annotated(&locations) {
            let mirror = export_location::mirror(&locations);
            return self.progress(reasons::CREATING, "being published", Effect::Annotate(mirror));
        }
        let summary = rules::summary(&plan);
        let conditions = self
            .conditions()
            .set(
                types::SCHEDULED,
                true,
                reasons::SCHEDULED,
                format!("placed on {}", self.backend_name()),
            )
            .set(
                types::PROVISIONED,
                true,
                reasons::AVAILABLE,
                format!("{} of {size}", volume.handle),
            )
            .set(
                types::EXPORTED,
                true,
                reasons::AVAILABLE,
                "reachable at its export locations",
            )
            .set(
                types::ACCESS_APPLIED,
                true,
                reasons::AVAILABLE,
                format!(
                    "{} of {} rules in force; nobody else is let in",
                    summary.applied, summary.total
                ),
            );
        let conditions = self.with_quota(conditions, refusal.as_ref());
        let (phase, conditions) = match &refusal {
            None => (
                SharePhase::Available,
                conditions.ready("can be mounted by the clients its access rules let in"),
            ),
            Some(failure) if failure.class == Class::Waiting => {
                (SharePhase::Extending, conditions.failed(failure))
            }
            Some(failure) => (SharePhase::Error, conditions.failed(failure)),
        };
        let status = ShareStatus {
            observed_generation: Some(self.generation()),
            phase: Some(phase),
            conditions: conditions.build(),
            handle: Some(volume.handle.clone()),
            size: Some(size),
            quota: Some(Charge { charged: size }),
            export_revision: export_location::revision(&locations),
            export_locations: locations,
            access: Some(summary),
            last_handled_requested_at: self.answered(),
            attempts: None,
            next_retry_time: None,
            ..self.before.clone()
        };
        Decision::done(status, Next::After(self.o.look_again))
    }

    fn answered(&self) -> Option<String> {
        let answered = &self.before.last_handled_requested_at;
        self.o.looked_for.clone().or_else(|| answered.clone())
    }

    fn locations(
        &self,
        backend: &Description,
        subvolume_path: &str,
        pseudo_path: Option<&str>,
    ) -> Vec<ExportLocation> {
        let spec = &self.o.share.spec;
        let locations = export_location::locations(backend, spec.protocol, subvolume_path, pseudo_path);
        export_location::with_users_metadata(locations, &spec.export_location_metadata)
    }

    fn plan(&self, backend: &Description) -> Plan {
        let terms = Terms {
            protocol: self.o.share.spec.protocol,
            squash: self.capabilities().squash,
            own_identity: backend.own_identity.as_deref(),
            refused: &self.o.refused,
        };
        rules::plan(terms, &self.o.rules)
    }

    /// The next step towards "the backend lets in exactly what the rules say, and the rules say so".
    fn align_access(&self, volume: &Volume, plan: &Plan) -> Option<ShareDecision> {
        let step = |effect| Some(self.progress(reasons::APPLYING_ACCESS, "access is being applied", effect));
        let have = match &volume.export {
            Export::Taken(holder) => {
                let path = volume_ref(self.o).pseudo_path;
                // Whoever may choose a path must not learn from it what others have.
                let holder = match &self.before.resolved_mount_point_name {
                    Some(_) => "somebody else on its NFS cluster",
                    None => holder,
                };
                return Some(self.fail(&failure(
                    Class::Conflict,
                    reasons::EXPORT_PATH_TAKEN,
                    format!(
                        "the pseudo path {path} is exported by {holder}; it is not touched. Remove that export, and this \
                         share gets its own"
                    ),
                )));
            }
            Export::Absent => None,
            Export::Ours { access, intact, .. } => Some((access, *intact)),
        };
        let in_line = have.is_some_and(|(access, intact)| intact && *access == plan.access);
        // A cache that is behind must neither let anybody in nor lock anybody out.
        let doubtful = if in_line {
            !self.rules_settled()
        } else {
            have.is_some() || !self.o.rules.is_empty()
        };
        if !self.o.rules_confirmed && (doubtful || self.o.rules.iter().any(RuleView::needs_reading)) {
            return step(Effect::ConfirmRules);
        }
        let unheld = self.rules_with(|rule| !rule.is_deleted() && !rule.is_held());
        if !unheld.is_empty() {
            return step(Effect::HoldRules(unheld));
        }
        // What the record names is gone before it names another.
        let outlived = self.rules_with(|rule| rule.has_outlived_custody() && !rule.is_leaving());
        if !outlived.is_empty() {
            return step(Effect::ForgetKeys(outlived));
        }
        let about_to_be_hidden = rules::hiding_reports(self.o.uid(), &self.o.rules, plan, self.now);
        if !about_to_be_hidden.is_empty() {
            return step(Effect::ReportRules(about_to_be_hidden));
        }
        if !in_line {
            let outdated = self.outdated_keys(plan, have.map(|(access, _)| access));
            if let Some(decision) = self.fence() {
                return Some(decision);
            }
            if !outdated.is_empty() {
                return step(Effect::ForgetKeys(outdated));
            }
            return step(Effect::Export(plan.access.clone()));
        }
        // What is left may fail at the API server for long, and its spec need not be kept for that.
        if ensure::is_marked(&self.o.share) {
            return step(Effect::LiftFence);
        }
        let shown = self.rules_with(|rule| rule.shown && !rule.is_leaving());
        if !shown.is_empty() {
            return step(Effect::ForgetKeys(shown));
        }
        let lacking = self.keys_wanted(plan);
        // There is no place for a new Secret in a namespace that is being deleted.
        let no_keys = BTreeMap::new();
        let keys = if self.o.namespace_deleted.is_some() {
            &no_keys
        } else {
            &self.o.keys
        };
        let mut reports = rules::reports(self.o.uid(), &self.o.rules, plan, keys, self.now);
        reports
            .retain(|report| !lacking.contains_key(report.rule.metadata.name.as_deref().unwrap_or_default()));
        // What was learned is stored before more is asked for: a pass that is cut short has come further than the one before.
        let is_learned = reports.iter().any(|report| report.secret.is_some());
        if !is_learned && !lacking.is_empty() {
            return step(Effect::FetchKeys(lacking.into_values().take(MOST_KEYS).collect()));
        }
        if !reports.is_empty() {
            return step(Effect::ReportRules(reports));
        }
        None
    }

    fn rules_with(&self, wanted: impl Fn(&RuleView) -> bool) -> Vec<String> {
        let its = self.o.rules.iter().filter(|rule| wanted(rule));
        its.map(|rule| rule.name().to_owned()).collect()
    }

    /// Of a share that could be used: it is marked, and says so, before it is touched. Who deletes it or changes its spec
    /// meanwhile is told to wait; its readiness stays as it was.
    fn fence(&self) -> Option<ShareDecision> {
        if !self.o.is_to_be_verified() || !is_true(&self.before.conditions, types::EXPORTED) {
            return None;
        }
        if !ensure::is_marked(&self.o.share) {
            return Some(Decision::step(self.before.clone(), Step::Do(Effect::Fence)));
        }
        if is_true(&self.before.conditions, types::ENSURING) {
            return None;
        }
        let status = ShareStatus {
            phase: Some(SharePhase::Ensuring),
            conditions: self
                .keeping()
                .set(
                    types::ENSURING,
                    true,
                    reasons::ENSURING,
                    "its export is being made again; its spec can't be changed until that is done",
                )
                .build(),
            ..self.before.clone()
        };
        Some(Decision::step(status, Step::Record))
    }

    /// Rules with a Secret whose client is about to be let in anew. Ceph makes a new key for an identity that had lost its
    /// last capability; if that is learned and lost again, in a crash, nothing would tell that the Secret holds an old one.
    fn outdated_keys(&self, plan: &Plan, have: Option<&Access>) -> Vec<String> {
        let is_let_in =
            |client: &Client| have.is_some_and(|access| access.iter().any(|g| g.client == *client));
        self.o
            .rules
            .iter()
            .filter(|view| view.credentials == Credentials::Complete)
            .filter(|view| match plan.verdicts.get(view.name()) {
                Some(rules::Verdict::Grant(grant)) => !is_let_in(&grant.client),
                _ => false,
            })
            .map(|view| view.name().to_owned())
            .collect()
    }

    /// Clients that are let in and whose Secret lacks the key, by the names of their rules.
    fn keys_wanted(&self, plan: &Plan) -> BTreeMap<&str, Grant> {
        if self.o.namespace_deleted.is_some() {
            return BTreeMap::new();
        }
        self.o
            .rules
            .iter()
            .filter(|view| view.credentials == Credentials::Missing)
            .filter_map(|view| match plan.verdicts.get(view.name())? {
                rules::Verdict::Grant(
                    grant @ Grant {
                        client: Client::CephX(identity),
                        ..
                    },
                ) if !self.o.keys.contains_key(identity) => Some((view.name(), grant.clone())),
                _ => None,
            })
            .collect()
    }

    /// The quota that the share is to have, and why it is not the one asked for.
    fn wanted_size(&self, volume: &Volume) -> (Size, Option<Failure>) {
        let asked = self.o.share.spec.size;
        let in_force = self
            .before
            .size
            .or(self.before.quota.map(|quota| quota.charged))
            .or_else(|| volume.size_bytes.and_then(Size::from_bytes))
            .unwrap_or(asked);
        if asked == in_force {
            return (asked, None);
        }
        if let Err(refusal) = share_type::may_become(self.capabilities().size, in_force, asked) {
            return (in_force, Some(refusal));
        }
        if asked > in_force {
            let room = match self.o.candidates.first() {
                Some(own) if asked.bytes() > self.charged() => {
                    let asked = Asked {
                        share_type_name: self.before.share_type_name.as_deref().unwrap_or_default(),
                        bytes: asked.bytes(),
                        grows: true,
                    };
                    share_quota::admit(&self.o.quotas, &self.o.usage, &asked)
                        .and_then(|()| placement::may_extend(own, self.charged(), asked.bytes))
                }
                _ => Ok(()),
            };
            return match room {
                Ok(()) => (asked, None),
                Err(refusal) => (in_force, Some(refusal)),
            };
        }
        let refuse = |reason, message| (in_force, Some(failure(Class::Stalled, reason, message)));
        if !self.capabilities().shrink {
            return refuse(
                reasons::SHRINK_NOT_ALLOWED,
                format!(
                    "spec.size: {asked} is below {in_force}, and the share's type does not let it shrink; ask for at least {in_force}"
                ),
            );
        }
        if asked.bytes() < volume.used_bytes {
            return refuse(
                reasons::SHRINK_BELOW_USED,
                format!(
                    "spec.size: {asked} is below the {} bytes in use; remove data, or ask for more",
                    volume.used_bytes
                ),
            );
        }
        (asked, None)
    }

    // ---- going

    /// A lock that was stored before the deletion was accepted is in the API server's list now, whatever the cache has heard.
    /// Asked before anything else: the API server takes up to 100 ms for it, and no turn on the backend is to be held meanwhile.
    fn unless_locked(&self, decision: ShareDecision) -> ShareDecision {
        if decision.step.is_none() || self.o.locks_confirmed {
            return decision;
        }
        Decision::step(self.before.clone(), Step::Do(Effect::ConfirmLocks))
    }

    /// Of a share that only waits to go.
    fn begin_nothing(&self) -> ShareDecision {
        if !self.o.is_held() {
            return Decision::done(self.before.clone(), Next::Await);
        }
        let waits = failure(
            Class::Waiting,
            reasons::LOCKED,
            "nothing is made any more: it goes when its locks are deleted".into(),
        );
        let status = ShareStatus {
            observed_generation: Some(self.generation()),
            phase: Some(SharePhase::Pending),
            conditions: self.keeping().failed(&waits).build(),
            ..self.before.clone()
        };
        self.done_telling_rules(status, Next::Await, &waits)
    }

    fn delete(&self) -> ShareDecision {
        if !self.o.is_held() {
            return Decision::done(self.before.clone(), Next::Await);
        }
        let let_go = || Decision::step(self.before.clone(), Step::RemoveFinalizer);
        // Nothing was ever done without a stored choice.
        let Some(recorded) = recorded(&self.before) else {
            return let_go();
        };
        if self.o.going.is_handed_on {
            return let_go();
        }
        let usable = self.usable_backend(&recorded);
        let trouble = match (usable, &self.o.failure) {
            _ if self.o.going.is_in_hand => Some(not_accepted_yet()),
            (Err(failure), _) if is_not_asked(&failure) && !self.o.is_deferred() => {
                return self.until_asked();
            }
            (Err(failure), _) if is_not_asked(&failure) && !self.o.going.is_warm => {
                return Decision::done(self.before.clone(), Next::After(PATIENCE));
            }
            (Err(failure), _) => Some(failure),
            (Ok(_), failure) => failure.clone(),
        };
        if let Some(failure) = trouble {
            return self.troubled(&failure);
        }
        if !self.o.is_deferred()
            && let Some(wait) = self.still_backing_off()
        {
            return Decision::done(self.before.clone(), Next::After(wait));
        }
        match &self.o.sight {
            None => self.leaving(Effect::Look),
            Some(Sight::Absent { leftovers: false }) => let_go(),
            Some(Sight::Absent { leftovers: true }) => self.leaving(Effect::Unexport),
            Some(Sight::Present(volume)) => match self.whose(volume) {
                Whose::Anothers(whose) if self.was_provisioned() => {
                    self.troubled(&owned_by_another(volume, &whose))
                }
                // It never was ours, so there is nothing of ours to remove.
                Whose::Anothers(_) => let_go(),
                Whose::Ours | Whose::Unfinished if matches!(volume.export, Export::Ours { .. }) => {
                    self.leaving(Effect::Unexport)
                }
                Whose::Ours | Whose::Unfinished if self.keeps_data() => self.hand_on(),
                Whose::Ours | Whose::Unfinished => self.leaving(Effect::Remove),
            },
        }
    }

    /// Nobody who deletes a share waits for the storage's troubles, unless its type says so.
    fn troubled(&self, failure: &Failure) -> ShareDecision {
        if self.o.is_deferred() {
            self.hand_on()
        } else {
            self.blocked(failure)
        }
    }

    fn hand_on(&self) -> ShareDecision {
        match share_deletion::of(self.o, self.now) {
            Some(deletion) => {
                let effect = Effect::HandOn(Box::new(deletion));
                Decision::step(self.before.clone(), Step::Do(effect))
            }
            None => self.blocked(&failure(
                Class::Bug,
                reasons::INTERNAL_ERROR,
                "its status does not say where it is".into(),
            )),
        }
    }

    fn keeps_data(&self) -> bool {
        self.o.may_hold_data()
            && (!self.capabilities().retention.is_zero() || deletion_policy(self.o) == DeletionPolicy::Retain)
    }

    fn leaving(&self, effect: Effect) -> ShareDecision {
        let status = ShareStatus {
            phase: Some(SharePhase::Deleting),
            conditions: self
                .keeping()
                .reconciling(reasons::DELETING, "being deleted")
                .build(),
            ..self.before.clone()
        };
        Decision::step(status, Step::Do(effect))
    }

    fn blocked(&self, failure: &Failure) -> ShareDecision {
        let (attempts, next_retry_time, next) = self.retry(failure);
        let status = ShareStatus {
            observed_generation: Some(self.generation()),
            phase: Some(SharePhase::ErrorDeleting),
            conditions: self
                .keeping()
                .reconciling(reasons::DELETING, "being deleted")
                .set(
                    types::DELETION_BLOCKED,
                    true,
                    failure.reason,
                    failure.message.clone(),
                )
                .build(),
            attempts,
            next_retry_time,
            ..self.before.clone()
        };
        Decision::done(status, next)
    }

    // ---- what it says

    fn progress(&self, reason: &str, message: &str, effect: Effect) -> ShareDecision {
        // A share that can be used stays Ready while it is worked on.
        let conditions = if is_true(&self.before.conditions, types::ENSURING) {
            self.keeping()
        } else if is_true(&self.before.conditions, types::READY) {
            self.keeping()
                .without(types::STALLED)
                .set(types::RECONCILING, true, reason, message)
        } else {
            self.keeping().reconciling(reason, message)
        };
        let phase = match &effect {
            Effect::Create(_) => SharePhase::Creating,
            Effect::Resize(bytes) if self.before.size.is_some_and(|s| s.bytes() > *bytes) => {
                SharePhase::Shrinking
            }
            Effect::Resize(_) => SharePhase::Extending,
            _ => self.before.phase.unwrap_or(SharePhase::Creating),
        };
        let status = ShareStatus {
            phase: Some(phase),
            conditions: conditions.build(),
            ..self.before.clone()
        };
        Decision::step(status, Step::Do(effect))
    }

    fn fail(&self, failure: &Failure) -> ShareDecision {
        if failure.scope == Scope::Backend {
            return self.hold(&Failure {
                class: Class::Waiting,
                ..failure.clone()
            });
        }
        let (attempts, next_retry_time, next) = self.retry(failure);
        let mut conditions = self.keeping().failed(failure);
        if failure.reason == reasons::VOLUME_MISSING {
            conditions = conditions.set(types::EXPORTED, false, failure.reason, failure.message.clone());
        }
        let status = ShareStatus {
            observed_generation: Some(self.generation()),
            phase: Some(SharePhase::Error),
            conditions: conditions.without(types::ENSURING).build(),
            // It was verified, and this is what came of it.
            last_handled_requested_at: self.answered(),
            attempts,
            next_retry_time,
            ..self.before.clone()
        };
        self.done_telling_rules(status, next, failure)
    }

    /// Rules that wait for the share are told why, once; those that are being deleted go if nobody is let in anyway.
    fn done_telling_rules(&self, status: ShareStatus, next: Next, why: &Failure) -> ShareDecision {
        let reports = rules::waiting_reports(
            self.o.uid(),
            &self.o.rules,
            why,
            self.nobody_is_let_in(),
            self.now,
        );
        if reports.is_empty() {
            return Decision::done(status, next);
        }
        // Whether a lock holds one that goes is the API server's to say.
        let lets_go = reports.iter().any(|report| report.release);
        let effect = if lets_go && !self.o.rules_confirmed {
            Effect::ConfirmRules
        } else {
            Effect::ReportRules(reports)
        };
        Decision {
            status,
            step: Some(Step::Do(effect)),
            next,
        }
    }

    /// Whether it is known that the backend lets nobody in. After a failed command nothing is.
    fn nobody_is_let_in(&self) -> bool {
        let seen = match &self.o.sight {
            None => false,
            Some(Sight::Absent { leftovers }) => !leftovers,
            Some(Sight::Present(volume)) => matches!(volume.export, Export::Absent | Export::Taken(_)),
        };
        self.o.failure.is_none() && (seen || recorded(&self.before).is_none())
    }

    /// Back-off of the share's own failures is kept in status, so that a restart does not forget it; the backend's is kept
    /// on the backend. Where only a change helps, the world is looked at again now and then.
    fn retry(&self, failure: &Failure) -> (Option<i32>, Option<Time>, Next) {
        match (failure.scope, failure.class) {
            (Scope::Backend, _) => (
                self.before.attempts,
                self.before.next_retry_time.clone(),
                self.after_backend_trouble(),
            ),
            (Scope::Object, Class::Stalled | Class::Conflict) => (None, None, Next::After(self.o.look_again)),
            (Scope::Object, _) => backoff::next(self.before.attempts, self.o.uid(), self.now),
        }
    }

    /// How long its last failure still holds it back. A change of the spec is tried at once, and so is one of a rule: who
    /// loses access must not keep it because something else failed.
    fn still_backing_off(&self) -> Option<Duration> {
        let news = !self.o.is_leaving() && self.o.rules.iter().any(|r| !r.is_told(self.o.uid()));
        let is_verified = !self.o.is_leaving() && self.o.is_to_be_verified();
        let fresh = news || is_verified || self.before.observed_generation != Some(self.generation());
        if fresh || self.o.sight.is_some() {
            return None;
        }
        backoff::left(self.before.next_retry_time.as_ref(), self.now)
    }

    fn whose(&self, volume: &Volume) -> Whose {
        whose(volume, &volume_ref(self.o).owner)
    }

    fn charged(&self) -> u64 {
        ledger::charged(&self.o.share.spec, &self.before)
    }

    fn is_annotated(&self, locations: &[ExportLocation]) -> bool {
        let there = self.o.share.metadata.annotations.as_ref();
        export_location::mirror(locations)
            .iter()
            .all(|(k, v)| there.is_some_and(|a| a.get(k) == Some(v)))
    }

    fn capabilities(&self) -> Capabilities {
        self.before.capabilities.clone().unwrap_or_default()
    }

    fn backend_name(&self) -> &str {
        self.before.backend_name.as_deref().unwrap_or_default()
    }

    fn generation(&self) -> i64 {
        self.o.share.metadata.generation.unwrap_or_default()
    }

    fn conditions(&self) -> Conditions<'_> {
        Conditions::new(&self.before.conditions, self.generation(), self.now)
    }

    /// What was said before, and that the subvolume is there once it was seen, whatever failed afterwards: clients may have
    /// written to it.
    fn keeping(&self) -> Conditions<'_> {
        let kept = Conditions::keeping(&self.before.conditions, self.generation(), self.now);
        match &self.o.sight {
            Some(Sight::Present(volume))
                if !self.was_provisioned() && matches!(self.whose(volume), Whose::Ours) =>
            {
                kept.set(
                    types::PROVISIONED,
                    true,
                    reasons::AVAILABLE,
                    format!("{} is there", volume.handle),
                )
            }
            _ => kept,
        }
    }
}

fn nothing_to_bring_back(message: String) -> Failure {
    failure(Class::Stalled, reasons::NOTHING_TO_BRING_BACK, message)
}

/// A command for a deletion has not been answered in the time that a user waits; it goes on.
pub fn not_accepted_yet() -> Failure {
    failure(
        Class::Waiting,
        reasons::NOT_ACCEPTED_YET,
        "the backend has not accepted the deletion yet".into(),
    )
}

fn is_not_asked(failure: &Failure) -> bool {
    failure.reason == reasons::BACKEND_NOT_ASKED
}
