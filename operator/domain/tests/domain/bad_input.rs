//! Whatever comes from outside is refused or understood: it never makes a decision panic, and never makes it say more than
//! the API server takes.

use std::{collections::HashMap, time::Duration};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use proptest::{collection::vec, option, prelude::*, sample::select};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use shoal_crds::{
    AccessType, AdoptingShareReference, DeletionPhase, LockedKind, Protocol, ResourceLock, Share,
    ShareAccessRule, ShareBackend, ShareDeletion, ShareDeletionStatus, ShareQuota, ShareStatus, ShareType,
    Size, Squash, condition::reasons,
};
use shoal_domain::{
    Class, Scope, backoff, export_location,
    grant::Client,
    identity::Description,
    lease,
    owner::{Owner, Tag},
    resource_lock, share,
    share_access_rule::{self as rules, Credentials, RuleView, Terms},
    share_backend,
    share_deletion::{self, Whereabouts},
    share_quota::{self, Amount, Asked, Usage},
    share_type,
    volume::{Export, Sight, Volume},
};

use crate::{
    convergence::config,
    fixtures::{self, *},
    noise::{altered, json, like},
    world::World,
};

/// A share as a user writes it.
const SHARE: &str = r#"{"metadata":{"name":"a"},"spec":{"protocol":"NFS","size":"1Gi"}}"#;

/// The longest message that the API server takes in a condition.
const LONGEST_MESSAGE: usize = 32_768;

fn sample<K: Serialize>(object: &K) -> Value {
    serde_json::to_value(object).unwrap()
}

/// An object like this one that parses.
fn parsed<K: DeserializeOwned + std::fmt::Debug>(like: Value) -> impl Strategy<Value = K> {
    altered(like, 12, |value| K::deserialize(value).is_ok()).prop_map(|value| K::deserialize(value).unwrap())
}

/// A share and its rules as the operator leaves them, with everything in their status.
fn settled(protocol: Protocol) -> World {
    let mut share = share("a");
    share.spec.protocol = protocol;
    let rule = match protocol {
        Protocol::NFS => rule("r", "10.0.0.1"),
        Protocol::CephFS => cephx_rule("r", Some("alice")),
    };
    World::settled(share, [rule])
}

fn protocol() -> impl Strategy<Value = Protocol> {
    select(vec![Protocol::NFS, Protocol::CephFS])
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[0-9a-f:./]{0,48}",
        "[0-9]{1,3}(\\.[0-9]{1,3}){3}(/[0-9]{1,3})?",
        "[0-9]{1,24}([kMGTP]i?)?",
        "[A-Za-z0-9_@+=:.-]{0,160}",
    ]
}

fn description() -> impl Strategy<Value = Description> {
    let names = || vec(text(), 0..40);
    (
        names(),
        names(),
        any::<Option<u64>>(),
        any::<Option<u64>>(),
        text(),
        option::of(text()),
    )
        .prop_map(
            |(monitors, nfs_endpoints, total_bytes, free_bytes, version, own_identity)| Description {
                nfs_cluster_id: nfs_endpoints.first().cloned(),
                version,
                monitors,
                nfs_endpoints,
                total_bytes,
                free_bytes,
                own_identity,
                ..backend_description()
            },
        )
}

proptest! {
    #![proptest_config(config(1000))]

    #[test]
    fn a_size_is_whole_bytes_within_bounds_or_none(text in text()) {
        let parsed = text.parse::<Size>();
        let from_json = serde_json::from_value::<Size>(Value::String(text.clone())).ok();
        prop_assert_eq!(parsed.clone().ok(), from_json);
        match parsed {
            Ok(size) => {
                prop_assert!((1..=Size::MAX.bytes()).contains(&size.bytes()));
                prop_assert_eq!(size.to_string().parse(), Ok(size));
            }
            // It echoes what was written, and not all of it.
            Err(error) => prop_assert!(error.to_string().chars().count() < 256),
        }
    }

    #[test]
    fn a_size_from_any_json_is_within_bounds(value in json()) {
        if let Ok(size) = serde_json::from_value::<Size>(value) {
            prop_assert!((1..=Size::MAX.bytes()).contains(&size.bytes()));
        }
    }

    #[test]
    fn a_client_prints_as_it_is_read(text in text()) {
        for access_type in [AccessType::IP, AccessType::CephX] {
            if let Ok(client) = Client::parse(access_type, &text) {
                prop_assert_eq!(client.access_type(), access_type);
                prop_assert_eq!(Client::parse(access_type, &client.to_string()), Ok(client));
            }
        }
    }

    #[test]
    fn an_owner_tag_is_read_or_not(text in like(&[
        br#"{"cluster":"c","namespace":"team","name":"a","uid":"uid-a"}"#,
        br#"{"cluster":"c","namespace":"team","name":"a","uid":"uid-a","left":"Retained"}"#,
    ])) {
        if let Ok(owner) = serde_json::from_slice::<Owner>(&text) {
            prop_assert_eq!(serde_json::from_str::<Owner>(&owner.to_tag()).unwrap(), owner);
        }
    }

    #[test]
    fn waits_are_bounded(attempts in any::<u32>(), uid in any::<String>(), round in any::<u32>(), wait in 0..86_400_u64) {
        prop_assert!(backoff::after(attempts, &uid) <= Duration::from_secs(375));
        prop_assert!(backoff::spread(Duration::from_secs(wait), &uid, round) <= Duration::from_secs(wait * 5 / 4 + 1));
    }

    #[test]
    fn a_lease_of_any_length_is_understood(
        holder in any::<String>(), me in any::<String>(), times in any::<[u64; 3]>(), nanos in 0..1_000_000_000_u32,
    ) {
        let [unchanged_for, duration, effect] = times.map(|seconds| Duration::new(seconds, nanos));
        let held = lease::Held { holder: holder.clone(), duration, unchanged_for };
        let next = lease::evaluate(&me, Some(&held));
        prop_assert!(next != lease::Move::Take || holder.is_empty() || unchanged_for >= duration);
        // A lease that is over covers nothing, and one that covers an effect outlives it.
        let covers = lease::covers(unchanged_for, duration, effect);
        prop_assert!(!covers || (unchanged_for < duration && effect < duration));
    }

    #[test]
    fn locations_of_any_address_have_an_id_each(backend in description(), protocol in protocol(), path in text()) {
        let locations = export_location::locations(&backend, protocol, &path, Some(&path));
        let ids: std::collections::HashSet<_> = locations.iter().map(|l| &l.id).collect();
        prop_assert_eq!(ids.len(), locations.len());
        prop_assert!(ids.iter().all(|id| id.len() <= 64));
        prop_assert_eq!(export_location::revision(&locations).is_some(), !locations.is_empty());
        prop_assert_eq!(export_location::mirror(&locations).is_empty(), locations.is_empty());
    }
}

proptest! {
    #![proptest_config(config(400))]

    #[test]
    fn each_rule_gets_a_verdict_whatever_it_says(
        protocol in protocol(),
        values in vec((text(), option::of(text()), option::of(any::<i64>())), 0..12),
        own_identity in option::of(text()),
    ) {
        let views: Vec<_> = values
            .into_iter()
            .enumerate()
            .map(|(i, (access_to, secret, generation))| {
                let name = format!("r{i}");
                let mut rule = if i % 2 == 0 { rule(&name, &access_to) } else { cephx_rule(&name, Some(&access_to)) };
                rule.metadata.generation = generation;
                if secret.is_some() {
                    rule = rule.named_in("secret");
                }
                RuleView { secret_value: secret.map(Ok), credentials: Credentials::Missing, ..RuleView::unread(rule) }
            })
            .collect();
        let refused = HashMap::new();
        let terms = Terms { protocol, squash: Squash::None, own_identity: own_identity.as_deref(), refused: &refused };
        let plan = rules::plan(terms, &views);
        prop_assert_eq!(plan.verdicts.len(), views.len());
        prop_assert!(plan.access.len() <= views.len());
        let clients: std::collections::HashSet<_> = plan.access.iter().map(|grant| &grant.client).collect();
        prop_assert_eq!(clients.len(), plan.access.len(), "a client stands there once");
        for report in rules::reports("uid-a", &views, &plan, &std::collections::BTreeMap::new(), now()) {
            check_messages(&report.status.map(|s| s.conditions).unwrap_or_default())?;
        }
    }

    #[test]
    fn any_share_that_parses_is_decided_on(
        share in any_share(), rules in vec(any_rule(), 0..4), backend in description(), sight in option::of(sight()),
        look_due in any::<bool>(), confirmed in any::<bool>(), failed in any::<bool>(),
    ) {
        // Times before the year 0 are parsed and not written as they can be parsed; no API server stores them.
        let again = serde_json::to_value(&share).map(serde_json::from_value::<Share>);
        prop_assume!(again.is_ok_and(|again| again.is_ok()));
        let mut o = World::settled(fixtures::share("a"), []).load().unwrap();
        o.share = share;
        o.rules = rules.into_iter().map(RuleView::unread).collect();
        o.backend = Some(Ok(backend));
        o.rules_confirmed = confirmed;
        o.look_due = look_due;
        o.sight = sight;
        o.failure = failed.then(|| failure(Scope::Object, Class::Transient, reasons::BACKEND_ERROR));
        for _ in 0..3 {
            let decision = share::decide(&o, now());
            check_messages(&decision.status.conditions)?;
            let stored = serde_json::to_value(&decision.status).unwrap();
            prop_assert_eq!(serde_json::from_value::<ShareStatus>(stored).unwrap(), decision.status.clone());
            o.share.status = Some(decision.status);
        }
    }

    #[test]
    fn any_backend_or_type_that_parses_is_decided_on(
        backend in parsed::<ShareBackend>(backend_sample()), share_type in parsed::<ShareType>(sample(&share_type())),
        description in description(),
    ) {
        let candidates = vec![candidate("ceph-a", Ok(description.clone()))];
        let decision = share_type::decide(&share_type::Observed { share_type, candidates, newer_default: None }, now());
        check_messages(&decision.status.conditions)?;
        let description = Some(Ok(description));
        let observed = share_backend::Observed {
            backend, description, ..of_backend()
        };
        let decision = share_backend::decide(&observed, now());
        check_messages(&decision.status.conditions)?;
    }

    #[test]
    fn any_deletion_that_parses_is_decided_on(
        deletion in any_deletion(), backend in description(), sight in option::of(sight()), is_gone in option::of(any::<bool>()),
        failed in any::<bool>(),
    ) {
        let again = serde_json::to_value(&deletion).map(serde_json::from_value::<ShareDeletion>);
        prop_assume!(again.is_ok_and(|again| again.is_ok()));
        let whereabouts = |is_gone| if is_gone { Whereabouts::Gone } else { Whereabouts::Leaving };
        let mut o = share_deletion::Observed {
            deletion,
            cluster: CLUSTER.into(),
            backend: Some(Ok(backend)),
            is_in_hand: false,
            share: is_gone.map(whereabouts),
            adopter: is_gone.map(whereabouts),
            sight,
            failure: failed.then(|| failure(Scope::Object, Class::Transient, reasons::BACKEND_ERROR)),
        };
        for _ in 0..3 {
            let decision = share_deletion::decide(&o, now());
            check_messages(&decision.status.conditions)?;
            let stored = serde_json::to_value(&decision.status).unwrap();
            prop_assert_eq!(serde_json::from_value::<ShareDeletionStatus>(stored).unwrap(), decision.status.clone());
            o.deletion.status = Some(decision.status);
        }
    }

    #[test]
    fn any_quota_that_parses_is_decided_on(
        quota in parsed::<ShareQuota>(quota_sample()), shares in any::<u64>(), bytes in any::<u128>(), asked in any::<u64>(),
        name in text(), grows in any::<bool>(),
    ) {
        let amount = Amount { shares, bytes: bytes / 2 };
        let usage = Usage { total: amount, by_type: [(name.clone(), amount)].into() };
        let asked = Asked { share_type_name: &name, bytes: asked, grows };
        if let Err(refusal) = share_quota::admit(std::slice::from_ref(&quota), &usage, &asked) {
            prop_assert!(refusal.message.len() <= LONGEST_MESSAGE);
        }
        let decision = share_quota::decide(&share_quota::Observed { quota, usage }, now());
        check_messages(&decision.status.conditions)?;
    }

    #[test]
    fn any_lock_that_parses_is_decided_on(
        lock in parsed::<ResourceLock>(sample(&lock("keep", LockedKind::Share, "a"))), there in any::<bool>(),
        target_confirmed in any::<bool>(), deleted in any::<bool>(),
    ) {
        let mut target = fixtures::share("a").held();
        if deleted {
            target = target.leaving();
        }
        drop(resource_lock::mark(LockedKind::Share, &target.metadata, std::slice::from_ref(&lock)));
        let mut o = World::settled(fixtures::share("a"), []).load().unwrap();
        o.share = target.clone();
        o.locks = vec![lock.clone()];
        check_messages(&share::decide(&o, now()).status.conditions)?;
        let target = there.then_some(target.metadata);
        let observed = resource_lock::Observed { lock, target, target_confirmed, rule: None };
        check_messages(&resource_lock::decide(&observed, now()).status.conditions)?;
    }

    #[test]
    fn any_json_is_an_object_or_is_not(value in json(), text in like(&[SHARE.as_bytes()])) {
        drop(Share::deserialize(&value));
        drop(ShareAccessRule::deserialize(&value));
        drop(ShareBackend::deserialize(&value));
        drop(ShareType::deserialize(&value));
        drop(ShareDeletion::deserialize(&value));
        drop(ShareQuota::deserialize(&value));
        drop(serde_json::from_slice::<Share>(&text));
    }
}

fn any_share() -> impl Strategy<Value = Share> {
    let of = |protocol| {
        let mut failed = settled(protocol).share().clone();
        let status = failed.status.as_mut().unwrap();
        status.attempts = Some(1);
        status.next_retry_time = Some(Time(now()));
        parsed(sample(&failed))
    };
    prop_oneof![of(Protocol::NFS), of(Protocol::CephFS)]
}

fn any_rule() -> impl Strategy<Value = ShareAccessRule> {
    let of = |protocol| parsed(sample(settled(protocol).rule("r")));
    prop_oneof![of(Protocol::NFS), of(Protocol::CephFS)]
}

/// What is left of a share, as the operator leaves it, kept and claimed.
fn any_deletion() -> impl Strategy<Value = ShareDeletion> {
    let of = |protocol| {
        let mut o = settled(protocol).load().unwrap();
        o.share = o.share.leaving();
        let mut deletion = share_deletion::of(&o, now()).unwrap();
        deletion.metadata.generation = Some(1);
        deletion.spec.retain_until = Some(Time(now()));
        deletion.spec.adopted_by = Some(AdoptingShareReference {
            namespace: "team".into(),
            name: "b".into(),
            uid: "uid-b".into(),
        });
        deletion.status = Some(ShareDeletionStatus {
            observed_generation: Some(1),
            phase: Some(DeletionPhase::Error),
            access_revoked: Some(false),
            attempts: Some(1),
            last_error: Some("HasSnapshots: it has snapshots".into()),
            next_retry_time: Some(Time(now())),
            ..ShareDeletionStatus::default()
        });
        parsed(sample(&deletion))
    };
    prop_oneof![of(Protocol::NFS), of(Protocol::CephFS)]
}

fn quota_sample() -> Value {
    let limits = serde_json::json!({"shares": 1, "capacity": "1Gi", "perShareCapacity": "1Gi"});
    serde_json::json!({
        "apiVersion": "shoal.storage/v1alpha1",
        "kind": "ShareQuota",
        "metadata": {"name": "team", "namespace": "team", "generation": 1},
        "spec": {"hard": limits, "perShareType": [{"shareTypeName": "standard", "hard": limits}]},
        "status": {"observedGeneration": 1, "phase": "Active", "used": {"shares": 1, "capacity": "1Gi"}},
    })
}

/// A backend as the operator leaves it.
fn backend_sample() -> Value {
    serde_json::json!({
        "apiVersion": "shoal.storage/v1alpha1",
        "kind": "ShareBackend",
        "metadata": {"name": "ceph-a", "uid": "uid-ceph-a", "generation": 1},
        "spec": {"simulated": {}},
        "status": {"ceph": {"fsid": "fsid-1", "fsName": "cephfs", "fsID": 1, "version": "20.2.0", "monitors": ["m"]}},
    })
}

fn sight() -> impl Strategy<Value = Sight> {
    let tag = select(vec![
        Tag::Absent,
        Tag::Unreadable,
        another_owner(),
        Tag::Owner(owner_of(&share("a"))),
    ]);
    let export =
        (any::<bool>(), any::<bool>(), option::of(text())).prop_map(|(there, intact, pseudo_path)| {
            if there {
                Export::Ours {
                    pseudo_path,
                    access: Vec::new(),
                    intact,
                }
            } else {
                Export::Absent
            }
        });
    let volume = (tag, text(), any::<Option<u64>>(), any::<u64>(), export).prop_map(
        |(tag, path, size_bytes, used_bytes, export)| Volume {
            tag,
            path,
            size_bytes,
            used_bytes,
            export,
            ..volume(&share("a"))
        },
    );
    prop_oneof![
        any::<bool>().prop_map(|leftovers| Sight::Absent { leftovers }),
        volume.prop_map(|volume| Sight::Present(Box::new(volume))),
    ]
}

fn check_messages(conditions: &[Condition]) -> Result<(), TestCaseError> {
    for condition in conditions {
        prop_assert!(
            condition.message.len() <= LONGEST_MESSAGE,
            "{}",
            condition.message.len()
        );
    }
    Ok(())
}
