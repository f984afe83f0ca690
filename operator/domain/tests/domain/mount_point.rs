//! What a readable path is made of, and what is none.

use shoal_crds::{MountPointNames, Share, ShareType, condition::reasons};
use shoal_domain::{Class, mount_point::resolve, share::pseudo_path};

use crate::fixtures::*;

fn named(name: &str) -> Share {
    let mut share = share("a");
    share.spec.mount_point_name = Some(name.into());
    share
}

fn allowing(prefix: Option<&str>) -> ShareType {
    let mut share_type = share_type();
    share_type.spec.mount_point_name = MountPointNames {
        enabled: true,
        prefix: prefix.map(Into::into),
    };
    share_type
}

fn resolved(name: &str, prefix: Option<&str>) -> Result<String, String> {
    match resolve(&named(name), &allowing(prefix)) {
        Ok(name) => Ok(name.unwrap()),
        Err(failure) => {
            assert_eq!(
                (failure.reason, failure.class),
                (reasons::INVALID_MOUNT_POINT_NAME, Class::Stalled)
            );
            assert!(failure.message.starts_with("spec.mountPointName: "), "{failure}");
            Err(failure.message)
        }
    }
}

#[test]
fn the_prefix_comes_before_the_name() {
    for (prefix, expected) in [
        (None, "team-data"),
        (Some(""), "data"),
        (Some("nfs_"), "nfs_data"),
        (Some("{namespace}_{name}_"), "team_a_data"),
        (Some("{name}{name}"), "aadata"),
    ] {
        assert_eq!(resolved("data", prefix).as_deref(), Ok(expected), "{prefix:?}");
    }
    assert_eq!(pseudo_path(Some("team-data"), "uid-a"), "/team-data");
}

#[test]
fn who_asks_for_no_name_gets_none() {
    for share_type in [share_type(), allowing(None)] {
        assert_eq!(resolve(&share("a"), &share_type), Ok(None));
    }
    assert_eq!(pseudo_path(None, "uid-a"), "/shoal-uid-a");
}

#[test]
fn a_type_that_allows_none_says_so() {
    let mut forbids = allowing(Some(""));
    forbids.spec.mount_point_name.enabled = false;
    for share_type in [share_type(), forbids] {
        let failure = resolve(&named("data"), &share_type).unwrap_err();
        assert_eq!(
            (failure.reason, failure.class),
            (reasons::MOUNT_POINT_NAME_NOT_ALLOWED, Class::Stalled)
        );
        for part in ["spec.mountPointName", "'standard'", "'data'", "with another type"] {
            assert!(failure.message.contains(part), "{failure}");
        }
    }
}

#[test]
fn what_counts_is_the_name_with_its_prefix() {
    assert_eq!(resolved(&"x".repeat(255), Some("")).unwrap().len(), 255);
    let longest = resolved(&"x".repeat(251), None).unwrap_err();
    assert!(
        longest.contains("has 256 characters and may have 255"),
        "{longest}"
    );
    let variable = resolved("data", Some("{uid}-")).unwrap_err();
    assert!(
        variable.contains("'{uid}-data', which has '{' in it")
            && variable.contains("another prefix than '{uid}-'"),
        "{variable}"
    );
    let mut dotted = named("data");
    dotted.metadata.name = Some("a.b".into());
    let failure = resolve(&dotted, &allowing(Some("{name}-"))).unwrap_err();
    assert!(
        failure.message.contains("'a.b-data', which has '.' in it"),
        "{failure}"
    );
    for (name, prefix) in [("a/b", ""), ("a b", ""), ("\u{e4}", ""), ("b", "a/")] {
        assert!(resolved(name, Some(prefix)).is_err(), "{prefix}{name}");
    }
    // They are Shoal's own: '/shoal-<uid>' is the path of a share without a name.
    for (name, prefix) in [("shoal-uid-b", ""), ("uid-b", "shoal-"), ("-uid-b", "shoal")] {
        let message = resolved(name, Some(prefix)).unwrap_err();
        assert!(message.contains("with 'shoal-'; choose another"), "{message}");
    }
    assert!(resolved("shoal", Some("")).is_ok() && resolved("shoal-data", None).is_ok());
}
