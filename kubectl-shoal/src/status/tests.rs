use serde_json::{Value, json};

use super::*;
use crate::{
    fixtures::{self, UID, condition, now, rule, rule_with},
    text::PLAIN,
};

fn page(share: Share) -> Page {
    Page {
        share,
        backend: None,
        rules: Ok(Vec::new()),
        locks: Ok(Vec::new()),
        deletions: None,
        events: Ok(Vec::new()),
    }
}

fn text(page: &Page) -> String {
    page.text(false, PLAIN, now())
}

fn changed(change: impl FnOnce(&mut Value)) -> Page {
    page(fixtures::share("NFS", "192.0.2.11:/x", change))
}

#[test]
fn a_share_that_is_ready_fits_on_one_page() {
    let mut page = page(fixtures::nfs());
    page.rules = Ok(vec![rule("office", &json!({"accessTo": "10.0.0.0/24"}))]);
    page.locks = Ok(vec![fixtures::lock("keep", "Share", "documents", "alice")]);
    page.deletions = Some(vec![fixtures::deletion(
        &json!({}),
        &json!({"phase": "Purging", "accessRevoked": true}),
    )]);
    assert_eq!(
        text(&page),
        format!(
            "Share documents in namespace team-a
  Phase      Available
  Ready      True, Available
  Size       1Gi
  Protocol   NFS
  Type       standard
  Backend    cephfs
  Mount      192.0.2.11:/shoal-{UID}
             kubectl shoal mount documents says how
  Age        2m5s

Access rules
  NAME     SHARE       TYPE   TO            LEVEL       PHASE    AGE    WHY
  office   documents   IP     10.0.0.0/24   ReadWrite   Active   2m5s   -

Locks
  NAME   HOLDS             OWNER   PHASE      AGE    REASON
  keep   Share documents   alice   Enforced   2m5s   ask accounting

Left of deleted shares of this name
  NAME                                         NAMESPACE   SHARE       SIZE   BACKEND   PHASE     REVOKED   AGE    WHAT STAYS
  shoal-{UID}   team-a      documents   50Gi   cephfs    Purging   true      2m5s   nothing, when it is done

Events: none
"
        )
    );
    assert_eq!(page.exit(), Exit::Done);
}

#[test]
fn a_share_that_is_not_ready_says_why() {
    let page = changed(|share| {
        share["status"] = json!({
            "observedGeneration": 1, "phase": "Pending",
            "conditions": [
                condition("Ready", "False", "NoBackendFits", "cephfs: takes no new shares (disks are being replaced)"),
                condition("Stalled", "True", "NoBackendFits", "see Scheduled"),
            ],
        });
    });
    let text = text(&page);
    for line in [
        "  Ready      False, NoBackendFits: cephfs: takes no new shares (disks are being replaced)",
        "  Stalled    NoBackendFits: see Scheduled",
        "  Size       1Gi is asked for",
        "  Type       not chosen yet",
        "  Backend    not chosen yet",
        "  Mount      nowhere yet",
        "Access rules: none, so nobody is let in; kubectl shoal access allow documents CLIENT",
    ] {
        assert!(text.lines().any(|said| said == line), "{line} is not in\n{text}");
    }
    assert_eq!(page.exit(), Exit::Refused);
}

#[test]
fn a_new_share_asks_for_the_operator() {
    let page = changed(|share| share["status"] = json!({"observedGeneration": -1}));
    assert!(text(&page).contains("is the operator running?"));
    assert_eq!(page.exit(), Exit::Refused);
}

#[test]
fn readiness_of_an_earlier_spec_is_none() {
    let page = changed(|share| share["metadata"]["generation"] = json!(2));
    assert!(text(&page).contains("True, Available (of an earlier spec)"));
    assert_eq!(page.exit(), Exit::Refused);
}

#[test]
fn what_is_going_on_is_said() {
    let page = changed(|share| {
        share["metadata"]["deletionTimestamp"] = json!("2026-11-29T08:02:00Z");
        share["spec"]["size"] = json!("2Gi");
        share["spec"]["deletionPolicy"] = json!("Retain");
        let conditions = share["status"]["conditions"].as_array_mut().unwrap();
        conditions.push(condition(
            "DeletionBlocked",
            "True",
            "Locked",
            "locked by ResourceLock 'keep'",
        ));
        conditions.push(condition(
            "Ensuring",
            "True",
            "Ensuring",
            "its export is being made again",
        ));
        conditions.push(condition("Paused", "True", "Paused", "by an admin"));
        conditions.push(condition("Reconciling", "True", "Resizing", "to 2Gi"));
    });
    let text = text(&page);
    for line in [
        "  Blocked    Locked: locked by ResourceLock 'keep'",
        "  Ensuring   Ensuring: its export is being made again",
        "  Paused     Paused: by an admin",
        "  Working    Resizing: to 2Gi",
        "  Deleted    5s ago, and not gone yet",
        "  Size       1Gi; 2Gi is asked for",
        "  Deletion   keeps the data until an admin says otherwise",
    ] {
        assert!(text.lines().any(|said| said == line), "{line} is not in\n{text}");
    }
}

#[test]
fn a_retention_is_said() {
    let page = changed(|share| share["status"]["capabilities"] = json!({"retention": "720h"}));
    assert!(
        text(&page).contains("Deletion   keeps the data for 720h"),
        "{}",
        text(&page)
    );
}

#[test]
fn a_backend_that_is_not_ready_says_why() {
    let mut page = page(fixtures::nfs());
    let status =
        json!({"conditions": [condition("Ready", "False", "BackendUnreachable", "no monitor answers")]});
    page.backend = Some(fixtures::backend(&json!({"simulated": {}}), &status));
    assert!(
        text(&page).contains("Backend    cephfs, which is not Ready: BackendUnreachable: no monitor answers")
    );
}

#[test]
fn all_locations_are_shown() {
    let page = changed(|share| {
        let locations = share["status"]["exportLocations"].as_array_mut().unwrap();
        let mut second = locations[0].clone();
        second["id"] = json!("2");
        second["path"] = json!("[fd00::11]:/x");
        locations.push(second);
    });
    assert!(text(&page).contains("  Mount      192.0.2.11:/x\n             [fd00::11]:/x\n"));
}

#[test]
fn a_rule_that_is_not_in_force_says_why() {
    let mut page = page(fixtures::nfs());
    let status = json!({"phase": "Error", "conditions": [condition("Ready", "False", "DuplicateRule", "'office' is older")]});
    page.rules = Ok(vec![rule_with("home", &json!({"accessTo": "10.0.0.1"}), &status)]);
    assert!(
        text(&page).contains("Error   2m5s   DuplicateRule: 'office' is older"),
        "{}",
        text(&page)
    );
}

#[test]
fn what_may_not_be_read_is_said_and_not_hidden() {
    let mut page = page(fixtures::nfs());
    page.locks = Err("resourcelocks: forbidden".into());
    assert!(text(&page).contains("Locks: not shown: resourcelocks: forbidden"));
    // Deletions are not for users, who need not be told.
    assert!(!text(&page).contains("deleted shares"));
}

#[test]
fn wide_has_every_condition() {
    let text = page(fixtures::nfs()).text(true, PLAIN, now());
    assert!(text.contains("Conditions\n  TYPE    STATUS   SINCE   REASON      MESSAGE\n  Ready   True     2m5s    Available   it can be used"), "{text}");
}

#[test]
fn the_objects_are_one_value_without_managers() {
    let mut page = changed(|share| share["metadata"]["managedFields"] = json!([{"manager": "shoal"}]));
    page.rules = Ok(vec![rule("office", &json!({"accessTo": "10.0.0.0/24"}))]);
    let value = page.value();
    assert_eq!(value["share"]["kind"], "Share");
    assert_eq!(value["accessRules"][0]["metadata"]["name"], "office");
    assert!(!value.to_string().contains("managedFields"));
}
