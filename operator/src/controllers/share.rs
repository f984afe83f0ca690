//! The controller of Shares, and the one applier of their access rules.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::{
    ByteString,
    api::core::v1::{Namespace, Secret},
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{
    Api, Resource, ResourceExt,
    api::{ObjectMeta, Patch, PatchParams},
    core::PartialObjectMeta,
    runtime::reflector::ObjectRef,
};
use serde_json::json;
use shoal_backend::Backend as _;
use shoal_crds::{
    AccessType, AdoptingShareReference, LockedKind, Protocol, ResourceLock, Share, ShareAccessRule,
    ShareDeletion, ShareStatus,
    condition::reasons,
    names::{cephx_secret, field_managers, labels},
};
use shoal_domain::{
    Class, Decision, Failure, Scope, decision, ensure,
    grant::{Applied, Client},
    ledger::{self, Claim, Reservation},
    mount_point,
    orphan::{self, Former, Orphan},
    owner::{Place, Tag},
    resource_lock::{self, Mark},
    share::{self, Effect, Going, Observed},
    share_access_rule::{Credentials, KeySecret, Report, RuleView},
    share_backend, share_deletion,
    share_quota::Usage,
    share_type,
    volume::{Export, Sight, VolumeRef},
};

use super::{resource_lock as locks, share_access_rule::MANAGER as RULE_MANAGER};
use crate::{
    api,
    backends::Entry,
    caches::parsed,
    context::Context,
    custody,
    driver::{self, Kind},
    error::Error,
    failpoint,
};

/// Makes shares, keeps them, and takes them away.
pub struct Shares;

impl driver::Effect for Effect {
    fn name(&self) -> &'static str {
        self.name()
    }
    fn speaks_to_backend(&self) -> bool {
        self.changes_backend() || matches!(self, Self::Look | Self::LookAtFormer)
    }
    fn changes_backend(&self) -> bool {
        self.changes_backend()
    }
    fn needs_live_object(&self) -> bool {
        self.needs_live_object()
    }
}

#[async_trait]
impl Kind for Shares {
    type Object = Share;
    type Status = ShareStatus;
    type Observed = Observed;
    type Effect = Effect;
    const NAME: &'static str = "Share";
    const MANAGER: &'static str = "shoal/share";

    async fn load(ctx: &Context, share: Share) -> Result<Observed, Error> {
        let now = ctx.now();
        let name = share.namespace().unwrap_or_default();
        let namespace = namespace(ctx, &name).await?;
        let status = share.status.clone().unwrap_or_default();
        let asked = share.spec.share_type_name.as_deref();
        let types = parsed(&ctx.caches.types, |t| {
            asked.is_none() || t.metadata.name.as_deref() == asked
        });
        let rules = ctx
            .caches
            .rules_of
            .find(&ctx.caches.rules, &name, &share.name_any());
        let its = |rule: &ShareAccessRule| rule.spec.share_ref.name == share.name_any();
        let rules: Vec<_> = rules.into_iter().filter(its).map(RuleView::unread).collect();
        let on = status.backend_name.as_deref();
        let round = on.and_then(|on| ctx.ensures.due(on, &share.uid().unwrap_or_default()));
        let entry = backend(ctx, &status);
        let dry_run = entry.as_ref().and_then(|entry| entry.as_ref().ok());
        let dry_run = dry_run
            .filter(|entry| matches!(&entry.state, Err(why) if why.reason == reasons::DRY_RUN))
            .and_then(|entry| entry.dry_run.clone());
        let (look_due, look_again) = ctx.looks.when(&share.uid().unwrap_or_default(), now);
        let mut observed = Observed {
            cluster: ctx.cluster.clone(),
            tenant: namespace.metadata.uid.clone().unwrap_or_default(),
            namespace_deleted: namespace.metadata.deletion_timestamp.clone(),
            namespace_labels: namespace.metadata.labels.clone().unwrap_or_default(),
            share_type: share_type::resolve(asked, &types),
            candidates: Vec::new(),
            neighbours: Vec::new(),
            taken_on: std::collections::BTreeSet::new(),
            quotas: Vec::new(),
            usage: Usage::default(),
            ledger_revision: 0,
            backend: entry.map(|entry| entry.map_or_else(Err, |e| e.state)),
            dry_run,
            rules,
            rules_confirmed: false,
            locks: locks::cached(ctx, LockedKind::Share, &share.metadata),
            locks_confirmed: false,
            look_due,
            look_again,
            round,
            sight: None,
            looked_for: None,
            keys: BTreeMap::new(),
            refused: std::collections::HashMap::new(),
            source: source(ctx, &share),
            former: former(ctx, &share),
            going: Going {
                is_handed_on: is_handed_on(ctx, &share),
                is_in_hand: ctx.in_hand.contains(&share.uid().unwrap_or_default()),
                is_warm: ctx.has_worked_for() >= share::PATIENCE,
            },
            failure: None,
            share,
        };
        for view in &mut observed.rules {
            let (kind, meta) = (LockedKind::ShareAccessRule, &view.rule.metadata);
            let mut on_rule = locks::cached_of_any_action(ctx, kind, meta);
            view.note_locks(&on_rule, &ctx.custody);
            on_rule.retain(|lock| resource_lock::holds(lock, kind, &view.rule.metadata));
            observed.locks.extend(on_rule);
        }
        read_page(ctx, &mut observed);
        Ok(observed)
    }

    fn decide(observed: &Observed, now: Timestamp) -> Decision<ShareStatus, Effect> {
        share::decide(observed, now)
    }

    async fn act(ctx: &Context, o: &mut Observed, effect: Effect) -> Result<(), Error> {
        match effect {
            Effect::ConfirmRules => confirm_rules(ctx, o).await,
            Effect::ConfirmLocks => {
                confirm_locks(ctx, o).await?;
                o.locks_confirmed = true;
                Ok(())
            }
            Effect::Mark(mark) => {
                if mark == Mark::Lift {
                    confirm_locks(ctx, o).await?;
                }
                locks::set(ctx, &mut o.share, &mut o.locks, mark).await
            }
            Effect::HoldRules(names) => hold_rules(ctx, o, &names).await,
            Effect::ForgetKeys(names) => forget_keys(ctx, o, &names).await,
            Effect::ReportRules(reports) => report_rules(ctx, o, reports).await,
            Effect::LookAtFormer => {
                look_at_former(ctx, o).await;
                Ok(())
            }
            Effect::Claim => claim(ctx, o).await,
            Effect::HandOn(deletion) => hand_on(ctx, o, *deletion).await,
            Effect::Fence | Effect::LiftFence => {
                let is_ensured = effect == Effect::Fence;
                o.share = api::mark_ensuring(&ctx.client, &o.share, is_ensured).await?;
                Ok(())
            }
            Effect::Annotate(annotations) => {
                o.share = api::store_annotations(&ctx.client, &o.share, &annotations).await?;
                Ok(())
            }
            effect => {
                let done = on_backend(ctx, o, effect).await;
                if let Err(Error::Backend(failure)) = &done
                    && let Some(name) = o.share.status.as_ref().and_then(|s| s.backend_name.as_deref())
                {
                    super::trouble(ctx, name, failure);
                }
                done
            }
        }
    }

    fn fail(observed: &mut Observed, failure: Failure) {
        observed.failure = Some(failure);
    }

    fn object(observed: &mut Observed) -> &mut Share {
        &mut observed.share
    }

    fn conditions(status: &ShareStatus) -> &[Condition] {
        &status.conditions
    }

    fn reserve(ctx: &Context, o: &mut Observed, status: &ShareStatus) -> Result<bool, Error> {
        let claim = Claim::of(&o.share.spec, status);
        let has = o.share.status.as_ref();
        if has.and_then(|has| Claim::of(&o.share.spec, has)) == claim {
            return Ok(true);
        }
        // Not read yet of a share that was enlarged a moment ago.
        if !o.candidates.is_empty() {
            let claim = claim.ok_or_else(|| Error::Bug("a choice is recorded that is none".into()))?;
            let reservation = ctx
                .caches
                .ledger
                .lock()
                .reserve(&o.share, o.ledger_revision, claim);
            match reservation {
                Reservation::Made => return Ok(true),
                Reservation::Overtaken => {}
                Reservation::Outdated => return Err(Error::Conflict),
            }
        }
        read_page(ctx, o);
        // The share, or its backend, went meanwhile.
        if o.candidates.is_empty() {
            return Err(Error::Conflict);
        }
        Ok(false)
    }

    fn settle(ctx: &Context, o: &mut Observed, stored: bool) {
        let mut ledger = ctx.caches.ledger.lock();
        if stored {
            ledger.note(&o.share);
        } else {
            ledger.release(o.uid());
        }
    }

    fn ended(ctx: &Context, o: &Observed) {
        let on = o.share.status.as_ref().and_then(|s| s.backend_name.as_deref());
        if let (Some(on), Some(round), Some(is_well)) = (on, &o.round, o.is_verified())
            && ctx.ensures.note(on, round, o.uid(), is_well)
        {
            ctx.caches.backend_queue.push_cluster_scoped(on);
        }
    }

    fn lane(o: &Observed) -> Option<(String, String)> {
        Some((o.fsid()?, o.share.namespace().unwrap_or_default()))
    }

    fn at_once(ctx: &Context, cluster: &str) -> usize {
        super::at_once(ctx, cluster)
    }

    fn patience(o: &Observed) -> Option<Duration> {
        o.is_deferred().then_some(share::PATIENCE)
    }

    fn deadline(ctx: &Context, o: &Observed) -> Duration {
        let status = o.share.status.clone().unwrap_or_default();
        match backend(ctx, &status) {
            Some(Ok(entry)) => entry.backend.deadline(),
            // Without a backend there is no effect.
            _ => Duration::ZERO,
        }
    }
}

/// Where the share could go, or its own backend if it asks for more than it has there, and what others have.
fn read_page(ctx: &Context, o: &mut Observed) {
    o.former.claimed_by = share::brings_back(&o.share)
        .filter(|_| o.source.is_none())
        .and_then(|existing| {
            let subvolume = Place::of(Some(&existing.handle), "").subvolume;
            ctx.caches.ledger.lock().holder(&subvolume, o.uid())
        });
    let status = o.share.status.clone().unwrap_or_default();
    let asked = o.share.spec.size.bytes();
    let wanted = |name: &str| match &status.backend_name {
        None => true,
        Some(own) => own == name && ledger::charged(&o.share.spec, &status) < asked,
    };
    if status.backend_name.is_some() && ledger::charged(&o.share.spec, &status) >= asked {
        o.candidates.clear();
        return;
    }
    // Why it has none is told when it is decided on.
    let name = o.share_type.as_ref().ok();
    let name = name.and_then(|share_type| mount_point::resolve(&o.share, share_type).ok().flatten());
    let page = ctx.caches.ledger.lock().page(&o.share, name.as_deref());
    o.candidates = super::candidates(ctx, &page.loads, wanted);
    // Whether there is room is told as if it were worked on.
    if let (Some(own), Some(dry_run)) = (o.candidates.first_mut(), &o.dry_run) {
        own.state = Ok(dry_run.clone());
    }
    o.neighbours = page.neighbours;
    o.taken_on = page.taken_on;
    o.usage = page.usage;
    let namespace = o.share.namespace();
    o.quotas = parsed(&ctx.caches.quotas, |quota| quota.namespace() == namespace);
    o.ledger_revision = page.revision;
}

/// The share's namespace. A new one may not have reached the cache yet.
async fn namespace(ctx: &Context, name: &str) -> Result<PartialObjectMeta<Namespace>, Error> {
    if let Some(found) = ctx.caches.namespaces.get(&ObjectRef::new(name)) {
        return Ok((*found).clone());
    }
    api::bounded(Api::<Namespace>::all(ctx.client.clone()).get_metadata(name)).await
}

/// The backend that holds the share. None: there is no ShareBackend of that name.
fn backend(ctx: &Context, status: &ShareStatus) -> Option<Result<Entry, Failure>> {
    super::backend(ctx, status.backend_name.as_deref()?)
}

/// Whether a ShareDeletion has it.
fn is_handed_on(ctx: &Context, share: &Share) -> bool {
    share.metadata.deletion_timestamp.is_some() && {
        let uid = share.uid().unwrap_or_default();
        let found = ctx
            .caches
            .deletions
            .get(&ObjectRef::new(&share_deletion::name(&uid)));
        found.is_some_and(|guard| guard.0.as_ref().is_ok_and(|d| d.spec.share_ref.uid == uid))
    }
}

/// What is kept of a deleted share that this one brings back.
fn source(ctx: &Context, share: &Share) -> Option<ShareDeletion> {
    let existing = share::brings_back(share)?;
    let uid = share.uid().unwrap_or_default();
    parsed(&ctx.caches.deletions, |deletion| {
        deletion.spec.backend_name == existing.backend_name
            && deletion.spec.handle.as_ref() == Some(&existing.handle)
    })
    .into_iter()
    // One that is on its way out may still be there beside the one that has it now.
    .max_by_key(|deletion| {
        (
            deletion.spec.adopted_by.as_ref().is_some_and(|by| by.uid == uid),
            share_deletion::may_be_adopted(deletion, &uid).is_ok(),
            deletion.metadata.creation_timestamp.as_ref().map(|at| at.0),
        )
    })
}

/// What no object owns, as far as a share is concerned: while it has no place, and while what it brings back is not its own yet.
fn former(ctx: &Context, share: &Share) -> Former {
    let status = share.status.as_ref();
    let existing = share::brings_back(share);
    let mut former = Former::default();
    if let Some(existing) = &existing {
        let holder = ctx.caches.backends.get(&ObjectRef::new(&existing.backend_name));
        let holder = holder.as_ref().and_then(|guard| guard.0.as_ref().ok());
        former.others = holder
            .map(|backend| super::others_beside(ctx, backend))
            .unwrap_or_default();
    }
    let is_placed = status.is_some_and(|status| status.backend_name.is_some());
    if is_placed || existing.is_some() || orphan::verdict(share) != Ok(None) {
        return former;
    }
    let (namespace, name) = (share.namespace().unwrap_or_default(), share.name_any());
    let told = status.map_or(&[][..], |status| &status.former_data);
    for backend in parsed(&ctx.caches.backends, |_| true) {
        let (on, uid) = (backend.name_any(), backend.uid().unwrap_or_default());
        let is_claimed = |subvolume: &str| ctx.caches.ledger.lock().is_held(subvolume);
        let mut found = ctx.orphans.namesakes(&on, &namespace, &name, is_claimed);
        if !found.is_empty() {
            let others = super::others_beside(ctx, &backend);
            found.retain(|orphan| !others.have(&orphan.owner));
            former.orphans.extend(found);
        }
        if ctx.orphans.is_complete(&on, &uid) {
            continue;
        }
        let trouble = ctx.backends.find(&on, &uid).and_then(|entry| entry.state).err();
        let trouble = trouble.filter(|why| why.reason != reasons::BACKEND_NOT_ASKED);
        // One that is away does not hold up all others, if there was nothing of this name on it when it was seen last.
        let seen = backend.status.as_ref().and_then(|status| status.orphans.as_ref());
        let is_named = told.iter().any(|data| data.backend_name == on);
        if trouble.is_none()
            || is_named
            || seen.is_none_or(|seen| orphan::may_be_among(seen, &namespace, &name))
        {
            former.unscanned.push((on, trouble));
        }
    }
    former
}

/// Looks at what the scan has found, or at what the share is to bring back: what is gone, or says something else by now, is
/// passed over. What can't be looked at stays as it was found.
async fn look_at_former(ctx: &Context, o: &mut Observed) {
    let wanted = share::brings_back(&o.share);
    let looked_for = if let Some(existing) = wanted {
        vec![(existing.backend_name, existing.handle, None)]
    } else {
        let found = std::mem::take(&mut o.former.orphans).into_iter();
        found
            .map(|orphan| (orphan.backend_name.clone(), orphan.handle.clone(), Some(orphan)))
            .collect()
    };
    let mut seen = Vec::new();
    for (backend_name, handle, found) in looked_for {
        let volume = VolumeRef {
            place: Place::of(Some(&handle), o.uid()),
            ..share::volume_ref(o)
        };
        match look_on(ctx, &backend_name, &volume).await {
            Ok(Sight::Present(volume)) => {
                if let Tag::Owner(owner) = &volume.tag
                    && found.is_none_or(|found| found.owner == *owner)
                {
                    seen.push(Orphan {
                        backend_name,
                        handle,
                        owner: owner.clone(),
                        volume: Some(*volume),
                    });
                }
            }
            Ok(Sight::Absent { .. }) => {}
            Err(why) => {
                o.former.is_to_be_asked |= why.reason == reasons::BACKEND_NOT_ASKED;
                if found.is_none() {
                    o.former.not_looked_for = Some(why);
                }
                seen.extend(found);
            }
        }
    }
    o.former.orphans = seen;
    o.former.is_confirmed = true;
}

/// What there is on a backend that the share is not on, or why nobody could look.
async fn look_on(ctx: &Context, backend_name: &str, volume: &VolumeRef) -> Result<Sight, Failure> {
    let entry = super::backend(ctx, backend_name).map(|entry| {
        let Entry { backend, state, .. } = entry?;
        Ok((backend, state?))
    });
    let (backend, description) = share_backend::answering(backend_name, entry.as_ref())?;
    let sight = backend.look(&description.identity, volume).await;
    sight.map_err(|error| {
        let why = error.into();
        super::trouble(ctx, backend_name, &why);
        why
    })
}

/// Writes down what is left to do of a share, so that it can be let go.
async fn hand_on(ctx: &Context, o: &mut Observed, deletion: ShareDeletion) -> Result<(), Error> {
    // Whether it has claimed what it was to bring back is not the cache's to say: what it has must be named.
    if deletion.spec.handle.is_none()
        && let Some(known) = &o.source
    {
        let now = match api::live(&ctx.client, known).await {
            Ok(now) => Some(now),
            Err(Error::Gone) => None,
            Err(error) => return Err(error),
        };
        if now.as_ref().map(|now| &now.spec) != Some(&known.spec) {
            o.source = now;
            return Ok(());
        }
    }
    let stored = match api::create(&ctx.client, &deletion).await {
        Ok(stored) => stored,
        // Written before, and not heard of yet.
        Err(Error::Conflict) => api::find::<ShareDeletion>(&ctx.client, None, &deletion.name_any())
            .await?
            .filter(|there| there.spec.share_ref.uid == o.uid())
            .ok_or(Error::Conflict)?,
        Err(error) => return Err(error),
    };
    // The room that it takes is not free for a moment in between.
    ctx.caches.ledger.lock().note_deletion(&stored);
    o.going.is_handed_on = true;
    Ok(())
}

/// Claims what is kept of a deleted share, on the version that says that it may be.
async fn claim(ctx: &Context, o: &mut Observed) -> Result<(), Error> {
    let Some(known) = &o.source else {
        return Err(Error::Bug("nothing to claim".into()));
    };
    let kept = api::live(&ctx.client, known).await?;
    let claimed = if share_deletion::may_be_adopted(&kept, o.uid()).is_ok() {
        let by = AdoptingShareReference {
            namespace: o.share.namespace().unwrap_or_default(),
            name: o.share.name_any(),
            uid: o.uid().to_owned(),
        };
        api::patch_spec(&ctx.client, &kept, json!({"adoptedBy": by})).await?
    } else {
        kept
    };
    o.source = Some(claimed);
    Ok(())
}

/// Steps that speak to the backend.
async fn on_backend(ctx: &Context, o: &mut Observed, effect: Effect) -> Result<(), Error> {
    let status = o.share.status.clone().unwrap_or_default();
    let on = share::recorded(&status)
        .ok_or_else(|| Error::Bug("an effect before the choice was stored".into()))?;
    let entry = match backend(ctx, &status) {
        Some(Ok(entry)) => entry,
        Some(Err(failure)) => return Err(Error::Backend(failure)),
        None => return Err(Error::Gone),
    };
    // It may have come to be only looked at since the pass began.
    if effect.changes_backend() && entry.dry_run.is_some() {
        return Err(Error::Conflict);
    }
    let backend = entry.backend;
    let volume = share::volume_ref(o);
    // A pass that goes on with a newer version of the share answers for no more than it has seen.
    if matches!(effect, Effect::Look | Effect::Create(_)) {
        o.looked_for = ensure::requested(&o.share.metadata);
    }
    match effect {
        Effect::Look => {
            let look = async move { backend.look(&on, &volume).await };
            let sight = patiently(ctx, o, look).await?;
            ctx.looks.looked(o.uid(), &sight, ctx.now());
            o.sight = Some(sight);
        }
        Effect::Revoke => {
            let from = share::former_volume(o).ok_or(Error::Gone)?;
            backend.revoke(&on, &from).await?;
            if let Some(Sight::Present(seen)) = &mut o.sight {
                seen.export = match volume.protocol {
                    Protocol::NFS => Export::Absent,
                    Protocol::CephFS => Export::Ours {
                        pseudo_path: None,
                        access: Vec::new(),
                        intact: true,
                    },
                };
            }
            o.former.is_revoked = true;
        }
        Effect::BringBack => {
            let from = share::former_volume(o).ok_or(Error::Gone)?;
            backend.hand_over(&on, &from, &volume.owner).await?;
            if let Some(Sight::Present(seen)) = &mut o.sight {
                seen.tag = Tag::Owner(volume.owner);
            }
            if let Some(kept) = &o.source {
                ctx.caches.deletion_queue.push_cluster_scoped(&kept.name_any());
            }
        }
        Effect::Create(new) => {
            let sight = Sight::Present(Box::new(backend.create(&on, &volume, &new).await?));
            ctx.looks.looked(o.uid(), &sight, ctx.now());
            o.sight = Some(sight);
        }
        Effect::Resize(bytes) => {
            backend.resize(&on, &volume, bytes).await?;
            if let Some(Sight::Present(seen)) = &mut o.sight {
                seen.size_bytes = Some(bytes);
            }
        }
        Effect::SetMetadata(text) => {
            backend.set_metadata(&on, &volume, text.as_deref()).await?;
            if let Some(Sight::Present(seen)) = &mut o.sight {
                seen.metadata = text;
            }
        }
        Effect::Export(access) => {
            let answers = backend.export(&on, &volume, &access).await?;
            let mut in_force = access;
            for Applied { client, outcome } in answers {
                match (outcome, client) {
                    (Ok(Some(key)), Client::CephX(identity)) => {
                        o.keys.insert(identity, key);
                    }
                    (Ok(_), _) => {}
                    (Err(failure), client) => {
                        in_force.retain(|grant| grant.client != client);
                        o.refused.insert(client, failure);
                    }
                }
            }
            if let Some(Sight::Present(seen)) = &mut o.sight {
                let is_nfs = volume.protocol == Protocol::NFS;
                seen.export = Export::Ours {
                    pseudo_path: is_nfs.then_some(volume.pseudo_path),
                    access: in_force,
                    intact: true,
                };
            }
        }
        Effect::FetchKeys(grants) => {
            for grant in grants {
                let key = backend.key(&on, &volume, &grant).await?;
                o.keys.insert(grant.client.to_string(), key);
            }
        }
        Effect::Unexport => {
            let unexport = async move { backend.unexport(&on, &volume).await };
            patiently(ctx, o, unexport).await?;
            match &mut o.sight {
                Some(Sight::Present(seen)) => seen.export = Export::Absent,
                Some(Sight::Absent { leftovers }) => *leftovers = false,
                None => {}
            }
        }
        Effect::Remove => {
            let remove = async move { backend.remove(&on, &volume).await };
            patiently(ctx, o, remove).await?;
            o.sight = Some(Sight::Absent { leftovers: false });
        }
        Effect::LookAtFormer
        | Effect::ConfirmRules
        | Effect::ConfirmLocks
        | Effect::Mark(_)
        | Effect::HoldRules(_)
        | Effect::ForgetKeys(_)
        | Effect::ReportRules(_)
        | Effect::Fence
        | Effect::LiftFence
        | Effect::Annotate(_)
        | Effect::Claim
        | Effect::HandOn(_) => {}
    }
    Ok(())
}

/// Waits for a command to end; of a share that goes when it is deleted not for long.
async fn patiently<T: Send + 'static>(
    ctx: &Context,
    o: &Observed,
    command: impl Future<Output = shoal_backend::Result<T>> + Send + 'static,
) -> Result<T, Error> {
    let status = o.share.status.as_ref();
    match status.and_then(|status| status.backend_name.as_deref()) {
        Some(backend) if o.is_deferred() => ctx.in_hand.patiently(o.uid(), backend, command).await,
        _ => Ok(command.await?),
    }
}

/// Reads the share's rules, and what their Secrets hold, from the API server itself.
async fn confirm_rules(ctx: &Context, o: &mut Observed) -> Result<(), Error> {
    let namespace = o.share.namespace().unwrap_or_default();
    let selector = format!("spec.shareRef.name={}", o.share.name_any());
    let mut views = Vec::new();
    for rule in api::list_live::<ShareAccessRule>(&ctx.client, &namespace, &selector).await? {
        let secret_value = match &rule.spec.access_to_secret_ref {
            Some(reference) => Some(secret_value(ctx, &namespace, &reference.name, &reference.key).await?),
            None => None,
        };
        let mut view = RuleView {
            secret_value,
            ..RuleView::unread(rule)
        };
        let locks = locks::cached_of_any_action(ctx, LockedKind::ShareAccessRule, &view.rule.metadata);
        view.note_locks(&locks, &ctx.custody);
        views.push(view);
    }
    // Asked for after the deletions that they may forbid had been seen; and no key that was hidden is shown on the cache's word.
    let is_shown_again = |view: &RuleView| view.is_recorded_as_hidden() && view.custody.is_none();
    if views
        .iter()
        .any(|view| view.rule.metadata.deletion_timestamp.is_some() || is_shown_again(view))
    {
        let locks = locks::live(ctx, &namespace).await?;
        for view in &mut views {
            view.note_locks(&locks, &ctx.custody);
        }
    }
    for view in &mut views {
        if view.rule.spec.access_type == AccessType::CephX {
            read_credentials(ctx, view).await?;
        }
    }
    o.rules = views;
    o.rules_confirmed = true;
    Ok(())
}

/// Reads the locks that hold the share or one of its rules from the API server itself.
async fn confirm_locks(ctx: &Context, o: &mut Observed) -> Result<(), Error> {
    let namespace = o.share.namespace().unwrap_or_default();
    let all = locks::live(ctx, &namespace).await?;
    let is_on = |lock: &ResourceLock, kind, meta: &ObjectMeta| resource_lock::holds(lock, kind, meta);
    let mut holding: Vec<_> = all
        .iter()
        .filter(|lock| is_on(lock, LockedKind::Share, &o.share.metadata))
        .cloned()
        .collect();
    // Which rules are its own is not the cache's to say either; where no rule is locked nobody need ask.
    if all
        .iter()
        .any(|lock| lock.spec.resource_ref.kind == LockedKind::ShareAccessRule)
    {
        let selector = format!("spec.shareRef.name={}", o.share.name_any());
        for rule in api::list_live::<ShareAccessRule>(&ctx.client, &namespace, &selector).await? {
            let on_rule = |lock: &&ResourceLock| is_on(lock, LockedKind::ShareAccessRule, &rule.metadata);
            holding.extend(all.iter().filter(on_rule).cloned());
        }
    }
    o.locks = holding;
    Ok(())
}

/// What a Secret that a rule names holds; its value is never echoed.
async fn secret_value(
    ctx: &Context,
    namespace: &str,
    name: &str,
    key: &str,
) -> Result<Result<String, Failure>, Error> {
    let refuse = |reason, message| {
        Ok(Err(Failure {
            class: Class::Waiting,
            scope: Scope::Object,
            reason,
            message,
        }))
    };
    let Some(secret) = api::secret(&ctx.client, namespace, name).await? else {
        return refuse(
            reasons::SECRET_NOT_FOUND,
            format!("spec.accessToSecretRef: Secret '{name}' does not exist"),
        );
    };
    if !secret.labels().contains_key(labels::ACCESS) {
        return refuse(
            reasons::SECRET_NOT_LABELLED,
            format!(
                "spec.accessToSecretRef: Secret '{name}' lacks the label {}; only Secrets that carry it are read",
                labels::ACCESS
            ),
        );
    }
    match api::secret_text(&secret, key) {
        Some(text) => Ok(Ok(text)),
        None => refuse(
            reasons::SECRET_NOT_FOUND,
            format!("spec.accessToSecretRef: Secret '{name}' has no text under key '{key}'"),
        ),
    }
}

/// Reads what a rule's Secrets hold, and whether each is where it belongs.
async fn read_credentials(ctx: &Context, view: &mut RuleView) -> Result<(), Error> {
    let shown = shown_secret(ctx, view).await?;
    let is_owned = shown.as_ref().is_some_and(|secret| is_owned(secret, &view.rule));
    let (secret, is_ours) = match &view.custody {
        None => (shown, is_owned),
        Some(custody) => {
            view.shown = is_owned;
            (custody::read(ctx, custody).await?, true)
        }
    };
    view.credentials = secret.map_or(Credentials::Missing, |secret| credentials(&secret, view, is_ours));
    Ok(())
}

/// The Secret in the rule's own namespace.
async fn shown_secret(ctx: &Context, view: &RuleView) -> Result<Option<Secret>, Error> {
    let namespace = view.rule.namespace().unwrap_or_default();
    api::secret(&ctx.client, &namespace, &view.secret_name()).await
}

fn is_owned(secret: &Secret, rule: &ShareAccessRule) -> bool {
    let mut owners = secret.owner_references().iter();
    secret.type_.as_deref() == Some(cephx_secret::TYPE)
        && owners.any(|owner| Some(&owner.uid) == rule.metadata.uid.as_ref())
}

/// Only a Secret that Shoal made for this very rule is ever written. One with another identity's key is as good as none.
fn credentials(secret: &Secret, view: &RuleView, is_ours: bool) -> Credentials {
    let is_its = match view.client() {
        Ok(client) => api::secret_text(secret, cephx_secret::USER_ID) == Some(client.to_string()),
        Err(_) => true,
    };
    let complete = [
        cephx_secret::USER_ID,
        cephx_secret::USER_KEY,
        cephx_secret::KEYRING,
    ]
    .iter()
    .all(|key| api::secret_text(secret, key).is_some_and(|t| !t.is_empty()));
    match (is_ours, complete && is_its) {
        (false, _) => Credentials::NotOurs,
        (true, false) => Credentials::Missing,
        (true, true) => Credentials::Complete,
    }
}

/// Puts the finalizer on rules that lack it: nobody is let in by a rule that could vanish unnoticed.
async fn hold_rules(ctx: &Context, o: &mut Observed, names: &[String]) -> Result<(), Error> {
    for view in o.rules.iter_mut().filter(|v| names.contains(&v.rule.name_any())) {
        view.rule = api::add_finalizer(&ctx.client, &view.rule).await?;
    }
    Ok(())
}

/// Deletes Secrets that Shoal made for these rules.
async fn forget_keys(ctx: &Context, o: &mut Observed, names: &[String]) -> Result<(), Error> {
    let api: Api<Secret> = Api::namespaced(ctx.client.clone(), &o.share.namespace().unwrap_or_default());
    for view in o.rules.iter_mut().filter(|v| names.contains(&v.rule.name_any())) {
        if let Some(secret) = shown_secret(ctx, view).await?
            && is_owned(&secret, &view.rule)
        {
            api::delete_found(&api, &secret.metadata).await?;
        }
        custody::end(ctx, &view.rule).await?;
        view.forget_key();
    }
    Ok(())
}

/// Writes each rule's Secret, status and, if it is done with, its finalizer, in this order.
async fn report_rules(ctx: &Context, o: &mut Observed, reports: Vec<Report>) -> Result<(), Error> {
    for report in reports {
        let Report {
            mut rule,
            status,
            release,
            secret,
        } = report;
        let name = rule.name_any();
        let view = o.rules.iter_mut().find(|v| v.rule.name_any() == name);
        let has_key = secret.is_some();
        if let Some(secret) = secret {
            store_key(ctx, &rule, &secret).await?;
            o.keys.remove(&secret.identity);
            failpoint::hit("after-Secret");
        }
        if let Some(status) = status {
            let before = rule.status.clone().unwrap_or_default();
            failpoint::hit("before-rule-status");
            rule = api::store_status(&ctx.client, RULE_MANAGER, &rule, &status).await?;
            let reference = rule.object_ref(&());
            for event in decision::trouble(&before.conditions, &status.conditions) {
                driver::publish(ctx, &reference, event).await;
            }
        }
        if let Some(view) = view {
            view.rule = rule.clone();
            if has_key {
                view.credentials = Credentials::Complete;
            }
        }
        if release {
            custody::end(ctx, &rule).await?;
            api::remove_finalizer(&ctx.client, &rule).await?;
            o.rules.retain(|v| v.rule.name_any() != name);
        }
    }
    Ok(())
}

/// Writes the Secret that holds a CephX key: owned by its rule, or in custody for one reader.
async fn store_key(ctx: &Context, rule: &ShareAccessRule, secret: &KeySecret) -> Result<(), Error> {
    let KeySecret {
        name,
        custody,
        identity,
        key,
    } = secret;
    let metadata = match custody {
        None => ObjectMeta {
            name: Some(name.clone()),
            namespace: rule.namespace(),
            owner_references: rule.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        Some(custody) => {
            custody::admit(ctx, rule, custody).await?;
            custody::metadata(rule, custody)
        }
    };
    let namespace = metadata.namespace.clone().unwrap_or_default();
    let keyring = format!("[client.{identity}]\n\tkey = {}\n", key.reveal());
    let data = [
        (cephx_secret::USER_ID, identity.clone()),
        (cephx_secret::USER_KEY, key.reveal().to_owned()),
        (cephx_secret::KEYRING, keyring),
    ];
    let wanted = Secret {
        metadata,
        type_: Some(cephx_secret::TYPE.into()),
        data: Some(
            data.into_iter()
                .map(|(k, v)| (k.to_owned(), ByteString(v.into_bytes())))
                .collect(),
        ),
        ..Secret::default()
    };
    let api: Api<Secret> = Api::namespaced(ctx.client.clone(), &namespace);
    let params = PatchParams::apply(field_managers::SECRETS).force();
    api::bounded(api.patch(name, &params, &Patch::Apply(&wanted))).await?;
    Ok(())
}
