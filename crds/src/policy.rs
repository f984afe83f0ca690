//! Admission policies, as the documents that are applied: no webhook server.

use serde_json::{Value, json};

use crate::{GROUP, VERSION, names::FINALIZER};

/// The policy and binding that put the finalizer on at birth, which saves one write per object.
///
/// For servers that know `MutatingAdmissionPolicy` v1 (Kubernetes 1.36 and later); elsewhere the operator patches the
/// finalizer. It acts on UPDATE too: on CREATE alone the finalizer is lost when a client that applies or replaces the
/// object drops its own last one.
pub fn finalizer_policy() -> Vec<Value> {
    let name = "finalizer.shoal.storage";
    vec![
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingAdmissionPolicy",
            "metadata": {"name": name},
            "spec": {
                // A share that slips through is no harm: the operator patches what it finds without.
                "failurePolicy": "Ignore",
                "reinvocationPolicy": "Never",
                "matchConstraints": {
                    "resourceRules": [{
                        "apiGroups": [GROUP],
                        "apiVersions": [VERSION],
                        "operations": ["CREATE", "UPDATE"],
                        "resources": ["shares", "shareaccessrules"],
                    }],
                },
                "matchConditions": [
                    {"name": "lives", "expression": "!has(object.metadata.deletionTimestamp)"},
                    {
                        "name": "lacks-it",
                        "expression": format!(
                            "!has(object.metadata.finalizers) || !object.metadata.finalizers.exists(f, f == '{FINALIZER}')"
                        ),
                    },
                ],
                "mutations": [{
                    "patchType": "ApplyConfiguration",
                    "applyConfiguration": {
                        "expression": format!("Object{{metadata: Object.metadata{{finalizers: ['{FINALIZER}']}}}}"),
                    },
                }],
            },
        }),
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingAdmissionPolicyBinding",
            "metadata": {"name": name},
            "spec": {"policyName": name},
        }),
    ]
}
