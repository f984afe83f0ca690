//! Every rule of [`shoal_domain::share_type`].

use std::collections::BTreeMap;

use shoal_crds::{
    LabelSelector, Protocol, ShareType, ShareTypePhase, SizeLimits,
    condition::{reasons, types},
    names::DEFAULT_SHARE_TYPE,
};
use shoal_domain::{
    Class,
    decision::trouble,
    share_type::{Observed, admit, capabilities, decide, may_become, resolve, within},
};

use crate::fixtures::*;

fn named(name: &str) -> ShareType {
    ShareType::new(name, share_type().spec)
}

fn default(name: &str) -> ShareType {
    let mut share_type = named(name).aged(0);
    share_type.metadata.annotations = Some([(DEFAULT_SHARE_TYPE.to_owned(), "true".to_owned())].into());
    share_type
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

#[test]
fn a_type_is_found_by_name_or_as_the_default() {
    let types = [named("gold"), default("standard")];
    let found = |name| resolve(name, &types).map(|t| t.named().to_owned());
    assert_eq!(found(Some("gold")).unwrap(), "gold");
    assert_eq!(found(None).unwrap(), "standard");
    assert_eq!(
        found(Some("silver")).unwrap_err().reason,
        reasons::SHARE_TYPE_NOT_FOUND
    );
    assert_eq!(
        resolve(None, &types[..1]).unwrap_err().reason,
        reasons::NO_DEFAULT_SHARE_TYPE
    );
    let mut off = default("off");
    off.metadata.annotations = Some([(DEFAULT_SHARE_TYPE.to_owned(), "false".to_owned())].into());
    assert!(resolve(None, &[off]).is_err());
}

#[test]
fn of_several_defaults_the_newest_counts_and_then_the_name() {
    let found = |types: &[ShareType]| resolve(None, types).unwrap().named().to_owned();
    assert_eq!(found(&[default("new"), default("old").aged(60)]), "new");
    assert_eq!(found(&[default("old").aged(60), default("new")]), "new");
    assert_eq!(found(&[default("b"), default("a")]), "a");
}

#[test]
fn a_type_admits_by_namespace_protocol_and_size() {
    let mut share_type = named("standard");
    let asked = |t: &ShareType, ns: &[(&str, &str)], protocol, text| {
        admit(t, &labels(ns), protocol, size(text)).map_err(|f| (f.reason, f.class))
    };
    assert_eq!(asked(&share_type, &[], Protocol::NFS, "1Gi"), Ok(()));
    assert_eq!(asked(&share_type, &[], Protocol::NFS, "10Gi"), Ok(()));
    assert_eq!(
        asked(&share_type, &[], Protocol::NFS, "10241Mi"),
        Err((reasons::SIZE_OUT_OF_RANGE, Class::Stalled))
    );
    share_type.spec.protocols = vec![Protocol::NFS];
    assert_eq!(
        asked(&share_type, &[], Protocol::CephFS, "1Gi"),
        Err((reasons::PROTOCOL_NOT_OFFERED, Class::Stalled))
    );
    let blue = labels(&[("team", "blue")]);
    share_type.spec.allowed_namespaces = Some(LabelSelector { match_labels: blue });
    assert_eq!(
        asked(&share_type, &[("team", "red")], Protocol::NFS, "1Gi"),
        Err((reasons::SHARE_TYPE_NOT_ALLOWED, Class::Stalled))
    );
    assert_eq!(
        asked(&share_type, &[("team", "blue"), ("x", "y")], Protocol::NFS, "1Gi"),
        Ok(())
    );
}

#[test]
fn limits_include_their_ends_and_say_which_was_crossed() {
    let limits = SizeLimits {
        min: Some(size("1Gi")),
        max: Some(size("2Gi")),
        max_extend: None,
    };
    let says = |text| within(limits, size(text)).map_err(|f| f.message);
    assert_eq!(says("1Gi"), Ok(()));
    assert_eq!(says("2Gi"), Ok(()));
    assert!(says("1023Mi").unwrap_err().contains("smallest size, 1Gi"));
    assert!(says("2049Mi").unwrap_err().contains("largest size, 2Gi"));
    assert_eq!(within(SizeLimits::default(), size("1")), Ok(()));
}

#[test]
fn a_share_copies_what_it_needs() {
    let mut share_type = named("standard");
    share_type.spec.shrink = true;
    share_type.spec.root.mode = "0770".into();
    let copied = capabilities(&share_type);
    assert!(copied.shrink);
    assert_eq!(
        (copied.root, copied.size),
        (share_type.spec.root, share_type.spec.size)
    );
}

#[test]
fn growing_beyond_the_largest_size_has_a_limit_of_its_own() {
    let limits = |max_extend: Option<&str>| SizeLimits {
        min: Some(size("2Gi")),
        max: Some(size("10Gi")),
        max_extend: max_extend.map(size),
    };
    let may =
        |max_extend, now: &str, asked: &str| may_become(limits(max_extend), size(now), size(asked)).is_ok();
    assert!(may(None, "5Gi", "10Gi") && !may(None, "5Gi", "11Gi"));
    assert!(may(Some("20Gi"), "5Gi", "20Gi") && !may(Some("20Gi"), "5Gi", "21Gi"));
    assert!(
        may(None, "15Gi", "12Gi"),
        "one that is larger already may shrink step by step"
    );
    assert!(!may(Some("20Gi"), "5Gi", "1Gi"));
    assert!(
        within(limits(Some("20Gi")), size("11Gi")).is_err(),
        "not when it is made"
    );
}

#[test]
fn of_two_defaults_the_older_says_that_it_is_not_taken() {
    let mut observed = Observed {
        share_type: default("old"),
        candidates: Vec::new(),
        newer_default: Some("new".into()),
    };
    let conditions = decide(&observed, now()).status.conditions;
    assert_eq!(
        told(&conditions, types::DEFAULT),
        ("False".into(), reasons::NEWER_DEFAULT.into())
    );
    let warnings: Vec<_> = trouble(&[], &conditions)
        .into_iter()
        .map(|event| event.reason)
        .collect();
    assert!(
        warnings.contains(&reasons::NEWER_DEFAULT.to_owned()),
        "{warnings:?}"
    );
    observed.newer_default = None;
    assert!(says(&decide(&observed, now()).status.conditions, types::DEFAULT));
    observed.share_type = named("plain");
    let conditions = decide(&observed, now()).status.conditions;
    assert_eq!(told(&conditions, types::DEFAULT), Default::default());
}

#[test]
fn a_type_says_which_backends_it_selects() {
    let mut observed = Observed {
        share_type: named("standard"),
        candidates: vec![
            candidate("b", Ok(backend_description())),
            candidate("a", Ok(backend_description())),
        ],
        newer_default: None,
    };
    let decision = decide(&observed, now());
    assert_eq!(decision.status.backend_names, ["a", "b"]);
    assert_eq!(decision.status.phase, Some(ShareTypePhase::Available));
    observed.share_type.status = Some(decision.status.clone());
    let again = decide(&observed, "2027-01-01T00:00:00Z".parse().unwrap());
    assert_eq!(again.status, decision.status, "no news");

    observed.share_type.spec.backend_names = Some(vec!["c".into()]);
    let decision = decide(&observed, now());
    assert_eq!(
        why_not_ready(&decision.status.conditions),
        reasons::NO_BACKEND_FITS
    );
    assert_eq!(decision.status.phase, Some(ShareTypePhase::Unavailable));
}
