use serde_json::json;

use super::*;
use crate::{
    failure::Exit,
    fixtures::{self, RULE_UID, rule},
};

#[test]
fn a_bare_name_is_a_share() {
    for (text, kind, name) in [
        ("documents", LockedKind::Share, "documents"),
        ("share/documents", LockedKind::Share, "documents"),
        ("SHR/documents", LockedKind::Share, "documents"),
        ("rule/office", LockedKind::ShareAccessRule, "office"),
        ("shacc/office", LockedKind::ShareAccessRule, "office"),
    ] {
        let named: Named = text.parse().unwrap();
        assert_eq!((named.kind, named.name.as_str()), (kind, name), "{text}");
    }
    assert!("secret/x".parse::<Named>().is_err());
    assert!("share/".parse::<Named>().is_err());
}

#[test]
fn a_lock_holds_what_it_names() {
    let lock = fixtures::lock("keep", "Share", "documents", "alice");
    assert!("documents".parse::<Named>().unwrap().is_held_by(&lock));
    assert!(!"rule/documents".parse::<Named>().unwrap().is_held_by(&lock));
    assert!(!"others".parse::<Named>().unwrap().is_held_by(&lock));
}

#[test]
fn a_client_is_known_as_the_protocol_asks() {
    let (nfs, ceph) = (fixtures::nfs(), fixtures::share("CephFS", "m:/x", |_| {}));
    assert_eq!(
        client(&nfs, None, Some("10.0.0.1")).unwrap(),
        (AccessType::IP, Some("10.0.0.1".into()))
    );
    assert_eq!(
        client(&ceph, None, Some("alice")).unwrap(),
        (AccessType::CephX, Some("alice".into()))
    );
    assert_eq!(client(&ceph, None, None).unwrap(), (AccessType::CephX, None));
    assert_eq!(
        client(&ceph, Some(AccessType::IP), Some("10.0.0.1")).unwrap().0,
        AccessType::IP
    );
    let missing = client(&nfs, None, None).unwrap_err();
    assert_eq!(missing.exit, Exit::Usage);
    assert!(
        missing.message.contains("access allow documents 10.0.0.0/24"),
        "{}",
        missing.message
    );
}

#[test]
fn a_rule_is_meant_by_its_name_or_by_whom_it_lets_in() {
    let rules = [
        rule("office", &json!({"accessTo": "10.0.0.1"})),
        rule("second", &json!({"accessTo": "10.0.0.1"})),
        rule("made", &json!({"accessType": "CephX"})),
        rule("hidden", &json!({"accessToSecretRef": {"name": "s", "key": "k"}})),
    ];
    let names = |who: &str| {
        meant(&rules, who)
            .iter()
            .map(|rule| rule.name_any())
            .collect::<Vec<_>>()
    };
    assert_eq!(names("office"), ["office"]);
    assert_eq!(names("10.0.0.1"), ["office", "second"]);
    assert_eq!(names(&format!("shoal-{RULE_UID}")), ["made"]);
    assert_eq!(names("hidden"), ["hidden"]);
    assert!(names("10.0.0.2").is_empty());
}
