//! Every rule of [`shoal_domain::share::decide`].

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use shoal_crds::{
    AccessLevel, MountPointNames, Placement, Share, SharePhase, ShareStatus, Size,
    condition::{reasons, types},
    names::PAUSED,
};
use shoal_domain::{
    Class, Decision, Failure, Next, Scope, Step,
    grant::{Access, Key},
    identity::Description,
    mount_point::NfsCluster,
    owner::Tag,
    share::{Effect, Observed, decide},
    share_access_rule::{Credentials, Report},
    share_quota::{Amount, Usage},
    volume::{Export, NewVolume, Sight},
};

use crate::{fixtures::*, world::World};

type ShareDecision = Decision<ShareStatus, Effect>;

fn decided(o: &Observed) -> ShareDecision {
    decide(o, now())
}

/// The effect that is asked for; none if it is another step, or the end.
fn effect(o: &Observed) -> Option<Effect> {
    match decided(o).step {
        Some(Step::Do(effect)) => Some(effect),
        _ => None,
    }
}

fn reports(o: &Observed) -> Vec<Report> {
    match effect(o) {
        Some(Effect::ReportRules(reports)) => reports,
        other => panic!("{other:?}"),
    }
}

/// The pass ends without a step, and the status is what it was.
fn assert_untouched(o: &Observed) {
    let decision = decided(o);
    assert_eq!(decision.step, None);
    assert_eq!(decision.status, o.share.status.clone().unwrap_or_default());
}

/// A pass over a share that was just made.
fn fresh(share: Share) -> Observed {
    World::new(share, []).load().unwrap()
}

/// A pass over a share that is Ready with one rule, which lets 10.0.0.1 write.
fn ready() -> Observed {
    ready_world().load().unwrap()
}

fn ready_world() -> World {
    World::settled(share("a"), [rule("r", "10.0.0.1")])
}

/// A pass that has looked and seen what is really there, and read the rules live.
fn looked(world: &World) -> Observed {
    let mut o = world.load().unwrap();
    o.sight = Some(world.sight());
    o.rules_confirmed = true;
    o
}

/// The rules as the API server has them after a user's change.
fn resized(text: &str) -> World {
    let mut world = ready_world();
    world.edit_share(|s| s.sized(text));
    world
}

fn not_ready() -> Result<Description, Failure> {
    Err(failure(
        Scope::Backend,
        Class::Transient,
        reasons::BACKEND_UNREACHABLE,
    ))
}

fn own_failure() -> Failure {
    failure(Scope::Object, Class::Transient, reasons::BACKEND_ERROR)
}

fn backends_failure() -> Failure {
    failure(Scope::Backend, Class::Transient, reasons::COMMAND_TIMED_OUT)
}

// ---- finalizer, choice, creation

#[test]
fn the_finalizer_comes_first_of_all() {
    assert_eq!(decided(&fresh(share("a"))).step, Some(Step::AddFinalizer));
    // Even on a share that has been placed: somebody may have taken it off by hand.
    assert_eq!(
        decided(&fresh(share("a").placed().not_held())).step,
        Some(Step::AddFinalizer)
    );
}

#[test]
fn the_choice_is_stored_before_any_effect() {
    let decision = decided(&fresh(share("a").held()));
    assert_eq!(decision.step, Some(Step::Record));
    let status = decision.status;
    assert_eq!(status.backend_name.as_deref(), Some("ceph-a"));
    assert_eq!(status.share_type_name.as_deref(), Some("standard"));
    assert_eq!(
        (status.fsid.as_deref(), status.fs_name.as_deref(), status.fs_id),
        (Some("fsid-1"), Some("cephfs"), Some(1))
    );
    assert_eq!(status.capabilities.unwrap().size.max, Some(size("10Gi")));
    assert_eq!(status.phase, Some(SharePhase::Creating));
    assert!(says(&status.conditions, types::SCHEDULED));
}

#[test]
fn a_stored_choice_is_acted_on_in_the_same_pass() {
    // What was loaded before the choice knows the backend only as a candidate.
    let mut o = fresh(share("a").held());
    o.share.status = Some(decided(&o).status);
    assert!(matches!(effect(&o), Some(Effect::Create(_))));
}

#[test]
fn a_new_share_is_made_without_a_look_with_the_size_and_root_of_its_type() {
    let mut placed = share("a").placed();
    let root = &mut placed
        .status
        .as_mut()
        .unwrap()
        .capabilities
        .as_mut()
        .unwrap()
        .root;
    (root.uid, root.mode) = (1000, "0770".into());
    let new = NewVolume {
        size_bytes: GI,
        root: root.clone(),
        was_there: false,
    };
    assert_eq!(effect(&fresh(placed)), Some(Effect::Create(new)));
}

#[test]
fn a_create_costs_these_steps_and_two_status_writes() {
    let mut world = World::new(share("a").held(), [rule("r", "10.0.0.1").held()]);
    world.pass(None);
    assert_eq!(
        world.steps,
        [
            "Record",
            "Create",
            "ConfirmRules",
            "Export",
            "ReportRules",
            "Annotate"
        ]
    );
    assert_eq!(world.status_writes, 2);
    assert_eq!(world.status().phase, Some(SharePhase::Available));
    assert!(says(&world.status().conditions, types::READY));
}

#[test]
fn a_share_without_rules_is_exported_to_nobody() {
    let world = World::settled(share("a"), []);
    assert_eq!(world.export, world.ours(Access::new()));
    let annotations = world.share().metadata.annotations.clone().unwrap();
    assert_eq!(
        annotations["shoal.storage/export-location"],
        "10.9.0.7:/shoal-uid-a"
    );
}

#[test]
fn a_share_that_no_type_or_backend_takes_says_why_and_its_rules_wait() {
    for (case, reason, kept) in [
        (1, reasons::SHARE_TYPE_NOT_FOUND, types::RECONCILING),
        (2, reasons::SIZE_OUT_OF_RANGE, types::STALLED),
        (3, reasons::NO_BACKEND_FITS, types::RECONCILING),
        (4, reasons::SHARE_TYPE_NOT_ALLOWED, types::STALLED),
        (5, reasons::PROTOCOL_NOT_OFFERED, types::STALLED),
    ] {
        let mut world = World::new(share("a").held(), [rule("r", "10.0.0.1")]);
        let spec = &mut world.share_type.as_mut().unwrap().spec;
        match case {
            4 => {
                let labels = [("team".to_owned(), "blue".to_owned())].into();
                spec.allowed_namespaces = Some(shoal_crds::LabelSelector { match_labels: labels });
            }
            5 => spec.protocols = vec![shoal_crds::Protocol::CephFS],
            1 => {
                world.share_type = Err(failure(
                    Scope::Object,
                    Class::Waiting,
                    reasons::SHARE_TYPE_NOT_FOUND,
                ));
            }
            2 => world.edit_share(|s| s.sized("11Gi")),
            _ => world.backend = Some(not_ready()),
        }
        world.run_to_rest();
        let status = world.status();
        assert_eq!(why_not_ready(&status.conditions), reason);
        assert_eq!(
            told(&status.conditions, types::SCHEDULED),
            ("False".into(), reason.into())
        );
        assert!(says(&status.conditions, kept), "{case}");
        assert_eq!(status.phase, Some(SharePhase::Pending));
        assert_eq!(status.backend_name, None);
        let rule = world.rule("r").status.clone().unwrap();
        assert_eq!(rule.phase, Some(shoal_crds::AccessPhase::QueuedToApply));
        assert_eq!(why_not_ready(&rule.conditions), reasons::SHARE_NOT_READY);
        assert_eq!(world.steps, ["ReportRules"], "told once, and nothing else done");
    }
}

#[test]
fn unfinished_is_finished() {
    let mut o = fresh(share("a").placed());
    o.sight = volume(&share("a")).tagged(Tag::Absent).seen();
    assert!(matches!(effect(&o), Some(Effect::Create(_))));
}

#[test]
fn finishing_does_not_resize_behind_the_rules_of_shrinking() {
    let mut world = resized("512Mi");
    world.subvolume.as_mut().unwrap().tag = Tag::Absent;
    match effect(&looked(&world)) {
        Some(Effect::Create(new)) => assert_eq!((new.size_bytes, new.was_there), (GI, true)),
        other => panic!("{other:?}"),
    }
}

// ---- at rest

#[test]
fn a_settled_share_does_nothing_and_says_exactly_what_it_said() {
    assert_untouched(&ready());
    assert_eq!(decided(&ready()).next, Next::After(ready().look_again));
}

#[test]
fn saying_the_same_again_is_no_news_however_late() {
    let world = ready_world();
    let later = "2027-01-01T00:00:00Z".parse().unwrap();
    let decision = decide(&looked(&world), later);
    assert_eq!((decision.step, decision.status), (None, world.status()));
}

#[test]
fn when_a_look_is_due_it_looks_and_stays_ready() {
    let mut o = ready();
    o.look_due = true;
    let decision = decided(&o);
    assert_eq!(decision.step, Some(Step::Do(Effect::Look)));
    assert!(says(&decision.status.conditions, types::READY));
    assert!(says(&decision.status.conditions, types::RECONCILING));
}

#[test]
fn any_change_of_what_status_rests_on_makes_it_look() {
    let changes: [fn(&mut Observed); 7] = [
        |o| o.share = o.share.clone().edited(),
        |o| o.rules.push(rule("s", "10.0.0.2").view()),
        |o| o.rules.clear(),
        |o| o.rules[0].rule = o.rules[0].rule.clone().edited(),
        |o| o.rules[0].rule = o.rules[0].rule.clone().leaving(),
        |o| o.share.metadata.annotations = None,
        |o| o.backend = Some(Ok(moved(backend_description()))),
    ];
    for (i, change) in changes.iter().enumerate() {
        let mut o = ready();
        change(&mut o);
        assert_eq!(effect(&o), Some(Effect::Look), "{i}");
    }
}

#[test]
fn a_backend_that_moved_is_republished_and_nothing_else() {
    let mut world = ready_world();
    let before = world.status();
    world.backend = Some(Ok(moved(backend_description())));
    world.steps.clear();
    world.pass(None);
    assert_eq!(world.steps, ["Look", "Annotate"]);
    let after = world.status();
    assert_eq!(after.export_locations[0].path, "10.9.0.8:/shoal-uid-a");
    assert_ne!(after.export_revision, before.export_revision);
}

#[test]
fn a_crash_between_annotations_and_status_does_not_go_unnoticed() {
    let mut world = ready_world();
    world.backend = Some(Ok(moved(backend_description())));
    world.pass(Some(1));
    assert_eq!(world.steps.last(), Some(&"Annotate"));
    world.pass(None);
    assert_eq!(world.status().export_locations[0].path, "10.9.0.8:/shoal-uid-a");
}

// ---- its backend

#[test]
fn no_effect_while_the_backend_is_missing_not_ready_or_replaced() {
    for (backend, reason) in [
        (None, reasons::BACKEND_NOT_FOUND),
        (Some(not_ready()), reasons::BACKEND_NOT_READY),
        (
            Some(Ok(replaced(backend_description()))),
            reasons::BACKEND_REPLACED,
        ),
    ] {
        for leaving in [false, true] {
            let mut o = fresh(share("a").placed());
            o.backend = backend.clone();
            if leaving {
                o.share = o.share.leaving();
            }
            let decision = decided(&o);
            assert_eq!(decision.step, None);
            assert_eq!(decision.next, Next::Await, "the backend wakes it");
            let condition = if leaving {
                types::DELETION_BLOCKED
            } else {
                types::READY
            };
            assert_eq!(told(&decision.status.conditions, condition).1, reason);
            o.share.status = Some(decision.status);
            assert_untouched(&o);
        }
    }
}

#[test]
fn before_a_backend_has_been_asked_its_shares_say_nothing() {
    let why = failure(Scope::Backend, Class::Waiting, reasons::BACKEND_NOT_ASKED);
    let placed = share("a").placed();
    for share in [placed.clone(), placed.leaving()] {
        let mut o = fresh(share);
        o.rules = vec![rule("r", "10.0.0.1").view()];
        o.backend = Some(Err(why.clone()));
        assert_untouched(&o);
        assert_eq!(decided(&o).next, Next::Await, "the answer wakes it");
    }
}

#[test]
fn a_file_system_re_made_under_the_same_name_is_another() {
    let mut o = ready();
    let mut other = backend_description();
    other.identity.fs_id = 2;
    o.backend = Some(Ok(other));
    let decision = decided(&o);
    assert_eq!(decision.step, None);
    assert_eq!(
        why_not_ready(&decision.status.conditions),
        reasons::BACKEND_REPLACED
    );
    assert!(says(&decision.status.conditions, types::STALLED));
    assert_eq!(decision.status.phase, Some(SharePhase::Error));
}

#[test]
fn a_backend_in_trouble_leaves_a_ready_share_untouched() {
    for backend in [None, Some(not_ready())] {
        let mut o = ready();
        o.look_due = true;
        o.backend = backend;
        assert_untouched(&o);
    }
    let mut o = ready();
    o.look_due = true;
    o.failure = Some(backends_failure());
    assert_untouched(&o);
    // It looks again by itself, for the backend may not have noticed.
    assert!(matches!(decided(&o).next, Next::After(wait) if wait.as_secs() < 30));
}

#[test]
fn a_ready_share_with_work_waiting_for_its_backend_stays_ready_and_says_so() {
    let mut o = ready();
    o.rules.push(rule("s", "10.0.0.2").view());
    o.backend = Some(not_ready());
    let told_rules = reports(&o);
    assert_eq!(told_rules.len(), 1, "rules in force are left alone");
    assert_eq!(told_rules[0].rule.named(), "s");
    let status = decided(&o).status;
    assert!(says(&status.conditions, types::READY));
    assert_eq!(
        told(&status.conditions, types::RECONCILING),
        ("True".into(), reasons::BACKEND_NOT_READY.into())
    );
}

#[test]
fn a_share_recovers_when_its_own_backend_is_back() {
    let mut world = ready_world();
    world.backend = Some(Ok(replaced(backend_description())));
    world.run_to_rest();
    assert!(!says(&world.status().conditions, types::READY));
    world.backend = Some(Ok(backend_description()));
    world.run_to_rest();
    assert!(says(&world.status().conditions, types::READY));
}

// ---- failures

#[test]
fn its_own_failures_back_off_and_status_remembers() {
    let mut o = fresh(share("a").placed());
    let mut waits = Vec::new();
    for attempt in 1..=8 {
        o.failure = Some(own_failure());
        let decision = decided(&o);
        let Next::After(wait) = decision.next else {
            panic!()
        };
        waits.push(wait);
        assert_eq!(decision.step, None);
        assert_eq!(decision.status.attempts, Some(attempt));
        assert!(decision.status.next_retry_time.is_some());
        assert_eq!(decision.status.phase, Some(SharePhase::Error));
        assert_eq!(why_not_ready(&decision.status.conditions), reasons::BACKEND_ERROR);
        o.share.status = Some(decision.status);
    }
    assert!(waits.is_sorted(), "{waits:?}");

    // A restart does not forget it.
    o.failure = None;
    assert_untouched(&o);
    assert!(matches!(decided(&o).next, Next::After(wait) if wait <= waits[7]));

    // A change of the spec is tried at once, and so is one of a rule, and so is it when the time has come.
    let mut edited = o.clone();
    edited.share = edited.share.edited();
    assert!(matches!(effect(&edited), Some(Effect::Create(_))));
    let mut ruled = o.clone();
    ruled.rules.push(rule("s", "10.0.0.2").view());
    assert!(matches!(effect(&ruled), Some(Effect::Create(_))));
    let then = now() + waits[7];
    assert!(matches!(decide(&o, then).step, Some(Step::Do(Effect::Create(_)))));
}

#[test]
fn who_is_to_lose_access_does_not_keep_it_because_something_else_failed() {
    let mut world = ready_world();
    let mut o = looked(&world);
    o.failure = Some(own_failure());
    world.share.as_mut().unwrap().status = Some(decided(&o).status);
    assert_untouched(&world.load().unwrap());
    world.delete_rule("r");
    world.pass(None);
    assert_eq!(world.access(), []);
    assert!(world.rules.is_empty());
}

#[test]
fn what_was_told_already_does_not_undo_the_back_off() {
    let mut world = World::new(share("a").placed(), [rule("r", "10.0.0.1").held()]);
    world.delete_rule("r");
    world.faults = [Some(crate::world::Fault {
        scope: Scope::Object,
        took_place: false,
    })]
    .into();
    world.pass(None);
    assert_eq!(world.steps, ["Create", "ReportRules"]);
    assert_eq!(
        world.rule("r").status.as_ref().unwrap().phase,
        Some(shoal_crds::AccessPhase::Denying)
    );
    assert_untouched(&world.load().unwrap());
}

#[test]
fn a_failure_that_only_a_change_helps_is_looked_at_again_now_and_then() {
    let mut o = ready();
    o.failure = Some(failure(Scope::Object, Class::Stalled, reasons::BACKEND_ERROR));
    let decision = decided(&o);
    assert_eq!(decision.next, Next::After(o.look_again));
    assert!(says(&decision.status.conditions, types::STALLED));
    assert_eq!(decision.status.attempts, None);
    o.share.status = Some(decision.status);
    assert_untouched(&o);
}

#[test]
fn success_forgets_the_failures() {
    let mut world = ready_world();
    let mut o = looked(&world);
    o.failure = Some(own_failure());
    world.share.as_mut().unwrap().status = Some(decided(&o).status);
    world.run_to_rest();
    assert_eq!(
        (world.status().attempts, world.status().next_retry_time),
        (None, None)
    );
    assert!(says(&world.status().conditions, types::READY));
}

#[test]
fn a_volume_once_seen_is_remembered_whatever_fails_afterwards() {
    let mut o = fresh(share("a").placed());
    o.sight = volume(&o.share).seen();
    for failure in [own_failure(), backends_failure()] {
        o.failure = Some(failure);
        assert!(says(&decided(&o).status.conditions, types::PROVISIONED));
    }
}

// ---- what it must not touch

#[test]
fn a_volume_that_is_gone_is_never_made_again() {
    for leftovers in [false, true] {
        let mut o = ready();
        o.rules.push(rule("s", "10.0.0.2").view());
        o.sight = Some(Sight::Absent { leftovers });
        assert_eq!(reports(&o)[0].rule.named(), "s", "who waits is told");
        o.rules.pop();
        let decision = decided(&o);
        assert_eq!(decision.step, None);
        let conditions = &decision.status.conditions;
        assert_eq!(why_not_ready(conditions), reasons::VOLUME_MISSING);
        assert!(says(conditions, types::STALLED));
        assert_eq!(told(conditions, types::EXPORTED).0, "False");
        assert_eq!(decision.status.phase, Some(SharePhase::Error));
        // Nor later, nor when the spec changes.
        o.share.status = Some(decision.status);
        o.share = o.share.edited();
        assert_eq!(decided(&o).step, None);
        o.sight = None;
        assert_eq!(effect(&o), Some(Effect::Look));
    }
}

#[test]
fn rules_go_though_the_volume_is_missing_once_nobody_is_let_in_any_more() {
    let mut world = ready_world();
    world.subvolume = None;
    world.run_to_rest();
    world.delete_rule("r");
    world.steps.clear();
    world.pass(None);
    assert_eq!(world.steps, ["Look", "Unexport", "ConfirmRules", "ReportRules"]);
    assert!(world.rules.is_empty());
    assert_eq!(why_not_ready(&world.status().conditions), reasons::VOLUME_MISSING);
}

#[test]
fn a_rule_is_not_let_go_while_it_is_not_known_who_is_let_in() {
    let mut world = ready_world();
    world.delete_rule("r");
    let mut o = world.load().unwrap();
    o.failure = Some(own_failure());
    assert!(reports(&o).iter().all(|r| !r.release));
    o.sight = Some(absent());
    assert!(
        reports(&o).iter().all(|r| !r.release),
        "a command that failed may take effect yet"
    );
    o.failure = None;
    o.sight = None;
    o.backend = Some(not_ready());
    assert!(reports(&o).iter().all(|r| !r.release));
}

#[test]
fn a_report_that_lets_a_rule_go_needs_the_share_read_live() {
    let mut world = ready_world();
    world.delete_rule("r");
    let mut o = looked(&world);
    o.sight = volume(&o.share).exported_to([]).seen();
    assert!(effect(&o).unwrap().needs_live_object());
    assert!(Effect::Remove.needs_live_object() && Effect::Remove.changes_backend());
    assert!(!Effect::Look.needs_live_object() && !Effect::ReportRules(vec![]).needs_live_object());
}

#[test]
fn a_volume_that_was_put_back_is_taken_again() {
    let mut world = ready_world();
    let lost = world.subvolume.take();
    world.run_to_rest();
    world.subvolume = lost;
    world.run_to_rest();
    assert!(says(&world.status().conditions, types::READY));
}

#[test]
fn hands_off_what_is_anothers() {
    for tag in [another_owner(), Tag::Unreadable] {
        for share in [share("a").placed(), ready().share] {
            let mut o = fresh(share);
            o.sight = volume(&o.share).tagged(tag.clone()).seen();
            let decision = decided(&o);
            assert_eq!(decision.step, None);
            assert_eq!(
                why_not_ready(&decision.status.conditions),
                reasons::OWNED_BY_ANOTHER
            );
            assert!(says(&decision.status.conditions, types::STALLED));
        }
    }
}

#[test]
fn a_share_of_the_same_name_with_another_uid_is_another() {
    let mut before = share("a");
    before.metadata.uid = Some("uid-of-the-one-before".into());
    let mut o = ready();
    o.sight = volume(&o.share).tagged(Tag::Owner(owner_of(&before))).seen();
    assert_eq!(
        why_not_ready(&decided(&o).status.conditions),
        reasons::OWNED_BY_ANOTHER
    );
}

#[test]
fn a_foreign_export_on_its_path_is_left_alone() {
    let mut world = ready_world();
    world.export = Export::Taken("cephfs:/other".into());
    let o = looked(&world);
    let decision = decided(&o);
    assert_eq!(decision.step, None);
    assert_eq!(
        why_not_ready(&decision.status.conditions),
        reasons::EXPORT_PATH_TAKEN
    );
    let message = &decision
        .status
        .conditions
        .iter()
        .find(|c| c.type_ == types::READY)
        .unwrap()
        .message;
    assert!(message.contains("cephfs:/other"), "{message}");
}

// ---- readable paths

/// Type `standard` lets its shares be named, without a prefix.
fn named(share: Share) -> World {
    let mut share = share;
    share.spec.mount_point_name = Some("data".into());
    let mut world = World::new(share, []);
    let names = &mut world.share_type.as_mut().unwrap().spec.mount_point_name;
    (names.enabled, names.prefix) = (true, Some(String::new()));
    world
}

fn nfs_cluster() -> NfsCluster {
    backend_description().nfs_cluster().unwrap()
}

#[test]
fn a_name_is_stored_with_the_choice_and_is_the_path() {
    let mut world = named(share("a").held());
    let decision = decided(&world.load().unwrap());
    assert_eq!(decision.step, Some(Step::Record));
    assert_eq!(decision.status.resolved_mount_point_name.as_deref(), Some("data"));
    assert_eq!(decision.status.nfs_cluster_id.as_deref(), Some("nfs-1"));
    world.run_to_rest();
    assert_eq!(world.status().export_locations[0].path, "10.9.0.7:/data");
    // Whatever becomes of the type, and whatever asks for a look.
    world.share_type.as_mut().unwrap().spec.mount_point_name = MountPointNames::default();
    world.look_due = true;
    let before = world.status();
    world.run_to_rest();
    assert_eq!(world.status(), before);
}

#[test]
fn a_share_without_a_name_keeps_the_path_of_its_uid() {
    let mut world = ready_world();
    assert_eq!(world.status().resolved_mount_point_name, None);
    let names = &mut world.share_type.as_mut().unwrap().spec.mount_point_name;
    names.enabled = true;
    assert_untouched(&world.load().unwrap());
    assert_eq!(world.status().export_locations[0].path, "10.9.0.7:/shoal-uid-a");
    let native = decided(&fresh(share("a").cephfs().held())).status;
    assert_eq!(native.nfs_cluster_id, None);
}

#[test]
fn a_name_that_is_taken_is_waited_for_and_whose_it_is_stays_unsaid() {
    let mut o = named(share("a").held()).load().unwrap();
    o.taken_on = BTreeSet::from([nfs_cluster()]);
    let decision = decided(&o);
    assert_eq!(decision.step, None);
    assert_eq!(
        why_not_ready(&decision.status.conditions),
        reasons::MOUNT_POINT_NAME_TAKEN
    );
    assert!(says(&decision.status.conditions, types::RECONCILING));
    assert_eq!(decision.status.resolved_mount_point_name, None);
    assert_eq!(decision.status.phase, Some(SharePhase::Pending));
    assert!(
        matches!(decision.next, Next::After(_)),
        "it looks again by itself"
    );
    o.taken_on.clear();
    assert_eq!(decided(&o).step, Some(Step::Record));
}

#[test]
fn a_name_that_is_none_stores_no_choice() {
    let mut world = named(share("a").held());
    world.share_type.as_mut().unwrap().spec.mount_point_name.enabled = false;
    let decision = decided(&world.load().unwrap());
    assert_eq!(decision.step, None);
    assert_eq!(
        why_not_ready(&decision.status.conditions),
        reasons::MOUNT_POINT_NAME_NOT_ALLOWED
    );
    assert!(says(&decision.status.conditions, types::STALLED));
}

#[test]
fn a_foreign_export_on_a_readable_path_is_left_alone_and_not_described() {
    let mut world = named(share("a"));
    world.run_to_rest();
    world.export = Export::Taken("cephfs:/other".into());
    let decision = decided(&looked(&world));
    assert_eq!(decision.step, None);
    let ready = decision
        .status
        .conditions
        .iter()
        .find(|c| c.type_ == types::READY);
    let ready = ready.unwrap();
    assert_eq!(ready.reason, reasons::EXPORT_PATH_TAKEN);
    assert!(
        ready.message.contains("/data is exported by somebody else") && !ready.message.contains("/other"),
        "{}",
        ready.message
    );
}

// ---- drift

#[test]
fn drift_of_access_is_repaired_after_the_rules_were_read_live() {
    let world = ready_world();
    let right = Effect::Export(vec![may_write(ip("10.0.0.1"))]);
    for export in [
        world.ours(vec![]),
        world.ours(vec![may_read(ip("10.0.0.1"))]),
        world.ours(vec![may_write(ip("10.0.0.1")), may_write(ip("10.0.0.2"))]),
        Export::Absent,
        match world.ours(world.access()) {
            Export::Ours {
                pseudo_path, access, ..
            } => Export::Ours {
                pseudo_path,
                access,
                intact: false,
            },
            _ => unreachable!(),
        },
    ] {
        let mut o = ready();
        let mut seen = volume(&o.share);
        seen.export = export.clone();
        o.sight = seen.seen();
        assert_eq!(effect(&o), Some(Effect::ConfirmRules), "{export:?}");
        o.rules_confirmed = true;
        assert_eq!(effect(&o), Some(right.clone()), "{export:?}");
        assert!(
            says(&decided(&o).status.conditions, types::READY),
            "it can be used meanwhile"
        );
    }
}

#[test]
fn drift_of_the_quota_is_repaired() {
    for quota in [None, Some(GI / 2), Some(5 * GI)] {
        let mut world = ready_world();
        world.subvolume.as_mut().unwrap().size_bytes = quota;
        assert_eq!(effect(&looked(&world)), Some(Effect::Resize(GI)));
    }
}

// ---- size

#[test]
fn it_grows() {
    let mut world = resized("2Gi");
    let charged = |status: &ShareStatus| status.quota.map(|quota| quota.charged);
    let decision = decided(&looked(&world));
    assert_eq!(decision.step, Some(Step::Record), "it is charged before it grows");
    assert_eq!(charged(&decision.status), Some(size("2Gi")));
    assert_eq!(charged(&world.status()), Some(size("1Gi")));
    world.share.as_mut().unwrap().status = Some(decision.status);
    let decision = decided(&looked(&world));
    assert_eq!(decision.step, Some(Step::Do(Effect::Resize(2 * GI))));
    assert_eq!(decision.status.phase, Some(SharePhase::Extending));
    world.run_to_rest();
    assert_eq!(world.status().size, Some(size("2Gi")));
}

#[test]
fn it_waits_for_room_to_grow_and_stays_as_it_is() {
    let world = resized("2Gi");
    let mut o = looked(&world);
    let mut full = candidate("ceph-a", Ok(backend_description()));
    full.state.as_mut().unwrap().free_bytes = Some(GI - 1);
    o.candidates = vec![full];
    let decision = decided(&o);
    assert_eq!(decision.step, None);
    assert_eq!(
        why_not_ready(&decision.status.conditions),
        reasons::NO_ROOM_TO_EXTEND
    );
    assert_eq!(
        (decision.status.size, decision.status.quota.map(|q| q.charged)),
        (Some(size("1Gi")), Some(size("1Gi")))
    );
    assert!(!says(&decision.status.conditions, types::STALLED));
    o.candidates[0].state.as_mut().unwrap().free_bytes = Some(GI);
    assert_eq!(decided(&o).step, Some(Step::Record));
}

#[test]
fn what_it_is_charged_falls_after_it_has_shrunk() {
    let mut world = World::new(share("a").sized("2Gi"), []);
    world.share_type.as_mut().unwrap().spec.shrink = true;
    world.run_to_rest();
    world.edit_share(|s| s.sized("1Gi"));
    let decision = decided(&looked(&world));
    assert_eq!(decision.step, Some(Step::Do(Effect::Resize(GI))));
    assert_eq!(decision.status.quota.map(|q| q.charged), Some(size("2Gi")));
    world.run_to_rest();
    assert_eq!(world.status().quota.map(|q| q.charged), Some(size("1Gi")));
}

// ---- left alone

#[test]
fn a_paused_share_is_left_alone_and_goes_on_where_it_was() {
    let paused = |mut o: Observed| {
        o.share.metadata.annotations = Some([(PAUSED.to_owned(), String::new())].into());
        o
    };
    let mut world = resized("2Gi");
    for mut o in [looked(&world), fresh(share("a")), paused(ready())] {
        o = paused(o);
        o.rules.clear();
        let decision = decided(&o);
        assert_eq!((decision.step, decision.next), (None, Next::Await));
        assert!(says(&decision.status.conditions, types::PAUSED));
        assert!(!says(&decision.status.conditions, types::DELETION_BLOCKED));
        o.share.status = Some(decision.status.clone());
        assert_eq!(decided(&o).status, decision.status, "no news");
    }
    let mut going = paused(looked(&world));
    going.share = going.share.leaving();
    let decision = decided(&going);
    assert_eq!(decision.step, None);
    assert_eq!(
        told(&decision.status.conditions, types::DELETION_BLOCKED),
        ("True".into(), reasons::PAUSED.into())
    );
    world.share.as_mut().unwrap().status = Some(decision.status);
    let decision = decided(&looked(&world));
    assert_eq!(decision.step, Some(Step::Record));
    assert!(
        decision
            .status
            .conditions
            .iter()
            .all(|c| c.reason != reasons::PAUSED)
    );
    world.run_to_rest();
    assert_eq!(world.status().size, Some(size("2Gi")));
}

#[test]
fn a_share_goes_where_it_is_pinned_and_waits_for_those_it_has_to_be_with() {
    let mut o = fresh(share("a"));
    o.share = o.share.held();
    o.candidates = ["ceph-a", "ceph-b"]
        .map(|name| candidate(name, Ok(backend_description())))
        .into();
    o.share.spec.placement = Some(Placement {
        backend_name: Some("ceph-b".into()),
        ..Placement::default()
    });
    let decision = decided(&o);
    assert_eq!(decision.step, Some(Step::Record));
    assert_eq!(decision.status.backend_name.as_deref(), Some("ceph-b"));
    o.share.spec.placement = Some(Placement {
        same_backend_as: vec!["b".into()],
        ..Placement::default()
    });
    let decision = decided(&o);
    assert_eq!(decision.step, None);
    assert_eq!(
        told(&decision.status.conditions, types::SCHEDULED),
        ("False".into(), reasons::WAITING_FOR_SHARE.into())
    );
}

#[test]
fn it_shrinks_where_its_type_lets_it_but_never_below_what_is_used() {
    let shrinkable = || {
        let mut world = World::new(share("a"), []);
        world.share_type.as_mut().unwrap().spec.shrink = true;
        world.run_to_rest();
        world.edit_share(|s| s.sized("512Mi"));
        world
    };
    let mut world = shrinkable();
    let decision = decided(&looked(&world));
    assert_eq!(decision.step, Some(Step::Do(Effect::Resize(GI / 2))));
    assert_eq!(decision.status.phase, Some(SharePhase::Shrinking));
    world.run_to_rest();
    assert_eq!(world.status().size, Some(size("512Mi")));

    let mut world = shrinkable();
    world.subvolume.as_mut().unwrap().used_bytes = GI / 2;
    assert_eq!(
        effect(&looked(&world)),
        Some(Effect::Resize(GI / 2)),
        "to the byte"
    );
    world.subvolume.as_mut().unwrap().used_bytes = GI / 2 + 1;
    assert_refused(&world, reasons::SHRINK_BELOW_USED);
}

/// The size in force stays, and the status says why.
fn assert_refused(world: &World, reason: &str) {
    let decision = decided(&looked(world));
    assert_eq!(decision.step, None);
    assert_eq!(why_not_ready(&decision.status.conditions), reason);
    assert!(says(&decision.status.conditions, types::STALLED));
    assert_eq!(decision.status.size, Some(size("1Gi")));
    for (type_, kept) in [
        (types::PROVISIONED, true),
        (types::EXPORTED, true),
        (types::ACCESS_APPLIED, true),
    ] {
        assert_eq!(says(&decision.status.conditions, type_), kept);
    }
}

#[test]
fn it_does_not_shrink_where_its_type_does_not_let_it() {
    assert_refused(&resized("512Mi"), reasons::SHRINK_NOT_ALLOWED);
}

#[test]
fn a_later_edit_of_the_type_does_not_change_it() {
    let mut world = resized("512Mi");
    world.share_type.as_mut().unwrap().spec.shrink = true;
    assert_refused(&world, reasons::SHRINK_NOT_ALLOWED);
}

#[test]
fn a_size_out_of_range_is_refused_and_access_goes_on_changing() {
    let mut world = resized("11Gi");
    assert_refused(&world, reasons::SIZE_OUT_OF_RANGE);
    world.delete_rule("r");
    world.rules.push(rule("s", "10.0.0.2"));
    world.run_to_rest();
    assert_eq!(world.access(), [may_write(ip("10.0.0.2"))]);
    assert_eq!(
        why_not_ready(&world.status().conditions),
        reasons::SIZE_OUT_OF_RANGE
    );
}

#[test]
fn a_refused_size_does_not_hide_a_volume_whose_status_was_never_written() {
    // Killed after access was given; then the size was changed to an impossible one, and the rule deleted.
    let mut world = World::new(share("a").held(), [rule("r", "10.0.0.1")]);
    world.pass(Some(4));
    assert_eq!(world.access(), [may_write(ip("10.0.0.1"))]);
    world.edit_share(|s| s.sized("11Gi"));
    world.delete_rule("r");
    world.run_to_rest();
    assert_eq!(world.access(), []);
    assert!(world.rules.is_empty());
}

#[test]
fn access_comes_before_size() {
    let mut world = resized("2Gi");
    world.delete_rule("r");
    assert_eq!(effect(&looked(&world)), Some(Effect::Export(vec![])));
}

// ---- rules

#[test]
fn a_cache_that_is_behind_neither_lets_in_nor_locks_out() {
    let world = ready_world();
    let mut o = world.load().unwrap();
    o.sight = Some(world.sight());
    for rules in [
        vec![],
        vec![rule("r", "10.0.0.1").view(), rule("s", "10.0.0.2").view()],
        vec![rule("r", "10.0.0.1").read_only().view()],
    ] {
        o.rules = rules;
        assert_eq!(effect(&o), Some(Effect::ConfirmRules));
    }
}

#[test]
fn access_in_line_needs_no_confirmation() {
    let mut o = ready();
    o.sight = volume(&o.share).exported_to([may_write(ip("10.0.0.1"))]).seen();
    assert_untouched(&o);
}

#[test]
fn rules_are_held_before_anybody_is_let_in() {
    let mut o = fresh(share("a").placed());
    o.sight = volume(&o.share).seen();
    o.rules_confirmed = true;
    o.rules = vec![
        rule("held", "10.0.0.1").held().view(),
        rule("not", "10.0.0.2").view(),
        rule("bad", "nobody").view(),
        rule("going", "10.0.0.3").leaving().view(),
    ];
    assert_eq!(
        effect(&o),
        Some(Effect::HoldRules(vec!["not".into(), "bad".into()]))
    );
}

#[test]
fn one_bad_rule_does_not_hinder_the_good_ones() {
    let mut world = World::new(
        share("a"),
        [
            rule("good", "10.0.0.0/24").read_only(),
            rule("text", "host"),
            rule("late", "10.0.0.0/24").aged(-1),
            cephx_rule("wrong", Some("alice")),
            rule("lost", "").named_in("nowhere"),
            rule("also", "10.0.0.1"),
            rule("refused", "10.0.0.9"),
        ],
    );
    let why = failure(Scope::Object, Class::Stalled, reasons::BACKEND_ERROR);
    world.unavailable.insert(ip("10.0.0.9"), why);
    world.run_to_rest();
    assert_eq!(
        world.access(),
        [may_write(ip("10.0.0.1")), may_read(ip("10.0.0.0/24"))]
    );
    let reason = |name| why_not_ready(&world.rule(name).status.as_ref().unwrap().conditions);
    assert_eq!(reason("text"), reasons::INVALID_ACCESS_TO);
    assert_eq!(reason("late"), reasons::DUPLICATE_RULE);
    assert_eq!(reason("wrong"), reasons::ACCESS_TYPE_NOT_SUPPORTED);
    assert_eq!(reason("lost"), reasons::SECRET_NOT_FOUND);
    assert_eq!(reason("refused"), reasons::BACKEND_ERROR);
    assert!(says(&world.status().conditions, types::READY));
}

#[test]
fn a_level_change_is_one_export_and_one_report() {
    let mut world = ready_world();
    world.edit_rule("r", |r| r.spec.access_level = AccessLevel::ReadOnly);
    world.steps.clear();
    world.pass(None);
    assert_eq!(world.steps, ["Look", "ConfirmRules", "Export", "ReportRules"]);
    assert_eq!(world.access(), [may_read(ip("10.0.0.1"))]);
    let status = world.rule("r").status.clone().unwrap();
    assert_eq!(status.applied_level, Some(AccessLevel::ReadOnly));
    assert_eq!(
        world.status_writes, 2,
        "the share's own status has nothing new to say"
    );
}

#[test]
fn a_rule_is_let_go_only_when_its_client_is_out() {
    let mut world = ready_world();
    world.delete_rule("r");
    let mut o = looked(&world);
    assert_eq!(effect(&o), Some(Effect::Export(vec![])));
    o.sight = volume(&o.share).exported_to([]).seen();
    let report = reports(&o).remove(0);
    assert!(report.release);
    assert_eq!(report.status, None);
}

#[test]
fn the_younger_of_two_rules_takes_over_when_the_older_goes() {
    let mut world = World::settled(
        share("a"),
        [
            rule("old", "10.0.0.1").aged(9),
            rule("young", "10.0.0.1").read_only(),
        ],
    );
    assert_eq!(world.access(), [may_write(ip("10.0.0.1"))]);
    world.delete_rule("old");
    world.run_to_rest();
    assert_eq!(world.access(), [may_read(ip("10.0.0.1"))]);
}

#[test]
fn rules_of_a_share_that_is_not_there_yet_are_told_once() {
    let mut o = fresh(share("a").placed());
    o.rules = vec![rule("r", "10.0.0.1").view()];
    o.backend = Some(not_ready());
    let mut report = reports(&o).remove(0);
    assert!(!report.release && report.secret.is_none());
    o.rules[0].rule.status = report.status.take();
    assert_eq!(decided(&o).step, None);
}

// ---- CephX

fn cephfs_world() -> World {
    World::settled(share("a").cephfs(), [cephx_rule("r", Some("alice"))])
}

#[test]
fn a_key_that_export_brought_is_put_into_its_secret() {
    let mut o = looked(&cephfs_world());
    o.rules[0].credentials = Credentials::Missing;
    o.keys.insert("alice".into(), Key::new("k"));
    let report = reports(&o).remove(0);
    let secret = report.secret.unwrap();
    assert_eq!(
        (
            secret.name.as_str(),
            secret.identity.as_str(),
            secret.key.reveal()
        ),
        ("r-cephx", "alice", "k")
    );
}

#[test]
fn a_secret_that_was_lost_is_made_again() {
    let mut world = cephfs_world();
    world.secrets.clear();
    world.steps.clear();
    world.look_due = true;
    world.pass(None);
    assert_eq!(world.steps, ["Look", "ConfirmRules", "FetchKeys", "ReportRules"]);
    assert_eq!(world.secrets.len(), 1);
}

/// A pass takes a bounded number of steps, however many rules there are.
#[test]
fn secrets_that_were_lost_are_made_again_many_at_once() {
    let rules: Vec<_> = (0..150)
        .map(|n| cephx_rule(&format!("r{n}"), Some(&format!("alice-{n}"))))
        .collect();
    let mut world = World::settled(share("a").cephfs(), rules);
    world.secrets.clear();
    world.steps.clear();
    world.look_due = true;
    world.pass(None);
    assert_eq!(
        world.steps[..4],
        ["Look", "ConfirmRules", "FetchKeys", "ReportRules"]
    );
    assert!(world.steps.len() < 10, "{:?}", world.steps);
    assert_eq!(world.secrets.len(), 150);
}

/// Ceph makes a new key for an identity that had lost its last capability; the old one must not outlive a crash.
#[test]
fn before_an_identity_is_let_in_anew_its_old_key_is_thrown_away() {
    let mut world = cephfs_world();
    if let Export::Ours { access, .. } = &mut world.export {
        access.clear();
    }
    world.steps.clear();
    world.look_due = true;
    world.pass(None);
    assert_eq!(
        world.steps,
        ["Look", "ConfirmRules", "ForgetKeys", "Export", "ReportRules"]
    );
    assert_eq!(world.secrets.len(), 1);
}

#[test]
fn a_foreign_secret_is_never_written_and_its_rule_lets_nobody_in() {
    let mut o = looked(&cephfs_world());
    o.rules[0].credentials = Credentials::NotOurs;
    o.keys.insert("alice".into(), Key::new("k"));
    assert_eq!(effect(&o), Some(Effect::Export(vec![])));
    o.sight = volume(&o.share).exported_to([]).seen();
    let report = reports(&o).remove(0);
    assert_eq!(report.secret, None);
    assert_eq!(
        why_not_ready(&report.status.unwrap().conditions),
        reasons::SECRET_NOT_OURS
    );
}

#[test]
fn the_key_of_an_identity_is_in_no_status_and_no_debug_output() {
    let mut world = World::new(share("a").cephfs(), [cephx_rule("r", None)]);
    world.pass(Some(5));
    world.run_to_rest();
    let printed = format!("{:?}", (world.share(), &world.rules, world.load()));
    assert!(!printed.contains(crate::world::KEY));
}

// ---- annotations

#[test]
fn annotations_are_written_when_they_differ_and_not_otherwise() {
    let world = ready_world();
    let right = world.share().metadata.annotations.clone().unwrap();
    let mut o = looked(&world);
    o.share.metadata.annotations = Some([("mine".to_owned(), "too".to_owned())].into());
    assert_eq!(effect(&o), Some(Effect::Annotate(right.clone())));
    o.share.metadata.annotations.as_mut().unwrap().extend(right);
    assert_untouched(&o);
}

// ---- deletion

fn going(mut o: Observed) -> Observed {
    o.share = o.share.leaving();
    o.locks_confirmed = true;
    o
}

#[test]
fn a_share_that_was_never_placed_is_let_go_at_once() {
    let mut o = going(fresh(share("a").held()));
    assert_eq!(decided(&o).step, Some(Step::RemoveFinalizer));
    // Whatever its type and backends are.
    o.share_type = Err(failure(
        Scope::Object,
        Class::Waiting,
        reasons::SHARE_TYPE_NOT_FOUND,
    ));
    o.candidates.clear();
    assert_eq!(decided(&o).step, Some(Step::RemoveFinalizer));
}

#[test]
fn what_is_not_held_is_let_be() {
    assert_untouched(&going(fresh(share("a").placed().not_held())));
}

#[test]
fn a_delete_revokes_removes_and_lets_go_without_a_status_write() {
    let mut world = ready_world();
    world.delete_share();
    (world.steps, world.status_writes) = (vec![], 0);
    world.pass(None);
    assert_eq!(
        world.steps,
        ["ConfirmLocks", "Look", "Unexport", "Remove", "RemoveFinalizer"]
    );
    assert_eq!(world.status_writes, 0);
}

#[test]
fn a_placed_share_that_was_never_made_is_looked_for_first() {
    let mut o = going(fresh(share("a").placed()));
    assert_eq!(effect(&o), Some(Effect::Look));
    o.sight = Some(absent());
    assert_eq!(decided(&o).step, Some(Step::RemoveFinalizer));
}

#[test]
fn leftovers_go_before_the_finalizer() {
    let mut o = going(ready());
    o.sight = Some(Sight::Absent { leftovers: true });
    assert_eq!(effect(&o), Some(Effect::Unexport));
}

#[test]
fn unfinished_goes_too() {
    let mut o = going(fresh(share("a").placed()));
    o.sight = volume(&o.share).tagged(Tag::Absent).seen();
    assert_eq!(effect(&o), Some(Effect::Remove));
}

#[test]
fn anothers_volume_is_not_removed() {
    // Where ours was, deletion is blocked: it may still be somewhere.
    let mut o = going(ready());
    o.sight = volume(&o.share).tagged(another_owner()).exported_to([]).seen();
    let decision = decided(&o);
    assert_eq!(decision.step, None);
    assert_eq!(
        told(&decision.status.conditions, types::DELETION_BLOCKED),
        ("True".into(), reasons::OWNED_BY_ANOTHER.into())
    );
    assert_eq!(decision.status.phase, Some(SharePhase::ErrorDeleting));
    // Where ours never was, there is nothing of ours to remove.
    let mut o = going(fresh(share("a").placed()));
    o.sight = volume(&o.share).tagged(another_owner()).seen();
    assert_eq!(decided(&o).step, Some(Step::RemoveFinalizer));
}

#[test]
fn a_foreign_export_does_not_hinder_deletion_and_stays() {
    let mut world = ready_world();
    world.export = Export::Taken("cephfs:/other".into());
    world.delete_share();
    world.run_to_rest();
    assert_eq!(world.export, Export::Taken("cephfs:/other".into()));
    assert_eq!(world.subvolume, None);
}

#[test]
fn snapshots_block_deletion_with_back_off_and_a_reason() {
    let mut world = ready_world();
    world.snapshots = true;
    world.delete_share();
    world.run_to_rest();
    let status = world.status();
    assert_eq!(
        told(&status.conditions, types::DELETION_BLOCKED).1,
        reasons::HAS_SNAPSHOTS
    );
    assert!(status.attempts > Some(0));
    assert_eq!(world.access(), [], "access is gone all the same");
    assert_untouched(&world.load().unwrap());
    world.snapshots = false;
    world.run_to_rest();
    assert_eq!(world.share, None);
}

#[test]
fn a_backend_in_trouble_blocks_deletion_without_counting_attempts() {
    let mut o = going(ready());
    o.failure = Some(backends_failure());
    let decision = decided(&o);
    assert_eq!(decision.step, None);
    assert_eq!(
        told(&decision.status.conditions, types::DELETION_BLOCKED).1,
        reasons::COMMAND_TIMED_OUT
    );
    assert_eq!(decision.status.attempts, None);
    assert!(matches!(decision.next, Next::After(wait) if wait.as_secs() < 30));
}

#[test]
fn rules_do_not_undo_the_back_off_of_a_deletion() {
    let mut o = going(ready());
    o.failure = Some(own_failure());
    o.share.status = Some(decided(&o).status);
    o.failure = None;
    o.rules[0].rule = o.rules[0].rule.clone().leaving();
    assert_untouched(&o);
}

#[test]
fn a_missing_volume_does_not_block_deletion() {
    let mut world = ready_world();
    world.subvolume = None;
    world.run_to_rest();
    world.delete_share();
    world.run_to_rest();
    assert_eq!(world.share, None);
    assert_eq!(world.export, Export::Absent);
}

#[test]
fn sizes_are_exact_bytes() {
    let world = World::settled(share("a").sized("1234567891"), []);
    assert_eq!(world.subvolume.unwrap().size_bytes, Some(1_234_567_891));
    assert_eq!(Size::from_bytes(1_234_567_891), Some(size("1234567891")));
}

/// So many other shares of 1Gi each.
fn of_others(shares: u64) -> Usage {
    let total = Amount {
        shares,
        bytes: u128::from(shares * GI),
    };
    Usage {
        total,
        ..Usage::default()
    }
}

fn reserved(conditions: &[Condition]) -> Option<(&str, &str)> {
    let found = conditions.iter().find(|c| c.type_ == types::QUOTA_RESERVED)?;
    Some((found.status.as_str(), found.reason.as_str()))
}

#[test]
fn a_share_beyond_the_quota_waits_and_has_taken_nothing() {
    let mut o = fresh(share("a").held());
    o.quotas = vec![quota(limits(Some(1), None, None))];
    o.usage = of_others(1);
    let decision = decided(&o);
    assert_eq!(decision.step, None);
    assert_eq!(
        reserved(&decision.status.conditions),
        Some(("False", reasons::QUOTA_EXCEEDED))
    );
    assert_eq!(
        (decision.status.backend_name, decision.status.quota),
        (None, None)
    );
    // Another has gone.
    o.share.status = Some(decided(&o).status);
    o.usage = of_others(0);
    let decision = decided(&o);
    assert_eq!(decision.step, Some(Step::Record));
    assert_eq!(
        reserved(&decision.status.conditions),
        Some(("True", reasons::QUOTA_RESERVED))
    );
    assert!(decision.status.quota.is_some());
}

#[test]
fn one_that_may_not_grow_keeps_its_size_and_says_so() {
    let world = resized("2Gi");
    let mut o = looked(&world);
    o.candidates = vec![candidate("ceph-a", Ok(backend_description()))];
    o.quotas = vec![quota(limits(None, Some("2Gi"), None))];
    o.usage = of_others(1);
    let decision = decided(&o);
    assert_eq!(decision.step, None);
    assert_eq!(
        reserved(&decision.status.conditions),
        Some(("False", reasons::QUOTA_EXCEEDED))
    );
    assert_eq!(decision.status.size, Some(size("1Gi")));
    o.usage = Usage::default();
    assert_eq!(decided(&o).step, Some(Step::Record));
}

#[test]
fn a_limit_below_what_is_used_is_no_reason_to_touch_anything() {
    let mut world = resized("1Gi");
    world.run_to_rest();
    let mut o = looked(&world);
    o.quotas = vec![quota(limits(Some(0), Some("1"), Some("1")))];
    let decision = decided(&o);
    assert!(!matches!(
        decision.step,
        Some(Step::Do(Effect::Resize(_)) | Step::Record)
    ));
    assert_eq!(decision.status.phase, Some(SharePhase::Available));
    assert_eq!(decision.status.size, Some(size("1Gi")));
}
