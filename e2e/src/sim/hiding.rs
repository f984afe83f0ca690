//! What must be true of keys that Show locks hide.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use k8s_openapi::api::{
    core::v1::Secret,
    rbac::v1::{Role, RoleBinding},
};
use kube::ResourceExt;
use shoal_crds::{
    AccessPhase, LockAction, LockPhase, LockedKind, ResourceLock, ShareAccessRule,
    names::{cephx_secret, generated_identity},
};
use shoal_domain::{grant::Client, resource_lock};

use super::{
    api_server::{ApiServer, Call},
    replica::SYSTEM_NAMESPACE,
};
use crate::holdings::secret_text;

/// The kinds of which something is in custody.
const KEPT: [&str; 3] = ["secrets", "roles", "rolebindings"];

/// What has been seen of keys, and of the locks that hide them.
#[derive(Default)]
pub struct Keys {
    /// Every Show lock that there was, by uid: the namespace and name of its rule, and its owner.
    locks: BTreeMap<String, (String, String, String)>,
    /// The keys that were in a Secret of users' namespaces at some time.
    shown: BTreeSet<String>,
    /// What was put into custody by a replica that did not lead any more.
    late: BTreeSet<String>,
}

impl Keys {
    /// Looks at what a request has changed.
    pub fn note(&mut self, server: &ApiServer, call: &Call, leads: bool) -> Result<()> {
        if call.resource == "resourcelocks" {
            let is_new = |lock: &ResourceLock| lock.spec.action == LockAction::Show;
            for lock in server
                .typed::<ResourceLock>("resourcelocks")
                .into_iter()
                .filter(is_new)
            {
                let rule = lock.spec.resource_ref.name.clone();
                let of = (
                    lock.namespace().unwrap_or_default(),
                    rule,
                    lock.spec.owner.clone(),
                );
                self.locks.insert(lock.uid().unwrap_or_default(), of);
            }
        }
        let is_kept = KEPT.contains(&call.resource.as_str()) && call.namespace == SYSTEM_NAMESPACE;
        if is_kept && !leads {
            self.late.insert(call.name.clone());
        }
        if is_kept || call.resource == "secrets" {
            self.only_readers_read(server)?;
        }
        if matches!(call.resource.as_str(), "shareaccessrules" | "resourcelocks") {
            no_other_takes_its_place(server)?;
        }
        Ok(())
    }

    /// A key in custody never was in a users' namespace while its lock is there, and its role and binding are for its reader alone.
    fn only_readers_read(&mut self, server: &ApiServer) -> Result<()> {
        let locks: Vec<ResourceLock> = server.typed("resourcelocks");
        let secrets: Vec<Secret> = server.typed("secrets");
        let is_kept = |secret: &&Secret| secret.namespace().as_deref() == Some(SYSTEM_NAMESPACE);
        let key = |secret: &Secret| secret_text(secret, cephx_secret::USER_KEY);
        self.shown
            .extend(secrets.iter().filter(|secret| !is_kept(secret)).filter_map(key));
        let is_there = |name: &str| {
            locks
                .iter()
                .any(|lock| generated_identity(&lock.uid().unwrap_or_default()) == name)
        };
        for secret in secrets.iter().filter(is_kept) {
            let is_shown = key(secret).is_some_and(|key| self.shown.contains(&key));
            ensure!(
                !is_shown || !is_there(&secret.name_any()),
                "the key in {} was in a users' namespace",
                secret.name_any()
            );
        }
        for binding in server.typed::<RoleBinding>("rolebindings") {
            let reader = self
                .locks
                .iter()
                .find(|(uid, _)| generated_identity(uid) == binding.name_any())
                .map(|(_, (_, _, reader))| ("User".to_owned(), reader.clone()));
            let subjects = binding.subjects.clone().unwrap_or_default();
            let subjects: Vec<_> = subjects.into_iter().map(|s| (s.kind, s.name)).collect();
            ensure!(
                subjects == Vec::from_iter(reader) && binding.role_ref.name == binding.name_any(),
                "{binding:?}"
            );
        }
        for role in server.typed::<Role>("roles") {
            let rules = role.rules.clone().unwrap_or_default();
            let is_its = rules
                .iter()
                .all(|rule| rule.verbs == ["get"] && rule.resource_names == Some(vec![role.name_any()]));
            ensure!(is_its && rules.len() == 1, "{role:?}");
        }
        Ok(())
    }

    /// Whether a client may be one that was made for a rule, at some time.
    pub fn was_made_for(&self, rule: &ShareAccessRule, client: &Client) -> bool {
        let its = (rule.namespace().unwrap_or_default(), rule.name_any());
        let locks = self
            .locks
            .iter()
            .filter(|(_, (ns, name, _))| (ns, name) == (&its.0, &its.1));
        rule.spec.access_to.is_none()
            && locks
                .map(|(uid, _)| uid.clone())
                .chain(rule.uid())
                .any(|uid| *client == Client::CephX(generated_identity(&uid)))
    }

    /// What came into custody when its writer did not lead, or did not wait any more.
    pub fn late(&self, server: &ApiServer) -> BTreeSet<String> {
        let unanswered = server.log().into_iter().filter(|call| {
            KEPT.contains(&call.resource.as_str())
                && call.namespace == SYSTEM_NAMESPACE
                && call.stored
                && call.code == 0
        });
        self.late
            .iter()
            .cloned()
            .chain(unanswered.map(|call| call.name))
            .collect()
    }
}

/// While a lock that is enforced is there, no other hides its rule.
fn no_other_takes_its_place(server: &ApiServer) -> Result<()> {
    let rules: Vec<ShareAccessRule> = server.typed("shareaccessrules");
    for lock in server.typed::<ResourceLock>("resourcelocks") {
        let status = lock.status.clone().unwrap_or_default();
        let is_hidden = |rule: &&ShareAccessRule| {
            resource_lock::is_on(&lock, LockedKind::ShareAccessRule, &rule.metadata)
                && hidden_by(rule).is_some()
        };
        let enforced = lock.spec.action == LockAction::Show && status.phase == Some(LockPhase::Enforced);
        if enforced && let Some(rule) = rules.iter().find(is_hidden) {
            ensure!(
                hidden_by(rule) == lock.uid().as_deref(),
                "{} is enforced, and {:?} hides the rule",
                lock.name_any(),
                rule.status
            );
        }
    }
    Ok(())
}

fn hidden_by(rule: &ShareAccessRule) -> Option<&str> {
    Some(&rule.status.as_ref()?.hidden_by.as_ref()?.uid)
}

/// Whether a lock hides a rule's key, as the rule says.
fn is_hidden_by(rule: &ShareAccessRule, lock: &ResourceLock) -> bool {
    let secret = rule
        .status
        .as_ref()
        .and_then(|s| s.credentials_secret_ref.as_ref());
    hidden_by(rule) == lock.uid().as_deref() && secret.is_some_and(|secret| secret.namespace.is_some())
}

/// The phase that a Show lock has to be in.
pub fn phase(lock: &ResourceLock, rules: &[ShareAccessRule]) -> LockPhase {
    let on_it =
        |rule: &&ShareAccessRule| resource_lock::is_on(lock, LockedKind::ShareAccessRule, &rule.metadata);
    match rules.iter().find(on_it) {
        Some(rule) if is_hidden_by(rule, lock) => LockPhase::Enforced,
        _ => LockPhase::Pending,
    }
}

/// A rule in force whose key is not where its locks want it, if there is one.
pub fn unsettled(locks: &[ResourceLock], rules: &[ShareAccessRule]) -> Option<String> {
    let is_active =
        |rule: &&ShareAccessRule| rule.status.as_ref().and_then(|s| s.phase) == Some(AccessPhase::Active);
    rules
        .iter()
        .filter(is_active)
        .find(|rule| match resource_lock::hiding(rule, locks) {
            None => hidden_by(rule).is_some(),
            Some(lock) => !is_hidden_by(rule, lock),
        })
        .map(|rule| format!("the key of ShareAccessRule {rule:#?}"))
}
