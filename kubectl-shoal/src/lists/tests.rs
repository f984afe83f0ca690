use serde_json::{Value, json};

use super::*;
use crate::fixtures::{self, RULE_UID, UID, condition, now, rule, rule_with};

fn last_row(table: &Table) -> String {
    table.lines().pop().unwrap()
}

/// A row's cell under this heading.
fn cell(table: &Table, heading: &str) -> String {
    let lines = table.lines();
    let at = lines[0].find(heading).unwrap();
    let rest: String = last_row(table).chars().skip(at).collect();
    rest.split("   ").next().unwrap().to_owned()
}

#[test]
fn what_is_stalled_is_told_before_what_is_not_ready() {
    let read = |values: Value| -> Vec<Condition> { serde_json::from_value(values).unwrap() };
    let ready = condition("Ready", "False", "Creating", "being created");
    let stalled = condition("Stalled", "True", "InvalidObject", "");
    assert_eq!(why(&read(json!([ready, stalled])), ""), "InvalidObject");
    assert_eq!(why(&read(json!([ready])), ""), "Creating: being created");
    assert_eq!(why(&[], "nothing is known"), "nothing is known");
}

#[test]
fn clients_are_shown_as_far_as_they_are_for_everybody() {
    for (spec, shown) in [
        (json!({"accessTo": "10.0.0.0/24"}), "10.0.0.0/24".to_owned()),
        (
            json!({"accessType": "CephX", "accessTo": "alice"}),
            "alice".to_owned(),
        ),
        (json!({"accessType": "CephX"}), format!("shoal-{RULE_UID}")),
        (
            json!({"accessToSecretRef": {"name": "hidden", "key": "to"}}),
            "Secret hidden".to_owned(),
        ),
    ] {
        assert_eq!(client(&rule("office", &spec)), shown);
    }
}

#[test]
fn a_level_that_is_not_in_force_yet_is_shown_beside_the_one_that_is() {
    let status = json!({"phase": "QueuedToUpdate", "appliedLevel": "ReadWrite"});
    let rule = rule_with(
        "office",
        &json!({"accessTo": "10.0.0.1", "accessLevel": "ReadOnly"}),
        &status,
    );
    assert_eq!(
        cell(&rules(&[rule], false, false, now()), "LEVEL"),
        "ReadOnly (now ReadWrite)"
    );
}

#[test]
fn rules_of_all_namespaces_and_their_secrets_have_columns() {
    let status = json!({"phase": "Active", "credentialsSecretRef": {"name": "office-cephx"}});
    let rule = rule_with(
        "office",
        &json!({"accessType": "CephX", "accessTo": "alice"}),
        &status,
    );
    let table = rules(std::slice::from_ref(&rule), true, true, now());
    assert_eq!(cell(&table, "NAMESPACE"), "team-a");
    assert_eq!(cell(&table, "SECRET"), "office-cephx");
    assert!(!rules(&[rule], false, false, now()).lines()[0].contains("NAMESPACE"));
}

#[test]
fn locks_say_what_they_hold_and_why() {
    let lock = fixtures::lock("keep", "ShareAccessRule", "office", "alice");
    let table = locks(&[lock], false, true, now());
    assert_eq!(cell(&table, "HOLDS"), "ShareAccessRule office");
    assert_eq!(cell(&table, "CONTEXT"), "User");
    assert_eq!(cell(&table, "REASON"), "ask accounting");
}

#[test]
fn a_deletion_says_what_stays() {
    let until = json!({"retainUntil": "2026-12-23T17:01:48Z"});
    let adopted = json!({"adoptedBy": {"namespace": "photos", "name": "originals", "uid": "u"}});
    for (spec, status, said) in [
        (
            json!({}),
            json!({"phase": "Accepted"}),
            "nothing, when it is done".to_owned(),
        ),
        (json!({}), json!({}), "nothing, when it is done".to_owned()),
        (
            json!({}),
            json!({"phase": "Purging"}),
            "nothing, when it is done".to_owned(),
        ),
        (
            until.clone(),
            json!({"phase": "Retained"}),
            "the data, until 2026-12-23T17:01:48Z".to_owned(),
        ),
        (
            json!({"deletionPolicy": "Retain"}),
            json!({"phase": "Retained"}),
            "the data, until spec.retainUntil is set".to_owned(),
        ),
        (
            json!({}),
            json!({"phase": "Abandoned"}),
            format!("all that is left, given up: shoal/shoal-{UID}"),
        ),
        (
            json!({}),
            json!({"phase": "Error", "lastError": "HasSnapshots: 'x'"}),
            "tried again: HasSnapshots: 'x'".to_owned(),
        ),
        (
            adopted,
            json!({"phase": "Retained"}),
            "the data, for Share photos/originals".to_owned(),
        ),
    ] {
        assert_eq!(what_stays(&fixtures::deletion(&spec, &status)), said);
    }
}

#[test]
fn deletions_show_handles_where_there_is_room() {
    let deletion = fixtures::deletion(&json!({}), &json!({"phase": "Retained"}));
    let table = deletions(std::slice::from_ref(&deletion), true, now());
    assert_eq!(cell(&table, "HANDLE"), format!("shoal/shoal-{UID}"));
    assert_eq!(cell(&table, "REVOKED"), "false");
    assert!(!deletions(&[deletion], false, now()).lines()[0].contains("HANDLE"));
}

fn backend(spec: &Value, conditions: &Value) -> ShareBackend {
    let status = json!({
        "phase": "Available", "conditions": conditions, "shares": 2, "pendingDeletions": 1, "protocols": ["NFS", "CephFS"],
        "capacity": {"total": "10Ti", "free": "9Ti", "provisioned": "1Ti"},
        "ceph": {"fsid": "f", "fsName": "cephfs", "fsID": 1, "version": "20.2.0", "monitors": []},
    });
    fixtures::backend(spec, &status)
}

#[test]
fn a_backend_shows_its_room_and_its_load() {
    let ready = json!([condition("Ready", "True", "Available", "")]);
    let table = backends(&[backend(&json!({"simulated": {}}), &ready)], true, now());
    for (heading, shown) in [
        ("READY", "True"),
        ("PROTOCOLS", "NFS,CephFS"),
        ("NEW SHARES", "yes"),
        ("SHARES   DEL", "2"),
        ("DELETIONS", "1"),
        ("FREE", "9Ti"),
        ("PROMISED", "1Ti"),
        ("FILE SYSTEM", "cephfs"),
        ("VERSION", "20.2.0"),
        ("WHY", "-"),
    ] {
        assert_eq!(cell(&table, heading), shown, "{heading}");
    }
}

#[test]
fn a_backend_says_why_it_is_not_as_it_should_be() {
    let ready = condition("Ready", "True", "Available", "");
    let disabled =
        json!({"simulated": {}, "schedulingEnabled": false, "disabledReason": "disks are being replaced"});
    for (spec, conditions, new, said) in [
        (
            json!({"simulated": {}}),
            json!([condition("Ready", "False", "BackendUnreachable", "no answer")]),
            "yes",
            "BackendUnreachable: no answer",
        ),
        (disabled, json!([ready]), "no", "disks are being replaced"),
        (
            json!({"simulated": {}, "paused": true}),
            json!([condition("Ready", "False", "BackendPaused", "")]),
            "paused",
            "BackendPaused",
        ),
        (
            json!({"simulated": {}}),
            json!([
                ready,
                condition("DeletionBlocked", "True", "HasShares", "2 shares")
            ]),
            "yes",
            "HasShares: 2 shares",
        ),
        (
            json!({"simulated": {}}),
            json!([ready, condition("Ensuring", "True", "Ensuring", "7 of 50")]),
            "yes",
            "Ensuring: 7 of 50",
        ),
    ] {
        let table = backends(&[backend(&spec, &conditions)], false, now());
        assert_eq!(
            (cell(&table, "NEW SHARES").as_str(), cell(&table, "WHY").as_str()),
            (new, said)
        );
    }
}

#[test]
fn events_say_when_how_often_and_about_what() {
    let event: Event = serde_json::from_value(json!({
        "metadata": {"name": "e"}, "type": "Warning", "reason": "NoBackendFits", "note": "cephfs:\nno room",
        "regarding": {"kind": "Share", "name": "documents"}, "eventTime": "2026-11-29T08:00:00.000000Z",
        "series": {"count": 3, "lastObservedTime": "2026-11-29T08:02:00.000000Z"},
    }))
    .unwrap();
    assert_eq!(
        last_row(&events(&[event], now())),
        "5s     Warning   NoBackendFits   Share documents   3 times: cephfs: no room"
    );
}

#[test]
fn names_stand_in_a_line() {
    assert_eq!(names::<ShareBackend>(&[]), "none");
    let rules = [
        rule("a", &json!({"accessTo": "10.0.0.1"})),
        rule("b", &json!({"accessTo": "10.0.0.1"})),
    ];
    assert_eq!(names(&rules), "a, b");
}

#[test]
fn what_would_be_changed() {
    let of = |differences: Value| {
        fixtures::share("NFS", "x", |share| share["status"]["differences"] = differences)
    };
    let lets_in = "rule 'laptop' lets its client in, ReadWrite: it is not let in now";
    let shares = [
        of(json!({"total": 3, "list": [lets_in, "its export is made"]})),
        of(json!({"total": 0})),
        fixtures::nfs(),
    ];
    let text = differences(&shares).text("");
    assert!(
        text.contains("team-a      documents   cephfs    rule 'laptop' lets"),
        "{text}"
    );
    assert!(text.contains("1 more") && text.lines().count() == 4, "{text}");
    let value = differences_value(&shares);
    assert_eq!(value["items"][0]["list"][0], lets_in);
    assert_eq!(
        value["items"].as_array().unwrap().len(),
        2,
        "each that was compared"
    );
    let dry_run = fixtures::backend(
        &json!({"simulated": {}, "dryRun": true}),
        &json!({"conditions": [condition("Ready", "False", "DryRun", "it is looked at")]}),
    );
    let notes = about_differences(std::slice::from_ref(&dry_run), &shares);
    assert_eq!(
        notes,
        ["sharebackend 'cephfs': 2 of 3 shares are compared; DryRun: it is looked at"]
    );
    let notes = about_differences(&[dry_run], &shares[..2]);
    assert_eq!(notes, ["sharebackend 'cephfs': 2 of 2 shares are compared"]);
    let notes = about_differences(&[], &shares);
    assert!(notes[0].contains("spec.dryRun"), "{notes:?}");
}

#[test]
fn what_no_object_owns() {
    let found = json!({"subvolumes": 101, "exports": 2, "list": [
        {"handle": "shoal/shoal-1", "owner": {"cluster": "c", "namespace": "n", "name": "s"}, "left": "Retained"},
        {"handle": "shoal/other"},
    ]});
    let simulated = json!({"simulated": {}});
    let backend = fixtures::backend(&simulated, &json!({"orphans": found}));
    let text = orphans(std::slice::from_ref(&backend)).text("");
    assert!(
        text.contains("shoal/shoal-1   c         n           s       Retained"),
        "{text}"
    );
    assert!(text.contains("shoal/other     -"), "{text}");
    let notes = about_orphans(&[backend.clone(), fixtures::backend(&simulated, &json!({}))]);
    assert_eq!(notes.len(), 3, "{notes:?}");
    assert!(notes[0].contains("first 2 of 101"), "{notes:?}");
    let value = orphans_value(&[backend]);
    assert_eq!(value["items"][0]["handle"], "shoal/shoal-1");
}
