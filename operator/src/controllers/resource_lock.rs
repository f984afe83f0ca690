//! The controller of ResourceLocks: it tells how each does. What they hold is held, and marked, by the passes over it.

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{Api, Resource, ResourceExt, core::ObjectMeta, runtime::reflector::ObjectRef};
use shoal_crds::{LockedKind, ResourceLock, ResourceLockStatus, Share, ShareAccessRule};
use shoal_domain::{
    Decision, Failure,
    resource_lock::{self, Effect, Mark, Observed},
};

use crate::{
    api::{self, Object},
    context::Context,
    driver::{self, Kind},
    error::Error,
};

/// Says how locks do.
pub struct ResourceLocks;

impl driver::Effect for Effect {
    fn name(&self) -> &'static str {
        match self {
            Self::FindTarget => "FindTarget",
        }
    }
    fn speaks_to_backend(&self) -> bool {
        false
    }
    fn changes_backend(&self) -> bool {
        false
    }
}

#[async_trait]
impl Kind for ResourceLocks {
    type Object = ResourceLock;
    type Status = ResourceLockStatus;
    type Observed = Observed;
    type Effect = Effect;
    const NAME: &'static str = "ResourceLock";
    const MANAGER: &'static str = "shoal/resourcelock";

    async fn load(ctx: &Context, lock: ResourceLock) -> Result<Observed, Error> {
        let (target, namespace) = (&lock.spec.resource_ref, lock.namespace().unwrap_or_default());
        let caches = &ctx.caches;
        let mut rule = None;
        let target = match target.kind {
            LockedKind::Share => caches
                .shares
                .get(&ObjectRef::new(&target.name).within(&namespace))
                .map(|share| share.meta().clone()),
            LockedKind::ShareAccessRule => {
                let found = caches.rules.get(&ObjectRef::new(&target.name).within(&namespace));
                rule = found.as_ref().and_then(|found| found.0.as_ref().ok().cloned());
                found.map(|rule| rule.meta().clone())
            }
        };
        Ok(Observed {
            lock,
            target,
            target_confirmed: false,
            rule,
        })
    }

    fn decide(observed: &Observed, now: Timestamp) -> Decision<ResourceLockStatus, Effect> {
        resource_lock::decide(observed, now)
    }

    async fn act(ctx: &Context, o: &mut Observed, effect: Effect) -> Result<(), Error> {
        match effect {
            Effect::FindTarget => {
                let (name, namespace) = (
                    &o.lock.spec.resource_ref.name,
                    o.lock.namespace().unwrap_or_default(),
                );
                o.target = match o.lock.spec.resource_ref.kind {
                    LockedKind::Share => find::<Share>(ctx, &namespace, name).await?,
                    LockedKind::ShareAccessRule => find::<ShareAccessRule>(ctx, &namespace, name).await?,
                };
                o.target_confirmed = true;
                Ok(())
            }
        }
    }

    fn fail(_: &mut Observed, _: Failure) {}

    fn object(observed: &mut Observed) -> &mut ResourceLock {
        &mut observed.lock
    }

    fn conditions(status: &ResourceLockStatus) -> &[Condition] {
        &status.conditions
    }
}

/// An object's metadata, from the API server itself; of one that can't be parsed, too.
async fn find<K: Object>(ctx: &Context, namespace: &str, name: &str) -> Result<Option<ObjectMeta>, Error> {
    let api: Api<K> = K::api(&ctx.client, Some(namespace));
    let found = api::bounded(api.get_metadata_opt(name)).await?;
    Ok(found.map(|object| object.metadata))
}

/// The locks that hold an object, as the watch cache has them.
pub(super) fn cached(ctx: &Context, kind: LockedKind, object: &ObjectMeta) -> Vec<ResourceLock> {
    let mut found = cached_of_any_action(ctx, kind, object);
    found.retain(|lock| resource_lock::holds(lock, kind, object));
    found
}

/// The same, and those that hide it.
pub(super) fn cached_of_any_action(
    ctx: &Context,
    kind: LockedKind,
    object: &ObjectMeta,
) -> Vec<ResourceLock> {
    let (namespace, name) = (object.namespace.as_deref(), object.name.as_deref());
    let caches = &ctx.caches;
    let mut found = caches.locks_on.find(
        &caches.locks,
        namespace.unwrap_or_default(),
        &key(kind, name.unwrap_or_default()),
    );
    found.retain(|lock| resource_lock::is_on(lock, kind, object));
    found
}

/// Every lock of a namespace, from the API server itself.
pub(super) async fn live(ctx: &Context, namespace: &str) -> Result<Vec<ResourceLock>, Error> {
    api::list_live(&ctx.client, namespace, "").await
}

/// What a lock is found by: kind and name of what it locks.
pub(crate) fn key(kind: LockedKind, name: &str) -> String {
    format!("{}/{name}", kind.as_str())
}

/// Sets a mark on the object, or on its locks, on exactly the version that was decided on.
pub(super) async fn set<K: Object>(
    ctx: &Context,
    object: &mut K,
    locks: &mut Vec<ResourceLock>,
    mark: Mark,
) -> Result<(), Error> {
    match mark {
        Mark::Object { label, by } => {
            *object = api::mark_locked(&ctx.client, object, Some((&label, &by))).await?;
        }
        // A lock that came since binds by itself until it is marked as enforced, which takes another mark of the object, and
        // so another version.
        Mark::Lift if locks.is_empty() => *object = api::mark_locked(&ctx.client, object, None).await?,
        Mark::Lift => {}
        Mark::Locks(new) => {
            let uid = object.uid().unwrap_or_default();
            for lock in new {
                let is_it = |other: &ResourceLock| other.uid() == lock.uid();
                match api::mark_enforced(&ctx.client, &lock, &uid).await {
                    Ok(marked) => locks
                        .iter_mut()
                        .filter(|l| is_it(l))
                        .for_each(|l| *l = marked.clone()),
                    Err(Error::Gone) => locks.retain(|l| !is_it(l)),
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Ok(())
}
