//! Every rule of [`shoal_domain::ensure`], and what it means for a share and for a backend.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use shoal_crds::{
    EnsureStatus, Share, ShareBackendStatus, SharePhase,
    condition::{reasons, types},
    names::{PAUSED, REQUESTED_AT},
};
use shoal_domain::{
    Class, Failure, Next, Scope, Step,
    condition::is_true,
    ensure::{Round, Tally, advance, is_concerned, requested, told as words, under_way},
    identity::Description,
    share::{Effect, decide},
    share_backend::{self, Observed},
    volume::Export,
};

use crate::{
    fixtures::*,
    world::{Fault, World},
};

// ---- a share

/// At rest, with one client.
fn settled() -> World {
    World::settled(share("a"), [rule("r", "10.0.0.1")])
}

fn asked(mut world: World) -> World {
    world.annotate(REQUESTED_AT, "now");
    world.steps.clear();
    world.status_writes = 0;
    world
}

fn in_a_round(mut world: World) -> World {
    world.round = Some(round(None));
    world.steps.clear();
    world.status_writes = 0;
    world
}

#[test]
fn a_share_that_needs_nothing_costs_a_look_and_no_write() {
    let mut world = in_a_round(settled());
    world.pass(None);
    assert_eq!(world.steps, ["Look"]);
    assert_eq!(world.status_writes, 0);
    assert_eq!(world.round, None);
}

#[test]
fn who_asks_of_a_share_is_answered_with_one_write() {
    let mut world = asked(settled());
    world.pass(None);
    assert_eq!(world.steps, ["Look"]);
    assert_eq!(world.status_writes, 1);
    assert_eq!(world.status().last_handled_requested_at.as_deref(), Some("now"));
    world.steps.clear();
    world.pass(None);
    assert!(world.steps.is_empty(), "once: {:?}", world.steps);
    world.annotate(REQUESTED_AT, "again");
    world.pass(None);
    assert_eq!(world.steps, ["Look"]);
}

#[test]
fn what_is_made_again_is_made_behind_a_fence_and_stays_ready() {
    for prepare in [asked, in_a_round] {
        let mut world = prepare(settled());
        world.export = Export::Absent;
        let before = world.clone();
        let mut steps = 0;
        world.pass(None);
        assert_eq!(
            world.steps,
            ["Look", "ConfirmRules", "Fence", "Record", "Export", "LiftFence"]
        );
        assert_eq!(world.access().len(), 1);
        assert!(!world.is_fenced());
        assert_eq!(world.status().phase, Some(SharePhase::Available));
        // What it says in between.
        for n in 0..world.steps.len() {
            let mut killed = before.clone();
            killed.pass(Some(n));
            let status = killed.status();
            assert!(is_true(&status.conditions, types::READY), "after step {n}");
            if is_true(&status.conditions, types::ENSURING) {
                steps += 1;
                assert_eq!(status.phase, Some(SharePhase::Ensuring));
                assert!(!is_true(&status.conditions, types::RECONCILING));
            }
            // A crash in the middle is resumed, asked or not.
            killed.round = None;
            killed.run_to_rest();
            assert!(!killed.is_fenced());
            assert!(!is_true(&killed.status().conditions, types::ENSURING));
            assert_eq!(killed.status().phase, Some(SharePhase::Available));
        }
        assert!(steps > 1, "it never said that it is being ensured");
    }
}

#[test]
fn what_users_and_drift_ask_for_needs_no_fence() {
    let mut world = settled();
    world.rules.push(rule("s", "10.0.0.2"));
    world.steps.clear();
    world.pass(None);
    assert!(!world.steps.contains(&"Fence"), "{:?}", world.steps);
    world.export = Export::Absent;
    world.look_due = true;
    world.steps.clear();
    world.pass(None);
    assert!(!world.steps.contains(&"Fence"), "{:?}", world.steps);
    assert_eq!(world.access().len(), 2);
}

#[test]
fn it_ends_whatever_the_backend_says() {
    for (scope, why) in [(Scope::Object, reasons::BACKEND_ERROR), (Scope::Backend, "")] {
        let mut world = in_a_round(settled());
        world.export = Export::Absent;
        // Of Look, ConfirmRules, Fence, Export, the last fails.
        let fails = Fault {
            scope,
            took_place: false,
        };
        world.faults = [None, None, None, Some(fails)].into();
        world.pass(None);
        assert!(!world.is_fenced());
        let conditions = world.status().conditions;
        assert!(!is_true(&conditions, types::ENSURING));
        match scope {
            Scope::Object => {
                assert_eq!(why_not_ready(&conditions), why);
                assert_eq!(world.round, None, "it was verified, and failed");
            }
            // What the backend can't do it is asked to do again.
            Scope::Backend => assert!(world.round.is_some()),
        }
        world.run_to_rest();
        assert_eq!(world.access().len(), 1);
    }
}

#[test]
fn a_share_whose_data_is_gone_errs() {
    let mut world = in_a_round(asked(settled()));
    world.subvolume = None;
    world.pass(None);
    assert_eq!(why_not_ready(&world.status().conditions), reasons::VOLUME_MISSING);
    assert_eq!(world.status().last_handled_requested_at.as_deref(), Some("now"));
    assert_eq!(world.round, None);
}

#[test]
fn one_that_backs_off_is_verified_at_once() {
    let mut world = settled();
    world.export = Export::Absent;
    world.look_due = true;
    let fails = Fault {
        scope: Scope::Object,
        took_place: false,
    };
    world.faults = [None, None, Some(fails)].into();
    world.pass(None);
    assert!(world.status().next_retry_time.is_some());
    world.look_due = false;
    let mut waiting = world.clone();
    waiting.steps.clear();
    waiting.pass(None);
    assert!(waiting.steps.is_empty());
    let mut world = in_a_round(world);
    world.pass(None);
    assert!(world.steps.contains(&"Export"), "{:?}", world.steps);
}

#[test]
fn a_mark_that_somebody_left_is_taken_off() {
    let mut world = settled();
    let labels = world
        .share
        .as_mut()
        .unwrap()
        .metadata
        .labels
        .get_or_insert_default();
    labels.insert("shoal.storage/ensuring".into(), String::new());
    for paused in [false, true] {
        let mut world = world.clone();
        if paused {
            world.annotate(PAUSED, "");
        }
        world.pass(None);
        assert!(!world.is_fenced());
    }
    // A backend that is away does not keep it there. One that is about to be asked does: the answer wakes the share.
    let not_asked = failure(Scope::Backend, Class::Waiting, reasons::BACKEND_NOT_ASKED);
    let mut o = world.load().unwrap();
    o.backend = Some(Err(not_asked));
    let decision = decide(&o, now());
    assert_eq!((decision.step, decision.next), (None, Next::Await));
    world.backend = Some(Err(unreachable()));
    world.pass(None);
    assert!(!world.is_fenced());
}

/// The pass goes on with a newer version of the share, and with what it saw before.
#[test]
fn what_was_requested_after_the_look_is_not_answered_by_it() {
    let world = asked(settled());
    let mut o = world.load().unwrap();
    o.sight = Some(world.sight());
    o.looked_for = Some("now".into());
    let annotations = o.share.metadata.annotations.get_or_insert_default();
    annotations.insert(REQUESTED_AT.into(), "again".into());
    let status = decide(&o, now()).status;
    assert_eq!(status.last_handled_requested_at.as_deref(), Some("now"));
    o.share.status = Some(status);
    (o.sight, o.looked_for) = (None, None);
    assert_eq!(decide(&o, now()).step, Some(Step::Do(Effect::Look)));
}

#[test]
fn a_look_that_fails_verifies_nothing() {
    let mut world = in_a_round(settled());
    let mut o = world.load().unwrap();
    o.failure = Some(unreachable());
    assert_eq!(o.is_verified(), None);
    o.failure = Some(failure(Scope::Object, Class::Transient, reasons::BACKEND_ERROR));
    assert_eq!(o.is_verified(), Some(false));
    o.failure = None;
    assert_eq!(o.is_verified(), None);
    o.sight = Some(world.sight());
    assert_eq!(o.is_verified(), Some(true));
    world.export = Export::Absent;
    o.sight = Some(world.sight());
    assert_eq!(o.is_verified(), Some(false));
    assert!(matches!(
        decide(&o, now()).step,
        Some(Step::Do(Effect::ConfirmRules))
    ));
}

#[test]
fn a_long_request_is_cut_where_status_cuts_it() {
    let mut world = settled();
    world.annotate(REQUESTED_AT, &"ö".repeat(1000));
    world.pass(None);
    let handled = world.status().last_handled_requested_at.unwrap();
    assert_eq!(handled.chars().count(), 253);
    world.steps.clear();
    world.pass(None);
    assert!(world.steps.is_empty());
    assert_eq!(requested(&world.share().metadata), Some(handled));
}

// ---- rounds

fn unreachable() -> Failure {
    failure(Scope::Backend, Class::Transient, reasons::BACKEND_UNREACHABLE)
}

fn at(seconds: i64) -> Timestamp {
    now() + SignedDuration::from_secs(seconds)
}

fn tally(done: i64, failed: i64, total: i64) -> Tally {
    Tally {
        done,
        failed,
        total,
        ..Tally::default()
    }
}

fn saying(ensure: Option<EnsureStatus>) -> ShareBackendStatus {
    ShareBackendStatus {
        ensure,
        ..ShareBackendStatus::default()
    }
}

#[test]
fn nobody_asks_and_nothing_moves() {
    assert_eq!(advance(&saying(None), None, false, None, now()), None);
}

#[test]
fn a_round_begins_goes_on_and_ends() {
    let begun = advance(&saying(None), Some("now"), false, None, now()).unwrap();
    let status = saying(Some(begun.clone()));
    assert_eq!(under_way(&status), Some(round(Some("now"))));
    // This replica has not begun it.
    assert_eq!(advance(&status, Some("now"), false, None, at(1)), Some(begun));
    let going = advance(&status, Some("now"), false, Some(tally(2, 1, 5)), at(2)).unwrap();
    assert_eq!(words(&going), "2 of 5 shares verified, 1 failed");
    assert_eq!(going.finished_at, None);
    let ended = advance(
        &saying(Some(going)),
        Some("now"),
        false,
        Some(tally(4, 1, 5)),
        at(3),
    )
    .unwrap();
    assert_eq!(ended.finished_at, Some(Time(at(3))));
    let mut status = saying(Some(ended.clone()));
    status.last_handled_requested_at = Some("now".into());
    assert_eq!(under_way(&status), None);
    assert_eq!(advance(&status, Some("now"), false, None, at(9)), Some(ended));
}

#[test]
fn two_requests_are_one_round_that_answers_the_second() {
    let first = advance(&saying(None), Some("one"), false, None, now());
    let second = advance(&saying(first), Some("two"), false, Some(tally(4, 0, 5)), at(5));
    let status = saying(second);
    let started_anew = Round {
        started_at: Time(at(5)),
        requested_at: Some("two".into()),
    };
    assert_eq!(under_way(&status), Some(started_anew));
}

#[test]
fn a_move_in_the_middle_begins_it_anew_and_still_answers() {
    let first = advance(&saying(None), Some("one"), false, None, now());
    let again = advance(&saying(first), Some("one"), true, Some(tally(4, 0, 5)), at(5)).unwrap();
    assert_eq!(again.requested_at.as_deref(), Some("one"));
    assert_eq!(again.started_at, Time(at(5)));
    // What was answered is not asked for again.
    let mut status = saying(None);
    status.last_handled_requested_at = Some("one".into());
    let moved = advance(&status, Some("one"), true, None, now()).unwrap();
    assert_eq!(moved.requested_at, None);
}

#[test]
fn it_ends_though_some_can_not_be_verified() {
    let begun = advance(&saying(None), None, true, None, now());
    let status = saying(begun);
    let idle = |seconds| {
        Some(Tally {
            idle: Duration::from_secs(seconds),
            ..tally(3, 1, 6)
        })
    };
    // However long it has lasted by then, and the backend was away.
    for lasted in [899, 90_000] {
        let late = advance(&status, None, false, idle(899), at(lasted)).unwrap();
        assert_eq!(late.finished_at, None);
        let ended = advance(&status, None, false, idle(901), at(lasted)).unwrap();
        assert!(ended.finished_at.is_some());
        assert_eq!((ended.done, ended.failed, ended.total), (3, 3, 6));
    }
}

#[test]
fn which_shares_it_is_over() {
    let there = settled().share().clone();
    assert!(is_concerned(&there));
    let not = |change: fn(Share) -> Share| assert!(!is_concerned(&change(there.clone())));
    not(Object::leaving);
    not(|mut share| {
        let annotations = share.metadata.annotations.get_or_insert_default();
        annotations.insert(PAUSED.into(), String::new());
        share
    });
}

// ---- a backend

/// Recorded, admitted, and asked again.
fn known(description: Description) -> Observed {
    let mut o = Observed {
        description: Some(Ok(backend_description())),
        ..of_backend()
    };
    o.backend.status = Some(share_backend::decide(&o, now()).status);
    o.description = Some(Ok(description.clone()));
    o.admitted = Some(Ok(description));
    o
}

fn requesting(mut o: Observed, token: &str) -> Observed {
    let annotations = o.backend.metadata.annotations.get_or_insert_default();
    annotations.insert(REQUESTED_AT.into(), token.into());
    o
}

/// Takes the steps of a pass; `tally` is what this replica has done by then.
fn run(o: &mut Observed, tally: Tally) -> Vec<&'static str> {
    let mut steps = Vec::new();
    loop {
        let decision = share_backend::decide(o, now());
        match decision.step {
            None => {
                o.backend.status = Some(decision.status);
                return steps;
            }
            Some(Step::Record) => {
                steps.push("Record");
                o.backend.status = Some(decision.status);
            }
            Some(Step::Do(share_backend::Effect::Ensure(round))) => {
                steps.push("Ensure");
                o.round = Some((round, tally));
                o.is_asked = true;
            }
            Some(Step::Do(share_backend::Effect::EndRound)) => {
                steps.push("EndRound");
                o.round = None;
            }
            Some(Step::Do(share_backend::Effect::Admit(verdict))) => {
                steps.push("Admit");
                o.admitted = Some(*verdict);
            }
            other => panic!("{other:?}"),
        }
        assert!(steps.len() < 9, "{steps:?}");
    }
}

fn status(o: &Observed) -> ShareBackendStatus {
    o.backend.status.clone().unwrap()
}

#[test]
fn what_is_asked_of_a_backend_is_recorded_then_done_then_answered() {
    let mut o = requesting(known(backend_description()), "now");
    let half = tally(1, 0, 2);
    assert_eq!(run(&mut o, half), ["Record", "Ensure"]);
    let said = told(&status(&o).conditions, types::ENSURING);
    assert_eq!(said, ("True".into(), reasons::ENSURING.into()));
    assert!(share_backend::is_ready(&status(&o)), "readiness stays");
    assert_eq!(status(&o).last_handled_requested_at, None);
    // The next pass, when all is done.
    o.is_asked = false;
    o.round.as_mut().unwrap().1.failed = 1;
    assert_eq!(run(&mut o, half), ["Record", "EndRound"]);
    assert_eq!(status(&o).last_handled_requested_at.as_deref(), Some("now"));
    assert!(!is_true(&status(&o).conditions, types::ENSURING));
    let EnsureStatus {
        done, failed, total, ..
    } = status(&o).ensure.unwrap();
    assert_eq!((done, failed, total), (1, 1, 2));
    assert!(run(&mut o, half).is_empty());
}

#[test]
fn new_addresses_and_the_round_for_them_are_one_write_before_any_share_hears_of_them() {
    let mut o = known(moved(backend_description()));
    o.admitted = Some(Ok(backend_description()));
    let none = Tally::default();
    assert_eq!(
        run(&mut o, none),
        ["Record", "Admit", "Ensure", "Record", "EndRound"]
    );
    assert_eq!(
        status(&o).ceph.unwrap().monitors,
        moved(backend_description()).monitors
    );
    assert!(status(&o).ensure.unwrap().finished_at.is_some());
}

#[test]
fn a_round_that_another_replica_began_is_begun_anew() {
    let mut o = requesting(known(backend_description()), "now");
    let half = tally(1, 0, 2);
    run(&mut o, half);
    o.round = None;
    o.is_asked = false;
    assert_eq!(run(&mut o, Tally { done: 0, ..half }), ["Ensure"]);
    assert_eq!(status(&o).ensure.unwrap().done, 0);
}

#[test]
fn a_backend_that_is_away_keeps_its_round_for_later() {
    let mut o = requesting(known(backend_description()), "now");
    let half = tally(1, 0, 2);
    run(&mut o, half);
    o.is_asked = false;
    o.description = Some(Err(unreachable()));
    assert_eq!(run(&mut o, half), ["Admit"]);
    assert!(under_way(&status(&o)).is_some());
    assert!(is_true(&status(&o).conditions, types::ENSURING));
}
