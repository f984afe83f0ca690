//! kstatus rules.

use shoal_crds::condition::{reasons, types};
use shoal_domain::{
    Class, Scope,
    condition::{Conditions, is_true, whole_seconds},
};

use crate::fixtures::*;

fn later() -> jiff::Timestamp {
    "2026-01-01T00:01:00.5Z".parse().unwrap()
}

#[test]
fn a_condition_keeps_its_time_while_it_keeps_its_truth() {
    let before = Conditions::new(&[], 1, now()).set("X", true, "One", "").build();
    let same = Conditions::new(&before, 2, later())
        .set("X", true, "Two", "new")
        .build();
    assert_eq!(same[0].last_transition_time, before[0].last_transition_time);
    assert_eq!(
        (same[0].reason.as_str(), same[0].observed_generation),
        ("Two", Some(2))
    );
    let turned = Conditions::new(&before, 1, later())
        .set("X", false, "One", "")
        .build();
    assert_eq!(turned[0].last_transition_time.0, whole_seconds(later()));
}

#[test]
fn times_are_whole_seconds_as_the_api_keeps_them() {
    assert_eq!(whole_seconds(later()).to_string(), "2026-01-01T00:01:00Z");
}

#[test]
fn reconciling_and_stalled_are_there_only_while_true_and_never_both() {
    let stalled = failure(Scope::Object, Class::Stalled, reasons::BACKEND_ERROR);
    let passing = failure(Scope::Object, Class::Transient, reasons::BACKEND_ERROR);
    let list = Conditions::new(&[], 1, now())
        .reconciling("Busy", "")
        .failed(&stalled)
        .build();
    assert!(is_true(&list, types::STALLED) && told(&list, types::RECONCILING).0.is_empty());
    let list = Conditions::keeping(&list, 1, now()).failed(&passing).build();
    assert!(is_true(&list, types::RECONCILING) && told(&list, types::STALLED).0.is_empty());
    let list = Conditions::keeping(&list, 1, now()).ready("").build();
    assert_eq!(
        list.iter().map(|c| c.type_.as_str()).collect::<Vec<_>>(),
        [types::READY]
    );
    let list = Conditions::keeping(&list, 1, now())
        .reconciling("Busy", "")
        .build();
    assert_eq!(told(&list, types::READY), ("False".into(), "Busy".into()));
}

#[test]
fn every_class_of_failure_either_goes_on_or_stalls() {
    for (class, stalls) in [
        (Class::Transient, false),
        (Class::Waiting, false),
        (Class::Bug, false),
        (Class::Stalled, true),
        (Class::Conflict, true),
        (Class::Gone, true),
    ] {
        let why = failure(Scope::Object, class, reasons::BACKEND_ERROR);
        let list = Conditions::new(&[], 1, now()).failed(&why).build();
        assert_eq!(is_true(&list, types::STALLED), stalls, "{class:?}");
        assert_eq!(is_true(&list, types::RECONCILING), !stalls, "{class:?}");
        assert_eq!(why_not_ready(&list), reasons::BACKEND_ERROR);
    }
}

#[test]
fn the_order_is_fixed_and_a_type_is_there_once() {
    let list = Conditions::new(&[], 1, now())
        .set("B", true, "R", "")
        .set("A", true, "R", "")
        .set("B", false, "R", "")
        .build();
    let types: Vec<_> = list
        .iter()
        .map(|c| (c.type_.as_str(), c.status.as_str()))
        .collect();
    assert_eq!(types, [("A", "True"), ("B", "False")]);
}

#[test]
fn a_message_is_cut_between_characters_before_the_api_server_refuses_it() {
    let list = Conditions::new(&[], 1, now())
        .set("X", true, "R", "ü".repeat(40_000))
        .build();
    assert_eq!(list[0].message.chars().count(), 1025);
    assert!(list[0].message.ends_with('…'));
}
