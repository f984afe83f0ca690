//! What locks hold, how that is marked, and what each lock is told.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::core::ObjectMeta;
use shoal_crds::{
    AccessPhase, LockAction, LockPhase,
    LockedKind::{self, Share as OnShare, ShareAccessRule as OnRule},
    ResourceLock, ResourceLockStatus,
    condition::{reasons, types},
    names::{LOCKED_BY, labels},
};
use shoal_domain::{
    Next, Step,
    resource_lock::{Effect, Mark, Observed, decide, holds, mark, told as told_of},
    share::{self, Effect as OfShare},
    share_access_rule as rules,
};

use crate::{fixtures::*, world::World};

fn on_share(name: &str) -> ResourceLock {
    lock(name, OnShare, "a")
}

fn because(mut lock: ResourceLock, reason: &str) -> ResourceLock {
    lock.spec.reason = Some(reason.into());
    lock
}

fn of_uid(mut lock: ResourceLock, uid: &str) -> ResourceLock {
    lock.spec.resource_ref.uid = Some(uid.into());
    lock
}

pub fn enforced(mut lock: ResourceLock, uid: &str) -> ResourceLock {
    lock.metadata.labels = Some([(labels::ENFORCED.to_owned(), uid.to_owned())].into());
    lock
}

// ---- what a lock holds

#[test]
fn a_lock_holds_what_has_its_kind_namespace_name_and_uid() {
    let a = share("a").metadata;
    assert!(holds(&on_share("l"), OnShare, &a));
    assert!(holds(&of_uid(on_share("l"), "uid-a"), OnShare, &a));
    let mut elsewhere = on_share("l");
    elsewhere.metadata.namespace = Some("other".into());
    let mut show = on_share("l");
    show.spec.action = LockAction::Show;
    for other in [
        lock("l", OnRule, "a"),
        lock("l", OnShare, "b"),
        of_uid(on_share("l"), "uid-b"),
        elsewhere,
        show,
    ] {
        assert!(!holds(&other, OnShare, &a), "{other:?}");
    }
}

#[test]
fn locks_are_told_with_name_and_reason_and_what_else_they_are_on() {
    assert_eq!(told_of(OnShare, &[]), None);
    let locks = [because(on_share("keep"), "payroll"), lock("r", OnRule, "office")];
    assert_eq!(
        told_of(OnShare, &locks).unwrap(),
        "ResourceLock 'keep' (payroll), ResourceLock 'r' on ShareAccessRule 'office'"
    );
    let many: Vec<_> = (0..11)
        .map(|n| because(on_share(&format!("l{n}")), &"x".repeat(1023)))
        .collect();
    let text = told_of(OnShare, &many).unwrap();
    assert!(text.ends_with("3 more") && text.len() < 2000, "{text}");
}

// ---- marks

/// Applies marks until there is none.
fn marked(object: &mut ObjectMeta, kind: LockedKind, locks: &mut [ResourceLock]) -> Vec<Mark> {
    let mut taken = Vec::new();
    while let Some(next) = mark(kind, object, locks) {
        match &next {
            Mark::Object { label, by } => {
                object.labels = Some([(labels::LOCKED.to_owned(), label.clone())].into());
                object.annotations = Some([(LOCKED_BY.to_owned(), by.clone())].into());
            }
            Mark::Lift => (object.labels, object.annotations) = (None, None),
            Mark::Locks(new) => {
                for lock in locks
                    .iter_mut()
                    .filter(|l| new.iter().any(|n| n.named() == l.named()))
                {
                    *lock = enforced(lock.clone(), object.uid.as_ref().unwrap());
                }
            }
        }
        taken.push(next);
        assert!(taken.len() < 5, "{taken:?}");
    }
    taken
}

#[test]
fn what_is_not_locked_is_not_marked() {
    assert_eq!(mark(OnShare, &share("a").metadata, &[]), None);
}

#[test]
fn the_object_is_marked_before_its_locks_and_the_mark_goes_with_the_last_one() {
    let mut object = share("a").metadata;
    let mut locks = vec![on_share("one"), on_share("two")];
    let taken = marked(&mut object, OnShare, &mut locks);
    assert!(
        matches!(&taken[..], [Mark::Object { .. }, Mark::Locks(new)] if new.len() == 2),
        "{taken:?}"
    );
    locks.remove(0);
    let taken = marked(&mut object, OnShare, &mut locks);
    assert!(
        matches!(&taken[..], [Mark::Object { by, .. }] if by == "ResourceLock 'two'"),
        "{taken:?}"
    );
    assert_eq!(marked(&mut object, OnShare, &mut []), [Mark::Lift]);
}

/// Or somebody who takes the mark off, having seen no lock, could take off that of the new one.
#[test]
fn a_lock_made_anew_under_its_old_name_marks_its_object_anew() {
    let mut object = share("a").metadata;
    let mut locks = vec![on_share("keep")];
    marked(&mut object, OnShare, &mut locks);
    let mut anew = on_share("keep");
    anew.metadata.uid = Some("another-uid".into());
    let taken = marked(&mut object, OnShare, &mut [anew]);
    assert!(
        matches!(&taken[..], [Mark::Object { .. }, Mark::Locks(_)]),
        "{taken:?}"
    );
}

#[test]
fn the_order_in_which_locks_are_read_writes_nothing() {
    let mut object = share("a").metadata;
    let mut locks = vec![on_share("one"), on_share("two")];
    marked(&mut object, OnShare, &mut locks);
    object
        .annotations
        .as_mut()
        .unwrap()
        .insert("mine".into(), "too".into());
    assert_eq!(mark(OnShare, &object, &locks), None);
}

#[test]
fn another_reason_is_told_on_the_object() {
    let mut object = share("a").metadata;
    let mut locks = vec![because(on_share("keep"), "audit")];
    marked(&mut object, OnShare, &mut locks);
    locks[0] = because(locks[0].clone(), "payroll");
    assert!(
        matches!(mark(OnShare, &object, &locks), Some(Mark::Object { by, .. }) if by.contains("payroll"))
    );
}

/// A restored lock brings its label along, of an object that is no more.
#[test]
fn a_lock_enforced_on_another_object_is_marked_anew() {
    let mut object = share("a").metadata;
    let mut locks = vec![enforced(on_share("keep"), "uid-of-old")];
    let taken = marked(&mut object, OnShare, &mut locks);
    assert!(
        matches!(&taken[..], [Mark::Object { .. }, Mark::Locks(_)]),
        "{taken:?}"
    );
}

#[test]
fn the_locks_of_a_rule_mark_its_share_and_are_not_the_shares_to_mark() {
    let mut object = share("a").metadata;
    let mut locks = vec![lock("r", OnRule, "office")];
    let taken = marked(&mut object, OnShare, &mut locks);
    assert!(matches!(&taken[..], [Mark::Object { .. }]), "{taken:?}");
}

#[test]
fn what_is_being_deleted_is_not_marked() {
    let object = share("a").held().leaving().metadata;
    assert_eq!(mark(OnShare, &object, &[on_share("keep")]), None);
}

// ---- a lock's own pass

fn observed(lock: ResourceLock, target: Option<ObjectMeta>) -> Observed {
    Observed {
        lock,
        target,
        target_confirmed: true,
    }
}

fn later() -> Timestamp {
    "2027-01-01T00:00:00Z".parse().unwrap()
}

/// How it is told, once; and that it is not told again.
fn told_once(mut o: Observed) -> (LockPhase, Option<bool>, (String, String), bool) {
    let decision = decide(&o, now());
    assert_eq!((decision.step.clone(), decision.next), (None, Next::Await));
    let status = decision.status;
    o.lock.status = Some(status.clone());
    o.target_confirmed = false;
    assert_eq!(decide(&o, later()).status, status);
    assert_eq!(decide(&o, later()).step, None);
    (
        status.phase.unwrap(),
        status.enforced,
        told(&status.conditions, types::READY),
        says(&status.conditions, types::STALLED),
    )
}

fn not_ready(reason: &str) -> (String, String) {
    ("False".into(), reason.into())
}

#[test]
fn a_lock_on_nothing_waits_for_it_and_says_so_once_that_is_certain() {
    let mut o = observed(on_share("keep"), None);
    o.target_confirmed = false;
    assert_eq!(decide(&o, now()).step, Some(Step::Do(Effect::FindTarget)));
    let told = told_once(observed(on_share("keep"), None));
    assert_eq!(
        told,
        (
            LockPhase::Pending,
            Some(false),
            not_ready(reasons::TARGET_NOT_FOUND),
            false
        )
    );
}

#[test]
fn a_lock_on_an_object_that_never_comes_again_is_stalled() {
    for target in [None, Some(share("a").metadata)] {
        let told = told_once(observed(of_uid(on_share("keep"), "uid-gone"), target));
        assert_eq!(
            told,
            (
                LockPhase::Pending,
                Some(false),
                not_ready(reasons::TARGET_NOT_FOUND),
                true
            )
        );
    }
}

#[test]
fn a_lock_on_what_is_being_deleted_says_that_it_holds_what_is_left() {
    let target = Some(share("a").held().leaving().metadata);
    for lock in [on_share("keep"), enforced(on_share("keep"), "uid-a")] {
        let told = told_once(observed(lock, target.clone()));
        assert_eq!(
            told,
            (
                LockPhase::Holding,
                Some(false),
                not_ready(reasons::TARGET_DELETING),
                true
            )
        );
    }
}

#[test]
fn a_lock_is_told_enforced_when_its_object_is_marked_and_not_before() {
    let target = Some(share("a").metadata);
    let fresh = decide(&observed(on_share("keep"), target.clone()), now());
    assert_eq!((fresh.step, fresh.status), (None, ResourceLockStatus::default()));
    let told = told_once(observed(enforced(on_share("keep"), "uid-a"), target.clone()));
    assert_eq!(
        told,
        (
            LockPhase::Enforced,
            Some(true),
            ("True".into(), reasons::ENFORCED.into()),
            false
        )
    );
    let elsewhere = decide(&observed(enforced(on_share("keep"), "uid-old"), target), now());
    assert_eq!(elsewhere.status, ResourceLockStatus::default());
}

// ---- a locked share

fn settled() -> World {
    World::settled(share("a"), [rule("r", "10.0.0.1")])
}

fn locked(lock: ResourceLock) -> World {
    let mut world = settled();
    world.locks.push(lock);
    world.run_to_rest();
    world
}

#[test]
fn a_locked_share_that_is_deleted_waits_and_says_why_and_goes_with_the_last_lock() {
    for lock in [on_share("keep"), lock("keep", OnRule, "r")] {
        let mut world = locked(lock);
        world.locks.push(because(on_share("other"), "audit"));
        world.run_to_rest();
        let before = world.access();
        world.delete_share();
        for left in [2, 1] {
            assert_eq!(world.locks.len(), left);
            world.run_to_rest();
            let conditions = world.status().conditions;
            let blocked = conditions
                .iter()
                .find(|c| c.type_ == types::DELETION_BLOCKED)
                .unwrap();
            assert_eq!(blocked.reason, reasons::LOCKED);
            assert!(blocked.message.contains("'other' (audit)"), "{}", blocked.message);
            assert_eq!(
                blocked.message.contains("'keep'"),
                left == 2,
                "{}",
                blocked.message
            );
            assert!(says(&conditions, types::READY), "it is in use: {conditions:?}");
            assert_eq!(world.access(), before);
            world.locks.remove(0);
        }
        world.run_to_rest();
        assert_eq!(world.share, None);
    }
}

#[test]
fn a_lock_that_the_cache_has_not_heard_of_holds() {
    let mut world = settled();
    world.cached_locks = Some(Vec::new());
    world.locks.push(on_share("keep"));
    world.delete_share();
    world.steps.clear();
    world.pass(None);
    assert_eq!(world.steps[0], "ConfirmLocks", "nothing before they are read");
    assert!(world.share.is_some() && world.subvolume.is_some());
    assert!(says(&world.status().conditions, types::DELETION_BLOCKED));
}

/// It is told which lock, whatever else there is to say.
#[test]
fn a_share_that_can_not_be_worked_on_says_what_its_deletion_waits_for() {
    let mut world = locked(on_share("keep"));
    world.delete_share();
    world.subvolume = None;
    world.run_to_rest();
    assert_eq!(
        told(&world.status().conditions, types::DELETION_BLOCKED).1,
        reasons::LOCKED
    );
    assert_eq!(why_not_ready(&world.status().conditions), reasons::VOLUME_MISSING);
    world.locks.clear();
    world.run_to_rest();
    assert_eq!(world.share, None);
}

#[test]
fn a_share_without_a_place_that_waits_for_a_lock_gets_none() {
    let mut world = World::new(share("a").held(), []);
    world.locks.push(on_share("keep"));
    world.delete_share();
    world.run_to_rest();
    assert_eq!(world.subvolume, None);
    assert_eq!(world.status().backend_name, None);
    assert!(says(&world.status().conditions, types::DELETION_BLOCKED));
    world.locks.clear();
    world.run_to_rest();
    assert_eq!(world.share, None);
}

#[test]
fn other_rules_of_a_share_that_waits_for_a_lock_still_go() {
    let mut world = locked(on_share("keep"));
    world.delete_share();
    world.run_to_rest();
    world.delete_rule("r");
    world.run_to_rest();
    assert_eq!(world.access(), []);
    assert!(world.rules.is_empty());
}

#[test]
fn a_plain_delete_asks_for_locks_once_and_writes_nothing_more() {
    let mut world = settled();
    world.delete_share();
    (world.steps, world.status_writes) = (vec![], 0);
    world.pass(None);
    let asked = world.steps.iter().filter(|step| **step == "ConfirmLocks").count();
    assert_eq!((asked, world.status_writes), (1, 0));
    assert!(!world.steps.contains(&"Mark"));
}

#[test]
fn in_a_namespace_that_goes_no_secret_is_made() {
    let world = World::settled(share("a").cephfs(), [cephx_rule("r", None)]);
    let mut o = world.load().unwrap();
    o.look_due = true;
    o.sight = Some(world.sight());
    o.rules_confirmed = true;
    o.rules[0].credentials = rules::Credentials::Missing;
    let asks = |o: &share::Observed| share::decide(o, now()).step;
    assert!(matches!(asks(&o), Some(Step::Do(OfShare::FetchKey(_)))));
    o.namespace_deleted = Some(Time(now()));
    assert_eq!(asks(&o), None);
}

// ---- a locked rule

#[test]
fn a_locked_rule_that_is_deleted_stays_in_force_and_says_why() {
    let mut world = locked(lock("keep", OnRule, "r"));
    let before = world.access();
    world.delete_rule("r");
    world.run_to_rest();
    assert_eq!(world.access(), before);
    let status = world.rule("r").status.clone().unwrap();
    assert_eq!(status.phase, Some(AccessPhase::Active));
    assert_eq!(
        told(&status.conditions, types::DELETION_BLOCKED).1,
        reasons::LOCKED
    );
    world.locks.clear();
    world.run_to_rest();
    assert_eq!(world.access(), []);
    assert!(world.rules.is_empty());
}

#[test]
fn a_lock_on_a_rule_that_the_cache_has_not_heard_of_holds_its_client() {
    let mut world = settled();
    let before = world.access();
    world.cached_locks = Some(Vec::new());
    world.locks.push(lock("keep", OnRule, "r"));
    world.delete_rule("r");
    world.pass(None);
    assert_eq!(world.access(), before);
}

#[test]
fn a_rule_whose_share_can_not_be_made_is_let_go_only_when_its_locks_were_asked_for() {
    let mut world = World::new(share("a").held(), [rule("r", "10.0.0.1").held()]);
    world.backend = None;
    world.cached_locks = Some(Vec::new());
    world.locks.push(lock("keep", OnRule, "r"));
    world.delete_rule("r");
    world.pass(None);
    world.run_to_rest();
    assert_eq!(world.rules.len(), 1);
    let conditions = &world.rule("r").status.as_ref().unwrap().conditions;
    assert_eq!(told(conditions, types::DELETION_BLOCKED).1, reasons::LOCKED);
    world.locks.clear();
    world.run_to_rest();
    assert!(world.rules.is_empty());
}

#[test]
fn a_locked_rule_without_a_share_waits() {
    let mut o = rules::Observed {
        rule: rule("r", "10.0.0.1").held().leaving(),
        share_exists: false,
        absence_confirmed: false,
        locks: vec![],
    };
    assert_eq!(
        rules::decide(&o, now()).step,
        Some(Step::Do(rules::Effect::ConfirmAbsence))
    );
    // The answer: there is no share, and there is a lock.
    o.absence_confirmed = true;
    o.locks = vec![lock("keep", OnRule, "r")];
    let decision = rules::decide(&o, now());
    assert_eq!(decision.step, None);
    assert_eq!(
        told(&decision.status.conditions, types::DELETION_BLOCKED).1,
        reasons::LOCKED
    );
    o.locks.clear();
    assert_eq!(rules::decide(&o, now()).step, Some(Step::RemoveFinalizer));
}

#[test]
fn a_rule_is_marked_by_its_own_pass_whether_it_has_a_share_or_not() {
    for share_exists in [true, false] {
        let o = rules::Observed {
            rule: rule("r", "10.0.0.1").held(),
            share_exists,
            absence_confirmed: true,
            locks: vec![lock("keep", OnRule, "r")],
        };
        assert!(matches!(
            rules::decide(&o, now()).step,
            Some(Step::Do(rules::Effect::Mark(Mark::Object { .. })))
        ));
    }
}
