//! Events: trouble is told once, and nothing else is.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use shoal_crds::condition::{reasons, types};
use shoal_domain::{
    Class, Scope,
    condition::Conditions,
    decision::{Event, trouble},
};

use crate::fixtures::*;

fn failed(reason: &'static str) -> Vec<Condition> {
    let why = failure(Scope::Object, Class::Stalled, reason);
    Conditions::new(&[], 1, now()).failed(&why).build()
}

fn reasons_of(events: &[Event]) -> Vec<&str> {
    events.iter().map(|e| e.reason.as_str()).collect()
}

#[test]
fn trouble_is_told_once() {
    let after = failed(reasons::VOLUME_MISSING);
    let events = trouble(&[], &after);
    // Stalled and Ready say the same.
    assert_eq!(reasons_of(&events), [reasons::VOLUME_MISSING]);
    assert_eq!(events[0].message, "as told by the backend");
    assert_eq!(trouble(&after, &after), []);
}

#[test]
fn other_trouble_is_told_again() {
    let (one, other) = (failed(reasons::VOLUME_MISSING), failed(reasons::OWNED_BY_ANOTHER));
    assert_eq!(reasons_of(&trouble(&one, &other)), [reasons::OWNED_BY_ANOTHER]);
    let mut reworded = one.clone();
    for condition in &mut reworded {
        condition.message = "worse".into();
    }
    assert_eq!(trouble(&one, &reworded).len(), 1);
}

#[test]
fn all_that_goes_well_is_silent() {
    let ready = Conditions::new(&[], 1, now()).ready("").build();
    assert_eq!(trouble(&failed(reasons::VOLUME_MISSING), &ready), []);
    for reason in [
        reasons::CREATING,
        reasons::RESIZING,
        reasons::DELETING,
        reasons::APPLYING_ACCESS,
        reasons::SHARE_NOT_READY,
    ] {
        let busy = Conditions::new(&[], 1, now()).reconciling(reason, "").build();
        assert_eq!(trouble(&ready, &busy), [], "{reason}");
    }
}

#[test]
fn a_blocked_deletion_is_told() {
    let blocked = Conditions::new(&[], 1, now())
        .reconciling(reasons::DELETING, "")
        .set(
            types::DELETION_BLOCKED,
            true,
            reasons::HAS_SNAPSHOTS,
            "remove them",
        )
        .build();
    assert_eq!(reasons_of(&trouble(&[], &blocked)), [reasons::HAS_SNAPSHOTS]);
}
