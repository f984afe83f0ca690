//! A small pure world: one share and its rules in an API server, one backend, and passes over them as the operator makes
//! them. Each step is checked, before it is taken, against what must never happen.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use jiff::Timestamp;
use shoal_crds::{
    AccessLevel, AccessPhase, AccessType, DeletionPhase, DeletionPolicy, LockReference, LockedKind, Protocol,
    ResourceLock, Share, ShareAccessRule, ShareDeletion, ShareDeletionStatus, ShareStatus, ShareType,
    condition::{reasons, types},
    names::{LOCKED_BY, RESERVED_IDENTITIES, labels},
};
use shoal_domain::{
    Class, Failure, Next, Scope, Step,
    condition::is_true,
    ensure::{self, Round},
    grant::{Access, Applied, Client, Grant, Key},
    identity::Description,
    owner::{Owner, Tag},
    resource_lock::{self, Mark},
    share::{Effect, Going, Observed, decide, pseudo_path, recorded, was_provisioned},
    share_access_rule::{self, Credentials, Report, RuleView},
    share_deletion::{self, Whereabouts},
    volume::{Export, Sight, Volume},
};

use crate::fixtures::*;

/// No honest pass needs more.
const MOST_STEPS: usize = 16;
/// No honest share needs more passes to come to rest.
const MOST_PASSES: usize = 12;

#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools)] // Each is something that a test may turn.
pub struct World {
    pub now: Timestamp,
    /// What the API server has.
    pub share: Option<Share>,
    pub rules: Vec<ShareAccessRule>,
    /// What is left of the share once it was handed on.
    pub deletion: Option<ShareDeletion>,
    /// The share as it was born: what is left of it is of that protocol.
    born: Share,
    /// Whether it ever said that its subvolume is there.
    was_there: bool,
    /// What the watch cache has of the rules, when it is behind.
    pub cached_rules: Option<Vec<ShareAccessRule>>,
    pub locks: Vec<ResourceLock>,
    /// What the watch cache has of them, when it is behind.
    pub cached_locks: Option<Vec<ResourceLock>>,
    /// Secrets for CephX keys, in the rules' own namespace.
    pub secrets: BTreeMap<String, Stored>,
    /// Those that Show locks hide, by the lock's uid.
    pub custody: BTreeMap<String, Hidden>,
    /// Every Show lock that there was.
    pub show_locks: Vec<ResourceLock>,
    /// What `accessToSecretRef` leads to.
    pub values: BTreeMap<String, String>,
    pub share_type: Result<ShareType, Failure>,
    pub backend: Option<Result<Description, Failure>>,
    /// Whether that is only looked at.
    pub dry_run: bool,
    /// What the backend has.
    pub subvolume: Option<Subvolume>,
    pub export: Export,
    pub snapshots: bool,
    /// Clients that the backend does not let in.
    pub unavailable: HashMap<Client, Failure>,
    /// What befalls the effects to come.
    pub faults: VecDeque<Option<Fault>>,
    pub look_due: bool,
    /// The round over its backend's shares that it was not verified in yet.
    pub round: Option<Round>,
    /// Whether passes take so long that each step is reported before it is taken.
    pub slow: bool,
    /// Steps taken so far.
    pub steps: Vec<&'static str>,
    pub status_writes: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Subvolume {
    pub tag: Tag,
    pub size_bytes: Option<u64>,
    pub used_bytes: u64,
    pub metadata: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Stored {
    /// Made for the rule with this uid, with the key of this identity.
    Ours {
        rule_uid: String,
        identity: String,
    },
    Foreign,
}

/// A key that is hidden.
#[derive(Clone, Debug, PartialEq)]
pub struct Hidden {
    pub identity: String,
    pub reader: String,
}

/// How an effect fails, and whether it took place all the same.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub scope: Scope,
    pub took_place: bool,
}

/// How a pass ends.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    Rest(Next),
    /// Killed, or the API server failed it.
    Cut,
    Gone,
}

enum Answer {
    Nothing,
    Seen(Sight),
    Rules(Vec<RuleView>),
    Locks(Vec<ResourceLock>),
    Made(Box<Volume>),
    Applied(Vec<Applied>),
    Keys(BTreeMap<String, Key>),
}

/// The API server stores no empty map.
fn take_off(map: &mut Option<BTreeMap<String, String>>, key: &str) {
    map.get_or_insert_default().remove(key);
    *map = map.take().filter(|map| !map.is_empty());
}

impl World {
    pub fn new(share: Share, rules: impl Into<Vec<ShareAccessRule>>) -> Self {
        Self {
            now: now(),
            born: share.clone(),
            share: Some(share),
            rules: rules.into(),
            deletion: None,
            was_there: false,
            cached_rules: None,
            locks: Vec::new(),
            cached_locks: None,
            secrets: BTreeMap::new(),
            custody: BTreeMap::new(),
            show_locks: Vec::new(),
            values: BTreeMap::new(),
            share_type: Ok(share_type()),
            backend: Some(Ok(backend_description())),
            dry_run: false,
            subvolume: None,
            export: Export::Absent,
            snapshots: false,
            unavailable: HashMap::new(),
            faults: VecDeque::new(),
            look_due: false,
            round: None,
            slow: false,
            steps: Vec::new(),
            status_writes: 0,
        }
    }

    /// A world at rest with this share and these rules.
    pub fn settled(share: Share, rules: impl Into<Vec<ShareAccessRule>>) -> Self {
        let mut world = Self::new(share, rules);
        world.run_to_rest();
        world
    }

    pub fn share(&self) -> &Share {
        self.share.as_ref().unwrap()
    }

    pub fn status(&self) -> ShareStatus {
        self.share
            .as_ref()
            .and_then(|s| s.status.clone())
            .unwrap_or_default()
    }

    pub fn rule(&self, name: &str) -> &ShareAccessRule {
        self.rules.iter().find(|r| r.named() == name).unwrap()
    }

    pub fn access(&self) -> Access {
        match &self.export {
            Export::Ours { access, .. } => access.clone(),
            _ => Access::new(),
        }
    }

    // ---- what users do

    pub fn edit_share(&mut self, edit: impl FnOnce(Share) -> Share) {
        self.share = self.share.take().map(|s| edit(s).edited());
    }

    pub fn annotate(&mut self, key: &str, value: &str) {
        if let Some(share) = &mut self.share {
            let there = share.metadata.annotations.get_or_insert_default();
            there.insert(key.into(), value.into());
        }
    }

    pub fn delete_share(&mut self) {
        self.share = self
            .share
            .take()
            .filter(Object::is_held)
            .map(|s| if s.is_leaving() { s } else { s.leaving() });
    }

    pub fn edit_rule(&mut self, name: &str, edit: impl FnOnce(&mut ShareAccessRule)) {
        if let Some(rule) = self.rules.iter_mut().find(|r| r.named() == name) {
            edit(rule);
            *rule = rule.clone().edited();
        }
    }

    pub fn delete_rule(&mut self, name: &str) {
        let rules = std::mem::take(&mut self.rules);
        self.rules = rules
            .into_iter()
            .filter_map(|r| {
                if r.named() == name && !r.is_leaving() {
                    r.is_held().then(|| r.leaving())
                } else {
                    Some(r)
                }
            })
            .collect();
        self.collect_garbage();
    }

    fn collect_garbage(&mut self) {
        let uids: BTreeSet<_> = self.rules.iter().filter_map(|r| r.metadata.uid.clone()).collect();
        self.secrets.retain(|_, s| match s {
            Stored::Ours { rule_uid, .. } => uids.contains(rule_uid),
            Stored::Foreign => true,
        });
    }

    // ---- locks

    /// Those that hold the share, or one of its rules.
    fn locks_among(&self, locks: &[ResourceLock], rules: &[ShareAccessRule]) -> Vec<ResourceLock> {
        let share = self.share().metadata.clone();
        let holds = |lock: &&ResourceLock| {
            resource_lock::holds(lock, LockedKind::Share, &share)
                || rules
                    .iter()
                    .any(|rule| resource_lock::holds(lock, LockedKind::ShareAccessRule, &rule.metadata))
        };
        locks.iter().filter(holds).cloned().collect()
    }

    pub fn is_locked(&self) -> bool {
        self.share.is_some() && !self.locks_among(&self.locks, &self.rules).is_empty()
    }

    fn is_rule_locked(&self, rule: &ShareAccessRule) -> bool {
        let on_rule =
            |lock: &ResourceLock| resource_lock::holds(lock, LockedKind::ShareAccessRule, &rule.metadata);
        self.locks.iter().any(on_rule)
    }

    /// Whether a rule is to go.
    fn goes(&self, rule: &ShareAccessRule) -> bool {
        rule.is_leaving() && !self.is_rule_locked(rule)
    }

    /// Somebody hides a rule.
    pub fn hide(&mut self, lock: ResourceLock) {
        self.show_locks.push(lock.clone());
        self.locks.push(lock);
    }

    fn end_custody(&mut self, rule: &ShareAccessRule) {
        if let Some(lock) = hidden_by(rule) {
            self.custody.remove(&lock.uid);
        }
    }

    fn set_mark(&mut self, mark: &Mark) {
        let uid = self.share().metadata.uid.clone().unwrap();
        match mark {
            Mark::Object { label, by } => {
                let meta = &mut self.share.as_mut().unwrap().metadata;
                let labels = meta.labels.get_or_insert_default();
                labels.insert(labels::LOCKED.into(), label.clone());
                let annotations = meta.annotations.get_or_insert_default();
                annotations.insert(LOCKED_BY.into(), by.clone());
            }
            Mark::Lift if self.is_locked() => {}
            Mark::Lift => {
                let meta = &mut self.share.as_mut().unwrap().metadata;
                take_off(&mut meta.labels, labels::LOCKED);
                take_off(&mut meta.annotations, LOCKED_BY);
            }
            Mark::Locks(new) => {
                for lock in &mut self.locks {
                    if new.iter().any(|n| n.named() == lock.named()) {
                        let labels = lock.metadata.labels.get_or_insert_default();
                        labels.insert(labels::ENFORCED.into(), uid.clone());
                    }
                }
            }
        }
    }

    // ---- a pass

    pub fn load(&self) -> Option<Observed> {
        let share = self.share.clone()?;
        let chosen = share.status.as_ref().and_then(recorded).is_some();
        let candidates = self
            .admitted()
            .filter(|_| !chosen)
            .map(|state| candidate("ceph-a", state))
            .into_iter()
            .collect();
        let rules = self.cached_rules.as_ref().unwrap_or(&self.rules);
        let locks = self.cached_locks.as_ref().unwrap_or(&self.locks);
        let view = |rule: &ShareAccessRule| {
            let mut view = RuleView::unread(rule.clone());
            view.note_locks(locks, CUSTODY);
            view
        };
        Some(Observed {
            locks: self.locks_among(locks, rules),
            locks_confirmed: false,
            share,
            cluster: CLUSTER.into(),
            tenant: "uid-team".into(),
            namespace_deleted: None,
            namespace_labels: BTreeMap::new(),
            share_type: self.share_type.clone(),
            candidates,
            neighbours: Vec::new(),
            taken_on: BTreeSet::new(),
            quotas: Vec::new(),
            usage: shoal_domain::share_quota::Usage::default(),
            ledger_revision: 0,
            backend: self.admitted().filter(|_| chosen),
            dry_run: self
                .backend
                .clone()
                .filter(|_| chosen && self.dry_run)
                .and_then(Result::ok),
            rules: rules.iter().map(view).collect(),
            rules_confirmed: false,
            look_due: self.look_due,
            look_again: Duration::from_mins(10),
            round: self
                .round
                .clone()
                .filter(|_| self.share().status.as_ref().is_some_and(was_provisioned)),
            sight: None,
            looked_for: None,
            keys: BTreeMap::new(),
            refused: HashMap::new(),
            source: None,
            former: shoal_domain::orphan::Former::default(),
            going: Going {
                is_handed_on: self.deletion.is_some(),
                ..Going::default()
            },
            failure: None,
        })
    }

    /// One pass. The operator may be killed right after one of its steps.
    pub fn pass(&mut self, killed_after: Option<usize>) -> End {
        let Some(mut observed) = self.load() else {
            return self.deletion_pass(killed_after);
        };
        for n in 0..MOST_STEPS {
            let decision = decide(&observed, self.now);
            self.check_status(&decision.status);
            let Some(step) = decision.step else {
                self.store(decision.status);
                if observed.is_verified().is_some() {
                    self.round = None;
                }
                assert!(!self.is_fenced(), "kept as it is for longer than a pass");
                return End::Rest(decision.next);
            };
            if self.slow && matches!(step, Step::Do(_)) {
                self.store(decision.status.clone());
                observed.share.status.clone_from(&self.share().status);
            }
            self.check_step(&observed, &step, &decision.status);
            self.steps.push(match &step {
                Step::AddFinalizer => "AddFinalizer",
                Step::Record => "Record",
                Step::RemoveFinalizer => "RemoveFinalizer",
                Step::Do(effect) => effect.name(),
            });
            match step {
                Step::AddFinalizer => {
                    self.share = self.share.take().map(Object::held);
                    observed.share = self.share().clone();
                }
                Step::Record => {
                    self.store(decision.status);
                    observed.share = self.share().clone();
                }
                Step::RemoveFinalizer => {
                    self.share = None;
                    return End::Gone;
                }
                Step::Do(effect) => {
                    if !self.act(&mut observed, &effect) {
                        return End::Cut;
                    }
                }
            }
            if killed_after == Some(n) {
                return End::Cut;
            }
        }
        panic!(
            "a pass does not end: {:?}",
            &self.steps[self.steps.len() - MOST_STEPS..]
        );
    }

    /// One pass over what is left of the share.
    fn deletion_pass(&mut self, killed_after: Option<usize>) -> End {
        let Some(deletion) = self.deletion.clone() else {
            return End::Gone;
        };
        let mut observed = share_deletion::Observed {
            deletion,
            cluster: CLUSTER.into(),
            backend: self.admitted(),
            is_in_hand: false,
            share: None,
            adopter: None,
            sight: None,
            failure: None,
        };
        for n in 0..MOST_STEPS {
            let decision = share_deletion::decide(&observed, self.now);
            let Some(step) = decision.step else {
                self.store_deletion(decision.status);
                return End::Rest(decision.next);
            };
            if self.slow && matches!(step, Step::Do(_)) {
                self.store_deletion(decision.status.clone());
            }
            match step {
                Step::AddFinalizer => panic!("it is born with its finalizer"),
                Step::Record => {
                    self.steps.push("Record");
                    self.store_deletion(decision.status);
                }
                Step::RemoveFinalizer => {
                    self.steps.push("RemoveFinalizer");
                    self.deletion = None;
                    return End::Gone;
                }
                Step::Do(effect) => {
                    self.steps.push(effect.name());
                    if !self.act_on_deletion(&mut observed, &effect) {
                        return End::Cut;
                    }
                }
            }
            let Some(deletion) = self.deletion.clone() else {
                return End::Gone;
            };
            observed.deletion = deletion;
            if killed_after == Some(n) {
                return End::Cut;
            }
        }
        panic!(
            "a pass does not end: {:?}",
            &self.steps[self.steps.len() - MOST_STEPS..]
        );
    }

    fn store_deletion(&mut self, status: ShareDeletionStatus) {
        let revoked = status.access_revoked == Some(true);
        assert!(
            !revoked || self.access().is_empty(),
            "clients are let in: {status:?}"
        );
        let deletion = self.deletion.as_mut().unwrap();
        if deletion.status.clone().unwrap_or_default() != status {
            deletion.status = Some(status);
            self.status_writes += 1;
        }
    }

    /// Whether the pass goes on.
    fn act_on_deletion(
        &mut self,
        observed: &mut share_deletion::Observed,
        effect: &share_deletion::Effect,
    ) -> bool {
        use share_deletion::Effect::{FindAdopter, FindShare, Finish, Look, Mark, Remove, Unclaim, Unexport};
        if effect.changes_backend() {
            assert!(self.share.is_none(), "{} beside the share", effect.name());
            assert!(!self.is_anothers(), "{} on another's volume", effect.name());
            assert!(observed.failure.is_none(), "{} after a failure", effect.name());
        }
        let fault = self.faults.pop_front().flatten();
        let takes_place = fault.is_none_or(|fault| fault.took_place);
        let mut outcome = Ok(());
        match effect {
            FindShare => {
                observed.share = Some(match &self.share {
                    None => Whereabouts::Gone,
                    Some(share) if share.is_leaving() => Whereabouts::Leaving,
                    Some(_) => Whereabouts::There,
                });
            }
            Look => observed.sight = Some(self.sight()),
            Unexport => {
                if takes_place && matches!(self.export, Export::Ours { .. }) {
                    self.export = Export::Absent;
                }
                observed.sight = Some(self.sight());
            }
            Mark(left) => {
                if takes_place && let Some(there) = &mut self.subvolume {
                    let ours = owner_of(&self.born);
                    there.tag = Tag::Owner(Owner {
                        left: Some(*left),
                        ..ours
                    });
                }
                observed.sight = Some(self.sight());
            }
            Remove if self.snapshots => {
                outcome = Err(failure(Scope::Object, Class::Waiting, reasons::HAS_SNAPSHOTS));
            }
            Remove => {
                self.check_purge();
                if takes_place {
                    self.subvolume = None;
                }
                observed.sight = Some(self.sight());
            }
            Finish if takes_place => self.deletion = self.deletion.take().map(Object::leaving),
            Finish => {}
            FindAdopter | Unclaim => panic!("nothing is brought back here: {effect:?}"),
        }
        match fault {
            // The API server fails the pass.
            Some(_) if !effect.speaks_to_backend() => return false,
            Some(Fault { scope, .. }) => {
                outcome = Err(failure(scope, Class::Transient, reasons::BACKEND_ERROR));
            }
            None => {}
        }
        if let Err(failure) = outcome {
            observed.sight = None;
            observed.failure = Some(failure);
        }
        true
    }

    /// What was there is removed when its time has come, and with nobody let in.
    fn check_purge(&self) {
        assert!(self.access().is_empty(), "removed with clients let in");
        let spec = &self.deletion.as_ref().unwrap().spec;
        if let Some(until) = &spec.retain_until {
            assert!(until.0 <= self.now || !self.was_there, "removed before {until:?}");
        } else {
            let is_kept = self.was_there && spec.deletion_policy == DeletionPolicy::Retain;
            assert!(!is_kept, "removed, and it is to be kept");
        }
    }

    /// Whether the data of the share is to be kept for a while, or for good, when it is deleted.
    fn keeps_data(&self) -> bool {
        let Some(capabilities) = self.status().capabilities else {
            return false;
        };
        let policy = self.share().spec.deletion_policy;
        self.was_there
            && (!capabilities.retention.is_zero()
                || policy.unwrap_or(capabilities.deletion_policy) == DeletionPolicy::Retain)
    }

    fn store(&mut self, status: ShareStatus) {
        self.was_there |= is_true(&status.conditions, types::PROVISIONED);
        let share = self.share.as_mut().unwrap();
        if share.status.clone().unwrap_or_default() != status {
            share.status = Some(status);
            self.status_writes += 1;
        }
    }

    /// Whether the pass goes on.
    fn act(&mut self, observed: &mut Observed, effect: &Effect) -> bool {
        if matches!(effect, Effect::Look | Effect::Create(_)) {
            observed.looked_for = ensure::requested(&observed.share.metadata);
        }
        let fault = self.faults.pop_front().flatten();
        let answer = match fault {
            Some(Fault {
                took_place: false, ..
            }) => Ok(Answer::Nothing),
            _ => self.take_effect(effect),
        };
        let api = matches!(
            effect,
            Effect::ConfirmRules
                | Effect::ConfirmLocks
                | Effect::Mark(_)
                | Effect::HoldRules(_)
                | Effect::ForgetKeys(_)
                | Effect::ReportRules(_)
                | Effect::Fence
                | Effect::LiftFence
                | Effect::Annotate(_)
                | Effect::HandOn(_)
        );
        let outcome = match fault {
            Some(_) if api => return false,
            Some(fault) if fault.scope == Scope::Backend => Err(failure(
                Scope::Backend,
                Class::Transient,
                reasons::COMMAND_TIMED_OUT,
            )),
            Some(_) => Err(failure(Scope::Object, Class::Transient, reasons::BACKEND_ERROR)),
            None => answer,
        };
        match outcome {
            Ok(answer) => self.fold(observed, effect, answer),
            Err(failure) => observed.failure = Some(failure),
        }
        true
    }

    fn take_effect(&mut self, effect: &Effect) -> Result<Answer, Failure> {
        let object = |class, reason| Err(failure(Scope::Object, class, reason));
        match effect {
            Effect::Look => Ok(Answer::Seen(self.sight())),
            Effect::LookAtFormer | Effect::Claim | Effect::Revoke | Effect::BringBack => {
                panic!("nothing is brought back here: {effect:?}")
            }
            Effect::HandOn(deletion) => {
                let mut deletion = ShareDeletion::clone(deletion);
                deletion.metadata.generation = Some(1);
                self.deletion.get_or_insert(deletion);
                Ok(Answer::Nothing)
            }
            Effect::ConfirmRules => Ok(Answer::Rules(self.read_rules())),
            Effect::ConfirmLocks => Ok(Answer::Locks(self.locks_among(&self.locks, &self.rules))),
            Effect::Mark(mark) => {
                self.set_mark(mark);
                Ok(Answer::Locks(self.locks_among(&self.locks, &self.rules)))
            }
            Effect::HoldRules(names) => {
                for rule in &mut self.rules {
                    if names.iter().any(|n| n == rule.named()) && !rule.is_leaving() {
                        *rule = rule.clone().held();
                    }
                }
                Ok(Answer::Nothing)
            }
            Effect::Create(new) if new.was_there && self.subvolume.is_none() => {
                object(Class::Gone, reasons::VOLUME_MISSING)
            }
            Effect::Create(new) => {
                let ours = Tag::Owner(owner_of(self.share()));
                let there = self.subvolume.get_or_insert(Subvolume {
                    tag: Tag::Absent,
                    size_bytes: None,
                    used_bytes: 0,
                    metadata: None,
                });
                if there.tag == Tag::Absent {
                    there.tag = ours.clone();
                    there.size_bytes = Some(new.size_bytes);
                }
                if there.tag != ours {
                    return object(Class::Conflict, reasons::OWNED_BY_ANOTHER);
                }
                match self.sight() {
                    Sight::Present(volume) => Ok(Answer::Made(volume)),
                    Sight::Absent { .. } => unreachable!(),
                }
            }
            Effect::Resize(bytes) => match &mut self.subvolume {
                None => object(Class::Gone, reasons::VOLUME_MISSING),
                Some(there) if there.used_bytes > *bytes => {
                    object(Class::Stalled, reasons::SHRINK_BELOW_USED)
                }
                Some(there) => {
                    there.size_bytes = Some(*bytes);
                    Ok(Answer::Nothing)
                }
            },
            Effect::SetMetadata(text) => match &mut self.subvolume {
                None => object(Class::Gone, reasons::VOLUME_MISSING),
                Some(there) => {
                    there.metadata.clone_from(text);
                    Ok(Answer::Nothing)
                }
            },
            Effect::Export(access) => self.export(access).map(Answer::Applied),
            Effect::FetchKeys(grants) if grants.iter().all(|grant| self.access().contains(grant)) => {
                Ok(Answer::Keys(
                    grants
                        .iter()
                        .map(|grant| (grant.client.to_string(), key_of(&grant.client.to_string())))
                        .collect(),
                ))
            }
            Effect::FetchKeys(_) => object(Class::Transient, reasons::BACKEND_ERROR),
            Effect::ForgetKeys(names) => {
                for (shown, rule) in self.secrets_of(names) {
                    self.secrets
                        .retain(|name, stored| *name != shown || *stored == Stored::Foreign);
                    self.end_custody(&rule);
                }
                Ok(Answer::Nothing)
            }
            Effect::ReportRules(reports) => {
                for report in reports {
                    self.report(report);
                }
                self.collect_garbage();
                Ok(Answer::Nothing)
            }
            Effect::Fence | Effect::LiftFence => {
                let labels = &mut self.share.as_mut().unwrap().metadata.labels;
                if *effect == Effect::Fence {
                    labels
                        .get_or_insert_default()
                        .insert(labels::ENSURING.into(), String::new());
                } else {
                    take_off(labels, labels::ENSURING);
                }
                Ok(Answer::Nothing)
            }
            Effect::Annotate(annotations) => {
                let there = &mut self.share.as_mut().unwrap().metadata.annotations;
                there.get_or_insert_default().extend(annotations.clone());
                Ok(Answer::Nothing)
            }
            Effect::Unexport => {
                if matches!(self.export, Export::Ours { .. }) {
                    self.export = Export::Absent;
                }
                Ok(Answer::Nothing)
            }
            Effect::Remove if self.snapshots => object(Class::Waiting, reasons::HAS_SNAPSHOTS),
            Effect::Remove => {
                self.subvolume = None;
                Ok(Answer::Nothing)
            }
        }
    }

    fn export(&mut self, access: &Access) -> Result<Vec<Applied>, Failure> {
        if self.subvolume.is_none() {
            return Err(failure(Scope::Object, Class::Gone, reasons::VOLUME_MISSING));
        }
        if matches!(self.export, Export::Taken(_)) {
            return Err(failure(
                Scope::Object,
                Class::Conflict,
                reasons::EXPORT_PATH_TAKEN,
            ));
        }
        let before = self.access();
        let outcome = |grant: &Grant| match (self.unavailable.get(&grant.client), &grant.client) {
            (Some(failure), _) => Err(failure.clone()),
            (None, Client::CephX(identity)) if before.iter().all(|g| g.client != grant.client) => {
                Ok(Some(key_of(identity)))
            }
            (None, _) => Ok(None),
        };
        let applied: Vec<_> = access
            .iter()
            .map(|grant| Applied {
                client: grant.client.clone(),
                outcome: outcome(grant),
            })
            .collect();
        let in_force = access
            .iter()
            .zip(&applied)
            .filter(|(_, applied)| applied.outcome.is_ok())
            .map(|(grant, _)| grant.clone())
            .collect();
        self.export = self.ours(in_force);
        Ok(applied)
    }

    /// An export of ours as Shoal makes it.
    pub fn ours(&self, access: Access) -> Export {
        Export::Ours {
            pseudo_path: self
                .is_nfs()
                .then(|| pseudo_path(self.status().resolved_mount_point_name.as_deref(), "uid-a")),
            access,
            intact: true,
        }
    }

    fn is_nfs(&self) -> bool {
        self.born.spec.protocol == Protocol::NFS
    }

    fn report(&mut self, report: &Report) {
        let name = report.rule.named();
        if let Some(secret) = &report.secret
            && let Some(custody) = &secret.custody
        {
            let hidden = Hidden {
                identity: secret.identity.clone(),
                reader: custody.reader.clone(),
            };
            self.custody.insert(custody.lock.uid.clone(), hidden);
        } else if let Some(secret) = &report.secret {
            let stored = Stored::Ours {
                rule_uid: report.rule.metadata.uid.clone().unwrap(),
                identity: secret.identity.clone(),
            };
            self.secrets.insert(secret.name.clone(), stored);
        }
        if let Some(rule) = self.rules.iter_mut().find(|r| r.named() == name) {
            if report.status.is_some() {
                rule.status.clone_from(&report.status);
            }
            if report.release {
                *rule = rule.clone().not_held();
                let rule = rule.clone();
                self.end_custody(&rule);
            }
        }
        self.rules.retain(|r| !r.is_leaving() || r.is_held());
    }

    fn fold(&self, observed: &mut Observed, effect: &Effect, answer: Answer) {
        match (effect, answer) {
            (_, Answer::Seen(sight)) => observed.sight = Some(sight),
            (_, Answer::Made(volume)) => observed.sight = Some(Sight::Present(volume)),
            (_, Answer::Rules(rules)) => {
                observed.rules = rules;
                observed.rules_confirmed = true;
            }
            (Effect::ConfirmLocks, Answer::Locks(locks)) => {
                observed.locks = locks;
                observed.locks_confirmed = true;
            }
            (Effect::Mark(_), Answer::Locks(locks)) => {
                observed.locks = locks;
                observed.share.metadata = self.share().metadata.clone();
            }
            (Effect::FetchKeys(_), Answer::Keys(keys)) => observed.keys.extend(keys),
            (Effect::Export(_), Answer::Applied(applied)) => {
                for Applied { client, outcome } in applied {
                    match outcome {
                        Ok(Some(key)) => {
                            observed.keys.insert(client.to_string(), key);
                        }
                        Ok(None) => {}
                        Err(failure) => {
                            observed.refused.insert(client, failure);
                        }
                    }
                }
                if let Some(Sight::Present(volume)) = &mut observed.sight {
                    volume.export = self.export.clone();
                }
            }
            (Effect::HoldRules(names), _) => {
                for view in &mut observed.rules {
                    if names.iter().any(|n| n == view.name())
                        && let Some(rule) = self.rules.iter().find(|r| r.named() == view.name())
                    {
                        view.rule = rule.clone();
                    }
                }
                observed
                    .rules
                    .retain(|v| self.rules.iter().any(|r| r.named() == v.name()));
            }
            (Effect::ForgetKeys(names), _) => {
                for view in &mut observed.rules {
                    if names.iter().any(|n| n == view.name()) {
                        view.forget_key();
                    }
                }
            }
            (Effect::ReportRules(reports), _) => {
                for report in reports {
                    if report.release {
                        observed.rules.retain(|v| v.name() != report.rule.named());
                    }
                    for view in &mut observed.rules {
                        if view.name() == report.rule.named() {
                            if report.status.is_some() {
                                view.rule.status.clone_from(&report.status);
                            }
                            if let Some(secret) = &report.secret {
                                view.credentials = Credentials::Complete;
                                observed.keys.remove(&secret.identity);
                            }
                        }
                    }
                }
            }
            (Effect::Fence | Effect::LiftFence, _) => {
                observed.share.metadata = self.share().metadata.clone();
            }
            (Effect::Annotate(annotations), _) => {
                let there = &mut observed.share.metadata.annotations;
                there.get_or_insert_default().extend(annotations.clone());
            }
            (Effect::SetMetadata(text), _) => {
                if let Some(Sight::Present(volume)) = &mut observed.sight {
                    volume.metadata.clone_from(text);
                }
            }
            (Effect::Resize(bytes), _) => {
                if let Some(Sight::Present(volume)) = &mut observed.sight {
                    volume.size_bytes = Some(*bytes);
                }
            }
            (Effect::Unexport, _) => match &mut observed.sight {
                Some(Sight::Present(volume)) => volume.export = Export::Absent,
                Some(Sight::Absent { leftovers }) => *leftovers = false,
                None => {}
            },
            (Effect::Remove, _) => observed.sight = Some(absent()),
            (Effect::HandOn(_), _) => observed.going.is_handed_on = true,
            _ => unreachable!("an answer that does not belong to its effect"),
        }
    }

    pub fn sight(&self) -> Sight {
        let Some(there) = &self.subvolume else {
            return Sight::Absent {
                leftovers: matches!(self.export, Export::Ours { .. }),
            };
        };
        // Native CephFS needs no export: it is there with nobody let in.
        let export = if self.export == Export::Absent && !self.is_nfs() {
            self.ours(Access::new())
        } else {
            self.export.clone()
        };
        Sight::Present(Box::new(Volume {
            tag: there.tag.clone(),
            size_bytes: there.size_bytes,
            used_bytes: there.used_bytes,
            metadata: there.metadata.clone(),
            export,
            ..volume(&self.born)
        }))
    }

    /// Locks come from the cache, unless one of the rules goes, or a key would be shown again.
    fn read_rules(&self) -> Vec<RuleView> {
        let view = |rule: &ShareAccessRule, locks: &[ResourceLock]| {
            let mut view = RuleView::unread(rule.clone());
            view.note_locks(locks, CUSTODY);
            view
        };
        let cached = self.cached_locks.as_ref().unwrap_or(&self.locks);
        let is_doubtful = |rule: &ShareAccessRule| {
            rule.is_leaving() || (hidden_by(rule).is_some() && view(rule, cached).custody.is_none())
        };
        let locks = if self.rules.iter().any(is_doubtful) {
            &self.locks
        } else {
            cached
        };
        let read = |rule: &ShareAccessRule| {
            let mut view = view(rule, locks);
            view.secret_value = rule.spec.access_to_secret_ref.as_ref().map(|reference| {
                self.values
                    .get(&reference.name)
                    .cloned()
                    .ok_or_else(|| failure(Scope::Object, Class::Waiting, reasons::SECRET_NOT_FOUND))
            });
            if rule.spec.access_type == AccessType::CephX {
                let identity = view.client().ok().map(|client| client.to_string());
                let complete = |there: &String| {
                    if Some(there) == identity.as_ref() || identity.is_none() {
                        Credentials::Complete
                    } else {
                        Credentials::Missing
                    }
                };
                let (shown, is_owned) = match self.secrets.get(&view.secret_name()) {
                    None => (Credentials::Missing, false),
                    Some(Stored::Ours { rule_uid, identity })
                        if Some(rule_uid) == rule.metadata.uid.as_ref() =>
                    {
                        (complete(identity), true)
                    }
                    Some(_) => (Credentials::NotOurs, false),
                };
                view.credentials = match &view.custody {
                    None => shown,
                    Some(custody) => {
                        view.shown = is_owned;
                        let kept = self.custody.get(&custody.lock.uid);
                        kept.map_or(Credentials::Missing, |kept| complete(&kept.identity))
                    }
                };
            }
            view
        };
        self.rules.iter().map(read).collect()
    }

    // ---- coming to rest

    /// Passes until nothing moves any more, the watch cache being up to date; then holds the outcome against the objects.
    pub fn run_to_rest(&mut self) {
        self.cached_rules = None;
        self.cached_locks = None;
        for _ in 0..MOST_PASSES {
            self.let_back_off_pass();
            let before = self.essence();
            let faults = self.faults.len();
            self.look_due = true;
            let end = self.pass(None);
            if self.share.is_none() {
                self.rules_without_share();
            }
            if self.share.is_none() && self.deletion.is_none() {
                self.check_gone();
                return;
            }
            if self.essence() != before || end == End::Gone {
                continue;
            }
            if faults == 0 && self.share.is_none() {
                self.check_left();
                return;
            }
            if faults == 0 {
                self.look_due = false;
                self.check_quiet();
                self.check_rest();
                return;
            }
            if self.faults.len() == faults {
                // Nothing is done that could fail.
                self.faults.clear();
            }
        }
        panic!("it does not come to rest: {:?}", self.steps);
    }

    pub fn let_back_off_pass(&mut self) {
        let deletion = self.deletion.as_ref().and_then(|d| d.status.clone());
        let until = match &self.share {
            Some(_) => self.status().next_retry_time,
            None => deletion.and_then(|status| status.next_retry_time),
        };
        if let Some(until) = until {
            self.now = self.now.max(until.0);
        }
    }

    /// Everything but times and the count of attempts.
    pub fn essence(&self) -> Essence {
        let mut share = self.share.clone();
        if let Some(status) = share.as_mut().and_then(|s| s.status.as_mut()) {
            status.attempts = None;
            status.next_retry_time = None;
            for condition in &mut status.conditions {
                condition.last_transition_time.0 = now();
            }
        }
        let mut rules = self.rules.clone();
        for status in rules.iter_mut().filter_map(|r| r.status.as_mut()) {
            for condition in &mut status.conditions {
                condition.last_transition_time.0 = now();
            }
        }
        // Until when it is kept, and so what is said of that, hangs on when it was deleted.
        let deletion = self.deletion.as_ref().map(|deletion| {
            let status = deletion.status.clone().unwrap_or_default();
            let why = told(&status.conditions, types::READY);
            let is_kept_a_while = deletion.spec.retain_until.is_some();
            (
                deletion.is_leaving(),
                is_kept_a_while,
                status.phase,
                status.access_revoked,
                why,
            )
        });
        Essence {
            share,
            deletion,
            rules,
            locks: self.locks.clone(),
            secrets: self.secrets.clone(),
            custody: self.custody.clone(),
            subvolume: self.subvolume.clone(),
            export: match &self.export {
                // Native CephFS needs none while nobody is let in.
                export if !self.is_nfs() && *export == self.ours(Access::new()) => Export::Absent,
                export => export.clone(),
            },
        }
    }

    /// A rule whose share is gone has a pass of its own.
    fn rules_without_share(&mut self) {
        let rules = std::mem::take(&mut self.rules);
        for mut rule in rules {
            let mut observed = share_access_rule::Observed {
                rule: rule.clone(),
                share_exists: false,
                absence_confirmed: false,
                custody_ended: false,
                locks: Vec::new(),
            };
            let kept = loop {
                let decision = share_access_rule::decide(&observed, self.now);
                match decision.step {
                    None => break true,
                    Some(Step::RemoveFinalizer) => break false,
                    Some(Step::Do(share_access_rule::Effect::ConfirmAbsence)) => {
                        observed.absence_confirmed = true;
                    }
                    Some(Step::Do(share_access_rule::Effect::EndCustody)) => {
                        observed.custody_ended = true;
                        self.end_custody(&rule);
                    }
                    Some(step) => panic!("a rule's own pass does not {step:?}"),
                }
            };
            if kept {
                rule.status = Some(share_access_rule::decide(&observed, self.now).status);
                self.rules.push(rule);
            }
        }
        self.collect_garbage();
    }

    /// At rest, a pass writes nothing; if all is well it does not even look, and when it looks it only looks.
    fn check_quiet(&self) {
        let mut later = self.clone();
        later.faults.clear();
        later.slow = false;
        later.let_back_off_pass();
        let well = is_true(&self.status().conditions, types::READY)
            && !is_true(&self.status().conditions, types::RECONCILING);
        for look_due in [false, true] {
            later.look_due = look_due;
            later.steps.clear();
            later.status_writes = 0;
            later.pass(None);
            later.essence().must_equal(&self.essence(), "at rest");
            if !well {
                continue;
            }
            assert_eq!(later.status_writes, 0);
            let allowed: &[&str] = match look_due {
                false => &[],
                true if self.unavailable.is_empty() => &["Look", "ConfirmRules"],
                true => &["Look", "ConfirmRules", "Export"],
            };
            assert!(
                later.steps.iter().all(|s| allowed.contains(s)),
                "{look_due}: {:?}",
                later.steps
            );
        }
    }

    // ---- what must hold

    fn is_anothers(&self) -> bool {
        let ours = |owner: &Owner| owner.is_same(&owner_of(&self.born));
        self.subvolume.as_ref().is_some_and(|there| match &there.tag {
            Tag::Absent => false,
            Tag::Owner(owner) => !ours(owner),
            Tag::Unreadable => true,
        })
    }

    /// Whether somebody altered the tag of what is there before the share, which is being deleted, came to say that it is.
    pub fn is_in_doubt(&self) -> bool {
        let ours = Tag::Owner(owner_of(&self.born));
        let is_altered = self.subvolume.as_ref().is_some_and(|there| there.tag != ours);
        self.share.as_ref().is_some_and(Object::is_leaving) && is_altered && !self.was_provisioned()
    }

    fn was_provisioned(&self) -> bool {
        is_true(&self.status().conditions, types::PROVISIONED)
    }

    /// What may be relied on of the backend.
    fn admitted(&self) -> Option<Result<Description, Failure>> {
        let found = self.backend.clone()?;
        let why = failure(Scope::Backend, Class::Waiting, reasons::DRY_RUN);
        Some(if self.dry_run { found.and(Err(why)) } else { found })
    }

    /// The backend as the share may use it.
    fn usable_backend(&self) -> Option<&Description> {
        let stored = recorded(&self.status())?;
        let answering = self.backend.as_ref()?.as_ref().ok()?;
        (answering.identity == stored).then_some(answering)
    }

    fn check_status(&self, status: &ShareStatus) {
        let before = self.status();
        if let Some(chosen) = recorded(&before) {
            assert_eq!(recorded(status), Some(chosen), "the choice is kept");
            assert_eq!(status.backend_name, before.backend_name);
            assert_eq!(status.capabilities, before.capabilities);
        }
        if is_true(&before.conditions, types::PROVISIONED) {
            assert!(
                is_true(&status.conditions, types::PROVISIONED),
                "what was there is not forgotten"
            );
        }
        let is = |type_| told(&status.conditions, type_).0;
        for only_while_true in [
            types::RECONCILING,
            types::STALLED,
            types::DELETION_BLOCKED,
            types::ENSURING,
        ] {
            assert_ne!(is(only_while_true), "False", "{:?}", status.conditions);
        }
        assert!(
            is(types::RECONCILING).is_empty() || is(types::STALLED).is_empty(),
            "{:?}",
            status.conditions
        );
        let order: Vec<_> = status.conditions.iter().map(|c| &c.type_).collect();
        assert!(order.is_sorted(), "{order:?}");
        assert!(!serde_json::to_string(status).unwrap().contains(KEY));
        let is_worked_on = self.usable_backend().is_some() && !self.dry_run;
        assert!(
            status.differences.is_none() || !is_worked_on,
            "{:?}",
            status.differences
        );
    }

    fn check_step(&self, observed: &Observed, step: &Step<Effect>, status: &ShareStatus) {
        let stored = self.share();
        let chosen = recorded(&self.status());
        match step {
            Step::AddFinalizer => assert!(!stored.is_leaving() && !stored.is_held()),
            Step::Record
                if is_true(&status.conditions, types::ENSURING) && status.quota == self.status().quota =>
            {
                assert!(self.is_fenced(), "said before it is so");
                assert!(!is_true(&self.status().conditions, types::ENSURING), "said twice");
                let ready = |status: &ShareStatus| told(&status.conditions, types::READY);
                assert_eq!(ready(status), ready(&self.status()));
            }
            Step::Record => {
                assert!(stored.is_held() && recorded(status).is_some());
                let charged = |status: &ShareStatus| status.quota.map(|quota| quota.charged);
                assert!(
                    chosen.is_none() || charged(status) > charged(&self.status()),
                    "recorded without news"
                );
                assert_eq!(charged(status), Some(observed.share.spec.size));
            }
            Step::RemoveFinalizer => {
                assert!(stored.is_leaving() && !self.is_locked());
                let is_left = self.subvolume.is_some() || matches!(self.export, Export::Ours { .. });
                assert!(
                    !is_left || self.is_anothers() || self.deletion.is_some(),
                    "let go with something there"
                );
            }
            Step::Do(effect) => {
                if effect.changes_backend() {
                    assert!(!self.dry_run, "{} where it is only looked at", effect.name());
                    assert!(stored.is_held(), "{} before the finalizer", effect.name());
                    assert!(chosen.is_some(), "{} before the choice is stored", effect.name());
                    assert!(self.usable_backend().is_some(), "{}", effect.name());
                    let takes_away = matches!(effect, Effect::Unexport | Effect::Remove);
                    // Where the volume is gone there is nothing to let in to.
                    let leftovers = matches!(effect, Effect::Unexport) && self.subvolume.is_none();
                    // What the cache still has as locked is kept a little longer; nothing locked is ever taken away.
                    let may = if takes_away {
                        stored.is_leaving() && !self.is_locked()
                    } else {
                        !stored.is_leaving() || !observed.locks.is_empty()
                    };
                    assert!(may || leftovers, "{}", effect.name());
                    assert!(
                        !self.is_anothers() || matches!(effect, Effect::Create(_)),
                        "{} on another's volume",
                        effect.name()
                    );
                    assert!(observed.failure.is_none(), "{} after a failure", effect.name());
                }
                self.check_effect(observed, effect);
            }
        }
    }

    /// Whether its spec is kept as it is.
    pub fn is_fenced(&self) -> bool {
        self.share.as_ref().is_some_and(ensure::is_marked)
    }

    fn charged(&self) -> u64 {
        self.status().quota.map_or(0, |quota| quota.charged.bytes())
    }

    /// Rules by their names, each with the name of its Secret.
    fn secrets_of(&self, rules: &[String]) -> Vec<(String, ShareAccessRule)> {
        self.rules
            .iter()
            .filter(|rule| rules.iter().any(|name| name == rule.named()))
            .map(|rule| (RuleView::unread(rule.clone()).secret_name(), rule.clone()))
            .collect()
    }

    fn check_effect(&self, observed: &Observed, effect: &Effect) {
        match effect {
            Effect::Create(new) => {
                assert_eq!(new.was_there, self.was_provisioned(), "made again, empty");
                assert!(
                    new.size_bytes <= self.charged(),
                    "made larger than it was charged"
                );
            }
            Effect::Resize(bytes) => {
                assert!(*bytes <= self.charged(), "grown before it was charged");
                let shrinks = self.status().size.is_some_and(|s| s.bytes() > *bytes);
                let may_shrink = self.status().capabilities.unwrap().shrink;
                assert!(!shrinks || may_shrink, "shrunk against its type");
            }
            Effect::Export(access) => {
                let risky = !access.is_empty() || !self.access().is_empty();
                assert!(observed.rules_confirmed || !risky, "applied from a cache");
                for grant in access {
                    assert!(
                        self.rules.iter().any(|r| !self.goes(r)
                            && r.is_held()
                            && r.spec.access_level == grant.level
                            && self.clients_of(r).contains(&grant.client)),
                        "no live, held rule names {grant:?}"
                    );
                }
                let clients: BTreeSet<_> = access.iter().map(|g| g.client.to_string()).collect();
                assert_eq!(clients.len(), access.len(), "a client twice");
            }
            Effect::HoldRules(names) => assert!(!names.is_empty()),
            Effect::ForgetKeys(names) => {
                for (shown, rule) in self.secrets_of(names) {
                    assert!(
                        matches!(self.secrets.get(&shown), Some(Stored::Ours { .. }))
                            || hidden_by(&rule).is_some(),
                        "there is none to be thrown away"
                    );
                }
            }
            Effect::ReportRules(reports) => {
                assert!(!reports.is_empty());
                for report in reports {
                    self.check_report(report);
                }
            }
            Effect::Remove => {
                assert!(self.access().is_empty(), "removed with clients let in");
                assert!(!self.keeps_data(), "removed, and it is to be kept");
            }
            Effect::HandOn(deletion) => {
                assert!(self.deletion.is_none(), "handed on twice");
                let is_kept = deletion.spec.retain_until.is_some()
                    || deletion.spec.deletion_policy == DeletionPolicy::Retain;
                assert!(is_kept || !self.keeps_data(), "handed on, and not to be kept");
            }
            Effect::SetMetadata(text) => assert_ne!(
                self.subvolume.as_ref().map(|there| &there.metadata),
                Some(text),
                "written though nothing differs"
            ),
            Effect::Fence => assert!(!self.is_fenced() && self.was_provisioned()),
            Effect::LiftFence => assert!(self.is_fenced()),
            Effect::Unexport
            | Effect::ConfirmLocks
            | Effect::Mark(_)
            | Effect::FetchKeys(_)
            | Effect::Annotate(_)
            | Effect::Look
            | Effect::ConfirmRules => {}
            Effect::LookAtFormer | Effect::Claim | Effect::Revoke | Effect::BringBack => {
                panic!("nothing is brought back here: {effect:?}")
            }
        }
    }

    fn check_report(&self, report: &Report) {
        let access = self.access();
        let clients = self.clients_of(&report.rule);
        let in_force = |level: AccessLevel| {
            access
                .iter()
                .any(|g| clients.contains(&g.client) && g.level == level)
        };
        assert!(report.release || report.status.is_some() || report.secret.is_some());
        if report.release {
            assert!(self.goes(&report.rule));
            let named_by_another = self
                .rules
                .iter()
                .any(|r| r.named() != report.rule.named() && !self.goes(r) && self.clients_of(r) == clients);
            assert!(
                named_by_another || access.iter().all(|g| !clients.contains(&g.client)),
                "let go with its client let in"
            );
        }
        if let Some(status) = &report.status {
            assert_ne!(report.rule.status.as_ref(), Some(status), "written again");
            if status.phase == Some(AccessPhase::Active) {
                assert!(
                    report.rule.is_held() && in_force(report.rule.spec.access_level),
                    "{status:?}"
                );
            }
            assert!(!serde_json::to_string(status).unwrap().contains(KEY));
        }
        if let Some(secret) = &report.secret {
            let made_for = |lock: &ResourceLock| format!("shoal-{}", lock.metadata.uid.as_ref().unwrap());
            match &secret.custody {
                None => {
                    assert!(self.secrets.get(&secret.name) != Some(&Stored::Foreign));
                    let hides = |lock: &&ResourceLock| made_for(lock) == secret.identity;
                    assert_eq!(self.locks.iter().find(hides), None, "a hidden key is shown");
                }
                Some(custody) => {
                    assert_eq!(secret.identity, format!("shoal-{}", custody.lock.uid));
                    let its = self.show_locks.iter().find(|l| made_for(l) == secret.identity);
                    assert_eq!(its.unwrap().spec.owner, custody.reader, "shown to another");
                    let recorded = report.rule.status.as_ref().and_then(|s| s.hidden_by.as_ref());
                    assert_eq!(recorded, Some(&custody.lock), "hidden and not recorded");
                }
            }
            assert!(
                in_force(report.rule.spec.access_level),
                "a key for one not let in"
            );
        }
    }

    /// Whom a rule names, if it names anybody.
    fn client_of(&self, rule: &ShareAccessRule) -> Option<Client> {
        let made = self.view(rule).identity().unwrap_or_default();
        let text = match (&rule.spec.access_to, &rule.spec.access_to_secret_ref) {
            (Some(text), _) => text,
            (None, Some(reference)) => self.values.get(&reference.name)?,
            (None, None) => &made,
        };
        Client::parse(rule.spec.access_type, text.trim()).ok()
    }

    /// Whom a rule may let in, whatever the cache has of locks: those that it names, or one made for it or any lock that was on it.
    fn clients_of(&self, rule: &ShareAccessRule) -> Vec<Client> {
        if self.view(rule).identity().is_none() {
            return self.client_of(rule).into_iter().collect();
        }
        let on_it = |lock: &&ResourceLock| lock.spec.resource_ref.name == rule.named();
        let locks = self.show_locks.iter().filter(on_it);
        let uids = locks.filter_map(|lock| lock.metadata.uid.as_ref());
        uids.chain(&rule.metadata.uid)
            .map(|uid| cephx(&format!("shoal-{uid}")))
            .collect()
    }

    fn view(&self, rule: &ShareAccessRule) -> RuleView {
        let mut view = RuleView::unread(rule.clone());
        view.note_locks(&self.locks, CUSTODY);
        view
    }

    /// The rules that ought to be in force.
    fn rules_in_force(&self) -> Vec<&ShareAccessRule> {
        let fitting = if self.is_nfs() {
            AccessType::IP
        } else {
            AccessType::CephX
        };
        let reserved = |client: &Client| match client {
            Client::CephX(identity) => {
                RESERVED_IDENTITIES.contains(&identity.as_str()) || identity == "shoal-operator"
            }
            Client::Ip(_) => false,
        };
        let foreign = |rule: &ShareAccessRule| {
            let name = format!("{}-cephx", rule.named());
            rule.spec.access_type == AccessType::CephX
                && self.secrets.get(&name) == Some(&Stored::Foreign)
                && self.view(rule).custody.is_none()
        };
        let mut fit: Vec<_> = self
            .rules
            .iter()
            .filter(|r| !self.goes(r) && r.spec.access_type == fitting && !foreign(r))
            .filter(|r| self.client_of(r).is_some_and(|c| !reserved(&c)))
            .collect();
        fit.sort_by_key(|r| (r.metadata.creation_timestamp.clone().map(|t| t.0), r.named()));
        let mut seen = BTreeSet::new();
        fit.retain(|r| seen.insert(self.client_of(r).unwrap().to_string()));
        // The backend lets in no such client anew; one that is in already stays.
        let access = self.access();
        let is_in = |client: &Client| access.iter().any(|g| g.client == *client);
        fit.retain(|r| {
            let client = self.client_of(r).unwrap();
            !self.unavailable.contains_key(&client) || is_in(&client)
        });
        fit
    }

    /// At rest the backend holds exactly what the objects say, or the status says why not.
    fn check_rest(&self) {
        let share = self.share();
        let status = self.status();
        let conditions = &status.conditions;
        let is_marked = share
            .metadata
            .labels
            .as_ref()
            .is_some_and(|map| map.contains_key(labels::LOCKED));
        if share.is_leaving() {
            assert!(says(conditions, types::DELETION_BLOCKED), "{status:?}");
            if !self.is_locked() || recorded(&status).is_none() {
                return;
            }
            let why = told(conditions, types::DELETION_BLOCKED).1;
            assert_eq!(why, reasons::LOCKED);
        } else {
            assert_eq!(is_marked, self.is_locked());
        }
        assert!(share.is_held());
        if recorded(&status).is_none() {
            assert!(self.subvolume.is_none() || self.is_anothers());
            assert!(!why_not_ready(conditions).is_empty());
            assert!(self.all_told());
            return;
        }
        let expected = match (self.usable_backend(), &self.subvolume) {
            (None, _) => {
                let replaced = matches!(&self.backend, Some(Ok(_)));
                let reason = told(conditions, types::READY);
                if replaced {
                    assert_eq!(reason, ("False".into(), reasons::BACKEND_REPLACED.into()));
                }
                assert!(self.all_told());
                return;
            }
            (_, Some(_)) if self.is_anothers() => reasons::OWNED_BY_ANOTHER,
            (_, None) if self.was_provisioned() => reasons::VOLUME_MISSING,
            (_, None) => reasons::SIZE_OUT_OF_RANGE,
            (_, Some(there)) if there.tag == Tag::Absent => reasons::SIZE_OUT_OF_RANGE,
            _ if matches!(self.export, Export::Taken(_)) => reasons::EXPORT_PATH_TAKEN,
            (_, Some(there)) => {
                self.check_access();
                assert!(self.round.is_none(), "it was not verified");
                let requested = ensure::requested(&share.metadata);
                assert!(requested.is_none() || requested == status.last_handled_requested_at);
                assert!(
                    self.rules.iter().all(|r| !self.goes(r)),
                    "a rule is kept from going"
                );
                if says(conditions, types::READY) {
                    assert_eq!(there.size_bytes, Some(share.spec.size.bytes()));
                    let backend = self.usable_backend().unwrap();
                    let host = if self.is_nfs() {
                        &backend.nfs_endpoints[0]
                    } else {
                        &backend.monitors[0]
                    };
                    let path = &status.export_locations[0].path;
                    assert!(path.starts_with(host), "{path}");
                    let annotations = share.metadata.annotations.as_ref().unwrap();
                    assert_eq!(&annotations["shoal.storage/export-location"], path);
                    assert_eq!(status.observed_generation, share.metadata.generation);
                } else {
                    let reason = why_not_ready(conditions);
                    let refused = [
                        reasons::SHRINK_NOT_ALLOWED,
                        reasons::SHRINK_BELOW_USED,
                        reasons::SIZE_OUT_OF_RANGE,
                    ];
                    assert!(refused.contains(&reason.as_str()), "{status:?}");
                    assert!(says(conditions, types::STALLED));
                }
                return;
            }
        };
        assert_eq!(why_not_ready(conditions), expected);
        assert!(says(conditions, types::STALLED));
        assert!(self.all_told());
        assert!(
            matches!(self.export, Export::Ours { .. })
                || !self.is_nfs()
                || self.rules.iter().all(|r| !self.goes(r)),
            "a rule waits where nobody is let in"
        );
    }

    fn check_access(&self) {
        let in_force = self.rules_in_force();
        let wanted: BTreeSet<_> = in_force
            .iter()
            .map(|r| (self.client_of(r).unwrap().to_string(), r.spec.access_level))
            .collect();
        let given: BTreeSet<_> = self
            .access()
            .iter()
            .map(|g| (g.client.to_string(), g.level))
            .collect();
        assert_eq!(given, wanted, "exactly the clients of the rules");
        assert!(matches!(self.export, Export::Ours { intact: true, .. }) || !self.is_nfs());
        for rule in &self.rules {
            let status = rule.status.as_ref().unwrap();
            assert_eq!(status.observed_generation, rule.metadata.generation);
            let active = in_force.iter().any(|r| r.named() == rule.named());
            let phase = if active {
                AccessPhase::Active
            } else {
                AccessPhase::Error
            };
            assert_eq!(status.phase, Some(phase), "{rule:?}");
            assert!(rule.is_held());
            if active && !self.is_nfs() {
                let view = self.view(rule);
                assert_eq!(status.credentials_secret_ref, Some(view.secret()));
                let shown = self.secrets.get(&view.secret_name());
                let identity = match &view.custody {
                    None => match shown.unwrap() {
                        Stored::Ours { identity, .. } => identity,
                        Stored::Foreign => panic!("{rule:?}"),
                    },
                    Some(custody) => {
                        assert!(!matches!(shown, Some(Stored::Ours { .. })), "the key is shown");
                        let kept = &self.custody[&custody.lock.uid];
                        assert_eq!(kept.reader, custody.reader);
                        &kept.identity
                    }
                };
                assert_eq!(self.client_of(rule), Some(cephx(identity)));
            }
        }
        let hidden = self.rules.iter().filter_map(hidden_by);
        let hidden: BTreeSet<_> = hidden.map(|lock| lock.uid.clone()).collect();
        assert!(
            self.custody.keys().all(|lock| hidden.contains(lock)),
            "kept for nobody"
        );
        if !says(&self.status().conditions, types::READY) {
            return;
        }
        let access = status_access(&self.status());
        let sizes = (
            self.rules.len(),
            in_force.len(),
            self.rules.len() - in_force.len(),
        );
        assert_eq!(access, sizes);
    }

    fn all_told(&self) -> bool {
        self.rules.iter().all(|r| {
            r.status
                .as_ref()
                .is_some_and(|s| s.observed_generation == r.metadata.generation)
        })
    }

    fn check_gone(&self) {
        assert!(
            self.subvolume.is_none() || self.is_anothers() || !self.is_tagged(),
            "its volume is left behind"
        );
        assert!(self.rules.iter().all(|r| !r.is_leaving()));
    }

    fn is_tagged(&self) -> bool {
        self.subvolume.as_ref().is_some_and(|s| s.tag != Tag::Absent)
    }

    /// What is left of a share rests when its data is kept, or something is in the way, and says so.
    fn check_left(&self) {
        let status = self.deletion.as_ref().unwrap().status.clone().unwrap();
        let conditions = &status.conditions;
        match status.phase {
            Some(DeletionPhase::Retained) => {
                assert!(says(conditions, types::READY), "{status:?}");
                assert!(self.access().is_empty());
            }
            Some(DeletionPhase::Error) => {
                let in_the_way = self.usable().is_none() || self.snapshots || self.is_anothers();
                assert!(in_the_way, "{status:?}");
                assert!(!why_not_ready(conditions).is_empty());
            }
            phase => panic!("it rests in {phase:?}"),
        }
    }

    /// The backend as what is left may use it.
    fn usable(&self) -> Option<&Description> {
        let recorded = share_deletion::recorded(&self.deletion.as_ref()?.spec);
        let answering = self.backend.as_ref()?.as_ref().ok()?;
        (answering.identity == recorded).then_some(answering)
    }
}

fn hidden_by(rule: &ShareAccessRule) -> Option<&LockReference> {
    rule.status.as_ref()?.hidden_by.as_ref()
}

fn status_access(status: &ShareStatus) -> (usize, usize, usize) {
    let access = status.access.unwrap();
    let count = |n: i32| usize::try_from(n).unwrap();
    (count(access.total), count(access.applied), count(access.failed))
}

impl Essence {
    /// Says only where they differ.
    pub fn must_equal(&self, other: &Self, when: &str) {
        if self != other {
            let (one, two) = (format!("{self:#?}"), format!("{other:#?}"));
            let lines: BTreeSet<_> = two.lines().collect();
            let differing: Vec<_> = one.lines().filter(|line| !lines.contains(line)).collect();
            let lines: BTreeSet<_> = one.lines().collect();
            let instead: Vec<_> = two.lines().filter(|line| !lines.contains(line)).collect();
            panic!("{when}: {differing:#?} instead of {instead:#?}");
        }
    }
}

/// The world without times.
#[derive(Clone, Debug, PartialEq)]
pub struct Essence {
    pub share: Option<Share>,
    deletion: Option<Left>,
    rules: Vec<ShareAccessRule>,
    locks: Vec<ResourceLock>,
    secrets: BTreeMap<String, Stored>,
    custody: BTreeMap<String, Hidden>,
    subvolume: Option<Subvolume>,
    pub export: Export,
}

/// What a ShareDeletion says: whether it is being deleted, whether its data is kept for a while, its phase, whether access is
/// revoked, and why it is Ready or not.
type Left = (bool, bool, Option<DeletionPhase>, Option<bool>, (String, String));

/// Every key holds this.
pub const KEY: &str = "AQkey";

pub fn key_of(identity: &str) -> Key {
    Key::new(format!("{KEY}-{identity}"))
}
