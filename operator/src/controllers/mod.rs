//! One file a kind, with its loads and its acts; and what an event on one kind means for the others.

pub mod share;
pub mod share_access_rule;
pub mod share_backend;
pub mod share_quota;
pub mod share_type;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Namespace;
use kube::{Resource, ResourceExt, core::PartialObjectMeta, runtime::reflector::ObjectRef};
use shoal_crds::{Share, ShareAccessRule, ShareBackend, ShareQuota, ShareType};
use shoal_domain::{
    placement::{Candidate, Load},
    share_backend as backend_decisions, share_type as type_decisions,
};

use crate::{
    caches::{Caches, Change, Guarded, parsed, sorted},
    context::Context,
};

/// What an event means: which objects are due for a pass.
pub mod route {
    use super::{
        Change, Context, Guarded, Namespace, ObjectRef, PartialObjectMeta, ResourceExt, Share,
        ShareAccessRule, ShareBackend, ShareQuota, ShareType, parsed, room_was_made, type_decisions,
        wake_unplaced, wake_waiting_in,
    };

    /// A share concerns itself, and the rules that name it: they have to know when it comes and goes.
    pub fn share(ctx: &Context, share: &Guarded<Share>) {
        let caches = &ctx.caches;
        let (key, uid) = (ObjectRef::from_obj(share), share.uid().unwrap_or_default());
        let there = caches.shares.get(&key).and_then(|there| there.uid());
        if there.as_ref() == Some(&uid) {
            ctx.looks.take_up(&uid, caches.shares.len(), ctx.now());
        } else {
            ctx.looks.forget(&uid);
            room_was_made(caches, share);
        }
        caches.share_queue.push_ref(key);
        let (namespace, name) = (share.namespace().unwrap_or_default(), share.name_any());
        for rule in caches.rules_of.rules(&caches.rules, &namespace, &name) {
            caches.rule_queue.push(&namespace, &rule.name_any());
        }
    }

    /// A rule concerns its share, which is its one applier, and itself while there is none. Its status concerns itself: the
    /// share wrote it, and may be gone before the cache has heard of it.
    pub fn rule(ctx: &Context, rule: &Guarded<ShareAccessRule>, change: Change) {
        let caches = &ctx.caches;
        caches.rule_queue.push_ref(ObjectRef::from_obj(rule));
        if let Ok(rule) = &rule.0
            && change == Change::Object
        {
            caches
                .share_queue
                .push(&rule.namespace().unwrap_or_default(), &rule.spec.share_ref.name);
        }
    }

    /// A type concerns itself, shares that have no place yet, and the types that are marked as default beside it.
    pub fn share_type(ctx: &Context, share_type: &Guarded<ShareType>) {
        let caches = &ctx.caches;
        caches.type_queue.push_ref(ObjectRef::from_obj(share_type));
        for default in parsed(&caches.types, type_decisions::is_default) {
            caches.type_queue.push_cluster_scoped(&default.name_any());
        }
        wake_unplaced(caches);
    }

    /// A backend concerns itself, the types that may select it, and the shares on it when it comes or goes.
    pub fn backend(ctx: &Context, backend: &Guarded<ShareBackend>) {
        let caches = &ctx.caches;
        caches.backend_queue.push_ref(ObjectRef::from_obj(backend));
        for share_type in parsed(&caches.types, |_| true) {
            caches.type_queue.push_cluster_scoped(&share_type.name_any());
        }
        super::wake_shares_on(caches, &backend.name_any());
    }

    /// A quota concerns itself, and the shares of its namespace that ask for more than they have.
    pub fn share_quota(ctx: &Context, quota: &Guarded<ShareQuota>) {
        let caches = &ctx.caches;
        caches.quota_queue.push_ref(ObjectRef::from_obj(quota));
        wake_waiting_in(caches, &quota.namespace().unwrap_or_default());
    }

    /// A namespace's labels say which types its shares may use.
    pub fn namespace(ctx: &Context, _: &PartialObjectMeta<Namespace>) {
        wake_unplaced(&ctx.caches);
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
    if let Some(name) = status.and_then(|status| status.backend_name.as_deref())
        && let Some(backend) = caches.backends.get(&ObjectRef::new(name))
        && backend.meta().deletion_timestamp.is_some()
    {
        caches.backend_queue.push_cluster_scoped(name);
    }
}

/// Asks for a pass over shares of a namespace that ask for more than they have.
fn wake_waiting_in(caches: &Caches, namespace: &str) {
    for name in caches.ledger.lock().waiting_in(namespace, TOLD_OF_ROOM) {
        caches.share_queue.push(namespace, &name);
    }
}

/// Asks for a pass over the shares that have no place yet.
fn wake_unplaced(caches: &Caches) {
    wake_shares(caches, |share| {
        share.status.as_ref().is_none_or(|s| s.backend_name.is_none())
    });
}

/// Asks for a pass over the shares on this backend, and those that have no place yet.
pub(crate) fn wake_shares_on(caches: &Caches, backend: &str) {
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
fn candidates(
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
