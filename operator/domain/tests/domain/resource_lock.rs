//! What locks hold, how that is marked, and what each lock is told.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::core::ObjectMeta;
use shoal_crds::{
    AccessPhase, CredentialsSecretReference, LockAction, LockPhase, LockReference,
    LockedKind::{self, Share as OnShare, ShareAccessRule as OnRule},
    ResourceLock, ResourceLockStatus, ShareAccessRule,
    condition::{reasons, types},
    names::{LOCKED_BY, labels},
};
use shoal_domain::{
    Next, Step,
    resource_lock::{Effect, Mark, Observed, decide, hiding, holds, mark, told as told_of},
    share::{self, Effect as OfShare},
    share_access_rule as rules,
};

use crate::{
    fixtures::*,
    world::{Stored, World},
};

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
        rule: None,
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
    assert!(matches!(asks(&o), Some(Step::Do(OfShare::FetchKeys(_)))));
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
        custody_ended: false,
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
            custody_ended: false,
            locks: vec![lock("keep", OnRule, "r")],
        };
        assert!(matches!(
            rules::decide(&o, now()).step,
            Some(Step::Do(rules::Effect::Mark(Mark::Object { .. })))
        ));
    }
}

// ---- a hidden key

fn by(lock: &ResourceLock) -> LockReference {
    LockReference {
        name: lock.named().into(),
        uid: lock.metadata.uid.clone().unwrap(),
    }
}

fn hidden_by(mut rule: ShareAccessRule, lock: &ResourceLock) -> ShareAccessRule {
    rule = rule.told(AccessPhase::Active);
    rule.status.as_mut().unwrap().hidden_by = Some(by(lock));
    rule
}

#[test]
fn the_oldest_show_lock_hides_a_rule_and_no_later_one_takes_its_place() {
    let trainer = cephx_rule("r", None);
    let first = show_lock("z", "r", "alice").aged(9);
    let later = show_lock("b", "r", "bob");
    let locks = [
        show_lock("other", "s", "bob").aged(99),
        lock("keep", OnRule, "r").aged(99),
        later.clone(),
        first.clone(),
    ];
    assert_eq!(hiding(&trainer, &[]), None);
    assert_eq!(hiding(&trainer, &locks), Some(&first));
    // Within a second anybody could choose a name that comes first.
    let same_second = [show_lock("a", "r", "bob").aged(9), first.clone()];
    assert_eq!(
        hiding(&hidden_by(trainer.clone(), &first), &same_second),
        Some(&first)
    );
    assert_eq!(
        hiding(&hidden_by(trainer, &first), std::slice::from_ref(&later)),
        Some(&later)
    );
}

#[test]
fn a_client_that_is_named_can_not_be_hidden_and_the_lock_says_why_and_what_to_do() {
    let cases = [
        (
            rule("r", "10.0.0.1"),
            ["accessTo '10.0.0.1'", "accessToSecretRef"],
        ),
        (
            cephx_rule("r", Some("bob")),
            ["accessTo 'bob'", "make a rule without it"],
        ),
        (
            rule("r", "").named_in("who"),
            ["Secret 'who'", "let only its readers"],
        ),
        (
            cephx_rule("r", None).named_in("who"),
            ["Secret 'who'", "make a rule without it"],
        ),
    ];
    for (rule, words) in cases {
        let lock = show_lock("hide", "r", "alice");
        assert_eq!(hiding(&rule, std::slice::from_ref(&lock)), None);
        let mut o = observed(lock, Some(rule.metadata.clone()));
        o.rule = Some(rule);
        let status = decide(&o, now()).status;
        let message = &status
            .conditions
            .iter()
            .find(|c| c.type_ == types::READY)
            .unwrap()
            .message;
        for word in words {
            assert!(message.contains(word), "{message}");
        }
        assert!(
            message.starts_with("spec.resourceRef: ShareAccessRule 'r' "),
            "{message}"
        );
        let (phase, enforced, ready, stalled) = told_once(o);
        assert_eq!((phase, enforced), (LockPhase::Pending, Some(false)));
        assert_eq!((ready, stalled), (not_ready(reasons::CANNOT_BE_HIDDEN), true));
    }
}

#[test]
fn a_show_lock_is_told_enforced_when_its_owner_alone_can_get_the_key_and_not_before() {
    let lock = show_lock("hide", "r", "alice");
    let said = |rule: ShareAccessRule| {
        let mut o = observed(lock.clone(), Some(rule.metadata.clone()));
        o.rule = Some(rule);
        let (phase, enforced, ready, stalled) = told_once(o);
        assert_eq!(
            (phase == LockPhase::Enforced, stalled),
            (enforced.unwrap(), false)
        );
        ready
    };
    let mut trainer = cephx_rule("r", None).told(AccessPhase::Active);
    let status = |rule: &mut ShareAccessRule, namespace: Option<&str>| {
        rule.status.as_mut().unwrap().credentials_secret_ref = Some(CredentialsSecretReference {
            name: "x".into(),
            namespace: namespace.map(Into::into),
        });
    };
    status(&mut trainer, None);
    assert_eq!(said(trainer.clone()), not_ready(reasons::NOT_HIDDEN_YET));
    trainer.status.as_mut().unwrap().hidden_by = Some(by(&lock));
    assert_eq!(said(trainer.clone()), not_ready(reasons::NOT_HIDDEN_YET));
    status(&mut trainer, Some(CUSTODY));
    let enforced = || ("True".into(), reasons::ENFORCED.into());
    assert_eq!(said(trainer.clone()), enforced());
    // One that is being deleted is hidden as long as it is there.
    assert_eq!(said(trainer.clone().held().leaving()), enforced());
    let mut other = lock.clone();
    other.metadata.uid = Some("uid-other".into());
    trainer.status.as_mut().unwrap().hidden_by = Some(by(&other));
    assert_eq!(said(trainer), not_ready(reasons::HIDDEN_BY_ANOTHER));
}

fn trained() -> World {
    let mut world = World::settled(share("a").cephfs(), [cephx_rule("r", None)]);
    world.steps.clear();
    world
}

fn hide(world: &mut World, name: &str, owner: &str) {
    world.hide(show_lock(name, "r", owner));
    world.steps.clear();
    world.pass(None);
}

fn identity(world: &World) -> String {
    world.access()[0].client.to_string()
}

#[test]
fn a_key_that_others_may_have_read_is_replaced_when_it_is_hidden() {
    let mut world = trained();
    assert_eq!((identity(&world), world.secrets.len()), ("shoal-uid-r".into(), 1));
    hide(&mut world, "hide", "alice");
    assert_eq!(
        world.steps,
        [
            "Look",
            "ConfirmRules",
            // That something may be in custody is recorded before it is.
            "ReportRules",
            "Export",
            "ForgetKeys",
            "ReportRules"
        ]
    );
    assert_eq!(
        (identity(&world), world.secrets.len()),
        ("shoal-uid-hide".into(), 0)
    );
    let status = world.rule("r").status.clone().unwrap();
    assert_eq!(status.identity.as_deref(), Some("shoal-uid-hide"));
    let secret = status.credentials_secret_ref.unwrap();
    assert_eq!(
        (secret.name.as_str(), secret.namespace.as_deref()),
        ("shoal-uid-hide", Some(CUSTODY))
    );
    world.run_to_rest();
}

#[test]
fn a_key_returns_as_it_is_when_its_lock_goes_and_nobody_has_to_mount_anew() {
    let mut world = trained();
    hide(&mut world, "hide", "alice");
    let before = world.access();
    world.locks.clear();
    world.steps.clear();
    world.pass(None);
    assert_eq!(
        world.steps,
        ["Look", "ConfirmRules", "ForgetKeys", "FetchKeys", "ReportRules"]
    );
    assert_eq!(
        (world.access(), world.secrets.len(), world.custody.len()),
        (before, 1, 0)
    );
    world.run_to_rest();
}

#[test]
fn the_next_owner_gets_another_key_than_the_one_before() {
    let mut world = trained();
    hide(&mut world, "hide", "alice");
    hide(&mut world, "later", "bob");
    assert_eq!(world.custody["uid-hide"].reader, "alice");
    world.locks.remove(0);
    world.run_to_rest();
    assert_eq!(world.custody.len(), 1);
    let hidden = &world.custody["uid-later"];
    assert_eq!(
        (hidden.reader.as_str(), hidden.identity.as_str()),
        ("bob", "shoal-uid-later")
    );
    assert_eq!(world.access().len(), 1);
}

#[test]
fn the_key_of_a_rule_that_is_hidden_from_birth_is_never_shown() {
    let mut world = World::new(share("a").cephfs(), [cephx_rule("r", None)]);
    world.hide(show_lock("hide", "r", "alice"));
    world.run_to_rest();
    assert_eq!(
        (world.secrets.len(), identity(&world)),
        (0, "shoal-uid-hide".into())
    );
}

#[test]
fn a_hidden_key_that_was_lost_is_put_back_and_what_is_shown_beside_it_goes() {
    let mut world = trained();
    hide(&mut world, "hide", "alice");
    world.custody.clear();
    world.run_to_rest();
    assert_eq!(world.custody.len(), 1);
    let shown = Stored::Ours {
        rule_uid: "uid-r".into(),
        identity: "shoal-uid-r".into(),
    };
    world.secrets.insert("r-cephx".into(), shown);
    world.run_to_rest();
    assert!(world.secrets.is_empty());
}

#[test]
fn nothing_is_left_in_custody_for_a_rule_that_goes() {
    let mut world = trained();
    hide(&mut world, "hide", "alice");
    world.delete_rule("r");
    world.run_to_rest();
    assert!(world.rules.is_empty() && world.custody.is_empty());

    // Where the share has gone before it, too.
    let mut o = rules::Observed {
        rule: hidden_by(cephx_rule("r", None), &show_lock("hide", "r", "alice"))
            .held()
            .leaving(),
        share_exists: false,
        absence_confirmed: true,
        custody_ended: false,
        locks: vec![],
    };
    assert_eq!(
        rules::decide(&o, now()).step,
        Some(Step::Do(rules::Effect::EndCustody))
    );
    o.custody_ended = true;
    assert_eq!(rules::decide(&o, now()).step, Some(Step::RemoveFinalizer));
    o.rule.metadata.deletion_timestamp = None;
    assert!(rules::decide(&o, now()).status.hidden_by.is_some(), "forgotten");
}

#[test]
fn a_key_that_returns_is_not_written_over_a_secret_of_somebody_elses() {
    let mut world = trained();
    hide(&mut world, "hide", "alice");
    world.secrets.insert("r-cephx".into(), Stored::Foreign);
    world.run_to_rest();
    assert_eq!(world.custody.len(), 1);
    world.locks.clear();
    world.run_to_rest();
    assert_eq!(world.secrets["r-cephx"], Stored::Foreign);
    assert!(world.access().is_empty() && world.custody.is_empty());
}

/// The cache may have heard that one lock went, and not yet of the one that was made with it.
#[test]
fn no_hidden_key_is_shown_on_the_caches_word() {
    let mut world = trained();
    hide(&mut world, "hide", "alice");
    world.cached_locks = Some(Vec::new());
    world.pass(None);
    assert!(world.secrets.is_empty());
    world.run_to_rest();
}
