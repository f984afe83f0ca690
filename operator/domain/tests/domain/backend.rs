//! Every rule of [`shoal_domain::share_backend`].

use std::time::Duration;

use shoal_crds::{
    BackendPhase, ShareBackend, SimulatedBackend,
    condition::{reasons, types},
};
use shoal_domain::{
    Class, Failure, Next, Scope, Step,
    decision::trouble,
    identity::{Description, NfsExports},
    placement::{Door, Load},
    share_backend::{Effect, Observed, candidate, decide, is_ready, recorded},
};

use crate::fixtures::*;

fn answering(answer: Result<Description, Failure>) -> Observed {
    Observed {
        description: Some(answer),
        ..of_backend()
    }
}

/// As it is once recorded and admitted.
fn known() -> Observed {
    let mut o = answering(Ok(backend_description()));
    o.backend.status = Some(decide(&o, now()).status);
    o.admitted = o.description.clone();
    o
}

fn unreachable() -> Failure {
    failure(Scope::Backend, Class::Transient, reasons::BACKEND_UNREACHABLE)
}

fn admits(o: &Observed) -> Result<Description, Failure> {
    match decide(o, now()).step {
        Some(Step::Do(Effect::Admit(verdict))) => *verdict,
        other => panic!("{other:?}"),
    }
}

#[test]
fn it_is_held_before_anything_else() {
    let mut o = of_backend();
    o.backend = o.backend.not_held();
    assert_eq!(decide(&o, now()).step, Some(Step::AddFinalizer));
    o.backend = o.backend.leaving();
    let decision = decide(&o, now());
    assert_eq!((decision.step, decision.next), (None, Next::Await));
}

#[test]
fn one_that_is_deleted_goes_when_the_api_server_says_that_no_share_is_on_it() {
    let mut o = known();
    o.backend = o.backend.leaving();
    assert_eq!(decide(&o, now()).step, Some(Step::Do(Effect::ConfirmEmpty)));
    o.is_empty = true;
    assert_eq!(decide(&o, now()).step, Some(Step::RemoveFinalizer));
}

#[test]
fn one_that_is_deleted_with_shares_on_it_names_them_and_looks_after_them() {
    let mut o = known();
    o.backend = o.backend.leaving();
    o.load.shares = 12;
    o.in_the_way = vec!["team/a".into(), "team/b".into()];
    let decision = decide(&o, now());
    assert_eq!(decision.step, None);
    assert_eq!(decision.next, Next::After(Duration::from_secs(30)));
    let conditions = &decision.status.conditions;
    assert!(is_ready(&decision.status));
    assert_eq!(
        told(conditions, types::DELETION_BLOCKED),
        ("True".into(), reasons::HAS_SHARES.into())
    );
    assert_eq!(decision.status.phase, Some(BackendPhase::Deleting));
    let events = trouble(&[], conditions);
    assert!(
        events.iter().any(|event| event
            .message
            .starts_with("12 shares are on it: team/a, team/b, ….")),
        "{events:?}"
    );
    // Those of which only the API server knows.
    o.load.shares = 0;
    assert_eq!(decide(&o, now()).step, None);
}

#[test]
fn a_paused_one_is_not_asked_and_its_shares_are_told() {
    let mut o = of_backend();
    // Nor is it looked through, however long that is due.
    (o.scan.is_due, o.scan.again) = (true, Duration::ZERO);
    o.backend.spec.paused = true;
    assert_eq!(admits(&o).unwrap_err().reason, reasons::BACKEND_PAUSED);
    o.admitted = Some(admits(&o));
    let decision = decide(&o, now());
    assert_eq!(decision.step, None);
    assert_eq!(
        why_not_ready(&decision.status.conditions),
        reasons::BACKEND_PAUSED
    );
    assert_eq!(decision.next, Next::After(Duration::from_secs(3)));
}

#[test]
fn as_placement_sees_it() {
    let mut a = known().backend;
    a.spec.ceph = Some(serde_json::from_value(serde_json::json!({
        "connectionSecretRef": {"namespace": "n", "name": "s"}, "filesystem": "a", "nfs": {"clusterID": "nfs"},
    })).unwrap());
    let mut b = a.clone();
    b.metadata.name = Some("ceph-b".into());
    b.spec.ceph.as_mut().unwrap().nfs.as_mut().unwrap().max_exports = Some(50);
    let load = |exports| Load {
        deletions: 0,
        promised_bytes: GI.into(),
        shares: 4,
        exports,
    };
    let loads = [("ceph-a".to_owned(), load(3)), ("ceph-b".to_owned(), load(4))].into();
    let all = [a.clone(), b.clone()];
    let seen = |backend: &ShareBackend| candidate(backend, Ok(backend_description()), &all, &loads);
    let one = seen(&a);
    assert_eq!((one.door, one.load.shares), (Door::Open, 4));
    assert_eq!(
        (one.max_exports, one.load.exports),
        (Some(50), 7),
        "they share an NFS cluster, and the least limit counts"
    );
    let mut description = backend_description();
    description.nfs_exports = NfsExports {
        all: 9,
        others: 2,
        ..NfsExports::default()
    };
    assert_eq!(
        candidate(&a, Ok(description), &all, &loads).load.exports,
        9,
        "those that are no shares' count, too"
    );
    assert_eq!(
        candidate(&a, Ok(backend_description()), &all[..1], &loads).max_exports,
        Some(215),
        "without a limit, as many as Ceph can remove one of"
    );
    let mut disabled = a.clone();
    disabled.spec.scheduling_enabled = false;
    disabled.spec.disabled_reason = Some("worn out".into());
    assert_eq!(seen(&disabled).door, Door::Disabled(Some("worn out".into())));
    assert_eq!(seen(&disabled.leaving()).door, Door::Closed);
}

#[test]
fn it_is_asked_first() {
    assert_eq!(
        decide(&of_backend(), now()).step,
        Some(Step::Do(Effect::Describe))
    );
}

#[test]
fn first_contact_is_recorded_before_any_share_is_admitted() {
    let mut o = answering(Ok(backend_description()));
    let decision = decide(&o, now());
    assert_eq!(decision.step, Some(Step::Record));
    assert_eq!(recorded(&decision.status), Some(identity()));
    assert!(is_ready(&decision.status));
    o.backend.status = Some(decision.status);
    assert_eq!(admits(&o), Ok(backend_description()));
}

#[test]
fn at_rest_it_is_polled_and_not_written() {
    let decision = decide(&known(), "2027-01-01T00:00:00Z".parse().unwrap());
    assert_eq!(decision.step, None);
    assert_eq!(Some(decision.status), known().backend.status);
    assert_eq!(decision.next, Next::After(Duration::from_secs(30)));
}

#[test]
fn one_that_does_not_answer_says_why_and_is_asked_again_soon() {
    let mut o = known();
    o.description = Some(Err(unreachable()));
    assert_eq!(admits(&o), Err(unreachable()));
    o.admitted = o.description.clone();
    let decision = decide(&o, now());
    assert_eq!(decision.step, None);
    assert_eq!(decision.next, Next::After(Duration::from_secs(3)));
    assert_eq!(decision.status.phase, Some(BackendPhase::Unavailable));
    assert_eq!(
        why_not_ready(&decision.status.conditions),
        reasons::BACKEND_UNREACHABLE
    );
    assert_eq!(
        recorded(&decision.status),
        Some(identity()),
        "what it was is not forgotten"
    );
    assert!(!is_ready(&decision.status));
}

#[test]
fn one_that_never_answered_is_not_recorded() {
    let mut o = answering(Err(unreachable()));
    assert_eq!(admits(&o), Err(unreachable()));
    o.admitted = o.description.clone();
    assert_eq!(recorded(&decide(&o, now()).status), None);
}

#[test]
fn another_storage_under_its_address_is_not_admitted_and_not_recorded() {
    let mut other_file_system = backend_description();
    other_file_system.identity.fs_id = 2;
    for found in [replaced(backend_description()), other_file_system] {
        let mut o = known();
        o.description = Some(Ok(found));
        let refusal = admits(&o).unwrap_err();
        assert_eq!(
            (refusal.reason, refusal.class),
            (reasons::BACKEND_REPLACED, Class::Stalled)
        );
        o.admitted = Some(Err(refusal));
        let decision = decide(&o, now());
        assert_eq!(decision.step, None);
        assert_eq!(recorded(&decision.status), Some(identity()));
        assert!(says(&decision.status.conditions, types::STALLED));
    }
}

#[test]
fn one_that_answers_otherwise_than_shares_were_told_is_admitted_anew() {
    let mut o = known();
    let mut moved = backend_description();
    moved.monitors = vec!["10.9.0.3:6789".into()];
    o.description = Some(Ok(moved.clone()));
    let decision = decide(&o, now());
    assert_eq!(decision.step, Some(Step::Record));
    assert_eq!(decision.status.ceph.as_ref().unwrap().monitors, ["10.9.0.3:6789"]);
    o.backend.status = Some(decision.status);
    assert_eq!(admits(&o), Ok(moved));
}

#[test]
fn room_is_written_only_when_it_moved_by_a_hundredth() {
    for (free, written) in [
        (99 * GI, 100),
        (101 * GI, 100),
        (98 * GI, 98),
        (102 * GI, 102),
        (0, 0),
    ] {
        let mut o = known();
        let mut description = backend_description();
        description.free_bytes = Some(free);
        o.description = Some(Ok(description));
        let free = decide(&o, now()).status.capacity.unwrap().free;
        assert_eq!(free.map_or(0, |f| f.bytes() / GI), written);
    }
}

#[test]
fn exports_that_ceph_does_not_remove_are_told() {
    let told = |all, outdated: &[&str]| {
        let mut o = known();
        o.backend.spec.ceph = Some(serde_json::from_value(serde_json::json!({
            "connectionSecretRef": {"namespace": "n", "name": "s"}, "filesystem": "a", "nfs": {"clusterID": "nfs"},
        })).unwrap());
        let mut description = backend_description();
        let outdated = outdated.iter().map(ToString::to_string).collect();
        description.nfs_exports = NfsExports {
            all,
            others: all,
            outdated,
        };
        o.description = Some(Ok(description));
        let status = decide(&o, now()).status;
        assert!(is_ready(&status), "shares that are there are looked after");
        let stay = status
            .conditions
            .into_iter()
            .find(|c| c.type_ == types::EXPORTS_STAY);
        stay.map(|condition| (condition.reason, condition.message))
    };
    assert_eq!(told(215, &[]), None);
    let (reason, message) = told(3, &["/theirs", "/those"]).unwrap();
    assert_eq!(reason, reasons::OUTDATED_EXPORTS);
    assert!(message.contains("not Shoal's, /theirs, /those;"), "{message}");
    let (reason, message) = told(216, &["/theirs"]).unwrap();
    assert_eq!(reason, reasons::TOO_MANY_EXPORTS);
    assert!(
        message.starts_with("spec.ceph.nfs.clusterID: NFS cluster 'nfs' has more than 215 exports"),
        "{message}"
    );
}

#[test]
fn a_pretence_says_so() {
    let mut o = answering(Ok(backend_description()));
    o.backend.spec.simulated = Some(SimulatedBackend::default());
    assert!(says(&decide(&o, now()).status.conditions, reasons::SIMULATED));
    assert!(!says(
        &decide(&known(), now()).status.conditions,
        reasons::SIMULATED
    ));
}

#[test]
fn effects_have_names() {
    assert_eq!(Effect::Describe.name(), "Describe");
    assert_eq!(Effect::Admit(Box::new(Err(unreachable()))).name(), "Admit");
}
