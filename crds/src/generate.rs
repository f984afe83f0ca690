use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, JSON};
use kube::CustomResourceExt;
use serde_json::{Value, json};

use crate::{
    ResourceLock, Share, ShareAccessRule, ShareBackend, ShareDeletion, ShareQuota, ShareType, policy,
};

/// The definitions of every kind, ready to apply.
pub fn custom_resource_definitions() -> Vec<CustomResourceDefinition> {
    [
        ShareBackend::crd(),
        ShareType::crd(),
        Share::crd(),
        ShareAccessRule::crd(),
        ShareQuota::crd(),
        ShareDeletion::crd(),
        ResourceLock::crd(),
    ]
    .map(with_status_default)
    .into()
}

/// What goes into `crds/generated/`: file name, and the documents in it.
pub fn generated_files() -> Vec<(String, Vec<Value>)> {
    let mut files: Vec<_> = custom_resource_definitions()
        .into_iter()
        .map(|crd| {
            let name = format!("{}.yaml", crd.spec.names.plural);
            (
                name,
                vec![serde_json::to_value(crd).expect("a definition is JSON")],
            )
        })
        .collect();
    files.push(("ensuring-policies.yaml".into(), policy::ensuring_policies()));
    files.push(("finalizer-policy.yaml".into(), policy::finalizer_policy()));
    files.push(("lock-owner-policy.yaml".into(), policy::lock_owner_policy()));
    files.push(("lock-policies.yaml".into(), policy::lock_policies()));
    files.push(("verb-policies.yaml".into(), policy::verb_policies()));
    files
}

/// kstatus takes an object without status for ready; so a new object is born with one that answers no generation.
fn with_status_default(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        let status = version
            .schema
            .as_mut()
            .and_then(|validation| validation.open_api_v3_schema.as_mut())
            .and_then(|schema| schema.properties.as_mut())
            .and_then(|properties| properties.get_mut("status"));
        if let Some(status) = status {
            status.default = Some(JSON(match crd.spec.names.kind.as_str() {
                // Its share is its one writer, and may be busy.
                "ShareAccessRule" => json!({"observedGeneration": -1, "phase": "QueuedToApply"}),
                _ => json!({"observedGeneration": -1}),
            }));
        }
    }
    crd
}
