//! Decisions about locks: what they hold, how it is marked as locked, and what each lock is told.

use jiff::Timestamp;
use kube::core::ObjectMeta;
use shoal_crds::{
    AccessType, LockAction, LockPhase, LockedKind, ResourceLock, ResourceLockStatus, ShareAccessRule,
    condition::reasons,
    names::{LOCKED_BY, labels},
};

use crate::{
    Class, Decision, Failure, Next, Step, class::failure, condition::Conditions, export_location::short_hash,
};

/// How many locks are named where people read of them.
const NAMED: usize = 8;
/// How much of a lock's reason is repeated there.
const REPEATED: usize = 200;

/// Whether a lock forbids that this object is deleted.
pub fn holds(lock: &ResourceLock, kind: LockedKind, object: &ObjectMeta) -> bool {
    lock.spec.action == LockAction::Delete && is_on(lock, kind, object)
}

/// Whether a lock is on this object.
pub fn is_on(lock: &ResourceLock, kind: LockedKind, object: &ObjectMeta) -> bool {
    let target = &lock.spec.resource_ref;
    target.kind == kind
        && Some(&target.name) == object.name.as_ref()
        && lock.metadata.namespace == object.namespace
        && (target.uid.is_none() || target.uid == object.uid)
}

/// The Show lock that hides a rule's key: the one that does so already, and else the oldest. One alone, for its owner alone: a
/// later one would else show the key to whoever makes it.
pub fn hiding<'a>(rule: &ShareAccessRule, locks: &'a [ResourceLock]) -> Option<&'a ResourceLock> {
    if cannot_be_hidden(rule).is_some() {
        return None;
    }
    let hides = |lock: &&ResourceLock| {
        lock.spec.action == LockAction::Show && is_on(lock, LockedKind::ShareAccessRule, &rule.metadata)
    };
    let hidden_by = rule.status.as_ref().and_then(|status| status.hidden_by.as_ref());
    locks.iter().filter(hides).min_by_key(|lock| {
        let meta = &lock.metadata;
        let is_another = meta.uid.as_deref() != hidden_by.map(|by| by.uid.as_str());
        (
            is_another,
            meta.creation_timestamp.as_ref().map(|at| at.0),
            &meta.name,
        )
    })
}

/// Why nothing can hide whom a rule lets in, and what to do instead, if so. An identity that has a name can be named by another
/// rule of the namespace, on another share, and has the same key there.
fn cannot_be_hidden(rule: &ShareAccessRule) -> Option<String> {
    let spec = &rule.spec;
    let kind = spec.access_type;
    let instead = match kind {
        AccessType::CephX => "make a rule without it, which gets an identity of its own, and lock that",
        AccessType::IP => {
            "name it in accessToSecretRef of another rule, and let only its readers get that Secret"
        }
    };
    match (&spec.access_to, &spec.access_to_secret_ref) {
        (Some(to), _) => Some(format!(
            "has accessTo '{to}', which everybody reads who reads the rule, and nothing can hide: {instead}"
        )),
        (None, Some(reference)) if kind == AccessType::IP => Some(format!(
            "has no key, and its client is in Secret '{}' (accessToSecretRef), which is not Shoal's to move: let only its readers \
             get that Secret",
            reference.name
        )),
        (None, Some(reference)) => Some(format!(
            "names its identity in Secret '{}' (accessToSecretRef); any other rule that names it gets its key, too: {instead}",
            reference.name
        )),
        (None, None) => None,
    }
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
    /// The rule that it names, as the watch cache has it.
    pub rule: Option<ShareAccessRule>,
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
    if lock.spec.action == LockAction::Show {
        // The cache hears in a moment of what is there, and that wakes this pass.
        return match observed
            .rule
            .as_ref()
            .filter(|rule| rule.metadata.uid == there.uid)
        {
            None => Decision::done(before, Next::Await),
            Some(rule) => match how_hidden(lock, rule) {
                Ok(message) => {
                    let ready = conditions.ready_for(reasons::ENFORCED, message);
                    Decision::done(status(LockPhase::Enforced, ready), Next::Await)
                }
                Err(why) => Decision::done(status(LockPhase::Pending, conditions.failed(&why)), Next::Await),
            },
        };
    }
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

/// How a Show lock hides a rule's key, or why not.
fn how_hidden(lock: &ResourceLock, rule: &ShareAccessRule) -> Result<String, Failure> {
    let name = rule.metadata.name.as_deref().unwrap_or_default();
    if let Some(why) = cannot_be_hidden(rule) {
        return Err(failure(
            Class::Stalled,
            reasons::CANNOT_BE_HIDDEN,
            format!("spec.resourceRef: ShareAccessRule '{name}' {why}"),
        ));
    }
    let status = rule.status.as_ref();
    let hidden_by = status.and_then(|status| status.hidden_by.as_ref());
    if let Some(by) = hidden_by
        && Some(&by.uid) != lock.metadata.uid.as_ref()
    {
        return Err(failure(
            Class::Waiting,
            reasons::HIDDEN_BY_ANOTHER,
            format!(
                "ResourceLock '{}' hides ShareAccessRule '{name}' already, for its own owner; when that is deleted, the key is replaced \
                 once more, for the owner of this one",
                by.name
            ),
        ));
    }
    let secret = status.and_then(|status| status.credentials_secret_ref.as_ref());
    let kept = secret.and_then(|secret| Some((&secret.name, secret.namespace.as_ref()?)));
    match (hidden_by, kept) {
        (Some(_), Some((secret, namespace))) => Ok(format!(
            "ShareAccessRule '{name}' has a new key, in Secret '{secret}' of namespace '{namespace}', and {} alone may get it",
            lock.spec.owner
        )),
        _ => Err(failure(
            Class::Waiting,
            reasons::NOT_HIDDEN_YET,
            format!("ShareAccessRule '{name}' has no new key yet; its own status says what it waits for"),
        )),
    }
}
