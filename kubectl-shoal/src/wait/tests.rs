use serde_json::{Value, json};

use super::*;
use crate::fixtures::{self, condition, rule, rule_with};

fn share(change: impl FnOnce(&mut Value)) -> Share {
    fixtures::share("NFS", "h:/x", change)
}

fn size(text: &str) -> Size {
    text.parse().unwrap()
}

#[test]
fn a_share_has_grown_when_its_quota_has() {
    assert_eq!(
        extended(&share(|_| {}), size("1Gi")),
        Progress::Done("share 'documents' has 1Gi".into())
    );
    let waiting = share(|share| {
        share["status"]["conditions"] = json!([
            condition("Ready", "True", "Available", ""),
            condition("Reconciling", "True", "NoRoomToExtend", "cephfs has 5Gi free"),
        ]);
    });
    assert_eq!(
        extended(&waiting, size("2Gi")),
        Progress::NotYet("NoRoomToExtend: cephfs has 5Gi free".into())
    );
}

#[test]
fn what_is_stalled_is_not_waited_for() {
    let stalled = |generation: i64| {
        share(|share| {
            share["metadata"]["generation"] = json!(generation);
            share["status"]["conditions"] = json!([
                condition("Ready", "False", "SizeOutOfRange", "at most 10Gi"),
                condition("Stalled", "True", "SizeOutOfRange", "at most 10Gi"),
            ]);
        })
    };
    assert_eq!(
        extended(&stalled(1), size("20Gi")),
        Progress::Never("SizeOutOfRange: at most 10Gi".into())
    );
    // It may be of the spec before.
    assert!(matches!(extended(&stalled(2), size("20Gi")), Progress::NotYet(_)));
}

#[test]
fn a_share_is_ready_on_the_spec_it_has() {
    assert!(matches!(ready(&share(|_| {})), Progress::Done(_)));
    assert!(matches!(
        ready(&share(|share| share["metadata"]["generation"] = json!(2))),
        Progress::NotYet(_)
    ));
    let new = share(|share| share["status"] = json!({"observedGeneration": -1}));
    assert!(matches!(ready(&new), Progress::NotYet(_)));
}

#[test]
fn a_verified_share_may_not_be_as_it_should_be() {
    let answered = |token: &str, status: &str| {
        share(|share| {
            share["status"]["lastHandledRequestedAt"] = json!(token);
            share["status"]["conditions"] =
                json!([condition("Ready", status, "VolumeMissing", "its data is gone")]);
        })
    };
    assert!(matches!(
        share_ensured(&answered("t", "True"), "t"),
        Progress::Done(_)
    ));
    assert!(matches!(
        share_ensured(&answered("s", "True"), "t"),
        Progress::NotYet(_)
    ));
    let Progress::Never(why) = share_ensured(&answered("t", "False"), "t") else {
        panic!("it is as it should be");
    };
    assert!(why.ends_with("VolumeMissing: its data is gone"), "{why}");
}

#[test]
fn a_round_says_how_far_it_is_and_what_came_of_it() {
    let backend = |token: &str, done: i64, failed: i64| {
        let ensure =
            json!({"startedAt": "2026-11-29T08:00:00Z", "done": done, "failed": failed, "total": 50});
        fixtures::backend(
            &json!({"simulated": {}}),
            &json!({"lastHandledRequestedAt": token, "ensure": ensure}),
        )
    };
    assert_eq!(
        backend_ensured(&backend("s", 7, 1), "t"),
        Progress::NotYet("8 of 50 shares are verified".into())
    );
    let Progress::Done(said) = backend_ensured(&backend("t", 50, 0), "t") else {
        panic!("not done");
    };
    assert!(said.contains("50 of 50"), "{said}");
    let Progress::Never(why) = backend_ensured(&backend("t", 49, 1), "t") else {
        panic!("all is well");
    };
    assert!(why.starts_with("1 of 50 shares are not"), "{why}");
    let new = fixtures::backend(&json!({"simulated": {}}), &json!({}));
    assert!(matches!(backend_ensured(&new, "t"), Progress::NotYet(_)));
}

#[test]
fn a_rule_is_in_force_on_the_spec_it_has() {
    let office = rule("office", &json!({"accessTo": "10.0.0.1"}));
    assert_eq!(in_force(&office), Progress::Done("10.0.0.1 is let in".into()));
    let mut changed = office;
    changed.metadata.generation = Some(2);
    assert!(matches!(in_force(&changed), Progress::NotYet(_)));
    let stalled = rule_with(
        "office",
        &json!({"accessTo": "10.0.0.1"}),
        &json!({"observedGeneration": 1, "phase": "Error", "conditions": [
            condition("Ready", "False", "AccessTypeNotSupported", "it is a CephFS share"),
            condition("Stalled", "True", "AccessTypeNotSupported", "it is a CephFS share"),
        ]}),
    );
    assert_eq!(
        in_force(&stalled),
        Progress::Never("AccessTypeNotSupported: it is a CephFS share".into())
    );
}
