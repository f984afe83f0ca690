//! Decisions about locks: what they hold, how it is marked as locked, and what each lock is told.

use jiff::Timestamp;
use kube::core::ObjectMeta;
use shoal_crds::{
    LockAction, LockPhase, LockedKind, ResourceLock, ResourceLockStatus,
    condition::reasons,
    names::{LOCKED_BY, labels},
};

use crate::{
    Class, Decision, Next, Step, class::failure, condition::Conditions, export_location::short_hash,
};

/// How many locks are named where people read of them.
const NAMED: usize = 8;
/// How much of a lock's reason is repeated there.
const REPEATED: usize = 200;

/// Whether a lock forbids that this object is deleted.
pub fn holds(lock: &ResourceLock, kind: LockedKind, object: &ObjectMeta) -> bool {
    let target = &lock.spec.resource_ref;
    lock.spec.action == LockAction::Delete
        && target.kind == kind
        && Some(&target.name) == object.name.as_ref()
        && lock.metadata.namespace == object.namespace
        && (target.uid.is_none() || target.uid == object.uid)
}

/// Which locks hold an object, for people. None: it is free.
pub fn told(kind: LockedKind, locks: &[ResourceLock]) -> Option<String> {
    let mut named: Vec<String> = locks.iter().take(NAMED).map(|lock| name(kind, lock)).collect();
    if locks.len() > NAMED {
        named.push(format!("{} more", locks.len() - NAMED));
    }
    (!named.is_empty()).then(|| named.join(", "))
}

fn name(kind: LockedKind, lock: &ResourceLock) -> String {
    let own = lock.metadata.name.as_deref().unwrap_or_default();
    let target = &lock.spec.resource_ref;
    let on = (target.kind != kind).then(|| format!(" on {} '{}'", target.kind.as_str(), target.name));
    let reason = lock.spec.reason.as_ref().map(|reason| {
        let cut: String = reason.chars().take(REPEATED).collect();
        format!(" ({cut})")
    });
    format!(
        "ResourceLock '{own}'{}{}",
        on.unwrap_or_default(),
        reason.unwrap_or_default()
    )
}

/// What the pass over an object does about its marks.
#[derive(Clone, Debug, PartialEq)]
pub enum Mark {
    /// Mark the object as locked.
    Object {
        /// Value of the label: another for other locks. So whoever takes the mark off for want of locks can't do it on a
        /// version that was marked for a newer lock.
        label: String,
        /// Value of the annotation.
        by: String,
    },
    /// Take the mark off, if the API server itself knows no lock.
    Lift,
    /// Mark these locks as enforced: the object's mark has them.
    Locks(Vec<ResourceLock>),
}

/// The next mark to set or take off. `locks` are all that hold the object, its own and those of what belongs to it; only its
/// own are marked. What is being deleted is told of its locks by a condition, and no policy is asked about it any more.
pub fn mark(kind: LockedKind, object: &ObjectMeta, locks: &[ResourceLock]) -> Option<Mark> {
    if object.deletion_timestamp.is_some() {
        return None;
    }
    let label = object.labels.as_ref().and_then(|map| map.get(labels::LOCKED));
    let annotation = object.annotations.as_ref().and_then(|map| map.get(LOCKED_BY));
    let Some(by) = told(kind, locks) else {
        return label.map(|_| Mark::Lift);
    };
    let wanted = value(locks);
    if label != Some(&wanted) || annotation != Some(&by) {
        return Some(Mark::Object { label: wanted, by });
    }
    let new: Vec<_> = locks
        .iter()
        .filter(|lock| holds(lock, kind, object) && enforced_on(lock) != object.uid.as_deref())
        .cloned()
        .collect();
    (!new.is_empty()).then_some(Mark::Locks(new))
}

fn value(locks: &[ResourceLock]) -> String {
    let mut uids: Vec<&str> = locks
        .iter()
        .filter_map(|lock| lock.metadata.uid.as_deref())
        .collect();
    uids.sort_unstable();
    short_hash(&uids.join(","))
}

/// The uid of the object that is marked for a lock.
fn enforced_on(lock: &ResourceLock) -> Option<&str> {
    let labels = lock.metadata.labels.as_ref()?;
    labels.get(labels::ENFORCED).map(String::as_str)
}

/// What a pass over a lock sees.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The lock.
    pub lock: ResourceLock,
    /// What it names. None: there is nothing.
    pub target: Option<ObjectMeta>,
    /// Whether `target` comes from the API server itself, and not from a watch cache.
    pub target_confirmed: bool,
}

/// What only a lock's own pass does.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Ask the API server itself for what the lock names.
    FindTarget,
}

/// Says how a lock does. It holds whatever is said here.
pub fn decide(observed: &Observed, now: Timestamp) -> Decision<ResourceLockStatus, Effect> {
    let lock = &observed.lock;
    let before = lock.status.clone().unwrap_or_default();
    let generation = lock.metadata.generation.unwrap_or_default();
    let target = &lock.spec.resource_ref;
    let (kind, name) = (target.kind.as_str(), &target.name);
    let status = |phase, conditions: Conditions<'_>| ResourceLockStatus {
        observed_generation: Some(generation),
        phase: Some(phase),
        conditions: conditions.build(),
        enforced: Some(phase == LockPhase::Enforced),
    };
    let conditions = Conditions::new(&before.conditions, generation, now);
    let there = observed
        .target
        .as_ref()
        .filter(|there| target.uid.is_none() || target.uid == there.uid);
    let Some(there) = there else {
        let missing = match &target.uid {
            None => failure(
                Class::Waiting,
                reasons::TARGET_NOT_FOUND,
                format!(
                    "spec.resourceRef: {kind} '{name}' does not exist in this namespace; the lock holds it as soon as it does"
                ),
            ),
            // A uid does not come again.
            Some(uid) => failure(
                Class::Stalled,
                reasons::TARGET_NOT_FOUND,
                format!(
                    "spec.resourceRef: there is no {kind} '{name}' with uid {uid}, and there never will be; delete this lock"
                ),
            ),
        };
        let status = status(LockPhase::Pending, conditions.failed(&missing));
        // Lock and object often come together, and the caches hear of them in any order.
        if status != before && !observed.target_confirmed {
            return Decision::step(before, Step::Do(Effect::FindTarget));
        }
        return Decision::done(status, Next::Await);
    };
    if there.deletion_timestamp.is_some() {
        let going = failure(
            Class::Stalled,
            reasons::TARGET_DELETING,
            format!(
                "{kind} '{name}' is being deleted, which can't be taken back; if its removal has not begun it waits for this lock to go"
            ),
        );
        return Decision::done(status(LockPhase::Holding, conditions.failed(&going)), Next::Await);
    }
    if enforced_on(lock) != there.uid.as_deref() {
        // The pass over what it locks marks it in a moment, and that wakes this one.
        return Decision::done(before, Next::Await);
    }
    let ready = conditions.ready_for(reasons::ENFORCED, format!("{kind} '{name}' is marked as locked"));
    Decision::done(status(LockPhase::Enforced, ready), Next::Await)
}
