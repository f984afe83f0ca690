//! Decisions about access rules: who is let in, and what each rule is told. They are taken in the pass of the share that
//! the rules name, which is their one applier; a rule has a pass of its own only while its share does not exist.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, HashMap, HashSet},
};

use jiff::Timestamp;
use shoal_crds::{
    AccessPhase, AccessType, CredentialsSecretReference, LockReference, LockedKind, Protocol, ResourceLock,
    ShareAccessRule, ShareAccessRuleStatus, Squash,
    condition::{reasons, types},
    names::{FINALIZER, RESERVED_IDENTITIES, is_generated_identity},
};

use crate::{
    Class, Decision, Failure, Next, Step,
    class::failure,
    condition::Conditions,
    grant::{Access, Client, Grant, Key, sort},
    owner::generated_identity,
    resource_lock::{self, Mark},
};

/// A rule, and what its Secrets hold.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleView {
    /// The rule.
    pub rule: ShareAccessRule,
    /// What `accessToSecretRef` leads to, once read.
    pub secret_value: Option<Result<String, Failure>>,
    /// The Secret that is to hold the key (CephX).
    pub credentials: Credentials,
    /// Whether a Secret that Shoal made for it is in its own namespace though a lock hides its key.
    pub shown: bool,
    /// Whether what its status says is in custody was thrown away in this pass.
    pub custody_ended: bool,
    /// The locks that its deletion, if it was asked for, waits for.
    pub locked_by: Option<String>,
    /// Where its key is kept while a Show lock hides it.
    pub custody: Option<Custody>,
}

/// Where a key is kept that the owner of a Show lock alone may read.
#[derive(Clone, Debug, PartialEq)]
pub struct Custody {
    /// The namespace.
    pub namespace: String,
    /// The lock.
    pub lock: LockReference,
    /// The lock's owner.
    pub reader: String,
}

impl Custody {
    /// What the Secret is called, and the role and binding that let its reader get it. No two locks share them: whatever comes late
    /// to be written lets nobody read another's key.
    pub fn name(&self) -> String {
        custody_name(&self.lock)
    }
}

/// What is kept for a lock is called.
pub fn custody_name(lock: &LockReference) -> String {
    generated_identity(&lock.uid)
}

impl RuleView {
    /// A rule as the watch cache has it: its Secrets have not been read.
    pub fn unread(rule: ShareAccessRule) -> Self {
        Self {
            rule,
            secret_value: None,
            credentials: Credentials::NotRead,
            shown: false,
            custody_ended: false,
            locked_by: None,
            custody: None,
        }
    }

    /// Notes the locks that hold it, and the one that hides its key in this namespace, out of these.
    pub fn note_locks(&mut self, locks: &[ResourceLock], custody: &str) {
        let meta = &self.rule.metadata;
        let kind = LockedKind::ShareAccessRule;
        let its = locks.iter().filter(|lock| resource_lock::holds(lock, kind, meta));
        let its: Vec<_> = its.cloned().collect();
        self.locked_by = resource_lock::told(kind, &its).filter(|_| self.is_deleted());
        self.custody = resource_lock::hiding(&self.rule, locks).map(|lock| Custody {
            namespace: custody.to_owned(),
            lock: LockReference {
                name: lock.metadata.name.clone().unwrap_or_default(),
                uid: lock.metadata.uid.clone().unwrap_or_default(),
            },
            reader: lock.spec.owner.clone(),
        });
    }

    /// Whether its status says that a lock hides its key: something may be in custody for it.
    pub fn is_recorded_as_hidden(&self) -> bool {
        self.hidden_by().is_some()
    }

    fn hidden_by(&self) -> Option<&LockReference> {
        self.rule.status.as_ref()?.hidden_by.as_ref()
    }

    /// Whether something may be in custody for another lock than the one that hides it, if any does.
    pub fn has_outlived_custody(&self) -> bool {
        self.is_recorded_as_hidden() && !self.says_what_hides_it() && !self.custody_ended
    }

    /// Whether its status tells of the lock that hides its key, or of none.
    fn says_what_hides_it(&self) -> bool {
        self.hidden_by().map(|by| &by.uid) == self.custody.as_ref().map(|custody| &custody.lock.uid)
    }

    /// Notes that what Shoal made for it is thrown away. Another's Secret is there as before.
    pub fn forget_key(&mut self) {
        if self.credentials != Credentials::NotOurs {
            self.credentials = Credentials::Missing;
        }
        self.shown = false;
        self.custody_ended = true;
    }

    /// The rule's name.
    pub fn name(&self) -> &str {
        self.rule.metadata.name.as_deref().unwrap_or_default()
    }

    /// Whether the rule's deletion was asked for.
    pub(crate) fn is_deleted(&self) -> bool {
        self.rule.metadata.deletion_timestamp.is_some()
    }

    /// Whether the rule is to go.
    pub fn is_leaving(&self) -> bool {
        self.is_deleted() && !(self.is_held() && self.locked_by.is_some())
    }

    /// Whether the rule's finalizer is stored: nobody is let in before.
    pub fn is_held(&self) -> bool {
        self.rule
            .metadata
            .finalizers
            .iter()
            .flatten()
            .any(|f| f == FINALIZER)
    }

    /// Whether what it asks for can't be known from the rule alone.
    pub fn needs_reading(&self) -> bool {
        self.rule.spec.access_type == AccessType::CephX || self.rule.spec.access_to_secret_ref.is_some()
    }

    /// Whether its status answers its spec on this share, whatever the answer.
    pub fn is_settled(&self, share_uid: &str) -> bool {
        !self.is_leaving()
            && self.rule.status.as_ref().is_some_and(|s| {
                s.observed_generation == self.rule.metadata.generation
                    && s.share_uid.as_deref() == Some(share_uid)
                    && match s.phase {
                        Some(AccessPhase::Active) => self.says_what_hides_it(),
                        // Nothing is hidden anew of a rule that is not in force.
                        Some(AccessPhase::Error) => s.hidden_by.is_none() || self.says_what_hides_it(),
                        _ => false,
                    }
                    && says_locked(s) == self.locked_by.as_deref().map(waits_for).as_deref()
            })
    }

    /// Whether its status takes note of its spec, or of its deletion, on this share, be it only to say that it waits.
    pub(crate) fn is_told(&self, share_uid: &str) -> bool {
        self.rule.status.as_ref().is_some_and(|s| {
            s.observed_generation == self.rule.metadata.generation
                && s.share_uid.as_deref() == Some(share_uid)
                && (!self.is_leaving() || s.phase == Some(AccessPhase::Denying))
        })
    }

    /// The Secret in which its key is kept.
    pub fn secret(&self) -> CredentialsSecretReference {
        match &self.custody {
            Some(custody) => CredentialsSecretReference {
                name: custody.name(),
                namespace: Some(custody.namespace.clone()),
            },
            None => CredentialsSecretReference {
                name: self.secret_name(),
                namespace: None,
            },
        }
    }

    /// Where its key is put when no lock hides it.
    pub fn secret_name(&self) -> String {
        /// The longest name of an object.
        const LONGEST: usize = 253;
        let usual = || Some(format!("{}-cephx", self.name())).filter(|name| name.len() <= LONGEST);
        self.rule
            .spec
            .credentials_secret_name
            .clone()
            .or_else(usual)
            .unwrap_or_else(|| generated_identity(self.rule.metadata.uid.as_deref().unwrap_or_default()))
    }

    /// The identity that Shoal makes for it, if it names none. For a lock that hides its key it is another than ever before, and so
    /// the key is one that nobody has read; it stays when the lock goes, and with it who has mounted.
    pub fn identity(&self) -> Option<String> {
        let (rule, spec) = (&self.rule, &self.rule.spec);
        if spec.access_type != AccessType::CephX
            || spec.access_to.is_some()
            || spec.access_to_secret_ref.is_some()
        {
            return None;
        }
        let made = || rule.status.as_ref()?.identity.clone();
        Some(match &self.custody {
            Some(custody) => generated_identity(&custody.lock.uid),
            None => {
                made().unwrap_or_else(|| generated_identity(rule.metadata.uid.as_deref().unwrap_or_default()))
            }
        })
    }

    /// Whom the rule names.
    pub fn client(&self) -> Result<Client, Failure> {
        let spec = &self.rule.spec;
        let text = match (&spec.access_to, &spec.access_to_secret_ref, &self.secret_value) {
            (Some(text), _, _) => text.clone(),
            (None, Some(_), Some(value)) => value.clone()?,
            (None, Some(reference), None) => {
                return Err(failure(
                    Class::Waiting,
                    reasons::SECRET_NOT_FOUND,
                    format!(
                        "spec.accessToSecretRef: Secret '{}' has not been read yet",
                        reference.name
                    ),
                ));
            }
            (None, None, _) => self.identity().unwrap_or_default(),
        };
        Client::parse(spec.access_type, text.trim()).map_err(|why| {
            let field = if spec.access_to.is_some() {
                "spec.accessTo"
            } else {
                "the value behind spec.accessToSecretRef"
            };
            failure(
                Class::Stalled,
                reasons::INVALID_ACCESS_TO,
                format!("{field}: {why}"),
            )
        })
    }
}

/// What a rule whose deletion waits for locks says.
fn waits_for(locks: &str) -> String {
    format!("locked by {locks}; it goes when they are deleted, and stays in force until then")
}

fn says_locked(status: &ShareAccessRuleStatus) -> Option<&str> {
    let mut conditions = status.conditions.iter();
    let said = conditions.find(|c| c.type_ == types::DELETION_BLOCKED && c.reason == reasons::LOCKED)?;
    Some(&said.message)
}

fn with_locks<'a>(conditions: Conditions<'a>, locked_by: Option<&str>) -> Conditions<'a> {
    match locked_by {
        Some(locks) => conditions.set(types::DELETION_BLOCKED, true, reasons::LOCKED, waits_for(locks)),
        None => conditions,
    }
}

/// The Secret that is to hold a rule's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// Not read in this pass.
    NotRead,
    /// Not there, or incomplete.
    Missing,
    /// There, and complete.
    Complete,
    /// A Secret of that name that Shoal did not make: never written.
    NotOurs,
}

/// What a share's rules come to.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Who is let in, in order.
    pub access: Access,
    /// What becomes of each rule, by its name.
    pub verdicts: BTreeMap<String, Verdict>,
}

/// What becomes of a rule.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Its client is let in.
    Grant(Grant),
    /// Its client is not let in.
    Refused(Failure),
    /// It is being deleted: its client is not let in any more.
    Leaving,
}

/// What a share's rules are judged by.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// The share's protocol.
    pub protocol: Protocol,
    /// Squash of rules that name none.
    pub squash: Squash,
    /// The identity the backend itself uses.
    pub own_identity: Option<&'a str>,
    /// Clients that the backend refused in this pass, and why.
    pub refused: &'a HashMap<Client, Failure>,
}

/// Judges all rules of a share. One bad rule never hinders the good ones.
pub fn plan(terms: Terms<'_>, rules: &[RuleView]) -> Plan {
    let mut oldest_first: Vec<&RuleView> = rules.iter().collect();
    oldest_first.sort_by(|a, b| by_age(&a.rule, &b.rule));
    let mut seen: HashSet<Client> = HashSet::new();
    let mut access = Access::new();
    let mut verdicts = BTreeMap::new();
    for view in oldest_first {
        let verdict = if view.is_leaving() {
            Verdict::Leaving
        } else {
            match judge(terms, view, &mut seen) {
                Ok(grant) => {
                    access.push(grant.clone());
                    Verdict::Grant(grant)
                }
                Err(failure) => Verdict::Refused(failure),
            }
        };
        verdicts.insert(view.name().to_owned(), verdict);
    }
    sort(&mut access);
    Plan { access, verdicts }
}

fn judge(terms: Terms<'_>, view: &RuleView, seen: &mut HashSet<Client>) -> Result<Grant, Failure> {
    let spec = &view.rule.spec;
    let fitting = match terms.protocol {
        Protocol::NFS => AccessType::IP,
        Protocol::CephFS => AccessType::CephX,
    };
    if spec.access_type != fitting {
        return Err(failure(
            Class::Stalled,
            reasons::ACCESS_TYPE_NOT_SUPPORTED,
            format!(
                "spec.accessType: a {} share takes rules of accessType {fitting:?}",
                terms.protocol.as_str()
            ),
        ));
    }
    let client = view.client()?;
    if let Client::CephX(identity) = &client
        && (RESERVED_IDENTITIES.contains(&identity.as_str())
            || terms.own_identity == Some(identity)
            || (view.identity().is_none() && is_generated_identity(identity)))
    {
        return Err(failure(Class::Stalled, reasons::IDENTITY_RESERVED, "the identity is reserved for Ceph or the operator, or of the form that Shoal makes for one rule alone; choose another, or leave accessTo out to get one made".into()));
    }
    if view.credentials == Credentials::NotOurs {
        return Err(failure(
            Class::Conflict,
            reasons::SECRET_NOT_OURS,
            format!(
                "Secret '{}' exists and was not made for this rule; delete it, or name another in spec.credentialsSecretName",
                view.secret().name
            ),
        ));
    }
    if !seen.insert(client.clone()) {
        return Err(failure(
            Class::Stalled,
            reasons::DUPLICATE_RULE,
            "an older rule of this share names the same client; change that one, or delete one of the two"
                .into(),
        ));
    }
    if let Some(failure) = terms.refused.get(&client) {
        return Err(failure.clone());
    }
    let squash = match client {
        Client::Ip(_) => spec.squash.unwrap_or(terms.squash),
        Client::CephX(_) => Squash::None,
    };
    Ok(Grant {
        client,
        level: spec.access_level,
        squash,
    })
}

/// The older rule wins; the name decides within a second.
fn by_age(a: &ShareAccessRule, b: &ShareAccessRule) -> Ordering {
    let age = |r: &ShareAccessRule| r.metadata.creation_timestamp.as_ref().map(|t| t.0);
    age(a)
        .cmp(&age(b))
        .then_with(|| a.metadata.name.cmp(&b.metadata.name))
}

/// What is written to one rule once the backend has been brought in line.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The rule, in the version that was judged.
    pub rule: ShareAccessRule,
    /// Its new status, if it differs.
    pub status: Option<ShareAccessRuleStatus>,
    /// Whether it is let go: its client is not let in any more.
    pub release: bool,
    /// The Secret to write.
    pub secret: Option<KeySecret>,
}

/// A Secret with a CephX key.
#[derive(Clone, Debug, PartialEq)]
pub struct KeySecret {
    /// The Secret's name.
    pub name: String,
    /// Where it is put, if a lock hides it.
    pub custody: Option<Custody>,
    /// The identity.
    pub identity: String,
    /// Its key.
    pub key: Key,
}

/// What each rule is told when the backend lets in exactly `plan.access`.
pub fn reports(
    share_uid: &str,
    rules: &[RuleView],
    plan: &Plan,
    keys: &BTreeMap<String, Key>,
    now: Timestamp,
) -> Vec<Report> {
    rules
        .iter()
        .filter_map(|view| {
            let verdict = plan.verdicts.get(view.name())?;
            let release = matches!(verdict, Verdict::Leaving) && view.is_held();
            let secret = match verdict {
                Verdict::Grant(Grant {
                    client: Client::CephX(identity),
                    ..
                }) => keys.get(identity).map(|key| KeySecret {
                    name: view.secret().name,
                    custody: view.custody.clone(),
                    identity: identity.clone(),
                    key: key.clone(),
                }),
                _ => None,
            };
            let status =
                status(view, share_uid, verdict, now).filter(|s| view.rule.status.as_ref() != Some(s));
            (release || secret.is_some() || status.is_some()).then(|| Report {
                rule: view.rule.clone(),
                status,
                release,
                secret,
            })
        })
        .collect()
}

/// What the rules are told whose key is about to be hidden, or for another lock than before: from then on something may be in
/// custody for them, and is not forgotten there.
pub fn hiding_reports(share_uid: &str, rules: &[RuleView], plan: &Plan, now: Timestamp) -> Vec<Report> {
    let told = failure(
        Class::Waiting,
        reasons::APPLYING_ACCESS,
        "a Show lock hides its key, so it gets a new one".into(),
    );
    rules
        .iter()
        .filter(|view| matches!(plan.verdicts.get(view.name()), Some(Verdict::Grant(_))))
        .filter_map(|view| {
            let custody = view.custody.as_ref().filter(|_| !view.says_what_hides_it())?;
            let status = ShareAccessRuleStatus {
                identity: view.identity(),
                credentials_secret_ref: None,
                hidden_by: Some(custody.lock.clone()),
                ..waiting_status(view, share_uid, &told, now)
            };
            Some(Report {
                rule: view.rule.clone(),
                status: Some(status),
                release: false,
                secret: None,
            })
        })
        .collect()
}

/// A rule's status under a verdict that is in force. None: it is about to go and needs none.
fn status(
    view: &RuleView,
    share_uid: &str,
    verdict: &Verdict,
    now: Timestamp,
) -> Option<ShareAccessRuleStatus> {
    let before = view.rule.status.as_ref();
    let generation = view.rule.metadata.generation.unwrap_or_default();
    let conditions = Conditions::new(before.map_or(&[], |s| s.conditions.as_slice()), generation, now);
    let conditions = with_locks(conditions, view.locked_by.as_deref());
    let status = ShareAccessRuleStatus {
        observed_generation: Some(generation),
        share_uid: Some(share_uid.to_owned()),
        ..ShareAccessRuleStatus::default()
    };
    match verdict {
        Verdict::Grant(grant) => Some(ShareAccessRuleStatus {
            phase: Some(AccessPhase::Active),
            conditions: conditions
                .set(types::READY, true, reasons::ACTIVE, "in force")
                .build(),
            applied_level: Some(grant.level),
            identity: view.identity(),
            credentials_secret_ref: matches!(grant.client, Client::CephX(_)).then(|| view.secret()),
            hidden_by: view.custody.as_ref().map(|custody| custody.lock.clone()),
            ..status
        }),
        Verdict::Refused(failure) => Some(ShareAccessRuleStatus {
            phase: Some(AccessPhase::Error),
            conditions: conditions.failed(failure).build(),
            identity: before.and_then(|s| s.identity.clone()),
            hidden_by: before
                .and_then(|s| s.hidden_by.clone())
                .filter(|_| view.says_what_hides_it()),
            ..status
        }),
        Verdict::Leaving => None,
    }
}

/// How many rules there are, how many are in force and how many are not.
pub fn summary(plan: &Plan) -> shoal_crds::AccessSummary {
    let count = |f: fn(&Verdict) -> bool| {
        i32::try_from(plan.verdicts.values().filter(|v| f(v)).count()).unwrap_or(i32::MAX)
    };
    shoal_crds::AccessSummary {
        total: count(|v| !matches!(v, Verdict::Leaving)),
        applied: count(|v| matches!(v, Verdict::Grant(_))),
        failed: count(|v| matches!(v, Verdict::Refused(_))),
    }
}

/// What a pass over a rule itself sees.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The rule.
    pub rule: ShareAccessRule,
    /// Whether its share exists, as far as the watch cache knows.
    pub share_exists: bool,
    /// Whether a live read has confirmed that it does not, and which locks there are if the rule is being deleted.
    pub absence_confirmed: bool,
    /// Whether nothing is in custody for it any more.
    pub custody_ended: bool,
    /// The locks that hold it.
    pub locks: Vec<ResourceLock>,
}

/// What only a rule's own pass does.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Ask the API server itself whether the share exists and, if the rule is being deleted, for its locks.
    ConfirmAbsence,
    /// Throw away what is in custody for it.
    EndCustody,
    /// Say that it is locked, or is not any more.
    Mark(Mark),
}

/// While a share exists, its pass is the rules' one applier and writer. Without it a rule waits, and can be deleted at
/// once: whoever was let in lost access with the share, or loses it by the ShareDeletion that says so.
pub fn decide(observed: &Observed, now: Timestamp) -> Decision<ShareAccessRuleStatus, Effect> {
    let rule = &observed.rule;
    let before = rule.status.clone().unwrap_or_default();
    let kind = LockedKind::ShareAccessRule;
    if let Some(mark) = resource_lock::mark(kind, &rule.metadata, &observed.locks) {
        return Decision::step(before, Step::Do(Effect::Mark(mark)));
    }
    if observed.share_exists {
        return Decision::done(before, Next::Await);
    }
    let deleted = rule.metadata.deletion_timestamp.is_some();
    let leaving = deleted && observed.locks.is_empty();
    let held = rule.metadata.finalizers.iter().flatten().any(|f| f == FINALIZER);
    if leaving && held {
        let step = if !observed.absence_confirmed {
            Step::Do(Effect::ConfirmAbsence)
        } else if before.hidden_by.is_some() && !observed.custody_ended {
            Step::Do(Effect::EndCustody)
        } else {
            Step::RemoveFinalizer
        };
        return Decision::step(before, step);
    }
    if leaving {
        return Decision::done(before, Next::Await);
    }
    let generation = rule.metadata.generation.unwrap_or_default();
    let waiting = failure(
        Class::Waiting,
        reasons::SHARE_NOT_FOUND,
        format!(
            "spec.shareRef: Share '{}' does not exist in this namespace; the rule applies when it does",
            rule.spec.share_ref.name
        ),
    );
    let locked_by = resource_lock::told(kind, &observed.locks).filter(|_| deleted);
    let conditions = Conditions::new(&before.conditions, generation, now).failed(&waiting);
    let status = ShareAccessRuleStatus {
        observed_generation: Some(generation),
        phase: Some(AccessPhase::QueuedToApply),
        conditions: with_locks(conditions, locked_by.as_deref()).build(),
        identity: before.identity.clone(),
        hidden_by: before.hidden_by.clone(),
        ..ShareAccessRuleStatus::default()
    };
    // Share and rule often come together, and the caches hear of them in any order.
    if status != before && !observed.absence_confirmed {
        return Decision::step(before, Step::Do(Effect::ConfirmAbsence));
    }
    Decision::done(status, Next::Await)
}

/// What rules are told whose share is there and can't take them yet: why, without a word against access in force.
/// One that is being deleted is let go if `nobody_is_let_in` by the backend anyway.
pub fn waiting_reports(
    share_uid: &str,
    rules: &[RuleView],
    why: &Failure,
    nobody_is_let_in: bool,
    now: Timestamp,
) -> Vec<Report> {
    let told = failure(
        Class::Waiting,
        reasons::SHARE_NOT_READY,
        format!(
            "the share can't take it yet ({}); it applies when the share can",
            why.reason
        ),
    );
    rules
        .iter()
        .filter(|view| !view.is_settled(share_uid))
        .filter_map(|view| {
            let release = nobody_is_let_in && view.is_leaving() && view.is_held();
            let status = Some(waiting_status(view, share_uid, &told, now))
                .filter(|status| !release && view.rule.status.as_ref() != Some(status));
            (release || status.is_some()).then(|| Report {
                rule: view.rule.clone(),
                status,
                release,
                secret: None,
            })
        })
        .collect()
}

fn waiting_status(view: &RuleView, share_uid: &str, why: &Failure, now: Timestamp) -> ShareAccessRuleStatus {
    let before = view.rule.status.clone().unwrap_or_default();
    let generation = view.rule.metadata.generation.unwrap_or_default();
    let same_share = before.share_uid.as_deref() == Some(share_uid);
    let level = before.applied_level.filter(|_| same_share);
    ShareAccessRuleStatus {
        observed_generation: Some(generation),
        phase: Some(match level {
            _ if view.is_leaving() => AccessPhase::Denying,
            Some(_) => AccessPhase::QueuedToUpdate,
            None => AccessPhase::QueuedToApply,
        }),
        conditions: with_locks(
            Conditions::new(&before.conditions, generation, now).failed(why),
            view.locked_by.as_deref(),
        )
        .build(),
        share_uid: Some(share_uid.to_owned()),
        applied_level: level,
        identity: before.identity,
        credentials_secret_ref: before.credentials_secret_ref.filter(|_| same_share),
        hidden_by: before.hidden_by,
    }
}
