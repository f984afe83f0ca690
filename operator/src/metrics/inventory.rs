//! What there is, as metrics: read off the caches for each answer, so nothing has to be kept in step, and what is gone is told no
//! more. A replica that stands by has no caches, and tells nothing.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, atomic::AtomicU64},
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::ResourceExt;
use prometheus_client::{
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};
use shoal_crds::{
    AccessPhase, DeletionPhase, Share, ShareAccessRule, ShareBackend, ShareDeletion, SharePhase, ShareQuota,
    condition::{reasons, types},
    names::FINALIZER,
};
use shoal_domain::{
    condition::is_true,
    ensure,
    placement::Candidate,
    share_deletion,
    share_quota::{Amount, Usage},
};

use crate::{caches::Guarded, context::Context, controllers};

/// What there is at one moment.
pub struct Inventory {
    now: Timestamp,
    backends: Vec<Backend>,
    shares: Vec<Arc<Guarded<Share>>>,
    rules: Vec<Arc<Guarded<ShareAccessRule>>>,
    deletions: Vec<Arc<Guarded<ShareDeletion>>>,
    quotas: Vec<(Arc<Guarded<ShareQuota>>, Usage)>,
    /// At work and waiting, by storage cluster.
    turns: HashMap<String, (usize, usize)>,
    /// Bytes used, by a share's uid, if single shares are told of.
    used: Option<HashMap<String, u64>>,
    /// Objects that can't be parsed, by kind.
    invalid: BTreeMap<&'static str, usize>,
}

/// A backend, as shares may rely on it.
struct Backend {
    object: Arc<Guarded<ShareBackend>>,
    candidate: Candidate,
    answered_at: Option<Timestamp>,
}

type Labels<const N: usize> = [(&'static str, String); N];

/// Gauges of one answer.
struct Gauges(Registry);

impl Gauges {
    /// Each set of labels with the sum of its values.
    fn sum<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<N>, f64)>,
    ) {
        self.add(name, help, samples, |gauge, value| {
            gauge.inc_by(value);
        });
    }

    /// Each set of labels with the highest of its values, all of which are positive.
    fn highest<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<N>, f64)>,
    ) {
        self.add(name, help, samples, |gauge, value| {
            gauge.set(gauge.get().max(value));
        });
    }

    fn add<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<N>, f64)>,
        add: impl Fn(&Gauge<f64, AtomicU64>, f64),
    ) {
        let family = Family::<Labels<N>, Gauge<f64, AtomicU64>>::default();
        for (labels, value) in samples {
            add(&family.get_or_create(&labels), value);
        }
        self.0.register(name, help, family);
    }
}

impl Inventory {
    /// What this replica knows. None before it leads and its caches are filled.
    pub fn of(ctx: &Context) -> Option<Self> {
        if !ctx.fence.is_leading() || ctx.working_since.get().is_none() {
            return None;
        }
        let caches = &ctx.caches;
        let candidates = {
            let loads = caches.ledger.lock().loads().clone();
            controllers::candidates(ctx, &loads, |_| true)
        };
        let backends: HashMap<_, _> = caches
            .backends
            .state()
            .into_iter()
            .map(|backend| (backend.name_any(), backend))
            .collect();
        let backends = candidates.into_iter().filter_map(|candidate| {
            let object = backends.get(&candidate.name)?.clone();
            let entry = ctx
                .backends
                .find(&candidate.name, &object.uid().unwrap_or_default());
            Some(Backend {
                object,
                candidate,
                answered_at: entry.ok().and_then(|entry| entry.backend.answered_at()),
            })
        });
        let quotas = caches.quotas.state().into_iter().map(|quota| {
            let namespace = quota.namespace().unwrap_or_default();
            let usage = caches.ledger.lock().usage(&namespace);
            (quota, usage)
        });
        macro_rules! invalid {
            ($($kind:ident: $store:ident),*) => {[$(
                (stringify!($kind), caches.$store.state().iter().filter(|object| object.0.is_err()).count())
            ),*]};
        }
        let invalid = invalid!(
            ShareBackend: backends, ShareType: types, ShareQuota: quotas, Share: shares, ShareAccessRule: rules,
            ShareDeletion: deletions, ResourceLock: locks
        );
        Some(Self {
            now: ctx.now(),
            backends: backends.collect(),
            shares: caches.shares.state(),
            rules: caches.rules.state(),
            deletions: caches.deletions.state(),
            quotas: quotas.collect(),
            turns: ctx.turns.count(),
            used: ctx.tells_each_share.then(|| ctx.looks.used()),
            invalid: invalid.into(),
        })
    }

    pub(super) fn registry(&self) -> Registry {
        let mut gauges = Gauges(Registry::with_prefix("shoal"));
        self.tell_backends(&mut gauges);
        self.tell_orphans(&mut gauges);
        self.tell_turns(&mut gauges);
        self.tell_shares(&mut gauges);
        self.tell_each_share(&mut gauges);
        self.tell_rules(&mut gauges);
        self.tell_deletions(&mut gauges);
        self.tell_quotas(&mut gauges);
        let invalid = self.invalid.iter();
        gauges.sum(
            "invalid_objects",
            "Objects that can't be parsed, and are left alone",
            invalid.map(|(kind, found)| ([("kind", (*kind).to_owned())], float(*found))),
        );
        gauges.0
    }

    fn tell_backends(&self, gauges: &mut Gauges) {
        let each = |value: fn(&Backend) -> Option<f64>| {
            self.backends
                .iter()
                .filter_map(move |backend| Some((backend.label(), value(backend)?)))
        };
        gauges.sum(
            "backend_ready",
            "1 if shares may use the backend, and why not, if not",
            self.backends.iter().map(|backend| {
                let state = &backend.candidate.state;
                let reason = state.as_ref().err().map_or(reasons::AVAILABLE, |why| why.reason);
                let [name] = backend.label();
                (
                    [name, ("reason", reason.to_owned())],
                    f64::from(u8::from(state.is_ok())),
                )
            }),
        );
        gauges.sum(
            "backend_last_answer_timestamp_seconds",
            "When the storage answered last",
            each(|backend| {
                Some(seconds(
                    backend.answered_at?.duration_since(Timestamp::UNIX_EPOCH),
                ))
            }),
        );
        gauges.sum(
            "backend_size_bytes",
            "Room in all, as the storage says",
            each(|backend| backend.candidate.state.as_ref().ok()?.total_bytes.map(bytes)),
        );
        gauges.sum(
            "backend_free_bytes",
            "Room that is free, as the storage says",
            each(|backend| backend.candidate.state.as_ref().ok()?.free_bytes.map(bytes)),
        );
        gauges.sum(
            "backend_provisioned_bytes",
            "Room that shares, and what is left of deleted ones, were promised",
            each(|backend| Some(bytes(backend.candidate.load.promised_bytes))),
        );
        gauges.sum(
            "backend_exports",
            "Exports on the backend's NFS cluster",
            each(|backend| Some(bytes(backend.candidate.load.exports))),
        );
        gauges.sum(
            "backend_exports_limit",
            "How many there may be, where that is limited",
            each(|backend| backend.candidate.max_exports.map(bytes)),
        );
        let rounds = self.backends.iter().filter_map(|backend| {
            let status = backend.object.0.as_ref().ok()?.status.as_ref()?;
            Some((backend, status, status.ensure.as_ref()?))
        });
        gauges.sum(
            "backend_ensuring_seconds",
            "How long the round goes on that verifies the backend's shares; 0 if none does",
            rounds.clone().map(|(backend, status, _)| {
                let since = ensure::under_way(status).map(|round| round.started_at.0);
                (backend.label(), since.map_or(0.0, |since| self.age(since)))
            }),
        );
        gauges.sum(
            "backend_ensure_failed_shares",
            "Shares that the round, or the last one, could not verify or mend",
            rounds.map(|(backend, _, round)| {
                (backend.label(), bytes(u64::try_from(round.failed).unwrap_or(0)))
            }),
        );
    }

    fn tell_orphans(&self, gauges: &mut Gauges) {
        let found = self.backends.iter().filter_map(|backend| {
            let status = backend.object.0.as_ref().ok()?.status.as_ref()?;
            Some((backend.label(), status.orphans.as_ref()?))
        });
        gauges.sum(
            "orphans",
            "Subvolumes and exports on the backend that no object owns",
            found.flat_map(|([backend], found)| {
                [("subvolume", found.subvolumes), ("export", found.exports)].map(|(what, count)| {
                    let labels = [backend.clone(), ("what", what.to_owned())];
                    (labels, bytes(u64::try_from(count).unwrap_or(0)))
                })
            }),
        );
    }

    fn tell_turns(&self, gauges: &mut Gauges) {
        let known = self.backends.iter().filter_map(|backend| {
            let identity = &backend.candidate.state.as_ref().ok()?.identity;
            Some(identity.fsid.clone())
        });
        let known: BTreeSet<_> = known.chain(self.turns.keys().cloned()).collect();
        let each = |value: fn((usize, usize)) -> usize| {
            known.iter().map(move |fsid| {
                let turns = self.turns.get(fsid).copied().unwrap_or_default();
                ([("fsid", fsid.clone())], float(value(turns)))
            })
        };
        gauges.sum(
            "storage_turns_taken",
            "Passes that are at work on the storage cluster",
            each(|(taken, _)| taken),
        );
        gauges.sum(
            "storage_turns_waiting",
            "Passes that wait until they may be",
            each(|(_, waiting)| waiting),
        );
    }

    fn tell_shares(&self, gauges: &mut Gauges) {
        let shares = self.shares.iter().filter_map(|guard| guard.0.as_ref().ok());
        gauges.sum(
            "shares",
            "Shares; without a backend: not placed yet",
            shares.clone().map(|share| {
                let status = share.status.as_ref();
                let phase = status
                    .and_then(|status| status.phase)
                    .unwrap_or(SharePhase::Pending);
                let named = |name: Option<&String>| name.cloned().unwrap_or_default();
                let labels = [
                    ("backend", named(status.and_then(|s| s.backend_name.as_ref()))),
                    (
                        "share_type",
                        named(status.and_then(|s| s.share_type_name.as_ref())),
                    ),
                    ("phase", format!("{phase:?}")),
                ];
                (labels, 1.0)
            }),
        );
        let labels = |share: &Share, reason: &str| {
            let backend = share
                .status
                .as_ref()
                .and_then(|status| status.backend_name.clone());
            [
                ("backend", backend.unwrap_or_default()),
                ("reason", reason.to_owned()),
            ]
        };
        let worked_on = shares.clone().filter(|share| !is_paused(share));
        let not_ready = worked_on.filter_map(|share| {
            let (reason, age) = self.not_ready(&share.metadata, conditions_of(share))?;
            Some((labels(share, reason), age))
        });
        let stalled = shares.clone().filter_map(|share| {
            let why = said(conditions_of(share), types::STALLED).filter(|said| said.status == "True")?;
            Some((labels(share, &why.reason), 1.0))
        });
        gauges.sum(
            "shares_not_ready",
            "Shares that are not Ready, and why",
            not_ready.clone().map(|(labels, _)| (labels, 1.0)),
        );
        gauges.highest(
            "shares_not_ready_oldest_seconds",
            "How long the one of them has not been Ready that waits longest",
            not_ready,
        );
        gauges.sum(
            "shares_stalled",
            "Shares for which only a change of their spec, or of the world by hand, helps",
            stalled,
        );
    }

    fn tell_each_share(&self, gauges: &mut Gauges) {
        let Some(used) = &self.used else { return };
        let labels = |share: &Share| {
            [
                ("namespace", share.namespace().unwrap_or_default()),
                ("share", share.name_any()),
                (
                    "backend",
                    share
                        .status
                        .as_ref()
                        .and_then(|s| s.backend_name.clone())
                        .unwrap_or_default(),
                ),
            ]
        };
        let shares = self.shares.iter().filter_map(|guard| guard.0.as_ref().ok());
        gauges.sum(
            "share_size_bytes",
            "The share's quota in force",
            shares
                .clone()
                .filter_map(|share| Some((labels(share), bytes(share.status.as_ref()?.size?.bytes())))),
        );
        gauges.sum(
            "share_used_bytes",
            "What of it is used, as of the last look at the storage",
            shares.filter_map(|share| Some((labels(share), bytes(*used.get(&share.uid()?)?)))),
        );
    }

    fn tell_rules(&self, gauges: &mut Gauges) {
        let rules = self.rules.iter().filter_map(|guard| guard.0.as_ref().ok());
        gauges.sum(
            "access_rules",
            "Access rules",
            rules.clone().map(|rule| {
                let phase = rule.status.as_ref().and_then(|status| status.phase);
                let phase = phase.unwrap_or(AccessPhase::QueuedToApply);
                ([("phase", format!("{phase:?}"))], 1.0)
            }),
        );
        let shares = self.shares.iter().filter_map(|guard| guard.0.as_ref().ok());
        let shares: HashMap<_, _> = shares
            .map(|share| ((share.namespace(), share.name_any()), share))
            .collect();
        let staying = rules.clone().filter(|rule| leaving_since(rule).is_none());
        let waiting = staying.filter_map(|rule| {
            let (reason, age) = self.not_ready(&rule.metadata, rule_conditions_of(rule))?;
            let share = shares.get(&(rule.namespace(), rule.spec.share_ref.name.clone()));
            if share.is_some_and(|share| is_paused(share)) {
                return None;
            }
            let backend = share.and_then(|share| share.status.as_ref()?.backend_name.clone());
            let labels = [
                ("backend", backend.unwrap_or_default()),
                ("reason", reason.to_owned()),
            ];
            Some((labels, age))
        });
        gauges.sum(
            "access_rules_not_ready",
            "Access rules that are not in force as they say, and why; without a backend: their share is not placed yet, or not there",
            waiting.clone().map(|(labels, _)| (labels, 1.0)),
        );
        gauges.highest(
            "access_rules_not_ready_oldest_seconds",
            "How long the one of them has not been Ready that waits longest",
            waiting,
        );
        let leaving = rules.filter_map(|rule| {
            // Who else holds it lets nobody in.
            rule.finalizers().iter().find(|held_by| *held_by == FINALIZER)?;
            Some(self.age(leaving_since(rule)?))
        });
        let oldest = Gauge::<f64, AtomicU64>::default();
        oldest.set(leaving.fold(0.0, f64::max));
        gauges.0.register(
            "access_rules_denying_oldest_seconds",
            "How long the deleted rule that waits longest has not been taken away, but for those that are locked",
            oldest,
        );
    }

    fn tell_deletions(&self, gauges: &mut Gauges) {
        let deletions = self.deletions.iter().filter_map(|guard| guard.0.as_ref().ok());
        let phase =
            |deletion: &ShareDeletion| share_deletion::phase(deletion).unwrap_or(DeletionPhase::Accepted);
        let label = |deletion: &ShareDeletion| [("backend", deletion.spec.backend_name.clone())];
        let none = || self.backends.iter().map(|backend| (backend.label(), 0.0));
        gauges.sum(
            "share_deletions",
            "What is left of deleted shares",
            deletions.clone().map(|deletion| {
                let [backend] = label(deletion);
                ([backend, ("phase", phase(deletion).as_str().to_owned())], 1.0)
            }),
        );
        let with_access = deletions
            .clone()
            .filter(|deletion| share_deletion::may_have_access(deletion));
        gauges.sum(
            "share_deletions_with_access",
            "Deleted shares of which clients may still be let in",
            none().chain(with_access.clone().map(|deletion| (label(deletion), 1.0))),
        );
        gauges.highest(
            "share_deletions_with_access_oldest_seconds",
            "How long ago the one of them was deleted that waits longest, but for those that were given up",
            none().chain(with_access.filter_map(|deletion| {
                let since = share_deletion::accessible_since(deletion)?;
                Some((label(deletion), self.age(since)))
            })),
        );
        let worked_on = deletions.filter(|deletion| !phase(deletion).is_adoptable());
        gauges.highest(
            "share_deletion_oldest_seconds",
            "Age of the oldest deletion that is being worked on",
            none().chain(worked_on.filter_map(|deletion| {
                Some((label(deletion), self.age(share_deletion::due_since(deletion)?)))
            })),
        );
    }

    fn tell_quotas(&self, gauges: &mut Gauges) {
        let limits: Vec<_> = self
            .quotas
            .iter()
            .filter_map(|(guard, usage)| Some((guard.0.as_ref().ok()?, usage)))
            .flat_map(|(quota, usage)| {
                let label = |share_type: &str| {
                    [
                        ("namespace", quota.namespace().unwrap_or_default()),
                        ("quota", quota.name_any()),
                        ("share_type", share_type.to_owned()),
                    ]
                };
                let of_all = (label(""), quota.spec.hard, usage.total);
                let of_types = quota.spec.per_share_type.iter().map(move |limits| {
                    let used = usage.by_type.get(&limits.share_type_name);
                    let used: Amount = used.copied().unwrap_or_default();
                    (label(&limits.share_type_name), limits.hard, used)
                });
                std::iter::once(of_all).chain(of_types).collect::<Vec<_>>()
            })
            .collect();
        let (shares, capacity) = (
            limits
                .iter()
                .filter_map(|(labels, hard, used)| Some((labels, hard.shares?, used.shares))),
            limits
                .iter()
                .filter_map(|(labels, hard, used)| Some((labels, hard.capacity?.bytes(), used.bytes))),
        );
        gauges.sum(
            "quota_shares_used",
            "Shares that a ShareQuota is charged, of one type if it names one",
            shares
                .clone()
                .map(|(labels, _, used)| (labels.clone(), bytes(used))),
        );
        gauges.sum(
            "quota_shares_hard",
            "How many it lets be",
            shares.map(|(labels, hard, _)| (labels.clone(), bytes(u64::try_from(hard).unwrap_or(0)))),
        );
        gauges.sum(
            "quota_capacity_used_bytes",
            "Room that a ShareQuota is charged, of shares of one type if it names one",
            capacity
                .clone()
                .map(|(labels, _, used)| (labels.clone(), bytes(used))),
        );
        gauges.sum(
            "quota_capacity_hard_bytes",
            "How much it lets be",
            capacity.map(|(labels, hard, _)| (labels.clone(), bytes(hard))),
        );
    }

    /// Why an object is not Ready, if so, and for how long. One that says nothing yet has not been since it was made.
    fn not_ready<'a>(&self, meta: &ObjectMeta, conditions: &'a [Condition]) -> Option<(&'a str, f64)> {
        match said(conditions, types::READY) {
            Some(ready) if ready.status == "True" => None,
            Some(ready) => Some((&ready.reason, self.age(ready.last_transition_time.0))),
            None => {
                let made = meta.creation_timestamp.as_ref();
                Some(("", made.map_or(0.0, |made| self.age(made.0))))
            }
        }
    }

    fn age(&self, since: Timestamp) -> f64 {
        seconds(self.now.duration_since(since)).max(0.0)
    }
}

impl Backend {
    fn label(&self) -> Labels<1> {
        [("backend", self.candidate.name.clone())]
    }
}

fn conditions_of(share: &Share) -> &[Condition] {
    share.status.as_ref().map_or(&[], |status| &status.conditions)
}

fn is_paused(share: &Share) -> bool {
    is_true(conditions_of(share), types::PAUSED)
}

fn rule_conditions_of(rule: &ShareAccessRule) -> &[Condition] {
    rule.status.as_ref().map_or(&[], |status| &status.conditions)
}

/// Since when a rule is to go. One that is locked is kept as any other.
fn leaving_since(rule: &ShareAccessRule) -> Option<Timestamp> {
    let blocked = said(rule_conditions_of(rule), types::DELETION_BLOCKED);
    let is_locked = blocked.is_some_and(|said| said.reason == reasons::LOCKED);
    let since = rule.metadata.deletion_timestamp.as_ref()?;
    (!is_locked).then_some(since.0)
}

fn said<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

fn seconds(duration: jiff::SignedDuration) -> f64 {
    duration.as_secs_f64()
}

fn float(count: usize) -> f64 {
    bytes(count as u64)
}

/// As exact as a metric can be.
#[expect(clippy::cast_precision_loss, reason = "Prometheus knows no other numbers")]
fn bytes(number: impl Into<u128>) -> f64 {
    number.into() as f64
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use kube::core::DeserializeGuard;
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};
    use shoal_domain::{
        Class, Scope,
        identity::{Description, Identity, NfsExports},
        ledger::Ledger,
        share_backend,
    };

    use super::*;

    const NOW: &str = "2026-11-29T12:00:00Z";

    fn object<K: DeserializeOwned>(value: &Value) -> Arc<Guarded<K>> {
        Arc::new(DeserializeGuard(Ok(
            serde_json::from_value(value.clone()).unwrap()
        )))
    }

    fn condition(type_: &str, status: &str, reason: &str, since: &str) -> Value {
        json!({"type": type_, "status": status, "reason": reason, "message": "", "lastTransitionTime": since})
    }

    fn share(name: &str, phase: &str, conditions: &[Value]) -> Arc<Guarded<Share>> {
        object(&json!({
            "apiVersion": "shoal.storage/v1alpha1", "kind": "Share",
            "metadata": {"namespace": "team", "name": name, "uid": name},
            "spec": {"protocol": "NFS", "size": "1Gi"},
            "status": {
                "phase": phase, "conditions": conditions, "backendName": "cephfs", "shareTypeName": "standard", "size": "1Gi",
                "quota": {"charged": "1Gi"},
            },
        }))
    }

    fn rule(
        name: &str,
        metadata: &Value,
        phase: &str,
        conditions: &[Value],
    ) -> Arc<Guarded<ShareAccessRule>> {
        let mut meta = json!({"namespace": "team", "name": name, "finalizers": [FINALIZER]});
        meta.as_object_mut()
            .unwrap()
            .extend(metadata.as_object().cloned().unwrap_or_default());
        object(&json!({
            "apiVersion": "shoal.storage/v1alpha1", "kind": "ShareAccessRule", "metadata": meta,
            "spec": {"shareRef": {"name": "a"}, "accessType": "IP", "accessTo": "10.0.0.1", "accessLevel": "ReadOnly"},
            "status": {"phase": phase, "conditions": conditions},
        }))
    }

    /// One of everything that metrics tell of.
    pub(in crate::metrics) fn example() -> Inventory {
        let backend: Arc<Guarded<ShareBackend>> = object(&json!({
            "apiVersion": "shoal.storage/v1alpha1", "kind": "ShareBackend", "metadata": {"name": "cephfs", "uid": "b"},
            "spec": {"ceph": {
                "connectionSecretRef": {"namespace": "s", "name": "s"}, "filesystem": "cephfs",
                "nfs": {"clusterID": "nfs", "maxExports": 100},
            }},
            "status": {
                "ceph": {"fsid": "f", "fsName": "cephfs", "fsID": 1, "version": "20", "monitors": []},
                "ensure": {"startedAt": "2026-11-29T11:59:00Z", "failed": 2},
                "orphans": {"subvolumes": 3, "exports": 1},
            },
        }));
        let description = Description {
            identity: Identity {
                fsid: "f".into(),
                fs_name: "cephfs".into(),
                fs_id: 1,
            },
            version: "20".into(),
            monitors: Vec::new(),
            nfs_endpoints: Vec::new(),
            group: "shoal".into(),
            nfs_cluster_id: Some("nfs".into()),
            nfs_exports: NfsExports::default(),
            protocols: Vec::new(),
            total_bytes: Some(1 << 40),
            free_bytes: Some(1 << 39),
            own_identity: None,
        };
        let shares = vec![
            share("a", "Available", &[condition("Ready", "True", "Available", NOW)]),
            share(
                "b",
                "Error",
                &[
                    condition("Ready", "False", "VolumeMissing", "2026-11-29T11:00:00Z"),
                    condition("Stalled", "True", "VolumeMissing", "2026-11-29T11:00:00Z"),
                ],
            ),
            share(
                "c",
                "Error",
                &[condition(
                    "Ready",
                    "False",
                    "VolumeMissing",
                    "2026-11-29T11:30:00Z",
                )],
            ),
        ];
        let mut ledger = Ledger::default();
        for guard in &shares {
            ledger.note(guard.0.as_ref().unwrap());
        }
        let parsed = backend.0.clone().unwrap();
        let all = std::slice::from_ref(&parsed);
        let deleted = json!({"deletionTimestamp": "2026-11-29T11:50:00Z"});
        Inventory {
            now: NOW.parse().unwrap(),
            backends: vec![Backend {
                candidate: share_backend::candidate(&parsed, Ok(description), all, ledger.loads()),
                object: backend,
                answered_at: Some("2026-11-29T11:59:50Z".parse().unwrap()),
            }],
            shares,
            rules: vec![
                rule(
                    "x",
                    &json!({}),
                    "Active",
                    &[condition("Ready", "True", "Active", NOW)],
                ),
                rule("y", &deleted, "Denying", &[]),
                rule(
                    "z",
                    &json!({"deletionTimestamp": "2026-11-29T10:00:00Z"}),
                    "Active",
                    &[condition("DeletionBlocked", "True", "Locked", NOW)],
                ),
                rule(
                    "w",
                    &json!({"creationTimestamp": "2026-11-29T11:40:00Z"}),
                    "QueuedToApply",
                    &[condition(
                        "Ready",
                        "False",
                        "ShareNotReady",
                        "2026-11-29T11:45:00Z",
                    )],
                ),
            ],
            deletions: vec![object(&json!({
                "apiVersion": "shoal.storage/v1alpha1", "kind": "ShareDeletion",
                "metadata": {"name": "shoal-d", "creationTimestamp": "2026-11-29T11:58:00Z"},
                "spec": {
                    "shareRef": {"namespace": "team", "namespaceUID": "n", "namespaceUid": "n", "name": "d", "uid": "d"},
                    "protocol": "NFS", "size": "1Gi", "backendName": "cephfs", "fsid": "f", "fsName": "cephfs", "fsID": 1,
                    "deletionPolicy": "Delete",
                },
                "status": {"phase": "Error"},
            }))],
            quotas: vec![(
                object(&json!({
                    "apiVersion": "shoal.storage/v1alpha1", "kind": "ShareQuota",
                    "metadata": {"namespace": "team", "name": "team"},
                    "spec": {
                        "hard": {"shares": 4, "capacity": "10Gi"},
                        "perShareType": [{"shareTypeName": "fast", "hard": {"shares": 0}}],
                    },
                })),
                ledger.usage("team"),
            )],
            turns: [("f".to_owned(), (2, 3))].into(),
            used: Some([("a".to_owned(), 512)].into()),
            invalid: [("Share", 1)].into(),
        }
    }

    #[test]
    fn it_tells_what_there_is() {
        let text = super::super::Metrics::default().text(true, Some(&example()));
        for line in [
            "shoal_leader 1.0",
            r#"shoal_backend_ready{backend="cephfs",reason="Available"} 1.0"#,
            r#"shoal_backend_last_answer_timestamp_seconds{backend="cephfs"} 1795953590.0"#,
            r#"shoal_backend_free_bytes{backend="cephfs"} 549755813888.0"#,
            r#"shoal_backend_provisioned_bytes{backend="cephfs"} 3221225472.0"#,
            r#"shoal_backend_exports{backend="cephfs"} 3.0"#,
            r#"shoal_backend_exports_limit{backend="cephfs"} 100.0"#,
            r#"shoal_backend_ensuring_seconds{backend="cephfs"} 60.0"#,
            r#"shoal_backend_ensure_failed_shares{backend="cephfs"} 2.0"#,
            r#"shoal_storage_turns_waiting{fsid="f"} 3.0"#,
            r#"shoal_shares{backend="cephfs",share_type="standard",phase="Error"} 2.0"#,
            r#"shoal_shares_not_ready{backend="cephfs",reason="VolumeMissing"} 2.0"#,
            r#"shoal_shares_not_ready_oldest_seconds{backend="cephfs",reason="VolumeMissing"} 3600.0"#,
            r#"shoal_shares_stalled{backend="cephfs",reason="VolumeMissing"} 1.0"#,
            r#"shoal_share_used_bytes{namespace="team",share="a",backend="cephfs"} 512.0"#,
            r#"shoal_access_rules{phase="Active"} 2.0"#,
            r#"shoal_access_rules_not_ready{backend="cephfs",reason=""} 1.0"#,
            r#"shoal_access_rules_not_ready{backend="cephfs",reason="ShareNotReady"} 1.0"#,
            r#"shoal_access_rules_not_ready_oldest_seconds{backend="cephfs",reason="ShareNotReady"} 900.0"#,
            "shoal_access_rules_denying_oldest_seconds 600.0",
            r#"shoal_share_deletions{backend="cephfs",phase="Error"} 1.0"#,
            r#"shoal_share_deletions_with_access{backend="cephfs"} 1.0"#,
            r#"shoal_share_deletions_with_access_oldest_seconds{backend="cephfs"} 120.0"#,
            r#"shoal_share_deletion_oldest_seconds{backend="cephfs"} 120.0"#,
            r#"shoal_quota_shares_used{namespace="team",quota="team",share_type=""} 3.0"#,
            r#"shoal_quota_shares_hard{namespace="team",quota="team",share_type="fast"} 0.0"#,
            r#"shoal_quota_capacity_hard_bytes{namespace="team",quota="team",share_type=""} 10737418240.0"#,
            r#"shoal_invalid_objects{kind="Share"} 1.0"#,
            r#"shoal_orphans{backend="cephfs",what="subvolume"} 3.0"#,
        ] {
            assert!(text.lines().any(|told| told == line), "no {line} in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn a_backend_that_is_not_ready_says_why() {
        let mut there = example();
        there.backends[0].candidate.state = Err(shoal_domain::Failure {
            class: Class::Transient,
            scope: Scope::Backend,
            reason: reasons::BACKEND_UNREACHABLE,
            message: String::new(),
        });
        let text = super::super::Metrics::default().text(true, Some(&there));
        assert!(text.contains(r#"shoal_backend_ready{backend="cephfs",reason="BackendUnreachable"} 0.0"#));
        assert!(
            !text.contains("shoal_backend_free_bytes{"),
            "what it said before is not told as news"
        );
    }

    #[test]
    fn rules_wait_where_their_share_is_and_not_while_it_is_paused() {
        let mut there = example();
        there.shares[0] = share("a", "Available", &[condition("Paused", "True", "Paused", NOW)]);
        let text = super::super::Metrics::default().text(true, Some(&there));
        assert!(!text.contains("shoal_access_rules_not_ready{"), "{text}");
        there.shares.clear();
        let text = super::super::Metrics::default().text(true, Some(&there));
        assert!(
            text.contains(r#"shoal_access_rules_not_ready{backend="",reason="ShareNotReady"} 1.0"#),
            "{text}"
        );
    }

    #[test]
    fn who_stands_by_tells_nothing_of_objects_and_single_shares_are_told_if_asked() {
        let alone = super::super::Metrics::default().text(false, None);
        assert!(alone.contains("shoal_leader 0.0\n") && !alone.contains("shoal_shares"));
        let discreet = Inventory {
            used: None,
            ..example()
        };
        let text = super::super::Metrics::default().text(true, Some(&discreet));
        assert!(!text.contains("shoal_share_size_bytes"), "{text}");
    }
}
