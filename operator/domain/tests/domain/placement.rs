//! Where a share goes, and what is said of each backend that is passed over.

use shoal_crds::{LabelSelector, Protocol, ShareType, condition::reasons};
use shoal_domain::{
    Class, Failure, Scope,
    identity::Description,
    placement::{Candidate, Request, choose, selects},
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

fn place<'a>(share_type: &ShareType, candidates: &'a [Candidate]) -> Result<&'a str, Failure> {
    let request = Request {
        share_type,
        protocol: Protocol::NFS,
        size_bytes: GI,
    };
    choose(&request, candidates).map(|c| c.name.as_str())
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
