//! One file a kind, with its loads and its acts; and what an event on one kind means for the others.

pub mod resource_lock;
pub mod share;
pub mod share_access_rule;
pub mod share_backend;
pub mod share_deletion;
pub mod share_quota;
pub mod share_type;

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::core::v1::Namespace;
use kube::{Resource, ResourceExt, core::PartialObjectMeta, runtime::reflector::ObjectRef};
use shoal_crds::{
    DeletionPhase, LockedKind, ResourceLock, Share, ShareAccessRule, ShareBackend, ShareDeletion, ShareQuota,
    ShareType,
};
use shoal_domain::{
    Failure, Scope,
    orphan::Others,
    placement::{Candidate, Load},
    share as share_decisions, share_backend as backend_decisions, share_deletion as deletion_decisions,
    share_type as type_decisions,
};

use crate::{
    backends::Entry,
    caches::{Caches, Change, Guarded, parsed, sorted},
    context::Context,
    in_hand::Ended,
};

/// How long after trouble with it a backend is asked what it is.
const ASK_BACKEND_AFTER: Duration = Duration::from_secs(1);

/// What an event means: which objects are due for a pass.
pub mod route {
    use super::{
        Change, Context, DeletionPhase, Guarded, LockedKind, Namespace, ObjectRef, PartialObjectMeta,
        ResourceExt, ResourceLock, Share, ShareAccessRule, ShareBackend, ShareDeletion, ShareQuota,
        ShareType, deletion_decisions, parsed, room_was_made, share_decisions, type_decisions, wake_locks_on,
        wake_those_that_bring_back, wake_unplaced, wake_waiting_in,
    };

    /// A share concerns itself, and the rules and locks that name it: they have to know when it comes and goes.
    pub fn share(ctx: &Context, share: &Guarded<Share>) {
        let caches = &ctx.caches;
        let (key, uid) = (ObjectRef::from_obj(share), share.uid().unwrap_or_default());
        let there = caches.shares.get(&key).and_then(|there| there.uid());
        if there.as_ref() == Some(&uid) {
            ctx.looks.take_up(&uid, caches.shares.len(), ctx.now());
        } else {
            ctx.looks.forget(&uid);
            room_was_made(caches, share);
            // It may have gone before that was its own.
            if let Some(wanted) = share.0.as_ref().ok().and_then(share_decisions::brings_back) {
                wake_those_that_bring_back(caches, &wanted.backend_name, &wanted.handle);
            }
            caches
                .deletion_queue
                .push_cluster_scoped(&deletion_decisions::name(&uid));
        }
        caches.share_queue.push_ref(key);
        let (namespace, name) = (share.namespace().unwrap_or_default(), share.name_any());
        for rule in caches.rules_of.find(&caches.rules, &namespace, &name) {
            caches.rule_queue.push(&namespace, &rule.name_any());
        }
        wake_locks_on(caches, LockedKind::Share, &namespace, &name);
    }

    /// A rule concerns its share, which is its one applier, its locks, and itself while there is no share. Its status concerns
    /// itself, for the share wrote it, and may be gone before the cache has heard of it; and its locks: it says how its key is hidden.
    pub fn rule(ctx: &Context, rule: &Guarded<ShareAccessRule>, change: Change) {
        let caches = &ctx.caches;
        caches.rule_queue.push_ref(ObjectRef::from_obj(rule));
        let Ok(rule) = &rule.0 else { return };
        let namespace = rule.namespace().unwrap_or_default();
        if change == Change::Object {
            caches.share_queue.push(&namespace, &rule.spec.share_ref.name);
        }
        wake_locks_on(caches, LockedKind::ShareAccessRule, &namespace, &rule.name_any());
    }

    /// A lock concerns itself, what it locks, and the share of a rule that it locks. Its status concerns itself: a replica that
    /// led before, and was woken, may have written what it knew.
    pub fn resource_lock(ctx: &Context, lock: &Guarded<ResourceLock>, change: Change) {
        let caches = &ctx.caches;
        caches.lock_queue.push_ref(ObjectRef::from_obj(lock));
        if change == Change::Status {
            return;
        }
        let Ok(lock) = &lock.0 else { return };
        let (namespace, target) = (lock.namespace().unwrap_or_default(), &lock.spec.resource_ref);
        match target.kind {
            LockedKind::Share => caches.share_queue.push(&namespace, &target.name),
            LockedKind::ShareAccessRule => {
                caches.rule_queue.push(&namespace, &target.name);
                let rule = caches.rules.get(&ObjectRef::new(&target.name).within(&namespace));
                if let Some(Ok(rule)) = rule.as_ref().map(|rule| &rule.0) {
                    caches.share_queue.push(&namespace, &rule.spec.share_ref.name);
                }
            }
        }
    }

    /// A type concerns itself, shares that have no place yet, and the types that are marked as default beside it. Its status
    /// concerns itself, as that of a lock.
    pub fn share_type(ctx: &Context, share_type: &Guarded<ShareType>, change: Change) {
        let caches = &ctx.caches;
        caches.type_queue.push_ref(ObjectRef::from_obj(share_type));
        if change == Change::Status {
            return;
        }
        for default in parsed(&caches.types, type_decisions::is_default) {
            caches.type_queue.push_cluster_scoped(&default.name_any());
        }
        wake_unplaced(caches);
    }

    /// A backend concerns itself, the types that may select it, and the shares on it when it comes or goes.
    pub fn backend(ctx: &Context, backend: &Guarded<ShareBackend>) {
        let caches = &ctx.caches;
        let key = ObjectRef::from_obj(backend);
        if caches.backends.get(&key).is_none() {
            ctx.ensures.end(&backend.name_any());
            ctx.orphans.forget(&backend.name_any());
        }
        caches.backend_queue.push_ref(key);
        for share_type in parsed(&caches.types, |_| true) {
            caches.type_queue.push_cluster_scoped(&share_type.name_any());
        }
        super::wake_shares_on(caches, &backend.name_any());
    }

    /// A quota concerns itself, and the shares of its namespace that ask for more than they have. Its status concerns itself, as
    /// that of a lock.
    pub fn share_quota(ctx: &Context, quota: &Guarded<ShareQuota>, change: Change) {
        let caches = &ctx.caches;
        caches.quota_queue.push_ref(ObjectRef::from_obj(quota));
        if change == Change::Object {
            wake_waiting_in(caches, &quota.namespace().unwrap_or_default());
        }
    }

    /// A deletion concerns itself, and, once its data is kept, the Share that brings that back.
    pub fn share_deletion(ctx: &Context, deletion: &Guarded<ShareDeletion>, change: Change) {
        if change == Change::Object {
            ctx.caches.deletion_queue.push_ref(ObjectRef::from_obj(deletion));
        }
        if let Ok(deletion) = &deletion.0
            && deletion_decisions::phase(deletion).is_some_and(DeletionPhase::is_adoptable)
            && let Some(handle) = &deletion.spec.handle
        {
            wake_those_that_bring_back(&ctx.caches, &deletion.spec.backend_name, handle);
        }
    }

    /// A namespace's labels say which types its shares may use.
    pub fn namespace(ctx: &Context, _: &PartialObjectMeta<Namespace>) {
        wake_unplaced(&ctx.caches);
    }
}

/// Asks for a pass over the locks that name an object.
fn wake_locks_on(caches: &Caches, kind: LockedKind, namespace: &str, name: &str) {
    let key = resource_lock::key(kind, name);
    for lock in caches.locks_on.find(&caches.locks, namespace, &key) {
        caches.lock_queue.push(namespace, &lock.name_any());
    }
}

/// How many shares are told at once that room was made; the others look for it by themselves, half a minute later at most.
const TOLD_OF_ROOM: usize = 100;

/// A share is gone, or became smaller: another may have its room, and its backend, if it is being deleted, may be empty.
pub(crate) fn room_was_made(caches: &Caches, gone: &Guarded<Share>) {
    // Its quota is free for its own namespace alone.
    wake_waiting_in(caches, &gone.namespace().unwrap_or_default());
    for (namespace, name) in caches.ledger.lock().waiting(TOLD_OF_ROOM) {
        caches.share_queue.push(&namespace, &name);
    }
    let status = gone.0.as_ref().ok().and_then(|share| share.status.as_ref());
    if let Some(name) = status.and_then(|status| status.backend_name.as_deref()) {
        may_be_empty(caches, name);
    }
}

/// Nothing is left of a deleted share: another may have its room.
pub(crate) fn remains_are_gone(caches: &Caches, deletion: &Guarded<ShareDeletion>) {
    for (namespace, name) in caches.ledger.lock().waiting(TOLD_OF_ROOM) {
        caches.share_queue.push(&namespace, &name);
    }
    if let Ok(deletion) = &deletion.0 {
        may_be_empty(caches, &deletion.spec.backend_name);
    }
}

/// A backend that is being deleted goes when nothing is on it any more.
fn may_be_empty(caches: &Caches, backend: &str) {
    if let Some(there) = caches.backends.get(&ObjectRef::new(backend))
        && there.meta().deletion_timestamp.is_some()
    {
        caches.backend_queue.push_cluster_scoped(backend);
    }
}

/// A command has ended that was begun for a Share that has been let go.
pub(crate) fn command_ended(ctx: &Context, ended: &Ended) {
    if let Some(failure) = &ended.failure {
        trouble(ctx, &ended.backend_name, failure);
    }
}

/// Its ShareDeletion goes on.
pub(crate) fn go_on_deleting(ctx: &Context, ended: &Ended) {
    ctx.caches
        .deletion_queue
        .push_cluster_scoped(&deletion_decisions::name(&ended.uid));
}

/// Notes trouble that somebody had with a backend. The backend's own pass finds out what is the matter; what is on it waits
/// for that. Not at once: if it finds nothing, they try again, and that must not become a hot loop.
fn trouble(ctx: &Context, backend: &str, failure: &Failure) {
    if failure.scope == Scope::Backend
        && let Some(to_be_asked) = ctx.backends.trouble(backend, failure.clone())
    {
        let (queue, name) = (ctx.caches.backend_queue.clone(), backend.to_owned());
        tokio::spawn(async move {
            tokio::time::sleep(ASK_BACKEND_AFTER).await;
            drop(to_be_asked);
            queue.push_cluster_scoped(&name);
        });
    }
}

/// The backend of this name. None: there is no such ShareBackend.
fn backend(ctx: &Context, name: &str) -> Option<Result<Entry, Failure>> {
    let object = ctx.caches.backends.get(&ObjectRef::new(name))?;
    let uid = object.meta().uid.clone().unwrap_or_default();
    Some(ctx.backends.find(name, &uid))
}

/// Who has what no object is known to have, where this backend makes its shares.
pub(crate) fn others_beside(ctx: &Context, backend: &ShareBackend) -> Others {
    Others {
        neighbours: backend_decisions::neighbours(backend, &parsed(&ctx.caches.backends, |_| true)),
        unread: ctx.caches.ledger.lock().unread(),
    }
}

/// How many may work on a storage cluster at once: of all its backends the least counts, for its mgr is the same.
fn at_once(ctx: &Context, fsid: &str) -> usize {
    let most = parsed(&ctx.caches.backends, |b| {
        b.status
            .as_ref()
            .and_then(|s| s.ceph.as_ref())
            .is_some_and(|c| c.fsid == fsid)
    })
    .iter()
    .map(|b| b.spec.max_concurrent_operations)
    .min()
    .unwrap_or(1);
    usize::try_from(most).unwrap_or(1).max(1)
}

/// Asks for a pass over the shares that bring this back.
fn wake_those_that_bring_back(caches: &Caches, backend_name: &str, handle: &str) {
    wake_shares(caches, |share| {
        share_decisions::brings_back(share)
            .is_some_and(|wanted| wanted.backend_name == backend_name && wanted.handle == handle)
    });
}

/// Asks for a pass over shares of a namespace that ask for more than they have.
fn wake_waiting_in(caches: &Caches, namespace: &str) {
    for name in caches.ledger.lock().waiting_in(namespace, TOLD_OF_ROOM) {
        caches.share_queue.push(namespace, &name);
    }
}

/// Asks for a pass over the shares that have no place yet.
pub(crate) fn wake_unplaced(caches: &Caches) {
    wake_shares(caches, |share| {
        share.status.as_ref().is_none_or(|s| s.backend_name.is_none())
    });
}

/// Asks for a pass over the shares on this backend and what is left of deleted ones, and over the shares that have no place
/// yet.
pub(crate) fn wake_shares_on(caches: &Caches, backend: &str) {
    for deletion in parsed(&caches.deletions, |deletion| {
        deletion.spec.backend_name == backend
    }) {
        caches.deletion_queue.push_cluster_scoped(&deletion.name_any());
    }
    wake_shares(caches, |share| {
        share
            .status
            .as_ref()
            .and_then(|s| s.backend_name.as_deref())
            .is_none_or(|name| name == backend)
    });
}

fn wake_shares(caches: &Caches, wanted: impl Fn(&Share) -> bool) {
    for guard in sorted(&caches.shares, |guard| guard.0.as_ref().is_ok_and(&wanted)) {
        caches.share_queue.push_ref(ObjectRef::from_obj(&*guard));
    }
}

/// The backends that are wanted, as placement sees them, with what shares have of each.
pub(crate) fn candidates(
    ctx: &Context,
    loads: &BTreeMap<String, Load>,
    wanted: impl Fn(&str) -> bool,
) -> Vec<Candidate> {
    let backends = parsed(&ctx.caches.backends, |_| true);
    backends
        .iter()
        .filter(|backend| wanted(&backend.name_any()))
        .map(|backend| {
            let (name, uid) = (backend.name_any(), backend.uid().unwrap_or_default());
            let state = ctx.backends.find(&name, &uid).and_then(|entry| entry.state);
            backend_decisions::candidate(backend, state, &backends, loads)
        })
        .collect()
}
