use std::time::Duration;

use serde_json::json;

use super::*;
use crate::fixtures::{self, UID};

fn arguments() -> Recover {
    Recover {
        deletion: Some(format!("shoal-{UID}")),
        share: None,
        cluster: None,
        data: None,
        start_empty: false,
        name: None,
        size: None,
        share_type: None,
        wait: Wait {
            wait: false,
            timeout: Duration::ZERO,
        },
    }
}

#[test]
fn what_is_kept_comes_back_as_it_was() {
    for phase in ["Retained", "Abandoned"] {
        let left = fixtures::deletion(&json!({}), &json!({"phase": phase}));
        let share = recovered(&left, None, &arguments()).unwrap();
        assert_eq!(
            (share.namespace().as_deref(), share.name_any().as_str()),
            (Some("team-a"), "documents")
        );
        assert_eq!(share.spec.size.to_string(), "50Gi");
        assert_eq!(share.spec.share_type_name.as_deref(), Some("standard"));
        let existing = share.spec.source.unwrap().existing;
        assert_eq!(existing.backend_name, "cephfs");
        assert_eq!(existing.handle, format!("shoal/shoal-{UID}"));
    }
}

#[test]
fn it_may_come_back_as_another() {
    let left = fixtures::deletion(&json!({}), &json!({"phase": "Retained"}));
    let wanted = Recover {
        name: Some("again".into()),
        size: Some("60Gi".parse().unwrap()),
        share_type: Some("fast".into()),
        ..arguments()
    };
    let share = recovered(&left, Some("team-b"), &wanted).unwrap();
    assert_eq!(
        (share.namespace().as_deref(), share.name_any().as_str()),
        (Some("team-b"), "again")
    );
    assert_eq!(
        (
            share.spec.size.to_string().as_str(),
            share.spec.share_type_name.as_deref()
        ),
        ("60Gi", Some("fast"))
    );
}

#[test]
fn what_is_being_removed_does_not_come_back() {
    for phase in ["Accepted", "RevokingAccess", "Purging", "Error"] {
        let left = fixtures::deletion(&json!({}), &json!({"phase": phase}));
        let refused = recovered(&left, None, &arguments()).unwrap_err();
        assert_eq!(refused.exit, Exit::Refused);
        assert!(refused.message.contains(phase), "{}", refused.message);
    }
    let adopted = json!({"adoptedBy": {"namespace": "photos", "name": "originals", "uid": "u"}});
    let left = fixtures::deletion(&adopted, &json!({"phase": "Retained"}));
    let refused = recovered(&left, None, &arguments()).unwrap_err();
    assert!(
        refused.message.contains("photos/originals"),
        "{}",
        refused.message
    );
}

#[test]
fn what_was_waited_for_is_said_too() {
    assert_eq!(with("x created", None), "x created");
    assert_eq!(with("x created", Some("y".into())), "x created: y");
}

/// A share that waits for a verdict on these.
fn waiting(handles: &[&str]) -> Share {
    let found: Vec<_> = handles
        .iter()
        .map(|handle| json!({"backendName": "cephfs", "handle": handle, "cluster": "c"}))
        .collect();
    fixtures::share("NFS", "192.0.2.11:/x", |share| {
        share["status"]["formerData"] = json!(found);
    })
}

#[test]
fn what_becomes_of_former_data_is_said_of_what_there_is() {
    let one = waiting(&["shoal/a"]);
    assert_eq!(verdict(&one, None, false).unwrap(), "cephfs/shoal/a");
    let uid = one.uid().unwrap_or_default();
    assert_eq!(verdict(&one, None, true).unwrap(), names::start_empty(&uid));
    assert_eq!(
        verdict(&one, Some("cephfs/shoal/a"), false).unwrap(),
        "cephfs/shoal/a"
    );
    let refused = verdict(&one, Some("cephfs/shoal/other"), false).unwrap_err();
    assert!(refused.message.contains("cephfs/shoal/a"), "{}", refused.message);

    let two = waiting(&["shoal/a", "shoal/b"]);
    let refused = verdict(&two, None, false).unwrap_err();
    assert!(refused.message.contains("--data"), "{}", refused.message);
    assert_eq!(
        verdict(&two, Some("cephfs/shoal/b"), false).unwrap(),
        "cephfs/shoal/b"
    );
    assert!(
        verdict(&waiting(&[]), None, true).is_err(),
        "it waits for nothing"
    );
}
