//! Where a share goes, and what is said of each backend that is passed over.

use std::collections::BTreeSet;

use shoal_crds::{LabelSelector, Placement, Protocol, ShareType, condition::reasons};
use shoal_domain::{
    Class, Failure, Scope,
    identity::Description,
    mount_point::NfsCluster,
    placement::{Candidate, Company, Door, Neighbour, Request, choose, company, may_extend, selects},
};

use crate::fixtures::*;

fn with_free(name: &str, free_bytes: Option<u64>) -> Candidate {
    candidate(
        name,
        Ok(Description {
            free_bytes,
            ..backend_description()
        }),
    )
}

fn request(share_type: &ShareType) -> Request<'_> {
    Request {
        share_type,
        protocol: Protocol::NFS,
        size_bytes: GI,
        pin: None,
        company: Company::default(),
        mount_point_name: None,
        taken_on: const { &BTreeSet::new() },
    }
}

fn place<'a>(share_type: &ShareType, candidates: &'a [Candidate]) -> Result<&'a str, Failure> {
    choose(&request(share_type), candidates).map(|c| c.name.as_str())
}

/// Of 10Gi, so much of it free.
fn of_ten(name: &str, free: u64) -> Candidate {
    let mut candidate = with_free(name, Some(free * GI));
    candidate.state.as_mut().unwrap().total_bytes = Some(10 * GI);
    candidate
}

fn passed_over(candidate: Candidate) -> String {
    place(&share_type(), &[candidate]).unwrap_err().message
}

#[test]
fn one_that_takes_no_new_shares_says_why_and_takes_one_that_is_pinned_to_it() {
    let mut disabled = of_ten("a", 10);
    disabled.door = Door::Disabled(Some("worn out".into()));
    assert_eq!(passed_over(disabled.clone()), "a: takes no new shares (worn out)");
    let share_type = share_type();
    let pinned = Request {
        pin: Some("a"),
        ..request(&share_type)
    };
    let backends = [disabled, of_ten("b", 10)];
    assert_eq!(choose(&pinned, &backends).unwrap().name, "a");
    assert_eq!(place(&share_type, &backends).unwrap(), "b");
    let mut leaving = backends;
    leaving[0].door = Door::Closed;
    let failure = choose(&pinned, &leaving).unwrap_err();
    assert_eq!(
        failure.message, "a: being deleted",
        "and of others nothing is said"
    );
}

/// On this NFS cluster.
fn on_cluster(name: &str, id: &str) -> Candidate {
    let mut candidate = of_ten(name, 10);
    candidate.state.as_mut().unwrap().nfs_cluster_id = Some(id.into());
    candidate
}

#[test]
fn a_name_that_is_taken_on_one_nfs_cluster_is_free_on_another() {
    let share_type = share_type();
    let taken_on = BTreeSet::from([NfsCluster {
        fsid: "fsid-1".into(),
        id: "nfs-1".into(),
    }]);
    let named = Request {
        mount_point_name: Some("data"),
        taken_on: &taken_on,
        ..request(&share_type)
    };
    let mut of_another_ceph = on_cluster("c", "nfs-1");
    of_another_ceph.state.as_mut().unwrap().identity.fsid = "fsid-2".into();
    let (one, two) = (on_cluster("a", "nfs-1"), on_cluster("b", "nfs-2"));
    assert_eq!(choose(&named, &[one.clone(), two]).unwrap().name, "b");
    assert_eq!(choose(&named, &[one.clone(), of_another_ceph]).unwrap().name, "c");
    let full = Candidate {
        door: Door::Disabled(None),
        ..on_cluster("d", "nfs-2")
    };
    let failure = choose(&named, &[one.clone(), full.clone()]).unwrap_err();
    assert_eq!(
        (failure.reason, failure.class),
        (reasons::MOUNT_POINT_NAME_TAKEN, Class::Waiting)
    );
    assert!(
        failure
            .message
            .starts_with("spec.mountPointName: 'data' is taken (a: somebody has")
            && failure.message.contains("create the Share with another name"),
        "{}",
        failure.message
    );
    // Where it could not go anyway, the name is not what is in the way.
    let full_too = Candidate {
        door: Door::Disabled(None),
        ..one.clone()
    };
    let failure = choose(&named, &[full_too, full]).unwrap_err();
    assert_eq!(failure.reason, reasons::NO_BACKEND_FITS);
    let unnamed = Request {
        mount_point_name: None,
        ..named
    };
    assert_eq!(choose(&unnamed, &[one]).unwrap().name, "a");
}

#[test]
fn a_pin_to_what_does_not_exist_names_the_field() {
    let share_type = share_type();
    let pinned = Request {
        pin: Some("x"),
        ..request(&share_type)
    };
    let failure = choose(&pinned, &[of_ten("a", 10)]).unwrap_err();
    assert_eq!(failure.reason, reasons::NO_BACKEND_FITS);
    assert!(
        failure
            .message
            .starts_with("spec.placement.backendName: ShareBackend 'x' does not exist"),
        "{failure:?}"
    );
}

#[test]
fn the_reserve_is_kept_from_new_shares_and_is_there_for_growing() {
    let mut candidate = of_ten("a", 3);
    candidate.reserved_percentage = 20;
    assert!(place(&share_type(), std::slice::from_ref(&candidate)).is_ok());
    candidate.reserved_percentage = 21;
    assert_eq!(passed_over(candidate.clone()), "a: has no room for it");
    assert!(may_extend(&candidate, GI, 4 * GI).is_ok());
    let failure = may_extend(&candidate, GI, 4 * GI + 1).unwrap_err();
    assert_eq!(
        (failure.reason, failure.class),
        (reasons::NO_ROOM_TO_EXTEND, Class::Waiting)
    );
}

#[test]
fn promises_stay_within_the_ratio_to_the_byte() {
    let mut candidate = of_ten("a", 10);
    candidate.overcommit = Some("1.5".parse().unwrap());
    candidate.load.promised_bytes = u128::from(14 * GI);
    assert!(place(&share_type(), std::slice::from_ref(&candidate)).is_ok());
    assert!(may_extend(&candidate, 0, GI).is_ok() && may_extend(&candidate, 0, GI + 1).is_err());
    candidate.load.promised_bytes += 1;
    assert_eq!(
        passed_over(candidate.clone()),
        "a: has promised its room to other shares"
    );
    candidate.overcommit = None;
    assert!(place(&share_type(), &[candidate]).is_ok(), "no ratio, no limit");
}

#[test]
fn exports_of_the_nfs_cluster_are_counted_for_nfs_shares() {
    let mut candidate = of_ten("a", 10);
    candidate.max_exports = Some(7);
    candidate.load.exports = 7;
    assert_eq!(
        passed_over(candidate.clone()),
        "a: its NFS cluster has 7 exports, the most it may have (spec.ceph.nfs.maxExports)"
    );
    candidate.state.as_mut().unwrap().protocols = vec![Protocol::CephFS];
    let share_type = share_type();
    let native = Request {
        protocol: Protocol::CephFS,
        ..request(&share_type)
    };
    assert!(choose(&native, &[candidate]).is_ok());
}

#[test]
fn what_was_promised_counts_as_taken_and_then_the_fewest_shares_decide() {
    let (mut a, mut b) = (of_ten("a", 9), of_ten("b", 8));
    a.load.promised_bytes = u128::from(5 * GI);
    assert_eq!(place(&share_type(), &[a.clone(), b.clone()]).unwrap(), "b");
    b.load.promised_bytes = u128::from(5 * GI);
    a.load.shares = 2;
    b.load.shares = 1;
    assert_eq!(place(&share_type(), &[a, b]).unwrap(), "b");
}

fn wishes(same: &[&str], different: &[&str]) -> Placement {
    let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
    Placement {
        backend_name: None,
        same_backend_as: names(same),
        different_backend_from: names(different),
    }
}

fn neighbour(name: &str, backend: Option<&str>, placement: Placement) -> Neighbour {
    Neighbour {
        name: name.into(),
        backend_name: backend.map(Into::into),
        placement,
    }
}

#[test]
fn others_count_once_they_are_placed_whichever_names_the_other() {
    let none = Placement::default();
    let found = |placement: &Placement, neighbours: &[Neighbour]| {
        let company = company("me", placement, neighbours).unwrap();
        let names = |names: std::collections::BTreeSet<String>| names.into_iter().collect::<Vec<_>>();
        (names(company.with), names(company.apart_from))
    };
    let nothing = (vec![], vec![]);
    let at = |name: &str| vec![name.to_owned()];
    assert_eq!(
        found(&wishes(&["x"], &[]), &[neighbour("x", Some("a"), none.clone())]),
        (at("a"), vec![])
    );
    assert_eq!(
        found(&none, &[neighbour("x", Some("a"), wishes(&["me"], &[]))]),
        (at("a"), vec![])
    );
    assert_eq!(
        found(&wishes(&[], &["x"]), &[neighbour("x", Some("a"), none.clone())]),
        (vec![], at("a"))
    );
    assert_eq!(
        found(&none, &[neighbour("x", Some("a"), wishes(&[], &["me"]))]),
        (vec![], at("a"))
    );
    assert_eq!(
        found(
            &wishes(&["x"], &["x"]),
            &[neighbour("x", None, wishes(&["me"], &["me"]))]
        ),
        nothing,
        "two that name each other don't wait for each other"
    );
    assert_eq!(found(&wishes(&[], &["gone"]), &[]), nothing);
    assert_eq!(
        found(&wishes(&["me"], &[]), &[]),
        nothing,
        "with itself it is anyway"
    );
    let failure = company("me", &wishes(&["x", "y"], &[]), &[neighbour("x", None, none)]).unwrap_err();
    assert_eq!(
        (failure.reason, failure.class),
        (reasons::WAITING_FOR_SHARE, Class::Waiting)
    );
    assert!(failure.message.contains("'y'"), "{failure:?}");
}

#[test]
fn company_decides_where_it_goes() {
    let share_type = share_type();
    let backends = [of_ten("a", 9), of_ten("b", 8)];
    let place = |with: &[&str], apart_from: &[&str]| {
        let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        let request = Request {
            company: Company {
                with: names(with),
                apart_from: names(apart_from),
            },
            ..request(&share_type)
        };
        choose(&request, &backends)
            .map(|c| c.name.clone())
            .map_err(|failure| failure.message)
    };
    assert_eq!(place(&["b"], &[]).unwrap(), "b");
    assert_eq!(place(&[], &["a"]).unwrap(), "b");
    assert_eq!(
        place(&["a", "b"], &[]).unwrap_err(),
        "a: a share that it has to be with is on b; b: a share that it has to be with is on a"
    );
    assert_eq!(
        place(&[], &["a", "b"]).unwrap_err(),
        "a: a share that it has to be apart from is on it; b: a share that it has to be apart from is on it"
    );
}

#[test]
fn the_backend_with_the_most_room_is_chosen_and_the_name_decides_between_equals() {
    let candidates = [
        with_free("c", Some(2 * GI)),
        with_free("b", Some(9 * GI)),
        with_free("a", Some(9 * GI)),
    ];
    assert_eq!(place(&share_type(), &candidates).unwrap(), "a");
}

#[test]
fn that_none_fits_is_said_when_all_have_been_asked() {
    let not_asked = Failure {
        class: Class::Waiting,
        scope: Scope::Backend,
        reason: reasons::BACKEND_NOT_ASKED,
        message: "it has not been asked yet".into(),
    };
    let unknown = candidate("b", Err(not_asked.clone()));
    let full = [of_ten("a", 0), unknown.clone()];
    assert_eq!(place(&share_type(), &full), Err(not_asked));
    assert_eq!(place(&share_type(), &[of_ten("a", 10), unknown]).unwrap(), "a");
}

#[test]
fn room_that_is_not_told_is_taken_for_enough() {
    assert_eq!(place(&share_type(), &[with_free("a", None)]).unwrap(), "a");
}

#[test]
fn it_fits_to_the_byte() {
    assert!(place(&share_type(), &[with_free("a", Some(GI))]).is_ok());
    assert!(place(&share_type(), &[with_free("a", Some(GI - 1))]).is_err());
}

#[test]
fn it_says_backend_by_backend_why_none_fits() {
    let native = Description {
        protocols: vec![Protocol::CephFS],
        ..backend_description()
    };
    let down = failure(Scope::Backend, Class::Transient, reasons::BACKEND_UNREACHABLE);
    let mut share_type = share_type();
    let named = |names: [&str; 3]| names.map(str::to_owned).to_vec();
    share_type.spec.backend_names = Some(named(["full", "down", "native"]));
    let candidates = [
        candidate("other", Ok(backend_description())),
        with_free("full", Some(5)),
        candidate("native", Ok(native)),
        candidate("down", Err(down)),
    ];
    let failure = place(&share_type, &candidates).unwrap_err();
    assert_eq!(
        (failure.reason, failure.class),
        (reasons::NO_BACKEND_FITS, Class::Waiting)
    );
    assert_eq!(
        failure.message,
        "down: not ready (BackendUnreachable); full: has no room for it; native: does not serve NFS; \
         other: not selected by the type"
    );
    assert!(
        place(&share_type, &[])
            .unwrap_err()
            .message
            .contains("no ShareBackend")
    );
}

#[test]
fn a_type_selects_by_name_or_label_or_takes_all() {
    let mut share_type = share_type();
    let fast = [("tier".to_owned(), "fast".to_owned())].into();
    let none = std::collections::BTreeMap::new();
    assert!(selects(&share_type, "a", &none));
    share_type.spec.backend_selector = Some(LabelSelector { match_labels: fast });
    assert!(!selects(&share_type, "a", &none));
    assert!(selects(
        &share_type,
        "a",
        &[("tier".to_owned(), "fast".to_owned())].into()
    ));
    share_type.spec.backend_names = Some(vec!["a".into()]);
    assert!(selects(&share_type, "a", &none) && !selects(&share_type, "b", &none));
}
