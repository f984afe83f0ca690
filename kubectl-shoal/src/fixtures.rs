//! Objects for tests, as the API server gives them.

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use shoal_crds::{ResourceLock, Share, ShareAccessRule, ShareBackend, ShareDeletion};

pub(crate) const UID: &str = "8e665efb-12e1-4ae5-932d-b28f9580fcd7";
pub(crate) const RULE_UID: &str = "02a163aa-606f-4ad4-b861-cf120a771aa3";

/// Two minutes and five seconds after all objects were made.
pub(crate) fn now() -> Timestamp {
    "2026-11-29T08:02:05Z".parse().unwrap()
}

const MADE: &str = "2026-11-29T08:00:00Z";

fn read<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

pub(crate) fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": MADE})
}

/// A share that is Ready at this location, with what else is said of it.
pub(crate) fn share(protocol: &str, location: &str, change: impl FnOnce(&mut Value)) -> Share {
    let mut share = json!({
        "apiVersion": "shoal.storage/v1alpha1", "kind": "Share",
        "metadata": {"name": "documents", "namespace": "team-a", "uid": UID, "generation": 1, "creationTimestamp": MADE},
        "spec": {"protocol": protocol, "size": "1Gi"},
        "status": {
            "observedGeneration": 1, "phase": "Available", "shareTypeName": "standard", "backendName": "cephfs", "size": "1Gi",
            "conditions": [condition("Ready", "True", "Available", "it can be used")],
            "exportLocations": [{
                "id": "1", "path": location, "protocol": protocol, "preferred": true,
                "metadata": {"fsName": "cephfs", "cephFSID": "41d74bf7-c7dd-4c65-8847-8f6e343efd7d", "subvolumePath": "/volumes/x"},
            }],
        },
    });
    change(&mut share);
    read(share)
}

pub(crate) fn nfs() -> Share {
    share("NFS", &format!("192.0.2.11:/shoal-{UID}"), |_| {})
}

/// A rule in force.
pub(crate) fn rule(name: &str, spec: &Value) -> ShareAccessRule {
    rule_with(name, spec, &json!({"observedGeneration": 1, "phase": "Active"}))
}

pub(crate) fn rule_with(name: &str, spec: &Value, status: &Value) -> ShareAccessRule {
    let mut rule = json!({
        "apiVersion": "shoal.storage/v1alpha1", "kind": "ShareAccessRule",
        "metadata": {"name": name, "namespace": "team-a", "uid": RULE_UID, "generation": 1, "creationTimestamp": MADE},
        "spec": {"shareRef": {"name": "documents"}, "accessType": "IP"},
        "status": status,
    });
    for (key, value) in spec.as_object().unwrap() {
        rule["spec"][key] = value.clone();
    }
    read(rule)
}

pub(crate) fn lock(name: &str, kind: &str, resource: &str, owner: &str) -> ResourceLock {
    read(json!({
        "apiVersion": "shoal.storage/v1alpha1", "kind": "ResourceLock",
        "metadata": {"name": name, "namespace": "team-a", "creationTimestamp": MADE},
        "spec": {"resourceRef": {"kind": kind, "name": resource}, "owner": owner, "reason": "ask accounting"},
        "status": {"phase": "Enforced"},
    }))
}

/// With these fields of its spec, and in this phase.
pub(crate) fn deletion(spec: &Value, status: &Value) -> ShareDeletion {
    let mut deletion = json!({
        "apiVersion": "shoal.storage/v1alpha1", "kind": "ShareDeletion",
        "metadata": {"name": format!("shoal-{UID}"), "creationTimestamp": MADE},
        "spec": {
            "shareRef": {"namespace": "team-a", "namespaceUID": "n", "name": "documents", "uid": UID},
            "shareTypeName": "standard", "protocol": "NFS", "size": "50Gi", "backendName": "cephfs", "fsid": "f", "fsName": "cephfs",
            "fsID": 1, "handle": format!("shoal/shoal-{UID}"),
        },
        "status": status,
    });
    for (key, value) in spec.as_object().unwrap() {
        deletion["spec"][key] = value.clone();
    }
    read(deletion)
}

pub(crate) fn backend(spec: &Value, status: &Value) -> ShareBackend {
    read(json!({
        "apiVersion": "shoal.storage/v1alpha1", "kind": "ShareBackend",
        "metadata": {"name": "cephfs", "generation": 1, "creationTimestamp": MADE},
        "spec": spec, "status": status,
    }))
}
