//! What is left of shares that are gone, and the moment in which a share lets go of it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::core::ObjectMeta;
use shoal_crds::{
    AdoptingShareReference, Capabilities, DeletedShareReference, DeletionMode, DeletionPhase, DeletionPolicy,
    ExistingShare, Protocol, Share, ShareDeletion, ShareDeletionSpec, ShareDeletionStatus, ShareSource,
    condition::{reasons, types},
    names::FINALIZER,
};
use shoal_domain::{
    Class, Decision, Failure, Next, Scope, Step,
    condition::Conditions,
    grant::Grant,
    owner::{Left, Owner, Tag},
    share,
    share_deletion::{Effect, Observed, Whereabouts, accessible_since, decide, may_be_adopted, name, of},
    share_quota::Usage,
    volume::{Export, Sight, Volume},
};

use crate::fixtures::*;

// ---- the share lets go

/// A share that was made and is being deleted.
pub fn going(change: impl FnOnce(&mut Capabilities)) -> share::Observed {
    let mut share = share("a").placed().leaving();
    let status = share.status.as_mut().unwrap();
    let capabilities = status.capabilities.as_mut().unwrap();
    capabilities.deletion = DeletionMode::Deferred;
    change(capabilities);
    status.handle = Some("shoal/shoal-uid-a".into());
    status.conditions = Conditions::new(&[], 1, now())
        .set(types::PROVISIONED, true, reasons::AVAILABLE, "it is there")
        .build();
    observed(share)
}

fn observed(share: Share) -> share::Observed {
    let backend = share.status.as_ref().map(|_| Ok(backend_description()));
    share::Observed {
        share,
        cluster: CLUSTER.into(),
        tenant: "uid-team".into(),
        namespace_deleted: None,
        namespace_labels: BTreeMap::new(),
        share_type: Ok(share_type()),
        candidates: Vec::new(),
        neighbours: Vec::new(),
        taken_on: BTreeSet::new(),
        quotas: Vec::new(),
        usage: Usage::default(),
        ledger_revision: 0,
        backend,
        rules: Vec::new(),
        rules_confirmed: false,
        locks: Vec::new(),
        locks_confirmed: true,
        look_due: false,
        look_again: Duration::from_mins(10),
        round: None,
        sight: None,
        looked_for: None,
        keys: BTreeMap::new(),
        refused: HashMap::new(),
        dry_run: None,
        source: None,
        former: shoal_domain::orphan::Former::default(),
        going: share::Going::default(),
        failure: None,
    }
}

fn step(o: &share::Observed) -> Option<Step<share::Effect>> {
    share::decide(o, now()).step
}

pub fn handed_on(o: &share::Observed) -> ShareDeletion {
    match step(o) {
        Some(Step::Do(share::Effect::HandOn(deletion))) => *deletion,
        other => panic!("{other:?}"),
    }
}

fn trouble(scope: Scope) -> Failure {
    failure(scope, Class::Transient, reasons::BACKEND_ERROR)
}

/// Something that happens to a share that is being deleted.
type Happens = fn(&mut share::Observed);
/// A change of what a share copied from its type.
type Change = fn(&mut Capabilities);

#[test]
fn any_trouble_hands_the_rest_on_and_then_the_share_goes() {
    let ready = || going(|_| ());
    let troubles: [(&str, Happens); 6] = [
        ("its own", |o| o.failure = Some(trouble(Scope::Object))),
        ("its backend's", |o| o.failure = Some(trouble(Scope::Backend))),
        ("a command goes on", |o| o.going.is_in_hand = true),
        ("no such backend", |o| o.backend = None),
        ("another storage", |o| {
            o.backend = Some(Ok(replaced(backend_description())));
        }),
        ("another's tag", |o| {
            o.sight = volume(&o.share).tagged(another_owner()).seen();
        }),
    ];
    for (what, happens) in troubles {
        let mut o = ready();
        happens(&mut o);
        let deletion = handed_on(&o);
        assert_eq!(deletion.metadata.name.as_deref(), Some("shoal-uid-a"), "{what}");
        assert_eq!(deletion.metadata.finalizers, Some(vec![FINALIZER.to_owned()]));
        // The user is told nothing of it.
        assert_eq!(
            share::decide(&o, now()).status,
            o.share.status.clone().unwrap(),
            "{what}"
        );
        o.going.is_handed_on = true;
        assert_eq!(step(&o), Some(Step::RemoveFinalizer), "{what}");
    }
}

#[test]
fn a_type_that_waits_hands_nothing_on() {
    let mut o = going(|capabilities| capabilities.deletion = DeletionMode::Wait);
    o.failure = Some(trouble(Scope::Object));
    let decision = share::decide(&o, now());
    assert_eq!(decision.step, None);
    assert!(says(&decision.status.conditions, types::DELETION_BLOCKED));
}

#[test]
fn after_a_start_a_backend_is_given_the_time_that_a_user_waits() {
    let mut o = going(|_| ());
    o.backend = Some(Err(failure(
        Scope::Backend,
        Class::Waiting,
        reasons::BACKEND_NOT_ASKED,
    )));
    let decision = share::decide(&o, now());
    assert_eq!(
        (decision.step, decision.next),
        (None, Next::After(share::PATIENCE))
    );
    o.going.is_warm = true;
    handed_on(&o);
}

#[test]
fn what_was_never_placed_leaves_nothing() {
    let mut o = observed(share("a").held().leaving());
    o.failure = Some(trouble(Scope::Object));
    assert_eq!(step(&o), Some(Step::RemoveFinalizer));
}

/// Everything that it takes to finish without the Share.
#[test]
fn what_is_handed_on_says_all() {
    let mut o = going(|_| ());
    o.going.is_in_hand = true;
    let spec = handed_on(&o).spec;
    assert_eq!(spec, remains().spec);
}

#[test]
fn data_that_is_kept_is_handed_on_without_access_even_if_its_tag_is_lost() {
    let cases: [(&str, Change, Option<DeletionPolicy>, bool); 5] = [
        ("retention", |c| c.retention = "1h".parse().unwrap(), None, true),
        (
            "the type's policy",
            |c| c.deletion_policy = DeletionPolicy::Retain,
            None,
            true,
        ),
        ("its own policy", |_| (), Some(DeletionPolicy::Retain), true),
        (
            "its own against the type's",
            |c| c.deletion_policy = DeletionPolicy::Retain,
            Some(DeletionPolicy::Delete),
            false,
        ),
        ("none", |_| (), None, false),
    ];
    for (what, change, own, is_kept) in cases {
        for tag in [None, Some(Tag::Absent)] {
            let mut o = going(change);
            o.share.spec.deletion_policy = own;
            let mut there = volume(&o.share);
            there.tag = tag.clone().unwrap_or(there.tag);
            o.sight = there.clone().exported_to([may_write(ip("10.0.0.1"))]).seen();
            assert_eq!(step(&o), Some(Step::Do(share::Effect::Unexport)), "{what}");
            o.sight = there.seen();
            if is_kept {
                handed_on(&o);
            } else {
                assert_eq!(step(&o), Some(Step::Do(share::Effect::Remove)), "{what} {tag:?}");
            }
        }
    }
}

#[test]
fn retention_counts_from_the_deletion() {
    let mut o = going(|capabilities| capabilities.retention = "720h".parse().unwrap());
    o.sight = volume(&o.share).seen();
    let until = handed_on(&o).spec.retain_until.unwrap().0;
    assert_eq!(until.duration_since(now()), SignedDuration::from_hours(720));
}

/// Clients may have been told that they may write before the share's first status says that it is there.
#[test]
fn what_is_tagged_is_kept_whatever_its_status_says() {
    for change in [(|c| c.retention = "1h".parse().unwrap()) as Change, |c| {
        c.deletion_policy = DeletionPolicy::Retain;
    }] {
        let mut o = going(change);
        let status = o.share.status.as_mut().unwrap();
        (status.conditions, status.handle) = (Vec::new(), None);
        o.sight = volume(&o.share).seen();
        let deletion = handed_on(&o);
        assert_eq!(deletion.spec.handle.as_deref(), Some("shoal/shoal-uid-a"));
        let keeps =
            deletion.spec.retain_until.is_some() || deletion.spec.deletion_policy == DeletionPolicy::Retain;
        assert!(keeps, "{deletion:?}");

        // Not even looked at: it may be there.
        o.sight = None;
        o.failure = Some(trouble(Scope::Backend));
        let deletion = handed_on(&o);
        let keeps =
            deletion.spec.retain_until.is_some() || deletion.spec.deletion_policy == DeletionPolicy::Retain;
        assert!(keeps, "{deletion:?}");
    }
}

/// A failure after it was made says that it is there, and then says where, too: without that nobody could keep it.
#[test]
fn what_is_said_to_be_there_is_said_to_be_somewhere() {
    let mut o = observed(share("a").placed());
    o.sight = volume(&o.share).seen();
    o.failure = Some(trouble(Scope::Object));
    let status = share::decide(&o, now()).status;
    assert!(says(&status.conditions, types::PROVISIONED));
    assert_eq!(status.handle.as_deref(), Some("shoal/shoal-uid-a"));
}

/// As a deletion that keeps may come without a name: one that was told of before names were.
#[test]
fn what_has_no_name_is_kept_too() {
    let mut o = of_remains(kept(Some(3600)));
    o.deletion.spec.handle = None;
    o.sight = there().seen();
    assert_eq!(decided(&o).status.phase, Some(DeletionPhase::Retained));
}

#[test]
fn what_was_never_there_is_not_kept() {
    let mut o = going(|capabilities| capabilities.retention = "720h".parse().unwrap());
    let status = o.share.status.as_mut().unwrap();
    status.conditions.clear();
    status.handle = None;
    o.sight = volume(&o.share).tagged(Tag::Absent).seen();
    assert_eq!(step(&o), Some(Step::Do(share::Effect::Remove)));
    o.going.is_in_hand = true;
    assert_eq!(handed_on(&o).spec.retain_until, None);
}

// ---- what is left of it

fn remains() -> ShareDeletion {
    ShareDeletion {
        metadata: ObjectMeta {
            name: Some(name("uid-a")),
            uid: Some("uid-of-the-deletion".into()),
            generation: Some(1),
            finalizers: Some(vec![FINALIZER.into()]),
            ..ObjectMeta::default()
        },
        spec: ShareDeletionSpec {
            share_ref: DeletedShareReference {
                namespace: "team".into(),
                namespace_uid: "uid-team".into(),
                name: "a".into(),
                uid: "uid-a".into(),
            },
            share_type_name: Some("standard".into()),
            protocol: Protocol::NFS,
            size: size("1Gi"),
            backend_name: "ceph-a".into(),
            fsid: "fsid-1".into(),
            fs_name: "cephfs".into(),
            fs_id: 1,
            handle: Some("shoal/shoal-uid-a".into()),
            nfs_cluster_id: Some("nfs-1".into()),
            resolved_mount_point_name: None,
            deletion_policy: DeletionPolicy::Delete,
            retain_until: None,
            abandon: false,
            adopted_by: None,
        },
        status: None,
    }
}

fn of_remains(deletion: ShareDeletion) -> Observed {
    Observed {
        deletion,
        cluster: CLUSTER.into(),
        backend: Some(Ok(backend_description())),
        is_in_hand: false,
        share: Some(Whereabouts::Gone),
        adopter: None,
        sight: None,
        failure: None,
    }
}

fn kept(until_seconds: Option<i64>) -> ShareDeletion {
    let mut deletion = remains();
    deletion.spec.retain_until =
        until_seconds.map(|seconds| Time(now() + SignedDuration::from_secs(seconds)));
    if until_seconds.is_none() {
        deletion.spec.deletion_policy = DeletionPolicy::Retain;
    }
    deletion
}

/// As the last pass has left it.
fn told_at(mut o: Observed) -> Observed {
    o.deletion.status = Some(decided(&o).status);
    (o.sight, o.failure, o.share) = (None, None, None);
    o
}

fn decided(o: &Observed) -> Decision<ShareDeletionStatus, Effect> {
    decide(o, now())
}

fn effect(o: &Observed) -> Option<Effect> {
    match decided(o).step {
        Some(Step::Do(effect)) => Some(effect),
        None => None,
        other => panic!("{other:?}"),
    }
}

fn there() -> Volume {
    volume(&share("a"))
}

fn marked(left: Left) -> Volume {
    there().tagged(Tag::Owner(Owner {
        left: Some(left),
        ..owner_of(&share("a"))
    }))
}

#[test]
fn it_waits_until_nobody_else_has_it_in_hand() {
    let mut o = of_remains(remains());
    o.is_in_hand = true;
    assert_eq!((effect(&o), decided(&o).next), (None, Next::Await));
    o.is_in_hand = false;
    o.share = None;
    assert_eq!(effect(&o), Some(Effect::FindShare));
    o.share = Some(Whereabouts::Leaving);
    assert_eq!(effect(&o), None);
    assert!(matches!(decided(&o).next, Next::After(_)));
    // A lock may have come in between: it says why when that lasts.
    o.deletion.status = Some(decided(&o).status);
    let later = decide(&o, now() + SignedDuration::from_secs(16));
    assert_eq!(why_not_ready(&later.status.conditions), reasons::SHARE_EXISTS);
    assert_eq!(later.step, None);
    o.share = Some(Whereabouts::Gone);
    assert_eq!(effect(&o), Some(Effect::Look));
}

#[test]
fn a_share_that_is_there_is_not_touched_and_the_object_may_go() {
    let mut o = of_remains(remains());
    o.share = Some(Whereabouts::There);
    let decision = decided(&o);
    assert_eq!(decision.step, None);
    assert_eq!(why_not_ready(&decision.status.conditions), reasons::SHARE_EXISTS);
    o.deletion = remains().leaving();
    assert_eq!(decided(&o).step, Some(Step::RemoveFinalizer));
}

#[test]
fn access_goes_first_then_the_data_then_the_object() {
    let mut o = of_remains(remains());
    o.sight = there().exported_to([may_write(ip("10.0.0.1"))]).seen();
    assert_eq!(effect(&o), Some(Effect::Unexport));
    o.sight = there().seen();
    assert_eq!(effect(&o), Some(Effect::Remove));
    o.sight = Some(Sight::Absent { leftovers: true });
    assert_eq!(effect(&o), Some(Effect::Unexport));
    o.sight = Some(absent());
    assert_eq!(effect(&o), Some(Effect::Finish));
    o.deletion = remains().leaving();
    assert_eq!(decided(&o).step, Some(Step::RemoveFinalizer));
}

/// Manila 8 (s): growing waits, kept through restarts, and told.
#[test]
fn failures_are_counted_told_and_tried_again_later() {
    let mut o = of_remains(remains());
    let mut waits = Vec::new();
    for attempts in 1..4 {
        o.sight = there().seen();
        o.failure = Some(failure(Scope::Object, Class::Waiting, reasons::HAS_SNAPSHOTS));
        let decision = decided(&o);
        let status = &decision.status;
        assert_eq!(status.phase, Some(DeletionPhase::Error));
        assert_eq!(
            (status.attempts, status.access_revoked),
            (Some(attempts), Some(true))
        );
        assert_eq!(why_not_ready(&status.conditions), reasons::HAS_SNAPSHOTS);
        assert!(
            status
                .last_error
                .as_ref()
                .unwrap()
                .contains(reasons::HAS_SNAPSHOTS)
        );
        assert!(status.next_retry_time.is_some());
        waits.push(decision.next);
        o = told_at(o);
        o.share = Some(Whereabouts::Gone);
        assert_eq!(effect(&o), None, "it waits");
    }
    let [Next::After(first), _, Next::After(third)] = waits[..] else {
        panic!("{waits:?}")
    };
    assert!(third > 2 * first, "{waits:?}");
}

#[test]
fn a_backends_trouble_counts_no_attempts_and_says_that_clients_may_be_let_in() {
    let mut o = of_remains(remains());
    o.backend = Some(Err(failure(
        Scope::Backend,
        Class::Transient,
        reasons::BACKEND_UNREACHABLE,
    )));
    let decision = decided(&o);
    assert_eq!((decision.step, decision.next), (None, Next::Await));
    let status = decision.status;
    assert_eq!(
        (status.phase, status.attempts),
        (Some(DeletionPhase::Error), None)
    );
    assert_eq!(status.access_revoked, Some(false));
    assert_eq!(why_not_ready(&status.conditions), reasons::BACKEND_NOT_READY);
}

/// What an alert counts by: not a share that has not gone, and nothing that an admin has seen to.
#[test]
fn clients_may_be_in_from_its_making_until_that_is_known_or_given_up() {
    let made = now() - SignedDuration::from_mins(20);
    let since = |status: ShareDeletionStatus| {
        let mut deletion = remains();
        deletion.metadata.creation_timestamp = Some(Time(made));
        deletion.status = Some(status);
        accessible_since(&deletion)
    };
    assert_eq!(since(ShareDeletionStatus::default()), Some(made));
    let mut o = of_remains(remains());
    o.sight = there().exported_to([may_write(ip("10.0.0.1"))]).seen();
    o.failure = Some(failure(Scope::Object, Class::Transient, reasons::BACKEND_ERROR));
    assert_eq!(since(decided(&o).status), Some(made));
    o.deletion.spec.abandon = true;
    o.failure = None;
    o.sight = marked(Left::Abandoned)
        .exported_to([may_write(ip("10.0.0.1"))])
        .seen();
    assert_eq!(since(decided(&o).status), None);

    let mut o = of_remains(remains());
    o.sight = there().seen();
    o.failure = Some(failure(Scope::Object, Class::Waiting, reasons::HAS_SNAPSHOTS));
    assert_eq!(since(decided(&o).status), None);

    let mut o = of_remains(remains());
    o.share = Some(Whereabouts::There);
    assert_eq!(since(decided(&o).status), None);
}

#[test]
fn what_is_kept_rests_until_its_time_has_come() {
    let mut o = of_remains(kept(Some(3600)));
    o.sight = there().seen();
    let decision = decided(&o);
    assert_eq!(decision.step, None);
    assert_eq!(decision.next, Next::After(Duration::from_hours(1)));
    assert_eq!(decision.status.phase, Some(DeletionPhase::Retained));
    assert_eq!(decision.status.access_revoked, Some(true));
    assert_eq!(
        told(&decision.status.conditions, types::READY).1,
        reasons::RETAINED
    );
    // It asks nobody, and writes nothing.
    let mut o = told_at(o);
    assert_eq!(decided(&o).step, None);
    assert_eq!(decided(&o).status, o.deletion.status.clone().unwrap());

    o.deletion.spec.retain_until = Some(Time(now()));
    o.deletion = o.deletion.edited();
    assert_eq!(effect(&o), Some(Effect::FindShare));
    o.share = Some(Whereabouts::Gone);
    o.sight = there().seen();
    let decision = decided(&o);
    // From then on nobody can bring it back.
    assert_eq!(decision.step, Some(Step::Record));
    assert_eq!(decision.status.phase, Some(DeletionPhase::Purging));
    o.deletion.status = Some(decision.status);
    assert_eq!(effect(&o), Some(Effect::Remove));
}

#[test]
fn a_policy_keeps_and_marks_until_somebody_says_otherwise() {
    let mut o = of_remains(kept(None));
    o.sight = there().exported_to([]).seen();
    assert_eq!(effect(&o), Some(Effect::Unexport));
    o.sight = there().seen();
    assert_eq!(effect(&o), Some(Effect::Mark(Left::Retained)));
    o.sight = marked(Left::Retained).seen();
    let decision = decided(&o);
    assert_eq!((decision.step, decision.next), (None, Next::Await));
    assert_eq!(decision.status.phase, Some(DeletionPhase::Retained));
    // Deleting the object changes nothing of it.
    let mut o = told_at(o);
    o.deletion = o.deletion.leaving();
    o.share = Some(Whereabouts::Gone);
    o.sight = marked(Left::Retained).seen();
    assert_eq!(effect(&o), None);
}

#[test]
fn what_is_kept_and_was_told_of_trouble_is_told_again_when_that_is_over() {
    let mut o = of_remains(kept(None));
    o.sight = marked(Left::Retained).seen();
    let mut o = told_at(o);
    o.deletion = o.deletion.edited();
    (o.share, o.failure) = (Some(Whereabouts::Gone), Some(trouble(Scope::Backend)));
    let mut o = told_at(o);
    assert_eq!(effect(&o), Some(Effect::FindShare));
    o.share = Some(Whereabouts::Gone);
    o.sight = marked(Left::Retained).seen();
    assert_eq!(
        told(&decided(&o).status.conditions, types::READY).1,
        reasons::RETAINED
    );
}

#[test]
fn what_is_another_shares_by_now_is_finished_and_what_is_a_strangers_is_not() {
    let mut o = of_remains(remains());
    let heir = Owner {
        uid: "uid-b".into(),
        ..owner_of(&share("b"))
    };
    o.sight = there().tagged(Tag::Owner(heir)).seen();
    assert_eq!(effect(&o), Some(Effect::Finish));
    for tag in [another_owner(), Tag::Unreadable] {
        o.sight = there().tagged(tag).seen();
        let decision = decided(&o);
        assert_eq!(decision.step, None);
        assert_eq!(
            why_not_ready(&decision.status.conditions),
            reasons::OWNED_BY_ANOTHER
        );
    }
}

#[test]
fn one_that_is_given_up_is_marked_if_it_can_be_and_says_what_is_left_where() {
    let mut o = of_remains(remains());
    o.deletion.spec.abandon = true;
    o.sight = there().exported_to([may_write(ip("10.0.0.1"))]).seen();
    assert_eq!(effect(&o), Some(Effect::Mark(Left::Abandoned)));
    o.sight = marked(Left::Abandoned)
        .exported_to([may_write(ip("10.0.0.1"))])
        .seen();
    let status = decided(&o).status;
    assert_eq!(status.phase, Some(DeletionPhase::Abandoned));
    assert_eq!(status.access_revoked, Some(false));
    let ready = status
        .conditions
        .iter()
        .find(|c| c.type_ == types::READY)
        .unwrap();
    for word in [
        "shoal/shoal-uid-a",
        "1Gi",
        "ceph-a",
        "cephfs",
        "fsid-1",
        "may still be",
    ] {
        assert!(ready.message.contains(word), "{}", ready.message);
    }

    // Without its backend it goes all the same.
    let mut o = of_remains(remains());
    o.deletion.spec.abandon = true;
    o.backend = None;
    assert_eq!(decided(&o).status.phase, Some(DeletionPhase::Abandoned));
    let mut o = told_at(o);
    assert_eq!(decided(&o).step, None);

    // When it is back its tag is told.
    o.backend = Some(Ok(backend_description()));
    o.sight = None;
    o.share = None;
    assert_eq!(effect(&o), Some(Effect::FindShare));
    o.share = Some(Whereabouts::Gone);
    assert_eq!(effect(&o), Some(Effect::Look));
    o.sight = there().seen();
    assert_eq!(effect(&o), Some(Effect::Mark(Left::Abandoned)));
    o.failure = Some(trouble(Scope::Object));
    let decision = decided(&o);
    assert!(matches!(decision.next, Next::After(_)), "{decision:?}");
    assert!(decision.status.last_error.is_some(), "not told yet");
    o.failure = None;
    o.sight = marked(Left::Abandoned).seen();
    let mut o = told_at(o);
    assert_eq!(o.deletion.status.as_ref().unwrap().last_error, None);
    (o.share, o.sight) = (None, None);
    assert_eq!((decided(&o).step, decided(&o).next), (None, Next::Await));

    o.deletion = o.deletion.leaving();
    o.share = Some(Whereabouts::Gone);
    o.sight = marked(Left::Abandoned).seen();
    assert_eq!(decided(&o).step, Some(Step::RemoveFinalizer));
}

#[test]
fn what_anothers_share_has_by_now_is_not_said_to_be_left_behind() {
    let mut o = of_remains(remains());
    o.deletion.spec.abandon = true;
    let heir = Owner {
        uid: "uid-b".into(),
        ..owner_of(&share("b"))
    };
    o.sight = there().tagged(Tag::Owner(heir)).seen();
    assert_eq!(effect(&o), Some(Effect::Finish));
}

#[test]
fn it_does_not_finish_while_its_own_export_is_there() {
    let mut o = of_remains(remains());
    let heir = Owner {
        uid: "uid-b".into(),
        ..owner_of(&share("b"))
    };
    o.sight = there()
        .exported_to([may_write(ip("10.0.0.1"))])
        .tagged(Tag::Owner(heir))
        .seen();
    let decision = decided(&o);
    assert_eq!(decision.step, None);
    assert_eq!(
        why_not_ready(&decision.status.conditions),
        reasons::OWNED_BY_ANOTHER
    );
}

#[test]
fn one_that_is_deleted_before_it_is_given_up_says_so_before_it_goes() {
    let mut o = of_remains(kept(None).leaving());
    o.deletion.spec.abandon = true;
    o.sight = marked(Left::Abandoned).seen();
    let decision = decided(&o);
    assert_eq!(decision.step, Some(Step::Record));
    o.deletion.status = Some(decision.status);
    assert_eq!(decided(&o).step, Some(Step::RemoveFinalizer));
}

// ---- bringing it back

fn adopter() -> AdoptingShareReference {
    AdoptingShareReference {
        namespace: "team".into(),
        name: "b".into(),
        uid: "uid-b".into(),
    }
}

fn retained() -> ShareDeletion {
    let mut o = of_remains(kept(None));
    o.sight = marked(Left::Retained).seen();
    told_at(o).deletion
}

/// Share `b`, that brings `a`'s data back.
fn bringing_back(deletion: ShareDeletion) -> share::Observed {
    let mut share = share("b").held();
    share.spec.source = Some(ShareSource {
        existing: ExistingShare {
            backend_name: "ceph-a".into(),
            handle: "shoal/shoal-uid-a".into(),
        },
    });
    let mut o = observed(share);
    o.candidates = vec![candidate("ceph-a", Ok(backend_description()))];
    o.source = Some(deletion);
    o
}

#[test]
fn who_brings_it_back_is_placed_there_claims_it_and_makes_it_its_own() {
    let mut o = bringing_back(retained());
    let decision = share::decide(&o, now());
    assert_eq!(decision.step, Some(Step::Record));
    assert_eq!(decision.status.handle.as_deref(), Some("shoal/shoal-uid-a"));
    assert_eq!(decision.status.quota.unwrap().charged, size("1Gi"));
    o.share.status = Some(decision.status);
    o.backend = Some(Ok(backend_description()));
    assert_eq!(share::volume_ref(&o).place.subvolume, "shoal-uid-a");
    assert_eq!(step(&o), Some(Step::Do(share::Effect::Look)), "it is not made");

    o.sight = marked(Left::Retained).seen();
    assert_eq!(step(&o), Some(Step::Do(share::Effect::Claim)));
    o.source.as_mut().unwrap().spec.adopted_by = Some(adopter());
    assert_eq!(step(&o), Some(Step::Do(share::Effect::BringBack)));
    o.sight = there().tagged(Tag::Owner(owner_of(&o.share))).seen();
    assert_eq!(step(&o), Some(Step::Do(share::Effect::Export(Vec::new()))));
}

#[test]
fn what_is_gone_or_claimed_or_too_large_is_not_brought_back() {
    let why = |o: &share::Observed| why_not_ready(&share::decide(o, now()).status.conditions);
    let mut o = bringing_back(retained());
    o.source = None;
    // Nor is it there without one.
    o.former.is_confirmed = true;
    assert_eq!(why(&o), reasons::NOTHING_TO_BRING_BACK);

    let mut claimed = retained();
    claimed.spec.adopted_by = Some(AdoptingShareReference {
        uid: "uid-c".into(),
        ..adopter()
    });
    assert_eq!(why(&bringing_back(claimed)), reasons::NOT_TO_BE_BROUGHT_BACK);
    assert_eq!(why(&bringing_back(remains())), reasons::NOT_TO_BE_BROUGHT_BACK);

    let mut larger = retained();
    larger.spec.size = size("2Gi");
    assert_eq!(why(&bringing_back(larger)), reasons::SIZE_OUT_OF_RANGE);

    // Purged between the choice and the claim: it is never made empty.
    let mut o = bringing_back(retained());
    o.share.status = Some(share::decide(&o, now()).status);
    o.backend = Some(Ok(backend_description()));
    o.sight = Some(absent());
    let decision = share::decide(&o, now());
    assert_eq!(decision.step, None);
    assert_eq!(
        why_not_ready(&decision.status.conditions),
        reasons::NOTHING_TO_BRING_BACK
    );
    // Given up and left there: it is what no object owns, and so it may still be had.
    o.source = None;
    o.sight = marked(Left::Retained).seen();
    assert_eq!(step(&o), Some(Step::Do(share::Effect::Revoke)));
}

#[test]
fn only_what_is_kept_or_given_up_is_claimed() {
    assert!(may_be_adopted(&retained(), "uid-b").is_ok());
    let mut deletion = retained();
    for phase in [
        DeletionPhase::Accepted,
        DeletionPhase::RevokingAccess,
        DeletionPhase::Purging,
        DeletionPhase::Error,
    ] {
        deletion.status.as_mut().unwrap().phase = Some(phase);
        let refusal = may_be_adopted(&deletion, "uid-b").unwrap_err();
        assert!(refusal.message.contains(phase.as_str()), "{}", refusal.message);
    }
    deletion.status.as_mut().unwrap().phase = Some(DeletionPhase::Abandoned);
    assert!(may_be_adopted(&deletion, "uid-b").is_ok());
    // The export has the old share's path, and nobody would take it away.
    deletion.status.as_mut().unwrap().access_revoked = Some(false);
    let refusal = may_be_adopted(&deletion, "uid-b").unwrap_err();
    assert!(refusal.message.contains("spec.abandon"), "{}", refusal.message);
}

#[test]
fn a_native_share_that_lets_nobody_in_needs_no_command_for_that() {
    let native = |access: Vec<Grant>, intact| Volume {
        export: Export::Ours {
            pseudo_path: None,
            access,
            intact,
        },
        ..there()
    };
    let mut o = of_remains(remains());
    o.deletion.spec.protocol = Protocol::CephFS;
    for (seen, wanted) in [
        (native(Vec::new(), true), Effect::Remove),
        (native(Vec::new(), false), Effect::Unexport),
        (native(vec![may_write(cephx("alice"))], true), Effect::Unexport),
    ] {
        o.sight = seen.seen();
        assert_eq!(effect(&o), Some(wanted));
    }
}

#[test]
fn what_is_claimed_is_neither_removed_nor_given_up_until_it_is_known_who_has_it() {
    for abandon in [false, true] {
        let mut deletion = retained();
        deletion.spec.adopted_by = Some(adopter());
        deletion.spec.abandon = abandon;
        deletion.spec.retain_until = Some(Time(now()));
        let mut o = of_remains(deletion);
        // What it exports is the adopter's doing.
        o.sight = marked(Left::Retained).exported_to([]).seen();
        assert_eq!(effect(&o), Some(Effect::FindAdopter));
        o.adopter = Some(Whereabouts::There);
        assert_eq!(effect(&o), None);
        // It went before the data was its own.
        o.adopter = Some(Whereabouts::Gone);
        assert_eq!(effect(&o), Some(Effect::Unclaim));
        o.deletion.spec.adopted_by = None;
        o.deletion.spec.abandon = false;
        assert_eq!(effect(&o), Some(Effect::Unexport), "it goes on");
        o.sight = there().tagged(Tag::Owner(owner_of(&share("b")))).seen();
        assert_eq!(effect(&o), Some(Effect::Finish));
    }
}

#[test]
fn it_is_written_down_for_whoever_was_placed() {
    assert!(of(&observed(share("a").held()), now()).is_none());
    assert!(of(&observed(share("a").placed()), now()).is_some());
    let mut o = going(|_| ());
    o.sight = Some(Sight::Present(Box::new(Volume {
        export: Export::Absent,
        ..volume(&o.share)
    })));
    assert_eq!(step(&o), Some(Step::Do(share::Effect::Remove)));
}

/// The pass that marks or exports it is not done before status says so.
#[test]
fn what_is_being_worked_on_is_not_claimed() {
    let mut deletion = retained();
    assert_eq!(may_be_adopted(&deletion, "uid-b"), Ok(()));
    deletion.metadata.generation = Some(7);
    assert_eq!(
        may_be_adopted(&deletion, "uid-b").unwrap_err().reason,
        reasons::NOT_TO_BE_BROUGHT_BACK
    );
    let mut deletion = retained();
    deletion.status.as_mut().unwrap().last_error = Some("its tag does not say so yet".into());
    assert!(may_be_adopted(&deletion, "uid-b").is_err());
}

#[test]
fn a_claim_of_one_that_is_gone_is_taken_off_without_asking_the_storage() {
    let mut o = of_remains(kept(None));
    o.deletion.spec.adopted_by = Some(adopter());
    o.deletion.spec.abandon = true;
    o.backend = None;
    assert_eq!(effect(&o), Some(Effect::FindAdopter));
    o.adopter = Some(Whereabouts::Gone);
    assert_eq!(effect(&o), Some(Effect::Unclaim));
    o.deletion.spec.adopted_by = None;
    assert_eq!(decided(&o).status.phase, Some(DeletionPhase::Abandoned));
}

#[test]
fn what_its_share_was_to_have_and_never_had_is_finished() {
    let mut deletion = remains();
    deletion.spec.handle = Some("shoal/shoal-old".into());
    let mut o = of_remains(deletion);
    o.sight = volume(&share("a")).tagged(another_owner()).seen();
    assert_eq!(decide(&o, now()).step, Some(Step::Do(Effect::Finish)));
    // It was exported by then.
    o.sight = volume(&share("a")).tagged(another_owner()).exported_to([]).seen();
    assert_eq!(decide(&o, now()).step, None);
}

/// It never had the data, and so leaves none.
#[test]
fn who_never_claimed_leaves_nothing_of_what_it_was_to_bring_back() {
    let mut o = bringing_back(retained());
    o.share.status = Some(share::decide(&o, now()).status);
    o.share = o.share.leaving();
    o.backend = Some(Ok(backend_description()));
    o.failure = Some(trouble(Scope::Backend));
    let left = of(&o, now()).unwrap();
    assert_eq!(left.spec.handle, None);
    assert_eq!(left.spec.deletion_policy, DeletionPolicy::Delete);

    o.source.as_mut().unwrap().spec.adopted_by = Some(adopter());
    let has = |o: &share::Observed| of(o, now()).unwrap().spec.handle;
    assert_eq!(has(&o).as_deref(), Some("shoal/shoal-uid-a"));
    // It has the data, its status never came to say so, and what kept it is gone (seed 3370).
    o.source = None;
    assert_eq!(has(&o).as_deref(), Some("shoal/shoal-uid-a"));
}

/// Its own policy holds from the moment in which it has the data.
#[test]
fn what_was_just_brought_back_is_kept_as_its_new_share_says() {
    let mut o = bringing_back(retained());
    o.share.spec.deletion_policy = Some(DeletionPolicy::Retain);
    o.share.status = Some(share::decide(&o, now()).status);
    o.share = o.share.leaving();
    o.backend = Some(Ok(backend_description()));
    o.source.as_mut().unwrap().spec.adopted_by = Some(adopter());
    o.sight = there().tagged(Tag::Owner(owner_of(&o.share))).seen();
    let deletion = handed_on(&o);
    assert_eq!(deletion.spec.deletion_policy, DeletionPolicy::Retain);
    assert_eq!(deletion.spec.handle.as_deref(), Some("shoal/shoal-uid-a"));
}

/// The usual undo: the same manifest again, with the same name.
#[test]
fn what_was_brought_back_under_its_old_name_is_its_successors() {
    let mut deletion = kept(None);
    deletion.spec.resolved_mount_point_name = Some("team-a".into());
    let mut o = of_remains(deletion);
    o.sight = marked(Left::Retained).seen();
    let mut o = told_at(o);
    o.deletion.spec.adopted_by = Some(adopter());
    o.share = Some(Whereabouts::Gone);
    o.adopter = Some(Whereabouts::There);
    let heir = Owner {
        uid: "uid-b".into(),
        ..owner_of(&share("b"))
    };
    o.sight = there()
        .exported_to([may_write(ip("10.0.0.1"))])
        .tagged(Tag::Owner(heir))
        .seen();
    assert_eq!(effect(&o), Some(Effect::Finish));
    // Before access was taken away nobody else can have it.
    o.deletion.status.as_mut().unwrap().access_revoked = Some(false);
    assert_eq!(decided(&o).step, None);
}

/// An export on the old cluster would count as gone.
#[test]
fn a_backend_of_another_nfs_cluster_is_not_asked_while_somebody_may_be_let_in() {
    let mut o = of_remains(remains());
    o.deletion.spec.nfs_cluster_id = Some("the-old-one".into());
    let mut there = backend_description();
    there.nfs_cluster_id = Some("another".into());
    o.backend = Some(Ok(there));
    assert_eq!(
        why_not_ready(&decided(&o).status.conditions),
        reasons::BACKEND_REPLACED
    );
    o.deletion.status = Some(ShareDeletionStatus {
        access_revoked: Some(true),
        ..ShareDeletionStatus::default()
    });
    assert_eq!(effect(&o), Some(Effect::Look));
}
